//! The public side as the node's kernel tells it: routes, neighbours, addresses, in namespaces
//! with real `ip` commands as the other hand.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod common;

use std::net::Ipv4Addr;
use std::time::Duration;

use common::{in_namespace, next, run};
use control::netlink::{KernelNeighbour, KernelRoute, LinkEvent, LinkWatch, Links};
use tokio::time::{sleep, timeout};

/// A public NIC with an address, and a namespace of its own behind it with 192.0.2.1.
async fn public(links: &Links) -> u32 {
    run("ip link set lo up");
    run("ip link add eth1 type veth peer name far");
    run("ip addr add 192.0.2.5/24 dev eth1");
    run("ip link set eth1 up");
    run("ip link set far up");
    links.by_name("eth1").await.unwrap().unwrap().index
}

/// The next word that routing changed, whatever else is told before it.
async fn routing(watch: &mut LinkWatch) {
    while next(watch).await != LinkEvent::Routing {}
}

async fn route_to(links: &Links, prefix: &str) -> Option<KernelRoute> {
    let routes = links.routes().await.unwrap();
    let mut found = routes.into_iter().filter(|route| route.prefix.to_string() == prefix);
    let first = found.next();
    first.into_iter().chain(found).min_by_key(|route| route.metric)
}

async fn neighbour(links: &Links, address: &str) -> Option<KernelNeighbour> {
    let address: Ipv4Addr = address.parse().unwrap();
    let all = links.neighbours().await.unwrap();
    all.into_iter().find(|neighbour| neighbour.address == address)
}

#[test]
fn routes_are_told_as_ip_tells_them_and_every_change_is_news() {
    in_namespace(|links| async move {
        let eth1 = public(&links).await;
        let (_, mut watch) = links.watch().await.unwrap();
        run("ip route add default via 192.0.2.1");
        routing(&mut watch).await;
        let default = route_to(&links, "0.0.0.0/0").await.unwrap();
        assert_eq!((default.interface, default.via), (eth1, Some(Ipv4Addr::new(192, 0, 2, 1))));
        run("ip route replace default via 192.0.2.2");
        routing(&mut watch).await;
        let default = route_to(&links, "0.0.0.0/0").await.unwrap();
        assert_eq!(default.via, Some(Ipv4Addr::new(192, 0, 2, 2)));
        let on_link = route_to(&links, "192.0.2.0/24").await.unwrap();
        assert_eq!((on_link.interface, on_link.via, on_link.ours), (eth1, None, false));
        run("ip route add 198.51.100.0/24 via 192.0.2.9 metric 20");
        run("ip route add 198.51.100.0/24 via 192.0.2.8 metric 10");
        let best = route_to(&links, "198.51.100.0/24").await.unwrap();
        assert_eq!((best.metric, best.via), (10, Some(Ipv4Addr::new(192, 0, 2, 8))));
        run("ip route add 203.0.113.0/24 nexthop via 192.0.2.3 nexthop via 192.0.2.4");
        let first = route_to(&links, "203.0.113.0/24").await.unwrap();
        assert_eq!(first.via, Some(Ipv4Addr::new(192, 0, 2, 3)));
        run("ip route add blackhole 10.66.0.0/16");
        run("ip route add 10.67.0.0/16 via 192.0.2.1 table 99");
        assert_eq!(route_to(&links, "10.66.0.0/16").await, None);
        assert_eq!(route_to(&links, "10.67.0.0/16").await, None);
        run("ip route del default");
        routing(&mut watch).await;
        assert_eq!(route_to(&links, "0.0.0.0/0").await, None);
    });
}

#[test]
fn an_address_that_comes_or_goes_is_news() {
    in_namespace(|links| async move {
        public(&links).await;
        let (_, mut watch) = links.watch().await.unwrap();
        let has = async |links: &Links| {
            let all = links.addresses().await.unwrap();
            all.iter().any(|(_, net)| net.to_string() == "192.0.2.77/32")
        };
        run("ip addr add 192.0.2.77/32 dev eth1");
        routing(&mut watch).await;
        assert!(has(&links).await);
        run("ip addr del 192.0.2.77/32 dev eth1");
        routing(&mut watch).await;
        assert!(!has(&links).await);
    });
}

#[test]
fn a_burst_of_routes_is_told_in_few_words_and_the_watch_goes_on() {
    in_namespace(|links| async move {
        public(&links).await;
        let (_, mut watch) = links.watch().await.unwrap();
        let mut batch = String::new();
        for number in 0..2000 {
            let (high, low) = (number / 250, number % 250);
            batch += &format!("route add 10.{high}.{low}.0/24 via 192.0.2.1\n");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), batch).unwrap();
        run(&format!("ip -batch {}", file.path().display()));
        let mut told = 0;
        while timeout(Duration::from_millis(500), watch.next()).await.is_ok() {
            told += 1;
        }
        assert!((1..=2000).contains(&told), "{told}");
        assert!(links.routes().await.unwrap().len() >= 2000);
        run("ip route add 198.51.100.0/24 via 192.0.2.1");
        routing(&mut watch).await;
    });
}

#[test]
fn the_kernel_resolves_who_answers_gives_up_on_who_does_not_and_makes_sure_of_the_stale() {
    in_namespace(|links| async move {
        let eth1 = public(&links).await;
        // The other end answers from a namespace of its own.
        let mut other =
            std::process::Command::new("unshare").args(["-n", "sleep", "30"]).spawn().unwrap();
        sleep(Duration::from_millis(200)).await;
        let enter = format!("nsenter -t {} -n", other.id());
        run(&format!("ip link set far netns {}", other.id()));
        run(&format!("{enter} ip addr add 192.0.2.1/24 dev far"));
        run(&format!("{enter} ip link set far up"));
        sleep(Duration::from_millis(200)).await;

        let (there, nobody) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 99));
        links.resolve(eth1, there).await.unwrap();
        links.resolve(eth1, nobody).await.unwrap();
        sleep(Duration::from_millis(300)).await;
        let found = neighbour(&links, "192.0.2.1").await.unwrap();
        let told = run(&format!("{enter} ip -o link show far"));
        assert!(told.contains(&found.mac.unwrap().to_string()), "{found:?}: {told}");
        assert!(neighbour(&links, "192.0.2.99").await.is_none_or(|it| it.mac.is_none()));

        run("ip neigh change 192.0.2.1 dev eth1 nud stale");
        assert!(neighbour(&links, "192.0.2.1").await.unwrap().stale);
        links.resolve(eth1, there).await.unwrap();
        // It waits a while for a sign of life before it asks (delay_first_probe_time).
        sleep(Duration::from_secs(6)).await;
        assert!(!neighbour(&links, "192.0.2.1").await.unwrap().stale);
        let kept = run("ip neigh show dev eth1");
        assert!(!kept.contains("PERMANENT") && !kept.contains("managed"), "{kept}");
        assert!(neighbour(&links, "192.0.2.99").await.is_none_or(|it| it.failed));
        other.kill().unwrap();
        other.wait().unwrap();
    });
}

#[test]
fn a_host_port_has_the_address_it_is_given_and_no_other() {
    in_namespace(|links| async move {
        let eth1 = public(&links).await;
        run("ip addr add 10.9.9.9/32 dev eth1");
        for (wanted, shown) in [
            (Some("10.0.0.1/24"), "10.0.0.0/24 dev eth1"),
            (Some("10.0.0.1/24"), "10.0.0.0/24 dev eth1"),
            (Some("10.0.0.5/24"), "src 10.0.0.5"),
            (None, ""),
        ] {
            let net = wanted.map(|net| net.parse().unwrap());
            links.set_address(eth1, net).await.unwrap();
            let there = run("ip -4 -o addr show dev eth1");
            assert_eq!(there.lines().count(), usize::from(wanted.is_some()), "{there}");
            assert!(run("ip route").contains(shown), "{}", run("ip route"));
        }
    });
}

#[test]
fn routes_of_ours_are_known_as_ours_and_go_with_their_link() {
    in_namespace(|links| async move {
        let eth1 = public(&links).await;
        let float = Ipv4Addr::new(91, 208, 23, 11);
        for _ in 0..2 {
            links.add_host_route(float, eth1).await.unwrap();
        }
        let route = route_to(&links, "91.208.23.11/32").await.unwrap();
        assert!(route.ours && route.via.is_none() && route.interface == eth1);
        for _ in 0..2 {
            links.remove_host_route(float, eth1).await.unwrap();
        }
        assert_eq!(route_to(&links, "91.208.23.11/32").await, None);
        links.add_host_route(float, eth1).await.unwrap();
        run("ip link del eth1");
        assert_eq!(route_to(&links, "91.208.23.11/32").await, None);
    });
}
