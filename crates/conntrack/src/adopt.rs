//! Taking over the lines that another daemon left, and counting them.

use crate::layout::{FREE, LIVE, state};
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
                self.counts.enter(flow.key(), u32::MAX);
            }
            let partner = flow.partner();
            let other = (partner < self.len()).then(|| self.at(partner)).flatten();
            let is_whole = other.is_some_and(|other| {
                other.partner() == index && index != partner && other.is_reply() != flow.is_reply()
            });
            if is_whole {
                live += 1;
            } else {
                adopted.halves += u32::from(self.free(&flow));
            }
        }
        adopted.connections = live / 2;
        adopted
    }

    /// Counts the lines, all of them: for tests and the control thread. See [`Cursor::live`].
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
    use crate::{Flow, FlowKey, Installed, NewLine, Rewrite};

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
        assert_eq!(adopted, Adopted { connections: 1, unfinished: 1, halves: 2 });
        assert_eq!(table.at(kept.index()), Some(kept));
        assert_eq!(table.at(lost.index()), None);
        assert_eq!(table.occupancy(), Occupancy { lines: 64, live: 2, passing: 0 });
        assert_eq!(table.adopt(), Adopted { connections: 1, unfinished: 0, halves: 0 });
    }

    #[test]
    fn a_line_that_names_no_line_is_freed() {
        let table = Table::in_memory(64, 1);
        let (original, reply) = open(&table, 1);
        let line = &table.lines[original.index as usize];
        let count = line.claim_live(&original).unwrap();
        line.write_rest([0; 3], 64);
        line.publish(count);
        assert_eq!(table.adopt(), Adopted { connections: 0, unfinished: 0, halves: 2 });
        assert_eq!(table.at(reply.index()), None);
    }
}
