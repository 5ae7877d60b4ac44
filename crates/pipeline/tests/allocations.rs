//! The pipeline allocates nothing: counted, not believed.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use pipeline::{Packet, Pipeline, Verdict};
use tables::{GATEWAY_MAC, PortId};
use testkit::{Node, NodePlan, arp_request, echo, tcp, udp, vm_mac};

struct Counting;

thread_local! {
    static COUNT: Cell<Option<u64>> = const { Cell::new(None) };
}

// SAFETY: every call is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get().map(|so_far| so_far + 1)));
        // SAFETY: the caller's promise about `layout` is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        COUNT.with(|count| count.set(count.get().map(|so_far| so_far + 1)));
        // SAFETY: the caller's promise about both is handed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Calls of the allocator in `work`, by this thread.
fn allocations(work: impl FnOnce()) -> u64 {
    COUNT.with(|count| count.set(Some(0)));
    work();
    COUNT.with(|count| count.replace(None)).expect("it was set above")
}

#[test]
fn hits_misses_floods_answers_and_drops_allocate_nothing() {
    let plan = NodePlan {
        segments: vec![(1, Some(100))],
        vifs: vec![(1, 1), (2, 1)],
        gateways: vec![(1, [10, 0, 0, 254], false)],
        public: Some([91, 207, 15, 105]),
        addresses: vec![(1, [10, 0, 0, 1]), (2, [10, 0, 0, 2])],
        floats: vec![([91, 208, 23, 11], 2)],
        ..NodePlan::default()
    };
    let mut node = Node::new(&plan);
    let vm = |n: u8| (vm_mac(n), [10, 0, 0, n]);
    let mut chunks: Vec<Vec<u8>> = (0..32u16)
        .map(|n| {
            let gateway = |address| (GATEWAY_MAC, address);
            let frame = match n % 8 {
                0 => arp_request(vm(1), [10, 0, 0, n as u8]),
                1 => echo(vm(1), vm(2), true, n),
                2 => tcp((vm(1).0, vm(1).1, n), (vm(2).0, vm(2).1, 22), 2, b""),
                3 => udp((vm(1).0, vm(1).1, n), (vm(2).0, vm(2).1, 53), &[0; 100]),
                // Translated both ways, answered, waiting, told.
                4 => udp((vm(1).0, vm(1).1, n), (GATEWAY_MAC, [8, 8, 8, 8], 53), &[0; 100]),
                5 => echo(vm(1), gateway([91, 208, 23, 11]), true, n),
                6 => echo(vm(1), gateway([10, 0, 0, 254]), true, n),
                _ => echo(vm(1), gateway([10, 0, 0, 99]), true, n),
            };
            // Room behind it as well, for what it may become.
            [vec![0; 64], frame, vec![0; 64]].concat()
        })
        .collect();
    // One batch that learns, then the way to VM 2 is known and lines are installed and hit.
    node.receive(PortId::new(12).unwrap(), &arp_request(vm(2), [10, 0, 0, 9]));
    let templates = chunks.clone();
    for round in 0..100 {
        chunks.clone_from_slice(&templates);
        let mut batch: Vec<Packet<'_>> = chunks
            .iter_mut()
            .map(|chunk| {
                let len = chunk.len() - 128;
                Packet::new(chunk, 64, len, PortId::new(11).unwrap())
            })
            .collect();
        let mut pipeline = Pipeline {
            tables: &node.tables,
            flows: &node.flows,
            now: node.now + round,
            counters: &node.counters,
            now_ms: 0,
            learner: &mut node.learner,
            limiter: &mut node.limiter,
        };
        let calls = allocations(|| pipeline.forward(&mut batch));
        assert_eq!(calls, 0, "in round {round}");
        let has = |is: fn(&Verdict) -> bool| {
            batch.iter().any(|packet| packet.verdict.as_ref().is_some_and(is))
        };
        assert!(has(|verdict| matches!(verdict, Verdict::Forward(_))));
        assert!(has(|verdict| matches!(verdict, Verdict::Reply(_))));
        assert!(has(|verdict| matches!(verdict, Verdict::Hold(..))));
    }
    assert!(allocations(|| drop(std::hint::black_box(vec![1]))) > 0, "the count counts");
}
