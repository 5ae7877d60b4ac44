//! A node with every kind of port, as workers and as the kernel's programs know it.

use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use kernel::{Kernel, PortEntry, PortKind, SegmentEntry};
use tables::{
    Egress, Gateway, Identity, Nat, Neighbour, Neighbours, NextHop, Port, PortId, Segment,
    SegmentId, Snapshot, Topology, Uplink, ZoneId,
};
use wire::MacAddr;

pub const TRUNK: u16 = 1;
pub const PUBLIC: u16 = 2;
pub const OLD: u32 = 3;
pub const NOW: u32 = 5;

const NODE: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const NIC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// What the gateway of segment 2 had for a MAC address before a changeover.
pub const BEFORE: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

/// Segments: number, VLAN, zone, whether the gateway is here, whether it is elsewhere and this
/// node takes up what it translates.
pub const SEGMENTS: [(u16, u16, u16, bool, bool); 4] = [
    (1, 100, 1, true, false),
    (2, 102, 1, true, false),
    (3, 0, 2, false, false),
    (4, 104, 3, false, true),
];

/// Ports: number, kind, segment, MTU, stamp.
pub const PORTS: [(u16, PortKind, u16, u16, u32); 10] = [
    (TRUNK, PortKind::Trunk, 0, 9000, 0),
    (PUBLIC, PortKind::Public, 0, 1500, 0),
    (11, PortKind::Vif, 1, 1500, 4),
    (12, PortKind::Vif, 1, 600, 4),
    (13, PortKind::Vif, 2, 9000, 4),
    (14, PortKind::Vif, 3, 1500, 4),
    (15, PortKind::Vif, 4, 1500, 4),
    (16, PortKind::Vif, 2, 1500, NOW + 2),
    (101, PortKind::Host, 1, 1500, 4),
    (102, PortKind::Host, 2, 1500, 4),
];

/// Next hops by number; the last one does not answer.
pub const HOPS: [Option<MacAddr>; 3] =
    [Some(MacAddr([2, 9, 9, 9, 9, 1])), Some(MacAddr([2, 9, 9, 9, 9, 2])), None];

/// Where the taken-up segment's packets are forced to be translated.
pub const FORCED: [u8; 4] = [198, 18, 0, 0];

/// Vifs with a wall. Their VMs have a network of IPv4 addresses that begin with this number.
pub const WALLED: [u16; 2] = [11, 13];
pub const OWN: u8 = 11;

/// The IPv6 address that the VM behind a vif was told.
pub const fn told(port: u16) -> [u8; 16] {
    [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, port as u8]
}

/// The only station behind a vif.
pub const fn vm(port: u16) -> MacAddr {
    MacAddr([0xfa, 0x16, 0x3e, 0, 0, port as u8])
}

/// The node's own address on a port.
pub const fn own_mac(port: u16, kind: PortKind) -> MacAddr {
    match kind {
        PortKind::Vif | PortKind::Host => tables::GATEWAY_MAC,
        PortKind::Trunk => NODE,
        PortKind::Public => {
            debug_assert!(port == PUBLIC);
            NIC
        }
    }
}

fn port(row: (u16, PortKind, u16, u16, u32)) -> Port {
    let (number, kind, segment, mtu, stamp) = row;
    Port {
        id: PortId::new(number).unwrap(),
        kind: match kind {
            PortKind::Trunk => tables::PortKind::Trunk,
            PortKind::Public => tables::PortKind::Public,
            PortKind::Vif => tables::PortKind::Vif,
            PortKind::Host => tables::PortKind::Host,
        },
        segment: SegmentId::new(segment).unwrap_or(SegmentId::NONE),
        egress: Egress::Punt,
        public: kind == PortKind::Public,
        mac: own_mac(number, kind),
        station: (kind == PortKind::Vif).then(|| vm(number)),
        identity: WALLED.contains(&number).then(|| {
            let ipv4 = Ipv4Net::new([OWN, 0, 0, 0].into(), 8).unwrap();
            let ipv6 = Ipv6Net::from(std::net::Ipv6Addr::from(told(number)));
            Identity::new(vm(number), &[(None, ipv4.into()), (None, ipv6.into())])
        }),
        mtu,
        stamp,
        partial_checksums: false,
        limits: tables::Limits::default(),
    }
}

pub fn snapshot() -> Snapshot {
    let segments = SEGMENTS.map(|(number, vlan, zone, gateway, taken_up)| Segment {
        id: SegmentId::new(number).unwrap(),
        zone: ZoneId::new(zone).unwrap(),
        uplink: Some(Uplink {
            port: PortId::new(TRUNK).unwrap(),
            vlan: (vlan != 0).then_some(vlan),
        }),
        members: Vec::new(),
        gateway: gateway.then_some(Gateway {
            address: [10, number as u8, 0, 1],
            shared: false,
            before: (number == 2).then_some(BEFORE),
        }),
        host: PortId::NONE,
        taken_up,
        clamp_mss: None,
        dhcp: tables::Dhcp::Bridged,
    });
    let mut neighbours = Neighbours::default();
    for (number, mac) in (0..).zip(HOPS) {
        let address = [91, 207, 15, number as u8 + 1];
        let neighbour = mac.map(Neighbour::At);
        let hop = NextHop { port: PortId::new(PUBLIC).unwrap(), address, neighbour };
        neighbours.insert_hop(number, hop);
    }
    let mut nat = Nat::default();
    nat.insert_forced("198.18.0.0/15".parse().unwrap());
    Snapshot {
        generation: 1,
        stamp: NOW,
        topology: Arc::new(Topology::new(PORTS.map(port).into(), segments.into())),
        neighbours: Arc::new(neighbours),
        nat: Arc::new(nat),
        ..Snapshot::default()
    }
}

/// Tells the programs the same. All ports are on lo, which is where a test run's frames come from.
pub fn tell(kernel: &mut Kernel) {
    for (number, vlan, zone, gateway, taken_up) in SEGMENTS {
        let gateway = gateway.then_some([10, number as u8, 0, 1]);
        let before = (number == 2).then_some(BEFORE.0);
        let entry = SegmentEntry { zone, vlan, gateway, before, taken_up };
        kernel.set_segment(number, &entry).unwrap();
    }
    for (number, kind, segment, mtu, stamp) in PORTS {
        let station = if kind == PortKind::Vif { vm(number) } else { MacAddr::ZERO };
        let entry = PortEntry {
            segment,
            stamp,
            station: station.0,
            mac: own_mac(number, kind).0,
            takes_xdp: true,
            mtu,
            ..crate::common::port(number, 1, kind)
        };
        kernel.set_port(&entry).unwrap();
    }
    for (number, vlan, ..) in SEGMENTS {
        kernel.set_vlan(TRUNK, vlan, number).unwrap();
    }
    for (number, mac) in (0..).zip(HOPS) {
        kernel.set_hop(number, mac.map(|mac| mac.0)).unwrap();
    }
}
