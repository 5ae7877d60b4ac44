//! The links we make: the punt link and the host ports, all veth pairs.
//!
//! They outlive the daemon, so each start finds the last one's. An alias says whose a link is; a
//! link without our alias is never touched.

use tracing::info;

use super::{Link, Links, NetlinkError};

/// Near end of the punt link: kernel programs redirect into it.
pub const PUNT_NEAR: &str = "tl-punt0";
/// Far end of the punt link: the workers' AF_XDP sockets are there.
pub const PUNT_FAR: &str = "tl-punt1";

/// The alias of what the daemon of `node` made.
#[must_use]
pub fn alias_of(node: &str) -> String {
    format!("trunkline:{node}")
}

/// Our end of the host port called `bridge`; the host's own foot has the bridge's name.
#[must_use]
pub fn host_port_name(bridge: &str) -> String {
    format!("{bridge}-tl")
}

/// Both ends of a veth pair of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// `tl-punt0`, or the host's foot such as `br100`.
    pub near: Link,
    /// `tl-punt1`, or our port such as `br100-tl`.
    pub far: Link,
    /// It was made just now; otherwise an earlier run's is used on.
    pub new: bool,
}

/// The far end of the host port of a bridge that stays: a port of that bridge.
#[must_use]
pub fn foot_name(bridge: &str) -> String {
    format!("{bridge}-in")
}

impl Links {
    /// The punt link, one queue per worker, up.
    ///
    /// `mtu` is the largest port's plus 8, bytes. One that an earlier run left is used if its
    /// queues fit and made anew if not.
    ///
    /// # Errors
    /// A name belongs to somebody else, or the kernel refuses.
    pub async fn ensure_punt_link(
        &self,
        workers: u32,
        mtu: u32,
        node: &str,
    ) -> Result<Pair, NetlinkError> {
        self.ensure_pair([PUNT_NEAR, PUNT_FAR], workers, mtu, node).await
    }

    /// The host port of a segment: `bridge` for the host, `<bridge>-tl` for us, up.
    ///
    /// # Errors
    /// A name belongs to somebody else (a bridge of nova-network, say), or the kernel refuses.
    pub async fn ensure_host_port(
        &self,
        bridge: &str,
        mtu: u32,
        node: &str,
    ) -> Result<Pair, NetlinkError> {
        self.ensure_pair([bridge, &host_port_name(bridge)], 1, mtu, node).await
    }

    /// The host port of a segment whose bridge stays: `<bridge>-in`, which is to be a port of it,
    /// and `<bridge>-tl` for us, up.
    ///
    /// # Errors
    /// A name belongs to somebody else, or the kernel refuses.
    pub async fn ensure_foot(
        &self,
        bridge: &str,
        mtu: u32,
        node: &str,
    ) -> Result<Pair, NetlinkError> {
        self.ensure_pair([&foot_name(bridge), &host_port_name(bridge)], 1, mtu, node).await
    }

    /// Removes one host port of ours; one that is not there is no error.
    ///
    /// # Errors
    /// The name belongs to somebody else, or the kernel refuses.
    pub async fn remove_host_port(&self, bridge: &str, node: &str) -> Result<(), NetlinkError> {
        self.remove_pair(bridge, node).await
    }

    /// The same of a segment whose bridge stays.
    ///
    /// # Errors
    /// The name belongs to somebody else, or the kernel refuses.
    pub async fn remove_foot(&self, bridge: &str, node: &str) -> Result<(), NetlinkError> {
        self.remove_pair(&foot_name(bridge), node).await
    }

    async fn remove_pair(&self, near: &str, node: &str) -> Result<(), NetlinkError> {
        let links = self.list().await?;
        let Some(link) = links.iter().find(|link| link.name == near) else { return Ok(()) };
        match link.alias == Some(alias_of(node)) {
            true => self.delete(link.index).await,
            false => Err(NetlinkError::Taken(taken(link, &links, node))),
        }
    }

    /// Deletes every link that the daemon of `node` made, and says their names.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn remove_ours(&self, node: &str) -> Result<Vec<String>, NetlinkError> {
        let alias = alias_of(node);
        let ours =
            self.list().await?.into_iter().filter(|link| link.alias.as_ref() == Some(&alias));
        let mut names = Vec::new();
        for link in ours {
            // The other end of a pair is gone already; deleting it again is no error.
            self.delete(link.index).await?;
            names.push(link.name);
        }
        Ok(names)
    }

    async fn ensure_pair(
        &self,
        names: [&str; 2],
        queues: u32,
        mtu: u32,
        node: &str,
    ) -> Result<Pair, NetlinkError> {
        let new = match found(&self.list().await?, names, queues, node)? {
            Found::Fit => false,
            Found::Nothing => {
                self.make_pair(names, queues, mtu, node).await?;
                true
            }
            Found::Unfit(indexes) => {
                info!("making {} and {} anew: what was left does not fit", names[0], names[1]);
                for index in indexes {
                    self.delete(index).await?;
                }
                self.make_pair(names, queues, mtu, node).await?;
                true
            }
        };
        let [near, far] = [self.ready(names[0], mtu).await?, self.ready(names[1], mtu).await?];
        // The ends see each other's carrier only once both are up.
        let near = self.by_name(&near.name).await?.unwrap_or(near);
        Ok(Pair { near, far, new })
    }

    async fn make_pair(
        &self,
        names: [&str; 2],
        queues: u32,
        mtu: u32,
        node: &str,
    ) -> Result<(), NetlinkError> {
        self.create_veth_pair(names[0], names[1], queues, mtu).await?;
        // The kernel takes an alias only from a link that exists. Killed before this line, we
        // leave a pair without alias, which `half_made` recognises.
        for name in names {
            let link = self.there(name).await?;
            self.quiet_ipv6(&link).await?;
            self.set_alias(link.index, &alias_of(node)).await?;
        }
        Ok(())
    }

    /// The link of this name with this MTU and up.
    async fn ready(&self, name: &str, mtu: u32) -> Result<Link, NetlinkError> {
        let link = self.there(name).await?;
        if link.mtu != mtu {
            self.set_mtu(link.index, mtu).await?;
        }
        if !link.up {
            self.set_up(link.index, true).await?;
        }
        self.there(name).await
    }

    async fn there(&self, name: &str) -> Result<Link, NetlinkError> {
        self.by_name(name).await?.ok_or_else(|| NetlinkError::System {
            doing: format!("cannot look at {name}"),
            why: "somebody removed it just now".into(),
            errno: Some(super::ENODEV),
        })
    }
}

/// What is in the place of a pair of ours.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Fit,
    Unfit(Vec<u32>),
}

fn found(links: &[Link], names: [&str; 2], queues: u32, node: &str) -> Result<Found, NetlinkError> {
    let [near, far] = names.map(|name| links.iter().find(|link| link.name == name));
    if half_made(near, far) {
        return Ok(Found::Unfit(near.map(|link| link.index).into_iter().collect()));
    }
    let there: Vec<&Link> = [near, far].into_iter().flatten().collect();
    let alias = alias_of(node);
    if let Some(stranger) = there.iter().find(|link| link.alias.as_ref() != Some(&alias)) {
        return Err(NetlinkError::Taken(taken(stranger, links, node)));
    }
    let fits =
        |link: &Link| link.is("veth") && link.rx_queues == queues && link.tx_queues == queues;
    Ok(match (near, far) {
        (None, None) => Found::Nothing,
        (Some(near), Some(far)) if ends_of_one(near, far) && fits(near) && fits(far) => Found::Fit,
        _ => Found::Unfit(there.iter().map(|link| link.index).collect()),
    })
}

fn ends_of_one(near: &Link, far: &Link) -> bool {
    near.lower == Some(far.index) && !near.peer_in_other_netns && near.is("veth")
}

/// A pair with our two names that was never set up: we were killed while we made it.
fn half_made(near: Option<&Link>, far: Option<&Link>) -> bool {
    let (Some(near), Some(far)) = (near, far) else { return false };
    let raw = |link: &Link| link.alias.is_none() && !link.up && link.master.is_none();
    ends_of_one(near, far)
        && !near.up
        && !far.up
        && (raw(near) || raw(far))
        && [near, far]
            .iter()
            .all(|link| link.alias.as_ref().is_none_or(|a| a.starts_with("trunkline:")))
}

/// Why `link` is not ours to use, and what to do.
fn taken(link: &Link, links: &[Link], node: &str) -> String {
    let name = &link.name;
    if let Some(other) = link.alias.as_deref().and_then(|alias| alias.strip_prefix("trunkline:")) {
        return format!(
            "{name} belongs to node '{other}', and this is '{node}': run trunkline detach --node \
             {other} first"
        );
    }
    if !link.is("bridge") {
        let kind = link.kind.as_deref().unwrap_or("interface");
        return format!("{name} is taken ({kind}) and not ours: rename or remove it first");
    }
    let ports = links.iter().filter(|port| port.master == Some(link.index));
    let ports: Vec<&str> = ports.map(|port| port.name.as_str()).collect();
    let ports = match ports.is_empty() {
        true => "without ports".into(),
        false => format!("with {}", ports.join(", ")),
    };
    format!(
        "{name} is a Linux bridge {ports}, as nova-network makes them: stop nova-network and \
         remove it first (ip link del {name})"
    )
}
