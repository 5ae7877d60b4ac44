//! The kernel's connections, taken into trunkline's table when a node is taken over.
//!
//! Both lines of a connection are installed with its translation, if it has one, and without a way:
//! the first packet of each direction finds that in a worker. What is neither translated nor a VM's
//! of this node needs no line: its next packet opens it anew as it was. A VM's does, since its
//! security groups let answers in, and whose packet is an answer only the line tells.

use std::net::Ipv4Addr;

use anyhow::Result;
use conntrack::layout::{REWRITES, ROUTED, SEEN};
use conntrack::{FlowKey, Installed, NewLine, Rewrite};
use control::adopt::conntrack::{Connection, Connections, Tuple};
use ipnet::{IpNet, Ipv4Net};
use tables::{PortId, SegmentId, ZoneId};

use crate::node::Node;

/// IP protocol number of ICMP.
const ICMP: u8 = 1;

/// Where packets with a certain source come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    port: PortId,
    zone: ZoneId,
    segment: SegmentId,
}

/// Who is where, as far as the configuration knows.
#[derive(Debug)]
struct Places {
    vms: Vec<(Ipv4Addr, Place)>,
    networks: Vec<(Ipv4Net, Place)>,
    /// The node's own.
    host: Vec<Ipv4Addr>,
    public: Place,
}

impl Places {
    /// Where packets from this address come in; none if they are the node's own.
    fn of(&self, address: Ipv4Addr) -> Option<Place> {
        if self.host.contains(&address) {
            return None;
        }
        let vm = self.vms.iter().find(|(vm, _)| *vm == address).map(|(_, place)| *place);
        let network = || self.networks.iter().find(|(cidr, _)| cidr.contains(&address));
        vm.or_else(|| network().map(|(_, place)| *place)).or(Some(self.public))
    }

    /// Whether a connection would not be the same without its lines.
    fn needs(&self, connection: &Connection) -> bool {
        let is_vm = |address: Ipv4Addr| self.vms.iter().any(|(vm, _)| *vm == address);
        let ends = [connection.original.source, connection.reply.source];
        connection.is_open() && (connection.is_translated() || ends.into_iter().any(is_vm))
    }

    /// The two lines of a connection; none if the node itself is one of its ends.
    fn lines(&self, connection: &Connection) -> Option<(NewLine, NewLine)> {
        let (original, reply) = (connection.original, connection.reply);
        let (from, to) = (self.of(original.source)?, self.of(reply.source)?);
        let protocol = connection.protocol;
        let answers = reply.answers();
        let there = changes(original, answers, protocol, true);
        let back = changes(reply, original.answers(), protocol, false);
        let rewrites = if connection.is_translated() { REWRITES } else { 0 };
        let routed = if rewrites != 0 || from.segment != to.segment { ROUTED } else { 0 };
        let line = |tuple, at: Place, is_request, rewrite: Rewrite, next: Place| NewLine {
            key: key(tuple, protocol, is_request, at),
            rewrite: Rewrite {
                egress: next.port.get(),
                segment: next.segment.get(),
                flags: rewrites | routed,
                ..rewrite
            },
        };
        Some((line(original, from, true, there, to), line(reply, to, false, back, from)))
    }
}

fn key(tuple: Tuple, protocol: u8, is_request: bool, at: Place) -> FlowKey {
    let (src, dst) = (tuple.source.octets(), tuple.destination.octets());
    let (port, zone) = (at.port.get(), at.zone.get());
    match protocol {
        ICMP => FlowKey::echo(src, dst, tuple.source_port, is_request, port, zone),
        _ => {
            let (sport, dport) = (tuple.source_port, tuple.destination_port);
            FlowKey::ipv4(src, dst, sport, dport, protocol, port, zone)
        }
    }
}

/// What is done to packets that come as `before` and leave as `after`; zero leaves a field alone.
fn changes(before: Tuple, after: Tuple, protocol: u8, is_request: bool) -> Rewrite {
    let address = |old: Ipv4Addr, new: Ipv4Addr| if old == new { [0; 4] } else { new.octets() };
    let port = |old: u16, new: u16| if old == new { 0 } else { new };
    let source_port = port(before.source_port, after.source_port);
    let destination_port = port(before.destination_port, after.destination_port);
    // An echo has one number, in the place of the port of whoever asked.
    let (source_port, destination_port) = match (protocol, is_request) {
        (ICMP, true) => (source_port, 0),
        (ICMP, false) => (0, destination_port),
        _ => (source_port, destination_port),
    };
    Rewrite {
        source: address(before.source, after.source),
        destination: address(before.destination, after.destination),
        source_port,
        destination_port,
        ..Rewrite::default()
    }
}

impl Node {
    /// Takes the kernel's connections over, where that has not been done; twice is no harm.
    pub(crate) async fn inherit(&self) -> Result<()> {
        if self.adopted.as_ref().is_none_or(|adopted| adopted.record.inherited) {
            return Ok(());
        }
        let mut notes = Vec::new();
        let connections = Connections::parse(&control::adopt::connections(&mut notes));
        notes.iter().for_each(|note| tracing::warn!("{note}"));
        let places = self.places().await?;
        let (mut taken, mut refused) = (0, 0);
        let mut needed: Vec<_> = connections.all.iter().filter(|one| places.needs(one)).collect();
        // Where two have packets in common, the one that is translated is the one that is open.
        needed.sort_by_key(|one| !one.is_translated());
        for (original, reply) in
            needed.into_iter().filter_map(|connection| places.lines(connection))
        {
            let (flows, now) = (&self.workers.flows, dataplane::now());
            match flows.install(&original, &reply, self.stamp, now) {
                Ok(Installed::New { reply, .. }) => {
                    // It was answered; else it would be forgotten as one that was not.
                    flows.touch(&reply, now, SEEN);
                    taken += 1;
                }
                Ok(Installed::Existing(_)) => {}
                Err(_) => refused += 1,
            }
        }
        tracing::info!(taken, refused, "the kernel's connections go on");
        Ok(())
    }

    /// The kernel's connections are ours from now on.
    pub(crate) fn has_inherited(&mut self) {
        let Some(adopted) = &mut self.adopted else { return };
        if std::mem::replace(&mut adopted.record.inherited, true) {
            return;
        }
        if let Err(error) = adopted.record.write(&self.model.node) {
            tracing::error!("the record of what was taken over cannot be written: {error}");
        }
    }

    async fn places(&self) -> Result<Places> {
        let place = |port: &str, network: &control::model::Network| Place {
            port: self.plugged(port).unwrap_or(PortId::NONE),
            zone: self.names.zone(&network.zone),
            segment: self.names.segment(&network.name),
        };
        let model = &self.model;
        let vms = model.vifs.iter().filter_map(|vif| {
            let at = place(&vif.name, model.networks.get(vif.network)?);
            Some(vif.addresses.iter().map(move |address| (*address, at)))
        });
        let networks = model
            .networks
            .iter()
            .filter_map(|network| Some((network.cidr?, place(&network.uplink, network))));
        let public = model.nics.iter().find(|nic| nic.public).map_or("", |nic| &nic.name);
        let floats: Vec<Ipv4Addr> = model.floats.iter().map(|float| float.address).collect();
        let addresses = self.links.addresses().await?;
        let host = addresses.iter().filter_map(|(_, net)| match net {
            IpNet::V4(net) => Some(net.addr()).filter(|own| !floats.contains(own)),
            IpNet::V6(_) => None,
        });
        Ok(Places {
            vms: vms.flatten().collect(),
            networks: networks.collect(),
            host: host.collect(),
            public: Place {
                port: self.plugged(public).unwrap_or(PortId::NONE),
                zone: ZoneId::NONE,
                segment: SegmentId::NONE,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(port: u16, zone: u16) -> Place {
        Place {
            port: PortId::new(port).unwrap(),
            zone: ZoneId::new(zone).unwrap_or(ZoneId::NONE),
            segment: SegmentId::new(zone).unwrap_or(SegmentId::NONE),
        }
    }

    fn places() -> Places {
        Places {
            vms: vec![([10, 0, 0, 3].into(), place(7, 1)), ([10, 0, 0, 4].into(), place(8, 1))],
            networks: vec![("10.0.0.0/24".parse().unwrap(), place(1, 1))],
            host: vec![[91, 207, 15, 105].into(), [10, 0, 0, 1].into()],
            public: place(2, 0),
        }
    }

    fn lines(text: &str) -> Option<(NewLine, NewLine)> {
        let all = Connections::parse(text).all;
        places().lines(&all[0])
    }

    #[test]
    fn a_connection_through_snat_keeps_its_port() {
        let (original, reply) = lines(
            "ipv4 2 tcp 6 431999 ESTABLISHED src=10.0.0.4 dst=8.8.8.8 sport=4000 dport=80 \
             src=8.8.8.8 dst=91.207.15.105 sport=80 dport=1025 [ASSURED] mark=0 use=1",
        )
        .unwrap();
        assert_eq!(original.key, FlowKey::ipv4([10, 0, 0, 4], [8; 4], 4000, 80, 6, 8, 1));
        assert_eq!(reply.key, FlowKey::ipv4([8; 4], [91, 207, 15, 105], 80, 1025, 6, 2, 0));
        let (there, back) = (original.rewrite, reply.rewrite);
        assert_eq!((there.source, there.destination), ([91, 207, 15, 105], [0; 4]));
        assert_eq!((there.source_port, there.destination_port), (1025, 0));
        assert_eq!((back.source, back.destination), ([0; 4], [10, 0, 0, 4]));
        assert_eq!((back.source_port, back.destination_port), (0, 4000));
        assert_eq!((there.egress, back.egress, back.segment), (2, 8, 1));
        assert_eq!((there.flags, back.flags), (REWRITES | ROUTED, REWRITES | ROUTED));
    }

    #[test]
    fn one_in_by_a_floating_address_comes_from_the_public_side() {
        let (original, reply) = lines(
            "ipv4 2 tcp 6 100 ESTABLISHED src=8.8.8.8 dst=91.208.23.11 sport=4000 dport=80 \
             src=10.0.0.3 dst=8.8.8.8 sport=80 dport=4000 [ASSURED] mark=0 use=1",
        )
        .unwrap();
        assert_eq!(original.key, FlowKey::ipv4([8; 4], [91, 208, 23, 11], 4000, 80, 6, 2, 0));
        assert_eq!(reply.key, FlowKey::ipv4([10, 0, 0, 3], [8; 4], 80, 4000, 6, 7, 1));
        assert_eq!(original.rewrite.destination, [10, 0, 0, 3]);
        assert_eq!(reply.rewrite.source, [91, 208, 23, 11]);
    }

    #[test]
    fn an_echo_has_its_number_on_the_side_of_who_asks() {
        let (original, reply) = lines(
            "ipv4 2 icmp 1 29 src=10.0.0.4 dst=8.8.8.8 type=8 code=0 id=5 src=8.8.8.8 \
             dst=91.207.15.105 type=0 code=0 id=6 mark=0 use=1",
        )
        .unwrap();
        assert_eq!(original.key, FlowKey::echo([10, 0, 0, 4], [8; 4], 5, true, 8, 1));
        assert_eq!(reply.key, FlowKey::echo([8; 4], [91, 207, 15, 105], 6, false, 2, 0));
        let (there, back) = (original.rewrite, reply.rewrite);
        assert_eq!((there.source_port, there.destination_port), (6, 0));
        assert_eq!((back.source_port, back.destination_port), (0, 5));
    }

    #[test]
    fn what_is_not_translated_goes_on_where_a_vm_of_this_node_has_an_end_of_it() {
        let text = "ipv4 2 tcp 6 431999 ESTABLISHED src=10.0.0.4 dst=10.0.0.9 sport=4000 dport=80 \
                    src=10.0.0.9 dst=10.0.0.4 sport=80 dport=4000 [ASSURED] mark=0 use=1";
        let (original, reply) = lines(text).unwrap();
        assert_eq!(original.key, FlowKey::ipv4([10, 0, 0, 4], [10, 0, 0, 9], 4000, 80, 6, 8, 1));
        assert_eq!(reply.key, FlowKey::ipv4([10, 0, 0, 9], [10, 0, 0, 4], 80, 4000, 6, 1, 1));
        assert_eq!((original.rewrite.flags, original.rewrite.source), (0, [0; 4]));
        let needs = |text: &str| places().needs(&Connections::parse(text).all[0]);
        assert!(needs(text));
        assert!(!needs(&text.replace("10.0.0.4", "10.0.0.8")), "others' pass here alone");
        assert!(!needs(&text.replace("ESTABLISHED", "TIME_WAIT")));
    }

    #[test]
    fn what_the_node_itself_speaks_stays_the_kernels() {
        let own = "ipv4 2 tcp 6 100 ESTABLISHED src=91.207.15.105 dst=91.208.23.11 sport=4 dport=5 \
                   src=10.0.0.3 dst=91.207.15.105 sport=5 dport=4 mark=0 use=1";
        assert!(lines(own).is_none());
        let metadata = "ipv4 2 tcp 6 100 ESTABLISHED src=10.0.0.3 dst=169.254.169.254 sport=4 \
                        dport=80 src=10.0.0.1 dst=10.0.0.3 sport=8775 dport=4 mark=0 use=1";
        assert!(lines(metadata).is_none());
    }
}
