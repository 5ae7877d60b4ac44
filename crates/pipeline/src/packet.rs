//! One frame on its way through the pipeline.

use conntrack::FlowKey;
use tables::{PortId, SegmentId, Topology, ZoneId};
use wire::icmp::{self, IcmpError};
use wire::{Headers, MacAddr, Network, Station, ethertype, vlan};

use crate::pipeline::Step;
use crate::{DropReason, Verdict};

/// A frame in its chunk of memory, with what is known of it so far.
#[derive(Debug)]
pub struct Packet<'a> {
    chunk: &'a mut [u8],
    head: usize,
    len: usize,
    /// The port it came by.
    pub ingress: PortId,
    /// Its headers; meaningful once it is admitted.
    pub headers: Headers,
    /// Its segment; none on the public side, and until it is admitted.
    pub segment: SegmentId,
    /// The zone that is in; none on the public side.
    pub zone: ZoneId,
    /// Whether it is addressed to the node, which is to route it.
    pub routed: bool,
    /// Its flow; of a fragment that waits, its datagram.
    pub key: FlowKey,
    /// The hash of its flow.
    pub hash: u64,
    /// What happens to it; nothing yet while it is on its way.
    pub verdict: Option<Verdict>,
}

impl<'a> Packet<'a> {
    /// A frame of `len` bytes that starts at `head` of `chunk` and came by `ingress`.
    #[must_use]
    pub fn new(chunk: &'a mut [u8], head: usize, len: usize, ingress: PortId) -> Self {
        let len = len.min(chunk.len().saturating_sub(head));
        Self {
            chunk,
            head,
            len,
            ingress,
            headers: Headers {
                dst: MacAddr::ZERO,
                src: MacAddr::ZERO,
                vlan: None,
                tags: 0,
                ethertype: 0,
                l3: 0,
                network: Network::Other,
            },
            segment: SegmentId::NONE,
            zone: ZoneId::NONE,
            routed: false,
            key: FlowKey::l2([0; 6], [0; 6], 0, 0, 0),
            hash: 0,
            verdict: None,
        }
    }

    /// The frame as it stands.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.chunk.get(self.head..self.head + self.len).unwrap_or_default()
    }

    /// Source and destination of an IPv6 packet.
    #[inline]
    pub(crate) fn ipv6_addresses(&self) -> Option<([u8; 16], [u8; 16])> {
        wire::ipv6_addresses(self.bytes().get(usize::from(self.headers.l3)..)?)
    }

    /// The frame as it stands, to be changed in place.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.chunk.get_mut(self.head..self.head + self.len).unwrap_or_default()
    }

    /// Turns it into an error about itself, from `gateway`; false where there is no room for one.
    pub(crate) fn become_error(&mut self, error: IcmpError, gateway: Station) -> bool {
        let l3 = usize::from(self.headers.l3);
        let Some(range) = icmp::error(self.chunk, self.head, self.len, l3, error, gateway) else {
            return false;
        };
        (self.head, self.len) = range;
        true
    }

    /// Where the frame stands in its chunk: offset of its first byte, and its length.
    #[must_use]
    pub const fn range(&self) -> (usize, usize) {
        (self.head, self.len)
    }

    /// Length of what the Ethernet header carries, bytes; compare it with an MTU.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.len.saturating_sub(usize::from(self.headers.l3))
    }

    /// Takes the tag off that the headers say is there.
    pub(crate) fn untag(&mut self) {
        let head = vlan::pop(self.chunk, self.head);
        self.len -= head - self.head;
        self.head = head;
        self.headers.l3 -= wire::TAG_LEN as u16;
        self.headers.tags = 0;
    }

    /// Puts back the tag it came with, to go back by the port it came by or to wait.
    pub(crate) fn retag(&mut self, topology: &Topology) -> Step<()> {
        let uplink = topology.segment(self.segment).and_then(|segment| segment.uplink);
        let tag = uplink.filter(|uplink| uplink.port == self.ingress).and_then(|way| way.vlan);
        match tag {
            Some(vlan) if !self.tag(vlan) => Err(Verdict::Drop(DropReason::NoRoom)),
            _ => Ok(()),
        }
    }

    /// Puts a segment's tag on. A frame without room before it keeps its place and says no.
    pub(crate) fn tag(&mut self, vlan: u16) -> bool {
        let Some(head) = vlan::push(self.chunk, self.head, ethertype::VLAN, vlan) else {
            return false;
        };
        self.len += self.head - head;
        self.head = head;
        true
    }
}
