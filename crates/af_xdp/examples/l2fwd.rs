//! Sends what one interface receives out of another, unread: the least that AF_XDP can cost.
//!
//! `l2fwd FROM TO SECONDS`, as root, in the network namespace of both interfaces. Queue 0
//! of each. The program on FROM is one redirect; it is gone when this ends.
#![allow(clippy::unwrap_used)] // an example

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use af_xdp::{QueuePlan, Socket, SocketConfig, Umem, UmemConfig};

const BATCH: usize = 32;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [from, to, seconds] = &words[..] else { panic!("usage: l2fwd FROM TO SECONDS") };
    let umem = Umem::new(&UmemConfig { frames: 16384, ..UmemConfig::default() }).unwrap();
    let mut pool = umem.pool();
    let open = |name: &str| {
        let ifindex = QueuePlan::of(name).unwrap().ifindex();
        Socket::open(umem, ifindex, 0, &SocketConfig::default()).unwrap()
    };
    let (mut rx, mut tx) = (open(from), open(to));
    rx.refill(&mut pool);
    let _program = common::Redirect::attach(rx.ifindex(), false, &[&rx]);
    println!("{from}: {}, {to}: {}", rx.bound(), tx.bound());

    let until = Instant::now() + Duration::from_secs(seconds.parse().unwrap());
    let mut frames = Vec::with_capacity(BATCH);
    let mut carried = 0u64;
    while Instant::now() < until {
        for _ in 0..64 {
            tx.reclaim(&mut pool);
            rx.receive(BATCH, &mut frames);
            carried += tx.send(&mut frames) as u64;
            // What the ring has no room for.
            pool.give_all(&mut frames);
            tx.kick_tx().unwrap();
            rx.refill(&mut pool);
            if rx.needs_rx_wakeup() {
                rx.wake_rx().unwrap();
            }
        }
    }
    println!("{carried} frames");
}
