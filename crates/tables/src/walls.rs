//! What stands before a VM: its security groups, its own network, its DHCP server. Asked once for
//! each new connection whose way ends at the VM's port.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use ipnet::{Ipv4Net, Ipv6Net};

use crate::group::{Comer, UDP};
use crate::{Group, Origin, PortId, Rule, ZoneId};

/// Ports of a DHCP server and of its clients (RFC 2131).
const DHCP: (u16, u16) = (67, 68);

/// A member of a group: its zone and an own (fixed) address of its.
pub type Member = (ZoneId, IpAddr);

/// All groups of the node, by number, and who is a member of which.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    groups: Vec<Arc<Group>>,
    /// The groups of each member, sorted.
    of: HashMap<Member, Box<[u32]>, ahash::RandomState>,
    /// The members of each group, sorted.
    members: Vec<Box<[Member]>>,
}

impl Groups {
    /// These groups, each with its members.
    #[must_use]
    pub fn new(groups: Vec<(Arc<Group>, Vec<Member>)>) -> Self {
        let mut of: HashMap<Member, Vec<u32>, ahash::RandomState> = HashMap::default();
        let (mut all, mut sorted) = (Vec::new(), Vec::new());
        for ((group, mut members), number) in groups.into_iter().zip(0..) {
            members.sort_unstable();
            members.dedup();
            for member in &members {
                of.entry(*member).or_default().push(number);
            }
            all.push(group);
            sorted.push(members.into());
        }
        let of = of.into_iter().map(|(member, groups)| (member, groups.into())).collect();
        Self { groups: all, of, members: sorted }
    }

    /// The group of a number.
    #[must_use]
    pub fn group(&self, number: u32) -> Option<&Arc<Group>> {
        self.groups.get(number as usize)
    }

    /// The members of a group, sorted.
    #[must_use]
    pub fn members(&self, number: u32) -> &[Member] {
        self.members.get(number as usize).map_or(&[], |members| members)
    }

    fn of(&self, member: Member) -> &[u32] {
        self.of.get(&member).map_or(&[], |groups| groups)
    }

    /// Whether a group lets in whom another of `other` lets in.
    fn is_alike(&self, number: u32, other: &Self, its: u32) -> bool {
        let (Some(one), Some(two)) = (self.group(number), other.group(its)) else { return false };
        let alike = |(mine, theirs): (&Rule, &Rule)| match (mine.from, theirs.from) {
            (Origin::Members(a), Origin::Members(b)) => {
                let ports = |rule: &Rule| (rule.protocol, rule.first, rule.last);
                ports(mine) == ports(theirs) && self.members(a) == other.members(b)
            }
            _ => mine == theirs,
        };
        one.rules().len() == two.rules().len() && one.rules().iter().zip(two.rules()).all(alike)
    }
}

/// Who is of a VM's own network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// Who has an address of this subnet, in this zone.
    Subnet(ZoneId, Ipv4Net),
    /// Whose packets are bridged to it: nobody says which addresses the network has.
    Bridged,
}

/// What stands before one VM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wall {
    /// The zone the VM is in.
    pub zone: ZoneId,
    /// Numbers of its groups.
    pub groups: Box<[u32]>,
    /// Who may come whatever the groups say (`allow_same_net_traffic`).
    pub own: Option<Own>,
    /// The IPv6 addresses of that network, beside those of the link alone (fe80::/10).
    pub own6: Option<Ipv6Net>,
    /// The DHCP servers of its network.
    pub servers: Box<[[u8; 4]]>,
}

impl Wall {
    fn is_own(&self, ask: &Ask) -> bool {
        match (self.own, ask.source) {
            (Some(Own::Subnet(zone, net)), IpAddr::V4(it)) => zone == ask.zone && net.contains(&it),
            (Some(Own::Subnet(..)), IpAddr::V6(it)) => {
                it.is_unicast_link_local() || self.own6.is_some_and(|net| net.contains(&it))
            }
            (Some(Own::Bridged), _) => ask.bridged,
            (None, _) => false,
        }
    }
}

/// Who wants in, and what for: the first packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The zone of its sender; none on the public side.
    pub zone: ZoneId,
    /// Its sender's own address there, before any translation.
    pub source: IpAddr,
    /// The address its sender is seen with by the VM.
    pub seen: IpAddr,
    /// The protocol's number.
    pub protocol: u8,
    /// The sender's port.
    pub source_port: u16,
    /// The port it wants; of ICMP, type and code as one number; none where the packet does not tell.
    pub port: Option<u16>,
    /// Whether it is bridged to the VM.
    pub bridged: bool,
}

/// Why somebody is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Let {
    /// Nothing stands before the port.
    Open,
    /// It is the answer of the network's DHCP server.
    Dhcp,
    /// It comes from the VM's own network.
    Own,
    /// It is of IPv6's neighbour discovery, without which nobody reaches anybody.
    Discovery,
    /// A rule says so: number of the group, place of the rule.
    By(u32, u32),
}

/// What stands before every VM of the node; before a port that is not here, nothing does.
#[derive(Clone, Debug, Default)]
pub struct Walls {
    groups: Arc<Groups>,
    /// By number of the port.
    walls: Vec<Option<Wall>>,
    /// Whether what is not allowed any more ends the connections that it had allowed.
    pub revoke: bool,
}

impl Walls {
    /// These walls, with the groups they name.
    #[must_use]
    pub fn new(groups: Arc<Groups>, walls: Vec<(PortId, Wall)>, revoke: bool) -> Self {
        let count = walls.iter().map(|(port, _)| port.index() + 1).max().unwrap_or(0);
        let mut by_port = vec![None; count];
        for (port, wall) in walls {
            if let Some(place) = by_port.get_mut(port.index()) {
                *place = Some(wall);
            }
        }
        Self { groups, walls: by_port, revoke }
    }

    /// The groups.
    #[must_use]
    pub fn groups(&self) -> &Arc<Groups> {
        &self.groups
    }

    /// What stands before a port.
    #[must_use]
    pub fn before(&self, port: PortId) -> Option<&Wall> {
        self.walls.get(port.index())?.as_ref()
    }

    /// Whether there is any wall.
    #[inline]
    #[must_use]
    pub fn stand(&self) -> bool {
        !self.walls.is_empty()
    }

    /// Why a new connection may come in by a port; none if it may not.
    #[must_use]
    pub fn judge(&self, port: PortId, ask: &Ask) -> Option<Let> {
        let Some(wall) = self.before(port) else { return Some(Let::Open) };
        let is_dhcp = (ask.source_port, ask.port) == (DHCP.0, Some(DHCP.1)) && ask.protocol == UDP;
        let from_within = ask.zone == wall.zone;
        let is_server =
            || matches!(ask.source, IpAddr::V4(it) if wall.servers.contains(&it.octets()));
        if is_dhcp && from_within && is_server() {
            return Some(Let::Dhcp);
        }
        if wall.is_own(ask) {
            return Some(Let::Own);
        }
        // An address means nothing in another zone: there it counts how the VM sees it.
        let address = if from_within { ask.source } else { ask.seen };
        let mut comer = Comer { address, groups: &[], protocol: ask.protocol, port: ask.port };
        let groups = wall.groups.iter().filter_map(|at| Some((*at, self.groups.group(*at)?)));
        if groups.clone().any(|(_, group)| group.asks_members()) {
            comer.groups = self.groups.of((ask.zone, ask.source));
        }
        groups.into_iter().find_map(|(number, group)| Some(Let::By(number, group.admits(&comer)?)))
    }

    /// Whether a port is guarded as it was by `before`.
    #[must_use]
    pub fn guard_alike(&self, before: &Self, port: PortId) -> bool {
        let (now, then) = match (self.before(port), before.before(port)) {
            (None, None) => return true,
            (Some(now), Some(then)) => (now, then),
            _ => return false,
        };
        let beside = |wall: &Wall| (wall.zone, wall.own, wall.own6, wall.servers.clone());
        let same_groups = || {
            let mut pairs = now.groups.iter().zip(&then.groups);
            now.groups.len() == then.groups.len()
                && pairs.all(|(one, two)| self.groups.is_alike(*one, &before.groups, *two))
        };
        let same_tables = Arc::ptr_eq(&self.groups, &before.groups) && now.groups == then.groups;
        beside(now) == beside(then) && (same_tables || same_groups())
    }
}
