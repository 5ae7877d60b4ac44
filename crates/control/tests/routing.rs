//! Gateways, routes, neighbours, floating addresses and NAT: what is refused, with the words an
//! operator reads, and what a good file means.
#![allow(clippy::unwrap_used)] // also in the functions that tests share

mod file;

use std::net::Ipv4Addr;
use std::time::Duration;

use control::flags::{PortRange, Provision};
use control::model::Model;
use file::{flags, refused};

/// A node with everything in it; tests break one line of it or add one below.
const LEFT: &str = r#"vlan_interface = "eth0"
public_interface = "eth1"
routing_source_ip = "91.207.15.105"
dmz_cidr = ["10.128.0.0/24"]

[[network]]
name = "tenant1"
vlan = 100
cidr = "10.0.0.0/24"
gateway = "10.0.0.1"

[[network]]
name = "tenant2"
vlan = 102
cidr = "10.1.0.0/24"
gateway = "10.1.0.1"

[[vif]]
name = "vnet1"
network = "tenant1"
mac = "fa:16:3e:00:00:01"
addresses = ["10.0.0.3"]

[[neighbour]]
network = "tenant2"
address = "10.1.0.4"
mac = "fa:16:3e:00:00:06"

[[route]]
to = "192.168.0.0/16"
via = "10.1.0.9"

[[pool]]
name = "nova"
next_hop = "91.207.15.2"

[[floating_ip]]
address = "91.208.23.11"
fixed = "10.0.0.3"
pool = "nova"

[[floating_ip]]
address = "91.208.23.16"
fixed = "10.1.0.4"
"#;

fn model(text: &str) -> Model {
    Model::from_text(&flags(), "left.toml", text).unwrap()
}

fn changed(old: &str, new: &str) -> String {
    assert_eq!(LEFT.matches(old).count(), 1, "{old} must be in the file once");
    LEFT.replace(old, new)
}

/// What is said when `old` in [`LEFT`] reads `new`.
fn change(old: &str, new: &str) -> String {
    refused(&changed(old, new))
}

/// What is said when `line` stands above [`LEFT`], which moves by one line.
fn set(line: &str) -> String {
    refused(&format!("{line}\n{LEFT}"))
}

/// What is said when `more` stands below [`LEFT`], which has 44 lines.
fn add(more: &str) -> String {
    refused(&format!("{LEFT}{more}"))
}

#[test]
fn a_good_file_means_what_it_says() {
    let model = model(LEFT);
    let [one, two] = &model.floats[..] else { panic!("{:?}", model.floats) };
    assert_eq!((one.vif, one.network, one.nic.as_str()), (Some(0), Some(0), "eth1"));
    assert_eq!(one.next_hop, Some(Ipv4Addr::new(91, 207, 15, 2)));
    // Its VM is on another node.
    assert_eq!((two.vif, two.network, two.next_hop), (None, Some(1), None));
    assert_eq!((model.routes[0].network, model.neighbours[0].network), (1, 1));
    assert_eq!(model.nat.exempt, ["10.128.0.0/24".parse().unwrap()]);
    assert_eq!(model.nat.ports, PortRange { first: 20_000, last: 45_999 });
    assert_eq!((model.provision, model.announcements), (Provision::Eager, 3));
    let network = &model.networks[0];
    assert!(!network.shared && !network.public && network.clamp_mss.is_none());
    let timeouts = model.tuning.timeouts;
    let seconds = [timeouts.tcp_established, timeouts.tcp_transitory, timeouts.udp, timeouts.icmp];
    assert_eq!(seconds, [7440, 240, 300, 60].map(Duration::from_secs));
    let limits = model.vifs[0].limits.compile(4);
    assert_eq!((limits.connections, limits.opening_cost), (65_536, 0));
    assert_eq!((limits.shared, limits.macs), (13_000, 256));
    assert_eq!(model.warnings, [""; 0]);
}

#[test]
fn every_setting_is_taken_from_the_file() {
    let settings = "share_dhcp_address = true\nprovision = \"on-demand\"\n\
        force_snat_range = [\"192.0.2.0/24\", \"198.51.100.0/24\"]\n\
        metadata_host = \"10.99.0.1\"\nsnat_ports = \"30000-39999\"\n\
        send_arp_for_ha = false\ntcp_pickup = false\nvif_connections = 1000\nudp_timeout = 120\n\
        vif_connection_rate = 2000\nvif_macs = 7\n";
    let model = model(&format!("{settings}{LEFT}"));
    assert!(model.networks.iter().all(|network| network.shared));
    assert_eq!(model.provision, Provision::OnDemand);
    assert_eq!(model.nat.forced.len(), 2);
    assert_eq!(model.nat.exempt[1], "10.99.0.1/32".parse().unwrap());
    assert_eq!(model.nat.ports, PortRange { first: 30_000, last: 39_999 });
    let limits = model.vifs[0].limits;
    assert_eq!((model.announcements, limits.connections, limits.macs), (0, 1000, 7));
    assert_eq!((limits.compile(1).opening_cost, limits.compile(4).opening_cost), (500, 2000));
    assert_eq!(limits.snat_ports, 5000, "half of what there is");
    assert!(!model.nat.pickup);
    assert_eq!(model.warnings, [""; 0]);
}

#[test]
fn one_network_may_share_its_gateway_address_and_a_node_all() {
    let text = changed("vlan = 102", "vlan = 102\nshare_address = true\nclamp_mss = 1360");
    let networks = model(&text).networks;
    assert_eq!((networks[0].shared, networks[1].shared), (false, true));
    assert_eq!(networks[1].clamp_mss, Some(1360));
    // As in nova the node's setting wins.
    let text = text.replace("share_address = true", "share_address = false");
    assert!(model(&format!("share_dhcp_address = true\n{text}")).networks[1].shared);
    assert_eq!(
        change("vlan = 102", "vlan = 102\nclamp_mss = 100"),
        "left.toml:15: clamp_mss is 100: use 536 to 8960 bytes"
    );
}

#[test]
fn the_gateway_may_be_one_node_or_a_router_but_not_two_things() {
    let of = |host: &str| {
        let text = changed("vlan = 102", &format!("vlan = 102\nhost = \"{host}\""));
        model(&text.replace("10.1.0.9", "10.0.0.9")).networks[1].gateway
    };
    assert_eq!(of("left"), Some(Ipv4Addr::new(10, 1, 0, 1)));
    assert_eq!(of("right"), None);
    assert_eq!(
        change("gateway = \"10.1.0.1\"", "host = \"left\""),
        "left.toml:16: network 'tenant2' names a host for no gateway"
    );
    let router = |line: &str| change("gateway = \"10.1.0.1\"", line);
    assert_eq!(
        router("gateway = \"10.1.0.1\"\nexternal_gateway = \"10.1.0.2\""),
        "left.toml:17: network 'tenant2' has a gateway on this node and another one: leave one of \
         them out"
    );
    assert_eq!(
        router("external_gateway = \"10.2.0.2\""),
        "left.toml:16: external_gateway 10.2.0.2 is not in 10.1.0.0/24"
    );
    assert_eq!(
        router("external_gateway = \"10.1.0.255\""),
        "left.toml:16: external_gateway 10.1.0.255 is no station's address in 10.1.0.0/24"
    );
    let bridged = changed("cidr = \"10.1.0.0/24\"\ngateway = \"10.1.0.1\"", "");
    assert_eq!(
        refused(&bridged.replace("vlan = 102", "vlan = 102\nexternal_gateway = \"10.1.0.2\"")),
        "left.toml:15: network 'tenant2' has an external_gateway but no cidr for it"
    );
}

#[test]
fn a_vm_cannot_have_the_address_of_a_gateway_wherever_that_is() {
    let vif = "[[vif]]\nname = \"v\"\nnetwork = \"tenant2\"\nmac = \"fa:16:3e:00:00:09\"\n\
               addresses = [\"10.1.0.1\"]\n";
    let told = "left.toml:49: 10.1.0.1 is the gateway of network 'tenant2' (line 12)";
    assert_eq!(add(vif), told);
    let router = changed("gateway = \"10.1.0.1\"", "external_gateway = \"10.1.0.1\"");
    assert_eq!(refused(&format!("{router}{vif}")), told);
    let elsewhere = changed("gateway = \"10.1.0.1\"", "gateway = \"10.1.0.1\" \nhost = \"right\"");
    assert_eq!(refused(&format!("{elsewhere}{vif}")), told.replace(":49", ":50"));
}

#[test]
fn a_route_leads_by_a_router_in_a_network_of_its_zone() {
    assert_eq!(
        change("via = \"10.1.0.9\"", "via = \"10.7.0.9\""),
        "left.toml:31: 10.7.0.9 is in no network of zone 'default': a router must be a neighbour"
    );
    assert_eq!(
        change("via = \"10.1.0.9\"", "via = \"10.1.0.9\"\nzone = \"blue\""),
        "left.toml:31: 10.1.0.9 is in no network of zone 'blue': a router must be a neighbour"
    );
    assert_eq!(
        change("via = \"10.1.0.9\"", "via = \"10.1.0.1\""),
        "left.toml:31: 10.1.0.1 is the gateway of network 'tenant2' (line 12), this node: name \
         another router"
    );
    let to = |prefix: &str| change("to = \"192.168.0.0/16\"", &format!("to = \"{prefix}\""));
    assert_eq!(
        to("192.168.1.0/16"),
        "left.toml:30: 192.168.1.0/16 is no prefix: write 192.168.0.0/16"
    );
    assert_eq!(
        to("10.0.0.0/24"),
        "left.toml:30: 10.0.0.0/24 is network 'tenant1' (line 6), which needs no router"
    );
    assert_eq!(
        add("[[route]]\nto = \"192.168.0.0/16\"\nvia = \"10.0.0.9\"\n"),
        "left.toml:46: there is a route to 192.168.0.0/16 already (line 29)"
    );
}

#[test]
fn a_told_neighbour_is_nobody_else() {
    let told = |address: &str, mac: &str| {
        add(&format!(
            "[[neighbour]]\nnetwork = \"tenant1\"\naddress = \"{address}\"\nmac = \"{mac}\"\n"
        ))
    };
    assert_eq!(
        told("10.0.0.3", "fa:16:3e:00:00:09"),
        "left.toml:47: 10.0.0.3 is vif 'vnet1' (line 18)"
    );
    assert_eq!(
        told("10.0.0.1", "fa:16:3e:00:00:09"),
        "left.toml:47: 10.0.0.1 is the gateway of network 'tenant1' (line 6), this node"
    );
    assert_eq!(
        told("10.1.0.9", "fa:16:3e:00:00:09"),
        "left.toml:47: 10.1.0.9 is not in 10.0.0.0/24 of network 'tenant1' (line 6)"
    );
    assert_eq!(
        told("10.0.0.9", "ff:ff:ff:ff:ff:ff"),
        "left.toml:48: mac ff:ff:ff:ff:ff:ff is a group's, not a station's: the first byte of a \
         station's is even"
    );
    assert_eq!(
        add(
            "[[neighbour]]\nnetwork = \"tenant2\"\naddress = \"10.1.0.4\"\nmac = \"fa:16:3e:00:00:09\"\n"
        ),
        "left.toml:47: 10.1.0.4 is told already (line 24)"
    );
    // One file for all nodes tells of this one's VMs too.
    let own = format!(
        "{LEFT}[[neighbour]]\nnetwork = \"tenant1\"\naddress = \"10.0.0.3\"\nmac = \"fa:16:3e:00:00:01\"\n"
    );
    assert_eq!(model(&own).neighbours.len(), 1);
}

#[test]
fn a_floating_address_is_public_and_of_one_vm() {
    let float = |address: &str, fixed: &str| {
        add(&format!("[[floating_ip]]\naddress = \"{address}\"\nfixed = \"{fixed}\"\n"))
    };
    assert_eq!(
        float("91.208.23.11", "10.0.0.9"),
        "left.toml:46: 91.208.23.11 is there already (line 37)"
    );
    for (fixed, float_of, line) in [("10.0.0.3", 11, 37), ("10.1.0.4", 16, 42)] {
        assert_eq!(
            float("91.208.23.12", fixed),
            format!(
                "left.toml:47: {fixed} has a floating address already, 91.208.23.{float_of} (line \
                 {line}): a VM's address can have one"
            )
        );
    }
    assert_eq!(
        float("91.207.15.105", "10.0.0.9"),
        "left.toml:46: 91.207.15.105 is routing_source_ip, which is shared by all"
    );
    assert_eq!(
        float("10.0.0.77", "10.0.0.9"),
        "left.toml:46: 10.0.0.77 is in network 'tenant1' (line 6)"
    );
    assert_eq!(
        add(
            "[[floating_ip]]\naddress = \"91.208.23.12\"\nfixed = \"10.1.0.9\"\nnetwork = \"tenant1\"\n"
        ),
        "left.toml:47: 10.1.0.9 is not in 10.0.0.0/24 of network 'tenant1' (line 6)"
    );
}

#[test]
fn a_fixed_address_of_two_zones_needs_its_network() {
    let blue =
        "[[network]]\nname = \"blue\"\nvlan = 103\ncidr = \"10.0.0.0/24\"\nzone = \"blue\"\n";
    assert_eq!(
        add(blue),
        "left.toml:39: 10.0.0.3 may be in 'tenant1' or 'blue': say which, network = \"tenant1\""
    );
    // The VM at 10.0.0.3 of the other zone is on another node: not vnet1.
    let text = changed("pool = \"nova\"", "pool = \"nova\"\nnetwork = \"blue\"");
    let model = model(&format!("{text}{blue}"));
    assert_eq!((model.floats[0].network, model.floats[0].vif), (Some(2), None));
}

#[test]
fn a_floating_address_needs_a_public_nic_and_a_pool_that_is_there() {
    assert_eq!(
        change("public_interface = \"eth1\"", ""),
        "left.toml:40: 91.208.23.11 has no NIC to be answered for on: set public_interface, or a \
         pool with one"
    );
    assert_eq!(
        change("pool = \"nova\"", "pool = \"nvoa\""),
        "left.toml:40: there is no pool 'nvoa' (did you mean 'nova'?)"
    );
    assert_eq!(add("[[pool]]\nname = \"nova\"\n"), "left.toml:46: pool 'nova' is already there");
    let text = changed("name = \"nova\"", "name = \"nova\"\ninterface = \"eth2\"");
    let model = model(&text);
    assert_eq!(model.floats[0].nic, "eth2");
    assert!(model.nics.iter().any(|nic| nic.name == "eth2" && nic.public && !nic.trunk));
    let flat =
        "[[network]]\nname = \"f\"\nkind = \"flat\"\nbridge = \"br9\"\ninterface = \"eth2\"\n";
    assert_eq!(
        refused(&format!("{text}{flat}")),
        "left.toml:41: pool interface eth2 carries network 'f' (line 46) untagged: it cannot be \
         the provider's too"
    );
}

#[test]
fn ranges_are_prefixes_and_ports_leave_room() {
    assert_eq!(
        set("force_snat_range = [\"192.0.2.1/24\"]"),
        "left.toml:1: 192.0.2.1/24 is no prefix: write 192.0.2.0/24"
    );
    assert_eq!(
        set("snat_ports = \"100-9000\""),
        "left.toml:1: snat_ports: '100-9000' must have 1000 ports or more, none of them below 1024"
    );
    assert_eq!(
        set("provision = \"on_demand\""),
        "left.toml:1: provision: 'on_demand' is none of eager, on-demand (did you mean \
         'on-demand'?)"
    );
    assert_eq!(set("udp_timeout = 0"), "left.toml:1: udp_timeout is 0: use 1 to 2592000 seconds");
    assert_eq!(set("vif_connections = 0"), "left.toml:1: vif_connections is 0: use 1 to 16000000");
    assert_eq!(
        set("send_arp_for_ha_count = 1000"),
        "left.toml:1: send_arp_for_ha_count is 1000: use 1 to 60, or send_arp_for_ha = false"
    );
}

#[test]
fn what_is_allowed_and_probably_not_meant_is_warned_of() {
    let warned = |line: &str| model(&format!("{line}\n{LEFT}")).warnings;
    assert_eq!(
        warned("fixed_range = \"10.0.0.0/8\""),
        ["fixed_range = 10.0.0.0/8 translates all tenants as one range, as nova did before \
          Grizzly: leave it out to have each network by itself"]
    );
    assert_eq!(
        warned("tcp_established_timeout = 300\nicmp_timeout = 60"),
        [
            "tcp_established_timeout = 300 is less than the 7440 seconds that RFC 5382 asks of a NAT: \
          silent connections break"
        ]
    );
    let text = changed("routing_source_ip = \"91.207.15.105\"", "");
    assert_eq!(
        model(&text).warnings,
        ["routing_source_ip is not set: VMs without a floating address do not reach the public \
          side"]
    );
}

#[test]
fn all_but_the_shared_source_address_its_ports_and_the_timeouts_may_change_in_a_reload() {
    let old = model(LEFT);
    let text = changed("91.208.23.16", "91.208.23.17").replace("10.1.0.9", "10.0.0.9");
    let settings = "provision = \"on-demand\"\nsend_arp_for_ha = false\nvif_connections = 9\n\
                    fixed_range = \"10.0.0.0/8\"\ntcp_pickup = false\n";
    assert_eq!(old.restart_needed(&model(&format!("{settings}{text}"))), [""; 0]);
    let text = format!("snat_ports = \"30000-40000\"\nudp_timeout = 200\n{LEFT}");
    assert_eq!(
        old.restart_needed(&model(&text.replace(".15.105", ".15.107"))),
        ["routing_source_ip", "snat_ports", "the connections' timeouts"]
    );
}
