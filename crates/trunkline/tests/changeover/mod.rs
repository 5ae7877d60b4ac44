//! What every test of a changeover does: traffic before, through and after it, and a look at all
//! that it could leave different.
#![allow(dead_code, clippy::unwrap_used)] // every test file uses its own part; it is a test

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

use crate::lab::{self, Lab, Running, Said};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_trunkline");
pub(crate) const CONFIG: &str = "/run/trunkline-lab/left.toml";
pub(crate) const FLOAT: &str = "91.208.23.11";
/// What is there while a node is taken over, and at no other time.
pub(crate) const LEFT: [&str; 2] =
    ["/run/trunkline/left.adopted.json", "/sys/fs/bpf/trunkline/left"];

/// All that a changeover could leave different.
pub(crate) fn state(lab: &Lab) -> Vec<String> {
    let show = |words: &[&str]| lab.run("left", words[0], &words[1..]);
    let rules = show(&["iptables-legacy-save"]);
    // Chains count, and the first line has the time.
    let rules: Vec<&str> = rules.lines().filter(|line| line.starts_with("-A")).collect();
    let routes = show(&["ip", "route", "show", "table", "all"]);
    // Without 802.1Q there is no eth0.
    let there = |nic: &&str| lab.exec("left", "ip", &["link", "show", nic]).ok;
    let offloads = |nic: &str| show(&["ethtool", "-k", nic]);
    vec![
        show(&["ip", "-o", "link"]),
        show(&["ip", "-o", "-4", "addr"]),
        show(&["bridge", "-d", "link"]),
        routes,
        rules.join("\n"),
        show(&["tc", "qdisc"]),
        ["eth0", "eth1", "vnet1"].into_iter().filter(there).map(offloads).collect(),
    ]
}

/// Nothing is different from before, and nothing of a changeover is left.
pub(crate) fn is_as_before(lab: &Lab, before: &[String], when: &str) {
    for (after, before) in state(lab).iter().zip(before) {
        assert_eq!(after, before, "{when}");
    }
    for path in LEFT {
        assert!(!Path::new(path).exists(), "{when}: {path}");
    }
}

/// A ping that does not end by itself.
pub(crate) struct Pinging {
    what: String,
    ping: Running,
}

impl Pinging {
    fn start(lab: &Lab, from: &str, to: &str, interval: &str) -> Self {
        let ping = lab.start(from, "ping", &["-n", "-D", "-i", interval, "-W", "2", to]);
        Self { what: format!("{from} → {to}"), ping }
    }

    /// Ends it; the longest time without an answer.
    fn silence(self) -> Duration {
        let Said { text, .. } = self.ping.interrupt();
        let times = text.lines().filter(|line| line.contains("bytes from"));
        let times: Vec<f64> = times
            .filter_map(|line| line.strip_prefix('[')?.split_once(']')?.0.parse().ok())
            .collect();
        assert!(times.len() > 50, "{}: {text}", self.what);
        let longest = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
        let (sent, answered) = lab::pinged(&text);
        eprintln!("{}: {answered} of {sent} answered, {:.0} ms", self.what, longest * 1e3);
        Duration::from_secs_f64(longest)
    }
}

/// Pings on all of these ways at once, with so many seconds from one to the next.
pub(crate) fn pings(lab: &Lab, ways: &[(&str, &str)], interval: &str) -> Vec<Pinging> {
    ways.iter().map(|(from, to)| Pinging::start(lab, from, to, interval)).collect()
}

/// Ends the pings, none of which was without an answer for that long.
pub(crate) fn nobody_was_silent(pings: Vec<Pinging>, limit: Duration, when: &str) {
    eprintln!("{when}:");
    for ping in pings {
        let what = ping.what.clone();
        let silence = ping.silence();
        assert!(silence < limit, "{when}, {what}: {silence:?}");
    }
}

/// A TCP stream that goes on until it is told to end.
pub(crate) struct Stream {
    what: String,
    received: Arc<AtomicUsize>,
    /// Dropping it ends the stream.
    more: Option<mpsc::Sender<()>>,
    sender: JoinHandle<Vec<u8>>,
    receiver: JoinHandle<Vec<u8>>,
}

impl Stream {
    /// From a server at an address to a client; the port is one that the security groups let in.
    pub(crate) fn start((server, address): (&'static str, &str), client: &'static str) -> Self {
        let (listening, listens) = mpsc::channel();
        let (more, wanted) = mpsc::channel();
        let sender = std::thread::spawn(move || {
            enter(server);
            let listener = TcpListener::bind("0.0.0.0:22").unwrap();
            listening.send(()).unwrap();
            feed(listener.accept().unwrap().0, &wanted)
        });
        listens.recv().unwrap();
        let received = Arc::new(AtomicUsize::new(0));
        let (counted, to) = (Arc::clone(&received), format!("{address}:22"));
        let receiver = std::thread::spawn(move || {
            enter(client);
            take(TcpStream::connect(to).unwrap(), &counted)
        });
        let what = format!("{client} from {server} by {address}");
        Self { what, received, more: Some(more), sender, receiver }
    }

    /// It goes on, and soon.
    pub(crate) fn goes_on(&self, limit: Duration, when: &str) {
        let (before, start) = (self.received.load(Relaxed), Instant::now());
        while self.received.load(Relaxed) == before {
            assert!(start.elapsed() < limit, "{when}, {}: it stands at {before}", self.what);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it; all that was sent has come.
    pub(crate) fn ends_whole(mut self) {
        drop(self.more.take());
        let (sent, came) = (self.sender.join().unwrap(), self.receiver.join().unwrap());
        eprintln!("{}: {} bytes", self.what, came.len());
        assert!(came == sent, "{}: {} came of {}", self.what, came.len(), sent.len());
    }
}

/// Has this thread be on a host of the lab.
fn enter(host: &str) {
    let namespace = File::open(format!("/run/netns/tl-{host}")).unwrap();
    setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
}

/// Sends numbers, a piece at a time, until nobody wants more; all that was sent.
fn feed(mut into: TcpStream, wanted: &mpsc::Receiver<()>) -> Vec<u8> {
    let (mut sent, mut number) = (Vec::new(), 0u32);
    let pause = Duration::from_millis(10);
    while wanted.recv_timeout(pause) != Err(mpsc::RecvTimeoutError::Disconnected) {
        let piece: Vec<u8> = (number..number + 1024)
            .flat_map(|number| number.wrapping_mul(0x9e37_79b9).to_le_bytes())
            .collect();
        into.write_all(&piece).unwrap();
        sent.extend(piece);
        number += 1024;
    }
    sent
}

/// All that comes, which is counted meanwhile.
fn take(mut from: TcpStream, counted: &AtomicUsize) -> Vec<u8> {
    from.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let (mut came, mut piece) = (Vec::new(), [0; 65536]);
    loop {
        match from.read(&mut piece).unwrap() {
            0 => return came,
            bytes => came.extend_from_slice(&piece[..bytes]),
        }
        counted.store(came.len(), Relaxed);
    }
}

/// Starts the changeover, which becomes the daemon, or a daemon; it is ready when this returns.
pub(crate) fn start(lab: &Lab, command: &str) -> Running {
    let daemon = lab.start("left", PROGRAM, &[command, "--node", "left", "--config", CONFIG]);
    let start = Instant::now();
    let ready = || {
        let asked = lab.exec("left", PROGRAM, &["ctl", "--node", "left", "--json", "status"]);
        asked.ok && asked.text.contains("\"ready\": true")
    };
    while !ready() {
        assert!(start.elapsed() < Duration::from_secs(40), "{}", daemon.interrupt().text);
        std::thread::sleep(Duration::from_millis(50));
    }
    daemon
}

/// Gives the node back to nova-network.
pub(crate) fn back(lab: &Lab) -> String {
    lab.run("left", PROGRAM, &["adopt", "--node", "left", "--back"])
}
