//! From what a machine says to the configuration of its node: readings in, files out.
#![allow(clippy::unwrap_used)] // also in the functions that tests share

mod nova;

use std::net::Ipv4Addr;

use control::adopt::{Adopted, Found, Reading};
use control::flags::Flags;
use control::model::Model;
use control::netlink::KernelRoute;
use nova::{RULES, link, node, route};
use proptest::prelude::*;
use wire::MacAddr;

fn with_rules(rules: &str) -> Reading {
    Reading { iptables: vec![("iptables-save".into(), rules.into())], ..node() }
}

fn adopted(reading: &Reading) -> Adopted {
    Adopted::of(&Found::of(reading, None), "left")
}

/// The model of what is printed, as `run --check` reads it.
fn model(adopted: &Adopted) -> Model {
    let text = adopted.to_text().unwrap();
    Model::from_text(&Flags::default(), "left.toml", &text)
        .unwrap_or_else(|error| panic!("{error} in {text}"))
}

fn warns(adopted: &Adopted, part: &str) {
    assert!(
        adopted.warnings.iter().any(|warning| warning.contains(part)),
        "{part} in {:#?}",
        adopted.warnings
    );
}

#[test]
fn a_node_of_nova_s_becomes_the_file_that_does_the_same() {
    let adopted = adopted(&node());
    let text = adopted.to_text().unwrap();
    let file: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(
        file.join("\n").trim(),
        r#"node = "left"
network_manager = "vlan"
vlan_interface = "eth0"
public_interface = "eth1"
routing_source_ip = "192.0.2.5"
dmz_cidr = ["203.0.113.0/24"]
metadata_host = "192.0.2.9"
allow_same_net_traffic = false

[[network]]
name = "private"
vlan = 100
cidr = "10.0.0.0/24"
gateway = "10.0.0.1"
dhcp = "external"

[[network]]
name = "br102"
vlan = 102
cidr = "10.1.0.0/24"
gateway = "10.1.0.5"

[[vif]]
name = "vnet0"
network = "private"
mac = "fa:16:3e:00:00:01"
addresses = ["10.0.0.3"]
groups = ["nova-1"]
hostname = "vm-1"

[[vif]]
name = "vnet1"
network = "br102"
mac = "fa:16:3e:00:00:04"
addresses = ["10.1.0.4"]
groups = ["nova-2"]

[[route]]
to = "172.16.0.0/16"
via = "10.0.0.254"

[[floating_ip]]
address = "198.51.100.11"
fixed = "10.0.0.3"

[[security_group]]
name = "nova-1"
rules = [
    { cidr = "10.0.0.0/24" },
    { protocol = "icmp" },
]

[[security_group]]
name = "nova-2""#
    );
    assert_eq!(
        adopted.seen,
        [
            "bridge br100, 10.0.0.1/24 with vlan100 (VLAN 100 on eth0), VMs vnet0",
            "bridge br102, 10.1.0.5/24 with vlan102 (VLAN 102 on eth0), VMs vnet1",
            "public NIC eth1, floating addresses on it: 198.51.100.11",
            "55 rules of nova-compute, nova-network (iptables-legacy-save)",
            "connections of VMs: 2; open, so that a changeover could keep them: 1; translated among \
             those: 1",
        ]
    );
    let begins: Vec<&str> =
        adopted.warnings.iter().map(|warning| warning.split(':').next().unwrap()).collect();
    assert_eq!(
        begins,
        [
            "IPv6 reaches VMs that have a security group from their own link alone, until a rule \
             with an IPv6 cidr lets in more",
            "DHCP and DNS of br100 are dnsmasq's (process 4321), not trunkline's",
            "VMs reach the gateway's address by ping, DHCP and DNS, and metadata",
            "this node has the first address of private (10.0.0.1), as nova gives it to a network's \
             only host, or to every node with share_dhcp_address",
            "networks that are on other nodes alone are not seen here",
        ]
    );
    let model = model(&adopted);
    assert_eq!(model.networks[1].bridge, "br102");
    assert_eq!(model.floats[0].vif, Some(0));
}

#[test]
fn what_a_changeover_has_to_know_is_found() {
    let found = Found::of(&node(), None);
    let public = found.public.as_ref().unwrap();
    assert_eq!(public.floats, [Ipv4Addr::new(198, 51, 100, 11)]);
    assert_eq!(public.addresses, ["192.0.2.5/24".parse().unwrap()]);
    let [br100, _] = &found.networks[..] else { panic!("{found:?}") };
    assert_eq!(br100.bridge.uplink.interface, "vlan100");
    assert_eq!(br100.vms[0].name.as_deref(), Some("vm-1.novalocal"));
    assert_eq!(br100.dhcp.as_ref().map(|dhcp| dhcp.pid), Some(4321));
    assert_eq!(found.connections.all.len(), 3);
    // Every rule but the operator's own for ssh, every chain but the kernel's.
    assert_eq!(
        found.rules.rules.len(),
        RULES.lines().filter(|it| it.starts_with("-A")).count() - 1
    );
    assert_eq!(found.rules.chains.len(), RULES.matches(":nova-").count());
    assert!(found.rules.unknown.is_empty() && found.rules.foreign.is_empty());
}

#[test]
fn what_old_releases_said_otherwise_is_understood() {
    let rules = "\
*nat
:nova-network-snat - [0:0]
:nova-network-float-snat - [0:0]
:nova-network-POSTROUTING - [0:0]
[0:0] -A nova-network-snat -j nova-network-float-snat
[0:0] -A nova-network-snat -s 10.0.0.0/8 -j SNAT --to-source 192.0.2.5 -o eth1
[0:0] -A nova-network-snat -s 10.0.0.0/8 -d 203.0.113.0/24 -j SNAT --to-source 192.0.2.5 -o eth1
[0:0] -A nova-network-POSTROUTING -s 10.0.0.0/8 -d 10.128.0.0/24 -j ACCEPT
[0:0] -A nova-network-POSTROUTING -s 10.0.0.0/8 -d 10.0.0.0/8 -m conntrack ! --ctstate DNAT -j ACCEPT
COMMIT
";
    let adopted = adopted(&with_rules(rules));
    let settings = &adopted.settings;
    assert_eq!(settings.fixed_range, "10.0.0.0/8".parse().ok());
    assert_eq!(settings.force_snat_range, Some(vec!["203.0.113.0/24".parse().unwrap()]));
    assert_eq!(settings.dmz_cidr, Some(vec!["10.128.0.0/24".parse().unwrap()]));
    model(&adopted);
}

#[test]
fn rules_that_have_no_place_are_shown() {
    let more = "\
*nat
:nova-network-PREROUTING - [0:0]
:nova-network-float-snat - [0:0]
:nova-network-snat - [0:0]
:DOCKER - [0:0]
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A nova-network-PREROUTING -d 192.0.2.5/32 -p udp -m udp --dport 1000 -j DNAT --to-destination 10.0.0.2:1194
-A nova-network-snat -s 10.0.0.0/24 -o eth1 -j SNAT --to-source 192.0.2.5
-A nova-network-snat -s 10.1.0.0/24 -o eth1 -j SNAT --to-source 192.0.2.6
-A nova-network-snat -s 10.9.0.0/24 -j SNAT --to-source 192.0.2.5
COMMIT
*filter
:nova-network-FORWARD - [0:0]
:nova-network-local - [0:0]
:FORWARD DROP [0:0]
-A FORWARD -j nova-network-FORWARD
-A FORWARD -i br100 -o eth2 -j DROP
-A nova-network-FORWARD -i br100 -o eth1 -j ACCEPT
-A nova-network-FORWARD -i br100 -j DROP
-A nova-network-FORWARD -d 10.0.0.2/32 -p udp -m udp --dport 1194 -j ACCEPT
COMMIT
";
    let adopted = adopted(&with_rules(more));
    for part in [
        "2 rules that keep networks from one another (forward_bridge_interface) are not taken over",
        "    filter: -A nova-network-FORWARD -i br100 -j DROP",
        "2 rules in nova's chains that are not understood",
        "    filter: -A nova-network-FORWARD -d 10.0.0.2/32 -p udp -m udp --dport 1194 -j ACCEPT",
        "2 rules that are not nova's: packets of VMs pass iptables no more:",
        "    nat: -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
        "    filter: -A FORWARD -i br100 -o eth2 -j DROP",
        "nova translates some VMs to 192.0.2.6 and not to 192.0.2.5",
        "nova translates 10.9.0.0/24, which is no network of a bridge here",
        "nova translates what leaves by any interface",
    ] {
        warns(&adopted, part);
    }
    assert_eq!(adopted.settings.routing_source_ip, Some([192, 0, 2, 5].into()));
    model(&adopted);
}

#[test]
fn a_flat_network_is_untagged_with_a_gateway_or_without() {
    let mut reading = node();
    reading.links.retain(|link| ![4, 6, 7, 8].contains(&link.index));
    reading.links[0].master = Some(3);
    reading.links[2].mtu = 9000;
    reading.links[0].mtu = 9000;
    reading.links[2].name = "br-flat".into();
    let dhcp = adopted(&reading);
    assert_eq!(dhcp.settings.flat_interface.as_deref(), Some("eth0"));
    let network = &model(&dhcp).networks[0];
    assert_eq!((network.kind.to_string().as_str(), network.mtu), ("flatdhcp", 9000));
    assert_eq!((network.bridge.as_str(), network.vlan), ("br-flat", None));
    assert_eq!(network.gateway, Some([10, 0, 0, 1].into()));
    // FlatManager: no address anywhere, and no DHCP.
    reading.addresses.retain(|(index, _)| *index != 3);
    reading.dhcp.clear();
    reading.iptables.clear();
    let flat = adopted(&reading);
    let model = model(&flat);
    assert_eq!(model.networks[0].kind.to_string(), "flat");
    assert_eq!((model.networks[0].gateway, model.networks[0].cidr), (None, None));
    assert_eq!((model.vifs.len(), model.vifs[0].addresses.len()), (1, 0));
    warns(&flat, "no chain of nova's is in iptables");
}

#[test]
fn a_vm_that_nobody_knows_is_said() {
    let mut reading = node();
    // Neither a tap of libvirt's, nor DHCP; and one known by its MAC alone.
    reading.links[4].mac = Some(MacAddr([2, 0, 0, 0, 0, 9]));
    reading.dhcp.clear();
    reading.neighbours.clear();
    let adopted = adopted(&reading);
    let names: Vec<&str> = adopted.vifs.iter().map(|vif| vif.name.as_str()).collect();
    assert_eq!(names, ["vnet1"]);
    for part in [
        "vnet0 on br100 is left out, since its VM's MAC is not known",
        "vnet1 on br102 has no addresses, since nobody knows those of fa:16:3e:00:00:04",
        "10.0.0.3 is a VM of this node (chain nova-compute-inst-7)",
        "10.1.0.4 is a VM of this node (chain nova-compute-inst-8)",
        "no vif here has 10.0.0.3, to which 198.51.100.11 belongs",
    ] {
        warns(&adopted, part);
    }
    model(&adopted);
}

#[test]
fn a_gateway_may_be_elsewhere_or_everywhere() {
    let mut reading = node();
    reading.dhcp[0].options = "3,10.0.0.254\n".into();
    let elsewhere = adopted(&reading);
    let network = &model(&elsewhere).networks[0];
    assert_eq!(network.external_gateway, Some([10, 0, 0, 254].into()));
    assert_eq!(network.gateway, None);
    warns(&elsewhere, "VMs of br100 are told router 10.0.0.254, which is not this node's 10.0.0.1");
    let mut reading = node();
    reading.ebtables = vec![(
        "ebtables-save".into(),
        "*filter\n:INPUT ACCEPT\n-A INPUT -p ARP -i vlan100 --arp-ip-dst 10.0.0.1 -j DROP\n".into(),
    )];
    let everywhere = adopted(&reading);
    assert_eq!(everywhere.networks[0].share_address, Some(true));
    assert!(!everywhere.warnings.iter().any(|it| it.contains("this node has the first address")));
    assert!(model(&everywhere).networks[0].shared);
}

#[test]
fn floats_of_other_nics_get_pools_and_a_vm_keeps_one() {
    let rules = RULES.replace("10.0.0.3/32 -o eth1", "10.0.0.3/32 -o eth2").replace(
        "-A nova-network-PREROUTING -d 198.51.100.11/32 -j DNAT --to-destination 10.0.0.3\n",
        "-A nova-network-PREROUTING -d 198.51.100.12/32 -j DNAT --to-destination 10.0.0.3\n\
             -A nova-network-PREROUTING -d 198.51.100.11/32 -j DNAT --to-destination 10.0.0.3\n",
    );
    let mut reading = with_rules(&rules);
    reading.links.push(link(9, "eth2", "", 0));
    let adopted = adopted(&reading);
    warns(&adopted, "10.0.0.3 has floating addresses 198.51.100.11 and 198.51.100.12");
    let model = model(&adopted);
    assert_eq!((model.floats.len(), model.floats[0].nic.as_str()), (1, "eth2"));
}

#[test]
fn a_float_without_rules_stays_the_host_s() {
    let adopted = adopted(&with_rules(&RULES.replace("198.51.100.11", "198.51.100.99")));
    warns(&adopted, "eth1 has 198.51.100.11/32, as it would a floating address, and no rule");
    assert_eq!(adopted.floats[0].address, Ipv4Addr::new(198, 51, 100, 99));
}

#[test]
fn a_network_without_translation_is_public_if_its_addresses_are() {
    let rules = RULES.replace("-A nova-network-snat -s 10.1.0.0/24 -o eth1", "# ");
    let private = adopted(&with_rules(&rules));
    assert!(!private.networks[1].public);
    warns(&private, "nova translates nothing of network br102 (10.1.0.0/24)");
    let mut reading = with_rules(&rules);
    reading.addresses[3].1 = "203.0.113.129/25".parse().unwrap();
    let public = adopted(&reading);
    assert!(public.networks[1].public && model(&public).networks[1].public);
    warns(&public, "203.0.113.128/25 is not private");
}

#[test]
fn the_operator_may_name_the_public_nic_and_is_told_of_refused_ones() {
    let mut reading = node();
    reading.links.push(link(9, "bond0", "bond", 0));
    reading.links[1].master = Some(9);
    let found = Found::of(&reading, Some("bond0"));
    let adopted = Adopted::of(&found, "left");
    assert_eq!(adopted.settings.public_interface.as_deref(), Some("bond0"));
    warns(&adopted, "trunkline will not take the NIC: bond0 is a bond: take eth1 out of it");
    warns(&adopted, "nova's rules translate what leaves by eth1, and bond0 was named");
    // Its floats are on that NIC as well.
    assert_eq!(model(&adopted).floats[0].nic, "bond0");
}

#[test]
fn of_two_kinds_of_iptables_the_one_with_nova_s_chains_is_taken() {
    let mut reading = node();
    let others = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -i docker0 -j ACCEPT\nCOMMIT\n";
    reading.iptables.insert(0, ("iptables-nft-save".into(), others.into()));
    let found = Found::of(&reading, None);
    assert_eq!(found.rules_by.as_deref(), Some("iptables-legacy-save"));
    assert_eq!(found.rules.foreign.len(), 1);
    reading.iptables.push(("iptables-save".into(), RULES.into()));
    let twice = adopted(&reading);
    warns(&twice, "nova's rules are in iptables-legacy-save and in iptables-save");
    assert_eq!(model(&twice).floats.len(), 1);
}

#[test]
fn further_addresses_of_a_bridge_are_said() {
    let mut reading = node();
    let more = ["10.0.0.77/32", "10.0.0.1/24", "192.168.7.1/24"];
    reading.addresses.retain(|(index, _)| *index != 3);
    reading.addresses.extend(more.map(|address| (3, address.parse().unwrap())));
    let adopted = adopted(&reading);
    assert_eq!(adopted.networks[0].gateway, Some([10, 0, 0, 1].into()));
    warns(&adopted, "bridge br100 has address 10.0.0.77/32 as well");
    warns(&adopted, "bridge br100 has address 192.168.7.1/24 as well");
    model(&adopted);
}

#[test]
fn ways_that_are_no_route_of_a_network_are_said() {
    let mut reading = node();
    let further = KernelRoute { metric: 7, ..route("172.16.0.0/16", 3, Some("10.0.0.253")) };
    let far = route("172.17.0.0/16", 3, Some("10.9.0.1"));
    let bare = route("172.18.0.0/16", 3, None);
    reading.routes.extend([further, far, bare, route("0.0.0.0/0", 3, Some("10.0.0.254"))]);
    let adopted = adopted(&reading);
    for part in [
        "the route to 172.16.0.0/16 by br100 is left out",
        "the route to 172.17.0.0/16 by br100 is left out",
        "the route to 172.18.0.0/16 by br100 is left out",
        "this host's own default route leads by br100",
    ] {
        warns(&adopted, part);
    }
    let ways: Vec<String> =
        adopted.routes.iter().map(|way| format!("{} {}", way.to, way.via)).collect();
    assert_eq!(ways, ["172.16.0.0/16 10.0.0.254", "0.0.0.0/0 10.0.0.254"]);
    model(&adopted);
}

proptest! {
    /// Whatever the tools print, it is read, and what is printed for it is a comment or TOML.
    #[test]
    fn no_text_is_too_strange(
        rules in r#"(\*nat\n|\*filter\n|:[a-z]{1,3}-(snat|float-snat|local|FORWARD) |-A [a-z]{1,3}-snat |-[sdio] |-j (SNAT|DNAT|DROP) |--to |!|"|\\|10\.0\.0\.[0-9]{1,3}(/[0-9]{1,3})? |[ -~]|\n){0,60}"#,
        hosts in "([0-9a-f:]{1,17}|,|10\\.0\\.0\\.[0-9]{1,3}|#|\n|[ -~]){0,30}",
        connections in "(ipv4 2 |tcp 6 |[0-9]{1,7} |src=|dst=|sport=|id=|10\\.0\\.0\\.3 |\\[UNREPLIED\\] |[ -~]|\n){0,40}",
    ) {
        let mut reading = with_rules(&rules);
        reading.ebtables = vec![("ebtables-save".into(), rules)];
        reading.dhcp[0].options.clone_from(&hosts);
        reading.dhcp[0].hosts = hosts;
        reading.connections = connections;
        let text = adopted(&reading).to_text().unwrap();
        prop_assert!(control::config::File::parse("left.toml", &text).is_ok(), "{}", text);
    }
}

#[test]
fn names_of_others_cannot_leave_their_comment() {
    let mut reading = node();
    reading.notes.push("what is it\nnode = \"right\"".into());
    let text = adopted(&reading).to_text().unwrap();
    assert!(text.contains("# WARNING: what is it?node = \"right\"\n"), "{text}");
}
