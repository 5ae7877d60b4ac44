//! Security groups: who may open a connection to a VM. Asked once, when a connection's way is first
//! known to end at a VM's port; and again when what stands before that port has changed.

use std::net::IpAddr;

use conntrack::{Flow, Table};
use tables::{Ask, Let, PortId, SegmentId, Snapshot, ZoneId};
use wire::{Headers, Ipv4, Ipv6, Network, Transport, Upper, ethertype, protocol};

use crate::connect::Source;
use crate::path::Path;
use crate::pipeline::Step;
use crate::{DropReason, Packet, Pipeline, Verdict};

/// Type and code of an ICMP echo as one number: request and reply (RFC 792, RFC 4443 §4).
const ECHO: u16 = 8 << 8;
const ECHO_REPLY: u16 = 0;
const ECHO_6: u16 = 128 << 8;
const ECHO_REPLY_6: u16 = 129 << 8;

impl Pipeline<'_> {
    /// Refuses a packet of no known connection that nothing lets in where it would leave.
    pub(crate) fn judge(&self, packet: &Packet<'_>, source: Source, path: &Path) -> Step<()> {
        match self.let_in(packet, source, path) {
            Some(_) => Ok(()),
            None => Err(self.refuse(path)),
        }
    }

    /// What lets such a packet in.
    pub(crate) fn let_in(&self, packet: &Packet<'_>, source: Source, path: &Path) -> Option<Let> {
        let walls = &self.tables.walls;
        if walls.before(path.egress).is_none() {
            return Some(Let::Open);
        }
        let ask = match ask(packet.bytes(), &packet.headers, packet.zone) {
            Ok(ask) => ask,
            Err(unasked) => return Some(unasked),
        };
        let seen = match source {
            Source::Keep => ask.source,
            Source::Float(address) | Source::Shared(address) => address.into(),
        };
        walls.judge(path.egress, &Ask { seen, bridged: !packet.routed, ..ask })
    }

    /// Refuses a packet of a known connection whose way leads to another VM's port than the one it
    /// was judged for: its VM came here, or it was flooded when nobody knew where that is.
    pub(crate) fn judge_elsewhere(
        &self,
        packet: &Packet<'_>,
        found: &Flow,
        path: &Path,
    ) -> Step<()> {
        if found.is_reply() || self.tables.walls.before(path.egress).is_none() {
            return Ok(());
        }
        let answers = self.flows.at(found.partner()).map(|partner| partner.key().ingress());
        let may = || admits(self.tables, path.egress, found, opener(found, Some(packet)));
        match answers == Some(path.egress.get()) || may() {
            true => Ok(()),
            false => Err(self.refuse(path)),
        }
    }

    fn refuse(&self, path: &Path) -> Verdict {
        self.counters.refused(path.egress);
        Verdict::Drop(DropReason::SecurityGroup)
    }
}

/// Whether a connection was let in by what is there no more. Its lines stay until they are old: so
/// its packets, whoever's, are known for its, and none of them opens it anew the other way round.
///
/// Who opened one of IPv6, only a packet of its says: without one it is refused.
pub(crate) fn refuses(
    tables: &Snapshot,
    flows: &Table,
    flow: &Flow,
    packet: Option<&Packet<'_>>,
) -> bool {
    if !tables.walls.revoke {
        return false;
    }
    let Some(partner) = flows.at(flow.partner()) else { return false };
    let (original, reply) = if flow.is_reply() { (&partner, flow) } else { (flow, &partner) };
    let Some(vif) = PortId::new(reply.key().ingress()) else { return false };
    tables.walls.before(vif).is_some() && !admits(tables, vif, original, opener(flow, packet))
}

/// Who opened an IPv6 connection, as a packet of that flow of it says.
fn opener(flow: &Flow, packet: Option<&Packet<'_>>) -> Option<IpAddr> {
    let (source, destination) = packet?.ipv6_addresses()?;
    Some(if flow.is_reply() { destination } else { source }.into())
}

/// Whether a connection may come in by a port, as its first packet asked; one of IPv6 was opened by
/// `opener`.
fn admits(tables: &Snapshot, port: PortId, original: &Flow, opener: Option<IpAddr>) -> bool {
    let (key, rewrite) = (original.key(), original.rewrite());
    if key.is_l2() {
        // IP is never let in unseen.
        return !matches!(key.ethertype(), ethertype::IPV4 | ethertype::IPV6);
    }
    let wanted = match key.protocol() {
        protocol::ICMP => (0, Some(ECHO)),
        protocol::ICMPV6 if key.is_ipv6() => (0, Some(ECHO_6)),
        protocol::TCP | protocol::UDP => (key.sport(), Some(key.dport())),
        _ => (0, None),
    };
    let (zone, source, seen) = if key.is_ipv6() {
        let segment = SegmentId::new(key.zone()).and_then(|id| tables.topology.segment(id));
        let (Some(segment), Some(source)) = (segment, opener) else { return false };
        (segment.zone, source, source)
    } else {
        let seen = if rewrite.source == [0; 4] { key.src() } else { rewrite.source };
        (ZoneId::new(key.zone()).unwrap_or(ZoneId::NONE), key.src().into(), seen.into())
    };
    let ask = Ask {
        zone,
        source,
        seen,
        protocol: key.protocol(),
        source_port: wanted.0,
        port: wanted.1,
        bridged: original.flags() & conntrack::layout::ROUTED == 0,
    };
    tables.walls.judge(port, &ask).is_some()
}

/// Who asks to be heard by all of a segment with this frame; none where nobody judges it.
#[must_use]
pub fn flooded(frame: &[u8], zone: ZoneId) -> Option<Ask> {
    let headers = wire::parse(frame).ok()?;
    ask(frame, &headers, zone).ok()
}

/// Who asks for what; or why nobody is asked.
fn ask(frame: &[u8], headers: &Headers, zone: ZoneId) -> Result<Ask, Let> {
    match headers.network {
        Network::Ipv4(ip) => Ok(ask4(frame, headers, &ip, zone)),
        Network::Ipv6(ip) => ask6(frame, headers, &ip, zone),
        Network::Arp(_) | Network::Other => Err(Let::Open),
    }
}

fn ask4(frame: &[u8], headers: &Headers, ip: &Ipv4, zone: ZoneId) -> Ask {
    let (source_port, port) = match ip.transport {
        Transport::Tcp { sport, dport, .. } | Transport::Udp { sport, dport } => {
            (sport, Some(dport))
        }
        Transport::Echo { request: true, .. } => (0, Some(ECHO)),
        Transport::Echo { request: false, .. } => (0, Some(ECHO_REPLY)),
        Transport::None => (0, message(frame, headers, ip)),
    };
    let (source, protocol) = (ip.src.into(), ip.protocol);
    Ask { zone, source, seen: source, protocol, source_port, port, bridged: true }
}

/// Type and code of an ICMP message, as one number.
fn message(frame: &[u8], headers: &Headers, ip: &Ipv4) -> Option<u16> {
    if ip.protocol != protocol::ICMP || ip.fragment_offset != 0 {
        return None;
    }
    let at = usize::from(headers.l3) + usize::from(ip.header_len);
    let said = frame.get(at..at + 2)?;
    Some(u16::from_be_bytes([*said.first()?, *said.get(1)?]))
}

/// Ports behind extension headers are not read: they count as those of a later fragment do.
fn ask6(frame: &[u8], headers: &Headers, ip: &Ipv6, zone: ZoneId) -> Result<Ask, Let> {
    let packet = frame.get(usize::from(headers.l3)..).unwrap_or_default();
    let speaker = wire::ipv6(packet).ok_or(Let::Open)?;
    let (protocol, source_port, port) = match (ip.transport, speaker.upper) {
        (Transport::Tcp { sport, dport, .. } | Transport::Udp { sport, dport }, _) => {
            (ip.protocol, sport, Some(dport))
        }
        (Transport::Echo { request: true, .. }, _) => (ip.protocol, 0, Some(ECHO_6)),
        (Transport::Echo { request: false, .. }, _) => (ip.protocol, 0, Some(ECHO_REPLY_6)),
        // In fragments it means nothing (RFC 6980).
        (Transport::None, Upper::Icmp(it)) if it.is_of_link() && !ip.fragment => {
            return Err(Let::Discovery);
        }
        (Transport::None, Upper::Icmp(it)) => (speaker.protocol, 0, Some(it.what())),
        (Transport::None, _) => (speaker.protocol, 0, None),
    };
    let source = speaker.src.into();
    Ok(Ask { zone, source, seen: source, protocol, source_port, port, bridged: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ethernet and IPv4 before an ICMP message that asks for a time stamp (RFC 792, type 13).
    fn timestamp() -> Vec<u8> {
        let mut frame = vec![0xfa, 0x16, 0x3e, 0, 0, 1, 0xfa, 0x16, 0x3e, 0, 0, 2, 8, 0];
        frame.extend([0x45, 0, 0, 40, 0, 7, 0, 0, 64, 1, 0, 0, 10, 0, 0, 4, 10, 0, 0, 3]);
        frame.extend([13, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        frame
    }

    #[test]
    fn a_flooded_frame_says_what_it_wants_of_whom() {
        let zone = ZoneId::new(1).unwrap();
        let said = flooded(&timestamp(), zone).unwrap();
        assert_eq!((said.zone, said.source, said.protocol), (zone, [10, 0, 0, 4].into(), 1));
        assert_eq!(said.port, Some(13 << 8));
        let mut fragment = timestamp();
        fragment[21] = 1;
        assert_eq!(flooded(&fragment, zone).unwrap().port, None, "it begins elsewhere");
        let mut arp = timestamp();
        arp[12..14].copy_from_slice(&[0x88, 0xb5]);
        assert_eq!(flooded(&arp, zone), None);
        assert_eq!(flooded(&arp[..9], zone), None);
    }

    /// Ethernet and IPv6 before what it carries.
    fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x33, 0x33, 0, 0, 0, 1, 0xfa, 0x16, 0x3e, 0, 0, 2, 0x86, 0xdd];
        frame.extend([0x60, 0, 0, 0, 0, payload.len() as u8, next, 255]);
        frame.extend([0xfd; 32]);
        frame.extend(payload);
        frame
    }

    #[test]
    fn of_ipv6_discovery_is_not_asked_and_all_else_is_by_what_can_be_read() {
        let zone = ZoneId::new(1).unwrap();
        let said = |next, payload: &[u8]| {
            let frame = ipv6(next, payload);
            ask(&frame, &wire::parse(&frame).unwrap(), zone).map(|ask| (ask.protocol, ask.port))
        };
        for kind in [130, 131, 132, 133, 134, 135, 136, 143] {
            assert_eq!(said(58, &[kind, 0, 0, 0, 0, 0, 0, 0]), Err(Let::Discovery), "{kind}");
        }
        let report = [58, 0, 5, 2, 0, 0, 1, 0, 143, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(said(0, &report), Err(Let::Discovery), "behind a router alert");
        assert_eq!(said(58, &[137, 0, 0, 0, 0, 0, 0, 0]), Ok((58, Some(137 << 8))), "a redirect");
        assert_eq!(said(58, &[128, 0, 0, 0, 0, 7, 0, 1]), Ok((58, Some(128 << 8))));
        assert_eq!(said(17, &[2, 34, 2, 35, 0, 8, 0, 0]), Ok((17, Some(547))));
        let behind = [17, 0, 1, 4, 0, 0, 0, 0, 2, 34, 2, 35, 0, 8, 0, 0];
        assert_eq!(said(60, &behind), Ok((17, None)));
        assert_eq!(said(50, &[1, 2, 3, 4]), Ok((50, None)));
        let advertisement = [58, 0, 0, 0, 0, 0, 0, 7, 134, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(said(44, &advertisement), Ok((58, Some(134 << 8))), "RFC 6980");
    }
}
