//! What an operator asks a node that routes, and what it answers.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod lab;

use lab::Lab;

const PROGRAM: &str = env!("CARGO_BIN_EXE_trunkline");

fn ask(lab: &Lab, words: &[&str]) -> String {
    lab.run("left", PROGRAM, words)
}

#[test]
fn routes_neighbours_nat_and_flows_are_told_and_flows_are_cut() {
    let lab = Lab::up(&[]);
    lab.pings("vm1", "10.1.0.4");
    lab.pings("vm2", "8.8.8.8");
    let ctl = |words: &[&str]| ask(&lab, &[&["ctl", "--node", "left"], words].concat());
    let routes = ctl(&["routes"]);
    for part in ["10.1.0.0/24", "network tenant2", "0.0.0.0/0", "via 91.207.15.1 on eth1"] {
        assert!(routes.contains(part), "{part}: {routes}");
    }
    let neighbours = ctl(&["neighbours"]);
    assert!(neighbours.contains("fa:16:3e:00:00:06"), "VM 6 was asked for: {neighbours}");
    let nat = ctl(&["nat"]);
    assert!(nat.contains("91.207.15.105, ports 20000-45999"), "{nat}");
    assert!(nat.contains("91.208.23.11") && nat.contains("active"), "{nat}");
    let flows = lab.ctl("left", &["flows", "icmp", "8.8.8.8"]);
    let flows = flows.as_array().unwrap();
    assert_eq!(flows.len(), 2, "{flows:?}");
    assert_eq!(flows[0]["direction"], "original");
    assert_eq!(flows[0]["new_source"]["address"], "91.207.15.105");
    let cut = ctl(&["flows", "--delete", "icmp", "8.8.8.8"]);
    assert!(cut.contains("1 connection"), "{cut}");
    assert_eq!(lab.ctl("left", &["flows", "icmp", "8.8.8.8"]).as_array().unwrap().len(), 0);
    let all = lab.exec("left", PROGRAM, &["ctl", "--node", "left", "flows", "--delete"]);
    assert!(!all.ok && all.text.contains("say which"), "{all:?}");
    lab.pings("vm2", "8.8.8.8");
    let vif = ctl(&["vif", "vnet1"]);
    assert!(vif.contains("10.0.0.3/24") && vif.contains("gateway    10.0.0.1"), "{vif}");
    let both = ctl(&["vif", "vnet1", "--interfaces"]);
    for part in ["iface eth0 inet static", "    gateway 10.0.0.1", "        - 10.0.0.3/24"] {
        assert!(both.contains(part), "{part}: {both}");
    }
    let one = ctl(&["vif", "vnet1", "--interfaces=netplan", "--interface-name", "ens3"]);
    assert!(one.contains("set-name: ens3") && !one.contains("iface"), "{one}");
    let none = lab.exec("left", PROGRAM, &["ctl", "--node", "left", "vif", "vnet9"]);
    assert!(
        !none.ok && none.text.contains("there is no vif 'vnet9'; there are: vnet1"),
        "{none:?}"
    );
}

#[test]
fn a_packet_is_explained_and_not_sent() {
    let lab = Lab::up(&[]);
    let wire = lab.capture("switch", "left-eth1", "udp");
    let explain = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        lab.exec("left", PROGRAM, &[&["explain", "--node", "left"], &words[..]].concat())
    };
    for (words, parts) in [
        (
            "vnet2 udp 10.0.0.4:40000 8.8.8.8:53",
            &["via 91.207.15.1 on eth1", "91.207.15.105", "forward by eth1", "TTL 63"][..],
        ),
        ("vnet1 udp 10.0.0.3:1 91.208.23.16:53", &["91.208.23.11, its floating address"]),
        ("vnet1 icmp 10.0.0.3 10.1.0.99", &["waits until 10.1.0.99 on network tenant2"]),
        ("vnet1 icmp 10.0.0.3 8.8.8.8 ttl 1", &["answered, back by vnet1", "10.0.0.1 to 10.0.0.3"]),
        ("vnet1 udp 172.16.0.1:1 8.8.8.8:53", &["drop: spoofed_ipv4"]),
    ] {
        let said = explain(words);
        assert!(said.ok, "{words}: {said:?}");
        for part in parts {
            assert!(said.text.contains(part), "{words}: {part}: {}", said.text);
        }
    }
    for (words, part) in [("vnet9 icmp 1.1.1.1 2.2.2.2", "vnet1"), ("vnet1 gre", "say tcp or udp")]
    {
        let said = explain(words);
        assert!(!said.ok && said.text.contains(part), "{words}: {said:?}");
    }
    assert_eq!(wire.stop(), Vec::<String>::new(), "nothing was sent");
    assert_eq!(lab.ctl("left", &["flows", "udp"]).as_array().unwrap().len(), 0);
}

#[test]
fn what_is_too_large_for_the_next_link_is_cut_or_told() {
    let lab = Lab::up(&[]);
    lab.run("left", "ip", &["link", "set", "vnet3", "mtu", "1400"]);
    lab.run("vm3", "ip", &["link", "set", "eth0", "mtu", "1400"]);
    std::thread::sleep(std::time::Duration::from_millis(500));
    let at = lab.capture("vm3", "eth0", "icmp and src host 10.0.0.3");
    let large = ["-n", "-c", "3", "-i", "0.2", "-w", "3", "-s", "1450"];
    let cut = lab.exec("vm1", "ping", &[&large[..], &["-M", "dont", "10.1.0.3"]].concat());
    assert_eq!(lab::in_a_row(&cut.text, 3), 3, "{cut:?}");
    let at = at.stop();
    assert!(at.iter().filter(|line| line.contains("flags [+]")).count() >= 3, "{at:?}");
    let told = lab.exec("vm1", "ping", &[&large[..], &["-M", "do", "10.1.0.3"]].concat());
    assert!(told.text.contains("mtu = 1400") || told.text.contains("mtu=1400"), "{told:?}");
}
