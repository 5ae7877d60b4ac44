//! Ports and segments.

use tables::{Dhcp, Gateway, Port, PortKind, Segment, Topology, Uplink};

use super::Numbered;
use crate::flags::DhcpServer;

/// Builds the topology: every segment's members are its vifs, its host port and its uplink, as
/// far as they are plugged.
#[must_use]
pub fn topology(networks: &[Numbered<'_>], ports: Vec<Port>) -> Topology {
    let segments = networks.iter().map(|numbered| {
        let uplink = Uplink { port: numbered.uplink, vlan: numbered.network.vlan };
        let member = |port: &&Port| match port.kind {
            PortKind::Vif | PortKind::Host => port.segment == numbered.segment,
            PortKind::Trunk | PortKind::Public => port.id == numbered.uplink,
        };
        Segment {
            id: numbered.segment,
            zone: numbered.zone,
            uplink: Some(uplink),
            members: ports.iter().filter(member).map(|port| port.id).collect(),
            gateway: numbered.network.gateway.map(|address| Gateway {
                address: address.octets(),
                shared: numbered.network.shared,
                before: numbered.before,
            }),
            host: numbered.host,
            taken_up: numbered.network.external_gateway.is_some(),
            clamp_mss: numbered.network.clamp_mss,
            dhcp: who_answers(numbered.network.dhcp.server),
        }
    });
    let segments = segments.collect();
    Topology::new(ports, segments)
}

const fn who_answers(server: DhcpServer) -> Dhcp {
    match server {
        DhcpServer::Builtin => Dhcp::Node,
        DhcpServer::Dnsmasq => Dhcp::Host,
        DhcpServer::External => Dhcp::Bridged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Flags;
    use crate::model::Model;
    use tables::{Egress, PortId, SegmentId, ZoneId};

    fn port(number: u16, kind: PortKind, segment: u16) -> Port {
        Port {
            id: PortId::new(number).unwrap(),
            kind,
            segment: SegmentId::new(segment).unwrap_or(SegmentId::NONE),
            egress: Egress::Punt,
            public: false,
            mac: tables::GATEWAY_MAC,
            mtu: 1500,
            stamp: 0,
            partial_checksums: false,
            limits: tables::Limits::default(),
            station: None,
            identity: None,
        }
    }

    #[test]
    fn a_segment_floods_to_its_own_ports_and_its_uplink() {
        let text = "vlan_interface = \"eth0\"\n\
                    [[network]]\nname = \"a\"\nvlan = 100\ncidr = \"10.0.0.0/24\"\n\
                    [[network]]\nname = \"b\"\nvlan = 102\ncidr = \"10.1.0.0/24\"\n";
        let model = Model::from_text(&Flags::default(), "test.toml", text).unwrap();
        let networks: Vec<_> = model
            .networks
            .iter()
            .zip(1..)
            .map(|(network, number)| Numbered {
                network,
                before: None,
                segment: SegmentId::new(number).unwrap(),
                zone: ZoneId::new(1).unwrap(),
                uplink: PortId::new(1).unwrap(),
                host: PortId::NONE,
                live: true,
            })
            .collect();
        let ports = vec![
            port(1, PortKind::Trunk, 0),
            port(2, PortKind::Public, 0),
            port(3, PortKind::Vif, 1),
            port(4, PortKind::Vif, 2),
            port(5, PortKind::Host, 1),
        ];
        let topology = topology(&networks, ports);
        let members = |segment: u16| {
            let segment = topology.segment(SegmentId::new(segment).unwrap()).unwrap();
            segment.members.iter().map(|id| id.get()).collect::<Vec<_>>()
        };
        assert_eq!((members(1), members(2)), (vec![1, 3, 5], vec![1, 4]));
        let trunk = topology.port(PortId::new(1).unwrap()).unwrap();
        assert_eq!(topology.segment_of(trunk, Some(102)).unwrap().id.get(), 2);
    }
}
