//! The worker threads as the control thread sees them: made here, heard here, counted here.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;

use af_xdp::{Mode, QueuePlan, Socket, SocketConfig, Umem, UmemConfig};
use anyhow::{Context, Result};
use conntrack::{Fragments, Table, Timeouts};
use control::flags::XdpMode;
use control::model::{Model, Tuning};
use control::report::Frames;
use crossbeam::channel::{Receiver, bounded};
use dataplane::{Corner, Epoch, Gauges, Link, NicWay, Parts, Pools, Shared, Worker, mesh};
use pipeline::{Asked, Counters, DropReason, Notice};
use tables::{PortId, Publisher};

use crate::memory::{self, Room};

/// Notices that may wait for the control thread.
const NOTICES: usize = 8192;
/// DHCP requests that may wait; a client asks again.
const ASKED: usize = 256;
/// Frames copy mode sends in a system call; the kernel's default is 32 (`XDP_MAX_TX_SKB_BUDGET`).
const TX_BUDGET: u32 = 256;

/// A NIC whose queues workers serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NicQueues {
    pub(crate) port: PortId,
    /// Its queues; none while its interface is not there.
    pub(crate) plan: Option<QueuePlan>,
    /// The XDP program is attached in generic mode.
    pub(crate) generic: bool,
}

impl NicQueues {
    /// How many sockets it takes.
    fn sockets(&self) -> u32 {
        self.plan.as_ref().map_or(0, QueuePlan::rx)
    }
}

/// All workers.
#[derive(Debug)]
pub(crate) struct Workers {
    pub(crate) notices: Receiver<Notice>,
    pub(crate) asked: Receiver<Asked>,
    pub(crate) wake: UnixDatagram,
    pub(crate) flows: Arc<Table>,
    /// How large packets may be.
    pub(crate) room: Room,
    umem: Umem,
    large: Umem,
    counters: Vec<Arc<Counters>>,
    gauges: Vec<Arc<Gauges>>,
    epochs: Vec<Arc<Epoch>>,
    shared: Shared,
    punt: u32,
    /// The NICs they serve, in the order in which ports name them.
    pub(crate) nics: Vec<NicQueues>,
    threads: Vec<JoinHandle<()>>,
}

/// How many workers: as asked for, else one for each queue of the NIC that has most, as far as
/// there are cores.
pub(crate) fn count(tuning: &Tuning, nics: &[QueuePlan]) -> usize {
    let queues = nics.iter().map(QueuePlan::rx).max().unwrap_or(1) as usize;
    let cores = core_affinity::get_core_ids().map_or(1, |cores| cores.len().max(1));
    tuning.workers.map_or_else(|| queues.clamp(1, cores), usize::from)
}

/// The cores workers are pinned to: those named, else the last ones, since interrupts and the
/// host's daemons favour the first.
pub(crate) fn cores(tuning: &Tuning, workers: usize) -> Result<Vec<core_affinity::CoreId>> {
    let all = core_affinity::get_core_ids().unwrap_or_default();
    if tuning.cores.is_empty() {
        return Ok(all.into_iter().rev().cycle().take(workers).collect());
    }
    let named = tuning.cores.iter().map(|wanted| {
        all.iter().find(|core| core.id == *wanted).copied().with_context(|| {
            let there: Vec<_> = all.iter().map(|core| core.id.to_string()).collect();
            format!("core {wanted} is not to be had: this process may run on {}", there.join(","))
        })
    });
    Ok(named.collect::<Result<Vec<_>>>()?.into_iter().cycle().take(workers).collect())
}

impl Workers {
    /// Opens all sockets. `register` is told each one's NIC (none for the punt link) and queue.
    pub(crate) fn start(
        model: &Model,
        flows: Table,
        publisher: &Publisher,
        punt: u32,
        nics: &[NicQueues],
        workers: usize,
        register: impl FnMut(Option<usize>, u32, BorrowedFd<'_>) -> Result<()>,
    ) -> Result<Self> {
        let (umem, large) = packet_memory(model, nics, workers)?;
        let (sender, notices) = bounded(NOTICES);
        let (asking, asked) = bounded(ASKED);
        let (ring, wake) = UnixDatagram::pair().context("cannot make a pair of sockets")?;
        ring.set_nonblocking(true)?;
        wake.set_nonblocking(true)?;
        let shared = Shared {
            flows: Arc::new(flows),
            fragments: Arc::new(Fragments::new(RandomState::new().build_hasher().finish())),
            notices: sender,
            asked: asking,
            wake: Arc::new(ring),
            stop: Arc::new(AtomicBool::new(false)),
        };
        let mut all = Self {
            notices,
            asked,
            wake,
            flows: Arc::clone(&shared.flows),
            room: Room { chunk: umem.chunk(), frags: false, punt: true, nics: true },
            umem,
            large,
            counters: Vec::new(),
            gauges: Vec::new(),
            epochs: Vec::new(),
            shared,
            punt,
            nics: nics.to_vec(),
            threads: Vec::new(),
        };
        for _ in 0..workers {
            all.counters.push(Arc::default());
            all.gauges.push(Arc::default());
        }
        all.spawn(model, publisher, register)?;
        Ok(all)
    }

    /// Opens all sockets anew, for NICs as they are now. Meanwhile nobody decides; what is open
    /// the kernel's programs replay.
    pub(crate) fn renew(
        &mut self,
        model: &Model,
        publisher: &Publisher,
        nics: Vec<NicQueues>,
        register: impl FnMut(Option<usize>, u32, BorrowedFd<'_>) -> Result<()>,
    ) -> Result<()> {
        self.halt();
        let (needed, _) = frames_needed(model, &nics, self.len());
        if needed > self.umem.census().total {
            // The old memory stays mapped to the end: NICs seldom grow.
            (self.umem, self.large) = packet_memory(model, &nics, self.len())?;
        }
        let before = std::mem::replace(&mut self.nics, nics);
        let spawned = self.spawn(model, publisher, register);
        if spawned.is_err() {
            self.nics = before;
        }
        spawned
    }

    /// Whether every worker has its thread.
    pub(crate) fn are_all_there(&self) -> bool {
        self.threads.len() == self.len()
    }

    /// Opens the sockets and starts a thread for each worker.
    fn spawn(
        &mut self,
        model: &Model,
        publisher: &Publisher,
        mut register: impl FnMut(Option<usize>, u32, BorrowedFd<'_>) -> Result<()>,
    ) -> Result<()> {
        let (workers, tuning) = (self.len(), &model.tuning);
        let corners = mesh(workers).context("cannot make an eventfd")?;
        let (umem, punt, nics) = (self.umem, self.punt, self.nics.clone());
        (self.room.punt, self.room.nics) = (true, true);
        let mut ready = Vec::new();
        self.epochs.clear();
        let mut cores = cores(tuning, workers)?.into_iter();
        for (index, corner) in corners.into_iter().enumerate() {
            let (links, ways, places) = open(index, workers, model, umem, punt, &nics)?;
            let mut takes = links.iter().map(Link::takes_pieces);
            self.room.punt &= takes.next().unwrap_or_default();
            self.room.nics &= takes.all(|takes| takes);
            let mut parts = self.parts(index, corner, links, ways, publisher, tuning);
            parts.core = cores.next();
            let worker = Worker::new(parts);
            // What comes before its thread runs waits in rings that have frames.
            for ((nic, queue), socket) in places.into_iter().zip(worker.sockets()) {
                register(nic, queue, socket)?;
            }
            ready.push((format!("trunkline-w{index}"), worker));
        }
        self.shared.stop.store(false, Relaxed);
        for (name, worker) in ready {
            let run = move || worker.run();
            self.threads.push(std::thread::Builder::new().name(name).spawn(run)?);
        }
        Ok(())
    }

    /// What one worker is made of. Its counters go on.
    fn parts(
        &mut self,
        index: usize,
        corner: Corner,
        links: Vec<Link>,
        nics: Vec<NicWay>,
        publisher: &Publisher,
        tuning: &Tuning,
    ) -> Parts {
        self.epochs.push(corner.epoch());
        Parts {
            index,
            workers: self.len(),
            core: None,
            links,
            nics,
            corner,
            reader: publisher.reader(),
            counters: Arc::clone(&self.counters[index]),
            gauges: Arc::clone(&self.gauges[index]),
            pools: Pools::new(self.umem.pool(), self.large.pool()),
            tuning: dataplane::Tuning {
                batch: tuning.batch,
                busy_poll: tuning.busy_poll,
                timeouts: timeouts(tuning),
            },
            shared: self.shared.clone(),
        }
    }

    /// Number of workers.
    pub(crate) fn len(&self) -> usize {
        self.counters.len()
    }

    /// Whether no worker uses tables older than `generation`.
    pub(crate) fn have_reached(&self, generation: u64) -> bool {
        self.epochs.iter().all(|epoch| epoch.has_reached(generation))
    }

    /// Whether a worker died: nothing a worker does may panic, and if it does the node says so.
    pub(crate) fn any_finished(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Ends all workers and waits for them.
    pub(crate) fn halt(&mut self) {
        self.shared.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }

    /// A counter's sum over all workers.
    pub(crate) fn sum(&self, counter: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        self.counters.iter().map(|counters| counter(counters).load(Relaxed)).sum()
    }

    /// A gauge's sum over all workers.
    pub(crate) fn gauge(&self, gauge: impl Fn(&Gauges) -> &AtomicU64) -> u64 {
        self.gauges.iter().map(|gauges| gauge(gauges).load(Relaxed)).sum()
    }

    /// Packets from a port that workers dropped, by reason; only reasons that happened.
    pub(crate) fn drops(&self, port: PortId) -> BTreeMap<String, u64> {
        let of =
            |reason: DropReason| self.sum(|counters| &counters.port(port).dropped[reason as usize]);
        let named = DropReason::ALL.iter().map(|reason| (reason.name().to_owned(), of(*reason)));
        named.filter(|(_, count)| *count > 0).collect()
    }

    /// Where all frames are, as each worker last said; the parts are from different moments.
    pub(crate) fn frames(&self) -> Frames {
        let (small, large) = (self.umem.census(), self.large.census());
        Frames {
            total: u64::from(small.total + large.total),
            free: u64::from(small.free + large.free) + self.gauge(|gauges| &gauges.free),
            fill: self.gauge(|gauges| &gauges.fill),
            rx: self.gauge(|gauges| &gauges.rx),
            tx: self.gauge(|gauges| &gauges.tx),
            completion: self.gauge(|gauges| &gauges.completion),
            in_flight: self.gauge(|gauges| &gauges.in_flight)
                + self.gauge(|gauges| &gauges.kernel)
                + u64::from(small.lingering),
        }
    }
}

fn socket_config(tuning: &Tuning, generic: bool) -> SocketConfig {
    let mode = match tuning.xdp_mode {
        XdpMode::Auto | XdpMode::Generic => Mode::Auto,
        XdpMode::ZeroCopy => Mode::ZeroCopy,
        XdpMode::Copy => Mode::Copy,
    };
    SocketConfig {
        ring: tuning.rings,
        mode,
        generic,
        tx_budget: Some(TX_BUDGET),
        ..SocketConfig::default()
    }
}

/// Frames that so many sockets and workers take, and large ones.
fn frames_needed(model: &Model, nics: &[NicQueues], workers: usize) -> (u32, u32) {
    let queues: u32 = nics.iter().map(NicQueues::sockets).sum();
    let workers = workers as u32;
    let each = socket_config(&model.tuning, false).frames();
    (memory::frames(workers + queues, each, workers), workers * memory::LARGE)
}

/// Memory for sockets, and for packets longer than its frames.
fn packet_memory(model: &Model, nics: &[NicQueues], workers: usize) -> Result<(Umem, Umem)> {
    let (frames, large) = frames_needed(model, nics, workers);
    let map = |chunk, frames| {
        let config = UmemConfig { chunk, frames, huge_pages: false };
        Umem::new(&config).with_context(|| format!("cannot map packet memory for {frames} frames"))
    };
    Ok((map(memory::chunk(model), frames)?, map(memory::LARGE_CHUNK, large)?))
}

/// A NIC, by its place (none for the punt link), and a queue of it.
type Place = (Option<usize>, u32);

/// Opens the sockets of one worker: its queue of the punt link, then its queues of every NIC; and
/// says which they are.
fn open(
    index: usize,
    workers: usize,
    model: &Model,
    umem: Umem,
    punt: u32,
    nics: &[NicQueues],
) -> Result<(Vec<Link>, Vec<NicWay>, Vec<Place>)> {
    let (tuning, pieces) = (&model.tuning, memory::wants_pieces(model));
    let ring = tuning.rings as usize;
    let config = SocketConfig { mode: Mode::Copy, ..socket_config(tuning, false) };
    let socket = Socket::open(umem, punt, index as u32, &config)?;
    let mut links = vec![Link::punt(socket, ring)];
    let mut places = vec![(None, index as u32)];
    let mut ways = Vec::new();
    for (at, nic) in nics.iter().enumerate() {
        let mut mine = None;
        if let Some(plan) = &nic.plan {
            for queue in plan.deal(workers).into_iter().nth(index).unwrap_or_default() {
                let config = SocketConfig { pieces, ..socket_config(tuning, nic.generic) };
                let socket = Socket::open(umem, plan.ifindex(), queue, &config)
                    .with_context(|| format!("{} queue {queue}", plan.interface()))?;
                tracing::info!(nic = plan.interface(), queue, mode = ?socket.bound(), "AF_XDP");
                mine.get_or_insert(links.len());
                links.push(Link::nic(socket, nic.port, ring));
                places.push((Some(at), queue));
            }
        }
        // Queue q is worker q's; one without a queue hands its frames to one that has.
        let with_queue = index % (nic.sockets().max(1) as usize);
        ways.push(mine.map_or(NicWay::Worker(with_queue), NicWay::Own));
    }
    Ok((links, ways, places))
}

/// The model's timeouts as the table counts them, seconds; frames bridged by MAC keep theirs.
fn timeouts(tuning: &Tuning) -> Timeouts {
    let seconds = |of: std::time::Duration| u32::try_from(of.as_secs()).unwrap_or(u32::MAX);
    let said = tuning.timeouts;
    Timeouts {
        tcp_established: seconds(said.tcp_established),
        tcp_transitory: seconds(said.tcp_transitory),
        udp: seconds(said.udp),
        icmp: seconds(said.icmp),
        ..Timeouts::default()
    }
}
