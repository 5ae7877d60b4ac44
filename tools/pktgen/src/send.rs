//! The generator: a program over live frames.

use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{MapCore as _, MapFlags, ProgramInput};
use serde::Serialize;
use zerocopy::{FromBytes, IntoBytes as _};

use crate::interface::Interface;
use crate::plan::Packets;
use crate::skeletons::SendSkelBuilder;

/// `BPF_F_TEST_XDP_LIVE_FRAMES` of linux/bpf.h.
const LIVE_FRAMES: u32 = 2;
/// Frames in one run: setting one up takes about 25 ms.
const AT_ONCE: u32 = 200_000;

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
    while start.elapsed() < until.time && done.0 < until.packets {
        let mut context = context;
        let left = until.packets.saturating_sub(done.0).min(AT_ONCE.into());
        let input = ProgramInput {
            context_in: Some(context.as_mut_bytes()),
            data_in: Some(&frame),
            flags: LIVE_FRAMES,
            // With a rate most frames are dropped until one is due.
            repeat: if packets.rate.is_some() { 20 * AT_ONCE } else { left as u32 },
            ..ProgramInput::default()
        };
        loaded.progs.send.test_run(input).with_context(|| {
            format!("cannot send out of {device}: is it up, and has it XDP in its driver?")
        })?;
        let value = loaded.maps.progress.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)?;
        let progress = value.and_then(|bytes| Progress::read_from_bytes(&bytes).ok());
        let now = progress.map_or((0, 0), |progress| (progress.sent, progress.bytes));
        anyhow::ensure!(now.0 > done.0 || packets.rate.is_some(), "no packet could be written");
        done = now;
    }
    let seconds = start.elapsed().as_secs_f64();
    let packets_per_second = done.0 as f64 / seconds;
    Ok(Sent { packets: done.0, bytes: done.1, seconds, packets_per_second })
}
