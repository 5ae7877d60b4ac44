//! The public side, followed: the kernel's routes and neighbours there, and what of it is ours.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use anyhow::Result;
use control::compile::{self, Owned, PublicRoute};
use control::netlink::{KernelNeighbour, KernelRoute};
use ipnet::{IpNet, Ipv4Net};
use tables::{Nat, Neighbour, Neighbours, NextHop, PortId};

use crate::node::Node;
use crate::ports::Wanted;

/// Next hops at most: lines name them by number, and no number is ever given twice.
const HOPS: usize = 1 << 20;

/// What the node's kernel says, and what we asked it for.
#[derive(Debug, Default)]
pub(crate) struct Public {
    routes: Vec<KernelRoute>,
    local: Vec<Ipv4Addr>,
    neighbours: HashMap<(u32, Ipv4Addr), KernelNeighbour>,
    /// Next hops by number.
    hops: Vec<(PortId, Ipv4Addr)>,
    /// Something changed since the last look.
    pub(crate) stale: bool,
    /// The floats the host is led to are not those that are here any more.
    pub(crate) floats_changed: bool,
    owned: BTreeMap<Ipv4Net, Owned>,
    /// Addresses' UDP ports that lead to VMs, as the kernel has been told.
    forwards: BTreeSet<([u8; 4], u16)>,
}

impl Public {
    /// The public side as an earlier run left it: its next hops, and the neighbours the kernel
    /// knows now.
    pub(crate) fn left(hops: Vec<(PortId, Ipv4Addr)>, neighbours: Vec<KernelNeighbour>) -> Self {
        let neighbours = neighbours.into_iter().map(|one| ((one.interface, one.address), one));
        Self { hops, neighbours: neighbours.collect(), ..Self::default() }
    }

    /// Next hops by number.
    pub(crate) fn hops(&self) -> &[(PortId, Ipv4Addr)] {
        &self.hops
    }

    /// The number of a next hop, given now if it has none.
    fn number(&mut self, port: PortId, address: Ipv4Addr) -> Option<u32> {
        let known = self.hops.iter().position(|hop| *hop == (port, address));
        let at = match known {
            Some(at) => at,
            None if self.hops.len() >= HOPS => return None,
            None => {
                self.hops.push((port, address));
                self.hops.len() - 1
            }
        };
        u32::try_from(at).ok()
    }
}

impl Node {
    /// Interface index of a plugged NIC.
    fn interface_of(&self, port: PortId) -> Option<u32> {
        Some(self.ports.get(&port)?.plugged.as_ref()?.link.index)
    }

    /// The plugged public NICs, by interface index.
    fn public_nics(&self) -> HashMap<u32, PortId> {
        let nics = self
            .ports
            .values()
            .filter(|port| matches!(port.wanted, Wanted::Nic { public: true, .. }));
        nics.filter_map(|port| Some((port.plugged.as_ref()?.link.index, port.id))).collect()
    }

    /// Looks at the kernel's routes, addresses and neighbours again.
    pub(crate) async fn look_at_public(&mut self) -> Result<()> {
        self.public.stale = false;
        let routes: Vec<KernelRoute> =
            self.links.routes().await?.into_iter().filter(|route| !route.ours).collect();
        let addresses = self.links.addresses().await?;
        let mut local: Vec<Ipv4Addr> = addresses
            .iter()
            .filter_map(|(_, net)| match net {
                IpNet::V4(net) if !net.addr().is_loopback() => Some(net.addr()),
                _ => None,
            })
            .collect();
        local.sort_unstable();
        local.dedup();
        let nics = self.public_nics();
        let neighbours: HashMap<_, _> = self
            .links
            .neighbours()
            .await?
            .into_iter()
            .filter(|neighbour| nics.contains_key(&neighbour.interface))
            .map(|neighbour| ((neighbour.interface, neighbour.address), neighbour))
            .collect();
        if (&routes, &local) != (&self.public.routes, &self.public.local) {
            (self.public.routes, self.public.local) = (routes, local);
            self.revoke_hops();
            self.want_routers().await;
        } else if neighbours == self.public.neighbours {
            return Ok(());
        }
        self.public.neighbours = neighbours;
        self.compile();
        Ok(())
    }

    /// Has the kernel resolve the routers on the public side before anybody needs them.
    async fn want_routers(&mut self) {
        let routes = self.public_routes();
        for route in routes {
            if let Some(via) = route.via {
                self.want_public(route.port, via).await;
            }
        }
        for float in self.model.floats.clone() {
            if let (Some(via), Some(port)) = (float.next_hop, self.plugged(&float.nic)) {
                self.want_public(port, via).await;
            }
        }
    }

    /// A worker misses a next hop: the kernel asks for it, and its answer comes back as news.
    pub(crate) async fn want_public(&mut self, port: PortId, address: Ipv4Addr) {
        let Some(interface) = self.interface_of(port) else { return };
        if self.public.number(port, address).is_none() {
            return;
        }
        if let Err(error) = self.links.resolve(interface, address).await {
            tracing::warn!("{error}");
        }
        // The kernel tells only of changes, and it may have known all along.
        self.public.stale = true;
    }

    /// Has the kernel make sure of next hops that it holds for stale: it does not see our traffic.
    pub(crate) async fn confirm_hops(&mut self) {
        let in_use: Vec<(u32, Ipv4Addr)> = self
            .public
            .hops
            .iter()
            .filter_map(|(port, address)| Some((self.interface_of(*port)?, *address)))
            .filter(|hop| self.public.neighbours.get(hop).is_some_and(|known| known.stale))
            .collect();
        for (interface, address) in in_use {
            if let Err(error) = self.links.resolve(interface, address).await {
                tracing::warn!("{error}");
            }
        }
    }

    /// The kernel's routes that lead out by a public NIC; of several to one prefix the first.
    pub(crate) fn public_routes(&self) -> Vec<PublicRoute> {
        let nics = self.public_nics();
        let mut best: BTreeMap<Ipv4Net, (u32, PublicRoute)> = BTreeMap::new();
        for route in &self.public.routes {
            let Some(port) = nics.get(&route.interface) else { continue };
            let way = PublicRoute { prefix: route.prefix, port: *port, via: route.via };
            let entry = best.entry(route.prefix).or_insert((route.metric, way));
            if route.metric < entry.0 {
                *entry = (route.metric, way);
            }
        }
        best.into_values().map(|(_, route)| route).collect()
    }

    /// The node's own addresses.
    pub(crate) fn local_addresses(&self) -> &[Ipv4Addr] {
        &self.public.local
    }

    /// Adds what is known of the next hops.
    pub(crate) fn fill_hops(&self, table: &mut Neighbours) {
        for ((port, address), number) in self.public.hops.iter().zip(0..) {
            let interface = self.interface_of(*port);
            let known = interface.and_then(|at| self.public.neighbours.get(&(at, *address)));
            let neighbour = known.and_then(|known| match (known.mac, known.failed) {
                (Some(mac), _) => Some(Neighbour::At(mac)),
                (None, true) => Some(Neighbour::Failed),
                (None, false) => None,
            });
            let (port, address) = (*port, address.octets());
            table.insert_hop(number, NextHop { port, address, neighbour });
        }
    }

    /// Tells the kernel's programs which public addresses are ours.
    pub(crate) fn own_addresses(&mut self, nat: &Nat) {
        let wanted: BTreeMap<Ipv4Net, Owned> =
            compile::owned(&self.model, nat).into_iter().collect();
        let before = std::mem::take(&mut self.public.owned);
        for prefix in before.keys().filter(|prefix| !wanted.contains_key(prefix)) {
            self.tried("a public address", |kernel| kernel.clear_owned(raw(*prefix)));
        }
        for (prefix, kind) in wanted.iter().filter(|(at, kind)| before.get(at) != Some(kind)) {
            let kind = match kind {
                Owned::Snat => kernel::Owned::Snat,
                Owned::Float => kernel::Owned::Float,
                Owned::Network => kernel::Owned::Network,
            };
            self.tried("a public address", |kernel| kernel.set_owned(raw(*prefix), kind));
        }
        self.public.owned = wanted;
        let wanted: BTreeSet<([u8; 4], u16)> =
            nat.forwards().map(|forward| (forward.address, forward.port)).collect();
        let before = std::mem::take(&mut self.public.forwards);
        for (of, leads) in before
            .difference(&wanted)
            .map(|of| (of, false))
            .chain(wanted.difference(&before).map(|of| (of, true)))
        {
            self.tried("a forwarded port", |kernel| kernel.set_forward(of.0, of.1, leads));
        }
        self.public.forwards = wanted;
    }

    /// Leads what the host itself sends to a floating address of the node into the VM's segment.
    pub(crate) async fn lead_host_to_floats(&mut self) -> Result<()> {
        self.public.floats_changed = false;
        let nat = self.publisher.current().nat.clone();
        let links = self.links.list().await?;
        let foot = |segment| {
            let network = self.model.networks.iter().find(|network| {
                self.names.segment(&network.name) == segment && network.zone == compile::HOST_ZONE
            })?;
            // nova's own rules lead the host there, where its bridge stays.
            if self.kept(&network.bridge).is_some() {
                return None;
            }
            links.iter().find(|link| link.name == network.bridge).map(|link| link.index)
        };
        let wanted: BTreeSet<(Ipv4Addr, u32)> = nat
            .floats()
            .filter_map(|float| Some((Ipv4Addr::from(float.address), foot(float.segment)?)))
            .collect();
        let there: BTreeSet<(Ipv4Addr, u32)> = self
            .links
            .routes()
            .await?
            .iter()
            .filter(|route| route.ours)
            .map(|route| (route.prefix.addr(), route.interface))
            .collect();
        for (address, interface) in there.difference(&wanted) {
            self.links.remove_host_route(*address, *interface).await?;
        }
        for (address, interface) in wanted.difference(&there) {
            self.links.add_host_route(*address, *interface).await?;
        }
        Ok(())
    }
}

fn raw(prefix: Ipv4Net) -> kernel::Prefix {
    (prefix.addr().octets(), prefix.prefix_len())
}
