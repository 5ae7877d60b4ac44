//! Routes, neighbours, address translation and flows as tables for people.

use super::{align_right, or_dash, render, table};
use crate::report::{
    Cut, Direction, End, Explained, Flow, Group, Nat, Neighbour, Route, RouteSource,
};

/// `trunkline ctl routes`.
#[must_use]
pub fn routes(routes: &[Route]) -> String {
    let mut table = table(&["ZONE", "PREFIX", "SOURCE", "WAY"]);
    for route in routes {
        let source = match route.source {
            RouteSource::Connected => "connected",
            RouteSource::Config => "config",
            RouteSource::Kernel => "kernel",
        };
        table.add_row([
            or_dash(route.zone.as_deref()),
            route.prefix.clone(),
            source.into(),
            route.way.clone(),
        ]);
    }
    render(&table)
}

/// `trunkline explain`.
#[must_use]
pub fn explained(explained: &Explained) -> String {
    let lines = explained.stages.iter().map(|told| format!("{:<13} {}", told.stage, told.answer));
    lines.collect::<Vec<_>>().join("\n")
}

/// `trunkline ctl neighbours`.
#[must_use]
pub fn neighbours(neighbours: &[Neighbour]) -> String {
    let mut table = table(&["LINK", "ADDRESS", "MAC", "STATE"]);
    for neighbour in neighbours {
        table.add_row([
            neighbour.link.clone(),
            neighbour.address.clone(),
            or_dash(neighbour.mac.as_deref()),
            neighbour.state.clone(),
        ]);
    }
    render(&table)
}

/// `trunkline ctl nat`.
#[must_use]
pub fn nat(nat: &Nat) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, text: String| lines.push(format!("{name:<8} {text}"));
    line(
        "source",
        match &nat.source {
            Some(source) => format!("{source}, ports {}", nat.ports),
            None => "-".into(),
        },
    );
    for range in &nat.ranges {
        let when = match range.when.as_str() {
            "public" => "to the public side",
            "forced" => "to forced destinations only",
            _ => "never translated",
        };
        line("range", format!("{} of zone {}, {when}", range.prefix, range.zone));
    }
    if let Some(server) = &nat.metadata {
        line("metadata", server.clone());
    }
    for vpn in &nat.vpns {
        let (asked, port) = (vpn.public_address, vpn.public_port);
        let (instance, listens) = (vpn.private_address, vpn.private_port);
        let network = &vpn.network;
        line("vpn", format!("{asked}:{port}/udp to {instance}:{listens} of {network}"));
    }
    for prefix in &nat.exempt {
        line("exempt", prefix.clone());
    }
    for prefix in &nat.forced {
        line("forced", prefix.clone());
    }
    let mut text = lines.join("\n") + "\n";
    if nat.floats.is_empty() {
        return text;
    }
    let mut table = table(&["FLOATING IP", "FIXED", "VIF", "INTERFACE", "STATE"]);
    for float in &nat.floats {
        table.add_row([
            float.address.clone(),
            float.fixed.clone(),
            or_dash(float.vif.as_deref()),
            float.interface.clone(),
            float.state.clone(),
        ]);
    }
    text += "\n";
    text += &render(&table);
    text
}

/// Members of a group that are shown.
const MEMBERS_SHOWN: usize = 16;

/// `trunkline ctl groups`.
#[must_use]
pub fn groups(groups: &[Group]) -> String {
    let mut text = String::new();
    for group in groups {
        let vifs = if group.vifs.is_empty() { "none".into() } else { group.vifs.join(" ") };
        let (name, refused, members) = (&group.name, group.refused, group.members.len());
        text += &format!("{name}: vifs here: {vifs}; {refused} refused; {members} members");
        for member in group.members.iter().take(MEMBERS_SHOWN) {
            text += &format!(" {member}");
        }
        text += if group.members.len() > MEMBERS_SHOWN { " ...\n" } else { "\n" };
        if group.rules.is_empty() {
            text += "  allows nothing\n";
        }
        for rule in &group.rules {
            text += &format!("  {rule}\n");
        }
    }
    text
}

/// `trunkline ctl flows`.
#[must_use]
pub fn flows(flows: &[Flow]) -> String {
    let mut table = table(&[
        "DIRECTION",
        "PROTOCOL",
        "SOURCE",
        "DESTINATION",
        "NEW SOURCE",
        "NEW DESTINATION",
        "INGRESS",
        "EGRESS",
        "VLAN",
        "STATE",
        "IDLE",
    ]);
    align_right(&mut table, &[8, 10]);
    let changed = |end: &Option<End>| or_dash(end.as_ref().map(End::to_string).as_deref());
    for flow in flows {
        let direction = match flow.direction {
            Direction::Original => "original",
            Direction::Reply => "reply",
        };
        table.add_row([
            direction.into(),
            flow.protocol.clone(),
            flow.source.to_string(),
            flow.destination.to_string(),
            changed(&flow.new_source),
            changed(&flow.new_destination),
            flow.ingress.clone(),
            or_dash(flow.egress.as_deref()),
            or_dash(flow.vlan.map(|vlan| vlan.to_string()).as_deref()),
            flow.state.clone(),
            format!("{} s", flow.idle_s),
        ]);
    }
    render(&table)
}

/// `trunkline ctl flows --cut`.
#[must_use]
pub fn cut(cut: &Cut) -> String {
    match cut.connections {
        1 => "1 connection cut\n".into(),
        count => format!("{count} connections cut\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    use crate::report::{FloatingIp, NatRange, Vpn};

    fn words(line: &str) -> Vec<&str> {
        line.split_whitespace().collect()
    }

    #[test]
    fn a_route_of_the_node_has_no_zone() {
        let way = |zone: Option<&str>, prefix: &str, way: &str, source| Route {
            zone: zone.map(str::to_owned),
            prefix: prefix.into(),
            way: way.into(),
            source,
        };
        let text = routes(&[
            way(Some("default"), "10.0.0.0/24", "network tenant1", RouteSource::Connected),
            way(None, "0.0.0.0/0", "via 91.207.15.1 on eth1", RouteSource::Kernel),
        ]);
        assert_eq!(
            text,
            "ZONE     PREFIX       SOURCE     WAY\n\
             default  10.0.0.0/24  connected  network tenant1\n\
             -        0.0.0.0/0    kernel     via 91.207.15.1 on eth1\n"
                .lines()
                .map(|line| format!(" {line}\n"))
                .collect::<String>()
        );
    }

    #[test]
    fn a_neighbour_that_did_not_answer_has_no_mac() {
        let failed = Neighbour {
            link: "tenant1".into(),
            address: "10.0.0.9".into(),
            mac: None,
            state: "failed".into(),
        };
        let text = neighbours(&[failed]);
        assert_eq!(words(text.lines().nth(1).unwrap()), ["tenant1", "10.0.0.9", "-", "failed"]);
    }

    #[test]
    fn nat_tells_source_ranges_and_floats() {
        let told = Nat {
            source: Some("91.207.15.105".into()),
            ports: "20000-45999".into(),
            ranges: vec![NatRange {
                zone: "default".into(),
                prefix: "10.0.0.0/24".into(),
                when: "public".into(),
            }],
            metadata: Some("91.207.15.105:8775".into()),
            exempt: vec!["10.128.0.0/24".into()],
            forced: Vec::new(),
            floats: vec![FloatingIp {
                address: "91.208.23.16".into(),
                fixed: "10.1.0.4".into(),
                vif: None,
                interface: "eth1".into(),
                state: "elsewhere".into(),
            }],
            vpns: vec![Vpn {
                network: "tenant1".into(),
                public_address: Ipv4Addr::new(91, 207, 15, 105),
                public_port: 1000,
                private_address: Ipv4Addr::new(10, 0, 0, 2),
                private_port: 1194,
                gateway: Ipv4Addr::new(10, 0, 0, 1),
                netmask: Ipv4Addr::new(255, 255, 255, 0),
                first_client: Ipv4Addr::new(10, 0, 0, 247),
                last_client: Ipv4Addr::new(10, 0, 0, 254),
            }],
        };
        let text = nat(&told);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..6],
            [
                "source   91.207.15.105, ports 20000-45999",
                "range    10.0.0.0/24 of zone default, to the public side",
                "metadata 91.207.15.105:8775",
                "vpn      91.207.15.105:1000/udp to 10.0.0.2:1194 of tenant1",
                "exempt   10.128.0.0/24",
                "",
            ]
        );
        assert_eq!(words(lines[7]), ["91.208.23.16", "10.1.0.4", "-", "eth1", "elsewhere"]);
        assert_eq!(nat(&Nat::default()), "source   -\n");
    }

    #[test]
    fn a_flow_shows_what_changes_and_a_dash_for_what_does_not() {
        let flow = Flow {
            protocol: "udp".into(),
            source: End { address: "10.0.0.3".into(), port: Some(5353) },
            destination: End { address: "8.8.8.8".into(), port: Some(53) },
            new_source: Some(End { address: "91.208.23.11".into(), port: Some(5353) }),
            ingress: "vnet1".into(),
            state: "seen".into(),
            idle_s: 7,
            ..Flow::default()
        };
        let text = flows(&[flow]);
        assert_eq!(
            words(text.lines().nth(1).unwrap()),
            [
                "original",
                "udp",
                "10.0.0.3:5353",
                "8.8.8.8:53",
                "91.208.23.11:5353",
                "-",
                "vnet1",
                "-",
                "-",
                "seen",
                "7",
                "s",
            ]
        );
        assert_eq!(cut(&Cut { connections: 1 }), "1 connection cut\n");
        assert_eq!(cut(&Cut { connections: 0 }), "0 connections cut\n");
    }
}
