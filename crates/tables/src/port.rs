//! Where frames enter and leave.

use crate::{PortId, SegmentId};

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
    /// Largest packet it takes, bytes behind the Ethernet header and tag.
    pub mtu: u16,
    /// The change that concerned it last: a line older than this was decided under other facts.
    pub stamp: u32,
    /// Whether its guest may leave checksums to a device that is not there (a veth with XDP).
    pub partial_checksums: bool,
}
