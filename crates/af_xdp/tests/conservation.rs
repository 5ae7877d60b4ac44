//! No frame is ever lost: the census adds up at every step of 100,000 frames. Needs root.

mod common;

use std::sync::mpsc::TrySendError;
use std::time::{Duration, Instant};

use af_xdp::{Frame, Socket, SocketConfig};
use common::{
    Redirect, assert_all_free, assert_conserved, enter_netns, number, packet, umem, veth,
};

const FRAMES: u32 = 100_000;

/// A generator with a short ring floods an echo that takes a few frames now and then, sends them
/// back, and often finds its pool empty and its rings full.
#[test]
fn a_soak_with_short_rings_and_a_slow_consumer_loses_no_frame() {
    enter_netns();
    let (a, b) = veth("afx-a", "afx-b", 1);
    let (ours, theirs) = (umem(200), umem(400));
    let config = SocketConfig { ring: 64, ..SocketConfig::default() };
    let mut echo = Socket::open(ours, a, 0, &config).unwrap();
    let mut generator = Socket::open(theirs, b, 0, &config).unwrap();
    let _a = Redirect::attach(a, false, &[&echo]);
    let _b = Redirect::attach(b, false, &[&generator]);
    let (mut pool, mut their_pool) = (ours.pool(), theirs.pool());
    let (mut queue, mut outgoing) = (Vec::with_capacity(64), Vec::with_capacity(64));
    let mut answers = Vec::with_capacity(64);
    let (mut sent, mut echoed, mut answered, mut short, mut dry, mut step) = (0, 0, 0, 0, 0, 0u32);
    let start = Instant::now();

    while sent < FRAMES {
        step += 1;
        let moment = format!("step {step}");
        // The generator: as much as its ring takes, what is left over waits in `outgoing`.
        generator.reclaim(&mut their_pool);
        while outgoing.len() < 48
            && let Some(mut frame) = their_pool.take()
        {
            assert!(frame.copy_from(&packet(sent + outgoing.len() as u32, 60)));
            outgoing.push(frame);
        }
        sent += generator.send(&mut outgoing) as u32;
        short += u32::from(!outgoing.is_empty());
        assert_conserved(theirs, &[&their_pool], outgoing.len(), &[&generator], &moment);
        if step.is_multiple_of(2) {
            generator.kick_tx().unwrap();
        }
        generator.refill(&mut their_pool);
        answered += generator.receive(32, &mut answers);
        assert!(answers.iter().all(|frame| number(frame.bytes()).is_some()));
        assert_conserved(
            theirs,
            &[&their_pool],
            outgoing.len() + answers.len(),
            &[&generator],
            &moment,
        );
        their_pool.give_all(&mut answers);

        // The echo: slow, a few at a time.
        echo.reclaim(&mut pool);
        dry += u32::from(pool.is_empty());
        echo.refill(&mut pool);
        assert_conserved(ours, &[&pool], queue.len(), &[&echo], &moment);
        if step.is_multiple_of(3) {
            echo.receive(20, &mut queue);
            echoed += echo.send(&mut queue);
            assert_conserved(ours, &[&pool], queue.len(), &[&echo], &moment);
            if step.is_multiple_of(6) {
                echo.kick_tx().unwrap();
            }
            assert_conserved(ours, &[&pool], queue.len(), &[&echo], &moment);
        }
    }
    println!(
        "{sent} sent, {echoed} echoed, {answered} came back in {step} steps and {:?}; the ring was \
         short {short} times, the pool empty {dry} times\necho {:?} {:?}\ngenerator {:?}",
        start.elapsed(),
        echo.census(),
        echo.statistics().unwrap(),
        generator.census(),
    );
    assert!(echoed > 10_000 && answered > 5_000, "{echoed} echoed, {answered} answered");
    assert!(short > 100 && dry > 100, "the soak was not hard enough: {short} short, {dry} dry");
    assert_eq!((echo.strays(), generator.strays()), (0, 0));
    let statistics = echo.statistics().unwrap();
    assert_eq!((statistics.rx_invalid_descs, statistics.tx_invalid_descs), (0, 0));

    pool.give_all(&mut queue);
    their_pool.give_all(&mut outgoing);
    drop((echo, generator, pool, their_pool));
    for umem in [ours, theirs] {
        assert_eq!(umem.recover(Duration::from_secs(2)).lingering, 0);
        assert_all_free(umem);
    }
}

/// Packets of many frames through rings that hold hardly a dozen of them: they arrive whole or not
/// at all, wherever a call ends within one, and every frame is somewhere.
#[test]
fn long_packets_through_short_rings_are_whole_or_lost_and_no_frame_is() {
    const LENGTH: usize = 9014;
    enter_netns();
    let (a, b) = veth("afx-a", "afx-b", 1);
    for end in ["afx-a", "afx-b"] {
        common::run(&format!("ip link set {end} mtu 9000"));
    }
    let (near, far) = (umem(300), umem(300));
    let config = SocketConfig { ring: 64, ..SocketConfig::default() };
    let mut sender = Socket::open(near, a, 0, &config).unwrap();
    let mut receiver = Socket::open(far, b, 0, &config).unwrap();
    if !sender.pieces() {
        return;
    }
    let _redirect = Redirect::attach(b, false, &[&receiver]);
    let (mut pool, mut far_pool) = (near.pool(), far.pool());
    let (mut outgoing, mut batch) = (Vec::with_capacity(64), Vec::with_capacity(64));
    let (mut made, mut arrived, mut last, mut short) = (0, 0, None, 0);
    let mut bytes: Vec<u8> = Vec::new();
    for step in 0..20_000u32 {
        sender.reclaim(&mut pool);
        while outgoing.len() < 40 {
            let packet = packet(made, LENGTH);
            let mut parts = packet.chunks(2048).peekable();
            while let Some(part) = parts.next() {
                let mut frame = pool.take().unwrap();
                assert!(frame.set_range(0, part.len()));
                frame.bytes_mut().copy_from_slice(part);
                frame.set_continues(parts.peek().is_some());
                outgoing.push(frame);
            }
            made += 1;
        }
        sender.send(&mut outgoing);
        short += u32::from(!outgoing.is_empty());
        if step.is_multiple_of(3) {
            sender.kick_tx().unwrap();
        }
        assert_conserved(near, &[&pool], outgoing.len(), &[&sender], &format!("step {step}"));

        receiver.refill(&mut far_pool);
        if step.is_multiple_of(2) {
            receiver.receive(1 + step as usize % 20, &mut batch);
        }
        assert_conserved(far, &[&far_pool], batch.len(), &[&receiver], &format!("step {step}"));
        for frame in batch.drain(..) {
            bytes.extend_from_slice(frame.bytes());
            if !frame.continues() {
                let number = number(&bytes);
                assert!(number.is_some() && number > last, "{number:?} after {last:?}");
                assert_eq!(bytes, packet(number.unwrap(), LENGTH));
                (last, arrived) = (number, arrived + 1);
                bytes.clear();
            }
            far_pool.give(frame);
        }
    }
    println!("{made} made, {arrived} arrived, the ring was short {short} times");
    assert!(arrived > 1000 && short > 100, "{arrived} arrived, {short} short");
    pool.give_all(&mut outgoing);
    drop((sender, receiver, pool, far_pool));
    for umem in [near, far] {
        assert_eq!(umem.recover(Duration::from_secs(2)).lingering, 0);
        assert_all_free(umem);
    }
}

/// Two workers with a socket each: what one receives the other sends, while a third floods.
#[test]
fn frames_handed_from_worker_to_worker_are_all_there_in_the_end() {
    enter_netns();
    let ((a, b), (c, _)) = (veth("afx-a", "afx-b", 1), veth("afx-c", "afx-d", 1));
    let (umem, theirs) = (umem(700), umem(256));
    let config = SocketConfig { ring: 64, ..SocketConfig::default() };
    let mut source = Socket::open(umem, a, 0, &config).unwrap();
    let mut target = Socket::open(umem, c, 0, &config).unwrap();
    let mut flood = Socket::open(theirs, b, 0, &config).unwrap();
    let _redirect = Redirect::attach(a, false, &[&source]);
    let (hand_over, taken) = std::sync::mpsc::sync_channel::<Frame>(100);

    let receiver = std::thread::spawn(move || {
        let (mut pool, mut batch, mut count) = (umem.pool(), Vec::with_capacity(32), 0);
        while count < FRAMES {
            source.refill(&mut pool);
            count += source.receive(32, &mut batch) as u32;
            for frame in batch.drain(..) {
                if let Err(refused) = hand_over.try_send(frame) {
                    let (TrySendError::Full(frame) | TrySendError::Disconnected(frame)) = refused;
                    pool.give(frame);
                }
            }
        }
        source
    });
    let sender = std::thread::spawn(move || {
        let (mut pool, mut sent) = (umem.pool(), 0);
        for mut frame in taken {
            assert!(number(frame.bytes()).is_some());
            while let Err(unsent) = target.send_one(frame) {
                target.kick_tx().unwrap();
                target.reclaim(&mut pool);
                frame = unsent;
            }
            sent += 1;
        }
        (target, sent)
    });
    let mut pool = theirs.pool();
    let mut batch = Vec::with_capacity(32);
    while !receiver.is_finished() {
        flood.reclaim(&mut pool);
        while batch.len() < 32
            && let Some(mut frame) = pool.take()
        {
            assert!(frame.copy_from(&packet(1, 60)));
            batch.push(frame);
        }
        flood.send(&mut batch);
        flood.kick_tx().unwrap();
    }
    let (source, (target, sent)) = (receiver.join().unwrap(), sender.join().unwrap());
    println!("{sent} of {FRAMES} went through both workers");
    assert!(sent > 1000);
    assert_conserved(umem, &[], 0, &[&source, &target], "in the end");
    assert_eq!((source.strays(), target.strays()), (0, 0));
    drop((source, target));
    assert_eq!(umem.recover(Duration::from_secs(2)).lingering, 0);
    assert_all_free(umem);
}

/// Once nothing moves any more, what was sent and received is known to the frame.
#[test]
fn a_still_socket_has_every_frame_in_a_ring_or_accounted_for() {
    enter_netns();
    let (a, b) = veth("afx-a", "afx-b", 1);
    let umem = umem(512);
    let mut pool = umem.pool();
    let config = SocketConfig { ring: 64, ..SocketConfig::default() };
    let mut sender = Socket::open(umem, a, 0, &config).unwrap();
    let mut receiver = Socket::open(umem, b, 0, &config).unwrap();
    let _redirect = Redirect::attach(b, false, &[&receiver]);
    receiver.refill(&mut pool);
    let mut frames: Vec<_> = (0..40).map(|_| pool.take().unwrap()).collect();
    for (n, frame) in frames.iter_mut().enumerate() {
        assert!(frame.copy_from(&packet(n as u32, 100)));
    }
    sender.send(&mut frames);
    assert_eq!(sender.census().tx, 40);
    sender.kick_tx().unwrap();
    std::thread::sleep(Duration::from_millis(50));

    let (sent, received) = (sender.census(), receiver.census());
    assert_eq!((sent.completion, sent.total()), (40, 40));
    assert_eq!((received.rx, received.total()), (40, 128));
    assert!(received.in_kernel <= 1, "{received:?}");
    assert_conserved(umem, &[&pool], 0, &[&sender, &receiver], "at rest");

    // A device that is down keeps what it was given; nothing is lost, nothing sent twice.
    common::run("ip link set afx-a down");
    let mut frames: Vec<_> = (0..5).map(|_| pool.take().unwrap()).collect();
    frames.iter_mut().for_each(|frame| assert!(frame.copy_from(&packet(9, 100))));
    sender.send(&mut frames);
    let error = sender.kick_tx().unwrap_err().to_string();
    assert!(error.contains("afx-a is down"), "{error}");
    assert_conserved(umem, &[&pool], 0, &[&sender, &receiver], "down");
}
