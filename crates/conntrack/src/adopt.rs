//! Taking over the lines that another daemon left, and counting them.

use crate::flow::Flow;
use crate::install::{InstallError, Installed, NewLine};
use crate::layout::{self, FREE, HOME, LIVE, SEEN, state};
use crate::line::Glance;
use crate::table::Table;

/// What [`Table::adopt`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Adopted {
    /// Connections that live on.
    pub connections: u32,
    /// Lines freed that the last daemon had claimed.
    pub unfinished: u32,
    /// Lines freed whose other direction was gone.
    pub halves: u32,
    /// Lines that no look-up finds: they were hashed under another key.
    pub misplaced: u32,
    /// Connections that found no room in a smaller table, and ended.
    pub crowded: u32,
}

/// How full the table is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Occupancy {
    /// Lines of the table.
    pub lines: u32,
    /// Live lines, two to a connection.
    pub live: u32,
    /// Lines somebody was just writing.
    pub passing: u32,
}

impl Table {
    /// Takes over the lines a daemon left behind, however it ended, before anybody else writes.
    ///
    /// A line it was writing becomes free, and so does one whose other direction is gone.
    pub fn adopt(&self) -> Adopted {
        let mut adopted = Adopted::default();
        for line in self.lines.iter() {
            let word0 = line.word0();
            if !matches!(state(word0), FREE | LIVE) {
                adopted.unfinished += u32::from(line.free(word0));
            }
        }
        let mut live = 0;
        self.counts.begin();
        for index in 0..self.len() {
            let Some(flow) = self.at(index) else { continue };
            if !flow.is_reply() {
                self.counts.has_entered(flow.key());
            }
            adopted.misplaced += u32::from(!self.is_at_home(&flow));
            if self.other_half(&flow).is_some() {
                live += 1;
            } else {
                adopted.halves += u32::from(self.free(&flow));
            }
        }
        adopted.connections = live / 2;
        adopted
    }

    /// Copies all connections of a table of another size, or under another hash key, into this
    /// one, which is empty. The other stays as it is; programs may go on replaying it.
    pub fn take_over(&self, other: &Table) -> Adopted {
        let mut adopted = Adopted::default();
        for (line, index) in other.lines.iter().zip(0..) {
            match line.glance(index) {
                Glance::Live(flow) => match other.other_half(&flow) {
                    Some(reply) if !flow.is_reply() => match self.copy(&flow, &reply) {
                        Ok(()) => adopted.connections += 1,
                        Err(_) => adopted.crowded += 1,
                    },
                    Some(_) => {}
                    None => adopted.halves += 1,
                },
                Glance::Passing => adopted.unfinished += 1,
                Glance::Free => {}
            }
        }
        adopted
    }

    fn copy(&self, original: &Flow, reply: &Flow) -> Result<(), InstallError> {
        let line = |flow: &Flow| NewLine { key: flow.key(), rewrite: flow.rewrite() };
        let stamp = original.stamp().min(reply.stamp());
        let last_seen = original.last_seen();
        let done = self.install(&line(original), &line(reply), stamp, last_seen)?;
        if let Installed::New { original: new_original, reply: new_reply } = done {
            self.touch(&new_original, last_seen, original.bits());
            if reply.bits() & SEEN != 0 {
                self.touch(&new_reply, reply.last_seen(), reply.bits());
            }
        }
        Ok(())
    }

    /// The other direction, if both lines name each other.
    fn other_half(&self, flow: &Flow) -> Option<Flow> {
        let (index, partner) = (flow.index(), flow.partner());
        let other = (partner < self.len() && partner != index).then(|| self.at(partner))??;
        let is_its = other.partner() == index && other.is_reply() != flow.is_reply();
        is_its.then_some(other)
    }

    /// Whether a look-up of its key comes by this line.
    fn is_at_home(&self, flow: &Flow) -> bool {
        let mut homes = layout::homes(self.hash(flow.key()), self.len()).into_iter();
        homes.any(|first| (first..first + HOME as u32).contains(&flow.index()))
    }

    /// Every live flow: for the control thread, it walks the whole table.
    pub fn live(&self) -> impl Iterator<Item = Flow> {
        (0..self.len()).filter_map(|index| self.at(index))
    }

    /// Counts the lines, all of them: for tests and the control thread. See [`Table::connections`].
    pub fn occupancy(&self) -> Occupancy {
        let mut occupancy = Occupancy { lines: self.len(), ..Occupancy::default() };
        for (line, index) in self.lines.iter().zip(0..) {
            match line.glance(index) {
                Glance::Free => {}
                Glance::Live(_) => occupancy.live += 1,
                Glance::Passing => occupancy.passing += 1,
            }
        }
        occupancy
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{FIN, PATH_KNOWN, RST};
    use crate::{FlowKey, Rewrite};

    const NOTHING: Adopted =
        Adopted { connections: 0, unfinished: 0, halves: 0, misplaced: 0, crowded: 0 };

    fn open(table: &Table, ingress: u16) -> (Flow, Flow) {
        let line = |ingress| NewLine {
            key: FlowKey::ipv4([10, 0, 0, 3], [10, 0, 0, 4], 1, 2, 6, ingress, 1),
            rewrite: Rewrite::default(),
        };
        match table.install(&line(ingress), &line(ingress + 1), 5, 60) {
            Ok(Installed::New { original, reply }) => (original, reply),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_daemon_left_half_done_is_freed_and_the_rest_lives_on() {
        let table = Table::in_memory(64, 1);
        let (_, kept) = open(&table, 1);
        let (half, lost) = open(&table, 3);
        let (_, unfinished) = open(&table, 5);
        // It ended between the lines of a removal, and within a change of a path.
        assert!(table.lines[half.index as usize].free(half.words[0]));
        table.lines[unfinished.index as usize].claim_live(&unfinished).unwrap();

        let adopted = table.adopt();
        assert_eq!(adopted, Adopted { connections: 1, unfinished: 1, halves: 2, ..NOTHING });
        assert_eq!(table.at(kept.index()), Some(kept));
        assert_eq!(table.at(lost.index()), None);
        assert_eq!(table.occupancy(), Occupancy { lines: 64, live: 2, passing: 0 });
        assert_eq!(table.adopt(), Adopted { connections: 1, ..NOTHING });
    }

    #[test]
    fn a_line_that_names_no_line_is_freed() {
        let table = Table::in_memory(64, 1);
        let (original, reply) = open(&table, 1);
        let line = &table.lines[original.index as usize];
        let count = line.claim_live(&original).unwrap();
        line.write_rest([0; 3], 64);
        line.publish(count);
        assert_eq!(table.adopt(), Adopted { halves: 2, ..NOTHING });
        assert_eq!(table.at(reply.index()), None);
    }

    #[test]
    fn a_table_of_another_size_and_key_is_taken_over_with_all_that_its_lines_say() {
        let (old, new) = (Table::in_memory(1024, 1), Table::in_memory(256, 2));
        for ingress in 1..50 {
            open(&old, ingress * 2);
        }
        let (original, reply) = open(&old, 200);
        let way = Rewrite {
            source: [8; 4],
            source_port: 7,
            egress: 3,
            flags: PATH_KNOWN,
            ..Rewrite::default()
        };
        old.set_path(&original, &way, 9).unwrap();
        old.touch(&reply, 77, FIN | RST);
        assert_eq!(new.take_over(&old), Adopted { connections: 50, ..NOTHING });
        assert_eq!(new.adopt(), Adopted { connections: 50, ..NOTHING });
        let find = |flow: &Flow| new.find(flow.key(), new.hash(flow.key())).unwrap();
        let (original, reply) = (find(&original), find(&reply));
        assert_eq!((original.rewrite(), original.last_seen(), original.stamp()), (way, 60, 5));
        assert_eq!((reply.last_seen(), reply.bits() & (FIN | RST)), (77, FIN | RST));
        assert_eq!((original.partner(), reply.partner()), (reply.index(), original.index()));
    }

    #[test]
    fn what_does_not_fit_a_smaller_table_is_counted() {
        let (old, new) = (Table::in_memory(1024, 1), Table::in_memory(8, 2));
        for ingress in 1..50 {
            open(&old, ingress * 2);
        }
        let adopted = new.take_over(&old);
        assert_eq!(adopted.connections + adopted.crowded, 49);
        assert!((1..=4).contains(&adopted.connections), "{adopted:?}");
    }

    #[test]
    fn lines_hashed_under_another_key_are_seen_to_be_misplaced() {
        let old = Table::in_memory(4096, 1);
        for ingress in 1..100 {
            open(&old, ingress * 2);
        }
        let other = Table { hash_key: 2, ..old };
        let adopted = other.adopt();
        assert_eq!(adopted.connections, 99);
        assert!(adopted.misplaced > 190, "{adopted:?}");
        let new = Table::in_memory(4096, 3);
        assert_eq!(new.take_over(&other), Adopted { connections: 99, ..NOTHING });
    }
}
