/* SPDX-License-Identifier: MIT */
/*
 * One round's tables over the bitmaps of large guests, against memcpy of as many bytes:
 * cump_tables VM-GIB VTPM-MIB POLICY prints "TABLES-SECONDS MEMCPY-SECONDS BYTES", the best of each of
 * several turns, taken in turn. BYTES are what a round reads and writes: of each member to_send and
 * deferred (read, written) and to_skip (read); a memcpy of n bytes reads n and writes n.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "cump/union.h"

#define TURNS 9

static void fill(struct cump *c)
{
	uint64_t x = 88172645463325252ull;

	for (unsigned i = 0; i < CUMP_MEMBERS; i++) {
		struct cump_map *m = &c->member[i];

		for (size_t w = 0; w < m->words; w++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			m->to_send[w] = x;
			m->to_skip[w] = x >> 3 & x;
			m->deferred[w] = x >> 5 & x;
		}
	}
}

static uint64_t bytes_of(const struct cump *c)
{
	return (c->member[0].words + c->member[1].words) * sizeof(uint64_t) * 5;
}

int main(int argc, char **argv)
{
	uint64_t pages[CUMP_MEMBERS], tables = UINT64_MAX, copying = UINT64_MAX, bytes;
	enum cump_policy policy;
	struct cump c;
	char *from, *to;

	if (argc != 4 || cump_policy_parse(argv[3], &policy))
		return 2;
	pages[CUMP_VM] = strtoull(argv[1], NULL, 10) << 18;
	pages[CUMP_VTPM] = strtoull(argv[2], NULL, 10) << 8;
	if (cump_init(&c, pages, policy))
		return 3;
	bytes = bytes_of(&c);
	from = malloc(bytes / 2);
	to = malloc(bytes / 2);
	if (!from || !to)
		return 3;
	memset(from, 1, bytes / 2);
	memset(to, 2, bytes / 2);
	for (unsigned i = 0; i < TURNS; i++) {
		uint64_t a, b, d;

		fill(&c);
		a = units_now_ns();
		cump_decide(&c, 0, c.words);
		b = units_now_ns();
		memcpy(to, from, bytes / 2);
		d = units_now_ns();
		__asm__ volatile("" : : "r"(to) : "memory");
		tables = b - a < tables ? b - a : tables;
		copying = d - b < copying ? d - b : copying;
	}
	printf("%.6f %.6f %llu\n", (double)tables / 1e9, (double)copying / 1e9, (unsigned long long)bytes);
	return 0;
}
