//! No frame is ever lost: the census adds up at every step of 100,000 frames. Needs root.

mod common;

use std::time::{Duration, Instant};

use af_xdp::{Socket, SocketConfig};
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
