//! The settings that stand alone: the node's name, sizes and modes.

use std::time::Duration;

use super::Said;
use crate::config::ConfigError;
use crate::flags::{Flags, Replay};
use crate::model::{Timeouts, Tuning};

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
    let rings = range("rings", settings.rings.unwrap_or(1024), 64, 32768)?;
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
    // Without the kernel's replay every packet takes this way, and not just those that need a
    // decision.
    let punt_rate = match settings.replay.unwrap_or_default() {
        Replay::Userspace => 1_000_000,
        Replay::Auto | Replay::Kernel => 100_000,
    };
    Ok(Tuning {
        workers: settings.workers,
        cores,
        rings,
        batch: range("batch", settings.batch.unwrap_or(32).into(), 1, 32)? as usize,
        busy_poll: Duration::from_micros(
            range("busy_poll", settings.busy_poll.unwrap_or(0), 0, 1_000_000)?.into(),
        ),
        xdp_mode: settings.xdp_mode.unwrap_or_default(),
        hook: settings.hook.unwrap_or_default(),
        vif_hook: settings.vif_hook.unwrap_or_default(),
        replay: settings.replay.unwrap_or_default(),
        connections: range("connections", settings.connections.unwrap_or(250_000), 1, 16_000_000)?,
        punt_rate: range("punt_rate", settings.punt_rate.unwrap_or(punt_rate), 1, 100_000_000)?,
        punt_burst: range("punt_burst", settings.punt_burst.unwrap_or(4096), 1, 1_000_000)?,
        fdb_ageing: Duration::from_secs(
            range("fdb_ageing", settings.fdb_ageing.unwrap_or(300), 1, 1_000_000)?.into(),
        ),
        timeouts: timeouts(settings, said)?,
    })
}

/// How often an address is announced, once a second.
pub(super) fn announcements(settings: &Flags, said: &Said<'_>) -> Result<u32, ConfigError> {
    let key = "send_arp_for_ha_count";
    match (settings.send_arp_for_ha, settings.send_arp_for_ha_count.unwrap_or(3)) {
        (Some(false), _) => Ok(0),
        (_, count @ 1..=60) => Ok(count),
        (_, count) => {
            let message = format!("{key} is {count}: use 1 to 60, or send_arp_for_ha = false");
            Err(said.setting(key, message))
        }
    }
}

/// A timeout: key, what was set, default, and the least that the RFC allows.
type Timeout = (&'static str, Option<u32>, u32, (u32, &'static str));

/// RFC 5382 REQ-5, RFC 4787 REQ-5, RFC 5508 REQ-2.
fn all_timeouts(settings: &Flags) -> [Timeout; 4] {
    let (established, transitory) =
        (settings.tcp_established_timeout, settings.tcp_transitory_timeout);
    [
        ("tcp_established_timeout", established, 7440, (7440, "RFC 5382")),
        ("tcp_transitory_timeout", transitory, 240, (240, "RFC 5382")),
        ("udp_timeout", settings.udp_timeout, 300, (120, "RFC 4787")),
        ("icmp_timeout", settings.icmp_timeout, 60, (60, "RFC 5508")),
    ]
}

fn timeouts(settings: &Flags, said: &Said<'_>) -> Result<Timeouts, ConfigError> {
    // A line keeps the second it was last seen in 32 bits; a month is far from that.
    const LONGEST: u32 = 30 * 24 * 3600;
    let mut durations = [Duration::ZERO; 4];
    for (place, (key, set, default, _)) in durations.iter_mut().zip(all_timeouts(settings)) {
        let seconds = set.unwrap_or(default);
        if !(1..=LONGEST).contains(&seconds) {
            let message = format!("{key} is {seconds}: use 1 to {LONGEST} seconds");
            return Err(said.setting(key, message));
        }
        *place = Duration::from_secs(seconds.into());
    }
    let [tcp_established, tcp_transitory, udp, icmp] = durations;
    Ok(Timeouts { tcp_established, tcp_transitory, udp, icmp })
}

/// Timeouts shorter than programs may count on.
pub(super) fn short_timeouts(settings: &Flags) -> Vec<String> {
    let told = all_timeouts(settings).into_iter().filter_map(|(key, set, _, (least, rfc))| {
        let set = set.filter(|seconds| *seconds < least)?;
        Some(format!(
            "{key} = {set} is less than the {least} seconds that {rfc} asks of a NAT: silent \
             connections break"
        ))
    });
    told.collect()
}
