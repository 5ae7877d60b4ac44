/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Maps of the kernel programs, and what lies in them: the contract with crates/kernel/src/layout.rs,
 * where every #define has a constant of the same name and every struct its twin (a test compares
 * them). All maps are pinned in /sys/fs/bpf/trunkline/<node>/ under their own names.
 */
#pragma once
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "line.h"

/* Port and segment numbers have 12 bits; 0 is none. */
#define PORTS 4096
#define SEGMENTS 4096
/* NICs, and the VLANs of each. */
#define NICS 16
#define VLANS 4096

/* Places of interfaces by their index, and how far from its own one may be. */
#define PLACES 16384
#define PROBES 8

/* Slots of AF_XDP sockets: the punt link's, by queue, then those of NICs. */
#define SOCKETS 4096
#define PUNT_SOCKETS 256

/* The outer tag of a frame on the punt link: 802.1ad, port number, and on the way down this bit. */
#define TAG_NUMBER 0x0fff
#define TAG_TO_HOST 0x2000

/* skb->mark of a frame that deliver hands to the stack of a NIC past the NIC's own tc program. */
#define MARK_HOST 0x746c4f4b

/* port.kind */
#define PORT_NONE 0
#define PORT_TRUNK 1
#define PORT_PUBLIC 2
#define PORT_VIF 3
#define PORT_HOST 4

/* port.hook */
#define HOOK_NONE 0
#define HOOK_XDP 1
#define HOOK_TC 2
#define HOOK_GENERIC 3 /* XDP, in the stack instead of the driver */

/* port.flags */
#define PORT_PEER 1      /* a veth whose other end is in another namespace: bpf_redirect_peer */
#define PORT_IS_PUBLIC 2 /* a NIC by which owned addresses are reached, trunk or not */
#define PORT_TAKES_XDP 4 /* what XDP redirects to it arrives; to others tc redirects */
#define PORT_LONG 8      /* frames may come in pieces, of which XDP sees the first */
#define PORT_METERED 16  /* its VM has a quota */

/* segment.flags */
#define SEGMENT_UP 1
#define SEGMENT_GATEWAY 2  /* what is addressed to the port's own MAC is routed */
#define SEGMENT_TAKEN_UP 4 /* and of what VMs send to another gateway, what is translated here */
#define SEGMENT_BEFORE 8   /* the gateway's MAC address of before a changeover is its too */

/* Next hops on the public side, by number. */
#define HOPS 65536

/* Prefixes in owned, and what they are to us. */
#define OWNED 65536
#define FORWARDS 4096
#define OWNED_SNAT 1    /* connections leave with this address, which the host uses as well */
#define OWNED_FLOAT 2   /* a VM's floating address: all ours */
#define OWNED_NETWORK 3 /* a tenant network that is routed to us: all ours */

/* counters.drops */
#define DROP_MALFORMED 0 /* no Ethernet header, or cut within its tag */
#define DROP_NO_PORT 1   /* no such port; in row 0 */
#define DROP_PUNT_RATE 2 /* the port's bucket is empty */
#define DROP_NO_DAEMON 3 /* nobody listens */
#define DROP_NO_ROOM 4   /* no room before the frame for a tag, or no memory */
#define DROP_QUOTA_OUT 5 /* the VM sends more than its quota */
#define DROP_QUOTA_IN 6  /* more is sent to it */
#define DROPS 7

/* quota.rates: those of what a VM sends, and of what it is sent; each one's peak is behind it. */
#define QUOTA_OUT 0
#define QUOTA_IN 2
#define QUOTA_PEAK 1
#define QUOTA_RATES 4
#define QUOTA_SHIFT 10 /* a rate's cost is that of 1024 bytes */

/* buckets.paid: frames on their way up, and one for each rate. */
#define PAID_UP 0
#define PAID_QUOTA 1

/* note.changed: what was changed on an interface, to be put back by detach. */
#define CHANGED_PROMISC 1
#define CHANGED_RXVLAN 2
#define CHANGED_VLAN_FILTER 4
#define CHANGED_LRO 8
#define MADE_FILTER 16 /* a clsact filter of ours is on it */
#define MADE_QDISC 32  /* and so is the clsact qdisc */

/* reserved.ports: a bit for each port number. */
#define RESERVED_BYTES 8192

/* header.layout: what all of this, and the lines, look like. */
#define LAYOUT 7

struct port {
	__u32 ifindex;
	__u16 number;
	__u8 kind;
	__u8 hook;
	__u32 flags;
	__u32 sockets; /* first slot of a NIC's sockets, one for each queue */
	__u16 queues;
	__u16 mtu;
	__u8 mac[6];      /* the node's own: what is to be routed is addressed to it */
	__u16 segment;    /* of a vif or host port */
	__u32 stamp;      /* lines older than this are asked again */
	__u32 punt_cost;  /* nanoseconds a frame costs; 0: as many as come */
	__u8 station[6];  /* the only one behind a vif */
	__u16 nic;        /* of a NIC: whose VLANs are its, from 0 */
	__u16 spare[2];
	__u64 punt_burst; /* nanoseconds that can be saved up */
};
_Static_assert(sizeof(struct port) == 56, "port");
_Static_assert(__builtin_offsetof(struct port, number) == 4, "port.number");
_Static_assert(__builtin_offsetof(struct port, kind) == 6, "port.kind");
_Static_assert(__builtin_offsetof(struct port, hook) == 7, "port.hook");
_Static_assert(__builtin_offsetof(struct port, flags) == 8, "port.flags");
_Static_assert(__builtin_offsetof(struct port, sockets) == 12, "port.sockets");
_Static_assert(__builtin_offsetof(struct port, queues) == 16, "port.queues");
_Static_assert(__builtin_offsetof(struct port, mtu) == 18, "port.mtu");
_Static_assert(__builtin_offsetof(struct port, mac) == 20, "port.mac");
_Static_assert(__builtin_offsetof(struct port, segment) == 26, "port.segment");
_Static_assert(__builtin_offsetof(struct port, stamp) == 28, "port.stamp");
_Static_assert(__builtin_offsetof(struct port, punt_cost) == 32, "port.punt_cost");
_Static_assert(__builtin_offsetof(struct port, station) == 36, "port.station");
_Static_assert(__builtin_offsetof(struct port, nic) == 42, "port.nic");
_Static_assert(__builtin_offsetof(struct port, punt_burst) == 48, "port.punt_burst");

/*
 * Until when what a port has to pay for is paid, monotonic nanoseconds. A line of its own: ports
 * must not slow each other.
 */
struct buckets {
	__u64 paid[8];
};
_Static_assert(sizeof(struct buckets) == 64, "buckets");

struct rate {
	__u32 cost; /* nanoseconds for 1024 bytes; 0: as many as come */
	__u32 spare;
	__u64 burst; /* nanoseconds that can be saved up */
};
_Static_assert(sizeof(struct rate) == 16, "rate");
_Static_assert(__builtin_offsetof(struct rate, burst) == 8, "rate.burst");

struct quota {
	struct rate rates[QUOTA_RATES];
};
_Static_assert(sizeof(struct quota) == QUOTA_RATES * 16, "quota");

/* An interface that is a port's. */
struct place {
	__u32 ifindex; /* 0: free */
	__u32 number;
};
_Static_assert(sizeof(struct place) == 8, "place");
_Static_assert(__builtin_offsetof(struct place, number) == 4, "place.number");

struct segment {
	__u16 zone;
	__u16 vlan;
	__u32 flags;
	__u8 gateway[4]; /* what the node answers to there; 0.0.0.0: nothing */
	__u8 before[6];  /* with SEGMENT_BEFORE */
	__u16 spare;
};
_Static_assert(sizeof(struct segment) == 20, "segment");
_Static_assert(__builtin_offsetof(struct segment, vlan) == 2, "segment.vlan");
_Static_assert(__builtin_offsetof(struct segment, flags) == 4, "segment.flags");
_Static_assert(__builtin_offsetof(struct segment, gateway) == 8, "segment.gateway");
_Static_assert(__builtin_offsetof(struct segment, before) == 12, "segment.before");

struct hop {
	__u8 mac[6];
	__u16 known; /* 0: it is asked for, or does not answer */
};
_Static_assert(sizeof(struct hop) == 8, "hop");
_Static_assert(__builtin_offsetof(struct hop, known) == 6, "hop.known");

struct owned_key {
	__u32 length; /* bits of the address that count */
	__u8 address[4];
};
_Static_assert(sizeof(struct owned_key) == 8, "owned_key");
_Static_assert(__builtin_offsetof(struct owned_key, address) == 4, "owned_key.address");

/* A UDP port of a SNAT address that leads to a VM. */
struct forward_key {
	__be32 address;
	__be16 port;
	__u16 spare;
};
_Static_assert(sizeof(struct forward_key) == 8, "forward_key");
_Static_assert(__builtin_offsetof(struct forward_key, port) == 4, "forward_key.port");

struct counters {
	__u64 rx_packets;
	__u64 rx_bytes;
	__u64 punted;
	__u64 passed;
	__u64 replayed;
	__u64 tx_packets;
	__u64 tx_bytes;
	__u64 tx_xdp; /* of tx_packets those that XDP redirected */
	__u64 answered;
	__u64 drops[DROPS];
};
_Static_assert(sizeof(struct counters) == (9 + DROPS) * 8, "counters");
_Static_assert(__builtin_offsetof(struct counters, replayed) == 32, "counters.replayed");
_Static_assert(__builtin_offsetof(struct counters, tx_xdp) == 56, "counters.tx_xdp");
_Static_assert(__builtin_offsetof(struct counters, answered) == 64, "counters.answered");
_Static_assert(__builtin_offsetof(struct counters, drops) == 72, "counters.drops");

struct settings {
	__u32 punt;  /* ifindex of tl-punt0; 0: there is no punt link */
	__u32 netns; /* inode of the network namespace all this is in */
	__u64 pass;  /* random; before a frame, it takes it past a generic XDP program */
};
_Static_assert(sizeof(struct settings) == 16, "settings");
_Static_assert(__builtin_offsetof(struct settings, netns) == 4, "settings.netns");
_Static_assert(__builtin_offsetof(struct settings, pass) == 8, "settings.pass");

struct header {
	__u32 layout;
	__u32 lines;
	__u64 hash_key;
	__u64 stamp;
};
_Static_assert(sizeof(struct header) == 24, "header");
_Static_assert(__builtin_offsetof(struct header, lines) == 4, "header.lines");
_Static_assert(__builtin_offsetof(struct header, hash_key) == 8, "header.hash_key");
_Static_assert(__builtin_offsetof(struct header, stamp) == 16, "header.stamp");

struct note {
	char name[16];
	__u8 mac[6];
	__u16 changed;
};
_Static_assert(sizeof(struct note) == 24, "note");
_Static_assert(__builtin_offsetof(struct note, mac) == 16, "note.mac");
_Static_assert(__builtin_offsetof(struct note, changed) == 22, "note.changed");

struct reserved {
	__u32 netns; /* inode of the network namespace */
	__u8 ports[RESERVED_BYTES];
};
_Static_assert(sizeof(struct reserved) == 4 + RESERVED_BYTES, "reserved");
_Static_assert(__builtin_offsetof(struct reserved, ports) == 4, "reserved.ports");

/* By port number. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PORTS);
	__type(key, __u32);
	__type(value, struct port);
} ports SEC(".maps");

/*
 * Interface index to port number: at the index's low bits, or one of the places behind. A hash map
 * costs a quarter of all that is done to a packet.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PLACES);
	__type(key, __u32);
	__type(value, struct place);
} places SEC(".maps");

/* By port number. Apart from the ports, so that a port's change leaves its bucket as it is. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PORTS);
	__type(key, __u32);
	__type(value, struct buckets);
} buckets SEC(".maps");

/* By port number, of those that are metered. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PORTS);
	__type(key, __u32);
	__type(value, struct quota);
} quotas SEC(".maps");

/* A NIC's VLAN (0: untagged) to segment number, VLANS for each NIC. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NICS * VLANS);
	__type(key, __u32);
	__type(value, __u32);
} vlans SEC(".maps");

/* By segment number. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SEGMENTS);
	__type(key, __u32);
	__type(value, struct segment);
} segments SEC(".maps");

/* By number of the next hop. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HOPS);
	__type(key, __u32);
	__type(value, struct hop);
} hops SEC(".maps");

/* IPv4 addresses of the public side, the longest prefix first. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, OWNED);
	__type(key, struct owned_key);
	__type(value, __u32);
} owned SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, FORWARDS);
	__type(key, struct forward_key);
	__type(value, __u32);
} forwards SEC(".maps");

/* By port number; row 0 is for frames of no port. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PORTS);
	__type(key, __u32);
	__type(value, struct counters);
} counters SEC(".maps");

/* The workers' AF_XDP sockets. One that is closed leaves by itself. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, SOCKETS);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

/* tl-punt0, for XDP. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} punts SEC(".maps");

/* The interfaces of ports that take what XDP redirects, by port number. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, PORTS);
	__type(key, __u32);
	__type(value, __u32);
} devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

/* The connection table. How many lines it has is said when it is loaded. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, LINE_HOME);
	__type(key, __u32);
	__type(value, struct line);
} lines SEC(".maps");

/* What one must know to read the lines. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct header);
} header SEC(".maps");

/* By interface index: notes for detach. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PORTS);
	__type(key, __u32);
	__type(value, struct note);
} nics SEC(".maps");

/* The ports that we reserved for SNAT in the namespace, and nobody before us. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct reserved);
} reserved SEC(".maps");

static __always_inline struct counters *counters_of(__u32 number)
{
	return bpf_map_lookup_elem(&counters, &number);
}

static __always_inline void count_drop(__u32 number, __u32 reason, __u32 frames)
{
	struct counters *row = counters_of(number);

	if (row)
		row->drops[reason] += frames;
}

/* The port of that number; NULL if there is none. */
static __always_inline struct port *port_of(__u32 number)
{
	struct port *port = bpf_map_lookup_elem(&ports, &number);

	return port && port->number ? port : NULL;
}

static __always_inline struct settings *node_settings(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

/* The port on that interface; NULL if there is none. */
static __always_inline struct port *port_on(__u32 ifindex)
{
	struct place *place;
	__u32 at;

#pragma unroll
	for (__u32 probe = 0; probe < PROBES; probe++) {
		at = (ifindex + probe) & (PLACES - 1);
		place = bpf_map_lookup_elem(&places, &at);
		if (place && place->ifindex == ifindex)
			return port_of(place->number);
	}
	return NULL;
}
