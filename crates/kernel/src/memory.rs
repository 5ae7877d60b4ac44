//! The connection table's memory and its header, mapped from their BPF arrays.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use conntrack::Line;
use libbpf_rs::{MapCore as _, MapHandle};

use crate::error::{Doing as _, Error};
use crate::layout::{Header, LAYOUT};
use crate::pins::Pins;

/// The pinned table of an earlier run.
pub(crate) struct Pinned {
    pub(crate) lines: MapHandle,
    pub(crate) header: MapHandle,
}

/// What an earlier run left of connections.
#[derive(Clone, Copy, Debug)]
pub enum Left {
    /// None, or none that are to be continued.
    Nothing,
    /// [`crate::Kernel::lines`] holds them.
    Same,
    /// They are in another table, under another key: to be copied before
    /// [`crate::Kernel::keep_table`].
    Other(&'static [Line], u64),
}

impl Pinned {
    /// The table an earlier run pinned; none if there is none.
    pub(crate) fn open(pins: &Pins) -> Result<Option<Self>, Error> {
        let map = |name| {
            let path = pins.map(name);
            let open = || MapHandle::from_pinned_path(&path);
            let failed = |source| Error::Map { map: name, source };
            path.exists().then(open).transpose().map_err(failed)
        };
        let (lines, header) = (map("lines")?, map("header")?);
        Ok(lines.zip(header).map(|(lines, header)| Self { lines, header }))
    }

    /// The number the kernel gave the table; no other has it until the next boot.
    pub(crate) fn id(&self) -> Result<u32, Error> {
        id(&self.lines)
    }
}

/// The lines of the table that a node's daemon left, or works with, and the key they are hashed
/// under; none if there is no table, or it is of another layout.
///
/// # Errors
/// The name is not fit for a directory, or the table cannot be opened or mapped.
pub fn left_lines(node: &str) -> Result<Option<(&'static [Line], u64)>, Error> {
    let Some(pinned) = Pinned::open(&Pins::of(node)?)? else { return Ok(None) };
    let header = header(&pinned.header)?;
    if header.layout() != LAYOUT {
        return Ok(None);
    }
    Ok(Some((lines(&pinned.lines, header.lines())?, header.hash_key())))
}

/// The number of the table that a node's daemon left, or works with; none if there is no table.
///
/// # Errors
/// The name is not fit for a directory, or the table cannot be opened.
pub fn left_table(node: &str) -> Result<Option<u32>, Error> {
    Pinned::open(&Pins::of(node)?)?.map(|pinned| pinned.id()).transpose()
}

/// The number the kernel gave a map.
pub(crate) fn id(map: &MapHandle) -> Result<u32, Error> {
    let info = map.info().map_err(|source| Error::Map { map: "lines", source })?;
    Ok(info.info.id)
}

/// Maps an array that is never unmapped: workers keep references into it to the end.
fn map_forever<T>(map: &MapHandle, rows: usize) -> Result<NonNull<T>, Error> {
    let (fd, protection) = (map.as_fd().as_raw_fd(), libc::PROT_READ | libc::PROT_WRITE);
    let bytes = rows * size_of::<T>();
    // SAFETY: a new mapping where the kernel likes, of a descriptor that is open.
    let at =
        unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, fd, 0) };
    let mapped = match at {
        libc::MAP_FAILED => Err(io::Error::last_os_error()),
        at => NonNull::new(at).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into()),
    };
    Ok(mapped.doing(|| format!("cannot map {bytes} bytes of the connection table"))?.cast())
}

/// The lines of the table.
pub(crate) fn lines(map: &MapHandle, lines: u32) -> Result<&'static [Line], Error> {
    let first = map_forever::<Line>(map, lines as usize)?;
    // SAFETY: a mapping of that many lines, on a page and so aligned, which stays. A line is
    // atomics alone: any bytes are one, and other writers may share it.
    Ok(unsafe { std::slice::from_raw_parts(first.as_ptr(), lines as usize) })
}

/// The header of a table.
pub(crate) fn header(map: &MapHandle) -> Result<TableHeader, Error> {
    let first = map_forever::<Header>(map, 1)?;
    // SAFETY: a mapping of one header, on a page and so aligned, which stays; atomics alone.
    Ok(TableHeader(unsafe { first.as_ref() }))
}

/// What one must know to use the lines; pinned and shared with whoever comes next.
#[derive(Clone, Copy, Debug)]
pub struct TableHeader(&'static Header);

impl TableHeader {
    /// Writes the header of a new table; changes are counted on from `stamp`.
    pub(crate) fn write(&self, lines: u32, hash_key: u64, stamp: u64) {
        self.0.lines.store(lines, Relaxed);
        self.0.hash_key.store(hash_key, Relaxed);
        self.0.stamp.store(stamp, Relaxed);
        self.0.layout.store(LAYOUT, Release);
    }

    /// Version of the layout of lines and maps.
    #[must_use]
    pub fn layout(&self) -> u32 {
        self.0.layout.load(Acquire)
    }

    /// Lines the table has.
    #[must_use]
    pub fn lines(&self) -> u32 {
        self.0.lines.load(Relaxed)
    }

    /// The key under which the table hashes.
    #[must_use]
    pub fn hash_key(&self) -> u64 {
        self.0.hash_key.load(Relaxed)
    }

    /// The number of the last change of the tables.
    #[must_use]
    pub fn stamp(&self) -> u64 {
        self.0.stamp.load(Acquire)
    }

    /// The number of a new change of the tables.
    #[must_use = "what changes carries it"]
    pub fn next_stamp(&self) -> u64 {
        self.0.stamp.fetch_add(1, AcqRel) + 1
    }
}
