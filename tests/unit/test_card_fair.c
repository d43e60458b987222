/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "cardd/fair.h"

static void turn(struct fair *f, int64_t ns)
{
	struct fair_member *m = fair_next(f);

	fair_begin(f, m);
	fair_charge(f, m, ns);
}

/* A minute of turns among members who always ask; each turn costs what @cost says. */
static void run(struct fair *f, struct fair_member *m, unsigned n, const uint64_t *cost, unsigned turns)
{
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(fair_enter(f, &m[i]), 0);
	for (unsigned t = 0; t < turns; t++) {
		struct fair_member *next = fair_next(f);

		assert_non_null(next);
		fair_begin(f, next);
		fair_charge(f, next, (int64_t)cost[next - m]);
	}
}

/* Shares follow weights, whatever a request of each costs. */
static void shares_follow_weights(void **state)
{
	struct fair f = {0};
	struct fair_member m[3] = {{.weight = 1}, {.weight = 2}, {.weight = 4}};
	static const uint64_t cost[] = {400000, 35000, 900};
	uint64_t sum = 0;

	(void)state;
	run(&f, m, 3, cost, 2000000);
	for (unsigned i = 0; i < 3; i++)
		sum += m[i].used_ns;
	for (unsigned i = 0; i < 3; i++) {
		double share = (double)m[i].used_ns / (double)sum, want = m[i].weight / 7.0;

		assert_true(share > want * 0.98 && share < want * 1.02);
	}
	fair_free(&f);
}

/* Sixteen alike, with requests alike: nobody is more than one request ahead. */
static void equals_are_equal(void **state)
{
	struct fair f = {0};
	struct fair_member m[16];
	uint64_t cost[16];

	(void)state;
	for (unsigned i = 0; i < 16; i++) {
		m[i] = (struct fair_member){.weight = 100};
		cost[i] = 1000;
	}
	run(&f, m, 16, cost, 16 * 1000 + 5);
	for (unsigned i = 0; i < 16; i++)
		assert_true(m[i].used_ns == 1000000 || m[i].used_ns == 1001000);
	fair_free(&f);
}

/* Who comes back after a long time is next, once, and has no debt of the others to collect. */
static void idleness_saves_nothing(void **state)
{
	struct fair f = {0};
	struct fair_member flood = {.weight = 1}, quiet = {.weight = 1};
	unsigned quiet_turns = 0;

	(void)state;
	assert_int_equal(fair_enter(&f, &flood), 0);
	for (unsigned i = 0; i < 100000; i++)
		turn(&f, 1000);
	assert_int_equal(fair_enter(&f, &quiet), 0);
	assert_ptr_equal(fair_next(&f), &quiet);
	for (unsigned i = 0; i < 1000; i++) {
		struct fair_member *next = fair_next(&f);

		quiet_turns += next == &quiet;
		turn(&f, 1000);
	}
	assert_in_range(quiet_turns, 499, 501);
	fair_leave(&f, &quiet);
	fair_leave(&f, &quiet);
	assert_ptr_equal(fair_next(&f), &flood);
	fair_leave(&f, &flood);
	assert_null(fair_next(&f));
	fair_free(&f);
}

/* Who could not go on, as the card was full, comes back to what is due to him. */
static void blocked_is_not_idle(void **state)
{
	struct fair f = {0};
	struct fair_member heavy = {.weight = 4}, light = {.weight = 1};

	(void)state;
	assert_int_equal(fair_enter(&f, &heavy), 0);
	assert_int_equal(fair_enter(&f, &light), 0);
	for (unsigned i = 0; i < 100000; i++) {
		turn(&f, 1000);
		fair_leave(&f, &heavy);
		fair_leave(&f, &light);
		assert_int_equal(fair_return(&f, &light), 0);
		assert_int_equal(fair_return(&f, &heavy), 0);
	}
	assert_in_range(heavy.used_ns, light.used_ns * 39 / 10, light.used_ns * 41 / 10);
	fair_free(&f);
}

/* Members come and go at random; the heap always names the one with the least. */
static void heap_stays_a_heap(void **state)
{
	struct fair f = {0};
	struct fair_member m[50];
	uint32_t seed = 1;

	(void)state;
	for (unsigned i = 0; i < 50; i++)
		m[i] = (struct fair_member){.weight = i + 1};
	for (unsigned t = 0; t < 200000; t++) {
		struct fair_member *x = &m[(seed = seed * 1664525 + 1013904223) >> 8 & 31], *next;

		if (seed >> 30)
			assert_int_equal(fair_enter(&f, x), 0);
		else
			fair_leave(&f, x);
		next = fair_next(&f);
		for (uint32_t i = 0; i < f.count; i++) {
			assert_true((int64_t)(f.heap[i]->vtime - next->vtime) >= 0);
			assert_int_equal(f.heap[i]->at, i + 1);
		}
		if (next)
			turn(&f, seed >> 20);
	}
	fair_free(&f);
}

static void buckets_limit(void **state)
{
	struct fair_bucket b;
	uint64_t now = 1000, taken = 0;

	(void)state;
	fair_bucket_init(&b, 1000, 10, now);
	for (unsigned i = 0; i < 100000; i++, now += 10000) /* one second, 10 us a step */
		if (!fair_bucket_wait(&b, now)) {
			fair_bucket_take(&b, 1);
			taken++;
		}
	assert_in_range(taken, 1000, 1011);
	/* One large request is let through and paid off. */
	now += 1000000000;
	assert_int_equal(fair_bucket_wait(&b, now), 0);
	fair_bucket_take(&b, 500);
	assert_in_range(fair_bucket_wait(&b, now), 480000000, 491000000);
	fair_bucket_init(&b, 0, 0, now);
	fair_bucket_take(&b, UINT32_MAX);
	assert_int_equal(fair_bucket_wait(&b, now), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shares_follow_weights),
		cmocka_unit_test(equals_are_equal),
		cmocka_unit_test(idleness_saves_nothing),
		cmocka_unit_test(blocked_is_not_idle),
		cmocka_unit_test(heap_stays_a_heap),
		cmocka_unit_test(buckets_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
