//! What the benchmarks share: keys as connections through source NAT have them, in random order.
//! The results are in `runs/`.
#![forbid(unsafe_code)]

mod bed;

pub use bed::Bed;

use conntrack::FlowKey;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};

/// Sizes: lines in use, two to a connection.
pub const ENTRIES: [u32; 3] = [16_384, 262_144, 1_048_576];
/// Flows looked up at a time.
pub const BATCH: usize = 32;

/// Scatters numbers: murmur3's finaliser.
#[must_use]
pub fn scatter(number: u32) -> u32 {
    let mut x = number;
    x = (x ^ x >> 16).wrapping_mul(0x85eb_ca6b);
    x = (x ^ x >> 13).wrapping_mul(0xc2b2_ae35);
    x ^ x >> 16
}

/// A connection through SNAT: what opens it, and its answers.
#[must_use]
pub fn keys(number: u32) -> [FlowKey; 2] {
    let [a, b, c, d] = scatter(number).to_ne_bytes();
    let remote = scatter(number ^ 0x5555_5555).to_ne_bytes();
    let sport = u16::from_ne_bytes([c, d]);
    let snat = 20_000 + (number % 26_000) as u16;
    [
        FlowKey::ipv4([10, 0, a, b], remote, sport, 443, 6, 5 + u16::from(a), 1),
        FlowKey::ipv4(remote, [91, 207, 15, 105], 443, snat, 6, 2, 0),
    ]
}

/// Keys that are in a table of that size, in random order.
#[must_use]
pub fn present(entries: u32) -> Vec<FlowKey> {
    let mut present: Vec<FlowKey> = (0..entries / 2).flat_map(keys).collect();
    present
        .sort_by_key(|key| scatter(u32::from(key.sport()) << 16 ^ u32::from_ne_bytes(key.src())));
    present
}

/// Keys that are in no table.
#[must_use]
pub fn absent(entries: u32) -> Vec<FlowKey> {
    (0..entries).map(|number| keys(number)[0].from_ingress(4000)).collect()
}

/// Looks up a batch after the other; `sum` depends on every path found.
pub fn each_batch(bencher: Bencher<'_, '_>, keys: &[FlowKey], find: impl Fn(&[FlowKey]) -> u64) {
    let mut batches = keys.chunks_exact(BATCH).cycle();
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        let batch = batches.next().expect("cycles");
        black_box(find(black_box(batch)))
    });
}
