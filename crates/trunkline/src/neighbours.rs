//! The node's own ARP in segments: questions sent, answers believed, addresses announced.

use std::net::Ipv4Addr;

use control::neighbours::{Ask, Change};
use ipnet::Ipv4Net;
use tables::{Float, Gateway, Link, PortId, Segment, SegmentId, Snapshot};
use wire::{MacAddr, Station, arp, ethertype, vlan};

use crate::node::Node;

/// An address that is still to be announced by a port, a second apart.
#[derive(Clone, Debug)]
pub(crate) struct Announcement {
    port: PortId,
    what: Announced,
    left: u32,
}

#[derive(Clone, Copy, Debug)]
enum Announced {
    Float([u8; 4]),
    Gateway(SegmentId, Gateway),
}

impl Announcement {
    /// The frame that says so; none if it is not so any more.
    fn frame(&self, tables: &Snapshot) -> Option<Vec<u8>> {
        let mac = tables.topology.mac(self.port);
        match self.what {
            Announced::Float(address) => {
                tables.nat.float(address).filter(|float| float.port == self.port)?;
                Some(arp::gratuitous(Station { mac, address }).to_vec())
            }
            Announced::Gateway(segment, gateway) => {
                let segment = tables.topology.segment(segment)?;
                let holds =
                    segment.gateway == Some(gateway) && segment.members.contains(&self.port);
                let frame = arp::gratuitous(Station { mac, address: gateway.address });
                holds.then(|| as_it_leaves(segment, self.port, &frame))
            }
        }
    }
}

impl Node {
    /// A worker has a packet for somebody it does not know.
    pub(crate) async fn wanted(&mut self, link: Link, address: [u8; 4], now: u32) {
        match link {
            Link::Segment(segment) => {
                if let Some(ask) = self.neighbours.want((segment, address), now) {
                    self.send_question(&ask);
                }
            }
            Link::Public(port) => self.want_public(port, Ipv4Addr::from(address)).await,
        }
    }

    /// Somebody spoke for an address. Whether workers must know.
    pub(crate) fn heard(
        &mut self,
        place: control::neighbours::Place,
        mac: MacAddr,
        now: u32,
    ) -> bool {
        match self.neighbours.heard(place, mac, now) {
            Change::None => false,
            Change::New => true,
            Change::Moved(before) => {
                self.revoke([(place.0, before)]);
                true
            }
        }
    }

    /// What is due every second: questions, and what nobody answered; announcements.
    pub(crate) fn second(&mut self) {
        let stations = &self.stations;
        let seen = |segment, mac| stations.seen((segment, mac));
        let tick = self.neighbours.tick(dataplane::now(), seen);
        for ask in &tick.asks {
            self.send_question(ask);
        }
        if !tick.lost.is_empty() {
            self.revoke(tick.lost);
        }
        if !tick.changed.is_empty() {
            self.publish();
        }
        self.announce();
        self.watch_redirects();
    }

    /// Asks by every port of the segment but the host's: as the gateway towards VMs, as the node
    /// on the trunk, and there without a name where others have the gateway's address too.
    fn send_question(&self, ask: &Ask) {
        let (segment, address) = ask.place;
        let tables = self.publisher.current();
        let Some(segment) = tables.topology.segment(segment) else { return };
        let Some(gateway) = segment.gateway else { return };
        for port in segment.members.iter().filter(|port| **port != segment.host) {
            let on_trunk = is_uplink(segment, *port);
            let named = if on_trunk && gateway.shared { [0; 4] } else { gateway.address };
            let sender = Station { mac: tables.topology.mac(*port), address: named };
            let question = arp::request(sender, address, ask.to.unwrap_or(MacAddr::BROADCAST));
            let sent = self.sender.send(port.get(), &as_it_leaves(segment, *port, &question));
            if let Err(error) = sent {
                tracing::debug!(port = port.get(), %error, "a question was not sent");
            }
        }
    }

    /// Has addresses announced that were not there before (nova's `send_arp_for_ha`): floating
    /// ones on the public side, gateways in their segments.
    pub(crate) fn announce_new(&mut self, before: &Snapshot, now: &Snapshot) {
        if self.model.announcements == 0 {
            return;
        }
        let known = |float: &Float| before.nat.float(float.address) == Some(float);
        for float in now.nat.floats().filter(|float| !known(float)) {
            self.announce_by(float.port, Announced::Float(float.address));
        }
        for segment in now.topology.segments() {
            let Some(gateway) = segment.gateway else { continue };
            let was = before.topology.segment(segment.id);
            let was = was.filter(|was| was.gateway == segment.gateway);
            let told = was.map_or(&[][..], |was| &was.members);
            for port in segment.members.iter().filter(|port| !told.contains(port)) {
                // On the trunk others have a shared gateway's address as well.
                let on_trunk = is_uplink(segment, *port);
                if *port == segment.host || (on_trunk && gateway.shared) {
                    continue;
                }
                self.announce_by(*port, Announced::Gateway(segment.id, gateway));
            }
        }
    }

    fn announce_by(&mut self, port: PortId, what: Announced) {
        let left = self.model.announcements;
        self.announcements.push(Announcement { port, what, left });
    }

    fn announce(&mut self) {
        let (tables, sender) = (self.publisher.current(), &self.sender);
        self.announcements.retain_mut(|announcement| {
            // Another node may have it by now.
            let Some(frame) = announcement.frame(&tables) else { return false };
            if let Err(error) = sender.send(announcement.port.get(), &frame) {
                tracing::warn!(port = announcement.port.get(), %error, "an announcement failed");
            }
            announcement.left -= 1;
            announcement.left > 0
        });
    }

    /// Gives every host port the gateway's address of its network, so that the host's services are
    /// reached there and the host reaches VMs.
    pub(crate) async fn address_host_ports(&mut self) -> anyhow::Result<()> {
        for network in self.model.networks.clone() {
            let Some(foot) = self.links.by_name(&network.bridge).await? else { continue };
            if self.plugged(&control::netlink::host_port_name(&network.bridge)).is_none() {
                continue;
            }
            // A bridge of nova's keeps what it has.
            if self.kept(&network.bridge).is_some() {
                continue;
            }
            let in_zone = network.zone == control::compile::HOST_ZONE;
            let address = network.gateway.zip(network.cidr).filter(|_| in_zone);
            let address =
                address.and_then(|(gateway, cidr)| Ipv4Net::new(gateway, cidr.prefix_len()).ok());
            self.kernel.ignore_arp(&network.bridge)?;
            if foot.mac != Some(tables::GATEWAY_MAC) {
                self.links.set_mac(foot.index, tables::GATEWAY_MAC).await?;
            }
            self.links.set_address(foot.index, address).await?;
        }
        Ok(())
    }
}

fn is_uplink(segment: &Segment, port: PortId) -> bool {
    segment.uplink.is_some_and(|uplink| uplink.port == port)
}

/// A frame of the node's own as it leaves by a port of a segment: tagged on the trunk.
fn as_it_leaves(segment: &Segment, port: PortId, frame: &[u8]) -> Vec<u8> {
    let tag = segment.uplink.filter(|_| is_uplink(segment, port)).and_then(|way| way.vlan);
    let mut room = vec![0; wire::TAG_LEN + frame.len()];
    room[wire::TAG_LEN..].copy_from_slice(frame);
    let start = tag.and_then(|tag| vlan::push(&mut room, wire::TAG_LEN, ethertype::VLAN, tag));
    room.split_off(start.unwrap_or(wire::TAG_LEN))
}
