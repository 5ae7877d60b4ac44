//! The node's links: what there is, what changes, and the few that we make.
//!
//! rtnetlink(7) over one socket, in the network namespace of the thread that called
//! [`Links::connect`]; needs a tokio runtime. [`judge`] says whether a link can be used, without
//! asking anybody.

mod bridge;
pub mod judge;
mod link;
mod ours;
mod public;
mod stations;
mod watch;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute,
    LinkMessage,
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};
use tracing::warn;
use wire::MacAddr;

pub use link::Link;
pub use ours::{PUNT_FAR, PUNT_NEAR, Pair, alias_of, foot_name, host_port_name};
pub use public::{KernelNeighbour, KernelRoute};
pub use stations::BridgeStation;
pub use watch::{LinkEvent, LinkWatch};

/// Why a link could not be read or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused.
    #[error("{doing}: {why}")]
    System {
        /// What was tried.
        doing: String,
        /// The kernel's reason.
        why: String,
        /// Its number (errno), if it gave one.
        errno: Option<i32>,
    },
    /// A name that we need belongs to somebody else, with words on what to do.
    #[error("{0}")]
    Taken(String),
}

/// errno of a link that is not there.
const ENODEV: i32 = 19;
/// errno of an address family the kernel does not know.
const EAFNOSUPPORT: i32 = 97;
/// errno of a missing capability.
const EPERM: i32 = 1;

impl NetlinkError {
    /// Whether the link was not there (any more).
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::System { errno: Some(ENODEV), .. })
    }

    fn of(doing: impl Into<String>, error: &rtnetlink::Error) -> Self {
        let (why, errno) = match error {
            rtnetlink::Error::NetlinkError(told) => match told.raw_code().abs() {
                EPERM => ("the capability CAP_NET_ADMIN is missing".into(), Some(EPERM)),
                errno => (told.to_io().to_string(), Some(errno)),
            },
            other => (other.to_string(), None),
        };
        Self::System { doing: doing.into(), why, errno }
    }
}

/// A connection to the kernel's link table.
#[derive(Clone, Debug)]
pub struct Links {
    handle: rtnetlink::Handle,
}

impl Links {
    /// Opens a netlink socket and reads it in a task of the current runtime.
    ///
    /// # Errors
    /// The system refuses a socket.
    pub fn connect() -> Result<Self, NetlinkError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|error| NetlinkError::System {
                doing: "cannot open a netlink socket".into(),
                why: error.to_string(),
                errno: error.raw_os_error(),
            })?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// All links of the namespace, by index.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn list(&self) -> Result<Vec<Link>, NetlinkError> {
        let messages: Result<Vec<LinkMessage>, _> =
            self.handle.link().get().execute().try_collect().await;
        let messages = messages.map_err(|e| NetlinkError::of("cannot list the links", &e))?;
        let mut links: Vec<Link> = messages.iter().map(Link::of).collect();
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    /// The link of this name, if there is one.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn by_name(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut found = std::pin::pin!(self.handle.link().get().match_name(name).execute());
        match found.try_next().await {
            Ok(message) => Ok(message.as_ref().map(Link::of)),
            Err(error) => match NetlinkError::of(format!("cannot look at {name}"), &error) {
                error if error.is_gone() => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Addresses of all links, as (index of the link, address with prefix).
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn addresses(&self) -> Result<Vec<(u32, IpNet)>, NetlinkError> {
        let messages: Result<Vec<_>, _> = self.handle.address().get().execute().try_collect().await;
        let messages = messages.map_err(|e| NetlinkError::of("cannot list the addresses", &e))?;
        let of = |message: &AddressMessage| Some((message.header.index, address_of(message)?));
        Ok(messages.iter().filter_map(of).collect())
    }

    /// Makes a veth pair, both ends with `queues` receive and transmit queues, down.
    ///
    /// `mtu` in bytes of IP packet. Queues are fixed at creation: a veth cannot get more later.
    ///
    /// # Errors
    /// A name is taken, or the kernel refuses.
    pub async fn create_veth_pair(
        &self,
        near: &str,
        far: &str,
        queues: u32,
        mtu: u32,
    ) -> Result<(), NetlinkError> {
        let end = |name: &str| {
            LinkMessageBuilder::<LinkUnspec>::new()
                .name(name)
                .mtu(mtu)
                .append_extra_attribute(LinkAttribute::NumTxQueues(queues))
                .append_extra_attribute(LinkAttribute::NumRxQueues(queues))
                .build()
        };
        let mut message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(end(far))))
            .build();
        message.attributes.extend(end(near).attributes);
        let doing = || format!("cannot make the veth pair {near} and {far}");
        self.handle.link().add(message).execute().await.map_err(|e| NetlinkError::of(doing(), &e))
    }

    /// Sets the MTU, bytes of IP packet.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        self.change(format!("cannot set mtu {mtu}"), LinkUnspec::new_with_index(index).mtu(mtu))
            .await
    }

    /// Sets a link up or down.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn set_up(&self, index: u32, up: bool) -> Result<(), NetlinkError> {
        let link = LinkUnspec::new_with_index(index);
        let (doing, link) =
            if up { ("cannot set it up", link.up()) } else { ("cannot set it down", link.down()) };
        self.change(doing.into(), link).await
    }

    /// Names the owner of a link.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn set_alias(&self, index: u32, alias: &str) -> Result<(), NetlinkError> {
        let link = LinkUnspec::new_with_index(index).alias(alias);
        self.change(format!("cannot set alias {alias}"), link).await
    }

    /// Gives a link another MAC.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn set_mac(&self, index: u32, mac: MacAddr) -> Result<(), NetlinkError> {
        let link = LinkUnspec::new_with_index(index).address(mac.0.to_vec());
        self.change(format!("cannot set mac {mac}"), link).await
    }

    /// Lets a NIC receive frames for every MAC, or only for its own again.
    ///
    /// This is the administrator's switch (IFF_PROMISC); it stays when the daemon ends.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn set_promisc(&self, index: u32, on: bool) -> Result<(), NetlinkError> {
        let link = LinkUnspec::new_with_index(index).promiscuous(on);
        self.change(format!("cannot switch promiscuity {}", if on { "on" } else { "off" }), link)
            .await
    }

    /// Keeps the kernel from sending IPv6 of its own accord into a link that is still down.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn quiet_ipv6(&self, link: &Link) -> Result<(), NetlinkError> {
        // No address of its own: no router solicitations, no duplicate address detection.
        let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let spec = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![none])]);
        let message = LinkUnspec::new_with_index(link.index).append_extra_attribute(spec);
        match self.change("cannot quiet IPv6".into(), message).await {
            // A kernel without IPv6 says EAFNOSUPPORT, and is quiet.
            Err(NetlinkError::System { errno: Some(EAFNOSUPPORT), .. }) => return Ok(()),
            done => done?,
        }
        // A host that forwards joins the routers' groups even so, and reports them (seen: two
        // listener reports per link). Only this switch stops that, and it is no netlink message.
        let switch = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", link.name);
        if let Err(error) = std::fs::write(&switch, "1") {
            warn!("{switch}: {error}; the kernel may send listener reports into {}", link.name);
        }
        Ok(())
    }

    /// Deletes a link; a veth's other end goes with it. One that is not there is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn delete(&self, index: u32) -> Result<(), NetlinkError> {
        let deleted = self.handle.link().del(index).execute().await;
        match deleted.map_err(|e| NetlinkError::of(format!("cannot delete link {index}"), &e)) {
            Err(error) if error.is_gone() => Ok(()),
            done => done,
        }
    }

    async fn change(
        &self,
        doing: String,
        link: LinkMessageBuilder<LinkUnspec>,
    ) -> Result<(), NetlinkError> {
        let message = link.build();
        let index = message.header.index;
        let changed = self.handle.link().change(message).execute().await;
        changed.map_err(|e| NetlinkError::of(format!("link {index}: {doing}"), &e))
    }
}

/// The address a message tells of.
fn address_of(message: &AddressMessage) -> Option<IpNet> {
    // IFA_LOCAL is our end; IFA_ADDRESS is the other one on a point-to-point link.
    let find = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if local => Some(*address),
            AddressAttribute::Address(address) if !local => Some(*address),
            _ => None,
        })
    };
    IpNet::new(find(true).or_else(|| find(false))?, message.header.prefix_len).ok()
}
