//! What a VM may have of what all share: for all vifs, and for one that says otherwise.

use super::Said;
use crate::config::{ConfigError, Entry, VifEntry};
use crate::flags::{Flags, Replay};
use crate::limits::VifLimits;

/// What a limit may be, as told where it is not.
fn within(key: &str, value: u32, most: u32) -> Result<u32, String> {
    match (1..=most).contains(&value) {
        true => Ok(value),
        false => Err(format!("{key} is {value}: use 1 to {most}")),
    }
}

const CONNECTIONS: u32 = 16_000_000;
const RATE: u32 = 1_000_000;
const PORTS: u32 = 65_536;
const MACS: u32 = 1_000_000;
const PUNT_RATE: u32 = 100_000_000;

/// Those of a vif that says nothing.
pub(super) fn of_all(settings: &Flags, said: &Said<'_>) -> Result<VifLimits, ConfigError> {
    let limit = |key: &str, value: u32, most: u32| {
        within(key, value, most).map_err(|message| said.setting(key, message))
    };
    // Without the kernel's replay every packet takes this way. Else what one VM sends is to leave a
    // worker time for others: at 10 µs for a new connection, four fifths of it.
    let punt_rate = match settings.replay.unwrap_or_default() {
        Replay::Userspace => 1_000_000,
        Replay::Auto | Replay::Kernel => 20_000,
    };
    // One VM alone never uses the shared address up for the others.
    let ports = settings.snat_ports.unwrap_or_default();
    let half = u32::from(ports.last - ports.first).div_ceil(2);
    let rate = settings.vif_connection_rate;
    Ok(VifLimits {
        connections: limit(
            "vif_connections",
            settings.vif_connections.unwrap_or(65_536),
            CONNECTIONS,
        )?,
        connection_rate: rate.map(|rate| limit("vif_connection_rate", rate, RATE)).transpose()?,
        flood_rate: limit("vif_flood_rate", settings.vif_flood_rate.unwrap_or(1000), RATE)?,
        snat_ports: limit("vif_snat_ports", settings.vif_snat_ports.unwrap_or(half), PORTS)?,
        macs: limit("vif_macs", settings.vif_macs.unwrap_or(256), MACS)?,
        punt_rate: settings.punt_rate.unwrap_or(punt_rate),
    })
}

/// Those of one vif.
pub(super) fn of_one(
    entry: &Entry<VifEntry>,
    said: &Said<'_>,
    all: &VifLimits,
) -> Result<VifLimits, ConfigError> {
    let Entry { value, lines } = entry;
    let limit = |key: &str, value: Option<u32>, most: u32| {
        let value = value.map(|value| within(key, value, most));
        value.transpose().map_err(|message| said.line(lines.of(key), message))
    };
    let rate = limit("connection_rate", value.connection_rate, RATE)?;
    Ok(VifLimits {
        connections: limit("connections", value.connections, CONNECTIONS)?
            .unwrap_or(all.connections),
        connection_rate: rate.or(all.connection_rate),
        flood_rate: limit("flood_rate", value.flood_rate, RATE)?.unwrap_or(all.flood_rate),
        snat_ports: limit("snat_ports", value.snat_ports, PORTS)?.unwrap_or(all.snat_ports),
        macs: limit("macs", value.macs, MACS)?.unwrap_or(all.macs),
        punt_rate: limit("punt_rate", value.punt_rate, PUNT_RATE)?.unwrap_or(all.punt_rate),
    })
}
