//! Ports that no program of the host gets by itself: SNAT hands them out.
//!
//! `ip_local_reserved_ports` is one list for everybody. What others reserved stays; what we added
//! is noted beside the pins, so that exactly that is taken away again.

use std::ops::RangeInclusive;

use libbpf_rs::MapHandle;
use zerocopy::FromZeros as _;

use crate::Kernel;
use crate::detach::netns;
use crate::error::Error;
use crate::layout::{RESERVED_BYTES, Reserved};
use crate::pins::Pins;
use crate::ports::{get, put};
use crate::sysctl;

const MAP: &str = "reserved";
const SYSCTL: &str = "ip_local_reserved_ports";

/// A set of ports, as the kernel has it: one bit each.
#[derive(Clone, Debug, PartialEq)]
struct Ports([u8; RESERVED_BYTES]);

impl Kernel {
    /// Keeps a range of ports from programs of the host that ask for any port; one that asks for
    /// this very port still gets it. Takes the place of an earlier range, also an earlier run's;
    /// an empty one reserves nothing. [`crate::detach_all`] gives the ports back.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn reserve_ports(&mut self, range: RangeInclusive<u16>) -> Result<(), Error> {
        let mut wanted = Ports::none();
        range.for_each(|port| wanted.insert(port));
        replace(&self.maps.reserved, &wanted).map(drop)
    }
}

/// Gives back what the node's runs reserved; says how many ports.
pub(crate) fn free(pins: &Pins) -> Result<u32, Error> {
    let path = pins.map(MAP);
    if !path.exists() {
        return Ok(0);
    }
    let map = MapHandle::from_pinned_path(path);
    replace(&map.map_err(|source| Error::Map { map: MAP, source })?, &Ports::none())
}

/// Reserves these in the place of what is noted; says how many were noted.
fn replace(map: &MapHandle, wanted: &Ports) -> Result<u32, Error> {
    let noted = noted(map)?;
    let now = Ports::parse(&sysctl::read(SYSCTL)?);
    let others = now.without(&noted);
    let added = wanted.without(&others);
    // Whenever this ends, all that is ours is noted.
    note(map, &noted.with(&added))?;
    let list = others.with(&added);
    if list != now {
        sysctl::write(SYSCTL, &list.to_string())?;
    }
    note(map, &added)?;
    Ok(noted.len())
}

/// What is noted of this namespace. Another one's list is gone with it, or not within reach.
fn noted(map: &MapHandle) -> Result<Ports, Error> {
    let row: Option<Reserved> = get(map, MAP, &0u32)?;
    let here = netns()?;
    Ok(row.filter(|row| row.netns == here).map_or_else(Ports::none, |row| Ports(row.ports)))
}

fn note(map: &MapHandle, ports: &Ports) -> Result<(), Error> {
    let mut row = Reserved::new_zeroed();
    (row.netns, row.ports) = (netns()?, ports.0);
    put(map, MAP, &0u32, &row)
}

impl Ports {
    fn none() -> Self {
        Self([0; RESERVED_BYTES])
    }

    fn insert(&mut self, port: u16) {
        self.0[usize::from(port / 8)] |= 1 << (port % 8);
    }

    fn contains(&self, port: u16) -> bool {
        self.0[usize::from(port / 8)] & 1 << (port % 8) != 0
    }

    fn with(&self, others: &Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] | others.0[at]))
    }

    fn without(&self, others: &Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] & !others.0[at]))
    }

    fn len(&self) -> u32 {
        self.0.iter().map(|byte| byte.count_ones()).sum()
    }

    /// Reads `80,8080-8090`, as the kernel writes it.
    fn parse(list: &str) -> Self {
        let mut ports = Self::none();
        for part in list.trim().split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse(), last.parse()) {
                (first..=last).for_each(|port| ports.insert(port));
            }
        }
        ports
    }
}

impl std::fmt::Display for Ports {
    /// `80,8080-8090` and an end of line: without one an empty list would be no write at all.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut ports = (0..=u16::MAX).filter(|port| self.contains(*port)).peekable();
        let mut comma = "";
        while let Some(first) = ports.next() {
            let mut last = first;
            while let Some(next) = ports.next_if(|port| last.checked_add(1) == Some(*port)) {
                last = next;
            }
            write!(out, "{comma}{first}")?;
            if last > first {
                write!(out, "-{last}")?;
            }
            comma = ",";
        }
        writeln!(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_and_written_as_the_kernel_does() {
        for list in ["", "0", "80", "80,8080-8090", "0-1,3,65534-65535", "0-65535"] {
            assert_eq!(Ports::parse(&format!("{list}\n")).to_string(), format!("{list}\n"));
        }
        assert_eq!(Ports::parse("8-9,10,9").to_string(), "8-10\n");
        assert_eq!(Ports::parse("20000-45999").len(), 26_000);
    }

    #[test]
    fn sets_are_joined_and_parted_port_by_port() {
        let (left, right) = (Ports::parse("1-10"), Ports::parse("5,8-20"));
        assert_eq!(left.with(&right), Ports::parse("1-20"));
        assert_eq!(left.without(&right), Ports::parse("1-4,6-7"));
    }
}
