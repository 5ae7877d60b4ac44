//! From a model to a running node: judge first, then build, and attach last.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Instant;

use af_xdp::QueuePlan;
use anyhow::{Context, Result, bail};
use conntrack::Table;
use control::flags::{Flags, Replay, XdpMode};
use control::learn::Stations;
use control::model::Model;
use control::neighbours::Neighbours;
use control::netlink::{Link, LinkWatch, Links, judge};
use control::report::Reloads;
use kernel::{Interface, Kernel, PUNT_SOCKETS, PuntSender, Settings};
use tables::{Fdb, PortId, Publisher, Snapshot};

use crate::detach::take_away;
use crate::node::{NicSockets, Node};
use crate::plug::{PUNT_OVERHEAD, expects_xdp};
use crate::ports::Names;
use crate::public::Public;
use crate::run::patiently;
use crate::stations::Pending;
use crate::told::Told;
use crate::workers::{self, NicQueues, Workers};

/// Slots of the kernel's socket map that a NIC gets, one a queue.
const NIC_SOCKETS: u32 = 256;

/// A NIC that has been judged fit.
struct Fit {
    link: Link,
    plan: QueuePlan,
    xdp: bool,
    trunk: bool,
}

/// Brings the node up. A first start that fails leaves nothing; after an earlier run what that one
/// left stays, since its programs still answer for the node.
pub(crate) async fn start(flags: &Flags, model: Model) -> Result<(Node, LinkWatch)> {
    let (name, is_first) = (model.node.clone(), !kernel::has_left_pins(&model.node)?);
    let started = bring_up(flags, model).await;
    if started.is_err() && is_first {
        match take_away(&name).await {
            Ok(report) => report.problems.iter().for_each(|problem| tracing::warn!("{problem}")),
            Err(error) => tracing::warn!("what this start had made stays: {error:#}"),
        }
    }
    started
}

async fn bring_up(flags: &Flags, model: Model) -> Result<(Node, LinkWatch)> {
    let links = Links::connect()?;
    let (there, watch) = links.watch().await?;
    let mut warnings = Vec::new();
    let nics = judge_nics(&model, &there, &links, &mut warnings).await?;
    let plans: Vec<QueuePlan> = nics.iter().map(|nic| nic.plan.clone()).collect();
    let workers = workers::count(&model.tuning, &plans);
    workers::cores(&model.tuning, workers)?;

    let hash_key = RandomState::new().build_hasher().finish();
    let lines = Table::lines_for(model.tuning.connections as usize);
    let lines = u32::try_from(lines).context("that many connections do not fit one table")?;
    let settings = Settings { lines, hash_key, tcx: true, replays: true };
    let (mut kernel, replay) = load(&model, settings).await?;
    for nic in &nics {
        let interface = Interface::new(nic.link.index, &nic.link.name);
        let changes = kernel.prepare_nic(interface, nic.trunk)?;
        for made in changes.made {
            tracing::info!(nic = %nic.link.name, "{made}; `trunkline detach` puts it back");
        }
        for warning in changes.warnings {
            tracing::warn!(nic = %nic.link.name, "{warning}");
            warnings.push(format!("{}: {warning}", nic.link.name));
        }
    }
    let punt = links
        .ensure_punt_link(workers as u32, largest_mtu(&model, &nics) + PUNT_OVERHEAD, &model.node)
        .await?;

    // Without a shared source address an empty range: what an earlier run reserved is given back.
    let ports = model.nat.ports;
    let last = if model.routing_source_ip.is_some() { ports.last } else { ports.first - 1 };
    kernel.reserve_ports(ports.first..=last)?;
    let sender = PuntSender::open(punt.far.index).context("cannot open a packet socket")?;

    let mut names = Names::default();
    let generic = model.tuning.xdp_mode == XdpMode::Generic;
    let (queues, nic_sockets) = number_nics(&nics, generic, &mut names)?;
    let publisher = Publisher::new(Snapshot::default());
    let flows = Table::new(kernel.lines(), hash_key);
    let slots: Vec<u32> = (0..queues.len() as u32).map(first_slot).collect();
    let workers = Workers::start(
        &model,
        flows,
        &publisher,
        punt.far.index,
        &queues,
        workers,
        |nic, queue, socket| {
            let first = nic.and_then(|nic| slots.get(nic).copied()).unwrap_or(0);
            Ok(kernel.set_socket(first + queue, socket)?)
        },
    )?;
    let mut node = Node {
        flags: flags.clone(),
        model: Model {
            networks: Vec::new(),
            vifs: Vec::new(),
            static_fdb: Vec::new(),
            routes: Vec::new(),
            neighbours: Vec::new(),
            floats: Vec::new(),
            warnings: Vec::new(),
            ..model.clone()
        },
        links,
        kernel,
        workers,
        publisher,
        generation: 0,
        stamp: 0,
        nic_sockets,
        names,
        ports: BTreeMap::new(),
        stations: Stations::default(),
        fdb: Arc::new(Fdb::default()),
        pending: Pending::default(),
        told: Told::default(),
        redirected: BTreeMap::new(),
        neighbours: Neighbours::default(),
        public: Public::default(),
        sender,
        announcements: Vec::new(),
        fdb_refused: 0,
        warnings,
        replay,
        reloads: Reloads::default(),
        started: Instant::now(),
        ready: false,
    };
    node.apply(model).await?;
    node.nics_are_plugged()?;
    node.look_at_public().await?;
    // Last: with it goes what an earlier run left on interfaces that are no ports any more.
    let near = Interface::new(punt.near.index, &punt.near.name);
    node.kernel.attach_punt(near, Interface::new(punt.far.index, &punt.far.name))?;
    node.ready = true;
    Ok((node, watch))
}

/// Loads the programs, with the replay that is asked for; says in words which it is.
async fn load(model: &Model, settings: Settings) -> Result<(Kernel, String)> {
    let start = async |replays| {
        let settings = Settings { replays, ..settings };
        patiently(async || Kernel::start(&model.node, &settings)).await
    };
    let asked = model.tuning.replay;
    match asked {
        Replay::Userspace => return Ok((start(false).await?, "userspace (asked for)".to_owned())),
        Replay::Kernel => return Ok((start(true).await?, "kernel (asked for)".to_owned())),
        Replay::Auto => {}
    }
    match start(true).await {
        Ok(kernel) => Ok((kernel, "kernel (its verifier takes the programs)".to_owned())),
        Err(error @ kernel::Error::Load { .. }) => {
            tracing::warn!("the kernel does not take the programs that replay: {error}");
            let kernel = start(false).await?;
            Ok((kernel, "userspace (the kernel refuses the programs that replay)".to_owned()))
        }
        Err(error) => Err(error.into()),
    }
}

impl Node {
    /// A NIC that could not be plugged is no node to run: the reason ends the start.
    fn nics_are_plugged(&self) -> Result<()> {
        for nic in &self.model.nics {
            let id = self.names.ports.get(&nic.name).and_then(PortId::new);
            let port = id.and_then(|id| self.ports.get(&id));
            match port {
                Some(port) if port.plugged.is_some() => {}
                Some(port) => bail!(
                    "{}: {}",
                    nic.name,
                    port.refusal.as_deref().unwrap_or("the interface vanished during the start")
                ),
                None => bail!("{}: there is no port for it", nic.name),
            }
        }
        Ok(())
    }
}

async fn judge_nics(
    model: &Model,
    there: &[Link],
    links: &Links,
    warnings: &mut Vec<String>,
) -> Result<Vec<Fit>> {
    let addresses = links.addresses().await?;
    let mut fit = Vec::new();
    for nic in &model.nics {
        let link =
            judge::uplink(&nic.name, there, model.mtu_on(&nic.name)).map_err(anyhow::Error::msg)?;
        for warning in judge::uplink_warnings(nic, link, &addresses) {
            tracing::warn!("{warning}");
            warnings.push(warning);
        }
        let plan = QueuePlan::of(&nic.name)?;
        let xdp = expects_xdp(model.tuning.hook, link);
        if xdp {
            plan.check()?;
            if plan.rx() > NIC_SOCKETS {
                bail!("{} has {} queues; at most {NIC_SOCKETS} can be served", nic.name, plan.rx());
            }
        }
        fit.push(Fit { link: link.clone(), plan, xdp, trunk: nic.trunk });
    }
    if model.tuning.xdp_mode == XdpMode::Generic && fit.iter().any(|nic| nic.xdp) {
        warnings.push("generic XDP is the slowest way: see docs/operations.md".to_owned());
    }
    Ok(fit)
}

/// The largest packet any port may bring, as far as the configuration knows.
fn largest_mtu(model: &Model, nics: &[Fit]) -> u32 {
    let networks = model.networks.iter().map(|network| network.mtu);
    // A NIC's own MTU may be larger than what its segments use; so large no frame of ours is.
    let nics = nics.iter().map(|nic| nic.link.mtu.min(1500));
    networks.chain(nics).max().unwrap_or(1500)
}

const fn first_slot(nic: u32) -> u32 {
    PUNT_SOCKETS + nic * NIC_SOCKETS
}

type Numbered = (Vec<NicQueues>, BTreeMap<PortId, NicSockets>);

/// Port numbers of the NICs, and slots for the sockets of those that get some.
fn number_nics(nics: &[Fit], generic: bool, names: &mut Names) -> Result<Numbered> {
    let (mut queues, mut sockets) = (Vec::new(), BTreeMap::new());
    for nic in nics {
        let number = names.ports.take(&nic.link.name).and_then(PortId::new);
        let port = number.context("there are 4094 ports already")?;
        if !nic.xdp {
            continue;
        }
        let index = u8::try_from(queues.len()).context("there are 255 NICs already")?;
        let first = first_slot(index.into());
        let count = u16::try_from(nic.plan.rx()).context("that many queues")?;
        sockets.insert(port, NicSockets { nic: index, first, queues: count });
        let (ifindex, plan) = (nic.link.index, nic.plan.clone());
        queues.push(NicQueues { port, ifindex, plan, generic });
    }
    Ok((queues, sockets))
}
