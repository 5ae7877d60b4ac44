//! A node in memory with many connections through source NAT.

use conntrack::{FlowKey, Table};
use pipeline::{Packet, Verdict};
use tables::{GATEWAY_MAC, PortId};
use testkit::{Node, NodePlan, udp, vm_mac};

use crate::{BATCH, scatter};

/// Room before and behind a frame, as a NIC leaves it.
const ROOM: usize = 64;
const FRAME: usize = 60;
const VM: u8 = 1;
const CHUNK: usize = ROOM + FRAME + ROOM;
/// That of all segments of a node in memory.
const ZONE: u16 = 1;

/// The VM's port, by the rule of a node in memory.
fn vif() -> PortId {
    PortId::new(10 + u16::from(VM)).unwrap_or(PortId::NONE)
}

/// A node whose VM has so many connections open, and 32 places for packets.
#[derive(Debug)]
pub struct Bed {
    node: Node,
    template: Vec<u8>,
    chunks: [[u8; CHUNK]; BATCH],
    connections: u32,
    walked: u32,
    opened: u32,
}

impl Bed {
    /// A bed with so many lines in use, two to a connection.
    #[must_use]
    pub fn with(entries: u32) -> Self {
        let mut node = Node::new(&NodePlan {
            segments: vec![(1, Some(100))],
            vifs: vec![(VM, 1)],
            known: true,
            gateways: vec![(1, [10, 0, 0, 254], false)],
            public: Some([91, 207, 15, 105]),
            addresses: vec![(VM, [10, 0, 0, 1])],
            ..NodePlan::default()
        });
        node.flows = Table::in_memory(Table::lines_for(entries as usize / 2), 0x5eed_5eed_5eed);
        let from = (vm_mac(VM), [10, 0, 0, 1], 0);
        let template = udp(from, (GATEWAY_MAC, [8, 0, 0, 0], 53), &[0; FRAME - 42]);
        let chunks = [[0; CHUNK]; BATCH];
        let mut bed = Self { node, template, chunks, connections: 0, walked: 0, opened: 0 };
        while bed.connections < entries / 2 {
            let new = bed.new_ones();
            assert_eq!(bed.forward(new), BATCH, "all are translated and sent on");
            bed.connections += BATCH as u32;
        }
        bed
    }

    /// Connections that are open, in an order that no cache foresees.
    pub fn known(&mut self) -> [u32; BATCH] {
        let first = self.walked;
        self.walked = self.walked.wrapping_add(BATCH as u32);
        std::array::from_fn(|n| scatter(first + n as u32) % self.connections)
    }

    /// Connections that are not.
    pub fn new_ones(&mut self) -> [u32; BATCH] {
        let first = self.opened;
        self.opened += BATCH as u32;
        std::array::from_fn(|n| first + n as u32)
    }

    /// Writes a packet of each of these connections.
    pub fn fill(&mut self, numbers: [u32; BATCH]) -> &[[u8; CHUNK]; BATCH] {
        for (chunk, number) in self.chunks.iter_mut().zip(numbers) {
            let frame = &mut chunk[ROOM..ROOM + FRAME];
            frame.copy_from_slice(&self.template);
            // 8.x.y.z, port 1024 + n; the checksum is mended, not read.
            let [_, a, b, c] = (number >> 4).to_be_bytes();
            frame[31..34].copy_from_slice(&[a, b, c]);
            frame[34..36].copy_from_slice(&(1024 + (number & 15) as u16).to_be_bytes());
        }
        &self.chunks
    }

    /// The frames written last.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        self.chunks.iter().map(|chunk| &chunk[ROOM..ROOM + FRAME])
    }

    /// The same, to be changed.
    pub fn frames_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.chunks.iter_mut().map(|chunk| &mut chunk[ROOM..ROOM + FRAME])
    }

    /// Looks the lines of these connections up, as the pipeline does: how many there are.
    pub fn look_up(&self, numbers: [u32; BATCH]) -> usize {
        let flows = &self.node.flows;
        let hashed = numbers.map(|number| {
            let [_, a, b, c] = (number >> 4).to_be_bytes();
            let (dst, sport) = ([8, a, b, c], 1024 + (number & 15) as u16);
            let key = FlowKey::ipv4([10, 0, 0, 1], dst, sport, 53, 17, vif().get(), ZONE);
            let hash = flows.hash(key);
            flows.prefetch(hash);
            (key, hash)
        });
        hashed.iter().filter(|(key, hash)| flows.find(*key, *hash).is_some()).count()
    }

    /// Sends a packet of each through the pipeline; how many it sent on.
    pub fn forward(&mut self, numbers: [u32; BATCH]) -> usize {
        self.fill(numbers);
        let vif = PortId::new(10 + u16::from(VM)).unwrap_or(PortId::NONE);
        let mut batch = self.chunks.each_mut().map(|chunk| Packet::new(chunk, ROOM, FRAME, vif));
        self.node.pipeline().forward(&mut batch);
        let sent = |packet: &&Packet<'_>| matches!(packet.verdict, Some(Verdict::Forward(_)));
        batch.iter().filter(sent).count()
    }
}
