//! What the operator said: the file, read key by key with the line each one stands in.
//!
//! Nothing is judged here beyond spelling and type; [`crate::model`] says what it means. Every
//! error names file and line.

mod groups;
mod nat;
mod vif;

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::flags::{DhcpServer, Flags, NetworkKind};
use crate::keys::{known, nearest};

pub use groups::{GroupEntry, RuleEntry};
pub use nat::{FloatingEntry, PoolEntry, VpnEntry};
pub use vif::{QuotaEntry, VifEntry};

/// The file that is read when no other is named, if it exists.
pub const DEFAULT_FILE: &str = "/etc/trunkline/trunkline.toml";

/// The lists of tables a file may have.
const TABLES: [&str; 10] = [
    "network",
    "vif",
    "fdb",
    "route",
    "neighbour",
    "pool",
    "floating_ip",
    "security_group",
    "host_rule",
    "vpn",
];

/// Why a configuration is refused: where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// `left.toml:12`, `left.toml` or a flag such as `--batch`; empty for the whole.
    pub place: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place.as_str() {
            "" => out.write_str(&self.message),
            place => write!(out, "{place}: {}", self.message),
        }
    }
}

impl std::error::Error for ConfigError {}

/// One `[[network]]`: nova's row in its networks table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkEntry {
    /// Name of the segment, unique on the node.
    pub name: String,
    /// Else the node's `network_manager`.
    pub kind: Option<NetworkKind>,
    /// 1 to 4094; wide, so that a wrong number gets our own words.
    pub vlan: Option<i64>,
    /// The subnet.
    pub cidr: Option<Ipv4Net>,
    /// Its IPv6 addresses, which security groups take for the VMs' own network.
    pub cidr_v6: Option<Ipv6Net>,
    /// This node's own address in it.
    pub gateway: Option<Ipv4Addr>,
    /// Name of the host port, nova's bridge.
    pub bridge: Option<String>,
    /// NIC to use instead of the kind's (nova's `bridge_interface`).
    pub interface: Option<String>,
    /// Networks in one zone route to each other.
    pub zone: Option<String>,
    /// Bytes of IP packet.
    pub mtu: Option<u32>,
    /// Learned MACs at most.
    pub fdb_limit: Option<u32>,
    /// Every node has the same gateway address; else the node's `share_dhcp_address`.
    pub share_address: Option<bool>,
    /// The one node that is the gateway (nova's single-host mode); else every node that names one.
    pub host: Option<String>,
    /// A router on the trunk or at the provider that is the gateway instead.
    pub external_gateway: Option<Ipv4Addr>,
    /// Its addresses are public: routed, never translated.
    #[serde(default, skip_serializing_if = "is_false")]
    pub public: bool,
    /// Largest TCP segment through its gateway, bytes.
    pub clamp_mss: Option<u16>,
    /// Who gives its VMs their addresses; else the node's `dhcp`.
    pub dhcp: Option<DhcpServer>,
    /// Name servers its VMs are told; else the node's.
    pub dns_server: Option<Vec<Ipv4Addr>>,
    /// Further options for its VMs, before the node's.
    pub dhcp_options: Option<Vec<String>>,
}

/// One `[[route]]`: a way by a router in a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteEntry {
    /// Where to.
    pub to: Ipv4Net,
    /// The router, in a network of the zone.
    pub via: Ipv4Addr,
    /// Else "default".
    pub zone: Option<String>,
}

/// One `[[neighbour]]`: a VM on another node that need not be asked for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeighbourEntry {
    /// Name of the network.
    pub network: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its MAC.
    pub mac: String,
}

/// One `[[host_rule]]`: what the node serves its VMs with beyond what gateways do.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostRuleEntry {
    /// `tcp`, `udp`, `icmp` or `any`.
    pub protocol: String,
    /// A port, such as `22`, or a range, such as `8000-8010`; else all.
    pub ports: Option<String>,
    /// Who may; else everybody.
    pub cidr: Option<Ipv4Net>,
    /// Name of the network they are in; else any.
    pub network: Option<String>,
}

/// One `[[fdb]]`: a MAC that is not learned but told.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FdbEntry {
    /// Name of the network.
    pub network: String,
    /// The station.
    pub mac: String,
    /// `trunk` or the name of a vif.
    pub port: String,
}

/// A switch that is off is not written.
fn is_false(switch: &bool) -> bool {
    !switch
}

/// The lines a table's keys stand in, counted from 1.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    first: usize,
    keys: BTreeMap<String, usize>,
}

impl Lines {
    /// Where `key` stands, or the table's first line if it is not there.
    #[must_use]
    pub fn of(&self, key: &str) -> usize {
        self.keys.get(key).copied().unwrap_or(self.first)
    }

    /// Where the table begins.
    #[must_use]
    pub fn first(&self) -> usize {
        self.first
    }
}

/// A table of the file with its lines.
#[derive(Clone, Debug)]
pub struct Entry<T> {
    /// What it says.
    pub value: T,
    /// Where it says it.
    pub lines: Lines,
}

/// The whole file.
#[derive(Clone, Debug, Default)]
pub struct File {
    /// As the operator named it; empty if there is none.
    pub name: String,
    /// Keys before the first table.
    pub settings: Flags,
    /// Their lines.
    pub lines: Lines,
    /// Networks in the order of the file.
    pub networks: Vec<Entry<NetworkEntry>>,
    /// Vifs in the order of the file.
    pub vifs: Vec<Entry<VifEntry>>,
    /// Static fdb entries in the order of the file.
    pub fdb: Vec<Entry<FdbEntry>>,
    /// Static routes in the order of the file.
    pub routes: Vec<Entry<RouteEntry>>,
    /// Known neighbours in the order of the file.
    pub neighbours: Vec<Entry<NeighbourEntry>>,
    /// Pools of floating addresses in the order of the file.
    pub pools: Vec<Entry<PoolEntry>>,
    /// Floating addresses in the order of the file.
    pub floats: Vec<Entry<FloatingEntry>>,
    /// VPN instances in the order of the file.
    pub vpns: Vec<Entry<VpnEntry>>,
    /// Security groups in the order of the file.
    pub groups: Vec<Entry<GroupEntry>>,
    /// What the node serves, in the order of the file.
    pub host_rules: Vec<Entry<HostRuleEntry>>,
}

impl File {
    /// The file `flags` name, else [`DEFAULT_FILE`] if it exists, else an empty one.
    ///
    /// # Errors
    /// The file cannot be read, is not UTF-8, is not TOML, or has an unknown key or a wrong type.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let path = match &flags.config {
            Some(path) => path.clone(),
            None if Path::new(DEFAULT_FILE).exists() => PathBuf::from(DEFAULT_FILE),
            None => return Ok(Self::default()),
        };
        let name = path.display().to_string();
        let bytes = std::fs::read(&path).map_err(|error| ConfigError {
            place: name.clone(),
            message: format!("cannot be read: {error}"),
        })?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Self::parse(&name, text),
            Err(error) => {
                let line = 1 + bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count();
                Err(ConfigError { place: format!("{name}:{line}"), message: "not UTF-8".into() })
            }
        }
    }

    /// The file called `name` with this text.
    ///
    /// # Errors
    /// It is not TOML, or has an unknown key or a wrong type.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        let newlines = text.match_indices('\n').map(|(at, _)| at).collect();
        let source = Source { name, newlines };
        let table = DeTable::parse(text).map_err(|error| source.syntax(&error))?;
        let span = table.span();
        let mut table = table.into_inner();
        let networks = source.tables(&mut table, "network")?;
        let vifs = source.tables(&mut table, "vif")?;
        let fdb = source.tables(&mut table, "fdb")?;
        let routes = source.tables(&mut table, "route")?;
        let neighbours = source.tables(&mut table, "neighbour")?;
        let pools = source.tables(&mut table, "pool")?;
        let floats = source.tables(&mut table, "floating_ip")?;
        let vpns = source.tables(&mut table, "vpn")?;
        let groups = source.tables(&mut table, "security_group")?;
        let host_rules = source.tables(&mut table, "host_rule")?;
        let top = Spanned::new(span, DeValue::Table(table));
        let Entry { value: settings, lines } = source.entry(top, &TABLES)?;
        let name = name.into();
        Ok(Self {
            name,
            settings,
            lines,
            networks,
            vifs,
            fdb,
            routes,
            neighbours,
            pools,
            floats,
            vpns,
            groups,
            host_rules,
        })
    }
}

/// The file's name and where its lines end, to say where something is in it.
struct Source<'n> {
    name: &'n str,
    newlines: Vec<usize>,
}

impl Source<'_> {
    /// Takes the tables `[[key]]` out of `table`.
    fn tables<T: DeserializeOwned>(
        &self,
        table: &mut DeTable<'_>,
        key: &str,
    ) -> Result<Vec<Entry<T>>, ConfigError> {
        let Some(value) = table.remove(key) else { return Ok(Vec::new()) };
        let span = value.span();
        let wrong = || {
            let message = format!("'{key}' is a list of tables: write [[{key}]] above each one");
            self.error(span.clone(), message)
        };
        let DeValue::Array(array) = value.into_inner() else { return Err(wrong()) };
        let mut entries = Vec::new();
        for item in array {
            if !matches!(item.get_ref(), DeValue::Table(_)) {
                return Err(wrong());
            }
            entries.push(self.entry(item, &[])?);
        }
        Ok(entries)
    }

    /// One table as `T`; `also` are keys that are known but not `T`'s.
    fn entry<T: DeserializeOwned>(
        &self,
        item: Spanned<DeValue<'_>>,
        also: &[&'static str],
    ) -> Result<Entry<T>, ConfigError> {
        let span = item.span();
        let mut lines = Lines { first: self.line(span.start), keys: BTreeMap::new() };
        let mut values = Vec::new();
        if let DeValue::Table(table) = item.get_ref() {
            let keys = [known::<T>(), also].concat();
            let strangers = table.keys().filter(|key| !keys.contains(&key.get_ref().as_ref()));
            if let Some(key) = strangers.min_by_key(|key| key.span().start) {
                return Err(self.error(key.span(), unknown(key.get_ref(), &keys)));
            }
            for (key, value) in table {
                lines.keys.insert(key.get_ref().to_string(), self.line(key.span().start));
                values.push((key.get_ref().to_string(), value.span()));
                let DeValue::Array(items) = value.get_ref() else { continue };
                for (place, item) in items.iter().enumerate() {
                    let line = self.line(item.span().start);
                    lines.keys.insert(format!("{}[{place}]", key.get_ref()), line);
                }
            }
        }
        let value = T::deserialize(ValueDeserializer::from(item)).map_err(|error| {
            let at = error.span().unwrap_or(span);
            // The message tells the type, not the key it belongs to.
            let inside = |whole: &Range<usize>| whole.start <= at.start && at.end <= whole.end;
            match values.iter().find(|(_, value)| inside(value)) {
                Some((key, _)) => self.error(at, format!("{key}: {}", error.message())),
                None => self.error(at, error.message().replace('`', "'")),
            }
        })?;
        Ok(Entry { value, lines })
    }

    fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let message = error.message().lines().next().unwrap_or("not TOML").to_string();
        self.error(error.span().unwrap_or(0..0), message)
    }

    fn error(&self, span: Range<usize>, message: String) -> ConfigError {
        ConfigError { place: format!("{}:{}", self.name, self.line(span.start)), message }
    }

    fn line(&self, at: usize) -> usize {
        1 + self.newlines.partition_point(|newline| *newline < at)
    }
}

fn unknown(key: &str, keys: &[&str]) -> String {
    match nearest(key, keys) {
        Some(near) => format!("unknown key '{key}' (did you mean '{near}'?)"),
        None => format!("unknown key '{key}'; known are {}", keys.join(", ")),
    }
}
