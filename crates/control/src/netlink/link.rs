//! One link, as the kernel tells it.

use rtnetlink::packet_route::link::{
    BridgePortState, InfoBridgePort, InfoData, InfoPortData, InfoVlan, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use wire::MacAddr;

/// A network interface of this namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number of it.
    pub index: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// `veth`, `tun`, `bridge`, `vlan`, `bond`, …; `None` for hardware and loopback.
    pub kind: Option<String>,
    /// Its MAC; `None` if it is no Ethernet interface.
    pub mac: Option<MacAddr>,
    /// Bytes of IP packet.
    pub mtu: u32,
    /// Set up by an administrator.
    pub up: bool,
    /// It has carrier: frames can pass.
    pub carrier: bool,
    /// Loopback.
    pub loopback: bool,
    /// Receives frames for every MAC because an administrator said so (IFF_PROMISC).
    pub promisc: bool,
    /// Receive queues it was made with.
    pub rx_queues: u32,
    /// Transmit queues it was made with.
    pub tx_queues: u32,
    /// Index of the bridge or bond it is a port of.
    pub master: Option<u32>,
    /// It is a port of a bridge, and the bridge forwards by it.
    pub forwarding: bool,
    /// Index of the link below (VLAN device) or of the other end (veth).
    pub lower: Option<u32>,
    /// Its tag, if it is a VLAN device.
    pub vlan: Option<u16>,
    /// The link of [`Link::lower`] is in another namespace, so its index means nothing here.
    pub peer_in_other_netns: bool,
    /// What its owner wrote on it.
    pub alias: Option<String>,
}

impl Link {
    /// The link a message tells of.
    pub(super) fn of(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            loopback: flags.contains(LinkFlags::Loopback),
            promisc: flags.contains(LinkFlags::Promisc),
            ..Self::default()
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Address(bytes) if !link.loopback => {
                    link.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddr);
                }
                LinkAttribute::NumRxQueues(queues) => link.rx_queues = *queues,
                LinkAttribute::NumTxQueues(queues) => link.tx_queues = *queues,
                LinkAttribute::Controller(master) => {
                    link.master = Some(*master).filter(|index| *index != 0);
                }
                LinkAttribute::Link(lower) => link.lower = Some(*lower),
                LinkAttribute::LinkNetNsId(_) => link.peer_in_other_netns = true,
                LinkAttribute::IfAlias(alias) if !alias.is_empty() => {
                    link.alias = Some(alias.clone());
                }
                LinkAttribute::LinkInfo(parts) => {
                    link.kind = parts.iter().find_map(|part| match part {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                    link.vlan = parts.iter().find_map(tag);
                    link.forwarding = parts.iter().any(forwards);
                }
                _ => {}
            }
        }
        link
    }

    /// Whether it is of this kind.
    #[must_use]
    pub fn is(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }
}

/// Whether a port of a bridge forwards.
fn forwards(info: &LinkInfo) -> bool {
    let LinkInfo::PortData(InfoPortData::BridgePort(port)) = info else { return false };
    port.contains(&InfoBridgePort::State(BridgePortState::Forwarding))
}

/// The tag of a VLAN device.
fn tag(info: &LinkInfo) -> Option<u16> {
    let LinkInfo::Data(InfoData::Vlan(vlan)) = info else { return None };
    vlan.iter().find_map(|part| match part {
        InfoVlan::Id(tag) => Some(*tag),
        _ => None,
    })
}
