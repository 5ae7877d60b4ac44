//! What the configuration means. A [`Model`] cannot be invalid: making one checks everything that
//! can be known without looking at the machine ([`crate::netlink`] looks).

mod security;
mod vif;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use dhcp::Extra;
use ipnet::{Ipv4Net, Ipv6Net};
use wire::MacAddr;

use crate::config::{ConfigError, File};
use crate::flags::{
    DhcpServer, FirewallDriver, Flags, Hook, NetworkKind, PortRange, Provision, Replay, XdpMode,
};
use crate::rules;

pub use security::{HostService, PolicyRules, Security, SecurityGroup};
pub use vif::{AllowedPair, Limit, Quota, Vif};

/// The node as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Name of the node; fit to be a directory's and a socket's name.
    pub node: String,
    /// The file it came from; `None` if there is none.
    pub config: Option<PathBuf>,
    /// Where `ctl` finds the daemon.
    pub control_socket: PathBuf,
    /// Source address of tenants without a floating address.
    pub routing_source_ip: Option<Ipv4Addr>,
    /// The NICs, each once.
    pub nics: Vec<Nic>,
    /// The segments, in the order of the file.
    pub networks: Vec<Network>,
    /// The VMs' interfaces, in the order of the file.
    pub vifs: Vec<Vif>,
    /// MACs that are told, not learned.
    pub static_fdb: Vec<StaticFdb>,
    /// Routes that are told.
    pub routes: Vec<StaticRoute>,
    /// Neighbours that are told and no vifs of this node.
    pub neighbours: Vec<StaticNeighbour>,
    /// Floating addresses, those of other nodes' VMs among them.
    pub floats: Vec<FloatingIp>,
    /// Projects' VPN instances.
    pub vpns: Vec<Vpn>,
    /// Address translation.
    pub nat: NatRules,
    /// DHCP, as far as it is the same everywhere.
    pub dhcp: DhcpRules,
    /// What stands before the VMs.
    pub security: Security,
    /// What VMs may reach on the node, and beyond their network.
    pub policy: PolicyRules,
    /// Which networks this node routes to.
    pub provision: Provision,
    /// Whether there are walls around VMs.
    pub firewall: FirewallDriver,
    /// How often an address is announced; 0 not at all.
    pub announcements: u32,
    /// What is allowed, and probably not meant.
    pub warnings: Vec<String>,
    /// Sizes and modes.
    pub tuning: Tuning,
}

/// A NIC and what it is used for; at least one of the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Name of the interface.
    pub name: String,
    /// Carries tenants' frames.
    pub trunk: bool,
    /// Leads to the provider.
    pub public: bool,
}

/// A segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Unique on the node.
    pub name: String,
    /// nova's manager of it.
    pub kind: NetworkKind,
    /// Tag on the trunk, 1 to 4094; `None` if it travels untagged.
    pub vlan: Option<u16>,
    /// Name of its trunk NIC, one of [`Model::nics`].
    pub uplink: String,
    /// Name of its host port, at most 12 bytes.
    pub bridge: String,
    /// The subnet.
    pub cidr: Option<Ipv4Net>,
    /// The IPv6 addresses that routers tell its VMs; only security groups ask.
    pub cidr_v6: Option<Ipv6Net>,
    /// This node's own address in the subnet; never for [`NetworkKind::Flat`].
    pub gateway: Option<Ipv4Addr>,
    /// Networks of one zone route to each other and do not overlap.
    pub zone: String,
    /// Bytes of IP packet, 1280 to 9000.
    pub mtu: u32,
    /// Learned MACs at most.
    pub fdb_limit: u32,
    /// Whether every node has this gateway address.
    pub shared: bool,
    /// The one node that is the gateway (nova's single-host mode); if another, then
    /// [`Network::gateway`] is `None`.
    pub host: Option<String>,
    /// The router that is the gateway instead of this node.
    pub external_gateway: Option<Ipv4Addr>,
    /// Whether its addresses are public and never translated.
    pub public: bool,
    /// Largest TCP segment through the gateway, bytes.
    pub clamp_mss: Option<u16>,
    /// How its VMs get their addresses.
    pub dhcp: NetworkDhcp,
}

/// How VMs of a network get their addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkDhcp {
    /// Who answers them.
    pub server: DhcpServer,
    /// The default router, on this node or elsewhere; there is one unless DHCP is bridged.
    pub router: Option<Ipv4Addr>,
    /// Name servers; empty for the gateway itself.
    pub dns: Vec<Ipv4Addr>,
    /// Whether a dnsmasq answers for names at the gateway, and asks those.
    pub resolves: bool,
    /// The MTU, where VMs are told it.
    pub mtu: Option<u16>,
    /// Further options.
    pub extra: Vec<Extra>,
}

/// What all networks' DHCP has in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DhcpRules {
    /// How long a lease is, seconds.
    pub lease: u32,
    /// The domain; may be empty.
    pub domain: String,
    /// Time servers.
    pub ntp: Vec<Ipv4Addr>,
    /// Whether dnsmasq is told of addresses whose vif went.
    pub release: bool,
    /// Further settings of dnsmasq's.
    pub dnsmasq_file: Option<PathBuf>,
}

/// A way by a router in a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticRoute {
    /// Where to.
    pub to: Ipv4Net,
    /// The router.
    pub via: Ipv4Addr,
    /// Index into [`Model::networks`]: the one it is in.
    pub network: usize,
}

/// A neighbour that is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticNeighbour {
    /// Index into [`Model::networks`].
    pub network: usize,
    /// Its address, in the network's subnet.
    pub address: Ipv4Addr,
    /// Its MAC.
    pub mac: MacAddr,
}

/// A floating address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloatingIp {
    /// The address, in no network.
    pub address: Ipv4Addr,
    /// The VM's own.
    pub fixed: Ipv4Addr,
    /// Index into [`Model::networks`]; `None` if no network of this file has the VM's address.
    pub network: Option<usize>,
    /// Index into [`Model::vifs`]; `None` if the VM is on another node.
    pub vif: Option<usize>,
    /// The NIC it is answered for on, one of [`Model::nics`].
    pub nic: String,
    /// The router that its VM's packets leave by; else the node's routes say.
    pub next_hop: Option<Ipv4Addr>,
}

/// A project's VPN instance, and where its users ask for it (nova's cloudpipe).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vpn {
    /// Index into [`Model::networks`]; one with a gateway here.
    pub network: usize,
    /// The address that users ask, which the host uses as well.
    pub public_address: Ipv4Addr,
    /// The UDP port they ask there, none of `snat_ports`.
    pub port: u16,
    /// The instance's own address.
    pub private_address: Ipv4Addr,
    /// The network's gateway on this node.
    pub gateway: Ipv4Addr,
    /// Addresses that users get in the network.
    pub clients: VpnClients,
}

/// A range of addresses, both ends among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VpnClients {
    /// The first.
    pub first: Ipv4Addr,
    /// The last.
    pub last: Ipv4Addr,
}

/// Address translation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatRules {
    /// One range for all networks.
    pub fixed_range: Option<Ipv4Net>,
    /// Destinations that see a VM's own address, the metadata server's among them.
    pub exempt: Vec<Ipv4Net>,
    /// The metadata server: an address that is not a loopback's, and its port.
    pub metadata: Option<SocketAddrV4>,
    /// Destinations that always see the shared address.
    pub forced: Vec<Ipv4Net>,
    /// Ports of the shared address that are tenants'.
    pub ports: PortRange,
    /// Whether what comes of a TCP connection is translated though its beginning was not seen.
    pub pickup: bool,
}

/// Where a told MAC is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticFdb {
    /// Index into [`Model::networks`].
    pub network: usize,
    /// The station; unique in its network.
    pub mac: MacAddr,
    /// The port it is behind.
    pub port: StaticPort,
}

/// The port of a [`StaticFdb`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaticPort {
    /// The network's uplink.
    Trunk,
    /// Index into [`Model::vifs`]; a vif of the same network.
    Vif(usize),
}

/// Sizes and modes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Worker threads; `None` is one per NIC queue.
    pub workers: Option<u16>,
    /// Cores for them, each once; empty lets the daemon choose.
    pub cores: Vec<usize>,
    /// Descriptors in an AF_XDP receive or transmit ring, a power of two.
    pub rings: u32,
    /// Packets taken at once, 1 to 32.
    pub batch: usize,
    /// Busy-polling before sleep; zero sleeps at once.
    pub busy_poll: Duration,
    /// How AF_XDP sockets are bound.
    pub xdp_mode: XdpMode,
    /// Hook on NICs.
    pub hook: Hook,
    /// Hook on vifs.
    pub vif_hook: Hook,
    /// Who carries the packets of open connections.
    pub replay: Replay,
    /// Connections the table has room for.
    pub connections: u32,
    /// Packets per second that a port may send to the workers.
    pub punt_rate: u32,
    /// Packets that a port may send to the workers at once.
    pub punt_burst: u32,
    /// After this a learned MAC that was not seen is forgotten.
    pub fdb_ageing: Duration,
    /// When silent connections are forgotten.
    pub timeouts: Timeouts,
}

/// How long a connection may be silent before it is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A TCP connection that both ends have opened.
    pub tcp_established: Duration,
    /// A TCP connection that is being opened or has been closed.
    pub tcp_transitory: Duration,
    /// UDP, and all protocols without a rule of their own.
    pub udp: Duration,
    /// ICMP echo.
    pub icmp: Duration,
}

impl Model {
    /// The model of `flags` and of the file they name (or the default file, if it exists).
    ///
    /// # Errors
    /// [`ConfigError`] says where and why.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        rules::model(flags, &File::load(flags)?)
    }

    /// The model of `flags` and of a file called `name` with this text.
    ///
    /// # Errors
    /// [`ConfigError`] says where and why.
    pub fn from_text(flags: &Flags, name: &str, text: &str) -> Result<Self, ConfigError> {
        rules::model(flags, &File::parse(name, text)?)
    }

    /// The settings that differ in `other` and cannot change while the daemon runs.
    ///
    /// What is in tables of the file can, and so can the settings that are not listed here.
    #[must_use]
    pub fn restart_needed(&self, other: &Self) -> Vec<&'static str> {
        let (one, two) = (&self.tuning, &other.tuning);
        [
            ("node", self.node != other.node),
            ("control_socket", self.control_socket != other.control_socket),
            ("the NICs in use", self.nics_by_name() != other.nics_by_name()),
            ("routing_source_ip", self.routing_source_ip != other.routing_source_ip),
            ("snat_ports", self.nat.ports != other.nat.ports),
            ("workers", one.workers != two.workers),
            ("cores", one.cores != two.cores),
            ("rings", one.rings != two.rings),
            ("batch", one.batch != two.batch),
            ("busy_poll", one.busy_poll != two.busy_poll),
            ("xdp_mode", one.xdp_mode != two.xdp_mode),
            ("hook", one.hook != two.hook),
            ("vif_hook", one.vif_hook != two.vif_hook),
            ("replay", one.replay != two.replay),
            ("connections", one.connections != two.connections),
            ("the connections' timeouts", one.timeouts != two.timeouts),
        ]
        .into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect()
    }

    /// Largest MTU of the networks that use this NIC as their trunk, bytes; `None` without any.
    #[must_use]
    pub fn mtu_on(&self, nic: &str) -> Option<u32> {
        self.networks
            .iter()
            .filter(|network| network.uplink == nic)
            .map(|network| network.mtu)
            .max()
    }

    // Networks come and go in any order; that alone changes no NIC.
    fn nics_by_name(&self) -> Vec<&Nic> {
        let mut nics: Vec<&Nic> = self.nics.iter().collect();
        nics.sort_by(|a, b| a.name.cmp(&b.name));
        nics
    }
}
