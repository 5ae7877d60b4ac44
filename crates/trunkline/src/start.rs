//! From a model to a running node: judge first, then build, and attach last.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Instant;

use af_xdp::QueuePlan;
use anyhow::{Context, Result, bail};
use conntrack::{Table, fault};
use control::flags::{Flags, Replay, XdpMode};
use control::learn::Stations;
use control::model::Model;
use control::neighbours::Neighbours;
use control::netlink::{Link, LinkWatch, Links, judge};
use control::report::Reloads;
use kernel::{Interface, Kernel, PUNT_SOCKETS, PuntSender, Settings};
use tables::{Fdb, PortId, Publisher, Snapshot};

use crate::adopted::Adopted;
use crate::continued;
use crate::detach::take_away;
use crate::dnsmasq::{self, Servers};
use crate::node::{NicSockets, Node};
use crate::plug::{PUNT_OVERHEAD, expects_xdp};
use crate::ports::Names;
use crate::public::Public;
use crate::run::patiently;
use crate::stations::Pending;
use crate::told::Told;
use crate::workers::{self, NicQueues, Workers};

/// Slots of the kernel's socket map that a NIC gets, one a queue.
pub(crate) const NIC_SOCKETS: u32 = 256;

/// A NIC that has been judged fit.
pub(crate) struct Fit {
    link: Link,
    plan: QueuePlan,
    xdp: bool,
    trunk: bool,
}

/// Brings the node up. A first start that fails leaves nothing; after an earlier run what that one
/// left stays, since its programs still answer for the node.
pub(crate) async fn start(flags: &Flags, model: Model) -> Result<(Node, LinkWatch)> {
    let (name, is_first) = (model.node.clone(), !kernel::has_left_pins(&model.node)?);
    let started = bring_up(flags, model, is_first).await;
    if started.is_err() && is_first {
        match take_away(&name).await {
            Ok(report) => report.problems.iter().for_each(|problem| tracing::warn!("{problem}")),
            Err(error) => tracing::warn!("what this start had made stays: {error:#}"),
        }
    }
    started
}

async fn bring_up(flags: &Flags, model: Model, is_first: bool) -> Result<(Node, LinkWatch)> {
    dnsmasq::programs(&model)?;
    let links = Links::connect()?;
    let (there, watch) = links.watch().await?;
    let mut warnings = Vec::new();
    let taken = Adopted::read(&model.node, &there)?;
    let judged = Adopted::freed(taken.as_ref(), &there);
    let nics = judge_nics(&model, &judged, &links, &mut warnings).await?;
    let plans: Vec<QueuePlan> = nics.iter().map(|nic| nic.plan.clone()).collect();
    let workers = workers::count(&model.tuning, &plans);
    workers::cores(&model.tuning, workers)?;

    let hash_key = RandomState::new().build_hasher().finish();
    let lines = lines(&model)?;
    let left = continued::left(&model.node)?;
    let continues = left.as_ref().map(|left| left.table);
    let settings = Settings { lines, hash_key, tcx: true, replays: true, continues };
    let (mut kernel, replay) = load(&model, settings).await?;
    fault::point("pinned");
    let (flows, adopted) = continued::table(&mut kernel, &model.node, left.as_ref())?;
    let left = left.filter(|_| adopted.is_some());
    let continuing = left.is_some();
    if !is_first && !continuing {
        tracing::warn!(
            "connections that an earlier run left are not continued: what is written of their \
             numbers (/run/trunkline/{}.json) is missing, or of another table",
            model.node
        );
    }
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

    let kept = |bridge: &str| Adopted::keeps(taken.as_ref(), bridge);
    let mut names =
        left.as_ref().map_or_else(Names::default, |left| continued::names(left, &model, kept));
    let generic = model.tuning.xdp_mode == XdpMode::Generic;
    let (queues, nic_sockets) = number_nics(&nics, generic, &mut names)?;
    let publisher = Publisher::new(Snapshot::default());
    let public = match &left {
        Some(left) => Public::left(continued::hops(left, &names), links.neighbours().await?),
        None => Public::default(),
    };
    let left = names.to_leave(kernel.table_id()?);
    // Lines that are written from now on are as new as the ports, which are as old as any line.
    let stamp = if continuing { kernel.header().stamp() as u32 } else { 0 };
    let slots: Vec<u32> = (0..queues.len() as u32).map(first_slot).collect();
    let mut workers = Workers::start(
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
    workers.room.frags = kernel.takes_frags();
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
        stamp,
        nic_sockets,
        names,
        ports: BTreeMap::new(),
        stations: Stations::default(),
        fdb: Arc::new(Fdb::default()),
        pending: Pending::default(),
        told: Told::default(),
        redirected: BTreeMap::new(),
        neighbours: Neighbours::default(),
        public,
        groups: Arc::default(),
        sender,
        announcements: Vec::new(),
        leases: BTreeMap::new(),
        servers: Servers::default(),
        fdb_refused: 0,
        macs_refused: BTreeMap::new(),
        denied: Default::default(),
        warnings,
        replay,
        reloads: Reloads::default(),
        renewals: 0,
        left,
        adopted: taken,
        continuing,
        started: Instant::now(),
        ready: false,
    };
    let near = Interface::new(punt.near.index, &punt.near.name);
    let far = Interface::new(punt.far.index, &punt.far.name);
    // Programs of an earlier run name ports by the same numbers if it is continued, else by others.
    // Without any, ports of nova's bridges wait for nothing when theirs are attached.
    let early = continuing || (is_first && node.adopted.is_some());
    if early {
        node.kernel.attach_punt(near, far)?;
    }
    fault::point("punting");
    node.apply(model).await?;
    node.nics_are_plugged()?;
    node.look_at_public().await?;
    node.kernel.settle(near.index, far.index)?;
    if continuing {
        node.has_continued();
    }
    if !early {
        node.kernel.attach_punt(near, far)?;
    }
    node.tend_dnsmasq();
    node.ready = true;
    Ok((node, watch))
}

/// Lines of the connection table.
pub(crate) fn lines(model: &Model) -> Result<u32> {
    let lines = Table::lines_for(model.tuning.connections as usize);
    u32::try_from(lines).context("that many connections do not fit one table")
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

pub(crate) async fn judge_nics(
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

pub(crate) const fn first_slot(nic: u32) -> u32 {
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
        queues.push(NicQueues { port, plan: Some(nic.plan.clone()), generic });
    }
    Ok((queues, sockets))
}
