//! The settings that stand alone: the node's name, sizes and modes.

use std::time::Duration;

use super::Said;
use crate::config::ConfigError;
use crate::flags::Flags;
use crate::model::Tuning;

/// The name of the node: it names a directory and a socket.
pub(super) fn node(settings: &Flags, said: &Said<'_>) -> Result<String, ConfigError> {
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

/// Sizes and modes, with their defaults.
pub(super) fn tuning(settings: &Flags, said: &Said<'_>) -> Result<Tuning, ConfigError> {
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
