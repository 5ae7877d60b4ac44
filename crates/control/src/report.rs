//! What the daemon tells on its control socket; both ends use these types.

mod flow;
mod lease;
mod nat;
mod vif;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use flow::{Cut, Direction, End, Flow};
pub use lease::{Lease, Said};
pub use nat::{FloatingIp, Nat, NatRange, Vpn};
pub use vif::Vif;

/// `GET /v1/status`: the daemon as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Name of the node.
    pub node: String,
    /// All NICs are attached; vifs may still be waited for.
    pub ready: bool,
    /// Seconds since the daemon started.
    pub uptime_s: u64,
    /// Its process.
    pub pid: u32,
    /// Worker threads.
    pub workers: u32,
    /// Ports that are plugged.
    pub ports: u32,
    /// Segments.
    pub segments: u32,
    /// MACs known, learned and told.
    pub fdb_entries: u64,
    /// The connection table.
    pub connections: Connections,
    /// Packet memory.
    pub frames: Frames,
    /// What became of the packets that workers saw.
    pub verdicts: Verdicts,
    /// Packets dropped by workers and kernel programs, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Who carries the packets of open connections, and why.
    #[serde(default)]
    pub replay: String,
    /// Port name to its hook, as attached.
    pub hooks: BTreeMap<String, String>,
    /// What an operator should look at, in words.
    pub warnings: Vec<String>,
    /// Reloads since the start.
    pub reloads: Reloads,
    /// How often all sockets were opened anew since the start, because a NIC's queues changed.
    #[serde(default)]
    pub socket_renewals: u64,
}

/// Fill of the connection table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// Lines in the table; a connection takes two.
    pub lines: u64,
    /// Lines in use.
    pub live: u64,
}

/// Where the frames of packet memory are; the parts add up to `total`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frames {
    /// All there are.
    pub total: u64,
    /// Held by the daemon, unused.
    pub free: u64,
    /// Given to the kernel to receive into.
    pub fill: u64,
    /// Received, not yet taken.
    pub rx: u64,
    /// Given to the kernel to send.
    pub tx: u64,
    /// Sent, not yet taken back.
    pub completion: u64,
    /// In a worker's hands.
    pub in_flight: u64,
}

/// Packets by verdict, of workers but for `replayed`; drops are counted by reason elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdicts {
    /// Sent to one port.
    pub forward: u64,
    /// Sent to all ports of a segment but the ingress.
    pub flood: u64,
    /// Answered.
    pub reply: u64,
    /// Handed to the host's stack.
    pub host: u64,
    /// Sent on by the kernel's programs, which no worker saw.
    #[serde(default)]
    pub replayed: u64,
    /// For the node itself: answers to its own questions, and DHCP requests.
    #[serde(default)]
    pub taken: u64,
}

/// Reloads since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloads {
    /// Taken into force.
    pub ok: u64,
    /// Refused; the old configuration stayed.
    pub refused: u64,
    /// Why the last one was refused, if it was the last reload.
    pub last_error: Option<String>,
}

/// `GET /v1/ports`: one port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// 1 to 4094; the outer tag on the punt link.
    pub number: u16,
    /// Name of the interface.
    pub name: String,
    /// What it is.
    pub kind: PortKind,
    /// Its segment; `None` for NICs, which carry several.
    pub segment: Option<String>,
    /// Kernel index; `None` while the interface is not there.
    pub ifindex: Option<u32>,
    /// `plugged`, `waiting` or another word for why not.
    pub state: String,
    /// `xdp` or `tc`, and why that one.
    pub hook: String,
    /// Its MAC.
    pub mac: Option<String>,
    /// What the VM behind a vif may send from; `any` without walls, empty for other ports.
    #[serde(default)]
    pub sends_as: Vec<String>,
    /// Bytes of IP packet.
    pub mtu: Option<u32>,
    /// Packets that came in.
    pub rx_packets: u64,
    /// Bytes that came in.
    pub rx_bytes: u64,
    /// Packets that went out.
    pub tx_packets: u64,
    /// Bytes that went out.
    pub tx_bytes: u64,
    /// Packets sent up to the workers.
    pub punted: u64,
    /// Connections whose first packet came by it.
    #[serde(default)]
    pub connections: u32,
    /// MACs that were learned behind it.
    #[serde(default)]
    pub macs: u32,
    /// Packets left to the host's stack.
    pub passed: u64,
    /// Packets that the kernel's programs sent on to other ports.
    #[serde(default)]
    pub replayed: u64,
    /// Questions from it (ARP) that the kernel's programs answered while no daemon ran.
    #[serde(default)]
    pub answered: u64,
    /// Packets dropped at this port, by reason.
    pub drops: BTreeMap<String, u64>,
}

/// What a port is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortKind {
    /// A VM's interface.
    #[default]
    Vif,
    /// A NIC with tenants' frames, and the host's own or the provider's too if it says so.
    Trunk,
    /// A NIC to the provider.
    Public,
    /// The node's own foot in a segment.
    Host,
}

/// `GET /v1/segments`: one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// 1 to 4094.
    pub number: u16,
    /// Name of the network.
    pub name: String,
    /// `vlan`, `flat` or `flatdhcp`.
    pub kind: String,
    /// Tag on the trunk; `None` is untagged.
    pub vlan: Option<u16>,
    /// Its host port.
    pub bridge: String,
    /// Its trunk NIC.
    pub uplink: String,
    /// Its subnet.
    pub cidr: Option<String>,
    /// This node's address in it.
    pub gateway: Option<String>,
    /// Its zone.
    pub zone: String,
    /// Bytes of IP packet.
    pub mtu: u32,
    /// MACs known in it.
    pub fdb_entries: u32,
    /// MACs it may learn.
    pub fdb_limit: u32,
    /// Its vifs on this node.
    pub vifs: Vec<String>,
}

/// `GET /v1/fdb`, `GET /v1/fdb?segment=<name>`: where a MAC is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbEntry {
    /// Name of the segment.
    pub segment: String,
    /// The station.
    pub mac: String,
    /// Name of the port it is behind.
    pub port: String,
    /// Told by the configuration: it does not age.
    #[serde(rename = "static")]
    pub fixed: bool,
    /// Seconds since it was last seen; `None` if it does not age.
    pub age_s: Option<u64>,
}

/// `GET /v1/routes`: one route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Its zone; `None` for the node's own, which come behind every zone's.
    pub zone: Option<String>,
    /// Where it leads to.
    pub prefix: String,
    /// Which way, in words such as `via 10.0.0.9 in tenant1`.
    pub way: String,
    /// Who says so.
    pub source: RouteSource,
}

/// Who says that there is a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteSource {
    /// A network this node is the gateway of.
    #[default]
    Connected,
    /// The configuration.
    Config,
    /// The node's own routing table and addresses.
    Kernel,
}

/// `GET /v1/neighbours`: the MAC of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Name of its network or of its public NIC.
    pub link: String,
    /// The address.
    pub address: String,
    /// Its MAC, if it is known.
    pub mac: Option<String>,
    /// `static`, `known`, `asked`, `failed`, or `kernel` for what the node's own stack knows.
    pub state: String,
}

/// `GET /v1/groups`: a security group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// What it allows, in words.
    pub rules: Vec<String>,
    /// Addresses of its VMs, those of other nodes among them.
    pub members: Vec<String>,
    /// Its vifs on this node.
    pub vifs: Vec<String>,
    /// Packets that would open a connection to one of these and are not allowed.
    pub refused: u64,
}

/// `POST /v1/handover`: who goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedOver {
    /// The process of the daemon, which ends at once.
    pub pid: u32,
}

/// `GET /v1/explain?port=<name>&packet=<words>`: what would become of a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// The port it would come by.
    pub port: String,
    /// The packet, as it was understood.
    pub packet: String,
    /// Each stage it reaches, in order.
    pub stages: Vec<Stage>,
}

/// One stage's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Name of the stage.
    pub stage: String,
    /// Its answer.
    pub answer: String,
}

/// `POST /v1/reload`: what changed. A refused reload answers 422 and the reason instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// One sentence for people.
    pub message: String,
    /// Networks, vifs and static entries that are new, such as `vif vnet7`.
    pub added: Vec<String>,
    /// Those that are gone.
    pub removed: Vec<String>,
    /// Those that are there still, but different.
    pub changed: Vec<String>,
}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// One sentence for people.
    pub error: String,
}
