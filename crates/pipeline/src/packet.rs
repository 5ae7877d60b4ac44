//! One frame on its way through the pipeline.

use conntrack::FlowKey;
use tables::{PortId, SegmentId};
use wire::{Headers, MacAddr, Network, ethertype, vlan};

use crate::Verdict;

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
    /// Its segment; none until it is admitted.
    pub segment: SegmentId,
    /// Its flow.
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
