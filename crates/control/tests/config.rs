//! What is refused, with the words an operator reads, and what a good file means.
#![allow(clippy::unwrap_used)] // also in the functions that tests share

mod file;

use std::time::Duration;

use control::flags::{Cores, Flags, Hook, NetworkKind, XdpMode};
use control::limits::VifLimits;
use control::model::{Model, StaticPort};
use file::*;

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
fn a_vif_may_have_other_limits_than_all_and_a_bad_one_is_told_by_its_line() {
    let own = "mac = \"fa:16:3e:00:00:01\"\nconnections = 9\nconnection_rate = 8\nflood_rate = 4\n\
               snat_ports = 7\nmacs = 6\npunt_rate = 5";
    let said = |own: &str| LEFT.replace("mac = \"fa:16:3e:00:00:01\"", own);
    let load = |own: &str| Model::from_text(&flags(), "left.toml", &said(own));
    let model = load(own).unwrap();
    let limits = |at: usize| model.vifs[at].limits;
    let limited = VifLimits {
        connections: 9,
        connection_rate: Some(8),
        flood_rate: 4,
        snat_ports: 7,
        macs: 6,
        punt_rate: 5,
    };
    let others = VifLimits {
        connections: 65_536,
        connection_rate: None,
        flood_rate: 1000,
        snat_ports: 13_000,
        macs: 256,
        punt_rate: 20_000,
    };
    assert_eq!((limits(0), limits(1)), (limited, others));
    for (key, most) in [("connections", 16_000_000), ("snat_ports", 65_536), ("macs", 1_000_000)] {
        let refused = load(&format!("mac = \"fa:16:3e:00:00:01\"\n{key} = 0")).unwrap_err();
        let words = format!("{key} is 0: use 1 to {most}");
        assert!(refused.to_string().ends_with(&words), "{refused}");
    }
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
