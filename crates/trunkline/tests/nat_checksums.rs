//! Checksums of what is translated, as they leave, judged by somebody else's program. The left node
//! has tc programs, the right one XDP on its NICs.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod lab;
mod nat;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Command;
use std::time::Duration;

use lab::{Lab, Running};
use nat::forged::{Forger, ipv4};
use nat::mixed_lab;
use nat::streams::{mirror, talk};

/// A way through address translation: who asks, who serves, the address asked.
const WAYS: [(&str, &str, [u8; 4]); 10] = [
    ("vm2", "inet", [8, 8, 8, 8]),      // the shared source address
    ("vm1", "inet", [8, 8, 8, 8]),      // out by a float
    ("inet", "vm1", [91, 208, 23, 11]), // in by a float
    ("vm2", "vm1", [91, 208, 23, 11]),  // hairpin
    ("vm1", "vm3", [10, 1, 0, 3]),      // other tenant
    ("vm4", "inet", [8, 8, 8, 8]),
    ("vm6", "inet", [8, 8, 8, 8]),
    ("inet", "vm6", [91, 208, 23, 16]),
    ("vm4", "vm6", [91, 208, 23, 16]),
    ("vm4", "vm6", [10, 1, 0, 4]),
];
const HOSTS: [&str; 6] = ["vm1", "vm2", "vm3", "vm4", "vm6", "inet"];
const PORT: u16 = 8080;
/// Of each protocol, each way.
const ROUNDS: usize = 5;

/// TCP, UDP and ICMP by every way, each packet waiting for the answer to the one before: nothing is
/// merged on the way, so that what is captured is what a NIC would have sent.
fn talk_by_every_way(lab: &Lab, first_port: u16) {
    for (number, (from, _, address)) in WAYS.iter().enumerate() {
        let to = SocketAddrV4::new((*address).into(), PORT);
        // A port outside of the range, which has to be changed.
        let own = first_port + number as u16;
        talk(from, own, to, ROUNDS);
        let (count, address) = (ROUNDS.to_string(), Ipv4Addr::from(*address).to_string());
        // An odd number of bytes.
        let words = ["-n", "-i", "0.01", "-w", "10", "-s", "57", "-c", &count, &address];
        let text = lab.run(from, "ping", &words);
        assert_eq!(lab::in_a_row(&text, ROUNDS as u32), ROUNDS as u32, "{from} {address}");
    }
}

/// What a host receives, written to a file.
fn record(lab: &Lab, host: &str, file: &str) -> Running {
    let words = ["-Q", "in", "-i", "eth0", "-U", "--immediate-mode", "-w", file, "ip"];
    lab.start(host, "tcpdump", &words)
}

/// Of all frames in these files: their addresses, and for IP, TCP, UDP and ICMP what tshark says
/// of the checksum (0 is wrong, 1 right, 3 not there).
fn judged(files: &[String]) -> Vec<Vec<String>> {
    let options = ["ip.check_checksum", "tcp.check_checksum", "udp.check_checksum"]
        .map(|option| format!("-o{option}:TRUE"));
    let fields = ["ip.src", "ip.dst", "ip.checksum.status", "tcp.checksum.status"];
    let fields = [&fields[..], &["udp.checksum.status", "icmp.checksum.status"]].concat();
    let mut rows = Vec::new();
    for file in files {
        let mut tshark = Command::new("tshark");
        tshark.args(["-n", "-r", file, "-T", "fields"]).args(&options);
        for field in &fields {
            tshark.args(["-e", field]);
        }
        let output = tshark.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        rows.extend(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()));
    }
    rows
}

fn offload(lab: &Lab, state: &str) {
    for host in HOSTS {
        lab.run(host, "ethtool", &["-K", "eth0", "tx", state, "gro", "off"]);
    }
}

#[test]
fn every_checksum_is_right_whoever_writes_it() {
    let lab = mixed_lab(&[]);
    for host in HOSTS {
        mirror(host, PORT);
    }
    // Machines that write their checksums themselves.
    offload(&lab, "off");
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<String> =
        HOSTS.iter().map(|host| folder.path().join(host).to_str().unwrap().to_owned()).collect();
    let recorded: Vec<Running> =
        HOSTS.iter().zip(&files).map(|(host, file)| record(&lab, host, file)).collect();
    std::thread::sleep(Duration::from_millis(700));
    talk_by_every_way(&lab, 50_000);
    // A datagram without a checksum keeps none.
    let forger = Forger::on("vm2");
    let mut datagram = vec![0xc3, 0x50, 0, 53, 0, 12, 0, 0];
    datagram.extend(b"none");
    forger.send(&ipv4(17, [10, 0, 0, 4].into(), [8, 8, 8, 8].into(), &datagram));
    std::thread::sleep(Duration::from_millis(300));
    recorded.into_iter().for_each(|running| drop(running.interrupt()));
    let rows = judged(&files);
    let of = |column: usize, status: &str| rows.iter().filter(|row| row[column] == status).count();
    let right = [2, 3, 4, 5].map(|column| of(column, "1"));
    eprintln!(
        "{} frames, checksums of IP, TCP, UDP and ICMP that are right: {right:?}",
        rows.len()
    );
    for row in &rows {
        // An ICMP error has a second one, of what it quotes.
        let each = row[2..].iter().flat_map(|both| both.split(','));
        assert!(each.into_iter().all(|status| status != "0"), "{row:?}");
    }
    let least = WAYS.len() * ROUNDS * 2;
    assert!(right.iter().all(|count| *count >= least), "{right:?} of {least}");
    let none = rows.iter().filter(|row| row[..2] == ["91.207.15.105", "8.8.8.8"] && row[4] == "3");
    assert_eq!(none.count(), 1);

    // Machines that leave them to a device: their kernels judge.
    offload(&lab, "on");
    let wrong = || {
        HOSTS.map(|host| ["Tcp:", "Udp:", "Icmp:"].map(|of| lab.counted(host, of, "InCsumErrors")))
    };
    let before = wrong();
    talk_by_every_way(&lab, 51_000);
    assert_eq!(wrong(), before);
}
