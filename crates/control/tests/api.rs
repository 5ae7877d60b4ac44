//! The control socket, both ends, and curl as the stranger.
#![allow(clippy::unwrap_used)] // also in the functions that tests share

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use control::api::{self, Request};
use control::ctl::{self, CtlError};
use control::report::{
    Cut, End, Explained, FdbEntry, Flow, Group, HandedOver, Lease, Nat, Neighbour, Port, PortKind,
    Reloaded, Route, RouteSource, Segment, Status,
};
use tokio::sync::mpsc;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn entry(segment: &str) -> FdbEntry {
    FdbEntry {
        segment: segment.into(),
        mac: "fa:16:3e:00:00:01".into(),
        port: "vnet1".into(),
        fixed: false,
        age_s: Some(3),
    }
}

fn flow(ingress: &str, source: &str) -> Flow {
    Flow {
        protocol: "udp".into(),
        source: End { address: source.into(), port: Some(5353) },
        destination: End { address: "8.8.8.8".into(), port: Some(53) },
        ingress: ingress.into(),
        state: "open".into(),
        ..Flow::default()
    }
}

/// A daemon that answers from a list, and refuses to reload.
async fn daemon(mut requests: mpsc::Receiver<Request>) {
    while let Some(request) = requests.recv().await {
        match request {
            Request::Status(reply) => {
                let drops = [("unknown tag".to_string(), 7)].into();
                let _ =
                    reply.send(Status { node: "left".into(), pid: 42, drops, ..Status::default() });
            }
            Request::Ports(reply) => {
                let port = Port {
                    number: 1,
                    name: "eth0".into(),
                    kind: PortKind::Trunk,
                    ..Port::default()
                };
                let _ = reply.send(vec![port]);
            }
            // Dropped without an answer, as by a daemon that ends.
            Request::Segments(_) => {}
            Request::Fdb(of, reply) => {
                let all = [entry("tenant1"), entry("tenant 2")];
                let wanted = |e: &FdbEntry| of.as_ref().is_none_or(|name| e.segment == *name);
                let _ = reply.send(all.into_iter().filter(wanted).collect());
            }
            Request::Routes(reply) => {
                let route = Route {
                    zone: None,
                    prefix: "0.0.0.0/0".into(),
                    way: "via 91.207.15.1 on eth1".into(),
                    source: RouteSource::Kernel,
                };
                let _ = reply.send(vec![route]);
            }
            Request::HandOver(reply) => drop(reply.send(HandedOver { pid: 4711 })),
            Request::Vif(name, reply) => {
                drop(reply.send(Err(format!("there is no vif '{name}'"))));
            }
            Request::Neighbours(reply) => drop(reply.send(vec![Neighbour::default()])),
            Request::Leases(reply) => drop(reply.send(vec![Lease::default()])),
            Request::Groups(reply) => drop(reply.send(vec![Group::default()])),
            Request::Nat(reply) => {
                drop(reply.send(Nat { ports: "20000-45999".into(), ..Nat::default() }));
            }
            Request::Flows(filter, reply) => {
                let all = [flow("vnet1", "10.0.0.3"), flow("vnet 2", "10.0.0.4")];
                drop(reply.send(all.into_iter().filter(|it| filter.lets_through(it)).collect()));
            }
            Request::Cut(filter, reply) => {
                assert_eq!(filter.to_string(), "vnet1 8.8.8.8:53");
                drop(reply.send(Cut { connections: 2 }));
            }
            Request::Explain(port, packet, reply) => {
                let told = match port.as_str() {
                    "vnet1" => Ok(Explained { port, packet, stages: Vec::new() }),
                    _ => Err(format!("there is no port '{port}'")),
                };
                let _ = reply.send(told);
            }
            Request::Reload(reply) => {
                let _ = reply.send(Err("left.toml:7: vlan 0 means a frame without a VLAN".into()));
            }
        }
    }
}

/// A daemon on a socket of its own directory.
async fn start(directory: &Path) -> PathBuf {
    let socket = directory.join("run/left.sock");
    let listener = api::listen(&socket).await.unwrap();
    let (requests, questions) = mpsc::channel(8);
    tokio::spawn(api::serve(listener, requests));
    tokio::spawn(daemon(questions));
    socket
}

async fn curl(socket: &Path, words: &[&str]) -> String {
    let output = tokio::process::Command::new("curl")
        .args(["-s", "-w", " %{http_code}", "--unix-socket"])
        .arg(socket)
        .args(words)
        .output()
        .await
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_the_daemon_tells_arrives() {
    let directory = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let socket = start(directory.path()).await;
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&socket), 0o660);
        assert_eq!(mode(socket.parent().unwrap()), 0o755);
        let status: Status = ctl::get(&socket, "/v1/status").await.unwrap();
        assert_eq!(
            (status.node.as_str(), status.pid, status.drops["unknown tag"]),
            ("left", 42, 7)
        );
        let ports: Vec<Port> = ctl::get(&socket, "/v1/ports").await.unwrap();
        assert_eq!((ports[0].number, ports[0].kind), (1, PortKind::Trunk));
        let all: Vec<FdbEntry> = ctl::get(&socket, "/v1/fdb").await.unwrap();
        assert_eq!(all, [entry("tenant1"), entry("tenant 2")]);
        let one: Vec<FdbEntry> = ctl::get(&socket, "/v1/fdb?segment=tenant%202").await.unwrap();
        assert_eq!(one, [entry("tenant 2")]);
    });
}

#[test]
fn routes_neighbours_and_nat_arrive() {
    let directory = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let socket = start(directory.path()).await;
        let routes = curl(&socket, &["http://x/v1/routes"]).await;
        assert_eq!(
            routes,
            r#"[{"zone":null,"prefix":"0.0.0.0/0","way":"via 91.207.15.1 on eth1","source":"kernel"}] 200"#
        );
        let neighbours: Vec<Neighbour> = ctl::get(&socket, "/v1/neighbours").await.unwrap();
        assert_eq!(neighbours, [Neighbour::default()]);
        let nat: Nat = ctl::get(&socket, "/v1/nat").await.unwrap();
        assert_eq!(nat.ports, "20000-45999");
    });
}

#[test]
fn flows_are_chosen_by_words_and_cut_only_by_words() {
    let directory = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let socket = start(directory.path()).await;
        let all: Vec<Flow> = ctl::get(&socket, "/v1/flows").await.unwrap();
        assert_eq!(all.len(), 2);
        let page = ctl::query("/v1/flows", "filter", "10.0.0.4:5353 udp");
        let some: Vec<Flow> = ctl::get(&socket, &page).await.unwrap();
        assert_eq!(some, [flow("vnet 2", "10.0.0.4")]);
        let page = ctl::query("/v1/flows", "filter", "vnet1 8.8.8.8:53");
        let cut: Cut = ctl::delete(&socket, &page).await.unwrap();
        assert_eq!(cut.connections, 2);
        for page in ["/v1/flows", "/v1/flows?filter=+"] {
            let refused = ctl::delete::<Cut>(&socket, page).await.unwrap_err();
            assert_eq!(
                refused.to_string(),
                "say which: a port, an address, address:port or a protocol"
            );
        }
    });
}

#[test]
fn a_refused_reload_says_why() {
    let directory = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let socket = start(directory.path()).await;
        let refused = ctl::post::<Reloaded>(&socket, "/v1/reload").await.unwrap_err();
        assert_eq!(refused.to_string(), "left.toml:7: vlan 0 means a frame without a VLAN");
        assert!(matches!(refused, CtlError::Refused(_)));
        let stopping = ctl::get::<Vec<Segment>>(&socket, "/v1/segments").await.unwrap_err();
        assert_eq!(stopping.to_string(), "the daemon is stopping");
        let nowhere = ctl::get::<Status>(&socket, "/v2/status").await.unwrap_err();
        assert_eq!(nowhere.to_string(), "there is no such page: /v2/status");
        let wrong = ctl::get::<Vec<Port>>(&socket, "/v1/status").await.unwrap_err();
        assert!(matches!(wrong, CtlError::Broken { .. }), "{wrong}");
    });
}

#[test]
fn curl_reads_it_too() {
    let directory = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let socket = start(directory.path()).await;
        let fdb = curl(&socket, &["http://x/v1/fdb?segment=tenant1"]).await;
        assert_eq!(
            fdb,
            r#"[{"segment":"tenant1","mac":"fa:16:3e:00:00:01","port":"vnet1","static":false,"age_s":3}] 200"#
        );
        let reload = curl(&socket, &["-X", "POST", "http://x/v1/reload"]).await;
        assert_eq!(reload, r#"{"error":"left.toml:7: vlan 0 means a frame without a VLAN"} 422"#);
        let get = curl(&socket, &["http://x/v1/reload"]).await;
        assert_eq!(get, r#"{"error":"/v1/reload is not asked with GET"} 405"#);
        assert!(curl(&socket, &["http://x/"]).await.ends_with(" 404"));
        let status = curl(&socket, &["http://x/v1/status"]).await;
        let status: serde_json::Value =
            serde_json::from_str(status.strip_suffix(" 200").unwrap()).unwrap();
        assert_eq!(status["frames"]["in_flight"], 0);
        assert_eq!(status["reloads"]["last_error"], serde_json::Value::Null);
    });
}

#[test]
fn a_daemon_that_is_not_there_is_asked_for_by_name() {
    let directory = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let socket = directory.path().join("left.sock");
        let nobody = ctl::get::<Status>(&socket, "/v1/status").await.unwrap_err();
        assert_eq!(
            nobody.to_string(),
            format!(
                "{}: No such file or directory (os error 2); is the daemon of node left running?",
                socket.display()
            )
        );
        // What a killed daemon leaves.
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let nobody = ctl::get::<Status>(&socket, "/v1/status").await.unwrap_err();
        assert!(nobody.to_string().ends_with("is the daemon of node left running?"), "{nobody}");
    });
}

#[test]
fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let socket = directory.path().join("run/left.sock");
        std::fs::create_dir(directory.path().join("run")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        assert!(socket.exists());
        let socket = start(directory.path()).await;
        let second = api::listen(&socket).await.unwrap_err();
        assert_eq!(
            second.to_string(),
            format!(
                "control socket {}: another daemon answers there: take its place with --takeover, or give this one another --node",
                socket.display()
            )
        );
        let _: Status = ctl::get(&socket, "/v1/status").await.unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "mine").unwrap();
        let refused = api::listen(&file).await.unwrap_err();
        assert!(refused.to_string().ends_with("something that is no socket is in its place"));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    });
}
