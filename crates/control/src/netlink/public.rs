//! The public side as the node's kernel has it: routes, addresses and neighbours. It is the truth
//! there; we only ask it to resolve what it does not know.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt;
use ipnet::{IpNet, Ipv4Net};
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use wire::MacAddr;

use super::{Links, NetlinkError};

/// The routes we make name this as their maker (`ip route` shows the number): above those that
/// rtnetlink.h reserves.
const OUR_PROTOCOL: u8 = 196;
/// errno of something that is there already.
const EEXIST: i32 = 17;
/// errno of a route that is not there.
const ESRCH: i32 = 3;

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRoute {
    /// Where to.
    pub prefix: Ipv4Net,
    /// Index of the interface it leads out by.
    pub interface: u32,
    /// The router, if the prefix is not on the link.
    pub via: Option<Ipv4Addr>,
    /// Of several to one prefix the lowest counts.
    pub metric: u32,
    /// Whether it is one of those we make.
    pub ours: bool,
}

/// A neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelNeighbour {
    /// Index of its interface.
    pub interface: u32,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its MAC address; none while it is asked for, or did not answer.
    pub mac: Option<MacAddr>,
    /// It was asked for and did not answer.
    pub failed: bool,
    /// Nobody has made sure of it for a while.
    pub stale: bool,
}

impl Links {
    /// IPv4 routes of the main table; of a multipath route its first way.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn routes(&self) -> Result<Vec<KernelRoute>, NetlinkError> {
        let question = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let messages: Result<Vec<RouteMessage>, _> =
            self.handle.route().get(question).execute().try_collect().await;
        let messages = messages.map_err(|e| NetlinkError::of("cannot list the routes", &e))?;
        Ok(messages.iter().filter_map(route).collect())
    }

    /// IPv4 neighbours of all interfaces.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn neighbours(&self) -> Result<Vec<KernelNeighbour>, NetlinkError> {
        let request = self.handle.neighbours().get().set_address_family(AddressFamily::Inet);
        let messages: Result<Vec<NeighbourMessage>, _> = request.execute().try_collect().await;
        let messages = messages.map_err(|e| NetlinkError::of("cannot list the neighbours", &e))?;
        Ok(messages.iter().filter_map(neighbour).collect())
    }

    /// Has the kernel ask for a neighbour, or make sure of one it knows (`NTF_USE`).
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn resolve(&self, interface: u32, address: Ipv4Addr) -> Result<(), NetlinkError> {
        let request = self.handle.neighbours().add(interface, IpAddr::V4(address));
        let request = request.flags(NeighbourFlags::Use).state(NeighbourState::None).replace();
        let doing = || format!("cannot have {address} asked for on link {interface}");
        request.execute().await.map_err(|e| NetlinkError::of(doing(), &e))
    }

    /// Gives a link of ours this IPv4 address and no other.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn set_address(
        &self,
        index: u32,
        wanted: Option<Ipv4Net>,
    ) -> Result<(), NetlinkError> {
        let messages: Result<Vec<_>, _> =
            self.handle.address().get().set_link_index_filter(index).execute().try_collect().await;
        let messages = messages.map_err(|e| NetlinkError::of("cannot list the addresses", &e))?;
        let mut there = false;
        for message in messages {
            let Some(IpNet::V4(address)) = super::address_of(&message) else { continue };
            if Some(address) == wanted {
                there = true;
                continue;
            }
            let deleted = self.handle.address().del(message).execute().await;
            deleted.map_err(|e| NetlinkError::of(format!("cannot remove {address}"), &e))?;
        }
        let Some(address) = wanted.filter(|_| !there) else { return Ok(()) };
        let request =
            self.handle.address().add(index, IpAddr::V4(address.addr()), address.prefix_len());
        match request.execute().await.map_err(|e| NetlinkError::of("cannot add an address", &e)) {
            Err(NetlinkError::System { errno: Some(EEXIST), .. }) => Ok(()),
            done => done,
        }
    }

    /// Leads a host address of ours into a link.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn add_host_route(&self, to: Ipv4Addr, index: u32) -> Result<(), NetlinkError> {
        let added = self.handle.route().add(host_route(to, index)).replace().execute().await;
        added.map_err(|e| NetlinkError::of(format!("cannot add a route to {to}"), &e))
    }

    /// Takes such a route away; one that is not there is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn remove_host_route(&self, to: Ipv4Addr, index: u32) -> Result<(), NetlinkError> {
        let deleted = self.handle.route().del(host_route(to, index)).execute().await;
        match deleted.map_err(|e| NetlinkError::of(format!("cannot remove the route to {to}"), &e))
        {
            Err(NetlinkError::System { errno: Some(ESRCH), .. }) => Ok(()),
            done => done,
        }
    }
}

fn host_route(to: Ipv4Addr, index: u32) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(to, 32)
        .output_interface(index)
        .scope(RouteScope::Link)
        .protocol(RouteProtocol::Other(OUR_PROTOCOL))
        .build()
}

fn route(message: &RouteMessage) -> Option<KernelRoute> {
    let header = &message.header;
    let table = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    let is_main = table.unwrap_or(header.table.into()) == u32::from(RouteHeader::RT_TABLE_MAIN);
    if !is_main || header.kind != RouteType::Unicast || header.address_family != AddressFamily::Inet
    {
        return None;
    }
    let mut prefix = Ipv4Addr::UNSPECIFIED;
    let (mut interface, mut via, mut metric) = (None, None, 0);
    let mut take = |attributes: &[RouteAttribute]| {
        for attribute in attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => prefix = *address,
                RouteAttribute::Gateway(RouteAddress::Inet(address)) => via = Some(*address),
                RouteAttribute::Oif(index) => interface = Some(*index),
                RouteAttribute::Priority(priority) => metric = *priority,
                _ => {}
            }
        }
    };
    take(&message.attributes);
    let first = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::MultiPath(ways) => ways.first(),
        _ => None,
    });
    if let Some(first) = first {
        take(&first.attributes);
        interface = Some(first.interface_index);
    }
    Some(KernelRoute {
        prefix: Ipv4Net::new(prefix, header.destination_prefix_length).ok()?,
        interface: interface?,
        via,
        metric,
        ours: header.protocol == RouteProtocol::Other(OUR_PROTOCOL),
    })
}

fn neighbour(message: &NeighbourMessage) -> Option<KernelNeighbour> {
    let state = message.header.state;
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(*address),
        _ => None,
    })?;
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => {
            <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddr)
        }
        _ => None,
    });
    let known = matches!(
        state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
            | NeighbourState::Noarp
    );
    Some(KernelNeighbour {
        interface: message.header.ifindex,
        address,
        mac: mac.filter(|_| known),
        failed: state == NeighbourState::Failed,
        stale: state == NeighbourState::Stale,
    })
}
