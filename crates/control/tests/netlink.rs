//! Links of real namespaces. Each test is a thread in a network namespace of its own, which goes
//! when the thread ends; they need root.
#![allow(clippy::unwrap_used)] // also in the functions that tests share

mod common;

use std::process::Command;
use std::time::Duration;

use common::{in_namespace, next, run};
use control::netlink::{LinkEvent, NetlinkError, PUNT_FAR, PUNT_NEAR, alias_of, judge};
use tokio::time::timeout;
use wire::MacAddr;

#[test]
fn a_punt_link_has_a_queue_per_worker_at_both_ends() {
    in_namespace(|links| async move {
        // Not the number of cores: that is what a veth gets when nobody asks.
        let pair = links.ensure_punt_link(3, 1508, "tlc-a").await.unwrap();
        assert!(pair.new);
        for (link, name) in [(&pair.near, PUNT_NEAR), (&pair.far, PUNT_FAR)] {
            assert_eq!((link.name.as_str(), link.mtu, link.up), (name, 1508, true));
            assert_eq!((link.rx_queues, link.tx_queues), (3, 3));
            assert_eq!(link.alias, Some("trunkline:tlc-a".into()));
            assert!(link.is("veth") && link.carrier && !link.peer_in_other_netns);
            let channels = run(&format!("ethtool -l {name}"));
            let current = channels.split("Current hardware settings:").nth(1).unwrap();
            let words: Vec<&str> = current.split_whitespace().collect();
            assert_eq!(words[..4], ["RX:", "3", "TX:", "3"], "{channels}");
        }
        assert_eq!(pair.near.lower, Some(pair.far.index));
    });
}

#[test]
fn what_an_earlier_run_left_is_used_on_or_made_anew() {
    in_namespace(|links| async move {
        let first = links.ensure_punt_link(2, 1508, "tlc-a").await.unwrap();
        let again = links.ensure_punt_link(2, 1508, "tlc-a").await.unwrap();
        assert_eq!((again.near.index, again.new), (first.near.index, false));
        let larger = links.ensure_punt_link(2, 9008, "tlc-a").await.unwrap();
        assert_eq!((larger.near.index, larger.far.mtu), (first.near.index, 9008));
        run("ip link set tl-punt1 down");
        let up = links.ensure_punt_link(2, 9008, "tlc-a").await.unwrap();
        assert!(up.far.up && !up.new);
        let anew = links.ensure_punt_link(1, 1508, "tlc-a").await.unwrap();
        assert!(anew.new && anew.near.index != first.near.index);
        assert_eq!(anew.far.rx_queues, 1);
        let foreign = links.ensure_punt_link(1, 1508, "tlc-b").await.unwrap_err();
        assert_eq!(
            foreign.to_string(),
            "tl-punt0 belongs to node 'tlc-a', and this is 'tlc-b': run trunkline detach --node \
             tlc-a first"
        );
    });
}

#[test]
fn a_pair_we_were_killed_over_is_made_anew() {
    in_namespace(|links| async move {
        links.create_veth_pair("br100", "br100-tl", 1, 1500).await.unwrap();
        let raw = links.by_name("br100").await.unwrap().unwrap();
        let pair = links.ensure_host_port("br100", 1500, "tlc-a").await.unwrap();
        assert!(pair.new && pair.near.index != raw.index);
        // Killed between the two aliases.
        links.remove_ours("tlc-a").await.unwrap();
        links.create_veth_pair("br100", "br100-tl", 1, 1500).await.unwrap();
        let raw = links.by_name("br100").await.unwrap().unwrap();
        links.set_alias(raw.index, &alias_of("tlc-a")).await.unwrap();
        let pair = links.ensure_host_port("br100", 1500, "tlc-a").await.unwrap();
        assert_eq!(pair.far.alias, Some(alias_of("tlc-a")));
    });
}

#[test]
fn a_name_that_is_taken_is_left_alone_and_told() {
    in_namespace(|links| async move {
        run("ip link add br100 type bridge");
        run("ip link add vnet1 type veth peer name far1");
        run("ip link set vnet1 master br100");
        let error = links.ensure_host_port("br100", 1500, "tlc-a").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "br100 is a Linux bridge with vnet1, as nova-network makes them: stop nova-network \
             and remove it first (ip link del br100)"
        );
        assert!(matches!(error, NetlinkError::Taken(_)));
        run("ip link add tl-punt1 type ifb");
        let error = links.ensure_punt_link(1, 1508, "tlc-a").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "tl-punt1 is taken (ifb) and not ours: rename or remove it first"
        );
        let error = links.remove_host_port("br100", "tlc-a").await.unwrap_err();
        assert!(error.to_string().starts_with("br100 is a Linux bridge with vnet1"));
        let all = links.list().await.unwrap();
        let vnet1 = all.iter().find(|link| link.name == "vnet1").unwrap();
        assert_eq!(
            judge::vif(vnet1, &all),
            Err("vnet1 is still a port of bridge br100: take it out first (ip link set vnet1 \
                 nomaster)"
                .into())
        );
    });
}

#[test]
fn only_what_is_ours_is_removed() {
    in_namespace(|links| async move {
        run("ip link add vnet1 type veth peer name far1");
        run("ip link set vnet1 alias trunkline:tlc-b");
        links.ensure_punt_link(1, 1508, "tlc-a").await.unwrap();
        links.ensure_host_port("br100", 1500, "tlc-a").await.unwrap();
        links.ensure_host_port("br102", 1500, "tlc-a").await.unwrap();
        links.remove_host_port("br102", "tlc-a").await.unwrap();
        links.remove_host_port("br102", "tlc-a").await.unwrap();
        let removed = links.remove_ours("tlc-a").await.unwrap();
        assert_eq!(removed.len(), 4, "{removed:?}");
        let left: Vec<String> =
            links.list().await.unwrap().into_iter().map(|link| link.name).collect();
        assert_eq!(left, ["lo", "far1", "vnet1"]);
        assert!(links.remove_ours("tlc-a").await.unwrap().is_empty());
    });
}

#[test]
fn the_kernel_sends_nothing_into_links_of_ours() {
    in_namespace(|links| async move {
        // A forwarding host joins more groups, and would report them.
        run("sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv4.ip_forward=1");
        run("ip link add loud0 type veth peer name loud1");
        run("ip link set loud0 up");
        run("ip link set loud1 up");
        links.ensure_punt_link(1, 1508, "tlc-a").await.unwrap();
        links.ensure_host_port("br100", 1500, "tlc-a").await.unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let sent = |name: &str| {
            let told = run(&format!("ip -j -s link show dev {name}"));
            let told: serde_json::Value = serde_json::from_str(&told).unwrap();
            told[0]["stats64"]["tx"]["packets"].as_u64().unwrap()
        };
        assert!(sent("loud0") > 0, "the witness is silent too, so this shows nothing");
        for name in [PUNT_NEAR, PUNT_FAR, "br100", "br100-tl"] {
            assert_eq!(sent(name), 0, "{name}");
        }
    });
}

#[test]
fn a_vif_is_seen_to_appear_change_and_vanish() {
    in_namespace(|links| async move {
        let (there, mut watch) = links.watch().await.unwrap();
        assert!(there.iter().all(|link| link.loopback));
        run("ip link add vnet1 type veth peer name far1");
        let mut names = Vec::new();
        for _ in 0..2 {
            let LinkEvent::Appeared(link) = next(&mut watch).await else { panic!("appear") };
            names.push(link.name);
        }
        names.sort();
        assert_eq!(names, ["far1", "vnet1"]);
        run("ip link set vnet1 mtu 1400");
        let LinkEvent::Changed(link) = next(&mut watch).await else { panic!("change") };
        assert_eq!((link.name.as_str(), link.mtu), ("vnet1", 1400));
        run("ip link set vnet1 name vnet7");
        let LinkEvent::Gone { index, name } = next(&mut watch).await else { panic!("go") };
        assert_eq!((index, name.as_str()), (link.index, "vnet1"));
        let LinkEvent::Appeared(link) = next(&mut watch).await else { panic!("come") };
        assert_eq!(link.name, "vnet7");
        links.delete(link.index).await.unwrap();
        let mut gone = Vec::new();
        for _ in 0..2 {
            let LinkEvent::Gone { name, .. } = next(&mut watch).await else { panic!("go") };
            gone.push(name);
        }
        gone.sort();
        assert_eq!(gone, ["far1", "vnet7"]);
    });
}

#[test]
fn a_port_that_leaves_a_bridge_is_not_gone() {
    in_namespace(|links| async move {
        run("ip link add br0 type bridge");
        run("ip link add vnet1 type veth peer name far1");
        let (_, mut watch) = links.watch().await.unwrap();
        run("ip link set vnet1 master br0");
        run("ip link set vnet1 nomaster");
        run("ip link add end0 type veth peer name end1");
        let mut masters = Vec::new();
        loop {
            match next(&mut watch).await {
                LinkEvent::Changed(link) if link.name == "vnet1" => masters.push(link.master),
                LinkEvent::Changed(_) => {}
                LinkEvent::Appeared(link) if link.name.starts_with("end") => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(masters.iter().any(Option::is_some), "{masters:?}");
        assert_eq!(masters.last(), Some(&None));
    });
}

#[test]
fn news_that_were_lost_are_made_up_for() {
    in_namespace(|links| async move {
        run("ip link add old0 type veth peer name old1");
        let (_, mut watch) = links.watch().await.unwrap();
        // Nobody reads the socket meanwhile: this runtime has one thread, and it is here.
        let batch = tempfile::NamedTempFile::new().unwrap();
        let flips = (0..3000).map(|n| format!("link set dev lo mtu {}\n", 60_000 + n % 2));
        std::fs::write(batch.path(), flips.collect::<String>()).unwrap();
        run(&format!("ip -batch {}", batch.path().display()));
        run("ip link del old0");
        run("ip link add late0 type veth peer name late1");
        let (mut gone, mut come) = (0, 0);
        while gone + come < 4 {
            match next(&mut watch).await {
                LinkEvent::Gone { name, .. } if name.starts_with("old") => gone += 1,
                LinkEvent::Appeared(link) if link.name.starts_with("late") => come += 1,
                LinkEvent::Changed(_) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((gone, come), (2, 2));
        // The watch goes on after that.
        run("ip link set late0 mtu 1400");
        let changed = timeout(Duration::from_secs(5), async {
            while !matches!(watch.next().await.unwrap(), LinkEvent::Changed(l) if l.mtu == 1400) {}
        });
        changed.await.unwrap();
    });
}

#[test]
fn a_link_is_told_as_ip_tells_it() {
    in_namespace(|links| async move {
        run("ip link add vnet1 type veth peer name far1");
        run("ip tuntap add dev tap1 mode tap");
        run("ip address add 10.0.0.1/24 dev vnet1");
        let vnet1 = links.by_name("vnet1").await.unwrap().unwrap();
        let mac = MacAddr([0xfa, 0x16, 0x3e, 0, 0, 1]);
        links.set_mac(vnet1.index, mac).await.unwrap();
        links.set_up(vnet1.index, true).await.unwrap();
        links.set_promisc(vnet1.index, true).await.unwrap();
        let vnet1 = links.by_name("vnet1").await.unwrap().unwrap();
        assert!(vnet1.up && vnet1.promisc && !vnet1.carrier);
        assert_eq!(vnet1.mac, Some(mac));
        links.set_promisc(vnet1.index, false).await.unwrap();
        links.set_up(vnet1.index, false).await.unwrap();
        let vnet1 = links.by_name("vnet1").await.unwrap().unwrap();
        assert!(!vnet1.promisc && !vnet1.up);
        let addresses = links.addresses().await.unwrap();
        assert_eq!(addresses, [(vnet1.index, "10.0.0.1/24".parse().unwrap())]);
        assert!(links.by_name("tap1").await.unwrap().unwrap().is("tun"));
        assert_eq!(links.by_name("nobody").await.unwrap(), None);
        assert!(links.set_up(4711, true).await.unwrap_err().is_gone());
        let error = links.create_veth_pair("vnet1", "far2", 1, 1500).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot make the veth pair vnet1 and far2: File exists (os error 17)"
        );
    });
}

#[test]
fn a_peer_in_another_namespace_is_known_as_such() {
    in_namespace(|links| async move {
        run("ip link add vnet1 type veth peer name far1");
        // A child with a namespace of its own holds the far end for a moment.
        let mut child = Command::new("unshare").args(["--net", "sleep", "10"]).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        run(&format!("ip link set far1 netns {}", child.id()));
        let vnet1 = links.by_name("vnet1").await.unwrap().unwrap();
        assert!(vnet1.peer_in_other_netns);
        child.kill().unwrap();
        child.wait().unwrap();
    });
}
