//! Every interleaving of two threads on one table, explored by loom.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p conntrack --test loom --release`. The tables have one
//! home, so that whoever can meet does meet.
#![cfg(loom)]
#![allow(clippy::unwrap_used)] // tests

#[path = "loom/fragments.rs"]
mod fragments;

use conntrack::{
    Cursor, Flow, FlowKey, InstallError, Installed, NewLine, Rewrite, Table, Timeouts, layout,
};
use loom::sync::Arc;
use loom::thread;

const STAMP: u32 = 1;

/// Gives every key of the models two different homes: `every_key_may_be_in_any_line`.
const HASH_KEY: u64 = 63;

/// Every interleaving with at most that many preemptions, and every value each load may yield.
/// `LOOM_MAX_PREEMPTIONS=3` takes minutes instead of seconds.
const PREEMPTIONS: usize = 2;

pub(crate) fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(PREEMPTIONS));
    builder.max_branches = 10_000;
    builder.check(check);
}

/// The key of what port `ingress` sends; it answers on `ingress + 1`.
fn key(ingress: u16) -> FlowKey {
    FlowKey::ipv4([10, 0, 0, 3], [10, 0, 0, 4], 1000, 2000, 17, ingress, 1)
}

/// A rewrite of which every word says `mark`.
fn rewrite(mark: u16) -> Rewrite {
    let [low, high] = mark.to_le_bytes();
    Rewrite {
        source: [low, high, low, high],
        destination: [low, high, low, high],
        source_mac: [0; 6],
        source_port: mark,
        destination_port: mark,
        egress: mark,
        segment: mark,
        vlan: mark,
        destination_mac: [low, high, low, high, low, high],
        flags: layout::PATH_KNOWN,
    }
}

fn line(key: FlowKey, mark: u16) -> NewLine {
    NewLine { key, rewrite: rewrite(mark) }
}

/// Installs `key(mark)` and its answer, both marked and stamped with the ingress port.
fn install(table: &Table, mark: u16, now: u32) -> Result<Installed, InstallError> {
    let original = line(key(mark), mark);
    let reply = line(key(mark).reversed(mark + 1, 1), mark);
    table.install(&original, &reply, u32::from(mark), now)
}

/// The key of answers to source port `port` of one address that many share.
fn shared(port: u16) -> FlowKey {
    FlowKey::ipv4([8, 8, 8, 8], [9, 9, 9, 9], 53, port, 17, 3, 0)
}

fn new(installed: Result<Installed, InstallError>) -> (Flow, Flow) {
    match installed {
        Ok(Installed::New { original, reply }) => (original, reply),
        other => panic!("{other:?}"),
    }
}

fn find(table: &Table, key: FlowKey) -> Option<Flow> {
    table.find(key, table.hash(key))
}

fn table() -> Arc<Table> {
    Arc::new(Table::in_memory(4, HASH_KEY))
}

/// The two lines of every connection are there or not, together.
fn assert_whole(table: &Table, connections: u32) {
    let occupancy = table.occupancy();
    assert_eq!((occupancy.live, occupancy.passing), (connections * 2, 0));
    for flow in (0..table.len()).filter_map(|index| table.at(index)) {
        let partner = table.at(flow.partner()).expect("the other direction is live");
        assert_eq!(partner.partner(), flow.index());
        assert_ne!(partner.is_reply(), flow.is_reply());
    }
}

fn assert_unmixed(flow: &Flow, marks: &[u16]) {
    let mark = flow.egress();
    assert!(marks.contains(&mark), "{flow:?}");
    assert_eq!(Rewrite { flags: layout::PATH_KNOWN, ..flow.rewrite() }, rewrite(mark));
    assert_eq!(flow.stamp(), u32::from(mark));
}

#[test]
fn every_key_may_be_in_any_line() {
    model(|| {
        let ours = [8, 16, 24].map(|mark| [key(mark), key(mark).reversed(mark + 1, 1)]);
        let keys = ours.into_iter().flatten().chain([20, 21].map(shared));
        for candidate in 0.. {
            let table = Table::in_memory(4, candidate);
            if keys.clone().all(|key| {
                let [one, two] = layout::homes(table.hash(key), 4);
                one != two
            }) {
                assert_eq!(candidate, HASH_KEY);
                return;
            }
        }
    });
}

#[test]
fn a_reader_never_sees_words_of_two_owners() {
    model(|| {
        let table = table();
        // The next owner finds no other lines than those of the last.
        new(install(&table, 24, 1));
        let (first, _) = new(install(&table, 8, 1));
        let writer = {
            let table = table.clone();
            thread::spawn(move || {
                assert!(table.remove(&first));
                new(install(&table, 16, 2));
            })
        };
        for mark in [8, 16] {
            if let Some(flow) = find(&table, key(mark)) {
                assert_unmixed(&flow, &[mark]);
            }
        }
        writer.join().unwrap();
        assert_whole(&table, 2);
    });
}

#[test]
fn a_reader_never_sees_words_of_two_paths() {
    model(|| {
        let table = table();
        let (first, _) = new(install(&table, 8, 1));
        let writer = {
            let table = table.clone();
            thread::spawn(move || {
                let flow = table.set_path(&first, &rewrite(9), 9).unwrap();
                table.set_path(&flow, &rewrite(10), 10).unwrap();
            })
        };
        if let Some(flow) = find(&table, key(8)) {
            assert_unmixed(&flow, &[8, 9, 10]);
        }
        writer.join().unwrap();
        assert_unmixed(&find(&table, key(8)).unwrap(), &[10]);
    });
}

#[test]
fn of_two_new_paths_one_wins_and_the_other_does_nothing() {
    model(|| {
        let table = table();
        let (flow, _) = new(install(&table, 8, 1));
        let other = {
            let table = table.clone();
            thread::spawn(move || table.set_path(&flow, &rewrite(9), 9).is_some())
        };
        let won = table.set_path(&flow, &rewrite(10), 10).is_some();
        assert!(won != other.join().unwrap());
        let mark = if won { 10 } else { 9 };
        assert_unmixed(&find(&table, key(8)).unwrap(), &[mark]);
    });
}

#[test]
fn two_installers_of_one_connection_make_one() {
    model(|| {
        let table = table();
        let other = {
            let table = table.clone();
            thread::spawn(move || install(&table, 8, 1))
        };
        let outcomes = [install(&table, 8, 1), other.join().unwrap()];
        let made = outcomes.iter().filter(|o| matches!(o, Ok(Installed::New { .. }))).count();
        let used = outcomes.iter().filter(|o| matches!(o, Ok(Installed::Existing(_)))).count();
        assert_eq!((made, used), (1, 1), "{outcomes:?}");
        assert_whole(&table, 1);
    });
}

#[test]
fn two_installers_of_one_flow_with_two_translations_make_one() {
    model(|| {
        let table = table();
        let install = |table: &Table, port: u16| {
            table.install(&line(key(8), port), &line(shared(port), port), STAMP, 1)
        };
        let other = {
            let table = table.clone();
            thread::spawn(move || install(&table, 20))
        };
        let outcomes = [install(&table, 21), other.join().unwrap()];
        let made = outcomes.iter().filter(|o| matches!(o, Ok(Installed::New { .. }))).count();
        let used = outcomes.iter().filter(|o| matches!(o, Ok(Installed::Existing(_)))).count();
        assert_eq!((made, used), (1, 1), "{outcomes:?}");
        assert_whole(&table, 1);
    });
}

#[test]
fn two_flows_that_want_one_reply_get_it_once() {
    model(|| {
        let table = table();
        let install = |table: &Table, ingress: u16| {
            table.install(&line(key(ingress), ingress), &line(shared(20), ingress), STAMP, 1)
        };
        let other = {
            let table = table.clone();
            thread::spawn(move || install(&table, 8))
        };
        let outcomes = [install(&table, 16), other.join().unwrap()];
        let made = outcomes.iter().filter(|o| matches!(o, Ok(Installed::New { .. }))).count();
        let taken =
            outcomes.iter().filter(|o| matches!(o, Err(InstallError::ReplyTaken(_)))).count();
        assert_eq!((made, taken), (1, 1), "{outcomes:?}");
        assert_whole(&table, 1);
    });
}

#[test]
fn both_ends_that_start_at_one_instant_share_a_connection() {
    model(|| {
        let table = table();
        let there = key(8);
        let back = there.reversed(9, 1);
        let other = {
            let table = table.clone();
            thread::spawn(move || table.install(&line(there, 1), &line(back, 2), STAMP, 1))
        };
        let outcomes =
            [table.install(&line(back, 2), &line(there, 1), STAMP, 1), other.join().unwrap()];
        let made = outcomes.iter().filter(|o| matches!(o, Ok(Installed::New { .. }))).count();
        let used = outcomes.iter().filter(|o| matches!(o, Ok(Installed::Existing(_)))).count();
        assert_eq!((made, used), (1, 1), "{outcomes:?}");
        assert_whole(&table, 1);
    });
}

#[test]
fn a_flow_whose_path_changes_is_not_installed_again() {
    model(|| {
        let table = table();
        let (original, _) = new(install(&table, 8, 1));
        let learner = {
            let table = table.clone();
            thread::spawn(move || table.set_path(&original, &rewrite(9), 9).is_some())
        };
        assert!(matches!(install(&table, 8, 1), Ok(Installed::Existing(_))));
        assert!(learner.join().unwrap());
        assert_whole(&table, 1);
    });
}

#[test]
fn a_connection_removed_while_it_is_installed_leaves_no_half() {
    for by_reply in [false, true] {
        model(move || {
            let table = table();
            let installer = {
                let table = table.clone();
                thread::spawn(move || {
                    new(install(&table, 8, 1));
                })
            };
            let key = if by_reply { key(8).reversed(9, 1) } else { key(8) };
            let removed = find(&table, key).is_some_and(|flow| table.remove(&flow));
            installer.join().unwrap();
            assert_whole(&table, u32::from(!removed));
        });
    }
}

#[test]
fn a_connection_is_removed_once_from_whichever_end() {
    model(|| {
        let table = table();
        let (original, reply) = new(install(&table, 8, 1));
        let other = {
            let table = table.clone();
            thread::spawn(move || table.remove(&original))
        };
        let removed = table.remove(&reply);
        assert!(removed != other.join().unwrap());
        assert_whole(&table, 0);
    });
}

#[test]
fn a_removed_connection_is_gone_whatever_path_it_learns_meanwhile() {
    for of_reply in [false, true] {
        model(move || {
            let table = table();
            let (original, reply) = new(install(&table, 8, 1));
            let learner = {
                let table = table.clone();
                let flow = if of_reply { reply } else { original };
                thread::spawn(move || table.set_path(&flow, &rewrite(9), 9))
            };
            assert!(table.remove(&original));
            learner.join().unwrap();
            assert_whole(&table, 0);
        });
    }
}

#[test]
fn an_old_handle_never_removes_a_stranger() {
    model(|| {
        let table = table();
        new(install(&table, 24, 1));
        let (original, reply) = new(install(&table, 8, 1));
        let other = {
            let table = table.clone();
            thread::spawn(move || {
                let removed = table.remove(&original);
                // Full, if the connection is gone by half at this moment.
                (removed, install(&table, 16, 2).is_ok())
            })
        };
        let removed = table.remove(&reply);
        let (other_removed, installed) = other.join().unwrap();
        assert!(removed != other_removed);
        assert_eq!(find(&table, key(16)).is_some(), installed);
        assert_whole(&table, 1 + u32::from(installed));
    });
}

#[test]
fn a_late_touch_does_not_reach_the_next_owner() {
    model(|| {
        let table = table();
        new(install(&table, 24, 1));
        let (original, _) = new(install(&table, 8, 1));
        let late = {
            let table = table.clone();
            thread::spawn(move || table.touch(&original, 7, layout::FIN | layout::RST))
        };
        assert!(table.remove(&original));
        let (next, _) = new(install(&table, 16, 2));
        late.join().unwrap();
        for index in [next.index(), next.partner()] {
            let line = table.at(index).unwrap();
            let bits = if line.is_reply() { 0 } else { layout::SEEN };
            assert_eq!((line.bits(), line.last_seen()), (bits, 2));
        }
    });
}

#[test]
fn no_state_bit_is_lost_between_two_touches_and_a_new_path() {
    model(|| {
        let table = table();
        let (flow, _) = new(install(&table, 8, 1));
        let other = {
            let table = table.clone();
            thread::spawn(move || table.touch(&flow, 2, layout::FIN))
        };
        table.set_path(&flow, &rewrite(9), 9).unwrap();
        table.touch(&flow, 3, layout::RST);
        other.join().unwrap();
        let flow = find(&table, key(8)).unwrap();
        assert_eq!(flow.bits(), layout::SEEN | layout::FIN | layout::RST);
        assert_eq!(flow.last_seen(), 3);
    });
}

#[test]
fn a_flow_that_moves_is_found_whole_or_not_at_all() {
    model(|| {
        let table = table();
        let (flow, _) = new(install(&table, 8, 1));
        let other = {
            let table = table.clone();
            thread::spawn(move || table.move_to(&flow, 24, 1).unwrap())
        };
        for ingress in [8, 24] {
            if let Some(found) = find(&table, key(8).at(ingress, 1)) {
                assert_eq!((found.key().ingress(), found.rewrite()), (ingress, flow.rewrite()));
            }
        }
        let moved = other.join().unwrap();
        assert_eq!(find(&table, key(8)), None);
        assert_eq!(find(&table, key(8).at(24, 1)), Some(moved));
        assert_whole(&table, 1);
    });
}

#[test]
fn a_flow_that_moves_while_it_is_removed_leaves_nothing_or_everything() {
    model(|| {
        let table = table();
        let (flow, reply) = new(install(&table, 8, 1));
        let other = {
            let table = table.clone();
            thread::spawn(move || table.move_to(&flow, 24, 1).is_some())
        };
        let removed = table.remove(&reply);
        let moved = other.join().unwrap();
        assert!(removed || moved, "one of both gets its way");
        assert_whole(&table, u32::from(!removed));
    });
}

#[test]
fn a_sweep_beside_a_move_takes_no_line_for_a_half() {
    model(|| {
        let table = table();
        let (flow, _) = new(install(&table, 8, 1));
        let other = {
            let table = table.clone();
            thread::spawn(move || table.move_to(&flow, 24, 1).unwrap())
        };
        let mut cursor = Cursor::new(&table, 0, 1, 1);
        table.sweep(&mut cursor, table.len(), 1, &Timeouts::default(), |_| {});
        other.join().unwrap();
        assert_whole(&table, 1);
    });
}
