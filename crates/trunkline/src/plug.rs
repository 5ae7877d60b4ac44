//! Ports on interfaces: attaching, following, taking off.

use anyhow::Result;
use conntrack::fault;
use control::flags::{Hook, XdpMode};
use control::model::{Tuning, Vif};
use control::netlink::Link;
use kernel::{Kernel, PortEntry, Quota};
use tables::{Egress, Port, PortId};

use crate::node::{NicSockets, Node};
use crate::ports::{Plugged, PortState, Wanted};

/// Room the outer and the inner tag take on the punt link, bytes.
pub(crate) const PUNT_OVERHEAD: u32 = 8;

/// The kernel's word for a hook.
pub(crate) fn hook(hook: Hook) -> kernel::Hook {
    match hook {
        Hook::Auto => kernel::Hook::Auto,
        Hook::Xdp => kernel::Hook::Xdp,
        Hook::Tc => kernel::Hook::Tc,
    }
}

/// The kernel's word for how its XDP programs are attached.
pub(crate) fn xdp_mode(mode: XdpMode) -> kernel::XdpMode {
    match mode {
        XdpMode::Generic => kernel::XdpMode::Generic,
        XdpMode::Auto => kernel::XdpMode::Auto,
        XdpMode::ZeroCopy | XdpMode::Copy => kernel::XdpMode::Native,
    }
}

/// The kernel's word for what a port is.
pub(crate) fn kind(wanted: &Wanted) -> kernel::PortKind {
    match wanted {
        Wanted::Nic { trunk: true, .. } => kernel::PortKind::Trunk,
        Wanted::Nic { trunk: false, .. } => kernel::PortKind::Public,
        Wanted::Vif { .. } => kernel::PortKind::Vif,
        Wanted::Host { .. } => kernel::PortKind::Host,
    }
}

impl Node {
    /// Makes the host ports and plugs every port whose interface is there.
    pub(crate) async fn plug_what_is_there(&mut self) -> Result<()> {
        for network in &self.model.networks {
            let host = control::netlink::host_port_name(&network.bridge);
            if self.names.ports.get(&host).is_some() {
                self.make_host_port(network).await?;
            }
        }
        let links = self.links.list().await?;
        let waiting: Vec<(PortId, Link)> = self
            .ports
            .values()
            .filter(|port| port.plugged.is_none())
            .filter_map(|port| {
                let link = links.iter().find(|link| link.name == port.name)?;
                Some((port.id, link.clone()))
            })
            .collect();
        let mut prepared = Vec::new();
        for (id, link) in waiting {
            match self.prepare(id, link, &links).await {
                Ok(()) => prepared.push(id),
                Err(error) => self.refuse(id, &error),
            }
        }
        // All of them are known before the first program runs: it may send to any.
        self.compile();
        self.tell_kernel()?;
        self.inherit().await?;
        fault::point("inherited");
        prepared.sort_by_key(|id| self.turn(*id));
        let vifs = prepared.partition_point(|id| self.turn(*id) < 2);
        let vifs = prepared.split_off(vifs);
        for id in prepared {
            self.attach(id);
            fault::point("nic");
        }
        fault::point("foot");
        self.join_bridges().await?;
        fault::point("joined");
        for id in vifs {
            self.attach(id);
            fault::point("vif");
        }
        self.tend_bridges().await?;
        fault::point("silenced");
        // Those that were opened meanwhile.
        self.inherit().await?;
        self.has_inherited();
        self.address_host_ports().await?;
        self.lead_host_to_floats().await
    }

    /// Plugs a port into its interface; what stands in the way is remembered in words.
    pub(crate) async fn plug(&mut self, id: PortId, link: Link) {
        let prepared = async {
            let links = self.links.list().await?;
            self.prepare(id, link, &links).await?;
            self.compile();
            self.tell_kernel()
        };
        match prepared.await {
            Ok(()) => self.attach(id),
            Err(error) => self.refuse(id, &error),
        }
    }

    fn refuse(&mut self, id: PortId, error: &anyhow::Error) {
        let Some(port) = self.ports.get_mut(&id) else { return };
        port.plugged = None;
        let words = format!("{error:#}");
        if port.refusal.as_ref() != Some(&words) {
            tracing::error!(port = %port.name, "not plugged: {words}");
        }
        port.refusal = Some(words);
        self.compile();
    }

    /// Judges an interface and has the port there; the caller tells workers and programs.
    async fn prepare(&mut self, id: PortId, link: Link, links: &[Link]) -> Result<()> {
        let Some(port) = self.ports.get(&id).cloned() else { return Ok(()) };
        if let Wanted::Vif { .. } = port.wanted {
            self.judge_vif(&link, links).map_err(anyhow::Error::msg)?;
        }
        let xdp = expects_xdp(port.hook, &link);
        self.room_for(id, link.mtu, xdp).await?;
        let stamp = self.stamp_of_a_new_port();
        // What an earlier run attached is still there, and XDP goes on sending there.
        let takes_xdp = self.continuing && self.proves_xdp(&port, &link);
        let egress = self.egress(id, xdp);
        if let Some(port) = self.ports.get_mut(&id) {
            port.plugged =
                Some(Plugged { link, xdp, hook: String::new(), egress, takes_xdp, stamp });
        }
        Ok(())
    }

    /// Attaches the program of a port that workers and programs know.
    fn attach(&mut self, id: PortId) {
        match self.try_attach(id) {
            Ok(hook) => {
                let Some(port) = self.ports.get_mut(&id) else { return };
                port.refusal = None;
                tracing::info!(port = %port.name, hook, "plugged");
            }
            Err(error) => self.refuse(id, &error),
        }
    }

    fn try_attach(&mut self, id: PortId) -> Result<String> {
        let Some(port) = self.ports.get(&id).cloned() else { return Ok(String::new()) };
        let Some(plugged) = port.plugged.clone() else { return Ok(String::new()) };
        self.own_vlans(&port.name)?;
        let mode = xdp_mode(self.model.tuning.xdp_mode);
        let attached = self.kernel.attach(id.get(), &port.name, hook(port.hook), mode)?;
        let words = format!("{} ({})", attached.how, attached.why);
        let xdp = attached.how.is_xdp();
        let (egress, takes_xdp) = (self.egress(id, xdp), self.proves_xdp(&port, &plugged.link));
        let foreseen = (xdp, egress, takes_xdp) == (plugged.xdp, plugged.egress, plugged.takes_xdp);
        let plugged = Plugged { xdp, egress, hook: words.clone(), takes_xdp, ..plugged };
        match self.ports.get_mut(&id) {
            Some(port) if foreseen => port.plugged = Some(plugged),
            _ => self.set(id, plugged)?,
        }
        Ok(words)
    }

    /// The way to a port: its own sockets if it is a NIC with an XDP hook.
    fn egress(&self, id: PortId, xdp: bool) -> Egress {
        match self.nic_sockets.get(&id) {
            Some(sockets) if xdp => Egress::Nic(sockets.nic),
            _ => Egress::Punt,
        }
    }

    /// Tells workers and kernel of a plugged port.
    fn set(&mut self, id: PortId, plugged: Plugged) -> Result<()> {
        let Some(port) = self.ports.get_mut(&id) else { return Ok(()) };
        port.plugged = Some(plugged);
        self.compile();
        self.tell_kernel()
    }

    /// The punt link carries the largest port's packets; frames have room for so much.
    async fn room_for(&mut self, id: PortId, mtu: u32, xdp: bool) -> Result<()> {
        let own = xdp && self.nic_sockets.contains_key(&id);
        let warning = self.workers.room.check(mtu, xdp, own).map_err(anyhow::Error::msg)?;
        if let Some(words) = warning {
            self.warn(words);
        }
        let punt = mtu + PUNT_OVERHEAD;
        for name in [control::netlink::PUNT_NEAR, control::netlink::PUNT_FAR] {
            if let Some(link) = self.links.by_name(name).await?
                && link.mtu < punt
            {
                self.links.set_mtu(link.index, punt).await?;
            }
        }
        Ok(())
    }

    /// Something of a plugged interface changed; its MTU matters.
    pub(crate) async fn changed(&mut self, id: PortId, link: Link) {
        let Some(port) = self.ports.get(&id) else { return };
        let Some(plugged) = port.plugged.clone() else { return };
        if plugged.link.mtu < link.mtu
            && let Err(error) = self.room_for(id, link.mtu, plugged.xdp).await
        {
            self.warn(format!("{}: {error:#}; until then larger packets are dropped", link.name));
        }
        let same = plugged.link.mtu == link.mtu && plugged.link.mac == link.mac;
        if same {
            if let Some(port) = self.ports.get_mut(&id) {
                port.plugged = Some(Plugged { link, ..plugged });
            }
            return;
        }
        let stamp = self.next_stamp();
        if let Err(error) = self.set(id, Plugged { link, stamp, ..plugged }) {
            tracing::error!("{error:#}");
        }
    }

    /// The interface of a port vanished, and its programs with it. The port stays and waits.
    pub(crate) fn gone(&mut self, id: PortId) {
        let Some(port) = self.ports.get_mut(&id) else { return };
        let Some(plugged) = port.plugged.take() else { return };
        tracing::info!(port = %port.name, "its interface is gone; waiting for it");
        self.tried("forgetting a port", |kernel| kernel.detach(plugged.link.index));
        self.after_unplug(id);
    }

    /// Takes a port off its interface.
    pub(crate) fn unplug(&mut self, id: PortId) {
        let Some(port) = self.ports.get_mut(&id) else { return };
        let Some(plugged) = port.plugged.take() else { return };
        tracing::info!(port = %port.name, "unplugged");
        self.tried("unplugging", |kernel| kernel.detach(plugged.link.index));
        self.after_unplug(id);
    }

    fn after_unplug(&mut self, id: PortId) {
        self.macs_refused.remove(&id);
        self.next_stamp();
        self.compile();
        self.told.forget_port(id);
        self.tried("unplugging", |kernel| kernel.clear_port(id.get()));
    }

    /// A guest behind an XDP hook leaves its checksums to a device that is not there: with a tc
    /// hook the kernel finishes them on the way to the punt link.
    pub(crate) async fn finish_checksums(&mut self, id: PortId) -> Result<()> {
        let Some(port) = self.ports.get_mut(&id) else { return Ok(()) };
        let Some(plugged) = port.plugged.as_ref().filter(|plugged| plugged.xdp) else {
            return Ok(());
        };
        let link = plugged.link.clone();
        tracing::warn!(
            port = %port.name,
            "its guest leaves checksums to the device, and behind XDP there is none: the port \
             moves from XDP to tc; `ethtool -K <interface> tx off` in the guest avoids it"
        );
        port.hook = Hook::Tc;
        self.plug(id, link).await;
        Ok(())
    }

    /// Warns of something, once.
    fn warn(&mut self, words: String) {
        if !self.warnings.contains(&words) {
            tracing::warn!("{words}");
            self.warnings.push(words);
        }
    }

    /// Does something in the kernel that must not stop what follows; says so if it fails.
    pub(crate) fn tried(
        &mut self,
        doing: &str,
        act: impl FnOnce(&mut Kernel) -> Result<(), kernel::Error>,
    ) {
        if let Err(error) = act(&mut self.kernel) {
            tracing::error!("{doing}: {error}");
        }
    }
}

/// Whether `auto` will be XDP: on hardware, which has no link kind; veth and tap lose their GSO
/// packets to it.
pub(crate) fn expects_xdp(hook: Hook, link: &Link) -> bool {
    match hook {
        Hook::Xdp => true,
        Hook::Tc => false,
        Hook::Auto => link.kind.is_none(),
    }
}

/// The kernel's word for a limit.
fn limit(limit: control::model::Limit) -> kernel::Limit {
    let control::model::Limit { average, peak, burst } = limit;
    kernel::Limit { average, peak, burst }
}

/// The port as the kernel's programs see it; `row` is how workers do.
pub(crate) fn entry(
    port: &PortState,
    plugged: &Plugged,
    row: &Port,
    tuning: &Tuning,
    vif: Option<&Vif>,
    sockets: Option<NicSockets>,
) -> PortEntry {
    let (first, queues) = sockets.map_or((0, 0), |sockets| (sockets.first, sockets.queues));
    let quota = vif.map_or_else(Default::default, |vif| vif.quota);
    PortEntry {
        number: port.id.get(),
        kind: kind(&port.wanted),
        public: matches!(port.wanted, Wanted::Nic { public: true, .. }),
        ifindex: plugged.link.index,
        mtu: row.mtu,
        mac: row.mac.0,
        segment: row.segment.get(),
        stamp: row.stamp,
        station: row.station.unwrap_or_default().0,
        takes_xdp: plugged.takes_xdp,
        // A NIC has its far end outside: what leaves by it takes the whole way, in a lab as well.
        peer: port.is_vif() && plugged.link.is("veth") && plugged.link.peer_in_other_netns,
        punt_rate: vif.map_or(tuning.punt_rate, |vif| vif.limits.punt_rate),
        punt_burst: tuning.punt_burst,
        quota: Quota { outbound: limit(quota.outbound), inbound: limit(quota.inbound) },
        sockets: first,
        queues,
    }
}
