//! pktgen: sends packets by the million, counts what arrives, checks it, and says how long it was
//! on its way.
//!
//! For benchmarks of this project, and for an operator who wants to know what a NIC of a test host
//! carries: see docs/pktgen.md.

mod bridge;
mod cores;
mod interface;
mod kernel;
mod plan;
mod send;
mod sink;
mod skeletons;
mod tc;

use std::fs::File;
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};
use nix::sched::{CloneFlags, setns};
use serde::Serialize;

use cores::Watch;
use plan::Packets;
use send::{Sent, Until};
use sink::{Expected, Received};

/// Send, count and check packets.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Send out of an interface
    Send {
        /// The interface
        #[arg(long)]
        dev: String,
        #[command(flatten)]
        much: Much,
        #[command(flatten)]
        packets: Packets,
    },
    /// Count what arrives at an interface
    Sink {
        /// The interface
        #[arg(long)]
        dev: String,
        /// How long
        #[arg(long)]
        seconds: f64,
        /// Or until so many came
        #[arg(long)]
        count: Option<u64>,
        #[command(flatten)]
        expected: Expected,
    },
    /// Send here and count there
    Run {
        /// The interface to send out of
        #[arg(long)]
        dev: String,
        /// Its network namespace, as `ip netns` names it
        #[arg(long)]
        netns: Option<String>,
        /// The interface to count at
        #[arg(long)]
        sink_dev: String,
        /// Its network namespace
        #[arg(long)]
        sink_netns: Option<String>,
        /// Send so long before it counts, so that connections are open
        #[arg(long, default_value = "0")]
        warm_up: f64,
        /// The core that sends
        #[arg(long)]
        core: Option<usize>,
        #[command(flatten)]
        much: Much,
        #[command(flatten)]
        packets: Packets,
        #[command(flatten)]
        expected: Expected,
    },
    /// Redirect every frame between two interfaces, unread
    Bridge {
        /// Two interfaces
        #[arg(long, num_args = 2)]
        dev: Vec<String>,
        /// Where
        #[arg(long, value_enum, default_value = "xdp")]
        hook: bridge::Hook,
        /// How long
        #[arg(long)]
        seconds: f64,
    },
}

/// Every load has an end.
#[derive(Clone, Copy, Debug, Args)]
#[group(required = true, multiple = true)]
struct Much {
    /// How long
    #[arg(long)]
    seconds: Option<f64>,
    /// How many packets
    #[arg(long)]
    count: Option<u64>,
}

impl Much {
    fn until(self) -> Until {
        let time = self.seconds.map_or(Duration::MAX, Duration::from_secs_f64);
        Until { packets: self.count.unwrap_or(u64::MAX), time }
    }
}

#[derive(Debug, Serialize)]
struct Outcome {
    sent: Sent,
    received: Received,
    lost: u64,
    /// The share of its time that each core was busy while packets were sent, with anything.
    cores: Vec<f64>,
}

fn main() -> ExitCode {
    match run(Cli::parse().what) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pktgen: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(what: What) -> Result<()> {
    match what {
        What::Send { dev, much, packets } => print(&send::send(&dev, &packets, much.until())?),
        What::Sink { dev, seconds, count, expected } => {
            let time = Duration::from_secs_f64(seconds);
            print(&sink::sink(&dev, &expected, || {}, sink::until(time, count))?)
        }
        What::Run { dev, netns, sink_dev, sink_netns, warm_up, core, much, packets, expected } => {
            let (from, to) = ((dev, netns), (sink_dev, sink_netns));
            let warm_up = Duration::from_secs_f64(warm_up);
            print(&both(&from, &to, warm_up, core, much.until(), &packets, &expected)?)
        }
        What::Bridge { dev, hook, seconds } => match &dev[..] {
            [one, two] => bridge::bridge([one, two], hook, Duration::from_secs_f64(seconds)),
            _ => bail!("--dev wants two interfaces"),
        },
    }
}

fn print(what: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(what)?);
    Ok(())
}

type Place = (String, Option<String>);

/// Sends in one thread and counts in another, each in its namespace.
fn both(
    from: &Place,
    to: &Place,
    warm_up: Duration,
    core: Option<usize>,
    until: Until,
    packets: &Packets,
    expected: &Expected,
) -> Result<Outcome> {
    let (start, is_sent, counts) =
        (Barrier::new(2), AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let ready = (|| -> Result<()> {
                enter(from.1.as_deref())?;
                if let Some(core) = core {
                    core_affinity::set_for_current(core_affinity::CoreId { id: core });
                }
                if !warm_up.is_zero() {
                    let until = Until { packets: u64::MAX, time: warm_up };
                    send::send(&from.0, packets, until)?;
                }
                Ok(())
            })();
            // Also where it failed: the other one waits.
            start.wait();
            let sent = ready.and_then(|()| {
                ensure!(counts.load(Ordering::Acquire), "nobody counts");
                let cores = Watch::start()?;
                Ok((send::send(&from.0, packets, until)?, cores.stop()?))
            });
            is_sent.store(true, Ordering::Release);
            sent
        });
        enter(to.1.as_deref())?;
        let received = sink::sink(
            &to.0,
            expected,
            || {
                counts.store(true, Ordering::Release);
                start.wait();
            },
            settled(&is_sent),
        );
        if !counts.load(Ordering::Acquire) {
            start.wait();
        }
        let sent = sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?;
        let received = received?;
        let (sent, cores) = sent?;
        let lost = sent.packets.saturating_sub(received.packets);
        Ok(Outcome { sent, received, lost, cores })
    })
}

/// Over when all is sent and nothing has come for a while.
fn settled(is_sent: &AtomicBool) -> impl FnMut(u64) -> bool {
    let (mut last, mut since) = (0, Instant::now());
    move |count| {
        if count != last || !is_sent.load(Ordering::Acquire) {
            (last, since) = (count, Instant::now());
        }
        since.elapsed() > Duration::from_millis(200)
    }
}

fn enter(netns: Option<&str>) -> Result<()> {
    let Some(name) = netns else { return Ok(()) };
    let path = format!("/run/netns/{name}");
    let file =
        File::open(&path).with_context(|| format!("there is no network namespace {name}"))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {name}"))
}
