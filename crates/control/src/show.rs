//! The daemon's answers as tables for people. Pure: reports in, text out.

mod dhcp;
mod interfaces;
mod routing;

use std::collections::BTreeMap;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

pub use self::dhcp::leases;
use crate::report::{FdbEntry, Port, PortKind, Reloaded, Segment, Status};
pub use interfaces::{ifupdown, netplan, vif};
pub use routing::{cut, explained, flows, groups, nat, neighbours, routes};

/// `trunkline ctl status`.
#[must_use]
pub fn status(status: &Status) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, text: String| lines.push(format!("{name:<12} {text}"));
    let state = if status.ready { "ready" } else { "starting" };
    line("node", format!("{}, {state}, up {}", status.node, duration(status.uptime_s)));
    line(
        "daemon",
        format!("trunkline {}, pid {}, {} workers", status.version, status.pid, status.workers),
    );
    line(
        "ports",
        format!(
            "{} in {} segments, {} MACs known",
            status.ports, status.segments, status.fdb_entries
        ),
    );
    for (port, hook) in &status.hooks {
        line("hook", format!("{port} {hook}"));
    }
    line("replay", status.replay.clone());
    let table = status.connections;
    line("connections", format!("{} of {} lines in use", table.live, table.lines));
    let frames = status.frames;
    line(
        "frames",
        format!(
            "{}: free {}, fill {}, rx {}, tx {}, completion {}, in flight {}",
            frames.total,
            frames.free,
            frames.fill,
            frames.rx,
            frames.tx,
            frames.completion,
            frames.in_flight
        ),
    );
    let verdicts = status.verdicts;
    line(
        "verdicts",
        format!(
            "replayed {}, forward {}, flood {}, reply {}, host {}, taken {}",
            verdicts.replayed,
            verdicts.forward,
            verdicts.flood,
            verdicts.reply,
            verdicts.host,
            verdicts.taken
        ),
    );
    line("drops", reasons(&status.drops));
    if status.socket_renewals > 0 {
        line("sockets", format!("opened anew {} times", status.socket_renewals));
    }
    let reloads = &status.reloads;
    line("reloads", format!("{} ok, {} refused", reloads.ok, reloads.refused));
    if let Some(error) = &reloads.last_error {
        line("refused", error.clone());
    }
    for warning in &status.warnings {
        line("WARNING", warning.clone());
    }
    lines.join("\n") + "\n"
}

/// `trunkline ctl ports`.
#[must_use]
pub fn ports(ports: &[Port]) -> String {
    let mut table = table(&[
        "PORT",
        "NAME",
        "KIND",
        "SEGMENT",
        "STATE",
        "HOOK",
        "RX PACKETS",
        "RX BYTES",
        "TX PACKETS",
        "TX BYTES",
        "REPLAYED",
        "PUNTED",
        "CONNECTIONS",
        "SENDS AS",
        "DROPS",
    ]);
    align_right(&mut table, &[0, 6, 7, 8, 9, 10, 11, 12]);
    for port in ports {
        table.add_row([
            port.number.to_string(),
            port.name.clone(),
            kind(port.kind).into(),
            or_dash(port.segment.as_deref()),
            port.state.clone(),
            port.hook.clone(),
            port.rx_packets.to_string(),
            port.rx_bytes.to_string(),
            port.tx_packets.to_string(),
            port.tx_bytes.to_string(),
            port.replayed.to_string(),
            port.punted.to_string(),
            port.connections.to_string(),
            or_dash(Some(port.sends_as.join(",")).filter(|all| !all.is_empty()).as_deref()),
            reasons(&port.drops),
        ]);
    }
    render(&table)
}

/// `trunkline ctl segments`.
#[must_use]
pub fn segments(segments: &[Segment]) -> String {
    let mut table = table(&[
        "SEGMENT", "NAME", "KIND", "VLAN", "BRIDGE", "UPLINK", "SUBNET", "GATEWAY", "ZONE", "MTU",
        "MACS", "LIMIT", "VIFS",
    ]);
    align_right(&mut table, &[0, 3, 9, 10, 11]);
    for segment in segments {
        table.add_row([
            segment.number.to_string(),
            segment.name.clone(),
            segment.kind.clone(),
            or_dash(segment.vlan.map(|vlan| vlan.to_string()).as_deref()),
            segment.bridge.clone(),
            segment.uplink.clone(),
            or_dash(segment.cidr.as_deref()),
            or_dash(segment.gateway.as_deref()),
            segment.zone.clone(),
            segment.mtu.to_string(),
            segment.fdb_entries.to_string(),
            segment.fdb_limit.to_string(),
            or_dash(Some(segment.vifs.join(" ")).filter(|vifs| !vifs.is_empty()).as_deref()),
        ]);
    }
    render(&table)
}

/// `trunkline ctl fdb`.
#[must_use]
pub fn fdb(entries: &[FdbEntry]) -> String {
    let mut table = table(&["SEGMENT", "MAC", "PORT", "AGE"]);
    align_right(&mut table, &[3]);
    for entry in entries {
        let age = match (entry.fixed, entry.age_s) {
            (false, Some(age)) => format!("{age} s"),
            _ => "static".into(),
        };
        table.add_row([entry.segment.clone(), entry.mac.clone(), entry.port.clone(), age]);
    }
    render(&table)
}

/// `trunkline ctl reload`.
#[must_use]
pub fn reloaded(reloaded: &Reloaded) -> String {
    let mut text = format!("{}\n", reloaded.message);
    let lists = [("+", &reloaded.added), ("-", &reloaded.removed), ("~", &reloaded.changed)];
    for (sign, names) in lists {
        for name in names {
            text += &format!("{sign} {name}\n");
        }
    }
    text
}

fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    // No frames: the text is read, and cut by awk.
    table.load_style(NOTHING);
    table.set_header(columns);
    table
}

fn align_right(table: &mut Table, columns: &[usize]) {
    for column in columns {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn render(table: &Table) -> String {
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_string()).collect();
    lines.join("\n") + "\n"
}

fn kind(kind: PortKind) -> &'static str {
    match kind {
        PortKind::Vif => "vif",
        PortKind::Trunk => "trunk",
        PortKind::Public => "public",
        PortKind::Host => "host",
    }
}

fn or_dash(text: Option<&str>) -> String {
    text.unwrap_or("-").to_string()
}

/// Counters that are not zero, the largest first.
fn reasons(drops: &BTreeMap<String, u64>) -> String {
    let mut drops: Vec<(&String, &u64)> = drops.iter().filter(|(_, count)| **count > 0).collect();
    drops.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let words: Vec<String> =
        drops.into_iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    or_dash(Some(words.join(", ")).filter(|text| !text.is_empty()).as_deref())
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_line_up_and_say_why_they_dropped() {
        let vif = Port {
            number: 3,
            name: "vnet1".into(),
            segment: Some("tenant1".into()),
            state: "plugged".into(),
            hook: "tc".into(),
            rx_packets: 12,
            drops: [("spoofed".into(), 2), ("unknown tag".into(), 0), ("double tag".into(), 9)]
                .into(),
            ..Port::default()
        };
        let trunk = Port {
            number: 1,
            name: "eth0".into(),
            kind: PortKind::Trunk,
            state: "plugged".into(),
            hook: "xdp".into(),
            ..Port::default()
        };
        let text = ports(&[trunk, vif]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let words = |line: &str| line.split_whitespace().map(String::from).collect::<Vec<_>>();
        assert_eq!(words(lines[1])[..6], ["1", "eth0", "trunk", "-", "plugged", "xdp"]);
        assert!(lines[2].ends_with("double tag 9, spoofed 2"), "{text}");
        assert_eq!(lines[1].find("eth0"), lines[2].find("vnet1"));
        assert!(lines.iter().all(|line| line.trim_end() == *line));
    }

    #[test]
    fn a_status_tells_its_warnings_and_how_long_it_is_up() {
        let told = Status {
            node: "left".into(),
            ready: true,
            uptime_s: 3 * 3600 + 61,
            warnings: vec!["eth0 is down".into()],
            ..Status::default()
        };
        let text = status(&told);
        assert!(text.contains("node         left, ready, up 3 h 1 min\n"), "{text}");
        assert!(text.contains("WARNING      eth0 is down\n"), "{text}");
        assert!(text.contains("drops        -\n"), "{text}");
        assert_eq!(duration(59), "59 s");
        assert_eq!(duration(61), "1 min 1 s");
        assert_eq!(duration(200_000), "2 d 7 h");
    }

    #[test]
    fn what_does_not_age_is_static() {
        let told = FdbEntry {
            segment: "tenant1".into(),
            mac: "fa:16:3e:00:00:01".into(),
            port: "vnet1".into(),
            fixed: true,
            age_s: None,
        };
        let seen = FdbEntry { fixed: false, age_s: Some(7), ..told.clone() };
        let text = fdb(&[told, seen]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].ends_with("vnet1  static"), "{text}");
        assert!(lines[2].ends_with("   7 s"), "{text}");
    }

    #[test]
    fn a_segment_without_vifs_shows_a_dash() {
        let told =
            Segment { number: 1, name: "tenant1".into(), vlan: Some(100), ..Segment::default() };
        let text = segments(&[told]);
        assert!(text.lines().nth(1).is_some_and(|line| line.ends_with('-')), "{text}");
        let news = Reloaded {
            message: "1 vif added, 1 removed".into(),
            added: vec!["vif vnet7".into()],
            removed: vec!["vif vnet3".into()],
            changed: Vec::new(),
        };
        assert_eq!(reloaded(&news), "1 vif added, 1 removed\n+ vif vnet7\n- vif vnet3\n");
    }
}
