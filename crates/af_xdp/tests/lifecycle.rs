//! Opening, closing, sharing in any order, and what is said when it cannot be. Needs root.
#![allow(clippy::unwrap_used)] // tests

mod common;

use std::time::{Duration, Instant};

use af_xdp::{Bound, Error, Mode, QueuePlan, Recovery, Socket, SocketConfig, Umem};
use common::{Redirect, Wire, assert_all_free, enter_netns, packet, receive_all, run, umem, veth};

fn small() -> SocketConfig {
    SocketConfig { ring: 64, ..SocketConfig::default() }
}

fn open(umem: Umem, ifindex: u32, queue: u32) -> Socket {
    let mut socket = Socket::open(umem, ifindex, queue, &small()).unwrap();
    assert_eq!(socket.refill(&mut umem.pool()), 128);
    socket
}

fn recover(umem: Umem) {
    let Recovery { lingering, .. } = umem.recover(Duration::from_secs(2));
    assert_eq!(lingering, 0);
    assert_all_free(umem);
}

#[test]
fn a_queue_can_be_bound_again_right_after_its_socket_closed() {
    enter_netns();
    let (a, b) = veth("afx-a", "afx-b", 1);
    let (umem, wire) = (umem(256), Wire::on(b));
    for round in 0..10 {
        let start = Instant::now();
        let mut socket = open(umem, a, 0);
        println!("round {round}: bound after {:?}", start.elapsed());
        // What the last round left was recovered by the new bind.
        assert_eq!((umem.census().lingering, umem.census().free), (0, 128));
        let _redirect = Redirect::attach(a, false, &[&socket]);
        wire.send(&packet(round, 100));
        let frame = receive_all(&mut socket, 1).remove(0);
        assert_eq!(frame.bytes(), packet(round, 100));
        umem.pool().give(frame);
    }
    recover(umem);
    // Closing is over once: there is nothing left to recover.
    assert_eq!(umem.recover(Duration::ZERO), Recovery { recovered: 0, lingering: 0 });
    assert_all_free(umem);
}

#[test]
fn sockets_come_and_go_in_any_order() {
    enter_netns();
    let ((a, a1), (b, b1)) = (veth("afx-a", "afx-a1", 2), veth("afx-b", "afx-b1", 1));
    let umem = umem(1024);
    let first = open(umem, a, 0);
    let second = open(umem, a, 1);
    // The socket that registered the memory goes; the memory stays registered.
    drop(first);
    let third = open(umem, b, 0);
    drop(second);
    drop(third);
    // Nobody is left: the memory is registered anew.
    let mut fourth = open(umem, b1, 0);
    let fifth = open(umem, a1, 1);
    let wire = Wire::on(b);
    let _redirect = Redirect::attach(b1, false, &[&fourth]);
    wire.send(&packet(1, 200));
    let frame = receive_all(&mut fourth, 1).remove(0);
    umem.pool().give(frame);
    drop((fourth, fifth));
    recover(umem);
}

#[test]
fn an_interface_may_vanish_under_its_socket() {
    enter_netns();
    let ((a, _), (b, _)) = (veth("afx-a", "afx-a1", 1), veth("afx-b", "afx-b1", 1));
    let umem = umem(1024);
    let mut orphan = open(umem, a, 0);
    run("ip link del afx-a");
    // The only live socket is bound to nothing, so it cannot be shared with.
    let other = open(umem, b, 0);
    let mut frames = vec![umem.pool().take().unwrap()];
    assert!(frames[0].copy_from(&packet(1, 60)));
    orphan.send(&mut frames);
    let error = orphan.kick_tx().unwrap_err().to_string();
    assert!(error.contains("the interface is gone"), "{error}");
    drop((orphan, other));
    recover(umem);
}

#[test]
fn frames_of_a_dropped_socket_come_back_with_packets_still_in_its_rings() {
    enter_netns();
    let (a, b) = veth("afx-a", "afx-b", 1);
    let (umem, wire) = (umem(512), Wire::on(b));
    let mut socket = open(umem, a, 0);
    let mut pool = umem.pool();
    let _redirect = Redirect::attach(a, false, &[&socket]);
    (0..20).for_each(|n| wire.send(&packet(n, 60)));
    let mut frames = receive_all(&mut socket, 10);
    socket.send(&mut frames);
    socket.kick_tx().unwrap();
    let mut more: Vec<_> = (0..30).map(|_| pool.take().unwrap()).collect();
    more.iter_mut().for_each(|frame| assert!(frame.copy_from(&packet(0, 60))));
    socket.send(&mut more);
    // All four rings are in use, and the kernel was not told of the last thirty.
    let census = socket.census();
    assert_eq!((census.rx, census.completion, census.tx), (10, 10, 30));
    drop(socket);
    drop(pool);
    assert_eq!(umem.census().lingering, 128 + 30);
    recover(umem);
}

#[test]
fn frames_are_not_recovered_from_another_namespace() {
    enter_netns();
    let (a, _) = veth("afx-a", "afx-b", 1);
    let umem = umem(256);
    drop(open(umem, a, 0));
    std::thread::spawn(move || {
        enter_netns();
        veth("afx-a", "afx-b", 1); // the same indexes
        let Recovery { recovered, lingering } = umem.recover(Duration::from_millis(100));
        assert_eq!((recovered, lingering), (0, 128));
    })
    .join()
    .unwrap();
    recover(umem);
}

#[test]
fn zero_copy_on_veth_is_refused_and_auto_takes_copy_and_says_why() {
    enter_netns();
    let (a, _) = veth("afx-a", "afx-b", 1);
    let umem = umem(256);
    let config = SocketConfig { mode: Mode::ZeroCopy, ..small() };
    let error = Socket::open(umem, a, 0, &config).unwrap_err();
    assert_eq!(error.errno(), Some(libc::EOPNOTSUPP));
    let text = error.to_string();
    println!("{text}");
    assert!(text.contains("afx-a cannot do zero copy"), "{text}");
    assert!(text.contains("use mode auto or copy"), "{text}");

    let socket = Socket::open(umem, a, 0, &small()).unwrap();
    assert_eq!((socket.bound(), socket.bound().to_string()), (Bound::Copy, "copy".into()));
    assert!(socket.refused().unwrap().to_string().contains("zero copy"));
    drop(socket);
    let config = SocketConfig { mode: Mode::Copy, ..small() };
    assert!(Socket::open(umem, a, 0, &config).unwrap().refused().is_none());
}

#[test]
fn a_queue_that_does_not_exist_is_named_with_the_command_that_makes_it() {
    enter_netns();
    let (a, _) = veth("afx-a", "afx-b", 2);
    let umem = umem(512);
    let lone = Socket::open(umem, a, 5, &small()).unwrap_err().to_string();
    let _anchor = Socket::open(umem, a, 0, &small()).unwrap();
    let sharing = Socket::open(umem, a, 5, &small()).unwrap_err().to_string();
    println!("{sharing}");
    for text in [lone, sharing] {
        assert!(text.contains("afx-a has no queue 5"), "{text}");
        assert!(text.contains("`ethtool -L afx-a"), "{text}");
    }
}

#[test]
fn a_queue_in_use_is_refused_after_a_second_whoever_has_it() {
    enter_netns();
    let (a, _) = veth("afx-a", "afx-b", 1);
    let (ours, theirs) = (umem(256), umem(256));
    let _socket = open(ours, a, 0);
    for umem in [ours, theirs] {
        let start = Instant::now();
        let error = Socket::open(umem, a, 0, &small()).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EBUSY));
        assert!(error.to_string().contains("another AF_XDP socket"), "{error}");
        let waited = start.elapsed();
        assert!((1.0..10.0).contains(&waited.as_secs_f64()), "{waited:?}");
    }
}

#[test]
fn an_interface_that_is_gone_or_elsewhere_is_said_so() {
    enter_netns();
    let error = Socket::open(umem(256), 4711, 0, &small()).unwrap_err().to_string();
    assert!(error.contains("the interface is gone, or lies in another"), "{error}");
    let error = QueuePlan::of("afx-none").unwrap_err().to_string();
    assert!(error.starts_with("afx-none: cannot read its queues: No such device"), "{error}");
}

#[test]
fn a_missing_capability_is_named() {
    enter_netns();
    let (a, _) = veth("afx-a", "afx-b", 1);
    let umem = umem(256);
    let error = std::thread::spawn(move || {
        drop_capabilities();
        Socket::open(umem, a, 0, &small()).unwrap_err()
    })
    .join()
    .unwrap();
    println!("{error}");
    assert!(matches!(error, Error::Socket { step: "socket", .. }), "{error:?}");
    assert!(error.to_string().contains("CAP_NET_RAW"), "{error}");
}

#[test]
fn busy_polling_and_odd_ring_sizes_are_accepted() {
    enter_netns();
    let (a, _) = veth("afx-a", "afx-b", 1);
    let umem = umem(1024);
    let config = SocketConfig { ring: 100, busy_poll: Some(20), tx_budget: Some(4096), ..small() };
    assert_eq!(config.frames(), 5 * 128);
    let mut socket = Socket::open(umem, a, 0, &config).unwrap();
    assert_eq!(socket.refill(&mut umem.pool()), 256);
    socket.wake_rx().unwrap();
    let error = Socket::open(umem, a, 0, &SocketConfig { ring: 2048, ..small() }).unwrap_err();
    assert!(error.to_string().contains("1024 frames do not fill a ring of 2048"), "{error}");
}

#[test]
fn the_queue_plan_sees_the_namespace_of_its_thread() {
    enter_netns();
    veth("afx-a", "afx-b", 2);
    let plan = QueuePlan::of("afx-a").unwrap();
    assert_eq!((plan.rx(), plan.tx()), (2, 2));
    plan.check().unwrap();
    plan.require(2).unwrap();
    let text = plan.require(4).unwrap_err().to_string();
    assert!(text.contains("afx-a has 2 receive and 2 transmit queues"), "{text}");
    run("ethtool -L afx-a tx 1");
    let text = QueuePlan::of("afx-a").unwrap().check().unwrap_err().to_string();
    println!("{text}");
    assert!(text.contains("receives on 2 queues and sends on 1"), "{text}");
    assert!(text.contains("`ethtool -L afx-a rx 2 tx 2`"), "{text}");
    run("ethtool -L afx-a rx 2 tx 2");
    QueuePlan::of("afx-a").unwrap().check().unwrap();
    // A bridge has no channels to ask for; the link says it has one queue.
    run("ip link add afx-br type bridge");
    assert_eq!(QueuePlan::of("afx-br").unwrap().rx(), 1);
    // A tap has as many queues as programs have opened, so none yet.
    run("ip tuntap add afx-tap mode tap");
    let text = QueuePlan::of("afx-tap").unwrap().check().unwrap_err().to_string();
    assert!(text.contains("afx-tap has no active queue"), "{text}");
}

/// Takes all capabilities from the calling thread.
fn drop_capabilities() {
    // struct __user_cap_header_struct: version 3, this thread.
    let header: [u32; 2] = [0x2008_0522, 0];
    let nothing = [0u32; 6];
    // SAFETY: both blocks have the sizes of version 3 and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), nothing.as_ptr()) };
    assert_eq!(result, 0);
}
