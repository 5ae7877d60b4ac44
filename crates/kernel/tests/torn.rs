//! The kernel's programs reading lines that a writer rewrites and recycles without a rest.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)] // tests

mod common;

use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};

use common::run::{frame, run_times};
use common::traced::Traced;
use conntrack::layout::PATH_KNOWN;
use conntrack::{FlowKey, Installed, NewLine, Rewrite, Table};
use kernel::{PortKind, SegmentEntry, Settings};

const READS: u32 = 60_000_000;
const AT_ONCE: u32 = 1_000_000;
const NIC: u16 = 5;

/// Lines whose words 3, 5 and 6 all say the same number.
fn line(key: FlowKey, number: u32) -> NewLine {
    let [a, b, c, d] = number.to_ne_bytes();
    let rewrite = Rewrite {
        source: [a, b, c, d],
        destination: [a, b, c, d],
        egress: NIC,
        destination_mac: [a, b, c, d, 0, 0],
        flags: PATH_KNOWN,
        ..Rewrite::default()
    };
    NewLine { key, rewrite }
}

/// Opens, changes and removes connections of eight keys in a table of two homes.
fn write(table: &Table, stop: &AtomicBool) -> u32 {
    let mut number = 1;
    while !stop.load(Ordering::Relaxed) {
        let port = 5000 + (number / 2 % 4) as u16;
        let key = FlowKey::ipv4([10, 0, 0, 1], [10, 0, 0, 2], port, 53, 17, NIC, 1);
        let (there, back) = (line(key, number), line(key.reversed(9, 1), number));
        match table.install(&there, &back, number, 1).unwrap() {
            Installed::New { original, .. } => {
                let next = line(key, number + 1);
                assert!(table.set_path(&original, &next.rewrite, number + 1).is_some());
            }
            Installed::Existing(flow) => assert!(table.remove(&flow)),
        }
        number += 2;
    }
    number
}

#[test]
fn no_read_by_xdp_or_tc_is_torn() {
    common::enter_netns();
    let settings = Settings { lines: 16, hash_key: 7, tcx: true, replays: true, continues: None };
    let mut node = Traced::start("torn", settings);
    let kernel = node.node.kernel();
    kernel.set_segment(1, &SegmentEntry { zone: 1, ..SegmentEntry::default() }).unwrap();
    // A miss on a NIC leaves the frame as it is for the next run.
    kernel.set_port(&common::port(NIC, 1, PortKind::Trunk)).unwrap();
    kernel.set_vlan(NIC, 0, 1).unwrap();
    node.be_on(NIC);
    // UDP 10.0.0.1:5000 → 10.0.0.2:53, 60 bytes.
    let mut packet = frame(&[]);
    packet[34..38].copy_from_slice(&[0x13, 0x88, 0, 53]);
    packet[38..40].copy_from_slice(&26u16.to_be_bytes());

    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let table = Table::new(node.node.kernel().lines(), settings.hash_key);
        let writer = scope.spawn({
            let stop = &stop;
            move || write(&table, stop)
        });
        let mut seen = Vec::new();
        for program in [&node.xdp.try_clone().unwrap(), &node.tc.try_clone().unwrap()] {
            node.begin(0);
            for _ in 0..READS / AT_ONCE {
                run_times(program.as_fd(), &packet, AT_ONCE);
            }
            seen.push(node.trace());
        }
        stop.store(true, Ordering::Relaxed);
        let written = writer.join().unwrap();
        println!("{written} numbers written; xdp {:?}; tc {:?}", seen[0], seen[1]);
        assert!(written > 1_000_000, "the writer rested");
        for trace in seen {
            assert_eq!(trace.torn, 0);
            assert!(trace.reads > u64::from(READS) / 4, "the programs hardly met the line");
        }
    });
}
