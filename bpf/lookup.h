/* SPDX-License-Identifier: GPL-2.0-only */
/* What the node's tables say of a packet: whose its address is, and which line is its. */
#pragma once
#include "maps.h"
#include "parse.h"

/* The zone of public ports. */
#define PUBLIC_ZONE 0

/* Said when the programs are loaded, as hash_key is. */
const volatile __u32 line_count = LINE_HOME; /* header.lines */
const volatile __u8 replays = 1;    /* 0: the workers do it all */
const volatile __u8 has_frags = 0;  /* XDP is given frames in pieces: kernel 5.18 */

/* What an address of the public side is to us; 0: nothing. */
static __always_inline __u32 owned_as(__u32 address)
{
	struct owned_key key = { .length = 32 };
	__u32 *kind;

	__builtin_memcpy(key.address, &address, sizeof(key.address));
	kind = bpf_map_lookup_elem(&owned, &key);
	return kind ? *kind : 0;
}

/* What a line is found by. */
struct key {
	__u64 word1;
	__u64 word2;
};

static __always_inline struct key ipv4_key(const struct port *port, __u16 zone,
					   const struct packet *packet)
{
	return (struct key){
		line_ipv4_word1(packet->source, packet->destination),
		line_ipv4_word2(packet->sport, packet->dport, packet->protocol, port->number, zone),
	};
}

/* A home of a key, as far as it was looked through. */
struct home {
	__u32 place;
	__u32 goes_on; /* what was looked at last was taken once */
};

/*
 * The next line of a home if it has this key and is live, or claimed: to get a new path, or by who
 * installs the key. The loads are in the order of line.h. A line that changes behind them had the
 * key a moment ago, and that is all this says: who replays it must read it whole.
 */
static __always_inline volatile struct line *next_with(struct home *home, const struct key *key)
{
	volatile struct line *line;
	__u64 word0;

	if (!home->goes_on)
		return NULL;
	line = bpf_map_lookup_elem(&lines, &home->place);
	if (!line)
		return NULL;
	word0 = line->word[0];
	home->place++;
	home->goes_on = word0 != LINE_NEVER_TAKEN;
	if (line_state(word0) == LINE_FREE)
		return NULL;
	return line->word[1] == key->word1 && line->word[2] == key->word2 ? line : NULL;
}

/*
 * The line with this key, usable or not; NULL if there is none. A new line takes the first free
 * place of the emptier home, so first places first; behind one that was never taken is none that
 * was.
 */
static __always_inline volatile struct line *find_line(const struct key *key)
{
	__u64 hash = line_hash(key->word1, key->word2, hash_key);
	struct home one = { line_home(hash, 0, line_count), 1 };
	struct home other = { line_home(hash, 1, line_count), 1 };
	volatile struct line *line;

#pragma unroll
	for (__u32 place = 0; place < LINE_HOME; place++) {
		line = next_with(&one, key);
		if (line)
			return line;
		line = next_with(&other, key);
		if (line)
			return line;
	}
	return NULL;
}
