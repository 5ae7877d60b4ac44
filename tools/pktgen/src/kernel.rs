//! The kernel's own generator, the pktgen module, as another engine: it sends by the driver's
//! ordinary way, where the other one sends by the driver's XDP.
//!
//! Source: `Documentation/networking/pktgen.rst` of the kernel.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::sched_getcpu;

use crate::interface::Interface;
use crate::plan::{Mac, Packets, Protocol, Span};
use crate::send::{Sent, Until};

const DIRECTORY: &str = "/proc/net/pktgen";

/// Sends out of an interface of this thread's network namespace, from the generator's thread of
/// this core.
pub(crate) fn send(device: &str, packets: &Packets, until: Until) -> Result<Sent> {
    let interface = Interface::named(device)?;
    ensure!(
        Path::new(DIRECTORY).exists(),
        "this kernel has no generator here: modprobe pktgen, or --engine xdp"
    );
    let thread = format!("kpktgend_{}", sched_getcpu()?);
    let commands = commands(packets, interface.mac, until)?;
    tell(&thread, "rem_device_all")?;
    tell(&thread, &format!("add_device {device}"))?;
    let _cleared = Cleared(&thread);
    for command in &commands {
        tell(device, command)?;
    }
    let start = Instant::now();
    std::thread::scope(|scope| {
        // Whoever starts it waits for its end.
        let running = scope.spawn(|| tell("pgctrl", "start"));
        while !running.is_finished() && start.elapsed() < until.time {
            std::thread::sleep(Duration::from_millis(1));
        }
        if !running.is_finished() {
            tell("pgctrl", "stop")?;
        }
        running.join().map_err(|_| anyhow::anyhow!("the thread that started it panicked"))?
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let text = fs::read_to_string(format!("{DIRECTORY}/{device}"))?;
    let count = number_behind(&text, "pkts-sofar:").context("it does not say what it sent")?;
    let bytes = count * u64::from(packets.sizes()?[0]);
    Ok(Sent { packets: count, bytes, seconds, packets_per_second: count as f64 / seconds })
}

/// Takes the interface from the thread again.
struct Cleared<'t>(&'t str);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        let _ = tell(self.0, "rem_device_all");
    }
}

fn tell(file: &str, command: &str) -> Result<()> {
    // It takes the last character for the end of the line, whatever that is.
    fs::write(format!("{DIRECTORY}/{file}"), format!("{command}\n"))
        .with_context(|| format!("the kernel's generator does not take '{command}' for {file}"))
}

/// What it is told of the packets. It knows UDP, here without a checksum (it would leave that to the
/// device), and draws every packet's flow.
fn commands(packets: &Packets, own: Mac, until: Until) -> Result<Vec<String>> {
    if packets.protocol != Protocol::Udp || packets.stamps || packets.size == "imix" {
        bail!(
            "the kernel's generator sends UDP of one size, without stamps: --engine xdp has them"
        );
    }
    let mut all = vec![
        format!("pkt_size {}", packets.sizes()?[0]),
        format!("count {}", if until.packets == u64::MAX { 0 } else { until.packets }),
        "delay 0".to_owned(),
        "clone_skb 0".to_owned(),
        format!("dst_mac {}", packets.destination_mac),
        format!("src_mac {}", packets.source_mac.unwrap_or(own)),
    ];
    let ip = |number| std::net::Ipv4Addr::from(number).to_string();
    let port = |number: u32| number.to_string();
    all.extend(span("src", "IPSRC_RND", packets.source.0, ip));
    all.extend(span("dst", "IPDST_RND", packets.destination.0, ip));
    all.extend(span("udp_src", "UDPSRC_RND", packets.source_port.0, port));
    all.extend(span("udp_dst", "UDPDST_RND", packets.destination_port.0, port));
    all.extend(packets.vlan.map(|vlan| format!("vlan_id {vlan}")));
    all.extend(packets.rate.map(|rate| format!("ratep {rate}")));
    Ok(all)
}

/// A span in its words. What it is said to be the most it never draws.
fn span(name: &str, random: &str, span: Span, text: impl Fn(u32) -> String) -> Vec<String> {
    if span.first == span.last {
        return [("min", span.first), ("max", span.first)]
            .map(|(end, number)| format!("{name}_{end} {}", text(number)))
            .to_vec();
    }
    vec![
        format!("{name}_min {}", text(span.first)),
        format!("{name}_max {}", text(span.last.saturating_add(1))),
        format!("flag {random}"),
    ]
}

/// The number behind a word of the generator's report.
fn number_behind(text: &str, word: &str) -> Option<u64> {
    let mut words = text.split_whitespace().skip_while(|one| *one != word);
    words.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_tells_what_was_sent() {
        let report = "Params: count 1000  min_pkt_size: 60  max_pkt_size: 60\n\
                      Current:\n     pkts-sofar: 1000  errors: 0\n\
                      Result: OK: 1005(c995+d10) usec, 1000 (60byte,0frags)\n";
        assert_eq!(number_behind(report, "pkts-sofar:"), Some(1000));
        assert_eq!(number_behind("", "pkts-sofar:"), None);
    }
}
