//! What happens to a packet.

use tables::{Link, PortId, SegmentId};

/// The end of a packet's way through the pipeline; every packet gets exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leaves by this port; tag and addresses are already what they must be.
    Forward(PortId),
    /// Leaves, as it is, by every port of the segment but the one it came by.
    Flood(SegmentId),
    /// The same, but not to the node's own foot in the segment: nothing there is for the host.
    FloodGuests(SegmentId),
    /// Leaves by this port in fragments: it is larger than the port takes, and may be cut.
    Fragment(PortId),
    /// It is an answer by now, and leaves by the port it came by.
    Reply(PortId),
    /// Waits, as it came, until this neighbour is known.
    Hold(Link, [u8; 4]),
    /// Waits, as it came, until the first fragment of its datagram is here; its key names that.
    Wait,
    /// Goes back to the stack of the NIC it came by: it is the host's.
    Host,
    /// Was for the node itself, which has read it: an answer to its own question, or
    /// a DHCP request.
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
    /// A VM sent it from a MAC address that is neither its own nor allowed it.
    SpoofedMac = "spoofed_mac",
    /// A VM sent it from an IPv4 address that is neither its own nor allowed it.
    SpoofedIpv4 = "spoofed_ipv4",
    /// A VM's ARP speaks for an address that is neither its own nor allowed it.
    SpoofedArp = "spoofed_arp",
    /// A VM sent it from an IPv6 address that is neither made of its MAC address nor allowed it.
    SpoofedIpv6 = "spoofed_ipv6",
    /// A VM's neighbour discovery speaks for an address that is neither its own nor allowed it.
    SpoofedNd = "spoofed_nd",
    /// A VM sent as a DHCP server: UDP from port 67, by IPv6 from 547.
    RogueDhcp = "rogue_dhcp",
    /// A VM sent as an IPv6 router: a router advertisement or a redirect.
    RogueRa = "rogue_ra",
    /// A VM's IPv6 headers do not say what they carry: cut in a first fragment (RFC 7112), or more
    /// than anybody sends.
    HiddenIpv6 = "hidden_ipv6",
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
    /// It waited for its neighbour, or for the first fragment of its datagram, and of its port so
    /// many waited that they took half of a worker's room.
    HeldQuota = "held_quota",
    /// It waited for its neighbour longer than anybody waits.
    Unresolved = "unresolved",
    /// Longer than a frame, and no memory was free to put its pieces together.
    NoMemory = "no_memory",
    /// It would leave with an address nobody can answer to: its source is in no network here, or
    /// `routing_source_ip` is not set.
    NoSource = "no_source",
    /// No port of the shared source address is free towards its destination, of those that were
    /// tried.
    NoPorts = "no_ports",
    /// Its addresses would have to change, and it has neither ports nor an echo's identifier by
    /// which an answer would find back: ICMP that is no echo, or an error in fragments.
    Untranslatable = "untranslatable",
    /// A first fragment cut within its transport header, or one that would write over that
    /// (RFC 1858, RFC 3128).
    TinyFragment = "tiny_fragment",
    /// A first fragment with the number of a datagram whose first fragment came a moment ago, and
    /// other ports: the later ones are not its.
    FragmentConflict = "fragment_conflict",
    /// A later fragment that waited two seconds for its first.
    FragmentAlone = "fragment_alone",
    /// A later fragment that waited for its first until others needed the room.
    FragmentsFull = "fragments_full",
    /// An ICMP error, an echo reply or what is left of a TCP connection, that would be translated
    /// and belongs to no connection here.
    Unrelated = "unrelated",
    /// An answer in a connection that has been ended, since a floating address went elsewhere; or
    /// any packet of one that a security group had allowed and does not allow any more.
    Revoked = "revoked",
    /// What would open a connection to a VM that none of its security groups allows; or an answer
    /// to it that belongs to no connection, and that they do not allow either.
    SecurityGroup = "security_group",
    /// A new connection to the node itself, which serves its VMs with nothing but what gateways do
    /// and what a `[[host_rule]]` says.
    HostDenied = "host_denied",
    /// A new connection between networks, or out, by a way that `forward_bridge_interface` does not
    /// name.
    ForwardDenied = "forward_denied",
    /// A new connection, and the table has no room for it.
    TableFull = "table_full",
    /// A new connection, and its VM has opened as many of late as `vif_connection_rate` allows.
    OpeningRate = "opening_rate",
    /// For all of its network, or for a station that nobody knows, and its VM has sent as many such
    /// of late as `vif_flood_rate` allows.
    FloodRate = "flood_rate",
    /// A new connection, and its VM has as many as `vif_connections` allows.
    Quota = "quota",
    /// A new connection by the shared address, and its VM has as many of that one's ports towards
    /// its destination as `vif_snat_ports` allows.
    SnatQuota = "snat_quota",
    /// A DHCP request, or an answer of the host's, of a MAC that no vif of the network has here:
    /// nobody answers that.
    DhcpUnknown = "dhcp_unknown",
    /// A DHCP request that came by the trunk: each node answers its own VMs.
    DhcpElsewhere = "dhcp_elsewhere",
    /// A DHCP answer that came from a VM or by the trunk, where the node answers itself.
    DhcpServer = "dhcp_server",
    /// A DHCP request beyond the ten a second, and twenty at once, that a vif gets answered.
    DhcpLimit = "dhcp_limit",
    /// A DHCP request or answer in fragments, or longer than any is.
    DhcpMalformed = "dhcp_malformed",
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
