//! Two nodes, six VMs and the trunk between them.

use tables::PortId;

use crate::node::{TRUNK, port_id};
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
    pcap: Pcap,
    name: &'static str,
}

impl World {
    /// Two tenants with VLANs 100 and 102: VM 1, 2 and 3 on the left, 4, 5 and 6 on the right; 3
    /// and 6 are the second tenant's.
    pub fn seed(name: &'static str) -> Self {
        let segments = vec![(1, Some(100)), (2, Some(102))];
        Self::new(name, &segments, [(1, 1), (2, 1), (3, 2)], [(4, 1), (5, 1), (6, 2)])
    }

    /// All six VMs in one untagged segment.
    pub fn flat(name: &'static str) -> Self {
        let segments = vec![(1, None)];
        Self::new(name, &segments, [(1, 1), (2, 1), (3, 1)], [(4, 1), (5, 1), (6, 1)])
    }

    fn new(
        name: &'static str,
        segments: &[(u16, Option<u16>)],
        left: [(u8, u16); 3],
        right: [(u8, u16); 3],
    ) -> Self {
        let node = |vifs: [(u8, u16); 3]| {
            Node::new(&NodePlan { segments: segments.to_vec(), vifs: vifs.to_vec(), known: true })
        };
        let (left, right) = (node(left), node(right));
        Self { left, right, wire: Vec::new(), pcap: Pcap::default(), name }
    }

    /// VM N sends a frame; returns everybody it reached, by VM number.
    pub fn send(&mut self, vm: u8, frame: &[u8]) -> Vec<Sent> {
        self.pcap.add(frame);
        let mut reached = Vec::new();
        let mut left = vm <= 3;
        let mut arriving = vec![(port_id(10 + u16::from(vm)), frame.to_vec())];
        // A frame crosses the trunk at most once: what it causes there never comes back.
        for _ in 0..2 {
            let node = if left { &mut self.left } else { &mut self.right };
            let mut crossing = Vec::new();
            for (port, frame) in arriving.drain(..) {
                for (egress, frame) in node.receive(port, &frame).1 {
                    if egress == port_id(TRUNK) {
                        self.pcap.add(&frame);
                        self.wire.push(frame.clone());
                        crossing.push((port_id(TRUNK), frame));
                    } else if let Some(vm) = vm_of(egress) {
                        reached.push(Sent { vm, frame });
                    }
                }
            }
            left = !left;
            arriving = crossing;
        }
        assert!(arriving.is_empty(), "a frame came back by the trunk");
        reached.sort_by_key(|sent| sent.vm);
        reached
    }

    /// The VMs a frame of VM N reaches.
    pub fn reach(&mut self, vm: u8, frame: &[u8]) -> Vec<u8> {
        self.send(vm, frame).into_iter().map(|sent| sent.vm).collect()
    }
}

fn vm_of(port: PortId) -> Option<u8> {
    (11..=16).contains(&port.get()).then(|| (port.get() - 10) as u8)
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("frames of the failed test: {}", self.pcap.save(self.name).display());
        }
    }
}
