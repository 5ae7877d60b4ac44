//! Whose addresses change on the way: floating addresses and shared source addresses.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use hashbrown::HashMap;
use ipnet::Ipv4Net;
use prefix_trie::{PrefixMap, PrefixSet};

use crate::{PortId, Route, SegmentId, ZoneId};

/// A floating address and the VM it belongs to (nova's `floating_ips` row).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Float {
    /// The floating address.
    pub address: [u8; 4],
    /// The VM's own.
    pub fixed: [u8; 4],
    /// The segment the VM is in.
    pub segment: SegmentId,
    /// The zone that is in.
    pub zone: ZoneId,
    /// The VM's port.
    pub vif: PortId,
    /// The NIC the address is answered for on.
    pub port: PortId,
    /// The way out where the address's pool names one; else the node's routes.
    pub way: Option<Route>,
}

/// A UDP port of a shared address that leads to a VM (nova's `ensure_vpn_forward`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The address that is asked.
    pub address: [u8; 4],
    /// The port that is asked.
    pub port: u16,
    /// The VM's own address.
    pub fixed: [u8; 4],
    /// The port it listens on.
    pub fixed_port: u16,
    /// The segment the VM is in.
    pub segment: SegmentId,
    /// The zone that is in.
    pub zone: ZoneId,
}

/// When a packet from a network gets the node's shared source address (nova's `add_snat_rule`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snat {
    /// When it leaves by a public NIC.
    Public,
    /// Only to `force_snat_range`: the network's gateway is elsewhere.
    Forced,
    /// Never: the network's addresses are public.
    Never,
}

/// The address that VMs ask for their metadata (EC2's, and nova's).
pub const METADATA: [u8; 4] = [169, 254, 169, 254];
/// The TCP port they ask there.
pub const METADATA_PORT: u16 = 80;

/// Where metadata is served (nova's `metadata_host` and `metadata_port`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetadataServer {
    /// Its address: of this node, or of another.
    pub address: [u8; 4],
    /// Its TCP port.
    pub port: u16,
}

/// What address translation goes by.
#[derive(Clone, Debug)]
pub struct Nat {
    floats: HashMap<[u8; 4], Float, ahash::RandomState>,
    fixed: HashMap<(ZoneId, [u8; 4]), [u8; 4], ahash::RandomState>,
    forwards: HashMap<([u8; 4], u16), Forward, ahash::RandomState>,
    sources: HashMap<ZoneId, PrefixMap<Ipv4Net, Snat>>,
    exempt: PrefixSet<Ipv4Net>,
    forced: PrefixSet<Ipv4Net>,
    /// Where VMs' requests for metadata are led; none leaves them without an answer.
    pub metadata: Option<MetadataServer>,
    /// The shared source address, nova's `routing_source_ip`.
    pub source: Option<[u8; 4]>,
    /// Its ports and echo ids that are ours to give; the others are the host's.
    pub ports: RangeInclusive<u16>,
    /// Whether what comes of a TCP connection is translated though its beginning was not seen.
    pub pickup: bool,
}

impl Default for Nat {
    fn default() -> Self {
        Self {
            floats: HashMap::default(),
            fixed: HashMap::default(),
            forwards: HashMap::default(),
            sources: HashMap::default(),
            exempt: PrefixSet::default(),
            forced: PrefixSet::default(),
            metadata: None,
            source: None,
            ports: 20_000..=45_999,
            pickup: true,
        }
    }
}

fn host(address: [u8; 4]) -> Ipv4Net {
    Ipv4Net::from(Ipv4Addr::from(address))
}

impl Nat {
    /// Associates a floating address.
    pub fn insert_float(&mut self, float: Float) {
        self.fixed.insert((float.zone, float.fixed), float.address);
        self.floats.insert(float.address, float);
    }

    /// Leads a port to a VM.
    pub fn insert_forward(&mut self, forward: Forward) {
        self.forwards.insert((forward.address, forward.port), forward);
    }

    /// Where a UDP port of an address leads.
    #[must_use]
    pub fn forward(&self, address: [u8; 4], port: u16) -> Option<&Forward> {
        self.forwards.get(&(address, port))
    }

    /// Every port that leads to a VM, in no order.
    pub fn forwards(&self) -> impl Iterator<Item = &Forward> {
        self.forwards.values()
    }

    /// Says when packets from a prefix of a zone get the shared source address.
    pub fn insert_source(&mut self, zone: ZoneId, prefix: Ipv4Net, snat: Snat) {
        self.sources.entry(zone).or_default().insert(prefix, snat);
    }

    /// Packets to this prefix keep their source (`dmz_cidr`, `metadata_host`).
    pub fn insert_exempt(&mut self, prefix: Ipv4Net) {
        self.exempt.insert(prefix);
    }

    /// Packets to this prefix always get the shared source (`force_snat_range`).
    pub fn insert_forced(&mut self, prefix: Ipv4Net) {
        self.forced.insert(prefix);
    }

    /// The floating address with this address.
    #[must_use]
    pub fn float(&self, address: [u8; 4]) -> Option<&Float> {
        self.floats.get(&address)
    }

    /// The floating address of a VM.
    #[must_use]
    pub fn float_of(&self, zone: ZoneId, fixed: [u8; 4]) -> Option<&Float> {
        self.floats.get(self.fixed.get(&(zone, fixed))?)
    }

    /// Every floating address, in no order.
    pub fn floats(&self) -> impl Iterator<Item = &Float> {
        self.floats.values()
    }

    /// The range a source is translated as part of, and when.
    #[must_use]
    pub fn source_range(&self, zone: ZoneId, source: [u8; 4]) -> Option<(Ipv4Net, Snat)> {
        let (prefix, snat) = self.sources.get(&zone)?.get_lpm(&host(source))?;
        Some((prefix, *snat))
    }

    /// Whether packets to this destination keep their source.
    #[must_use]
    pub fn is_exempt(&self, destination: [u8; 4]) -> bool {
        self.exempt.get_lpm(&host(destination)).is_some()
    }

    /// Whether packets to this destination always get the shared source.
    #[must_use]
    pub fn is_forced(&self, destination: [u8; 4]) -> bool {
        self.forced.get_lpm(&host(destination)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_is_found_from_both_sides_and_only_in_its_zone() {
        let zone = |number| ZoneId::new(number).unwrap();
        let float = Float {
            address: [91, 208, 23, 11],
            fixed: [10, 0, 0, 3],
            segment: SegmentId::new(1).unwrap(),
            zone: zone(1),
            vif: PortId::new(3).unwrap(),
            port: PortId::new(2).unwrap(),
            way: None,
        };
        let mut nat = Nat::default();
        nat.insert_float(float);
        assert_eq!(nat.float([91, 208, 23, 11]), Some(&float));
        assert_eq!(nat.float_of(zone(1), [10, 0, 0, 3]), Some(&float));
        assert_eq!(nat.float_of(zone(2), [10, 0, 0, 3]), None);
        assert_eq!(nat.float([10, 0, 0, 3]), None);
    }

    #[test]
    fn ranges_are_found_by_what_is_in_them() {
        let zone = ZoneId::new(1).unwrap();
        let net = |text: &str| text.parse::<Ipv4Net>().unwrap();
        let mut nat = Nat::default();
        nat.insert_source(zone, net("10.0.0.0/24"), Snat::Public);
        nat.insert_exempt(net("10.128.0.0/24"));
        nat.insert_forced(net("192.0.2.0/24"));
        assert_eq!(nat.source_range(zone, [10, 0, 0, 3]), Some((net("10.0.0.0/24"), Snat::Public)));
        assert_eq!(nat.source_range(zone, [10, 0, 1, 3]), None);
        assert!(nat.is_exempt([10, 128, 0, 9]) && !nat.is_exempt([10, 128, 1, 9]));
        assert!(nat.is_forced([192, 0, 2, 1]) && !nat.is_forced([10, 128, 0, 9]));
    }
}
