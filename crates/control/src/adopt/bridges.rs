//! nova's bridges: which interface leads each one out, and which are VMs'.

use std::collections::BTreeSet;

use ipnet::{IpNet, Ipv4Net};
use wire::MacAddr;

use crate::netlink::Link;

/// A Linux bridge that nova made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Its index.
    pub index: u32,
    /// Its name, such as `br100`.
    pub name: String,
    /// Bytes of IP packet.
    pub mtu: u32,
    /// Its IPv4 addresses, as the kernel lists them: nova keeps the gateway's first.
    pub addresses: Vec<Ipv4Net>,
    /// Its way out of the node.
    pub uplink: Uplink,
    /// Its VMs' interfaces.
    pub ports: Vec<Port>,
}

/// The port of a bridge that leads out of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its index.
    pub index: u32,
    /// Its name: `vlan100`, or the NIC itself.
    pub interface: String,
    /// The NIC that carries it.
    pub nic: String,
    /// Its tag there; none if it is the NIC itself.
    pub vlan: Option<u16>,
}

/// The interface of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The MAC of this end, which is not the VM's.
    pub mac: Option<MacAddr>,
}

/// The bridges of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bridges {
    /// nova's, by name.
    pub novas: Vec<Bridge>,
    /// What is left alone, and what has no place in trunkline.
    pub notes: Vec<String>,
}

/// What a port of a bridge is.
enum Role {
    Uplink { nic: String, vlan: Option<u16> },
    Vm,
    Other,
}

impl Bridges {
    /// Those among the links; `named` are bridges that nova's rules or its DHCP speak of.
    #[must_use]
    pub fn of(links: &[Link], addresses: &[(u32, IpNet)], named: &BTreeSet<String>) -> Self {
        let mut found = Self::default();
        for bridge in links.iter().filter(|link| link.is("bridge")) {
            found.bridge(bridge, links, addresses, named.contains(&bridge.name));
        }
        found.novas.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    fn bridge(
        &mut self,
        bridge: &Link,
        links: &[Link],
        addresses: &[(u32, IpNet)],
        is_named: bool,
    ) {
        let name = &bridge.name;
        let (mut uplinks, mut ports, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for port in links.iter().filter(|link| link.master == Some(bridge.index)) {
            let (index, interface) = (port.index, port.name.clone());
            match role(port, links) {
                Role::Uplink { nic, vlan } => {
                    uplinks.push(Uplink { index, interface, nic, vlan });
                }
                Role::Vm => ports.push(Port { index, name: interface, mac: port.mac }),
                Role::Other => others.push(interface),
            }
        }
        let mut uplinks = uplinks.into_iter();
        let Some(uplink) = uplinks.next() else {
            let why = match is_named || !ports.is_empty() {
                true => {
                    "has no NIC or VLAN interface: trunkline's networks need one, so its VMs are \
                         left out"
                }
                false => "has neither a NIC nor VMs, so it is none of nova's networks: left alone",
            };
            let others = match others.is_empty() {
                true => String::new(),
                false => format!(" (its other ports are {})", others.join(", ")),
            };
            return self.notes.push(format!("bridge {name} {why}{others}"));
        };
        if ports.is_empty() && !is_named && uplink.vlan.is_none_or(|id| *name != format!("br{id}"))
        {
            let why = "has no VMs, and nova's rules do not name it: left alone";
            return self.notes.push(format!("bridge {name} on {} {why}", uplink.interface));
        }
        for second in uplinks {
            self.notes.push(format!(
                "bridge {name} leads out by {} and by {}: trunkline's networks have one NIC, and {} \
                 is taken; give the other one a network of its own, or leave it out",
                uplink.interface, second.interface, uplink.interface
            ));
        }
        for other in others {
            self.notes.push(format!(
                "{other} is a port of bridge {name} and neither a NIC, a VLAN interface nor a VM's: \
                 it is left out; what is behind it loses the network"
            ));
        }
        let on = |(index, _): &&(u32, IpNet)| *index == bridge.index;
        let mut own = Vec::new();
        for (_, address) in addresses.iter().filter(on) {
            match address {
                IpNet::V4(address) => own.push(*address),
                IpNet::V6(address) if address.addr().is_unicast_link_local() => {}
                IpNet::V6(address) => self.notes.push(format!(
                    "bridge {name} has address {address}: trunkline bridges IPv6 and routes none"
                )),
            }
        }
        let (index, name, mtu) = (bridge.index, name.clone(), bridge.mtu);
        self.novas.push(Bridge { index, name, mtu, addresses: own, uplink, ports });
    }
}

fn role(port: &Link, links: &[Link]) -> Role {
    let below = links.iter().find(|link| Some(link.index) == port.lower);
    let below = below.filter(|_| !port.peer_in_other_netns);
    if port.is("vlan") {
        return match (below, port.vlan) {
            (Some(nic), Some(vlan)) => Role::Uplink { nic: nic.name.clone(), vlan: Some(vlan) },
            _ => Role::Other,
        };
    }
    // A VLAN by its name alone: a cable of its own, where the kernel has no 802.1Q.
    if let Some((nic, vlan)) = port.name.rsplit_once('.')
        && let Some(vlan) = vlan.parse().ok().filter(|vlan| (1..4095).contains(vlan))
    {
        return Role::Uplink { nic: nic.into(), vlan: Some(vlan) };
    }
    let named_as_nics_are = ["eth", "en", "em"].iter().any(|begin| port.name.starts_with(begin));
    match port.kind.as_deref() {
        None | Some("bond" | "team") => Role::Uplink { nic: port.name.clone(), vlan: None },
        Some("tun") => Role::Vm,
        Some("veth") if below.is_some() => Role::Other,
        Some("veth") if named_as_nics_are => Role::Uplink { nic: port.name.clone(), vlan: None },
        Some("veth") => Role::Vm,
        Some(_) => Role::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: &str, master: u32) -> Link {
        Link {
            index,
            name: name.into(),
            kind: Some(kind.to_owned()).filter(|kind| !kind.is_empty()),
            mac: Some(MacAddr([2, 0, 0, 0, 0, index as u8])),
            mtu: 1500,
            master: Some(master).filter(|master| *master != 0),
            ..Link::default()
        }
    }

    fn vlan(index: u32, name: &str, master: u32, lower: u32, tag: u16) -> Link {
        Link { lower: Some(lower), vlan: Some(tag), ..link(index, name, "vlan", master) }
    }

    /// A node of nova's with two VLANs, and what else there may be on a machine.
    fn node() -> Vec<Link> {
        vec![
            link(1, "eth0", "", 0),
            link(2, "eth1", "", 0),
            link(3, "br100", "bridge", 0),
            vlan(4, "vlan100", 3, 1, 100),
            link(5, "vnet0", "tun", 3),
            link(6, "br102", "bridge", 0),
            Link { peer_in_other_netns: true, ..link(7, "eth0.102", "veth", 6) },
            Link { peer_in_other_netns: true, lower: Some(5), ..link(8, "vnet1", "veth", 6) },
            link(9, "virbr0", "bridge", 0),
            link(10, "br-mgmt", "bridge", 0),
            link(11, "eth2", "", 10),
        ]
    }

    fn named(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_bridge_of_nova_has_an_uplink_and_vms() {
        let addresses = [(3, "10.0.0.1/24".parse().unwrap()), (3, "fe80::1/64".parse().unwrap())];
        let found = Bridges::of(&node(), &addresses, &named(&[]));
        let [br100, br102] = &found.novas[..] else { panic!("{found:?}") };
        assert_eq!(
            br100.uplink,
            Uplink { index: 4, interface: "vlan100".into(), nic: "eth0".into(), vlan: Some(100) }
        );
        assert_eq!(br100.addresses, ["10.0.0.1/24".parse().unwrap()]);
        assert_eq!(br100.ports.len(), 1);
        assert_eq!((br102.uplink.nic.as_str(), br102.uplink.vlan), ("eth0", Some(102)));
        assert_eq!(br102.ports[0].name, "vnet1");
        assert_eq!(
            found.notes,
            [
                "bridge virbr0 has neither a NIC nor VMs, so it is none of nova's networks: left \
                 alone",
                "bridge br-mgmt on eth2 has no VMs, and nova's rules do not name it: left alone"
            ]
        );
    }

    #[test]
    fn a_bridge_without_vms_is_nova_s_if_its_name_or_the_rules_say_so() {
        let mut links = node();
        links.retain(|link| link.name != "vnet0");
        let found = Bridges::of(&links, &[], &named(&["br-mgmt"]));
        let names: Vec<&str> = found.novas.iter().map(|bridge| bridge.name.as_str()).collect();
        assert_eq!(names, ["br-mgmt", "br100", "br102"]);
        assert_eq!(
            (found.novas[0].uplink.nic.as_str(), found.novas[0].uplink.vlan),
            ("eth2", None)
        );
    }

    #[test]
    fn what_has_no_place_is_said() {
        let mut links = node();
        links.push(link(12, "vxlan7", "vxlan", 3));
        links.push(link(13, "eth3", "", 3));
        links.push(Link { lower: Some(12), ..link(14, "qvb1", "veth", 3) });
        links.push(link(15, "tap9", "tun", 9));
        links.push(link(16, "dummy0", "dummy", 9));
        let addresses = [(3, "2001:db8::1/64".parse().unwrap())];
        let notes = Bridges::of(&links, &addresses, &named(&[])).notes;
        for part in [
            "bridge br100 leads out by vlan100 and by eth3:",
            "vxlan7 is a port of bridge br100 and neither",
            "qvb1 is a port of bridge br100 and neither",
            "bridge br100 has address 2001:db8::1/64: trunkline bridges IPv6",
            "bridge virbr0 has no NIC or VLAN interface: trunkline's networks need one, so its VMs \
             are left out (its other ports are dummy0)",
        ] {
            assert!(notes.iter().any(|note| note.contains(part)), "{part} in {notes:?}");
        }
    }
}
