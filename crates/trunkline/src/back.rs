//! `trunkline adopt --back`: nova-network's bridges and rules carry the node again.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};
use conntrack::layout::{FIN, RST};
use conntrack::{Flow, Table, fault};
use control::adopt::conntrack::Tuple;
use control::adopt::ctnetlink::{Conntrack, Given, TCP, UDP};
use control::adopt::{Kept, Record};
use control::ctl::{self, CtlError};
use control::netlink::{Link, Links};
use control::report::HandedOver;
use ipnet::IpNet;

use crate::detach::take_away;

/// How long the kernel remembers what it is given, if no packet comes; with the first one its own
/// timeouts count. RFC 5382 and 4787 have the same.
const TCP_SECONDS: u32 = 7440;
const UDP_SECONDS: u32 = 300;

/// Undoes a changeover.
pub(crate) fn back(node: &str) -> Result<()> {
    let record = Record::read(node).context("the record of what was taken over cannot be read")?;
    let Some(record) = record else {
        bail!("node {node} was not taken over from nova-network: there is nothing to undo");
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // The many while the daemon still serves, the few that come meanwhile without it.
        let mut given = BTreeSet::new();
        let mut said = give_connections(node, &mut given).await;
        stop_daemon(node).await?;
        said.extend(give_connections(node, &mut given).await);
        // Who completes the changeover after all takes them over again: security groups judge what
        // they do not know.
        Record { inherited: false, ..record }.write(node)?;
        println!("{} connections given back to the kernel", given.len());
        fault::point("given");
        let report = take_away(node).await?;
        for line in report.done {
            println!("{line}");
        }
        if !report.problems.is_empty() {
            bail!("{}", report.problems.join("\n"));
        }
        Record::remove(node)?;
        said.iter().for_each(|why| println!("WARNING: {why}"));
        println!("nova-network's bridges and rules carry {node} again");
        Ok(())
    })
}

async fn stop_daemon(node: &str) -> Result<()> {
    let socket = control::api::socket_path(node);
    match ctl::post::<HandedOver>(&socket, "/v1/handover").await {
        Ok(gone) => println!("the daemon (pid {}) stops", gone.pid),
        // It may be gone before its answer is; or there was none.
        Err(CtlError::Broken { .. } | CtlError::Nobody { .. }) => {}
        Err(error @ CtlError::Refused(_)) => return Err(error).context("the daemon stays"),
    }
    kernel::is_idle(node).context("stop the daemon first (systemctl stop trunkline)")
}

/// Gives the kernel every connection of the table that it does not have from us yet; says what
/// went wrong.
async fn give_connections(node: &str, given: &mut BTreeSet<Direction>) -> Vec<String> {
    match try_give(node, given).await {
        Ok((0, _)) => Vec::new(),
        Ok((refused, why)) => vec![format!(
            "{refused} connections were not given back to the kernel, and begin anew: {why}"
        )],
        Err(error) => vec![format!(
            "connections were not given back to the kernel, and begin anew: {error:#}"
        )],
    }
}

/// Who speaks to whom, in the order of its fields, as a key.
type Direction = (u8, Ipv4Addr, u16, Ipv4Addr, u16);

async fn try_give(node: &str, done: &mut BTreeSet<Direction>) -> Result<(usize, String)> {
    let Some((lines, hash_key)) = kernel::left_lines(node)? else { return Ok((0, String::new())) };
    let table = Table::new(lines, hash_key);
    let addresses = Links::connect()?.addresses().await?;
    let own: Vec<Ipv4Addr> = addresses
        .iter()
        .filter_map(|(_, net)| match net {
            IpNet::V4(net) => Some(net.addr()),
            IpNet::V6(_) => None,
        })
        .collect();
    let kernel = Conntrack::open().context("the kernel's table of connections")?;
    let (mut refused, mut why) = (0, String::new());
    for flow in table.live().filter(|flow| !flow.is_reply()) {
        let Some(given) = as_the_kernel_knows(&flow, &own) else { continue };
        let Tuple { source, destination, source_port, destination_port } = given.original;
        let direction = (given.protocol, source, source_port, destination, destination_port);
        if ended(&table, &flow) || !done.insert(direction) {
            continue;
        }
        if let Err(error) = kernel.give(&given) {
            done.remove(&direction);
            (refused, why) = (refused + 1, error.to_string());
        }
    }
    Ok((refused, why))
}

fn ended(table: &Table, flow: &Flow) -> bool {
    let partner = table.at(flow.partner()).map_or(0, |partner| partner.bits());
    (flow.bits() | partner) & (FIN | RST) != 0
}

/// A connection in the kernel's words; none for those that begin anew by themselves, and for what
/// the node itself has a part in, of which the kernel has seen every packet.
fn as_the_kernel_knows(flow: &Flow, own: &[Ipv4Addr]) -> Option<Given> {
    let (key, rewrite) = (flow.key(), flow.rewrite());
    let timeout = match key.protocol() {
        TCP => TCP_SECONDS,
        UDP => UDP_SECONDS,
        _ => return None,
    };
    let original = Tuple {
        source: key.src().into(),
        destination: key.dst().into(),
        source_port: key.sport(),
        destination_port: key.dport(),
    };
    let new = |old: (Ipv4Addr, u16), address: [u8; 4], port: u16| {
        let address = if address == [0; 4] { old.0 } else { address.into() };
        let now = (address, if port == 0 { old.1 } else { port });
        (now != old).then_some(now)
    };
    let (from, to) = (
        (original.source, original.source_port),
        (original.destination, original.destination_port),
    );
    let source = new(from, rewrite.source, rewrite.source_port);
    let destination = new(to, rewrite.destination, rewrite.destination_port);
    if own.contains(&from.0) || own.contains(&destination.unwrap_or(to).0) {
        return None;
    }
    Some(Given { protocol: key.protocol(), original, source, destination, timeout })
}

/// What says that a bridge's addresses are at the bridge.
pub(crate) fn gratuitous(bridge: &Link, addresses: &[(u32, IpNet)]) -> Vec<[u8; wire::arp::LEN]> {
    let own = addresses.iter().filter(|(index, _)| *index == bridge.index);
    own.filter_map(|(_, net)| match (net, bridge.mac) {
        (IpNet::V4(net), Some(mac)) => {
            let address = net.addr().octets();
            Some(wire::arp::gratuitous(wire::Station { mac, address }))
        }
        _ => None,
    })
    .collect()
}

/// Says in a bridge's network that its addresses are at the bridge again, over and over, while
/// ports come back to it one by one.
pub(crate) struct Announcer {
    /// Dropping it ends the thread.
    _stop: std::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Announcer {
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

    /// Begins to announce the addresses of these bridges.
    pub(crate) async fn start(links: &Links, bridges: &[Kept]) -> Result<Self> {
        let (there, addresses) = (links.list().await?, links.addresses().await?);
        let mut frames = Vec::new();
        for link in bridges.iter().filter_map(|kept| crate::adopted::bridge(&there, kept)) {
            frames.push((kernel::FrameSender::open(link.index)?, gratuitous(link, &addresses)));
        }
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            loop {
                for (sender, frames) in &frames {
                    // A bridge without carrier has nobody to tell.
                    frames.iter().for_each(|frame| drop(sender.send(frame)));
                }
                let wait = stopped.recv_timeout(Self::PAUSE);
                if wait == Err(std::sync::mpsc::RecvTimeoutError::Disconnected) {
                    break;
                }
            }
        });
        Ok(Self { _stop: stop, thread })
    }

    /// Says it a last time and ends.
    pub(crate) fn finish(self) {
        std::thread::sleep(2 * Self::PAUSE);
        drop(self._stop);
        let _ = self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use conntrack::layout::{REWRITES, ROUTED};
    use conntrack::{FlowKey, Installed, NewLine, Rewrite};

    use super::*;

    fn flow(key: FlowKey, rewrite: Rewrite, reply: FlowKey) -> Flow {
        let table = Table::in_memory(64, 1);
        let original = NewLine { key, rewrite };
        let reply = NewLine { key: reply, rewrite: Rewrite::default() };
        match table.install(&original, &reply, 1, 1).unwrap() {
            Installed::New { original, .. } => original,
            existing => panic!("{existing:?}"),
        }
    }

    #[test]
    fn a_line_of_source_nat_becomes_a_connection_with_it() {
        let key = FlowKey::ipv4([10, 0, 0, 4], [8; 4], 4000, 80, TCP, 8, 1);
        let answers = FlowKey::ipv4([8; 4], [91, 207, 15, 105], 80, 20001, TCP, 2, 0);
        let (source, source_port) = ([91, 207, 15, 105], 20001);
        let flags = REWRITES | ROUTED;
        let flow = flow(key, Rewrite { source, source_port, flags, ..Rewrite::default() }, answers);
        let given = as_the_kernel_knows(&flow, &[source.into()]).unwrap();
        assert_eq!(given.source, Some((source.into(), 20001)));
        assert_eq!((given.destination, given.timeout), (None, TCP_SECONDS));
        assert_eq!(given.original.source_port, 4000);
        assert_eq!(as_the_kernel_knows(&flow, &[[10, 0, 0, 4].into()]), None);
    }
}
