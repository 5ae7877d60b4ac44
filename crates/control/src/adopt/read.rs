//! Looks at the machine. Nothing is changed: netlink dumps, files of `/proc`, and commands that
//! print.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use super::Reading;
use super::hosts::{self, Process};
use crate::netlink::{Links, NetlinkError};

/// The kinds of iptables; the plain name, which is one of them, where there is no other.
const IPTABLES: [&str; 3] = ["iptables-legacy-save", "iptables-nft-save", "iptables-save"];
/// The kinds of ebtables.
const EBTABLES: [&str; 3] = ["ebtables-legacy-save", "ebtables-nft-save", "ebtables-save"];
/// This namespace's connections; of the thread, since a namespace is a thread's.
const CONNECTIONS: &str = "/proc/thread-self/net/nf_conntrack";

/// What the machine says, in the network namespace of the calling thread.
///
/// # Errors
/// The kernel refuses to list links, addresses, routes or neighbours.
pub async fn read() -> Result<Reading, NetlinkError> {
    let links = Links::connect()?;
    let mut reading = Reading {
        links: links.list().await?,
        addresses: links.addresses().await?,
        routes: links.routes().await?,
        neighbours: links.neighbours().await?,
        stations: links.bridge_stations().await?,
        ..Reading::default()
    };
    let notes = &mut reading.notes;
    reading.iptables = saved(&IPTABLES, notes);
    if reading.iptables.is_empty() {
        notes.push(
            "no iptables-save could be run: install iptables, so that nova's rules are read".into(),
        );
    }
    // What ebtables says is of use and not needed.
    reading.ebtables = saved(&EBTABLES, &mut Vec::new());
    reading.dhcp = dnsmasqs(notes);
    reading.connections = connections(notes);
    Ok(reading)
}

/// What the commands of one kind print; the last one is asked only if no other is there.
fn saved(commands: &[&str; 3], notes: &mut Vec<String>) -> Vec<(String, String)> {
    let [legacy, nft, plain] = commands;
    let mut printed = Vec::new();
    for command in [legacy, nft, plain] {
        if command == plain && !printed.is_empty() {
            break;
        }
        match output(command, &[]) {
            Ok(Some(text)) => printed.push(((*command).to_owned(), text)),
            Ok(None) => {}
            Err(why) => notes.push(why),
        }
    }
    printed
}

/// What a command prints; none if there is no such command, words if it fails.
fn output(command: &str, arguments: &[&str]) -> Result<Option<String>, String> {
    match Command::new(command).args(arguments).output() {
        Ok(output) if output.status.success() => {
            Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
        }
        Ok(output) => {
            let told = String::from_utf8_lossy(&output.stderr);
            Err(format!(
                "{command} failed ({}): {}",
                output.status,
                told.trim().replace('\n', "; ")
            ))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{command} cannot be run: {error}")),
    }
}

/// Every dnsmasq of this namespace with a hosts file of nova's, with its files.
fn dnsmasqs(notes: &mut Vec<String>) -> Vec<Process> {
    let here = std::fs::read_link("/proc/thread-self/ns/net").ok();
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let folder = entry.path();
        // A process may end while it is looked at: then it is none.
        let words = words(&folder.join("cmdline"));
        let program = words.first().and_then(|path| path.rsplit('/').next());
        let file = hosts::option(&words, "--dhcp-hostsfile").map(str::to_owned);
        let (Some("dnsmasq"), Some(file)) = (program, file) else { continue };
        if here.is_none() || std::fs::read_link(folder.join("ns/net")).ok() != here {
            continue;
        }
        if hosts::bridge_of(&file).is_none() || !seen.insert(file.clone()) {
            continue;
        }
        let options = hosts::option(&words, "--dhcp-optsfile").map(str::to_owned);
        let hosts = text(&folder, &file, notes);
        let options = options.map_or_else(String::new, |file| text(&folder, &file, notes));
        found.push(Process { pid, words, hosts, options });
    }
    found
}

fn words(cmdline: &Path) -> Vec<String> {
    let bytes = std::fs::read(cmdline).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// A file as the process sees it, which may be in a container.
fn text(process: &Path, file: &str, notes: &mut Vec<String>) -> String {
    let path = process.join("root").join(file.trim_start_matches('/'));
    std::fs::read_to_string(path).unwrap_or_else(|error| {
        notes.push(format!("{file}, which dnsmasq reads, cannot be read: {error}"));
        String::new()
    })
}

/// The text of the kernel's connections, of this namespace; why it cannot be had is noted.
pub fn connections(notes: &mut Vec<String>) -> String {
    let absent = match std::fs::read_to_string(CONNECTIONS) {
        Ok(text) => return text,
        Err(error) => format!("{CONNECTIONS}: {error}"),
    };
    let tool = match output("conntrack", &["-L", "-o", "extended"]) {
        Ok(Some(text)) => return text,
        Ok(None) => "there is no program conntrack".into(),
        Err(why) => why,
    };
    notes.push(format!(
        "the kernel's connections are not counted ({absent}; {tool}): install conntrack, and run this \
         as root"
    ));
    String::new()
}
