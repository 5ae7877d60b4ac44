//! Every setting of the daemon, as a flag and as a key of the file.
//!
//! One struct is both, so that a flag cannot exist without its key: `--vlan-interface` is
//! `vlan_interface`. A flag wins over the file. Networks, vifs and static fdb entries are in the
//! file only.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::keys::nearest;

/// What the operator set; nothing here has a default filled in ([`crate::model`] does that).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Flags {
    /// File with networks, vifs and settings [default: /etc/trunkline/trunkline.toml if it exists]
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Name of this node: of its pins and of its control socket [default: the hostname]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Control socket [default: /run/trunkline/NODE.sock]
    #[arg(long, value_name = "PATH")]
    pub control_socket: Option<PathBuf>,

    /// Kind of the networks that do not name theirs: vlan, flat or flatdhcp [default: vlan]
    #[arg(long, value_name = "KIND")]
    pub network_manager: Option<NetworkKind>,
    /// NIC that carries the tenants' VLANs
    #[arg(long, value_name = "NIC")]
    pub vlan_interface: Option<String>,
    /// NIC that carries the flat network [default: eth0]
    #[arg(long, value_name = "NIC")]
    pub flat_interface: Option<String>,
    /// Bridge name of flat networks that do not name theirs
    #[arg(long, value_name = "BRIDGE")]
    pub flat_network_bridge: Option<String>,
    /// NIC towards the provider, shared with the host's own traffic
    #[arg(long, value_name = "NIC")]
    pub public_interface: Option<String>,
    /// Address that tenants without a floating address are seen with
    #[arg(long, value_name = "ADDRESS")]
    pub routing_source_ip: Option<Ipv4Addr>,

    /// Every node is the same gateway address of a network, not each its own [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub share_dhcp_address: Option<bool>,
    /// Route to every known network (eager), or as nova to those with a VM here (on-demand)
    /// [default: eager]
    #[arg(long, value_name = "WHEN")]
    pub provision: Option<Provision>,
    /// One range of tenants for all of NAT, as nova had it before Grizzly [default: each network's]
    #[arg(long, value_name = "CIDR")]
    pub fixed_range: Option<Ipv4Net>,
    /// Destinations that see a VM's own address
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub dmz_cidr: Option<Vec<Ipv4Net>>,
    /// Destinations that always see routing_source_ip, by whatever way
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub force_snat_range: Option<Vec<Ipv4Net>>,
    /// The metadata server, which sees a VM's own address
    #[arg(long, value_name = "ADDRESS")]
    pub metadata_host: Option<Ipv4Addr>,
    /// Ports of routing_source_ip for tenants; the others stay the host's [default: 20000-45999]
    #[arg(long, value_name = "FIRST-LAST")]
    pub snat_ports: Option<PortRange>,
    /// Announce floating addresses and gateways by gratuitous ARP [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub send_arp_for_ha: Option<bool>,
    /// That many times, a second apart [default: 3]
    #[arg(long, value_name = "N")]
    pub send_arp_for_ha_count: Option<u32>,

    /// Number of worker threads [default: one per NIC queue]
    #[arg(long, value_name = "N")]
    pub workers: Option<u16>,
    /// Cores to pin the workers to, such as 0,2-3 [default: the last ones of the machine]
    #[arg(long, value_name = "LIST")]
    pub cores: Option<Cores>,
    /// Descriptors in an AF_XDP receive or transmit ring, a power of two [default: 2048]
    #[arg(long, value_name = "N")]
    pub rings: Option<u32>,
    /// Frames in the packet memory [default: sized by rings and workers]
    #[arg(long, value_name = "N")]
    pub frames: Option<u32>,
    /// Packets taken at once, at most 32 [default: 32]
    #[arg(long, value_name = "N")]
    pub batch: Option<u8>,
    /// Busy-poll this long, in microseconds, before sleeping [default: 0, sleep at once]
    #[arg(long, value_name = "MICROSECONDS")]
    pub busy_poll: Option<u32>,
    /// How AF_XDP moves packets: auto, zerocopy, copy or generic [default: auto]
    #[arg(long, value_name = "MODE")]
    pub xdp_mode: Option<XdpMode>,
    /// Hook on NICs: auto, xdp or tc [default: auto]
    #[arg(long, value_name = "HOOK")]
    pub hook: Option<Hook>,
    /// Hook on vifs: auto, tc or xdp [default: auto]
    #[arg(long, value_name = "HOOK")]
    pub vif_hook: Option<Hook>,
    /// Connections the table has room for [default: 250000]
    #[arg(long, value_name = "N")]
    pub connections: Option<u32>,
    /// Packets per second that one port may send to the workers [default: 500000]
    //
    // Until established flows are replayed by the kernel every packet takes this way, so the
    // default is far above what a port needs for its misses alone.
    #[arg(long, value_name = "PACKETS")]
    pub punt_rate: Option<u32>,
    /// Packets that one port may send to the workers at once [default: 4096]
    #[arg(long, value_name = "PACKETS")]
    pub punt_burst: Option<u32>,
    /// Seconds after which a learned MAC that was not seen is forgotten [default: 300]
    #[arg(long, value_name = "SECONDS")]
    pub fdb_ageing: Option<u32>,
    /// Seconds after which a silent, open TCP connection is forgotten [default: 7440]
    #[arg(long, value_name = "SECONDS")]
    pub tcp_established_timeout: Option<u32>,
    /// Seconds for a TCP connection that is half open or closed [default: 240]
    #[arg(long, value_name = "SECONDS")]
    pub tcp_transitory_timeout: Option<u32>,
    /// Seconds for UDP and protocols without a timeout of their own [default: 300]
    #[arg(long, value_name = "SECONDS")]
    pub udp_timeout: Option<u32>,
    /// Seconds for ICMP echo [default: 60]
    #[arg(long, value_name = "SECONDS")]
    pub icmp_timeout: Option<u32>,
    /// Connections that one vif may have open [default: 65536]
    #[arg(long, value_name = "N")]
    pub vif_connections: Option<u32>,
}

impl Flags {
    /// These settings, and `file`'s where these say nothing.
    #[must_use]
    pub fn over(&self, file: &Self) -> Self {
        let flag = self.clone();
        let file = file.clone();
        Self {
            config: flag.config,
            node: flag.node.or(file.node),
            control_socket: flag.control_socket.or(file.control_socket),
            network_manager: flag.network_manager.or(file.network_manager),
            vlan_interface: flag.vlan_interface.or(file.vlan_interface),
            flat_interface: flag.flat_interface.or(file.flat_interface),
            flat_network_bridge: flag.flat_network_bridge.or(file.flat_network_bridge),
            public_interface: flag.public_interface.or(file.public_interface),
            routing_source_ip: flag.routing_source_ip.or(file.routing_source_ip),
            share_dhcp_address: flag.share_dhcp_address.or(file.share_dhcp_address),
            provision: flag.provision.or(file.provision),
            fixed_range: flag.fixed_range.or(file.fixed_range),
            dmz_cidr: flag.dmz_cidr.or(file.dmz_cidr),
            force_snat_range: flag.force_snat_range.or(file.force_snat_range),
            metadata_host: flag.metadata_host.or(file.metadata_host),
            snat_ports: flag.snat_ports.or(file.snat_ports),
            send_arp_for_ha: flag.send_arp_for_ha.or(file.send_arp_for_ha),
            send_arp_for_ha_count: flag.send_arp_for_ha_count.or(file.send_arp_for_ha_count),
            workers: flag.workers.or(file.workers),
            cores: flag.cores.or(file.cores),
            rings: flag.rings.or(file.rings),
            frames: flag.frames.or(file.frames),
            batch: flag.batch.or(file.batch),
            busy_poll: flag.busy_poll.or(file.busy_poll),
            xdp_mode: flag.xdp_mode.or(file.xdp_mode),
            hook: flag.hook.or(file.hook),
            vif_hook: flag.vif_hook.or(file.vif_hook),
            connections: flag.connections.or(file.connections),
            punt_rate: flag.punt_rate.or(file.punt_rate),
            punt_burst: flag.punt_burst.or(file.punt_burst),
            fdb_ageing: flag.fdb_ageing.or(file.fdb_ageing),
            tcp_established_timeout: flag.tcp_established_timeout.or(file.tcp_established_timeout),
            tcp_transitory_timeout: flag.tcp_transitory_timeout.or(file.tcp_transitory_timeout),
            udp_timeout: flag.udp_timeout.or(file.udp_timeout),
            icmp_timeout: flag.icmp_timeout.or(file.icmp_timeout),
            vif_connections: flag.vif_connections.or(file.vif_connections),
        }
    }

    /// Whether the command line sets `key` (in the file's spelling).
    #[must_use]
    pub fn sets(&self, key: &str) -> bool {
        // An unset Option is left out, so a key that is there was set.
        toml::Table::try_from(self).is_ok_and(|set| set.contains_key(key))
    }
}

/// How a network's frames travel: nova's three network managers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NetworkKind {
    /// 802.1Q-tagged on the trunk (nova.network.manager.VlanManager).
    #[default]
    Vlan,
    /// Untagged, and nothing is configured on this node (FlatManager).
    Flat,
    /// Untagged, with a gateway on this node (FlatDHCPManager).
    FlatDhcp,
}

impl FromStr for NetworkKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // nova wants a class path, people write its last part.
        let short = match text.rsplit('.').next().unwrap_or(text) {
            "VlanManager" => "vlan",
            "FlatManager" => "flat",
            "FlatDHCPManager" => "flatdhcp",
            _ => text,
        };
        choose(short, &[("vlan", Self::Vlan), ("flat", Self::Flat), ("flatdhcp", Self::FlatDhcp)])
    }
}

impl fmt::Display for NetworkKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Vlan => "vlan",
            Self::Flat => "flat",
            Self::FlatDhcp => "flatdhcp",
        })
    }
}

/// How AF_XDP sockets are bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum XdpMode {
    /// The first of zero copy, copy and generic that works.
    #[default]
    Auto,
    /// The NIC's driver reads and writes packet memory itself.
    ZeroCopy,
    /// Native XDP, the kernel copies.
    Copy,
    /// XDP after the kernel made its own buffer: works everywhere, slowest.
    Generic,
}

impl FromStr for XdpMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        choose(
            text,
            &[
                ("auto", Self::Auto),
                ("zerocopy", Self::ZeroCopy),
                ("copy", Self::Copy),
                ("generic", Self::Generic),
            ],
        )
    }
}

impl fmt::Display for XdpMode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Auto => "auto",
            Self::ZeroCopy => "zerocopy",
            Self::Copy => "copy",
            Self::Generic => "generic",
        })
    }
}

/// Where a port's kernel program sits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Hook {
    /// tc on veth and tap (keeps GSO packets whole), XDP on NICs with native XDP.
    #[default]
    Auto,
    /// XDP: fastest for small packets.
    Xdp,
    /// tc ingress.
    Tc,
}

impl FromStr for Hook {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        choose(text, &[("auto", Self::Auto), ("xdp", Self::Xdp), ("tc", Self::Tc)])
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Auto => "auto",
            Self::Xdp => "xdp",
            Self::Tc => "tc",
        })
    }
}

/// Which networks a node routes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Provision {
    /// Every network it knows.
    #[default]
    Eager,
    /// Those with a VM on the node, as nova; others are unreachable.
    OnDemand,
}

impl FromStr for Provision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        choose(text, &[("eager", Self::Eager), ("on-demand", Self::OnDemand)])
    }
}

impl fmt::Display for Provision {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Eager => "eager",
            Self::OnDemand => "on-demand",
        })
    }
}

/// Ports, first and last; written like `20000-45999`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl Default for PortRange {
    /// The host keeps its services below and its ephemeral ports above.
    fn default() -> Self {
        Self { first: 20_000, last: 45_999 }
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a range of ports; write it like 20000-45999");
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
        let (first, last) = (port(first)?, port(last)?);
        if first < 1024 || last < first || last - first < 999 {
            return Err(format!("'{text}' must have 1000 ports or more, none of them below 1024"));
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.first, self.last)
    }
}

/// Cores, each once, in the order given; written like `0,2-3`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cores(pub Vec<usize>);

/// No machine has more, and a mistyped range must not fill the memory.
const MAX_CORE: usize = 8191;

impl FromStr for Cores {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a list of cores; write it like 0,2-3");
        let core = |number: &str| match number.trim().parse::<usize>() {
            Ok(core) if core <= MAX_CORE => Ok(core),
            _ => Err(wrong()),
        };
        let mut cores = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (core(first)?, core(last)?);
            if first > last {
                return Err(wrong());
            }
            for core in first..=last {
                if cores.contains(&core) {
                    return Err(format!("core {core} is twice in '{text}'"));
                }
                cores.push(core);
            }
        }
        Ok(Self(cores))
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, core) in self.0.iter().enumerate() {
            write!(out, "{}{core}", if place == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// The choice named `text`, or the words to say which there are.
fn choose<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*choice);
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let hint = match nearest(text, &names) {
        Some(name) => format!(" (did you mean '{name}'?)"),
        None => String::new(),
    };
    Err(format!("'{text}' is none of {}{hint}", names.join(", ")))
}

/// serde reads and writes these as the text people type.
macro_rules! as_text {
    ($($kind:ty),*) => {$(
        impl TryFrom<String> for $kind {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$kind> for String {
            fn from(kind: $kind) -> Self {
                kind.to_string()
            }
        }
    )*};
}

as_text!(NetworkKind, XdpMode, Hook, Provision, PortRange, Cores);

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;
    use crate::keys::known;

    fn parse(words: &[&str]) -> Result<Flags, String> {
        let command = Flags::augment_args(Command::new("trunkline").no_binary_name(true));
        let matches = command.try_get_matches_from(words).map_err(|error| error.to_string())?;
        Flags::from_arg_matches(&matches).map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_is_a_flag_of_the_same_name() {
        let command = Flags::augment_args(Command::new("trunkline"));
        let flags: Vec<String> = command
            .get_arguments()
            .filter_map(|flag| flag.get_long())
            .map(|long| long.replace('-', "_"))
            .filter(|key| key != "config")
            .collect();
        assert_eq!(flags, known::<Flags>());
    }

    #[test]
    fn nova_s_flags_are_taken_with_nova_s_values() {
        let flags = parse(&[
            "--network-manager=nova.network.manager.FlatDHCPManager",
            "--flat-interface",
            "eth0",
            "--flat-network-bridge",
            "br100",
            "--public-interface",
            "eth1",
            "--routing-source-ip",
            "91.207.15.105",
            "--cores",
            "0,2-3",
        ])
        .unwrap();
        assert_eq!(flags.network_manager, Some(NetworkKind::FlatDhcp));
        assert_eq!(flags.cores, Some(Cores(vec![0, 2, 3])));
        assert_eq!(flags.routing_source_ip, Some(Ipv4Addr::new(91, 207, 15, 105)));
        assert!(flags.sets("cores") && !flags.sets("rings"));
        assert_eq!(flags.over(&Flags::default()), flags);
        assert_eq!(Flags::default().over(&flags), flags);
    }

    #[test]
    fn lists_are_separated_by_commas_and_a_switch_needs_no_value() {
        let flags = parse(&[
            "--dmz-cidr=10.128.0.0/24,10.129.0.0/24",
            "--dmz-cidr",
            "10.130.0.0/24",
            "--share-dhcp-address",
            "--send-arp-for-ha=false",
            "--snat-ports=30000-39999",
        ])
        .unwrap();
        assert_eq!(flags.dmz_cidr.map(|list| list.len()), Some(3));
        assert_eq!((flags.share_dhcp_address, flags.send_arp_for_ha), (Some(true), Some(false)));
        assert_eq!(flags.snat_ports, Some(PortRange { first: 30_000, last: 39_999 }));
        let error = parse(&["--snat-ports", "1-2000"]).unwrap_err();
        assert!(error.contains("must have 1000 ports or more, none of them below 1024"), "{error}");
    }

    #[test]
    fn a_wrong_flag_says_what_would_be_right() {
        let error = parse(&["--vif-hook", "xpd"]).unwrap_err();
        let told = "'xpd' for '--vif-hook <HOOK>': 'xpd' is none of auto, xdp, tc (did you mean \
                    'xdp'?)";
        assert!(error.contains(told), "{error}");
        let error = parse(&["--vlan-inteface", "eth0"]).unwrap_err();
        assert!(error.contains("similar argument exists: '--vlan-interface'"), "{error}");
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["0", "7,1-3", "0-8191"] {
            let cores: Cores = text.parse().unwrap();
            assert_eq!(cores.to_string().parse(), Ok(cores));
        }
        for text in ["", "-", "1-", "3-1", "8192", "0-99999999999", "1,,2", "a"] {
            assert!(text.parse::<Cores>().is_err(), "{text}");
        }
        for hook in [Hook::Auto, Hook::Xdp, Hook::Tc] {
            assert_eq!(hook.to_string().parse(), Ok(hook));
        }
        for when in [Provision::Eager, Provision::OnDemand] {
            assert_eq!(when.to_string().parse(), Ok(when));
        }
        assert_eq!("20000-45999".parse(), Ok(PortRange::default()));
        for text in ["", "20000", "20000-", "1000-9000", "20000-20998", "9000-8000", "1-70000"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
        for mode in [XdpMode::Auto, XdpMode::ZeroCopy, XdpMode::Copy, XdpMode::Generic] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        for kind in [NetworkKind::Vlan, NetworkKind::Flat, NetworkKind::FlatDhcp] {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
    }
}
