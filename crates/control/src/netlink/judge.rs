//! Whether a link can be used as what the configuration wants. Pure: links in, words out.

use ipnet::IpNet;

use super::Link;
use crate::keys::nearest;
use crate::model::Nic;

/// The link of the NIC called `name`, if it can carry frames for us.
///
/// `mtu` is the largest MTU of its segments, bytes; `None` without segments.
///
/// # Errors
/// Words on why not, and which links to name or what to do instead.
pub fn uplink<'l>(name: &str, links: &'l [Link], mtu: Option<u32>) -> Result<&'l Link, String> {
    let Some(link) = links.iter().find(|link| link.name == name) else {
        return Err(unknown(name, links));
    };
    let ports = || {
        let ports = links.iter().filter(|port| port.master == Some(link.index));
        ports.map(|port| port.name.as_str()).collect::<Vec<_>>()
    };
    match link.kind.as_deref() {
        Some("vlan") => return Err(vlan_device(link, links)),
        Some(kind @ ("bond" | "team" | "bridge")) => return Err(bundle(name, kind, &ports())),
        _ => {}
    }
    if link.mac.is_none() {
        return Err(format!("{name} is not an Ethernet interface; name one of {}", nics(links)));
    }
    if let Some(master) = link.master {
        let (what, master) = master_of(master, links);
        return Err(format!(
            "{name} is a port of {what}{master}: take it out first (ip link set {name} nomaster)"
        ));
    }
    match mtu {
        Some(mtu) if link.mtu < mtu => Err(format!(
            "{name} has mtu {} and its networks need {mtu}: set mtu {mtu} on it (ip link set {name} \
             mtu {mtu}) or a smaller mtu in [[network]]",
            link.mtu
        )),
        _ => Ok(link),
    }
}

/// What an operator should know of a NIC that can be used; `addresses` are those of all links.
#[must_use]
pub fn uplink_warnings(nic: &Nic, link: &Link, addresses: &[(u32, IpNet)]) -> Vec<String> {
    let mut warnings = Vec::new();
    if !link.up {
        warnings.push(format!("{0} is down: set it up (ip link set {0} up)", link.name));
    }
    // On a NIC that is public as well, untagged frames and so its addresses are the host's.
    if nic.trunk && !nic.public {
        for (_, address) in addresses.iter().filter(|(index, _)| *index == link.index) {
            // Every link that is up has a link-local address; that says nothing.
            if !is_link_local(address) {
                warnings.push(format!(
                    "{} carries the tenants and has address {address}: hosts in tenants' networks \
                     may reach this node by it; move it to another NIC",
                    link.name
                ));
            }
        }
    }
    warnings
}

/// Whether a link can be the vif of a VM.
///
/// # Errors
/// Words on why not and what to do.
pub fn vif(link: &Link, links: &[Link]) -> Result<(), String> {
    let name = &link.name;
    if let Some(master) = link.master {
        let (what, master) = master_of(master, links);
        return Err(format!(
            "{name} is still a port of {what}{master}: take it out first (ip link set {name} \
             nomaster)"
        ));
    }
    match (link.kind.as_deref(), link.mac) {
        (Some(kind @ ("bridge" | "bond" | "vlan")), _) => {
            Err(format!("{name} is a {kind}, not the tap or veth of a VM"))
        }
        (_, None) => Err(format!("{name} is not an Ethernet interface")),
        _ => Ok(()),
    }
}

fn is_link_local(address: &IpNet) -> bool {
    match address {
        IpNet::V4(net) => net.addr().is_link_local(),
        IpNet::V6(net) => net.addr().is_unicast_link_local(),
    }
}

fn unknown(name: &str, links: &[Link]) -> String {
    let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
    match nearest(name, &names) {
        Some(near) => {
            format!("there is no NIC {name} (did you mean {near}?); there are {}", nics(links))
        }
        None => format!("there is no NIC {name}; there are {}", nics(links)),
    }
}

/// The links that could be NICs, for a message.
fn nics(links: &[Link]) -> String {
    let could = |link: &&Link| {
        let virtual_ = ["bridge", "bond", "team", "vlan", "tun", "ifb", "dummy"];
        let ours = link.alias.as_ref().is_some_and(|alias| alias.starts_with("trunkline:"));
        link.mac.is_some() && !ours && !virtual_.iter().any(|kind| link.is(kind))
    };
    let mut names: Vec<&str> = links.iter().filter(could).map(|link| link.name.as_str()).collect();
    // A node with a hundred VMs has their veths too; nobody reads those.
    let more = names.len().saturating_sub(12);
    names.truncate(12);
    match (names.is_empty(), more) {
        (true, _) => "none".into(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    }
}

fn vlan_device(link: &Link, links: &[Link]) -> String {
    let below = links.iter().find(|below| Some(below.index) == link.lower);
    let below = below.filter(|_| !link.peer_in_other_netns);
    let instead = match below {
        Some(below) => format!("name {}, which carries the tags", below.name),
        None => "name the NIC below it, which carries the tags".into(),
    };
    format!("{} is a VLAN device: {instead}, and set vlan in [[network]]", link.name)
}

/// What to use instead of a link made of several.
fn bundle(name: &str, kind: &str, ports: &[&str]) -> String {
    let kind = if kind == "bridge" { "Linux bridge" } else { kind };
    match ports {
        [] => format!("{name} is a {kind} without ports: name a NIC"),
        [only] => format!(
            "{name} is a {kind}: take {only} out of it (ip link set {only} nomaster) and name {only}"
        ),
        [first, ..] => format!(
            "{name} is a {kind}: take {} out of it (ip link set {first} nomaster) and name one of \
             them",
            ports.join(" and ")
        ),
    }
}

/// What a master is (`bridge `, `bond `, or nothing if it cannot be seen) and its name.
fn master_of(index: u32, links: &[Link]) -> (String, String) {
    match links.iter().find(|link| link.index == index) {
        Some(master) => {
            let kind = master.kind.as_deref().unwrap_or_default();
            (format!("{kind} ").trim_start().to_string(), master.name.clone())
        }
        None => (String::new(), format!("link {index}")),
    }
}

#[cfg(test)]
mod tests {
    use wire::MacAddr;

    use super::*;

    fn link(index: u32, name: &str, kind: Option<&str>) -> Link {
        Link {
            index,
            name: name.into(),
            kind: kind.map(Into::into),
            mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
            mtu: 1500,
            up: true,
            ..Link::default()
        }
    }

    /// A node of 2012: two NICs in a bond, one with a VLAN device in a bridge, one free.
    fn node() -> Vec<Link> {
        let lo = Link { loopback: true, mac: None, ..link(1, "lo", None) };
        let mut links = vec![
            lo,
            link(2, "eth0", None),
            link(3, "eth1", None),
            link(4, "eth2", None),
            link(5, "bond0", Some("bond")),
            link(6, "vlan100", Some("vlan")),
            link(7, "br100", Some("bridge")),
            link(8, "vnet1", Some("tun")),
            link(9, "eth3", None),
        ];
        links[1].master = Some(5);
        links[2].master = Some(5);
        links[5].lower = Some(4);
        links[5].master = Some(7);
        links[7].master = Some(7);
        links
    }

    fn refusal(name: &str) -> String {
        uplink(name, &node(), Some(1500)).unwrap_err()
    }

    #[test]
    fn a_free_nic_is_taken() {
        assert_eq!(uplink("eth3", &node(), Some(1500)).unwrap().index, 9);
        assert_eq!(uplink("eth2", &node(), None).unwrap().index, 4);
    }

    #[test]
    fn a_bond_a_vlan_device_and_a_bridge_name_what_to_use() {
        assert_eq!(
            refusal("bond0"),
            "bond0 is a bond: take eth0 and eth1 out of it (ip link set eth0 nomaster) and name \
             one of them"
        );
        assert_eq!(
            refusal("vlan100"),
            "vlan100 is a VLAN device: name eth2, which carries the tags, and set vlan in \
             [[network]]"
        );
        assert_eq!(
            refusal("br100"),
            "br100 is a Linux bridge: take vlan100 and vnet1 out of it (ip link set vlan100 \
             nomaster) and name one of them"
        );
        let mut alone = node();
        alone[5].peer_in_other_netns = true;
        assert_eq!(
            uplink("vlan100", &alone, None).unwrap_err(),
            "vlan100 is a VLAN device: name the NIC below it, which carries the tags, and set \
             vlan in [[network]]"
        );
        let mut one = node();
        one[2].master = None;
        assert_eq!(
            uplink("bond0", &one, None).unwrap_err(),
            "bond0 is a bond: take eth0 out of it (ip link set eth0 nomaster) and name eth0"
        );
    }

    #[test]
    fn a_port_of_something_else_names_its_master() {
        assert_eq!(
            refusal("eth0"),
            "eth0 is a port of bond bond0: take it out first (ip link set eth0 nomaster)"
        );
        let mut hidden = node();
        hidden[1].master = Some(77);
        assert_eq!(
            uplink("eth0", &hidden, None).unwrap_err(),
            "eth0 is a port of link 77: take it out first (ip link set eth0 nomaster)"
        );
        let links = node();
        assert_eq!(
            vif(&links[7], &links),
            Err("vnet1 is still a port of bridge br100: take it out first (ip link set vnet1 \
                 nomaster)"
                .into())
        );
        assert_eq!(
            vif(&links[6], &links),
            Err("br100 is a bridge, not the tap or veth of a VM".into())
        );
        assert_eq!(vif(&links[0], &links), Err("lo is not an Ethernet interface".into()));
        assert_eq!(vif(&link(9, "vnet9", Some("veth")), &links), Ok(()));
    }

    #[test]
    fn a_nic_that_is_not_there_is_told_with_those_that_are() {
        assert_eq!(refusal("ens3"), "there is no NIC ens3; there are eth0, eth1, eth2, eth3");
        assert_eq!(
            refusal("etj3"),
            "there is no NIC etj3 (did you mean eth3?); there are eth0, eth1, eth2, eth3"
        );
        assert_eq!(
            refusal("lo"),
            "lo is not an Ethernet interface; name one of eth0, eth1, eth2, eth3"
        );
        assert_eq!(uplink("eth0", &[], None).unwrap_err(), "there is no NIC eth0; there are none");
        let many: Vec<Link> = (0..20).map(|n| link(n, &format!("nic{n}"), None)).collect();
        assert!(uplink("wan", &many, None).unwrap_err().ends_with("nic11 and 8 more"));
    }

    #[test]
    fn an_mtu_below_the_networks_is_refused() {
        assert_eq!(
            uplink("eth3", &node(), Some(9000)).unwrap_err(),
            "eth3 has mtu 1500 and its networks need 9000: set mtu 9000 on it (ip link set eth3 \
             mtu 9000) or a smaller mtu in [[network]]"
        );
    }

    #[test]
    fn an_address_on_a_trunk_is_a_warning() {
        let links = node();
        let trunk = Nic { name: "eth3".into(), trunk: true, public: false };
        let addresses = [
            (9, "192.168.7.2/24".parse().unwrap()),
            (9, "fe80::1/64".parse().unwrap()),
            (4, "192.168.8.2/24".parse().unwrap()),
        ];
        assert_eq!(
            uplink_warnings(&trunk, &links[8], &addresses),
            [
                "eth3 carries the tenants and has address 192.168.7.2/24: hosts in tenants' networks \
              may reach this node by it; move it to another NIC"
            ]
        );
        let both = Nic { public: true, ..trunk.clone() };
        assert!(uplink_warnings(&both, &links[8], &addresses).is_empty());
        let down = Link { up: false, ..links[8].clone() };
        assert_eq!(
            uplink_warnings(&trunk, &down, &[]),
            ["eth3 is down: set it up (ip link set eth3 up)"]
        );
    }
}
