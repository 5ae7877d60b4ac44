//! Bad input gets a clear error that says what to do, and harms nothing that runs.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod lab;

use std::process::Command;

use lab::Lab;

const NODE: &str = "vlan_interface = \"eth0\"\npublic_interface = \"eth1\"\n";
const TENANT: &str = "[[network]]\nname = \"a\"\nvlan = 100\ncidr = \"10.0.0.0/24\"\n";

/// What `run --check` says of this file, without the path before the file's name.
fn check(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    std::fs::write(&file, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_trunkline"))
        .args(["run", "--check", "--node", "test", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(!output.status.success(), "accepted: {text}");
    let said = String::from_utf8(output.stderr).unwrap();
    said.trim().replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn a_bad_file_is_refused_with_file_line_and_reason() {
    let vif = |name: &str, mac: &str| {
        format!("[[vif]]\nname = \"{name}\"\nnetwork = \"a\"\nmac = \"{mac}\"\n")
    };
    let cases = [
        (TENANT.replace("100", "0") + NODE, "node.toml:"),
        (NODE.to_owned() + &TENANT.replace("100", "4095"), "4095"),
        (
            NODE.to_owned() + TENANT + &TENANT.replace("\"a\"", "\"b\"").replace("10.0", "10.1"),
            "100",
        ),
        (
            NODE.to_owned()
                + TENANT
                + &vif("v1", "fa:16:3e:00:00:01")
                + &vif("v2", "fa:16:3e:00:00:01"),
            "fa:16:3e:00:00:01",
        ),
        (
            NODE.to_owned() + TENANT + &TENANT.replace("\"a\"", "\"b\"").replace("100", "102"),
            "10.0.0.0/24",
        ),
        ("vlan_inteface = \"eth0\"\n".to_owned(), "did you mean"),
        (
            "network_manager = \"flat\"\n[[network]]\nname = \"f\"\ncidr = \"10.0.0.0/24\"\n"
                .to_owned(),
            "flat_network_bridge",
        ),
    ];
    for (text, part) in cases {
        let said = check(&text);
        eprintln!("{said}");
        assert!(said.contains("node.toml:") && said.contains(part), "{part}: {said}");
    }
}

#[test]
fn an_unreadable_file_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_trunkline"))
        .args(["run", "--check", "--config", "/nonexistent/node.toml"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    eprintln!("{said}");
    assert!(!output.status.success() && said.contains("/nonexistent/node.toml"), "{said}");
}

/// Runs a third daemon on the left node, which must refuse; returns what it said.
fn refused(lab: &Lab, program: &[&str], flags: &[&str]) -> String {
    let (first, rest) = program.split_first().unwrap();
    let run = ["run", "--node", "tl-third", "--config", "/dev/null"];
    let said = lab.exec("left", first, &[rest, &run, flags].concat());
    assert!(!said.ok, "it ran: {}", said.text);
    eprintln!("{}", said.text.trim());
    said.text
}

#[test]
fn nics_that_cannot_be_used_are_refused_in_words() {
    let lab = Lab::up(&[]);
    let program = env!("CARGO_BIN_EXE_trunkline");
    let said = refused(&lab, &[program], &["--vlan-interface", "eth7"]);
    assert!(said.contains("there is no NIC eth7") && said.contains("eth0"), "{said}");

    let odd = ["link", "add", "odd0", "numrxqueues", "2", "numtxqueues", "1", "type", "veth"];
    lab.run("left", "ip", &[&odd[..], &["peer", "name", "odd1"]].concat());
    lab.run("left", "ip", &["link", "set", "odd0", "up"]);
    let said = refused(&lab, &[program], &["--vlan-interface", "odd0", "--hook", "xdp"]);
    assert!(said.contains("odd0 receives on 2 queues and sends on 1"), "{said}");

    let without = ["setpriv", "--bounding-set=-net_admin,-bpf,-sys_admin", program];
    let said = refused(&lab, &without, &["--vlan-interface", "odd0", "--hook", "tc"]);
    assert!(said.contains("CAP_NET_ADMIN") && said.contains("CAP_BPF"), "{said}");

    // What runs is unharmed by all of it.
    lab.pings("vm1", "10.0.0.7");
    assert!(!std::path::Path::new("/sys/fs/bpf/trunkline/tl-third").exists());
}

#[test]
fn a_second_daemon_of_the_same_node_is_refused() {
    let lab = Lab::up(&[]);
    let program = env!("CARGO_BIN_EXE_trunkline");
    let arguments = ["run", "--node", "left", "--config", "/run/trunkline-lab/left.toml"];
    let said = lab.exec("left", program, &arguments);
    eprintln!("{}", said.text.trim());
    assert!(!said.ok && said.text.contains("another daemon answers there"), "{}", said.text);
    lab.pings("vm1", "10.0.0.7");
}

#[test]
fn a_bad_reload_is_refused_and_the_old_configuration_stays() {
    let lab = Lab::up(&[]);
    let file = "/run/trunkline-lab/left.toml";
    let good = std::fs::read_to_string(file).unwrap();
    let program = env!("CARGO_BIN_EXE_trunkline");
    for (text, part) in [
        (good.replace("vlan = 102", "vlan = 100"), "left.toml:"),
        (good.replace("vlan_interface = \"eth0\"", "vlan_interface = \"eth9\""), "restart"),
    ] {
        std::fs::write(file, text).unwrap();
        let said = lab.exec("left", program, &["ctl", "--node", "left", "reload"]);
        eprintln!("{}", said.text.trim());
        assert!(!said.ok && said.text.contains(part), "{}", said.text);
        assert!(lab.ctl("left", &["status"])["reloads"]["last_error"].is_string());
        lab.pings("vm1", "10.0.0.7");
    }
    std::fs::write(file, good).unwrap();
    lab.run("left", program, &["ctl", "--node", "left", "reload"]);
    assert!(lab.ctl("left", &["status"])["reloads"]["last_error"].is_null());
}

#[test]
fn a_vif_that_is_not_there_yet_is_plugged_when_it_appears() {
    let lab = Lab::up(&[]);
    let file = "/run/trunkline-lab/left.toml";
    let more = "\n[[vif]]\nname = \"late0\"\nnetwork = \"tenant1\"\nmac = \"fa:16:3e:00:00:77\"\n";
    let text = std::fs::read_to_string(file).unwrap() + more;
    std::fs::write(file, text).unwrap();
    let program = env!("CARGO_BIN_EXE_trunkline");
    lab.run("left", program, &["ctl", "--node", "left", "reload"]);
    let state = || {
        let ports = lab.ctl("left", &["ports"]);
        let port = ports.as_array().unwrap().iter().find(|port| port["name"] == "late0").cloned();
        port.unwrap()["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(state(), "waiting");
    for round in 0..2 {
        lab.run("left", "ip", &["link", "add", "late0", "type", "veth", "peer", "name", "late1"]);
        lab.run("left", "ip", &["link", "set", "late0", "up"]);
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert_eq!(state(), "plugged", "round {round}");
        lab.run("left", "ip", &["link", "del", "late0"]);
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert_eq!(state(), "waiting", "round {round}");
    }
}

#[test]
fn foreign_programs_are_named_and_never_replaced() {
    // On the router, where no daemon has its punt link.
    let lab = Lab::up(&[]);
    lab.run("inet", "ip", &["link", "add", "odd0", "type", "veth", "peer", "name", "odd1"]);
    lab.run("inet", "ip", &["link", "set", "odd0", "up"]);
    lab.run("inet", "tc", &["qdisc", "add", "dev", "odd0", "clsact"]);
    // A classic BPF filter: somebody's, not ours.
    let filter = ["filter", "add", "dev", "odd0", "ingress", "bpf", "bytecode", "1,6 0 0 65535"];
    lab.run("inet", "tc", &[&filter[..], &["classid", "1:1"]].concat());
    let program = env!("CARGO_BIN_EXE_trunkline");
    let run = ["run", "--node", "tl-third", "--config", "/dev/null", "--vlan-interface", "odd0"];
    let said = lab.exec("inet", program, &[&run[..], &["--hook", "tc"]].concat());
    eprintln!("{}", said.text.trim());
    assert!(!said.ok && said.text.contains("odd0"), "{}", said.text);
    assert!(said.text.contains("not ours"), "{}", said.text);
    // A first start that is refused leaves nothing to detach.
    assert!(!std::path::Path::new("/sys/fs/bpf/trunkline/tl-third").exists());
    let filters = lab.run("inet", "tc", &["filter", "show", "dev", "odd0", "ingress"]);
    assert!(filters.contains("bytecode"), "{filters}");
    assert!(!lab.run("inet", "ip", &["-o", "link"]).contains("tl-punt"));
}
