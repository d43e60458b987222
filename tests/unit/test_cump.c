/* SPDX-License-Identifier: MIT */
/* Tables 1 to 3 bit for bit, histories against the model, and the engine over a memory that is written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <errno.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "cump/engine.h"
#include "cump_model.h"

/* ---- the tables ---- */

/* Bit 0 to 15 of a word are the 16 combinations of the four bitmaps of the paper's cumpInfo. */
enum { VM_SEND = 1, VTPM_SEND = 2, VM_SKIP = 4, VTPM_SKIP = 8 };

static void lay_out(struct cump *c, enum cump_policy policy)
{
	const uint64_t pages[CUMP_MEMBERS] = {16, 16};

	assert_int_equal(cump_init(c, pages, policy), 0);
	for (unsigned bit = 0; bit < 16; bit++) {
		c->member[CUMP_VM].to_send[0] |= (uint64_t)!!(bit & VM_SEND) << bit;
		c->member[CUMP_VTPM].to_send[0] |= (uint64_t)!!(bit & VTPM_SEND) << bit;
		c->member[CUMP_VM].to_skip[0] |= (uint64_t)!!(bit & VM_SKIP) << bit;
		c->member[CUMP_VTPM].to_skip[0] |= (uint64_t)!!(bit & VTPM_SKIP) << bit;
	}
}

static void tables_1_and_2(void **state)
{
	struct cump c;

	(void)state;
	lay_out(&c, CUMP_UNION);
	for (unsigned bit = 0; bit < 16; bit++) {
		struct cump_word u = cump_union(&c, 0);

		assert_int_equal(u.to_send >> bit & 1, (bit & VM_SEND) || (bit & VTPM_SEND));
		assert_int_equal(u.to_skip >> bit & 1, (bit & VM_SKIP) || (bit & VTPM_SKIP));
	}
	cump_free(&c);
}

static void table_3(void **state)
{
	/* CUMP.to.send 0 0 1 1, CUMP.to.skip 0 1 0 1: no, no, yes, no */
	static const struct {
		struct cump_word in;
		uint64_t sent;
	} row[] = {{{0, 0}, 0}, {{0, 1}, 0}, {{1, 0}, 1}, {{1, 1}, 0}};

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(cump_sent(row[i].in), row[i].sent);
}

static void decides_by_the_tables(void **state)
{
	struct cump c;

	(void)state;
	lay_out(&c, CUMP_UNION);
	cump_decide(&c, 0, c.words);
	for (unsigned bit = 0; bit < 16; bit++) {
		bool skip = bit & (VM_SKIP | VTPM_SKIP);

		assert_int_equal(c.member[0].to_send[0] >> bit & 1, (bit & VM_SEND) && !skip);
		assert_int_equal(c.member[1].to_send[0] >> bit & 1, (bit & VTPM_SEND) && !skip);
		assert_int_equal(c.member[0].deferred[0] >> bit & 1, (bit & VM_SEND) && skip);
		assert_int_equal(c.member[1].deferred[0] >> bit & 1, (bit & VTPM_SEND) && skip);
	}
	cump_free(&c);
}

static void decides_for_each_alone(void **state)
{
	struct cump c;

	(void)state;
	lay_out(&c, CUMP_INDEPENDENT);
	cump_decide(&c, 0, c.words);
	for (unsigned bit = 0; bit < 16; bit++) {
		assert_int_equal(c.member[0].to_send[0] >> bit & 1, (bit & VM_SEND) && !(bit & VM_SKIP));
		assert_int_equal(c.member[1].to_send[0] >> bit & 1,
				 (bit & VTPM_SEND) && !(bit & VTPM_SKIP));
		assert_int_equal(c.member[0].deferred[0] >> bit & 1, (bit & VM_SEND) && (bit & VM_SKIP));
	}
	cump_free(&c);
}

/* Sent by table 3 no more, in no log any more: only `deferred` knows of it. */
static void a_deferred_page_is_carried_over(void **state)
{
	struct model m;

	(void)state;
	model_start(&m, 64, 64, CUMP_UNION);
	model_send(&m, CUMP_VM, 1, 0);
	model_send(&m, CUMP_VTPM, 1, 0);
	model_write(&m, CUMP_VM, 7);
	cump_leave(&m.c, 0);
	model_clean(&m);		/* the VM's page 7 is to be sent, its log is empty */
	model_write(&m, CUMP_VTPM, 7);	/* the vTPM's page 7 is written */
	model_peek(&m);
	assert_int_equal(cump_to_send(&m.c, CUMP_VM), 0);
	assert_int_equal(cump_deferred(&m.c, CUMP_VM), 1);
	model_round(&m); /* nobody has written since */
	assert_int_equal(cump_to_send(&m.c, CUMP_VM), 1);
	assert_int_equal(cump_to_send(&m.c, CUMP_VTPM), 1);
	model_finish(&m);
}

static void the_members_may_differ_in_size(void **state)
{
	const uint64_t pages[CUMP_MEMBERS] = {130, 65};
	struct cump c;
	uint64_t gfn[256];
	size_t word = 0;

	(void)state;
	assert_int_equal(cump_init(&c, pages, CUMP_UNION), 0);
	cump_begin(&c);
	assert_int_equal(cump_to_send(&c, CUMP_VM), 130);
	assert_int_equal(cump_to_send(&c, CUMP_VTPM), 65);
	c.member[CUMP_VM].to_skip[2] = 1; /* page 128: the vTPM has none */
	cump_decide(&c, 0, c.words);
	assert_int_equal(cump_to_send(&c, CUMP_VM), 129);
	assert_int_equal(cump_deferred(&c, CUMP_VM), 1);
	assert_int_equal(cump_take(&c, CUMP_VTPM, &word, 100, gfn, 256), 65);
	assert_int_equal(gfn[64], 64);
	assert_int_equal(word, 2);
	assert_int_equal(cump_next(&c, CUMP_VTPM, 0), 2); /* all taken */
	c.member[CUMP_VM].to_send[0] = 0;
	assert_int_equal(cump_next(&c, CUMP_VM, 0), 1);
	assert_int_equal(cump_next(&c, CUMP_VM, 1), 1);
	assert_int_equal(cump_next(&c, CUMP_VM, 7), 7);
	cump_put_back(&c, CUMP_VTPM, 65); /* there is no such page */
	assert_int_equal(cump_deferred(&c, CUMP_VTPM), 0);
	cump_free(&c);
}

static void refuses_what_no_machine_has(void **state)
{
	const uint64_t pages[CUMP_MEMBERS] = {UINT64_MAX, 1};
	struct cump c;

	(void)state;
	assert_int_equal(cump_init(&c, pages, CUMP_UNION), -E2BIG);
}

static uint32_t next_random(uint32_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 17;
	*x ^= *x << 5;
	return *x;
}

static void random_histories_lose_no_page(void **state)
{
	uint8_t history[2000];

	(void)state;
	for (uint32_t seed = 1; seed <= 3000; seed++) {
		uint32_t x = seed * 2654435761u;
		size_t n = 3 + next_random(&x) % (sizeof(history) - 3);

		for (size_t i = 0; i < n; i++)
			history[i] = (uint8_t)(next_random(&x) >> 11);
		model_run(history, n);
	}
}

/* ---- the engine ---- */

#define PAGES 5000u

/* A member: memory that a thread writes, and its dirty log. One lock stands for the hardware. */
struct machine {
	pthread_mutex_t lock;
	uint64_t pages;
	uint64_t *memory, *copy; /* a number for each page's 4096 bytes */
	uint64_t log[PAGES / 64 + 1];
	uint64_t shown[CUMP_BATCH];
	unsigned fails_at, maps; /* the nth map fails; 0: none */
	bool moody;		 /* every 7th page cannot be mapped the first time */
	bool refused[PAGES];
	bool stopped, stop;
	unsigned seen[3]; /* of each state */
	bool whole_early; /* before it was stopped */
	pthread_t writer;
	uint32_t random;
};

static uint64_t machine_pages(void *ctx)
{
	return ((struct machine *)ctx)->pages;
}

static int machine_peek(void *ctx, uint64_t *dirty, struct err *err)
{
	struct machine *m = ctx;

	(void)err;
	pthread_mutex_lock(&m->lock);
	memcpy(dirty, m->log, (m->pages + 63) / 64 * 8);
	pthread_mutex_unlock(&m->lock);
	return 0;
}

static int machine_clean(void *ctx, uint64_t *dirty, bool last, struct err *err)
{
	struct machine *m = ctx;

	(void)err;
	pthread_mutex_lock(&m->lock);
	assert_true(!last || m->stopped);
	memcpy(dirty, m->log, (m->pages + 63) / 64 * 8);
	dirty[(m->pages - 1) / 64] |= 1ull << 63; /* a page beyond the end */
	memset(m->log, 0, sizeof(m->log));
	pthread_mutex_unlock(&m->lock);
	return 0;
}

static int machine_map(void *ctx, const uint64_t *gfn, size_t n, struct cump_page *page, struct err *err)
{
	struct machine *m = ctx;

	if (m->fails_at && ++m->maps == m->fails_at)
		return err_set(err, -EFAULT, "map page: no");
	pthread_mutex_lock(&m->lock);
	for (size_t i = 0; i < n; i++) {
		bool later = m->moody && gfn[i] % 7 == 0 && !m->refused[gfn[i]];

		assert_true(gfn[i] < m->pages);
		m->shown[i] = m->memory[gfn[i]];
		m->refused[gfn[i]] = true;
		page[i] = (struct cump_page){gfn[i], later ? CUMP_LATER : 0, &m->shown[i]};
	}
	pthread_mutex_unlock(&m->lock);
	return 0;
}

static void machine_unmap(void *ctx)
{
	memset(((struct machine *)ctx)->shown, 0xee, sizeof(((struct machine *)ctx)->shown));
}

static const char *const state_name[] = {[CUMP_HEAD] = "head", [CUMP_WHOLE] = "whole", [CUMP_TAIL] = "tail"};

static int machine_state(void *ctx, enum cump_state which, const struct cump_sink *sink,
			 enum cump_member member, struct err *err)
{
	struct machine *m = ctx;

	assert_true(which != CUMP_TAIL || m->stopped);
	if (which == CUMP_WHOLE)
		m->whole_early = !m->stopped;
	return sink->ops->state(sink->ctx, member, which, state_name[which], strlen(state_name[which]) + 1, err);
}

static const struct cump_source_ops machine_ops = {
	machine_pages, NULL, machine_peek, machine_clean, machine_map, machine_unmap, machine_state};

static int take_pages(void *ctx, enum cump_member member, const struct cump_page *page, size_t n,
		      struct err *err)
{
	struct machine *m = *((struct machine **)ctx + member);

	(void)err;
	assert_int_equal(m->seen[CUMP_HEAD], 1);
	assert_int_equal(m->seen[CUMP_TAIL], 0);
	/* The smaller one has been here once before the larger begins. */
	if (member == CUMP_VM)
		assert_int_equal((*((struct machine **)ctx + CUMP_VTPM))->seen[CUMP_WHOLE], 1);
	for (size_t i = 0; i < n; i++)
		m->copy[page[i].gfn] = *(const uint64_t *)page[i].data;
	return 0;
}

static int take_state(void *ctx, enum cump_member member, enum cump_state which, const void *data, size_t n,
		      struct err *err)
{
	struct machine *m = *((struct machine **)ctx + member);

	(void)err;
	assert_string_equal(data, state_name[which]);
	assert_int_equal(n, strlen(data) + 1);
	/* Once each, and all that there was before has been here once. */
	assert_int_equal(m->seen[which]++, 0);
	assert_int_equal(m->seen[CUMP_HEAD], 1);
	if (which == CUMP_TAIL)
		assert_int_equal(m->seen[CUMP_WHOLE], 1);
	return 0;
}

static const struct cump_sink_ops sink_ops = {take_pages, take_state};

static void *write_memory(void *ctx)
{
	struct machine *m = ctx;

	for (bool stop = false; !stop;) {
		pthread_mutex_lock(&m->lock);
		for (unsigned i = 0; i < 20; i++) {
			uint64_t page = next_random(&m->random) % m->pages;

			if (next_random(&m->random) % 4) /* most writes go where writes went before */
				page %= 200;
			m->memory[page]++;
			m->log[page / 64] |= 1ull << page % 64;
		}
		stop = m->stop;
		pthread_mutex_unlock(&m->lock);
		sched_yield();
	}
	return NULL;
}

static void machine_start(struct machine *m, uint64_t pages, uint32_t seed)
{
	*m = (struct machine){.pages = pages, .random = seed};
	pthread_mutex_init(&m->lock, NULL);
	m->memory = calloc(pages, 8);
	m->copy = calloc(pages, 8);
	assert_true(m->memory && m->copy);
	for (uint64_t i = 0; i < pages; i++)
		m->memory[i] = i << 32 | 1;
	assert_int_equal(pthread_create(&m->writer, NULL, write_memory, m), 0);
}

static void machine_stop(struct machine *m)
{
	pthread_mutex_lock(&m->lock);
	m->stop = true;
	pthread_mutex_unlock(&m->lock);
	pthread_join(m->writer, NULL);
	pthread_mutex_lock(&m->lock);
	m->stopped = true;
	pthread_mutex_unlock(&m->lock);
}

static void machine_free(struct machine *m)
{
	free(m->memory);
	free(m->copy);
	pthread_mutex_destroy(&m->lock);
}

struct run {
	struct cump_engine *e;
	struct err err;
	int rc;
};

static void *run_engine(void *ctx)
{
	struct run *r = ctx;

	r->rc = cump_engine_run(r->e, &r->err);
	return NULL;
}

static void await_round(struct cump_engine *e, uint64_t round)
{
	struct cump_stats s = {0};

	while (s.round < round && s.phase != CUMP_FAILED) {
		sched_yield();
		cump_engine_stats(e, &s);
	}
}

struct pair {
	struct machine m[CUMP_MEMBERS], *where[CUMP_MEMBERS];
	struct run run;
	pthread_t thread;
};

static struct pair *pair_start(enum cump_policy policy)
{
	struct pair *p = calloc(1, sizeof(*p));
	struct cump_source source[CUMP_MEMBERS];
	struct cump_sink sink;

	assert_non_null(p);
	machine_start(&p->m[CUMP_VM], PAGES, 7);
	machine_start(&p->m[CUMP_VTPM], 777, 11);
	for (unsigned i = 0; i < CUMP_MEMBERS; i++) {
		source[i] = (struct cump_source){&machine_ops, &p->m[i]};
		p->where[i] = &p->m[i];
	}
	sink = (struct cump_sink){&sink_ops, p->where};
	assert_int_equal(cump_engine_new(source, &sink, policy, 200, &p->run.e, NULL), 0);
	return p;
}

static void pair_go(struct pair *p)
{
	assert_int_equal(pthread_create(&p->thread, NULL, run_engine, &p->run), 0);
}

static void pair_end(struct pair *p)
{
	cump_engine_free(p->run.e);
	for (unsigned i = 0; i < CUMP_MEMBERS; i++)
		machine_free(&p->m[i]);
	free(p);
}

static void copies_all(enum cump_policy policy, bool moody)
{
	struct pair *p = pair_start(policy);
	struct cump_stats s;

	p->m[CUMP_VM].moody = moody;
	pair_go(p);
	await_round(p->run.e, 20);
	machine_stop(&p->m[CUMP_VTPM]);
	machine_stop(&p->m[CUMP_VM]);
	cump_engine_finish(p->run.e);
	pthread_join(p->thread, NULL);
	assert_int_equal(p->run.rc, 0);
	cump_engine_stats(p->run.e, &s);
	assert_int_equal(s.phase, CUMP_DONE);
	assert_true(s.round > 20);
	for (unsigned i = 0; i < CUMP_MEMBERS; i++) {
		struct machine *m = &p->m[i];

		assert_memory_equal(m->memory, m->copy, m->pages * 8);
		assert_int_equal(m->seen[CUMP_TAIL], 1);
		assert_true(m->whole_early);
		assert_int_equal(s.member[i].remaining, 0);
		assert_true(s.member[i].sent >= m->pages);
	}
	pair_end(p);
}

static void the_engine_copies_all_by_the_union(void **state)
{
	(void)state;
	copies_all(CUMP_UNION, false);
}

static void the_engine_copies_all_independently(void **state)
{
	(void)state;
	copies_all(CUMP_INDEPENDENT, false);
}

static void a_page_that_cannot_be_mapped_comes_later(void **state)
{
	(void)state;
	copies_all(CUMP_UNION, true);
}

/* Off line: they stand still from the beginning, and there is no round but the last. */
static void told_to_finish_before_it_began_it_copies_all(void **state)
{
	struct pair *p = pair_start(CUMP_UNION);

	(void)state;
	for (unsigned i = 0; i < CUMP_MEMBERS; i++)
		machine_stop(&p->m[i]);
	cump_engine_finish(p->run.e);
	pair_go(p);
	pthread_join(p->thread, NULL);
	assert_int_equal(p->run.rc, 0);
	for (unsigned i = 0; i < CUMP_MEMBERS; i++) {
		assert_memory_equal(p->m[i].memory, p->m[i].copy, p->m[i].pages * 8);
		assert_false(p->m[i].whole_early);
	}
	pair_end(p);
}

static void held_it_begins_no_round_and_copies_all_in_the_end(void **state)
{
	struct pair *p = pair_start(CUMP_UNION);
	struct cump_stats held, s;

	(void)state;
	pair_go(p);
	await_round(p->run.e, 5);
	cump_engine_hold(p->run.e);
	do {
		sched_yield();
		cump_engine_stats(p->run.e, &held);
	} while (held.phase == CUMP_COPYING);
	assert_int_equal(held.phase, CUMP_HELD);
	for (unsigned i = 0; i < CUMP_MEMBERS; i++) /* of that round only what was to be skipped */
		assert_true(held.member[i].remaining <= held.member[i].deferred);
	for (unsigned i = 0; i < 500; i++)
		sched_yield(); /* the writers' time */
	for (unsigned i = 0; i < CUMP_MEMBERS; i++)
		machine_stop(&p->m[i]);
	cump_engine_finish(p->run.e);
	pthread_join(p->thread, NULL);
	assert_int_equal(p->run.rc, 0);
	cump_engine_stats(p->run.e, &s);
	assert_int_equal(s.round, held.round + 1);
	for (unsigned i = 0; i < CUMP_MEMBERS; i++)
		assert_memory_equal(p->m[i].memory, p->m[i].copy, p->m[i].pages * 8);
	pair_end(p);
}

static void an_abort_ends_it(void **state)
{
	struct pair *p = pair_start(CUMP_UNION);

	(void)state;
	pair_go(p);
	await_round(p->run.e, 3);
	cump_engine_abort(p->run.e);
	pthread_join(p->thread, NULL);
	assert_int_equal(p->run.rc, -ECANCELED);
	assert_int_equal(p->m[CUMP_VM].seen[CUMP_TAIL], 0);
	for (unsigned i = 0; i < CUMP_MEMBERS; i++)
		machine_stop(&p->m[i]);
	pair_end(p);
}

static void an_error_of_a_source_ends_it(void **state)
{
	struct pair *p = pair_start(CUMP_INDEPENDENT);
	struct cump_stats s;

	(void)state;
	p->m[CUMP_VTPM].fails_at = 5;
	pair_go(p);
	pthread_join(p->thread, NULL);
	assert_int_equal(p->run.rc, -EFAULT);
	assert_string_equal(p->run.err.text, "map page: no");
	cump_engine_stats(p->run.e, &s);
	assert_int_equal(s.phase, CUMP_FAILED);
	for (unsigned i = 0; i < CUMP_MEMBERS; i++)
		machine_stop(&p->m[i]);
	pair_end(p);
}

static void policies_have_names(void **state)
{
	enum cump_policy p;

	(void)state;
	assert_int_equal(cump_policy_parse("independent", &p), 0);
	assert_string_equal(cump_policy_name(p), "independent");
	assert_int_equal(cump_policy_parse("cump", &p), 0);
	assert_int_equal(p, CUMP_UNION);
	assert_int_equal(cump_policy_parse("both", &p), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tables_1_and_2),
		cmocka_unit_test(table_3),
		cmocka_unit_test(decides_by_the_tables),
		cmocka_unit_test(decides_for_each_alone),
		cmocka_unit_test(a_deferred_page_is_carried_over),
		cmocka_unit_test(the_members_may_differ_in_size),
		cmocka_unit_test(refuses_what_no_machine_has),
		cmocka_unit_test(random_histories_lose_no_page),
		cmocka_unit_test(the_engine_copies_all_by_the_union),
		cmocka_unit_test(the_engine_copies_all_independently),
		cmocka_unit_test(a_page_that_cannot_be_mapped_comes_later),
		cmocka_unit_test(told_to_finish_before_it_began_it_copies_all),
		cmocka_unit_test(held_it_begins_no_round_and_copies_all_in_the_end),
		cmocka_unit_test(an_abort_ends_it),
		cmocka_unit_test(an_error_of_a_source_ends_it),
		cmocka_unit_test(policies_have_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
