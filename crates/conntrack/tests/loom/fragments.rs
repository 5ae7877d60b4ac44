//! First fragments noted by one worker and looked for by another.

use conntrack::{Contradiction, FlowKey, Fragments};
use loom::sync::Arc;
use loom::thread;

const NOW: u64 = 1_000_000;

fn datagram(id: u16) -> FlowKey {
    Fragments::datagram([10, 0, 0, 3], [10, 0, 0, 4], id, 17, 7, 1)
}

fn says(id: u16) -> u64 {
    u64::from(id) * 0x0001_0001_0001_0001
}

/// One set, so that all meet in it; every place of it taken.
fn full() -> Arc<Fragments> {
    let table = Fragments::with_sets(1, 63);
    for id in [1, 2] {
        table.note(datagram(id), says(id), NOW + u64::from(id)).unwrap();
    }
    Arc::new(table)
}

#[test]
fn a_reader_never_sees_words_of_two_datagrams() {
    super::model(|| {
        let table = full();
        let writer = {
            let table = table.clone();
            thread::spawn(move || table.note(datagram(3), says(3), NOW + 3).unwrap())
        };
        for id in [1, 3] {
            if let Some(said) = table.find(datagram(id), NOW + 3) {
                assert_eq!(said, says(id));
            }
        }
        writer.join().unwrap();
        assert_eq!(table.find(datagram(3), NOW + 3), Some(says(3)));
        assert_eq!(table.find(datagram(2), NOW + 3), Some(says(2)), "the oldest gave way");
    });
}

#[test]
fn who_looks_in_vain_sees_that_there_is_news() {
    super::model(|| {
        let table = Arc::new(Fragments::with_sets(1, 63));
        let writer = {
            let table = table.clone();
            thread::spawn(move || table.note(datagram(1), says(1), NOW).unwrap())
        };
        let before = table.noted();
        let found = table.has(datagram(1), NOW);
        writer.join().unwrap();
        assert!(found || table.noted() != before, "it would wait for ever");
        assert!(table.has(datagram(1), NOW));
    });
}

#[test]
fn of_two_that_contradict_each_other_the_later_ones_follow_one() {
    super::model(|| {
        let table = Arc::new(Fragments::with_sets(1, 63));
        let other = {
            let table = table.clone();
            thread::spawn(move || table.note(datagram(1), says(8), NOW))
        };
        let ours = table.note(datagram(1), says(9), NOW);
        let theirs = other.join().unwrap();
        assert!(ours.is_ok() || theirs.is_ok());
        let said = table.find(datagram(1), NOW).unwrap();
        assert_eq!(table.find(datagram(1), NOW), Some(said));
        if ours == Err(Contradiction) {
            assert_eq!(said, says(8));
        }
        if theirs == Err(Contradiction) {
            assert_eq!(said, says(9));
        }
    });
}
