//! What is to be sent, from words to what the program is told.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use zerocopy::{Immutable, IntoBytes};

/// Frame sizes of the usual Internet mix, 7 : 4 : 1, without tag and check sequence.
pub(crate) const IMIX: [u32; 12] = [60, 590, 60, 60, 590, 60, 1514, 60, 590, 60, 60, 590];
const SIZES: usize = 16;

/// Numbers from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: u32,
    pub(crate) last: u32,
}

impl Span {
    fn count(self) -> u32 {
        (self.last - self.first).saturating_add(1)
    }

    fn of(text: &str, number: impl Fn(&str) -> Option<u32>) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (number(first.trim()), number(last.trim())) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(format!("'{text}' is neither one nor FIRST-LAST")),
        }
    }
}

/// Addresses, written `10.0.0.1`, `10.0.0.1-10.0.0.9` or `10.0.0.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addresses(pub(crate) Span);

impl FromStr for Addresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = |text: &str| text.parse::<Ipv4Addr>().ok().map(u32::from);
        let Some((net, length)) = text.split_once('/') else {
            return Span::of(text, address).map(Self);
        };
        let length: Option<u32> = length.parse().ok().filter(|length| *length <= 32);
        let (Some(net), Some(length)) = (address(net), length) else {
            return Err(format!("'{text}' is no prefix"));
        };
        let behind = u32::MAX.checked_shr(length).unwrap_or(0);
        Ok(Self(Span { first: net & !behind, last: net | behind }))
    }
}

/// Ports, written `53` or `1024-2047`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports(pub(crate) Span);

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Span::of(text, |text| text.parse::<u16>().ok().map(u32::from)).map(Self)
    }
}

/// A MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes: Option<Vec<u8>> =
            text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| format!("'{text}' is no MAC address like 02:00:00:00:00:01"))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.map(|byte| format!("{byte:02x}")).join(":"))
    }
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Engine {
    /// A program of ours, by the driver's XDP.
    Xdp,
    /// The kernel's pktgen module, by the driver's ordinary way.
    Kernel,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Protocol {
    /// UDP datagrams.
    Udp,
    /// TCP segments of connections that nobody opened (ACK).
    Tcp,
    /// TCP segments that open a connection (SYN).
    Syn,
    /// ICMP echo requests.
    Icmp,
    /// ARP requests: the source asks for the destination.
    Arp,
}

impl Protocol {
    /// Its number in the IPv4 header; 0 for what has none.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Udp => 17,
            Self::Tcp | Self::Syn => 6,
            Self::Icmp => 1,
            Self::Arp => 0,
        }
    }
}

/// What to send: everything of a packet that is not its place in the row.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Packets {
    /// Source MAC [default: the interface's]
    #[arg(long)]
    pub(crate) source_mac: Option<Mac>,
    /// Destination MAC: the next hop's, or the station's
    #[arg(long)]
    pub(crate) destination_mac: Mac,
    /// 802.1Q VLAN
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=4094))]
    pub(crate) vlan: Option<u16>,
    /// Source addresses: A, A-B or A/LENGTH
    #[arg(long)]
    pub(crate) source: Addresses,
    /// Destination addresses
    #[arg(long)]
    pub(crate) destination: Addresses,
    /// Source ports, or echo identifiers: N or N-M
    #[arg(long, default_value = "1024")]
    pub(crate) source_port: Ports,
    /// Destination ports
    #[arg(long, default_value = "53")]
    pub(crate) destination_port: Ports,
    /// Protocol
    #[arg(long, value_enum, default_value = "udp")]
    pub(crate) protocol: Protocol,
    /// How many flows, source ports varied first, then destination ports, destination and source
    /// addresses [default: all there are]
    #[arg(long)]
    pub(crate) flows: Option<u32>,
    /// Draw each packet's flow instead of taking them in turn
    #[arg(long)]
    pub(crate) random: bool,
    /// Bytes of a frame without tag and check sequence (60 is the shortest), or imix
    #[arg(long, default_value = "60")]
    pub(crate) size: String,
    /// Say in each packet when it was sent, so that the sink can tell how long it was on its way;
    /// costs about half of what can be sent
    #[arg(long)]
    pub(crate) stamps: bool,
    /// Packets a second [default: as fast as it goes]
    #[arg(long)]
    pub(crate) rate: Option<u64>,
    /// Who sends
    #[arg(long, value_enum, default_value = "xdp")]
    pub(crate) engine: Engine,
}

#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
struct Range {
    first: u32,
    count: u32,
}

/// `struct plan` of `bpf/send.bpf.c`.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Plan {
    macs: [u8; 12],
    vlan: [u8; 2],
    protocol: u8,
    tcp_flags: u8,
    sports: Range,
    dports: Range,
    destinations: Range,
    sources: Range,
    flows: u32,
    is_random: u32,
    sizes: [u32; SIZES],
    size_count: u32,
    stamps: u32,
    interval: u64,
    limit: u64,
}

impl Packets {
    /// The sizes a frame has in turn.
    pub(crate) fn sizes(&self) -> Result<Vec<u32>> {
        if self.size == "imix" {
            return Ok(IMIX.to_vec());
        }
        let size: u32 = self.size.parse().context("a size is a number of bytes, or imix")?;
        if !(60..=1514).contains(&size) {
            bail!("a frame has 60 to 1514 bytes, not {size}: without tag and check sequence");
        }
        Ok(vec![size])
    }

    /// What the program is told, for frames from `own` and `limit` packets.
    pub(crate) fn plan(&self, own: Mac, limit: u64) -> Result<Plan> {
        let sizes = self.sizes()?;
        let [destinations, sources] = [self.destination.0, self.source.0];
        let (sports, dports) = (self.source_port.0, self.destination_port.0);
        let all = [sports, dports, destinations, sources];
        let most: u64 = all.iter().map(|span| u64::from(span.count())).product();
        let flows = self.flows.map_or(most, u64::from);
        if flows == 0 || flows > most {
            bail!("{flows} flows of {most} there are: widen --source-port, --destination-port, …");
        }
        let flows = u32::try_from(flows).context("that many flows: say --flows")?;
        let mut macs = [0; 12];
        macs[..6].copy_from_slice(&self.destination_mac.0);
        macs[6..].copy_from_slice(&self.source_mac.unwrap_or(own).0);
        let mut row = [0; SIZES];
        row[..sizes.len()].copy_from_slice(&sizes);
        let range = |span: Span| Range { first: span.first, count: span.count() };
        Ok(Plan {
            macs,
            vlan: self.vlan.unwrap_or(0).to_be_bytes(),
            protocol: self.protocol.number(),
            tcp_flags: if self.protocol == Protocol::Syn { 2 } else { 16 },
            sports: range(sports),
            dports: range(dports),
            destinations: range(destinations),
            sources: range(sources),
            flows,
            is_random: self.random.into(),
            sizes: row,
            size_count: sizes.len() as u32,
            stamps: self.stamps.into(),
            interval: self.rate.and_then(|rate| 1_000_000_000u64.checked_div(rate)).unwrap_or(0),
            limit,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(flows: Option<u32>) -> Packets {
        Packets {
            source_mac: None,
            destination_mac: Mac([2; 6]),
            vlan: Some(100),
            source: "10.0.0.4".parse().unwrap(),
            destination: "8.8.8.0/30".parse().unwrap(),
            source_port: "1000-1099".parse().unwrap(),
            destination_port: "53".parse().unwrap(),
            protocol: Protocol::Udp,
            flows,
            random: false,
            size: "imix".into(),
            stamps: false,
            rate: Some(1000),
            engine: Engine::Xdp,
        }
    }

    #[test]
    fn spans_are_read_in_every_spelling_and_refused_in_others() {
        let span = |text: &str| text.parse::<Addresses>().map(|all| (all.0.first, all.0.last));
        assert_eq!(span("10.0.0.0/30"), Ok((0x0a00_0000, 0x0a00_0003)));
        assert_eq!(span("10.0.0.1-10.0.0.9"), Ok((0x0a00_0001, 0x0a00_0009)));
        assert_eq!(span("0.0.0.0/0"), Ok((0, u32::MAX)));
        for wrong in ["10.0.0", "10.0.0.9-10.0.0.1", "10.0.0.0/33", ""] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
        assert!("70000".parse::<Ports>().is_err() && "2-1".parse::<Ports>().is_err());
        assert!("02:00:00:00:00".parse::<Mac>().is_err());
    }

    #[test]
    fn flows_are_as_many_as_there_are_or_fewer() {
        assert_eq!(packets(None).plan(Mac([4; 6]), 1).unwrap().flows, 400);
        assert_eq!(packets(Some(7)).plan(Mac([4; 6]), 1).unwrap().flows, 7);
        let said = packets(Some(401)).plan(Mac([4; 6]), 1).unwrap_err().to_string();
        assert!(said.starts_with("401 flows of 400 there are"), "{said}");
    }

    #[test]
    fn the_mix_has_its_shares() {
        let share = |size| IMIX.iter().filter(|one| **one == size).count();
        assert_eq!([share(60), share(590), share(1514)], [7, 4, 1]);
        let mut odd = packets(None);
        odd.size = "59".into();
        assert!(odd.sizes().is_err());
    }
}
