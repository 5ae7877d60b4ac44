//! Who carries the packets of open connections, and to whom XDP may redirect.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod lab;

use std::time::Duration;

use lab::{HOOKS, Lab};

const XDP: &[&str] = &["--hook", "xdp", "--vif-hook", "xdp"];
const FILE: &str = "/run/trunkline-lab/left.toml";

/// Packets that the kernel's programs sent on, and those that workers did.
fn carried(lab: &Lab) -> (u64, u64) {
    let verdicts = &lab.ctl("left", &["status"])["verdicts"];
    (verdicts["replayed"].as_u64().unwrap(), verdicts["forward"].as_u64().unwrap())
}

/// Says of all VMs of the left node that their ends of the veths poll.
fn say_napi(lab: &Lab) {
    let text = std::fs::read_to_string(FILE).unwrap();
    let said = text.replace("mac = \"fa:16", "napi = true\nmac = \"fa:16");
    assert_ne!(said, text);
    std::fs::write(FILE, said).unwrap();
    lab.run("left", env!("CARGO_BIN_EXE_trunkline"), &["ctl", "--node", "left", "reload"]);
}

/// Frames that the guest's end of a veth took from XDP.
fn taken(lab: &Lab, vif: &str) -> u64 {
    let text = lab.run("left", "ethtool", &["-S", vif]);
    let line = text.lines().find(|line| line.contains("tx_queue_0_xdp_xmit:")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn gro(lab: &Lab, vm: &str, state: &str) {
    lab.run(vm, "ethtool", &["-K", "eth0", "gro", state]);
}

#[test]
fn the_kernel_carries_what_is_open_and_with_userspace_the_workers_do() {
    for (hook, flags) in HOOKS {
        for (who, more) in
            [("kernel", &["--replay", "kernel"]), ("userspace", &["--replay", "userspace"])]
        {
            eprintln!("hook {hook}, replay {who}");
            let lab = Lab::up(&[flags, more].concat());
            lab.pings("vm1", "10.0.0.4");
            lab.pings("vm2", "8.8.8.8");
            let said = lab.ctl("left", &["status"])["replay"].as_str().unwrap().to_owned();
            assert_eq!(said, format!("{who} (asked for)"));
            let before = carried(&lab);
            let ways = [("vm1", "10.0.0.4"), ("vm1", "10.1.0.3"), ("vm2", "8.8.8.8")];
            let pings = ways.map(|(from, to)| lab.start_pings(from, to, 200, 10));
            for (mut ping, (from, to)) in pings.into_iter().zip(ways) {
                assert_eq!(lab::in_a_row(&ping.wait().text, 200), 200, "{from} → {to}");
            }
            let after = carried(&lab);
            let (kernel, workers) = (after.0 - before.0, after.1 - before.1);
            match who {
                "kernel" => assert!(kernel >= 1190 && workers < 30, "{kernel} {workers}"),
                _ => assert!(kernel == 0 && workers >= 1200, "{kernel} {workers}"),
            }
        }
    }
}

#[test]
fn a_vm_whose_interface_has_gro_off_loses_nothing_and_one_that_polls_gets_frames_from_xdp() {
    let lab = Lab::up(XDP);
    // VM 1 polls, VM 2 does not, and both are said to.
    gro(&lab, "vm1", "on");
    gro(&lab, "vm2", "off");
    // An end with an XDP program polls whatever GRO says; the lab's have none.
    say_napi(&lab);
    std::thread::sleep(Duration::from_secs(1));
    for vm in ["vm1", "vm2"] {
        lab.pings(vm, "8.8.8.8");
    }
    let before = [taken(&lab, "vnet1"), taken(&lab, "vnet2")];
    for vm in ["vm1", "vm2"] {
        assert_eq!(lab.ping(vm, "8.8.8.8", 200), 200, "{vm}");
    }
    let after = [taken(&lab, "vnet1"), taken(&lab, "vnet2")];
    // All but the first answer, whose way a worker decides.
    assert!(after[0] >= before[0] + 190, "{before:?} {after:?}");
    assert_eq!(after[1], before[1], "nothing may be redirected to who does not poll");
    // VM 1 stops polling: after a moment its frames come by tc, and an operator can read why.
    gro(&lab, "vm1", "off");
    let words = ["-n", "-i", "0.01", "-W", "1", "-c", "400", "8.8.8.8"];
    let pings = lab::pinged(&lab.exec("vm1", "ping", &words).text);
    assert!(pings.1 > 0, "{pings:?}");
    assert_eq!(lab.ping("vm1", "8.8.8.8", 200), 200);
    assert!(lab.log("left").contains("takes no frames from XDP any more"));
}
