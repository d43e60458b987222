/* SPDX-License-Identifier: MIT */
/*
 * The budget against simulated members on a simulated clock: each sends what its credit and the link
 * let through, its guest dirties memory all the while, and it stops by itself where it finds
 * nothing left at the end of a pass, as QEMU does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "pair/budget.h"

#define MIB (1ull << 20)
#define TICK_US 4000ull
#define LIMIT_US 300000ull
#define ROUNDS 30

struct member {
	bool streams;
	uint64_t total;
	double dirty_rate, working_set; /* bytes/s; the most that can be dirty */
	/* what it is at */
	double remaining, dirty;
	uint64_t round, credit;
	bool over;
};

struct world {
	struct member m[PAIR_MEMBERS];
	struct budget b;
	double link; /* bytes/s */
	uint64_t now, sent;
	uint64_t parked_ticks[PAIR_MEMBERS];
	uint64_t passes_alone; /* ticks in which a pass is made while the other is parked */
};

static struct world make(double link, struct member vm, struct member vtpm)
{
	struct world w = {.m = {vm, vtpm}, .link = link, .now = 1000000};

	budget_init(&w.b, LIMIT_US, ROUNDS);
	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		w.m[i].remaining = (double)w.m[i].total;
		w.m[i].round = 1;
		w.m[i].credit = BUDGET_NO_LIMIT;
	}
	return w;
}

static double send_some(struct world *w, struct member *m, double most)
{
	double n = most < m->remaining ? most : m->remaining;

	if (!m->streams || m->over)
		return 0;
	if (m->credit != BUDGET_NO_LIMIT && n > (double)m->credit)
		n = (double)m->credit;
	m->remaining -= n;
	if (m->credit != BUDGET_NO_LIMIT)
		m->credit -= (uint64_t)n;
	w->sent += (uint64_t)n;
	if (m->remaining < 1) { /* end of the pass: look at the log again */
		m->remaining = m->dirty;
		m->dirty = 0;
		m->round++;
		/* downtime-limit is 1 ms */
		m->over = m->remaining < w->link / 1000;
	}
	return n;
}

static void tick(struct world *w)
{
	double room = w->link * TICK_US / 1e6, had;

	w->now += TICK_US;
	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		struct member *m = &w->m[i];

		m->dirty += m->over ? 0 : m->dirty_rate * TICK_US / 1e6;
		if (m->dirty > m->working_set)
			m->dirty = m->working_set;
	}
	had = send_some(w, &w->m[0], room / 2);
	had += send_some(w, &w->m[1], room - had);
	send_some(w, &w->m[0], room - had);
}

static enum budget_verdict look(struct world *w)
{
	uint64_t credit[PAIR_MEMBERS] = {0};
	enum budget_verdict v;

	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		struct member *m = &w->m[i];
		struct pair_estimate e = {.phase = m->over ? PAIR_COMPLETED : PAIR_ACTIVE,
					  .total_bytes = m->total,
					  .remaining_bytes = (uint64_t)m->remaining,
					  .round = m->round};

		if (m->streams)
			budget_note(&w->b, i, &e, w->now);
	}
	budget_note_bytes(&w->b, w->sent, w->now);
	v = budget_decide(&w->b, w->now, credit);
	if (v == BUDGET_GO_ON)
		for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
			w->m[i].credit = credit[i];
			w->parked_ticks[i] += w->m[i].streams && !w->m[i].over && !credit[i];
		}
	return v;
}

/* Run to the verdict; GO_ON: none within @seconds. */
static enum budget_verdict run(struct world *w, unsigned seconds)
{
	uint64_t until = w->now + seconds * 1000000ull;
	enum budget_verdict v;

	for (;;) {
		v = look(w);
		if (v != BUDGET_GO_ON || w->now > until)
			return v;
		tick(w);
	}
}

/* What would be sent while both stand still. */
static double left_us(const struct world *w)
{
	double bytes = 0;

	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		if (w->m[i].streams && !w->m[i].over)
			bytes += w->m[i].remaining + w->m[i].dirty;
	return bytes / w->link * 1e6;
}

static const double gigabit = 119e6;

static struct member vm_of(uint64_t mib, double dirty_mib_s, double set_mib)
{
	return (struct member){.streams = true, .total = mib * MIB,
			       .dirty_rate = dirty_mib_s * (double)MIB,
			       .working_set = set_mib * (double)MIB};
}

static void idle_vtpm_and_busy_vm(void **state)
{
	struct world w = make(gigabit, vm_of(512, 30, 64), vm_of(64, 0.05, 1));

	(void)state;
	assert_int_equal(run(&w, 60), BUDGET_STOP);
	assert_true(left_us(&w) < LIMIT_US * 1.3);
	assert_true(w.now < 20000000); /* two passes of 576 MiB at most, not ten */
}

static void both_busy(void **state)
{
	struct world w = make(gigabit, vm_of(512, 20, 128), vm_of(256, 20, 96));

	(void)state;
	assert_int_equal(run(&w, 90), BUDGET_STOP);
	assert_true(left_us(&w) < LIMIT_US * 1.3);
}

static void both_idle(void **state)
{
	struct world w = make(gigabit, vm_of(512, 0.2, 4), vm_of(64, 0.1, 1));
	enum budget_verdict v;

	(void)state;
	v = run(&w, 60);
	assert_int_not_equal(v, BUDGET_GO_ON);
	assert_true(left_us(&w) < LIMIT_US * 1.3);
	assert_true(w.now < 1000000 + 8000000);
}

/* More is dirtied than the link takes: forced, and only when the rounds are used up. */
static void never_converging(void **state)
{
	struct world w = make(gigabit, vm_of(256, 300, 200), vm_of(64, 0.05, 1));

	(void)state;
	assert_int_equal(run(&w, 600), BUDGET_FORCED);
	assert_true(w.m[0].round > ROUNDS || w.m[1].over);
	if (!w.m[1].over)
		assert_true(w.m[0].round == ROUNDS + 1);
}

static void a_tpm_process_has_no_stream(void **state)
{
	struct member none = {0};
	struct world w = make(gigabit, vm_of(512, 30, 64), none);

	(void)state;
	assert_int_equal(run(&w, 60), BUDGET_STOP);
	assert_true(left_us(&w) < LIMIT_US * 1.3);
	assert_int_equal(budget_pending(&w.b, 1, w.now), 0);
}

static unsigned next(uint32_t *x)
{
	*x = *x * 1664525 + 1013904223;
	return *x >> 20;
}

/* Over many pairs: @each looks at every one that was stopped. */
static void many_pairs(void (*each)(const struct world *w, enum budget_verdict v, unsigned k))
{
	uint32_t x = 1;

	for (unsigned k = 0; k < 300; k++) {
		double link = (double)(20 + next(&x) % 400) * (double)MIB;
		struct member vm = vm_of(64 + next(&x) % 1000, next(&x) % 60, 16 + next(&x) % 100);
		struct member vtpm = vm_of(16 + next(&x) % 300, next(&x) % 20, 4 + next(&x) % 16);
		struct world w = make(link, vm, vtpm);
		enum budget_verdict v = run(&w, 400);

		each(&w, v, k);
	}
}

static void near_the_end(const struct world *w, enum budget_verdict v, unsigned k)
{
	if (v == BUDGET_GO_ON)
		fail_msg("pair %u: no verdict; rounds %llu, %llu", k,
			 (unsigned long long)w->m[0].round, (unsigned long long)w->m[1].round);
	for (unsigned i = 0; v == BUDGET_STOP && i < PAIR_MEMBERS; i++)
		if (!w->m[i].over && w->m[i].remaining > 2.0 * BUDGET_PARK_BYTES)
			fail_msg("pair %u: member %u stopped in the middle of a pass", k, i);
}

static void never_stopped_far_from_the_end(void **state)
{
	(void)state;
	many_pairs(near_the_end);
}

static void within_the_budget(const struct world *w, enum budget_verdict v, unsigned k)
{
	if (v == BUDGET_STOP && left_us(w) > LIMIT_US * 1.5)
		fail_msg("pair %u: stopped with %.0f ms to go", k, left_us(w) / 1000);
}

static void stopped_within_the_budget(void **state)
{
	(void)state;
	/* A guest that writes the same 70 MiB over and over, at 40 MiB/s, shows 4 MiB/s over a first
	 * pass of 15 s: the rate of a long round says little of the seconds after the next began. */
	many_pairs(within_the_budget);
}

/* ---- single decisions ---- */

static void note(struct budget *b, unsigned owner, uint64_t total, uint64_t left, uint64_t round,
		 uint64_t now)
{
	struct pair_estimate e = {.phase = PAIR_ACTIVE, .total_bytes = total, .remaining_bytes = left,
				  .round = round};

	budget_note(b, owner, &e, now);
}

static void rated_at(struct budget *b, unsigned owner, uint64_t total, uint64_t dirty, uint64_t left,
		     uint64_t now)
{
	note(b, owner, total, total, 1, now - 2000000);
	note(b, owner, total, dirty, 2, now - 1000000); /* dirty bytes/s */
	note(b, owner, total, left, 2, now);
}

static void bandwidth_of(struct budget *b, uint64_t per_s, uint64_t now)
{
	budget_note_bytes(b, 0, now - 100000);
	budget_note_bytes(b, per_s / 10, now);
	assert_int_equal((uint64_t)b->bandwidth, per_s);
}

static void a_vm_far_from_its_end_is_not_stopped(void **state)
{
	uint64_t credit[2] = {0}, now = 10000000;
	struct budget b;

	(void)state;
	budget_init(&b, LIMIT_US, ROUNDS);
	bandwidth_of(&b, 100 * MIB, now);
	rated_at(&b, 0, 512 * MIB, 40 * MIB, 200 * MIB, now);
	rated_at(&b, 1, 64 * MIB, 1 * MIB, 1 * MIB, now);
	assert_int_equal(budget_decide(&b, now, credit), BUDGET_GO_ON);
	assert_int_equal(credit[1], 0); /* it waits, parked */
	assert_true(credit[0] >= 100 * MIB && credit[0] <= 200 * MIB);
}

static void what_is_pending_grows_with_time(void **state)
{
	uint64_t now = 10000000;
	struct budget b;

	(void)state;
	budget_init(&b, LIMIT_US, ROUNDS);
	assert_int_equal(budget_downtime_us(&b, now), 0);
	note(&b, 0, 100 * MIB, 100 * MIB, 1, now);
	assert_true(budget_downtime_us(&b, now) == UINT64_MAX); /* no bandwidth is known yet */
	memset(&b, 0, sizeof(b));
	budget_init(&b, LIMIT_US, ROUNDS);
	bandwidth_of(&b, 100 * MIB, now);
	rated_at(&b, 0, 100 * MIB, 10 * MIB, 5 * MIB, now);
	assert_int_equal(budget_pending(&b, 0, now), 15 * MIB);
	assert_int_equal(budget_pending(&b, 0, now + 2000000), 35 * MIB);
	assert_int_equal(budget_pending(&b, 0, now + 3600000000ull), 100 * MIB); /* not more than it has */
	assert_int_equal(budget_pending(&b, 1, now), 0);
	assert_int_equal(budget_downtime_us(&b, now), 150000);
}

static void unrated_members_go_one_at_a_time(void **state)
{
	uint64_t credit[2] = {0}, now = 10000000;
	struct budget b;

	(void)state;
	budget_init(&b, LIMIT_US, ROUNDS);
	bandwidth_of(&b, 1000 * MIB, now);
	note(&b, 0, 512 * MIB, 1 * MIB, 1, now);
	note(&b, 1, 64 * MIB, 1 * MIB, 1, now);
	assert_int_equal(budget_decide(&b, now, credit), BUDGET_GO_ON);
	assert_true(!!credit[0] + !!credit[1] == 1);
	assert_true(credit[0] > 0); /* the larger one first */
	/* It has ended its pass, and is near again: now the other. */
	now += 1000000;
	note(&b, 0, 512 * MIB, 1 * MIB, 2, now);
	assert_int_equal(budget_decide(&b, now, credit), BUDGET_GO_ON);
	assert_int_equal(credit[0], 0);
	assert_true(credit[1] > 0);
}

static void a_parked_member_gets_its_stale_pass(void **state)
{
	uint64_t credit[2] = {0}, now = 10000000;
	struct budget b;

	(void)state;
	budget_init(&b, LIMIT_US, ROUNDS);
	bandwidth_of(&b, 100 * MIB, now);
	rated_at(&b, 0, 4096 * MIB, 40 * MIB, 3000 * MIB, now);
	rated_at(&b, 1, 256 * MIB, 10 * MIB, 1 * MIB, now);
	assert_int_equal(budget_decide(&b, now, credit), BUDGET_GO_ON);
	assert_true(credit[1] <= BUDGET_TRICKLE_BYTES);
	now += BUDGET_PARK_US / 2;
	assert_int_equal(budget_decide(&b, now, credit), BUDGET_GO_ON);
	assert_true(credit[1] <= BUDGET_TRICKLE_BYTES);
	now += 2 * BUDGET_PARK_US;
	assert_int_equal(budget_decide(&b, now, credit), BUDGET_GO_ON);
	assert_true(credit[1] > BUDGET_TRICKLE_BYTES);
	/* One pass: then it is parked again. */
	now += 300000;
	note(&b, 1, 256 * MIB, 2 * MIB, 3, now);
	assert_int_equal(budget_decide(&b, now, credit), BUDGET_GO_ON);
	assert_true(credit[1] <= BUDGET_TRICKLE_BYTES);
}

static void rounds_are_counted_for_both(void **state)
{
	uint64_t credit[2] = {0}, now = 10000000;

	(void)state;
	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		struct budget b;

		budget_init(&b, LIMIT_US, 5);
		bandwidth_of(&b, 10 * MIB, now);
		note(&b, i, 512 * MIB, 100 * MIB, 5, now);
		note(&b, !i, 512 * MIB, 100 * MIB, 2, now);
		assert_int_equal(budget_decide(&b, now, credit), BUDGET_GO_ON);
		note(&b, i, 512 * MIB, 100 * MIB, 6, now + 1000);
		assert_int_equal(budget_decide(&b, now + 1000, credit), BUDGET_FORCED);
	}
}

static void bandwidth_rises_at_once_and_falls_slowly(void **state)
{
	uint64_t now = 10000000, sent = 0;
	struct budget b;

	(void)state;
	budget_init(&b, LIMIT_US, ROUNDS);
	budget_note_bytes(&b, 0, now);
	for (unsigned i = 0; i < 100; i++) {
		now += 1000;
		sent += MIB / 10;
		budget_note_bytes(&b, sent, now);
	}
	assert_true(b.bandwidth > 99.0 * MIB && b.bandwidth < 110.0 * MIB);
	for (unsigned i = 0; i < 1000; i++) /* a second in which both are parked */
		budget_note_bytes(&b, sent, now += 1000);
	assert_true(b.bandwidth > 50.0 * MIB);
}

/* Driven by us: it is never held back, and the budget alone ends it. */
static void a_driven_pair_is_not_parked(void **state)
{
	uint64_t credit[PAIR_MEMBERS] = {0}, now = 1000000;
	struct budget b;

	(void)state;
	budget_init(&b, LIMIT_US, ROUNDS);
	for (uint64_t round = 1; round < 4; round++) {
		now += 100000;
		for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
			struct pair_estimate e = {.phase = PAIR_ACTIVE, .total_bytes = 512 * MIB,
						  .remaining_bytes = round < 3 ? 64 * MIB : MIB / 4,
						  .round = round, .driven = true};

			budget_note(&b, i, &e, now + i);
			budget_note_bytes(&b, now * 100, now);
			if (round < 3) {
				assert_int_equal(budget_decide(&b, now + i, credit), BUDGET_GO_ON);
				assert_true(credit[i] == BUDGET_NO_LIMIT);
			}
		}
	}
	assert_int_equal(budget_decide(&b, now + 1, credit), BUDGET_STOP);
}

/* A round of a driven pair took @took_us, and since @ago_us @dirtied bytes are to be sent at 100 MiB/s. */
static enum budget_verdict after_a_round(uint64_t took_us, uint64_t dirtied, uint64_t ago_us)
{
	uint64_t credit[PAIR_MEMBERS], now = 2000000;
	struct budget b;

	budget_init(&b, LIMIT_US, ROUNDS);
	budget_note_bytes(&b, 0, now - 1000000);
	budget_note_bytes(&b, 100 * MIB, now);
	for (uint64_t round = 1; round < 3; round++, now += round == 2 ? took_us : 0)
		for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
			struct pair_estimate e = {.phase = PAIR_ACTIVE, .total_bytes = 512 * MIB,
						  .remaining_bytes = dirtied / 2, .round = round, .driven = true};

			budget_note(&b, i, &e, now);
		}
	return budget_decide(&b, now + ago_us, credit);
}

static void another_round_is_made_where_it_pays(void **state)
{
	(void)state;
	/* 2 MiB take 20 ms, and meanwhile a tenth of that is written. */
	assert_int_equal(after_a_round(200000, 2 * MIB, 0), BUDGET_GO_ON);
	/* As much as is sent is written again. */
	assert_int_equal(after_a_round(20000, 2 * MIB, 0), BUDGET_STOP);
	/* No round is shorter than this one. */
	assert_int_equal(after_a_round(200000, MIB / 2, 0), BUDGET_STOP);
	/* But it was begun long ago, and what was written since is not known yet. */
	assert_int_equal(after_a_round(200000, MIB / 2, 100000), BUDGET_GO_ON);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_driven_pair_is_not_parked),
		cmocka_unit_test(another_round_is_made_where_it_pays),
		cmocka_unit_test(idle_vtpm_and_busy_vm),
		cmocka_unit_test(both_busy),
		cmocka_unit_test(both_idle),
		cmocka_unit_test(never_converging),
		cmocka_unit_test(a_tpm_process_has_no_stream),
		cmocka_unit_test(never_stopped_far_from_the_end),
		cmocka_unit_test(stopped_within_the_budget),
		cmocka_unit_test(a_vm_far_from_its_end_is_not_stopped),
		cmocka_unit_test(what_is_pending_grows_with_time),
		cmocka_unit_test(unrated_members_go_one_at_a_time),
		cmocka_unit_test(a_parked_member_gets_its_stale_pass),
		cmocka_unit_test(rounds_are_counted_for_both),
		cmocka_unit_test(bandwidth_rises_at_once_and_falls_slowly),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
