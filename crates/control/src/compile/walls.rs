//! What stands before each VM: its groups, its own network, its DHCP server.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tables::{Group, Groups, Member, Own, PortId, Wall, Walls, ZoneId};

use super::Numbered;
use crate::model::{Model, SecurityGroup};

/// The groups of a model, compiled; one whose rules are the same as before is not compiled again.
#[must_use]
pub fn groups(model: &Model, before: &Groups, zone: impl Fn(&str) -> ZoneId) -> Groups {
    let members = |group: &SecurityGroup| -> Vec<Member> {
        let all = group.members.iter().map(|(name, address)| (zone(name), *address));
        // A zone that no network is in has no members: none must not mean the public side.
        all.filter(|(zone, _)| *zone != ZoneId::NONE).collect()
    };
    let compiled = |(place, group): (usize, &SecurityGroup)| {
        let known = before.group(place as u32);
        let same = |it: &&Arc<Group>| it.name == group.name && it.rules() == group.rules;
        let known = known.filter(same).cloned();
        (known.unwrap_or_else(|| Arc::new(Group::new(&group.name, &group.rules))), members(group))
    };
    Groups::new(model.security.groups.iter().enumerate().map(compiled).collect())
}

/// What stands before every VM that is plugged. `port` names the port of an interface.
#[must_use]
pub fn walls(
    model: &Model,
    networks: &[Numbered<'_>],
    groups: &Arc<Groups>,
    port: impl Fn(&str) -> Option<PortId>,
) -> Walls {
    let security = &model.security;
    let wall = |vif: &crate::model::Vif| {
        let here = networks.get(vif.network)?;
        let own = || match here.network.cidr {
            Some(cidr) => Own::Subnet(here.zone, cidr),
            None => Own::Bridged,
        };
        let servers = security.dhcp_servers.get(vif.network);
        let servers = servers.into_iter().flatten().map(Ipv4Addr::octets).collect();
        let (zone, groups) = (here.zone, vif.groups.clone().into());
        let own6 = here.network.cidr_v6;
        let own = security.same_net.then(own);
        Some((port(&vif.name)?, Wall { zone, groups, own, own6, servers }))
    };
    let walls = model.vifs.iter().filter(|_| security.stands).filter_map(wall);
    Walls::new(Arc::clone(groups), walls.collect(), security.revoke)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Flags;
    use tables::{Ask, Let, SegmentId};

    const FILE: &str = r#"
        vlan_interface = "eth0"
        [[network]]
        name = "a"
        vlan = 100
        cidr = "10.0.0.0/24"
        gateway = "10.0.0.1"
        [[vif]]
        name = "v1"
        network = "a"
        mac = "fa:16:3e:00:00:01"
        addresses = ["10.0.0.3"]
        groups = ["web", "ssh"]
        [[vif]]
        name = "v2"
        network = "a"
        mac = "fa:16:3e:00:00:02"
        addresses = ["10.0.0.4"]
        [[security_group]]
        name = "web"
        rules = [{ protocol = "tcp", ports = "80", group = "db" }]
        [[security_group]]
        name = "db"
        members = ["10.1.0.4"]
        [[security_group]]
        name = "ssh"
        rules = [{ protocol = "TCP", ports = "22", cidr = "192.0.2.0/24" }]
    "#;

    fn compiled(text: &str, before: &Groups) -> Walls {
        let model = Model::from_text(&Flags::default(), "test.toml", text).unwrap();
        let zone = ZoneId::new(1).unwrap();
        let network = Numbered {
            network: &model.networks[0],
            before: None,
            segment: SegmentId::new(1).unwrap(),
            zone,
            uplink: PortId::new(1).unwrap(),
            host: PortId::NONE,
            live: true,
        };
        let groups = Arc::new(groups(&model, before, |_| zone));
        let port = |name: &str| PortId::new(if name == "v1" { 3 } else { 4 });
        walls(&model, &[network], &groups, port)
    }

    fn tcp(source: [u8; 4], port: u16) -> Ask {
        Ask {
            zone: ZoneId::new(1).unwrap(),
            source: source.into(),
            seen: source.into(),
            protocol: 6,
            source_port: 40_000,
            port: Some(port),
            bridged: false,
        }
    }

    #[test]
    fn a_vif_lets_in_what_its_groups_say_and_one_without_what_its_network_says() {
        let walls = compiled(FILE, &Groups::default());
        let (one, two) = (PortId::new(3).unwrap(), PortId::new(4).unwrap());
        assert_eq!(walls.judge(one, &tcp([10, 1, 0, 4], 80)), Some(Let::By(0, 0)));
        assert_eq!(walls.judge(one, &tcp([192, 0, 2, 9], 22)), Some(Let::By(2, 0)));
        assert_eq!(walls.judge(one, &tcp([192, 0, 2, 9], 80)), None);
        assert_eq!(walls.judge(one, &tcp([10, 0, 0, 4], 9)), Some(Let::Own));
        assert_eq!(walls.judge(two, &tcp([10, 0, 0, 3], 9)), Some(Let::Own));
        assert_eq!(walls.judge(two, &tcp([10, 1, 0, 4], 80)), None, "it is in the empty 'default'");
        let alone = format!("allow_same_net_traffic = false\n{FILE}");
        assert_eq!(compiled(&alone, walls.groups()).judge(two, &tcp([10, 0, 0, 3], 9)), None);
        let open = format!("firewall_driver = \"noop\"\n{FILE}");
        let open = compiled(&open, &Groups::default());
        assert_eq!(open.judge(two, &tcp([8, 8, 8, 8], 9)), Some(Let::Open));
    }

    #[test]
    fn members_of_a_zone_that_is_not_there_are_nobody_on_the_public_side() {
        let model = Model::from_text(&Flags::default(), "test.toml", FILE).unwrap();
        let nowhere = groups(&model, &Groups::default(), |_| ZoneId::NONE);
        assert!((0..4).all(|number| nowhere.members(number).is_empty()));
    }

    #[test]
    fn what_did_not_change_is_not_compiled_again_and_guards_alike() {
        let before = compiled(FILE, &Groups::default());
        let after = compiled(&FILE.replace("\"22\"", "\"23\""), before.groups());
        let same = |number| {
            let of = |walls: &Walls| Arc::clone(walls.groups().group(number).unwrap());
            Arc::ptr_eq(&of(&before), &of(&after))
        };
        assert_eq!([0, 1, 2].map(same), [true, true, false]);
        let alike = |port| after.guard_alike(&before, PortId::new(port).unwrap());
        assert_eq!((alike(3), alike(4)), (false, true));
    }
}
