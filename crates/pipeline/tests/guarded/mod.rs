//! Security groups in the worlds of two nodes: rules in words, put in force as a reload does.
#![allow(dead_code, clippy::unwrap_used)] // every test file uses its own part; it is a test

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use pipeline::DropReason;
use tables::{
    Group, Groups, Member, Origin, Own, Port, PortId, Rule, Topology, Wall, Walls, ZoneId,
};
use testkit::{Node, World};

pub(crate) const TCP: Option<u8> = Some(6);
pub(crate) const UDP: Option<u8> = Some(17);
pub(crate) const ICMP: Option<u8> = Some(1);
pub(crate) const ICMPV6: Option<u8> = Some(58);

/// The groups of the test, by number: each VM has the one of its number, and more may be members'.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Rules of group N - 1: those of VM N.
    pub(crate) rules: [Vec<Rule>; 6],
    /// Members of a group behind those, number 6.
    pub(crate) members: Vec<IpAddr>,
    /// `allow_same_net_traffic`.
    pub(crate) same_net: bool,
    /// Not `--revoke=false`.
    pub(crate) revoke: bool,
}

impl Plan {
    pub(crate) fn new(same_net: bool) -> Self {
        Self { same_net, revoke: true, ..Self::default() }
    }

    pub(crate) fn allow(mut self, vm: usize, rule: Rule) -> Self {
        self.rules[vm - 1].push(rule);
        self
    }

    fn walls(&self, node: &Node) -> Walls {
        let zone = ZoneId::new(1).unwrap();
        let group = |rules: &[Rule]| Arc::new(Group::new("of a vm", rules));
        let mut groups: Vec<(Arc<Group>, Vec<Member>)> =
            self.rules.iter().map(|rules| (group(rules), Vec::new())).collect();
        let members = self.members.iter().map(|address| (zone, *address));
        groups.push((group(&[]), members.collect()));
        let vifs = node.tables.topology.ports().filter(|port| vm_of(port).is_some());
        let walls = vifs.map(|port| {
            let net = if port.segment.get() == 1 { "10.0.0.0/24" } else { "10.1.0.0/24" };
            let own = self.same_net.then(|| Own::Subnet(zone, net.parse().unwrap()));
            let segment = node.tables.topology.segment(port.segment).unwrap();
            let servers = segment.gateway.iter().map(|gateway| gateway.address).collect();
            let number = u32::from(vm_of(port).unwrap()) - 1;
            (port.id, Wall { zone, groups: [number].into(), own, own6: None, servers })
        });
        let walls = walls.collect();
        Walls::new(Arc::new(Groups::new(groups)), walls, self.revoke)
    }

    /// Puts the groups in force on one node: vifs that are guarded differently get a new stamp.
    pub(crate) fn guard(&self, node: &mut Node) {
        let walls = self.walls(node);
        node.tables.stamp += 1;
        let stamp = node.tables.stamp;
        let mut ports: Vec<Port> = node.tables.topology.ports().cloned().collect();
        for port in &mut ports {
            if self.revoke && !walls.guard_alike(&node.tables.walls, port.id) {
                port.stamp = stamp;
            }
        }
        let segments = node.tables.topology.segments().cloned().collect();
        node.tables.topology = Arc::new(Topology::new(ports, segments));
        node.tables.walls = Arc::new(walls);
    }

    pub(crate) fn guard_both(&self, world: &mut World) {
        self.guard(&mut world.left);
        self.guard(&mut world.right);
    }
}

fn vm_of(port: &Port) -> Option<u16> {
    (11..=16).contains(&port.id.get()).then(|| port.id.get() - 10)
}

pub(crate) fn from(net: &str) -> Origin {
    Origin::Prefix(net.parse().unwrap())
}

pub(crate) fn rule(protocol: Option<u8>, ports: (u16, u16), from: Origin) -> Rule {
    Rule { protocol, first: ports.0, last: ports.1, from }
}

pub(crate) fn any(protocol: Option<u8>) -> Rule {
    rule(protocol, (0, 65535), Origin::ANYBODY)
}

/// How many packets of VM N's port were dropped for a reason.
pub(crate) fn dropped(node: &Node, port: u16, reason: DropReason) -> u64 {
    let row = node.counters.port(PortId::new(port).unwrap());
    row.dropped[reason as usize].load(Relaxed)
}
