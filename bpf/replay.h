/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whether a packet's line may be replayed for it, and what that comes to. The workers ask the
 * same (crates/pipeline: may_replay, replay); a test gives both the same lines and packets.
 */
#pragma once
#include "lookup.h"
#include "trace.h"

#define NANOSECONDS 1000000000ULL

/* A frame, and where it came from. */
struct arrival {
	struct port *port;
	struct segment *segment; /* NULL on the public side */
	__u16 number;		 /* of the segment; 0 for none */
	__u32 length;		 /* of the packet, or of the longest it is cut into */
	__u64 destination;	 /* its MAC addresses, as in lines */
	__u64 source;
	struct packet packet;
};

/* What is to be done to it: its line, as it was at one moment. */
struct way {
	struct port *egress;
	__u64 word3;
	__u64 word4;
	__u64 word5;
	__u64 destination; /* MAC addresses to leave with */
	__u64 source;
	__u16 bits;	   /* what the direction has been, this packet included */
	__u8 hop;	   /* one less to live */
};

/* What time it was on a processor in which jiffy. */
struct clock {
	__u64 jiffies;
	__u64 seconds;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct clock);
} clocks SEC(".maps");

/* Seconds since boot. Asking for the time is a call, a jiffy is a load. */
static __always_inline __u32 seconds_now(void)
{
	__u64 jiffies = bpf_jiffies64();
	__u32 zero = 0;
	struct clock *clock = bpf_map_lookup_elem(&clocks, &zero);

	if (!clock)
		return 0;
	if (clock->jiffies != jiffies) {
		clock->seconds = bpf_ktime_get_coarse_ns() / NANOSECONDS;
		clock->jiffies = jiffies;
	}
	return clock->seconds;
}

/*
 * Notes that the direction has a packet. The line is written once a second, and once for each new
 * bit; if somebody else writes it at this very moment the next packet will do.
 */
static __always_inline void touch(volatile struct line *line, __u64 word7, __u16 bits)
{
	__u64 next = line_touched(word7, seconds_now(), bits | LINE_SEEN);

	if (next != word7)
		__sync_val_compare_and_swap(&line->word[7], word7, next);
}

static __always_inline void read_macs(void *data, void *end, struct arrival *from)
{
	struct ethhdr *ethernet = data;

	if ((void *)(ethernet + 1) > end)
		return;
	from->destination = line_mac(ethernet->h_dest);
	from->source = line_mac(ethernet->h_source);
}

static __always_inline int is_group(__u64 mac)
{
	return mac & 1;
}

/* Whether a station may speak here: behind a vif is one, and nobody is a group or nobody. */
static __always_inline int may_speak(const struct arrival *from)
{
	if (from->port->kind == PORT_VIF)
		return from->source == line_mac(from->port->station);
	return from->source && !is_group(from->source);
}

/* Whether the packet is addressed to the node, to be routed. */
static __always_inline int is_routed(const struct arrival *from, __u64 word4)
{
	if (from->packet.kind != PACKET_FLOW)
		return 0;
	if (from->destination == line_mac(from->port->mac))
		return !from->segment || from->segment->flags & SEGMENT_GATEWAY;
	// Stations may not have heard yet that the gateway has another address than before.
	if (from->segment && from->segment->flags & SEGMENT_BEFORE &&
	    from->destination == line_mac(from->segment->before))
		return 1;
	// What the workers took up once, though it was sent to another gateway.
	return from->segment && from->segment->flags & SEGMENT_TAKEN_UP &&
	       from->port->kind == PORT_VIF && line_flags(word4) & LINE_ROUTED &&
	       !is_group(from->destination);
}

/* The next hop's MAC for a routed packet; 0 if it is not known. */
static __always_inline __u64 station_of(const struct way *way)
{
	__u32 number = way->word5;
	struct hop *hop;

	if (!(line_flags(way->word4) & LINE_NEXT_HOP))
		return way->word5 & LINE_MAC_MASK;
	hop = bpf_map_lookup_elem(&hops, &number);
	return hop && hop->known ? line_mac(hop->mac) : 0;
}

/* Completes the way of a packet that is routed; false if the workers must see it. */
static __always_inline int route(const struct arrival *from, struct way *way)
{
	int to_host = way->egress->kind == PORT_HOST;

	way->destination = station_of(way);
	way->source = line_mac(way->egress->mac);
	// The host's own stack counts its own hop.
	way->hop = !to_host;
	return way->destination && !(line_flags(way->word4) & LINE_BRIDGED) &&
	       (to_host || from->packet.ttl > 1);
}

/* The same for one that is bridged: it stays as it is, but the host speaks as the node. */
static __always_inline int bridge(const struct arrival *from, struct way *way)
{
	__u64 ours = line_mac(from->port->mac), theirs = line_mac(way->egress->mac);

	way->destination = from->destination;
	way->source = from->port->kind == PORT_HOST && ours != theirs ? theirs : from->source;
	way->hop = 0;
	return way->destination == (way->word5 & LINE_MAC_MASK) &&
	       line_segment(way->word4) == from->number &&
	       !(line_flags(way->word4) & LINE_NEXT_HOP);
}

/* Whether nothing that concerns one of its ports as a whole has changed since it was decided. */
static __always_inline int is_fresh(const struct arrival *from, const struct way *way, __u32 stamp)
{
	return stamp && stamp >= from->port->stamp && stamp >= way->egress->stamp;
}

static __always_inline struct key key_of(const struct arrival *from)
{
	const struct packet *packet = &from->packet;
	struct key key;

	if (packet->kind == PACKET_FLOW)
		return ipv4_key(from->port, from->segment ? from->segment->zone : PUBLIC_ZONE,
				packet);
	if (packet->kind == PACKET_IPV6)
		return (struct key){
			packet->addresses,
			line_ipv4_word2(packet->sport, packet->dport, packet->mark,
					from->port->number, from->number),
		};
	key.word1 = from->destination | (__u64)packet->ethertype << LINE_ETHERTYPE_SHIFT;
	key.word2 = from->source >> 16 |
		    line_ipv4_word2(0, 0, LINE_PROTOCOL_L2, from->port->number, from->number);
	return key;
}

/*
 * The way of a packet, if its line may be replayed for it. Word 0 before all others and again
 * after them: a line that changed meanwhile is a miss.
 */
static __always_inline int find_way(const struct arrival *from, struct way *way)
{
	struct key key = key_of(from);
	volatile struct line *line = find_line(&key);
	__u64 word0, word6, word7;
	int leads_on;

	if (!line)
		return 0;
	word0 = line->word[0];
	if (line_state(word0) != LINE_LIVE || line->word[1] != key.word1 ||
	    line->word[2] != key.word2)
		return 0;
	way->word3 = line->word[3];
	way->word4 = line->word[4];
	way->word5 = line->word[5];
	word6 = line->word[6];
	word7 = line->word[7];
	if (line->word[0] != word0)
		return 0;
	trace_read(way->word3, way->word5, word6);
	if (!(line_flags(way->word4) & LINE_PATH_KNOWN))
		return 0;
	way->egress = port_of(line_egress(way->word4));
	if (!way->egress || !is_fresh(from, way, line_stamp(word6)) ||
	    from->length > way->egress->mtu)
		return 0;
	leads_on = is_routed(from, way->word4) ? route(from, way) : bridge(from, way);
	if (!leads_on)
		return 0;
	touch(line, word7, from->packet.bits);
	way->bits = word7 >> LINE_BITS_SHIFT | from->packet.bits;
	return 1;
}
