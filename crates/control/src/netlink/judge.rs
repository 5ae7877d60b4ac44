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
        let virtual_ = ["bridge", "bond", "team", "vlan", "tun"];
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
