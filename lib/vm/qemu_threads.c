/* SPDX-License-Identifier: MIT */
/* QEMU's threads: which does what. Asked are the monitor, KVM's debugfs, and their names. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "vm/drivers.h"
#include "vm/qmp.h"
#include "vm/threads.h"

#define QMP_MS 1000

static struct vm_thread *by_tid(struct vm_thread *list, size_t n, pid_t tid)
{
	for (size_t i = 0; i < n; i++)
		if (list[i].tid == tid)
			return &list[i];
	return NULL;
}

static void set_vcpu(struct vm_thread *t, int index)
{
	if (!t || t->role != VM_OTHER)
		return; /* one thread runs all vCPUs under single-threaded TCG: it bears the first number */
	t->role = VM_VCPU;
	t->index = index;
}

/* --- QMP --- */

/* QEMU tells the numbers of its own pid namespace. */
static struct vm_thread *by_inner_tid(bool inside, struct vm_thread *list,
				      size_t n, uint64_t tid)
{
	if (!inside)
		return by_tid(list, n, (pid_t)tid);
	for (size_t i = 0; i < n; i++)
		if (!list[i].kernel && vm_thread_inner(list[i].tid) == (pid_t)tid)
			return &list[i];
	return NULL;
}

static void take_vcpus(bool inside, struct json_object *cpus,
		       struct vm_thread *list, size_t n)
{
	size_t count = json_object_is_type(cpus, json_type_array) ? json_object_array_length(cpus) : 0;

	for (size_t i = 0; i < count; i++) {
		struct json_object *cpu = json_object_array_get_idx(cpus, i);
		uint64_t index = qmp_u64(cpu, "cpu-index", UINT64_MAX);

		if (index < 65536)
			set_vcpu(by_inner_tid(inside, list, n, qmp_u64(cpu, "thread-id", 0)),
				 (int)index);
	}
}

static void take_iothreads(bool inside, struct json_object *threads,
			   struct vm_thread *list, size_t n)
{
	size_t count =
		json_object_is_type(threads, json_type_array) ? json_object_array_length(threads) : 0;

	for (size_t i = 0; i < count; i++) {
		struct vm_thread *t =
			by_inner_tid(inside, list, n,
				     qmp_u64(json_object_array_get_idx(threads, i), "thread-id", 0));

		if (t && t->role == VM_OTHER)
			t->role = VM_IOTHREAD;
	}
}

/* False: the monitor does not answer, or is not this VM's. */
static bool roles_by_qmp(const struct vm *vm, struct vm_thread *list, size_t n)
{
	struct json_object *cpus = NULL, *iothreads = NULL;
	bool inside = vm_thread_inner(vm->pid) != vm->pid;
	uint64_t ask_cpus, ask_iothreads;
	struct err err = {0};
	struct qmp *qmp;
	int rc;

	if (!*vm->qmp_path)
		return false;
	rc = qmp_open(vm->qmp_path, QMP_MS, &qmp, &err);
	if (rc) {
		log_verbose("threads of %s: without its monitor: %s", vm->target, err.text);
		return false;
	}
	rc = qmp_start(qmp, &ask_cpus, &err, "query-cpus-fast", NULL);
	if (!rc)
		rc = qmp_start(qmp, &ask_iothreads, &err, "query-iothreads", NULL);
	if (!rc)
		rc = qmp_finish(qmp, ask_cpus, QMP_MS, &cpus, &err);
	if (!rc)
		rc = qmp_finish(qmp, ask_iothreads, QMP_MS, &iothreads, &err);
	if (rc)
		log_verbose("threads of %s: %s", vm->target, err.text);
	take_vcpus(inside, cpus, list, n);
	take_iothreads(inside, iothreads, list, n);
	json_object_put(cpus);
	json_object_put(iothreads);
	qmp_close(qmp);
	return !rc;
}

/* --- KVM's debugfs: kvm/PID-FD/vcpuN/pid (virt/kvm/kvm_main.c) --- */

static void vcpus_in(const char *dir, struct vm_thread *list, size_t n)
{
	DIR *vm = opendir(dir);
	struct dirent *d;

	while (vm && (d = readdir(vm))) {
		char path[700];
		long tid = 0;
		FILE *f;

		if (strncmp(d->d_name, "vcpu", 4) != 0 || !isdigit((unsigned char)d->d_name[4]))
			continue;
		snprintf(path, sizeof(path), "%s/%s/pid", dir, d->d_name);
		f = fopen(path, "re");
		if (!f)
			continue;
		if (fscanf(f, "%ld", &tid) == 1)
			set_vcpu(by_tid(list, n, (pid_t)tid), (int)strtol(d->d_name + 4, NULL, 10));
		fclose(f);
	}
	if (vm)
		closedir(vm);
}

static void roles_by_debugfs(const struct vm *vm, struct vm_thread *list, size_t n)
{
	static const char top[] = "/sys/kernel/debug/kvm";
	DIR *kvm = opendir(top);
	struct dirent *d;
	char ours[32];

	snprintf(ours, sizeof(ours), "%d-", (int)vm->pid);
	while (kvm && (d = readdir(kvm))) {
		char dir[400];

		if (strncmp(d->d_name, ours, strlen(ours)) != 0)
			continue;
		snprintf(dir, sizeof(dir), "%s/%s", top, d->d_name);
		vcpus_in(dir, list, n);
	}
	if (kvm)
		closedir(kvm);
}

/* --- names, as -name debug-threads=on gives them, and the kernel's own --- */

static bool vcpu_name(const char *name, int *index)
{
	char *end;
	long n;

	if (!strncmp(name, "ALL CPUs/", 9)) {
		*index = 0;
		return true;
	}
	if (strncmp(name, "CPU ", 4) != 0 || !isdigit((unsigned char)name[4]))
		return false;
	n = strtol(name + 4, &end, 10);
	*index = (int)n;
	return *end == '/' && n < 65536;
}

/* A thread bears its maker's name at first: two of one number cannot both be that vCPU. */
static bool vcpu_taken(const struct vm_thread *list, size_t n, int index)
{
	for (size_t i = 0; i < n; i++)
		if (list[i].role == VM_VCPU && list[i].index == index)
			return true;
	return false;
}

static void role_by_name(struct vm_thread *list, size_t n, struct vm_thread *t)
{
	int index;

	if (vcpu_name(t->name, &index)) {
		if (!vcpu_taken(list, n, index))
			set_vcpu(t, index);
	} else if (!strncmp(t->name, "IO ", 3)) {
		t->role = VM_IOTHREAD;
	} else if (!strcmp(t->name, "worker")) {
		t->role = VM_WORKER;
	} else if (!strcmp(t->name, "call_rcu")) {
		t->role = VM_RCU;
	} else if (!strncmp(t->name, "vhost-", 6)) {
		t->role = VM_VHOST;
	} else if (!strncmp(t->name, "kvm-nx-lpage-re", 15)) {
		t->role = VM_NX_LPAGE;
	}
}

/*
 * call_rcu is made by a constructor (util/rcu.c), before -name is read: it is the first thread beside
 * main, and bears main's name.
 */
static void first_born_is_rcu(struct vm_thread *list, size_t n)
{
	struct vm_thread *first = NULL, *main = NULL;

	for (size_t i = 0; i < n; i++) {
		struct vm_thread *t = &list[i];

		if (t->role == VM_MAIN)
			main = t;
		else if (!t->kernel && (!first || t->starttime < first->starttime ||
					(t->starttime == first->starttime && t->tid < first->tid)))
			first = t;
	}
	if (first && main && first->role == VM_OTHER && !strcmp(first->name, main->name))
		first->role = VM_RCU;
}

void qemu_roles(const struct vm *vm, bool ask, struct vm_thread *list, size_t n)
{
	if (ask && !roles_by_qmp(vm, list, n))
		roles_by_debugfs(vm, list, n);
	for (size_t i = 0; i < n; i++)
		if (list[i].role == VM_OTHER)
			role_by_name(list, n, &list[i]);
	first_born_is_rcu(list, n);
}
