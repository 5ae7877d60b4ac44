//! Which MAC address an IPv4 address of a link has.

use hashbrown::HashMap;
use wire::MacAddr;

use crate::{PortId, SegmentId};

/// Where a neighbour is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Link {
    /// In a segment: the node asks itself, by ARP.
    Segment(SegmentId),
    /// On a public NIC: the node's kernel asks, and keeps the answers.
    Public(PortId),
}

/// What is known of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// It answered.
    At(MacAddr),
    /// It was asked and did not.
    Failed,
}

/// A router or host on a public NIC. Lines name it by number, so that a new address of a router
/// makes none of them stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The NIC it is on.
    pub port: PortId,
    /// Its address.
    pub address: [u8; 4],
    /// What is known of it; nothing yet while the kernel asks.
    pub neighbour: Option<Neighbour>,
}

/// All neighbours. Guests choose addresses, so the hash is keyed.
#[derive(Clone, Debug, Default)]
pub struct Neighbours {
    segments: HashMap<(SegmentId, [u8; 4]), Neighbour, ahash::RandomState>,
    numbers: HashMap<(PortId, [u8; 4]), u32, ahash::RandomState>,
    hops: Vec<Option<NextHop>>,
}

impl Neighbours {
    /// A neighbour in a segment; nothing if nobody has asked yet.
    #[must_use]
    pub fn find(&self, segment: SegmentId, address: [u8; 4]) -> Option<Neighbour> {
        self.segments.get(&(segment, address)).copied()
    }

    /// The number of a next hop.
    #[must_use]
    pub fn number(&self, port: PortId, address: [u8; 4]) -> Option<u32> {
        self.numbers.get(&(port, address)).copied()
    }

    /// The next hop of a number.
    #[inline]
    #[must_use]
    pub fn hop(&self, number: u32) -> Option<&NextHop> {
        self.hops.get(number as usize)?.as_ref()
    }

    /// The MAC addresses of all next hops, by number, where they are known.
    pub fn hops(&self) -> impl Iterator<Item = Option<MacAddr>> {
        self.hops.iter().map(|hop| match hop.as_ref()?.neighbour {
            Some(Neighbour::At(mac)) => Some(mac),
            Some(Neighbour::Failed) | None => None,
        })
    }

    /// What is known of a neighbour on any link.
    #[must_use]
    pub fn on(&self, link: Link, address: [u8; 4]) -> Option<Neighbour> {
        match link {
            Link::Segment(segment) => self.find(segment, address),
            Link::Public(port) => self.hop(self.number(port, address)?)?.neighbour,
        }
    }

    /// Adds or replaces a neighbour in a segment.
    pub fn insert(&mut self, segment: SegmentId, address: [u8; 4], neighbour: Neighbour) {
        self.segments.insert((segment, address), neighbour);
    }

    /// Adds or replaces the next hop of a number.
    pub fn insert_hop(&mut self, number: u32, hop: NextHop) {
        let at = number as usize;
        if self.hops.len() <= at {
            self.hops.resize(at + 1, None);
        }
        if let Some(place) = self.hops.get_mut(at) {
            *place = Some(hop);
        }
        self.numbers.insert((hop.port, hop.address), number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_hop_is_found_by_number_and_by_address() {
        let port = PortId::new(2).unwrap();
        let router = [91, 207, 15, 1];
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        let mut neighbours = Neighbours::default();
        assert_eq!(neighbours.on(Link::Public(port), router), None);
        let hop = NextHop { port, address: router, neighbour: Some(Neighbour::At(mac)) };
        neighbours.insert_hop(3, hop);
        assert_eq!(neighbours.number(port, router), Some(3));
        assert_eq!(neighbours.hop(3), Some(&hop));
        assert_eq!((neighbours.hop(2), neighbours.hop(4)), (None, None));
        assert_eq!(neighbours.on(Link::Public(port), router), Some(Neighbour::At(mac)));
    }
}
