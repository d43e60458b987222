/* SPDX-License-Identifier: MIT */
/* Everything as it was before the first pin: also when the VM has gone, for partitions and interrupts stay. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/exit.h"
#include "base/log.h"
#include "base/units.h"
#include "hypervisor.h"
#include "keeper.h"

struct undo {
	struct record r;
	bool alive;
	size_t restored, failed;
};

static void everything(cpu_set_t *set)
{
	CPU_ZERO(set);
	for (int c = 0; c < CPU_SETSIZE; c++)
		CPU_SET(c, set);
}

static void restore(struct undo *u, pid_t tid, const char *name, const cpu_set_t *before)
{
	cpu_set_t all;

	if (!sched_setaffinity(tid, sizeof(*before), before)) {
		u->restored++;
		return;
	}
	if (errno == ESRCH)
		return;
	/* Its CPUs are off line, or another's by now: then those that there are. */
	everything(&all);
	if (errno == EINVAL && !sched_setaffinity(tid, sizeof(all), &all)) {
		u->restored++;
		return;
	}
	log_error("undo: thread %d (%s): %s", (int)tid, name, strerror(errno));
	u->failed++;
}

static const struct rec_thread *main_of(const struct record *r)
{
	for (size_t i = 0; i < r->n; i++)
		if (r->threads[i].role == VM_MAIN)
			return &r->threads[i];
	return NULL;
}

/* Born since, with a mask of ours: it gets what the process had. */
static void restore_newborn(struct undo *u, const struct vm_thread *t)
{
	const struct rec_thread *m = main_of(&u->r);
	cpu_set_t before, now, ours, both;

	plan_all_cpus(&u->r.plan, &ours);
	if (sched_getaffinity(t->tid, sizeof(now), &now))
		return;
	CPU_AND(&both, &now, &ours);
	if (!CPU_EQUAL(&both, &now))
		return;
	everything(&before);
	restore(u, t->tid, t->name, m ? &m->before : &before);
}

static void restore_masks(struct undo *u)
{
	char target[32];
	struct err err = {0};
	struct vm_thread t, *list = NULL;
	struct vm vm;
	size_t n = 0;

	for (size_t i = 0; i < u->r.n; i++) {
		const struct rec_thread *r = &u->r.threads[i];

		if (!vm_thread_read(r->tid, &t) && t.starttime == r->starttime)
			restore(u, r->tid, r->name, &r->before);
	}
	snprintf(target, sizeof(target), "pid:%d", (int)u->r.pid);
	if (!u->alive || vm_find(target, &vm, &err) || vm_threads(&vm, &list, &n, &err))
		return;
	for (size_t i = 0; i < n; i++)
		if (!list[i].kernel && !record_thread(&u->r, list[i].tid, list[i].starttime))
			restore_newborn(u, &list[i]);
	free(list);
}

static void restore_irqs(struct undo *u)
{
	for (size_t i = 0; i < u->r.irqs_n; i++) {
		struct interrupt now;
		int rc = interrupt_read(u->r.irqs[i].irq, &now);

		if (rc == -ENOENT || (!rc && CPU_EQUAL(&now.cpus, &u->r.irqs[i].cpus)))
			continue; /* those that the kernel manages never moved */
		rc = interrupt_move(u->r.irqs[i].irq, &u->r.irqs[i].cpus);
		if (!rc || rc == -ENOENT)
			continue;
		log_error("undo: interrupt %u (%s): %s", u->r.irqs[i].irq, u->r.irqs[i].name, strerror(-rc));
		u->failed++;
	}
}

static void print(const struct undo *u)
{
	struct json_object *o;

	if (!pin_opts.json) {
		log_verbose("undo %s: %zu threads%s", *u->r.name ? u->r.name : u->r.target, u->restored,
			    u->alive ? "" : ", the VM has ended");
		return;
	}
	o = json_object_new_object();
	json_object_object_add(o, "schema", json_object_new_string("util-vm/pincore/undo/1"));
	json_object_object_add(o, "name", json_object_new_string(u->r.name));
	json_object_object_add(o, "pid", json_object_new_int(u->r.pid));
	json_object_object_add(o, "alive", json_object_new_boolean(u->alive));
	json_object_object_add(o, "threads", json_object_new_uint64(u->restored));
	json_object_object_add(o, "irqs", json_object_new_uint64(u->r.irqs_n));
	json_object_object_add(o, "partition", json_object_new_boolean(*u->r.partition.cgroup != '\0'));
	json_object_object_add(o, "failed", json_object_new_uint64(u->failed));
	print_json(o);
}

static void dry(const struct undo *u)
{
	char cpus[UNITS_CPULIST_MAX];
	struct vm_thread t;

	for (size_t i = 0; i < u->r.n; i++)
		if (!vm_thread_read(u->r.threads[i].tid, &t) && t.starttime == u->r.threads[i].starttime)
			printf("thread %d (%s): to %s\n", (int)t.tid, t.name,
			       units_format_cpulist(&u->r.threads[i].before, cpus, sizeof(cpus)));
	for (size_t i = 0; i < u->r.irqs_n; i++)
		printf("interrupt %u (%s): to %s\n", u->r.irqs[i].irq, u->r.irqs[i].name,
		       units_format_cpulist(&u->r.irqs[i].cpus, cpus, sizeof(cpus)));
	if (*u->r.partition.cgroup)
		printf("partition %s: ended\n", u->r.partition.cgroup);
}

static int undo_all_of(struct undo *u, struct journal *j)
{
	struct err err = {0};

	if (journal_append(j, "undoing", NULL, &err)) { /* on a full disk, too, rather undo than not */
		log_warn("%s", err.text);
	}
	restore_irqs(u);
	if (*u->r.partition.cgroup && partition_end(&u->r.partition, &err)) {
		log_error("undo: %s", err.text);
		u->failed++;
	}
	restore_masks(u);
	print(u);
	if (u->failed)
		return EXIT_RECOVER;
	unlink(journal_path(j));
	return 0;
}

int undo_record(const char *file)
{
	struct undo u = {0};
	struct journal *j = NULL;
	struct err err = {0};
	int rc = journal_open(record_dir(), file, false, &j, &err), status = 0;

	if (rc == -ENOENT) /* another undo was quicker */
		return 0;
	if (!rc && !json_object_array_length(journal_entries(j))) { /* a crash before anything was done */
		if (!pin_opts.dry_run)
			unlink(journal_path(j));
		journal_close(j);
		return 0;
	}
	if (!rc)
		rc = record_parse(journal_entries(j), &u.r, &err);
	if (rc) {
		log_error("undo: %s/%s: %s%s", record_dir(), file, err.text,
			  rc == -EBADMSG ? " (nothing was changed; look at it, then remove it)" : "");
		journal_close(j);
		return EXIT_REFUSED;
	}
	u.alive = record_lives(&u.r);
	if (pin_opts.dry_run)
		dry(&u);
	else
		status = undo_all_of(&u, j);
	journal_close(j);
	record_free(&u.r);
	return status;
}

/* --- which records --- */

struct search {
	const char *target;
	pid_t pid; /* of a VM that vm_find knows; 0: none */
	char files[16][64];
	size_t n;
	int status;
};

static int undo_one(void *ctx, const char *file, struct record *r, const struct err *err)
{
	int *status = ctx, rc;

	(void)r;
	(void)err;
	rc = undo_record(file);
	if (rc > *status)
		*status = rc;
	return 0;
}

/* A VM that has gone is still called as it was. */
static bool is_called(const struct record *r, const struct search *s)
{
	char pid[32];

	snprintf(pid, sizeof(pid), "pid:%d", (int)r->pid);
	return !strcmp(s->target, pid) || !strcmp(s->target, r->target) || !strcmp(s->target, r->name) ||
	       (s->pid && s->pid == r->pid);
}

static int match(void *ctx, const char *file, struct record *r, const struct err *err)
{
	struct search *s = ctx;

	(void)err;
	if (r && is_called(r, s) && s->n < sizeof(s->files) / sizeof(*s->files))
		snprintf(s->files[s->n++], sizeof(s->files[0]), "%s", file);
	return 0;
}

static int undo_target(const char *target)
{
	struct search s = {.target = target};
	struct err err = {0};
	int status = 0;
	struct vm vm;

	record_each(match, &s);
	if (!s.n && !vm_find(target, &vm, &err)) {
		s.pid = vm.pid;
		record_each(match, &s);
	}
	if (!s.n) {
		log_error("undo %s: nothing is recorded of it in %s", target, record_dir());
		return EXIT_REFUSED;
	}
	for (size_t i = 0; i < s.n; i++) {
		int rc = undo_record(s.files[i]);

		if (rc > status)
			status = rc;
	}
	return status;
}

int pin_undo(int argc, char **argv)
{
	struct vm vm;
	int status = 0;

	if (pin_opts.everything == (argc > 0))
		return cli_usage_error(argc ? "--all takes no TARGET" : "a TARGET, or --all, is needed");
	if (pin_opts.everything) {
		int rc = hypervisor_undo_all();

		record_each(undo_one, &status);
		return rc > status ? rc : status;
	}
	for (int i = 0; i < argc; i++) {
		int rc = hypervisor_vm(argv[i], &vm) ? hypervisor_undo(&vm) : undo_target(argv[i]);

		if (rc > status)
			status = rc;
	}
	return status;
}
