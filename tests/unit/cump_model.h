/* SPDX-License-Identifier: MIT */
/*
 * A pair whose every page is a number that grows with each write, its dirty logs, and what has
 * arrived on the other side; driven by any bytes, it takes the bitmaps of lib/cump through any
 * history. At the end both sides must be equal, page by page. For the unit test and the fuzzer.
 */
#ifndef TESTS_CUMP_MODEL_H
#define TESTS_CUMP_MODEL_H

#include <stdlib.h>
#include <string.h>

#include "cump/union.h"

#define MODEL_PAGES 300u
#define MODEL_WORDS ((MODEL_PAGES + 63) / 64)

struct model {
	struct cump c;
	uint32_t here[CUMP_MEMBERS][MODEL_PAGES], there[CUMP_MEMBERS][MODEL_PAGES];
	uint64_t log[CUMP_MEMBERS][MODEL_WORDS];
	size_t at[CUMP_MEMBERS]; /* how far this round has come */
	uint64_t sent;
};

static void model_start(struct model *m, unsigned vm_pages, unsigned vtpm_pages, enum cump_policy policy)
{
	const uint64_t pages[CUMP_MEMBERS] = {vm_pages % (MODEL_PAGES + 1), vtpm_pages % (MODEL_PAGES + 1)};

	memset(m, 0, sizeof(*m));
	if (cump_init(&m->c, pages, policy))
		abort();
	for (unsigned i = 0; i < CUMP_MEMBERS; i++)
		for (unsigned p = 0; p < pages[i]; p++)
			m->here[i][p] = 1;
	cump_begin(&m->c);
	cump_decide(&m->c, 0, m->c.words);
}

static void model_write(struct model *m, unsigned i, unsigned page)
{
	if (page < m->c.member[i].pages) {
		m->here[i][page]++;
		m->log[i][page / 64] |= 1ull << page % 64;
	}
}

static void model_peek(struct model *m)
{
	for (unsigned i = 0; i < CUMP_MEMBERS; i++)
		if (m->c.member[i].words)
			memcpy(m->c.member[i].to_skip, m->log[i], m->c.member[i].words * 8);
	cump_decide(&m->c, m->at[0] < m->at[1] ? m->at[0] : m->at[1], m->c.words);
}

/* The next batch of a member; every @later-th page of it cannot be read now (0: all can). */
static size_t model_send(struct model *m, unsigned i, size_t words, unsigned later)
{
	uint64_t gfn[MODEL_PAGES + 64];
	size_t n = cump_take(&m->c, i, &m->at[i], m->at[i] + words, gfn, MODEL_PAGES + 64);

	for (size_t k = 0; k < n; k++) {
		if (gfn[k] >= m->c.member[i].pages || (k && gfn[k] <= gfn[k - 1]))
			abort();
		if (later && k % later == 0)
			cump_put_back(&m->c, i, gfn[k]);
		else
			m->there[i][gfn[k]] = m->here[i][gfn[k]];
	}
	m->sent += n;
	return n;
}

static void model_clean(struct model *m)
{
	for (unsigned i = 0; i < CUMP_MEMBERS; i++) {
		if (m->c.member[i].words)
			memcpy(m->c.member[i].to_send, m->log[i], m->c.member[i].words * 8);
		memset(m->log[i], 0, sizeof(m->log[i]));
		m->at[i] = 0;
	}
}

static void model_round(struct model *m)
{
	cump_leave(&m->c, 0);
	model_clean(m);
	model_peek(m);
}

/* Both stand still: the rest. Then they must be equal. */
static void model_finish(struct model *m)
{
	cump_leave(&m->c, 0);
	model_clean(m);
	cump_decide_all(&m->c);
	for (unsigned i = 0; i < CUMP_MEMBERS; i++)
		model_send(m, i, MODEL_WORDS, 0);
	for (unsigned i = 0; i < CUMP_MEMBERS; i++)
		if (cump_to_send(&m->c, i) || cump_deferred(&m->c, i) ||
		    memcmp(m->here[i], m->there[i], sizeof(m->here[i])))
			abort();
	cump_free(&m->c);
}

/* One byte, one thing that happens. */
static void model_event(struct model *m, uint8_t what, uint8_t how)
{
	unsigned i = what >> 7;

	switch (what & 7) {
	case 0:
	case 1:
		model_write(m, i, how);
		break;
	case 2:
		model_write(m, i, how + 100u);
		break;
	case 3:
		for (unsigned p = 0; p < 16; p++)
			model_write(m, i, how + p);
		break;
	case 4:
		model_peek(m);
		break;
	case 5:
		model_send(m, i, how % 3u + 1, how & 0x80 ? how % 5u + 2 : 0);
		break;
	case 6:
		model_send(m, i, MODEL_WORDS, 0);
		break;
	default:
		model_round(m);
	}
}

static void model_run(const uint8_t *data, size_t size)
{
	struct model m;

	if (size < 3)
		return;
	model_start(&m, data[0] + 45u * (data[2] >> 1 & 1), data[1] + 45u * (data[2] >> 2 & 1),
		    data[2] & 1 ? CUMP_INDEPENDENT : CUMP_UNION);
	for (size_t k = 3; k + 1 < size; k += 2)
		model_event(&m, data[k], data[k + 1]);
	model_finish(&m);
}

#endif
