//! VMs ask 169.254.169.254 for their metadata, and a web server answers that sees who they are.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod lab;

use std::os::unix::fs::PermissionsExt;

use lab::{HOOKS, Lab, Running};

const FILE: &str = "/run/trunkline-lab/left.toml";

/// Replaces the settings about metadata in the left node's file, and has it read again.
fn configure(lab: &Lab, settings: &str) {
    let text = std::fs::read_to_string(FILE).unwrap();
    let rest: Vec<&str> = text.lines().filter(|line| !line.starts_with("metadata_")).collect();
    std::fs::write(FILE, format!("{settings}\n{}\n", rest.join("\n"))).unwrap();
    lab.run("left", env!("CARGO_BIN_EXE_trunkline"), &["ctl", "--node", "left", "reload"]);
}

/// A web server that says of whoever asks `/cgi-bin/who` what address it has, and has a megabyte.
struct Server {
    _folder: tempfile::TempDir,
    _running: Running,
}

fn serve(lab: &Lab, host: &str, port: u16) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let who = folder.path().join("cgi-bin/who");
    std::fs::create_dir(folder.path().join("cgi-bin")).unwrap();
    let script = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n%s' \"$REMOTE_ADDR\"\n";
    std::fs::write(&who, script).unwrap();
    std::fs::set_permissions(&who, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(folder.path().join("what"), "m".repeat(1 << 20)).unwrap();
    // The server gives up root's rights over what is in a private folder.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let listen = format!("0.0.0.0:{port}");
    let path = folder.path().to_str().unwrap();
    let running = lab.serve(host, port, "busybox", &["httpd", "-f", "-p", &listen, "-h", path]);
    Server { _folder: folder, _running: running }
}

fn fetch(lab: &Lab, vm: &str, what: &str) -> String {
    let url = format!("http://169.254.169.254/{what}");
    lab.run(vm, "curl", &["-sSf", "--max-time", "10", &url])
}

/// VM 1, which has a floating address, and VM 3, another tenant's, are seen as who they are.
fn all_are_known(lab: &Lab, hook: &str) {
    for (vm, address) in [("vm1", "10.0.0.3"), ("vm3", "10.1.0.3")] {
        assert_eq!(fetch(lab, vm, "cgi-bin/who"), address, "hook {hook}");
        // Long enough for the kernel's programs to carry it, both ways.
        assert_eq!(fetch(lab, vm, "what").len(), 1 << 20, "hook {hook}");
    }
}

#[test]
fn a_server_on_the_node_or_elsewhere_knows_every_vm_by_its_own_address() {
    for (hook, flags) in HOOKS {
        eprintln!("hook {hook}");
        let lab = Lab::up(flags);
        // Without a server nothing is asked for outside, and the VM need not wait.
        let out = lab.capture("switch", "left-eth1", "host 169.254.169.254");
        let none = ["-sS", "--max-time", "10", "http://169.254.169.254/"];
        let said = lab.exec("vm1", "curl", &none);
        assert!(!said.ok && !said.text.contains("imed out"), "{}", said.text);

        configure(&lab, "metadata_host = \"127.0.0.1\"");
        let here = serve(&lab, "left", 8775);
        all_are_known(&lab, hook);
        // With a route to its own link, as many images have.
        lab.run("vm1", "ip", &["route", "add", "169.254.169.254/32", "dev", "eth0"]);
        all_are_known(&lab, hook);
        drop(here);

        configure(&lab, "metadata_host = \"91.207.15.1\"\nmetadata_port = 8080");
        let left = "91.207.15.105";
        lab.run("inet", "ip", &["route", "add", "10.0.0.0/24", "via", left]);
        lab.run("inet", "ip", &["route", "add", "10.1.0.0/24", "via", left]);
        let there = serve(&lab, "inet", 8080);
        all_are_known(&lab, hook);
        assert_eq!(out.stop(), Vec::<String>::new(), "hook {hook}");
        drop(there);

        let words =
            ["explain", "--node", "left", "vnet1", "tcp", "10.0.0.3:1", "169.254.169.254:80"];
        let told = lab.run("left", env!("CARGO_BIN_EXE_trunkline"), &words);
        assert!(told.contains("91.207.15.1, port 8080") && told.contains("stays"), "{told}");
    }
}

#[test]
fn who_asks_in_anothers_name_sees_nothing_of_theirs() {
    for (hook, flags) in HOOKS {
        let lab = Lab::up(flags);
        configure(&lab, "metadata_host = \"127.0.0.1\"");
        let _server = serve(&lab, "left", 8775);
        let refused = || {
            let drops = lab.ctl("left", &["status"])["drops"].clone();
            drops["spoofed_ipv4"].as_u64().unwrap_or(0)
        };
        for (vm, address) in [("vm1", "10.0.0.3"), ("vm3", "10.1.0.3")] {
            assert_eq!(fetch(&lab, "vm2", "cgi-bin/who"), "10.0.0.4", "hook {hook}");
            let before = refused();
            // VM 2 takes it for its own, and says so by ARP too.
            lab.run("vm2", "ip", &["addr", "add", &format!("{address}/32"), "dev", "eth0"]);
            let url = "http://169.254.169.254/cgi-bin/who";
            let words = ["-sS", "--max-time", "2", "--interface", address, url];
            let said = lab.exec("vm2", "curl", &words);
            assert!(!said.ok && !said.text.contains(address), "hook {hook}: {}", said.text);
            assert!(refused() > before, "hook {hook}");
            assert_eq!(fetch(&lab, vm, "cgi-bin/who"), address, "hook {hook}");
        }
    }
}
