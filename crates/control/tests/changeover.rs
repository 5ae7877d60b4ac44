//! What a changeover does to nova's bridges and what going back gives the kernel, in real
//! namespaces. Needs root.
#![allow(clippy::unwrap_used)] // also in the functions that tests share

mod common;

use std::net::Ipv4Addr;

use common::{in_namespace, run};
use control::adopt::conntrack::{Connection, Connections, Tuple};
use control::adopt::ctnetlink::{Conntrack, Given, TCP, UDP};
use control::netlink::foot_name;
use wire::MacAddr;

#[test]
fn a_bridge_gets_a_foot_and_its_ports_are_silent_and_forward_again() {
    in_namespace(|links| async move {
        run("ip link add br100 type bridge stp_state 0 forward_delay 0");
        run("ip link set br100 address 02:00:00:00:00:10 up");
        for port in ["vnet1", "vnet2"] {
            run(&format!("ip link add {port} type veth peer name far-{port}"));
            run(&format!("ip link set {port} master br100 up"));
            run(&format!("ip link set far-{port} up"));
        }
        run("ip link set vnet2 type bridge_slave hairpin on cost 7");
        run("ip link set far-vnet2 down");
        let before = run("bridge -d link");
        let link = async |name: &str| links.by_name(name).await.unwrap().unwrap();
        let bridge = link("br100").await.index;
        assert!(link("vnet1").await.forwarding && !link("vnet2").await.forwarding);

        let pair = links.ensure_foot("br100", 1500, "tlc-a").await.unwrap();
        assert_eq!((pair.near.name, pair.far.name.as_str()), (foot_name("br100"), "br100-tl"));
        let gateway = MacAddr([0x02, 0x74, 0x6c, 0, 0, 1]);
        links.set_mac(pair.near.index, gateway).await.unwrap();
        links.join_bridge(pair.near.index, bridge).await.unwrap();
        let foot = link("br100-in").await;
        assert_eq!((foot.master, foot.forwarding), (Some(bridge), true));
        assert!(run("bridge -d link show dev br100-in").contains("learning off"));
        // The bridge takes the gateway's address for its own, and keeps that of its own as well.
        assert!(run("bridge fdb show br br100").contains("02:74:6c:00:00:01 dev br100-in"));
        assert_eq!(link("br100").await.mac, Some(MacAddr([2, 0, 0, 0, 0, 0x10])));

        run("bridge fdb add fa:16:3e:00:00:01 dev vnet1 master dynamic");
        for name in ["vnet1", "vnet2"] {
            links.set_forwarding(link(name).await.index, false).await.unwrap();
            assert!(!link(name).await.forwarding);
        }
        assert!(!run("bridge fdb show br br100").contains("fa:16:3e:00:00:01"));
        assert!(link("br100").await.carrier, "the foot keeps it");
        // A port that gets carrier forwards by itself, and is told so.
        run("ip link set far-vnet2 up");
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert!(link("vnet2").await.forwarding);
        links.set_forwarding(link("vnet2").await.index, false).await.unwrap();

        run("ip link set far-vnet2 down");
        for name in ["vnet1", "vnet2"] {
            links.set_forwarding(link(name).await.index, true).await.unwrap();
        }
        links.remove_foot("br100", "tlc-a").await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert_eq!(run("bridge -d link"), before);
    });
}

/// Connections that the kernel has put into its table so far.
fn inserted() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack").unwrap();
    let mut lines = text.lines().map(|line| line.split_whitespace());
    let at = lines.next().unwrap().position(|column| column == "insert").unwrap();
    lines.map(|mut row| u64::from_str_radix(row.nth(at).unwrap(), 16).unwrap()).sum()
}

#[test]
fn the_kernel_takes_connections_with_their_translation() {
    in_namespace(|_| async move {
        // A namespace tracks connections once a rule there needs it.
        run("iptables-legacy -t nat -A POSTROUTING -o nowhere -j MASQUERADE");
        run("iptables-legacy -A FORWARD -m conntrack --ctstate NEW");
        let kernel = Conntrack::open().unwrap();
        let original = Tuple {
            source: Ipv4Addr::new(10, 0, 0, 4),
            destination: Ipv4Addr::new(8, 8, 8, 8),
            source_port: 4000,
            destination_port: 80,
        };
        let public = Ipv4Addr::new(91, 207, 15, 105);
        let (source, destination) = (Some((public, 20001)), None);
        let plain = Given { protocol: TCP, original, source: None, destination, timeout: 600 };
        kernel.give(&plain).unwrap();
        // Once more, and otherwise: what was there goes.
        kernel.give(&Given { source, ..plain }).unwrap();
        let float = Tuple {
            source: original.destination,
            destination: Ipv4Addr::new(91, 208, 23, 11),
            source_port: 53,
            destination_port: 5353,
        };
        let destination = Some((Ipv4Addr::new(10, 0, 0, 3), 5353));
        let floating =
            Given { protocol: UDP, original: float, source: None, destination, timeout: 9 };
        kernel.give(&floating).unwrap();
        // What is there with the same translation stays, and is never away.
        let before = inserted();
        kernel.give(&Given { source, ..plain }).unwrap();
        kernel.give(&Given { timeout: 600, ..floating }).unwrap();
        assert_eq!((before, inserted()), (3, 3));
        let mut notes = Vec::new();
        let mut known = Connections::parse(&control::adopt::connections(&mut notes)).all;
        known.sort_by_key(|connection| connection.protocol);
        let [tcp, udp] = &known[..] else { panic!("{known:?} {notes:?}") };
        assert_eq!((tcp.protocol, tcp.state.as_deref()), (TCP, Some("ESTABLISHED")));
        assert_eq!((tcp.original, tcp.assured, tcp.unreplied), (original, true, false));
        let answers = original.answers();
        let translated = Tuple { destination: public, destination_port: 20001, ..answers };
        assert_eq!(tcp.reply, translated);
        let Connection { protocol, original, reply, .. } = *udp;
        assert_eq!((protocol, original), (UDP, float));
        assert_eq!((reply.source, reply.source_port), (Ipv4Addr::new(10, 0, 0, 3), 5353));
        assert_eq!((reply.destination, reply.destination_port), (float.source, 53));
    });
}
