//! What is refused, with the words an operator reads, and what a good file means.
#![allow(clippy::unwrap_used)] // also in the functions that tests share

use std::time::Duration;

use control::flags::{Cores, Flags, Hook, NetworkKind, XdpMode};
use control::model::{Model, StaticPort};

/// A node with everything in it; tests break one line of it or add one below.
const LEFT: &str = r#"vlan_interface = "eth0"
public_interface = "eth1"
routing_source_ip = "91.207.15.105"

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

[[vif]]
name = "vnet3"
network = "tenant2"
mac = "fa:16:3e:00:00:03"

[[fdb]]
network = "tenant1"
mac = "fa:16:3e:00:00:06"
port = "trunk"
"#;

fn flags() -> Flags {
    Flags { node: Some("left".into()), ..Flags::default() }
}

fn refused(text: &str) -> String {
    refused_with(&flags(), text)
}

fn refused_with(flags: &Flags, text: &str) -> String {
    Model::from_text(flags, "left.toml", text).unwrap_err().to_string()
}

/// What is said when `old` in [`LEFT`] reads `new`.
fn change(old: &str, new: &str) -> String {
    assert_eq!(LEFT.matches(old).count(), 1, "{old} must be in the file once");
    refused(&LEFT.replace(old, new))
}

/// What is said when `more` stands below [`LEFT`], which has 31 lines.
fn add(more: &str) -> String {
    refused(&format!("{LEFT}{more}"))
}

#[test]
fn a_good_file_means_what_it_says() {
    let model = Model::from_text(&flags(), "left.toml", LEFT).unwrap();
    assert_eq!(model.node, "left");
    assert_eq!(model.control_socket.to_str(), Some("/run/trunkline/left.sock"));
    let nics: Vec<_> = model.nics.iter().map(|n| (n.name.as_str(), n.trunk, n.public)).collect();
    assert_eq!(nics, [("eth0", true, false), ("eth1", false, true)]);
    let tenant1 = &model.networks[0];
    assert_eq!((tenant1.kind, tenant1.vlan), (NetworkKind::Vlan, Some(100)));
    assert_eq!((tenant1.uplink.as_str(), tenant1.bridge.as_str()), ("eth0", "br100"));
    assert_eq!((tenant1.zone.as_str(), tenant1.mtu, tenant1.fdb_limit), ("default", 1500, 4096));
    assert_eq!(model.vifs[1].network, 1);
    assert!(model.vifs[1].addresses.is_empty());
    assert_eq!(model.static_fdb[0].port, StaticPort::Trunk);
    let tuning = &model.tuning;
    assert_eq!((tuning.rings, tuning.batch, tuning.connections), (1024, 32, 250_000));
    assert_eq!((tuning.punt_rate, tuning.punt_burst), (100_000, 4096));
    assert_eq!((tuning.xdp_mode, tuning.hook, tuning.vif_hook), Default::default());
    assert_eq!(tuning.fdb_ageing, Duration::from_secs(300));
    assert_eq!(model.mtu_on("eth0"), Some(1500));
    assert_eq!(model.mtu_on("eth1"), None);
}

#[test]
fn a_flag_wins_over_the_file_and_takes_the_blame() {
    let text = format!("rings = 4096\nhook = \"xdp\"\ncores = \"0,2-3\"\n{LEFT}");
    let flags = Flags { hook: Some(Hook::Tc), xdp_mode: Some(XdpMode::Copy), ..flags() };
    let model = Model::from_text(&flags, "left.toml", &text).unwrap();
    assert_eq!((model.tuning.rings, model.tuning.hook), (4096, Hook::Tc));
    assert_eq!(model.tuning.xdp_mode, XdpMode::Copy);
    assert_eq!(model.tuning.cores, [0, 2, 3]);
    let flags = Flags { batch: Some(64), ..flags };
    assert_eq!(refused_with(&flags, &text), "--batch: batch is 64: use 1 to 32");
    let flags = Flags { batch: None, rings: Some(1000), ..flags };
    assert_eq!(
        refused_with(&flags, &text),
        "--rings: rings is 1000: use a power of two, such as 1024"
    );
    assert_eq!(
        refused(&format!("busy_poll = 2000000\n{LEFT}")),
        "left.toml:1: busy_poll is 2000000: use 0 to 1000000"
    );
}

#[test]
fn nova_names_its_managers_by_class() {
    for (text, kind) in [
        ("nova.network.manager.VlanManager", NetworkKind::Vlan),
        ("nova.network.manager.FlatManager", NetworkKind::Flat),
        ("FlatDHCPManager", NetworkKind::FlatDhcp),
        ("flatdhcp", NetworkKind::FlatDhcp),
    ] {
        assert_eq!(text.parse(), Ok(kind));
    }
    assert_eq!(
        refused("network_manager = \"vlna\"\n"),
        "left.toml:1: network_manager: 'vlna' is none of vlan, flat, flatdhcp (did you mean \
         'vlan'?)"
    );
    assert_eq!(
        "auto,2".parse::<Cores>(),
        Err("'auto,2' is not a list of cores; write it like 0,2-3".into())
    );
    assert_eq!("0-2,1".parse::<Cores>(), Err("core 1 is twice in '0-2,1'".into()));
}

#[test]
fn a_typo_is_told_with_the_right_key() {
    assert_eq!(
        change("vlan_interface", "vlan_inteface"),
        "left.toml:1: unknown key 'vlan_inteface' (did you mean 'vlan_interface'?)"
    );
    assert_eq!(
        change("vlan = 102", "vlna = 102"),
        "left.toml:13: unknown key 'vlna' (did you mean 'vlan'?)"
    );
    assert_eq!(
        change("port = \"trunk\"", "dns_server = \"trunk\""),
        "left.toml:31: unknown key 'dns_server'; known are network, mac, port"
    );
    assert_eq!(add("[[vfi]]\n"), "left.toml:32: unknown key 'vfi' (did you mean 'vif'?)");
    assert_eq!(
        refused("[network]\nname = \"a\"\n"),
        "left.toml:1: 'network' is a list of tables: write [[network]] above each one"
    );
}

#[test]
fn a_wrong_type_is_told_with_its_key_and_line() {
    assert_eq!(
        change("vlan = 100", "vlan = \"100\""),
        "left.toml:7: vlan: invalid type: string \"100\", expected i64"
    );
    assert_eq!(
        change("cidr = \"10.1.0.0/24\"", "cidr = \"10.1.0.0\""),
        "left.toml:14: cidr: invalid IP address syntax"
    );
    assert_eq!(
        change("addresses = [\"10.0.0.3\"]", "addresses = [\"10.0.0.3\",\n\"10.0.0\"]"),
        "left.toml:22: addresses: invalid IPv4 address syntax"
    );
    assert_eq!(change("mac = \"fa:16:3e:00:00:03\"", ""), "left.toml:23: missing field 'mac'");
    assert_eq!(
        refused("workers = -1\n"),
        "left.toml:1: workers: invalid value: integer `-1`, expected u16"
    );
}

#[test]
fn a_file_that_is_not_there_or_not_text_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("left.toml");
    let flags = Flags { config: Some(path.clone()), ..flags() };
    assert_eq!(
        Model::load(&flags).unwrap_err().to_string(),
        format!("{}: cannot be read: No such file or directory (os error 2)", path.display())
    );
    std::fs::write(&path, b"# one\n# two \xff\n").unwrap();
    assert_eq!(
        Model::load(&flags).unwrap_err().to_string(),
        format!("{}:2: not UTF-8", path.display())
    );
    std::fs::write(&path, "vlan_interface = \"eth0\n").unwrap();
    assert!(
        Model::load(&flags)
            .unwrap_err()
            .to_string()
            .starts_with(&format!("{}:1: invalid basic string", path.display()))
    );
    std::fs::write(&path, LEFT).unwrap();
    let model = Model::load(&flags).unwrap();
    assert_eq!(model.config, Some(path));
}

#[test]
fn a_vlan_is_1_to_4094_and_once_per_trunk() {
    assert_eq!(
        change("vlan = 100", "vlan = 0"),
        "left.toml:7: vlan 0 means a frame without a VLAN: use 1 to 4094"
    );
    assert_eq!(
        change("vlan = 100", "vlan = 4095"),
        "left.toml:7: vlan 4095 is reserved (IEEE 802.1Q): use 1 to 4094"
    );
    assert_eq!(
        change("vlan = 100", "vlan = -5"),
        "left.toml:7: there is no vlan -5: use 1 to 4094"
    );
    assert_eq!(
        change("vlan = 102", "vlan = 100"),
        "left.toml:13: vlan 100 on eth0 is already network 'tenant1' (line 5): give 'tenant2' \
         another vlan or another interface"
    );
    assert_eq!(
        change("vlan = 102", ""),
        "left.toml:11: network 'tenant2' is a vlan network without a vlan: set vlan = 1 to 4094, \
         or kind = \"flat\" or \"flatdhcp\""
    );
    let twice = LEFT.replace("vlan = 102", "vlan = 100\ninterface = \"eth2\"\nbridge = \"br100b\"");
    let model = Model::from_text(&flags(), "left.toml", &twice).unwrap();
    assert_eq!(model.networks[1].uplink, "eth2");
    assert!(model.nics.iter().any(|nic| nic.name == "eth2" && nic.trunk));
    assert_eq!(
        change("vlan_interface = \"eth0\"", ""),
        "left.toml:5: network 'tenant1' needs a trunk: set vlan_interface (--vlan-interface), or \
         interface in this [[network]]"
    );
}

#[test]
fn a_flat_network_is_untagged_and_needs_a_bridge_name() {
    let flat = "[[network]]\nname = \"shared\"\nkind = \"flat\"\n";
    assert_eq!(
        add(flat),
        "left.toml:32: network 'shared' has no bridge: --flat-network-bridge \
         (flat_network_bridge), or bridge in this [[network]], is required to create a flat network"
    );
    let own = format!("{LEFT}{flat}bridge = \"br0\"\n");
    let model = Model::from_text(&flags(), "left.toml", &own).unwrap();
    let shared = &model.networks[2];
    assert_eq!(
        (shared.vlan, shared.uplink.as_str(), shared.bridge.as_str()),
        (None, "eth0", "br0")
    );
    let flags = Flags { flat_network_bridge: Some("br1".into()), ..flags() };
    let model = Model::from_text(&flags, "left.toml", &format!("{LEFT}{flat}")).unwrap();
    assert_eq!(model.networks[2].bridge, "br1");
    assert_eq!(
        add(&format!("{flat}bridge = \"br0\"\nvlan = 7\n")),
        "left.toml:36: network 'shared' is flat, so it travels untagged: leave out vlan = 7, or \
         set kind = \"vlan\""
    );
    assert_eq!(
        add(&format!("{flat}bridge = \"br0\"\ncidr = \"10.5.0.0/24\"\ngateway = \"10.5.0.1\"\n")),
        "left.toml:37: network 'shared' is flat, where nothing is configured on this node: leave \
         out the gateway, or set kind = \"flatdhcp\""
    );
    assert_eq!(
        add(&format!(
            "{flat}bridge = \"br0\"\n[[network]]\nname = \"b\"\nkind = \"flatdhcp\"\nbridge = \"br1\"\n"
        )),
        "left.toml:36: network 'b' is untagged on eth0, and so is 'shared' (line 32): their frames \
         could not be told apart; give one of them another interface or a vlan"
    );
    assert_eq!(
        add(&format!("{flat}bridge = \"br0\"\ninterface = \"eth1\"\n")),
        "left.toml:36: network 'shared' is flat on eth1, which is also the public_interface: \
         untagged frames there cannot be the tenants' and the host's; use another NIC for one of \
         the two"
    );
}

#[test]
fn one_nic_may_be_trunk_and_public() {
    let text = LEFT.replace("public_interface = \"eth1\"", "public_interface = \"eth0\"");
    let model = Model::from_text(&flags(), "left.toml", &text).unwrap();
    assert_eq!(model.nics.len(), 1);
    assert!(model.nics[0].trunk && model.nics[0].public);
}

#[test]
fn a_bridge_name_leaves_room_for_its_port() {
    assert_eq!(
        change("vlan = 102", "vlan = 102\nbridge = \"tenants-of-02\""),
        "left.toml:14: bridge 'tenants-of-02' is too long: at most 12 bytes, so that \
         'tenants-of-02-tl' still names an interface"
    );
    assert_eq!(
        change("vlan = 102", "vlan = 102\nbridge = \"br100\""),
        "left.toml:14: 'br100' is the bridge of network 'tenant2', but it is already the bridge of \
         network 'tenant1'"
    );
    assert_eq!(
        change("vlan = 102", "vlan = 102\nbridge = \"eth1\""),
        "left.toml:14: 'eth1' is the bridge of network 'tenant2', but it is already a NIC"
    );
    let flags = Flags { flat_network_bridge: Some("a/b".into()), ..flags() };
    assert_eq!(
        refused_with(&flags, "[[network]]\nname = \"a\"\nkind = \"flatdhcp\"\n"),
        "--flat-network-bridge: 'a/b' cannot name an interface"
    );
}

#[test]
fn a_subnet_is_a_subnet_and_overlaps_none_of_its_zone() {
    assert_eq!(
        change("cidr = \"10.1.0.0/24\"", "cidr = \"10.0.0.0/16\""),
        "left.toml:15: gateway 10.1.0.1 is not in 10.0.0.0/16"
    );
    let overlap = LEFT.replace("10.1.0.", "10.0.0.");
    assert_eq!(
        refused(&overlap),
        "left.toml:14: 10.0.0.0/24 overlaps 10.0.0.0/24 of network 'tenant1' (line 5) in zone \
         'default': give 'tenant2' another subnet or another zone"
    );
    let zones = overlap.replace("vlan = 102", "vlan = 102\nzone = \"blue\"");
    assert_eq!(Model::from_text(&flags(), "left.toml", &zones).unwrap().networks[1].zone, "blue");
    assert_eq!(
        change("cidr = \"10.0.0.0/24\"", "cidr = \"10.0.0.3/24\""),
        "left.toml:8: 10.0.0.3/24 is an address in a subnet: write the subnet, 10.0.0.0/24"
    );
    assert_eq!(
        change("cidr = \"10.0.0.0/24\"", "cidr = \"10.0.0.1/32\""),
        "left.toml:8: 10.0.0.1/32 has no room for VMs: use /1 to /30"
    );
    assert_eq!(
        change("gateway = \"10.0.0.1\"", "gateway = \"10.0.0.255\""),
        "left.toml:9: gateway 10.0.0.255 is the broadcast address of 10.0.0.0/24"
    );
    assert_eq!(
        change("cidr = \"10.1.0.0/24\"\n", ""),
        "left.toml:14: network 'tenant2' has a gateway but no cidr for it"
    );
    assert_eq!(
        change("vlan = 102", "vlan = 102\nmtu = 1279"),
        "left.toml:14: mtu is 1279: use 1280 to 9000 bytes"
    );
    assert_eq!(
        change("vlan = 102", "vlan = 102\nfdb_limit = 0"),
        "left.toml:14: fdb_limit is 0: use 1 to 1000000"
    );
    assert_eq!(
        change("name = \"tenant2\"", "name = \"tenant1\""),
        "left.toml:12: network 'tenant1' is already there (line 5)"
    );
}

#[test]
fn a_vif_has_its_own_name_mac_and_addresses() {
    assert_eq!(
        change("name = \"vnet3\"", "name = \"vnet1\""),
        "left.toml:24: 'vnet1' is a vif (line 23), but it is already a vif (line 17)"
    );
    assert_eq!(
        change("name = \"vnet3\"", "name = \"eth0\""),
        "left.toml:24: 'eth0' is a vif (line 23), but it is already a NIC"
    );
    assert_eq!(
        change("name = \"vnet3\"", "name = \"tl-punt1\""),
        "left.toml:24: 'tl-punt1' is the name of the punt link"
    );
    assert_eq!(
        change("name = \"vnet3\"", "name = \"tap0123456789abc\""),
        "left.toml:24: 'tap0123456789abc' is too long for an interface: at most 15 bytes"
    );
    assert_eq!(
        change("mac = \"fa:16:3e:00:00:03\"", "mac = \"fa:16:3e:00:00:01\""),
        "left.toml:26: mac fa:16:3e:00:00:01 is already vif 'vnet1' (line 17): two VMs cannot \
         share one"
    );
    assert_eq!(
        change("mac = \"fa:16:3e:00:00:03\"", "mac = \"01:00:5e:00:00:03\""),
        "left.toml:26: mac 01:00:5e:00:00:03 is a group's, not a station's: the first byte of a \
         station's is even"
    );
    assert_eq!(
        change("mac = \"fa:16:3e:00:00:03\"", "mac = \"00:00:00:00:00:00\""),
        "left.toml:26: mac 00:00:00:00:00:00 is no station's"
    );
    assert_eq!(
        change("mac = \"fa:16:3e:00:00:03\"", "mac = \"fa163e000003\""),
        "left.toml:26: 'fa163e000003' is not a MAC address; write it like fa:16:3e:00:00:01"
    );
    assert_eq!(
        change("network = \"tenant2\"", "network = \"tenant3\""),
        "left.toml:25: there is no network 'tenant3' (did you mean 'tenant1'?)"
    );
    let address =
        |address: &str| change("addresses = [\"10.0.0.3\"]", &format!("addresses = [{address}]"));
    assert_eq!(
        address("\"10.1.0.3\""),
        "left.toml:21: 10.1.0.3 is not in 10.0.0.0/24 of network 'tenant1' (line 5)"
    );
    assert_eq!(
        address("\"10.0.0.1\""),
        "left.toml:21: 10.0.0.1 is the gateway of network 'tenant1' (line 5)"
    );
    assert_eq!(
        address("\"10.0.0.0\""),
        "left.toml:21: 10.0.0.0 is the network address of 10.0.0.0/24, no VM can have it"
    );
    assert_eq!(
        address("\"10.0.0.255\""),
        "left.toml:21: 10.0.0.255 is the broadcast address of 10.0.0.0/24, no VM can have it"
    );
    assert_eq!(address("\"10.0.0.9\", \"10.0.0.9\""), "left.toml:21: 10.0.0.9 is there twice");
    assert_eq!(
        add(
            "[[vif]]\nname = \"v\"\nnetwork = \"tenant1\"\nmac = \"fa:16:3e:00:00:09\"\naddresses = [\"10.0.0.3\"]\n"
        ),
        "left.toml:36: 10.0.0.3 is already vif 'vnet1' (line 17)"
    );
    assert_eq!(
        change("cidr = \"10.0.0.0/24\"\ngateway = \"10.0.0.1\"", ""),
        "left.toml:20: network 'tenant1' (line 5) has no cidr for 10.0.0.3 to be in"
    );
}

#[test]
fn a_told_mac_is_behind_one_port_of_its_network() {
    assert_eq!(
        change("port = \"trunk\"", "port = \"vnet9\""),
        "left.toml:31: there is no port 'vnet9' (did you mean 'vnet1'?)"
    );
    assert_eq!(
        change("port = \"trunk\"", "port = \"uplink\""),
        "left.toml:31: there is no port 'uplink': name 'trunk' or a vif of this file"
    );
    assert_eq!(
        change("port = \"trunk\"", "port = \"vnet3\""),
        "left.toml:31: vif 'vnet3' is in network 'tenant2'"
    );
    assert_eq!(
        change("mac = \"fa:16:3e:00:00:06\"", "mac = \"fa:16:3e:00:00:01\""),
        "left.toml:30: mac fa:16:3e:00:00:01 is vif 'vnet1' (line 17), not behind another port"
    );
    assert_eq!(
        add("[[fdb]]\nnetwork = \"tenant1\"\nmac = \"fa:16:3e:00:00:06\"\nport = \"vnet1\"\n"),
        "left.toml:34: mac fa:16:3e:00:00:06 of network 'tenant1' is already told (line 28)"
    );
}

#[test]
fn a_node_needs_a_name_and_something_to_do() {
    assert_eq!(
        refused(""),
        "left.toml: nothing to do: name a NIC (vlan_interface, flat_interface or \
         public_interface) or write a [[network]]"
    );
    let flags = Flags { node: Some("../left".into()), ..Flags::default() };
    assert_eq!(
        refused_with(&flags, LEFT),
        "--node: '../left' cannot name a node: use 1 to 64 letters, digits, '-', '_' and '.', and \
         no '.' in front"
    );
    assert!(!Model::from_text(&Flags::default(), "left.toml", LEFT).unwrap().node.is_empty());
    assert_eq!(
        refused(&format!("workers = 4\ncores = \"1,2\"\n{LEFT}")),
        "left.toml:2: 2 cores for 4 workers: name one for each"
    );
}

#[test]
fn a_reload_may_change_networks_and_vifs_but_not_nics() {
    let old = Model::from_text(&flags(), "left.toml", LEFT).unwrap();
    let text = LEFT.replace("vnet3", "vnet4").replace("vlan = 102", "vlan = 103");
    let new = Model::from_text(&flags(), "left.toml", &format!("fdb_ageing = 60\n{text}")).unwrap();
    assert_eq!(old.restart_needed(&new), [""; 0]);
    let text = LEFT.replace("vlan = 102", "vlan = 102\ninterface = \"eth2\"");
    let text = format!("hook = \"tc\"\nconnections = 9\nworkers = 2\n{text}");
    let new = Model::from_text(&flags(), "left.toml", &text).unwrap();
    assert_eq!(old.restart_needed(&new), ["the NICs in use", "workers", "hook", "connections"]);
}

mod any_text {
    use super::{LEFT, Model, flags};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_taken_or_refused_but_never_panics(text in "(?s).{0,300}") {
            let _ = Model::from_text(&flags(), "left.toml", &text);
        }

        #[test]
        fn of_our_own_words_is_taken_or_refused(
            words in proptest::collection::vec(
                proptest::sample::select(vec![
                    "[[network]]", "[[vif]]", "[[fdb]]", "[", "]", "\n", "name", "vlan", " = ",
                    "\"eth0\"", "100", "4095", "-1", "\"10.0.0.0/24\"", "cidr", "gateway", "mac",
                    "\"fa:16:3e:00:00:01\"", "addresses", "[\"10.0.0.1\"]", "kind", "\"flat\"",
                    "[[floating_ip]]", "[[route]]", "to", "via", "address", "fixed", "dmz_cidr",
                    "bridge", "é", "'''", "{", "}", ".", "hook", "1e400", "mtu", "interface",
                ]),
                0..80,
            ),
        ) {
            let _ = Model::from_text(&flags(), "left.toml", &words.concat());
        }

        #[test]
        fn that_is_nearly_right_is_taken_or_refused(
            at in 0..LEFT.len(),
            length in 0usize..12,
            new in "(?s).{0,6}",
        ) {
            // The file is ASCII, so every cut is between characters.
            let end = (at + length).min(LEFT.len());
            let _ = Model::from_text(
                &flags(), "left.toml", &format!("{}{new}{}", &LEFT[..at], &LEFT[end..]),
            );
        }
    }
}
