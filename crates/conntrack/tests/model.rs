//! The table against a map that does the same in the plainest way.
#![allow(clippy::unwrap_used)] // tests

use std::collections::HashMap;

use conntrack::{
    Cursor, Event, Flow, FlowKey, InstallError, Installed, Mark, NewLine, Revoked, Rewrite, Table,
    Timeouts, layout,
};
use proptest::prelude::*;

const KEYS: usize = 20;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A connection between any two keys, so that its replies' may be somebody's already.
    Install {
        original: usize,
        reply: usize,
        mark: u16,
    },
    Find {
        key: usize,
    },
    Touch {
        key: usize,
        bits: u16,
    },
    SetPath {
        key: usize,
        mark: u16,
    },
    Remove {
        key: usize,
    },
    /// All flows that leave by this port.
    Revoke {
        egress: u16,
        mark: Mark,
    },
    Wait {
        seconds: u32,
    },
}

/// One direction, as the map has it.
#[derive(Clone, Copy, Debug)]
struct Direction {
    other: usize,
    is_reply: bool,
    rewrite: Rewrite,
    stamp: u32,
    last_seen: u32,
    bits: u16,
}

fn key(index: usize) -> FlowKey {
    let number = index as u16;
    match index % 4 {
        0 => FlowKey::ipv4([10, 0, 0, 3], [8, 8, 8, 8], number, 443, 6, 7, 1),
        1 => FlowKey::ipv4([8, 8, 8, 8], [9, 9, 9, 9], 53, number, 17, 2, 0),
        2 => FlowKey::echo([10, 0, 0, 3], [8, 8, 8, 8], number, true, 7, 1),
        _ => FlowKey::l2([2, 0, 0, 0, 0, number as u8], [2, 0, 0, 0, 1, 1], 0x86dd, 7, 100),
    }
}

fn rewrite(key: FlowKey, mark: u16) -> Rewrite {
    let flags = layout::PATH_KNOWN | if key.is_l2() { layout::L2 } else { layout::REWRITES };
    let address = if key.is_l2() { [0; 4] } else { [mark as u8; 4] };
    let source_mac = if key.is_l2() { [mark as u8; 6] } else { [0; 6] };
    Rewrite {
        source: address,
        destination: address,
        source_mac,
        source_port: mark,
        destination_port: !mark,
        egress: mark % 4 + 1,
        segment: mark & 0xfff,
        vlan: !mark & 0xfff,
        destination_mac: [mark as u8; 6],
        flags,
    }
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS;
    let mark = prop_oneof![Just(Mark::ForgetPath), Just(Mark::AskAgain), Just(Mark::Remove)];
    prop_oneof![
        8 => (key.clone(), key.clone(), any::<u16>())
            .prop_map(|(original, reply, mark)| Step::Install { original, reply, mark }),
        4 => key.clone().prop_map(|key| Step::Find { key }),
        4 => (key.clone(), prop_oneof![Just(0), Just(layout::FIN)])
            .prop_map(|(key, bits)| Step::Touch { key, bits }),
        3 => (key.clone(), any::<u16>()).prop_map(|(key, mark)| Step::SetPath { key, mark }),
        2 => key.prop_map(|key| Step::Remove { key }),
        1 => (1u16..5, mark).prop_map(|(egress, mark)| Step::Revoke { egress, mark }),
        3 => prop_oneof![0u32..70, 0u32..400, 7000u32..8000]
            .prop_map(|seconds| Step::Wait { seconds }),
    ]
}

/// Table and map, side by side.
struct Pair {
    table: Table,
    map: HashMap<usize, Direction>,
    cursor: Cursor,
    now: u32,
    stamp: u32,
}

impl Pair {
    fn new() -> Pair {
        let table = Table::in_memory(128, 13);
        // The clock wraps within the test.
        let now = u32::MAX - 5000;
        let cursor = Cursor::new(&table, 0, 1, now);
        Pair { table, map: HashMap::new(), cursor, now, stamp: 100 }
    }

    fn find(&self, index: usize) -> Option<Flow> {
        self.table.find(key(index), self.table.hash(key(index)))
    }

    fn apply(&mut self, step: Step) {
        self.stamp += 1;
        match step {
            Step::Install { original, reply, mark } => self.install(original, reply, mark),
            Step::Find { key } => assert_eq!(self.find(key).is_some(), self.map.contains_key(&key)),
            Step::Touch { key, bits } => {
                if let Some(flow) = self.find(key) {
                    self.table.touch(&flow, self.now, bits);
                    let direction = self.map.get_mut(&key).unwrap();
                    direction.last_seen = self.now;
                    direction.bits |= layout::SEEN | bits;
                }
            }
            Step::SetPath { key: index, mark } => {
                let Some(flow) = self.find(index) else { return };
                let rewrite = rewrite(key(index), mark);
                let changed = self.table.set_path(&flow, &rewrite, self.stamp).unwrap();
                assert_eq!(Some(changed), self.find(index));
                assert!(self.table.set_path(&flow, &rewrite, 0).is_none(), "an old handle");
                let direction = self.map.get_mut(&index).unwrap();
                (direction.rewrite, direction.stamp) = (rewrite, self.stamp);
            }
            Step::Remove { key } => {
                let Some(flow) = self.find(key) else { return };
                assert!(self.table.remove(&flow));
                assert!(!self.table.remove(&flow));
                let direction = self.map.remove(&key).unwrap();
                self.map.remove(&direction.other).unwrap();
            }
            Step::Revoke { egress, mark } => self.revoke(egress, mark),
            Step::Wait { seconds } => {
                self.now = self.now.wrapping_add(seconds);
                self.sweep();
            }
        }
    }

    fn install(&mut self, original: usize, reply: usize, mark: u16) {
        let line = |index: usize| NewLine { key: key(index), rewrite: rewrite(key(index), mark) };
        let outcome = self.table.install(&line(original), &line(reply), self.stamp, self.now);
        if original == reply {
            assert!(matches!(outcome, Err(InstallError::ReplyIsOriginal)));
        } else if self.map.contains_key(&original) {
            let Ok(Installed::Existing(flow)) = outcome else { panic!("{outcome:?}") };
            assert_eq!(Some(flow), self.find(original));
        } else if self.map.contains_key(&reply) {
            let Err(InstallError::ReplyTaken(flow)) = outcome else { panic!("{outcome:?}") };
            assert_eq!(Some(flow), self.find(reply));
        } else {
            let Ok(Installed::New { original: there, reply: back }) = outcome else {
                panic!("{outcome:?}")
            };
            assert_eq!(Some(there), self.find(original));
            assert_eq!(Some(back), self.find(reply));
            for (index, other, is_reply) in [(original, reply, false), (reply, original, true)] {
                let rewrite = line(index).rewrite;
                let bits = if is_reply { 0 } else { layout::SEEN };
                let (stamp, last_seen) = (self.stamp, self.now);
                let direction = Direction { other, is_reply, rewrite, stamp, last_seen, bits };
                self.map.insert(index, direction);
            }
        }
    }

    fn revoke(&mut self, egress: u16, mark: Mark) {
        let judge = |flow: &Flow| if flow.egress() == egress { mark } else { Mark::Keep };
        let Revoked { marked, removed, missed } = self.table.revoke(judge);
        assert_eq!(missed, 0);
        let mut concerned = 0;
        let mut gone = Vec::new();
        for (index, direction) in &mut self.map {
            if direction.rewrite.egress != egress {
                continue;
            }
            concerned += 1;
            match mark {
                Mark::Keep => {}
                Mark::ForgetPath => direction.rewrite.flags &= !layout::PATH_KNOWN,
                Mark::AskAgain => direction.stamp = 0,
                Mark::Remove => gone.extend([*index, direction.other]),
            }
        }
        let before = self.map.len();
        self.map.retain(|index, _| !gone.contains(index));
        let expected =
            if mark == Mark::Remove { (0, (before - self.map.len()) / 2) } else { (concerned, 0) };
        assert_eq!((marked as usize, removed as usize), expected);
    }

    fn timeout(original: usize, there: &Direction, back: &Direction) -> u32 {
        match original % 4 {
            0 if (there.bits | back.bits) & layout::FIN != 0 => 240,
            0 if there.bits & back.bits & layout::SEEN == 0 => 240,
            0 => 7440,
            1 | 3 => 300,
            _ => 60,
        }
    }

    fn sweep(&mut self) {
        let mut expired = Vec::new();
        let event = |event| {
            if let Event::Expired { original, .. } = event {
                expired.push(original.key());
            }
        };
        let lines = self.table.len();
        let timeouts = Timeouts::default();
        let swept = self.table.sweep(&mut self.cursor, lines, self.now, &timeouts, event);
        assert_eq!(swept.halves, 0);
        let idle = |direction: &Direction| self.now.wrapping_sub(direction.last_seen);
        let gone: Vec<usize> = (self.map.iter())
            .filter(|(_, there)| !there.is_reply)
            .filter(|(index, there)| {
                let back = &self.map[&there.other];
                idle(there).min(idle(back)) > Pair::timeout(**index, there, back)
            })
            .map(|(index, _)| *index)
            .collect();
        assert_eq!(swept.expired as usize, gone.len());
        assert_eq!(expired.len(), gone.len());
        for index in gone {
            assert!(expired.contains(&key(index)));
            let there = self.map.remove(&index).unwrap();
            self.map.remove(&there.other).unwrap();
        }
    }

    /// Whatever happened, both say the same of every key.
    fn compare(&self) {
        for index in 0..KEYS {
            let flow = self.find(index);
            let Some(direction) = self.map.get(&index) else {
                assert!(flow.is_none(), "{flow:?}");
                continue;
            };
            let flow = flow.unwrap();
            let reply = if direction.is_reply { layout::REPLY } else { 0 };
            let flags = direction.rewrite.flags | reply;
            assert_eq!(flow.key(), key(index));
            assert_eq!(flow.rewrite(), Rewrite { flags, ..direction.rewrite });
            assert_eq!(flow.stamp(), direction.stamp);
            assert_eq!((flow.last_seen(), flow.bits()), (direction.last_seen, direction.bits));
            assert_eq!(self.find(direction.other).unwrap().index(), flow.partner());
        }
        let occupancy = self.table.occupancy();
        assert_eq!((occupancy.live as usize, occupancy.passing), (self.map.len(), 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_table_does_what_a_map_does(steps in prop::collection::vec(step(), 1..200)) {
        let mut pair = Pair::new();
        for step in steps {
            pair.apply(step);
            pair.compare();
        }
        // A daemon that takes over finds the same connections.
        let adopted = pair.table.adopt();
        prop_assert_eq!(adopted.connections as usize * 2, pair.map.len());
        prop_assert_eq!((adopted.unfinished, adopted.halves), (0, 0));
        pair.compare();
    }
}
