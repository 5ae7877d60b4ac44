//! The node's ports: which there should be, which there are, and how each is attached.

use std::collections::BTreeMap;

use control::flags::Hook;
use control::model::{Model, Network};
use control::netlink::{Link, host_port_name};
use control::numbers::Numbers;
use tables::{Egress, GATEWAY_MAC, Identity, Limits, Port, PortId, PortKind, SegmentId, ZoneId};
use wire::MacAddr;

/// What a port is for, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A NIC.
    Nic { trunk: bool, public: bool },
    /// The interface of the VM with this MAC, in the network of this name.
    Vif { network: String, mac: MacAddr, napi: bool },
    /// The host's foot in the network of this name; its bridge.
    Host { network: String, bridge: String },
}

impl Wanted {
    /// What it is, in words: a port of which this changes is another port.
    pub(crate) fn what(&self) -> String {
        match self {
            Self::Nic { .. } => "nic".to_owned(),
            Self::Vif { network, mac, .. } => format!("vif of {mac} in {network}"),
            Self::Host { network, .. } => format!("host port of {network}"),
        }
    }
}

/// How a plugged port is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plugged {
    /// Its interface.
    pub(crate) link: Link,
    /// Whether an XDP program is its hook, else a tc one.
    pub(crate) xdp: bool,
    /// The hook in words, and why that one.
    pub(crate) hook: String,
    /// The way to it.
    pub(crate) egress: Egress,
    /// Whether XDP may redirect to it.
    pub(crate) takes_xdp: bool,
    /// The change by which it was plugged or changed last.
    pub(crate) stamp: u32,
}

/// One port.
#[derive(Clone, Debug)]
pub(crate) struct PortState {
    pub(crate) id: PortId,
    /// Name of its interface, on our side.
    pub(crate) name: String,
    pub(crate) wanted: Wanted,
    /// The hook asked for; a guest that leaves checksums partial moves its vif to tc.
    pub(crate) hook: Hook,
    pub(crate) plugged: Option<Plugged>,
    /// Why it is not plugged, in words.
    pub(crate) refusal: Option<String>,
}

impl PortState {
    /// The kind tables know.
    pub(crate) fn kind(&self) -> PortKind {
        match &self.wanted {
            Wanted::Nic { trunk: true, .. } => PortKind::Trunk,
            Wanted::Nic { trunk: false, .. } => PortKind::Public,
            Wanted::Vif { .. } => PortKind::Vif,
            Wanted::Host { .. } => PortKind::Host,
        }
    }

    /// Whether it is a VM's.
    pub(crate) fn is_vif(&self) -> bool {
        matches!(self.wanted, Wanted::Vif { .. })
    }

    /// The network of a vif or host port.
    pub(crate) fn network(&self) -> Option<&str> {
        match &self.wanted {
            Wanted::Nic { .. } => None,
            Wanted::Vif { network, .. } | Wanted::Host { network, .. } => Some(network),
        }
    }

    /// The VM behind a vif.
    pub(crate) fn station(&self) -> Option<MacAddr> {
        match self.wanted {
            Wanted::Vif { mac, .. } => Some(mac),
            Wanted::Nic { .. } | Wanted::Host { .. } => None,
        }
    }

    /// The port as workers see it, if it is plugged.
    pub(crate) fn row(
        &self,
        segment: SegmentId,
        identity: Option<Identity>,
        limits: Limits,
    ) -> Option<Port> {
        let plugged = self.plugged.as_ref()?;
        Some(Port {
            id: self.id,
            kind: self.kind(),
            segment,
            egress: plugged.egress,
            public: matches!(self.wanted, Wanted::Nic { public: true, .. }),
            mac: match &self.wanted {
                Wanted::Nic { .. } => plugged.link.mac.unwrap_or_default(),
                Wanted::Vif { .. } | Wanted::Host { .. } => GATEWAY_MAC,
            },
            station: self.station(),
            identity,
            mtu: u16::try_from(plugged.link.mtu).unwrap_or(u16::MAX),
            stamp: plugged.stamp,
            partial_checksums: plugged.xdp && self.kind() == PortKind::Vif,
            limits,
        })
    }
}

/// Names and numbers of everything, kept over reloads.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) ports: Numbers,
    pub(crate) segments: Numbers,
    pub(crate) zones: Numbers,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            ports: Numbers::new(PortId::LAST),
            segments: Numbers::new(SegmentId::LAST),
            zones: Numbers::new(ZoneId::LAST),
        }
    }
}

impl Names {
    /// What a report calls them.
    pub(crate) fn told(&self) -> control::describe::Names {
        control::describe::Names::new(&self.zones, &self.segments, &self.ports)
    }

    /// The segment of a network that has its number already.
    pub(crate) fn segment(&self, network: &str) -> SegmentId {
        self.segments.get(network).and_then(SegmentId::new).unwrap_or(SegmentId::NONE)
    }

    /// The zone of that name that has its number already.
    pub(crate) fn zone(&self, zone: &str) -> ZoneId {
        self.zones.get(zone).and_then(ZoneId::new).unwrap_or(ZoneId::NONE)
    }
}

/// The ports a model asks for, by the name of their interface; `kept` says which bridges of
/// nova-network were taken over.
pub(crate) fn wanted(
    model: &Model,
    kept: impl Fn(&str) -> bool,
) -> BTreeMap<String, (Wanted, Hook)> {
    let nics = model.nics.iter().map(|nic| {
        let wanted = Wanted::Nic { trunk: nic.trunk, public: nic.public };
        (nic.name.clone(), (wanted, model.tuning.hook))
    });
    let vifs = model.vifs.iter().filter_map(|vif| {
        let network = model.networks.get(vif.network)?.name.clone();
        Some((
            vif.name.clone(),
            (Wanted::Vif { network, mac: vif.mac, napi: vif.napi }, model.tuning.vif_hook),
        ))
    });
    // nova makes a network on a node when its first VM comes.
    let has_vif = |name: &str| {
        let mut vifs = model.vifs.iter();
        vifs.any(|vif| model.networks.get(vif.network).is_some_and(|network| network.name == name))
    };
    // A bridge that is there has an address, with or without VMs, and whoever listens on it.
    let has_host = |network: &&Network| has_vif(&network.name) || kept(&network.bridge);
    let hosts = model.networks.iter().filter(has_host).map(|network| {
        let (name, bridge) = (network.name.clone(), network.bridge.clone());
        // The host's foot is a veth of ours: its GSO packets stay whole with tc.
        (host_port_name(&bridge), (Wanted::Host { network: name, bridge }, Hook::Tc))
    });
    nics.chain(vifs).chain(hosts).collect()
}
