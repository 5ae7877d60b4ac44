//! Whose a bridge's port is: the VM's MAC and addresses, from whoever knows them.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use wire::MacAddr;

use super::bridges::Port;
use super::hosts::Host;
use crate::netlink::{BridgeStation, KernelNeighbour};

/// What every MAC that nova gave begins with.
const NOVA: [u8; 3] = [0xfa, 0x16, 0x3e];

/// A VM of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    /// Its interface here.
    pub port: Port,
    /// Its MAC; none if nobody knows.
    pub mac: Option<MacAddr>,
    /// Its addresses, the one DHCP gives it first.
    pub addresses: Vec<Ipv4Addr>,
    /// Its name, if DHCP knows.
    pub name: Option<String>,
}

/// What is known of the VMs of one bridge.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Index of the bridge.
    pub bridge: u32,
    /// Its subnet.
    pub cidr: Option<Ipv4Net>,
    /// What DHCP knows.
    pub hosts: &'a [Host],
    /// Stations behind the bridges' ports.
    pub stations: &'a [BridgeStation],
    /// The kernel's neighbours.
    pub neighbours: &'a [KernelNeighbour],
    /// Addresses of VMs of this node, by their security groups; empty if there are none.
    pub fixed: &'a [Ipv4Addr],
}

impl Known<'_> {
    /// The VM behind a port.
    #[must_use]
    pub fn vm(&self, port: &Port) -> Vm {
        let behind: Vec<MacAddr> = self
            .stations
            .iter()
            .filter(|station| station.port == port.index)
            .map(|station| station.mac)
            .collect();
        let tap = port.mac.and_then(of_tap);
        let host =
            self.hosts.iter().find(|host| Some(host.mac) == tap || behind.contains(&host.mac));
        let mac = host.map(|host| host.mac).or(tap).or_else(|| only(&behind));
        let mut addresses: Vec<Ipv4Addr> = host.map(|host| host.address).into_iter().collect();
        for address in mac.into_iter().flat_map(|mac| self.addresses_of(mac)) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let name = host.and_then(|host| host.name.clone());
        Vm { port: port.clone(), mac, addresses, name }
    }

    /// Addresses that the kernel found this MAC under.
    fn addresses_of(&self, mac: MacAddr) -> Vec<Ipv4Addr> {
        let all = self.neighbours.iter().filter(|it| it.interface == self.bridge);
        let theirs = all.filter(|it| it.mac == Some(mac)).map(|it| it.address);
        let is_inside = |address: &Ipv4Addr| self.cidr.is_some_and(|cidr| cidr.contains(address));
        // A VM may use more addresses than it has.
        let is_given = |address: &Ipv4Addr| self.fixed.is_empty() || self.fixed.contains(address);
        let mut addresses: Vec<Ipv4Addr> = theirs.filter(is_inside).filter(is_given).collect();
        addresses.sort();
        addresses
    }
}

/// The VM's MAC by that of its tap: libvirt gives that one fe as first byte.
fn of_tap(mac: MacAddr) -> Option<MacAddr> {
    let [first, rest @ ..] = mac.0;
    let [a, b, c, d, e] = rest;
    (first == 0xfe && [a, b] == NOVA[1..]).then_some(MacAddr([NOVA[0], a, b, c, d, e]))
}

/// The only MAC, or the only one that nova gave.
fn only(behind: &[MacAddr]) -> Option<MacAddr> {
    let is_novas = |mac: &MacAddr| mac.0.starts_with(&NOVA);
    let novas: Vec<MacAddr> = behind.iter().copied().filter(is_novas).collect();
    match (behind, novas.as_slice()) {
        ([one], _) | (_, [one]) => Some(*one),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(text: &str) -> MacAddr {
        text.parse().unwrap()
    }

    fn port(text: &str) -> Port {
        Port { index: 5, name: "vnet0".into(), mac: Some(mac(text)) }
    }

    fn neighbour(address: [u8; 4], text: &str) -> KernelNeighbour {
        let (address, mac) = (address.into(), Some(mac(text)));
        KernelNeighbour { interface: 3, address, mac, failed: false, stale: true }
    }

    const NOBODY: Known<'_> =
        Known { bridge: 3, cidr: None, hosts: &[], stations: &[], neighbours: &[], fixed: &[] };

    #[test]
    fn dhcp_knows_best() {
        let hosts = [Host {
            mac: mac("fa:16:3e:00:00:01"),
            name: Some("vm-1".into()),
            address: [10, 0, 0, 3].into(),
        }];
        let known = Known { hosts: &hosts, ..NOBODY };
        let vm = known.vm(&port("fe:16:3e:00:00:01"));
        assert_eq!((vm.mac, vm.name.as_deref()), (Some(hosts[0].mac), Some("vm-1")));
        assert_eq!(vm.addresses, [Ipv4Addr::new(10, 0, 0, 3)]);
        // By what was heard behind the port, if its own MAC tells nothing.
        let stations = [BridgeStation { port: 5, mac: hosts[0].mac }];
        let veth = Known { stations: &stations, ..known }.vm(&port("8e:00:00:00:00:07"));
        assert_eq!((veth.mac, veth.addresses), (vm.mac, vm.addresses));
    }

    #[test]
    fn a_tap_a_bridge_and_a_neighbour_know_without_dhcp() {
        assert_eq!(NOBODY.vm(&port("fe:16:3e:00:00:01")).mac, Some(mac("fa:16:3e:00:00:01")));
        assert_eq!(NOBODY.vm(&port("fe:54:00:00:00:01")).mac, None);
        let stations = ["fa:16:3e:00:00:02", "52:54:00:00:00:09"]
            .map(|text| BridgeStation { port: 5, mac: mac(text) });
        let neighbours = [
            neighbour([10, 0, 0, 9], "fa:16:3e:00:00:02"),
            neighbour([10, 0, 0, 4], "fa:16:3e:00:00:02"),
            neighbour([10, 0, 0, 5], "fa:16:3e:00:00:03"),
            neighbour([192, 168, 0, 1], "fa:16:3e:00:00:02"),
        ];
        let cidr = "10.0.0.0/24".parse().ok();
        let known = Known { stations: &stations, neighbours: &neighbours, cidr, ..NOBODY };
        let vm = known.vm(&port("8e:00:00:00:00:07"));
        assert_eq!(vm.mac, Some(mac("fa:16:3e:00:00:02")));
        assert_eq!(vm.addresses, [[10, 0, 0, 4], [10, 0, 0, 9]].map(Ipv4Addr::from));
        // Security groups say which of them it was given.
        let fixed = [Ipv4Addr::new(10, 0, 0, 4)];
        assert_eq!(
            Known { fixed: &fixed, ..known }.vm(&port("8e:00:00:00:00:07")).addresses,
            fixed
        );
    }

    #[test]
    fn of_two_strangers_neither_is_the_vm() {
        let stations = ["52:54:00:00:00:08", "52:54:00:00:00:09"]
            .map(|text| BridgeStation { port: 5, mac: mac(text) });
        let known = Known { stations: &stations, ..NOBODY };
        assert_eq!(known.vm(&port("8e:00:00:00:00:07")).mac, None);
        let one = Known { stations: &stations[1..], ..NOBODY };
        assert_eq!(one.vm(&port("8e:00:00:00:00:07")).mac, Some(mac("52:54:00:00:00:09")));
    }
}
