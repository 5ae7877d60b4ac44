//! What programs of nova's node print: rules, connections, dnsmasq's files. Parts are separated by
//! zeros.

use control::adopt::conntrack::Connections;
use control::adopt::hosts::Process;
use control::adopt::rules::NovaRules;
use control::adopt::save::Saved;
use control::adopt::{Adopted, Found, Reading};

pub(crate) fn run(bytes: &[u8]) {
    let mut parts = bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let mut part = || parts.next().unwrap_or_default().into_owned();
    let (rules, ebtables, connections) = (part(), part(), part());
    let words = part().split('\n').map(str::to_owned).collect();
    let dhcp = Process { pid: 1, words, hosts: part(), options: part() };
    let _ = NovaRules::of(&Saved::parse(&rules));
    let _ = Connections::parse(&connections);
    let reading = Reading {
        iptables: vec![("iptables-save".into(), rules)],
        ebtables: vec![("ebtables-save".into(), ebtables)],
        dhcp: vec![dhcp],
        connections,
        ..Reading::default()
    };
    let adopted = Adopted::of(&Found::of(&reading, None), "left");
    let _ = adopted.to_text();
}
