//! What may be reached beyond a VM's own network: services of the node, and other networks.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;

use crate::{PortId, SegmentId};

/// What becomes of a connection that is not allowed (nova's `iptables_drop_action`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DropAction {
    /// It ends here.
    #[default]
    Drop,
    /// Its sender is told that policy forbids it.
    Reject,
    /// It ends here, and is written into the log.
    Log,
}

/// A new connection to the node itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The segment it comes from.
    pub segment: SegmentId,
    /// Who calls.
    pub source: [u8; 4],
    /// The number of its protocol; none for what is not IPv4.
    pub protocol: Option<u8>,
    /// The TCP or UDP port, 8 for an ICMP echo request, else 0.
    pub port: u16,
    /// Whether it is to the node's own address in the caller's network, or, asking for an address
    /// (DHCP), to all.
    pub gateway: bool,
}

/// Whom the node serves, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRule {
    /// Callers of this segment; none: of any.
    pub segment: Option<SegmentId>,
    /// This protocol; none: any, and what is not IPv4.
    pub protocol: Option<u8>,
    /// These TCP or UDP ports; none: all of them.
    pub ports: Option<RangeInclusive<u16>>,
    /// Callers from here; none: from anywhere.
    pub source: Option<Ipv4Net>,
}

impl HostRule {
    fn lets(&self, call: &Call) -> bool {
        let source = Ipv4Addr::from(call.source);
        self.segment.is_none_or(|segment| segment == call.segment)
            && self.protocol.is_none_or(|protocol| Some(protocol) == call.protocol)
            && self.ports.as_ref().is_none_or(|ports| ports.contains(&call.port))
            && self.source.is_none_or(|net| call.protocol.is_some() && net.contains(&source))
    }
}

/// What every gateway serves: DHCP and DNS, and that it answers. (Metadata is led, not called.)
const SERVED: [(u8, u16); 4] = [(1, 8), (6, 53), (17, 53), (17, 67)];

/// A place that packets are routed from or to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A network.
    Segment(SegmentId),
    /// The public side, by this NIC.
    Public(PortId),
}

/// What is allowed. The default is that every gateway serves what gateways do, and that all
/// networks of a zone are routed between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What becomes of what is not.
    pub action: DropAction,
    /// What the node serves beyond what gateways do.
    pub services: Vec<HostRule>,
    /// What may be routed between (nova's `forward_bridge_interface`); none: everything.
    pub ways: Option<Vec<Side>>,
}

impl Policy {
    /// Whether the node takes this call. Asked once a connection, and there are few rules.
    #[must_use]
    pub fn serves(&self, call: &Call) -> bool {
        let usual = call.protocol.is_some_and(|protocol| SERVED.contains(&(protocol, call.port)));
        (call.gateway && usual) || self.services.iter().any(|rule| rule.lets(call))
    }

    /// Whether a connection may be routed: within a network always, else by a way that is named
    /// for the public side, and of two networks for one of them.
    #[must_use]
    pub fn routes(&self, from: Side, to: Side) -> bool {
        let Some(ways) = &self.ways else { return true };
        if from == to {
            return true;
        }
        let public = |side: &Side| matches!(side, Side::Public(_));
        match [from, to].into_iter().find(public) {
            Some(nic) => ways.contains(&nic),
            None => ways.contains(&from) || ways.contains(&to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(number: u16) -> SegmentId {
        SegmentId::new(number).unwrap()
    }

    fn call(protocol: u8, port: u16) -> Call {
        let (segment, source) = (segment(1), [10, 0, 0, 3]);
        Call { segment, source, protocol: Some(protocol), port, gateway: true }
    }

    #[test]
    fn a_gateway_serves_what_gateways_do_and_nothing_else() {
        let policy = Policy::default();
        let served = [call(1, 8), call(6, 53), call(17, 53), call(17, 67)];
        assert!(served.iter().all(|call| policy.serves(call)));
        assert!(served.iter().all(|call| !policy.serves(&Call { gateway: false, ..*call })));
        let others = [call(1, 0), call(6, 22), call(6, 67), call(6, 0), call(17, 68), call(47, 53)];
        assert!(!others.iter().any(|call| policy.serves(call)));
        assert!(!policy.serves(&Call { protocol: None, ..call(1, 8) }));
    }

    #[test]
    fn a_rule_lets_in_what_it_says_in_all_its_parts() {
        let rule = HostRule {
            segment: Some(segment(1)),
            protocol: Some(6),
            ports: Some(8000..=8010),
            source: Some("10.0.0.0/28".parse().unwrap()),
        };
        let policy = Policy { services: vec![rule.clone()], ..Policy::default() };
        assert!(policy.serves(&Call { gateway: false, ..call(6, 8010) }));
        assert!(!policy.serves(&call(6, 8011)) && !policy.serves(&call(17, 8010)));
        assert!(!policy.serves(&Call { segment: segment(2), ..call(6, 8000) }));
        assert!(!policy.serves(&Call { source: [10, 0, 0, 17], ..call(6, 8000) }));
        let any = HostRule { segment: None, protocol: None, ports: None, source: None };
        let open = Policy { services: vec![any.clone()], ..Policy::default() };
        assert!(open.serves(&call(6, 22)) && open.serves(&Call { protocol: None, ..call(0, 0) }));
        // What has no IPv4 address comes from no prefix.
        let from = HostRule { source: rule.source, ..any };
        let from = Policy { services: vec![from], ..Policy::default() };
        assert!(from.serves(&call(6, 22)) && !from.serves(&Call { protocol: None, ..call(0, 0) }));
    }

    #[test]
    fn with_ways_only_those_are_routed_between() {
        let [one, two, three] = [1, 2, 3].map(|number| Side::Segment(segment(number)));
        let [eth1, eth2] = [7, 8].map(|number| Side::Public(PortId::new(number).unwrap()));
        let with = |ways: &[Side]| Policy { ways: Some(ways.to_vec()), ..Policy::default() };
        assert!(Policy::default().routes(one, two) && Policy::default().routes(one, eth2));
        let public = with(&[eth1]);
        assert!(public.routes(one, eth1) && public.routes(eth1, two) && public.routes(one, one));
        assert!(!public.routes(one, two) && !public.routes(one, eth2));
        let bridge = with(&[two]);
        assert!(bridge.routes(one, two) && bridge.routes(two, one));
        assert!(!bridge.routes(one, three) && !bridge.routes(two, eth1));
    }
}
