//! FlatDHCPManager: two tenants in one untagged segment, whose VMs have their addresses by DHCP and nothing else.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod client;
mod lab;
mod raw;

use std::fmt;
use std::time::{Duration, Instant};

use client::get;
use lab::{HOOKS, Lab, pinged};

const FLATDHCP: [&str; 3] = ["--network-manager", "flatdhcp", "--bare"];

/// All of DHCP, and what a server says.
const DHCP: &str = "udp port 67 or udp port 68";
const ANSWERS: &str = "udp src port 67";

#[derive(PartialEq, Eq)]
struct Vm {
    name: &'static str,
    vif: &'static str,
    address: &'static str,
    router: &'static str,
    tenant: &'static str,
}

impl fmt::Debug for Vm {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name)
    }
}

const fn vm(
    (name, vif): (&'static str, &'static str),
    (address, router): (&'static str, &'static str),
    tenant: &'static str,
) -> Vm {
    Vm { name, vif, address, router, tenant }
}

/// Three VMs on either node, the third of each the second tenant's.
const VMS: [Vm; 6] = [
    vm(("vm1", "vnet1"), ("10.0.0.3", "10.0.0.1"), "one"),
    vm(("vm2", "vnet2"), ("10.0.0.4", "10.0.0.1"), "one"),
    vm(("vm3", "vnet3"), ("10.0.0.8", "10.0.0.1"), "two"),
    vm(("vm4", "vnet4"), ("10.0.0.6", "10.0.0.5"), "one"),
    vm(("vm5", "vnet5"), ("10.0.0.7", "10.0.0.5"), "one"),
    vm(("vm6", "vnet6"), ("10.0.0.9", "10.0.0.5"), "two"),
];

/// Every VM beside every other.
fn pairs() -> impl Iterator<Item = (&'static Vm, &'static Vm)> {
    VMS.iter().flat_map(|from| VMS.iter().filter(move |to| *to != from).map(move |to| (from, to)))
}

/// Every VM boots; its node tells it its address, and itself as router.
fn all_boot(lab: &Lab) {
    for vm in &VMS {
        let told = get(lab, vm.name, &[]);
        let told = [&told.ip, &told.router, &told.server].map(String::as_str);
        assert_eq!(told, [vm.address, vm.router, vm.router], "{}", vm.name);
    }
}

fn reload(lab: &Lab, node: &str, change: impl Fn(&str) -> String) {
    let file = format!("/run/trunkline-lab/{node}.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let changed = change(&text);
    assert_ne!(changed, text, "the change changes nothing");
    std::fs::write(file, changed).unwrap();
    lab.ctl(node, &["reload"]);
}

/// Packets that a node dropped for a reason.
fn dropped(lab: &Lab, node: &str, reason: &str) -> u64 {
    lab.ctl(node, &["status"])["drops"][reason].as_u64().unwrap_or(0)
}

/// Waits until a node has dropped so many.
fn drops(lab: &Lab, node: &str, reason: &str, count: u64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while dropped(lab, node, reason) < count {
        assert!(Instant::now() < deadline, "{node}: {reason} stays below {count}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_left_node_counts_what_vm_4_asks_and_leaves_the_answer_to_the_right_one() {
    for (hook, flags) in HOOKS {
        for server in ["builtin", "dnsmasq"] {
            eprintln!("hook {hook}, {server}");
            let lab = Lab::up(&[flags, &FLATDHCP, &["--dhcp", server]].concat());
            // A right node that has no server bridges what its VMs ask, and so the left one hears it.
            let name = "name = \"shared\"\n";
            let external = format!("{name}dhcp = \"external\"\n");
            reload(&lab, "right", |text| text.replace(name, &external));
            let deaf = [("vm1", "eth0"), ("vm2", "eth0"), ("vm3", "eth0"), ("left", "br100")]
                .map(|(host, port)| (host, lab.capture(host, port, DHCP)));
            let silent = [("vm4", "eth0"), ("switch", "left-eth0")]
                .map(|(host, port)| (host, lab.capture(host, port, ANSWERS)));
            let trunk = lab.capture("switch", "left-eth0", "udp dst port 67");
            let before = dropped(&lab, "left", "dhcp_elsewhere");
            let said = client::refused(&lab, "vm4");
            assert!(said.contains("no lease"), "{said}");
            // What belongs to a message stands on lines of its own.
            let asked: Vec<_> =
                trunk.stop().into_iter().filter(|it| !it.starts_with('\t')).collect();
            assert!(asked.len() >= 3, "{asked:#?}");
            drops(&lab, "left", "dhcp_elsewhere", before + asked.len() as u64);
            assert!(asked.iter().all(|line| line.contains("fa:16:3e:00:00:04")), "{asked:#?}");
            for (host, capture) in deaf.into_iter().chain(silent) {
                assert_eq!(capture.stop(), Vec::<String>::new(), "heard at {host}");
            }
            // One that serves answers, with itself as router, and keeps it to itself.
            reload(&lab, "right", |text| text.replace(&external, name));
            let places = [("switch", "left-eth0"), ("vm1", "eth0"), ("vm5", "eth0")];
            let silent = places.map(|(host, port)| (host, lab.capture(host, port, DHCP)));
            let four = get(&lab, "vm4", &[]);
            let told = [&four.ip, &four.router, &four.server].map(String::as_str);
            assert_eq!(told, ["10.0.0.6", "10.0.0.5", "10.0.0.5"]);
            for (host, capture) in silent {
                assert_eq!(capture.stop(), Vec::<String>::new(), "heard at {host}");
            }
            let total = before + asked.len() as u64;
            assert_eq!(dropped(&lab, "left", "dhcp_elsewhere"), total, "not one more");
            // What lets nobody in lets in what gives a VM its address.
            let set = "allow_same_net_traffic = false\n";
            for node in ["left", "right"] {
                reload(&lab, node, |text| {
                    format!("{set}{}", text.replace("rules = [{}]\n", "rules = []\n"))
                });
            }
            all_boot(&lab);
            lab.frames_are_conserved(hook);
        }
    }
}

/// Three pings each, all at once; the pairs of whom one heard an answer.
fn reaching(lab: &Lab) -> Vec<(&'static Vm, &'static Vm)> {
    let words = ["-n", "-i", "0.05", "-W", "0.5", "-c", "3"];
    let start = |(from, to): (&'static Vm, &'static Vm)| {
        ((from, to), lab.start(from.name, "ping", &[&words[..], &[to.address]].concat()))
    };
    let mut all: Vec<_> = pairs().map(start).collect();
    all.retain_mut(|(_, ping)| pinged(&ping.wait().text).1 > 0);
    all.into_iter().map(|(pair, _)| pair).collect()
}

/// Whether a VM's web server is reached.
fn browses(lab: &Lab, from: &str, to: &str) -> bool {
    let url = format!("http://{to}:8080/index.html");
    let said = lab.exec(from, "curl", &["-sS", "-m", "2", &url]);
    said.ok && said.text == "here"
}

#[test]
fn both_tenants_are_in_one_network_and_nobody_is_once_it_may_not_until_a_rule_allows_it() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(&[flags, &FLATDHCP].concat());
        let groups = "\n[[security_group]]\nname = \"one\"\n[[security_group]]\nname = \"two\"\n";
        for node in ["left", "right"] {
            reload(&lab, node, |text| {
                let join = |text: String, vm: &Vm| {
                    let name = format!("name = \"{}\"\n", vm.vif);
                    text.replace(&name, &format!("{name}groups = [\"{}\"]\n", vm.tenant))
                };
                format!("{}{groups}", VMS.iter().fold(text.to_owned(), join))
            });
        }
        all_boot(&lab);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("index.html"), "here").unwrap();
        let path = folder.path().to_str().unwrap();
        let servers = ["vm3", "vm4"].map(|vm| lab.web_server(vm, path));

        // No rule is needed in one's own network, which is everybody's here.
        for (from, to) in pairs() {
            lab.pings(from.name, to.address);
        }
        assert!(browses(&lab, "vm1", "10.0.0.8") && browses(&lab, "vm1", "10.0.0.6"), "{hook}");
        assert_eq!(dropped(&lab, "left", "security_group"), 0, "{hook}");

        for node in ["left", "right"] {
            reload(&lab, node, |text| format!("allow_same_net_traffic = false\n{text}"));
        }
        let before = ["left", "right"].map(|node| dropped(&lab, node, "security_group"));
        assert_eq!(reaching(&lab), [], "{hook}");
        // Each of them where it was to arrive: fifteen pairs on either node.
        for (node, before) in ["left", "right"].into_iter().zip(before) {
            drops(&lab, node, "security_group", before + 15 * 3);
        }
        assert!(!browses(&lab, "vm1", "10.0.0.8") && !browses(&lab, "vm1", "10.0.0.6"), "{hook}");
        lab.pings("vm1", "8.8.8.8");

        // The first tenant lets itself be asked, by its own and nobody else.
        let members: Vec<_> = VMS.iter().filter(|vm| vm.tenant == "one").collect();
        let addresses: Vec<_> = members.iter().map(|vm| vm.address).collect();
        let group = "name = \"one\"\n";
        let rule = "rules = [{ protocol = \"icmp\", group = \"one\" }]";
        for node in ["left", "right"] {
            reload(&lab, node, |text| {
                text.replace(group, &format!("{group}{rule}\nmembers = {addresses:?}\n"))
            });
        }
        let own = |(from, to): &(&Vm, &Vm)| from.tenant == "one" && to.tenant == "one";
        for (from, to) in pairs().filter(own) {
            lab.pings(from.name, to.address);
        }
        let mut strangers = reaching(&lab);
        strangers.retain(|pair| !own(pair));
        assert_eq!(strangers, [], "{hook}");
        assert!(!browses(&lab, "vm1", "10.0.0.6"), "{hook}: the rule is of ICMP");
        let shown = lab.ctl("right", &["groups"]);
        let one = shown.as_array().unwrap().iter().find(|group| group["name"] == "one").unwrap();
        assert!(one["refused"].as_u64().unwrap() > 0, "{hook}: {shown}");
        // And by IPv6 those of this node.
        let members = one["members"].as_array().unwrap().iter();
        let (fours, sixes) = members.partition::<Vec<_>, _>(|one| !one.to_string().contains(':'));
        assert_eq!((fours.len(), sixes.len()), (4, 2), "{hook}: {shown}");
        drop(servers);
    }
}
