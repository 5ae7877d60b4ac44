//! The pipeline allocates nothing: counted, not believed.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use pipeline::{Packet, Pipeline, Verdict};
use tables::{GATEWAY_MAC, Group, Groups, Origin, PortId, Rule, Wall, Walls};
use testkit::{Node, NodePlan, arp_request, echo, tcp, udp, vm_mac};
use wire::MacAddr;

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

/// A fragment of the datagram with that number, from VM 1 to the public side.
fn fragment(id: u16, flags: u16) -> Vec<u8> {
    let mut frame = udp((vm_mac(1), [10, 0, 0, 1], 7), (GATEWAY_MAC, [8, 8, 8, 8], 53), &[0; 100]);
    frame[18..20].copy_from_slice(&id.to_be_bytes());
    frame[20..22].copy_from_slice(&flags.to_be_bytes());
    frame
}

/// VM 2 lets in ssh, and VM 1 its own kind.
fn walls() -> Walls {
    let ssh = Rule { protocol: Some(6), first: 22, last: 22, from: Origin::ANYBODY };
    let members = Rule { protocol: None, first: 0, last: 65535, from: Origin::Members(0) };
    let group = |rules: &[Rule]| (Arc::new(Group::new("of a vm", rules)), Vec::new());
    let groups = Arc::new(Groups::new(vec![group(&[ssh]), group(&[members])]));
    let wall = |port, number| {
        (PortId::new(port).unwrap(), Wall { groups: [number].into(), ..Wall::default() })
    };
    Walls::new(groups, vec![wall(12, 0), wall(11, 1)], true)
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
            let frame = match n % 12 {
                0 => arp_request(vm(1), [10, 0, 0, n as u8]),
                1 => echo(vm(1), vm(2), true, n),
                2 => tcp((vm(1).0, vm(1).1, n), (vm(2).0, vm(2).1, 22), 2, b""),
                3 => udp((vm(1).0, vm(1).1, n), (vm(2).0, vm(2).1, 53), &[0; 100]),
                // Translated both ways, answered, waiting, told.
                4 => udp((vm(1).0, vm(1).1, n), (GATEWAY_MAC, [8, 8, 8, 8], 53), &[0; 100]),
                5 => echo(vm(1), gateway([91, 208, 23, 11]), true, n),
                6 => echo(vm(1), gateway([10, 0, 0, 254]), true, n),
                // A first fragment, one that follows it, and one whose first does not come.
                7 => fragment(n, 0x2000),
                8 => fragment(n - 1, 0x0010),
                9 => fragment(n + 500, 0x0010),
                10 => {
                    let all = (MacAddr::BROADCAST, [255; 4], 67);
                    udp((vm(1).0, [0; 4], 68), all, &[1; 300])
                }
                _ => echo(vm(1), gateway([10, 0, 0, 99]), true, n),
            };
            // Room behind it as well, for what it may become.
            [vec![0; 64], frame, vec![0; 64]].concat()
        })
        .collect();
    node.serve_dhcp(tables::Dhcp::Node);
    // One batch that learns, then the way to VM 2 is known and lines are installed and hit.
    node.receive(PortId::new(12).unwrap(), &arp_request(vm(2), [10, 0, 0, 9]));
    let templates = chunks.clone();
    for round in 0..100 {
        chunks.clone_from_slice(&templates);
        if round == 50 {
            node.tables.walls = Arc::new(walls());
            node.flows.revoke(|_| conntrack::Mark::Remove);
        }
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
            fragments: &node.fragments,
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
        assert!(has(|verdict| matches!(verdict, Verdict::Wait)));
        let refused = Verdict::Drop(pipeline::DropReason::SecurityGroup);
        let is_refused = |packet: &Packet<'_>| packet.verdict == Some(refused);
        assert_eq!(batch.iter().any(is_refused), round >= 50);
    }
    assert!(allocations(|| drop(std::hint::black_box(vec![1]))) > 0, "the count counts");
}
