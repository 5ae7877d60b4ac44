//! The same look-ups in maps one might have taken: `cargo bench -p benches`, beside `conntrack`.
//!
//! Each holds a copy of what a line says. All hash with ahash, keyed, as guests choose addresses.

use std::collections::HashMap;
use std::sync::{OnceLock, RwLock};

use benches::{BATCH, ENTRIES, absent, each_batch, present};
use conntrack::{FlowKey, Rewrite};
use dashmap::DashMap;
use divan::Bencher;

type Hasher = ahash::RandomState;

fn main() {
    divan::main();
}

/// A map filled once for each size.
macro_rules! filled {
    ($map:ty, $entries:expr, $make:expr) => {{
        static MAPS: [OnceLock<$map>; 3] = [const { OnceLock::new() }; 3];
        let which = ENTRIES.iter().position(|size| *size == $entries).expect("one of the sizes");
        MAPS[which].get_or_init($make)
    }};
}

fn locked(entries: u32) -> &'static RwLock<HashMap<FlowKey, Rewrite, Hasher>> {
    filled!(RwLock<HashMap<FlowKey, Rewrite, Hasher>>, entries, || {
        RwLock::new(present(entries).iter().map(|key| (*key, Rewrite::default())).collect())
    })
}

fn papaya(entries: u32) -> &'static papaya::HashMap<FlowKey, Rewrite, Hasher> {
    filled!(papaya::HashMap<FlowKey, Rewrite, Hasher>, entries, || {
        present(entries).iter().map(|key| (*key, Rewrite::default())).collect()
    })
}

fn dashed(entries: u32) -> &'static DashMap<FlowKey, Rewrite, Hasher> {
    filled!(DashMap<FlowKey, Rewrite, Hasher>, entries, || {
        present(entries).iter().map(|key| (*key, Rewrite::default())).collect()
    })
}

/// One look-up each; the lock is taken, or the guard made, once a packet.
fn sum(batch: &[FlowKey], find: impl Fn(&FlowKey) -> Option<u16>) -> u64 {
    debug_assert!(batch.len() == BATCH);
    batch.iter().filter_map(find).map(u64::from).sum()
}

fn in_locked(map: &RwLock<HashMap<FlowKey, Rewrite, Hasher>>, key: &FlowKey) -> Option<u16> {
    map.read().ok()?.get(key).map(|rewrite| rewrite.egress)
}

#[divan::bench(args = ENTRIES, sample_count = 1000, sample_size = 32)]
fn hit_rwlock_hashmap(bencher: Bencher<'_, '_>, entries: u32) {
    let map = locked(entries);
    each_batch(bencher, &present(entries), |batch| sum(batch, |key| in_locked(map, key)));
}

#[divan::bench(args = ENTRIES, sample_count = 1000, sample_size = 32)]
fn miss_rwlock_hashmap(bencher: Bencher<'_, '_>, entries: u32) {
    let map = locked(entries);
    each_batch(bencher, &absent(entries), |batch| sum(batch, |key| in_locked(map, key)));
}

#[divan::bench(args = ENTRIES, sample_count = 1000, sample_size = 32)]
fn hit_papaya(bencher: Bencher<'_, '_>, entries: u32) {
    let map = papaya(entries);
    let find = |key: &FlowKey| map.pin().get(key).map(|rewrite| rewrite.egress);
    each_batch(bencher, &present(entries), |batch| sum(batch, find));
}

#[divan::bench(args = ENTRIES, sample_count = 1000, sample_size = 32)]
fn miss_papaya(bencher: Bencher<'_, '_>, entries: u32) {
    let map = papaya(entries);
    let find = |key: &FlowKey| map.pin().get(key).map(|rewrite| rewrite.egress);
    each_batch(bencher, &absent(entries), |batch| sum(batch, find));
}

#[divan::bench(args = ENTRIES, sample_count = 1000, sample_size = 32)]
fn hit_dashmap(bencher: Bencher<'_, '_>, entries: u32) {
    let map = dashed(entries);
    let find = |key: &FlowKey| map.get(key).map(|rewrite| rewrite.egress);
    each_batch(bencher, &present(entries), |batch| sum(batch, find));
}

#[divan::bench(args = ENTRIES, sample_count = 1000, sample_size = 32)]
fn miss_dashmap(bencher: Bencher<'_, '_>, entries: u32) {
    let map = dashed(entries);
    let find = |key: &FlowKey| map.get(key).map(|rewrite| rewrite.egress);
    each_batch(bencher, &absent(entries), |batch| sum(batch, find));
}
