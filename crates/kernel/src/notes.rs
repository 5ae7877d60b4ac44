//! Notes on interfaces, pinned beside the programs: what to put back one day.
//!
//! A note is by index, and good for the interface it was made on: an index is given to another
//! interface some time, and so is a name, but not both and the MAC.

use libbpf_rs::{MapCore as _, MapHandle};
use zerocopy::FromBytes as _;

use crate::Interface;
use crate::error::Error;
use crate::layout::Note;
use crate::ports::{get, put, remove};

const MAP: &str = "nics";

/// The notes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notes<'a>(pub(crate) &'a MapHandle);

impl Note {
    pub(crate) fn name(&self) -> String {
        let end = self.name.iter().position(|byte| *byte == 0).unwrap_or(self.name.len());
        String::from_utf8_lossy(&self.name[..end]).into_owned()
    }

    /// Whether the interface that now has the note's index is the one it was made on.
    pub(crate) fn is_of(&self, name: &str, mac: [u8; 6]) -> bool {
        self.mac == mac || self.name() == name
    }
}

impl Notes<'_> {
    /// All notes, by interface index.
    pub(crate) fn all(&self) -> Result<Vec<(u32, Note)>, Error> {
        let indexes: Vec<u32> =
            self.0.keys().filter_map(|key| u32::read_from_bytes(&key).ok()).collect();
        let of = |index: u32| Ok(get::<_, Note>(self.0, MAP, &index)?.map(|note| (index, note)));
        indexes.into_iter().filter_map(|index| of(index).transpose()).collect()
    }

    /// What is noted of that interface.
    pub(crate) fn of(&self, interface: Interface<'_>, mac: [u8; 6]) -> Result<u16, Error> {
        let note: Option<Note> = get(self.0, MAP, &interface.index)?;
        Ok(note.filter(|note| note.is_of(interface.name, mac)).map_or(0, |note| note.changed))
    }

    /// Adds to what is noted of that interface; to be done before the change itself.
    pub(crate) fn add(&self, on: Interface<'_>, mac: [u8; 6], changed: u16) -> Result<(), Error> {
        let changed = self.of(on, mac)? | changed;
        let mut name = [0; 16];
        let bytes = on.name.as_bytes();
        let length = bytes.len().min(name.len() - 1);
        name[..length].copy_from_slice(&bytes[..length]);
        put(self.0, MAP, &on.index, &Note { name, mac, changed })
    }

    /// Takes away from what is noted of the interface of that index.
    pub(crate) fn strike(&self, index: u32, changed: u16) -> Result<(), Error> {
        let Some(mut note) = get::<_, Note>(self.0, MAP, &index)? else { return Ok(()) };
        note.changed &= !changed;
        match note.changed {
            0 => remove(self.0, MAP, &index.to_ne_bytes()),
            _ => put(self.0, MAP, &index, &note),
        }
    }
}
