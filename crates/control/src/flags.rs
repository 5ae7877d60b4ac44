//! Every setting of the daemon, as a flag and as a key of the file.
//!
//! One struct is both, so that a flag cannot exist without its key: `--vlan-interface` is
//! `vlan_interface`. A flag wins over the file. Networks, vifs and static fdb entries are in the
//! file only.

mod values;

use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

pub use values::{
    Cores, DhcpServer, DnsServer, DropAction, FirewallDriver, Hook, NetworkKind, PortRange,
    Provision, Replay, XdpMode,
};

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
    /// The metadata server, to which VMs' requests to 169.254.169.254:80 go; it sees a VM's own
    /// address. 127.0.0.1 is this node [default: none]
    #[arg(long, value_name = "ADDRESS")]
    pub metadata_host: Option<Ipv4Addr>,
    /// The metadata server's port [default: 8775]
    #[arg(long, value_name = "PORT")]
    pub metadata_port: Option<u16>,
    /// Bridges and the public NIC that VMs' networks may be routed to; all: everywhere [default: all]
    #[arg(long, value_name = "INTERFACE", value_delimiter = ',')]
    pub forward_bridge_interface: Option<Vec<String>>,
    /// What becomes of a connection that the node does not take or route: drop, reject or log
    /// [default: drop]
    #[arg(long, value_name = "ACTION")]
    pub iptables_drop_action: Option<DropAction>,
    /// Ports of routing_source_ip for tenants; the others stay the host's [default: 20000-45999]
    #[arg(long, value_name = "FIRST-LAST")]
    pub snat_ports: Option<PortRange>,
    /// Translate what comes of a TCP connection whose beginning was not seen [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub tcp_pickup: Option<bool>,
    /// What stands before VMs: trunkline (security groups) or noop (nothing) [default: trunkline]
    #[arg(long, value_name = "DRIVER")]
    pub firewall_driver: Option<FirewallDriver>,
    /// Let VMs of one network reach each other without a rule [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub allow_same_net_traffic: Option<bool>,
    /// End connections that no rule allows any more; false is nova's way [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub revoke: Option<bool>,
    /// Announce floating addresses and gateways by gratuitous ARP [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub send_arp_for_ha: Option<bool>,
    /// That many times, a second apart [default: 3]
    #[arg(long, value_name = "N")]
    pub send_arp_for_ha_count: Option<u32>,

    /// Who answers VMs' DHCP: builtin, dnsmasq or external [default: builtin, flat: external]
    #[arg(long, value_name = "WHO")]
    pub dhcp: Option<DhcpServer>,
    /// Seconds that a lease is good for [default: 86400]
    #[arg(long, value_name = "SECONDS")]
    pub dhcp_lease_time: Option<u32>,
    /// Domain that VMs are told [default: novalocal]
    #[arg(long, value_name = "DOMAIN")]
    pub dhcp_domain: Option<String>,
    /// Name servers that VMs are told [default: the gateway, where a resolver of the host's may be]
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub dns_server: Option<Vec<Ipv4Addr>>,
    /// Who answers for names at gateways: dnsmasq, for those of VMs, asking dns_server for all
    /// else; or none [default: none, but with dhcp dnsmasq]
    #[arg(long, value_name = "WHO")]
    pub dns: Option<DnsServer>,
    /// Time servers that VMs are told
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub ntp_server: Option<Vec<Ipv4Addr>>,
    /// A further option for VMs, written like dnsmasq's: 26,1400; several times for several
    #[arg(long, value_name = "NUMBER,VALUE")]
    pub dhcp_options: Option<Vec<String>>,
    /// Only the first vif of a VM (of one `instance`) is told a router [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub use_single_default_gateway: Option<bool>,
    /// With dnsmasq: free a VM's address at once when its vif goes [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub force_dhcp_release: Option<bool>,
    /// With dnsmasq: a file of further settings of its own
    #[arg(long, value_name = "FILE")]
    pub dnsmasq_config_file: Option<PathBuf>,

    /// Number of worker threads [default: one per NIC queue]
    #[arg(long, value_name = "N")]
    pub workers: Option<u16>,
    /// Cores to pin the workers to, such as 0,2-3 [default: the last ones of the machine]
    #[arg(long, value_name = "LIST")]
    pub cores: Option<Cores>,
    /// Descriptors in an AF_XDP receive or transmit ring, a power of two [default: 1024]
    #[arg(long, value_name = "N")]
    pub rings: Option<u32>,
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
    /// Who carries packets of open connections: auto, kernel or userspace [default: auto]
    #[arg(long, value_name = "WHO")]
    pub replay: Option<Replay>,
    /// Connections the table has room for [default: 250000]
    #[arg(long, value_name = "N")]
    pub connections: Option<u32>,
    /// Packets per second that one port may send to the workers [default: 100000, a vif 20000]
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
    /// New connections per second that one vif may open [default: as many as it can]
    #[arg(long, value_name = "N")]
    pub vif_connection_rate: Option<u32>,
    /// Frames per second of one vif that go to all of its network [default: 1000]
    #[arg(long, value_name = "FRAMES")]
    pub vif_flood_rate: Option<u32>,
    /// Ports of the shared address that one vif may use towards one endpoint [default: half]
    #[arg(long, value_name = "N")]
    pub vif_snat_ports: Option<u32>,
    /// MACs that are learned behind one vif [default: 256]
    #[arg(long, value_name = "N")]
    pub vif_macs: Option<u32>,
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
            metadata_port: flag.metadata_port.or(file.metadata_port),
            forward_bridge_interface: flag
                .forward_bridge_interface
                .or(file.forward_bridge_interface),
            iptables_drop_action: flag.iptables_drop_action.or(file.iptables_drop_action),
            snat_ports: flag.snat_ports.or(file.snat_ports),
            tcp_pickup: flag.tcp_pickup.or(file.tcp_pickup),
            firewall_driver: flag.firewall_driver.or(file.firewall_driver),
            allow_same_net_traffic: flag.allow_same_net_traffic.or(file.allow_same_net_traffic),
            revoke: flag.revoke.or(file.revoke),
            send_arp_for_ha: flag.send_arp_for_ha.or(file.send_arp_for_ha),
            send_arp_for_ha_count: flag.send_arp_for_ha_count.or(file.send_arp_for_ha_count),
            dhcp: flag.dhcp.or(file.dhcp),
            dhcp_lease_time: flag.dhcp_lease_time.or(file.dhcp_lease_time),
            dhcp_domain: flag.dhcp_domain.or(file.dhcp_domain),
            dns_server: flag.dns_server.or(file.dns_server),
            dns: flag.dns.or(file.dns),
            ntp_server: flag.ntp_server.or(file.ntp_server),
            dhcp_options: flag.dhcp_options.or(file.dhcp_options),
            use_single_default_gateway: flag
                .use_single_default_gateway
                .or(file.use_single_default_gateway),
            force_dhcp_release: flag.force_dhcp_release.or(file.force_dhcp_release),
            dnsmasq_config_file: flag.dnsmasq_config_file.or(file.dnsmasq_config_file),
            workers: flag.workers.or(file.workers),
            cores: flag.cores.or(file.cores),
            rings: flag.rings.or(file.rings),
            batch: flag.batch.or(file.batch),
            busy_poll: flag.busy_poll.or(file.busy_poll),
            xdp_mode: flag.xdp_mode.or(file.xdp_mode),
            hook: flag.hook.or(file.hook),
            vif_hook: flag.vif_hook.or(file.vif_hook),
            replay: flag.replay.or(file.replay),
            connections: flag.connections.or(file.connections),
            punt_rate: flag.punt_rate.or(file.punt_rate),
            punt_burst: flag.punt_burst.or(file.punt_burst),
            fdb_ageing: flag.fdb_ageing.or(file.fdb_ageing),
            tcp_established_timeout: flag.tcp_established_timeout.or(file.tcp_established_timeout),
            tcp_transitory_timeout: flag.tcp_transitory_timeout.or(file.tcp_transitory_timeout),
            udp_timeout: flag.udp_timeout.or(file.udp_timeout),
            icmp_timeout: flag.icmp_timeout.or(file.icmp_timeout),
            vif_connections: flag.vif_connections.or(file.vif_connections),
            vif_connection_rate: flag.vif_connection_rate.or(file.vif_connection_rate),
            vif_flood_rate: flag.vif_flood_rate.or(file.vif_flood_rate),
            vif_snat_ports: flag.vif_snat_ports.or(file.vif_snat_ports),
            vif_macs: flag.vif_macs.or(file.vif_macs),
        }
    }

    /// Whether the command line sets `key` (in the file's spelling).
    #[must_use]
    pub fn sets(&self, key: &str) -> bool {
        // An unset Option is left out, so a key that is there was set.
        toml::Table::try_from(self).is_ok_and(|set| set.contains_key(key))
    }
}

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
}
