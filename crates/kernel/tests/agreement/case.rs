//! A packet, the line it meets, and at most one thing that stands in the way of a replay.

use conntrack::layout::{FIN, NEXT_HOP, PATH_KNOWN, REWRITES, ROUTED, RST};
use conntrack::{FlowKey, Rewrite};
use kernel::PortKind;
use proptest::prelude::*;
use wire::MacAddr;

use crate::frame::{self, Ipv4, Transport};
use crate::world::{FORCED, NOW, OLD, PORTS, PUBLIC, SEGMENTS, TRUNK, own_mac, vm};

/// Where frames come in: port and VLAN.
const ARRIVALS: [(u16, u16); 12] = [
    (TRUNK, 100),
    (TRUNK, 102),
    (TRUNK, 0),
    (TRUNK, 104),
    (PUBLIC, 0),
    (11, 0),
    (12, 0),
    (13, 0),
    (14, 0),
    (15, 0),
    (101, 0),
    (102, 0),
];
/// Where they may leave, and with which tags.
const WAYS: [(u16, u16); 8] =
    [(TRUNK, 100), (TRUNK, 102), (TRUNK, 0), (PUBLIC, 0), (11, 0), (13, 0), (101, 0), (14, 0)];
const SMALL: u16 = 12;
const AHEAD: u16 = 16;
const NOBODY: u16 = 99;

/// What stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spoil {
    Nothing,
    NoLine,
    PathUnknown,
    StampZero,
    OlderThanIngress,
    OlderThanEgress,
    NoEgress,
    TooBig,
    LastHop,
    HopUnknown,
    BridgedByHop,
    OtherDestination,
    OtherSegment,
    OtherStation,
    GroupSource,
    NoSource,
    Syn,
    Options,
    FirstFragment,
    LaterFragment,
    IcmpError,
    IcmpQuestion,
    Arp,
    Cut(usize),
    DoubleTag,
    ServiceTag,
    ForeignVlan,
    Flip(usize, u8),
}

#[derive(Clone, Debug)]
pub enum Carried {
    Ipv4(Ipv4),
    Ipv6(usize),
    Other(u16, usize),
}

#[derive(Clone, Debug)]
pub struct Case {
    pub arrival: (u16, u16),
    /// It comes with a tag that names no VLAN.
    pub priority: bool,
    /// It is addressed to the node.
    pub to_node: bool,
    pub carried: Carried,
    pub way: (u16, u16),
    /// New source and destination, address and port; zeros stay.
    pub nat: ([u8; 4], u16, [u8; 4], u16),
    pub hop: Option<u32>,
    /// The line is that of the answers.
    pub reply: bool,
    pub bits: u16,
    pub silent: u32,
    pub spoil: Spoil,
}

fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![
        4 => prop_oneof![Just(16u8), Just(24), Just(17), Just(4), Just(20)]
            .prop_map(|flags| Transport::Tcp { flags }),
        4 => any::<bool>().prop_map(|checksum| Transport::Udp { checksum }),
        2 => any::<bool>().prop_map(|request| Transport::Echo { request }),
        1 => prop_oneof![Just(47u8), Just(50), Just(132)].prop_map(Transport::Other),
    ]
}

fn carried() -> impl Strategy<Value = Carried> {
    let ipv4 = (
        any::<[u8; 4]>(),
        any::<[u8; 4]>(),
        any::<(u16, u16)>(),
        transport(),
        2u8..=255,
        prop_oneof![3 => 0usize..64, 1 => 0usize..500],
        prop_oneof![3 => Just(0usize), 1 => 0usize..8],
    );
    prop_oneof![
        8 => ipv4.prop_map(|(source, destination, ports, transport, ttl, payload, padding)| {
            Carried::Ipv4(Ipv4 { source, destination, ports, transport, ttl, payload, padding })
        }),
        1 => (0usize..100).prop_map(Carried::Ipv6),
        1 => (prop_oneof![Just(0x88b5u16), Just(0x0842), Just(46)], 0usize..100)
            .prop_map(|(ethertype, length)| Carried::Other(ethertype, length)),
    ]
}

fn nat() -> impl Strategy<Value = ([u8; 4], u16, [u8; 4], u16)> {
    let address = || prop_oneof![Just([0; 4]), any::<[u8; 4]>()];
    let port = || prop_oneof![Just(0), any::<u16>()];
    (address(), port(), address(), port())
}

fn spoil() -> impl Strategy<Value = Spoil> {
    use Spoil::*;
    const PLAIN: [Spoil; 25] = [
        NoLine,
        PathUnknown,
        StampZero,
        OlderThanIngress,
        OlderThanEgress,
        NoEgress,
        TooBig,
        LastHop,
        HopUnknown,
        BridgedByHop,
        OtherDestination,
        OtherSegment,
        OtherStation,
        GroupSource,
        NoSource,
        Syn,
        Options,
        FirstFragment,
        LaterFragment,
        IcmpError,
        IcmpQuestion,
        Arp,
        DoubleTag,
        ServiceTag,
        ForeignVlan,
    ];
    prop_oneof![
        28 => Just(Nothing),
        25 => prop::sample::select(&PLAIN[..]),
        1 => (14usize..60).prop_map(Cut),
        2 => (0usize..60, 1u8..=255).prop_map(|(at, with)| Flip(at, with)),
    ]
}

pub fn any_case() -> impl Strategy<Value = Case> {
    let arrival = (prop::sample::select(&ARRIVALS[..]), prop::bool::weighted(0.1));
    let line = (
        prop::sample::select(&WAYS[..]),
        nat(),
        prop::option::weighted(0.3, 0u32..2),
        any::<bool>(),
        prop_oneof![4 => Just(0), 1 => Just(FIN), 1 => Just(RST)],
        prop_oneof![Just(0u32), Just(1), Just(100)],
        prop::bool::weighted(0.2),
    );
    (arrival, any::<bool>(), carried(), line, spoil()).prop_map(
        |((arrival, priority), to_node, carried, line, spoil)| {
            let (way, nat, hop, reply, bits, silent, keeps) = line;
            let priority = priority && arrival.1 == 0;
            let case = Case {
                arrival,
                priority,
                to_node,
                carried,
                way,
                nat,
                hop,
                reply,
                bits,
                silent,
                spoil,
            };
            case.spoiled().keeping(keeps)
        },
    )
}

impl Case {
    /// A translation that keeps the port it finds, as SNAT mostly does.
    fn keeping(mut self, keeps: bool) -> Self {
        if let (true, Carried::Ipv4(packet)) = (keeps, &self.carried) {
            self.nat.1 = packet.ports.0;
        }
        self
    }

    /// Makes the case one to which the spoil applies.
    fn spoiled(mut self) -> Self {
        let tcp = |flags| Transport::Tcp { flags };
        match self.spoil {
            Spoil::Syn => self.ipv4().transport = tcp(2),
            Spoil::Options | Spoil::FirstFragment | Spoil::LaterFragment => {
                self.ipv4().transport = Transport::Udp { checksum: true };
            }
            Spoil::IcmpError | Spoil::IcmpQuestion => {
                self.ipv4().transport = Transport::Echo { request: true };
            }
            Spoil::TooBig => {
                self.ipv4().payload = 700;
                self.way = (SMALL, 0);
            }
            Spoil::OlderThanEgress => self.way = (AHEAD, 0),
            Spoil::OlderThanIngress | Spoil::OtherStation => self.arrival = (11, 0),
            Spoil::NoEgress => self.way = (NOBODY, 0),
            Spoil::LastHop => {
                self.ipv4().ttl = 1;
                (self.arrival, self.to_node, self.way) = ((11, 0), true, (PUBLIC, 0));
            }
            Spoil::HopUnknown => {
                self.ipv4();
                (self.arrival, self.to_node, self.hop) = ((11, 0), true, Some(2));
            }
            Spoil::BridgedByHop | Spoil::OtherDestination | Spoil::OtherSegment => {
                self.to_node = false;
            }
            Spoil::DoubleTag | Spoil::ServiceTag | Spoil::ForeignVlan => {
                self.arrival = (TRUNK, 100);
            }
            _ => {}
        }
        self.priority &= self.arrival.1 == 0;
        // What is forced to be translated is taken up, and nothing else is.
        if self.arrival.0 == 15 && self.to_node {
            self.ipv4().destination[..2].copy_from_slice(&FORCED[..2]);
        } else if let Carried::Ipv4(packet) = &mut self.carried {
            packet.destination[0] |= 1;
        }
        self
    }

    fn ipv4(&mut self) -> &mut Ipv4 {
        if !matches!(self.carried, Carried::Ipv4(_)) {
            let transport = Transport::Udp { checksum: true };
            let ports = (5000, 53);
            let (source, destination) = ([10, 0, 0, 3], [10, 1, 0, 3]);
            let (ttl, payload, padding) = (64, 5, 0);
            let packet = Ipv4 { source, destination, ports, transport, ttl, payload, padding };
            self.carried = Carried::Ipv4(packet);
        }
        let Carried::Ipv4(packet) = &mut self.carried else { unreachable!() };
        packet
    }

    fn kind(&self) -> PortKind {
        PORTS.iter().find(|row| row.0 == self.arrival.0).unwrap().1
    }

    /// Number and zone of the segment it comes from, and whether its gateway is here.
    pub fn segment(&self) -> (u16, u16, bool) {
        let row = match self.kind() {
            PortKind::Public => None,
            PortKind::Trunk => SEGMENTS.iter().find(|row| row.1 == self.arrival.1),
            PortKind::Vif | PortKind::Host => {
                let port = PORTS.iter().find(|row| row.0 == self.arrival.0).unwrap();
                SEGMENTS.iter().find(|row| row.0 == port.2)
            }
        };
        row.map_or((0, 0, true), |row| (row.0, row.2, row.3))
    }

    /// Whether the node takes it up though it is addressed to another gateway.
    fn is_taken_up(&self) -> bool {
        self.arrival.0 == 15 && self.to_node
    }

    pub fn is_routed(&self) -> bool {
        let ipv4 = matches!(self.carried, Carried::Ipv4(_));
        ipv4 && self.to_node && (self.segment().2 || self.is_taken_up())
    }

    fn destination(&self) -> MacAddr {
        let elsewhere = MacAddr([0xfa, 0x16, 0x3e, 9, 9, 9]);
        let ours = self.to_node && !self.is_taken_up();
        if ours { own_mac(self.arrival.0, self.kind()) } else { elsewhere }
    }

    fn source(&self) -> MacAddr {
        match (self.spoil, self.kind()) {
            (Spoil::GroupSource, _) => MacAddr([1, 0, 0, 0, 0, 9]),
            (Spoil::NoSource, _) => MacAddr::ZERO,
            (Spoil::OtherStation, _) => MacAddr([0xfa, 0x16, 0x3e, 7, 7, 7]),
            (_, PortKind::Vif) => vm(self.arrival.0),
            _ => MacAddr([0xfa, 0x16, 0x3e, 8, 8, 8]),
        }
    }

    /// The frame behind its tag.
    pub fn untagged(&self) -> Vec<u8> {
        let (to, from) = (self.destination(), self.source());
        let mut frame = match &self.carried {
            Carried::Ipv4(packet) => frame::ethernet(to, from, 0x0800, &packet.bytes()),
            Carried::Ipv6(length) => frame::ethernet(to, from, 0x86dd, &frame::ipv6(*length)),
            Carried::Other(ethertype, length) => {
                frame::ethernet(to, from, *ethertype, &vec![0x5a; *length])
            }
        };
        match self.spoil {
            Spoil::Options => {
                frame.splice(34..34, [1, 1, 1, 1]);
                frame[14] = 0x46;
                let total = u16::from_be_bytes([frame[16], frame[17]]) + 4;
                frame[16..18].copy_from_slice(&total.to_be_bytes());
            }
            Spoil::FirstFragment => frame[20] |= 0x20,
            Spoil::LaterFragment => frame[21] = 9,
            Spoil::IcmpError => frame[34] = 3,
            Spoil::IcmpQuestion => frame[34] = 13,
            Spoil::Arp => frame[13] = 6,
            Spoil::Cut(length) => frame.truncate(length),
            Spoil::Flip(at, with) if at < frame.len() => frame[at] ^= with,
            _ => {}
        }
        frame
    }

    /// The tag it comes with: protocol and VLAN.
    pub fn tag(&self) -> Option<(u16, u16)> {
        match (self.spoil, self.arrival.1) {
            (Spoil::ServiceTag, vlan) => Some((0x88a8, vlan)),
            (Spoil::ForeignVlan, _) => Some((0x8100, 777)),
            (_, 0) => self.priority.then_some((0x8100, 0)),
            (_, vlan) => Some((0x8100, vlan)),
        }
    }

    /// The frame with its tag in it.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = self.untagged();
        if self.spoil == Spoil::DoubleTag {
            frame = frame::tagged(&frame, 0x8100, 5);
        }
        match self.tag() {
            Some((protocol, vlan)) => frame::tagged(&frame, protocol, vlan),
            None => frame,
        }
    }

    /// The key of the packet, had nothing been spoilt.
    pub fn key(&self) -> FlowKey {
        let ((ingress, _), (segment, zone, _)) = (self.arrival, self.segment());
        let (to, from) = (self.destination(), self.source());
        match &self.carried {
            Carried::Ipv4(ip) => {
                let (sport, dport) = ip.ports;
                let (from, to) = (ip.source, ip.destination);
                match ip.transport {
                    Transport::Echo { request } => {
                        FlowKey::echo(from, to, sport, request, ingress, zone)
                    }
                    Transport::Other(number) => {
                        FlowKey::ipv4(from, to, 0, 0, number, ingress, zone)
                    }
                    _ => FlowKey::ipv4(from, to, sport, dport, ip.protocol(), ingress, zone),
                }
            }
            Carried::Ipv6(_) => FlowKey::l2(to.0, from.0, 0x86dd, ingress, segment),
            Carried::Other(ethertype, _) => FlowKey::l2(to.0, from.0, *ethertype, ingress, segment),
        }
    }

    /// What its line says.
    pub fn rewrite(&self) -> Rewrite {
        let routed = self.is_routed();
        let ipv4 = matches!(self.carried, Carried::Ipv4(_));
        let (source, source_port, destination, destination_port) =
            if ipv4 { self.nat } else { Default::default() };
        let translates =
            (source, source_port, destination, destination_port) != ([0; 4], 0, [0; 4], 0);
        let hop = self.hop.filter(|_| routed || self.spoil == Spoil::BridgedByHop);
        let hop = if self.spoil == Spoil::BridgedByHop { Some(0) } else { hop };
        let known = self.spoil != Spoil::PathUnknown;
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        Rewrite {
            source,
            destination,
            source_mac: self.source().0,
            source_port,
            destination_port,
            egress: self.way.0,
            segment: match self.spoil {
                Spoil::OtherSegment => 77,
                _ => self.segment().0,
            },
            vlan: self.way.1,
            destination_mac: match (hop, routed, self.spoil) {
                (Some(number), ..) => {
                    let [a, b, c, d] = number.to_le_bytes();
                    [a, b, c, d, 0, 0]
                }
                (None, true, _) => [0xfa, 0x16, 0x3e, 4, 4, 4],
                (None, false, Spoil::OtherDestination) => [0xfa, 0x16, 0x3e, 5, 5, 5],
                (None, false, _) => self.destination().0,
            },
            flags: flag(known, PATH_KNOWN)
                | flag(translates, REWRITES)
                | flag(hop.is_some(), NEXT_HOP)
                | flag(routed, ROUTED),
        }
    }

    pub fn stamp(&self) -> u32 {
        match self.spoil {
            Spoil::StampZero => 0,
            Spoil::OlderThanIngress => OLD,
            _ => NOW,
        }
    }
}
