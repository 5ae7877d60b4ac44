//! VMs that ask for their address. The control thread answers them, or a server at the host port;
//! nobody else hears them, and nobody else's answers are let through.

use tables::{Dhcp, PortId, PortKind, Segment};
use wire::{MacAddr, Network, Part, Transport};

use crate::pipeline::Step;
use crate::{DropReason, Packet, Pipeline, Verdict};

/// The ports of RFC 2131 §4.1: of servers and of clients.
const SERVER: u16 = 67;
const CLIENT: u16 = 68;
/// A UDP header, and the client's MAC within a message (`chaddr`).
const UDP_LEN: usize = 8;
const CLIENT_MAC: usize = 28;
/// The longest message of a packet of 1500 bytes.
const LONGEST: usize = 1472;
/// Requests one worker holds until the batch is done.
const WAITING: usize = 16;
/// Milliseconds a request costs its port, and how many it may have saved up: ten a second, twenty
/// at once. A client asks twice, and again after seconds.
const COST_MS: u64 = 100;
const BURST: u64 = 20;
/// Ports requests are counted for.
const PORTS: usize = 4096;

/// A request that the control thread is to answer.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The vif it came by; its source was the vif's own MAC.
    pub port: PortId,
    length: usize,
    bytes: [u8; LONGEST],
}

impl Asked {
    /// The UDP payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// The requests of one worker's batch, and until when each port has paid for its own.
#[derive(Debug)]
pub(crate) struct Asking {
    waiting: Vec<Asked>,
    paid: Box<[u64]>,
}

impl Default for Asking {
    fn default() -> Self {
        Self { waiting: Vec::with_capacity(WAITING), paid: vec![0; PORTS].into_boxed_slice() }
    }
}

impl Asking {
    /// Takes a request in, or says why not.
    fn put(&mut self, port: PortId, payload: &[u8], now_ms: u64) -> Result<(), DropReason> {
        let Some(paid) = self.paid.get_mut(port.index()) else { return Err(DropReason::NoPort) };
        let from = (*paid).max(now_ms.saturating_sub(BURST * COST_MS));
        if from > now_ms || self.waiting.len() == WAITING {
            return Err(DropReason::DhcpLimit);
        }
        let mut asked = Asked { port, length: payload.len(), bytes: [0; LONGEST] };
        let room = asked.bytes.get_mut(..payload.len()).ok_or(DropReason::DhcpMalformed)?;
        room.copy_from_slice(payload);
        *paid = from + COST_MS;
        self.waiting.push(asked);
        Ok(())
    }

    pub(crate) fn take(&mut self) -> impl Iterator<Item = Asked> + '_ {
        self.waiting.drain(..)
    }
}

impl Pipeline<'_> {
    /// A datagram with these ports. What is DHCP ends here, unless it is bridged.
    pub(crate) fn dhcp(&mut self, packet: &Packet<'_>, ports: (u16, u16)) -> Step<()> {
        let tables = self.tables;
        let Some(segment) = tables.topology.segment(packet.segment) else { return Ok(()) };
        let Some(port) = tables.topology.port(packet.ingress) else { return Ok(()) };
        match (segment.dhcp, ports) {
            (Dhcp::Bridged, _) => Ok(()),
            (Dhcp::Node, (CLIENT, SERVER)) => match port.kind {
                PortKind::Vif => Err(self.ask_node(packet, port.station)),
                kind => Err(Verdict::Drop(not_asked(kind))),
            },
            (Dhcp::Host, (CLIENT, SERVER)) => match port.kind {
                PortKind::Vif => ask_host(packet, segment, port.station),
                kind => Err(Verdict::Drop(not_asked(kind))),
            },
            (_, (SERVER, CLIENT)) => match port.kind {
                PortKind::Host => self.host_answers(packet),
                _ => Err(Verdict::Drop(DropReason::DhcpServer)),
            },
            _ => Ok(()),
        }
    }

    /// No client or server sends DHCP in fragments; the first one shows that it is.
    pub(crate) fn dhcp_in_pieces(&self, packet: &Packet<'_>) -> Step<()> {
        let segment = self.tables.topology.segment(packet.segment);
        if segment.is_none_or(|segment| segment.dhcp == Dhcp::Bridged) {
            return Ok(());
        }
        let l3 = usize::from(packet.headers.l3);
        match wire::piece(packet.bytes().get(l3..).unwrap_or_default()).map(|piece| piece.part) {
            Some(Part::First(Transport::Udp { sport: CLIENT, dport: SERVER }))
            | Some(Part::First(Transport::Udp { sport: SERVER, dport: CLIENT })) => {
                Err(Verdict::Drop(DropReason::DhcpMalformed))
            }
            _ => Ok(()),
        }
    }

    /// Hands a VM's request to the control thread, whomever it is addressed to: a VM that moved
    /// here asks the server it had.
    fn ask_node(&mut self, packet: &Packet<'_>, station: Option<MacAddr>) -> Verdict {
        if station != Some(packet.headers.src) {
            return Verdict::Drop(DropReason::DhcpUnknown);
        }
        match self.learner.dhcp.put(packet.ingress, message(packet), self.now_ms) {
            Ok(()) => Verdict::Taken,
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// A server's answer from the host port: one to all is for one VM, whose MAC it names.
    fn host_answers(&self, packet: &Packet<'_>) -> Step<()> {
        if !packet.headers.dst.is_multicast() {
            return Ok(());
        }
        let client = message(packet).get(CLIENT_MAC..CLIENT_MAC + 6);
        let client = client.and_then(|mac| mac.try_into().ok()).map(MacAddr);
        let entry = client.and_then(|mac| self.tables.fdb.find(packet.segment, mac));
        let port = entry.and_then(|entry| self.tables.topology.port(entry.port));
        match port.filter(|port| port.kind == PortKind::Vif) {
            Some(port) => Err(Verdict::Forward(port.id)),
            None => Err(Verdict::Drop(DropReason::DhcpUnknown)),
        }
    }
}

/// Why a request that came by a port of this kind is not answered.
const fn not_asked(kind: PortKind) -> DropReason {
    match kind {
        PortKind::Trunk | PortKind::Public => DropReason::DhcpElsewhere,
        PortKind::Host | PortKind::Vif => DropReason::DhcpUnknown,
    }
}

/// A request to all goes to the server at the host port alone. One to a server it knows takes the
/// way of any packet, which leads to the host port as well if that is this node's.
fn ask_host(packet: &Packet<'_>, segment: &Segment, station: Option<MacAddr>) -> Step<()> {
    if station != Some(packet.headers.src) || segment.host == PortId::NONE {
        return Err(Verdict::Drop(DropReason::DhcpUnknown));
    }
    if packet.headers.dst.is_multicast() { Err(Verdict::Forward(segment.host)) } else { Ok(()) }
}

/// What a datagram carries.
fn message<'p>(packet: &'p Packet<'_>) -> &'p [u8] {
    let Network::Ipv4(ip) = packet.headers.network else { return &[] };
    let udp = usize::from(packet.headers.l3) + usize::from(ip.header_len);
    let bytes = packet.bytes();
    let length = bytes.get(udp + 4..udp + 6).map_or(0, |two| u16::from_be_bytes([two[0], two[1]]));
    bytes.get(udp + UDP_LEN..udp + usize::from(length)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vif_gets_so_many_requests_answered_and_takes_no_other_s_share() {
        let (mut asking, port) = (Asking::default(), |number| PortId::new(number).unwrap());
        let mut put = |number, now_ms| {
            let put = asking.put(port(number), &[1; 300], now_ms);
            let taken = asking.take().count();
            assert_eq!(taken, usize::from(put.is_ok()));
            put
        };
        let taken = (0..100).filter(|_| put(1, 60_000).is_ok()).count();
        assert_eq!((taken, put(1, 60_000)), (21, Err(DropReason::DhcpLimit)));
        assert_eq!(put(2, 60_000), Ok(()));
        assert_eq!((put(1, 60_101), put(1, 60_101)), (Ok(()), Err(DropReason::DhcpLimit)));
    }

    #[test]
    fn a_batch_holds_so_many_and_none_longer_than_a_packet() {
        let mut asking = Asking::default();
        for number in 1..=WAITING as u16 {
            assert_eq!(asking.put(PortId::new(number).unwrap(), &[7; LONGEST], 0), Ok(()));
        }
        let one = PortId::new(99).unwrap();
        assert_eq!(asking.put(one, &[], 0), Err(DropReason::DhcpLimit));
        assert!(asking.take().all(|asked| asked.payload() == [7; LONGEST]));
        assert_eq!(asking.put(one, &[0; LONGEST + 1], 0), Err(DropReason::DhcpMalformed));
        assert_eq!(asking.take().count(), 0);
    }
}
