//! A compute node in memory: real tables, real pipeline, no kernel.

use std::collections::BTreeMap;
use std::sync::Arc;

use conntrack::Table;
use pipeline::{Counters, Learner, Notice, Packet, Pipeline, Verdict};
use tables::{
    Egress, Fdb, FdbEntry, GATEWAY_MAC, Port, PortId, PortKind, Segment, SegmentId, Snapshot,
    Topology, Uplink, ZoneId,
};
use wire::MacAddr;

/// Room before a frame, as a NIC leaves it.
const HEADROOM: usize = 256;
/// Lines of the table: plenty for a test.
const LINES: usize = 1 << 12;

/// What a node consists of: segments (number, VLAN) and vifs (VM number, segment number).
#[derive(Clone, Debug)]
pub struct NodePlan {
    pub segments: Vec<(u16, Option<u16>)>,
    pub vifs: Vec<(u8, u16)>,
    /// Whether configuration tells the vifs' addresses.
    pub known: bool,
}

/// The trunk's port number; VM N's vif is 10 + N, segment S's host port 100 + S.
pub(crate) const TRUNK: u16 = 1;

/// One node.
#[derive(Debug)]
pub struct Node {
    pub tables: Snapshot,
    pub flows: Table,
    pub counters: Counters,
    pub learner: Learner,
    pub now: u32,
}

pub(crate) fn port_id(number: u16) -> PortId {
    PortId::new(number).unwrap()
}

fn port(number: u16, kind: PortKind, segment: u16) -> Port {
    let segment = SegmentId::new(segment).unwrap_or(SegmentId::NONE);
    let id = port_id(number);
    Port {
        id,
        kind,
        segment,
        egress: Egress::Punt,
        public: kind == PortKind::Public,
        mac: GATEWAY_MAC,
        mtu: 1500,
        stamp: 1,
        partial_checksums: false,
    }
}

impl Node {
    /// A node with empty tables of connections and counters.
    pub fn new(plan: &NodePlan) -> Self {
        let mut ports = vec![port(TRUNK, PortKind::Trunk, 0)];
        let mut fdb = Fdb::default();
        let mut members: BTreeMap<u16, Vec<PortId>> = BTreeMap::new();
        for (segment, _) in &plan.segments {
            ports.push(port(100 + segment, PortKind::Host, *segment));
            members.insert(*segment, vec![port_id(TRUNK), port_id(100 + segment)]);
        }
        for (vm, segment) in &plan.vifs {
            let vif = port(10 + u16::from(*vm), PortKind::Vif, *segment);
            members.get_mut(segment).unwrap().push(vif.id);
            if plan.known {
                let entry = FdbEntry { port: vif.id, fixed: true };
                fdb.insert(vif.segment, crate::vm_mac(*vm), entry);
            }
            ports.push(vif);
        }
        let segments = plan.segments.iter().map(|(number, vlan)| Segment {
            id: SegmentId::new(*number).unwrap(),
            zone: ZoneId::new(1).unwrap(),
            uplink: Some(Uplink { port: port_id(TRUNK), vlan: *vlan }),
            members: members[number].clone(),
            gateway: None,
            host: port_id(100 + number),
            taken_up: None,
            clamp_mss: None,
        });
        let topology = Arc::new(Topology::new(ports, segments.collect()));
        Self {
            tables: Snapshot {
                generation: 1,
                stamp: 1,
                topology,
                fdb: Arc::new(fdb),
                ..Snapshot::default()
            },
            flows: Table::in_memory(LINES, 0x5eed),
            counters: Counters::default(),
            learner: Learner::default(),
            now: 1000,
        }
    }

    /// Runs one frame through the pipeline and learns from it at once, as the control thread
    /// does a moment later. Returns the verdict and the frames to send, by port.
    pub fn receive(&mut self, ingress: PortId, frame: &[u8]) -> (Verdict, Vec<(PortId, Vec<u8>)>) {
        let mut chunk = vec![0; HEADROOM + frame.len()];
        chunk[HEADROOM..].copy_from_slice(frame);
        let mut batch = [Packet::new(&mut chunk, HEADROOM, frame.len(), ingress)];
        let mut pipeline = Pipeline {
            tables: &self.tables,
            flows: &self.flows,
            now: self.now,
            counters: &self.counters,
            learner: &mut self.learner,
        };
        pipeline.forward(&mut batch);
        let verdict = batch[0].verdict.unwrap();
        let bytes = batch[0].bytes().to_vec();
        self.learn();
        (verdict, self.dispatch(ingress, verdict, &bytes))
    }

    fn dispatch(&self, from: PortId, verdict: Verdict, frame: &[u8]) -> Vec<(PortId, Vec<u8>)> {
        match verdict {
            Verdict::Forward(port) => vec![(port, frame.to_vec())],
            Verdict::Flood(segment) => {
                let segment = self.tables.topology.segment(segment).unwrap();
                let uplink = segment.uplink.unwrap();
                let others = segment.members.iter().filter(|port| **port != from);
                others
                    .map(|port| match uplink.vlan {
                        Some(vlan) if *port == uplink.port => (*port, crate::tag(frame, vlan)),
                        _ => (*port, frame.to_vec()),
                    })
                    .collect()
            }
            Verdict::Host | Verdict::Drop(_) => Vec::new(),
        }
    }

    fn learn(&mut self) {
        let notices: Vec<Notice> = self.learner.notices().collect();
        for notice in notices {
            if let Notice::Seen { segment, mac, port } = notice {
                self.station(segment, mac, port);
            }
        }
    }

    /// Puts a learned station into the fdb.
    pub fn station(&mut self, segment: SegmentId, mac: MacAddr, port: PortId) {
        let mut fdb = Fdb::clone(&self.tables.fdb);
        fdb.insert(segment, mac, FdbEntry { port, fixed: false });
        self.tables.fdb = Arc::new(fdb);
    }
}
