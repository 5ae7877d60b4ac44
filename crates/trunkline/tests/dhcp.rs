//! VMs get their addresses from their own node, asked by real clients and in bytes.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod client;
mod lab;
mod raw;

use std::time::Duration;

use client::{Client, Lease, asks, dhclient, discover, get, kind, option, request};
use lab::{Capture, HOOKS, Lab};
use nix::sys::signal::Signal;
use serde_json::Value;

/// All of DHCP.
const DHCP: &str = "udp port 67 or udp port 68 or (vlan and (udp port 67 or udp port 68))";

/// Where nothing of VM 1's DHCP may be seen: at others of its tenant, on the trunk, at the host.
fn elsewhere(lab: &Lab) -> Vec<(&'static str, Capture)> {
    let places = [
        ("vm2", "eth0"),
        ("vm4", "eth0"),
        ("vm5", "eth0"),
        ("switch", "left-eth0"),
        ("left", "br100"),
    ];
    places.map(|(host, port)| (host, lab.capture(host, port, DHCP))).into()
}

fn nobody_heard(captures: Vec<(&str, Capture)>) {
    for (host, capture) in captures {
        assert_eq!(capture.stop(), Vec::<String>::new(), "heard at {host}");
    }
}

/// A drop counter of a node.
fn dropped(lab: &Lab, node: &str, reason: &str) -> u64 {
    lab.ctl(node, &["status"])["drops"][reason].as_u64().unwrap_or(0)
}

/// What a node said to the VM behind a vif.
fn said(lab: &Lab, node: &str, vif: &str, what: &str) -> u64 {
    let all = lab.ctl(node, &["dhcp"]);
    let of = |lease: &&Value| lease["vif"] == vif;
    let lease = all.as_array().unwrap().iter().find(of).unwrap().clone();
    lease["said"][what].as_u64().unwrap()
}

#[test]
fn scenario_1_each_node_gives_its_vms_their_addresses_and_itself_as_router() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(&[flags, &["--bare"]].concat());
        assert_eq!(lab.run("vm1", "ip", &["-4", "addr", "show", "dev", "eth0"]), "");
        let own = lab.capture("vm1", "eth0", DHCP);
        let silent = elsewhere(&lab);
        let one = get(&lab, "vm1", &[]);
        nobody_heard(silent);
        let expected = Lease {
            event: "bound".into(),
            ip: "10.0.0.3".into(),
            mask: "24".into(),
            router: "10.0.0.1".into(),
            dns: "10.0.0.1".into(),
            domain: "novalocal".into(),
            hostname: "host-10-0-0-3".into(),
            lease: "86400".into(),
            server: "10.0.0.1".into(),
            ..Lease::default()
        };
        assert_eq!(one, expected, "hook {hook}");
        let four = get(&lab, "vm4", &[]);
        assert_eq!((four.ip.as_str(), four.router.as_str()), ("10.0.0.6", "10.0.0.5"));
        let other = get(&lab, "vm3", &[]);
        assert_eq!((other.ip.as_str(), other.router.as_str()), ("10.1.0.3", "10.1.0.1"));
        // Offer and confirmation came to the VM's own MAC, from the gateway's.
        // What belongs to a message stands on lines of its own.
        let own: Vec<_> = own.stop().into_iter().filter(|it| !it.starts_with('\t')).collect();
        let at_vm = "02:74:6c:00:00:01 > fa:16:3e:00:00:01";
        let answers = own.iter().filter(|line| line.contains(at_vm)).count();
        assert_eq!((own.len(), answers), (4, 2), "{own:#?}");
        assert!(own.iter().all(|line| !line.contains("bad udp cksum")), "{own:#?}");
        // What they were told works: to the tenant's other node, the other tenant's, the Internet.
        for to in ["10.0.0.6", "10.1.0.3", "8.8.8.8"] {
            lab.pings("vm1", to);
        }
        assert_eq!(
            (said(&lab, "left", "vnet1", "offers"), said(&lab, "left", "vnet1", "acks")),
            (1, 1)
        );
        assert_eq!(said(&lab, "right", "vnet4", "acks"), 1);
        lab.frames_are_conserved(hook);
    }
}

#[test]
fn flatdhcp_and_a_shared_gateway_keep_dhcp_on_the_node() {
    let flags = ["--network-manager", "flatdhcp", "--share-dhcp-address", "--dns-server=8.8.4.4"];
    let lab = Lab::up(&[&flags[..], &["--dhcp-domain=", "--dhcp-lease-time", "120"]].concat());
    let silent = elsewhere(&lab);
    let one = get(&lab, "vm1", &[]);
    nobody_heard(silent);
    assert_eq!((one.router.as_str(), one.dns.as_str()), ("10.0.0.1", "8.8.4.4"));
    assert_eq!((one.domain.as_str(), one.lease.as_str()), ("", "120"));
    let four = get(&lab, "vm4", &[]);
    assert_eq!((four.ip.as_str(), four.router.as_str()), ("10.0.0.6", "10.0.0.1"));
    lab.pings("vm1", "10.0.0.6");
    lab.pings("vm4", "8.8.8.8");
}

#[test]
fn a_client_renews_rebinds_and_releases() {
    let lab = Lab::up(&["--dhcp-lease-time", "20"]);
    let mut client = Client::start("vm1");
    client.waits_for("event=bound");
    let wire = lab.capture("vm1", "eth0", "udp src port 68");
    client.signal(Signal::SIGUSR1);
    client.waits_for("event=renew");
    // Nothing answers at first hand at half of so short a lease: it asks all.
    client.waits_for_times("event=renew", 2);
    let wire = wire.stop();
    assert!(wire.iter().any(|line| line.contains("10.0.0.3.68 > 10.0.0.1.67")), "{wire:#?}");
    client.signal(Signal::SIGUSR2);
    client.waits_for_times("event=deconfig", 2);
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while said(&lab, "left", "vnet1", "releases") == 0 {
        assert!(std::time::Instant::now() < deadline, "the release is not heard");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(said(&lab, "left", "vnet1", "naks"), 0);
    // It is the VM's all the same.
    drop(client);
    assert_eq!(get(&lab, "vm1", &[]).ip, "10.0.0.3");
}

#[test]
fn every_state_is_answered_as_nova_s_server_answered_it() {
    let lab = Lab::up(&[]);
    let silent = elsewhere(&lab);
    let ask = |message: &[u8]| asks("vm1", "255.255.255.255", message);
    let own = [50, 4, 10, 0, 0, 3];
    let offer = ask(&discover()).unwrap();
    assert_eq!((kind(&offer), &offer[16..20]), (2, &[10, 0, 0, 3][..]));
    let selecting = [&[54, 4, 10, 0, 0, 1][..], &own].concat();
    assert_eq!(kind(&ask(&request([0; 4], &selecting)).unwrap()), 5);
    // INIT-REBOOT, with the address it has and with another.
    assert_eq!(kind(&ask(&request([0; 4], &own)).unwrap()), 5);
    let nak = ask(&request([0; 4], &[50, 4, 10, 0, 0, 77])).unwrap();
    assert_eq!((kind(&nak), option(&nak, 56)), (6, Some(b"wrong address".to_vec())));
    // RENEWING goes to the server it knows, be it another node's, and REBINDING to all.
    let renew = request([10, 0, 0, 3], &[]);
    for server in ["10.0.0.1", "255.255.255.255"] {
        let ack = asks("vm1", server, &renew).unwrap();
        assert_eq!((kind(&ack), option(&ack, 54)), (5, Some(vec![10, 0, 0, 1])), "{server}");
    }
    assert_eq!(kind(&ask(&request([10, 0, 0, 77], &[])).unwrap()), 6);
    // INFORM is told no lease; DECLINE, RELEASE and who chose another server get no answer.
    let inform = ask(&client::message(8, [10, 0, 0, 3], &[])).unwrap();
    assert_eq!((kind(&inform), option(&inform, 51), &inform[16..20]), (5, None, &[0; 4][..]));
    assert_eq!(ask(&client::message(4, [0; 4], &own)), None);
    assert_eq!(ask(&client::message(7, [10, 0, 0, 3], &[54, 4, 10, 0, 0, 1])), None);
    assert_eq!(ask(&request([0; 4], &[54, 4, 10, 0, 0, 5, 50, 4, 10, 0, 0, 3])), None);
    nobody_heard(silent);
    let of = |what: &str| said(&lab, "left", "vnet1", what);
    let counted = ["offers", "acks", "naks", "declines", "releases", "silences"].map(of);
    assert_eq!(counted, [1, 5, 2, 1, 1, 1]);
}

#[test]
fn a_vm_that_moves_to_the_other_node_keeps_its_address_without_a_refusal() {
    let lab = Lab::up(&[]);
    let mut client = Client::start("vm1");
    client.waits_for("event=bound");
    client.waits_for("server=10.0.0.1");
    let wire = lab.capture("vm1", "eth0", DHCP);
    client::moves_right(&lab, "vnet1");
    client.signal(Signal::SIGUSR1);
    client.waits_for("event=renew ip=10.0.0.3");
    client.waits_for("server=10.0.0.5");
    let wire = wire.stop();
    assert!(wire.iter().any(|line| line.contains("10.0.0.3.68 > 10.0.0.1.67")), "{wire:#?}");
    assert!(wire.iter().all(|line| !line.contains("NACK")), "{wire:#?}");
    assert_eq!(
        (said(&lab, "right", "vnet1", "acks"), said(&lab, "right", "vnet1", "naks")),
        (1, 0)
    );
    // By its new node's gateway now.
    lab.pings("vm1", "8.8.8.8");
    // Booted again there, with the lease of before: another client, which remembers it.
    drop(client);
    let text = dhclient("vm1", "10.0.0.3", "10.0.0.1");
    assert!(
        text.contains("DHCPREQUEST for 10.0.0.3") && text.contains("DHCPACK of 10.0.0.3"),
        "{text}"
    );
    assert!(!text.contains("DHCPNAK"), "{text}");
    // With one that is not its own it is refused, and gets its own.
    let text = dhclient("vm1", "10.0.0.99", "10.0.0.1");
    assert!(text.contains("DHCPNAK from 10.0.0.5"), "{text}");
    assert!(text.contains("DHCPACK of 10.0.0.3 from 10.0.0.5"), "{text}");
}

#[test]
fn strangers_get_no_answer_and_a_vm_is_no_server() {
    let lab = Lab::up(&[]);
    let silent = [("vm1", "eth0"), ("vm5", "eth0"), ("switch", "left-eth0")]
        .map(|(host, port)| (host, lab.capture(host, port, DHCP)));
    // Another MAC behind VM 2's vif: it does not get past the wall.
    lab.run("vm2", "ip", &["link", "set", "eth0", "address", "fa:16:3e:00:00:99"]);
    let text = client::refused(&lab, "vm2");
    assert!(text.contains("no lease"), "{text}");
    assert!(dropped(&lab, "left", "spoofed_mac") >= 3);
    // By the trunk, as from a node that floods.
    let ask = client::frame([0xfa, 0x16, 0x3e, 0, 0, 0x98], &discover());
    client::sends_on_trunk(&lab, 100, &ask);
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while dropped(&lab, "left", "dhcp_elsewhere") == 0
        || dropped(&lab, "right", "dhcp_elsewhere") == 0
    {
        assert!(std::time::Instant::now() < deadline, "not counted");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut silent = silent.into_iter();
    for (host, capture) in silent.by_ref().take(2) {
        assert_eq!(capture.stop(), Vec::<String>::new(), "heard at {host}");
    }
    let (_, trunk) = silent.next().unwrap();
    let trunk = trunk.stop();
    let of_others = |line: &&String| !line.starts_with('\t') && !line.contains("00:00:98 >");
    assert_eq!(trunk.iter().filter(of_others).count(), 0, "{trunk:#?}");
}

#[test]
fn a_reload_changes_what_vms_are_told() {
    let lab = Lab::up(&[]);
    // The network's MTU is told to who asks for it.
    assert_eq!(get(&lab, "vm1", &["-O", "mtu"]).mtu, "1500");
    let file = "/run/trunkline-lab/left.toml";
    let text = std::fs::read_to_string(file).unwrap();
    let told = "dhcp_lease_time = 600\nntp_server = [\"10.0.0.8\"]\ndhcp_options = [\"26,1400\"]\n";
    let text = format!("{told}{text}").replacen(
        "name = \"vnet1\"",
        "name = \"vnet1\"\nhostname = \"db-1\"",
        1,
    );
    std::fs::write(file, text).unwrap();
    lab.ctl("left", &["reload"]);
    let one = get(&lab, "vm1", &["-O", "mtu", "-O", "ntpsrv"]);
    assert_eq!((one.lease.as_str(), one.hostname.as_str()), ("600", "db-1"));
    assert_eq!((one.mtu.as_str(), one.ntp.as_str()), ("1400", "10.0.0.8"));
    let shown = lab.run("vm1", "ip", &["-o", "link", "show", "eth0"]);
    assert!(shown.contains("mtu 1400"), "{shown}");
}

#[test]
fn where_dhcp_is_external_a_server_in_the_network_is_asked() {
    let lab = Lab::up(&["--dhcp", "external"]);
    // A VM that is not said to be one is none.
    let file = "/run/trunkline-lab/left.toml";
    let text = std::fs::read_to_string(file).unwrap();
    let serves = "name = \"vnet2\"\ndhcp_server = true";
    std::fs::write(file, text.replacen("name = \"vnet2\"", serves, 1)).unwrap();
    lab.ctl("left", &["reload"]);
    let _server = client::server(&lab, "vm2", "10.0.0.4");
    assert_eq!(get(&lab, "vm1", &[]).server, "10.0.0.4");
    // Over the trunk as well.
    assert_eq!(get(&lab, "vm5", &[]).server, "10.0.0.4");
    // What it told them is not known here.
    let leases = lab.ctl("left", &["dhcp"]);
    assert_eq!(leases[0]["server"], "external");
    assert_eq!((&leases[0]["router"], &leases[0]["said"]), (&Value::Null, &Value::Null));
}

#[test]
fn names_of_vms_are_answered_at_the_gateway_and_others_are_asked_for() {
    let lab = Lab::up(&["--dns", "dnsmasq", "--dns-server", "8.8.8.8"]);
    let far = ["--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", "--no-resolv"];
    let far =
        [&far[..], &["--address=/far.example/192.0.2.7", "--listen-address=8.8.8.8"]].concat();
    let _far = lab.serve("inet", 53, "dnsmasq", &far);
    comes_true("dnsmasq", || !lab.run("left", "ss", &["-Hltn", "src 10.0.0.1:53"]).is_empty());
    assert_eq!(get(&lab, "vm1", &[]).dns, "10.0.0.1");
    let ask = |vm: &str, server: &str, name: &str| {
        lab.exec(vm, "busybox", &["nslookup", "-type=a", name, server])
    };
    for (name, address) in [
        ("host-10-0-0-4.novalocal", "10.0.0.4"),
        ("host-10-1-0-3.novalocal", "10.1.0.3"),
        ("far.example", "192.0.2.7"),
    ] {
        for (vm, server) in [("vm1", "10.0.0.1"), ("vm3", "10.1.0.1")] {
            let said = ask(vm, server, name);
            assert!(said.ok && said.text.contains(&format!("Address: {address}")), "{said:?}");
        }
    }
    // What is of the domain and nobody's is asked of nobody.
    let said = ask("vm1", "10.0.0.1", "nobody.novalocal");
    assert!(said.text.contains("NXDOMAIN"), "{said:?}");
    // DHCP is trunkline's all the same.
    assert!(lab.run("left", "ss", &["-Hlun", "sport = 67"]).is_empty());
}

/// The process of the dnsmasq that serves a bridge of the left node.
fn dnsmasq_pid(bridge: &str) -> Option<i32> {
    let file = format!("/run/trunkline/left/nova-{bridge}.pid");
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Waits until this is so.
fn comes_true(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !is() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn dnsmasq_serves_at_the_host_port_and_nobody_else_hears() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let more = ["--dhcp", "dnsmasq", "--dhcp-lease-time", "120"];
        let lab = Lab::up(&[flags, &more].concat());
        let mut silent = elsewhere(&lab);
        let (_, host) = silent.pop().unwrap();
        let one = get(&lab, "vm1", &[]);
        assert_eq!((one.ip.as_str(), one.router.as_str()), ("10.0.0.3", "10.0.0.1"));
        assert_eq!((one.server.as_str(), one.lease.as_str()), ("10.0.0.1", "120"));
        assert_eq!((one.hostname.as_str(), one.dns.as_str()), ("host-10-0-0-3", "10.0.0.1"));
        // An answer to all reaches the one it is for.
        let asked = get(&lab, "vm1", &["-B", "-O", "mtu"]);
        assert_eq!((asked.ip.as_str(), asked.mtu.as_str()), ("10.0.0.3", "1500"));
        nobody_heard(silent);
        assert!(!host.stop().is_empty());
        let four = get(&lab, "vm4", &[]);
        assert_eq!((four.ip.as_str(), four.router.as_str()), ("10.0.0.6", "10.0.0.5"));
        lab.pings("vm1", "10.0.0.6");
        // What its files tell VMs is known, and not how often it did.
        let lease = &lab.ctl("left", &["dhcp"])[0];
        let told = ["server", "router", "hostname"].map(|key| lease[key].as_str().unwrap());
        assert_eq!(told, ["dnsmasq", "10.0.0.1", "host-10-0-0-3"]);
        assert_eq!((&lease["said"], &lease["last"]), (&Value::Null, &Value::Null));
        let mut client = Client::start("vm1");
        client.waits_for("event=bound");
        client.signal(Signal::SIGUSR1);
        client.waits_for("event=renew");
    }
}

#[test]
fn dnsmasq_is_told_of_changes_started_again_and_ended_with_the_node() {
    let lab = Lab::up(&["--dhcp", "dnsmasq"]);
    let mut client = Client::start("vm1");
    client.waits_for("event=bound");
    get(&lab, "vm2", &[]);
    // A change that its files can say reaches the one that runs; the address of a vif that goes is
    // given back.
    let pid = dnsmasq_pid("br100").unwrap();
    let file = "/run/trunkline-lab/left.toml";
    let text = std::fs::read_to_string(file).unwrap();
    let (before, vif) = text.split_once("[[vif]]\nname = \"vnet2\"").unwrap();
    let after = vif.split_once("[[vif]]").unwrap().1;
    let named = before.replacen("name = \"vnet1\"", "name = \"vnet1\"\nhostname = \"db-1\"", 1);
    std::fs::write(file, format!("{named}[[vif]]{after}")).unwrap();
    lab.ctl("left", &["reload"]);
    comes_true("the release", || lab.log("left").contains("DHCPRELEASE(br100) 10.0.0.4"));
    assert_eq!(dnsmasq_pid("br100"), Some(pid));
    client.signal(Signal::SIGUSR1);
    client.waits_for("hostname=db-1");
    // Killed, it is there again within seconds, and refuses nobody his address.
    let wire = lab.capture("vm1", "eth0", DHCP);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    comes_true("another dnsmasq", || dnsmasq_pid("br100").is_some_and(|new| new != pid));
    comes_true("its port", || !lab.run("left", "ss", &["-Hlun", "sport = 67"]).is_empty());
    client.signal(Signal::SIGUSR1);
    client.waits_for_times("event=renew", 2);
    assert!(wire.stop().iter().all(|line| !line.contains("NACK")));
    let warnings = lab.ctl("left", &["status"])["warnings"].to_string();
    assert!(warnings.contains("dnsmasq of br100 ended 1 times"), "{warnings}");
    // So it is after the daemon was killed, which leaves one behind.
    let orphan = dnsmasq_pid("br100").unwrap();
    lab.end("left", Signal::SIGKILL);
    lab.restart("left");
    assert!(!std::path::Path::new(&format!("/proc/{orphan}/exe")).exists());
    assert_eq!(get(&lab, "vm1", &[]).server, "10.0.0.1");
    // And none is left behind by one that ends.
    let last = dnsmasq_pid("br100").unwrap();
    lab.end("left", Signal::SIGTERM);
    assert!(!std::path::Path::new(&format!("/proc/{last}/exe")).exists());
    drop(client);
}
