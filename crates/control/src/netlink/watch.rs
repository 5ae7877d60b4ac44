//! Links as they come, change and go; and that routes, addresses or neighbours are not what they
//! were.

use std::collections::{BTreeMap, VecDeque};

use futures_util::StreamExt;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, MulticastGroup};

use super::{Link, Links, NetlinkError};

/// Room for this many bytes of news while we are busy; the kernel may allow less.
const ROOM: usize = 1 << 20;

/// What is listened to.
const GROUPS: [MulticastGroup; 4] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Neigh,
];

/// What happened to a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// There is a new one.
    Appeared(Link),
    /// Anything of it changed but its name.
    Changed(Link),
    /// It was deleted, moved to another namespace or renamed.
    Gone {
        /// What was its index.
        index: u32,
        /// What was its name.
        name: String,
    },
    /// An IPv4 route, address or neighbour came, changed or went: look at them again.
    Routing,
}

/// A subscription to link news; made by [`Links::watch`].
#[derive(Debug)]
pub struct LinkWatch {
    links: Links,
    news: News,
    known: BTreeMap<u32, Link>,
    ready: VecDeque<LinkEvent>,
    /// News were lost: everything has to be looked at again.
    stale: bool,
}

/// The subscription's own socket; it lives as long as its handle.
struct News {
    messages:
        Box<dyn futures_util::Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Send + Unpin>,
    _handle: Handle,
}

impl std::fmt::Debug for News {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("News")
    }
}

impl Links {
    /// The links there are, and a watch on what happens to them from then on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn watch(&self) -> Result<(Vec<Link>, LinkWatch), NetlinkError> {
        // First subscribe, then look: what happens in between is told twice, never missed.
        let news = News::subscribe()?;
        let links = self.list().await?;
        let known = links.iter().map(|link| (link.index, link.clone())).collect();
        let ready = VecDeque::new();
        Ok((links, LinkWatch { links: self.clone(), news, known, ready, stale: false }))
    }
}

impl News {
    fn subscribe() -> Result<Self, NetlinkError> {
        let failed = |error: std::io::Error| NetlinkError::System {
            doing: "cannot watch the links".into(),
            why: error.to_string(),
            errno: error.raw_os_error(),
        };
        let (mut connection, handle, messages) =
            rtnetlink::new_multicast_connection(&GROUPS).map_err(failed)?;
        // Best effort: with less room an overrun comes sooner, and is dealt with.
        let _ =
            rtnetlink::sys::AsyncSocket::socket_mut(connection.socket_mut()).set_rx_buf_sz(ROOM);
        tokio::spawn(connection);
        let messages = Box::new(messages.map(|(message, _)| message));
        Ok(Self { messages, _handle: handle })
    }
}

impl LinkWatch {
    /// Waits for the next event. Dropping the future loses nothing.
    ///
    /// If the kernel had to drop news, all links are compared with what was known, so that every
    /// difference is told; only what came and went in between is not.
    ///
    /// # Errors
    /// The kernel refuses to be asked again.
    pub async fn next(&mut self) -> Result<LinkEvent, NetlinkError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            if self.stale {
                self.look_again().await?;
                continue;
            }
            match self.news.messages.next().await.map(|message| message.payload) {
                Some(NetlinkPayload::InnerMessage(message)) => self.take(&message),
                Some(NetlinkPayload::Overrun(_)) | None => self.stale = true,
                Some(_) => {}
            }
        }
    }

    /// Tells what differs from the links that are there now.
    async fn look_again(&mut self) -> Result<(), NetlinkError> {
        // What waits on the old socket is from before the gap and would be told out of order.
        self.news = News::subscribe()?;
        let links = self.links.list().await?;
        self.stale = false;
        let there = |index: &u32| links.iter().any(|link| link.index == *index);
        let gone: Vec<u32> = self.known.keys().copied().filter(|index| !there(index)).collect();
        for index in gone {
            self.forget(index);
        }
        for link in links {
            self.learn(link);
        }
        self.routing();
        Ok(())
    }

    /// Says once that routing is not what it was, however much of it changed.
    fn routing(&mut self) {
        if !self.ready.contains(&LinkEvent::Routing) {
            self.ready.push_back(LinkEvent::Routing);
        }
    }

    fn take(&mut self, message: &RouteNetlinkMessage) {
        // A bridge tells of its ports under its own family, and "deletes" one that leaves it.
        let own = |link: &LinkMessage| link.header.interface_family == AddressFamily::Unspec;
        match message {
            RouteNetlinkMessage::NewLink(link) if own(link) => self.learn(Link::of(link)),
            RouteNetlinkMessage::DelLink(link) if own(link) => self.forget(link.header.index),
            RouteNetlinkMessage::NewNeighbour(told) | RouteNetlinkMessage::DelNeighbour(told)
                if told.header.family != AddressFamily::Inet => {}
            RouteNetlinkMessage::NewRoute(_)
            | RouteNetlinkMessage::DelRoute(_)
            | RouteNetlinkMessage::NewAddress(_)
            | RouteNetlinkMessage::DelAddress(_)
            | RouteNetlinkMessage::NewNeighbour(_)
            | RouteNetlinkMessage::DelNeighbour(_) => self.routing(),
            _ => {}
        }
    }

    fn learn(&mut self, link: Link) {
        match self.known.get(&link.index) {
            Some(known) if *known == link => return,
            Some(known) if known.name == link.name => {
                self.ready.push_back(LinkEvent::Changed(link.clone()));
            }
            Some(_) => {
                self.forget(link.index);
                self.ready.push_back(LinkEvent::Appeared(link.clone()));
            }
            None => self.ready.push_back(LinkEvent::Appeared(link.clone())),
        }
        self.known.insert(link.index, link);
    }

    fn forget(&mut self, index: u32) {
        if let Some(link) = self.known.remove(&index) {
            self.ready.push_back(LinkEvent::Gone { index, name: link.name });
        }
    }
}
