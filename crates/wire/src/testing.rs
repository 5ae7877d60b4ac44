//! Frames for the tests of this crate and a check of their checksums, both by etherparse: another
//! hand than the one that changes them.

use etherparse::checksum::Sum16BitWords;
use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};
use proptest::prelude::*;

use crate::{MacAddr, Network, Station, parse};

pub(crate) const VM: Station =
    Station { mac: MacAddr([0xfa, 0x16, 0x3e, 0, 0, 1]), address: [10, 0, 0, 3] };
pub(crate) const GATEWAY: Station =
    Station { mac: MacAddr([2, 0, 0, 0, 0, 0xfe]), address: [10, 0, 0, 1] };
pub(crate) const REMOTE: [u8; 4] = [8, 8, 8, 8];
/// Where the IPv4 header of these frames is.
pub(crate) const L3: usize = 14;

fn from_vm() -> PacketBuilderStep<etherparse::IpHeaders> {
    PacketBuilder::ethernet2(VM.mac.0, GATEWAY.mac.0).ipv4(VM.address, REMOTE, 64)
}

/// A UDP datagram from the VM to the remote host.
pub(crate) fn udp(sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    from_vm().udp(sport, dport).write(&mut frame, payload).unwrap();
    frame
}

/// A TCP segment from the VM to the remote host; `flags` as in the header.
pub(crate) fn tcp(sport: u16, dport: u16, flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut header = TcpHeader::new(sport, dport, 1000, 65000);
    (header.syn, header.ack) = (flags & 2 != 0, flags & 16 != 0);
    header.set_options_raw(options).unwrap();
    let mut frame = Vec::new();
    from_vm().tcp_header(header).write(&mut frame, payload).unwrap();
    frame
}

/// An ICMP echo request from the VM to the remote host, or a reply.
pub(crate) fn echo(request: bool, id: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let builder = if request {
        from_vm().icmpv4_echo_request(id, sequence)
    } else {
        from_vm().icmpv4_echo_reply(id, sequence)
    };
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// Any of them, and one of a protocol without ports.
pub(crate) fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = proptest::collection::vec(any::<u8>(), 0..80);
    let options = proptest::collection::vec(Just(1), 0..10);
    (0..6, any::<u16>(), any::<u16>(), options, payload).prop_map(
        |(kind, sport, dport, mut options, payload)| match kind {
            0 => tcp(sport, dport, 16, &options, &payload),
            1 => {
                let mut frame = udp(sport, dport, &payload);
                frame[40..42].fill(0);
                frame
            }
            2 => udp(sport, dport, &payload),
            3 | 4 => echo(kind == 3, sport, dport, &payload),
            _ => {
                let mut frame = Vec::new();
                options.resize(options.len() + 8, 0);
                options.extend(payload);
                from_vm().write(&mut frame, etherparse::IpNumber(47), &options).unwrap();
                frame
            }
        },
    )
}

/// Whether the checksums of the IPv4 packet at `l3` are those of its bytes. A UDP datagram may have
/// none; a fragment's transport checksum cannot be told.
pub(crate) fn is_whole(frame: &[u8], l3: usize) -> bool {
    let (header, payload) = frame[l3..].split_at(usize::from(frame[l3] & 15) * 4);
    let length = usize::from(u16::from_be_bytes([header[2], header[3]])) - header.len();
    let segment = &payload[..length];
    let pseudo = || {
        Sum16BitWords::new()
            .add_slice(&header[12..20])
            .add_2bytes([0, header[9]])
            .add_2bytes((length as u16).to_be_bytes())
    };
    let transport = match header[9] {
        _ if header[6] & 0x3f != 0 || header[7] != 0 => return zero(Sum16BitWords::new(), header),
        6 => zero(pseudo(), segment),
        17 => segment[6..8] == [0, 0] || zero(pseudo(), segment),
        1 => zero(Sum16BitWords::new(), segment),
        _ => true,
    };
    zero(Sum16BitWords::new(), header) && transport
}

fn zero(start: Sum16BitWords, bytes: &[u8]) -> bool {
    start.add_slice(bytes).ones_complement() == 0
}

/// The IPv4 header as `parse` reads it.
pub(crate) fn ipv4(frame: &[u8]) -> crate::Ipv4 {
    match parse(frame).unwrap().network {
        Network::Ipv4(ip) => ip,
        other => panic!("{other:?}"),
    }
}
