//! Two nodes, six VMs, the trunk between them, and the router both have upstream.

use std::collections::VecDeque;

use tables::PortId;
use wire::{MacAddr, Network, Station, rewrite};

use crate::node::{PUBLIC, ROUTER, TRUNK, port_id};
use crate::{Node, NodePlan, Pcap};

/// A frame that reached somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The VM it reached.
    pub vm: u8,
    /// As the VM sees it.
    pub frame: Vec<u8>,
}

/// The lab in memory.
#[derive(Debug)]
pub struct World {
    pub left: Node,
    pub right: Node,
    /// Every frame that crossed the trunk.
    pub wire: Vec<Vec<u8>>,
    /// Every frame between a node and the router, as a node sent or received it.
    pub upstream: Vec<Vec<u8>>,
    /// What the router has to send on to the rest of the world.
    pub outside: Vec<Vec<u8>>,
    /// Whether VMs answer ARP by themselves.
    answering: bool,
    pcap: Pcap,
    name: &'static str,
}

/// Frames one call may cause before something goes round in circles.
const MANY: usize = 1000;

/// A frame about to be received: by the left node or the right one, and the port.
type Arriving = (bool, PortId, Vec<u8>);

impl World {
    /// Two tenants with VLANs 100 and 102: VM 1, 2 and 3 on the left, 4, 5 and 6 on the right; 3
    /// and 6 are the second tenant's. Bridged only.
    pub fn seed(name: &'static str) -> Self {
        let segments = vec![(1, Some(100)), (2, Some(102))];
        Self::bridged(name, &segments, [(1, 1), (2, 1), (3, 2)], [(4, 1), (5, 1), (6, 2)])
    }

    /// All six VMs in one untagged segment.
    pub fn flat(name: &'static str) -> Self {
        let segments = vec![(1, None)];
        Self::bridged(name, &segments, [(1, 1), (2, 1), (3, 1)], [(4, 1), (5, 1), (6, 1)])
    }

    fn bridged(
        name: &'static str,
        segments: &[(u16, Option<u16>)],
        left: [(u8, u16); 3],
        right: [(u8, u16); 3],
    ) -> Self {
        let plan = |number, vifs: [(u8, u16); 3]| NodePlan {
            segments: segments.to_vec(),
            vifs: vifs.to_vec(),
            known: true,
            number,
            ..NodePlan::default()
        };
        Self::of(name, &plan(1, left), &plan(2, right), false)
    }

    /// The seed with gateways, the shared source addresses 91.207.15.105 and .106, and the
    /// floating addresses 91.208.23.11 of VM 1 and 91.208.23.16 of VM 6. With `shared` both nodes
    /// are 10.0.0.1 and 10.1.0.1, else the right one is 10.0.0.5 and 10.1.0.5.
    pub fn routed(name: &'static str, shared: bool) -> Self {
        let segments = vec![(1, Some(100)), (2, Some(102))];
        let right = if shared { 1 } else { 5 };
        let left = NodePlan {
            segments: segments.clone(),
            vifs: vec![(1, 1), (2, 1), (3, 2)],
            known: true,
            number: 1,
            gateways: vec![(1, [10, 0, 0, 1], shared), (2, [10, 1, 0, 1], shared)],
            public: Some([91, 207, 15, 105]),
            addresses: vec![(1, [10, 0, 0, 3]), (2, [10, 0, 0, 4]), (3, [10, 1, 0, 3])],
            floats: vec![([91, 208, 23, 11], 1)],
        };
        let right = NodePlan {
            segments,
            vifs: vec![(4, 1), (5, 1), (6, 2)],
            known: true,
            number: 2,
            gateways: vec![(1, [10, 0, 0, right], shared), (2, [10, 1, 0, right], shared)],
            public: Some([91, 207, 15, 106]),
            addresses: vec![(4, [10, 0, 0, 6]), (5, [10, 0, 0, 7]), (6, [10, 1, 0, 4])],
            floats: vec![([91, 208, 23, 16], 6)],
        };
        Self::of(name, &left, &right, true)
    }

    fn of(name: &'static str, left: &NodePlan, right: &NodePlan, answering: bool) -> Self {
        Self {
            left: Node::new(left),
            right: Node::new(right),
            wire: Vec::new(),
            upstream: Vec::new(),
            outside: Vec::new(),
            answering,
            pcap: Pcap::default(),
            name,
        }
    }

    /// VM N sends a frame; returns everybody it reached, by VM number.
    pub fn send(&mut self, vm: u8, frame: &[u8]) -> Vec<Sent> {
        self.pcap.add(frame);
        self.run((vm <= 3, port_id(10 + u16::from(vm)), frame.to_vec()))
    }

    /// The router sends an IPv4 packet to the node it routes the destination to.
    pub fn send_from_outside(&mut self, frame: &[u8]) -> Vec<Sent> {
        match self.route(frame) {
            Some(arriving) => self.run(arriving),
            None => Vec::new(),
        }
    }

    fn run(&mut self, first: Arriving) -> Vec<Sent> {
        let mut reached = Vec::new();
        let mut queue = VecDeque::from([first]);
        let mut steps = 0;
        while let Some((left, port, frame)) = queue.pop_front() {
            steps += 1;
            assert!(steps < MANY, "frames go round in circles");
            let node = if left { &mut self.left } else { &mut self.right };
            let heard = node.tables.neighbours.clone();
            let (verdict, sent) = node.receive(port, &frame);
            let news = !std::sync::Arc::ptr_eq(&heard, &node.tables.neighbours);
            let mut released = if news { node.release() } else { Vec::new() };
            if verdict != pipeline::Verdict::Wait {
                released.append(&mut node.late);
            }
            for (egress, frame) in sent {
                self.deliver(left, egress, frame, &mut queue, &mut reached);
            }
            queue.extend(released.into_iter().map(|(port, frame)| (left, port, frame)));
        }
        reached.sort_by_key(|sent| sent.vm);
        reached
    }

    fn deliver(
        &mut self,
        left: bool,
        egress: PortId,
        frame: Vec<u8>,
        queue: &mut VecDeque<Arriving>,
        reached: &mut Vec<Sent>,
    ) {
        if egress == port_id(TRUNK) {
            self.pcap.add(&frame);
            self.wire.push(frame.clone());
            queue.push_back((!left, egress, frame));
        } else if egress == port_id(PUBLIC) {
            self.upstream.push(frame.clone());
            queue.extend(self.route(&frame));
        } else if let Some(vm) = vm_of(egress) {
            if self.answering
                && let Some(answer) = arp_answer(vm, &frame)
            {
                queue.push_back((left, egress, answer));
            }
            reached.push(Sent { vm, frame });
        }
    }

    /// The router: one hop less, and on to the node that answers for the destination.
    fn route(&mut self, frame: &[u8]) -> Option<Arriving> {
        let headers = wire::parse(frame).unwrap();
        let Network::Ipv4(ip) = headers.network else { return None };
        let left = match ip.dst {
            [91, 207, 15, 105] | [91, 208, 23, 11] => true,
            [91, 207, 15, 106] | [91, 208, 23, 16] => false,
            _ => {
                self.outside.push(frame.to_vec());
                return None;
            }
        };
        let node = if left { &self.left } else { &self.right };
        let mut frame = frame.to_vec();
        rewrite::decrement_ttl(&mut frame, usize::from(headers.l3));
        rewrite::set_macs(&mut frame, node.tables.topology.mac(port_id(PUBLIC)), ROUTER.mac);
        self.upstream.push(frame.clone());
        Some((left, port_id(PUBLIC), frame))
    }

    /// The VMs a frame of VM N reaches.
    pub fn reach(&mut self, vm: u8, frame: &[u8]) -> Vec<u8> {
        self.send(vm, frame).into_iter().map(|sent| sent.vm).collect()
    }
}

fn vm_of(port: PortId) -> Option<u8> {
    (11..=16).contains(&port.get()).then(|| (port.get() - 10) as u8)
}

/// What VM N says to a question for its address.
fn arp_answer(vm: u8, frame: &[u8]) -> Option<Vec<u8>> {
    let headers = wire::parse(frame).ok()?;
    let Network::Arp(arp) = headers.network else { return None };
    let addresses =
        [[10, 0, 0, 3], [10, 0, 0, 4], [10, 1, 0, 3], [10, 0, 0, 6], [10, 0, 0, 7], [10, 1, 0, 4]];
    let own: [u8; 4] = *addresses.get(usize::from(vm) - 1)?;
    if arp.operation != 1 || arp.target != own {
        return None;
    }
    let me = Station { mac: crate::vm_mac(vm), address: own };
    Some(crate::arp_reply((me.mac, me.address), (MacAddr(arp.sender_mac.0), arp.sender)))
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("frames of the failed test: {}", self.pcap.save(self.name).display());
        }
    }
}
