//! What a look-up in the connection table costs: `cargo bench -p benches --bench conntrack`.
//!
//! Flows are asked for in random order, the worst case for the caches. Every figure is for a
//! batch of 32 flows. "entries" are lines, two to a connection, in a table as large as
//! `Table::lines_for` makes it (24 to 48 % full).

use std::sync::OnceLock;

use benches::{BATCH, ENTRIES, absent, each_batch, keys, scatter};
use conntrack::{FlowKey, NewLine, Rewrite, Table, layout};
use divan::Bencher;

fn main() {
    divan::main();
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
