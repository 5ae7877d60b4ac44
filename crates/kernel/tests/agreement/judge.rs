//! Whether they did the same, and of what there was how much.

use std::collections::BTreeMap;
use std::fmt;

use conntrack::Flow;
use conntrack::layout::{BULK, PROTOCOL_OURS};
use proptest::prelude::TestCaseError;
use proptest::prop_assert_eq;
use wire::{Headers, Network, Transport};

use crate::case::{Carried, Case, Spoil};
use crate::executors::{Done, Ran};
use crate::frame::Six;

/// Why the kernel leaves a packet to the workers though its line may be replayed.
pub fn left(case: &Case, headers: &Headers) -> Option<&'static str> {
    if matches!(case.tag(), Some((0x88a8, _))) {
        return Some("an 802.1ad tag");
    }
    if case.untagged().len() < 18 {
        return Some("hardly a frame");
    }
    match headers.network {
        Network::Arp(_) => Some("ARP"),
        Network::Ipv4(ip) if ip.header_len > 20 => Some("IP options"),
        Network::Ipv4(ip) if ip.fragment => Some("a fragment"),
        Network::Ipv4(ip) if ip.protocol >= PROTOCOL_OURS => Some("a protocol of ours"),
        Network::Ipv4(ip) => match ip.transport {
            Transport::Tcp { flags, .. } if flags & 2 != 0 => Some("a SYN"),
            Transport::None if ip.protocol == 1 => Some("ICMP but for echo"),
            _ => None,
        },
        Network::Ipv6(ip) => match ip.transport {
            Transport::Tcp { flags, .. } if flags & 2 != 0 => Some("a SYN"),
            Transport::None if ip.protocol == 58 => Some("ICMPv6 but for echo"),
            // Hop-by-hop, routing, fragment, authentication, none, destination, mobility …
            Transport::None if [0, 1, 43, 44, 51, 59, 60, 135, 139, 140].contains(&ip.protocol) => {
                Some("an extension header")
            }
            _ => None,
        },
        Network::Other => None,
    }
}

/// What a test run gives XDP in one piece: a page without room before and behind.
const ONE_PIECE: usize = 4096 - 256 - 320;
/// What it gives tc at all.
pub const PAGE: usize = 3400;
/// A TCP segment of so many bytes is one of many.
const BULK_BYTES: usize = 1200;

/// Whether XDP leaves it, and what comes after it, to tc.
fn is_bulk(case: &Case) -> bool {
    let tcp = match &case.carried {
        Carried::Ipv4(ip) => ip.protocol() == 6,
        Carried::Ipv6(ip) => matches!(ip.carries, Six::Tcp(_)),
        Carried::Other(..) => false,
    };
    let length = case.frame().len();
    length > ONE_PIECE || tcp && case.untagged().len() - 14 >= BULK_BYTES
}

/// The kernel's executors must do what the workers' did, but for what they leave.
pub fn compare(case: &Case, ran: &Ran, tally: &mut Tally) -> Result<(), TestCaseError> {
    let left = ran.headers.as_ref().and_then(|headers| left(case, headers));
    let expected = if left.is_some() { None } else { ran.rust.out.clone() };
    let (bulk, length) = (is_bulk(case), case.frame().len());
    if bulk {
        prop_assert_eq!(&ran.xdp.out, &None, "xdp of {:?}", ran.verdict);
        let marked = ran.xdp.line.map(|line| line.bits() & BULK != 0);
        prop_assert_eq!(marked.unwrap_or(false), expected.is_some(), "the line after xdp");
    }
    let who = [("xdp", &ran.xdp, !bulk), ("tc", &ran.tc, length <= PAGE)];
    for (who, done, _) in who.into_iter().filter(|(.., ran)| *ran) {
        prop_assert_eq!(&done.out, &expected, "{} of {:?}", who, ran.verdict);
        // What was not replayed leaves no trace; a line that only the workers replay, theirs.
        if expected.is_some() || ran.rust.out.is_none() && ran.verdict.is_none() {
            same_line(who, &ran.rust, done)?;
        }
    }
    tally.count(case, expected.is_some(), bulk);
    Ok(())
}

fn same_line(who: &str, rust: &Done, theirs: &Done) -> Result<(), TestCaseError> {
    let (Some(one), Some(two)) = (rust.line, theirs.line) else { return Ok(()) };
    // The clock may have ticked between them.
    let ticked = one.last_seen().abs_diff(two.last_seen()) <= 1;
    let rest = |flow: &Flow| {
        let place = (flow.index(), flow.key(), flow.partner());
        (place, flow.rewrite(), flow.stamp(), flow.bits())
    };
    prop_assert_eq!((rest(&one), true), (rest(&two), ticked), "the line after {}", who);
    Ok(())
}

/// How many cases of each kind there were.
#[derive(Debug, Default)]
pub struct Tally {
    replayed: BTreeMap<String, u64>,
    refused: BTreeMap<String, u64>,
    hits: u64,
}

impl Tally {
    pub fn hits(&self) -> u64 {
        self.hits
    }

    fn count(&mut self, case: &Case, replayed: bool, bulk: bool) {
        if replayed && bulk {
            let long = case.frame().len() > ONE_PIECE;
            let what = if long { "left to tc: in pieces" } else { "left to tc: bulk TCP" };
            *self.replayed.entry(what.into()).or_default() += 1;
        }
        if replayed {
            self.hits += 1;
            for what in [protocol(case), tags(case)].into_iter().chain(rewrites(case)) {
                *self.replayed.entry(what).or_default() += 1;
            }
        } else {
            *self.refused.entry(spoil(case.spoil)).or_default() += 1;
        }
    }

    /// What there must be enough of. What is cut or flipped may be refused or not, and nobody
    /// promises that nothing else is.
    pub fn wanted(&self) -> impl Iterator<Item = (&str, u64)> {
        let sometimes = ["Nothing", "Cut", "Flip"];
        let refused =
            self.refused.iter().filter(move |(what, _)| !sometimes.contains(&what.as_str()));
        self.replayed.iter().chain(refused).map(|(what, count)| (what.as_str(), *count))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "replayed {}", self.hits)?;
        for (what, count) in &self.replayed {
            writeln!(out, "  {what:<44} {count:>7}")?;
        }
        writeln!(out, "left to the workers {}", self.refused.values().sum::<u64>())?;
        for (what, count) in &self.refused {
            writeln!(out, "  {what:<44} {count:>7}")?;
        }
        Ok(())
    }
}

fn protocol(case: &Case) -> String {
    match &case.carried {
        Carried::Ipv4(ip) => format!("protocol {}", ip.protocol()),
        Carried::Ipv6(ip) => match ip.carries {
            Six::Tcp(_) => "IPv6, TCP".into(),
            Six::Udp(_) => "IPv6, UDP".into(),
            Six::Echo { .. } => "IPv6, echo".into(),
            _ => "IPv6, without ports".into(),
        },
        Carried::Other(..) => "protocol of another ethertype".into(),
    }
}

fn tags(case: &Case) -> String {
    let came = match case.tag() {
        None => "none",
        Some((_, 0)) => "priority",
        Some(_) => "a VLAN",
    };
    let leaves = match (case.way.1, case.tag()) {
        (0, _) => "none",
        (vlan, Some((_, same))) if vlan == same => "the same",
        _ => "a VLAN",
    };
    format!("tag: came with {came}, leaves with {leaves}")
}

fn rewrites(case: &Case) -> Vec<String> {
    let ipv4 = matches!(case.carried, Carried::Ipv4(_));
    let (source, sport, destination, dport) = if ipv4 { case.nat } else { Default::default() };
    let way = match (case.is_routed(), case.hop) {
        (false, _) => "bridged",
        (true, None) => "routed",
        (true, Some(_)) => "routed by a next hop",
    };
    let parts = [
        (source != [0; 4], "source"),
        (sport != 0, "source port"),
        (destination != [0; 4], "destination"),
        (dport != 0, "destination port"),
    ];
    let new = parts.into_iter().filter(|(is_new, _)| *is_new);
    let mut all = vec![way.to_owned()];
    all.extend(new.map(|(_, part)| format!("{way}, new {part}")));
    all
}

fn spoil(spoil: Spoil) -> String {
    match spoil {
        Spoil::Cut(_) => "Cut".into(),
        Spoil::Flip(..) => "Flip".into(),
        other => format!("{other:?}"),
    }
}
