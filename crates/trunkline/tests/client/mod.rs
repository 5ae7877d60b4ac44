//! DHCP clients in VMs of the lab: busybox's, ISC's, and messages written by hand.
#![allow(dead_code, clippy::unwrap_used)] // every test file uses its own part; it is a test

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::{Lab, Running};
use crate::raw::{datagram, inside};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/lab.d/udhcpc-script");

/// What udhcpc told its script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) event: String,
    pub(crate) ip: String,
    pub(crate) mask: String,
    pub(crate) router: String,
    pub(crate) dns: String,
    pub(crate) domain: String,
    pub(crate) hostname: String,
    pub(crate) lease: String,
    pub(crate) server: String,
    pub(crate) mtu: String,
    pub(crate) ntp: String,
}

impl Lease {
    fn read(line: &str) -> Self {
        let word = |name: &str| {
            let mut words = line.split_whitespace();
            let found = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            found.unwrap_or_default().to_owned()
        };
        Self {
            event: word("event"),
            ip: word("ip"),
            mask: word("mask"),
            router: word("router"),
            dns: word("dns"),
            domain: word("domain"),
            hostname: word("hostname"),
            lease: word("lease"),
            server: word("server"),
            mtu: word("mtu"),
            ntp: word("ntp"),
        }
    }
}

/// How udhcpc is called.
fn words<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["udhcpc", "-f", "-t", "5", "-T", "1", "-i", "eth0", "-s", SCRIPT], more].concat()
}

/// A VM without an address gets one; what it was told.
pub(crate) fn get(lab: &Lab, vm: &str, more: &[&str]) -> Lease {
    lab.run(vm, "ip", &["addr", "flush", "dev", "eth0", "scope", "global"]);
    let text = lab.run(vm, "busybox", &words(&[&["-n", "-q"], more].concat()));
    let line = text.lines().find(|line| line.starts_with("event=bound"));
    Lease::read(line.unwrap_or_else(|| panic!("{vm} got nothing: {text}")))
}

/// A VM asks and gets nothing; what its client said.
pub(crate) fn refused(lab: &Lab, vm: &str) -> String {
    let said = lab.exec(vm, "busybox", &words(&["-n", "-q", "-t", "3"]));
    assert!(!said.ok, "{vm} got an address: {}", said.text);
    said.text
}

/// ISC's client boots with a lease of this address from this server; what it said.
pub(crate) fn dhclient(vm: &str, address: &str, server: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (leases, pid, config) = (path("leases"), path("pid"), path("config"));
    let lease = format!(
        "lease {{\n interface \"eth0\";\n fixed-address {address};\n \
         option subnet-mask 255.255.255.0;\n option dhcp-lease-time 86400;\n \
         option dhcp-server-identifier {server};\n renew 4 2037/12/31 00:00:00;\n \
         rebind 4 2037/12/31 00:00:00;\n expire 4 2037/12/31 00:00:00;\n}}\n"
    );
    std::fs::write(&leases, lease).unwrap();
    std::fs::write(&config, "timeout 20;\nreboot 5;\n").unwrap();
    let words = ["-1", "-d", "-v", "-cf", &config, "-lf", &leases, "-pf", &pid, "-sf", "/bin/true"];
    let mut client = spawn(vm, "dhclient", &[&words[..], &["eth0"]].concat());
    let lines = lines(&mut client);
    let (mut text, deadline) = (String::new(), Instant::now() + Duration::from_secs(30));
    // With -d it stays; it has its address when it says so.
    while !text.contains("bound to") && Instant::now() < deadline {
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => text = format!("{text}{line}\n"),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let _ = client.kill();
    let _ = client.wait();
    text
}

fn spawn(vm: &str, program: &str, words: &[&str]) -> Child {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/tl-{vm}")).args(["--", program]).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What a program prints, line by line, as it comes.
fn lines(child: &mut Child) -> Receiver<String> {
    let (sender, lines) = channel();
    let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let other = sender.clone();
    std::thread::spawn(move || {
        BufReader::new(out).lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
    });
    std::thread::spawn(move || {
        BufReader::new(err).lines().map_while(Result::ok).all(|line| other.send(line).is_ok())
    });
    lines
}

/// A udhcpc that stays; ended when it goes out of scope.
pub(crate) struct Client {
    child: Child,
    lines: Receiver<String>,
    text: String,
}

impl Client {
    pub(crate) fn start(vm: &str) -> Self {
        let mut child = spawn(vm, "busybox", &words(&[]));
        let lines = lines(&mut child);
        Self { child, lines, text: String::new() }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    pub(crate) fn waits_for(&mut self, words: &str) {
        self.waits_for_times(words, 1);
    }

    /// Waits until it has said this so often since its start.
    pub(crate) fn waits_for_times(&mut self, words: &str, times: usize) {
        let deadline = Instant::now() + Duration::from_secs(40);
        while self.text.matches(words).count() < times {
            assert!(Instant::now() < deadline, "never said '{words}': {}", self.text);
            if let Ok(line) = self.lines.recv_timeout(Duration::from_millis(100)) {
                self.text = format!("{}{line}\n", self.text);
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A message of VM 1 (RFC 2131 §2).
pub(crate) fn message(kind: u8, ciaddr: [u8; 4], options: &[u8]) -> Vec<u8> {
    let mut message = vec![1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0];
    message.extend(ciaddr);
    message.extend([0; 12]);
    message.extend([0xfa, 0x16, 0x3e, 0, 0, 1]);
    message.resize(236, 0);
    message.extend([0x63, 0x82, 0x53, 0x63, 53, 1, kind]);
    message.extend(options);
    message.push(255);
    message.resize(message.len().max(300), 0);
    message
}

pub(crate) fn discover() -> Vec<u8> {
    message(1, [0; 4], &[])
}

pub(crate) fn request(ciaddr: [u8; 4], options: &[u8]) -> Vec<u8> {
    message(3, ciaddr, options)
}

/// A VM that has its address asks this server, or all; the answer, if one comes within a second.
pub(crate) fn asks(vm: &str, server: &str, message: &[u8]) -> Option<Vec<u8>> {
    inside(vm, || {
        let socket = UdpSocket::bind("0.0.0.0:68").unwrap();
        socket.set_broadcast(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        socket.send_to(message, (server, 67)).unwrap();
        let mut answer = [0; 1500];
        let (length, from) = socket.recv_from(&mut answer).ok()?;
        assert_eq!((from.port(), &answer[4..8]), (67, &message[4..8]));
        Some(answer[..length].to_vec())
    })
}

/// An option of a message.
pub(crate) fn option(message: &[u8], code: u8) -> Option<Vec<u8>> {
    let mut at = 240;
    while *message.get(at)? != 255 {
        let length = usize::from(message[at + 1]);
        if message[at] == code {
            return Some(message[at + 2..at + 2 + length].to_vec());
        }
        at += 2 + length;
    }
    None
}

/// The type of a message.
pub(crate) fn kind(message: &[u8]) -> u8 {
    option(message, 53).unwrap()[0]
}

/// A request to all as a frame from this MAC.
pub(crate) fn frame(mac: [u8; 6], message: &[u8]) -> Vec<u8> {
    let (from, to) = ("0.0.0.0:68".parse().unwrap(), "255.255.255.255:67".parse().unwrap());
    [&[0xff; 6][..], &mac, &[8, 0], &datagram(from, to, 1, message)].concat()
}

/// Sends a frame on the trunk with this tag, from the switch, to both nodes.
pub(crate) fn sends_on_trunk(lab: &Lab, vlan: u16, frame: &[u8]) {
    for port in ["left-eth0", "right-eth0"] {
        let ports = lab.run("switch", "ip", &["-o", "link", "show", port]);
        let index: u32 = ports.split(':').next().unwrap().trim().parse().unwrap();
        let mut tagged = frame[..12].to_vec();
        tagged.extend([0x81, 0]);
        tagged.extend(vlan.to_be_bytes());
        tagged.extend(&frame[12..]);
        inside("switch", || kernel::FrameSender::open(index).unwrap().send(&tagged).unwrap());
    }
}

/// The VM behind a vif of the left node goes on on the right one, under the same name.
pub(crate) fn moves_right(lab: &Lab, vif: &str) {
    let file = |node: &str| format!("/run/trunkline-lab/{node}.toml");
    let left = std::fs::read_to_string(file("left")).unwrap();
    let begin = left.find(&format!("[[vif]]\nname = \"{vif}\"")).unwrap();
    let end = left[begin + 1..].find("\n[").map_or(left.len(), |end| begin + 1 + end + 1);
    let right = std::fs::read_to_string(file("right")).unwrap();
    let table = &left[begin..end];
    // Its floating address goes with it.
    let floats = left.find("[[floating_ip]]").unwrap();
    let stays = format!("{}{}", &left[..begin], &left[end..floats]);
    std::fs::write(file("left"), stays).unwrap();
    std::fs::write(file("right"), format!("{right}\n{table}\n{}", &left[floats..])).unwrap();
    lab.ctl("left", &["reload"]);
    lab.run("left", "ip", &["link", "set", vif, "netns", "tl-right"]);
    lab.run("right", "ip", &["link", "set", vif, "up"]);
    lab.ctl("right", &["reload"]);
    let deadline = Instant::now() + Duration::from_secs(10);
    let plugged = |port: &serde_json::Value| port["name"] == vif && port["state"] == "plugged";
    while !lab.ctl("right", &["ports"]).as_array().unwrap().iter().any(plugged) {
        assert!(Instant::now() < deadline, "{vif} is not plugged on the right node");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// dnsmasq in a VM, for VMs 1 and 5 of its network.
pub(crate) fn server(lab: &Lab, vm: &str, address: &str) -> Running {
    let (listen, range) =
        (format!("--listen-address={address}"), "--dhcp-range=10.0.0.2,static,120s");
    let hosts =
        ["--dhcp-host=fa:16:3e:00:00:01,10.0.0.3", "--dhcp-host=fa:16:3e:00:00:05,10.0.0.7"];
    let words = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--bind-interfaces",
        "--port=0",
        "--leasefile-ro",
        "--user=root",
        "--pid-file=",
        &listen,
        range,
    ];
    let server = lab.start(vm, "dnsmasq", &[&words[..], &hosts[..]].concat());
    let deadline = Instant::now() + Duration::from_secs(10);
    while lab.run(vm, "ss", &["-Hlun", "sport = 67"]).is_empty() {
        assert!(Instant::now() < deadline, "dnsmasq does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    server
}
