//! Where frames enter and leave.

use wire::MacAddr;

use crate::{Identity, Limits, PortId, SegmentId};

/// What VMs know the gateway by: the same on every node, so that a VM that moves finds it there.
pub const GATEWAY_MAC: MacAddr = MacAddr([0x02, 0x74, 0x6c, 0, 0, 1]);

/// What a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// A VM's tap or veth.
    Vif,
    /// The node's own foot in a segment (`br100`).
    Host,
    /// A NIC that carries tenants' frames, tagged or not; it may be the public one as well.
    Trunk,
    /// A NIC that carries the node's public traffic and no tenant's.
    Public,
}

/// The way to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// Through the punt link: the kernel hands the frame to the port.
    Punt,
    /// Through an AF_XDP socket on the NIC with this index.
    Nic(u8),
}

/// A port, as a packet meets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its number.
    pub id: PortId,
    /// What it is.
    pub kind: PortKind,
    /// The segment of a vif or host port; none for a NIC, whose frames name theirs by tag.
    pub segment: SegmentId,
    /// The way to it.
    pub egress: Egress,
    /// Whether it is the node's way to its provider, shared with the host; a trunk may be too.
    pub public: bool,
    /// The node's own address there, which packets to be routed are addressed to and routed ones
    /// leave with: [`GATEWAY_MAC`] on vifs and host ports, a NIC's own on a NIC.
    pub mac: MacAddr,
    /// The VM behind a vif. What speaks there with another address is looked at each time.
    pub station: Option<MacAddr>,
    /// What it may send as; none where anybody may send as anything: on other ports, and on vifs
    /// without walls (`firewall_driver = "noop"`).
    pub identity: Option<Identity>,
    /// Largest packet it takes, bytes behind the Ethernet header and tag.
    pub mtu: u16,
    /// The change that concerned it last: a line older than this was decided under other facts.
    pub stamp: u32,
    /// Whether its guest may leave checksums to a device that is not there (behind XDP).
    pub partial_checksums: bool,
    /// How much it may have of what all share.
    pub limits: Limits,
}
