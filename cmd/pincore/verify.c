/* SPDX-License-Identifier: MIT */
/* verify: did any thread move in this time, and is each where it was pinned? */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <json-c/json.h>

#include "base/exit.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/units.h"
#include "keeper.h"
#include "vm/migrations.h"

#define LOOK_US 100000 /* for threads that are born meanwhile */

struct seen {
	struct vm_thread t;
	struct migrations m;
	bool ended, judged;
	bool on_its_way; /* pinned while it slept: it goes to its CPU when it wakes up, once */
	const char *wrong; /* NULL, or what is wrong with its affinity */
	char cpus[UNITS_CPULIST_MAX];
};

struct check {
	struct subject s;
	struct record r;
	struct seen *seen;
	size_t n;
	uint64_t begun_us, took_us, moved;
	size_t movers, astray;
	bool perf, gone;
};

static struct seen *find(struct check *c, const struct vm_thread *t)
{
	for (size_t i = 0; i < c->n; i++)
		if (c->seen[i].t.tid == t->tid && c->seen[i].t.starttime == t->starttime)
			return &c->seen[i];
	return NULL;
}

/* The kernel moves a thread that sleeps when it wakes up, not when its mask is set. */
static bool is_elsewhere(const struct vm_thread *t)
{
	struct vm_thread now;
	cpu_set_t mask;

	return !vm_thread_read(t->tid, &now) && !sched_getaffinity(t->tid, sizeof(mask), &mask) &&
	       now.cpu >= 0 && now.cpu < CPU_SETSIZE && !CPU_ISSET(now.cpu, &mask);
}

static int add(struct check *c, const struct vm_thread *t, bool born, struct err *err)
{
	struct seen one = {.t = *t}, *more;
	int rc = migrations_begin(&one.m, t->tid, born, err);

	if (rc)
		return rc == -ESRCH ? 0 : rc;
	more = realloc(c->seen, (c->n + 1) * sizeof(*more));
	if (!more) {
		migrations_end(&one.m);
		return err_sys(err, -ENOMEM, "verify");
	}
	c->seen = more;
	c->perf |= one.m.fd >= 0;
	one.on_its_way = born ? c->r.pid != 0 : is_elsewhere(t);
	more[c->n++] = one;
	return 0;
}

static uint64_t moves(const struct seen *x)
{
	return x->m.count - (x->on_its_way && x->m.count);
}

static int add_all(struct check *c, bool born, struct err *err)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < c->s.n; i++)
		if (!find(c, &c->s.threads[i]))
			rc = add(c, &c->s.threads[i], born, err);
	return rc;
}

/* What a thread was pinned to; one born since must be within what its role has. */
static bool expected(const struct check *c, const struct seen *x, cpu_set_t *set, bool *exact)
{
	const struct rec_thread *r = record_thread(&c->r, x->t.tid, x->t.starttime);

	*exact = r != NULL;
	if (r)
		*set = r->pinned;
	else
		plan_cpus_set(&c->r.plan.group[plan_group(x->t.role)], set);
	return r || CPU_COUNT(set);
}

static void judge_affinity(struct check *c, struct seen *x)
{
	cpu_set_t now, wanted, both;
	bool exact;

	x->judged = true;
	if (x->ended || sched_getaffinity(x->t.tid, sizeof(now), &now))
		return;
	units_format_cpulist(&now, x->cpus, sizeof(x->cpus));
	if (!c->r.pid)
		return;
	x->judged = expected(c, x, &wanted, &exact);
	if (!x->judged)
		return;
	CPU_AND(&both, &now, &wanted);
	if (exact ? !CPU_EQUAL(&now, &wanted) : !CPU_EQUAL(&both, &now)) {
		x->wrong = "not where it was pinned";
		c->astray++;
	}
}

static void judge(struct check *c)
{
	c->moved = c->movers = c->astray = 0;
	for (size_t i = 0; i < c->n; i++) {
		struct seen *x = &c->seen[i];

		judge_affinity(c, x);
		if (!x->judged)
			continue;
		c->moved += moves(x);
		c->movers += moves(x) != 0;
	}
}

/* 0; -ESRCH: the VM has ended. */
static int look(struct check *c, struct err *err)
{
	int news;

	for (size_t i = 0; i < c->n; i++) {
		struct vm_thread now;

		if (c->seen[i].ended)
			continue;
		c->seen[i].ended = migrations_read(&c->seen[i].m) != 0 || vm_thread_read(c->seen[i].t.tid, &now) ||
				   now.starttime != c->seen[i].t.starttime;
	}
	news = vm_threads_again(&c->s.vm, &c->s.threads, &c->s.n, err);
	if (news < 0)
		return news;
	for (size_t i = 0; i < c->s.n; i++) { /* names and roles that came late */
		struct seen *x = find(c, &c->s.threads[i]);

		if (x)
			x->t = c->s.threads[i];
	}
	return news ? add_all(c, true, err) : 0;
}

static void show_progress(struct check *c, struct progress *p)
{
	uint64_t done = units_now_us() - c->begun_us, moved = 0;
	char bar[32], took[32];

	if (pin_opts.json || !progress_due(p))
		return;
	for (size_t i = 0; i < c->n; i++)
		moved += moves(&c->seen[i]);
	progress_line(p, "%s %s, %llu migrations", progress_bar(done, pin_opts.for_us, 20, bar),
		      units_format_duration(done, took, sizeof(took)), (unsigned long long)moved);
}

static int count(struct check *c, struct err *err)
{
	struct progress p;
	int rc = 0;

	progress_begin(&p);
	c->begun_us = units_now_us();
	while (!rc && !signal_noted()) {
		uint64_t done = units_now_us() - c->begun_us, left;
		struct timespec pause;

		if (done >= pin_opts.for_us)
			break;
		left = pin_opts.for_us - done < LOOK_US ? pin_opts.for_us - done : LOOK_US;
		pause = (struct timespec){0, (long)left * 1000};
		nanosleep(&pause, NULL);
		rc = look(c, err);
		show_progress(c, &p);
	}
	progress_end(&p);
	c->took_us = units_now_us() - c->begun_us;
	c->gone = rc == -ESRCH;
	return c->gone ? 0 : rc;
}

static void print_thread_json(const struct check *c, const struct seen *x)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "schema", json_object_new_string("util-vm/pincore/migrations/1"));
	json_object_object_add(o, "pid", json_object_new_int(c->s.vm.pid));
	json_object_object_add(o, "tid", json_object_new_int(x->t.tid));
	json_object_object_add(o, "role", json_object_new_string(vm_role_name(x->t.role)));
	if (x->t.index >= 0)
		json_object_object_add(o, "index", json_object_new_int(x->t.index));
	json_object_object_add(o, "name", json_object_new_string(x->t.name));
	json_object_object_add(o, "cpus", json_object_new_string(x->cpus));
	json_object_object_add(o, "last_cpu", json_object_new_int(x->t.cpu));
	json_object_object_add(o, "migrations", json_object_new_uint64(moves(x)));
	json_object_object_add(o, "judged", json_object_new_boolean(x->judged));
	json_object_object_add(o, "as_pinned", json_object_new_boolean(!x->wrong));
	json_object_object_add(o, "ended", json_object_new_boolean(x->ended));
	print_json(o);
}

static void print_text(const struct check *c)
{
	char label[40], took[32];

	printf("%-12s %7s %-16s %-12s %10s\n", "ROLE", "TID", "NAME", "CPUS", "MIGRATIONS");
	for (size_t i = 0; i < c->n; i++) {
		const struct seen *x = &c->seen[i];

		printf("%-12s %7d %-16s %-12s %10llu%s%s%s\n", thread_label(&x->t, label, sizeof(label)),
		       (int)x->t.tid, x->t.name, x->cpus, (unsigned long long)moves(x),
		       x->ended ? "  ended" : "", x->judged ? "" : "  not pinned", x->wrong ? "  not where it was pinned" : "");
	}
	printf("%s: %llu migrations of %zu of %zu threads in %s (%s)%s\n", subject_name(&c->s),
	       (unsigned long long)c->moved, c->movers, c->n, units_format_duration(c->took_us, took, sizeof(took)),
	       c->perf ? "perf software events" : "se.nr_migrations of /proc",
	       c->r.pid ? "" : "; nothing is recorded, so every thread counts");
	if (c->gone)
		printf("%s has ended meanwhile\n", subject_name(&c->s));
}

static void print_summary_json(const struct check *c, int status)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "schema", json_object_new_string("util-vm/pincore/verify/1"));
	json_object_object_add(o, "vm", json_object_new_string(subject_name(&c->s)));
	json_object_object_add(o, "pid", json_object_new_int(c->s.vm.pid));
	json_object_object_add(o, "source", json_object_new_string(c->perf ? "perf" : "sched"));
	json_object_object_add(o, "recorded", json_object_new_boolean(c->r.pid != 0));
	json_object_object_add(o, "threads", json_object_new_uint64(c->n));
	json_object_object_add(o, "migrations", json_object_new_uint64(c->moved));
	json_object_object_add(o, "movers", json_object_new_uint64(c->movers));
	json_object_object_add(o, "astray", json_object_new_uint64(c->astray));
	json_object_object_add(o, "ended", json_object_new_boolean(c->gone));
	json_object_object_add(o, "took_us", json_object_new_uint64(c->took_us));
	json_object_object_add(o, "exit_status", json_object_new_int(status));
	print_json(o);
}

static int report(struct check *c)
{
	int status;

	judge(c);
	status = c->moved || c->astray ? EXIT_NO : EXIT_DONE;
	if (pin_opts.json) {
		for (size_t i = 0; i < c->n; i++)
			print_thread_json(c, &c->seen[i]);
		print_summary_json(c, status);
	} else if (log_level() >= LOG_NORMAL) {
		print_text(c);
	}
	return status;
}

static int check(struct check *c)
{
	struct err err = {0};
	char file[64];
	int rc;

	record_file(c->s.vm.pid, c->s.starttime, file, sizeof(file));
	if (record_read(file, &c->r, &err) && err.code != -ENOENT) {
		log_error("%s", err.text);
		return EXIT_REFUSED;
	}
	rc = add_all(c, false, &err);
	if (!rc)
		rc = count(c, &err);
	if (rc) {
		log_error("%s", err.text);
		return EXIT_REFUSED;
	}
	return report(c);
}

int pin_verify(int argc, char **argv)
{
	struct check c = {0};
	int rc;

	if (argc != 1)
		return cli_usage_error(argc ? "%s: one TARGET at a time" : "a TARGET is missing%s", argc ? argv[1] : "");
	if (!pin_opts.for_us)
		return cli_usage_error("--for: more than no time is needed");
	signals_note();
	rc = subject_open(argv[0], &c.s);
	if (rc)
		return rc;
	rc = check(&c);
	for (size_t i = 0; i < c.n; i++)
		migrations_end(&c.seen[i].m);
	free(c.seen);
	record_free(&c.r);
	subject_close(&c.s);
	return rc;
}
