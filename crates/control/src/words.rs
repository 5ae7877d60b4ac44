//! A packet in words: `tcp 10.0.0.3:40000 8.8.8.8:443`, for `trunkline explain`.

use std::net::Ipv4Addr;
use std::str::FromStr;

use etherparse::PacketBuilder;
use wire::MacAddr;

/// What the words must look like.
const USAGE: &str = "say tcp or udp ADDRESS:PORT ADDRESS:PORT, or icmp ADDRESS ADDRESS, and after \
                     it, if wanted, ttl N, size BYTES, from MAC, to MAC";

/// A packet that is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    /// TCP (a SYN), UDP, or an ICMP echo request with the source port as its id.
    pub protocol: Protocol,
    /// Who sends, and its port.
    pub source: (Ipv4Addr, u16),
    /// To whom, and the port.
    pub destination: (Ipv4Addr, u16),
    /// Time to live.
    pub ttl: u8,
    /// Bytes behind its headers.
    pub size: usize,
    /// Source MAC, if it is said.
    pub from: Option<MacAddr>,
    /// Destination MAC, if it is said.
    pub to: Option<MacAddr>,
}

/// The protocols that can be described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A SYN.
    Tcp,
    /// A datagram.
    Udp,
    /// An echo request.
    Icmp,
}

impl FromStr for Words {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let protocol = match words.next() {
            Some("tcp") => Protocol::Tcp,
            Some("udp") => Protocol::Udp,
            Some("icmp") => Protocol::Icmp,
            other => return Err(format!("'{}' is no protocol: {USAGE}", other.unwrap_or(""))),
        };
        let mut end =
            || words.next().ok_or_else(|| USAGE.to_owned()).and_then(|word| end(word, protocol));
        let (source, destination) = (end()?, end()?);
        let (ttl, size, from, to) = (64, 0, None, None);
        let mut packet = Self { protocol, source, destination, ttl, size, from, to };
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("'{word}' wants a value: {USAGE}"))?;
            let wrong = || format!("'{value}' is no {word}: {USAGE}");
            match word {
                "ttl" => packet.ttl = value.parse().map_err(|_| wrong())?,
                "size" => {
                    let size: u16 = value.parse().map_err(|_| wrong())?;
                    packet.size = size.min(9000).into();
                }
                "from" => packet.from = Some(value.parse().map_err(|_| wrong())?),
                "to" => packet.to = Some(value.parse().map_err(|_| wrong())?),
                _ => return Err(format!("'{word}' is not understood: {USAGE}")),
            }
        }
        Ok(packet)
    }
}

fn end(word: &str, protocol: Protocol) -> Result<(Ipv4Addr, u16), String> {
    let wrong = || format!("'{word}' is no end of a packet: {USAGE}");
    match (word.split_once(':'), protocol) {
        (Some((address, port)), _) => {
            Ok((address.parse().map_err(|_| wrong())?, port.parse().map_err(|_| wrong())?))
        }
        (None, Protocol::Icmp) => Ok((word.parse().map_err(|_| wrong())?, 1)),
        (None, _) => Err(wrong()),
    }
}

impl Words {
    /// The frame, untagged, from and to these stations where the words name none.
    ///
    /// # Errors
    /// It is larger than a packet can be.
    pub fn frame(&self, from: MacAddr, to: MacAddr) -> Result<Vec<u8>, String> {
        let (from, to) = (self.from.unwrap_or(from), self.to.unwrap_or(to));
        let ip = PacketBuilder::ethernet2(from.0, to.0).ipv4(
            self.source.0.octets(),
            self.destination.0.octets(),
            self.ttl,
        );
        let (payload, mut frame) = (vec![0; self.size], Vec::new());
        let written = match self.protocol {
            Protocol::Tcp => ip
                .tcp(self.source.1, self.destination.1, 1, 65535)
                .syn()
                .write(&mut frame, &payload),
            Protocol::Udp => ip.udp(self.source.1, self.destination.1).write(&mut frame, &payload),
            Protocol::Icmp => ip.icmpv4_echo_request(self.source.1, 1).write(&mut frame, &payload),
        };
        written.map_err(|error| error.to_string())?;
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Network, Transport};

    const ONE: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const TWO: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    #[test]
    fn words_become_the_packet_they_say() {
        let words: Words = "udp 10.0.0.3:40000 8.8.8.8:53 ttl 1 size 100".parse().unwrap();
        let headers = wire::parse(&words.frame(ONE, TWO).unwrap()).unwrap();
        let Network::Ipv4(ip) = headers.network else { panic!("{headers:?}") };
        assert_eq!((headers.src, headers.dst), (ONE, TWO));
        assert_eq!((ip.src, ip.dst, ip.ttl, ip.total_len), ([10, 0, 0, 3], [8, 8, 8, 8], 1, 128));
        assert_eq!(ip.transport, Transport::Udp { sport: 40000, dport: 53 });
        let words: Words = "icmp 10.0.0.3 10.0.0.4 to 02:00:00:00:00:09".parse().unwrap();
        let headers = wire::parse(&words.frame(ONE, TWO).unwrap()).unwrap();
        assert_eq!(headers.dst, MacAddr([2, 0, 0, 0, 0, 9]));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, part) in [
            ("", "is no protocol"),
            ("gre 1.1.1.1 2.2.2.2", "'gre'"),
            ("tcp 10.0.0.3 8.8.8.8:53", "'10.0.0.3'"),
            ("udp 10.0.0.3:99999 8.8.8.8:53", "'10.0.0.3:99999'"),
            ("icmp 1.1.1.1 2.2.2.2 ttl", "'ttl' wants"),
            ("icmp 1.1.1.1 2.2.2.2 ttl 300", "'300'"),
            ("icmp 1.1.1.1 2.2.2.2 colour red", "'colour'"),
        ] {
            let said = text.parse::<Words>().unwrap_err();
            assert!(said.contains(part) && said.contains("say tcp"), "{text}: {said}");
        }
    }
}
