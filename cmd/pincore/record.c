/* SPDX-License-Identifier: MIT */
#include "record.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/units.h"
#include "pincore.h"
#include "vm/qmp.h"

#define THREADS_MAX 65536

const char *record_dir(void)
{
	static char dir[4096];
	const char *base = getenv("XDG_RUNTIME_DIR");

	if (pin_opts.state_dir)
		return pin_opts.state_dir;
	if (!geteuid())
		return "/run/util-vm/pincore";
	if (base && *base == '/')
		snprintf(dir, sizeof(dir), "%s/util-vm/pincore", base);
	else
		snprintf(dir, sizeof(dir), "/run/user/%d/util-vm/pincore", (int)geteuid());
	return dir;
}

void record_file(pid_t pid, uint64_t starttime, char *buf, size_t size)
{
	snprintf(buf, size, "%d-%llu.vm", (int)pid, (unsigned long long)starttime);
}

/* --- reading: what is in the file may be anybody's --- */

static int bad(struct err *err, const char *what)
{
	return err_set(err, -EBADMSG, "read record: %s is missing or wrong", what);
}

static bool number(struct json_object *o, const char *key, uint64_t max, uint64_t *out)
{
	*out = qmp_u64(o, key, UINT64_MAX);
	return *out <= max;
}

static bool list(struct json_object *o, const char *key, cpu_set_t *set)
{
	const char *text = qmp_str(o, key);

	return text && !units_cpulist(text, set);
}

static void text(struct json_object *o, const char *key, char *buf, size_t size)
{
	qmp_clean(qmp_str(o, key), buf, size);
}

static struct rec_thread *find(struct record *r, pid_t tid, uint64_t starttime)
{
	for (size_t i = 0; i < r->n; i++)
		if (r->threads[i].tid == tid && r->threads[i].starttime == starttime)
			return &r->threads[i];
	return NULL;
}

static int take_thread(struct json_object *o, struct record *r, struct err *err)
{
	struct rec_thread t = {.index = -1}, *known, *more;
	const char *role = qmp_str(o, "role");
	uint64_t tid, index;

	if (!number(o, "tid", INT_MAX, &tid) || !tid || !number(o, "starttime", UINT64_MAX - 1, &t.starttime))
		return bad(err, "a thread's number");
	if (!list(o, "before", &t.before) || !list(o, "pinned", &t.pinned))
		return bad(err, "a thread's CPU list");
	if (!role || vm_role_parse(role, &t.role))
		return bad(err, "a thread's role");
	t.tid = (pid_t)tid;
	if (number(o, "index", 65535, &index))
		t.index = (int)index;
	t.kernel = qmp_bool(o, "kernel", false);
	text(o, "name", t.name, sizeof(t.name));
	known = find(r, t.tid, t.starttime);
	if (known) { /* pinned anew: what was before the first time counts */
		known->pinned = t.pinned;
		return 0;
	}
	if (r->n == THREADS_MAX)
		return bad(err, "the end of the list of threads");
	more = realloc(r->threads, (r->n + 1) * sizeof(*more));
	if (!more)
		return err_sys(err, -ENOMEM, "read record");
	r->threads = more;
	more[r->n++] = t;
	return 0;
}

static struct json_object *array(struct json_object *o, const char *key)
{
	struct json_object *a = NULL;

	return json_object_object_get_ex(o, key, &a) && json_object_is_type(a, json_type_array) ? a : NULL;
}

static int take_pinning(struct json_object *o, struct record *r, struct err *err)
{
	struct json_object *plan = NULL, *threads = array(o, "threads");
	uint64_t pid;
	int rc = 0;

	if (!number(o, "pid", INT_MAX, &pid) || !pid || !number(o, "starttime", UINT64_MAX - 1, &r->starttime))
		return bad(err, "the process");
	if (!json_object_object_get_ex(o, "plan", &plan) || !threads)
		return bad(err, "the plan");
	r->pid = (pid_t)pid;
	text(o, "target", r->target, sizeof(r->target));
	text(o, "name", r->name, sizeof(r->name));
	memset(&r->plan, 0, sizeof(r->plan));
	for (int g = 0; g < GROUPS; g++) {
		const char *cpus = qmp_str(plan, plan_group_name((enum group)g));

		if (cpus && plan_cpus_parse(cpus, &r->plan.group[g]))
			return bad(err, "a CPU list of the plan");
	}
	r->plan.floating = qmp_bool(plan, "float", false);
	r->plan.isolate = qmp_bool(plan, "isolate", false);
	r->plan.irqs = qmp_bool(plan, "irqs", false);
	for (size_t i = 0; !rc && i < json_object_array_length(threads); i++)
		rc = take_thread(json_object_array_get_idx(threads, i), r, err);
	return rc;
}

/* These are paths that root will write to. */
static bool is_path(const char *path)
{
	return path && *path == '/' && !strstr(path, "/../") && !strstr(path, "//") &&
	       (strlen(path) < 3 || strcmp(path + strlen(path) - 3, "/..") != 0);
}

static int take_partition(struct json_object *o, struct record *r, struct err *err)
{
	const char *cgroup = qmp_str(o, "partition.cgroup"), *home = qmp_str(o, "partition.home");

	if (!is_path(cgroup) || strncmp(cgroup, "/pincore-", 9) != 0 || strchr(cgroup + 1, '/') ||
	    strlen(cgroup) >= sizeof(r->partition.cgroup) || !is_path(home) ||
	    strlen(home) >= sizeof(r->partition.home))
		return bad(err, "the partition");
	strcpy(r->partition.cgroup, cgroup);
	strcpy(r->partition.home, home);
	r->partition.enabled = qmp_bool(o, "partition.enabled", false);
	return 0;
}

static int take_irqs(struct json_object *o, struct record *r, struct err *err)
{
	struct json_object *a = array(o, "irqs");

	for (size_t i = 0; a && i < json_object_array_length(a); i++) {
		struct json_object *one = json_object_array_get_idx(a, i);
		struct interrupt irq = {0}, *more;
		uint64_t n;
		bool known = false;

		if (!number(one, "irq", INT_MAX, &n) || !list(one, "before", &irq.cpus) || i >= THREADS_MAX)
			return bad(err, "an interrupt");
		irq.irq = (unsigned)n;
		text(one, "name", irq.name, sizeof(irq.name));
		for (size_t k = 0; k < r->irqs_n; k++)
			known |= r->irqs[k].irq == irq.irq;
		if (known)
			continue;
		more = realloc(r->irqs, (r->irqs_n + 1) * sizeof(*more));
		if (!more)
			return err_sys(err, -ENOMEM, "read record");
		r->irqs = more;
		more[r->irqs_n++] = irq;
	}
	return 0;
}

int record_parse(struct json_object *entries, struct record *r, struct err *err)
{
	size_t n = json_object_is_type(entries, json_type_array) ? json_object_array_length(entries) : 0;
	int rc = 0;

	memset(r, 0, sizeof(*r));
	for (size_t i = 0; !rc && i < n; i++) {
		struct json_object *o = json_object_array_get_idx(entries, i);
		const char *state = qmp_str(o, "state");

		r->finished = state && !strcmp(state, "pinned");
		if (!state)
			rc = bad(err, "a state");
		else if (!strcmp(state, "pinning"))
			rc = take_pinning(o, r, err);
		else if (!strcmp(state, "isolating"))
			rc = take_partition(o, r, err);
		else if (!strcmp(state, "irqs"))
			rc = take_irqs(o, r, err);
	}
	if (!rc && !r->pid)
		rc = bad(err, "the process");
	if (rc)
		record_free(r);
	return rc;
}

void record_free(struct record *r)
{
	free(r->threads);
	free(r->irqs);
	memset(r, 0, sizeof(*r));
}

int record_read(const char *file, struct record *r, struct err *err)
{
	char path[4400];
	struct json_object *entries;
	bool live;
	int rc;

	memset(r, 0, sizeof(*r));
	snprintf(path, sizeof(path), "%s/%s", record_dir(), file);
	if (access(path, F_OK))
		return err_sys(err, -errno, "read %s", path);
	entries = journal_read(path, &live, err);
	if (!entries)
		return err && err->code ? err->code : -EBADMSG;
	rc = record_parse(entries, r, err);
	if (rc)
		err_prefix(err, "%s", path);
	json_object_put(entries);
	snprintf(r->file, sizeof(r->file), "%s", file);
	return rc;
}

int record_each(int (*fn)(void *ctx, const char *file, struct record *r, const struct err *err), void *ctx)
{
	DIR *dir = opendir(record_dir());
	struct dirent *d;
	int rc = 0;

	while (dir && !rc && (d = readdir(dir))) {
		size_t len = strlen(d->d_name);
		struct err err = {0};
		struct record r;

		if (len < 4 || len >= sizeof(r.file) || strcmp(d->d_name + len - 3, ".vm") != 0)
			continue;
		if (record_read(d->d_name, &r, &err)) {
			if (err.code != -ENOENT) /* undone just now */
				rc = fn(ctx, d->d_name, NULL, &err);
			continue;
		}
		rc = fn(ctx, d->d_name, &r, NULL);
		record_free(&r);
	}
	if (dir)
		closedir(dir);
	return rc;
}

bool record_lives(const struct record *r)
{
	struct vm_thread t;

	return !vm_thread_read(r->pid, &t) && t.starttime == r->starttime;
}

const struct rec_thread *record_thread(const struct record *r, pid_t tid, uint64_t starttime)
{
	return find((struct record *)r, tid, starttime);
}

/* --- writing --- */

struct json_object *record_plan_json(const struct plan *plan)
{
	struct json_object *o = json_object_new_object();
	char cpus[CPU_SETSIZE * 5];

	for (int g = 0; g < GROUPS; g++)
		if (plan->group[g].n)
			json_object_object_add(o, plan_group_name((enum group)g),
				json_object_new_string(plan_cpus_format(&plan->group[g], cpus, sizeof(cpus))));
	json_object_object_add(o, "float", json_object_new_boolean(plan->floating));
	json_object_object_add(o, "isolate", json_object_new_boolean(plan->isolate));
	json_object_object_add(o, "irqs", json_object_new_boolean(plan->irqs));
	return o;
}

static void add_cpus(struct json_object *o, const char *key, const cpu_set_t *set)
{
	char cpus[UNITS_CPULIST_MAX];

	json_object_object_add(o, key, json_object_new_string(units_format_cpulist(set, cpus, sizeof(cpus))));
}

struct json_object *record_thread_json(const struct rec_thread *t)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "tid", json_object_new_int(t->tid));
	json_object_object_add(o, "starttime", json_object_new_uint64(t->starttime));
	if (t->kernel)
		json_object_object_add(o, "kernel", json_object_new_boolean(true));
	json_object_object_add(o, "role", json_object_new_string(vm_role_name(t->role)));
	if (t->index >= 0)
		json_object_object_add(o, "index", json_object_new_int(t->index));
	json_object_object_add(o, "name", json_object_new_string(t->name));
	add_cpus(o, "before", &t->before);
	add_cpus(o, "pinned", &t->pinned);
	return o;
}
