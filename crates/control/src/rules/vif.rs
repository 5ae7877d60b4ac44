//! A `[[vif]]` and a `[[fdb]]`: who is where.

use std::net::Ipv4Addr;

use wire::MacAddr;

use super::quota::quota;
use super::{Draft, host_name, limits};
use crate::config::{ConfigError, Entry, VifEntry};
use crate::keys::nearest;
use crate::model::{StaticFdb, StaticPort, Vif};

impl Draft<'_> {
    pub(super) fn vif(&mut self, entry: &Entry<VifEntry>) -> Result<(), ConfigError> {
        let Entry { value, lines } = entry;
        let line = lines.first();
        let said = self.said;
        let at = |key: &str, message| said.line(lines.of(key), message);
        let what = format!("a vif (line {line})");
        self.names.take(&value.name, what).map_err(|message| at("name", message))?;
        let network =
            self.find_network(&value.network).map_err(|message| at("network", message))?;
        let mac = station(&value.mac).map_err(|message| at("mac", message))?;
        if let Some((other, line)) = self.vifs.iter().find(|(other, _)| other.mac == mac) {
            let message = format!(
                "mac {mac} is already vif '{}' (line {line}): two VMs cannot share one",
                other.name
            );
            return Err(at("mac", message));
        }
        for (place, address) in value.addresses.iter().enumerate() {
            if value.addresses[..place].contains(address) {
                return Err(at("addresses", format!("{address} is there twice")));
            }
            self.address(*address, network).map_err(|message| at("addresses", message))?;
        }
        let groups = self.groups_of(value).map_err(|(key, message)| at(&key, message))?;
        let quota = quota(value.quota.unwrap_or_default()).map_err(|m| at("quota", m))?;
        let host_name = value.hostname.as_deref().map(host_name).transpose();
        let vif = Vif {
            name: value.name.clone(),
            network,
            mac,
            addresses: value.addresses.clone(),
            groups,
            // What else it may send from is read when all vifs are known.
            allowed: Vec::new(),
            quota,
            dhcp_server: value.dhcp_server,
            napi: value.napi,
            host_name: host_name.map_err(|message| at("hostname", message))?,
            instance: value.instance.clone(),
            default_router: self.has_default_router(value),
            limits: limits::of_one(entry, &said, &self.limits)?,
        };
        self.vifs.push((vif, line));
        Ok(())
    }

    /// Whether a VM in `network` can have this address.
    fn address(&self, address: Ipv4Addr, network: usize) -> Result<(), String> {
        // Another node may be the gateway: the file knows it all the same.
        let entry = self.said.file.networks.get(network).map(|entry| &entry.value);
        let gateways = entry.map(|entry| [entry.gateway, entry.external_gateway]);
        let (network, line) = &self.networks[network];
        let name = &network.name;
        let Some(cidr) = network.cidr else {
            return Err(format!(
                "network '{name}' (line {line}) has no cidr for {address} to be in"
            ));
        };
        if !cidr.contains(&address) {
            return Err(format!("{address} is not in {cidr} of network '{name}' (line {line})"));
        }
        if address == cidr.network() || address == cidr.broadcast() {
            let which = if address == cidr.network() { "network" } else { "broadcast" };
            return Err(format!("{address} is the {which} address of {cidr}, no VM can have it"));
        }
        if gateways.is_some_and(|gateways| gateways.contains(&Some(address))) {
            return Err(format!("{address} is the gateway of network '{name}' (line {line})"));
        }
        for (other, line) in &self.vifs {
            let zone = &self.networks[other.network].0.zone;
            if *zone == network.zone && other.addresses.contains(&address) {
                let other = &other.name;
                return Err(format!("{address} is already vif '{other}' (line {line})"));
            }
        }
        Ok(())
    }

    pub(super) fn static_fdb(&self) -> Result<Vec<StaticFdb>, ConfigError> {
        let mut told: Vec<(StaticFdb, usize)> = Vec::new();
        for Entry { value, lines } in &self.said.file.fdb {
            let at = |key: &str, message| self.said.line(lines.of(key), message);
            let network = self.find_network(&value.network).map_err(|m| at("network", m))?;
            let mac = station(&value.mac).map_err(|m| at("mac", m))?;
            let port = self.static_port(&value.port, network).map_err(|m| at("port", m))?;
            let entry = StaticFdb { network, mac, port };
            let same =
                |(other, _): &&(StaticFdb, usize)| other.network == network && other.mac == mac;
            if let Some((_, line)) = told.iter().find(same) {
                let message = format!(
                    "mac {mac} of network '{}' is already told (line {line})",
                    value.network
                );
                return Err(at("mac", message));
            }
            let vif = self.vifs.iter().position(|(vif, _)| vif.mac == mac);
            if let Some(vif) = vif.filter(|vif| port != StaticPort::Vif(*vif)) {
                let (vif, line) = &self.vifs[vif];
                let message = format!(
                    "mac {mac} is vif '{}' (line {line}), not behind another port",
                    vif.name
                );
                return Err(at("mac", message));
            }
            told.push((entry, lines.first()));
        }
        Ok(told.into_iter().map(|(entry, _)| entry).collect())
    }

    fn static_port(&self, port: &str, network: usize) -> Result<StaticPort, String> {
        if port == "trunk" {
            return Ok(StaticPort::Trunk);
        }
        let Some(vif) = self.vifs.iter().position(|(vif, _)| vif.name == port) else {
            let names = self.vifs.iter().map(|(vif, _)| vif.name.as_str());
            return Err(not_there("port", port, "'trunk' or a vif", names));
        };
        let home = self.vifs[vif].0.network;
        if home != network {
            let home = &self.networks[home].0.name;
            return Err(format!("vif '{port}' is in network '{home}'"));
        }
        Ok(StaticPort::Vif(vif))
    }

    pub(super) fn find_network(&self, name: &str) -> Result<usize, String> {
        self.networks.iter().position(|(network, _)| network.name == name).ok_or_else(|| {
            let names = self.networks.iter().map(|(network, _)| network.name.as_str());
            not_there("network", name, "a [[network]]", names)
        })
    }
}

pub(super) fn not_there<'n>(
    what: &str,
    name: &str,
    wanted: &str,
    names: impl Iterator<Item = &'n str>,
) -> String {
    let names: Vec<&str> = names.collect();
    match nearest(name, &names) {
        Some(near) => format!("there is no {what} '{name}' (did you mean '{near}'?)"),
        None => format!("there is no {what} '{name}': name {wanted} of this file"),
    }
}

/// The MAC of one station.
pub(super) fn station(text: &str) -> Result<MacAddr, String> {
    let mac: MacAddr = text.parse().map_err(|error| format!("'{text}' is {error}"))?;
    if mac == MacAddr::ZERO {
        return Err(format!("mac {mac} is no station's"));
    }
    if mac.is_multicast() {
        return Err(format!(
            "mac {mac} is a group's, not a station's: the first byte of a station's is even"
        ));
    }
    Ok(mac)
}
