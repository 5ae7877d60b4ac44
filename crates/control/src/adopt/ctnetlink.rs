//! Connections given back to the kernel: nfnetlink's messages for its connection table.
//!
//! The kernel knew nothing of a connection's packets for a while, so it is told not to be strict
//! with its sequence numbers; else it would take the next segment for one of nobody's.

use std::net::Ipv4Addr;

use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};

use super::conntrack::Tuple;

/// IP protocol numbers of the two that are given back: all others begin anew by themselves.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;

// nfnetlink.h, nfnetlink_conntrack.h: the subsystem is the message type's high byte.
const NEW: u16 = 1 << 8;
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const AF_INET: u8 = 2;
const REQUEST: u16 = 1;
const REQUEST_ACK: u16 = REQUEST | 4;
const CREATE_EXCLUSIVE: u16 = 0x400 | 0x200;
const NESTED: u16 = 0x8000;
// Attributes of a connection.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOINFO: u16 = 4;
const NAT_SOURCE: u16 = 6;
const TIMEOUT: u16 = 7;
const NAT_DESTINATION: u16 = 13;
/// Seen in both directions, not thrown out early, in the table (`IPS_*`).
const OPEN: u32 = 2 | 4 | 8;
/// TCP's state.
const ESTABLISHED: u8 = 3;
/// `IP_CT_TCP_FLAG_BE_LIBERAL`.
const LIBERAL: u8 = 8;
/// errno of a connection that is not there.
const ENOENT: i32 = 2;

/// A connection as the kernel is to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// Packets of the one who began.
    pub original: Tuple,
    /// Their source after translation, if it changes.
    pub source: Option<(Ipv4Addr, u16)>,
    /// Their destination after translation, if it changes.
    pub destination: Option<(Ipv4Addr, u16)>,
    /// Seconds until it is forgotten, if no packet comes.
    pub timeout: u32,
}

impl Given {
    /// Packets of the other one, before they are translated back.
    fn answers(&self) -> Tuple {
        let original = self.original.answers();
        let (source, source_port) =
            self.destination.unwrap_or((original.source, original.source_port));
        let (destination, destination_port) =
            self.source.unwrap_or((original.destination, original.destination_port));
        Tuple { source, destination, source_port, destination_port }
    }
}

/// The kernel's connection table of this network namespace.
#[derive(Debug)]
pub struct Conntrack(Socket);

impl Conntrack {
    /// Opens it.
    ///
    /// # Errors
    /// The kernel has none, or a capability is missing.
    pub fn open() -> std::io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Puts a connection in the place of what the kernel knows of the same packets.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn give(&self, given: &Given) -> std::io::Result<()> {
        let original = nested(ORIGINAL, &tuple(given.protocol, &given.original));
        if self.has(&original, &given.answers(), given.protocol)? {
            // In its place: an answer that came meanwhile would be taken for the node's own, which
            // would end the connection.
            return self.ask(&message(NEW, REQUEST_ACK, &[original, state(given)].concat()));
        }
        match self.ask(&message(DELETE, REQUEST_ACK, &original)) {
            Err(error) if error.raw_os_error() != Some(ENOENT) => return Err(error),
            _ => {}
        }
        self.ask(&message(NEW, REQUEST_ACK | CREATE_EXCLUSIVE, &connection(given)))
    }

    /// Whether it knows a connection with this very translation.
    fn has(&self, original: &[u8], answers: &Tuple, protocol: u8) -> std::io::Result<bool> {
        self.0.send(&message(GET, REQUEST, original), 0)?;
        let (told, _) = self.0.recv_from_full()?;
        let expected = nested(REPLY, &tuple(protocol, answers));
        Ok(told.windows(expected.len()).any(|bytes| bytes == expected))
    }

    fn ask(&self, message: &[u8]) -> std::io::Result<()> {
        self.0.send(message, 0)?;
        let (answer, _) = self.0.recv_from_full()?;
        // An acknowledgement is an error message whose number is 0, behind a header of 16 bytes.
        let code = answer.get(16..20).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        match code.map(i32::from_ne_bytes) {
            Some(0) => Ok(()),
            Some(code) => Err(std::io::Error::from_raw_os_error(-code)),
            None => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// The attributes of a new connection. Its answers are told as if nothing were translated: the
/// kernel makes them what they are by what is told of translation.
fn connection(given: &Given) -> Vec<u8> {
    let mut bytes = nested(ORIGINAL, &tuple(given.protocol, &given.original));
    bytes.extend(nested(REPLY, &tuple(given.protocol, &given.original.answers())));
    for (kind, new) in [(NAT_SOURCE, given.source), (NAT_DESTINATION, given.destination)] {
        if let Some((address, port)) = new {
            bytes.extend(nested(kind, &translation(address, port)));
        }
    }
    bytes.extend(state(given));
    bytes
}

/// That it is open, for how long, and what TCP is to make of that.
fn state(given: &Given) -> Vec<u8> {
    let mut bytes = attribute(STATUS, &OPEN.to_be_bytes());
    bytes.extend(attribute(TIMEOUT, &given.timeout.to_be_bytes()));
    if given.protocol == TCP {
        let flags = [LIBERAL, LIBERAL];
        let tcp = [attribute(1, &[ESTABLISHED]), attribute(4, &flags), attribute(5, &flags)];
        bytes.extend(nested(PROTOINFO, &nested(1, &tcp.concat())));
    }
    bytes
}

fn tuple(protocol: u8, tuple: &Tuple) -> Vec<u8> {
    let (source, destination) = (tuple.source.octets(), tuple.destination.octets());
    let addresses = [attribute(1, &source), attribute(2, &destination)].concat();
    let ports = [
        attribute(1, &[protocol]),
        attribute(2, &tuple.source_port.to_be_bytes()),
        attribute(3, &tuple.destination_port.to_be_bytes()),
    ];
    [nested(1, &addresses), nested(2, &ports.concat())].concat()
}

/// One address and one port: ranges of one.
fn translation(address: Ipv4Addr, port: u16) -> Vec<u8> {
    let (address, port) = (address.octets(), port.to_be_bytes());
    let ports = [attribute(1, &port), attribute(2, &port)].concat();
    [attribute(1, &address), attribute(2, &address), nested(3, &ports)].concat()
}

fn nested(kind: u16, inside: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, inside)
}

/// Length and kind in front, filled up to a multiple of four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// A netlink header, nfnetlink's own, and the attributes.
fn message(kind: u16, flags: u16, attributes: &[u8]) -> Vec<u8> {
    let length = (16 + 4 + attributes.len()) as u32;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]); // sequence number, sender: one question at a time
    bytes.extend([AF_INET, 0, 0, 0]);
    bytes.extend(attributes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGINAL_OF_ONE: Tuple = Tuple {
        source: Ipv4Addr::new(10, 0, 0, 4),
        destination: Ipv4Addr::new(8, 8, 8, 8),
        source_port: 0x1234,
        destination_port: 80,
    };

    #[test]
    fn a_message_has_the_bytes_of_nfnetlink() {
        let bytes = message(DELETE, REQUEST_ACK, &nested(ORIGINAL, &tuple(TCP, &ORIGINAL_OF_ONE)));
        let expected = [
            &[72, 0, 0, 0, 2, 1, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], // length, type, flags
            &[2, 0, 0, 0],                                          // IPv4
            &[52, 0, 1, 0x80],                                      // the original's tuple
            &[20, 0, 1, 0x80, 8, 0, 1, 0, 10, 0, 0, 4, 8, 0, 2, 0, 8, 8, 8, 8],
            &[28, 0, 2, 0x80, 5, 0, 1, 0, 6, 0, 0, 0],
            &[6, 0, 2, 0, 0x12, 0x34, 0, 0, 6, 0, 3, 0, 0, 80, 0, 0],
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn what_is_translated_is_told_beside_plain_answers() {
        let given = Given {
            protocol: UDP,
            original: ORIGINAL_OF_ONE,
            source: Some((Ipv4Addr::new(91, 207, 15, 105), 0x5678)),
            destination: None,
            timeout: 180,
        };
        let bytes = connection(&given);
        let answers = nested(REPLY, &tuple(UDP, &ORIGINAL_OF_ONE.answers()));
        assert_eq!(bytes[52..104], answers);
        let open = [8, 0, 3, 0, 0, 0, 0, 14, 8, 0, 7, 0, 0, 0, 0, 180];
        let source = [40, 0, 6, 0x80, 8, 0, 1, 0, 91, 207, 15, 105, 8, 0, 2, 0, 91, 207, 15, 105];
        let ports = [20, 0, 3, 0x80, 6, 0, 1, 0, 0x56, 0x78, 0, 0, 6, 0, 2, 0, 0x56, 0x78, 0, 0];
        assert_eq!(bytes[104..], [&source[..], &ports, &open].concat());
        let answers = given.answers();
        assert_eq!((answers.source_port, answers.destination_port), (80, 0x5678));
        assert_eq!(answers.destination, Ipv4Addr::new(91, 207, 15, 105));
        let tcp = connection(&Given { protocol: TCP, source: None, ..given });
        let flags = [6, 0, 4, 0, 8, 8, 0, 0, 6, 0, 5, 0, 8, 8, 0, 0];
        let state = [32, 0, 4, 0x80, 28, 0, 1, 0x80, 5, 0, 1, 0, 3, 0, 0, 0];
        assert_eq!(tcp[120..], [state, flags].concat());
    }
}
