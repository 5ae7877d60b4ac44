//! Whether a packet from a VM says the truth about who sent it.
//!
//! nova's nwfilter chains (no-mac-spoofing, no-ip-spoofing, no-arp-spoofing), and what they left
//! open: IPv6, neighbour discovery, and VMs that play router or DHCP server.

use tables::{Identity, Port};
use wire::{Arp, Icmp, Ipv4, MacAddr, Network, Transport, Upper, protocol};

use crate::pipeline::Step;
use crate::{DropReason, Packet, Verdict};

/// Ports of DHCP (RFC 2131 §4.1) and of a DHCPv6 server (RFC 8415 §7.2).
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const DHCPV6_SERVER: u16 = 547;

/// Types of ICMPv6 (RFC 4861, RFC 2710, RFC 3810).
mod icmp {
    pub(super) const LISTENER_REPORT: u8 = 131;
    pub(super) const LISTENER_DONE: u8 = 132;
    pub(super) const ROUTER_SOLICITATION: u8 = 133;
    pub(super) const ROUTER_ADVERTISEMENT: u8 = 134;
    pub(super) const NEIGHBOUR_SOLICITATION: u8 = 135;
    pub(super) const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    pub(super) const REDIRECT: u8 = 137;
    pub(super) const LISTENER_REPORT_2: u8 = 143;
}

/// Where options begin in a router solicitation, and in messages about a neighbour.
const ROUTER_OPTIONS: usize = 8;
const NEIGHBOUR_OPTIONS: usize = 24;

/// The unspecified IPv6 address, of who has none yet.
const NOBODY: [u8; 16] = [0; 16];

/// Refuses what a VM may not send as.
#[inline]
pub(crate) fn sender(port: &Port, packet: &Packet<'_>) -> Step<()> {
    let Some(own) = &port.identity else { return Ok(()) };
    if !own.has_mac(packet.headers.src) {
        return Err(Verdict::Drop(DropReason::SpoofedMac));
    }
    let truth = match packet.headers.network {
        Network::Ipv4(ip) => ipv4(own, &ip, packet),
        Network::Arp(said) => arp(own, &said),
        Network::Ipv6(_) => ipv6(own, packet),
        Network::Other => Ok(()),
    };
    truth.map_err(Verdict::Drop)
}

/// Whether a VM may have a connection of its own with this source and source port: asked of lines
/// that an earlier daemon left.
pub(crate) fn may_have(own: &Identity, source: [u8; 4], number: u8, sport: u16) -> bool {
    let serves = (number, sport) == (protocol::UDP, DHCP_SERVER);
    own.has_ipv4(source) && (own.serves_dhcp || !serves)
}

#[inline]
fn ipv4(own: &Identity, ip: &Ipv4, packet: &Packet<'_>) -> Result<(), DropReason> {
    if !own.has_ipv4(ip.src) && !asks_for_an_address(ip) {
        return Err(DropReason::SpoofedIpv4);
    }
    let sport = match ip.transport {
        Transport::Udp { sport, .. } => Some(sport),
        _ if ip.fragment => first_port(ip, packet),
        _ => None,
    };
    let is_rogue = sport == Some(DHCP_SERVER) && !own.serves_dhcp;
    if is_rogue { Err(DropReason::RogueDhcp) } else { Ok(()) }
}

/// DHCP's client, which has no address yet.
fn asks_for_an_address(ip: &Ipv4) -> bool {
    let to_server = Transport::Udp { sport: DHCP_CLIENT, dport: DHCP_SERVER };
    ip.src == [0; 4] && ip.transport == to_server
}

/// The source port of a datagram's first fragment.
#[cold]
fn first_port(ip: &Ipv4, packet: &Packet<'_>) -> Option<u16> {
    if ip.protocol != protocol::UDP || ip.fragment_offset != 0 {
        return None;
    }
    let at = usize::from(packet.headers.l3) + usize::from(ip.header_len);
    let port = packet.bytes().get(at..at + 2)?;
    Some(u16::from_be_bytes(port.try_into().ok()?))
}

/// A probe speaks for nobody's address (RFC 5227).
fn arp(own: &Identity, said: &Arp) -> Result<(), DropReason> {
    let known = said.sender == [0; 4] || own.has_ipv4(said.sender);
    if known && own.has_mac(said.sender_mac) { Ok(()) } else { Err(DropReason::SpoofedArp) }
}

fn ipv6(own: &Identity, packet: &Packet<'_>) -> Result<(), DropReason> {
    let l3 = usize::from(packet.headers.l3);
    let read = wire::ipv6(packet.bytes().get(l3..).unwrap_or_default());
    let ip = read.ok_or(DropReason::MalformedIpv6)?;
    let mac = packet.headers.src;
    let known = own.has_ipv6(mac, ip.src);
    match ip.upper {
        Upper::Hidden => Err(DropReason::HiddenIpv6),
        Upper::Udp(DHCPV6_SERVER) if !own.serves_dhcp => Err(DropReason::RogueDhcp),
        Upper::Icmp(message) => {
            let nobody = ip.src == NOBODY;
            match known || nobody && may_come_from_nobody(message.kind) {
                true => discovery(own, mac, message, nobody),
                false => Err(DropReason::SpoofedIpv6),
            }
        }
        _ if known => Ok(()),
        _ => Err(DropReason::SpoofedIpv6),
    }
}

/// What is sent before one has an address (RFC 4862 §5.4, RFC 4861 §4.1, RFC 3590).
fn may_come_from_nobody(kind: u8) -> bool {
    matches!(
        kind,
        icmp::ROUTER_SOLICITATION
            | icmp::NEIGHBOUR_SOLICITATION
            | icmp::LISTENER_REPORT
            | icmp::LISTENER_DONE
            | icmp::LISTENER_REPORT_2
    )
}

/// Neighbour discovery: a VM speaks for its own addresses, and is no router.
fn discovery(
    own: &Identity,
    mac: MacAddr,
    message: Icmp<'_>,
    nobody: bool,
) -> Result<(), DropReason> {
    let claims = |options| message.claims_only(options, |claimed| own.has_mac(claimed));
    let is_own = || message.target().is_some_and(|target| own.has_ipv6(mac, target));
    let truth = match message.kind {
        icmp::ROUTER_ADVERTISEMENT | icmp::REDIRECT => return Err(DropReason::RogueRa),
        icmp::ROUTER_SOLICITATION => claims(ROUTER_OPTIONS),
        // Who has no address yet asks whether somebody has the one it wants.
        icmp::NEIGHBOUR_SOLICITATION => claims(NEIGHBOUR_OPTIONS) && (!nobody || is_own()),
        icmp::NEIGHBOUR_ADVERTISEMENT => claims(NEIGHBOUR_OPTIONS) && is_own(),
        _ => true,
    };
    if truth { Ok(()) } else { Err(DropReason::SpoofedNd) }
}
