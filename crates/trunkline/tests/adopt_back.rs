//! A node goes over from nova-network to trunkline and back, under traffic: nobody notices, and
//! nothing of the node differs afterwards.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod changeover;
mod lab;

use std::time::{Duration, Instant};

use changeover::{
    CONFIG, FLOAT, PROGRAM, Stream, back, is_as_before, nobody_was_silent, pings, start, state,
};
use lab::{Lab, Running, in_a_row, pinged};
use nix::sys::signal::Signal;

const FLATDHCP: &[&str] = &["--dataplane", "linux", "--network-manager", "flatdhcp"];
/// What nobody may be silent for.
const SILENCE: Duration = Duration::from_secs(1);
/// By source NAT, to a VM beside, by the trunk, and by a floating address.
const WAYS: [(&str, &str); 4] =
    [("vm2", "8.8.8.8"), ("vm1", "10.0.0.4"), ("vm3", "10.0.0.6"), ("inet", FLOAT)];

/// dnsmasq as nova started it.
fn dnsmasq(lab: &Lab, folder: &str) -> Running {
    let hosts = format!("{folder}/nova-br100.conf");
    std::fs::write(&hosts, "fa:16:3e:00:00:03,vm-3.novalocal,10.0.0.8\n").unwrap();
    let (hosts, leases) = (format!("--dhcp-hostsfile={hosts}"), format!("{folder}/leases"));
    let words = "--keep-in-foreground --strict-order --bind-interfaces --conf-file= --user=root \
                 --pid-file= --listen-address=10.0.0.1 --except-interface=lo --interface=br100 \
                 --dhcp-range=10.0.0.2,static,120s --dhcp-lease-max=256 --port=0";
    let leases = format!("--dhcp-leasefile={leases}");
    let words: Vec<&str> = words.split_whitespace().chain([&*hosts, &*leases]).collect();
    lab.start("left", "dnsmasq", &words)
}

/// VM 3 gets its address by DHCP.
fn gets_a_lease(lab: &Lab, when: &str) {
    let words = ["udhcpc", "-f", "-n", "-q", "-t", "5", "-T", "1", "-i", "eth0", "-s", "/bin/true"];
    let said = lab.exec("vm3", "busybox", &words);
    assert!(said.ok && said.text.contains("lease of 10.0.0.8 obtained"), "{when}: {}", said.text);
}

/// This VM never hears that its gateway has another MAC address.
fn keeps_its_gateways_mac(lab: &Lab, vm: &str) {
    let said = lab.run(vm, "ip", &["neigh", "show", "10.0.0.1"]);
    let mac = said.split_whitespace().skip_while(|word| *word != "lladdr").nth(1).unwrap();
    let words = ["neigh", "replace", "10.0.0.1", "lladdr", mac, "dev", "eth0", "nud", "permanent"];
    lab.run(vm, "ip", &words);
}

/// Everybody has spoken, so that adopt knows their addresses.
fn speak(lab: &Lab) {
    for vm in ["vm1", "vm2", "vm3"] {
        lab.pings(vm, "10.0.0.1");
    }
}

/// By source NAT, and in by a floating address.
fn open_streams() -> [Stream; 2] {
    [("inet", "8.8.8.8", "vm2"), ("vm1", FLOAT, "inet")]
        .map(|(from, address, to)| Stream::start((from, address), to))
}

/// How adopt's file asks for hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hooks {
    /// Not at all: it is tc on the lab's veths.
    Auto,
    /// XDP on NICs.
    Nics,
    /// XDP everywhere, and VMs' ends that poll.
    All,
}

impl Hooks {
    /// Writes the file, if it is not adopt that writes it; has ends of cables do what XDP wants.
    fn ask(self, lab: &Lab) {
        if self == Self::Auto {
            return;
        }
        let text = lab.run("left", PROGRAM, &["adopt", "--dry-run", "--node", "left"]);
        // What an XDP program sees has to be finished: checksums and tags in the bytes.
        let finish = |host: &str, end: &str| {
            let words = ["-K", end, "tx", "off", "txvlan", "off", "tx-vlan-stag-hw-insert", "off"];
            lab.run(host, "ethtool", &words);
        };
        ["left-eth0", "left-eth1"].iter().for_each(|end| finish("switch", end));
        let text = match self {
            Self::All => {
                ["vm1", "vm2", "vm3"].iter().for_each(|vm| finish(vm, "eth0"));
                let text = text.replace("\nmac = \"", "\nnapi = true\nmac = \"");
                format!("hook = \"xdp\"\nvif_hook = \"xdp\"\n{text}")
            }
            _ => format!("hook = \"xdp\"\n{text}"),
        };
        std::fs::write(CONFIG, text).unwrap();
    }

    /// The ports have the hooks that were asked for.
    fn are_had(self, ports: &serde_json::Value) {
        for (port, wanted) in [("eth0", self != Self::Auto), ("vnet2", self == Self::All)] {
            let found = ports.as_array().unwrap().iter().find(|found| found["name"] == port);
            let hook = found.unwrap()["hook"].as_str().unwrap();
            assert_eq!(hook.starts_with("xdp"), wanted, "{port}: {hook}");
        }
    }
}

#[test]
fn a_node_goes_over_and_back_and_nobody_notices() {
    for hooks in [Hooks::Auto, Hooks::Nics, Hooks::All] {
        eprintln!("hooks: {hooks:?}");
        let lab = Lab::up(FLATDHCP);
        speak(&lab);
        hooks.ask(&lab);
        keeps_its_gateways_mac(&lab, "vm1");
        goes_over_and_back(&lab, hooks);
    }
}

fn goes_over_and_back(lab: &Lab, hooks: Hooks) {
    let folder = tempfile::tempdir().unwrap();
    let before = state(lab);
    let _dnsmasq = dnsmasq(lab, folder.path().to_str().unwrap());
    std::thread::sleep(Duration::from_millis(500));
    gets_a_lease(lab, "before");

    let streams = open_streams();
    let going = pings(lab, &WAYS, "0.01");
    std::thread::sleep(Duration::from_secs(1));
    let daemon = start(lab, "adopt");
    std::thread::sleep(Duration::from_secs(2));
    streams.iter().for_each(|stream| stream.goes_on(SILENCE, "adopt"));
    nobody_was_silent(going, SILENCE, "adopt");
    // It is trunkline that carries them.
    let ports = lab.ctl("left", &["ports"]);
    let vif = ports.as_array().unwrap().iter().find(|port| port["name"] == "vnet2").unwrap();
    assert!(vif["rx_packets"].as_u64().unwrap() > 100, "{ports}");
    hooks.are_had(&ports);
    // The host and its VMs reach each other, by the bridge.
    lab.pings("left", "10.0.0.4");
    lab.pings("vm1", "10.0.0.1");
    gets_a_lease(lab, "with trunkline");
    let twice = lab.exec("left", PROGRAM, &["adopt", "--node", "left", "--config", CONFIG]);
    assert!(!twice.ok && twice.text.contains("was taken over already"), "{}", twice.text);

    let going = pings(lab, &WAYS, "0.01");
    std::thread::sleep(Duration::from_secs(1));
    let said = back(lab);
    eprintln!("{said}");
    std::thread::sleep(Duration::from_secs(2));
    streams.iter().for_each(|stream| stream.goes_on(SILENCE, "back"));
    nobody_was_silent(going, SILENCE, "back");
    let log = daemon.interrupt().text;
    eprintln!("{log}");
    assert!(!log.contains("ERROR"), "{log}");
    gets_a_lease(lab, "after");
    is_as_before(lab, &before, "back");
    streams.into_iter().for_each(Stream::ends_whole);
    let nothing = lab.exec("left", PROGRAM, &["adopt", "--node", "left", "--back"]);
    assert!(!nothing.ok && nothing.text.contains("nothing to undo"), "{}", nothing.text);
}

#[test]
fn a_service_goes_on_with_what_was_prepared_and_back_needs_no_daemon() {
    let lab = Lab::up(FLATDHCP);
    speak(&lab);
    let before = state(&lab);
    let prepare = ["adopt", "--node", "left", "--config", CONFIG, "--prepare"];
    lab.run("left", PROGRAM, &prepare);
    assert_eq!(state(&lab), before);
    for what in ["taken=", "an earlier run's connections go on"] {
        let daemon = start(&lab, "run");
        lab.pings("vm1", "8.8.8.8");
        lab.pings("left", "10.0.0.4");
        lab.end("left", Signal::SIGKILL);
        let log = daemon.interrupt().text;
        assert!(log.contains(what) && !log.contains("ERROR"), "{log}");
    }
    let _: String = back(&lab);
    for (from, to) in WAYS {
        lab.pings(from, to);
    }
    is_as_before(&lab, &before, "back");
}

#[test]
fn a_tap_that_comes_later_is_served_by_its_bridge_until_it_is_told_of() {
    let lab = Lab::up(FLATDHCP);
    speak(&lab);
    let daemon = start(&lab, "adopt");
    // VM 3 is made anew, with an interface of another name here.
    let make = "link add vnet9 type veth peer name eth0 netns tl-vm3 address fa:16:3e:00:00:03";
    for words in ["link del vnet3", make, "link set vnet9 master br100 up"] {
        lab.run("left", "ip", &words.split(' ').collect::<Vec<_>>());
    }
    for words in
        ["link set eth0 up", "addr add 10.0.0.8/24 dev eth0", "route add default via 10.0.0.1"]
    {
        lab.run("vm3", "ip", &words.split(' ').collect::<Vec<_>>());
    }
    let reaches = |when: &str| {
        for (from, to) in [("vm3", "10.0.0.4"), ("vm3", "8.8.8.8"), ("vm4", "10.0.0.8")] {
            // Who serves it changed just now: it takes a moment to hear of its gateway's MAC.
            let start = Instant::now();
            while lab.ping(from, to, 10) != 10 {
                assert!(start.elapsed() < Duration::from_secs(12), "{when}: {from} → {to}");
            }
        }
    };
    let state = || {
        let ports = lab.run("left", "bridge", &["link"]);
        let warned = lab.ctl("left", &["status"])["warnings"].to_string();
        let port = ports.lines().find(|line| line.contains("vnet9")).unwrap();
        (
            port.contains("state forwarding"),
            warned.contains("vnet9 is a port of br100 and no [[vif]]"),
        )
    };
    reaches("untold");
    assert_eq!(state(), (true, true));
    let reload = |from: &str, to: &str| {
        let text = std::fs::read_to_string(CONFIG).unwrap();
        std::fs::write(CONFIG, text.replace(from, to)).unwrap();
        lab.ctl("left", &["reload"]);
    };
    reload("\"vnet3\"", "\"vnet9\"");
    reaches("told");
    assert_eq!(state(), (false, false));
    // And told of no more.
    reload("\"vnet9\"", "\"vnet3\"");
    reaches("untold again");
    assert_eq!(state(), (true, true));
    back(&lab);
    reaches("back");
    let log = daemon.interrupt().text;
    assert!(!log.contains("ERROR"), "{log}");
}

/// Where the process of a changeover, or of the way back, may end (conntrack::fault).
const OVER: [&str; 9] =
    ["recorded", "pinned", "punting", "inherited", "nic", "foot", "joined", "vif", "silenced"];
const BACK: [&str; 3] = ["given", "gave_back", "detached"];

/// Has trunkline end at this point of this command.
fn ends_at(lab: &Lab, fault: &str, command: &[&str]) {
    let fault = format!("TRUNKLINE_FAULT={fault}");
    let words = [&[&*fault, PROGRAM], command].concat();
    let said = lab.exec("left", "env", &words);
    assert!(!said.ok && !said.text.contains("ERROR"), "{fault}: {}", said.text);
}

/// Those who ask now, and those who were asked before all of this.
fn all_are_reached(lab: &Lab, streams: &[Stream], when: &str) {
    // TCP waits twice as long each time that nobody answers.
    streams.iter().for_each(|stream| stream.goes_on(10 * SILENCE, when));
    let own = [("left", "10.0.0.4"), ("vm1", "10.0.0.1")];
    let ways: Vec<_> = WAYS.into_iter().chain(own).collect();
    let pings: Vec<_> = ways.iter().map(|(from, to)| lab.start_pings(from, to, 10, 10)).collect();
    for (mut ping, way) in pings.into_iter().zip(ways) {
        let text = ping.wait().text;
        assert_eq!(in_a_row(&text, 10), 10, "{when}: {way:?}: {text}");
    }
}

#[test]
fn a_changeover_that_ends_half_way_is_completed_or_undone() {
    let lab = Lab::up(FLATDHCP);
    speak(&lab);
    let before = state(&lab);
    let streams = open_streams();
    let adopt = ["adopt", "--node", "left", "--config", CONFIG];
    let undo = ["adopt", "--node", "left", "--back"];
    let runs_and_gives_back = |fault: &str| {
        let daemon = start(&lab, "run");
        all_are_reached(&lab, &streams, &format!("{fault}, then run"));
        back(&lab);
        let log = daemon.interrupt().text;
        assert!(!log.contains("ERROR"), "{fault}: {log}");
        is_as_before(&lab, &before, fault);
    };
    for fault in OVER {
        ends_at(&lab, fault, &adopt);
        let words = ["-n", "-i", "0.01", "-W", "1", "-c", "10", "8.8.8.8"];
        let (_, answered) = pinged(&lab.exec("vm2", "ping", &words).text);
        eprintln!("{fault}: {answered} of 10 answered without any daemon");
        back(&lab);
        is_as_before(&lab, &before, fault);
        all_are_reached(&lab, &streams, &format!("{fault}, then back"));

        ends_at(&lab, fault, &adopt);
        runs_and_gives_back(fault);
    }
    for fault in BACK {
        let daemon = start(&lab, "adopt");
        ends_at(&lab, fault, &undo);
        daemon.interrupt();
        back(&lab);
        is_as_before(&lab, &before, fault);
        all_are_reached(&lab, &streams, fault);

        let daemon = start(&lab, "adopt");
        ends_at(&lab, fault, &undo);
        daemon.interrupt();
        runs_and_gives_back(fault);
    }
    streams.into_iter().for_each(Stream::ends_whole);
}

#[test]
fn a_changeover_that_cannot_be_changes_nothing() {
    // Without 802.1Q the lab has a cable for each VLAN, and no NIC that carries both.
    let lab = Lab::up(&["--dataplane", "linux"]);
    for (vm, gateway) in [("vm1", "10.0.0.1"), ("vm2", "10.0.0.1"), ("vm3", "10.1.0.1")] {
        lab.pings(vm, gateway);
    }
    let before = state(&lab);
    let adopt = ["adopt", "--node", "left", "--config", CONFIG];
    let refused = lab.exec("left", PROGRAM, &adopt);
    assert!(!refused.ok && refused.text.contains("there is no NIC eth0"), "{}", refused.text);
    is_as_before(&lab, &before, "refused");
    // A file that is there must tell of every VM.
    let text = std::fs::read_to_string(CONFIG).unwrap();
    std::fs::write(CONFIG, text.replace("\"vnet2\"", "\"vnet9\"")).unwrap();
    let refused = lab.exec("left", PROGRAM, &adopt);
    assert!(refused.text.contains("it has not vnet2, a VM's in br100"), "{}", refused.text);
    lab.pings("vm1", "8.8.8.8");
}
