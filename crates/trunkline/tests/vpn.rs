//! A project's VPN instance, with real OpenVPN at both ends: who has a certificate of the project
//! stands in its network, and nobody else does.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod lab;

use std::path::Path;
use std::time::{Duration, Instant};

use lab::{HOOKS, Lab, Running};

const CONFIG: &str = "/run/trunkline-lab/left.toml";
/// What a client says once it has an address of the tenant's network.
const UP: &str = "Initialization Sequence Completed";

/// VM 2 becomes the instance: its interface and OpenVPN's tap are in one bridge.
fn become_instance(lab: &Lab) {
    let ip = |words: &str| {
        lab.run("vm2", "ip", &words.split(' ').collect::<Vec<_>>());
    };
    ip("link add br0 address fa:16:3e:00:00:02 type bridge stp_state 0 forward_delay 0");
    ip("addr flush dev eth0");
    ip("link set eth0 master br0");
    ip("link set br0 up");
    ip("addr add 10.0.0.4/24 dev br0");
    ip("route add default via 10.0.0.1");
}

fn configure(lab: &Lab) {
    let text = std::fs::read_to_string(CONFIG).unwrap();
    let vpns = "\n[[vpn]]\nnetwork = \"tenant1\"\nport = 1000\nprivate_address = \"10.0.0.4\"\n\
                \n[[vpn]]\nnetwork = \"tenant2\"\nport = 1001\nprivate_address = \"10.1.0.3\"\n";
    std::fs::write(CONFIG, text + vpns).unwrap();
    lab.ctl("left", &["reload"]);
}

fn vpn(words: &[&str]) {
    let program = env!("CARGO_BIN_EXE_trunkline");
    let whole = [&["ctl", "--node", "left", "vpn"], words].concat();
    let output = std::process::Command::new(program).args(whole).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// An OpenVPN on a host, and where it says what it does.
struct OpenVpn {
    running: Running,
    log: String,
}

impl OpenVpn {
    fn start(lab: &Lab, host: &str, folder: &Path, config: &str) -> Self {
        let folder = folder.to_str().unwrap();
        let log = format!("{folder}/{config}.log");
        let words = ["--cd", folder, "--config", config, "--log", &log];
        Self { running: lab.start(host, "openvpn", &words), log }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has said something; false if it does not within so many seconds.
    fn says(&self, what: &str, seconds: u64) -> bool {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(seconds) {
            if self.said().contains(what) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }
}

#[test]
fn who_has_a_certificate_stands_in_the_tenants_network_and_nobody_else_does() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        become_instance(&lab);
        configure(&lab);
        let place = tempfile::tempdir().unwrap();
        let [ours, theirs] = ["tenant1", "tenant2"].map(|network| place.path().join(network));
        let path = |folder: &Path| folder.to_str().unwrap().to_owned();
        vpn(&["create", "tenant1", "--user", "alice", "--user", "carol", "--out", &path(&ours)]);
        vpn(&["create", "tenant2", "--user", "mallory", "--out", &path(&theirs)]);
        let server = OpenVpn::start(&lab, "vm2", &ours.join("server"), "server.conf");
        assert!(server.says(UP, 20), "{}", server.said());

        let users = ours.join("users");
        let alice = OpenVpn::start(&lab, "inet", &users, "alice.ovpn");
        assert!(alice.says(UP, 20), "{}\n--- server\n{}", alice.said(), server.said());
        // VM 1 is of her network now, and she is of VM 1's.
        lab.pings("inet", "10.0.0.3");
        let said = lab.run("inet", "ip", &["-4", "-o", "addr", "show", "dev", "tap0"]);
        let address = said.split_whitespace().nth(3).unwrap().split('/').next().unwrap();
        assert!(address.starts_with("10.0.0.2"), "{said}");
        lab.pings("vm1", address);
        // Of the other node as well.
        lab.pings("inet", "10.0.0.7");
        alice.running.interrupt();

        // Another tenant's certificate, once with this one's first key as well.
        let mallory = std::fs::read_to_string(theirs.join("users/mallory.ovpn")).unwrap();
        let mallory = mallory.replace("91.207.15.105 1001", "91.207.15.105 1000");
        let part = |text: &str, name: &str| {
            let (open, close) = (format!("<{name}>"), format!("</{name}>"));
            let (start, end) = (text.find(&open).unwrap(), text.find(&close).unwrap());
            text[start..end].to_owned()
        };
        let ours_text = std::fs::read_to_string(users.join("carol.ovpn")).unwrap();
        let stolen = ["ca", "tls-crypt"].iter().fold(mallory.clone(), |text, name| {
            text.replace(&part(&text, name), &part(&ours_text, name))
        });
        for (text, why) in [(&mallory, "tls-crypt unwrap error"), (&stolen, "VERIFY ERROR")] {
            std::fs::write(theirs.join("mallory.conf"), text).unwrap();
            let client = OpenVpn::start(&lab, "inet", &theirs, "mallory.conf");
            assert!(server.says(why, 20), "{why}: {}\n{}", client.said(), server.said());
            assert!(!client.says(UP, 1), "{}", client.said());
            client.running.interrupt();
        }

        // And one that is no longer good.
        vpn(&["revoke", "tenant1", "carol", "--out", &path(&ours)]);
        let carol = OpenVpn::start(&lab, "inet", &users, "carol.ovpn");
        assert!(server.says("revoked", 20), "{}\n{}", carol.said(), server.said());
        assert!(!carol.says(UP, 1), "{}", carol.said());
        carol.running.interrupt();
        server.running.interrupt();
    }
}
