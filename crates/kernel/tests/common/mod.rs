//! A network namespace of its own for each test, links, commands, and a worker that stands in.
//!
//! The tests need root. They fail without it: a test that skips itself proves nothing.
#![allow(dead_code, unreachable_pub, unused_imports)] // each test file uses some of it
#![allow(clippy::unwrap_used)] // tests

pub mod run;
pub mod traced;
pub mod wire;
pub mod worker;

use std::cell::RefCell;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use libbpf_rs::libbpf_sys;

use kernel::{Interface, Kernel, PortEntry, PortKind, SegmentEntry, Settings, detach_all};

thread_local! {
    static TURN: RefCell<Option<MutexGuard<'static, ()>>> = const { RefCell::new(None) };
}

/// One test at a time, to the end of its thread: the queues of the CPUs are everybody's, and bulk
/// traffic in one namespace loses another's packets.
fn take_turn() {
    static TESTS: Mutex<()> = Mutex::new(());
    TURN.with_borrow_mut(|turn| {
        if turn.is_none() {
            *turn = Some(TESTS.lock().unwrap_or_else(PoisonError::into_inner));
        }
    });
}

/// Puts the calling thread into a new network namespace, which ends with the thread.
pub fn enter_netns() {
    take_turn();
    // SAFETY: takes and changes nothing.
    let uid = unsafe { libc::geteuid() };
    assert_eq!(uid, 0, "this test needs root: run `cargo test` as root");
    // SAFETY: changes the namespace of this thread alone.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "unshare: {}", std::io::Error::last_os_error());
    // No neighbour discovery between our packets.
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    run("ip link set lo up");
}

/// Runs a command in the namespace of the calling thread; answers what it printed.
pub fn try_run(command: &str) -> Output {
    let mut words = command.split_whitespace();
    Command::new(words.next().unwrap()).args(words).output().unwrap()
}

/// The same, and it must succeed.
pub fn run(command: &str) -> String {
    let output = try_run(command);
    let (out, err) = (&output.stdout, &output.stderr);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command}: {}{}", text(out), text(err));
    text(out)
}

/// How many of the first `count` pings were answered before one is missing, or came twice. With a
/// deadline (`-w`) ping asks on until so many answers came as it was told to wait for.
pub fn in_a_row(said: &str, count: u32) -> u32 {
    let number = |line: &str| line.split_once("icmp_seq=")?.1.split(' ').next()?.parse().ok();
    let answers = said.lines().filter(|line| line.contains("bytes from"));
    let mut numbers: Vec<u32> = answers.filter_map(number).collect();
    numbers.sort_unstable();
    numbers.into_iter().zip(1..=count).take_while(|(number, due)| number == due).count() as u32
}

/// Whether `command` prints `text`.
pub fn prints(command: &str, text: &str) -> bool {
    let output = try_run(command);
    String::from_utf8_lossy(&output.stdout).contains(text)
}

/// Index of an interface in this namespace.
pub fn index(name: &str) -> u32 {
    let said = run(&format!("ip -o link show dev {name}"));
    said.split(':').next().unwrap().parse().unwrap()
}

/// A veth pair, both ends up here, with one queue each; answers both indexes.
pub fn veth(a: &str, b: &str) -> (u32, u32) {
    run(&format!("ip link add {a} type veth peer name {b}"));
    for end in [a, b] {
        run(&format!("ip link set {end} up"));
        // As in the lab: a veth that gets frames from XDP needs NAPI.
        run(&format!("ethtool -K {end} gro on"));
    }
    (index(a), index(b))
}

/// Another namespace, by name, removed at the end.
pub struct Namespace(pub String);

impl Namespace {
    pub fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let name = format!("tlk-{}-{number}-{name}", std::process::id());
        run(&format!("ip netns add {name}"));
        let namespace = Self(name);
        namespace.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
        namespace.run("ip link set lo up");
        namespace
    }

    pub fn run(&self, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.0))
    }

    /// Runs `inside` in a thread of its own that is in this namespace.
    pub fn enter<T: Send + 'static>(
        &self,
        inside: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let file = File::open(format!("/run/netns/{}", self.0)).unwrap();
        std::thread::spawn(move || {
            // SAFETY: an open descriptor; changes the namespace of this thread alone.
            let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(result, 0, "setns: {}", std::io::Error::last_os_error());
            inside()
        })
    }

    /// Takes the interface in, up, as `eth0` with that address.
    pub fn take(&self, interface: &str, address: &str) {
        run(&format!("ip link set {interface} netns {} name eth0", self.0));
        self.run(&format!("ip address add {address} dev eth0"));
        self.run("ip link set eth0 up");
        self.run("ethtool -K eth0 gro on");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = try_run(&format!("ip netns del {}", self.0));
    }
}

/// A node whose pins go with the test.
pub struct Node {
    pub name: String,
    pub kernel: Option<Kernel>,
    pub settings: Settings,
}

impl Node {
    pub fn start(name: &str) -> Self {
        Self::with(
            name,
            Settings { lines: 64, hash_key: 1, tcx: true, replays: true, continues: None },
        )
    }

    pub fn with(name: &str, settings: Settings) -> Self {
        let name = format!("tlk-{}-{name}", std::process::id());
        let mut node = Self { name, kernel: None, settings };
        node.restart();
        node
    }

    pub fn kernel(&mut self) -> &mut Kernel {
        self.kernel.as_mut().unwrap()
    }

    /// What a SIGKILL leaves, and a new start after it.
    pub fn restart(&mut self) {
        self.kernel = None;
        self.kernel = Some(Kernel::start(&self.name, &self.settings).unwrap());
        self.kernel().keep_table().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kernel = None;
        let _ = detach_all(&self.name);
    }
}

/// A port without sockets or limit.
pub fn port(number: u16, ifindex: u32, kind: PortKind) -> PortEntry {
    PortEntry {
        number,
        ifindex,
        kind,
        mac: [2, 0, 0, 0, 0, 1],
        segment: 0,
        stamp: 0,
        station: [0; 6],
        takes_xdp: false,
        mtu: 1500,
        peer: false,
        public: false,
        sockets: 0,
        queues: 0,
        punt_rate: 0,
        punt_burst: 0,
        quota: kernel::Quota::default(),
    }
}

/// A segment without a gateway here.
pub fn segment(zone: u16, vlan: u16) -> SegmentEntry {
    SegmentEntry { zone, vlan, ..SegmentEntry::default() }
}

/// Where BPF programs are on an interface, with the programs' ids.
pub fn programs_on(interface: &str) -> Vec<(&'static str, u32)> {
    let ifindex = index(interface) as i32;
    let mut xdp = 0;
    // SAFETY: writes one integer.
    let result = unsafe { libbpf_sys::bpf_xdp_query_id(ifindex, 0, &raw mut xdp) };
    assert_eq!(result, 0, "{interface}");
    let (mut tcx, mut count, mut flags) = ([0; 64], 64, 0);
    let (programs, ingress) = (tcx.as_mut_ptr(), libbpf_sys::BPF_TCX_INGRESS);
    // SAFETY: an array of the length stated, and integers.
    let result = unsafe {
        libbpf_sys::bpf_prog_query(ifindex, ingress, 0, &raw mut flags, programs, &raw mut count)
    };
    assert_eq!(result, 0, "{interface}");
    let mut found: Vec<_> = [("xdp", xdp)].into_iter().filter(|(_, id)| *id != 0).collect();
    found.extend(tcx[..count as usize].iter().map(|id| ("tcx", *id)));
    let filters = run(&format!("tc filter show dev {interface} ingress"));
    for (at, _) in filters.match_indices(" direct-action ") {
        let id = filters[at..].split(" id ").nth(1).unwrap().split(' ').next().unwrap();
        found.push(("clsact", id.parse().unwrap()));
    }
    found
}

/// The punt link of a node: `punt0` and `punt1`, as the daemon makes it.
pub fn punt_link() -> (u32, u32) {
    run("ip link add punt0 mtu 1508 type veth peer name punt1 mtu 1508");
    run("ip link set punt0 up");
    run("ip link set punt1 up");
    (index("punt0"), index("punt1"))
}

pub fn near() -> Interface<'static> {
    Interface::new(index("punt0"), "punt0")
}

pub fn far() -> Interface<'static> {
    Interface::new(index("punt1"), "punt1")
}
