//! What the workers' pipeline costs in memory: `cargo bench -p benches --bench pipeline`.
//!
//! UDP datagrams of 60 bytes through source NAT, each of another connection, in random order and
//! in batches of 32. "entries" are lines, two to a connection. A hit is replayed; a miss is a
//! connection's first packet, decided from all tables and installed. `copied` is what the
//! benchmark itself adds to each: a fresh packet. `stage_…` are parts of a hit on their own; what
//! is between them is admission: port, segment, addresses, key.

use std::cell::RefCell;

use benches::{BATCH, Bed, ENTRIES};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use wire::rewrite;

fn main() {
    divan::main();
}

thread_local! {
    /// The bed of the size asked for last: the largest takes a quarter of a GB.
    static BED: RefCell<Option<(u32, Bed)>> = const { RefCell::new(None) };
}

fn with_bed(entries: u32, work: impl FnOnce(&mut Bed)) {
    BED.with_borrow_mut(|slot| {
        if slot.as_ref().is_none_or(|(size, _)| *size != entries) {
            *slot = None;
            *slot = Some((entries, Bed::with(entries)));
        }
        work(&mut slot.as_mut().expect("just made").1);
    });
}

#[divan::bench(args = ENTRIES, sample_count = 1000, sample_size = 32)]
fn hit(bencher: Bencher<'_, '_>, entries: u32) {
    with_bed(entries, |bed| {
        bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
            let known = bed.known();
            bed.forward(known)
        });
    });
}

#[divan::bench(args = ENTRIES, sample_count = 200, sample_size = 8)]
fn miss(bencher: Bencher<'_, '_>, entries: u32) {
    with_bed(entries, |bed| {
        bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
            let new = bed.new_ones();
            bed.forward(new)
        });
    });
}

#[divan::bench(sample_count = 1000, sample_size = 32)]
fn copied(bencher: Bencher<'_, '_>) {
    with_bed(ENTRIES[0], |bed| {
        bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
            let known = bed.known();
            black_box(bed.fill(known));
        });
    });
}

#[divan::bench(sample_count = 1000, sample_size = 32)]
fn stage_read_headers(bencher: Bencher<'_, '_>) {
    with_bed(ENTRIES[0], |bed| {
        let known = bed.known();
        bed.fill(known);
        bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
            let read = |frame: &[u8]| wire::parse(black_box(frame)).map(|headers| headers.l3);
            bed.frames().map(read).filter(Result::is_ok).count()
        });
    });
}

#[divan::bench(args = ENTRIES, sample_count = 1000, sample_size = 32)]
fn stage_look_up(bencher: Bencher<'_, '_>, entries: u32) {
    with_bed(entries, |bed| {
        bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
            let known = bed.known();
            black_box(bed.look_up(known))
        });
    });
}

#[divan::bench(sample_count = 1000, sample_size = 32)]
fn stage_rewrite(bencher: Bencher<'_, '_>) {
    let to = rewrite::Translation { source: [91, 207, 15, 105], ..Default::default() };
    with_bed(ENTRIES[0], |bed| {
        let known = bed.known();
        bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
            bed.fill(known);
            for frame in bed.frames_mut() {
                let done = rewrite::translate(frame, 14, black_box(&to));
                black_box(done.is_ok());
                rewrite::decrement_ttl(frame, 14);
                rewrite::set_macs(frame, wire::MacAddr([2; 6]), wire::MacAddr([4; 6]));
            }
        });
    });
}
