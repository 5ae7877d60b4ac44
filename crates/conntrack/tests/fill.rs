//! How full a table may be before it refuses connections.
#![allow(clippy::unwrap_used)] // tests

use conntrack::{FlowKey, InstallError, NewLine, Rewrite, Table};

/// Fills a table to at most 48 % with the keys of these numbers; how many it refused.
fn refused(hash_key: u64, connections: u32, key: impl Fn(u32) -> [FlowKey; 2]) -> u32 {
    let table = Table::in_memory(Table::lines_for(connections as usize), hash_key);
    let mut refused = 0;
    for number in 0..connections {
        let [original, reply] = key(number).map(|key| NewLine { key, rewrite: Rewrite::default() });
        match table.install(&original, &reply, 1, 1) {
            Ok(_) => {}
            Err(InstallError::Full) => refused += 1,
            Err(why) => panic!("{why}: {original:?}"),
        }
    }
    assert_eq!(table.occupancy().live, (connections - refused) * 2);
    refused
}

/// Scatters numbers: murmur3's finaliser.
fn scatter(number: u32) -> u32 {
    let mut x = number;
    x = (x ^ x >> 16).wrapping_mul(0x85eb_ca6b);
    x = (x ^ x >> 13).wrapping_mul(0xc2b2_ae35);
    x ^ x >> 16
}

#[test]
fn a_table_filled_to_48_percent_refuses_less_than_one_in_10_000() {
    // As many as 2^18 lines take: the last of them arrive at 48 %.
    let connections = (1 << 18) * 48 / 200;
    let rounds = 10;
    let refused: u32 = (0..rounds)
        .map(|round| {
            refused(0x9e37_79b9 << round, connections, |number| {
                let from = scatter(number + round * connections);
                let original = FlowKey::ipv4(
                    [10, 0, (from >> 8) as u8 & 15, from as u8],
                    scatter(from).to_ne_bytes(),
                    (from >> 16) as u16,
                    443,
                    6,
                    (from & 0xfff) as u16,
                    1,
                );
                let reply = FlowKey::ipv4(
                    original.dst(),
                    [91, 207, 15, 105],
                    443,
                    20000 + (number % 26000) as u16,
                    6,
                    2,
                    0,
                );
                [original, reply]
            })
        })
        .sum();
    let connections = connections * rounds;
    println!("{refused} of {connections} connections refused");
    assert!(f64::from(refused) <= f64::from(connections) * 1e-4);
}

/// On a node nearly all keys differ in few fields; those must reach the choice of both homes.
#[test]
fn keys_that_differ_in_one_field_alone_fill_a_table_as_well() {
    const A: [u8; 4] = [10, 0, 0, 3];
    const B: [u8; 4] = [10, 0, 0, 4];
    type Key = fn(u16) -> FlowKey;
    let kinds: [(&str, Key); 8] = [
        ("source port", |n| FlowKey::ipv4(A, B, n, 80, 6, 1, 1)),
        ("destination port", |n| FlowKey::ipv4(A, B, 80, n, 6, 1, 1)),
        ("source", |n| FlowKey::ipv4([10, 0, (n >> 8) as u8, n as u8], B, 1, 80, 6, 1, 1)),
        ("destination", |n| FlowKey::ipv4(A, [10, 0, (n >> 8) as u8, n as u8], 1, 80, 6, 1, 1)),
        ("ingress", |n| FlowKey::ipv4(A, B, 1, 80, 6, n, 1)),
        ("zone", |n| FlowKey::ipv4(A, B, 1, 80, 6, 1, n)),
        ("echo id", |n| FlowKey::echo(A, B, n, true, 1, 1)),
        ("destination MAC", |n| {
            FlowKey::l2([2, 0, 0, 0, (n >> 8) as u8, n as u8], [2; 6], 0x86dd, 1, 1)
        }),
    ];
    let (connections, rounds) = (1966, 32);
    for (kind, key) in kinds {
        // Both directions are of the kind: the second half of the numbers are the replies'.
        let refused: u32 = (0..rounds)
            .map(|round| {
                refused(scatter(round).into(), connections, |n| {
                    [n, n + 1966].map(|n| key(n as u16))
                })
            })
            .sum();
        println!("{kind}: {refused} of {} refused", connections * rounds);
        assert!(refused * 1000 <= connections * rounds, "{kind}");
    }
}
