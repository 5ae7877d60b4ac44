//! Packets really go out and come in, byte for byte, over veth pairs. Needs root.
#![allow(clippy::unwrap_used)] // tests

mod common;

use af_xdp::{Bound, Frame, Mode, Socket, SocketConfig};
use common::{Redirect, Wire, enter_netns, number, packet, receive_all, umem, veth};

fn frame(pool: &mut af_xdp::LocalPool, packet: &[u8]) -> Frame {
    let mut frame = pool.take().unwrap();
    assert!(frame.copy_from(packet));
    frame
}

#[test]
fn sent_frames_arrive_at_the_peer_byte_for_byte() {
    enter_netns();
    let (a, b) = veth("afx-a", "afx-b", 1);
    let (umem, wire) = (umem(256), Wire::on(b));
    let mut pool = umem.pool();
    let config = SocketConfig { ring: 64, ..SocketConfig::default() };
    let mut socket = Socket::open(umem, a, 0, &config).unwrap();
    let packets: Vec<_> = (0..64u32).map(|n| packet(n, 60 + n as usize * 23)).collect();
    let mut frames: Vec<_> = packets.iter().map(|p| frame(&mut pool, p)).collect();

    assert_eq!(socket.send(&mut frames), 64);
    assert!(socket.needs_tx_wakeup());
    let calls = socket.kick_tx().unwrap();
    assert!(calls <= 3, "64 frames took {calls} system calls");

    for packet in &packets {
        assert_eq!(wire.receive().as_ref(), Some(packet));
    }
    assert_eq!(socket.reclaim(&mut pool), 64);
    assert_eq!((socket.census().total(), socket.strays()), (0, 0));
    assert_eq!(socket.kick_tx().unwrap(), 0, "nothing to send, no system call");
}

#[test]
fn received_frames_are_what_was_sent_and_can_be_sent_on_as_they_are() {
    enter_netns();
    let (a, b) = veth("afx-a", "afx-b", 1);
    let (umem, wire) = (umem(1024), Wire::on(b));
    let mut pool = umem.pool();
    let config = SocketConfig { ring: 128, ..SocketConfig::default() };
    let mut socket = Socket::open(umem, a, 0, &config).unwrap();
    assert_eq!(socket.refill(&mut pool), 256);
    let _redirect = Redirect::attach(a, false, &[&socket]);

    let packets: Vec<_> = (0..100u32).map(|n| packet(n, 60 + n as usize * 14)).collect();
    packets.iter().for_each(|p| wire.send(p));
    let mut frames = receive_all(&mut socket, 100);
    for (frame, packet) in frames.iter_mut().zip(&packets) {
        assert_eq!(frame.bytes(), packet);
        assert_eq!(frame.head(), af_xdp::HEADROOM);
        // A tag goes into the headroom, behind the addresses.
        let (head, len) = (frame.head() - 4, frame.len() + 4);
        assert!(frame.set_range(head, len));
        frame.bytes_mut().copy_within(4..16, 0);
        frame.bytes_mut()[12..16].copy_from_slice(&[0x88, 0xb5, 0xff, 0xff]);
    }
    assert_eq!(socket.send(&mut frames), 100);
    socket.kick_tx().unwrap();
    for packet in &packets {
        let tagged = wire.receive().unwrap();
        assert_eq!((&tagged[..12], &tagged[16..]), (&packet[..12], &packet[12..]));
    }
}

#[test]
fn a_program_in_skb_mode_is_reported_as_generic_and_works() {
    enter_netns();
    let (a, b) = veth("afx-a", "afx-b", 1);
    let (umem, wire) = (umem(256), Wire::on(b));
    let config = SocketConfig { ring: 64, generic: true, ..SocketConfig::default() };
    let mut socket = Socket::open(umem, a, 0, &config).unwrap();
    socket.refill(&mut umem.pool());
    let _redirect = Redirect::attach(a, true, &[&socket]);
    wire.send(&packet(7, 300));
    assert_eq!(receive_all(&mut socket, 1)[0].bytes(), packet(7, 300));
    assert_eq!((socket.bound(), socket.refused().is_none()), (Bound::Generic, true));

    let config = SocketConfig { mode: Mode::ZeroCopy, ..config };
    let error = Socket::open(umem, a, 0, &config).unwrap_err().to_string();
    assert!(error.contains("native mode"), "{error}");
}

#[test]
fn one_memory_serves_two_interfaces_with_two_queues_each() {
    enter_netns();
    let ((a0, a1), (b0, b1)) = (veth("afx-a0", "afx-a1", 2), veth("afx-b0", "afx-b1", 2));
    let (near, far) = (umem(4096), umem(4096));
    let config = SocketConfig { ring: 128, ..SocketConfig::default() };
    let open = |umem, ifindex, queue| {
        let mut socket = Socket::open(umem, ifindex, queue, &config).unwrap();
        socket.refill(&mut umem.pool());
        socket
    };
    let mut a: Vec<_> = (0..2).map(|queue| open(near, a0, queue)).collect();
    let mut b: Vec<_> = (0..2).map(|queue| open(near, b0, queue)).collect();
    let mut generator: Vec<_> = (0..2).map(|queue| open(far, a1, queue)).collect();
    let mut sink: Vec<_> = (0..2).map(|queue| open(far, b1, queue)).collect();
    let _near = [Redirect::attach(a0, false, &[&a[0], &a[1]])];
    let _far = [Redirect::attach(b1, false, &[&sink[0], &sink[1]])];
    let mut far_pool = far.pool();

    for queue in 0..2 {
        let other = 1 - queue;
        let packets: Vec<_> = (0..32).map(|n| packet(n + queue as u32 * 100, 500)).collect();
        let mut frames: Vec<_> = packets.iter().map(|p| frame(&mut far_pool, p)).collect();
        assert_eq!(generator[queue].send(&mut frames), 32);
        generator[queue].kick_tx().unwrap();
        // In on one queue of one interface, out on the other queue of the other: no copy.
        let mut frames = receive_all(&mut a[queue], 32);
        assert_eq!(b[other].send(&mut frames), 32);
        b[other].kick_tx().unwrap();
        let mut frames = receive_all(&mut sink[other], 32);
        let got: Vec<_> = frames.iter().map(|frame| frame.bytes().to_vec()).collect();
        assert_eq!(got, packets);
        far_pool.give_all(&mut frames);
    }
    let mut pool = near.pool();
    assert_eq!(b.iter_mut().map(|socket| socket.reclaim(&mut pool)).sum::<usize>(), 64);
}

/// A packet's bytes and the number of frames it came in, for each packet of the frames.
fn packets(frames: &[Frame]) -> Vec<(Vec<u8>, usize)> {
    let pieces: Vec<&[Frame]> = frames.split_inclusive(|frame| !frame.continues()).collect();
    pieces
        .iter()
        .map(|of| (of.iter().flat_map(Frame::bytes).copied().collect(), of.len()))
        .collect()
}

/// A pair whose packets may fill several chunks.
fn large_veth() -> (u32, u32) {
    let ends = veth("afx-a", "afx-b", 1);
    for end in ["afx-a", "afx-b"] {
        common::run(&format!("ip link set {end} mtu 9000"));
    }
    ends
}

#[test]
fn packets_longer_than_a_chunk_come_in_as_many_frames_as_they_fill() {
    enter_netns();
    let (a, b) = large_veth();
    let (umem, wire) = (umem(512), Wire::on(b));
    let config = SocketConfig { ring: 64, ..SocketConfig::default() };
    let mut socket = Socket::open(umem, a, 0, &config).unwrap();
    assert_eq!(socket.pieces(), af_xdp::takes_pieces());
    let mut pool = umem.pool();
    socket.refill(&mut pool);
    let _redirect = Redirect::attach(a, false, &[&socket]);
    let room = umem.max_packet();
    let lengths = [room, room + 1, 60, 2 * room, 2 * room + 1, 9014];
    for (number, length) in (0..).zip(lengths) {
        wire.send(&packet(number, length));
    }
    if !socket.pieces() {
        let frames = receive_all(&mut socket, 2);
        assert_eq!(frames.iter().map(Frame::len).collect::<Vec<_>>(), [room, 60]);
        assert_eq!(socket.statistics().unwrap().rx_dropped, 4);
        return;
    }
    let mut frames = receive_all(&mut socket, 1 + 2 + 1 + 2 + 3 + 6);
    let got = packets(&frames);
    assert_eq!(got.iter().map(|(_, pieces)| *pieces).collect::<Vec<_>>(), [1, 2, 1, 2, 3, 6]);
    for (number, (bytes, _)) in (0..).zip(&got) {
        assert_eq!(*bytes, packet(number, bytes.len()));
    }
    assert_eq!(got.iter().map(|(bytes, _)| bytes.len()).collect::<Vec<_>>(), lengths);
    // And so they go out again, each as one packet.
    assert_eq!(socket.send(&mut frames), 15);
    socket.kick_tx().unwrap();
    for (bytes, _) in got {
        assert_eq!(wire.receive(), Some(bytes));
    }
    assert_eq!(socket.reclaim(&mut pool), 15);
    assert_eq!((socket.statistics().unwrap().rx_dropped, socket.strays()), (0, 0));
}

#[test]
fn of_a_packet_in_pieces_one_call_may_take_the_first_and_the_next_the_rest() {
    enter_netns();
    let (a, b) = large_veth();
    let (umem, wire) = (umem(512), Wire::on(b));
    let config = SocketConfig { ring: 64, ..SocketConfig::default() };
    let mut socket = Socket::open(umem, a, 0, &config).unwrap();
    if !socket.pieces() {
        return;
    }
    let mut pool = umem.pool();
    socket.refill(&mut pool);
    let _redirect = Redirect::attach(a, false, &[&socket]);
    wire.send(&packet(7, 9014));
    let mut first = receive_all(&mut socket, 2);
    let mut rest = receive_all(&mut socket, 4);
    assert!(first.iter().all(Frame::continues) && !rest[3].continues());
    // Sent in two calls as well, with a kick between them.
    assert_eq!(socket.send(&mut first), 2);
    socket.kick_tx().unwrap();
    assert_eq!(socket.send(&mut rest), 4);
    socket.kick_tx().unwrap();
    assert_eq!(wire.receive(), Some(packet(7, 9014)));
    assert_eq!((socket.reclaim(&mut pool), socket.census().tx), (6, 0));
}

#[test]
fn receive_takes_no_more_than_there_is_spare_capacity_for() {
    enter_netns();
    let (a, b) = veth("afx-a", "afx-b", 1);
    let (umem, wire) = (umem(256), Wire::on(b));
    let config = SocketConfig { ring: 64, ..SocketConfig::default() };
    let mut socket = Socket::open(umem, a, 0, &config).unwrap();
    let mut pool = umem.pool();
    socket.refill(&mut pool);
    let _redirect = Redirect::attach(a, false, &[&socket]);
    (0..10).for_each(|n| wire.send(&packet(n, 60)));
    let first = receive_all(&mut socket, 3);
    assert_eq!(socket.census().rx, 7);
    let mut full = Vec::with_capacity(2);
    assert_eq!(socket.receive(32, &mut full), 2);
    assert_eq!((socket.receive(32, &mut full), full.capacity()), (0, 2));
    assert_eq!(number(full[0].bytes()), Some(3));
    pool.give_all(&mut full);
    first.into_iter().for_each(|frame| pool.give(frame));
}

#[test]
fn a_packet_too_short_or_too_long_for_the_wire_comes_back_all_the_same() {
    enter_netns();
    let (a, _) = veth("afx-a", "afx-b", 1);
    let umem = umem(256);
    let mut pool = umem.pool();
    let config = SocketConfig { ring: 64, ..SocketConfig::default() };
    let mut socket = Socket::open(umem, a, 0, &config).unwrap();
    let lengths = [1, 13, 14, 1515, 1792];
    let mut frames: Vec<_> = lengths.iter().map(|&len| frame(&mut pool, &vec![1; len])).collect();
    socket.send(&mut frames);
    socket.kick_tx().unwrap();
    let reclaimed = socket.reclaim(&mut pool);
    let census = socket.census();
    assert_eq!((reclaimed, census.total()), (lengths.len(), 0), "{census:?}");
    assert_eq!(socket.statistics().unwrap().tx_invalid_descs, 0);
}

#[test]
fn a_larger_budget_takes_fewer_system_calls() {
    enter_netns();
    let (a, _) = veth("afx-a", "afx-b", 1);
    let umem = umem(512);
    let mut pool = umem.pool();
    let mut calls = |tx_budget| {
        let config = SocketConfig { ring: 256, tx_budget, ..SocketConfig::default() };
        let mut socket = Socket::open(umem, a, 0, &config).unwrap();
        let mut frames: Vec<_> = (0..256).map(|n| frame(&mut pool, &packet(n, 60))).collect();
        assert_eq!(socket.send(&mut frames), 256);
        let calls = socket.kick_tx().unwrap();
        assert_eq!(socket.reclaim(&mut pool), 256);
        calls
    };
    let (plain, larger) = (calls(None), calls(Some(256)));
    println!("256 packets: {plain} system calls, with a budget of 256 {larger}");
    // Equal before 6.17, which does not know the option.
    assert!(plain <= 9 && larger <= plain, "{plain} {larger}");
}
