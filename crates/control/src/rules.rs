//! The rules of a configuration: from what the operator said to a [`Model`], or why not.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv4Net;
use wire::MacAddr;

use crate::config::{ConfigError, Entry, File, Lines, NetworkEntry, VifEntry};
use crate::flags::{Flags, NetworkKind};
use crate::keys::nearest;
use crate::model::{Model, Network, Nic, StaticFdb, StaticPort, Tuning, Vif};

/// Longest interface name, bytes (IFNAMSIZ less its zero).
const NAME_MAX: usize = 15;
/// Far end of a host port; the near end has the bridge's own name.
const HOST_PORT_SUFFIX: &str = "-tl";
/// Ends of the punt link.
const PUNT_LINK: [&str; 2] = ["tl-punt0", "tl-punt1"];

/// The model of `flags` over `file`.
pub(crate) fn model(flags: &Flags, file: &File) -> Result<Model, ConfigError> {
    let settings = flags.over(&file.settings);
    let said = Said { flags, file };
    let node = node(&settings, &said)?;
    let tuning = tuning(&settings, &said)?;
    let mut names = Names::default();
    let nics = Nics::of_settings(&settings, &said, &mut names)?;
    let mut draft = Draft { said, settings, names, nics, networks: Vec::new(), vifs: Vec::new() };
    for entry in &file.networks {
        draft.network(entry)?;
    }
    for entry in &file.vifs {
        draft.vif(entry)?;
    }
    let static_fdb = draft.static_fdb()?;
    let Draft { settings, nics, networks, vifs, .. } = draft;
    if nics.0.is_empty() {
        let message = "nothing to do: name a NIC (vlan_interface, flat_interface or \
                       public_interface) or write a [[network]]";
        return Err(ConfigError { place: file.name.clone(), message: message.into() });
    }
    let default_socket = || PathBuf::from(format!("/run/trunkline/{node}.sock"));
    Ok(Model {
        config: (!file.name.is_empty()).then(|| PathBuf::from(&file.name)),
        control_socket: settings.control_socket.unwrap_or_else(default_socket),
        routing_source_ip: settings.routing_source_ip,
        nics: nics.0,
        networks: networks.into_iter().map(|(network, _)| network).collect(),
        vifs: vifs.into_iter().map(|(vif, _)| vif).collect(),
        static_fdb,
        tuning,
        node,
    })
}

/// Who said what, to say where.
#[derive(Clone, Copy)]
struct Said<'a> {
    flags: &'a Flags,
    file: &'a File,
}

impl Said<'_> {
    /// An error in the value of a setting.
    fn setting(&self, key: &str, message: String) -> ConfigError {
        if self.flags.sets(key) {
            return ConfigError { place: format!("--{}", key.replace('_', "-")), message };
        }
        self.line(self.file.lines.of(key), message)
    }

    fn line(&self, line: usize, message: String) -> ConfigError {
        ConfigError { place: format!("{}:{line}", self.file.name), message }
    }
}

fn node(settings: &Flags, said: &Said<'_>) -> Result<String, ConfigError> {
    let node = match &settings.node {
        Some(node) => node.clone(),
        None => std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map(|name| name.trim().to_string())
            .map_err(|error| ConfigError {
                place: String::new(),
                message: format!("the hostname cannot be read ({error}): say --node"),
            })?,
    };
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if node.is_empty() || node.len() > 64 || node.starts_with('.') || !node.bytes().all(letters) {
        let message = format!(
            "'{node}' cannot name a node: use 1 to 64 letters, digits, '-', '_' and '.', and no \
             '.' in front"
        );
        return Err(said.setting("node", message));
    }
    Ok(node)
}

fn tuning(settings: &Flags, said: &Said<'_>) -> Result<Tuning, ConfigError> {
    let range = |key: &str, value: u32, low: u32, high: u32| match (low..=high).contains(&value) {
        true => Ok(value),
        false => Err(said.setting(key, format!("{key} is {value}: use {low} to {high}"))),
    };
    let rings = range("rings", settings.rings.unwrap_or(2048), 64, 32768)?;
    if !rings.is_power_of_two() {
        let near = rings.next_power_of_two();
        let message = format!("rings is {rings}: use a power of two, such as {near}");
        return Err(said.setting("rings", message));
    }
    let workers = settings.workers.map(|n| range("workers", n.into(), 1, 256)).transpose()?;
    let cores = settings.cores.clone().unwrap_or_default().0;
    if let Some(workers) = workers
        && !cores.is_empty()
        && cores.len() < workers as usize
    {
        let message = format!("{} cores for {workers} workers: name one for each", cores.len());
        return Err(said.setting("cores", message));
    }
    Ok(Tuning {
        workers: settings.workers,
        cores,
        rings,
        frames: settings.frames.map(|n| range("frames", n, 1024, 1 << 24)).transpose()?,
        batch: range("batch", settings.batch.unwrap_or(32).into(), 1, 32)? as usize,
        busy_poll: Duration::from_micros(
            range("busy_poll", settings.busy_poll.unwrap_or(0), 0, 1_000_000)?.into(),
        ),
        xdp_mode: settings.xdp_mode.unwrap_or_default(),
        hook: settings.hook.unwrap_or_default(),
        vif_hook: settings.vif_hook.unwrap_or_default(),
        connections: range("connections", settings.connections.unwrap_or(250_000), 1, 16_000_000)?,
        punt_rate: range("punt_rate", settings.punt_rate.unwrap_or(500_000), 1, 100_000_000)?,
        punt_burst: range("punt_burst", settings.punt_burst.unwrap_or(4096), 1, 1_000_000)?,
        fdb_ageing: Duration::from_secs(
            range("fdb_ageing", settings.fdb_ageing.unwrap_or(300), 1, 1_000_000)?.into(),
        ),
    })
}

/// The names of interfaces on this node, and what each one is.
#[derive(Default)]
struct Names(BTreeMap<String, String>);

impl Names {
    /// `name` becomes the name of `what`; an error's words if it cannot.
    fn take(&mut self, name: &str, what: String) -> Result<(), String> {
        interface_name(name)?;
        match self.0.get(name) {
            Some(other) => Err(format!("'{name}' is {what}, but it is already {other}")),
            None => {
                self.0.insert(name.to_string(), what);
                Ok(())
            }
        }
    }
}

/// The kernel's own rule (dev_valid_name).
fn interface_name(name: &str) -> Result<(), String> {
    let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name == "." || name == ".." || name.contains(forbidden) {
        return Err(format!("'{name}' cannot name an interface"));
    }
    if name.len() > NAME_MAX {
        return Err(format!("'{name}' is too long for an interface: at most {NAME_MAX} bytes"));
    }
    if PUNT_LINK.contains(&name) {
        return Err(format!("'{name}' is the name of the punt link"));
    }
    Ok(())
}

/// The NICs, each once with all its roles.
struct Nics(Vec<Nic>);

impl Nics {
    fn of_settings(
        settings: &Flags,
        said: &Said<'_>,
        names: &mut Names,
    ) -> Result<Self, ConfigError> {
        let mut nics = Self(Vec::new());
        let roles = [
            ("vlan_interface", &settings.vlan_interface, true),
            ("flat_interface", &settings.flat_interface, true),
            ("public_interface", &settings.public_interface, false),
        ];
        for (key, name, trunk) in roles {
            if let Some(name) = name {
                nics.add(name, trunk, names).map_err(|message| said.setting(key, message))?;
            }
        }
        Ok(nics)
    }

    fn add(&mut self, name: &str, trunk: bool, names: &mut Names) -> Result<(), String> {
        let nic = match self.0.iter_mut().find(|nic| nic.name == name) {
            Some(nic) => nic,
            None => {
                names.take(name, "a NIC".into())?;
                self.0.push(Nic { name: name.into(), trunk: false, public: false });
                self.0.last_mut().expect("one was just pushed")
            }
        };
        if trunk {
            nic.trunk = true
        } else {
            nic.public = true
        }
        Ok(())
    }
}

/// A model in the making; each network and vif with the line it begins in.
struct Draft<'a> {
    said: Said<'a>,
    settings: Flags,
    names: Names,
    nics: Nics,
    networks: Vec<(Network, usize)>,
    vifs: Vec<(Vif, usize)>,
}

impl Draft<'_> {
    fn network(&mut self, entry: &Entry<NetworkEntry>) -> Result<(), ConfigError> {
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
        let (name, cidr, gateway) = (value.name.clone(), value.cidr, value.gateway);
        let network =
            Network { name, kind, vlan, uplink, bridge, cidr, gateway, zone, mtu, fdb_limit };
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

    fn vif(&mut self, entry: &Entry<VifEntry>) -> Result<(), ConfigError> {
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
        let (name, addresses) = (value.name.clone(), value.addresses.clone());
        self.vifs.push((Vif { name, network, mac, addresses }, line));
        Ok(())
    }

    /// Whether a VM in `network` can have this address.
    fn address(&self, address: Ipv4Addr, network: usize) -> Result<(), String> {
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
        if network.gateway == Some(address) {
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

    fn static_fdb(&self) -> Result<Vec<StaticFdb>, ConfigError> {
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

    fn find_network(&self, name: &str) -> Result<usize, String> {
        self.networks.iter().position(|(network, _)| network.name == name).ok_or_else(|| {
            let names = self.networks.iter().map(|(network, _)| network.name.as_str());
            not_there("network", name, "a [[network]]", names)
        })
    }
}

fn not_there<'n>(
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

/// The MAC of one station.
fn station(text: &str) -> Result<MacAddr, String> {
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
