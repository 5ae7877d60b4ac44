//! The connection table's memory and its header, mapped from their BPF arrays.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use conntrack::Line;
use libbpf_rs::MapHandle;

use crate::error::{Doing as _, Error};
use crate::layout::{Header, LAYOUT};

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

/// Writes the header of a new table.
pub(crate) fn header(map: &MapHandle, lines: u32, hash_key: u64) -> Result<TableHeader, Error> {
    let first = map_forever::<Header>(map, 1)?;
    // SAFETY: a mapping of one header, on a page and so aligned, which stays; atomics alone.
    let header = unsafe { first.as_ref() };
    header.lines.store(lines, Relaxed);
    header.hash_key.store(hash_key, Relaxed);
    header.layout.store(LAYOUT, Release);
    Ok(TableHeader(header))
}

/// What one must know to use the lines; pinned and shared with whoever comes next.
#[derive(Clone, Copy, Debug)]
pub struct TableHeader(&'static Header);

impl TableHeader {
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
