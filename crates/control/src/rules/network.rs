//! A `[[network]]` becomes a segment: its tag, uplink, bridge, subnet and zone.

use ipnet::Ipv4Net;

use super::{Draft, HOST_PORT_SUFFIX, NAME_MAX};
use crate::config::{ConfigError, Entry, Lines, NetworkEntry};
use crate::flags::NetworkKind;
use crate::model::Network;

impl Draft<'_> {
    pub(super) fn network(&mut self, entry: &Entry<NetworkEntry>) -> Result<(), ConfigError> {
        let Entry { value, lines } = entry;
        let said = self.said;
        let at = |key: &str, message| said.line(lines.of(key), message);
        if value.name.is_empty() || value.name.len() > 64 {
            return Err(at("name", "name a network with 1 to 64 bytes".into()));
        }
        if let Some((_, line)) = self.networks.iter().find(|(n, _)| n.name == value.name) {
            let message = format!("network '{}' is already there (line {line})", value.name);
            return Err(at("name", message));
        }
        let kind = value.kind.or(self.settings.network_manager).unwrap_or_default();
        let vlan = vlan(kind, value).map_err(|message| at("vlan", message))?;
        let uplink = self.uplink(kind, value).map_err(|message| at("interface", message))?;
        self.one_per_uplink(value, vlan, &uplink).map_err(|message| at("vlan", message))?;
        let bridge = self.bridge(vlan, value, lines)?;
        subnet(kind, value).map_err(|(key, message)| at(key, message))?;
        let zone = value.zone.clone().unwrap_or_else(|| "default".into());
        if zone.is_empty() || zone.len() > 64 {
            return Err(at("zone", "name a zone with 1 to 64 bytes".into()));
        }
        self.no_overlap(value, &zone).map_err(|message| at("cidr", message))?;
        let mtu = value.mtu.unwrap_or(1500);
        if !(1280..=9000).contains(&mtu) {
            return Err(at("mtu", format!("mtu is {mtu}: use 1280 to 9000 bytes")));
        }
        let fdb_limit = value.fdb_limit.unwrap_or(4096);
        if !(1..=1_000_000).contains(&fdb_limit) {
            return Err(at("fdb_limit", format!("fdb_limit is {fdb_limit}: use 1 to 1000000")));
        }
        if let Some(clamp) = value.clamp_mss.filter(|clamp| !(536..=8960).contains(clamp)) {
            return Err(at("clamp_mss", format!("clamp_mss is {clamp}: use 536 to 8960 bytes")));
        }
        elsewhere(value).map_err(|(key, message)| at(key, message))?;
        let dhcp = self.network_dhcp(kind, value).map_err(|(key, message)| at(key, message))?;
        let here = value.host.as_ref().is_none_or(|host| *host == self.node);
        let network = Network {
            name: value.name.clone(),
            kind,
            vlan,
            uplink,
            bridge,
            cidr: value.cidr,
            cidr_v6: value.cidr_v6,
            gateway: value.gateway.filter(|_| here),
            zone,
            mtu,
            fdb_limit,
            shared: value.share_address == Some(true)
                || self.settings.share_dhcp_address == Some(true),
            host: value.host.clone(),
            external_gateway: value.external_gateway,
            public: value.public,
            clamp_mss: value.clamp_mss,
            dhcp,
        };
        self.networks.push((network, lines.first()));
        Ok(())
    }

    /// The NIC that carries a network, which becomes a trunk by that.
    fn uplink(&mut self, kind: NetworkKind, value: &NetworkEntry) -> Result<String, String> {
        let said = value.interface.clone();
        let uplink = match kind {
            NetworkKind::Vlan => {
                said.or_else(|| self.settings.vlan_interface.clone()).ok_or_else(|| {
                    format!(
                        "network '{}' needs a trunk: set vlan_interface (--vlan-interface), or \
                         interface in this [[network]]",
                        value.name
                    )
                })?
            }
            // eth0 is what nova's operators got when they said nothing.
            NetworkKind::Flat | NetworkKind::FlatDhcp => said
                .or_else(|| self.settings.flat_interface.clone())
                .unwrap_or_else(|| "eth0".into()),
        };
        self.nics.add(&uplink, true, &mut self.names)?;
        let public = self.nics.0.iter().any(|nic| nic.name == uplink && nic.public);
        if kind != NetworkKind::Vlan && public {
            return Err(format!(
                "network '{}' is {kind} on {uplink}, which is also the public_interface: untagged \
                 frames there cannot be the tenants' and the host's; use another NIC for one of \
                 the two",
                value.name
            ));
        }
        Ok(uplink)
    }

    /// Two networks on one NIC must be told apart by their tag.
    fn one_per_uplink(
        &self,
        value: &NetworkEntry,
        vlan: Option<u16>,
        uplink: &str,
    ) -> Result<(), String> {
        let same = |(other, _): &&(Network, usize)| other.uplink == uplink && other.vlan == vlan;
        let Some((other, line)) = self.networks.iter().find(same) else { return Ok(()) };
        Err(match vlan {
            Some(vlan) => format!(
                "vlan {vlan} on {uplink} is already network '{}' (line {line}): give '{}' another \
                 vlan or another interface",
                other.name, value.name
            ),
            None => format!(
                "network '{}' is untagged on {uplink}, and so is '{}' (line {line}): their frames \
                 could not be told apart; give one of them another interface or a vlan",
                value.name, other.name
            ),
        })
    }

    fn bridge(
        &mut self,
        vlan: Option<u16>,
        value: &NetworkEntry,
        lines: &Lines,
    ) -> Result<String, ConfigError> {
        let name = &value.name;
        let from_setting = value.bridge.is_none() && vlan.is_none();
        let bridge = match (&value.bridge, vlan, &self.settings.flat_network_bridge) {
            (Some(bridge), _, _) => bridge.clone(),
            (None, Some(vlan), _) => format!("br{vlan}"),
            (None, None, Some(bridge)) => bridge.clone(),
            (None, None, None) => {
                let message = format!(
                    "network '{name}' has no bridge: --flat-network-bridge (flat_network_bridge), \
                     or bridge in this [[network]], is required to create a flat network"
                );
                return Err(self.said.line(lines.first(), message));
            }
        };
        let longest = NAME_MAX - HOST_PORT_SUFFIX.len();
        let taken = if bridge.len() > longest {
            Err(format!(
                "bridge '{bridge}' is too long: at most {longest} bytes, so that \
                 '{bridge}{HOST_PORT_SUFFIX}' still names an interface"
            ))
        } else {
            let what = format!("the bridge of network '{name}'");
            let far = format!("{bridge}{HOST_PORT_SUFFIX}");
            self.names
                .take(&bridge, what)
                .and_then(|()| self.names.take(&far, format!("the host port of network '{name}'")))
        };
        match taken {
            Ok(()) => Ok(bridge),
            Err(message) if from_setting => Err(self.said.setting("flat_network_bridge", message)),
            Err(message) => Err(self.said.line(lines.of("bridge"), message)),
        }
    }

    fn no_overlap(&self, value: &NetworkEntry, zone: &str) -> Result<(), String> {
        let Some(cidr) = value.cidr else { return Ok(()) };
        for (other, line) in self.networks.iter().filter(|(other, _)| other.zone == zone) {
            let overlap = |theirs: Ipv4Net| theirs.contains(&cidr) || cidr.contains(&theirs);
            if let Some(theirs) = other.cidr.filter(|theirs| overlap(*theirs)) {
                return Err(format!(
                    "{cidr} overlaps {theirs} of network '{}' (line {line}) in zone '{zone}': give \
                     '{}' another subnet or another zone",
                    other.name, value.name
                ));
            }
        }
        Ok(())
    }
}

/// The tag of a network, fit for its kind.
fn vlan(kind: NetworkKind, value: &NetworkEntry) -> Result<Option<u16>, String> {
    let name = &value.name;
    match (kind, value.vlan) {
        (NetworkKind::Vlan, None) => Err(format!(
            "network '{name}' is a vlan network without a vlan: set vlan = 1 to 4094, or kind = \
             \"flat\" or \"flatdhcp\""
        )),
        (NetworkKind::Vlan, Some(0)) => {
            Err("vlan 0 means a frame without a VLAN: use 1 to 4094".into())
        }
        (NetworkKind::Vlan, Some(4095)) => {
            Err("vlan 4095 is reserved (IEEE 802.1Q): use 1 to 4094".into())
        }
        (NetworkKind::Vlan, Some(vlan)) => match u16::try_from(vlan) {
            Ok(vlan @ 1..=4094) => Ok(Some(vlan)),
            _ => Err(format!("there is no vlan {vlan}: use 1 to 4094")),
        },
        (_, None) => Ok(None),
        (_, Some(vlan)) => Err(format!(
            "network '{name}' is {kind}, so it travels untagged: leave out vlan = {vlan}, or set \
             kind = \"vlan\""
        )),
    }
}

/// Whether what is said of a gateway elsewhere fits the rest; else the key and the words.
fn elsewhere(value: &NetworkEntry) -> Result<(), (&'static str, String)> {
    let name = &value.name;
    if value.host.is_some() && value.gateway.is_none() {
        return Err(("host", format!("network '{name}' names a host for no gateway")));
    }
    let Some(router) = value.external_gateway else { return Ok(()) };
    let wrong = |message| Err(("external_gateway", message));
    if value.gateway.is_some() {
        return wrong(format!(
            "network '{name}' has a gateway on this node and another one: leave one of them out"
        ));
    }
    match value.cidr {
        Some(cidr) if router == cidr.network() || router == cidr.broadcast() => {
            wrong(format!("external_gateway {router} is no station's address in {cidr}"))
        }
        Some(cidr) if cidr.contains(&router) => Ok(()),
        Some(cidr) => wrong(format!("external_gateway {router} is not in {cidr}")),
        None => wrong(format!("network '{name}' has an external_gateway but no cidr for it")),
    }
}

/// Whether subnet and gateway fit the kind and each other; else the key and the words.
fn subnet(kind: NetworkKind, value: &NetworkEntry) -> Result<(), (&'static str, String)> {
    let name = &value.name;
    if let Some(cidr) = value.cidr {
        let proper = cidr.trunc();
        if cidr != proper {
            let message = format!("{cidr} is an address in a subnet: write the subnet, {proper}");
            return Err(("cidr", message));
        }
        if !(1..=30).contains(&cidr.prefix_len()) {
            return Err(("cidr", format!("{cidr} has no room for VMs: use /1 to /30")));
        }
    }
    if let Some(cidr) = value.cidr_v6.filter(|cidr| *cidr != cidr.trunc()) {
        let proper = cidr.trunc();
        let message = format!("{cidr} is an address in a subnet: write the subnet, {proper}");
        return Err(("cidr_v6", message));
    }
    let Some(gateway) = value.gateway else { return Ok(()) };
    if kind == NetworkKind::Flat {
        let message = format!(
            "network '{name}' is flat, where nothing is configured on this node: leave out the \
             gateway, or set kind = \"flatdhcp\""
        );
        return Err(("gateway", message));
    }
    let Some(cidr) = value.cidr else {
        return Err(("gateway", format!("network '{name}' has a gateway but no cidr for it")));
    };
    if !cidr.contains(&gateway) {
        return Err(("gateway", format!("gateway {gateway} is not in {cidr}")));
    }
    if gateway == cidr.network() || gateway == cidr.broadcast() {
        let which = if gateway == cidr.network() { "network" } else { "broadcast" };
        return Err(("gateway", format!("gateway {gateway} is the {which} address of {cidr}")));
    }
    Ok(())
}
