//! What a VM may send and be sent, by the bandwidth of its flavor.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod lab;

use lab::{HOOKS, Lab};
use serde_json::Value;

const FILE: &str = "/run/trunkline-lab/left.toml";
/// kB/s and KiB.
const AVERAGE: f64 = 5000.0;
const BURST: f64 = 2000.0;

/// What came for the server while `client` spoke to it for two seconds: (bytes, seconds).
fn received(lab: &Lab, from: &str, (to, address): (&str, &str), more: &[&str]) -> (f64, f64) {
    let _server = lab.serve(to, 5201, "iperf3", &["-s", "-1", "-p", "5201"]);
    let words = [&["-J", "-c", address, "-p", "5201", "-t", "2"], more].concat();
    let report: Value = serde_json::from_str(&lab.run(from, "iperf3", &words)).unwrap();
    let sum = &report["end"]["sum_received"];
    (sum["bytes"].as_f64().unwrap(), sum["seconds"].as_f64().unwrap())
}

/// Not more than the average and the burst, headers and all; and most of it.
fn is_held_to_its_quota((bytes, seconds): (f64, f64), what: &str) {
    let most = AVERAGE * 1000.0 * seconds + BURST * 1024.0;
    // A GSO packet more may be let through while the bucket is full.
    assert!(bytes <= most + 65_536.0, "{what}: {bytes} in {seconds} s");
    assert!(bytes >= most / 4.0, "{what}: {bytes} in {seconds} s");
}

fn dropped(lab: &Lab, port: &str, reason: &str) -> u64 {
    let ports = lab.ctl("left", &["ports"]);
    let port = ports.as_array().unwrap().iter().find(|row| row["name"] == port).unwrap();
    port["drops"][reason].as_u64().unwrap_or(0)
}

#[test]
fn a_vm_gets_the_bandwidth_of_its_flavor_and_a_reload_changes_it() {
    let userspace = ("userspace", &["--replay", "userspace"][..]);
    for (name, flags) in HOOKS.into_iter().chain([userspace]) {
        eprintln!("{name}");
        let lab = Lab::up(flags);
        let plain = std::fs::read_to_string(FILE).unwrap();
        lab.pings("vm2", "8.8.8.8");
        let free = received(&lab, "vm2", ("inet", "8.8.8.8"), &[]);
        assert!(free.0 > 4.0 * AVERAGE * 1000.0 * free.1, "{name}: without a quota {free:?}");
        let quota = format!(
            "[[vif]]\nname = \"vnet2\"\nquota = {{ outbound_average = {AVERAGE}, outbound_peak = 20000, \
             outbound_burst = {BURST}, inbound_average = {AVERAGE}, inbound_burst = {BURST} }}\n"
        );
        std::fs::write(FILE, plain.replace("[[vif]]\nname = \"vnet2\"\n", &quota)).unwrap();
        let changed = lab.ctl("left", &["reload"])["changed"].clone();
        assert_eq!(changed, serde_json::json!(["vif vnet2"]), "{name}");
        // Out by TCP and by datagrams that heed nothing; in, replayed and by workers.
        is_held_to_its_quota(received(&lab, "vm2", ("inet", "8.8.8.8"), &[]), name);
        let flood = ["-u", "-b", "200M", "-l", "1400"];
        is_held_to_its_quota(received(&lab, "vm2", ("vm1", "10.0.0.3"), &flood), name);
        assert!(dropped(&lab, "vnet2", "kernel_quota_outbound") > 1000, "{name}");
        is_held_to_its_quota(received(&lab, "vm1", ("vm2", "10.0.0.4"), &flood), name);
        assert!(dropped(&lab, "vnet2", "kernel_quota_inbound") > 1000, "{name}");
        // Its neighbour has none.
        assert_eq!(dropped(&lab, "vnet1", "kernel_quota_outbound"), 0, "{name}");
        lab.frames_are_conserved(name);
        std::fs::write(FILE, &plain).unwrap();
        lab.ctl("left", &["reload"]);
        let again = received(&lab, "vm2", ("inet", "8.8.8.8"), &[]);
        assert!(again.0 > 4.0 * AVERAGE * 1000.0 * again.1, "{name}: free again {again:?}");
    }
}
