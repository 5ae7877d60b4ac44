//! The worker threads as the control thread sees them: made here, heard here, counted here.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;

use af_xdp::{Mode, QueuePlan, Socket, SocketConfig, Umem, UmemConfig};
use anyhow::{Context, Result};
use conntrack::{Table, Timeouts};
use control::flags::XdpMode;
use control::model::{Model, Tuning};
use control::report::Frames;
use crossbeam::channel::{Receiver, bounded};
use dataplane::{Corner, Epoch, Gauges, Link, NicWay, Parts, Shared, Worker, mesh};
use pipeline::{Counters, DropReason, Notice};
use tables::{PortId, Publisher};

use crate::memory;

/// Notices that may wait for the control thread.
const NOTICES: usize = 8192;
/// Frames copy mode sends in a system call; the kernel's default is 32 (`XDP_MAX_TX_SKB_BUDGET`).
const TX_BUDGET: u32 = 256;

/// A NIC whose queues workers serve.
#[derive(Debug)]
pub(crate) struct NicQueues {
    pub(crate) port: PortId,
    pub(crate) ifindex: u32,
    pub(crate) plan: QueuePlan,
    /// The XDP program is attached in generic mode.
    pub(crate) generic: bool,
}

/// All workers.
#[derive(Debug)]
pub(crate) struct Workers {
    pub(crate) notices: Receiver<Notice>,
    pub(crate) wake: UnixDatagram,
    pub(crate) flows: Arc<Table>,
    pub(crate) umem: Umem,
    counters: Vec<Arc<Counters>>,
    gauges: Vec<Arc<Gauges>>,
    epochs: Vec<Arc<Epoch>>,
    stop: Arc<AtomicBool>,
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
        mut register: impl FnMut(Option<usize>, u32, BorrowedFd<'_>) -> Result<()>,
    ) -> Result<Self> {
        let tuning = &model.tuning;
        let cores = cores(tuning, workers)?;
        let umem = packet_memory(model, nics, workers)?;
        let (sender, notices) = bounded(NOTICES);
        let (ring, wake) = UnixDatagram::pair().context("cannot make a pair of sockets")?;
        ring.set_nonblocking(true)?;
        wake.set_nonblocking(true)?;
        let shared = Shared {
            flows: Arc::new(flows),
            notices: sender,
            wake: Arc::new(ring),
            stop: Arc::new(AtomicBool::new(false)),
        };
        let mut all = Self {
            notices,
            wake,
            flows: Arc::clone(&shared.flows),
            umem,
            counters: Vec::new(),
            gauges: Vec::new(),
            epochs: Vec::new(),
            stop: Arc::clone(&shared.stop),
            threads: Vec::new(),
        };
        let corners = mesh(workers).context("cannot make an eventfd")?;
        let mut parts = Vec::new();
        for (index, corner) in corners.into_iter().enumerate() {
            let (links, ways) = open(index, workers, tuning, umem, punt, nics, &mut register)?;
            parts.push(all.parts(index, corner, links, ways, workers, publisher, tuning, &shared));
        }
        for (part, core) in parts.iter_mut().zip(cores) {
            part.core = Some(core);
        }
        for part in parts {
            let name = format!("trunkline-w{}", part.index);
            let run = move || Worker::new(part).run();
            all.threads.push(std::thread::Builder::new().name(name).spawn(run)?);
        }
        Ok(all)
    }

    #[allow(clippy::too_many_arguments)] // one worker is made of many parts, in one place
    fn parts(
        &mut self,
        index: usize,
        corner: Corner,
        links: Vec<Link>,
        nics: Vec<NicWay>,
        workers: usize,
        publisher: &Publisher,
        tuning: &Tuning,
        shared: &Shared,
    ) -> Parts {
        let (counters, gauges) = (Arc::new(Counters::default()), Arc::new(Gauges::default()));
        self.counters.push(Arc::clone(&counters));
        self.gauges.push(Arc::clone(&gauges));
        self.epochs.push(corner.epoch());
        Parts {
            index,
            workers,
            core: None,
            links,
            nics,
            corner,
            reader: publisher.reader(),
            counters,
            gauges,
            pool: self.umem.pool(),
            tuning: dataplane::Tuning {
                batch: tuning.batch,
                busy_poll: tuning.busy_poll,
                timeouts: timeouts(tuning),
            },
            shared: shared.clone(),
        }
    }

    /// Number of workers.
    pub(crate) fn len(&self) -> usize {
        self.threads.len()
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
    pub(crate) fn stop(self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads {
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
        let pool = self.umem.census();
        Frames {
            total: u64::from(pool.total),
            free: u64::from(pool.free) + self.gauge(|gauges| &gauges.free),
            fill: self.gauge(|gauges| &gauges.fill),
            rx: self.gauge(|gauges| &gauges.rx),
            tx: self.gauge(|gauges| &gauges.tx),
            completion: self.gauge(|gauges| &gauges.completion),
            in_flight: self.gauge(|gauges| &gauges.in_flight)
                + self.gauge(|gauges| &gauges.kernel)
                + u64::from(pool.lingering),
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

fn packet_memory(model: &Model, nics: &[NicQueues], workers: usize) -> Result<Umem> {
    let queues: u32 = nics.iter().map(|nic| nic.plan.rx()).sum();
    let workers = workers as u32;
    let each = socket_config(&model.tuning, false).frames();
    let frames = memory::frames(workers + queues, each, workers);
    let config = UmemConfig { chunk: memory::chunk(model), frames, huge_pages: false };
    Umem::new(&config).with_context(|| format!("cannot map packet memory for {frames} frames"))
}

/// Opens the sockets of one worker: its queue of the punt link, then its queues of every NIC.
fn open(
    index: usize,
    workers: usize,
    tuning: &Tuning,
    umem: Umem,
    punt: u32,
    nics: &[NicQueues],
    register: &mut impl FnMut(Option<usize>, u32, BorrowedFd<'_>) -> Result<()>,
) -> Result<(Vec<Link>, Vec<NicWay>)> {
    let ring = tuning.rings as usize;
    let config = SocketConfig { mode: Mode::Copy, ..socket_config(tuning, false) };
    let socket = Socket::open(umem, punt, index as u32, &config)?;
    register(None, index as u32, socket.as_fd())?;
    let mut links = vec![Link::punt(socket, ring)];
    let mut ways = Vec::new();
    for (at, nic) in nics.iter().enumerate() {
        let mut mine = None;
        for queue in nic.plan.deal(workers).into_iter().nth(index).unwrap_or_default() {
            let config = socket_config(tuning, nic.generic);
            let socket = Socket::open(umem, nic.ifindex, queue, &config)
                .with_context(|| format!("{} queue {queue}", nic.plan.interface()))?;
            register(Some(at), queue, socket.as_fd())?;
            tracing::info!(nic = nic.plan.interface(), queue, mode = ?socket.bound(), "AF_XDP");
            mine.get_or_insert(links.len());
            links.push(Link::nic(socket, nic.port, ring));
        }
        // Queue q is worker q's; one without a queue hands its frames to one that has.
        let with_queue = index % (nic.plan.rx().max(1) as usize);
        ways.push(mine.map_or(NicWay::Worker(with_queue), NicWay::Own));
    }
    Ok((links, ways))
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
