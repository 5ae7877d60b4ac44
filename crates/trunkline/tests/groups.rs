//! Security groups with real programs: who reaches whom, and what ends when a rule goes.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod lab;
mod raw;

use std::io::ErrorKind::WouldBlock;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use lab::{HOOKS, Lab, pinged};
use raw::inside;
use serde_json::Value;

/// Seed 001's rule, for both tenants.
const SEED: &str = r#"
[[security_group]]
name = "tenant1"
rules = [{ protocol = "tcp", ports = "1-65535", cidr = "10.1.0.0/24" }]
[[security_group]]
name = "tenant2"
rules = [{ protocol = "tcp", ports = "1-65535", cidr = "10.0.0.0/24" }]
"#;

fn file(node: &str) -> String {
    format!("/run/trunkline-lab/{node}.toml")
}

fn reload(lab: &Lab, node: &str, change: impl Fn(&str) -> String) {
    let text = std::fs::read_to_string(file(node)).unwrap();
    let changed = change(&text);
    assert_ne!(changed, text, "the change changes nothing");
    std::fs::write(file(node), changed).unwrap();
    lab.run(node, env!("CARGO_BIN_EXE_trunkline"), &["ctl", "--node", node, "reload"]);
}

/// Puts groups in force on both nodes: each VM is in its network's, and nobody in the lab's own.
fn guard(lab: &Lab, groups: &str) {
    for node in ["left", "right"] {
        reload(lab, node, |text| {
            let lines: Vec<String> = text
                .lines()
                .map(|line| match line.strip_prefix("network = ") {
                    Some(name) => format!("{line}\ngroups = [{name}]"),
                    None => line.to_owned(),
                })
                .collect();
            format!("{}\n{groups}", lines.join("\n"))
        });
    }
}

/// What a node tells of a port.
fn told(lab: &Lab, node: &str, port: &str) -> Value {
    let ports = lab.ctl(node, &["ports"]);
    let all = ports.as_array().unwrap();
    all.iter().find(|row| row["name"] == port).cloned().unwrap_or_default()
}

/// Packets of a port that were dropped for a reason.
fn dropped(lab: &Lab, node: &str, port: &str, reason: &str) -> u64 {
    told(lab, node, port)["drops"][reason].as_u64().unwrap_or(0)
}

fn await_that(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How many of three pings are answered.
fn answered(lab: &Lab, from: &str, to: &str) -> u32 {
    let said = lab.exec(from, "ping", &["-n", "-i", "0.2", "-W", "0.5", "-c", "3", to]);
    pinged(&said.text).1
}

#[test]
fn scenarios_5_and_6_tcp_passes_and_icmp_not_until_it_is_allowed() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        guard(&lab, SEED);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("index.html"), "here").unwrap();
        let path = folder.path().to_str().unwrap();
        let servers = ["vm3", "vm6"].map(|vm| lab.web_server(vm, path));
        for (to, node, port) in [("10.1.0.3", "left", "vnet1"), ("10.1.0.4", "right", "eth0")] {
            let url = format!("http://{to}:8080/index.html");
            assert_eq!(lab.run("vm1", "curl", &["-sS", "-m", "5", &url]), "here", "{hook}");
            let before = dropped(&lab, node, port, "security_group");
            assert_eq!(answered(&lab, "vm1", to), 0, "{hook}: {to}");
            assert!(dropped(&lab, node, port, "security_group") >= before + 3, "{hook}: {to}");
        }
        // Within a network everything passes, to a VM on another node as well.
        lab.pings("vm1", "10.0.0.4");
        lab.pings("vm1", "10.0.0.7");
        let said = lab.run(
            "left",
            env!("CARGO_BIN_EXE_trunkline"),
            &["explain", "--node", "left", "vnet1", "icmp", "10.0.0.3", "10.1.0.3"],
        );
        assert!(said.contains("groups        no rule allows it"), "{said}");
        for node in ["left", "right"] {
            reload(&lab, node, |text| {
                let rule = "rules = [{ protocol = \"tcp\"";
                let more =
                    "rules = [{ protocol = \"icmp\", type = 8, code = 0 }, { protocol = \"tcp\"";
                text.replace(rule, more)
            });
        }
        lab.pings("vm1", "10.1.0.3");
        lab.pings("vm1", "10.1.0.4");
        lab.pings("vm6", "10.0.0.3");
        let said = lab.run(
            "left",
            env!("CARGO_BIN_EXE_trunkline"),
            &["explain", "--node", "left", "vnet1", "tcp", "10.0.0.3:4000", "10.1.0.3:22"],
        );
        let told = "groups        allowed by tenant2: tcp 1-65535 from 10.0.0.0/24";
        assert!(said.contains(told), "{said}");
        drop(servers);
    }
}

/// A VM by its link-local IPv6 address, from another VM of its network.
fn six(vm: u8) -> String {
    format!("fe80::f816:3eff:fe00:{vm}%eth0")
}

/// How many of three pings by IPv6 are answered.
fn answered6(lab: &Lab, from: &str, vm: u8) -> u32 {
    let arguments = ["-6", "-n", "-i", "0.2", "-W", "0.5", "-c", "3", &six(vm)];
    pinged(&lab.exec(from, "ping", &arguments).text).1
}

#[test]
fn ipv6_passes_where_a_rule_says_so_on_both_nodes_and_ends_with_its_rule() {
    const GROUPS: &str = r#"
[[security_group]]
name = "tenant1"
rules = [{ protocol = "tcp", ports = "8080", cidr = "fe80::/64" }]
[[security_group]]
name = "tenant2"
rules = []
"#;
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        guard(&lab, GROUPS);
        for node in ["left", "right"] {
            reload(&lab, node, |text| format!("allow_same_net_traffic = false\n{text}"));
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("index.html"), "x".repeat(2_000_000)).unwrap();
        let path = folder.path().to_str().unwrap();
        let servers = ["vm2", "vm5"].map(|vm| lab.web_server(vm, path));
        for (vm, node, port) in [(2, "left", "vnet1"), (5, "right", "eth0")] {
            let url = format!("http://[{}]:8080/index.html", six(vm));
            let size = ["-sS", "-m", "20", "-o", "/dev/null", "-w", "%{size_download}", &url];
            await_that("the VM answers", || lab.exec("vm1", "curl", &size).text == "2000000");
            let before = dropped(&lab, node, port, "security_group");
            assert_eq!(answered6(&lab, "vm1", vm), 0, "{hook}: vm{vm}");
            assert!(dropped(&lab, node, port, "security_group") >= before + 3, "{hook}: vm{vm}");
        }
        // What the kernel's programs carry, they carry past the workers.
        assert!(told(&lab, "left", "vnet2")["replayed"].as_u64().unwrap() > 100, "{hook}");
        let icmp = |text: &str| {
            let rule =
                "{ protocol = \"icmp\", type = 128, cidr = \"fe80::/64\" }, { protocol = \"tcp\"";
            text.replace("{ protocol = \"tcp\"", rule)
        };
        for node in ["left", "right"] {
            reload(&lab, node, icmp);
        }
        for vm in [2, 5] {
            let arguments = ["-6", "-n", "-c", "20", "-i", "0.05", "-w", "10", &six(vm)];
            let text = lab.exec("vm1", "ping", &arguments).text;
            assert_eq!(lab::in_a_row(&text, 20), 20, "{hook}: {text}");
            // Datagrams in fragments, both ways.
            let arguments =
                ["-6", "-n", "-s", "4000", "-c", "5", "-i", "0.1", "-w", "10", &six(vm)];
            let text = lab.exec("vm1", "ping", &arguments).text;
            assert_eq!(lab::in_a_row(&text, 5), 5, "{hook}: {text}");
        }
        let pings = ["-6", "-n", "-c", "400", "-i", "0.05", &six(2)];
        let ping = lab.start("vm1", "ping", &pings);
        let flows = || lab.ctl("left", &["flows", "vnet1", "icmpv6"]).as_array().unwrap().len();
        await_that("the ping is known", || flows() > 0);
        let before = dropped(&lab, "left", "vnet1", "revoked");
        reload(&lab, "left", |text| text.replace("type = 128", "type = 127"));
        await_that("it ends with its rule", || dropped(&lab, "left", "vnet1", "revoked") > before);
        let (sent, came) = pinged(&ping.interrupt().text);
        assert!(came < sent, "{hook}: {came} of {sent}");
        assert_eq!(answered6(&lab, "vm1", 2), 0, "{hook}: no new one either");
        drop(servers);
    }
}

#[test]
fn from_outside_a_floating_address_lets_in_what_its_vm_does_and_the_vm_gets_its_answers() {
    let lab = Lab::up(&[]);
    guard(&lab, SEED);
    assert_eq!(answered(&lab, "inet", "91.208.23.11"), 0);
    // Out by source NAT and by the floating address: answers need no rule.
    lab.pings("vm1", "8.8.8.8");
    lab.pings("vm2", "8.8.8.8");
    let icmp = "\n[[security_group]]\nname = \"ping\"\nrules = [{ protocol = \"icmp\" }]\n";
    reload(&lab, "left", |text| {
        let text = text.replacen("groups = [\"tenant1\"]", "groups = [\"tenant1\", \"ping\"]", 1);
        format!("{text}{icmp}")
    });
    lab.pings("inet", "91.208.23.11");
    // A sibling by the floating address is who it is: of the VM's own network.
    assert_eq!(answered(&lab, "vm2", "91.208.23.11"), 3);
    // The host is judged as well: its own address is of the network, another is not.
    assert_eq!(answered(&lab, "left", "10.0.0.4"), 3);
    let said = lab.exec(
        "left",
        "ping",
        &["-n", "-I", "91.207.15.105", "-i", "0.05", "-W", "0.5", "-c", "3", "10.0.0.4"],
    );
    assert_eq!(pinged(&said.text).1, 0, "{}", said.text);
}

#[test]
fn a_removed_rule_cuts_its_connection_while_only_the_server_talks_and_another_lives_on() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        let rules = "\n[[security_group]]\nname = \"tenant1\"\n[[security_group]]\nname = \"tenant2\"\n\
                     rules = [\n{ protocol = \"tcp\" },\n{ protocol = \"udp\", ports = \"5201\" },\n{ \
                     protocol = \"udp\", ports = \"5202\" },\n]\n";
        guard(&lab, rules);
        let ports = ["5201", "5202"];
        let servers = ports.map(|port| {
            let number = port.parse().unwrap();
            lab.serve("vm3", number, "timeout", &["60", "iperf3", "-s", "-1", "-p", port])
        });
        // -u -R: the client says one datagram, and the server talks.
        let clients = ports.map(|port| {
            let to = ["iperf3", "-c", "10.1.0.3", "-p", port, "-u", "-R", "-t", "30", "-b", "1M"];
            lab.start("vm1", "timeout", &[&["60"][..], &to].concat())
        });
        std::thread::sleep(Duration::from_secs(1));
        let heard = |port: &str| {
            let at = lab.capture("vm1", "eth0", &format!("udp and src port {port}"));
            std::thread::sleep(Duration::from_secs(1));
            at.stop().len()
        };
        assert!(heard("5201") > 5 && heard("5202") > 5, "{hook}");
        let before = dropped(&lab, "left", "vnet3", "revoked");
        let rule = "{ protocol = \"udp\", ports = \"5201\" },\n";
        reload(&lab, "left", |text| text.replace(rule, ""));
        assert_eq!(heard("5201"), 0, "{hook}");
        assert!(heard("5202") > 5, "{hook}");
        assert!(dropped(&lab, "left", "vnet3", "revoked") > before + 5, "{hook}");
        // Nor does it come back with the next daemon, before that has looked at anything.
        let at = lab.capture("vm1", "eth0", "udp and src port 5201");
        lab.end("left", nix::sys::signal::Signal::SIGKILL);
        lab.restart("left");
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(at.stop().len(), 0, "{hook}");
        assert!(heard("5202") > 5, "{hook}");
        drop((servers, clients));
    }
}

/// Packet by packet, with clients on the server's own node and behind the trunk.
#[test]
fn a_rule_is_removed_while_only_the_server_talks_and_its_next_packet_is_dropped_and_counted() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        let rule = "{ protocol = \"udp\", ports = \"5000\" },\n";
        let rules = format!(
            "\n[[security_group]]\nname = \"tenant1\"\n[[security_group]]\nname = \"tenant2\"\n\
             rules = [\n{{ protocol = \"icmp\" }},\n{rule}]\n"
        );
        guard(&lab, &rules);
        let bound = |vm, address| {
            let socket = inside(vm, || UdpSocket::bind(address).unwrap());
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            socket
        };
        let server = bound("vm3", "10.1.0.3:5000");
        let clients = [("vm1", "10.0.0.3:4000"), ("vm4", "10.0.0.6:4000")].map(|(vm, own)| {
            lab.pings(vm, "10.1.0.3");
            let client = bound(vm, own);
            client.send_to(b"?", "10.1.0.3:5000").unwrap();
            server.recv_from(&mut [0; 9]).unwrap();
            // From here on it is silent.
            (own, client)
        });
        let replayed = || told(&lab, "left", "vnet3")["replayed"].as_u64().unwrap();
        let carried = replayed();
        for _ in 0..5 {
            for (own, client) in &clients {
                server.send_to(b"!", own).unwrap();
                client.recv(&mut [0; 9]).unwrap();
            }
        }
        await_that("the kernel carries the answers", || replayed() >= carried + 8);
        let [before, carried] = [dropped(&lab, "left", "vnet3", "revoked"), replayed()];
        reload(&lab, "left", |text| text.replace(rule, ""));
        let mut said = 0;
        for _ in 0..3 {
            for (own, client) in &clients {
                server.send_to(b"!", own).unwrap();
                said += 1;
                let counted = || dropped(&lab, "left", "vnet3", "revoked");
                await_that("it is counted", || counted() >= before + said);
                assert_eq!(counted(), before + said, "{hook}: {own}");
                client.set_nonblocking(true).unwrap();
                assert_eq!(client.recv(&mut [0; 9]).unwrap_err().kind(), WouldBlock, "{hook}");
            }
        }
        assert_eq!(replayed(), carried, "{hook}: and the kernel carries none of them");
    }
}

#[test]
fn a_download_ends_with_its_rule_and_one_of_another_rule_goes_on() {
    let lab = Lab::up(&[]);
    let rules = "\n[[security_group]]\nname = \"tenant1\"\n[[security_group]]\nname = \"tenant2\"\nrules \
                 = [\n{ protocol = \"tcp\", ports = \"5201\" },\n{ protocol = \"tcp\", ports = \"5202\" \
                 },\n]\n";
    guard(&lab, rules);
    let servers = ["5201", "5202"].map(|port| {
        lab.serve(
            "vm6",
            port.parse().unwrap(),
            "timeout",
            &["60", "iperf3", "-s", "-1", "-p", port],
        )
    });
    // -R: the server sends, by another node and another tenant's network.
    let clients = ["5201", "5202"].map(|port| {
        let arguments =
            ["30", "iperf3", "-c", "10.1.0.4", "-p", port, "-R", "-t", "8", "-b", "20M"];
        lab.start("vm1", "timeout", &arguments)
    });
    std::thread::sleep(Duration::from_secs(2));
    reload(&lab, "right", |text| text.replace("{ protocol = \"tcp\", ports = \"5201\" },\n", ""));
    std::thread::sleep(Duration::from_millis(500));
    let [cut, lives] = ["5201", "5202"].map(|port| {
        let at = lab.capture("vm1", "eth0", &format!("tcp and src port {port} and greater 200"));
        std::thread::sleep(Duration::from_secs(2));
        at.stop().len()
    });
    assert_eq!(cut, 0);
    assert!(lives > 50, "{lives}");
    assert!(dropped(&lab, "right", "vnet6", "revoked") > 0);
    let [_, mut second] = clients;
    assert!(second.wait_within(Duration::from_secs(30)).ok);
    drop(servers);
}

#[test]
fn while_no_daemon_runs_nothing_new_comes_in_and_the_next_one_ends_what_it_does_not_allow() {
    let lab = Lab::up(&[]);
    guard(&lab, SEED);
    let server = lab.serve("vm3", 5201, "timeout", &["60", "iperf3", "-s", "-1"]);
    let to = ["30", "iperf3", "-c", "10.1.0.3", "-R", "-t", "20", "-b", "5M"];
    let client = lab.start("vm1", "timeout", &to);
    let heard = || {
        let at = lab.capture("vm1", "eth0", "tcp and src port 5201 and greater 200");
        std::thread::sleep(Duration::from_secs(1));
        at.stop().len()
    };
    std::thread::sleep(Duration::from_secs(1));
    lab.end("left", nix::sys::signal::Signal::SIGKILL);
    assert!(heard() > 3, "what is open goes on");
    assert_eq!(answered(&lab, "vm1", "10.1.0.3"), 0, "and what needs a decision is dropped");
    lab.restart("left");
    assert!(heard() > 3);
    lab.end("left", nix::sys::signal::Signal::SIGKILL);
    let text = std::fs::read_to_string(file("left")).unwrap();
    let ports = |ports: &str| format!("ports = \"{ports}\", cidr = \"10.0.0.0/24\"");
    std::fs::write(file("left"), text.replace(&ports("1-65535"), &ports("1-5200"))).unwrap();
    lab.restart("left");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(heard(), 0);
    assert!(dropped(&lab, "left", "vnet3", "revoked") > 0);
    drop((server, client));
}
