//! `trunkline explain`: what would become of a packet, in words, stage by stage.

use std::net::Ipv4Addr;

use conntrack::Fragments;
use control::report::{Explained, Stage};
use control::words::Words;
use pipeline::connect::Source;
use pipeline::{Counters, Explanation, Learner, Limiter, Packet, Pipeline, Verdict};
use tables::{
    GATEWAY_MAC, Let, Link, Neighbour, Port, PortId, PortKind, Route, SegmentId, Snapshot,
};
use wire::{MacAddr, Network};

use crate::node::Node;

/// Room before the frame for a tag, and behind it for an answer.
const ROOM: usize = 256;

impl Node {
    /// Takes the packet through the live tables; nothing of it is sent or remembered.
    pub(crate) fn explain(&self, port: &str, words: &str) -> Result<Explained, String> {
        let words: Words = words.parse()?;
        let id = self.plugged(port).ok_or_else(|| {
            let names: Vec<&str> = self.ports.values().map(|port| port.name.as_str()).collect();
            format!("there is no port '{port}' that is plugged: name one of {}", names.join(", "))
        })?;
        let tables = self.publisher.current();
        let here = tables.topology.port(id).ok_or("it is not plugged")?;
        let (from, to) = self.stations_of(&tables, here, &words);
        let frame = words.frame(from, to)?;
        let mut chunk = vec![0; ROOM];
        chunk.extend(&frame);
        chunk.resize(chunk.len() + ROOM, 0);
        let mut packet = Packet::new(&mut chunk, ROOM, frame.len(), id);
        let (counters, mut learner, mut limiter) =
            (Counters::default(), Learner::default(), Limiter::default());
        let told = Pipeline {
            tables: &tables,
            flows: &self.workers.flows,
            fragments: &Fragments::with_sets(1, 0),
            now: dataplane::now(),
            now_ms: u64::from(dataplane::now()) * 1000,
            counters: &counters,
            learner: &mut learner,
            limiter: &mut limiter,
        }
        .explain(&mut packet);
        let stages = self.stages(&told, packet.bytes());
        Ok(Explained { port: port.to_owned(), packet: format!("{words:?}"), stages })
    }

    /// Who would send it, and to whom: the VM of that vif, to its neighbour or to the gateway.
    fn stations_of(&self, tables: &Snapshot, port: &Port, words: &Words) -> (MacAddr, MacAddr) {
        let name = self.ports.get(&port.id).map(|port| port.name.as_str());
        let vif = self.model.vifs.iter().find(|vif| Some(vif.name.as_str()) == name);
        let from = vif.map_or(MacAddr([2, 0, 0, 0, 0, 1]), |vif| vif.mac);
        let segment = tables.topology.segment(port.segment).filter(|_| port.kind == PortKind::Vif);
        let near = segment.and_then(|segment| {
            let destination = words.destination.0.octets();
            let direct = matches!(
                tables.routes.find(segment.zone, destination),
                Some((_, Route::Segment(at))) if at == segment.id
            );
            match tables.neighbours.find(segment.id, destination) {
                Some(Neighbour::At(mac)) if direct => Some(mac),
                _ => None,
            }
        });
        let gateway =
            if port.public || port.kind == PortKind::Trunk { port.mac } else { GATEWAY_MAC };
        (from, near.unwrap_or(gateway))
    }

    fn stages(&self, told: &Explanation, frame: &[u8]) -> Vec<Stage> {
        let names = self.names.told();
        let mut stages = Vec::new();
        let mut say = |stage: &str, answer: String| {
            stages.push(Stage { stage: stage.to_owned(), answer });
        };
        let place = match told.segment {
            SegmentId::NONE => "the public side".to_owned(),
            segment => {
                format!("network {}, zone {}", names.segment(segment), names.zone(told.zone))
            }
        };
        if !told.admitted {
            say("admit", place);
            say("verdict", self.verdict(told.verdict));
            return stages;
        }
        let to = if told.routed { "addressed to the gateway" } else { "addressed to a station" };
        say("admit", format!("{place}; {to}"));
        say(
            "look up",
            match (&told.found, told.replayed) {
                (Some(_), true) => "its connection is known: what was decided is done".to_owned(),
                (Some(_), false) => "its connection is known, and is asked again".to_owned(),
                (None, _) => "no connection: it is decided now".to_owned(),
            },
        );
        if let Some(answer) = told.answer.filter(|_| told.routed) {
            let address = |address: [u8; 4]| Ipv4Addr::from(address).to_string();
            let port = match answer.destination_port {
                0 => String::new(),
                port => format!(", port {port}"),
            };
            say("destination", format!("{}{port}", address(answer.destination)));
            say("way", self.way(answer.route));
            say(
                "source",
                match answer.source {
                    Source::Keep => "stays".to_owned(),
                    Source::Float(float) => format!("{}, its floating address", address(float)),
                    Source::Shared(shared) => {
                        let ports = &self.model.nat.ports;
                        format!("{}, its port or one of {ports}", address(shared))
                    }
                },
            );
        }
        if let Some(why) = told.let_in.filter(|why| *why != Some(Let::Open)) {
            say("groups", control::describe::let_in(why, &self.model.security));
        }
        if let Some(way) = &told.way {
            let egress = PortId::new(way.egress).map_or("-".to_owned(), |id| names.port(id));
            let tag =
                if way.vlan == 0 { "untagged".to_owned() } else { format!("tag {}", way.vlan) };
            say("leaves by", format!("{egress}, {tag}"));
        }
        say("verdict", self.verdict(told.verdict));
        if matches!(told.verdict, Verdict::Forward(_) | Verdict::Reply(_) | Verdict::Fragment(_)) {
            say("as it leaves", leaves(frame));
        }
        stages
    }

    fn way(&self, route: Route) -> String {
        let names = self.names.told();
        let address = |address: [u8; 4]| Ipv4Addr::from(address);
        match route {
            Route::Segment(segment) => format!("network {}", names.segment(segment)),
            Route::Router { segment, address: via } => {
                format!("via {} in network {}", address(via), names.segment(segment))
            }
            Route::Public { port, via: Some(via) } => {
                format!("via {} on {}", address(via), names.port(port))
            }
            Route::Public { port, via: None } => format!("on the link of {}", names.port(port)),
            Route::Host => "this node".to_owned(),
            Route::Unreachable(why) => format!("unreachable ({why:?})"),
        }
    }

    fn verdict(&self, verdict: Verdict) -> String {
        let names = self.names.told();
        match verdict {
            Verdict::Forward(port) => format!("forward by {}", names.port(port)),
            Verdict::Flood(segment) => format!("flood network {}", names.segment(segment)),
            Verdict::FloodGuests(segment) => {
                format!("flood network {}, but for this node", names.segment(segment))
            }
            Verdict::Fragment(port) => format!("cut and forward by {}", names.port(port)),
            Verdict::Reply(port) => format!("answered, back by {}", names.port(port)),
            Verdict::Hold(link, address) => {
                let link = match link {
                    Link::Segment(segment) => format!("network {}", names.segment(segment)),
                    Link::Public(port) => names.port(port),
                };
                format!("waits until {} on {link} is known", Ipv4Addr::from(address))
            }
            Verdict::Wait => "waits for its first fragment".to_owned(),
            Verdict::Host => "the host's".to_owned(),
            Verdict::Taken => "for the node itself".to_owned(),
            Verdict::Drop(reason) => {
                format!("drop: {}: {}", reason.name(), reason.meaning().trim())
            }
        }
    }
}

/// The frame's addresses, in words.
fn leaves(frame: &[u8]) -> String {
    let Ok(headers) = wire::parse(frame) else { return "-".to_owned() };
    let tag = headers.vlan.map_or(String::new(), |vlan| format!(", tag {vlan}"));
    let Network::Ipv4(ip) = headers.network else {
        return format!("{} to {}{tag}", headers.src, headers.dst);
    };
    format!(
        "{} to {}, TTL {}, {} to {}{tag}",
        Ipv4Addr::from(ip.src),
        Ipv4Addr::from(ip.dst),
        ip.ttl,
        headers.src,
        headers.dst
    )
}
