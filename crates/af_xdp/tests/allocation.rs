//! Nothing is allocated between receive and send. Needs root.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use af_xdp::{Socket, SocketConfig};
use common::{Redirect, enter_netns, packet, umem, veth};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands everything to the system's allocator; the counter does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: as promised by our caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as promised by our caller.
        unsafe { System.dealloc(at, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn ten_thousand_frames_go_round_without_an_allocation() {
    enter_netns();
    let (a, b) = veth("afx-a", "afx-b", 1);
    let umem = umem(2048);
    let mut pool = umem.pool();
    let config = SocketConfig { ring: 256, ..SocketConfig::default() };
    let mut sender = Socket::open(umem, a, 0, &config).unwrap();
    let mut receiver = Socket::open(umem, b, 0, &config).unwrap();
    let _redirect = Redirect::attach(b, false, &[&receiver]);
    let packet = packet(1, 60);
    let mut batch = Vec::with_capacity(32);
    let mut got = 0;

    let before = COUNT.get();
    for _ in 0..100_000 {
        sender.reclaim(&mut pool);
        receiver.refill(&mut pool);
        while batch.len() < 32
            && let Some(mut frame) = pool.take()
        {
            assert!(frame.copy_from(&packet));
            batch.push(frame);
        }
        sender.send(&mut batch);
        sender.kick_tx().unwrap();
        pool.give_all(&mut batch);
        got += receiver.receive(32, &mut batch);
        pool.give_all(&mut batch);
        assert!(receiver.census().total() <= config.frames());
        if got >= 10_000 {
            break;
        }
    }
    let allocations = COUNT.get() - before;
    assert!(got >= 10_000, "only {got} arrived");
    assert_eq!(allocations, 0, "over {got} frames");
}
