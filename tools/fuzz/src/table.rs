//! A connection table as somebody left it: whatever its lines say, it is taken over without harm,
//! and what is live in it afterwards holds together.

use conntrack::{FlowKey, NewLine, Rewrite, Table};

const LINES: usize = 64;

pub(crate) fn run(bytes: &[u8]) {
    let table = Table::in_memory(LINES, 0x5eed);
    // Some connections, so that lines are in every state that is reached from a live one.
    for (number, chunk) in bytes.chunks(8).take(32).enumerate() {
        let byte = |at: usize| chunk.get(at).copied().unwrap_or_default();
        let (source, destination) = ([10, 0, 0, byte(0)], [10, 0, 1, byte(1)]);
        let (sport, dport) = (u16::from(byte(2)), u16::from(byte(3)));
        let key = FlowKey::ipv4(source, destination, sport, dport, 17, 11, 1);
        let back = FlowKey::ipv4(destination, source, dport, sport, 17, 12, 1);
        let rewrite = Rewrite { egress: 12, ..Rewrite::default() };
        let original = NewLine { key, rewrite };
        let reply = NewLine { key: back, rewrite: Rewrite { egress: 11, ..rewrite } };
        let (stamp, now) = (u32::from(byte(4)), number as u32);
        let _ = table.install(&original, &reply, stamp, now);
        if let Some(found) = table.find(key, table.hash(key)) {
            assert_eq!(found.key(), key);
            table.touch(&found, now, u16::from(byte(5)));
            if byte(6) & 3 == 0 {
                table.remove(&found);
            }
        }
    }
    let before = table.live().count();
    table.adopt();
    let live: Vec<_> = table.live().collect();
    assert_eq!(live.len(), before, "nothing that was whole is lost");
    for flow in live {
        let partner = table.at(flow.partner()).expect("a direction has its other one");
        assert_ne!(partner.key(), flow.key());
        assert_eq!(table.at(partner.partner()).map(|own| own.key()), Some(flow.key()));
    }
    let other = Table::in_memory(LINES * 2, 0x0dd);
    other.take_over(&table);
    assert!(other.live().count() <= before);
}
