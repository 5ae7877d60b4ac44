//! Fragments whose addresses may change: the first has the ports and is decided like a whole
//! packet, the later ones follow it.

use conntrack::{FlowKey, Fragments};
use tables::{METADATA, ZoneId};
use wire::{Ipv4, Network, Part, Piece, Transport, protocol};

use crate::connect::{self, Answer, Question, Refusal, Source};
use crate::pipeline::Step;
use crate::{DropReason, Packet, Pipeline, Verdict, flow};

impl Pipeline<'_> {
    /// Gives a fragment the ports of its datagram, by which its connection is found. One that came
    /// before them waits; one that is routed or bridged as it is needs none.
    #[cold]
    #[inline(never)]
    pub(crate) fn find_ports(&self, packet: &mut Packet<'_>) -> Step<()> {
        let Network::Ipv4(mut ip) = packet.headers.network else { return Ok(()) };
        if !self.may_change(packet, &ip) {
            return Ok(());
        }
        let has_ports = matches!(ip.protocol, protocol::TCP | protocol::UDP | protocol::ICMP);
        if has_ports {
            let l3 = usize::from(packet.headers.l3);
            let piece = wire::piece(packet.bytes().get(l3..).unwrap_or_default());
            let piece = piece.ok_or(Verdict::Drop(DropReason::MalformedIpv4))?;
            let (ingress, zone) = (packet.ingress.get(), packet.zone.get());
            let (src, dst, number) = (ip.src, ip.dst, ip.protocol);
            let datagram = Fragments::datagram(src, dst, piece.id as u16, number, ingress, zone);
            (_, ip.transport) = self.transport(packet, datagram, &piece)?;
        }
        // All behind this sees a packet with ports; what is changed in its bytes is what is there.
        packet.headers.network = Network::Ipv4(ip);
        if let Some(key) = flow::of_fragment(packet, &ip) {
            packet.key = key;
        }
        Ok(())
    }

    /// The same of IPv6, where security groups stand: elsewhere it is bridged as it is.
    #[cold]
    #[inline(never)]
    pub(crate) fn find_ports6(&self, packet: &mut Packet<'_>) -> Step<()> {
        let Network::Ipv6(mut ip) = packet.headers.network else { return Ok(()) };
        if !self.tables.walls.stand() {
            return Ok(());
        }
        let l3 = usize::from(packet.headers.l3);
        let piece = wire::piece6(packet.bytes().get(l3..).unwrap_or_default());
        let (Some(piece), Some((src, dst))) = (piece, packet.ipv6_addresses()) else {
            return Err(Verdict::Drop(DropReason::MalformedIpv6));
        };
        let (ingress, segment) = (packet.ingress.get(), packet.segment.get());
        let addresses = self.flows.fingerprint(src, dst);
        let datagram = Fragments::datagram6(addresses, piece.id, ingress, segment);
        (ip.protocol, ip.transport) = self.transport(packet, datagram, &piece)?;
        packet.headers.network = Network::Ipv6(ip);
        if let Some(key) = flow::of_ipv6(packet, &ip, self.flows) {
            packet.key = key;
        }
        Ok(())
    }

    /// Protocol and transport header: the first fragment's own, and what that said for the later
    /// ones.
    fn transport(
        &self,
        packet: &mut Packet<'_>,
        datagram: FlowKey,
        piece: &Piece,
    ) -> Step<(u8, Transport)> {
        match piece.part {
            Part::Tiny => Err(Verdict::Drop(DropReason::TinyFragment)),
            Part::First(transport) => {
                let says = pack(piece.protocol, transport);
                let noted = self.fragments.note(datagram, says, self.now_ms);
                noted.map_err(|_| Verdict::Drop(DropReason::FragmentConflict))?;
                Ok((piece.protocol, transport))
            }
            Part::Later => match self.fragments.find(datagram, self.now_ms) {
                Some(said) => Ok(unpack(said)),
                None => {
                    packet.key = datagram;
                    packet.retag(&self.tables.topology)?;
                    Err(Verdict::Wait)
                }
            },
        }
    }

    /// Whether the fragment's addresses may have to change, or it may be the host's: then it
    /// matters whose it is. Where security groups stand it always does. As far as the addresses tell, which all its datagram's fragments share.
    fn may_change(&self, packet: &Packet<'_>, ip: &Ipv4) -> bool {
        if self.tables.walls.stand() {
            return true;
        }
        let nat = &self.tables.nat;
        // To the shared address: whose answer it is, the ports say. From behind a floating one: an
        // answer to it leaves in its name, be it bridged.
        if nat.source == Some(ip.dst) || nat.float_of(packet.zone, ip.src).is_some() {
            return true;
        }
        // From who sees VMs' own addresses: whose answer it is, the ports say as well.
        if packet.zone == ZoneId::NONE && nat.is_exempt(ip.src) {
            return true;
        }
        // A request for metadata is known by its port, which a later fragment does not have.
        let asks = nat.metadata.is_some() && ip.dst == METADATA;
        let question = Question::of(packet, ip);
        let changes =
            |answer: Answer| answer.source != Source::Keep || answer.destination != ip.dst;
        packet.routed
            && match connect::connect(self.tables, &question) {
                Ok(answer) => asks || changes(answer),
                // Whether it is an answer, or served all the same, its ports say.
                Err(Refusal::Denied(_)) => true,
                Err(_) => asks,
            }
    }
}

/// What a first fragment says, in a word. TCP's flags are that fragment's alone.
fn pack(number: u8, transport: Transport) -> u64 {
    let ports = |kind: u64, one: u16, two: u16| kind << 32 | u64::from(one) << 16 | u64::from(two);
    let says = match transport {
        Transport::Tcp { sport, dport, .. } | Transport::Udp { sport, dport } => {
            ports(0, sport, dport)
        }
        Transport::Echo { request: true, id } => ports(1, id, 0),
        Transport::Echo { request: false, id } => ports(2, id, 0),
        Transport::None => ports(3, 0, 0),
    };
    u64::from(number) << 40 | says
}

fn unpack(word: u64) -> (u8, Transport) {
    let (number, one, two) = ((word >> 40) as u8, (word >> 16) as u16, word as u16);
    let transport = match ((word >> 32) as u8, number) {
        (0, protocol::TCP) => Transport::Tcp { sport: one, dport: two, flags: 0 },
        (0, _) => Transport::Udp { sport: one, dport: two },
        (kind @ (1 | 2), _) => Transport::Echo { request: kind == 1, id: one },
        _ => Transport::None,
    };
    (number, transport)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_first_fragment_says_is_read_as_it_was_meant() {
        let cases = [
            (protocol::TCP, Transport::Tcp { sport: 40000, dport: 22, flags: 0 }),
            (protocol::UDP, Transport::Udp { sport: 1, dport: 65535 }),
            (protocol::ICMP, Transport::Echo { request: true, id: 0 }),
            (protocol::ICMP, Transport::Echo { request: false, id: 0xbeef }),
            (protocol::ICMP, Transport::None),
            (protocol::ICMPV6, Transport::Echo { request: true, id: 7 }),
        ];
        for (number, transport) in cases {
            assert_eq!(unpack(pack(number, transport)), (number, transport));
        }
        let syn = Transport::Tcp { sport: 40000, dport: 22, flags: 2 };
        assert_eq!(unpack(pack(protocol::TCP, syn)), cases[0]);
    }
}
