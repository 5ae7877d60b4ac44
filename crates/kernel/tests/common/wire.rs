//! What is on the wire: a frame sent by a packet socket, tcpdump as witness, frames judged.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Namespace;

/// Sends a frame as it is out of an interface of this namespace.
pub fn send(ifindex: u32, frame: &[u8]) {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: takes integers only.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: just opened, owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_protocol = protocol;
    to.sll_ifindex = ifindex as i32;
    let length = size_of_val(&to) as libc::socklen_t;
    let (data, to) = (frame.as_ptr().cast(), (&raw const to).cast());
    // SAFETY: frame and address are readable for the lengths given.
    let sent = unsafe { libc::sendto(socket.as_raw_fd(), data, frame.len(), 0, to, length) };
    assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
}

/// tcpdump in another namespace, until it has seen so many frames or three seconds are over.
pub struct Tcpdump(Child);

impl Tcpdump {
    pub fn start(namespace: &Namespace, count: u32, filter: &str) -> Self {
        let command = format!(
            "ip netns exec {} timeout 3 tcpdump -Uenn --immediate-mode -Q in -i eth0 -c {count} {filter}",
            namespace.0
        );
        let mut words = command.split_whitespace();
        let mut command = Command::new(words.next().unwrap());
        let child = command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        // It says when it listens.
        let mut said = Vec::new();
        let stderr = child.stderr.as_mut().unwrap();
        while !String::from_utf8_lossy(&said).contains("listening on") {
            let mut byte = [0];
            std::io::Read::read_exact(stderr, &mut byte).unwrap();
            said.push(byte[0]);
        }
        Self(child)
    }

    /// What it saw, a line for each frame.
    pub fn seen(self) -> Vec<String> {
        let output = self.0.wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }
}

/// Ones' complement sum of 16-bit words.
fn sum(bytes: &[u8], start: u32) -> u32 {
    let words =
        bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | two.get(1).map_or(0, |b| (*b).into()));
    let mut sum = words.fold(start, |sum, word| sum + word);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

/// Whether the TCP or UDP checksum of an Ethernet frame without tags is right; none if it carries
/// neither.
pub fn checksum_is_right(frame: &[u8]) -> Option<bool> {
    if frame[12..14] != [8, 0] {
        return None;
    }
    let ip = &frame[14..];
    let (header, total) =
        (usize::from(ip[0] & 15) * 4, usize::from(ip[2]) << 8 | usize::from(ip[3]));
    let fragment = (u16::from(ip[6]) << 8 | u16::from(ip[7])) & 0x3fff;
    if fragment != 0 || ![6, 17].contains(&ip[9]) {
        return None;
    }
    let pseudo = sum(&ip[12..20], u32::from(ip[9]) + (total - header) as u32);
    Some(sum(&ip[header..total], pseudo) == 0xffff)
}

pub const DOT1Q: u16 = 0x8100;
pub const DOT1AD: u16 = 0x88a8;

/// Takes the outer tag off; answers its TCI.
pub fn untag(frame: &mut Vec<u8>) -> Option<u16> {
    if frame.get(12..14)? != DOT1AD.to_be_bytes() {
        return None;
    }
    let tci = u16::from_be_bytes([frame[14], frame[15]]);
    frame.drain(12..16);
    Some(tci)
}

pub fn tag(frame: &mut Vec<u8>, protocol: u16, tci: u16) {
    let tag = [protocol.to_be_bytes(), tci.to_be_bytes()].concat();
    frame.splice(12..12, tag);
}

pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(5), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An iperf3 server for one client, listening.
pub fn iperf_server(namespace: &Namespace) -> Child {
    let words = ["netns", "exec", &namespace.0, "timeout", "30", "iperf3", "-s", "-1"];
    let child = Command::new("ip").args(words).stdout(Stdio::null()).spawn().unwrap();
    let listens = || namespace.run("ss -Hltn sport = 5201").contains("5201");
    until("iperf3 listens", listens);
    child
}

const HERE: [u8; 6] = [2, 0, 0, 0, 0, 1];
const THERE: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// An Ethernet frame without tags.
fn ethernet(protocol: u16, payload: &[u8]) -> Vec<u8> {
    [&HERE, &THERE, &protocol.to_be_bytes()[..], payload].concat()
}

/// An ARP request, or the answer to one: who asks, and who has `target`?
pub fn arp(operation: u16, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4];
    let arp = [&head, &operation.to_be_bytes()[..], &THERE, &sender, &[0; 6], &target].concat();
    ethernet(0x0806, &arp)
}

/// An IPv4 packet without options, padded to the shortest Ethernet frame.
pub fn ipv4(from: [u8; 4], to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len() as u16).to_be_bytes();
    let mut ip = vec![0x45, 0, length[0], length[1], 0, 1, 0, 0, 64, protocol, 0, 0];
    ip.extend([from, to].concat());
    let checksum = !sum(&ip, 0) as u16;
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    ip.extend(payload);
    let mut frame = ethernet(0x0800, &ip);
    frame.resize(frame.len().max(60), 0);
    frame
}

/// A UDP datagram from and to these ports; its checksum is left out, as UDP allows.
pub fn udp(from: ([u8; 4], u16), to: ([u8; 4], u16), data: &[u8]) -> Vec<u8> {
    let length = 8 + data.len() as u16;
    let header = [from.1, to.1, length, 0].map(u16::to_be_bytes).concat();
    ipv4(from.0, to.0, 17, &[&header, data].concat())
}

/// A TCP segment with these flags.
pub fn tcp(from: ([u8; 4], u16), to: ([u8; 4], u16), flags: u8) -> Vec<u8> {
    let mut segment = [from.1, to.1].map(u16::to_be_bytes).concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    let pseudo = [from.0, to.0].concat();
    let checksum = !sum(&segment, sum(&pseudo, 6 + segment.len() as u32)) as u16;
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    ipv4(from.0, to.0, 6, &segment)
}

/// An ICMP message with an id behind its checksum.
pub fn icmp(from: [u8; 4], to: [u8; 4], kind: u8, id: u16) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend([id, 1].map(u16::to_be_bytes).concat());
    message.extend([0x5a; 28]);
    let checksum = !sum(&message, 0) as u16;
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    ipv4(from, to, 1, &message)
}
