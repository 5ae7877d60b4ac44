//! What happens to a packet.

use tables::{PortId, SegmentId};

/// The end of a packet's way through the pipeline; every packet gets exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leaves by this port; tag and addresses are already what they must be.
    Forward(PortId),
    /// Leaves, as it is, by every port of the segment but the one it came by.
    Flood(SegmentId),
    /// Goes back to the stack of the NIC it came by: it is the host's.
    Host,
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
    /// A guest left its checksum to a device, and a veth with XDP has none; the port moves to tc.
    PartialChecksum = "partial_checksum",
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
