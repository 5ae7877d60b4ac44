//! What a look-up in the connection table costs: `cargo bench -p benches --bench conntrack`.
//!
//! Flows are asked for in random order, the worst case for the caches. Every figure is for a
//! batch of 32 flows. "entries" are lines, two to a connection, in a table as large as
//! `Table::lines_for` makes it (24 to 48 % full).

use std::sync::OnceLock;

use conntrack::{FlowKey, NewLine, Rewrite, Table, layout};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};

const ENTRIES: [u32; 3] = [16_384, 262_144, 1_048_576];
const BATCH: usize = 32;

fn main() {
    divan::main();
}

/// Scatters numbers: murmur3's finaliser.
fn scatter(number: u32) -> u32 {
    let mut x = number;
    x = (x ^ x >> 16).wrapping_mul(0x85eb_ca6b);
    x = (x ^ x >> 13).wrapping_mul(0xc2b2_ae35);
    x ^ x >> 16
}

/// A connection through SNAT: what opens it, and its answers.
fn keys(number: u32) -> [FlowKey; 2] {
    let [a, b, c, d] = scatter(number).to_ne_bytes();
    let remote = scatter(number ^ 0x5555_5555).to_ne_bytes();
    let sport = u16::from_ne_bytes([c, d]);
    let snat = 20_000 + (number % 26_000) as u16;
    [
        FlowKey::ipv4([10, 0, a, b], remote, sport, 443, 6, 5 + u16::from(a), 1),
        FlowKey::ipv4(remote, [91, 207, 15, 105], 443, snat, 6, 2, 0),
    ]
}

/// A filled table and the keys in it, in random order, made once for each size.
fn filled(entries: u32) -> &'static (Table, Vec<FlowKey>) {
    static TABLES: [OnceLock<(Table, Vec<FlowKey>)>; 3] = [const { OnceLock::new() }; 3];
    let which = ENTRIES.iter().position(|size| *size == entries).expect("one of the sizes");
    TABLES[which].get_or_init(|| {
        let connections = entries / 2;
        let table = Table::in_memory(Table::lines_for(connections as usize), 0x1234_5678_9abc_def1);
        let mut present = Vec::new();
        for number in 0..connections {
            let line = |key| NewLine {
                key,
                rewrite: Rewrite { flags: layout::PATH_KNOWN, ..Rewrite::default() },
            };
            let [there, back] = keys(number);
            if table.install(&line(there), &line(back), 1, 1).is_ok() {
                present.extend([there, back]);
            }
        }
        present.sort_by_key(|key| scatter(table.hash(*key) as u32));
        (table, present)
    })
}

/// Keys that are in no table.
fn absent(entries: u32) -> Vec<FlowKey> {
    (0..entries).map(|number| keys(number)[0].from_ingress(4000)).collect()
}

/// Looks up a batch after the other; `sum` depends on every path found.
fn each_batch(bencher: Bencher<'_, '_>, keys: &[FlowKey], find: impl Fn(&[FlowKey]) -> u64) {
    let mut batches = keys.chunks_exact(BATCH).cycle();
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        let batch = batches.next().expect("cycles");
        black_box(find(black_box(batch)))
    });
}

fn one_at_a_time(table: &Table, batch: &[FlowKey]) -> u64 {
    let mut sum = 0;
    for key in batch {
        if let Some(flow) = table.find(*key, table.hash(*key)) {
            sum += u64::from(flow.egress()) + u64::from(flow.stamp());
        }
    }
    sum
}

fn prefetched(table: &Table, batch: &[FlowKey]) -> u64 {
    let mut hashes = [0; BATCH];
    for (hash, key) in hashes.iter_mut().zip(batch) {
        *hash = table.hash(*key);
        table.prefetch(*hash);
    }
    let mut sum = 0;
    for (hash, key) in hashes.iter().zip(batch) {
        if let Some(flow) = table.find(*key, *hash) {
            sum += u64::from(flow.egress()) + u64::from(flow.stamp());
        }
    }
    sum
}

#[divan::bench(args = ENTRIES, sample_count = 1000, sample_size = 32)]
fn hit_one_at_a_time(bencher: Bencher<'_, '_>, entries: u32) {
    let (table, keys) = filled(entries);
    each_batch(bencher, keys, |batch| one_at_a_time(table, batch));
}

#[divan::bench(args = ENTRIES, sample_count = 1000, sample_size = 32)]
fn hit_prefetched(bencher: Bencher<'_, '_>, entries: u32) {
    let (table, keys) = filled(entries);
    each_batch(bencher, keys, |batch| prefetched(table, batch));
}

#[divan::bench(args = ENTRIES, sample_count = 1000, sample_size = 32)]
fn miss_one_at_a_time(bencher: Bencher<'_, '_>, entries: u32) {
    let (table, _) = filled(entries);
    each_batch(bencher, &absent(entries), |batch| one_at_a_time(table, batch));
}

#[divan::bench(args = ENTRIES, sample_count = 1000, sample_size = 32)]
fn miss_prefetched(bencher: Bencher<'_, '_>, entries: u32) {
    let (table, _) = filled(entries);
    each_batch(bencher, &absent(entries), |batch| prefetched(table, batch));
}
