//! Which packets from a public NIC are ours, one at a time, in both programs.
#![allow(clippy::unwrap_used)] // tests

mod common;

use common::{Node, enter_netns, far, near, port, punt_link};
use kernel::{Owned, PortEntry, PortKind};

/// A test run's frames come by the loopback interface.
const LO: u32 = 1;
const NIC: u16 = 5;

const SNAT: [u8; 4] = [91, 207, 15, 105];
const FLOAT: [u8; 4] = [91, 208, 23, 11];
const TENANT: [u8; 4] = [91, 209, 4, 77];

/// A public NIC, and one address of each kind.
fn node(name: &str, entry: PortEntry) -> Node {
    enter_netns();
    punt_link();
    let mut node = Node::start(name);
    let kernel = node.kernel();
    kernel.set_port(&entry).unwrap();
    kernel.attach_punt(near(), far()).unwrap();
    kernel.set_owned((SNAT, 32), Owned::Snat).unwrap();
    kernel.set_owned((FLOAT, 32), Owned::Float).unwrap();
    kernel.set_owned(([91, 209, 4, 0], 24), Owned::Network).unwrap();
    node
}

fn public(name: &str) -> Node {
    node(name, port(NIC, LO, PortKind::Public))
}

#[test]
fn what_is_owned_can_be_read_back_and_given_back() {
    let mut node = public("readback");
    let sorted = |node: &mut Node| {
        let mut all = node.kernel().owned().unwrap();
        all.sort_unstable_by_key(|(prefix, _)| *prefix);
        all
    };
    let network = (([91, 209, 4, 0], 24), Owned::Network);
    let float = ((FLOAT, 32), Owned::Float);
    assert_eq!(sorted(&mut node), [((SNAT, 32), Owned::Snat), float, network]);
    node.kernel().set_owned((SNAT, 32), Owned::Float).unwrap();
    // Bits behind the prefix do not matter; what is not there can be given back.
    node.kernel().clear_owned((TENANT, 24)).unwrap();
    node.kernel().clear_owned((TENANT, 24)).unwrap();
    assert_eq!(sorted(&mut node), [((SNAT, 32), Owned::Float), float]);
    assert!(node.kernel().set_owned((SNAT, 33), Owned::Snat).is_err());
    // A new start begins with nothing, and is told all again.
    node.restart();
    assert_eq!(node.kernel().owned().unwrap(), []);
}
