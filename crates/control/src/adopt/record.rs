//! What a changeover changes on a node, in writing before anything is changed.
//!
//! While the record is there, each of nova's bridges is the host's foot in its network: it keeps
//! its name, address and MAC, and all that listens on it, and gets one port that leads into
//! trunkline's segment. Its other ports stay as well, but are silent, since trunkline's programs
//! take what comes by them. So there is little to undo, and it can be undone at any time.

use std::io;

use serde::{Deserialize, Serialize};

use super::Found;
use crate::left;
use crate::netlink::Link;

/// What was taken over from nova-network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The bridges.
    pub bridges: Vec<Kept>,
    /// The kernel's connections are in trunkline's table: they are not looked for again.
    pub inherited: bool,
}

/// A bridge of nova's that stays as the host's foot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its name.
    pub name: String,
    /// Its index: another bridge of that name is not meant.
    pub index: u32,
    /// The port that led out of the node.
    pub uplink: String,
}

impl Record {
    /// What is going to be changed on a node.
    #[must_use]
    pub fn of(found: &Found) -> Self {
        let bridges = found.networks.iter().map(|network| Kept {
            name: network.bridge.name.clone(),
            index: network.bridge.index,
            uplink: network.bridge.uplink.interface.clone(),
        });
        Self { bridges: bridges.collect(), inherited: false }
    }

    /// The record of a node; none if it was not taken over.
    ///
    /// # Errors
    /// What is there cannot be read, or is no record.
    pub fn read(node: &str) -> io::Result<Option<Self>> {
        left::read(&left::path(node, "adopted.json"))
    }

    /// Writes it in the place of what was there, whole or not at all.
    ///
    /// # Errors
    /// The system refuses.
    pub fn write(&self, node: &str) -> io::Result<()> {
        left::write(&left::path(node, "adopted.json"), self)
    }

    /// Removes a node's record; none is no error.
    ///
    /// # Errors
    /// The system refuses.
    pub fn remove(node: &str) -> io::Result<()> {
        left::remove(&left::path(node, "adopted.json"))
    }

    /// The bridge of that name.
    #[must_use]
    pub fn bridge(&self, name: &str) -> Option<&Kept> {
        self.bridges.iter().find(|bridge| bridge.name == name)
    }

    /// The links as they are to be judged: one in a bridge that was taken over counts as free.
    #[must_use]
    pub fn freed(&self, links: &[Link]) -> Vec<Link> {
        let is_kept = |index: u32| {
            let kept = |bridge: &Kept| bridge.index == index;
            self.bridges.iter().any(kept)
        };
        let free = |link: &Link| Link {
            master: link.master.filter(|master| !is_kept(*master)),
            ..link.clone()
        };
        links.iter().map(free).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_frees_ports_of_its_bridges_alone() {
        let node = format!("adopted-{}", std::process::id());
        assert_eq!(Record::read(&node).unwrap(), None);
        let kept = Kept { name: "br100".into(), index: 7, uplink: "vlan100".into() };
        let record = Record { bridges: vec![kept], inherited: false };
        record.write(&node).unwrap();
        assert_eq!(Record::read(&node).unwrap(), Some(record.clone()));
        Record::remove(&node).unwrap();
        Record::remove(&node).unwrap();
        let port = |master| Link { index: 9, master, ..Link::default() };
        let freed = record.freed(&[port(Some(7)), port(Some(8)), port(None)]);
        let masters: Vec<Option<u32>> = freed.iter().map(|link| link.master).collect();
        assert_eq!(masters, [None, Some(8), None]);
        assert_eq!(record.bridge("br100").map(|bridge| bridge.index), Some(7));
        assert_eq!(record.bridge("br102"), None);
    }
}
