//! Ports on interfaces: attaching, following, taking off.

use anyhow::Result;
use control::flags::{Hook, XdpMode};
use control::netlink::{Link, judge};
use kernel::{Kernel, PortEntry};
use tables::{Egress, Port, PortId};

use crate::memory;
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
                self.links.ensure_host_port(&network.bridge, network.mtu, &self.model.node).await?;
            }
        }
        let links = self.links.list().await?;
        let waiting: Vec<(PortId, String)> = self
            .ports
            .values()
            .filter(|port| port.plugged.is_none())
            .map(|port| (port.id, port.name.clone()))
            .collect();
        for (id, name) in waiting {
            if let Some(link) = links.iter().find(|link| link.name == name) {
                self.plug(id, link.clone()).await;
            }
        }
        self.address_host_ports().await?;
        self.lead_host_to_floats().await
    }

    /// Plugs a port into its interface; what stands in the way is remembered in words.
    pub(crate) async fn plug(&mut self, id: PortId, link: Link) {
        let outcome = self.try_plug(id, link).await;
        let Some(port) = self.ports.get_mut(&id) else { return };
        match outcome {
            Ok(()) => {
                port.refusal = None;
                let how = port.plugged.as_ref().map(|plugged| plugged.hook.clone());
                tracing::info!(port = %port.name, hook = how, "plugged");
            }
            Err(error) => {
                port.plugged = None;
                let words = format!("{error:#}");
                if port.refusal.as_ref() != Some(&words) {
                    tracing::error!(port = %port.name, "not plugged: {words}");
                }
                port.refusal = Some(words);
                self.compile();
            }
        }
    }

    async fn try_plug(&mut self, id: PortId, link: Link) -> Result<()> {
        let Some(port) = self.ports.get(&id).cloned() else { return Ok(()) };
        if let Wanted::Vif { .. } = port.wanted {
            let links = self.links.list().await?;
            judge::vif(&link, &links).map_err(anyhow::Error::msg)?;
        }
        self.room_for(link.mtu).await?;
        let name = link.name.clone();
        // First the workers, then the map, then the program that sends frames up.
        let stamp = self.next_stamp();
        let xdp = expects_xdp(port.hook, &link);
        let egress = self.egress(id, xdp);
        let first = Plugged { link, xdp, hook: String::new(), egress, takes_xdp: false, stamp };
        self.set(id, first)?;
        self.own_vlans(&name)?;
        let mode = xdp_mode(self.model.tuning.xdp_mode);
        let attached = self.kernel.attach(id.get(), &name, hook(port.hook), mode)?;
        let words = format!("{} ({})", attached.how, attached.why);
        if let Some(plugged) = self.ports.get(&id).and_then(|port| port.plugged.clone()) {
            let xdp = attached.how.is_xdp();
            let (egress, takes_xdp) = (self.egress(id, xdp), self.proves_xdp(&port, &plugged.link));
            self.set(id, Plugged { xdp, egress, hook: words, takes_xdp, ..plugged })?;
        }
        Ok(())
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
    async fn room_for(&mut self, mtu: u32) -> Result<()> {
        let largest = memory::largest_mtu(self.workers.umem.chunk());
        if mtu > largest {
            anyhow::bail!(
                "its mtu is {mtu}, and frames have room for {largest}: set a smaller one on it, or \
                 a larger mtu in [[network]] (at most {}) and restart",
                memory::LARGEST_MTU
            );
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
    pub(crate) fn changed(&mut self, id: PortId, link: Link) {
        let Some(port) = self.ports.get(&id) else { return };
        let Some(plugged) = port.plugged.clone() else { return };
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

/// The port as the kernel's programs see it; `row` is how workers do.
pub(crate) fn entry(
    port: &PortState,
    plugged: &Plugged,
    row: &Port,
    tuning: &control::model::Tuning,
    sockets: Option<NicSockets>,
) -> PortEntry {
    let (first, queues) = sockets.map_or((0, 0), |sockets| (sockets.first, sockets.queues));
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
        punt_rate: tuning.punt_rate,
        punt_burst: tuning.punt_burst,
        sockets: first,
        queues,
    }
}
