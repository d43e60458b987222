/* SPDX-License-Identifier: MIT */
#include "cump/union.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WORD_BITS 64u
#define MOST_PAGES (1ull << 40) /* 4 PiB: x86's widest guest physical address */

static const char *const policy_names[] = {[CUMP_UNION] = "cump", [CUMP_INDEPENDENT] = "independent"};

const char *cump_policy_name(enum cump_policy policy)
{
	return policy_names[policy];
}

int cump_policy_parse(const char *text, enum cump_policy *policy)
{
	for (unsigned i = 0; i < sizeof(policy_names) / sizeof(policy_names[0]); i++)
		if (!strcmp(text, policy_names[i])) {
			*policy = (enum cump_policy)i;
			return 0;
		}
	return -EINVAL;
}

static int map_init(struct cump_map *m, uint64_t pages)
{
	uint64_t **bitmap[] = {&m->to_send, &m->to_skip, &m->deferred};

	if (pages > MOST_PAGES)
		return -E2BIG;
	m->pages = pages;
	m->words = (size_t)((pages + WORD_BITS - 1) / WORD_BITS);
	for (unsigned i = 0; m->words && i < 3; i++) {
		*bitmap[i] = calloc(m->words, sizeof(uint64_t));
		if (!*bitmap[i])
			return -ENOMEM;
	}
	return 0;
}

int cump_init(struct cump *c, const uint64_t pages[CUMP_MEMBERS], enum cump_policy policy)
{
	int rc = 0;

	*c = (struct cump){.policy = policy};
	for (unsigned i = 0; !rc && i < CUMP_MEMBERS; i++) {
		rc = map_init(&c->member[i], pages[i]);
		if (c->member[i].words > c->words)
			c->words = c->member[i].words;
	}
	if (rc)
		cump_free(c);
	return rc;
}

void cump_free(struct cump *c)
{
	for (unsigned i = 0; i < CUMP_MEMBERS; i++) {
		free(c->member[i].to_send);
		free(c->member[i].to_skip);
		free(c->member[i].deferred);
	}
	*c = (struct cump){0};
}

void cump_begin(struct cump *c)
{
	for (unsigned i = 0; i < CUMP_MEMBERS; i++) {
		struct cump_map *m = &c->member[i];

		if (!m->words)
			continue;
		memset(m->to_send, 0xff, m->words * sizeof(uint64_t));
		memset(m->to_skip, 0, m->words * sizeof(uint64_t));
		memset(m->deferred, 0, m->words * sizeof(uint64_t));
		if (m->pages % WORD_BITS)
			m->to_send[m->words - 1] = (1ull << m->pages % WORD_BITS) - 1;
	}
}

struct cump_word cump_union(const struct cump *c, size_t w)
{
	struct cump_word u = {0, 0};

	for (unsigned i = 0; i < CUMP_MEMBERS; i++)
		if (w < c->member[i].words) {
			u.to_send |= c->member[i].to_send[w];
			u.to_skip |= c->member[i].to_skip[w];
		}
	return u;
}

/* Where only one member has memory, the union is that member: what both policies come to. */
static void decide_alone(struct cump_map *m, size_t from, size_t to)
{
	uint64_t *restrict send = m->to_send, *restrict deferred = m->deferred;
	const uint64_t *restrict skip = m->to_skip;

	if (to > m->words)
		to = m->words;
	for (size_t w = from; w < to; w++) {
		uint64_t all = send[w] | deferred[w];

		send[w] = all & ~skip[w];
		deferred[w] = all & skip[w];
	}
}

/*
 * Where both have: tables 1 to 3 in one pass over the six bitmaps. The union's to_send needs
 * no word of its own: a member's page is sent if its own to_send is 1, which makes the
 * union's 1, and the union's to_skip is 0.
 */
static void decide_both(struct cump *c, size_t from, size_t to)
{
	struct cump_map *a = &c->member[CUMP_VM], *b = &c->member[CUMP_VTPM];
	uint64_t *restrict a_send = a->to_send, *restrict b_send = b->to_send;
	uint64_t *restrict a_deferred = a->deferred, *restrict b_deferred = b->deferred;
	const uint64_t *restrict a_skip = a->to_skip, *restrict b_skip = b->to_skip;

	for (size_t w = from; w < to; w++) {
		uint64_t skip = a_skip[w] | b_skip[w];
		uint64_t a_all = a_send[w] | a_deferred[w], b_all = b_send[w] | b_deferred[w];

		a_send[w] = a_all & ~skip;
		a_deferred[w] = a_all & skip;
		b_send[w] = b_all & ~skip;
		b_deferred[w] = b_all & skip;
	}
}

void cump_decide(struct cump *c, size_t from, size_t to)
{
	size_t both = 0;

	if (to > c->words)
		to = c->words;
	if (c->policy == CUMP_UNION) {
		both = c->member[CUMP_VM].words < c->member[CUMP_VTPM].words ?
			       c->member[CUMP_VM].words : c->member[CUMP_VTPM].words;
		if (both > to)
			both = to;
		decide_both(c, from, both);
	}
	if (both < from)
		both = from;
	for (unsigned i = 0; i < CUMP_MEMBERS; i++)
		decide_alone(&c->member[i], both, to);
}

void cump_decide_all(struct cump *c)
{
	for (unsigned i = 0; i < CUMP_MEMBERS; i++) {
		struct cump_map *m = &c->member[i];

		for (size_t w = 0; w < m->words; w++) {
			m->to_send[w] |= m->deferred[w];
			m->deferred[w] = 0;
			m->to_skip[w] = 0;
		}
	}
}

void cump_leave(struct cump *c, size_t from)
{
	for (unsigned i = 0; i < CUMP_MEMBERS; i++) {
		struct cump_map *m = &c->member[i];

		for (size_t w = from; w < m->words; w++) {
			m->deferred[w] |= m->to_send[w];
			m->to_send[w] = 0;
		}
	}
}

size_t cump_next(const struct cump *c, enum cump_member member, size_t from)
{
	const struct cump_map *m = &c->member[member];

	while (from < m->words && !m->to_send[from])
		from++;
	return from;
}

size_t cump_take(struct cump *c, enum cump_member member, size_t *word, size_t to, uint64_t *gfn,
		 size_t max)
{
	struct cump_map *m = &c->member[member];
	size_t n = 0, w = *word;

	if (to > m->words)
		to = m->words;
	for (; w < to && n + WORD_BITS <= max; w++) {
		uint64_t bits = m->to_send[w];

		if (!bits)
			continue;
		m->to_send[w] = 0;
		for (; bits; bits &= bits - 1)
			gfn[n++] = w * WORD_BITS + (unsigned)__builtin_ctzll(bits);
	}
	*word = w;
	return n;
}

void cump_put_back(struct cump *c, enum cump_member member, uint64_t gfn)
{
	struct cump_map *m = &c->member[member];

	if (gfn < m->pages)
		m->deferred[gfn / WORD_BITS] |= 1ull << gfn % WORD_BITS;
}

/* Most words are 0, and to count one is a call where no instruction can be assumed. */
static uint64_t count(const uint64_t *bitmap, size_t words)
{
	uint64_t n = 0;

	for (size_t w = 0; w < words; w++)
		if (bitmap[w])
			n += (unsigned)__builtin_popcountll(bitmap[w]);
	return n;
}

uint64_t cump_to_send(const struct cump *c, enum cump_member member)
{
	return count(c->member[member].to_send, c->member[member].words);
}

uint64_t cump_deferred(const struct cump *c, enum cump_member member)
{
	return count(c->member[member].deferred, c->member[member].words);
}
