//! What a daemon leaves in writing for the next: which numbers of the connection table's lines
//! mean what. Ports, segments and zones are numbered as they come, next hops as they are needed.
//!
//! The file is worth something with the table it was written for alone, and only until the node
//! boots; both are in `/run` and bpffs, which are empty then.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::numbers::Numbers;

const RUN: &str = "/run/trunkline";

/// What the numbers in lines mean.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// The table they are in, by the number that the kernel gave it.
    pub table: u32,
    /// The one that is about to take its place, with the same numbers in its lines.
    #[serde(default)]
    pub next: Option<u32>,
    /// Ports, by the name of their interface.
    pub ports: Numbers,
    /// What each of them is, in words: one that is something else now is another port.
    pub what: BTreeMap<String, String>,
    /// Segments, by the name of their network.
    pub segments: Numbers,
    /// Zones, by name.
    pub zones: Numbers,
    /// Next hops, in the order of their numbers: NIC and address.
    pub hops: Vec<(String, Ipv4Addr)>,
}

/// The file of a node with that ending.
pub(crate) fn path(node: &str, ending: &str) -> PathBuf {
    PathBuf::from(RUN).join(format!("{node}.{ending}"))
}

/// What a file says; none if there is none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a file in the place of what was there, whole or not at all.
pub(crate) fn write<T: Serialize>(path: &Path, what: &T) -> io::Result<()> {
    let fresh = path.with_extension("json.fresh");
    std::fs::create_dir_all(RUN)?;
    std::fs::write(&fresh, serde_json::to_vec_pretty(what)?)?;
    std::fs::rename(&fresh, path)
}

/// Removes a file; none is no error.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Left {
    /// What the last daemon of a node left; none if it left nothing that can be read.
    ///
    /// # Errors
    /// What is there cannot be read, or is not what a daemon writes.
    pub fn read(node: &str) -> io::Result<Option<Self>> {
        read(&path(node, "json"))
    }

    /// Writes it in the place of what was there, whole or not at all.
    ///
    /// # Errors
    /// The system refuses.
    pub fn write(&self, node: &str) -> io::Result<()> {
        write(&path(node, "json"), self)
    }

    /// Removes what a node left; none is no error.
    ///
    /// # Errors
    /// The system refuses.
    pub fn remove(node: &str) -> io::Result<()> {
        remove(&path(node, "json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_cut_short_is_refused() {
        let node = format!("left-{}", std::process::id());
        assert_eq!(Left::read(&node).unwrap(), None);
        let mut ports = Numbers::new(4094);
        ports.take("vnet1");
        let left = Left {
            table: 4711,
            next: Some(4712),
            ports,
            what: [("vnet1".to_owned(), "vif of fa:16:3e:00:00:01 in tenant1".to_owned())].into(),
            segments: Numbers::new(4094),
            zones: Numbers::new(4095),
            hops: vec![("eth1".into(), Ipv4Addr::new(91, 207, 15, 1))],
        };
        left.write(&node).unwrap();
        assert_eq!(Left::read(&node).unwrap(), Some(left));
        std::fs::write(path(&node, "json"), "{\"table\": 47").unwrap();
        assert!(Left::read(&node).is_err());
        Left::remove(&node).unwrap();
        Left::remove(&node).unwrap();
    }
}
