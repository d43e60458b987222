/* SPDX-License-Identifier: MIT */
#include "keeper.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/exit.h"
#include "base/log.h"
#include "base/units.h"

#define ROUNDS 64 /* of reading again: a VM that makes threads faster than we can pin them */

static struct held *find(struct keeper *k, const struct vm_thread *t)
{
	for (size_t i = 0; i < k->n; i++)
		if (k->held[i].t.tid == t->tid && k->held[i].t.starttime == t->starttime)
			return &k->held[i];
	return NULL;
}

static int hold(struct keeper *k, const struct held *h)
{
	struct held *more = realloc(k->held, (k->n + 1) * sizeof(*more));

	if (!more)
		return -ENOMEM;
	k->held = more;
	more[k->n++] = *h;
	return 0;
}

static bool still_there(const struct keeper *k, const struct held *h)
{
	for (size_t i = 0; i < k->s.n; i++)
		if (k->s.threads[i].tid == h->t.tid && k->s.threads[i].starttime == h->t.starttime)
			return true;
	return false;
}

static void uncount(struct keeper *k, const struct held *h)
{
	for (int c = 0; !k->plan.floating && c < CPU_SETSIZE; c++)
		if (CPU_ISSET(c, &h->mask) && k->use.n[h->group][c])
			k->use.n[h->group][c]--;
}

/* Those that have ended make room on their CPU. */
static void forget_the_dead(struct keeper *k)
{
	size_t n = 0;

	for (size_t i = 0; i < k->n; i++) {
		if (still_there(k, &k->held[i]))
			k->held[n++] = k->held[i];
		else
			uncount(k, &k->held[i]);
	}
	k->n = n;
}

/* What was taken for something else has told its name by now. */
static void update_role(struct keeper *k, struct held *h, const struct vm_thread *t)
{
	enum group g = plan_group(t->role);

	h->t.role = t->role;
	h->t.index = t->index;
	memcpy(h->t.name, t->name, sizeof(h->t.name));
	if (g == h->group || !k->plan.group[g].n)
		return;
	uncount(k, h);
	h->group = g;
	plan_mask(&k->plan, &k->use, g, &h->mask);
	h->settled = false;
}

/* Who is new and belongs to the plan, with its place and the mask that it has: from @k->n before on. */
static int meet(struct keeper *k)
{
	for (size_t i = 0; i < k->s.n; i++) {
		const struct vm_thread *t = &k->s.threads[i];
		struct held h = {.t = *t, .group = plan_group(t->role)}, *known = find(k, t);
		int rc;

		if (known) {
			update_role(k, known, t);
			continue;
		}
		if (!k->plan.group[h.group].n)
			continue;
		if (sched_getaffinity(t->tid, sizeof(h.before), &h.before)) {
			if (errno == ESRCH)
				continue;
			return -errno;
		}
		plan_mask(&k->plan, &k->use, h.group, &h.mask);
		rc = hold(k, &h);
		if (rc)
			return rc;
	}
	return 0;
}

static struct rec_thread to_record(const struct held *h)
{
	struct rec_thread r = {.tid = h->t.tid, .starttime = h->t.starttime, .role = h->t.role,
			       .index = h->t.index, .kernel = h->t.kernel, .before = h->before,
			       .pinned = h->mask};

	memcpy(r.name, h->t.name, sizeof(r.name));
	return r;
}

static int write_down(struct keeper *k, struct journal *j, size_t from, struct err *err)
{
	struct json_object *o, *threads;

	if (from == k->n && from)
		return 0;
	o = json_object_new_object();
	threads = json_object_new_array();
	json_object_object_add(o, "target", json_object_new_string(k->s.vm.target));
	json_object_object_add(o, "name", json_object_new_string(k->s.vm.name));
	json_object_object_add(o, "pid", json_object_new_int(k->s.vm.pid));
	json_object_object_add(o, "starttime", json_object_new_uint64(k->s.starttime));
	json_object_object_add(o, "plan", record_plan_json(&k->plan));
	for (size_t i = from; i < k->n; i++) {
		struct rec_thread r = to_record(&k->held[i]);

		json_object_array_add(threads, record_thread_json(&r));
	}
	json_object_object_add(o, "threads", threads);
	return journal_append(j, "pinning", o, err);
}

/* --- setting a mask --- */

static int not_allowed(const struct keeper *k, const struct held *h, struct err *err)
{
	char cpus[80], path[256], label[40];
	cpu_set_t allowed;

	cpuset_allowed(h->t.tid, &allowed, path, sizeof(path));
	return err_set(err, -EINVAL, "pin %s of %s to %s: its cpuset%s%s does not have this CPU",
		       thread_label(&h->t, label, sizeof(label)), subject_name(&k->s),
		       units_format_cpulist(&h->mask, cpus, sizeof(cpus)), *path ? " " : "", path);
}

/* 0; -ESRCH: the thread has ended, which is no error. */
static int set_mask(const struct keeper *k, const struct held *h, struct err *err)
{
	char label[40];
	cpu_set_t now;

	if (sched_setaffinity(h->t.tid, sizeof(h->mask), &h->mask)) {
		if (errno == ESRCH)
			return -ESRCH;
		if (errno == EINVAL)
			return not_allowed(k, h, err);
		return err_sys(err, -errno, "pin %s of %s (thread %d)",
			       thread_label(&h->t, label, sizeof(label)), subject_name(&k->s),
			       (int)h->t.tid);
	}
	/* The kernel cuts off what the cpuset does not have, and says nothing. */
	if (sched_getaffinity(h->t.tid, sizeof(now), &now))
		return -ESRCH;
	return CPU_EQUAL(&now, &h->mask) ? 0 : not_allowed(k, h, err);
}

static int settle(struct keeper *k, struct err *err)
{
	for (size_t i = 0; i < k->n; i++) {
		struct held *h = &k->held[i];
		struct err why = {0};
		char label[40];
		int rc;

		if (h->settled)
			continue;
		if (h->t.kernel && *k->partition.cgroup)
			(void)partition_adopt(&k->partition, h->t.tid);
		rc = set_mask(k, h, &why);
		h->settled = true;
		if (rc == -EINVAL && h->t.kernel) { /* bound by the kernel itself */
			log_warn("pin %s of %s: the kernel does not let it be moved",
				 thread_label(&h->t, label, sizeof(label)), subject_name(&k->s));
			sched_getaffinity(h->t.tid, sizeof(h->mask), &h->mask);
			k->unpinnable++;
		} else if (rc && rc != -ESRCH) {
			h->settled = false;
			return err_set(err, rc, "%s", why.text);
		}
	}
	return 0;
}

/* --- CPUs set apart, interrupts moved off --- */

static int isolate(struct keeper *k, struct journal *j, struct err *err)
{
	struct json_object *o, *p;
	struct partition plan;
	cpu_set_t cpus;
	int rc;

	if (!k->plan.isolate || *k->partition.cgroup)
		return 0;
	rc = partition_plan(k->s.vm.pid, &plan, err);
	if (rc)
		return rc;
	o = json_object_new_object();
	p = json_object_new_object();
	json_object_object_add(p, "cgroup", json_object_new_string(plan.cgroup));
	json_object_object_add(p, "home", json_object_new_string(plan.home));
	json_object_object_add(p, "enabled", json_object_new_boolean(plan.enabled));
	json_object_object_add(o, "partition", p);
	rc = journal_append(j, "isolating", o, err);
	if (rc)
		return rc;
	plan_all_cpus(&k->plan, &cpus);
	rc = partition_make(&plan, &cpus, k->s.vm.pid, err);
	if (!rc)
		k->partition = plan;
	return rc;
}

static int write_irqs_down(struct journal *j, const struct interrupt *irqs, size_t n, struct err *err)
{
	struct json_object *o = json_object_new_object(), *a = json_object_new_array();
	char cpus[UNITS_CPULIST_MAX];

	for (size_t i = 0; i < n; i++) {
		struct json_object *one = json_object_new_object();

		json_object_object_add(one, "irq", json_object_new_int64(irqs[i].irq));
		json_object_object_add(one, "name", json_object_new_string(irqs[i].name));
		json_object_object_add(one, "before", json_object_new_string(units_format_cpulist(
							      &irqs[i].cpus, cpus, sizeof(cpus))));
		json_object_array_add(a, one);
	}
	json_object_object_add(o, "irqs", a);
	return journal_append(j, "irqs", o, err);
}

static void name_stuck(struct keeper *k, const struct interrupt *i)
{
	size_t n = strlen(k->stuck);

	k->irqs_stuck++;
	snprintf(k->stuck + n, sizeof(k->stuck) - n, "%s%u %s", n ? ", " : "", i->irq, i->name);
}

static int move_irqs(struct keeper *k, struct journal *j, struct err *err)
{
	cpu_set_t ours, online, rest;
	struct topology *t;
	int rc;

	if (!k->plan.irqs)
		return 0;
	rc = topology_read("", &t, err);
	if (rc)
		return rc;
	online = t->online;
	free(t);
	plan_all_cpus(&k->plan, &ours);
	rc = interrupts_on(&ours, &k->irqs, &k->irqs_n, err);
	if (!rc && k->irqs_n)
		rc = write_irqs_down(j, k->irqs, k->irqs_n, err);
	for (size_t i = 0; !rc && i < k->irqs_n; i++) {
		cpu_set_t both;

		CPU_AND(&both, &k->irqs[i].cpus, &ours);
		CPU_XOR(&rest, &k->irqs[i].cpus, &both);
		if (!CPU_COUNT(&rest)) {
			CPU_AND(&both, &online, &ours);
			CPU_XOR(&rest, &online, &both);
		}
		if (!CPU_COUNT(&rest))
			return err_set(err, -EINVAL, "move interrupts: no CPU is left for them");
		rc = interrupt_move(k->irqs[i].irq, &rest);
		if (rc == -EACCES || rc == -EROFS)
			return err_sys(err, rc, "move interrupt %u", k->irqs[i].irq);
		if (rc && rc != -ENOENT)
			name_stuck(k, &k->irqs[i]);
		rc = 0;
	}
	return rc;
}

/* --- the whole --- */

static int roll_back(struct keeper *k, struct journal *j, bool fresh)
{
	struct err err = {0};
	bool lost = false;
	char path[4400];

	for (size_t i = 0; i < k->irqs_n; i++)
		(void)interrupt_move(k->irqs[i].irq, &k->irqs[i].cpus);
	if (*k->partition.cgroup && !*k->old.partition.cgroup && partition_end(&k->partition, &err)) {
		log_error("%s", err.text);
		lost = true;
	}
	for (size_t i = 0; i < k->n; i++)
		if (sched_setaffinity(k->held[i].t.tid, sizeof(cpu_set_t), &k->held[i].before) && errno != ESRCH)
			lost = true;
	if (lost) {
		log_error("roll back %s: not all could be put back; 'pincore undo' tries again", subject_name(&k->s));
		return EXIT_RECOVER;
	}
	snprintf(path, sizeof(path), "%s", journal_path(j));
	if (fresh) {
		unlink(path);
	} else {
		for (size_t i = 0; i < k->n; i++)
			k->held[i].mask = k->held[i].before;
		k->plan = k->old.plan;
		(void)write_down(k, j, 0, &err);
		(void)journal_append(j, "pinned", NULL, &err);
	}
	return EXIT_ROLLED_BACK;
}

/* Was any mask set, or anything else of the machine changed? */
static bool touched(const struct keeper *k)
{
	for (size_t i = 0; i < k->n; i++)
		if (k->held[i].settled)
			return true;
	return (*k->partition.cgroup && !*k->old.partition.cgroup) || k->irqs_n;
}

static int pin_all(struct keeper *k, struct journal *j, struct err *err)
{
	int news = 1, rc = meet(k);

	if (rc)
		return err_sys(err, rc, "read the affinity of %s", subject_name(&k->s));
	rc = write_down(k, j, 0, err);
	if (!rc)
		rc = isolate(k, j, err);
	if (!rc)
		rc = settle(k, err);
	for (int round = 0; !rc && news > 0; round++) {
		size_t from;

		if (round == ROUNDS)
			return err_set(err, -EAGAIN, "pin %s: new threads come faster than they can be pinned",
				       subject_name(&k->s));
		news = vm_threads_again(&k->s.vm, &k->s.threads, &k->s.n, err);
		if (news < 0)
			return news;
		forget_the_dead(k);
		from = k->n;
		rc = meet(k);
		if (!rc && from < k->n)
			rc = write_down(k, j, from, err);
		if (!rc)
			rc = settle(k, err);
	}
	if (!rc)
		rc = move_irqs(k, j, err);
	return rc ? rc : journal_append(j, "pinned", NULL, err);
}

static int open_journal(struct keeper *k, struct journal **j, bool *fresh, struct err *err)
{
	char file[64];
	int rc;

	record_file(k->s.vm.pid, k->s.starttime, file, sizeof(file));
	rc = journal_open(record_dir(), file, true, j, err);
	*fresh = !rc;
	if (rc != -EEXIST)
		return rc;
	rc = journal_open(record_dir(), file, false, j, err);
	if (!rc && json_object_array_length(journal_entries(*j)))
		rc = record_parse(journal_entries(*j), &k->old, err);
	if (rc == -EBADMSG)
		journal_close(*j);
	k->partition = k->old.partition;
	return rc;
}

static bool same_partition(const struct plan *a, const struct plan *b)
{
	cpu_set_t x, y;

	plan_all_cpus(a, &x);
	plan_all_cpus(b, &y);
	return a->isolate == b->isolate && CPU_EQUAL(&x, &y);
}

int keeper_pin(struct keeper *k)
{
	uint64_t begun = units_now_us();
	struct journal *j = NULL;
	struct err err = {0};
	bool fresh = false;
	int rc = open_journal(k, &j, &fresh, &err), status = EXIT_REFUSED;

	if (rc) {
		log_error("%s", err.text);
		return EXIT_REFUSED;
	}
	if (*k->old.partition.cgroup && !same_partition(&k->plan, &k->old.plan))
		rc = err_set(&err, -EBUSY, "pin %s: it has a partition of its own already; undo that first",
			     subject_name(&k->s));
	else
		rc = pin_all(k, j, &err);
	k->took_us = units_now_us() - begun;
	k->pinned = k->n;
	if (rc) {
		log_error("%s", err.text);
		if (touched(k))
			status = roll_back(k, j, fresh);
		else if (fresh)
			unlink(journal_path(j));
	}
	journal_close(j);
	return rc ? status : 0;
}

void keeper_imagine(struct keeper *k)
{
	(void)meet(k);
	k->pinned = k->n;
}

int keeper_resume(struct keeper *k, struct err *err)
{
	char file[64];
	int rc;

	record_file(k->s.vm.pid, k->s.starttime, file, sizeof(file));
	rc = record_read(file, &k->old, err);
	if (rc)
		return rc;
	k->plan = k->old.plan;
	k->partition = k->old.partition;
	for (size_t i = 0; !rc && i < k->s.n; i++) {
		const struct vm_thread *t = &k->s.threads[i];
		const struct rec_thread *r = record_thread(&k->old, t->tid, t->starttime);
		struct held h = {.t = *t, .group = plan_group(t->role), .settled = true};

		if (!r)
			continue;
		h.before = r->before;
		h.mask = r->pinned;
		for (int c = 0; !k->plan.floating && c < CPU_SETSIZE; c++)
			k->use.n[h.group][c] += CPU_ISSET(c, &h.mask) ? 1 : 0;
		rc = hold(k, &h);
	}
	return rc;
}

/* Somebody else gave it another mask (or a cpuset was rewritten). */
static size_t find_reset(struct keeper *k)
{
	size_t n = 0;

	for (size_t i = 0; i < k->n; i++) {
		struct held *h = &k->held[i];
		cpu_set_t now;

		if (!h->settled || sched_getaffinity(h->t.tid, sizeof(now), &now) || CPU_EQUAL(&now, &h->mask))
			continue;
		h->settled = false;
		n++;
	}
	return n;
}

static size_t unsettled(const struct keeper *k)
{
	size_t n = 0;

	for (size_t i = 0; i < k->n; i++)
		n += !k->held[i].settled;
	return n;
}

/*
 * Threads of the process that are born later inherit a mask of ours, and undo gives them their
 * main thread's; so only kernel threads have something of their own to be written down.
 */
static int write_newcomers(struct keeper *k, struct journal *j, size_t from, struct err *err)
{
	int rc = 0;

	for (size_t i = from; !rc && i < k->n; i++)
		if (k->held[i].t.kernel)
			rc = write_down(k, j, i, err);
	return rc;
}

int keeper_look(struct keeper *k, size_t *born, size_t *reset, struct err *err)
{
	int news = vm_threads_again(&k->s.vm, &k->s.threads, &k->s.n, err), rc;
	struct journal *j;
	char file[64];
	size_t from;

	*born = *reset = 0;
	if (news < 0)
		return news;
	if (k->s.threads[0].role != VM_MAIN || k->s.threads[0].starttime != k->s.starttime)
		return -ESRCH;
	forget_the_dead(k);
	from = k->n;
	*reset = find_reset(k);
	rc = meet(k);
	*born = unsettled(k) - *reset;
	if (rc || !unsettled(k))
		return rc;
	/* An undo takes the record away before it changes anything: then these masks are its own. */
	record_file(k->s.vm.pid, k->s.starttime, file, sizeof(file));
	rc = journal_open(record_dir(), file, false, &j, err);
	if (rc)
		return rc;
	if (!strcmp(journal_state(j), "undoing"))
		rc = -ENOENT;
	if (!rc)
		rc = write_newcomers(k, j, from, err);
	if (!rc)
		rc = settle(k, err);
	journal_close(j);
	return rc;
}

void keeper_free(struct keeper *k)
{
	subject_close(&k->s);
	record_free(&k->old);
	free(k->held);
	free(k->irqs);
	memset(k, 0, sizeof(*k));
}
