//! dnsmasq as nova-network ran it: one for each bridge, with its flags and its files; or for names
//! alone. Pure: who starts it and writes the files is the daemon.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use dhcp::Extra;
use wire::MacAddr;

use crate::compile::vif_of_dhcp;
use crate::flags::DhcpServer;
use crate::model::{Model, Network, Vif};

/// A VM as it stands in the hosts file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its MAC.
    pub mac: MacAddr,
    /// Its address.
    pub address: Ipv4Addr,
    line: String,
}

/// One dnsmasq: what it is started with, and what its files say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The host port it serves.
    pub bridge: String,
    /// Its arguments; with others it has to be started anew.
    pub words: Vec<String>,
    /// Its VMs, read again on SIGHUP.
    pub hosts: Vec<Host>,
    /// What VMs are told, likewise.
    pub options: String,
    /// Their names, likewise.
    pub names: String,
    /// Whether it answers DHCP, not names alone.
    pub leases: bool,
    /// Where its files are.
    pub files: Files,
}

/// The files of one dnsmasq, with nova's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// `nova-br100.conf`: its VMs.
    pub hosts: PathBuf,
    /// `nova-br100.opts`: what they are told.
    pub options: PathBuf,
    /// `nova-br100.hosts`: VMs' names.
    pub names: PathBuf,
    /// `nova-br100.pid`.
    pub pid: PathBuf,
}

impl Files {
    fn of(folder: &Path, bridge: &str) -> Self {
        let file = |end: &str| folder.join(format!("nova-{bridge}.{end}"));
        let [hosts, options, names, pid] = ["conf", "opts", "hosts", "pid"].map(file);
        Self { hosts, options, names, pid }
    }
}

impl Plan {
    /// The text of the hosts file.
    #[must_use]
    pub fn hosts_text(&self) -> String {
        self.hosts.iter().map(|host| format!("{}\n", host.line)).collect()
    }
}

/// The folder of a node's files.
#[must_use]
pub fn folder(node: &str) -> PathBuf {
    PathBuf::from(format!("/run/trunkline/{node}"))
}

/// The dnsmasq of every network that is to have one.
#[must_use]
pub fn plans(model: &Model) -> Vec<Plan> {
    let networks = model.networks.iter().enumerate();
    networks.filter_map(|(at, network)| plan(model, network, at)).collect()
}

fn plan(model: &Model, network: &Network, at: usize) -> Option<Plan> {
    let (cidr, server) = (network.cidr?, network.gateway?);
    if !network.dhcp.resolves {
        return None;
    }
    let leases = network.dhcp.server == DhcpServer::Dnsmasq;
    let files = Files::of(&folder(&model.node), &network.bridge);
    let vifs: Vec<&Vif> = model.vifs.iter().filter(|vif| vif.network == at).collect();
    let common = &model.dhcp;
    let path = |path: &Path| path.display().to_string();
    let file = common.dnsmasq_file.as_deref().unwrap_or(Path::new("/dev/null"));
    let mut words = vec![
        "--keep-in-foreground".into(),
        "--log-facility=-".into(),
        "--strict-order".into(),
        "--bind-interfaces".into(),
        format!("--conf-file={}", path(file)),
        format!("--pid-file={}", path(&files.pid)),
        format!("--listen-address={server}"),
        // nova's had no interface: then all of a node share port 67, and what is sent to one of them
        // (renewals, releases) may reach another.
        format!("--interface={}", network.bridge),
        "--except-interface=lo".into(),
        "--no-hosts".into(),
        format!("--addn-hosts={}", path(&files.names)),
    ];
    if leases {
        let start = cidr.hosts().nth(1).unwrap_or(server);
        let (tag, mask, lease) = (tag(&network.name), cidr.netmask(), common.lease);
        words.extend([
            format!("--dhcp-optsfile={}", path(&files.options)),
            format!("--dhcp-range=set:{tag},{start},static,{mask},{lease}s"),
            format!("--dhcp-lease-max={}", 1u64 << (32 - cidr.prefix_len())),
            format!("--dhcp-hostsfile={}", path(&files.hosts)),
            "--leasefile-ro".into(),
            // nova's forgot its leases with every start, and refused VMs their own address.
            "--dhcp-authoritative".into(),
        ]);
    }
    if !common.domain.is_empty() {
        words.push(format!("--domain={}", common.domain));
        // Who is not known here is nowhere.
        words.push(format!("--local=/{}/", common.domain));
    }
    if !network.dhcp.dns.is_empty() {
        words.push("--no-resolv".into());
        words.extend(network.dhcp.dns.iter().map(|dns| format!("--server={dns}")));
    }
    let hosts = vifs.iter().filter(|_| leases).filter_map(|vif| host(model, vif)).collect();
    let options = if leases { options(model, network, &vifs, server) } else { String::new() };
    let names = names(model, &network.zone);
    Some(Plan { bridge: network.bridge.clone(), words, hosts, options, names, leases, files })
}

/// The names of all VMs of a zone, as `/etc/hosts` has them.
fn names(model: &Model, zone: &str) -> String {
    let is_there = |vif: &&Vif| model.networks.get(vif.network).is_some_and(|it| it.zone == zone);
    let of = |vif: &Vif| {
        let told = vif_of_dhcp(model, vif);
        let line = |address: &Ipv4Addr| {
            let told = told.as_ref()?;
            Some(format!("{address}\t{}\n", full(told.name_at(*address), &told.domain)))
        };
        vif.addresses.iter().filter_map(line).collect::<String>()
    };
    model.vifs.iter().filter(is_there).map(of).collect()
}

fn full(name: String, domain: &str) -> String {
    match domain {
        "" => name,
        domain => format!("{name}.{domain}"),
    }
}

/// A network's name as a tag: dnsmasq separates by commas.
fn tag(name: &str) -> String {
    name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-")
}

/// `<mac>,<hostname>.<domain>,<ip>[,set:NW-<vif>]`, one line for each VM, with its first address.
fn host(model: &Model, vif: &Vif) -> Option<Host> {
    let address = *vif.addresses.first()?;
    let told = vif_of_dhcp(model, vif)?;
    let (mac, name) = (vif.mac, full(told.name_at(address), &told.domain));
    let second = if vif.default_router { String::new() } else { format!(",set:{}", nw(vif)) };
    Some(Host { mac, address, line: format!("{mac},{name},{address}{second}") })
}

fn nw(vif: &Vif) -> String {
    format!("NW-{}", tag(&vif.name))
}

fn options(model: &Model, network: &Network, vifs: &[&Vif], server: Ipv4Addr) -> String {
    let mut lines = vec![format!("3,{server}")];
    // Without a value: no router is sent.
    lines.extend(
        vifs.iter().filter(|vif| !vif.default_router).map(|vif| format!("tag:{},3", nw(vif))),
    );
    lines.extend(network.dhcp.mtu.map(|mtu| format!("26,{mtu}")));
    if !model.dhcp.ntp.is_empty() {
        let all: Vec<String> = model.dhcp.ntp.iter().map(ToString::to_string).collect();
        lines.push(format!("42,{}", all.join(",")));
    }
    lines.extend(network.dhcp.extra.iter().map(in_words));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// An option as bytes, which dnsmasq takes for every number.
fn in_words(extra: &Extra) -> String {
    let bytes: Vec<String> = extra.data.iter().map(|byte| format!("{byte:02x}")).collect();
    match extra.data.as_slice() {
        // A single pair of digits it would take for text or a number.
        [byte] => format!("{},{byte}", extra.code),
        _ => format!("{},{}", extra.code, bytes.join(":")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Flags;

    const TEXT: &str = "node = \"left\"\nvlan_interface = \"eth0\"\ndhcp = \"dnsmasq\"\n\
        use_single_default_gateway = true\ndhcp_lease_time = 120\n\
        [[network]]\nname = \"tenant one\"\nvlan = 100\ncidr = \"10.0.0.0/24\"\n\
        gateway = \"10.0.0.1\"\nmtu = 1400\ndhcp_options = [\"66,boot\", \"23,64\"]\n\
        [[network]]\nname = \"b\"\nvlan = 102\ncidr = \"10.1.0.0/24\"\ngateway = \"10.1.0.1\"\n\
        dns_server = [\"8.8.4.4\"]\n\
        [[network]]\nname = \"c\"\nvlan = 103\n\
        [[vif]]\nname = \"v1\"\nnetwork = \"tenant one\"\nmac = \"fa:16:3e:00:00:01\"\n\
        addresses = [\"10.0.0.3\", \"10.0.0.4\"]\nhostname = \"vm-1\"\ninstance = \"one\"\n\
        [[vif]]\nname = \"v2\"\nnetwork = \"b\"\nmac = \"fa:16:3e:00:00:02\"\n\
        addresses = [\"10.1.0.3\"]\ninstance = \"one\"\n\
        [[vif]]\nname = \"v3\"\nnetwork = \"b\"\nmac = \"fa:16:3e:00:00:03\"\n";

    fn of(text: &str) -> Vec<Plan> {
        plans(&Model::from_text(&Flags::default(), "test.toml", text).unwrap())
    }

    #[test]
    fn a_bridge_has_a_dnsmasq_with_nova_s_flags_and_files() {
        let plans = of(TEXT);
        assert_eq!(plans.len(), 2, "a network without a gateway has none");
        let one = &plans[0];
        assert_eq!(
            one.words.join(" "),
            "--keep-in-foreground --log-facility=- --strict-order --bind-interfaces \
             --conf-file=/dev/null --pid-file=/run/trunkline/left/nova-br100.pid \
             --listen-address=10.0.0.1 --interface=br100 --except-interface=lo --no-hosts \
             --addn-hosts=/run/trunkline/left/nova-br100.hosts \
             --dhcp-optsfile=/run/trunkline/left/nova-br100.opts \
             --dhcp-range=set:tenant-one,10.0.0.2,static,255.255.255.0,120s --dhcp-lease-max=256 \
             --dhcp-hostsfile=/run/trunkline/left/nova-br100.conf --leasefile-ro \
             --dhcp-authoritative --domain=novalocal --local=/novalocal/"
        );
        let names = "10.0.0.3\tvm-1.novalocal\n10.0.0.4\tvm-1.novalocal\n\
                     10.1.0.3\thost-10-1-0-3.novalocal\n";
        assert_eq!((one.names.as_str(), one.leases), (names, true));
        assert_eq!(one.hosts_text(), "fa:16:3e:00:00:01,vm-1.novalocal,10.0.0.3\n");
        assert_eq!(one.options, "3,10.0.0.1\n26,1400\n66,62:6f:6f:74\n23,64\n");
        let two = &plans[1];
        assert!(two.words.ends_with(&["--no-resolv".into(), "--server=8.8.4.4".into()]));
        // The VM's second vif has no router; one without an address is not served.
        assert_eq!(
            two.hosts_text(),
            "fa:16:3e:00:00:02,host-10-1-0-3.novalocal,10.1.0.3,set:NW-v2\n"
        );
        assert_eq!(two.options, "3,10.1.0.1\ntag:NW-v2,3\n");
        let bare =
            of(&TEXT.replacen("dhcp = \"dnsmasq\"", "dhcp = \"dnsmasq\"\ndhcp_domain = \"\"", 1));
        assert_eq!(bare[0].hosts_text(), "fa:16:3e:00:00:01,vm-1,10.0.0.3\n");
        assert!(of(&TEXT.replacen("dnsmasq", "builtin", 1)).is_empty());
    }

    #[test]
    fn for_names_alone_it_gives_no_addresses() {
        let plans = of(&TEXT.replacen("dhcp = \"dnsmasq\"", "dns = \"dnsmasq\"", 1));
        assert_eq!(plans.len(), 2);
        let two = &plans[1];
        let words = two.words.join(" ");
        assert!(
            !words.contains("dhcp") && words.ends_with("--no-resolv --server=8.8.4.4"),
            "{words}"
        );
        assert_eq!((two.hosts.len(), two.options.as_str(), two.leases), (0, "", false));
        assert_eq!(two.names, plans[0].names);
    }
}
