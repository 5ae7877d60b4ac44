//! What `adopt` reads off the lab's Linux nodes is what the lab was built as, and it changes
//! nothing.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod lab;

use std::process::Command;

use control::flags::Flags;
use control::model::Model;
use lab::Lab;

const PROGRAM: &str = env!("CARGO_BIN_EXE_trunkline");

/// A node of the lab, as told by `tools/lab.d/layout.sh`.
struct Node {
    name: &'static str,
    /// Tag, bridge, subnet, gateway.
    networks: &'static [(Option<u16>, &'static str, &'static str, &'static str)],
    /// Interface, bridge, MAC, address.
    vifs: &'static [(&'static str, &'static str, &'static str, &'static str)],
    /// Floating and fixed address.
    float: (&'static str, &'static str),
    source: &'static str,
    /// How many rules each of its VMs has, but for the own network and DHCP.
    rules: usize,
}

const LEFT: Node = Node {
    name: "left",
    networks: &[
        (Some(100), "br100", "10.0.0.0/24", "10.0.0.1"),
        (Some(102), "br102", "10.1.0.0/24", "10.1.0.1"),
    ],
    vifs: &[
        ("vnet1", "br100", "fa:16:3e:00:00:01", "10.0.0.3"),
        ("vnet2", "br100", "fa:16:3e:00:00:02", "10.0.0.4"),
        ("vnet3", "br102", "fa:16:3e:00:00:03", "10.1.0.3"),
    ],
    float: ("91.208.23.11", "10.0.0.3"),
    source: "91.207.15.105",
    rules: 3,
};

const RIGHT: Node = Node {
    name: "right",
    networks: &[
        (Some(100), "br100", "10.0.0.0/24", "10.0.0.5"),
        (Some(102), "br102", "10.1.0.0/24", "10.1.0.5"),
    ],
    vifs: &[
        ("vnet4", "br100", "fa:16:3e:00:00:04", "10.0.0.6"),
        ("vnet5", "br100", "fa:16:3e:00:00:05", "10.0.0.7"),
        ("vnet6", "br102", "fa:16:3e:00:00:06", "10.1.0.4"),
    ],
    float: ("91.208.23.16", "10.1.0.4"),
    source: "91.207.15.106",
    rules: 3,
};

const FLAT: Node = Node {
    name: "left",
    networks: &[(None, "br100", "10.0.0.0/24", "10.0.0.1")],
    vifs: &[
        ("vnet1", "br100", "fa:16:3e:00:00:01", "10.0.0.3"),
        ("vnet2", "br100", "fa:16:3e:00:00:02", "10.0.0.4"),
        ("vnet3", "br100", "fa:16:3e:00:00:03", "10.0.0.8"),
    ],
    float: ("91.208.23.11", "10.0.0.3"),
    source: "91.207.15.105",
    rules: 2,
};

/// What `adopt` prints on a node.
fn adopt(lab: &Lab, node: &Node) -> String {
    lab.run(node.name, PROGRAM, &["adopt", "--dry-run", "--node", node.name])
}

/// The model of what was printed, which `run --check` takes as well.
fn model(text: &str) -> Model {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let path = file.path().to_str().unwrap();
    let check = Command::new(PROGRAM).args(["run", "--check", "--config", path]).output().unwrap();
    assert!(check.status.success(), "{check:?} of {text}");
    Model::from_text(&Flags::default(), "adopted.toml", text).unwrap()
}

/// Its VMs speak to their gateway and to the world, as VMs do.
fn speak(lab: &Lab, node: &Node) {
    for (vif, bridge, ..) in node.vifs {
        let network = node.networks.iter().find(|network| network.1 == *bridge).unwrap();
        let vm = vif.replace("vnet", "vm");
        lab.pings(&vm, network.3);
        lab.pings(&vm, "8.8.8.8");
    }
}

/// All that a dry run could have changed.
fn state(lab: &Lab, node: &str) -> Vec<String> {
    let show = |words: &[&str]| lab.run(node, words[0], &words[1..]);
    let rules = show(&["iptables-legacy-save"]);
    // Chains count, and the first line has the time.
    let rules = rules.lines().filter(|line| line.starts_with("-A")).collect::<Vec<_>>().join("\n");
    let ipv4 = ["ip", "-4", "addr"];
    vec![show(&["ip", "link"]), show(&ipv4), show(&["ip", "route"]), rules]
}

/// What `adopt` prints is what the lab was built as; returns it.
fn is_what_was_built(lab: &Lab, node: &Node) -> String {
    speak(lab, node);
    let before = state(lab, node.name);
    let text = adopt(lab, node);
    assert_eq!(state(lab, node.name), before);
    let model = model(&text);
    assert_eq!(model.node, node.name);
    let networks: Vec<_> = model
        .networks
        .iter()
        .map(|it| {
            let (cidr, gateway) = (it.cidr.unwrap().to_string(), it.gateway.unwrap().to_string());
            assert_eq!(it.uplink, "eth0");
            (it.vlan, it.bridge.clone(), cidr, gateway)
        })
        .collect();
    let expected = node.networks.iter().map(|(vlan, bridge, cidr, gateway)| {
        (*vlan, (*bridge).to_owned(), (*cidr).to_owned(), (*gateway).to_owned())
    });
    assert_eq!(networks, expected.collect::<Vec<_>>(), "{text}");
    let vifs: Vec<_> = model
        .vifs
        .iter()
        .map(|vif| {
            let bridge = model.networks[vif.network].bridge.clone();
            let [address] = vif.addresses[..] else { panic!("{vif:?} of {text}") };
            (vif.name.clone(), bridge, vif.mac.to_string(), address.to_string())
        })
        .collect();
    let expected = node.vifs.iter().map(|(name, bridge, mac, address)| {
        ((*name).to_owned(), (*bridge).to_owned(), (*mac).to_owned(), (*address).to_owned())
    });
    assert_eq!(vifs, expected.collect::<Vec<_>>(), "{text}");
    let [float] = &model.floats[..] else { panic!("{text}") };
    assert_eq!((float.address.to_string(), float.fixed.to_string()), {
        let (address, fixed) = node.float;
        (address.to_owned(), fixed.to_owned())
    });
    assert_eq!((float.nic.as_str(), float.vif.is_some()), ("eth1", true));
    assert_eq!(model.routing_source_ip.unwrap().to_string(), node.source);
    let nat = &model.nat;
    assert_eq!((nat.fixed_range, nat.exempt.len(), nat.forced.len()), (None, 0, 0));
    assert_eq!(nat.metadata.unwrap().to_string(), format!("{}:8775", node.source));
    // Three VMs asked 8.8.8.8 just now, one of them by its floating address.
    assert!(text.contains("translated among those: 3\n"), "{text}");
    for wrong in ["not understood", "not nova's", "left out", "no addresses"] {
        assert!(!text.contains(wrong), "{wrong} in {text}");
    }
    assert!(model.security.stands && model.security.same_net, "{text}");
    for vif in &model.vifs {
        let [group] = vif.groups[..] else { panic!("{vif:?} of {text}") };
        let rules = &model.security.groups[group as usize].rules;
        let words = |rule| control::describe::rule(rule, &model.security);
        let rules: Vec<String> = rules.iter().map(words).collect();
        assert_eq!(rules[..2], ["icmp from anybody", "tcp 22 from anybody"], "{text}");
        assert_eq!(rules.len(), node.rules, "{text}");
        assert!(rules[2..].iter().all(|rule| rule.starts_with("tcp 1-65535 from 10.")), "{text}");
    }
    // The lab has a cable for each VLAN, and none that carries both.
    let refused = "trunkline will not take the NIC: there is no NIC eth0";
    assert_eq!(text.contains(refused), node.networks[0].0.is_some(), "{text}");
    text
}

#[test]
fn vlans_of_linux_nodes_become_files_that_run_the_lab() {
    let nodes = [LEFT, RIGHT];
    let linux = Lab::up(&["--dataplane", "linux"]);
    let files: Vec<String> = nodes.iter().map(|node| is_what_was_built(&linux, node)).collect();
    drop(linux);
    // The same nodes again, with NICs in place of bridges.
    let lab = Lab::up(&[]);
    for (node, text) in nodes.iter().zip(&files) {
        std::fs::write(format!("/run/trunkline-lab/{}.toml", node.name), text).unwrap();
        lab.run(node.name, PROGRAM, &["ctl", "--node", node.name, "reload"]);
    }
    for node in &nodes {
        speak(&lab, node);
    }
    // Of one tenant, of another one, on this node and on the other; and in by a floating address.
    for (from, to) in [("vm1", "10.0.0.4"), ("vm1", "10.0.0.6"), ("vm1", "10.1.0.3")] {
        lab.pings(from, to);
    }
    lab.pings("vm1", "10.1.0.4");
    lab.pings("inet", RIGHT.float.0);
}

#[test]
fn a_flat_network_and_a_dnsmasq_are_found_too() {
    let lab = Lab::up(&["--dataplane", "linux", "--network-manager", "flatdhcp"]);
    lab.pings("vm1", "10.0.0.1");
    lab.pings("vm2", "10.0.0.1");
    // Heard by the bridge, and not by the node.
    lab.pings("vm3", "10.0.0.3");
    let silent = adopt(&lab, &FLAT);
    assert!(silent.contains("vnet3 on br100 has no addresses"), "{silent}");
    assert!(silent.contains("10.0.0.8 is a VM of this node (chain vm3)"), "{silent}");
    assert!(model(&silent).vifs[2].addresses.is_empty());
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("nova-br100.conf");
    std::fs::write(&hosts, "fa:16:3e:00:00:03,vm-3.novalocal,10.0.0.8\n").unwrap();
    let option = format!("--dhcp-hostsfile={}", hosts.display());
    let script = "exec -a dnsmasq sh -c 'while sleep 1; do :; done' \"$@\"";
    let _dnsmasq = lab.start("left", "bash", &["-c", script, "bash", &option]);
    std::thread::sleep(std::time::Duration::from_millis(200));
    let text = adopt(&lab, &FLAT);
    assert!(text.contains("DHCP and DNS of br100 are dnsmasq's"), "{text}");
    assert_eq!(model(&text).vifs[2].addresses, [std::net::Ipv4Addr::new(10, 0, 0, 8)]);
    let _ = is_what_was_built(&lab, &FLAT);
}

#[test]
fn without_bridges_or_a_changeover_it_says_what_to_do() {
    let refused = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for how in [&["adopt"][..], &["adopt", "--dry-run"], &["adopt", "--prepare"]] {
        let empty = refused("unshare", &[&["--net", PROGRAM], how].concat());
        let why = "no bridge of nova-network is in this network namespace";
        assert!(empty.contains(why), "{empty}");
    }
    let back = refused(PROGRAM, &["adopt", "--back", "--node", "nobody"]);
    assert!(back.contains("node nobody was not taken over from nova-network"), "{back}");
}
