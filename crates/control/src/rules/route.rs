//! A `[[route]]` and a `[[neighbour]]`: ways and stations that are told.

use std::net::Ipv4Addr;

use super::Draft;
use super::vif::station;
use crate::config::{ConfigError, Entry};
use crate::model::{Network, StaticNeighbour, StaticRoute};

impl Draft<'_> {
    pub(super) fn routes(&self) -> Result<Vec<StaticRoute>, ConfigError> {
        let mut routes: Vec<(StaticRoute, usize)> = Vec::new();
        for Entry { value, lines } in &self.said.file.routes {
            let at = |key: &str, message| self.said.line(lines.of(key), message);
            if value.to != value.to.trunc() {
                let message = format!("{} is no prefix: write {}", value.to, value.to.trunc());
                return Err(at("to", message));
            }
            let zone = value.zone.as_deref().unwrap_or("default");
            let taken = |network: &Network| network.zone == zone && network.cidr == Some(value.to);
            if let Some((network, line)) = self.networks.iter().find(|(it, _)| taken(it)) {
                let message = format!(
                    "{} is network '{}' (line {line}), which needs no router",
                    value.to, network.name
                );
                return Err(at("to", message));
            }
            let holds = |network: &Network| {
                network.zone == zone && network.cidr.is_some_and(|cidr| cidr.contains(&value.via))
            };
            let Some(network) = self.networks.iter().position(|(network, _)| holds(network)) else {
                let message = format!(
                    "{} is in no network of zone '{zone}': a router must be a neighbour",
                    value.via
                );
                return Err(at("via", message));
            };
            let (router, line) = &self.networks[network];
            if router.gateway == Some(value.via) {
                let message = format!(
                    "{} is the gateway of network '{}' (line {line}), this node: name another \
                     router",
                    value.via, router.name
                );
                return Err(at("via", message));
            }
            let same = |(other, _): &&(StaticRoute, usize)| {
                other.to == value.to && self.networks[other.network].0.zone == zone
            };
            if let Some((_, line)) = routes.iter().find(same) {
                let message = format!("there is a route to {} already (line {line})", value.to);
                return Err(at("to", message));
            }
            let route = StaticRoute { to: value.to, via: value.via, network };
            routes.push((route, lines.first()));
        }
        Ok(routes.into_iter().map(|(route, _)| route).collect())
    }

    pub(super) fn neighbours(&self) -> Result<Vec<StaticNeighbour>, ConfigError> {
        let mut told: Vec<(StaticNeighbour, usize)> = Vec::new();
        for Entry { value, lines } in &self.said.file.neighbours {
            let at = |key: &str, message| self.said.line(lines.of(key), message);
            let network = self.find_network(&value.network).map_err(|m| at("network", m))?;
            let mac = station(&value.mac).map_err(|m| at("mac", m))?;
            self.in_subnet(value.address, network).map_err(|m| at("address", m))?;
            let (home, line) = &self.networks[network];
            if home.gateway == Some(value.address) {
                let message = format!(
                    "{} is the gateway of network '{}' (line {line}), this node",
                    value.address, home.name
                );
                return Err(at("address", message));
            }
            let (address, first) = (value.address, lines.first());
            let vif = self
                .vifs
                .iter()
                .find(|(vif, _)| vif.network == network && vif.addresses.contains(&address));
            match vif {
                Some((vif, _)) if vif.mac == mac => continue,
                Some((vif, line)) => {
                    let message = format!("{address} is vif '{}' (line {line})", vif.name);
                    return Err(at("address", message));
                }
                None => {}
            }
            let same = |(other, _): &&(StaticNeighbour, usize)| {
                other.network == network && other.address == address
            };
            if let Some((_, line)) = told.iter().find(same) {
                return Err(at("address", format!("{address} is told already (line {line})")));
            }
            told.push((StaticNeighbour { network, address, mac }, first));
        }
        Ok(told.into_iter().map(|(neighbour, _)| neighbour).collect())
    }

    pub(super) fn in_subnet(&self, address: Ipv4Addr, network: usize) -> Result<(), String> {
        let (network, line) = &self.networks[network];
        match network.cidr {
            Some(cidr) if cidr.contains(&address) => Ok(()),
            Some(cidr) => Err(format!(
                "{address} is not in {cidr} of network '{}' (line {line})",
                network.name
            )),
            None => Err(format!("network '{}' (line {line}) has no cidr", network.name)),
        }
    }
}
