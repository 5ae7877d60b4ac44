//! What is sent over a veth between two namespaces of the test's own, by the sink's count and by
//! another hand's reading.
#![allow(clippy::unwrap_used, missing_docs)] // tests

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use serde_json::Value;

/// Two namespaces and a cable; gone with it.
struct Bed {
    names: [String; 2],
    mac: String,
}

fn run(command: &str) -> Output {
    let words: Vec<&str> = command.split_whitespace().collect();
    Command::new(words[0]).args(&words[1..]).output().unwrap()
}

fn must(command: &str) -> String {
    let output = run(command);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

impl Bed {
    fn new() -> Self {
        static BEDS: AtomicU32 = AtomicU32::new(0);
        let bed = BEDS.fetch_add(1, Ordering::Relaxed);
        let names = ["a", "b"].map(|end| format!("tl-pktgen-{}-{bed}{end}", std::process::id()));
        let [a, b] = &names;
        for name in &names {
            must(&format!("ip netns add {name}"));
        }
        must(&format!("ip -n {a} link add eth0 type veth peer name eth0 netns {b}"));
        for name in &names {
            must(&format!("ip -n {name} link set eth0 up"));
        }
        // Without it nothing that XDP sends is taken, while no sink is there.
        must(&format!("ip netns exec {b} ethtool -K eth0 gro on"));
        let link: Value =
            serde_json::from_str(&must(&format!("ip -j -n {b} link show eth0"))).unwrap();
        let mac = link[0]["address"].as_str().unwrap().to_owned();
        Self { names, mac }
    }

    /// Sends and counts, with these words more.
    fn run(&self, words: &str) -> Value {
        let [a, b] = &self.names;
        let pktgen = env!("CARGO_BIN_EXE_pktgen");
        let said = must(&format!(
            "{pktgen} run --dev eth0 --netns {a} --sink-dev eth0 --sink-netns {b} {} {words}",
            self.packets()
        ));
        serde_json::from_str(&said).unwrap()
    }

    fn packets(&self) -> String {
        format!("--destination-mac {} --source 10.0.0.4 --destination 8.8.0.0/16", self.mac)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for name in &self.names {
            run(&format!("ip netns del {name}"));
        }
    }
}

#[test]
fn everything_that_is_sent_is_counted_and_whole() {
    let bed = Bed::new();
    for words in ["--protocol udp", "--protocol tcp", "--protocol syn", "--protocol icmp"] {
        for size in ["60", "imix", "1514"] {
            let told = bed.run(&format!("--count 3000 --size {size} --verify-every 1 {words}"));
            let of = |name: &str| told["received"][name].as_u64().unwrap();
            let counted = [of("packets"), of("verified"), of("wrong_checksum"), of("reordered")];
            assert_eq!(counted, [3000, 3000, 0, 0], "{words} {size}: {told}");
            assert_eq!(told["lost"], 0);
        }
    }
}

#[test]
fn a_tag_is_sent_and_one_that_is_not_expected_is_noticed() {
    let bed = Bed::new();
    let told = bed.run("--count 500 --vlan 100 --expect-vlan 100 --verify-every 1");
    assert_eq!(
        (&told["received"]["packets"], &told["received"]["wrong_checksum"]),
        (&500.into(), &0.into())
    );
    let told = bed.run("--count 500 --vlan 100 --expect-vlan 102");
    assert_eq!((&told["received"]["packets"], &told["lost"]), (&0.into(), &500.into()));
    // Both at XDP, which asks the driver for the tag beside the frame, and, let by, at tc.
    assert_eq!(told["received"]["wrong_vlan"], 1000);
    let told = bed.run("--count 500 --expect-source 10.0.0.5");
    assert!(told["received"]["wrong_address"].as_u64().unwrap() >= 500);
}

#[test]
fn stamped_packets_say_how_long_they_were_on_their_way() {
    let bed = Bed::new();
    let told = bed.run("--count 2000 --stamps --rate 20000");
    let times = &told["received"]["latency"];
    let of = |name: &str| times[name].as_u64().unwrap();
    assert!(of("p50") > 0 && of("p50") <= of("p99") && of("p99") <= of("max"), "{times}");
}

#[test]
fn another_hand_reads_as_many_flows_with_right_checksums() {
    let bed = Bed::new();
    let [a, b] = &bed.names;
    let file = std::env::temp_dir().join(format!("{b}.pcap"));
    let path = file.to_str().unwrap();
    let mut tcpdump = Command::new("ip")
        .args([
            "netns", "exec", b, "timeout", "20", "tcpdump", "-U", "-i", "eth0", "-c", "400", "-w",
        ])
        .args([path, "udp"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while std::fs::metadata(&file).map_or(0, |file| file.len()) < 24 {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let (pktgen, packets) = (env!("CARGO_BIN_EXE_pktgen"), bed.packets());
    must(&format!(
        "ip netns exec {a} {pktgen} send --dev eth0 {packets} --count 400 --flows 100 \
         --source-port 1000-1009 --destination-port 50-54 --rate 20000"
    ));
    tcpdump.wait().unwrap();
    let bytes = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let flows = flows(&bytes[24..]);
    assert_eq!(flows.len(), 400);
    let distinct: std::collections::BTreeSet<_> = flows.iter().collect();
    assert_eq!(distinct.len(), 100, "ten source ports, five destination ports, two addresses");
}

/// Destination and ports of each frame of a capture, whose checksums must be right.
fn flows(mut records: &[u8]) -> Vec<([u8; 4], u16, u16)> {
    let mut flows = Vec::new();
    while records.len() > 16 {
        let length = u32::from_ne_bytes(records[8..12].try_into().unwrap()) as usize;
        let frame = &records[16..16 + length];
        records = &records[16 + length..];
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) =
            (packet.net, packet.transport)
        else {
            panic!("{frame:02x?}")
        };
        let header = ip.header().to_header();
        assert_eq!(header.calc_header_checksum(), header.header_checksum);
        let sum = udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap();
        assert_eq!(sum, udp.checksum());
        flows.push((header.destination, udp.source_port(), udp.destination_port()));
    }
    flows
}

#[test]
fn what_cannot_be_is_refused_with_what_to_do() {
    let bed = Bed::new();
    let [a, _] = &bed.names;
    let pktgen = env!("CARGO_BIN_EXE_pktgen");
    let refused = |words: &str| {
        let output = run(&format!("ip netns exec {a} {pktgen} send {} {words}", bed.packets()));
        assert!(!output.status.success(), "{words}");
        String::from_utf8(output.stderr).unwrap()
    };
    let said = refused("--dev nowhere --count 1");
    assert!(said.contains("there is no interface nowhere here"), "{said}");
    assert!(refused("--dev eth0").contains("--seconds"), "a load has an end");
    let said = refused("--dev eth0 --count 1 --flows 100000000");
    assert!(said.contains("100000000 flows of 65536 there are"), "{said}");
    assert!(refused("--dev eth0 --count 1 --size 40").contains("60 to 1514"));
}
