//! A packet, the line it meets, and at most one thing that stands in the way of a replay.

use conntrack::layout::{FIN, RST};
use proptest::prelude::*;

use crate::frame::{Ipv4, Ipv6, Six, Transport};
use crate::world::{FORCED, OWN, PORTS, PUBLIC, TRUNK, WALLED, told, vm};

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
    OtherWay,
    OtherDestination,
    OtherSegment,
    OtherStation,
    ForgedIpv4,
    ForgedIpv6,
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
    Ipv6(Ipv6),
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
        1 => prop_oneof![Just(47u8), Just(50), Just(132), Just(58)].prop_map(Transport::Other),
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
        2 => ipv6().prop_map(Carried::Ipv6),
        1 => (prop_oneof![Just(0x88b5u16), Just(0x0842), Just(46)], 0usize..100)
            .prop_map(|(ethertype, length)| Carried::Other(ethertype, length)),
    ]
}

fn ipv6() -> impl Strategy<Value = Ipv6> {
    let carries = prop_oneof![
        3 => prop_oneof![4 => Just(16u8), 1 => Just(17), 1 => Just(4), 1 => Just(2)].prop_map(Six::Tcp),
        3 => prop_oneof![4 => any::<u16>(), 1 => Just(547)].prop_map(Six::Udp),
        2 => any::<bool>().prop_map(|request| Six::Echo { request }),
        1 => Just(Six::Solicitation),
        1 => Just(Six::HopByHop),
        2 => prop_oneof![Just(59u8), Just(1), Just(50), Just(132)].prop_map(Six::Other),
    ];
    (any::<[u8; 16]>(), any::<[u8; 16]>(), carries, 0usize..100).prop_map(
        |(source, destination, carries, payload)| Ipv6 { source, destination, carries, payload },
    )
}

fn nat() -> impl Strategy<Value = ([u8; 4], u16, [u8; 4], u16)> {
    let address = || prop_oneof![Just([0; 4]), any::<[u8; 4]>()];
    let port = || prop_oneof![Just(0), any::<u16>()];
    (address(), port(), address(), port())
}

fn spoil() -> impl Strategy<Value = Spoil> {
    use Spoil::*;
    const PLAIN: [Spoil; 28] = [
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
        OtherWay,
        OtherDestination,
        OtherSegment,
        OtherStation,
        ForgedIpv4,
        ForgedIpv6,
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
        prop::option::weighted(0.3, prop_oneof![1000usize..1400, 1000usize..8900]),
    );
    (arrival, any::<bool>(), carried(), line, spoil()).prop_map(
        |((arrival, priority), to_node, carried, line, spoil)| {
            let (way, nat, hop, reply, bits, silent, keeps, length) = line;
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
            case.spoiled().keeping(keeps).long(length)
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

    /// A longer packet, where one could come from.
    fn long(mut self, length: Option<usize>) -> Self {
        let port = PORTS.iter().find(|row| row.0 == self.arrival.0).unwrap();
        if let (Some(length), Spoil::Nothing) = (length, self.spoil)
            && length < usize::from(port.3) - 60
        {
            match &mut self.carried {
                Carried::Ipv4(packet) => packet.payload = length,
                Carried::Ipv6(packet) => packet.payload = length,
                Carried::Other(_, carried) => *carried = length,
            }
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
            Spoil::ForgedIpv4 => {
                self.ipv4();
                self.arrival = (WALLED[0], 0);
            }
            Spoil::ForgedIpv6 => {
                if !matches!(self.carried, Carried::Ipv6(_)) {
                    let (source, destination, carries) = ([0; 16], [0xfd; 16], Six::Tcp(16));
                    let packet = Ipv6 { source, destination, carries, payload: 5 };
                    self.carried = Carried::Ipv6(packet);
                }
                self.arrival = (WALLED[0], 0);
            }
            Spoil::NoEgress => self.way = (NOBODY, 0),
            Spoil::LastHop => {
                self.ipv4().ttl = 1;
                (self.arrival, self.to_node, self.way) = ((11, 0), true, (PUBLIC, 0));
            }
            Spoil::OtherWay => {
                self.ipv4();
                (self.arrival, self.to_node, self.hop) = ((11, 0), true, None);
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
        self.identified()
    }

    /// Behind a wall a VM speaks as itself.
    fn identified(mut self) -> Self {
        let port = self.arrival.0;
        if !WALLED.contains(&port) {
            return self;
        }
        match &mut self.carried {
            Carried::Ipv4(packet) => {
                packet.source[0] = OWN;
                // Nor is it a DHCP server, to which no worker gives a line.
                packet.ports.0 = packet.ports.0.max(68);
            }
            Carried::Ipv6(packet) => {
                if packet.carries == Six::Udp(547) {
                    packet.carries = Six::Udp(546);
                }
                match packet.source[0] % 4 {
                    0 => packet.source = told(port),
                    1 => packet.source[8..].copy_from_slice(&vm(port).interface_id()),
                    _ => {
                        packet.source = [0; 16];
                        packet.source[..2].copy_from_slice(&[0xfe, 0x80]);
                        packet.source[8..].copy_from_slice(&vm(port).interface_id());
                    }
                }
            }
            Carried::Other(..) => {}
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
}
