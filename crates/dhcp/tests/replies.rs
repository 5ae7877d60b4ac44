//! Every state of a client, in bytes, and what dnsmasq under nova-network answered in it.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod bytes;

use std::net::Ipv4Addr;

use bytes::{MAC, Message, VIF_MAC, options, vif};
use dhcp::{Event, Extra, Kind, Outcome, Reply, Silence, Vif, answer, frame, payload};
use wire::MacAddr;

const ONE: [u8; 4] = [10, 0, 0, 3];
const SERVER: [u8; 4] = [10, 0, 0, 1];
/// What busybox's client asks for: mask, router, DNS, name, domain, broadcast, time.
const WANTED: &[u8] = &[55, 7, 1, 3, 6, 12, 15, 28, 42];

fn reply(message: &Message, vif: &Vif) -> Reply {
    match answer(&message.bytes(), vif) {
        Outcome::Reply(reply) => reply,
        other => panic!("{other:?}"),
    }
}

fn discover() -> Message {
    Message::of(1).with(WANTED)
}

fn request(options: &[u8]) -> Message {
    Message::of(3).with(options).with(WANTED)
}

fn silence(message: &Message) -> Outcome {
    answer(&message.bytes(), &vif())
}

#[test]
fn a_discover_of_four_hundred_bytes_is_answered_byte_by_byte() {
    // As busybox sends it, written out.
    let mut discover = vec![
        1, 1, 6, 0, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0xfa, 0x16, 0x3e, 0, 0, 1,
    ];
    discover.resize(236, 0);
    discover.extend([
        0x63, 0x82, 0x53, 0x63, 53, 1, 1, 61, 7, 1, 0xfa, 0x16, 0x3e, 0, 0, 1, 57, 2, 0x02, 0x40,
        55, 7, 1, 3, 6, 12, 15, 28, 42, 60, 3, b'u', b'd', b'h', 255,
    ]);
    discover.resize(400, 0);
    let mut offer = vec![
        2, 1, 6, 0, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0, // no flags
        0, 0, 0, 0, // ciaddr
        10, 0, 0, 3, // yiaddr
        10, 0, 0, 1, // siaddr
        0, 0, 0, 0, 0xfa, 0x16, 0x3e, 0, 0, 1,
    ];
    offer.resize(236, 0);
    offer.extend([0x63, 0x82, 0x53, 0x63, 53, 1, 2, 54, 4, 10, 0, 0, 1, 51, 4, 0, 0, 0, 120]);
    offer.extend([58, 4, 0, 0, 0, 60, 59, 4, 0, 0, 0, 105, 1, 4, 255, 255, 255, 0]);
    offer.extend([28, 4, 10, 0, 0, 255, 6, 4, 10, 0, 0, 1, 15, 9]);
    offer.extend(b"novalocal");
    offer.extend([12, 4, b'v', b'm', b'-', b'1', 3, 4, 10, 0, 0, 1, 255]);
    let Outcome::Reply(reply) = answer(&discover, &vif()) else { panic!("no reply") };
    assert_eq!(reply.payload, offer);
}

#[test]
fn selecting_is_confirmed_with_the_options_of_the_offer() {
    let chosen = request(&[54, 4, 10, 0, 0, 1, 50, 4, 10, 0, 0, 3]);
    let (offer, ack) = (reply(&discover(), &vif()), reply(&chosen, &vif()));
    assert_eq!((offer.kind, ack.kind), (Kind::Offer, Kind::Ack));
    let codes = |reply: &Reply| options(&reply.payload).iter().map(|it| it.0).collect::<Vec<_>>();
    assert_eq!(codes(&ack), [53, 54, 51, 58, 59, 1, 28, 6, 15, 12, 3]);
    assert_eq!(codes(&offer), codes(&ack));
    assert_eq!((ack.mac, ack.to), (VIF_MAC, Ipv4Addr::from(ONE)));
    assert_eq!(ack.payload[16..20], ONE);
}

#[test]
fn who_chose_another_server_is_not_answered() {
    let other = request(&[54, 4, 10, 0, 0, 5, 50, 4, 10, 0, 0, 3]);
    assert_eq!(silence(&other), Outcome::Silent(Silence::OtherServer));
}

#[test]
fn rebooting_with_its_own_address_is_confirmed_and_with_another_refused_to_all() {
    let own = reply(&request(&[50, 4, 10, 0, 0, 3]), &vif());
    assert_eq!((own.kind, own.to), (Kind::Ack, Ipv4Addr::from(ONE)));
    let wrong = reply(&request(&[50, 4, 10, 0, 0, 77]), &vif());
    assert_eq!((wrong.kind, wrong.address), (Kind::Nak, Ipv4Addr::new(10, 0, 0, 77)));
    assert_eq!((wrong.mac, wrong.to), (MacAddr::BROADCAST, Ipv4Addr::BROADCAST));
    let said = options(&wrong.payload);
    let why = (56, b"wrong address".to_vec());
    assert_eq!(said, [(53, vec![6]), (54, SERVER.to_vec()), why]);
    // Flags say broadcast; no address is given, nor a server's.
    assert_eq!((&wrong.payload[10..12], &wrong.payload[12..28]), (&[0x80, 0][..], &[0; 16][..]));
}

#[test]
fn renewing_and_rebinding_keep_the_address_whoever_gave_it() {
    // Renewing says in its IP header whom it asks, rebinding asks all: the message is the same, and
    // on the node a VM has moved to as well.
    let mut renew = request(&[]);
    renew.ciaddr = ONE;
    let ack = reply(&renew, &vif());
    assert_eq!((ack.kind, ack.mac, ack.to), (Kind::Ack, VIF_MAC, Ipv4Addr::from(ONE)));
    assert_eq!((&ack.payload[12..16], &ack.payload[16..20]), (&ONE[..], &ONE[..]));
    let moved = Vif { server: Ipv4Addr::new(10, 0, 0, 5), router: None, ..vif() };
    assert_eq!(reply(&renew, &moved).kind, Kind::Ack);
    assert_eq!(options(&reply(&renew, &moved).payload)[1], (54, vec![10, 0, 0, 5]));
    renew.ciaddr = [10, 0, 0, 77];
    assert_eq!(reply(&renew, &vif()).kind, Kind::Nak);
}

#[test]
fn with_the_broadcast_flag_all_hear_the_answer() {
    let mut shy = discover();
    shy.flags = 0x8000;
    let offer = reply(&shy, &vif());
    assert_eq!((offer.mac, offer.to), (MacAddr::BROADCAST, Ipv4Addr::BROADCAST));
    assert_eq!(offer.payload[10..12], [0x80, 0]);
    // Not who has an address already.
    let mut renew = request(&[]);
    (renew.flags, renew.ciaddr) = (0x8000, ONE);
    assert_eq!(reply(&renew, &vif()).to, Ipv4Addr::from(ONE));
}

#[test]
fn who_informs_is_told_all_but_a_lease() {
    let mut inform = Message::of(8).with(WANTED);
    inform.ciaddr = ONE;
    let ack = reply(&inform, &vif());
    let codes: Vec<u8> = options(&ack.payload).iter().map(|it| it.0).collect();
    assert_eq!(codes, [53, 54, 1, 28, 6, 15, 12, 3]);
    assert_eq!((&ack.payload[12..16], &ack.payload[16..20]), (&ONE[..], &[0; 4][..]));
    assert_eq!((ack.kind, ack.to), (Kind::Ack, Ipv4Addr::from(ONE)));
}

#[test]
fn releasing_and_declining_are_heard_and_not_answered() {
    let mut release = Message::of(7).with(&[54, 4, 10, 0, 0, 1]);
    release.ciaddr = ONE;
    assert_eq!(silence(&release), Outcome::Told(Event::Released, ONE.into()));
    let decline = Message::of(4).with(&[54, 4, 10, 0, 0, 1, 50, 4, 10, 0, 0, 3]);
    assert_eq!(silence(&decline), Outcome::Told(Event::Declined, ONE.into()));
}

#[test]
fn strangers_relays_and_servers_are_not_answered() {
    let mut stranger = discover();
    stranger.mac = [0xfa, 0x16, 0x3e, 0, 0, 9];
    assert_eq!(silence(&stranger), Outcome::Silent(Silence::Unknown));
    let mut relayed = discover();
    relayed.giaddr = [10, 0, 0, 9];
    assert_eq!(silence(&relayed), Outcome::Silent(Silence::Relayed));
    let mut server = Message::of(2);
    server.op = 2;
    assert_eq!(silence(&server), Outcome::Silent(Silence::NotARequest));
    assert_eq!(silence(&Message::of(5)), Outcome::Silent(Silence::NotARequest));
    assert_eq!(silence(&request(&[])), Outcome::Silent(Silence::Malformed), "wants no address");
    let nobody = Vif { addresses: Vec::new(), ..vif() };
    let outcome = answer(&discover().bytes(), &nobody);
    assert_eq!(outcome, Outcome::Silent(Silence::NoAddress));
}

#[test]
fn what_is_no_dhcp_is_not_answered() {
    let whole = discover().bytes();
    let malformed = Outcome::Silent(Silence::Malformed);
    for length in [0, 1, 43, 235, 239] {
        assert_eq!(answer(&whole[..length], &vif()), malformed, "{length}");
    }
    let mut cookie = whole.clone();
    cookie[236] = 0;
    assert_eq!(answer(&cookie, &vif()), malformed);
    // BOOTP has no type, and a length of 255 would reach behind the message.
    let mut bootp = whole[..240].to_vec();
    assert_eq!(answer(&bootp, &vif()), malformed);
    bootp[2] = 255;
    assert_eq!(answer(&bootp, &vif()), Outcome::Silent(Silence::Unknown));
}

#[test]
fn of_several_addresses_the_one_asked_for_is_offered_else_the_first() {
    let two = Vif { addresses: vec![ONE.into(), Ipv4Addr::new(10, 0, 0, 4)], ..vif() };
    assert_eq!(reply(&discover(), &two).address, Ipv4Addr::from(ONE));
    let asks = discover().with(&[50, 4, 10, 0, 0, 4]);
    assert_eq!(reply(&asks, &two).address, Ipv4Addr::new(10, 0, 0, 4));
    let strange = discover().with(&[50, 4, 192, 168, 1, 1]);
    assert_eq!(reply(&strange, &two).address, Ipv4Addr::from(ONE));
    let second = request(&[54, 4, 10, 0, 0, 1, 50, 4, 10, 0, 0, 4]);
    assert_eq!(reply(&second, &two).kind, Kind::Ack);
}

#[test]
fn mtu_time_servers_and_other_options_come_behind_nova_s() {
    let vif = Vif {
        mtu: Some(1400),
        ntp: vec![Ipv4Addr::new(10, 0, 0, 8)],
        extra: vec!["66,boot".parse().unwrap(), "6,8.8.4.4".parse().unwrap()],
        ..vif()
    };
    let all = Message::of(1).with(&[55, 4, 3, 6, 26, 42]);
    let said = options(&reply(&all, &vif).payload);
    let codes: Vec<u8> = said.iter().map(|it| it.0).collect();
    // Forced options are sent unasked, and in place of what would be sent by itself.
    assert_eq!(codes, [53, 54, 51, 58, 59, 3, 26, 42, 66, 6]);
    assert_eq!((&said[6].1, &said[9].1), (&vec![5, 120], &vec![8, 8, 4, 4]));
    // Who does not say what it wants gets all.
    assert!(options(&reply(&Message::of(1), &vif).payload).len() == 14);
    let second = Vif { router: None, ..vif };
    assert!(!options(&reply(&all, &second).payload).iter().any(|it| it.0 == 3));
}

#[test]
fn without_a_name_a_vm_is_named_after_its_address() {
    let nameless = Vif { host_name: None, domain: String::new(), ..vif() };
    let said = options(&reply(&discover(), &nameless).payload);
    assert!(said.contains(&(12, b"host-10-0-0-3".to_vec())));
    assert!(!said.iter().any(|it| it.0 == 15));
}

#[test]
fn an_answer_is_as_long_as_its_client_takes() {
    let long = |code| Extra { code, data: vec![7; 200] };
    let vif = Vif { extra: vec![long(224), long(225)], ..vif() };
    let of = |message: &Message| {
        let payload = reply(message, &vif).payload;
        (payload.len(), options(&payload).len())
    };
    let (short, few) = of(&discover());
    assert!(short <= 576 - 28 && few == 12, "{short} {few}");
    let (length, all) = of(&discover().with(&[57, 2, 0x05, 0xdc]));
    assert!(length > 576 - 28 && all == 13, "{length} {all}");
}

#[test]
fn a_lease_for_ever_is_that() {
    let ever = Vif { lease: u32::MAX, ..vif() };
    let said = options(&reply(&discover(), &ever).payload);
    assert!(said[2..5].iter().all(|it| it.1 == [255; 4]), "{said:?}");
    let day = Vif { lease: 86_400, ..vif() };
    let said = options(&reply(&discover(), &day).payload);
    assert_eq!((&said[3].1, &said[4].1), (&vec![0, 0, 0xa8, 0xc0], &vec![0, 1, 0x27, 0x50]));
}

#[test]
fn a_frame_goes_out_as_dnsmasq_s_did() {
    let from = MacAddr([2, 0x74, 0x6c, 0, 0, 1]);
    let reply = reply(&discover(), &vif());
    let bytes = frame(&reply, &vif(), from);
    let headers = wire::parse(&bytes).unwrap();
    let wire::Network::Ipv4(ip) = headers.network else { panic!("{headers:?}") };
    assert_eq!((headers.src, headers.dst), (from, VIF_MAC));
    assert_eq!((ip.src, ip.dst, ip.ttl), (SERVER, ONE, 64));
    assert_eq!(ip.transport, wire::Transport::Udp { sport: 67, dport: 68 });
    assert_ne!(bytes[40..42], [0, 0], "the checksum of UDP is there");
    let packet = etherparse::PacketHeaders::from_ethernet_slice(&bytes).unwrap();
    let udp = packet.transport.unwrap().udp().unwrap();
    let Some(etherparse::NetHeaders::Ipv4(header, _)) = packet.net else { panic!("no IPv4") };
    assert_eq!(udp.checksum, udp.calc_checksum_ipv4(&header, &reply.payload).unwrap());
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    assert_eq!(bytes[42..], reply.payload[..]);
}

#[test]
fn only_a_client_s_datagram_carries_a_request() {
    let message = discover().bytes();
    let of = |ports: (u16, u16)| {
        let builder = etherparse::PacketBuilder::ethernet2(MAC, [0xff; 6])
            .ipv4([0; 4], [255; 4], 64)
            .udp(ports.0, ports.1);
        let mut frame = Vec::new();
        builder.write(&mut frame, &message).unwrap();
        frame
    };
    assert_eq!(payload(&of((68, 67))), Some(&message[..]));
    let mut padded = of((68, 67));
    padded.extend([0; 9]);
    assert_eq!(payload(&padded), Some(&message[..]), "without an Ethernet trailer");
    assert_eq!(payload(&of((67, 68))), None);
    assert_eq!(payload(&of((68, 53))), None);
    assert_eq!(payload(&of((68, 67))[..100]), None);
}
