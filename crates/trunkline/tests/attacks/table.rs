//! The attacks: what is sent, what must count it, who must not see it, and what becomes of it
//! without walls. docs/security.md has the same rows.

use testkit::{arp_reply, echo, tag, tcp, vm_mac};
use wire::MacAddr;

use super::frames::*;

/// What becomes of an attack without walls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Open {
    /// The victim sees it: the wall is all that stops it.
    Arrives,
    /// It is dropped all the same, for this reason.
    Dropped(&'static str),
}

/// One attack of VM 2's.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) frame: fn() -> Vec<u8>,
    /// Why VM 2's port drops it.
    pub(crate) counter: &'static str,
    /// The host that must not see it.
    pub(crate) victim: &'static str,
    pub(crate) open: Open,
}

use Open::{Arrives, Dropped};

const fn attack(
    name: &'static str,
    counter: &'static str,
    victim: &'static str,
    open: Open,
    frame: fn() -> Vec<u8>,
) -> Attack {
    Attack { name, frame, counter, victim, open }
}

/// More fragments follow.
pub(crate) const MF: u16 = 0x2000;

pub(crate) const ATTACKS: &[Attack] = &[
    // MAC addresses.
    attack("a sibling's MAC", "spoofed_mac", "vm5", Arrives, || unknown(vm_mac(1), vm_mac(5))),
    attack("the gateway's MAC", "spoofed_mac", "vm1", Arrives, || {
        datagram((GATEWAY_MAC, VM2), (vm_mac(1), VM1))
    }),
    attack("a group as source", "bad_source", "vm5", Dropped("bad_source"), || {
        unknown(EVERYBODY, vm_mac(5))
    }),
    attack("no source at all", "bad_source", "vm5", Dropped("bad_source"), || {
        unknown(MacAddr::ZERO, vm_mac(5))
    }),
    // IPv4 sources.
    attack("a sibling's address, to another", "spoofed_ipv4", "vm5", Arrives, || from(VM1)),
    attack("a sibling's address, to another tenant", "spoofed_ipv4", "vm3", Arrives, || {
        routed(VM1, VM3)
    }),
    attack("another tenant's address, to that tenant", "spoofed_ipv4", "vm3", Arrives, || {
        routed([10, 1, 0, 4], VM3)
    }),
    attack("the gateway's address", "spoofed_ipv4", "vm1", Arrives, || to_sibling(GATEWAY)),
    attack("an address of the Internet, to a sibling", "spoofed_ipv4", "vm1", Arrives, || {
        to_sibling(FAR)
    }),
    attack(
        "an address of the Internet, to the Internet",
        "spoofed_ipv4",
        "inet",
        Dropped("no_source"),
        || routed([203, 0, 113, 9], FAR),
    ),
    attack(
        "a sibling's floating address, to the Internet",
        "spoofed_ipv4",
        "inet",
        Dropped("no_source"),
        || routed([91, 208, 23, 11], FAR),
    ),
    attack("the victim's own address (land)", "spoofed_ipv4", "vm1", Arrives, || to_sibling(VM1)),
    attack("a loopback address", "spoofed_ipv4", "vm1", Arrives, || to_sibling([127, 0, 0, 1])),
    attack("the broadcast address", "spoofed_ipv4", "vm1", Arrives, || to_sibling([255; 4])),
    attack("no address, and no DHCP", "spoofed_ipv4", "vm1", Arrives, || to_sibling([0; 4])),
    attack("all siblings asked in one's name (smurf)", "spoofed_ipv4", "vm5", Arrives, || {
        echo((me(), VM1), (EVERYBODY, [10, 0, 0, 255]), true, 7)
    }),
    // ARP.
    attack("ARP: announcing a sibling's address", "spoofed_arp", "vm5", Arrives, || {
        arp(2, (me(), VM1), (EVERYBODY, VM1), EVERYBODY)
    }),
    attack("ARP: asking in a sibling's name", "spoofed_arp", "vm5", Arrives, || {
        arp(1, (me(), VM1), (MacAddr::ZERO, VM5), EVERYBODY)
    }),
    attack("ARP: answering as the gateway", "spoofed_arp", "vm1", Arrives, || {
        arp_reply((me(), GATEWAY), (vm_mac(1), VM1))
    }),
    attack("ARP: a sibling's MAC within", "spoofed_arp", "vm5", Arrives, || {
        arp(2, (vm_mac(1), VM2), (vm_mac(5), VM5), vm_mac(5))
    }),
    // IPv6 and neighbour discovery.
    attack("IPv6: a sibling's link-local address", "spoofed_ipv6", "vm5", Arrives, || {
        six(sibling6(), 17, &[0x13, 0x88, 0, 53, 0, 8, 0, 0])
    }),
    attack("ND: advertising a sibling's address", "spoofed_nd", "vm5", Arrives, || {
        about(136, own6(), sibling6(), me())
    }),
    attack("ND: advertising a sibling's MAC", "spoofed_nd", "vm5", Arrives, || {
        about(136, own6(), own6(), vm_mac(1))
    }),
    attack("ND: asking with a sibling's MAC", "spoofed_nd", "vm5", Arrives, || {
        about(135, own6(), sibling6(), vm_mac(1))
    }),
    attack(
        "ND: claiming a sibling's address while it asks for it",
        "spoofed_nd",
        "vm5",
        Arrives,
        || about(135, [0; 16], sibling6(), me()),
    ),
    attack("RA: a rogue router", "rogue_ra", "vm5", Arrives, router),
    attack("RA: behind an extension header", "rogue_ra", "vm5", Arrives, router_behind_an_option),
    attack("RA: in a fragment", "rogue_ra", "vm5", Arrives, router_in_a_fragment),
    attack(
        "RA: its header in a later fragment",
        "hidden_ipv6",
        "vm5",
        Arrives,
        router_in_a_later_fragment,
    ),
    attack("ND: a redirect", "rogue_ra", "vm5", Arrives, redirect6),
    // DHCP.
    attack("DHCP: a rogue server, to all", "rogue_dhcp", "vm5", Dropped("dhcp_server"), || {
        dhcp(VM2, (EVERYBODY, [255; 4]))
    }),
    attack("DHCP: a rogue server, to one", "rogue_dhcp", "vm1", Dropped("dhcp_server"), || {
        dhcp(VM2, (vm_mac(1), VM1))
    }),
    attack(
        "DHCP: a rogue server, in fragments",
        "rogue_dhcp",
        "vm1",
        Dropped("dhcp_malformed"),
        || fragment(dhcp(VM2, (vm_mac(1), VM1)), MF),
    ),
    attack("DHCPv6: a rogue server", "rogue_dhcp", "vm5", Arrives, dhcpv6),
    // VLANs.
    attack("another tenant's tag", "guest_tag", "vm3", Dropped("guest_tag"), || hop(102)),
    attack("its own tenant's tag", "guest_tag", "vm5", Dropped("guest_tag"), || {
        tag(&from(VM2), 100)
    }),
    attack("the last tag there is", "guest_tag", "vm3", Dropped("guest_tag"), || hop(4095)),
    attack("two tags", "guest_double_tag", "vm3", Dropped("guest_double_tag"), || {
        tag(&hop(102), 100)
    }),
    attack(
        "a priority tag and another tenant's",
        "guest_double_tag",
        "vm3",
        Dropped("guest_double_tag"),
        || tag(&hop(102), 0),
    ),
    attack("an 802.1ad tag", "guest_tag", "vm3", Dropped("guest_tag"), || service_tag(102)),
    attack(
        "the tag of the punt link, to the host's stack",
        "guest_tag",
        "vm3",
        Dropped("guest_tag"),
        || service_tag(0x2000 | 3),
    ),
    // Riding on connections: VM 1's to VM 5 and VM 3's to the Internet are in the table.
    attack(
        "riding: all but the MAC of a bridged connection",
        "spoofed_ipv4",
        "vm5",
        Arrives,
        || datagram((me(), VM1), (vm_mac(5), VM5)),
    ),
    attack("riding: with its MAC as well", "spoofed_mac", "vm5", Arrives, || {
        datagram((vm_mac(1), VM1), (vm_mac(5), VM5))
    }),
    attack("riding: with its VLAN", "guest_tag", "vm5", Dropped("guest_tag"), || {
        tag(&datagram((vm_mac(1), VM1), (vm_mac(5), VM5)), 100)
    }),
    attack("riding: a translated connection", "spoofed_ipv4", "inet", Arrives, || routed(VM3, FAR)),
    attack("riding: answering for who was asked", "spoofed_ipv4", "vm1", Arrives, || {
        testkit::udp((me(), VM5, 53), (vm_mac(1), VM1, 5000), b"answer")
    }),
    attack(
        "riding: IPv6 where its own line would carry it",
        "spoofed_ipv6",
        "vm5",
        Arrives,
        || six_to_vm5(sibling6()),
    ),
    attack("ending a connection of others (RST)", "spoofed_ipv4", "vm5", Arrives, || {
        tcp((me(), VM1, 5000), (vm_mac(5), VM5, 22), 4, b"")
    }),
    attack("ICMP: a redirect in the gateway's name", "spoofed_ipv4", "vm1", Arrives, || {
        let about = &datagram((vm_mac(1), VM1), (GATEWAY_MAC, FAR))[14..];
        icmp(GATEWAY, (vm_mac(1), VM1), [5, 1], VM2, about)
    }),
    attack(
        "ICMP: a smaller path MTU in the gateway's name",
        "spoofed_ipv4",
        "vm1",
        Arrives,
        || {
            let about = &datagram((vm_mac(1), VM1), (GATEWAY_MAC, FAR))[14..];
            icmp(GATEWAY, (vm_mac(1), VM1), [3, 4], [0, 0, 2, 64], about)
        },
    ),
    attack(
        "ICMP: an error about nobody's connection",
        "unrelated",
        "inet",
        Dropped("unrelated"),
        || {
            let about = &datagram((GATEWAY_MAC, FAR), (me(), VM2))[14..];
            icmp(VM2, (GATEWAY_MAC, FAR), [3, 3], [0; 4], about)
        },
    ),
    // Fragments.
    attack("a later fragment in a sibling's name", "spoofed_ipv4", "vm1", Arrives, || {
        fragment(to_sibling([10, 0, 0, 6]), 9)
    }),
    attack(
        "a first fragment cut within its header",
        "tiny_fragment",
        "inet",
        Dropped("tiny_fragment"),
        || tiny(tcp((me(), VM2, 5000), (GATEWAY_MAC, FAR, 22), 2, b""), 28, MF),
    ),
    attack(
        "a fragment over the first one's header",
        "tiny_fragment",
        "inet",
        Dropped("tiny_fragment"),
        || tiny(tcp((me(), VM2, 5000), (GATEWAY_MAC, FAR, 22), 2, b""), 32, 1),
    ),
    // Around VM 3's group, which lets in ICMP, TCP port 22 and UDP port 53.
    attack("scan: a SYN", "security_group", "vm3", Arrives, || scan(0x02)),
    attack("scan: a SYN with ACK", "security_group", "vm3", Arrives, || scan(0x12)),
    attack("scan: an ACK", "security_group", "vm3", Arrives, || scan(0x10)),
    attack("scan: a FIN", "security_group", "vm3", Arrives, || scan(0x01)),
    attack("scan: a RST", "security_group", "vm3", Arrives, || scan(0x04)),
    attack("scan: no flag", "security_group", "vm3", Arrives, || scan(0)),
    attack("scan: FIN, PSH and URG", "security_group", "vm3", Arrives, || scan(0x29)),
    attack("scan: UDP", "security_group", "vm3", Arrives, || knock(5000, 54)),
    attack("scan: UDP from a name server's port", "security_group", "vm3", Arrives, || {
        knock(53, 5000)
    }),
    attack("scan: a protocol without ports", "security_group", "vm3", Arrives, || {
        protocol(knock(5000, 53), 132)
    }),
    attack("a first fragment to a closed port", "security_group", "vm3", Arrives, || {
        fragment(knock(5000, 54), MF)
    }),
    attack("a later fragment whose first never comes", "fragment_alone", "vm3", Arrives, || {
        fragment(with(knock(5000, 53), 19, 99), 9)
    }),
    attack(
        "a first fragment cut before its flags, to a group",
        "tiny_fragment",
        "vm3",
        Arrives,
        || tiny(scan(0x02), 28, MF),
    ),
    attack(
        "a fragment over the first one's flags, to a group",
        "tiny_fragment",
        "vm3",
        Arrives,
        || tiny(scan(0x02), 32, 1),
    ),
    // Around VM 1's group, which lets in nothing but from its own network.
    attack("IPv6: UDP", "security_group", "vm1", Arrives, || six_to_vm1(17, &udp6(53))),
    attack("IPv6: a SYN", "security_group", "vm1", Arrives, || six_to_vm1(6, &tcp6(0x02))),
    attack("IPv6: a SYN with ACK", "security_group", "vm1", Arrives, || six_to_vm1(6, &tcp6(0x12))),
    attack("IPv6: a ping", "security_group", "vm1", Arrives, || {
        six_to_vm1(58, &[128, 0, 0, 0, 0, 7, 0, 1])
    }),
    attack("IPv6: the answer to no ping", "security_group", "vm1", Arrives, || {
        six_to_vm1(58, &[129, 0, 0, 0, 0, 7, 0, 1])
    }),
    attack("IPv6: an error about nothing", "security_group", "vm1", Arrives, || {
        six_to_vm1(58, &[&[1, 4, 0, 0, 0, 0, 0, 0][..], &six_to_vm1(17, &udp6(53))[14..]].concat())
    }),
    attack("IPv6: a port behind an extension header", "security_group", "vm1", Arrives, || {
        six_to_vm1(0, &[&[17, 0, 1, 4, 0, 0, 0, 0][..], &udp6(53)].concat())
    }),
    attack("IPv6: a protocol without ports", "security_group", "vm1", Arrives, || {
        six_to_vm1(50, &udp6(53))
    }),
    attack("IPv6: a first fragment to a closed port", "security_group", "vm1", Arrives, || {
        six_to_vm1(44, &piece6(0, 1))
    }),
    attack("IPv6: a fragment whose first never comes", "fragment_alone", "vm1", Arrives, || {
        six_to_vm1(44, &piece6(9, 2))
    }),
    attack("IPv6: a solicitation in a fragment", "security_group", "vm1", Arrives, || {
        let asks = testkit::discovery(135, sibling6(), me());
        six_to_vm1(44, &[&[58, 0, 0, 1, 0, 0, 0, 3][..], &asks].concat())
    }),
    // What the node knows and serves; without walls a rule opens it as well.
    attack("metadata: asked in a sibling's name", "spoofed_ipv4", "inet", Arrives, || {
        asks_metadata(VM1)
    }),
    attack("metadata: asked in another tenant's name", "spoofed_ipv4", "inet", Arrives, || {
        asks_metadata(VM3)
    }),
    attack("the node: ssh at the gateway", "host_denied", "left", Arrives, || {
        ssh((GATEWAY_MAC, GATEWAY))
    }),
    attack("the node: ssh at its public address", "host_denied", "left", Arrives, || {
        ssh((GATEWAY_MAC, [91, 207, 15, 105]))
    }),
    attack("the node: ssh at another tenant's gateway", "host_denied", "left", Arrives, || {
        ssh((GATEWAY_MAC, [10, 1, 0, 1]))
    }),
    attack("the node: the metadata server's own port", "host_denied", "left", Arrives, || {
        tcp((me(), VM2, 5000), (GATEWAY_MAC, GATEWAY, 8775), 2, b"")
    }),
    attack("the node: a UDP service", "host_denied", "left", Arrives, || {
        testkit::udp((me(), VM2, 5000), (GATEWAY_MAC, GATEWAY, 161), b"attack")
    }),
    attack("the node: a protocol without ports", "host_denied", "left", Arrives, || {
        protocol(routed(VM2, GATEWAY), 47)
    }),
    // Frames that contradict themselves.
    attack("a frame longer than the MTU", "too_big", "vm1", Dropped("too_big"), long),
    attack(
        "IPv4 shorter than its own header",
        "malformed_ipv4",
        "vm5",
        Dropped("malformed_ipv4"),
        || cut(from(VM2), 19),
    ),
    attack(
        "TCP cut within its header",
        "malformed_transport",
        "vm5",
        Dropped("malformed_transport"),
        || cut(tcp((me(), VM2, 5000), (vm_mac(5), VM5, 22), 2, b""), 20 + 12),
    ),
    attack(
        "UDP cut within its header",
        "malformed_transport",
        "vm5",
        Dropped("malformed_transport"),
        || cut(from(VM2), 20 + 4),
    ),
    attack(
        "ICMP cut within its header",
        "malformed_transport",
        "vm5",
        Dropped("malformed_transport"),
        || cut(echo((me(), VM2), (vm_mac(5), VM5), true, 7), 20 + 3),
    ),
    attack(
        "UDP shorter than its own header",
        "malformed_transport",
        "vm5",
        Dropped("malformed_transport"),
        || with(from(VM2), 39, 4),
    ),
    attack("ARP cut short", "malformed_arp", "vm5", Dropped("malformed_arp"), || {
        arp(1, (me(), VM2), (MacAddr::ZERO, VM5), EVERYBODY)[..24].to_vec()
    }),
    attack(
        "an IPv4 header of four words",
        "malformed_ipv4",
        "vm5",
        Dropped("malformed_ipv4"),
        || with(from(VM2), 14, 0x44),
    ),
    attack(
        "IPv4 longer than its frame",
        "malformed_ipv4",
        "vm5",
        Dropped("malformed_ipv4"),
        || with(from(VM2), 16, 0xff),
    ),
    attack("IPv4 without its header", "malformed_ipv4", "vm5", Dropped("malformed_ipv4"), || {
        from(VM2)[..14].to_vec()
    }),
    attack(
        "IPv6 longer than its frame",
        "malformed_ipv6",
        "vm5",
        Dropped("malformed_ipv6"),
        || with(six_to_vm5(own6()), 18, 0xff),
    ),
    attack(
        "UDP longer than its packet",
        "malformed_transport",
        "vm5",
        Dropped("malformed_transport"),
        || with(from(VM2), 38, 0xff),
    ),
    attack(
        "TCP whose header does not end",
        "malformed_transport",
        "vm5",
        Dropped("malformed_transport"),
        || with(tcp((me(), VM2, 5000), (vm_mac(5), VM5, 22), 2, b""), 46, 0xf0),
    ),
    attack("ARP for other addresses", "malformed_arp", "vm5", Dropped("malformed_arp"), || {
        with(arp(1, (me(), VM2), (MacAddr::ZERO, VM5), EVERYBODY), 18, 8)
    }),
    // What no bridge forwards.
    attack("a spanning tree's root", "link_local", "vm5", Dropped("link_local"), || {
        unknown(me(), MacAddr([1, 0x80, 0xc2, 0, 0, 0]))
    }),
    attack("a pause frame", "link_local", "vm5", Dropped("link_local"), || {
        unknown(me(), MacAddr([1, 0x80, 0xc2, 0, 0, 1]))
    }),
];
