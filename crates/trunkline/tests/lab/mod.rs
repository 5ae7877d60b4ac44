//! The lab of `tools/lab`, driven by tests: two nodes, six VMs, real programs.
#![allow(dead_code, clippy::unwrap_used)] // every test file uses its own part; it is a test

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Both hook modes of every test: (name, flags of `lab up`).
pub(crate) const HOOKS: [(&str, &[&str]); 2] = [
    ("tc", &["--hook", "tc", "--vif-hook", "tc"]),
    ("xdp", &["--hook", "xdp", "--vif-hook", "xdp"]),
];

/// A lab that is up; taken down when it goes out of scope, whatever the test did.
pub(crate) struct Lab;

fn tool() -> Command {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/lab"));
    command.env("TRUNKLINE", env!("CARGO_BIN_EXE_trunkline")).stdin(Stdio::null());
    command
}

/// What a program printed and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) ok: bool,
    pub(crate) text: String,
}

fn said(output: &Output) -> Said {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    Said { ok: output.status.success(), text: String::from_utf8_lossy(&text).into_owned() }
}

impl Lab {
    /// Builds the lab with these flags.
    pub(crate) fn up(flags: &[&str]) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "the lab needs root; it never skips");
        let output = tool().arg("up").arg("--force").args(flags).output().unwrap();
        let said = said(&output);
        assert!(said.ok, "tools/lab up {flags:?}: {}", said.text);
        Self
    }

    /// Starts a machine in QEMU: a nova node or a router on the trunk, or a VM of the left node.
    pub(crate) fn guest(&self, role: &str) {
        let said = said(&tool().args(["guest", role]).output().unwrap());
        assert!(said.ok, "tools/lab guest {role}: {}", said.text);
    }

    /// As `tools/lab exec` does it, without a shell in between, which takes longer than most programs.
    fn command(host: &str, program: &str, arguments: &[&str]) -> Command {
        let mut command = if host == "guest" { tool() } else { Command::new("nsenter") };
        match host {
            "guest" => command.args(["exec", host, program]),
            _ => command.arg(format!("--net=/run/netns/tl-{host}")).args(["--", program]),
        };
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a program on a host to its end.
    pub(crate) fn exec(&self, host: &str, program: &str, arguments: &[&str]) -> Said {
        said(&Self::command(host, program, arguments).output().unwrap())
    }

    /// Runs a program on a host that must succeed; returns what it printed.
    pub(crate) fn run(&self, host: &str, program: &str, arguments: &[&str]) -> String {
        let said = self.exec(host, program, arguments);
        assert!(said.ok, "{host}: {program} {arguments:?}: {}", said.text);
        said.text
    }

    /// Starts a program on a host.
    pub(crate) fn start(&self, host: &str, program: &str, arguments: &[&str]) -> Running {
        let mut command = Self::command(host, program, arguments);
        Running::spawn(&mut command)
    }

    /// Starts a server on a host; it listens on this TCP port when this returns.
    pub(crate) fn serve(
        &self,
        host: &str,
        port: u16,
        program: &str,
        arguments: &[&str],
    ) -> Running {
        let server = self.start(host, program, arguments);
        self.listens(host, port);
        server
    }

    /// Waits until somebody listens on this TCP port of a host.
    pub(crate) fn listens(&self, host: &str, port: u16) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.run(host, "ss", &["-Hltn", &format!("sport = {port}")]).is_empty() {
            assert!(Instant::now() < deadline, "nobody listens on port {port} of {host}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A web server on port 8080 of a host, ready when this returns.
    pub(crate) fn web_server(&self, host: &str, folder: &str) -> Running {
        self.serve(host, 8080, "busybox", &["httpd", "-f", "-p", "8080", "-h", folder])
    }

    /// Captures on a host until stopped; ready when this returns.
    pub(crate) fn capture(&self, host: &str, interface: &str, filter: &str) -> Capture {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        // 64 MB: it must not lose frames of a bulk transfer on a busy machine.
        let room = ["-B", "65536", "--immediate-mode"];
        let arguments = [&["-i", interface, "-U", "-w", &path], &room[..], &[filter]].concat();
        let mut command = Self::command(host, "tcpdump", &arguments);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "tcpdump did not listen");
        }
        Capture { running: Running { child, printed: Vec::new() }, file, _stderr: stderr }
    }

    /// Every frame of both nodes' packet memory is accounted for, and none stays in a worker's hands.
    pub(crate) fn frames_are_conserved(&self, what: &str) {
        let start = Instant::now();
        for node in ["left", "right"] {
            loop {
                let frames = self.ctl(node, &["status"])["frames"].clone();
                let part = |name: &str| frames[name].as_u64().unwrap();
                let parts = ["free", "fill", "rx", "tx", "completion", "in_flight"];
                // A packet socket may have a frame of the last packets until the next ones come.
                if parts.map(part).iter().sum::<u64>() == part("total") && part("in_flight") == 0 {
                    break;
                }
                assert!(start.elapsed() < Duration::from_secs(10), "{what}, {node}: {frames}");
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }

    /// TCP segments a host refused for their checksum.
    pub(crate) fn bad_checksums(&self, host: &str) -> u64 {
        self.counted(host, "Tcp:", "InCsumErrors")
    }

    /// Datagrams that reached a host's socket and found it full (RFC 4113, Linux `RcvbufErrors`).
    pub(crate) fn unread_datagrams(&self, host: &str) -> u64 {
        self.counted(host, "Udp:", "RcvbufErrors")
    }

    /// Frames that a cable had no room for: a veth's ring has 256 places and a CPU's queue 1000, and
    /// who reads them shares two cores with all else. A frame may be counted at both ends.
    pub(crate) fn found_no_room(&self) -> u64 {
        let hosts = ["switch", "inet", "left", "right", "vm1", "vm2", "vm3", "vm4", "vm5", "vm6"];
        let of_host = |host| {
            let said = self.run(host, "ip", &["-j", "-s", "link"]);
            let links: serde_json::Value = serde_json::from_str(&said).unwrap();
            let dropped = |link: &serde_json::Value| {
                // The daemon's own are no cables.
                let ours = link["ifname"].as_str().unwrap().starts_with("tl-");
                let way = |way: &str| link["stats64"][way]["dropped"].as_u64().unwrap();
                if ours { 0 } else { way("rx") + way("tx") }
            };
            links.as_array().unwrap().iter().map(dropped).sum::<u64>()
        };
        hosts.into_iter().map(of_host).sum()
    }

    /// A counter of a host's own stack.
    pub(crate) fn counted(&self, host: &str, protocol: &str, name: &str) -> u64 {
        let text = self.run(host, "cat", &["/proc/net/snmp"]);
        let rows: Vec<Vec<&str>> = text
            .lines()
            .filter(|line| line.starts_with(protocol))
            .map(|line| line.split_whitespace().collect())
            .collect();
        let at = rows[0].iter().position(|column| *column == name).unwrap();
        rows[1][at].parse().unwrap()
    }

    /// Asks the daemon of a node.
    pub(crate) fn ctl(&self, node: &str, question: &[&str]) -> serde_json::Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline"));
        let output =
            command.args(["ctl", "--node", node, "--json"]).args(question).output().unwrap();
        let said = said(&output);
        assert!(said.ok, "ctl {question:?}: {}", said.text);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The process of a node's daemon.
    pub(crate) fn pid(&self, node: &str) -> i32 {
        self.ctl(node, &["status"])["pid"].as_i64().unwrap() as i32
    }

    /// Starts a node's daemon again after it ended.
    pub(crate) fn restart(&self, node: &str) {
        let said = said(&tool().args(["start", node]).output().unwrap());
        assert!(said.ok, "tools/lab start {node}: {}", said.text);
    }

    /// Starts a node's daemon again, to end at this point (conntrack::fault), which may be before it
    /// is ready; its process.
    pub(crate) fn restart_to_end_at(&self, node: &str, fault: &str) -> i32 {
        let _ = tool().env("TRUNKLINE_FAULT", fault).args(["start", node]).output().unwrap();
        let pid = std::fs::read_to_string(format!("/run/trunkline-lab/{node}.pid")).unwrap();
        pid.trim().parse().unwrap()
    }

    /// Starts another daemon in the place of a node's.
    pub(crate) fn take_over(&self, node: &str) {
        let said = said(&tool().args(["start", node, "--takeover"]).output().unwrap());
        assert!(said.ok, "tools/lab start {node} --takeover: {}", said.text);
    }

    /// Ends a node's daemon by this signal and waits until it has.
    pub(crate) fn end(&self, node: &str, signal: Signal) {
        let pid = self.pid(node);
        kill(Pid::from_raw(pid), signal).unwrap();
        ended(pid);
    }

    /// What a node's daemon has logged.
    pub(crate) fn log(&self, node: &str) -> String {
        std::fs::read_to_string(format!("/run/trunkline-lab/{node}.log")).unwrap()
    }

    /// Pings a hundred times a second; how many are answered [`in_a_row`].
    pub(crate) fn ping(&self, from: &str, to: &str, count: u32) -> u32 {
        in_a_row(&self.start_pings(from, to, count, 10).wait().text, count)
    }

    /// Starts to ping every so many milliseconds; see [`in_a_row`].
    ///
    /// Without a deadline ping waits for the last answers no longer than twice as long as it had to
    /// for any other, and a busy machine may take longer. With one it asks on until so many came.
    pub(crate) fn start_pings(&self, from: &str, to: &str, count: u32, every: u32) -> Running {
        let deadline = (10 + count * every / 1000).to_string();
        let (count, every) = (count.to_string(), (f64::from(every) / 1000.0).to_string());
        self.start(from, "ping", &["-n", "-i", &every, "-w", &deadline, "-c", &count, to])
    }

    /// Twenty pings, which must all be answered; the very first may wait for ARP. It asks on until so
    /// many answers came, so that there may be more than twenty of both.
    pub(crate) fn pings(&self, from: &str, to: &str) {
        let text = self.start_pings(from, to, 20, 5).wait().text;
        assert_eq!(in_a_row(&text, 20), 20, "{from} → {to}: {text}");
    }
}

/// Waits until a process has ended.
pub(crate) fn ended(pid: i32) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::path::Path::new(&format!("/proc/{pid}/exe")).exists() {
        assert!(Instant::now() < deadline, "process {pid} does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in ["left", "right"] {
                let log = std::fs::read_to_string(format!("/run/trunkline-lab/{node}.log"));
                eprintln!("--- log of {node} ---\n{}", log.unwrap_or_default());
            }
        }
        let said = said(&tool().arg("down").output().unwrap());
        if !said.ok {
            eprintln!("tools/lab down: {}", said.text);
        }
    }
}

/// (sent, answered) of ping's summary.
pub(crate) fn pinged(text: &str) -> (u32, u32) {
    let line = text.lines().find(|line| line.contains("packets transmitted")).unwrap_or_default();
    let numbers: Vec<u32> = line.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
    assert!(numbers.len() >= 2, "no summary in: {text}");
    (numbers[0], numbers[1])
}

/// How many of the first `count` pings were answered before one is missing, or came twice.
pub(crate) fn in_a_row(text: &str, count: u32) -> u32 {
    let first = if text.contains("icmp_seq=") { 1 } else { 0 }; // busybox counts from 0
    let answers = text.lines().filter(|line| line.contains("bytes from"));
    let number = |line: &str| line.split_once("seq=")?.1.split(' ').next()?.parse().ok();
    let mut numbers: Vec<u32> = answers.filter_map(number).collect();
    numbers.sort_unstable();
    numbers.into_iter().zip(first..first + count).take_while(|(number, due)| number == due).count()
        as u32
}

/// A program that runs; ended when it goes out of scope.
pub(crate) struct Running {
    child: Child,
    /// What it prints, read as it comes: a full pipe would stop it.
    printed: Vec<JoinHandle<String>>,
}

fn read(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Running {
    /// Starts a program.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Self { child, printed: vec![read(out), read(err)] }
    }

    /// Interrupts it as ^C does, waits, returns what it printed.
    pub(crate) fn interrupt(mut self) -> Said {
        self.signal(Signal::SIGINT);
        self.wait()
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end, a minute at most.
    pub(crate) fn wait(&mut self) -> Said {
        self.wait_within(Duration::from_secs(60))
    }

    /// Waits for its end, for so long at most.
    pub(crate) fn wait_within(&mut self, patience: Duration) -> Said {
        let deadline = Instant::now() + patience;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        let text = self.printed.drain(..).map(|printed| printed.join().unwrap()).collect();
        Said { ok: self.child.wait().unwrap().success(), text }
    }

    fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), signal);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            self.signal(Signal::SIGTERM);
            let _ = self.child.wait();
        }
    }
}

/// A capture that runs.
pub(crate) struct Capture {
    running: Running,
    file: tempfile::NamedTempFile,
    _stderr: BufReader<std::process::ChildStderr>,
}

impl Capture {
    /// Ends it; every frame as it was.
    pub(crate) fn frames(self) -> Vec<Vec<u8>> {
        std::thread::sleep(Duration::from_millis(200));
        drop(self.running);
        let file = std::fs::read(self.file.path()).unwrap();
        // A record is a header of four words, of which the third is the frame's length, and a frame.
        let mut rest = file.get(24..).unwrap_or_default();
        let mut frames = Vec::new();
        while let Some(length) = rest.get(8..12) {
            let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
            frames.push(rest[16..16 + length].to_vec());
            rest = &rest[16 + length..];
        }
        frames
    }

    /// Ends it; every frame as tcpdump prints it, one a line, with MAC addresses and tags.
    pub(crate) fn stop(self) -> Vec<String> {
        std::thread::sleep(Duration::from_millis(200));
        drop(self.running);
        let path = self.file.path().to_str().unwrap();
        let output = Command::new("tcpdump").args(["-envr", path]).output().unwrap();
        // What belongs to one packet is on indented lines: one line each.
        let text = String::from_utf8_lossy(&output.stdout).replace("\n    ", " ");
        text.lines().map(str::to_owned).collect()
    }
}
