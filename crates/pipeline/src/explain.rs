//! What would become of a packet, stage by stage, without sending it or remembering anything.

use conntrack::{Flow, Rewrite};
use tables::{Let, SegmentId, ZoneId};
use wire::{Network, Translation};

use crate::connect::{self, Answer, Source};
use crate::path::{Path, translation};
use crate::{DropReason, Packet, Pipeline, Verdict, flow, groups};

/// Each stage's answer; a stage the packet does not reach has none.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Whether it is let in at its port; else its verdict says why not, and nothing else is known.
    pub admitted: bool,
    /// Its segment; none on the public side.
    pub segment: SegmentId,
    /// The zone that is in.
    pub zone: ZoneId,
    /// Whether it is addressed to the gateway.
    pub routed: bool,
    /// The flow it belongs to.
    pub found: Option<Flow>,
    /// Whether that flow's line decides; else it is asked (again).
    pub replayed: bool,
    /// What becomes of it as a new connection.
    pub answer: Option<Answer>,
    /// What lets a new connection in where it leaves; nothing may. None if it is not asked for.
    pub let_in: Option<Option<Let>>,
    /// What would be done to it.
    pub way: Option<Rewrite>,
    /// Its end.
    pub verdict: Verdict,
}

impl Pipeline<'_> {
    /// Takes the packet through the stages; it is left as it would leave. Nothing is installed,
    /// and what the learner and limiter note is the caller's to throw away.
    pub fn explain(&mut self, packet: &mut Packet<'_>) -> Explanation {
        let mut told = Explanation {
            admitted: false,
            segment: SegmentId::NONE,
            zone: ZoneId::NONE,
            routed: false,
            found: None,
            replayed: false,
            answer: None,
            let_in: None,
            way: None,
            verdict: Verdict::Taken,
        };
        told.verdict = self.walk(packet, &mut told).unwrap_or_else(|verdict| verdict);
        told
    }

    fn walk(&mut self, packet: &mut Packet<'_>, told: &mut Explanation) -> crate::Step<Verdict> {
        let admitted = self.admit(packet);
        (told.segment, told.zone, told.routed) = (packet.segment, packet.zone, packet.routed);
        admitted?;
        told.admitted = true;
        told.found = self.flows.find(packet.key, packet.hash);
        let fresh = |found: &Flow| self.may_replay(packet, found);
        told.replayed = told.found.as_ref().is_some_and(fresh);
        let way = match told.found.filter(|found| !flow::reopens(packet, found)) {
            Some(found) if told.replayed => found.rewrite(),
            Some(found) if groups::refuses(self.tables, self.flows, &found, Some(packet)) => {
                return Err(Verdict::Drop(DropReason::Revoked));
            }
            Some(found) if connect::still_holds(self.tables, self.flows, &found) => {
                let path = self.next_path(packet, &found)?;
                path.rewrite(packet, &translation(&found.rewrite()), 0)
            }
            _ => {
                self.serve(packet)?;
                let answer = self.ask(packet)?;
                told.answer = Some(answer);
                let path = self.first_path(packet, &answer)?;
                told.let_in = Some(self.let_in(packet, answer.source, &path));
                self.judge(packet, answer.source, &path)?;
                as_new(packet, &answer, &path)
            }
        };
        told.way = Some(way);
        self.replay(packet, &way).map(Verdict::Forward)
    }
}

/// What would be done to a new connection's packets; a shared source keeps its port.
fn as_new(packet: &Packet<'_>, answer: &Answer, path: &Path) -> Rewrite {
    let mut nat = Translation::default();
    if let Network::Ipv4(ip) = packet.headers.network {
        if answer.destination != ip.dst {
            nat.destination = answer.destination;
        }
        nat.destination_port = answer.destination_port;
        if let Source::Float(address) | Source::Shared(address) = answer.source {
            nat.source = address;
        }
    }
    path.rewrite(packet, &nat, 0)
}
