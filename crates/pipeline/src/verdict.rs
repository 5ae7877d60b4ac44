//! What happens to a packet.

use tables::{Link, PortId, SegmentId};

/// The end of a packet's way through the pipeline; every packet gets exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leaves by this port; tag and addresses are already what they must be.
    Forward(PortId),
    /// Leaves, as it is, by every port of the segment but the one it came by.
    Flood(SegmentId),
    /// Leaves by this port in fragments: it is larger than the port takes, and may be cut.
    Fragment(PortId),
    /// It is an answer by now, and leaves by the port it came by.
    Reply(PortId),
    /// Waits, as it came, until this neighbour is known.
    Hold(Link, [u8; 4]),
    /// Goes back to the stack of the NIC it came by: it is the host's.
    Host,
    /// Was for the node itself, which has read it: an answer to its own question.
    Taken,
    /// Ends here.
    Drop(DropReason),
}

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal,)*) => {
        /// Why a packet ended here. Each is a counter, a line in `docs/drops.md` and a test.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $doc])* $variant,)* }

        impl DropReason {
            /// All reasons, in the order of their counters.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// The name of the counter, in metrics and on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One sentence for an operator.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),*),)* }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than an Ethernet header, or cut within its tag.
    Runt = "runt",
    /// An ARP packet cut short, or not for IPv4 over Ethernet.
    MalformedArp = "malformed_arp",
    /// An IPv4 header whose version or lengths contradict the frame.
    MalformedIpv4 = "malformed_ipv4",
    /// An IPv6 header whose version or length contradicts the frame.
    MalformedIpv6 = "malformed_ipv6",
    /// A TCP, UDP or ICMP header cut short by its own packet.
    MalformedTransport = "malformed_transport",
    /// The source address is a group's or all zero, which no station has.
    BadSource = "bad_source",
    /// Spanning tree, LACP, LLDP or pause: a bridge must not forward it (01:80:c2:00:00:0x).
    LinkLocal = "link_local",
    /// A guest sent a tagged frame; its segment's tag is put on by the node alone.
    GuestTag = "guest_tag",
    /// A guest sent a frame with two tags, as one does to hop into another VLAN.
    GuestDoubleTag = "guest_double_tag",
    /// A frame from the trunk carries a second tag behind its segment's.
    TrunkDoubleTag = "trunk_double_tag",
    /// The port it came by was unplugged while it was on its way.
    NoPort = "no_port",
    /// The port it came by is in no segment (any more).
    NoSegment = "no_segment",
    /// The way to its destination leads back where it came from.
    Reflected = "reflected",
    /// Larger than the port it must leave by can carry.
    TooBig = "too_big",
    /// No room before the frame for its tag: the port hands out frames without headroom.
    NoRoom = "no_room",
    /// A guest left its checksum to a device, and behind XDP there is none; the port moves to tc.
    PartialChecksum = "partial_checksum",
    /// Its time to live ran out here, and its sender could not be told (any more).
    Ttl = "ttl",
    /// Nobody knows the way to its destination, and its sender could not be told (any more).
    NoRoute = "no_route",
    /// Its neighbour does not answer, and its sender could not be told (any more).
    NoNeighbour = "no_neighbour",
    /// Larger than the next link takes and not to be cut; its sender could not be told (any more).
    NeedsFragments = "needs_fragments",
    /// It waited for its neighbour until others needed the room.
    HoldFull = "hold_full",
    /// It waited for its neighbour longer than anybody waits.
    Unresolved = "unresolved",
    /// It would leave with an address nobody can answer to: its source is in no network here, or
    /// `routing_source_ip` is not set.
    NoSource = "no_source",
    /// No port of the shared source address is free towards its destination.
    NoPorts = "no_ports",
    /// A fragment whose addresses would have to change.
    NatFragment = "nat_fragment",
    /// An ICMP error or echo reply that belongs to no connection here.
    Unrelated = "unrelated",
    /// An answer in a connection that has been ended: a floating address went elsewhere.
    Revoked = "revoked",
    /// A new connection, and the table has no room for it.
    TableFull = "table_full",
    /// A new connection, and its VM has as many as it may.
    Quota = "quota",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_name_of_its_own_and_a_sentence() {
        for (at, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, at);
            assert!(reason.meaning().trim().ends_with('.'), "{}", reason.name());
            assert!(!DropReason::ALL[..at].iter().any(|other| other.name() == reason.name()));
        }
    }
}
