//! The connection table for people: listed, and cut where they say.

use std::net::Ipv4Addr;

use conntrack::layout::{FIN, OUTLIVED, RST, SEEN};
use conntrack::{Flow, Mark, Rewrite};
use control::describe::Names;
use control::filter::Filter;
use control::report::{self, Cut, Direction, End};
use tables::PortId;
use wire::{MacAddr, protocol};

use crate::node::Node;

/// Flows told at once: the control thread has other things to do as well.
const FLOWS: usize = 50_000;

impl Node {
    /// The flows a filter lets through, as many as can be told at once.
    pub(crate) fn flow_reports(&self, filter: &Filter) -> Vec<report::Flow> {
        let (names, now) = (self.names.told(), dataplane::now());
        let flows = &self.workers.flows;
        let live = (0..flows.len()).filter_map(|index| flows.at(index));
        // Each connection's answers stand below it.
        let originals = live.filter(|flow| !flow.is_reply());
        let both = originals.flat_map(|flow| {
            let reply = flows.at(flow.partner());
            let outlived = flow.bits() & OUTLIVED != 0;
            [Some((flow, outlived)), reply.map(|reply| (reply, outlived))]
        });
        let told = both.flatten().map(|(flow, outlived)| told(&flow, outlived, &names, now));
        told.filter(|flow| filter.lets_through(flow)).take(FLOWS).collect()
    }

    /// Ends the connections of which the filter lets a direction through.
    pub(crate) fn cut(&self, filter: &Filter) -> Cut {
        let (names, now) = (self.names.told(), dataplane::now());
        let revoked = self.workers.flows.revoke(|flow| {
            let meant = filter.lets_through(&told(flow, false, &names, now));
            if meant { Mark::Remove } else { Mark::Keep }
        });
        Cut { connections: revoked.removed.into() }
    }
}

/// `outlived`: its connection has been reset, and goes on (the sweep saw that).
fn told(flow: &Flow, outlived: bool, names: &Names, now: u32) -> report::Flow {
    let (key, rewrite) = (flow.key(), flow.rewrite());
    let port = |number| PortId::new(number).map_or_else(|| "-".to_owned(), |id| names.port(id));
    let (source, destination, new) = match flow.source_mac() {
        Some(mac) => {
            let to = MacAddr(flow.destination_mac());
            let ports = if key.is_l2() { (0, 0) } else { (key.sport(), key.dport()) };
            (station(MacAddr(mac), ports.0), station(to, ports.1), (None, None))
        }
        None => {
            let ends = (end(key.src(), key.sport()), end(key.dst(), key.dport()));
            (ends.0, ends.1, changed(flow, &rewrite))
        }
    };
    report::Flow {
        direction: if flow.is_reply() { Direction::Reply } else { Direction::Original },
        protocol: match (key.is_l2(), key.protocol()) {
            (true, _) => format!("{:#06x}", key.ethertype()),
            (false, protocol::TCP) => "tcp".into(),
            (false, protocol::UDP) => "udp".into(),
            (false, protocol::ICMP) => "icmp".into(),
            (false, protocol::ICMPV6) => "icmpv6".into(),
            (false, number) => number.to_string(),
        },
        source,
        destination,
        new_source: new.0,
        new_destination: new.1,
        ingress: port(key.ingress()),
        egress: flow.path_known().then(|| port(flow.egress())),
        vlan: Some(flow.vlan()).filter(|vlan| *vlan != 0),
        state: state(flow.bits(), outlived).into(),
        idle_s: u64::from(now.saturating_sub(flow.last_seen())),
    }
}

fn state(bits: u16, outlived: bool) -> &'static str {
    let reset = if outlived { 0 } else { bits & RST };
    match (reset, bits & FIN, bits & SEEN) {
        (0, 0, 0) => "unanswered",
        (0, 0, _) => "open",
        (0, _, _) => "closing",
        _ => "reset",
    }
}

/// One of IPv6 is told by its station: a line does not say its addresses.
fn station(mac: MacAddr, port: u16) -> End {
    End { address: mac.to_string(), port: Some(port).filter(|port| *port != 0) }
}

fn end(address: [u8; 4], port: u16) -> End {
    End { address: Ipv4Addr::from(address).to_string(), port: Some(port).filter(|port| *port != 0) }
}

/// Source and destination as they leave, where they change.
fn changed(flow: &Flow, rewrite: &Rewrite) -> (Option<End>, Option<End>) {
    let new = |address: [u8; 4], port: u16, own: ([u8; 4], u16)| {
        let address = if address == [0; 4] { own.0 } else { address };
        let port = if port == 0 { own.1 } else { port };
        ((address, port) != own).then(|| end(address, port))
    };
    let key = flow.key();
    (
        new(rewrite.source, rewrite.source_port, (key.src(), key.sport())),
        new(rewrite.destination, rewrite.destination_port, (key.dst(), key.dport())),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_outlived_a_reset_is_open() {
        let told = [0, SEEN, SEEN | RST, SEEN | FIN].map(|bits| state(bits, false));
        assert_eq!(told, ["unanswered", "open", "reset", "closing"]);
        assert_eq!(
            [SEEN | RST, SEEN | RST | FIN].map(|bits| state(bits, true)),
            ["open", "closing"]
        );
    }
}
