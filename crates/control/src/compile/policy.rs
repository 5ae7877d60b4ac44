//! What VMs may reach on the node, and beyond their network.

use tables::{DropAction, HostRule, Policy, PortId, Side};

use super::Numbered;
use crate::flags;
use crate::model::{HostService, Model};

/// The tables of what is allowed. `port` names the port of an interface that is plugged.
#[must_use]
pub fn policy(
    model: &Model,
    networks: &[Numbered<'_>],
    port: impl Fn(&str) -> Option<PortId>,
) -> Policy {
    let rules = &model.policy;
    let service = |service: &HostService| HostRule {
        segment: service.network.and_then(|at| networks.get(at)).map(|here| here.segment),
        protocol: service.protocol,
        ports: service.ports.map(|(first, last)| first..=last),
        source: service.source,
    };
    // A name may be a bridge's and its NIC's; what is not here cannot be routed to.
    let sides = |name: &String| -> Vec<Side> {
        let bridges = networks.iter().filter(|here| here.network.bridge == *name);
        let segments = bridges.map(|here| Side::Segment(here.segment));
        segments.chain(port(name).map(Side::Public)).collect()
    };
    Policy {
        action: match rules.action {
            flags::DropAction::Drop => DropAction::Drop,
            flags::DropAction::Reject => DropAction::Reject,
            flags::DropAction::Log => DropAction::Log,
        },
        services: rules.services.iter().map(service).collect(),
        ways: rules.ways.as_ref().map(|ways| ways.iter().flat_map(sides).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Flags;
    use tables::{SegmentId, ZoneId};

    #[test]
    fn names_become_numbers_and_what_is_not_here_is_left_out() {
        let text = "vlan_interface = \"eth0\"\npublic_interface = \"eth1\"\n\
            forward_bridge_interface = [\"br100\", \"eth1\", \"bond7\"]\n\
            [[network]]\nname = \"a\"\nvlan = 100\ncidr = \"10.0.0.0/24\"\ngateway = \"10.0.0.1\"\n\
            [[host_rule]]\nprotocol = \"udp\"\nports = \"123\"\nnetwork = \"a\"\n";
        let model = Model::from_text(&Flags::default(), "test.toml", text).unwrap();
        let (segment, public) = (SegmentId::new(7).unwrap(), PortId::new(2).unwrap());
        let networks = [Numbered {
            network: &model.networks[0],
            before: None,
            segment,
            zone: ZoneId::new(1).unwrap(),
            uplink: PortId::new(1).unwrap(),
            host: PortId::NONE,
            live: true,
        }];
        let policy = policy(&model, &networks, |name| (name == "eth1").then_some(public));
        assert_eq!(policy.ways, Some(vec![Side::Segment(segment), Side::Public(public)]));
        let rule = HostRule {
            segment: Some(segment),
            protocol: Some(17),
            ports: Some(123..=123),
            source: None,
        };
        assert_eq!((policy.services, policy.action), (vec![rule], DropAction::Drop));
    }
}
