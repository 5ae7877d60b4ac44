//! To which ports XDP may redirect: those that were tried and took a frame.
//!
//! A guest's end of a veth takes such frames only while it polls, and the guest can stop that at
//! any time. So a veth of a VM is tried only if its `[[vif]]` says `napi`, and watched: once XDP
//! sent frames that nobody took, what is for it goes by tc again.

use control::netlink::Link;
use tables::PortId;

use crate::node::Node;
use crate::ports::{PortState, Wanted};

impl Node {
    /// Whether XDP may redirect to the interface of a port. Nobody asks where there is no XDP.
    pub(crate) fn proves_xdp(&self, port: &PortState, link: &Link) -> bool {
        let vifs = self.model.tuning.vif_hook == control::flags::Hook::Xdp;
        if !vifs && self.nic_sockets.is_empty() {
            return false;
        }
        let may_try = match &port.wanted {
            Wanted::Nic { .. } => true,
            Wanted::Vif { napi, .. } => *napi || !link.is("veth"),
            Wanted::Host { .. } => false,
        };
        let taken = may_try && self.kernel.takes_xdp(&link.name, link.index).unwrap_or(false);
        if may_try && !taken {
            tracing::info!(port = %port.name, "takes nothing from XDP: tc sends to it");
        }
        taken
    }

    /// Looks whether what XDP sent in the last second was taken.
    pub(crate) fn watch_redirects(&mut self) {
        let mut lost = Vec::new();
        for port in self.ports.values() {
            let watched = port.plugged.as_ref().filter(|plugged| plugged.takes_xdp);
            let Some(plugged) = watched.filter(|plugged| plugged.link.is("veth")) else { continue };
            let Ok(taken) = self.kernel.taken_from_xdp(&plugged.link.name) else { continue };
            let sent = self.kernel.counters(port.id.get()).unwrap_or_default().tx_xdp;
            let before = self.redirected.insert(port.id, (sent, taken));
            if before.is_some_and(|(then, took)| sent > then && taken == took) {
                lost.push(port.id);
            }
        }
        for id in lost {
            self.send_by_tc(id);
        }
    }

    fn send_by_tc(&mut self, id: PortId) {
        let Some(port) = self.ports.get_mut(&id) else { return };
        let Some(plugged) = port.plugged.as_mut() else { return };
        plugged.takes_xdp = false;
        tracing::warn!(
            port = %port.name,
            "the guest takes no frames from XDP any more (it has GRO off?): tc sends to it from now on"
        );
        self.compile();
    }
}
