/* SPDX-License-Identifier: MIT */
/* auto: where the machine and its load say. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#include "base/exit.h"
#include "base/log.h"
#include "base/units.h"
#include "pin.h"
#include "vm/numa.h"

struct sample {
	uint64_t busy[CPU_SETSIZE], all[CPU_SETSIZE]; /* clock ticks */
	uint64_t own[CPU_SETSIZE];		      /* of this VM, on the CPU where each thread ran last */
};

static void read_stat(struct sample *s)
{
	FILE *f = fopen("/proc/stat", "re");
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		unsigned long long v[8] = {0}; /* user nice system idle iowait irq softirq steal */
		unsigned cpu;

		if (sscanf(line, "cpu%u %llu %llu %llu %llu %llu %llu %llu %llu", &cpu, &v[0], &v[1], &v[2],
			   &v[3], &v[4], &v[5], &v[6], &v[7]) < 5 || cpu >= CPU_SETSIZE)
			continue;
		s->busy[cpu] = v[0] + v[1] + v[2] + v[5] + v[6] + v[7];
		s->all[cpu] = s->busy[cpu] + v[3] + v[4];
	}
	if (f)
		fclose(f);
}

/* utime and stime: fields 14 and 15, twelve words behind the name's bracket. */
static uint64_t ticks_of(pid_t tid, int *cpu)
{
	unsigned long long user = 0, system = 0;
	struct vm_thread t;
	char path[64], text[1024], *at;
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)tid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = '\0';
	at = strrchr(text, ')');
	if (!at || vm_thread_parse(text, &t) ||
	    sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system) != 2)
		return 0;
	*cpu = t.cpu;
	return user + system;
}

static void read_own(struct sample *s, const struct subject *vm)
{
	for (size_t i = 0; i < vm->n; i++) {
		int cpu = -1;
		uint64_t ticks = ticks_of(vm->threads[i].tid, &cpu);

		if (cpu >= 0 && cpu < CPU_SETSIZE)
			s->own[cpu] += ticks;
	}
}

/* Its own load follows it, and does not count. A thread that moved meanwhile blurs this a little. */
static int measure(const struct subject *vm, struct plan_facts *f)
{
	struct timespec pause = {(time_t)(pin_opts.sample_us / 1000000),
				 (long)(pin_opts.sample_us % 1000000 * 1000)};
	struct sample *a = calloc(2, sizeof(*a)), *b = a ? a + 1 : NULL;

	if (!a)
		return -ENOMEM;
	read_stat(a);
	read_own(a, vm);
	nanosleep(&pause, NULL);
	read_stat(b);
	read_own(b, vm);
	for (int c = 0; c < CPU_SETSIZE; c++) {
		uint64_t all = b->all[c] - a->all[c], busy = b->busy[c] - a->busy[c];
		uint64_t own = b->own[c] > a->own[c] ? b->own[c] - a->own[c] : 0;

		busy = busy > own ? busy - own : 0;
		f->busy[c] = (unsigned short)(all && busy < all ? busy * 1000 / all : all ? 1000 : 0);
	}
	free(a);
	return 0;
}

struct others {
	cpu_set_t *taken;
	pid_t but;
};

static int add_taken(void *ctx, const char *file, struct record *r, const struct err *err)
{
	struct others *o = ctx;

	(void)file;
	(void)err;
	if (r && r->pid != o->but && record_lives(r)) {
		cpu_set_t theirs;

		plan_all_cpus(&r->plan, &theirs);
		CPU_OR(o->taken, o->taken, &theirs);
	}
	return 0;
}

static int gather(const struct subject *s, struct plan_facts *f, struct topology *t)
{
	struct others others = {&f->taken, s->vm.pid};
	struct err err = {0};
	char path[256];

	f->machine = t;
	f->vcpus = subject_count(s, G_VCPU);
	f->iothreads = subject_count(s, G_IOTHREAD);
	f->vhosts = subject_count(s, G_VHOST);
	cpuset_allowed(s->vm.pid, &f->usable, path, sizeof(path));
	CPU_AND(&f->usable, &f->usable, &t->online);
	record_each(add_taken, &others);
	if (vm_numa_bytes(s->vm.pid, f->node_bytes, &err))
		log_verbose("auto: %s", err.text);
	return measure(s, f);
}

int plan_find(const struct subject *s, struct plan *plan, struct plan_why *why)
{
	struct plan_facts *f;
	struct topology *t;
	struct err err = {0};
	int rc;

	if (!subject_count(s, G_VCPU)) {
		log_error("auto %s: which threads are its vCPUs is not known (its QMP socket must answer, or start it "
			  "with -name NAME,debug-threads=on)", s->vm.target);
		return EXIT_REFUSED;
	}
	rc = topology_read("", &t, &err);
	if (rc) {
		log_error("%s", err.text);
		return EXIT_REFUSED;
	}
	f = calloc(1, sizeof(*f));
	rc = f ? gather(s, f, t) : -ENOMEM;
	if (rc)
		rc = err_sys(&err, rc, "auto %s", s->vm.target);
	else
		rc = plan_auto(f, plan, why, &err);
	if (rc)
		log_error("%s", err.text);
	plan->floating = pin_opts.floating;
	plan->isolate = pin_opts.isolate;
	plan->irqs = pin_opts.irqs;
	free(f);
	free(t);
	return rc ? EXIT_REFUSED : 0;
}

static void print_plan(const struct subject *s, const struct plan *plan, const struct plan_why *why)
{
	static const char *const what[PLAN_WHY] = {"memory", "node", "cache", "vcpus", "iothreads", "emulator"};
	struct json_object *o;

	if (pin_opts.json) {
		o = json_object_new_object();
		json_object_object_add(o, "schema", json_object_new_string("util-vm/pincore/plan/1"));
		json_object_object_add(o, "vm", json_object_new_string(subject_name(s)));
		json_object_object_add(o, "pid", json_object_new_int(s->vm.pid));
		json_object_object_add(o, "plan", record_plan_json(plan));
		for (int i = 0; i < PLAN_WHY; i++) {
			char key[32];

			snprintf(key, sizeof(key), "why_%s", what[i]);
			json_object_object_add(o, key, json_object_new_string(why->line[i]));
		}
		print_json(o);
		return;
	}
	if (log_level() < LOG_NORMAL)
		return;
	printf("%s: %u vCPUs, %u iothreads, %zu threads\n", subject_name(s), subject_count(s, G_VCPU),
	       subject_count(s, G_IOTHREAD), s->n);
	for (int i = 0; i < PLAN_WHY; i++)
		printf("  %-10s %s\n", what[i], why->line[i]);
}

static int one(const char *target)
{
	struct keeper k = {0};
	struct plan_why why;
	int rc = subject_open(target, &k.s);

	if (rc)
		return rc;
	rc = plan_find(&k.s, &k.plan, &why);
	if (!rc)
		rc = plan_check(&k.plan, &k.s);
	if (!rc) {
		print_plan(&k.s, &k.plan, &why);
		rc = pin_subject(&k);
	}
	keeper_free(&k);
	return rc;
}

int pin_auto(int argc, char **argv)
{
	int status = 0;

	if (!argc)
		return cli_usage_error("a TARGET is missing");
	for (int i = 0; i < argc; i++) {
		int rc = one(argv[i]);

		if (rc > status)
			status = rc;
	}
	return status;
}
