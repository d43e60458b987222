/* SPDX-License-Identifier: MIT */
/* show: every thread of a VM, and what is recorded of it. Without a VM: all that are pinned. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "base/exit.h"
#include "base/log.h"
#include "base/units.h"
#include "hypervisor.h"
#include "keeper.h"
#include "vm/numa.h"

struct view {
	struct subject s;
	struct record r; /* .pid 0: not pinned by us */
	uint64_t node_bytes[TOPOLOGY_NODES];
	char cpuset[256];
};

static const char *numa_text(const struct view *v, char *buf, size_t size)
{
	size_t n = 0;

	*buf = '\0';
	for (int i = 0; i < TOPOLOGY_NODES && n < size; i++) {
		char bytes[32];

		if (v->node_bytes[i])
			n += (size_t)snprintf(buf + n, size - n, "%snode %d %s", n ? ", " : "", i,
					      units_format_size(v->node_bytes[i], bytes, sizeof(bytes)));
	}
	return *buf ? buf : "not known";
}

static void head_text(const struct view *v)
{
	char numa[256];

	printf("%s  pid %d  %s  memory: %s\n", subject_name(&v->s), (int)v->s.vm.pid, v->s.vm.state,
	       numa_text(v, numa, sizeof(numa)));
	if (v->r.pid)
		printf("pinned by pincore%s%s%s\n", v->r.finished ? "" : " (not to its end)",
		       *v->r.partition.cgroup ? ", in partition " : "", v->r.partition.cgroup);
	printf("%-12s %7s %-16s %-12s %4s %s\n", "ROLE", "TID", "NAME", "CPUS", "LAST", "BEFORE");
}

static void head_json(const struct view *v)
{
	struct json_object *o = json_object_new_object(), *nodes = json_object_new_object();

	for (int i = 0; i < TOPOLOGY_NODES; i++) {
		char key[8];

		if (!v->node_bytes[i])
			continue;
		snprintf(key, sizeof(key), "%d", i);
		json_object_object_add(nodes, key, json_object_new_uint64(v->node_bytes[i]));
	}
	json_object_object_add(o, "schema", json_object_new_string("util-vm/pincore/vm/1"));
	json_object_object_add(o, "vm", json_object_new_string(subject_name(&v->s)));
	json_object_object_add(o, "pid", json_object_new_int(v->s.vm.pid));
	json_object_object_add(o, "vm_state", json_object_new_string(v->s.vm.state));
	json_object_object_add(o, "cpuset", json_object_new_string(v->cpuset));
	json_object_object_add(o, "node_bytes", nodes);
	json_object_object_add(o, "pinned", json_object_new_boolean(v->r.pid != 0));
	if (v->r.pid)
		json_object_object_add(o, "plan", record_plan_json(&v->r.plan));
	if (*v->r.partition.cgroup)
		json_object_object_add(o, "partition", json_object_new_string(v->r.partition.cgroup));
	print_json(o);
}

static void thread_json(const struct view *v, const struct vm_thread *t, const char *cpus,
			const char *before)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "schema", json_object_new_string("util-vm/pincore/thread/1"));
	json_object_object_add(o, "pid", json_object_new_int(v->s.vm.pid));
	json_object_object_add(o, "tid", json_object_new_int(t->tid));
	json_object_object_add(o, "role", json_object_new_string(vm_role_name(t->role)));
	if (t->index >= 0)
		json_object_object_add(o, "index", json_object_new_int(t->index));
	json_object_object_add(o, "kernel", json_object_new_boolean(t->kernel));
	json_object_object_add(o, "name", json_object_new_string(t->name));
	json_object_object_add(o, "cpus", json_object_new_string(cpus));
	json_object_object_add(o, "last_cpu", json_object_new_int(t->cpu));
	if (before)
		json_object_object_add(o, "before", json_object_new_string(before));
	print_json(o);
}

static void show_thread(const struct view *v, const struct vm_thread *t)
{
	const struct rec_thread *r = record_thread(&v->r, t->tid, t->starttime);
	char cpus[UNITS_CPULIST_MAX], before[UNITS_CPULIST_MAX] = "", label[40];
	cpu_set_t set;

	if (sched_getaffinity(t->tid, sizeof(set), &set))
		return; /* it has just ended */
	units_format_cpulist(&set, cpus, sizeof(cpus));
	if (r)
		units_format_cpulist(&r->before, before, sizeof(before));
	if (pin_opts.json)
		thread_json(v, t, cpus, r ? before : NULL);
	else
		printf("%-12s %7d %-16s %-12s %4d %s\n", thread_label(t, label, sizeof(label)), (int)t->tid,
		       t->name, cpus, t->cpu, before);
}

static int show(const char *target)
{
	struct view *v = calloc(1, sizeof(*v));
	struct err err = {0};
	cpu_set_t allowed;
	char file[64];
	int rc;

	if (!v)
		return EXIT_REFUSED;
	rc = subject_open(target, &v->s);
	if (rc) {
		free(v);
		return rc;
	}
	record_file(v->s.vm.pid, v->s.starttime, file, sizeof(file));
	if (record_read(file, &v->r, &err) && err.code != -ENOENT)
		log_warn("%s", err.text);
	if (vm_numa_bytes(v->s.vm.pid, v->node_bytes, &err))
		log_verbose("%s", err.text);
	cpuset_allowed(v->s.vm.pid, &allowed, v->cpuset, sizeof(v->cpuset));
	if (pin_opts.json)
		head_json(v);
	else
		head_text(v);
	for (size_t i = 0; i < v->s.n; i++)
		show_thread(v, &v->s.threads[i]);
	subject_close(&v->s);
	record_free(&v->r);
	free(v);
	return 0;
}

static int list_one(void *ctx, const char *file, struct record *r, const struct err *err)
{
	char all[UNITS_CPULIST_MAX];
	struct json_object *o;
	cpu_set_t cpus;

	(void)ctx;
	if (!r) {
		log_warn("%s: %s", file, err->text);
		return 0;
	}
	plan_all_cpus(&r->plan, &cpus);
	units_format_cpulist(&cpus, all, sizeof(all));
	if (!pin_opts.json) {
		printf("%-20s pid %-8d CPUs %-16s %zu threads%s%s\n", *r->name ? r->name : r->target, (int)r->pid,
		       all, r->n, *r->partition.cgroup ? ", isolated" : "",
		       record_lives(r) ? "" : ", ended: 'pincore undo' clears up");
		return 0;
	}
	o = json_object_new_object();
	json_object_object_add(o, "schema", json_object_new_string("util-vm/pincore/record/1"));
	json_object_object_add(o, "vm", json_object_new_string(*r->name ? r->name : r->target));
	json_object_object_add(o, "pid", json_object_new_int(r->pid));
	json_object_object_add(o, "alive", json_object_new_boolean(record_lives(r)));
	json_object_object_add(o, "cpus", json_object_new_string(all));
	json_object_object_add(o, "plan", record_plan_json(&r->plan));
	print_json(o);
	return 0;
}

int pin_show(int argc, char **argv)
{
	int status = 0;
	struct vm vm;

	if (!argc) {
		record_each(list_one, NULL);
		return hypervisor_list();
	}
	for (int i = 0; i < argc; i++) {
		int rc = hypervisor_vm(argv[i], &vm) ? hypervisor_show(&vm) : show(argv[i]);

		if (rc > status)
			status = rc;
	}
	return status;
}
