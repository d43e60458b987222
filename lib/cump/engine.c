/* SPDX-License-Identifier: MIT */
#include "cump/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/units.h"

#define CHUNK_WORDS 64 /* between two looks at the time: 16 MiB */
/* Between two looks at what has become dirty again: one costs as much as a bitmap is long. */
#define PEEK_US 20000

struct cump_engine {
	struct cump cump;
	struct cump_source source[CUMP_MEMBERS];
	struct cump_sink sink;
	bool put[CUMP_MEMBERS][CUMP_TAIL]; /* CUMP_HEAD, CUMP_WHOLE: were */
	uint64_t to_send[CUMP_MEMBERS];	   /* pages, at the round's beginning */
	uint64_t gfn[CUMP_BATCH];
	struct cump_page page[CUMP_BATCH];

	pthread_mutex_t lock; /* what follows */
	pthread_cond_t told;
	uint64_t round_us;
	bool hold, finish, abort;
	struct cump_stats stats;
};

/* ---- what others see and say ---- */

void cump_engine_stats(struct cump_engine *e, struct cump_stats *out)
{
	pthread_mutex_lock(&e->lock);
	*out = e->stats;
	pthread_mutex_unlock(&e->lock);
}

static void tell(struct cump_engine *e, bool *what)
{
	pthread_mutex_lock(&e->lock);
	*what = true;
	pthread_cond_broadcast(&e->told);
	pthread_mutex_unlock(&e->lock);
}

void cump_engine_pace(struct cump_engine *e, uint64_t round_us)
{
	pthread_mutex_lock(&e->lock);
	e->round_us = round_us;
	pthread_cond_broadcast(&e->told);
	pthread_mutex_unlock(&e->lock);
}

void cump_engine_hold(struct cump_engine *e)
{
	tell(e, &e->hold);
}

void cump_engine_finish(struct cump_engine *e)
{
	tell(e, &e->finish);
}

void cump_engine_abort(struct cump_engine *e)
{
	tell(e, &e->abort);
}

/* Is the round to be left? The last one only if all is given up. */
static bool leave(struct cump_engine *e, bool last)
{
	bool yes;

	pthread_mutex_lock(&e->lock);
	yes = e->abort || (e->finish && !last);
	pthread_mutex_unlock(&e->lock);
	return yes;
}

/* Is it the last while they run? */
static bool no_more_rounds(struct cump_engine *e)
{
	bool yes;

	pthread_mutex_lock(&e->lock);
	yes = e->abort || e->finish || e->hold;
	pthread_mutex_unlock(&e->lock);
	return yes;
}

static int aborted(struct cump_engine *e, struct err *err)
{
	return leave(e, true) ? err_set(err, -ECANCELED, "copy pair: given up") : 0;
}

/* Until the round after the one that was begun at @begun_us is due. */
static void await_round(struct cump_engine *e, uint64_t begun_us)
{
	pthread_mutex_lock(&e->lock);
	while (!e->hold && !e->finish && !e->abort && units_now_us() < begun_us + e->round_us) {
		uint64_t until_us = begun_us + e->round_us;
		struct timespec until = {(time_t)(until_us / 1000000), (long)(until_us % 1000000 * 1000)};

		pthread_cond_timedwait(&e->told, &e->lock, &until);
	}
	pthread_mutex_unlock(&e->lock);
}

static void await_finish(struct cump_engine *e)
{
	pthread_mutex_lock(&e->lock);
	e->stats.phase = CUMP_HELD;
	while (!e->finish && !e->abort)
		pthread_cond_wait(&e->told, &e->lock);
	pthread_mutex_unlock(&e->lock);
}

static int set_phase(struct cump_engine *e, enum cump_phase phase, int rc)
{
	pthread_mutex_lock(&e->lock);
	e->stats.phase = phase;
	pthread_mutex_unlock(&e->lock);
	return rc;
}

/* ---- its life ---- */

int cump_engine_new(const struct cump_source source[CUMP_MEMBERS], const struct cump_sink *sink,
		    enum cump_policy policy, uint64_t round_us, struct cump_engine **out,
		    struct err *err)
{
	struct cump_engine *e = calloc(1, sizeof(*e));
	uint64_t pages[CUMP_MEMBERS];
	pthread_condattr_t attr;
	int rc;

	if (!e)
		return err_set(err, -ENOMEM, "copy pair: out of memory");
	for (unsigned i = 0; i < CUMP_MEMBERS; i++) {
		e->source[i] = source[i];
		pages[i] = source[i].ops->pages(source[i].ctx);
	}
	rc = cump_init(&e->cump, pages, policy);
	if (rc) {
		free(e);
		return err_sys(err, rc, "copy pair: bitmaps of %llu and %llu pages",
			       (unsigned long long)pages[0], (unsigned long long)pages[1]);
	}
	e->sink = *sink;
	e->round_us = round_us;
	pthread_mutex_init(&e->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&e->told, &attr);
	pthread_condattr_destroy(&attr);
	*out = e;
	return 0;
}

void cump_engine_free(struct cump_engine *e)
{
	if (!e)
		return;
	pthread_cond_destroy(&e->told);
	pthread_mutex_destroy(&e->lock);
	cump_free(&e->cump);
	free(e);
}

/* ---- pages ---- */

/* What the members have left in this round; counted once a round, then kept by note_batch. */
static void note_round(struct cump_engine *e, uint64_t round, uint64_t begun_us)
{
	uint64_t deferred[CUMP_MEMBERS];

	for (unsigned i = 0; i < CUMP_MEMBERS; i++) {
		e->to_send[i] = cump_to_send(&e->cump, i);
		deferred[i] = cump_deferred(&e->cump, i);
	}
	pthread_mutex_lock(&e->lock);
	e->stats.round = round;
	e->stats.begun_us = begun_us;
	for (unsigned i = 0; i < CUMP_MEMBERS; i++) {
		e->stats.member[i].remaining = e->to_send[i] + deferred[i];
		e->stats.member[i].deferred += deferred[i];
	}
	pthread_mutex_unlock(&e->lock);
}

static void note_batch(struct cump_engine *e, unsigned member, size_t sent, size_t empty)
{
	struct cump_progress *p = &e->stats.member[member];

	pthread_mutex_lock(&e->lock);
	p->sent += sent;
	p->empty += empty;
	p->remaining -= sent < p->remaining ? sent : p->remaining;
	pthread_mutex_unlock(&e->lock);
}

/* Those that could not be mapped now are deferred; the rest moves up. */
static size_t sort_out(struct cump_engine *e, unsigned member, size_t n, size_t *empty)
{
	size_t kept = 0;

	*empty = 0;
	for (size_t i = 0; i < n; i++) {
		if (e->page[i].type == CUMP_LATER) {
			cump_put_back(&e->cump, member, e->gfn[i]);
			continue;
		}
		*empty += !e->page[i].data;
		e->page[kept++] = e->page[i];
	}
	return kept;
}

static int send_batch(struct cump_engine *e, unsigned member, size_t n, struct err *err)
{
	const struct cump_source *s = &e->source[member];
	size_t kept, empty;
	int rc = s->ops->map(s->ctx, e->gfn, n, e->page, err);

	if (rc)
		return rc;
	kept = sort_out(e, member, n, &empty);
	if (kept)
		rc = e->sink.ops->pages(e->sink.ctx, member, e->page, kept, err);
	s->ops->unmap(s->ctx);
	if (!rc)
		note_batch(e, member, kept, empty);
	return rc;
}

/* Words *@from … @to - 1 of one member. Told to stop, it leaves *@from where it stood. */
static int send_words(struct cump_engine *e, unsigned member, size_t *from, size_t to, bool last,
		      struct err *err)
{
	int rc = 0;

	if (to > e->cump.member[member].words)
		to = e->cump.member[member].words;
	while (!rc && *from < to && !leave(e, last)) {
		size_t n = cump_take(&e->cump, member, from, to, e->gfn, CUMP_BATCH);

		rc = n ? send_batch(e, member, n, err) : 0;
	}
	return rc;
}

/* ---- rounds ---- */

static int peek_both(struct cump_engine *e, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; !rc && i < CUMP_MEMBERS; i++)
		if (e->cump.member[i].words)
			rc = e->source[i].ops->peek(e->source[i].ctx, e->cump.member[i].to_skip, err);
	return rc;
}

/* A source may know pages beyond its own end: those bits stay 0. */
static void trim(struct cump_map *m, uint64_t *bitmap)
{
	if (m->pages % 64)
		bitmap[m->words - 1] &= (1ull << m->pages % 64) - 1;
}

static int clean_both(struct cump_engine *e, bool last, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; !rc && i < CUMP_MEMBERS; i++) {
		struct cump_map *m = &e->cump.member[i];

		if (!m->words)
			continue;
		rc = e->source[i].ops->clean(e->source[i].ctx, m->to_send, last, err);
		if (!rc)
			trim(m, m->to_send);
	}
	return rc;
}

/*
 * What has become dirty again while the round runs need not be sent in it: look now and then,
 * and decide again for what is still ahead.
 */
static int look_again(struct cump_engine *e, size_t at, uint64_t *looked_us, struct err *err)
{
	uint64_t now = units_now_us();
	int rc;

	if (now - *looked_us < PEEK_US)
		return 0;
	rc = peek_both(e, err);
	if (!rc)
		cump_decide(&e->cump, at, e->cump.words);
	*looked_us = units_now_us();
	return rc;
}

static int put_state(struct cump_engine *e, unsigned member, enum cump_state which, struct err *err)
{
	const struct cump_source *s = &e->source[member];

	return s->ops->state ? s->ops->state(s->ctx, which, &e->sink, member, err) : 0;
}

/* The first time only. */
static int put_once(struct cump_engine *e, unsigned member, enum cump_state which, struct err *err)
{
	if (e->put[member][which])
		return 0;
	e->put[member][which] = true;
	return put_state(e, member, which, err);
}

static unsigned smaller(const struct cump_engine *e)
{
	return e->to_send[CUMP_VTPM] < e->to_send[CUMP_VM] ? CUMP_VTPM : CUMP_VM;
}

static int copy_member(struct cump_engine *e, unsigned member, uint64_t *looked_us, struct err *err)
{
	size_t words = e->cump.member[member].words;
	int rc = put_once(e, member, CUMP_HEAD, err);

	for (size_t at = 0; !rc && !leave(e, false);) {
		at = cump_next(&e->cump, member, at);
		if (at >= words)
			break;
		rc = look_again(e, at, looked_us, err);
		if (!rc)
			rc = send_words(e, member, &at, at + CHUNK_WORDS, false, err);
	}
	return rc || leave(e, false) ? rc : put_once(e, member, CUMP_WHOLE, err);
}

/* The smaller one first: the other side builds it while the larger is on its way. */
static int copy_round(struct cump_engine *e, struct err *err)
{
	unsigned first = smaller(e);
	uint64_t looked_us = units_now_us();
	int rc = copy_member(e, first, &looked_us, err);

	if (!rc)
		rc = copy_member(e, !first, &looked_us, err);
	/* What cump_take has not reached is still in to_send, wherever the round was left. */
	cump_leave(&e->cump, 0);
	return rc;
}

/* All pages that there are. */
static int begin(struct cump_engine *e, struct err *err)
{
	int rc = 0;

	cump_begin(&e->cump);
	for (unsigned i = 0; !rc && i < CUMP_MEMBERS; i++) {
		struct cump_map *m = &e->cump.member[i];

		if (m->words && e->source[i].ops->present) {
			memset(m->to_send, 0, m->words * sizeof(uint64_t));
			rc = e->source[i].ops->present(e->source[i].ctx, m->to_send, err);
			trim(m, m->to_send);
		}
		pthread_mutex_lock(&e->lock);
		e->stats.member[i].pages = e->stats.member[i].remaining = cump_to_send(&e->cump, i);
		pthread_mutex_unlock(&e->lock);
	}
	/* Deferred, whoever leaves before the first round has begun: it takes them up, and so does the last. */
	cump_leave(&e->cump, 0);
	return rc;
}

static int copy_while_running(struct cump_engine *e, struct err *err)
{
	int rc = begin(e, err);

	for (uint64_t round = 1; !rc && !no_more_rounds(e); round++) {
		uint64_t begun = units_now_us();

		if (round > 1)
			rc = clean_both(e, false, err);
		/* Right after the log was cleared nothing is worth skipping, but in the first
		 * round it is as old as the log. */
		if (!rc)
			rc = peek_both(e, err);
		if (rc)
			break;
		cump_decide(&e->cump, 0, e->cump.words);
		note_round(e, round, begun);
		rc = copy_round(e, err);
		if (!rc)
			await_round(e, begun);
	}
	if (!rc)
		await_finish(e);
	return rc ? rc : aborted(e, err);
}

/* All that one member has left, and its state: then the other side has all of it. */
static int finish_member(struct cump_engine *e, unsigned member, struct err *err)
{
	size_t from = 0;
	int rc = put_once(e, member, CUMP_HEAD, err);
	uint64_t left;

	if (!rc)
		rc = send_words(e, member, &from, SIZE_MAX, true, err);
	if (!rc)
		rc = aborted(e, err);
	left = cump_deferred(&e->cump, member);
	if (!rc && left) /* it stands still: now is later */
		rc = err_set(err, -EIO, "copy pair: %llu pages cannot be read", (unsigned long long)left);
	if (!rc)
		rc = put_once(e, member, CUMP_WHOLE, err);
	return rc ? rc : put_state(e, member, CUMP_TAIL, err);
}

/* One after the other, the one with less first: the other side restores it while the larger is on its way. */
static int copy_the_rest(struct cump_engine *e, struct err *err)
{
	uint64_t begun = units_now_us();
	struct cump_stats now;
	unsigned first;
	int rc = clean_both(e, true, err);

	if (rc)
		return rc;
	cump_decide_all(&e->cump);
	cump_engine_stats(e, &now);
	note_round(e, now.round + 1, begun);
	first = smaller(e);
	rc = finish_member(e, first, err);
	return rc ? rc : finish_member(e, !first, err);
}

int cump_engine_run(struct cump_engine *e, struct err *err)
{
	int rc = copy_while_running(e, err);

	if (!rc) {
		set_phase(e, CUMP_FINISHING, 0);
		rc = copy_the_rest(e, err);
	}
	return set_phase(e, rc ? CUMP_FAILED : CUMP_DONE, rc);
}
