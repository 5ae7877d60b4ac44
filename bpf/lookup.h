/* SPDX-License-Identifier: GPL-2.0-only */
/* What the node's tables say of a packet: whose its address is, and whether it has a line. */
#pragma once
#include "maps.h"
#include "parse.h"

/* The zone of public ports. */
#define PUBLIC_ZONE 0

/* What an address of the public side is to us; 0: nothing. */
static __always_inline __u32 owned_as(__u32 address)
{
	struct owned_key key = { .length = 32 };
	__u32 *kind;

	__builtin_memcpy(key.address, &address, sizeof(key.address));
	kind = bpf_map_lookup_elem(&owned, &key);
	return kind ? *kind : 0;
}

/*
 * The line of that index if it has this key and is live, or claimed: to get a new path, or by who
 * installs the key. The loads are in the order of line.h. A line that changes behind them had the
 * key a moment ago, and that is all this says: who replays it must read it whole.
 */
static __always_inline volatile struct line *line_with(__u32 index, __u64 word1, __u64 word2)
{
	volatile struct line *line = bpf_map_lookup_elem(&lines, &index);

	if (!line || line_state(line->word[0]) == LINE_FREE)
		return NULL;
	return line->word[1] == word1 && line->word[2] == word2 ? line : NULL;
}

/* The line with this key, usable or not; NULL if there is none. */
static __always_inline volatile struct line *find_line(__u64 word1, __u64 word2)
{
	__u32 zero = 0;
	struct header *table = bpf_map_lookup_elem(&header, &zero);
	volatile struct line *line;
	__u64 hash;

	if (!table)
		return NULL;
	hash = line_hash(word1, word2, table->hash_key);
	for (__u32 at = 0; at < 2 * LINE_HOME; at++) {
		__u32 home = line_home(hash, at / LINE_HOME, table->lines);

		line = line_with(home + at % LINE_HOME, word1, word2);
		if (line)
			return line;
	}
	return NULL;
}

/* The line of a packet that came by a public port. */
static __always_inline volatile struct line *line_of_public(const struct port *port,
							    const struct packet *packet)
{
	return find_line(line_ipv4_word1(packet->source, packet->destination),
			 line_ipv4_word2(packet->sport, packet->dport, packet->protocol,
					 port->number, PUBLIC_ZONE));
}
