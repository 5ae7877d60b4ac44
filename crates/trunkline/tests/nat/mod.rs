//! Sockets and packets of tests about address translation: made inside a host of the lab, used here.
#![allow(dead_code, clippy::unwrap_used)] // every test file uses its own part; it is a test

pub(crate) mod datagrams;
pub(crate) mod forged;
pub(crate) mod pings;
pub(crate) mod streams;

use std::fs::File;

use nix::sched::{CloneFlags, setns};

use crate::lab::Lab;

/// What `make` makes on a host of the lab: a socket stays where it was made.
pub(crate) fn within<T: Send>(host: &str, make: impl FnOnce() -> T + Send) -> T {
    let enter_and_make = || {
        let namespace = File::open(format!("/run/netns/tl-{host}")).unwrap();
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        make()
    };
    std::thread::scope(|scope| scope.spawn(enter_and_make).join().unwrap())
}

/// A lab whose left node has tc programs and whose right one has XDP on its NICs, so that one run
/// shows both ways.
pub(crate) fn mixed_lab(flags: &[&str]) -> Lab {
    let lab = Lab::up(flags);
    for end in ["right-eth0", "right-eth1"] {
        // What faces XDP sends finished frames.
        let off = ["-K", end, "tx", "off", "txvlan", "off", "tx-vlan-stag-hw-insert", "off"];
        lab.run("switch", "ethtool", &off);
    }
    let file = "/run/trunkline-lab/right.toml";
    let text = std::fs::read_to_string(file).unwrap();
    std::fs::write(file, format!("hook = \"xdp\"\n{text}")).unwrap();
    lab.end("right", nix::sys::signal::Signal::SIGTERM);
    lab.restart("right");
    let hooks = |node| lab.ctl(node, &["status"])["hooks"]["eth1"].as_str().unwrap().to_owned();
    assert!(hooks("left").contains("tc") && hooks("right").contains("xdp"));
    lab
}
