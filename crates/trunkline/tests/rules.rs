//! The Linux lab is what nova's nodes were: a packet meets as many rules there.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::collections::BTreeMap;
use std::process::Command;

/// Rules in each chain of a node with two networks, three VMs and one floating address, as nova's
/// own code of the Ocata release made them (`nova/network/linux_net.py`,
/// `nova/virt/firewall.py`). Chains that are not here were empty.
const NOVA: [(&str, &str, usize); 25] = [
    ("nat", "PREROUTING", 3),
    ("nat", "OUTPUT", 3),
    ("nat", "POSTROUTING", 4),
    ("nat", "bottom", 3),
    ("nat", "metadata-snat", 1),
    ("nat", "compute-snat", 1),
    ("nat", "network-snat", 3),
    ("nat", "network-float-snat", 2),
    ("nat", "network-PREROUTING", 2),
    ("nat", "network-OUTPUT", 1),
    ("nat", "network-POSTROUTING", 5),
    ("mangle", "POSTROUTING", 3),
    ("mangle", "network-POSTROUTING", 2),
    ("filter", "INPUT", 3),
    ("filter", "FORWARD", 4),
    ("filter", "OUTPUT", 4),
    ("filter", "top", 3),
    ("filter", "fallback", 1),
    ("filter", "metadata-INPUT", 1),
    ("filter", "compute-INPUT", 1),
    ("filter", "compute-FORWARD", 1),
    ("filter", "compute-local", 3),
    ("filter", "network-FORWARD", 4),
    ("filter", "network-INPUT", 8),
    // Of each VM.
    ("filter", "vm", 8),
];

#[test]
fn the_linux_nodes_have_as_many_rules_in_each_chain_as_novas_had() {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/lab.d/linux-rules");
    for (node, vms) in [("left", ["vm1", "vm2", "vm3"]), ("right", ["vm4", "vm5", "vm6"])] {
        let output = Command::new(program).args([node, "vlan"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let mut counted: BTreeMap<(String, String), usize> = BTreeMap::new();
        let mut table = String::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name.to_owned();
            } else if let Some(rule) = line.strip_prefix("-A ") {
                let chain = rule.split(' ').next().unwrap().to_owned();
                *counted.entry((table.clone(), chain)).or_default() += 1;
            }
        }
        let expected = NOVA.iter().flat_map(|(table, chain, rules)| {
            let chains = if *chain == "vm" { &vms[..] } else { std::slice::from_ref(chain) };
            chains.iter().map(|chain| (((*table).to_owned(), (*chain).to_owned()), *rules))
        });
        assert_eq!(counted, expected.collect(), "{node}");
    }
}
