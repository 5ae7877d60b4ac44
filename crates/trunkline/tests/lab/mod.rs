//! The lab of `tools/lab`, driven by tests: two nodes, six VMs, real programs.
#![allow(dead_code, clippy::unwrap_used)] // every test file uses its own part; it is a test

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

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

    fn command(host: &str, program: &str, arguments: &[&str]) -> Command {
        let mut command = tool();
        command.args(["exec", host, program]).args(arguments);
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
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Running { child: command.spawn().unwrap() }
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
        Capture { running: Running { child }, file, _stderr: stderr }
    }

    /// TCP segments a host refused for their checksum.
    pub(crate) fn bad_checksums(&self, host: &str) -> u64 {
        self.counted(host, "Tcp:", "InCsumErrors")
    }

    /// Datagrams that reached a host whose program was not quick enough to read them.
    pub(crate) fn unread_datagrams(&self, host: &str) -> u64 {
        self.counted(host, "Udp:", "RcvbufErrors")
    }

    /// A counter of a host's own stack.
    fn counted(&self, host: &str, protocol: &str, name: &str) -> u64 {
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

    /// What a node's daemon has logged.
    pub(crate) fn log(&self, node: &str) -> String {
        std::fs::read_to_string(format!("/run/trunkline-lab/{node}.log")).unwrap()
    }

    /// Pings once every `interval` seconds; returns (sent, answered).
    pub(crate) fn ping(&self, from: &str, to: &str, count: u32) -> (u32, u32) {
        let count = count.to_string();
        let text = self.exec(from, "ping", &["-n", "-i", "0.01", "-W", "1", "-c", &count, to]).text;
        pinged(&text)
    }

    /// Pings that must all be answered but the very first, which may wait for ARP.
    pub(crate) fn pings(&self, from: &str, to: &str) {
        let (sent, answered) = self.ping(from, to, 20);
        assert_eq!((sent, answered), (20, 20), "{from} → {to}");
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

/// A program that runs; ended when it goes out of scope.
pub(crate) struct Running {
    child: Child,
}

impl Running {
    /// Interrupts it as ^C does, waits, returns what it printed.
    pub(crate) fn interrupt(mut self) -> Said {
        self.signal(nix::sys::signal::Signal::SIGINT);
        self.wait()
    }

    /// Waits for its end, a minute at most.
    pub(crate) fn wait(&mut self) -> Said {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut text = String::new();
        use std::io::Read;
        if let Some(stdout) = &mut self.child.stdout {
            let _ = stdout.read_to_string(&mut text);
        }
        if let Some(stderr) = &mut self.child.stderr {
            let _ = stderr.read_to_string(&mut text);
        }
        Said { ok: self.child.wait().unwrap().success(), text }
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, signal);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            self.signal(nix::sys::signal::Signal::SIGTERM);
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
