//! Security groups: who may open a connection to a VM. Asked once, when a connection's way is first
//! known to end at a VM's port; and again when what stands before that port has changed.

use conntrack::{Flow, Table};
use tables::{Ask, Let, PortId, Snapshot, ZoneId};
use wire::{Headers, Ipv4, Network, Transport, ethertype, protocol};

use crate::connect::Source;
use crate::path::Path;
use crate::pipeline::Step;
use crate::{DropReason, Packet, Pipeline, Verdict};

/// Type and code of an ICMP echo as one number: request and reply (RFC 792).
const ECHO: u16 = 8 << 8;
const ECHO_REPLY: u16 = 0;

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
        let Network::Ipv4(ip) = packet.headers.network else { return Some(Let::Open) };
        if walls.before(path.egress).is_none() {
            return Some(Let::Open);
        }
        let ask = ask(packet.bytes(), &packet.headers, &ip, packet.zone);
        let seen = match source {
            Source::Keep => ip.src,
            Source::Float(address) | Source::Shared(address) => address,
        };
        walls.judge(path.egress, &Ask { seen, bridged: !packet.routed, ..ask })
    }

    /// Refuses a packet of a known connection whose way leads to another VM's port than the one it
    /// was judged for: its VM came here, or it was flooded when nobody knew where that is.
    pub(crate) fn judge_elsewhere(&self, found: &Flow, path: &Path) -> Step<()> {
        if found.is_reply() || self.tables.walls.before(path.egress).is_none() {
            return Ok(());
        }
        let answers = self.flows.at(found.partner()).map(|partner| partner.key().ingress());
        match answers == Some(path.egress.get()) || admits(self.tables, path.egress, found) {
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
pub(crate) fn refuses(tables: &Snapshot, flows: &Table, flow: &Flow) -> bool {
    if !tables.walls.revoke {
        return false;
    }
    let Some(partner) = flows.at(flow.partner()) else { return false };
    let (original, reply) = if flow.is_reply() { (&partner, flow) } else { (flow, &partner) };
    let Some(vif) = PortId::new(reply.key().ingress()) else { return false };
    tables.walls.before(vif).is_some() && !admits(tables, vif, original)
}

/// Whether a connection may come in by a port, as its first packet asked.
fn admits(tables: &Snapshot, port: PortId, original: &Flow) -> bool {
    let (key, rewrite) = (original.key(), original.rewrite());
    if key.is_l2() {
        // IPv4 is never let in unseen.
        return key.ethertype() != ethertype::IPV4;
    }
    let wanted = match key.protocol() {
        protocol::ICMP => (0, Some(ECHO)),
        protocol::TCP | protocol::UDP => (key.sport(), Some(key.dport())),
        _ => (0, None),
    };
    let ask = Ask {
        zone: ZoneId::new(key.zone()).unwrap_or(ZoneId::NONE),
        source: key.src(),
        seen: if rewrite.source == [0; 4] { key.src() } else { rewrite.source },
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
    match headers.network {
        Network::Ipv4(ip) => Some(ask(frame, &headers, &ip, zone)),
        _ => None,
    }
}

fn ask(frame: &[u8], headers: &Headers, ip: &Ipv4, zone: ZoneId) -> Ask {
    let (source_port, port) = match ip.transport {
        Transport::Tcp { sport, dport, .. } | Transport::Udp { sport, dport } => {
            (sport, Some(dport))
        }
        Transport::Echo { request: true, .. } => (0, Some(ECHO)),
        Transport::Echo { request: false, .. } => (0, Some(ECHO_REPLY)),
        Transport::None => (0, message(frame, headers, ip)),
    };
    let Ipv4 { src, protocol, .. } = *ip;
    Ask { zone, source: src, seen: src, protocol, source_port, port, bridged: true }
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
        assert_eq!((said.zone, said.source, said.protocol), (zone, [10, 0, 0, 4], 1));
        assert_eq!(said.port, Some(13 << 8));
        let mut fragment = timestamp();
        fragment[21] = 1;
        assert_eq!(flooded(&fragment, zone).unwrap().port, None, "it begins elsewhere");
        let mut arp = timestamp();
        arp[12..14].copy_from_slice(&[0x88, 0xb5]);
        assert_eq!(flooded(&arp, zone), None);
        assert_eq!(flooded(&arp[..9], zone), None);
    }
}
