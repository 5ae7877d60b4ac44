//! Threads without a schedule: what loom proves for small tables, tried on real cores.
#![allow(clippy::unwrap_used)] // tests

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use conntrack::{FlowKey, InstallError, Installed, NewLine, Rewrite, Table, layout};

fn key(number: u16) -> FlowKey {
    FlowKey::ipv4([10, 0, 0, 3], [10, 0, 0, 4], number, 53, 17, 7, 1)
}

/// A rewrite of which every field names its flow, and how often that was installed.
fn rewrite(number: u16, time: u16) -> Rewrite {
    let [a, b] = number.to_ne_bytes();
    let [c, d] = time.to_ne_bytes();
    Rewrite {
        source: [a, b, c, d],
        destination: [c, d, a, b],
        source_mac: [0; 6],
        source_port: number,
        destination_port: time,
        egress: number & 0xfff,
        segment: time & 0xfff,
        vlan: time & 0xfff,
        destination_mac: [a, b, c, d, a, b],
        flags: layout::PATH_KNOWN,
    }
}

/// A writer that never rests recycles and rewrites the lines of two readers.
#[test]
fn no_read_is_torn_by_a_writer_that_never_rests() {
    const FLOWS: u16 = 16;
    const READS: u64 = 10_000_000;
    let limit = Instant::now() + Duration::from_secs(60);
    let table = Table::in_memory(64, 11);
    let (stop, hits) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut writes = 0u64;
            while !stop.load(Ordering::Relaxed) {
                let (number, time) = (writes as u16 % FLOWS, (writes >> 8) as u16);
                let there = NewLine { key: key(number), rewrite: rewrite(number, time) };
                let back = NewLine { key: key(number).reversed(8, 1), rewrite: there.rewrite };
                match table.install(&there, &back, time.into(), 1) {
                    Ok(Installed::New { original, .. }) if writes.is_multiple_of(3) => {
                        let next = time.wrapping_add(1);
                        let again = table.set_path(&original, &rewrite(number, next), next.into());
                        assert!(again.is_some());
                    }
                    Ok(Installed::New { .. }) => {}
                    Ok(Installed::Existing(flow)) => assert!(table.remove(&flow)),
                    Err(why) => panic!("{why}"),
                }
                writes += 1;
            }
            writes
        });
        let readers = [1u64, 2].map(|salt| {
            let (table, hits) = (&table, &hits);
            scope.spawn(move || {
                let mut found = 0;
                for read in 0..READS / 2 {
                    if read.is_multiple_of(65_536) && Instant::now() > limit {
                        break;
                    }
                    let number = (read.wrapping_mul(salt * 7 + 2) >> 1) as u16 % FLOWS;
                    let key = key(number);
                    let Some(flow) = table.find(key, table.hash(key)) else { continue };
                    found += 1;
                    let time = flow.stamp() as u16;
                    assert_eq!(flow.key(), key);
                    assert_eq!(flow.rewrite(), rewrite(number, time));
                    if read.is_multiple_of(64) {
                        table.touch(&flow, 2, layout::FIN);
                    }
                }
                hits.fetch_add(found, Ordering::Relaxed);
            })
        });
        let torn = readers.map(thread::ScopedJoinHandle::join).iter().any(Result::is_err);
        stop.store(true, Ordering::Relaxed);
        let writes = writer.join().unwrap();
        let hits = hits.load(Ordering::Relaxed);
        println!("{READS} reads, {hits} hits, {writes} writes");
        assert!(!torn);
        assert!(hits > READS / 20 && writes > 100_000, "the threads hardly met");
    });
}

/// Whose turn it is. A thread that panics goes on to the end, so that nobody waits for it.
struct Turn<'a>(&'a AtomicU64);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1 << 32, Ordering::AcqRel);
    }
}

/// Waits on the processor, but not for long: the other thread may need this very one.
fn wait_until(condition: impl Fn() -> bool) {
    let mut spins = 0;
    while !condition() {
        spins += 1;
        if spins < 1000 { std::hint::spin_loop() } else { thread::yield_now() }
    }
}

/// Two installers in lock step, each time with one key; the trial of a mere compare-and-swap on a
/// free line left two live lines for 78 % of them.
#[test]
fn two_installers_of_each_of_100_000_keys_never_make_two_lines() {
    const KEYS: u32 = 100_000;
    let table = Table::in_memory(Table::lines_for(KEYS as usize), 12);
    let (start, made) = (Barrier::new(2), Mutex::new([0u32; 3]));
    let turns = AtomicU64::new(0);
    thread::scope(|scope| {
        for me in 0..2u64 {
            let (table, start, made, turn) = (&table, &start, &made, Turn(&turns));
            scope.spawn(move || {
                let mut counts = [0; 3];
                start.wait();
                for number in 0..KEYS {
                    // Both begin a key at the same moment: who comes second lets the first go.
                    turn.0.fetch_add(1, Ordering::AcqRel);
                    wait_until(|| turn.0.load(Ordering::Acquire) >= u64::from(number + 1) * 2);
                    let octets = number.to_be_bytes();
                    let ask = FlowKey::ipv4(
                        [10, octets[1], octets[2], octets[3]],
                        [8; 4],
                        1,
                        2,
                        17,
                        7,
                        1,
                    );
                    // Each would translate to a port of its own.
                    let port = 20_000 + me as u16;
                    let reply = FlowKey::ipv4(
                        [8; 4],
                        [10, octets[1], octets[2], octets[3]],
                        2,
                        port,
                        17,
                        2,
                        0,
                    );
                    let line = |key| NewLine { key, rewrite: Rewrite::default() };
                    loop {
                        match table.install(&line(ask), &line(reply), 1, 1) {
                            Ok(Installed::New { .. }) => counts[0] += 1,
                            Ok(Installed::Existing(flow)) => {
                                assert_eq!(flow.key(), ask);
                                counts[1] += 1;
                            }
                            // The other lost its processor.
                            Err(InstallError::Contended) => {
                                counts[2] += 1;
                                thread::yield_now();
                                continue;
                            }
                            Err(why) => panic!("{why}"),
                        }
                        break;
                    }
                }
                let mut made = made.lock().unwrap();
                *made = std::array::from_fn(|i| made[i] + counts[i]);
            });
        }
    });
    let [new, existing, contended] = *made.lock().unwrap();
    println!("{new} new, {existing} existing, {contended} contended");
    assert_eq!((new, existing), (KEYS, KEYS));
    let occupancy = table.occupancy();
    assert_eq!((occupancy.live, occupancy.passing), (KEYS * 2, 0));
}
