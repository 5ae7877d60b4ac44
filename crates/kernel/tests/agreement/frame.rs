//! Frames to order, with whole checksums unless told otherwise.

use wire::{MacAddr, checksum};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;

/// What an IPv4 packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp {
        flags: u8,
    },
    /// With its checksum, or with 0 for none.
    Udp {
        checksum: bool,
    },
    Echo {
        request: bool,
    },
    /// Another protocol, unread.
    Other(u8),
}

#[derive(Clone, Debug)]
pub struct Ipv4 {
    pub source: [u8; 4],
    pub destination: [u8; 4],
    /// An echo has its identifier in the first.
    pub ports: (u16, u16),
    pub transport: Transport,
    pub ttl: u8,
    pub payload: usize,
    /// Bytes behind the packet, as short frames have.
    pub padding: usize,
}

impl Ipv4 {
    pub const fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp { .. } => TCP,
            Transport::Udp { .. } => UDP,
            Transport::Echo { .. } => ICMP,
            Transport::Other(number) => number,
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let body = self.body();
        let mut packet = vec![0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, self.ttl, self.protocol(), 0, 0];
        packet[2..4].copy_from_slice(&(20 + body.len() as u16).to_be_bytes());
        packet.extend(self.source);
        packet.extend(self.destination);
        let header = !checksum::fold(checksum::sum(&packet));
        packet[10..12].copy_from_slice(&header.to_be_bytes());
        packet.extend(body);
        packet.resize(packet.len() + self.padding, 0);
        packet
    }

    fn body(&self) -> Vec<u8> {
        let (sport, dport) = (self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes());
        let mut body = Vec::new();
        let at = match self.transport {
            Transport::Tcp { flags } => {
                body.extend(sport.into_iter().chain(dport));
                body.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
                Some(16)
            }
            Transport::Udp { checksum } => {
                body.extend(sport.into_iter().chain(dport));
                body.extend((8 + self.payload as u16).to_be_bytes());
                body.extend([0, 0]);
                checksum.then_some(6)
            }
            Transport::Echo { request } => {
                body.extend([if request { 8 } else { 0 }, 0, 0, 0]);
                body.extend(sport.into_iter().chain([0, 1]));
                Some(2)
            }
            Transport::Other(_) => None,
        };
        body.extend((0..self.payload).map(|n| (n * 7 + usize::from(self.ttl)) as u8));
        if let Some(at) = at {
            let mut sum = checksum::sum(&body);
            if self.protocol() != ICMP {
                sum += checksum::sum(&self.source) + checksum::sum(&self.destination);
                sum += u32::from(self.protocol()) + body.len() as u32;
            }
            let sum = match !checksum::fold(sum) {
                0 if self.protocol() == UDP => 0xffff,
                sum => sum,
            };
            body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        body
    }
}

/// What an IPv6 packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Six {
    Tcp(u8),
    /// From this port.
    Udp(u16),
    Echo {
        request: bool,
    },
    /// A neighbour solicitation without options.
    Solicitation,
    /// A UDP datagram behind a hop-by-hop header.
    HopByHop,
    /// Another protocol, unread.
    Other(u8),
}

#[derive(Clone, Debug)]
pub struct Ipv6 {
    pub source: [u8; 16],
    pub destination: [u8; 16],
    pub carries: Six,
    pub payload: usize,
}

impl Ipv6 {
    pub fn bytes(&self) -> Vec<u8> {
        let length = (8 + self.payload as u16).to_be_bytes();
        let udp = |sport: u16| [&sport.to_be_bytes()[..], &[0, 9], &length, &[0, 0]].concat();
        let (next, mut body) = match self.carries {
            Six::Tcp(flags) => {
                let begin = [0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags];
                (TCP, [&begin[..], &[0; 6]].concat())
            }
            Six::Udp(sport) => (UDP, udp(sport)),
            Six::Echo { request } => {
                (58, vec![if request { 128 } else { 129 }, 0, 0, 0, 0, 7, 0, 1])
            }
            Six::Solicitation => (58, [&[135, 0, 0, 0, 0, 0, 0, 0][..], &[0xfd; 16]].concat()),
            Six::HopByHop => (0, [&[UDP, 0, 1, 4, 0, 0, 0, 0][..], &udp(9)].concat()),
            Six::Other(number) => (number, Vec::new()),
        };
        if self.carries != Six::Solicitation {
            body.extend((0..self.payload).map(|n| n as u8));
        }
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        packet[4..6].copy_from_slice(&(body.len() as u16).to_be_bytes());
        packet.extend(self.source);
        packet.extend(self.destination);
        packet.extend(body);
        packet
    }
}

pub fn ethernet(to: MacAddr, from: MacAddr, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to.0[..], &from.0[..], &ethertype.to_be_bytes(), payload].concat()
}

pub fn tagged(frame: &[u8], protocol: u16, tci: u16) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    [addresses, &protocol.to_be_bytes(), &tci.to_be_bytes(), rest].concat()
}
