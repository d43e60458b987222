/* SPDX-License-Identifier: MIT */
/* Which CPUs for which threads: what the user says, or what auto finds. */
#ifndef PINCORE_PLAN_H
#define PINCORE_PLAN_H

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "vm/threads.h"
#include "vm/topology.h"

/* Threads that are pinned alike. */
enum group { G_VCPU, G_IOTHREAD, G_VHOST, G_EMULATOR, GROUPS };

/* A list of CPUs in the order in which they are handed out. */
struct cpus {
	unsigned n;
	short cpu[CPU_SETSIZE];
};

struct plan {
	struct cpus group[GROUPS]; /* n 0: threads of this group are left alone */
	bool floating;		   /* a thread may use its group's whole list, not one CPU of it */
	bool isolate, irqs;
};

/* How many threads each CPU has been given, by group. */
struct plan_use {
	unsigned short n[GROUPS][CPU_SETSIZE];
};

enum group plan_group(enum vm_role role);
const char *plan_group_name(enum group g); /* "vcpus": also the option's name */

/* "4,2,8-11": as units_cpulist, in this order. -EINVAL, -ERANGE. @text that bears no CPU is -EINVAL. */
int plan_cpus_parse(const char *text, struct cpus *cpus);
const char *plan_cpus_format(const struct cpus *cpus, char *buf, size_t size);
void plan_cpus_set(const struct cpus *cpus, cpu_set_t *set);
void plan_all_cpus(const struct plan *plan, cpu_set_t *set);

/*
 * The mask for one more thread of @g, counted in @use: the CPU of its list that fewest of its group
 * have, the first of those. So n threads on n CPUs get one each, in order.
 */
void plan_mask(const struct plan *plan, struct plan_use *use, enum group g, cpu_set_t *mask);

/* What auto decides upon. */
struct plan_facts {
	const struct topology *machine;
	cpu_set_t usable;			/* on line, and within the VM's cpuset */
	cpu_set_t taken;			/* by other VMs that are pinned */
	unsigned short busy[CPU_SETSIZE];	/* per mille, without this VM's own share */
	uint64_t node_bytes[TOPOLOGY_NODES];	/* where its memory is; all 0: not known */
	unsigned vcpus, iothreads, vhosts;
};

#define PLAN_WHY 6
struct plan_why {
	char line[PLAN_WHY][200]; /* memory, node, cache, vcpus, io, emulator */
};

/* -ENOSPC: there is no CPU to use. */
int plan_auto(const struct plan_facts *f, struct plan *plan, struct plan_why *why, struct err *err);

#endif
