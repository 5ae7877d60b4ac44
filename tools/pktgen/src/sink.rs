//! The receiver: counts, checks, and measures how long packets were on their way.

use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use libbpf_rs::MapFlags;
use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use serde::Serialize;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::interface::Interface;
use crate::plan::{Addresses, Ports, Protocol, Span};
use crate::skeletons::{SinkSkel, SinkSkelBuilder};
use crate::tc::Attached;

const BUCKETS: usize = 512;
/// linux/bpf.h
const BPF_F_XDP_DEV_BOUND_ONLY: u32 = 1 << 6;

/// What is expected.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Expected {
    /// Its VLAN; none if not said
    #[arg(long)]
    pub(crate) expect_vlan: Option<u16>,
    /// Source addresses [default: any]
    #[arg(long)]
    pub(crate) expect_source: Option<Addresses>,
    /// Destination addresses [default: any]
    #[arg(long)]
    pub(crate) expect_destination: Option<Addresses>,
    /// Source ports [default: any]
    #[arg(long)]
    pub(crate) expect_source_port: Option<Ports>,
    /// Destination ports [default: any]
    #[arg(long)]
    pub(crate) expect_destination_port: Option<Ports>,
    /// Protocol [default: any]
    #[arg(long, value_enum)]
    pub(crate) expect_protocol: Option<Protocol>,
    /// Check the checksums of every Nth packet; 0 of none
    #[arg(long, default_value = "0")]
    pub(crate) verify_every: u32,
    /// Drop what is not expected, too; otherwise it goes on to the stack
    #[arg(long)]
    pub(crate) drop_others: bool,
}

/// `struct expected` of `bpf/sink.bpf.c`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Wanted {
    vlan: u16,
    protocol: u8,
    drops_others: u8,
    verify_every: u32,
    bounds: [[u32; 2]; 4],
}

impl Expected {
    fn wanted(&self) -> Wanted {
        let addresses = |all: Option<Addresses>| all.map_or([0, u32::MAX], |all| pair(all.0));
        let ports = |all: Option<Ports>| all.map_or([0, u32::MAX], |all| pair(all.0));
        Wanted {
            vlan: self.expect_vlan.unwrap_or(0),
            protocol: self.expect_protocol.map_or(0, Protocol::number),
            drops_others: self.drop_others.into(),
            verify_every: self.verify_every,
            bounds: [
                addresses(self.expect_source),
                addresses(self.expect_destination),
                ports(self.expect_source_port),
                ports(self.expect_destination_port),
            ],
        }
    }
}

fn pair(span: Span) -> [u32; 2] {
    [span.first, span.last]
}

/// `struct tally` of the program, of one processor.
#[derive(FromBytes)]
#[repr(C)]
struct Tally {
    packets: u64,
    bytes: u64,
    first: u64,
    last: u64,
    timed: u64,
    reordered: u64,
    highest: u64,
    wrong_vlan: u64,
    wrong_address: u64,
    verified: u64,
    wrong_checksum: u64,
    others: u64,
    latencies: [u64; BUCKETS],
}

/// Times on the way, nanoseconds, to an eighth of their power of two.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
}

/// What came.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Received {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// From the first packet to the last whose time was taken.
    pub(crate) seconds: f64,
    pub(crate) packets_per_second: f64,
    /// By the numbers in the packets: those that came before a higher one of the same processor.
    pub(crate) reordered: u64,
    /// The highest number, and one: how many were sent at least.
    pub(crate) highest: u64,
    pub(crate) wrong_vlan: u64,
    pub(crate) wrong_address: u64,
    pub(crate) verified: u64,
    pub(crate) wrong_checksum: u64,
    pub(crate) others: u64,
    pub(crate) latency: Latency,
}

/// Counts on an interface of this thread's network namespace until `is_over` says so, which is
/// asked every 20 ms and told how many packets there were. `ready` is called once it counts.
pub(crate) fn sink(
    device: &str,
    expected: &Expected,
    ready: impl FnOnce(),
    mut is_over: impl FnMut(u64) -> bool,
) -> Result<Received> {
    let interface = Interface::named(device)?;
    let [mut place, mut other] = [MaybeUninit::uninit(), MaybeUninit::uninit()];
    // Where the driver tells of tags beside frames; elsewhere they are in them, or seen by tc alone.
    let beside = match expected.expect_vlan {
        Some(_) => load(expected, Some(interface.index), &mut place).ok(),
        None => None,
    };
    let sees_beside = beside.is_some();
    let loaded = match beside {
        Some(loaded) => loaded,
        None => load(expected, None, &mut other).context("the kernel does not take the sink")?,
    };
    let programs = &loaded.progs;
    let program = if sees_beside { &programs.sink_beside } else { &programs.sink };
    let _link = program.attach_xdp(interface.index.cast_signed()).with_context(|| {
        format!(
            "cannot attach to {device}: is another XDP program there (ip -d link show {device})?"
        )
    })?;
    // Behind the one at XDP: what another host on this very machine puts straight into the stack
    // does not meet XDP.
    let _second = Attached::to(loaded.progs.sink_tc.as_fd(), interface.index)?;
    ready();
    loop {
        std::thread::sleep(Duration::from_millis(20));
        let tallies = tallies(&loaded.maps.tallies)?;
        if is_over(tallies.iter().map(|tally| tally.packets).sum()) {
            return Ok(received(&tallies));
        }
    }
}

/// Loads the programs; `bound` to an interface, the one that asks its driver for tags.
fn load<'obj>(
    expected: &Expected,
    bound: Option<u32>,
    place: &'obj mut MaybeUninit<libbpf_rs::OpenObject>,
) -> Result<SinkSkel<'obj>> {
    let wanted = expected.wanted();
    let mut open = SinkSkelBuilder::default().open(place)?;
    for mut map in open.open_object_mut().maps_mut() {
        if map.name().to_string_lossy().ends_with(".rodata")
            && let Some(memory) = map.initial_value_mut()
        {
            memory[..size_of_val(&wanted)].copy_from_slice(wanted.as_bytes());
        }
    }
    open.progs.sink.set_autoload(bound.is_none());
    open.progs.sink_beside.set_autoload(bound.is_some());
    if let Some(index) = bound {
        open.progs.sink_beside.set_ifindex(index);
        open.progs.sink_beside.set_flags(BPF_F_XDP_DEV_BOUND_ONLY);
    }
    Ok(open.load()?)
}

/// Ends after a time, or once so many packets came.
pub(crate) fn until(time: Duration, packets: Option<u64>) -> impl FnMut(u64) -> bool {
    let start = Instant::now();
    move |count| start.elapsed() >= time || packets.is_some_and(|packets| count >= packets)
}

fn tallies(map: &impl libbpf_rs::MapCore) -> Result<Vec<Tally>> {
    let rows = map.lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY)?.unwrap_or_default();
    Ok(rows.iter().filter_map(|row| Tally::read_from_bytes(row).ok()).collect())
}

fn received(tallies: &[Tally]) -> Received {
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    let seen = || tallies.iter().filter(|tally| tally.packets > 0);
    let first = seen().map(|tally| tally.first).min().unwrap_or(0);
    let last = seen().map(|tally| tally.last).max().unwrap_or(0);
    let (packets, seconds) = (sum(|tally| tally.packets), (last - first) as f64 / 1e9);
    // Each processor's first packet is before its time begins.
    let timed = sum(|tally| tally.timed.saturating_sub(1));
    let rate = if seconds > 0.0 { timed as f64 / seconds } else { 0.0 };
    let mut latencies = [0; BUCKETS];
    for tally in tallies {
        for (all, one) in latencies.iter_mut().zip(tally.latencies) {
            *all += one;
        }
    }
    Received {
        packets,
        bytes: sum(|tally| tally.bytes),
        seconds,
        packets_per_second: rate,
        reordered: sum(|tally| tally.reordered),
        highest: tallies.iter().map(|tally| tally.highest).max().unwrap_or(0),
        wrong_vlan: sum(|tally| tally.wrong_vlan),
        wrong_address: sum(|tally| tally.wrong_address),
        verified: sum(|tally| tally.verified),
        wrong_checksum: sum(|tally| tally.wrong_checksum),
        others: sum(|tally| tally.others),
        latency: latency(&latencies),
    }
}

fn latency(buckets: &[u64]) -> Latency {
    let total: u64 = buckets.iter().sum();
    let at = |share: f64| {
        let wanted = (total as f64 * share).ceil().max(1.0) as u64;
        let mut passed = 0;
        let found = buckets.iter().position(|count| {
            passed += count;
            passed >= wanted
        });
        found.map_or(0, end_of)
    };
    Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1.0) }
}

/// The longest time of a bucket: as `bucket_of` in the program, the other way.
fn end_of(bucket: usize) -> u64 {
    if bucket < 8 {
        return bucket as u64;
    }
    let (power, eighth) = (bucket / 8 + 2, bucket as u64 % 8);
    ((8 + eighth + 1) << (power - 3)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_where_the_next_begins() {
        // What bucket_of of the program makes of a time.
        let bucket = |time: u64| {
            if time < 8 {
                return time as usize;
            }
            let power = u64::BITS - 1 - time.leading_zeros();
            ((power as usize - 2) << 3) | (time >> (power - 3) & 7) as usize
        };
        for time in [0, 7, 8, 9, 15, 16, 1000, 123_456, 1 << 40] {
            let end = end_of(bucket(time));
            assert!(end >= time && end - time <= time / 8, "{time} {end}");
            assert_eq!(bucket(end) + 1, bucket(end + 1));
        }
    }

    #[test]
    fn shares_of_a_thousand_are_found_in_their_buckets() {
        let mut buckets = vec![0; BUCKETS];
        (buckets[20], buckets[40], buckets[60]) = (900, 99, 1);
        let latency = latency(&buckets);
        assert_eq!((latency.p50, latency.p90, latency.p99), (end_of(20), end_of(20), end_of(40)));
        assert_eq!((latency.p999, latency.max), (end_of(40), end_of(60)));
    }
}
