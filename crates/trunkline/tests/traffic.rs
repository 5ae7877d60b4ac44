//! Bulk traffic with offloads on in the guests, as guests have them.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod lab;

use lab::{HOOKS, Lab};

/// Bytes of a TCP transfer: 1 GB.
const GIGABYTE: u64 = 1_000_000_000;

fn offloads_on(lab: &Lab) {
    for vm in ["vm1", "vm2", "vm5", "vm6"] {
        lab.run(vm, "ethtool", &["-K", "eth0", "tx", "on", "gso", "on", "tso", "on", "gro", "on"]);
    }
}

/// Runs an iperf3 client on VM 1 against a one-off server.
fn iperf(lab: &Lab, server: &str, address: &str, arguments: &[&str]) -> serde_json::Value {
    let mut listening = lab.serve(server, 5201, "iperf3", &["-s", "-1"]);
    let client = [&["-J", "-c", address, "--connect-timeout", "5000"], arguments].concat();
    let text = lab.run("vm1", "iperf3", &client);
    listening.wait();
    // Warnings stand around the report.
    let report = text.find('{').and_then(|from| text.get(from..=text.rfind('}')?)).unwrap();
    serde_json::from_str(report).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_gigabyte_of_tcp_arrives_intact_here_there_and_routed_by_scenario_6() {
    for (hook, flags) in HOOKS {
        let lab = Lab::up(flags);
        offloads_on(&lab);
        for (server, address) in [("vm5", "10.0.0.7"), ("vm2", "10.0.0.4"), ("vm6", "10.1.0.4")] {
            // What is still on its way at the end iperf3 does not count as received.
            let bytes = (GIGABYTE + GIGABYTE / 10).to_string();
            let report = iperf(&lab, server, address, &["-n", &bytes]);
            let received = report["end"]["sum_received"]["bytes"].as_u64().unwrap();
            let rate = report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap() / 1e9;
            eprintln!("hook {hook}, VM 1 → {server}: {received} bytes, {rate:.2} Gbit/s");
            assert!(received >= GIGABYTE, "hook {hook}, {server}: {received}");
            assert_eq!(lab.bad_checksums(server), 0, "hook {hook}, {server}");
        }
        if hook == "xdp" {
            // The guest left its checksums to the device: its port moved to tc, and said so.
            assert!(lab.log("left").contains("moves from XDP to tc"), "{}", lab.log("left"));
        }
    }
}

#[test]
fn what_one_vm_sends_another_reads_byte_for_byte() {
    let lab = Lab::up(&[]);
    offloads_on(&lab);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let make = format!("head -c 50000000 /dev/urandom > {path}/file; sha256sum < {path}/file");
    let sent = lab.run("vm5", "sh", &["-c", &make]);
    let _server = lab.web_server("vm5", path);
    let get = "curl -sf --max-time 60 http://10.0.0.7:8080/file | sha256sum";
    assert_eq!(lab.run("vm1", "sh", &["-c", get]).trim(), sent.trim());
}

#[test]
fn datagrams_of_65507_bytes_arrive_whole() {
    for (hook, flags) in HOOKS {
        let lab = Lab::up(flags);
        offloads_on(&lab);
        for (server, address) in [("vm5", "10.0.0.7"), ("vm2", "10.0.0.4")] {
            // 200 datagrams of 45 fragments each, paced.
            let arguments = ["-u", "-l", "65507", "-b", "40M", "-n", "13101400"];
            let unread = lab.unread_datagrams(server);
            let report = iperf(&lab, server, address, &arguments);
            let unread = lab.unread_datagrams(server) - unread;
            let sum = &report["end"]["sum"];
            let (lost, all) = (sum["lost_packets"].as_u64(), sum["packets"].as_u64());
            assert!(lost <= Some(unread), "hook {hook}, {server}: {unread} unread, {sum}");
            assert!(all >= Some(199), "hook {hook}, {server}: {sum}");
        }
    }
}
