//! The kernel's connections, as `/proc/net/nf_conntrack` and `conntrack -L` print them.

use std::net::Ipv4Addr;

/// One direction of a connection, as its packets say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Who sends.
    pub source: Ipv4Addr,
    /// Who receives.
    pub destination: Ipv4Addr,
    /// Source port; of ICMP its identifier, else 0.
    pub source_port: u16,
    /// Destination port; of ICMP its identifier, else 0.
    pub destination_port: u16,
}

impl Tuple {
    /// What the answers look like if nothing is translated.
    #[must_use]
    pub fn answers(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }
}

/// A connection that the kernel tracks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Number of its protocol (6 TCP, 17 UDP, 1 ICMP).
    pub protocol: u8,
    /// Seconds until it is forgotten; none if it was handed to hardware.
    pub timeout: Option<u32>,
    /// TCP's state, such as `ESTABLISHED`.
    pub state: Option<String>,
    /// Packets of the one who began.
    pub original: Tuple,
    /// Packets that answer; if it is not [`Tuple::answers`], they are translated.
    pub reply: Tuple,
    /// No answer was seen.
    pub unreplied: bool,
    /// It is not thrown out before its time.
    pub assured: bool,
}

/// What a table of connections has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Those of IPv4.
    pub all: Vec<Connection>,
    /// How many are IPv6's, which nothing is translated of.
    pub ipv6: usize,
    /// How many lines were not understood.
    pub strange: usize,
}

impl Connections {
    /// Those in the text, one a line.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut table = Self::default();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            match connection(line) {
                Some(connection) => table.all.push(connection),
                None if is_ipv6(line) => table.ipv6 += 1,
                None => table.strange += 1,
            }
        }
        table
    }
}

impl Connection {
    /// Whether either end sees other addresses or ports than the other one.
    #[must_use]
    pub fn is_translated(&self) -> bool {
        self.reply != self.original.answers()
    }

    /// Whether it is worth keeping alive: it was answered, and its end has not begun.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let ends = ["FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT"];
        !self.unreplied && !self.state.as_deref().is_some_and(|state| ends.contains(&state))
    }
}

fn is_ipv6(line: &str) -> bool {
    let source = line.split_whitespace().find_map(|word| word.strip_prefix("src="));
    source.is_some_and(|source| source.contains(':'))
}

/// `[ipv4 2] tcp 6 431999 ESTABLISHED src=… dst=… sport=… dport=… src=… … [ASSURED] mark=0 …`.
fn connection(line: &str) -> Option<Connection> {
    let mut words = line.split_whitespace().peekable();
    if words.next_if_eq(&"ipv4").is_some() {
        words.next(); // the family's number
    }
    words.next()?; // the protocol's name, which may be `unknown`
    let protocol = words.next()?.parse().ok()?;
    let timeout = words.next_if(|word| word.parse::<u32>().is_ok());
    let is_state = |word: &&str| !word.contains('=') && !word.starts_with('[');
    let state = words.next_if(is_state).map(str::to_owned);
    let rest: Vec<&str> = words.collect();
    // The second `src=` begins the answers.
    let second = 1 + rest.iter().skip(1).position(|word| word.starts_with("src="))?;
    let (original, reply) = rest.split_at(second);
    Some(Connection {
        protocol,
        timeout: timeout.and_then(|seconds| seconds.parse().ok()),
        state,
        original: tuple(original)?,
        reply: tuple(reply)?,
        unreplied: rest.contains(&"[UNREPLIED]"),
        assured: rest.contains(&"[ASSURED]"),
    })
}

fn tuple(words: &[&str]) -> Option<Tuple> {
    let value = |key: &str| {
        let mut pairs = words.iter().filter_map(|word| word.split_once('='));
        pairs.find(|(name, _)| *name == key).map(|(_, value)| value)
    };
    // A key that is not there is 0, one that is no number makes the line a strange one.
    let number = |key: &str| value(key).map_or(Some(0), |text| text.parse().ok());
    let id = number("id")?;
    let port = |key: &str| if value("id").is_some() { Some(id) } else { number(key) };
    Some(Tuple {
        source: value("src")?.parse().ok()?,
        destination: value("dst")?.parse().ok()?,
        source_port: port("sport")?,
        destination_port: port("dport")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(source: [u8; 4], destination: [u8; 4], ports: (u16, u16)) -> Tuple {
        Tuple {
            source: source.into(),
            destination: destination.into(),
            source_port: ports.0,
            destination_port: ports.1,
        }
    }

    /// As kernel 6.1 prints them; the third with counters, the fourth in conntrack's own format.
    const TABLE: &str = "\
ipv4     2 tcp      6 431999 ESTABLISHED src=10.0.0.3 dst=8.8.8.8 sport=40000 dport=80 src=8.8.8.8 dst=192.0.2.5 sport=80 dport=40000 [ASSURED] mark=0 zone=0 use=2
ipv4     2 udp      17 29 src=10.0.0.3 dst=10.0.0.1 sport=5000 dport=53 [UNREPLIED] src=10.0.0.1 dst=10.0.0.3 sport=53 dport=5000 mark=0 zone=0 use=2
ipv4     2 icmp     1 29 src=8.8.8.8 dst=198.51.100.11 type=8 code=0 id=77 packets=3 bytes=252 src=10.0.0.3 dst=8.8.8.8 type=0 code=0 id=77 packets=3 bytes=252 mark=0 zone=0 use=2
tcp      6 117 TIME_WAIT src=10.0.0.4 dst=10.1.0.3 sport=3000 dport=22 src=10.1.0.3 dst=10.0.0.4 sport=22 dport=3000 [ASSURED] mark=0 use=1
ipv4     2 unknown  47 599 src=10.0.0.3 dst=8.8.8.8 src=8.8.8.8 dst=192.0.2.5 mark=0 zone=0 use=2
ipv4     2 tcp      6 src=10.0.0.3 dst=8.8.8.8 sport=1 dport=2 src=8.8.8.8 dst=192.0.2.5 sport=2 dport=1 [OFFLOAD] mark=0 zone=0 use=3

ipv6     10 udp      17 25 src=fe80::1 dst=ff02::fb sport=5353 dport=5353 [UNREPLIED] src=ff02::fb dst=fe80::1 sport=5353 dport=5353 mark=0 zone=0 use=2
ipv4     2 tcp      6 99 ESTABLISHED src=10.0.0.3 dst=8.8.8.8 sport=99999 dport=80 src=8.8.8.8 dst=192.0.2.5 sport=80 dport=1
ipv4     2 tcp      6 99 ESTABLISHED src=10.0.0.3 dst=8.8.8.8 sport=9 dport=80
conntrack v1.4.7 (conntrack-tools): 9 flow entries have been shown.
";

    #[test]
    fn every_kind_of_line_is_read() {
        let table = Connections::parse(TABLE);
        assert_eq!((table.all.len(), table.ipv6, table.strange), (6, 1, 3));
        let [tcp, udp, icmp, ended, other, offloaded] = &table.all[..] else { panic!() };
        assert_eq!(
            *tcp,
            Connection {
                protocol: 6,
                timeout: Some(431_999),
                state: Some("ESTABLISHED".into()),
                original: tuple([10, 0, 0, 3], [8, 8, 8, 8], (40_000, 80)),
                reply: tuple([8, 8, 8, 8], [192, 0, 2, 5], (80, 40_000)),
                unreplied: false,
                assured: true,
            }
        );
        assert!(tcp.is_translated() && tcp.is_open());
        assert!(!udp.is_translated() && !udp.is_open() && udp.unreplied);
        assert_eq!((udp.timeout, &udp.state), (Some(29), &None));
        assert_eq!(icmp.reply, tuple([10, 0, 0, 3], [8, 8, 8, 8], (77, 77)));
        assert!(icmp.is_translated() && icmp.is_open());
        assert!(!ended.is_translated() && !ended.is_open());
        assert_eq!((other.protocol, other.original.source_port), (47, 0));
        assert_eq!((offloaded.timeout, offloaded.is_open()), (None, true));
    }

    #[test]
    fn no_text_is_no_connection() {
        assert_eq!(Connections::parse("\n"), Connections::default());
    }
}
