/* SPDX-License-Identifier: MIT */
#include "pair/budget.h"

#include <math.h>
#include <string.h>

#define WINDOW_US 50000		/* bandwidth is measured over at least so long */
/*
 * Into the next pass, but not through it: with no limit a small dirty set would be sent
 * between two looks, and the hypervisor find nothing more and stop.
 */
#define PASS_SLACK (64u << 10)
#define LAST_BYTES (512u << 10) /* a trickle must not bring a member to the end of its pass */
#define WORTH_IT 0.75 /* so much of this round, at most, is another round worth */
#define PAGE_SLACK (64u << 10) /* a parked hypervisor has this much in its socket anyway */

void budget_init(struct budget *b, uint64_t limit_us, uint64_t max_rounds)
{
	memset(b, 0, sizeof(*b));
	b->limit_us = limit_us;
	b->max_rounds = max_rounds;
}

void budget_note(struct budget *b, unsigned owner, const struct pair_estimate *e,
		 uint64_t now_us)
{
	struct budget_track *t = &b->track[owner];

	t->streams = true;
	t->over = e->phase != PAIR_ACTIVE;
	t->driven = e->driven;
	t->total = e->total_bytes;
	if (e->round != t->round) {
		uint64_t sync_us = e->round_us && e->round_us <= now_us ? e->round_us : now_us;

		/* What is left at the start of a round was dirtied during the one before. */
		if (t->round && sync_us > t->sync_us) {
			t->dirtied = e->remaining_bytes;
			t->took_us = sync_us - t->sync_us;
			t->dirty_rate = (double)t->dirtied * 1e6 / (double)t->took_us;
			t->rated = true;
		}
		t->round = e->round;
		t->sync_us = sync_us;
	}
	t->remaining = e->remaining_bytes;
}

void budget_note_bytes(struct budget *b, uint64_t bytes, uint64_t now_us)
{
	double rate;

	if (!b->window_us) {
		b->window_us = now_us;
		b->window_bytes = bytes;
	}
	if (now_us - b->window_us < WINDOW_US)
		return;
	rate = (double)(bytes - b->window_bytes) * 1e6 / (double)(now_us - b->window_us);
	/* A window with a parked member shows what was wanted, not what the link can do:
	 * rise at once, fall slowly. */
	if (rate > b->bandwidth)
		b->bandwidth = rate;
	else
		b->bandwidth += (rate - b->bandwidth) / 64;
	b->window_us = now_us;
	b->window_bytes = bytes;
}

/*
 * What was dirtied since the log was read is not known before it is read again. In less time
 * than the last round took it is not more than then; a rate would say too little, because a
 * guest writes the same pages over and over, and so most of them early in a round.
 */
uint64_t budget_pending(const struct budget *b, unsigned owner, uint64_t now_us)
{
	const struct budget_track *t = &b->track[owner];
	double since = 0, bytes;

	if (!t->streams || t->over)
		return 0;
	if (t->rated && t->took_us)
		since = (double)(now_us - t->sync_us) / (double)t->took_us;
	bytes = (double)t->remaining +
		(t->rated ? (double)t->dirtied * (since > 1 ? since : 1) : 0);
	return bytes > (double)t->total ? t->total : (uint64_t)bytes;
}

uint64_t budget_downtime_us(const struct budget *b, uint64_t now_us)
{
	double bytes = 0;

	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		bytes += (double)budget_pending(b, i, now_us);
	if (b->bandwidth < 1)
		return bytes > 0 ? UINT64_MAX : 0;
	return (uint64_t)(bytes * 1e6 / b->bandwidth);
}

static bool near_end(const struct budget_track *t)
{
	return !t->streams || t->over || t->driven || (t->round && t->remaining <= BUDGET_PARK_BYTES);
}

/*
 * All are near. A member whose dirty rate is not known must come to the end of its first
 * pass, the larger one first: if it is idle it stops by itself there, and then the other
 * must be near, as it is now. Else the one with most to send makes another pass.
 */
static void let_one_through(struct budget *b, uint64_t now_us)
{
	unsigned one = budget_pending(b, 1, now_us) > budget_pending(b, 0, now_us);
	bool unrated[PAIR_MEMBERS];

	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		unrated[i] = b->track[i].streams && !b->track[i].rated;
	if (unrated[0] && unrated[1])
		one = b->track[1].total > b->track[0].total;
	else if (unrated[0] || unrated[1])
		one = unrated[1];
	b->track[one].pass_round = b->track[one].round;
}

/* So much was dirtied since a parked member's log was read that another pass pays. */
static bool stale(const struct budget *b, unsigned owner, uint64_t now_us)
{
	const struct budget_track *t = &b->track[owner];

	return t->rated && t->parked_us && now_us - t->parked_us > BUDGET_PARK_US &&
	       budget_pending(b, owner, now_us) > 4 * (uint64_t)BUDGET_PARK_BYTES;
}

static uint64_t credit_of(struct budget *b, unsigned owner, uint64_t now_us)
{
	struct budget_track *t = &b->track[owner];

	if (!t->streams || t->over || t->driven)
		return BUDGET_NO_LIMIT;
	if (t->pass_round && t->pass_round != t->round)
		t->pass_round = 0; /* that pass is over */
	if (!near_end(t)) {
		t->parked_us = 0;
		return t->round ? t->remaining - BUDGET_PARK_BYTES + PAGE_SLACK : PAGE_SLACK;
	}
	if (stale(b, owner, now_us) || (t->rated && t->parked_us && t->remaining < LAST_BYTES &&
					now_us - t->parked_us > BUDGET_PARK_US))
		t->pass_round = t->round;
	if (t->pass_round) {
		t->parked_us = 0;
		return t->remaining + PASS_SLACK;
	}
	if (!t->parked_us)
		t->parked_us = t->trickle_us = now_us;
	if (now_us - t->trickle_us < BUDGET_TRICKLE_US || t->remaining < LAST_BYTES)
		return 0;
	t->trickle_us = now_us;
	return BUDGET_TRICKLE_BYTES;
}

/*
 * Of driven members: what is written while this round lasts is what would be left after it, and how long that takes to
 * send, how long another round would last. It pays if it is a good deal shorter than this one; not with a guest that writes
 * faster than its pages can be sent, nor where a round is as short as can be.
 */
static bool another_round_pays(const struct budget *b, uint64_t now_us)
{
	double bytes = 0, this_us, next_us, so_far_us = 0;
	uint64_t took_us = 0;

	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		const struct budget_track *t = &b->track[i];

		if (!t->streams || !t->driven)
			continue;
		bytes += (double)t->dirtied;
		took_us = t->took_us;
		so_far_us = (double)(now_us - t->sync_us);
	}
	if (!took_us || b->bandwidth < 1)
		return false;
	this_us = fmax(fmax(PAIR_ROUND_US, so_far_us), bytes * 1e6 / b->bandwidth);
	next_us = fmax(PAIR_ROUND_US, bytes * this_us / (double)took_us * 1e6 / b->bandwidth);
	return next_us < this_us * WORTH_IT;
}

enum budget_verdict budget_decide(struct budget *b, uint64_t now_us, uint64_t credit[PAIR_MEMBERS])
{
	bool near = true, forced = false, known = true;

	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		struct budget_track *t = &b->track[i];

		near = near && near_end(t);
		known = known && (!t->streams || t->over || t->rated);
		forced = forced || (t->streams && t->over) || t->round > b->max_rounds;
	}
	if (forced)
		return BUDGET_FORCED;
	if (near && known && budget_downtime_us(b, now_us) <= b->limit_us && !another_round_pays(b, now_us))
		return BUDGET_STOP;
	if (near)
		let_one_through(b, now_us);
	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		credit[i] = credit_of(b, i, now_us);
	return BUDGET_GO_ON;
}
