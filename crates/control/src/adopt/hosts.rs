//! dnsmasq as nova-network ran it: one process a bridge, told on its command line which files to
//! read.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use wire::MacAddr;

/// What a process of dnsmasq was started with, and what is in its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its command line.
    pub words: Vec<String>,
    /// The text of its `--dhcp-hostsfile`.
    pub hosts: String,
    /// The text of its `--dhcp-optsfile`.
    pub options: String,
}

/// The DHCP service of one bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dhcp {
    /// Its process.
    pub pid: u32,
    /// The bridge that its files are named after.
    pub bridge: String,
    /// nova's name for the network.
    pub label: Option<String>,
    /// The address it serves on.
    pub address: Option<Ipv4Addr>,
    /// The network it serves.
    pub cidr: Option<Ipv4Net>,
    /// The router it tells all VMs, if it says so.
    pub router: Option<Ipv4Addr>,
    /// The VMs it knows.
    pub hosts: Vec<Host>,
    /// Lines of its files that were not understood.
    pub strange: Vec<String>,
}

/// A VM that DHCP knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its name.
    pub name: Option<String>,
    /// Its address.
    pub address: Ipv4Addr,
}

/// The path that a command line has for `option`, such as `--dhcp-hostsfile`.
#[must_use]
pub fn option<'w>(words: &'w [String], option: &str) -> Option<&'w str> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.strip_prefix(option) {
            Some("") => return words.next().map(String::as_str),
            Some(rest) if rest.starts_with('=') => return rest.strip_prefix('='),
            _ => {}
        }
    }
    None
}

/// The bridge that nova named a hosts file after: `…/nova-br100.conf`.
#[must_use]
pub fn bridge_of(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next()?;
    name.strip_prefix("nova-")?.strip_suffix(".conf").filter(|bridge| !bridge.is_empty())
}

impl Dhcp {
    /// What a process serves; none if it is not nova's.
    #[must_use]
    pub fn of(process: &Process) -> Option<Self> {
        let words = &process.words;
        let mut dhcp = Self {
            pid: process.pid,
            bridge: bridge_of(option(words, "--dhcp-hostsfile")?)?.into(),
            address: option(words, "--listen-address").and_then(|text| text.parse().ok()),
            ..Self::default()
        };
        if let Some(range) = option(words, "--dhcp-range") {
            dhcp.range(range);
        }
        for line in lines(&process.hosts) {
            match host(line) {
                Some(host) => dhcp.hosts.push(host),
                None => dhcp.strange.push(line.into()),
            }
        }
        for line in lines(&process.options) {
            // Option 3 is the router; one with a tag in front is for one VM.
            match line.split_once(',') {
                Some(("3", router)) => dhcp.router = router.trim().parse().ok(),
                _ => dhcp.strange.push(line.into()),
            }
        }
        Some(dhcp)
    }

    /// `set:private,10.0.0.3,static,255.255.255.0,86400s`, in old releases without label or mask.
    fn range(&mut self, range: &str) {
        let mut parts = range.split(',').peekable();
        self.label =
            parts.next_if(|part| part.starts_with("set:")).map(|part| part["set:".len()..].into());
        let first = parts.next().and_then(|first| first.parse::<Ipv4Addr>().ok());
        let mask = parts.find_map(|part| part.parse::<Ipv4Addr>().ok());
        if let (Some(first), Some(mask)) = (first, mask) {
            self.cidr = Ipv4Net::with_netmask(first, mask).ok().map(|net| net.trunc());
        }
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// `fa:16:3e:00:00:01,vm-1.novalocal,10.0.0.3[,net:NW-5]`.
fn host(line: &str) -> Option<Host> {
    let parts: Vec<&str> = line.split(',').map(str::trim).collect();
    let mac = parts.first()?.parse().ok()?;
    let address = parts.iter().find_map(|part| part.parse::<Ipv4Addr>().ok())?;
    let is_name = |part: &&&str| part.parse::<Ipv4Addr>().is_err() && !part.contains(':');
    let name = parts.iter().skip(1).find(is_name).map(|name| (*name).to_owned());
    Some(Host { mac, name, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(line: &str, hosts: &str, options: &str) -> Process {
        let words = line.split(' ').map(str::to_owned).collect();
        Process { pid: 4321, words, hosts: hosts.into(), options: options.into() }
    }

    #[test]
    fn a_dnsmasq_of_nova_tells_its_bridge_network_and_vms() {
        let dhcp = Dhcp::of(&process(
            "dnsmasq --strict-order --bind-interfaces --conf-file= \
             --pid-file=/var/lib/nova/networks/nova-br100.pid --listen-address=10.0.0.1 \
             --except-interface=lo --dhcp-range=set:private,10.0.0.3,static,255.255.255.0,86400s \
             --dhcp-lease-max=256 --dhcp-hostsfile=/var/lib/nova/networks/nova-br100.conf \
             --dhcp-optsfile=/var/lib/nova/networks/nova-br100.opts --leasefile-ro",
            "fa:16:3e:00:00:01,vm-1.novalocal,10.0.0.3\n\n\
             fa:16:3e:00:00:02,vm-2.novalocal,10.0.0.4,net:NW-2\nwhat\n",
            "3,10.0.0.1\nNW-2,3,10.0.0.9\n",
        ))
        .unwrap();
        assert_eq!((dhcp.pid, dhcp.bridge.as_str()), (4321, "br100"));
        assert_eq!(dhcp.label.as_deref(), Some("private"));
        assert_eq!(dhcp.cidr, "10.0.0.0/24".parse().ok());
        assert_eq!((dhcp.address, dhcp.router), ("10.0.0.1".parse().ok(), dhcp.address));
        assert_eq!(
            dhcp.hosts[0],
            Host {
                mac: "fa:16:3e:00:00:01".parse().unwrap(),
                name: Some("vm-1.novalocal".into()),
                address: [10, 0, 0, 3].into()
            }
        );
        assert_eq!((dhcp.hosts.len(), dhcp.hosts[1].address), (2, [10, 0, 0, 4].into()));
        assert_eq!(dhcp.strange, ["what", "NW-2,3,10.0.0.9"]);
    }

    #[test]
    fn an_old_one_tells_less() {
        let old = "/usr/sbin/dnsmasq --dhcp-range=10.0.0.3,static,120s --dhcp-hostsfile \
                   /var/lib/nova/networks/nova-br100.conf -h";
        let dhcp = Dhcp::of(&process(old, "", "")).unwrap();
        assert_eq!((dhcp.bridge.as_str(), dhcp.label, dhcp.cidr), ("br100", None, None));
        assert!(dhcp.hosts.is_empty() && dhcp.strange.is_empty());
    }

    #[test]
    fn a_dnsmasq_of_somebody_else_is_none_of_ours() {
        for line in [
            "dnsmasq --conf-file=/var/lib/libvirt/dnsmasq/default.conf",
            "dnsmasq --dhcp-hostsfile=/etc/hosts.dhcp",
            "dnsmasq --dhcp-hostsfile",
            "dnsmasq --dhcp-hostsfile=nova-.conf",
            "dnsmasq --dhcp-hostsfiles=/var/lib/nova/networks/nova-br100.conf",
        ] {
            assert_eq!(Dhcp::of(&process(line, "", "")), None, "{line}");
        }
    }
}
