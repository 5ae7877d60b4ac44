//! What a node of nova-network's says when it is read.

use control::adopt::Reading;
use control::adopt::hosts::Process;
use control::netlink::{KernelNeighbour, KernelRoute, Link};
use wire::MacAddr;

/// Rules of a node with two networks, two VMs and a floating address.
pub(crate) const RULES: &str = include_str!("nova.rules");

pub(crate) fn link(index: u32, name: &str, kind: &str, master: u32) -> Link {
    Link {
        index,
        name: name.into(),
        kind: Some(kind.to_owned()).filter(|kind| !kind.is_empty()),
        mac: Some(MacAddr([2, 0, 0, 0, 0, index as u8])),
        mtu: 1500,
        up: true,
        master: Some(master).filter(|master| *master != 0),
        ..Link::default()
    }
}

fn vlan(index: u32, master: u32, tag: u16) -> Link {
    let name = format!("vlan{tag}");
    Link { lower: Some(1), vlan: Some(tag), ..link(index, &name, "vlan", master) }
}

fn tap(index: u32, name: &str, master: u32, vm: u8) -> Link {
    let mac = Some(MacAddr([0xfe, 0x16, 0x3e, 0, 0, vm]));
    Link { mac, ..link(index, name, "tun", master) }
}

pub(crate) fn route(to: &str, interface: u32, via: Option<&str>) -> KernelRoute {
    let via = via.map(|via| via.parse().unwrap());
    KernelRoute { prefix: to.parse().unwrap(), interface, via, metric: 0, ours: false }
}

/// A node of the Ocata release: br100 with DHCP, br102 without.
pub(crate) fn node() -> Reading {
    let dnsmasq = "dnsmasq --strict-order --listen-address=10.0.0.1 \
                   --dhcp-range=set:private,10.0.0.3,static,255.255.255.0,86400s \
                   --dhcp-hostsfile=/var/lib/nova/networks/nova-br100.conf \
                   --dhcp-optsfile=/var/lib/nova/networks/nova-br100.opts";
    Reading {
        links: vec![
            link(1, "eth0", "", 0),
            link(2, "eth1", "", 0),
            link(3, "br100", "bridge", 0),
            vlan(4, 3, 100),
            tap(5, "vnet0", 3, 1),
            link(6, "br102", "bridge", 0),
            vlan(7, 6, 102),
            tap(8, "vnet1", 6, 4),
        ],
        addresses: [
            (2, "192.0.2.5/24"),
            (2, "198.51.100.11/32"),
            (3, "10.0.0.1/24"),
            (6, "10.1.0.5/24"),
        ]
        .map(|(index, address)| (index, address.parse().unwrap()))
        .to_vec(),
        routes: vec![
            route("0.0.0.0/0", 2, Some("192.0.2.1")),
            route("192.0.2.0/24", 2, None),
            route("10.0.0.0/24", 3, None),
            route("10.1.0.0/24", 6, None),
            route("172.16.0.0/16", 3, Some("10.0.0.254")),
        ],
        neighbours: vec![KernelNeighbour {
            interface: 6,
            address: [10, 1, 0, 4].into(),
            mac: "fa:16:3e:00:00:04".parse().ok(),
            failed: false,
            stale: true,
        }],
        stations: Vec::new(),
        iptables: vec![("iptables-legacy-save".into(), RULES.into())],
        ebtables: Vec::new(),
        dhcp: vec![Process {
            pid: 4321,
            words: dnsmasq.split_whitespace().map(str::to_owned).collect(),
            hosts: "fa:16:3e:00:00:01,vm-1.novalocal,10.0.0.3\n".into(),
            options: "3,10.0.0.1\n".into(),
        }],
        connections: "\
ipv4 2 tcp 6 431999 ESTABLISHED src=10.0.0.3 dst=8.8.8.8 sport=40000 dport=80 src=8.8.8.8 dst=198.51.100.11 sport=80 dport=40000 [ASSURED] use=1
ipv4 2 tcp 6 60 TIME_WAIT src=10.0.0.3 dst=10.1.0.4 sport=40001 dport=80 src=10.1.0.4 dst=10.0.0.3 sport=80 dport=40001 [ASSURED] use=1
ipv4 2 tcp 6 431999 ESTABLISHED src=192.0.2.77 dst=192.0.2.5 sport=40000 dport=22 src=192.0.2.5 dst=192.0.2.77 sport=22 dport=40000 [ASSURED] use=1
"
        .into(),
        notes: Vec::new(),
    }
}
