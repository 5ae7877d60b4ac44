//! The generator: a program over live frames.

use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{MapCore as _, MapFlags, ProgramInput};
use serde::Serialize;
use zerocopy::{FromBytes, IntoBytes as _};

use crate::interface::Interface;
use crate::kernel;
use crate::plan::{Engine, Packets};
use crate::skeletons::SendSkelBuilder;

/// `BPF_F_TEST_XDP_LIVE_FRAMES` of linux/bpf.h.
const LIVE_FRAMES: u32 = 2;
/// Setting up a run takes up to 25 ms, in which nothing is sent: there are to be two. The first is
/// to tell how many frames the other is to have.
const FIRST: u64 = 20_000;
const LONG: Duration = Duration::from_secs(10);
/// Frames of one run, at most, when most are dropped to keep a rate.
const PACED: u32 = 4_000_000;

/// What was sent.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Sent {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) packets_per_second: f64,
}

/// How long to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Until {
    pub(crate) packets: u64,
    pub(crate) time: Duration,
}

/// `struct progress` of the program.
#[derive(FromBytes)]
#[repr(C)]
struct Progress {
    sent: u64,
    bytes: u64,
    _rest: [u64; 4],
}

/// Sends out of an interface of this thread's network namespace.
pub(crate) fn send(device: &str, packets: &Packets, until: Until) -> Result<Sent> {
    if packets.engine == Engine::Kernel {
        return kernel::send(device, packets, until);
    }
    let interface = Interface::named(device)?;
    let plan = packets.plan(interface.mac, until.packets)?;
    let mut place = MaybeUninit::uninit();
    let mut open = SendSkelBuilder::default().open(&mut place)?;
    for mut map in open.open_object_mut().maps_mut() {
        if map.name().to_string_lossy().ends_with(".rodata")
            && let Some(memory) = map.initial_value_mut()
        {
            memory[..size_of_val(&plan)].copy_from_slice(plan.as_bytes());
        }
    }
    let loaded = open.load().context("the kernel does not take the generator")?;
    let tag = if packets.vlan.is_some() { 4 } else { 0 };
    let longest = packets.sizes()?.into_iter().max().unwrap_or(60) + tag;
    let frame = vec![0; longest as usize];
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context = [0, longest, 0, interface.index, 0, 0];

    let start = Instant::now();
    let mut done = (0, 0);
    let mut next = FIRST.min(until.packets);
    while start.elapsed() < until.time && done.0 < until.packets {
        let mut context = context;
        let input = ProgramInput {
            context_in: Some(context.as_mut_bytes()),
            data_in: Some(&frame),
            flags: LIVE_FRAMES,
            // With a rate most frames are dropped until one is due.
            repeat: if packets.rate.is_some() { PACED } else { next as u32 },
            ..ProgramInput::default()
        };
        let run = loaded.progs.send.test_run(input).with_context(|| {
            format!("cannot send out of {device}: is it up, and has it XDP in its driver?")
        })?;
        let value = loaded.maps.progress.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)?;
        let progress = value.and_then(|bytes| Progress::read_from_bytes(&bytes).ok());
        let now = progress.map_or((0, 0), |progress| (progress.sent, progress.bytes));
        anyhow::ensure!(now.0 > done.0 || packets.rate.is_some(), "no packet could be written");
        let time = until.time.saturating_sub(start.elapsed()).min(LONG);
        let fit = time.as_nanos() / run.duration.as_nanos().max(1);
        next = (fit as u64).max(FIRST).min(until.packets - now.0);
        done = now;
    }
    let seconds = start.elapsed().as_secs_f64();
    let packets_per_second = done.0 as f64 / seconds;
    Ok(Sent { packets: done.0, bytes: done.1, seconds, packets_per_second })
}
