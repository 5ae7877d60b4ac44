//! Bytes of a frame: read, and changed in every way that forwarding changes them. The first four
//! bytes choose what they are changed to.

use wire::{IcmpError, MacAddr, Network, Station, Translation, Upper, fragment, icmp, rewrite};

const HEADROOM: usize = 128;

pub(crate) fn run(bytes: &[u8]) {
    let Some((choice, frame)) = bytes.split_at_checked(4) else { return };
    let _ = wire::embedded(frame);
    let _ = wire::piece(frame);
    let _ = wire::vlan::outer(frame);
    let Ok(headers) = wire::parse(frame) else { return };
    let l3 = usize::from(headers.l3);
    assert!(l3 <= frame.len());
    let station = Station { mac: MacAddr([2, 0, 0, 0, 0, 1]), address: [10, 0, 0, choice[0]] };
    let Network::Ipv4(ip) = headers.network else {
        let _ = wire::arp::reply(&mut frame.to_vec(), station.mac);
        sender(&frame[l3..]);
        return;
    };
    assert!(l3 + usize::from(ip.total_len) <= frame.len());
    assert!(u16::from(ip.header_len) <= ip.total_len);
    agrees(&frame[l3..l3 + usize::from(ip.total_len)], &ip);
    let _ = wire::checksum::is_partial(frame, &headers);

    let to = Translation {
        source: if choice[0] & 1 == 0 { [0; 4] } else { [91, 207, 15, choice[0]] },
        destination: if choice[1] & 1 == 0 { [0; 4] } else { [10, 0, 0, choice[1]] },
        source_port: u16::from(choice[2]) << 4,
        destination_port: u16::from(choice[3]) << 4,
    };
    let mut changed = frame.to_vec();
    let before = testkit::seeds::checksums(&changed);
    if rewrite::translate(&mut changed, l3, &to).is_ok() {
        rewrite::decrement_ttl(&mut changed, l3);
        let after = testkit::seeds::checksums(&changed);
        assert_eq!(after.map(|sums| sums.0), before.map(|sums| sums.0), "the header's checksum");
    }
    wire::clamp_mss(&mut changed, l3, 536 + u16::from(choice[2]));
    let _ = wire::translate_error(&mut changed, l3, &to);
    let _ = icmp::echo_reply(&mut frame.to_vec(), l3);
    tell(frame, &headers, station, choice[3]);
    cut(frame, l3, 68 + usize::from(choice[1]) * 8);
}

/// Who sent an IPv6 packet, and what it says of its neighbours.
fn sender(packet: &[u8]) {
    let Some(ip) = wire::ipv6(packet) else { return };
    assert_eq!(ip.src, packet[8..24]);
    assert_eq!(wire::ipv6_addresses(packet).map(|(src, _)| src), Some(ip.src));
    let _ = wire::piece6(packet);
    let _ = packet.get(40..).and_then(wire::embedded6);
    if let Upper::Icmp(message) = ip.upper {
        let _ = (message.target(), message.what());
        for options in [8, 24] {
            let _ = message.claims_only(options, |mac| mac.0[5] & 1 == 0);
        }
    }
}

/// What another reader takes for a whole packet has the same addresses.
fn agrees(packet: &[u8], ip: &wire::Ipv4) {
    if let Ok((theirs, _)) = etherparse::Ipv4Header::from_slice(packet) {
        assert_eq!((theirs.source, theirs.destination), (ip.src, ip.dst));
        assert_eq!(theirs.time_to_live, ip.ttl);
        assert_eq!(theirs.protocol.0, ip.protocol);
    }
}

/// An error about the frame is a whole packet with right checksums.
fn tell(frame: &[u8], headers: &wire::Headers, station: Station, choice: u8) {
    if !icmp::may_answer(frame, headers) {
        return;
    }
    let error = match choice % 5 {
        0 => IcmpError::TimeExceeded,
        1 => IcmpError::NetUnreachable,
        2 => IcmpError::PortUnreachable,
        3 => IcmpError::AdminProhibited,
        _ => IcmpError::FragmentationNeeded { mtu: u16::from(choice) << 4 },
    };
    let mut chunk = vec![0; HEADROOM + frame.len()];
    chunk[HEADROOM..].copy_from_slice(frame);
    let (len, l3) = (frame.len(), usize::from(headers.l3));
    let Some((head, len)) = icmp::error(&mut chunk, HEADROOM, len, l3, error, station) else {
        return;
    };
    let told = &chunk[head..head + len];
    assert_eq!(testkit::seeds::checksums(told), Some((true, Some(true))));
}

/// Fragments are whole packets with right headers, none larger than the link takes.
fn cut(frame: &[u8], l3: usize, mtu: usize) {
    let Some(cut) = fragment::Cut::new(frame, l3, mtu) else { return };
    let whole = testkit::seeds::checksums(frame).is_some_and(|sums| sums.0);
    let mut piece = vec![0; l3 + mtu];
    for index in 0.. {
        let Some(len) = cut.write(frame, index, &mut piece) else { break };
        assert!(len <= l3 + mtu && index < 9000);
        let sums = testkit::seeds::checksums(&piece[..len]);
        assert!(!whole || sums.is_some_and(|sums| sums.0), "fragment {index}");
    }
}
