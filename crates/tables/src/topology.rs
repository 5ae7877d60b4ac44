//! Which ports and segments there are, and which tag on which NIC belongs to whom.

use wire::MacAddr;

use crate::{Port, PortId, PortKind, Segment, SegmentId};

/// Entries of a table indexed by a twelve-bit number.
const NUMBERS: usize = 4096;

/// Ports and segments of the node.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    ports: Vec<Option<Port>>,
    segments: Vec<Option<Segment>>,
    /// Tags of one trunk each; index 0 is "untagged".
    tags: Vec<(PortId, Box<[SegmentId; NUMBERS]>)>,
    public: Option<PortId>,
}

impl Topology {
    /// Builds the tables from what there is. Members and tags follow from ports and segments.
    #[must_use]
    pub fn new(ports: Vec<Port>, segments: Vec<Segment>) -> Self {
        let mut topology = Self {
            ports: vec![None; NUMBERS],
            segments: vec![None; NUMBERS],
            tags: Vec::new(),
            public: ports.iter().filter(|port| port.public).map(|port| port.id).min(),
        };
        for segment in segments {
            if let Some(uplink) = segment.uplink {
                topology.tag(uplink.port, uplink.vlan.unwrap_or(0), segment.id);
            }
            let at = segment.id.index();
            topology.segments[at] = Some(segment);
        }
        for port in ports {
            let at = port.id.index();
            topology.ports[at] = Some(port);
        }
        topology
    }

    fn tag(&mut self, trunk: PortId, vlan: u16, segment: SegmentId) {
        let row = match self.tags.iter().position(|(port, _)| *port == trunk) {
            Some(row) => row,
            None => {
                self.tags.push((trunk, Box::new([SegmentId::NONE; NUMBERS])));
                self.tags.len() - 1
            }
        };
        if let Some(entry) = self.tags[row].1.get_mut(usize::from(vlan)) {
            *entry = segment;
        }
    }

    /// The port of this number.
    #[inline]
    #[must_use]
    pub fn port(&self, id: PortId) -> Option<&Port> {
        self.ports.get(id.index())?.as_ref()
    }

    /// The node's own address on this port.
    #[inline]
    #[must_use]
    pub fn mac(&self, id: PortId) -> MacAddr {
        self.port(id).map_or(MacAddr::ZERO, |port| port.mac)
    }

    /// The node's public NIC; the first, if floating addresses are answered for on more.
    #[must_use]
    pub fn public(&self) -> Option<PortId> {
        self.public
    }

    /// The segment of this number.
    #[inline]
    #[must_use]
    pub fn segment(&self, id: SegmentId) -> Option<&Segment> {
        self.segments.get(id.index())?.as_ref()
    }

    /// The segment a frame belongs to that came by `port` with this tag.
    #[inline]
    #[must_use]
    pub fn segment_of(&self, port: &Port, vlan: Option<u16>) -> Option<&Segment> {
        match port.kind {
            PortKind::Vif | PortKind::Host => self.segment(port.segment),
            PortKind::Trunk | PortKind::Public => {
                let (_, tags) = self.tags.iter().find(|(trunk, _)| *trunk == port.id)?;
                self.segment(*tags.get(usize::from(vlan.unwrap_or(0)))?)
            }
        }
    }

    /// All ports, by number.
    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        self.ports.iter().flatten()
    }

    /// All segments, by number.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Egress, Uplink, ZoneId};

    fn port(number: u16, kind: PortKind, segment: SegmentId) -> Port {
        let id = PortId::new(number).unwrap();
        Port {
            id,
            kind,
            segment,
            egress: Egress::Punt,
            public: false,
            mac: crate::GATEWAY_MAC,
            station: None,
            identity: None,
            mtu: 1500,
            stamp: 0,
            partial_checksums: false,
            limits: crate::Limits::default(),
        }
    }

    fn topology() -> Topology {
        let (trunk, vif) = (PortId::new(1).unwrap(), PortId::new(2).unwrap());
        let tenant1 = SegmentId::new(7).unwrap();
        let uplink = Some(Uplink { port: trunk, vlan: Some(100) });
        let zone = ZoneId::new(1).unwrap();
        Topology::new(
            vec![port(1, PortKind::Trunk, SegmentId::NONE), port(2, PortKind::Vif, tenant1)],
            vec![Segment {
                id: tenant1,
                zone,
                uplink,
                members: vec![trunk, vif],
                gateway: None,
                host: PortId::NONE,
                taken_up: false,
                clamp_mss: None,
                dhcp: crate::Dhcp::Bridged,
            }],
        )
    }

    #[test]
    fn a_tag_names_its_segment_and_no_other_does() {
        let topology = topology();
        let trunk = topology.port(PortId::new(1).unwrap()).unwrap();
        let found = |vlan| topology.segment_of(trunk, vlan).map(|segment| segment.id.get());
        assert_eq!(found(Some(100)), Some(7));
        assert_eq!((found(Some(102)), found(None), found(Some(4095))), (None, None, None));
    }

    #[test]
    fn a_vif_belongs_to_its_segment_whatever_the_tag() {
        let topology = topology();
        let vif = topology.port(PortId::new(2).unwrap()).unwrap();
        assert_eq!(topology.segment_of(vif, None).unwrap().id.get(), 7);
    }

    #[test]
    fn numbers_nobody_has_are_nobody() {
        let topology = topology();
        assert!(topology.port(PortId::new(4094).unwrap()).is_none());
        assert!(topology.port(PortId::NONE).is_none());
        assert!(Topology::default().port(PortId::new(1).unwrap()).is_none());
        assert_eq!((PortId::new(0), PortId::new(4095)), (None, None));
    }
}
