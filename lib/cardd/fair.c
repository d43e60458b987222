/* SPDX-License-Identifier: MIT */
#include "cardd/fair.h"

#include <errno.h>
#include <stdlib.h>

#define SCALE 1024 /* fractions of a ns per unit of weight */

static bool before(const struct fair_member *a, const struct fair_member *b)
{
	return (int64_t)(a->vtime - b->vtime) < 0;
}

static void put(struct fair *f, uint32_t at, struct fair_member *m)
{
	f->heap[at] = m;
	m->at = at + 1;
}

static void sift_up(struct fair *f, uint32_t at, struct fair_member *m)
{
	while (at && before(m, f->heap[(at - 1) / 2])) {
		put(f, at, f->heap[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	put(f, at, m);
}

static void sift_down(struct fair *f, uint32_t at, struct fair_member *m)
{
	for (;;) {
		uint32_t child = 2 * at + 1;

		if (child >= f->count)
			break;
		if (child + 1 < f->count && before(f->heap[child + 1], f->heap[child]))
			child++;
		if (!before(f->heap[child], m))
			break;
		put(f, at, f->heap[child]);
		at = child;
	}
	put(f, at, m);
}

int fair_return(struct fair *f, struct fair_member *m)
{
	if (m->at)
		return 0;
	if (f->count == f->room) {
		uint32_t room = f->room ? 2 * f->room : 64;
		struct fair_member **heap = realloc(f->heap, room * sizeof(struct fair_member *));

		if (!heap)
			return -ENOMEM;
		f->heap = heap;
		f->room = room;
	}
	sift_up(f, f->count++, m);
	return 0;
}

int fair_enter(struct fair *f, struct fair_member *m)
{
	if (!m->at && (int64_t)(m->vtime - f->now) < 0)
		m->vtime = f->now;
	return fair_return(f, m);
}

void fair_leave(struct fair *f, struct fair_member *m)
{
	uint32_t at = m->at - 1;
	struct fair_member *last;

	if (!m->at)
		return;
	m->at = 0;
	last = f->heap[--f->count];
	if (last == m)
		return;
	if (at && before(last, f->heap[(at - 1) / 2]))
		sift_up(f, at, last);
	else
		sift_down(f, at, last);
}

struct fair_member *fair_next(const struct fair *f)
{
	return f->count ? f->heap[0] : NULL;
}

void fair_begin(struct fair *f, const struct fair_member *m)
{
	if ((int64_t)(m->vtime - f->now) > 0)
		f->now = m->vtime;
}

void fair_charge(struct fair *f, struct fair_member *m, int64_t ns)
{
	m->used_ns += (uint64_t)ns;
	m->vtime += (uint64_t)(ns * SCALE / (int64_t)m->weight);
	if (m->at && ns > 0)
		sift_down(f, m->at - 1, m);
	else if (m->at)
		sift_up(f, m->at - 1, m);
}

void fair_free(struct fair *f)
{
	free(f->heap);
	*f = (struct fair){0};
}

void fair_bucket_init(struct fair_bucket *b, uint64_t rate, uint64_t burst, uint64_t now_ns)
{
	*b = (struct fair_bucket){rate, burst ? burst : rate / 100 + 1, 0, now_ns};
	b->level_x1e9 = (int64_t)(b->burst * 1000000000u);
}

uint64_t fair_bucket_wait(struct fair_bucket *b, uint64_t now_ns)
{
	uint64_t full = b->burst * 1000000000u, passed = now_ns - b->filled_ns;

	if (!b->rate)
		return 0;
	if (passed > 1000000000u) /* a second fills any bucket that we make */
		passed = 1000000000u;
	b->filled_ns = now_ns;
	b->level_x1e9 += (int64_t)(passed * b->rate);
	if (b->level_x1e9 > (int64_t)full)
		b->level_x1e9 = (int64_t)full;
	return b->level_x1e9 > 0 ? 0 : (uint64_t)-b->level_x1e9 / b->rate + 1;
}

void fair_bucket_take(struct fair_bucket *b, uint64_t n)
{
	if (b->rate)
		b->level_x1e9 -= (int64_t)(n * 1000000000u);
}
