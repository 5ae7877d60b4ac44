//! Millions of mutated packets through the translation: each has one verdict that is counted, and
//! a packet that leaves has checksums that are right exactly where they were right before.
//!
//! `PIPELINE_PACKETS` says how many [default: 3,000,000].
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::sync::atomic::Ordering::Relaxed;

use pipeline::{DropReason, Packet, Verdict};
use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};
use tables::PortId;
use testkit::seeds::{PORTS, Seed, checksums, mend, seeds, world};

const HEADROOM: usize = 64;
const CHUNK: usize = 2048;

fn packets() -> u64 {
    std::env::var("PIPELINE_PACKETS").map_or(3_000_000, |text| text.parse().unwrap())
}

/// Writes a mutated frame into `room`; its port and length.
fn mutated(rng: &mut TestRng, seeds: &[Seed], room: &mut [u8]) -> (u16, usize) {
    let (port, seed) = &seeds[rng.random_range(0..seeds.len())];
    let mut len = seed.len();
    room[..len].copy_from_slice(seed);
    let l3 = if seed[12..14] == [0x81, 0] { 18 } else { 14 };
    // Another port, so that connections are many, and now and then anything anywhere.
    let ports = l3 + 20;
    if rng.random_range(0..2) == 0 {
        let at = ports + rng.random_range(0..4);
        room[at] ^= rng.random_range(0..8u8);
    }
    for _ in 0..rng.random_range(0..4) {
        let at = rng.random_range(0..len.min(96));
        match rng.random_range(0..3) {
            0 => room[at] = rng.random(),
            1 => room[at] ^= 1 << rng.random_range(0..8u8),
            _ => room[l3 + rng.random_range(0..20)] ^= 1 << rng.random_range(0..8u8),
        }
    }
    if rng.random_range(0..16) == 0 {
        len = rng.random_range(0..=len);
    }
    if rng.random_range(0..2) == 0 {
        mend(&mut room[..len]);
    }
    (*port, len)
}

#[test]
fn what_leaves_has_right_checksums_where_it_had_them_and_every_verdict_is_counted() {
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, b"trunkline: translated or dropped");
    let (seeds, total) = (seeds(), packets());
    let mut world = world("fuzz");
    let node = &mut world.left;
    let mut chunks = vec![[0u8; CHUNK]; 32];
    let (mut sent, mut whole, mut broken) = (0u64, 0u64, 0u64);
    while sent < total {
        // Connections are forgotten meanwhile.
        node.now += u32::from(sent.is_multiple_of(3200));
        let mut before = Vec::with_capacity(chunks.len());
        let mut batch: Vec<Packet<'_>> = chunks
            .iter_mut()
            .map(|chunk| {
                let (port, len) = mutated(&mut rng, &seeds, &mut chunk[HEADROOM..]);
                before.push(checksums(&chunk[HEADROOM..HEADROOM + len]));
                Packet::new(chunk, HEADROOM, len, PortId::new(port).unwrap())
            })
            .collect();
        node.pipeline().forward(&mut batch);
        for (packet, before) in batch.iter().zip(before) {
            let verdict = packet.verdict.expect("every packet has a verdict");
            if !matches!(verdict, Verdict::Forward(_)) {
                continue;
            }
            let after = checksums(packet.bytes());
            assert_eq!(after, before, "{verdict:?}: {:02x?}", packet.bytes());
            match before {
                Some((true, Some(true))) => whole += 1,
                Some(_) => broken += 1,
                None => {}
            }
        }
        sent += batch.len() as u64;
        let _ = node.learner.notices().count();
    }
    let counters = &node.counters;
    let verdicts = node.verdicts();
    println!("{sent} packets: {whole} left whole, {broken} broken as they came; {verdicts:?}");
    assert_eq!(verdicts.iter().sum::<u64>(), sent);
    let by_reason = |port: PortId| -> u64 {
        let dropped = &counters.port(port).dropped;
        DropReason::ALL.iter().map(|reason| dropped[*reason as usize].load(Relaxed)).sum()
    };
    let dropped: u64 = PORTS.map(|port| by_reason(PortId::new(port).unwrap())).iter().sum();
    assert_eq!(dropped, verdicts[6], "every drop has its reason");
    assert!(whole > sent / 10 && broken > sent / 100, "{whole} {broken}");
}
