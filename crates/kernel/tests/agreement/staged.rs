//! A case as bytes: its frame, and the line it meets.

use conntrack::layout::{BRIDGED, NEXT_HOP, PATH_KNOWN, REWRITES, ROUTED, fingerprint};
use conntrack::{FlowKey, Rewrite};
use kernel::PortKind;
use wire::MacAddr;

use crate::case::{Carried, Case, Spoil};
use crate::executors::HASH_KEY;
use crate::frame::{self, Six, Transport};
use crate::world::{BEFORE, NOW, OLD, PORTS, SEGMENTS, own_mac, vm};

impl Case {
    pub fn kind(&self) -> PortKind {
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
    pub fn is_taken_up(&self) -> bool {
        self.arrival.0 == 15 && self.to_node
    }

    pub fn is_routed(&self) -> bool {
        let ipv4 = matches!(self.carried, Carried::Ipv4(_));
        ipv4 && self.to_node && (self.segment().2 || self.is_taken_up())
    }

    fn destination(&self) -> MacAddr {
        let elsewhere = MacAddr([0xfa, 0x16, 0x3e, 9, 9, 9]);
        match self.to_node && !self.is_taken_up() {
            // This VM never heard that its gateway has another address now.
            true if self.arrival.0 == 13 => BEFORE,
            true => own_mac(self.arrival.0, self.kind()),
            false => elsewhere,
        }
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
            Carried::Ipv6(packet) => frame::ethernet(to, from, 0x86dd, &packet.bytes()),
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
            Spoil::ForgedIpv4 => frame[26] ^= 1,
            Spoil::ForgedIpv6 => {
                frame[30..38].copy_from_slice(&[0xf8, 0x16, 0x3e, 0xff, 0xfe, 0, 0, 99]);
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
            Carried::Ipv6(ip) => {
                let addresses = fingerprint(ip.source, ip.destination, HASH_KEY);
                let key = |number, sport, dport| {
                    FlowKey::ipv6(addresses, sport, dport, number, ingress, segment)
                };
                match ip.carries {
                    Six::Tcp(_) => key(6, 1, 2),
                    Six::Udp(sport) => key(17, sport, 9),
                    Six::Echo { request: true } => key(58, 7, 0),
                    Six::Echo { request: false } => key(58, 0, 7),
                    Six::Other(number) if number != 59 && number != 1 => key(number, 0, 0),
                    _ => FlowKey::l2(to.0, from.0, 0x86dd, ingress, segment),
                }
            }
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
                | flag(routed, ROUTED)
                | flag(!routed || self.spoil == Spoil::OtherWay, BRIDGED),
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
