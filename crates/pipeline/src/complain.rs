//! Telling a sender why its packet went no further (RFC 792, RFC 1812 §4.3).

use tables::{SegmentId, Unreachable};
use wire::{Station, icmp};

use crate::pipeline::Step;
use crate::{DropReason, Packet, Pipeline, Verdict};

/// Milliseconds an answer costs a port, and how many it may have saved up: 100 a second, 50 at
/// once. A traceroute asks three times a hop; Linux answers one host six times at once.
const COST_MS: u64 = 10;
const BURST: u64 = 50;
/// Ports answers are counted for.
const PORTS: usize = 4096;

/// How many more answers, new connections and floods each port gets, by one worker.
#[derive(Debug)]
pub struct Limiter {
    paid: Box<[u64]>,
    /// Microseconds until which each port has paid for its connections, and for its floods.
    opened: Box<[u64]>,
    flooded: Box<[u64]>,
}

impl Default for Limiter {
    fn default() -> Self {
        let none = || vec![0; PORTS].into_boxed_slice();
        Self { paid: none(), opened: none(), flooded: none() }
    }
}

/// What a port may have saved up for new connections, and for floods: a second's.
const SAVED_US: u64 = 1_000_000;

impl Limiter {
    /// Takes a token from the port's bucket (GCRA, as the punt link's: until when it has paid).
    fn allows(&mut self, port: usize, now_ms: u64) -> bool {
        let Some(paid) = self.paid.get_mut(port % PORTS) else { return false };
        let from = (*paid).max(now_ms.saturating_sub(BURST * COST_MS));
        if from > now_ms {
            return false;
        }
        *paid = from + COST_MS;
        true
    }

    /// Takes a new connection of so many microseconds from the port's bucket, in the same way.
    pub(crate) fn opens(&mut self, port: usize, now_ms: u64, cost: u32) -> bool {
        pay(&mut self.opened, port, now_ms, cost)
    }

    /// The same of a frame for all.
    pub(crate) fn floods(&mut self, port: usize, now_ms: u64, cost: u32) -> bool {
        pay(&mut self.flooded, port, now_ms, cost)
    }
}

fn pay(buckets: &mut [u64], port: usize, now_ms: u64, cost: u32) -> bool {
    let now = now_ms * 1000;
    let Some(paid) = buckets.get_mut(port % PORTS) else { return false };
    let from = (*paid).max(now.saturating_sub(SAVED_US));
    if from > now {
        return false;
    }
    *paid = from + u64::from(cost);
    true
}

/// What is wrong with a packet that was to be routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Complaint {
    Ttl,
    TooBig(u16),
    Unreachable(Unreachable),
    Denied(DropReason),
}

impl Complaint {
    fn reason(self) -> DropReason {
        match self {
            Self::Ttl => DropReason::Ttl,
            Self::TooBig(_) => DropReason::NeedsFragments,
            Self::Denied(reason) => reason,
            Self::Unreachable(Unreachable::Net) => DropReason::NoRoute,
            Self::Unreachable(Unreachable::Host) => DropReason::NoNeighbour,
        }
    }

    fn message(self) -> icmp::IcmpError {
        match self {
            Self::Ttl => icmp::IcmpError::TimeExceeded,
            Self::TooBig(mtu) => icmp::IcmpError::FragmentationNeeded { mtu },
            Self::Denied(_) => icmp::IcmpError::AdminProhibited,
            Self::Unreachable(Unreachable::Net) => icmp::IcmpError::NetUnreachable,
            Self::Unreachable(Unreachable::Host) => icmp::IcmpError::HostUnreachable,
        }
    }
}

impl Pipeline<'_> {
    /// Turns the packet into an answer to its sender; where none may be given it is dropped.
    pub(crate) fn complain(&mut self, packet: &mut Packet<'_>, complaint: Complaint) -> Verdict {
        self.try_to_complain(packet, complaint).unwrap_or(Verdict::Drop(complaint.reason()))
    }

    fn try_to_complain(
        &mut self,
        packet: &mut Packet<'_>,
        complaint: Complaint,
    ) -> Option<Verdict> {
        let speaker = self.speaker(packet.segment)?;
        if !icmp::may_answer(packet.bytes(), &packet.headers) {
            return None;
        }
        if !self.limiter.allows(packet.ingress.index(), self.now_ms) {
            return None;
        }
        let mac = self.tables.topology.mac(packet.ingress);
        packet.become_error(complaint.message(), Station { mac, address: speaker }).then_some(())?;
        self.reply(packet).ok()
    }

    /// The address the node speaks with: its own in the segment, on the public side its shared one.
    fn speaker(&self, segment: SegmentId) -> Option<[u8; 4]> {
        match self.tables.topology.segment(segment) {
            Some(segment) => segment.gateway.map(|gateway| gateway.address),
            None => self.tables.nat.source,
        }
    }

    /// Sends the packet, which is an answer by now, back by the port it came by.
    pub(crate) fn reply(&self, packet: &mut Packet<'_>) -> Step<Verdict> {
        packet.retag(&self.tables.topology)?;
        Ok(Verdict::Reply(packet.ingress))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_gets_fifty_answers_at_once_and_a_hundred_a_second() {
        let mut limiter = Limiter::default();
        let now = 1_000_000;
        let answers =
            |limiter: &mut Limiter, now| (0..500).filter(|_| limiter.allows(3, now)).count();
        assert_eq!(answers(&mut limiter, now), 51);
        assert_eq!(answers(&mut limiter, now), 0);
        assert!(limiter.allows(4, now), "another port has its own");
        assert_eq!((1..=1000).filter(|ms| limiter.allows(3, now + ms)).count(), 100);
    }

    #[test]
    fn a_port_opens_a_seconds_connections_at_once_and_then_as_many_a_second() {
        let mut limiter = Limiter::default();
        let now = 1_000_000;
        // 2000 a second: half a millisecond each.
        let opened =
            |limiter: &mut Limiter, now| (0..5000).filter(|_| limiter.opens(3, now, 500)).count();
        assert_eq!(opened(&mut limiter, now), 2001);
        assert_eq!(opened(&mut limiter, now), 0);
        assert_eq!(opened(&mut limiter, now + 1), 2);
        assert_eq!((2..=1001).map(|ms| opened(&mut limiter, now + ms)).sum::<usize>(), 2000);
        assert!(limiter.opens(4, now, 500), "another port has its own");
    }
}
