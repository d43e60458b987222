/* SPDX-License-Identifier: MIT */
/*
 * The machine's CPUs: which share a core, a last-level cache, a NUMA node; which are on line, which
 * were set apart at boot. Read from sysfs (Documentation/ABI/stable/sysfs-devices-system-cpu, -node).
 */
#ifndef VM_TOPOLOGY_H
#define VM_TOPOLOGY_H

#include <sched.h>
#include <stdbool.h>

#include "base/err.h"

#define TOPOLOGY_NODES 64 /* a machine with more is read as if the rest were node 0 */

struct topology_cpu {
	int node;
	int core; /* the lowest CPU of its core: SMT siblings have the same */
	int llc;  /* the lowest CPU that shares its last-level cache */
};

struct topology {
	cpu_set_t online;
	cpu_set_t isolated; /* isolcpus= and isolated partitions */
	cpu_set_t nodes;    /* numbers of NUMA nodes that are on line */
	unsigned distance[TOPOLOGY_NODES][TOPOLOGY_NODES]; /* 10: itself (ACPI SLIT) */
	struct topology_cpu cpu[CPU_SETSIZE];
};

/* Read what is below @root ("" for the machine itself) into *@out, which the caller frees. What sysfs
 * does not tell is one node, one cache a package, one core a CPU. -ENOENT: no list of CPUs. */
int topology_read(const char *root, struct topology **out, struct err *err);

/* How many cores @set touches. */
int topology_cores(const struct topology *t, const cpu_set_t *set);

#endif
