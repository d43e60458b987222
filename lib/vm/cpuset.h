/* SPDX-License-Identifier: MIT */
/*
 * Cpusets: which CPUs a process may use at all, and CPUs set apart for it in an isolated partition
 * (Documentation/admin-guide/cgroup-v2.rst, "cpuset.cpus.partition").
 */
#ifndef VM_CPUSET_H
#define VM_CPUSET_H

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

/* The CPUs that @pid's cpuset leaves it, cgroup v1 or v2, into *@cpus; its path into @path ("" of
 * no interest). Where there are no cpusets: all. */
int cpuset_allowed(pid_t pid, cpu_set_t *cpus, char *path, size_t size);

struct partition {
	char cgroup[128]; /* below the mount: "/pincore-4711" */
	char home[512];	  /* where the process was before */
	bool enabled;	  /* the root's cpuset controller was off, and we turned it on */
};

/* Name the partition of @pid, and find out where the process is: nothing is changed yet, so that
 * it can be written down. -ENOTSUP: no cgroup v2 with cpusets; -EBUSY: its threads are in several cgroups. */
int partition_plan(pid_t pid, struct partition *p, struct err *err);

/* Make it, of @cpus, isolated, and move @pid into it. Fails with nothing left behind. */
int partition_make(const struct partition *p, const cpu_set_t *cpus, pid_t pid, struct err *err);

/* Another thread that works for the VM but is not of its process: a kernel thread. */
int partition_adopt(const struct partition *p, pid_t tid);

/* Put what is in it back where it was, and remove it. Fine if it is gone already. */
int partition_end(const struct partition *p, struct err *err);

#endif
