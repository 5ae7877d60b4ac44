//! One worker's loop.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use af_xdp::Frame;
use arrayvec::ArrayVec;
use conntrack::{Cursor, FlowKey, Fragments, Table, Timeouts};
use crossbeam::channel::Sender;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use pipeline::{Asked, Counters, DropReason, Learner, Limiter, Notice, Packet, Pipeline, Verdict};
use tables::{PortId, Reader, Snapshot};

use crate::dispatch::refresh;
use crate::hold::{Hold, Wanted};
use crate::link::Source;
use crate::{Corner, Gauges, Link, NicWay, Pools, punt};

/// Largest batch; larger ones only evict from the cache what they are about to use.
pub(crate) const BATCH: usize = 32;
/// Sockets a sleeping worker can wait for.
const SOCKETS: usize = 64;
/// How long a worker sleeps at most: what needs time to pass (expiry) happens this often.
const NAP_MS: u16 = 100;
/// The same while frames wait for a neighbour, or for a fragment that another worker may get.
const HELD_NAP_MS: u16 = 2;
/// A whole sweep of the table takes about so long; of a smaller one as many lines a second are
/// looked at as of that for 250,000 connections, so that what has happened to them is known sooner.
const SWEEP_MS: u64 = 20_000;
const SWEEP_LEAST_MS: u64 = 1_000;
const SWEEP_LINES_A_MS: u64 = 52;
/// Lines swept in one turn: enough to be worth it, few enough that frames do not wait for it.
const SWEEP_LEAST: u64 = 64;
const SWEEP_MOST: u64 = 8192;

/// How a worker works.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Frames taken from a ring at a time, 1 to 32.
    pub batch: usize,
    /// How long to look for frames before falling asleep; costs a core, saves the waking.
    pub busy_poll: Duration,
    /// When connections are forgotten.
    pub timeouts: Timeouts,
}

/// What all workers and the control thread see.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The connections.
    pub flows: Arc<Table>,
    /// The datagrams that come in fragments.
    pub fragments: Arc<Fragments>,
    /// Where notices go; a full channel loses them, and a later packet tells again.
    pub notices: Sender<Notice>,
    /// Where DHCP requests go, likewise: their client asks again.
    pub asked: Sender<Asked>,
    /// Wakes the control thread; not blocking.
    pub wake: Arc<UnixDatagram>,
    /// Ends the workers.
    pub stop: Arc<AtomicBool>,
}

/// Everything one worker is made of.
#[derive(Debug)]
pub struct Parts {
    /// Its number, from 0.
    pub index: usize,
    /// How many there are.
    pub workers: usize,
    /// The core it is pinned to.
    pub core: Option<core_affinity::CoreId>,
    /// Its sockets; the first is its queue of the punt link.
    pub links: Vec<Link>,
    /// By NIC index: how it sends there.
    pub nics: Vec<NicWay>,
    /// Its corner of the mesh.
    pub corner: Corner,
    /// The tables.
    pub reader: Reader,
    /// Its counters.
    pub counters: Arc<Counters>,
    /// Where its frames are.
    pub gauges: Arc<Gauges>,
    /// Its caches of free frames.
    pub pools: Pools,
    /// How it works.
    pub tuning: Tuning,
    /// What it shares.
    pub shared: Shared,
}

/// One worker.
#[derive(Debug)]
pub struct Worker {
    reader: Reader,
    engine: Engine,
    core: Option<core_affinity::CoreId>,
}

/// What a turn of the loop works on.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) links: Vec<Link>,
    pub(crate) nics: Vec<NicWay>,
    pub(crate) corner: Corner,
    pub(crate) counters: Arc<Counters>,
    pub(crate) pools: Pools,
    gauges: Arc<Gauges>,
    learner: Learner,
    limiter: Limiter,
    pub(crate) hold: Hold<Wanted>,
    /// Fragments whose first has not come.
    pub(crate) late: Hold<FlowKey>,
    /// The datagrams of those of a batch, in their order.
    pub(crate) names: ArrayVec<FlowKey, BATCH>,
    pub(crate) now_ms: u64,
    pub(crate) frames: Vec<Frame>,
    tuning: Tuning,
    pub(crate) shared: Shared,
    sweep: Sweep,
    told_gauges: u64,
}

/// This worker's share of the table, and when it last walked on through it.
#[derive(Debug)]
struct Sweep {
    cursor: Cursor,
    share: u64,
    last_ms: u64,
}

/// A packet's end: its verdict, and where its frame now starts and how long it is.
type Outcome = (PortId, Verdict, usize, usize);

/// Milliseconds since boot, not counting suspended time (CLOCK_MONOTONIC): what the kernel's
/// programs read as well.
fn now_ms() -> u64 {
    // The clock always exists, and its seconds are never negative.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        time.tv_sec().unsigned_abs() * 1000 + time.tv_nsec().unsigned_abs() / 1_000_000
    })
}

/// Seconds since boot, as lines of the table remember them.
#[must_use]
pub fn now() -> u32 {
    (now_ms() / 1000) as u32
}

impl Worker {
    /// Puts a worker together. Its sockets have frames to receive into: from now on packets may be
    /// redirected to them, and wait for it to run.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let flows = &parts.shared.flows;
        let (index, workers) = (parts.index as u32, parts.workers.max(1) as u32);
        let sweep = Sweep {
            cursor: Cursor::new(flows, index, workers, now()),
            share: u64::from(flows.len() / workers),
            last_ms: now_ms(),
        };
        let mut engine = Engine {
            links: parts.links,
            nics: parts.nics,
            corner: parts.corner,
            counters: parts.counters,
            pools: parts.pools,
            gauges: parts.gauges,
            learner: Learner::default(),
            limiter: Limiter::default(),
            hold: Hold::for_neighbours(),
            late: Hold::for_fragments(),
            names: ArrayVec::new(),
            now_ms: now_ms(),
            frames: Vec::with_capacity(BATCH),
            tuning: parts.tuning,
            shared: parts.shared,
            sweep,
            told_gauges: 0,
        };
        engine.prime();
        Self { reader: parts.reader, engine, core: parts.core }
    }

    /// Its sockets, in the order of its links.
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.engine.links.iter().map(|link| link.socket.as_fd())
    }

    /// Works until told to stop.
    pub fn run(mut self) {
        if let Some(core) = self.core {
            core_affinity::set_for_current(core);
        }
        let mut idle_since = None;
        while !self.engine.shared.stop.load(Relaxed) {
            self.engine.corner.epoch.wake();
            let tables = self.reader.refresh();
            self.engine.corner.epoch.enter(tables.generation);
            let handled = self.engine.turn(tables, now_ms());
            if handled > 0 {
                idle_since = None;
                continue;
            }
            let patience = self.engine.tuning.busy_poll;
            let since = *idle_since.get_or_insert_with(Instant::now);
            if patience.is_zero() || since.elapsed() >= patience {
                self.engine.sleep();
            }
        }
        self.engine.corner.epoch.sleep();
        self.engine.close();
    }
}

impl Engine {
    /// Gives back every frame that is not in a ring: the sockets' memory is used on.
    fn close(&mut self) {
        while let Some(handed) = self.corner.take() {
            self.pools.give(handed.frame);
        }
        self.forget_old(u64::MAX);
        for link in &mut self.links {
            link.pieces.give_up(&mut self.pools);
            for frame in link.outbox.drain(..) {
                self.pools.give(frame);
            }
        }
    }

    /// Fills the receive rings.
    fn prime(&mut self) {
        for link in &mut self.links {
            link.refill(self.pools.small());
        }
    }

    /// One turn: a batch from every ring, out again, and a little housekeeping.
    fn turn(&mut self, tables: &Snapshot, now_ms: u64) -> usize {
        self.now_ms = now_ms;
        let mut handled = self.resume(tables);
        for at in 0..self.links.len() {
            handled += self.receive(at, tables);
        }
        handled += self.collect();
        for link in &mut self.links {
            link.flush(self.pools.small());
            link.refill(self.pools.small());
        }
        self.corner.wake();
        self.sweep(tables, now_ms);
        self.tell();
        if now_ms >= self.told_gauges + 1000 {
            self.told_gauges = now_ms;
            self.census();
        }
        if handled > 0 {
            Gauges::bump(&self.gauges.busy_loops);
        }
        handled
    }

    /// Takes a batch from a ring through the pipeline and sends every frame on its way.
    fn receive(&mut self, at: usize, tables: &Snapshot) -> usize {
        let Some(link) = self.links.get_mut(at) else { return 0 };
        let received = link.socket.receive(self.tuning.batch.min(BATCH), &mut self.frames);
        if received == 0 {
            return 0;
        }
        let source = link.source;
        link.pieces.join(&mut self.frames, &mut self.pools, |beginning| {
            let port = match source {
                Source::Nic(port) => port,
                Source::Punt => punt::named(beginning).unwrap_or(PortId::NONE),
            };
            self.counters.dropped(port, DropReason::NoMemory);
        });
        let mut frames = std::mem::take(&mut self.frames);
        self.handle(source, &mut frames, tables);
        self.frames = frames;
        received
    }

    /// Takes frames through the pipeline and sends every one on its way.
    pub(crate) fn handle(&mut self, source: Source, frames: &mut Vec<Frame>, tables: &Snapshot) {
        let outcomes = self.forward(source, frames, tables);
        for (mut frame, (ingress, verdict, head, len)) in frames.drain(..).zip(outcomes) {
            // The pipeline moved the frame within its chunk: the range is the chunk's.
            if frame.set_range(head, len) {
                self.dispatch(frame, ingress, verdict, tables);
            } else {
                self.pools.give(frame);
            }
        }
    }

    fn forward(
        &mut self,
        source: Source,
        frames: &mut [Frame],
        tables: &Snapshot,
    ) -> ArrayVec<Outcome, BATCH> {
        let mut packets: ArrayVec<Packet<'_>, BATCH> = ArrayVec::new();
        for frame in frames.iter_mut().take(BATCH) {
            let ingress = match source {
                Source::Nic(port) => port,
                Source::Punt => punt::ingress(frame).unwrap_or_else(|| {
                    Gauges::bump(&self.gauges.untagged);
                    PortId::NONE
                }),
            };
            let (head, len) = (frame.head(), frame.len());
            packets.push(Packet::new(frame.chunk_mut(), head, len, ingress));
        }
        self.names.clear();
        let mut pipeline = Pipeline {
            tables,
            flows: &self.shared.flows,
            fragments: &self.shared.fragments,
            now: (self.now_ms / 1000) as u32,
            now_ms: self.now_ms,
            counters: &self.counters,
            learner: &mut self.learner,
            limiter: &mut self.limiter,
        };
        pipeline.forward(&mut packets);
        let names = &mut self.names;
        packets
            .iter()
            .map(|packet| {
                let (head, len) = packet.range();
                let verdict = packet.verdict.expect("forward gives every packet its verdict");
                if verdict == Verdict::Wait {
                    names.push(packet.key);
                }
                (packet.ingress, verdict, head, len)
            })
            .collect()
    }

    /// Sends what other workers handed over.
    fn collect(&mut self) -> usize {
        let mut taken = 0;
        while taken < BATCH {
            let Some(handed) = self.corner.take() else { break };
            taken += 1;
            match self.nics.get(usize::from(handed.nic)) {
                Some(NicWay::Own(at)) => self.queue(*at, handed.frame),
                _ => self.pools.give(handed.frame),
            }
        }
        taken
    }

    /// Walks on through this worker's share of the table, as far as the time that passed asks.
    fn sweep(&mut self, tables: &Snapshot, now_ms: u64) {
        let whole = (self.sweep.share / SWEEP_LINES_A_MS).clamp(SWEEP_LEAST_MS, SWEEP_MS);
        let due = (now_ms - self.sweep.last_ms) * self.sweep.share / whole;
        if due < SWEEP_LEAST {
            return;
        }
        self.sweep.last_ms = now_ms;
        let (now, learner) = ((now_ms / 1000) as u32, &mut self.learner);
        let lines = due.min(SWEEP_MOST) as u32;
        let told = |event| refresh(learner, tables, &event, now);
        self.shared.flows.sweep(&mut self.sweep.cursor, lines, now, &self.tuning.timeouts, told);
    }

    /// Tells the control thread what it should know.
    fn tell(&mut self) {
        let mut told = false;
        for notice in self.learner.notices() {
            told |= self.shared.notices.try_send(notice).is_ok();
        }
        for request in self.learner.asked() {
            told |= self.shared.asked.try_send(request).is_ok();
        }
        if told {
            // Does not block; fails only when it is full, and then the other end is awake anyway.
            let _ = self.shared.wake.send(&[1]);
        }
    }

    fn census(&self) {
        let mut sum = [0; 5];
        for link in &self.links {
            let census = link.socket.census();
            let places = [census.fill, census.rx, census.tx, census.completion, census.in_kernel];
            for (total, here) in sum.iter_mut().zip(places) {
                *total += here as usize;
            }
        }
        let waiting = |link: &Link| link.outbox.len() + link.pieces.len();
        let links: usize = self.links.iter().map(waiting).sum();
        let errors: u64 = self.links.iter().map(|link| link.errors).sum();
        self.gauges.errors.store(errors, Relaxed);
        // What finds no frame is among rx_dropped already.
        let lost = self.links.iter().filter_map(|link| link.socket.statistics().ok());
        let lost = lost.map(|socket| socket.rx_dropped + socket.rx_ring_full).sum();
        self.gauges.rx_full.store(lost, Relaxed);
        Gauges::set(&self.gauges.free, self.pools.len());
        Gauges::set(&self.gauges.fill, sum[0]);
        Gauges::set(&self.gauges.rx, sum[1]);
        Gauges::set(&self.gauges.tx, sum[2]);
        Gauges::set(&self.gauges.completion, sum[3]);
        Gauges::set(&self.gauges.kernel, sum[4]);
        let held = self.hold.len() + self.late.len();
        Gauges::set(&self.gauges.in_flight, links + self.corner.waiting() + held);
    }

    /// Waits for a frame, a handed-over frame or the next nap's end.
    fn sleep(&mut self) {
        let stuck = self.links.iter().any(|link| !link.outbox.is_empty());
        self.corner.epoch.sleep();
        if self.corner.waiting() > 0 {
            return;
        }
        let mut fds: ArrayVec<PollFd<'_>, SOCKETS> = ArrayVec::new();
        fds.push(PollFd::new(self.corner.own.as_fd(), PollFlags::POLLIN));
        for link in self.links.iter().take(SOCKETS - 1) {
            fds.push(PollFd::new(link.socket.as_fd(), PollFlags::POLLIN));
        }
        // A full transmit ring empties without an event of ours, and a neighbour becomes known
        // without one: look again soon.
        let timeout = match (stuck, self.hold.len() + self.late.len()) {
            (true, _) => 1,
            (false, 1..) => HELD_NAP_MS,
            (false, 0) => NAP_MS,
        };
        // EINTR is as good a reason to look around as any.
        let _ = poll(&mut fds, PollTimeout::from(timeout));
        self.corner.hush();
    }
}
