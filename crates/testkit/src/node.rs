//! A compute node in memory: real tables, real pipeline, no kernel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use conntrack::{Fragments, Table};
use ipnet::{IpNet, Ipv4Net};
use pipeline::{Counters, Learner, Limiter, Notice, Packet, Pipeline, Verdict};
use tables::{
    Egress, Fdb, FdbEntry, Float, GATEWAY_MAC, Gateway, Identity, Link, Nat, Neighbour, Neighbours,
    NextHop, Port, PortId, PortKind, Route, Routes, Segment, SegmentId, Snapshot, Snat, Topology,
    Uplink, ZoneId,
};
use wire::{MacAddr, Station};

/// Room before a frame, as a NIC leaves it.
const HEADROOM: usize = 256;
/// Lines of the table: plenty for a test.
const LINES: usize = 1 << 12;

/// What a node consists of: segments (number, VLAN) and vifs (VM number, segment number).
#[derive(Clone, Debug, Default)]
pub struct NodePlan {
    pub segments: Vec<(u16, Option<u16>)>,
    pub vifs: Vec<(u8, u16)>,
    /// Whether configuration tells the vifs' MAC addresses.
    pub known: bool,
    /// The node's number: of its own MAC addresses.
    pub number: u8,
    /// Segments it routes for, with its address and whether others have that too.
    pub gateways: Vec<(u16, [u8; 4], bool)>,
    /// Its address on the public side, where it is routed to the upstream router.
    pub public: Option<[u8; 4]>,
    /// The vifs' IPv4 addresses.
    pub addresses: Vec<(u8, [u8; 4])>,
    /// Floating addresses of its VMs.
    pub floats: Vec<([u8; 4], u8)>,
}

/// The trunk's and the public NIC's port number; VM N's vif is 10 + N, segment S's host port
/// 100 + S.
pub(crate) const TRUNK: u16 = 1;
pub(crate) const PUBLIC: u16 = 2;
/// The upstream router.
pub const ROUTER: Station = Station { mac: MacAddr([2, 0, 0, 0, 9, 9]), address: [91, 207, 15, 1] };

/// One node.
#[derive(Debug)]
pub struct Node {
    pub tables: Snapshot,
    pub flows: Table,
    pub fragments: Fragments,
    pub counters: Counters,
    pub learner: Learner,
    pub limiter: Limiter,
    pub now: u32,
    /// Frames that wait for a neighbour.
    pub held: Vec<(PortId, Vec<u8>)>,
    /// Fragments that wait for their first.
    pub late: Vec<(PortId, Vec<u8>)>,
}

/// A node's own MAC address on a NIC.
fn nic_mac(node: u8, port: u16) -> MacAddr {
    MacAddr([2, 0, 0, 0, node, port as u8])
}

pub(crate) fn port_id(number: u16) -> PortId {
    PortId::new(number).unwrap()
}

fn port(node: u8, number: u16, kind: PortKind, segment: u16) -> Port {
    let segment = SegmentId::new(segment).unwrap_or(SegmentId::NONE);
    let id = port_id(number);
    Port {
        id,
        kind,
        segment,
        egress: Egress::Punt,
        public: kind == PortKind::Public,
        mac: match kind {
            PortKind::Vif | PortKind::Host => GATEWAY_MAC,
            PortKind::Trunk | PortKind::Public => nic_mac(node, number),
        },
        mtu: 1500,
        stamp: 1,
        partial_checksums: false,
        limits: tables::Limits::default(),
        station: None,
        identity: None,
    }
}

impl Node {
    /// Has VMs' DHCP requests answered by the node, by a server at its host ports, or by nobody
    /// here; its vifs are those of the VMs of their numbers.
    pub fn serve_dhcp(&mut self, dhcp: tables::Dhcp) {
        let mut ports: Vec<Port> = self.tables.topology.ports().cloned().collect();
        for port in ports.iter_mut().filter(|port| port.kind == PortKind::Vif) {
            port.station = Some(crate::vm_mac(port.id.get() as u8 - 10));
        }
        let segments = self.tables.topology.segments().cloned();
        let segments = segments.map(|segment| Segment { dhcp, ..segment }).collect();
        self.tables.topology = Arc::new(Topology::new(ports, segments));
    }

    /// Limits what a VM's vif may have.
    pub fn limit(&mut self, vm: u8, limits: tables::Limits) {
        let vif = port_id(10 + u16::from(vm));
        let mut ports: Vec<Port> = self.tables.topology.ports().cloned().collect();
        for port in ports.iter_mut().filter(|port| port.id == vif) {
            port.limits = limits;
        }
        let segments = self.tables.topology.segments().cloned().collect();
        self.tables.topology = Arc::new(Topology::new(ports, segments));
    }

    /// A node with empty tables of connections and counters.
    pub fn new(plan: &NodePlan) -> Self {
        let mut ports = vec![
            port(plan.number, TRUNK, PortKind::Trunk, 0),
            port(plan.number, PUBLIC, PortKind::Public, 0),
        ];
        let mut fdb = Fdb::default();
        let mut members: BTreeMap<u16, Vec<PortId>> = BTreeMap::new();
        for (segment, _) in &plan.segments {
            ports.push(port(plan.number, 100 + segment, PortKind::Host, *segment));
            members.insert(*segment, vec![port_id(TRUNK), port_id(100 + segment)]);
        }
        for (vm, segment) in &plan.vifs {
            let vif = port(plan.number, 10 + u16::from(*vm), PortKind::Vif, *segment);
            members.get_mut(segment).unwrap().push(vif.id);
            if plan.known {
                let entry = FdbEntry { port: vif.id, fixed: true };
                fdb.insert(vif.segment, crate::vm_mac(*vm), entry);
            }
            ports.push(vif);
        }
        let segments = plan.segments.iter().map(|(number, vlan)| Segment {
            id: segment_id(*number),
            zone: zone(),
            uplink: Some(Uplink { port: port_id(TRUNK), vlan: *vlan }),
            members: members[number].clone(),
            gateway: plan.gateways.iter().find(|(segment, ..)| segment == number).map(
                |(_, address, shared)| Gateway { address: *address, shared: *shared, before: None },
            ),
            host: port_id(100 + number),
            taken_up: false,
            clamp_mss: None,
            dhcp: tables::Dhcp::Bridged,
        });
        let topology = Arc::new(Topology::new(ports, segments.collect()));
        let tables = Snapshot {
            generation: 1,
            stamp: 1,
            topology,
            fdb: Arc::new(fdb),
            routes: Arc::new(routes(plan)),
            neighbours: Arc::new(neighbours(plan)),
            nat: Arc::new(nat(plan)),
            walls: Arc::default(),
            policy: Arc::default(),
        };
        Self {
            tables,
            flows: Table::in_memory(LINES, 0x5eed),
            fragments: Fragments::new(0x5eed),
            counters: Counters::default(),
            learner: Learner::default(),
            limiter: Limiter::default(),
            now: 1000,
            held: Vec::new(),
            late: Vec::new(),
        }
    }

    /// Runs one frame through the pipeline and learns from it at once, as the control thread
    /// does a moment later. Returns the verdict and the frames to send, by port.
    pub fn receive(&mut self, ingress: PortId, frame: &[u8]) -> (Verdict, Vec<(PortId, Vec<u8>)>) {
        let mut chunk = vec![0; HEADROOM + frame.len()];
        chunk[HEADROOM..].copy_from_slice(frame);
        let mut batch = [Packet::new(&mut chunk, HEADROOM, frame.len(), ingress)];
        self.pipeline().forward(&mut batch);
        let verdict = batch[0].verdict.unwrap();
        let bytes = batch[0].bytes().to_vec();
        if let Verdict::Hold(..) = verdict {
            self.held.push((ingress, bytes.clone()));
        }
        if verdict == Verdict::Wait {
            self.late.push((ingress, bytes.clone()));
        }
        let asked = self.learn();
        let mut sent = self.dispatch(ingress, verdict, &bytes);
        sent.extend(asked);
        (verdict, sent)
    }

    /// How often it came to each verdict; drops are last.
    pub fn verdicts(&self) -> [u64; 7] {
        let counters = &self.counters;
        let each = [
            &counters.forward,
            &counters.flood,
            &counters.reply,
            &counters.held,
            &counters.host,
            &counters.taken,
            &counters.drop,
        ];
        each.map(|counter| counter.load(Relaxed))
    }

    /// Its pipeline, for a batch of one's own.
    pub fn pipeline(&mut self) -> Pipeline<'_> {
        Pipeline {
            tables: &self.tables,
            flows: &self.flows,
            fragments: &self.fragments,
            now: self.now,
            now_ms: u64::from(self.now) * 1000,
            counters: &self.counters,
            learner: &mut self.learner,
            limiter: &mut self.limiter,
        }
    }

    /// Frames that waited, to be received again.
    pub fn release(&mut self) -> Vec<(PortId, Vec<u8>)> {
        std::mem::take(&mut self.held)
    }

    fn dispatch(&self, from: PortId, verdict: Verdict, frame: &[u8]) -> Vec<(PortId, Vec<u8>)> {
        match verdict {
            Verdict::Forward(port) | Verdict::Reply(port) | Verdict::Fragment(port) => {
                vec![(port, frame.to_vec())]
            }
            Verdict::Flood(segment) | Verdict::FloodGuests(segment) => {
                let to_host = matches!(verdict, Verdict::Flood(_));
                let segment = self.tables.topology.segment(segment).unwrap();
                let uplink = segment.uplink.unwrap();
                let ask = pipeline::flooded(frame, segment.zone);
                let walls = &self.tables.walls;
                let hears = |port: PortId| ask.is_none_or(|ask| walls.judge(port, &ask).is_some());
                let others = segment.members.iter().filter(|port| **port != from);
                let others = others.filter(|port| to_host || **port != segment.host);
                others
                    .filter(|port| hears(**port))
                    .map(|port| match uplink.vlan {
                        Some(vlan) if *port == uplink.port => (*port, crate::tag(frame, vlan)),
                        _ => (*port, frame.to_vec()),
                    })
                    .collect()
            }
            Verdict::Host
            | Verdict::Taken
            | Verdict::Hold(..)
            | Verdict::Wait
            | Verdict::Drop(_) => Vec::new(),
        }
    }

    /// Does what the control thread would; the questions it asks.
    fn learn(&mut self) -> Vec<(PortId, Vec<u8>)> {
        let mut asked = Vec::new();
        let notices: Vec<Notice> = self.learner.notices().collect();
        for notice in notices {
            match notice {
                Notice::Seen { segment, mac, port } => self.station(segment, mac, port),
                Notice::Heard { segment, address, mac } => {
                    self.neighbour(segment, address, Neighbour::At(mac));
                }
                Notice::Wanted { link: Link::Segment(segment), address } => {
                    asked.extend(self.ask(segment, address));
                }
                Notice::Wanted { .. } | Notice::Denied { .. } | Notice::PartialChecksum { .. } => {}
            }
        }
        asked
    }

    /// An ARP request by every port of a segment.
    fn ask(&self, segment: SegmentId, address: [u8; 4]) -> Vec<(PortId, Vec<u8>)> {
        let segment = self.tables.topology.segment(segment).unwrap();
        let gateway = segment.gateway.unwrap();
        let uplink = segment.uplink.unwrap();
        let guests = segment.members.iter().filter(|port| **port != segment.host);
        guests
            .map(|port| {
                let on_trunk = *port == uplink.port;
                let speaker = if on_trunk && gateway.shared { [0; 4] } else { gateway.address };
                let sender = Station { mac: self.tables.topology.mac(*port), address: speaker };
                let frame = wire::arp::request(sender, address, MacAddr::BROADCAST);
                match uplink.vlan {
                    Some(vlan) if on_trunk => (*port, crate::tag(&frame, vlan)),
                    _ => (*port, frame.to_vec()),
                }
            })
            .collect()
    }

    /// Puts a neighbour of a segment in force.
    pub fn neighbour(&mut self, segment: SegmentId, address: [u8; 4], neighbour: Neighbour) {
        let mut neighbours = Neighbours::clone(&self.tables.neighbours);
        neighbours.insert(segment, address, neighbour);
        self.tables.neighbours = Arc::new(neighbours);
    }

    /// Builds a wall at a VM's vif: it may send as itself and from these addresses.
    pub fn identify(&mut self, vm: u8, addresses: &[(Option<MacAddr>, IpNet)]) {
        let mut ports: Vec<Port> = self.tables.topology.ports().cloned().collect();
        let vif = port_id(10 + u16::from(vm));
        for port in ports.iter_mut().filter(|port| port.id == vif) {
            port.station = Some(crate::vm_mac(vm));
            port.identity = Some(Identity::new(crate::vm_mac(vm), addresses));
        }
        let segments = self.tables.topology.segments().cloned().collect();
        self.tables.topology = Arc::new(Topology::new(ports, segments));
    }

    /// Puts a learned station into the fdb.
    pub fn station(&mut self, segment: SegmentId, mac: MacAddr, port: PortId) {
        let mut fdb = Fdb::clone(&self.tables.fdb);
        fdb.insert(segment, mac, FdbEntry { port, fixed: false });
        self.tables.fdb = Arc::new(fdb);
    }
}

pub(crate) fn segment_id(number: u16) -> SegmentId {
    SegmentId::new(number).unwrap()
}

fn zone() -> ZoneId {
    ZoneId::new(1).unwrap()
}

fn net(address: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new(address.into(), prefix).unwrap().trunc()
}

fn routes(plan: &NodePlan) -> Routes {
    let mut routes = Routes::default();
    for (segment, address, _) in &plan.gateways {
        routes.insert(zone(), net(*address, 24), Route::Segment(segment_id(*segment)));
        routes.insert(zone(), net(*address, 32), Route::Host);
    }
    if let Some(address) = plan.public {
        let port = port_id(PUBLIC);
        let up = Route::Public { port, via: Some(ROUTER.address) };
        routes.insert(ZoneId::NONE, net([0; 4], 0), up);
        routes.insert(ZoneId::NONE, net(address, 24), Route::Public { port, via: None });
        routes.insert(zone(), net(address, 32), Route::Host);
    }
    routes
}

fn neighbours(plan: &NodePlan) -> Neighbours {
    let mut neighbours = Neighbours::default();
    for (vm, address) in &plan.addresses {
        let (_, segment) = plan.vifs.iter().find(|(number, _)| number == vm).unwrap();
        let at = Neighbour::At(crate::vm_mac(*vm));
        neighbours.insert(segment_id(*segment), *address, at);
    }
    // All that is on the public link; where frames go there, the router decides in this world.
    let neighbour = Some(Neighbour::At(ROUTER.mac));
    for (number, last) in [(1, 1), (2, 105), (3, 106)] {
        let hop = NextHop { port: port_id(PUBLIC), address: [91, 207, 15, last], neighbour };
        neighbours.insert_hop(number, hop);
    }
    neighbours
}

fn nat(plan: &NodePlan) -> Nat {
    let mut nat = Nat::default();
    nat.source = plan.public;
    for (_, address, _) in &plan.gateways {
        nat.insert_source(zone(), net(*address, 24), Snat::Public);
    }
    for (address, vm) in &plan.floats {
        let (_, segment) = plan.vifs.iter().find(|(number, _)| number == vm).unwrap();
        let (_, fixed) = plan.addresses.iter().find(|(number, _)| number == vm).unwrap();
        nat.insert_float(Float {
            address: *address,
            fixed: *fixed,
            segment: segment_id(*segment),
            zone: zone(),
            vif: port_id(10 + u16::from(*vm)),
            port: port_id(PUBLIC),
            way: None,
        });
    }
    nat
}
