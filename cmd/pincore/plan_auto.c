/* SPDX-License-Identifier: MIT */
/*
 * The plan of auto. Near the memory first, then a cache for all vCPUs, then a core for each, then
 * the least busy; the emulator off the vCPUs' cores where there is room. It decides by facts alone, so
 * that the same facts always give the same plan.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "plan.h"

#define BUSY 500 /* per mille: a core above this is used after the others */

struct core {
	int first, node, llc;
	unsigned busy;	  /* of its busiest CPU */
	bool whole;	  /* no sibling is another VM's or beyond our cpuset */
	bool isolated;
	int cpu[16], n;	  /* its free CPUs */
	unsigned rank;	  /* 0: in the chosen cache, 1: on the chosen node, then by distance */
};

struct site {
	const struct plan_facts *f;
	cpu_set_t free;
	struct core cores[CPU_SETSIZE];
	int n, node, llc;
	bool shared; /* no CPU was free of pinned VMs */
};

static void __attribute__((format(printf, 3, 4)))
say(struct plan_why *why, int line, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why->line[line], sizeof(why->line[line]), fmt, ap);
	va_end(ap);
}

static struct core *core_of(struct site *s, int cpu)
{
	const struct topology_cpu *t = &s->f->machine->cpu[cpu];

	for (int i = 0; i < s->n; i++)
		if (s->cores[i].first == t->core)
			return &s->cores[i];
	s->cores[s->n] = (struct core){
		.first = t->core, .node = t->node, .llc = t->llc, .whole = true};
	return &s->cores[s->n++];
}

static void survey(struct site *s)
{
	const struct plan_facts *f = s->f;

	for (int c = 0; c < CPU_SETSIZE; c++) {
		struct core *core;

		if (!CPU_ISSET(c, &f->machine->online))
			continue;
		core = core_of(s, c);
		if (f->busy[c] > core->busy)
			core->busy = f->busy[c];
		if (!CPU_ISSET(c, &s->free))
			core->whole = false;
		else if (core->n < 16)
			core->cpu[core->n++] = c;
		if (CPU_ISSET(c, &f->machine->isolated))
			core->isolated = true;
	}
}

static int most_memory(const struct plan_facts *f, uint64_t *bytes, uint64_t *total)
{
	int best = -1;

	*bytes = *total = 0;
	for (int n = 0; n < TOPOLOGY_NODES; n++) {
		*total += f->node_bytes[n];
		if (f->node_bytes[n] > *bytes) {
			*bytes = f->node_bytes[n];
			best = n;
		}
	}
	return best;
}

/* The node with most idle CPU time on its free CPUs. */
static int most_idle(const struct site *s)
{
	unsigned long idle[TOPOLOGY_NODES] = {0};
	int best = 0;

	for (int c = 0; c < CPU_SETSIZE; c++)
		if (CPU_ISSET(c, &s->free))
			idle[s->f->machine->cpu[c].node] += 1000u - s->f->busy[c];
	for (int n = 1; n < TOPOLOGY_NODES; n++)
		if (idle[n] > idle[best])
			best = n;
	return best;
}

static void choose_node(struct site *s, struct plan_why *why)
{
	uint64_t bytes, total;
	int node = most_memory(s->f, &bytes, &total);
	char part[32], all[32];

	s->node = node >= 0 ? node : most_idle(s);
	if (node >= 0)
		say(why, 0, "node %d holds %s of its %s", node, units_format_size(bytes, part, sizeof(part)),
		    units_format_size(total, all, sizeof(all)));
	else
		say(why, 0, "where its memory lies is not known");
	say(why, 1, "%d, %s", s->node, node >= 0 ? "where the memory is" : "with most idle CPUs");
}

static bool ready(const struct core *c)
{
	return c->whole && c->n && c->busy < BUSY;
}

/* A cache with a core for each vCPU and one over; of several the smallest that will do, then the idlest. */
static void choose_cache(struct site *s, struct plan_why *why)
{
	int best = -1, best_cores = 0, best_cpus = 0;
	unsigned long best_busy = 0;
	char list[UNITS_CPULIST_MAX];
	cpu_set_t cpus;

	for (int i = 0; i < s->n; i++) {
		int cores = 0, n = 0, need = (int)s->f->vcpus + 1, llc = s->cores[i].llc;
		unsigned long busy = 0;
		bool fits, best_fits = best_cores >= need, better;

		if (s->cores[i].node != s->node || llc == best)
			continue;
		for (int k = 0; k < s->n; k++)
			if (s->cores[k].llc == llc && s->cores[k].node == s->node) {
				cores += ready(&s->cores[k]);
				n += s->cores[k].n;
				busy += s->cores[k].busy;
			}
		fits = cores >= need;
		if (fits != best_fits)
			better = fits;
		else if (cores != best_cores)
			better = fits ? cores < best_cores : cores > best_cores;
		else
			better = n > best_cpus || (n == best_cpus && busy < best_busy);
		if (best < 0 || better) {
			best = llc;
			best_cores = cores;
			best_cpus = n;
			best_busy = busy;
		}
	}
	s->llc = best;
	CPU_ZERO(&cpus);
	for (int c = 0; c < CPU_SETSIZE; c++)
		if (CPU_ISSET(c, &s->f->machine->online) && s->f->machine->cpu[c].llc == best)
			CPU_SET(c, &cpus);
	say(why, 2, "%.100s%s, %d free core%s", best < 0 ? "none on the node" : "that of CPUs ",
	    best < 0 ? "" : units_format_cpulist(&cpus, list, 90), best_cores, best_cores == 1 ? "" : "s");
}

static int compare(const void *a, const void *b)
{
	const struct core *x = a, *y = b;
	bool xr = ready(x), yr = ready(y);

	if (x->rank != y->rank)
		return x->rank < y->rank ? -1 : 1;
	if (xr != yr)
		return xr ? -1 : 1;
	if (x->isolated != y->isolated)
		return x->isolated ? -1 : 1;
	if (x->busy / 100 != y->busy / 100)
		return x->busy < y->busy ? -1 : 1;
	return x->first - y->first;
}

static void rank(struct site *s)
{
	for (int i = 0; i < s->n; i++) {
		struct core *c = &s->cores[i];

		if (c->node == s->node)
			c->rank = c->llc == s->llc ? 0 : 1;
		else
			c->rank = s->f->machine->distance[s->node][c->node] + 1u;
	}
	qsort(s->cores, (size_t)s->n, sizeof(*s->cores), compare);
}

static void put(struct cpus *list, int cpu)
{
	list->cpu[list->n++] = (short)cpu;
}

/* @max_rank: how far away; a CPU of each core, or all. False: not enough. */
static bool take(const struct site *s, unsigned max_rank, bool whole, unsigned n, struct cpus *list)
{
	list->n = 0;
	for (int i = 0; i < s->n && list->n < n; i++) {
		const struct core *c = &s->cores[i];

		if (c->rank > max_rank || (whole && !ready(c)))
			continue;
		for (int k = 0; k < (whole ? 1 : c->n) && list->n < n; k++)
			put(list, c->cpu[k]);
	}
	return list->n == n;
}

static void choose_vcpus(const struct site *s, struct plan *plan, struct plan_why *why)
{
	static const struct {
		unsigned rank;
		bool whole;
		const char *what;
	} ways[] = {
		{0, true, "one a core, within the cache"},
		{1, true, "one a core, on the node"},
		{0, false, "with both threads of a core, within the cache"},
		{1, false, "with both threads of a core, on the node"},
		{UINT32_MAX, true, "one a core, over several nodes"},
		{UINT32_MAX, false, "with both threads of a core, over several nodes"},
	};
	struct cpus *list = &plan->group[G_VCPU];
	char text[120];

	for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++)
		if (take(s, ways[i].rank, ways[i].whole, s->f->vcpus, list)) {
			/* Without SMT there are no "both threads". */
			say(why, 3, "%s: %s", plan_cpus_format(list, text, sizeof(text)),
			    !ways[i].whole && topology_cores(s->f->machine, &s->free) == CPU_COUNT(&s->free)
				    ? "busy cores, too"
				    : ways[i].what);
			return;
		}
	say(why, 3, "%s: %u vCPUs share %u CPUs, there are no more", plan_cpus_format(list, text, sizeof(text)),
	    s->f->vcpus, list->n);
}

static bool has(const struct cpus *list, int cpu)
{
	for (unsigned i = 0; i < list->n; i++)
		if (list->cpu[i] == cpu)
			return true;
	return false;
}

static bool core_has_vcpu(const struct site *s, const struct plan *plan, int first)
{
	const struct cpus *list = &plan->group[G_VCPU];

	for (unsigned i = 0; i < list->n; i++)
		if (s->f->machine->cpu[list->cpu[i]].core == first)
			return true;
	return false;
}

/* How far away its farthest vCPU is: the node, if all are on it. */
static unsigned reach(const struct site *s, const struct plan *plan)
{
	unsigned far = 1;

	for (int i = 0; i < s->n; i++)
		if (s->cores[i].rank > far && core_has_vcpu(s, plan, s->cores[i].first))
			far = s->cores[i].rank;
	return far;
}

/* One more CPU that no vCPU has, no farther than @max_rank: on a core of its own, else beside a
 * vCPU. -1: none is left. */
static int spare(const struct site *s, const struct plan *plan, unsigned max_rank,
		 const struct cpus *also, bool *beside)
{
	for (int pass = 0; pass < 4; pass++) {
		for (int i = 0; i < s->n; i++) {
			const struct core *c = &s->cores[i];

			/* CPUs that were set apart at boot are for vCPUs, unless nothing else is left. */
			if (c->rank > max_rank || c->isolated != (pass >= 2) ||
			    core_has_vcpu(s, plan, c->first) != (pass % 2))
				continue;
			for (int k = 0; k < c->n; k++)
				if (!has(&plan->group[G_VCPU], c->cpu[k]) && !has(also, c->cpu[k])) {
					*beside = pass % 2;
					return c->cpu[k];
				}
		}
	}
	return -1;
}

/* Where nothing is left: the least busy CPU that no vCPU of ours has, else the last vCPU's. */
static int last_resort(const struct site *s, const struct plan *plan)
{
	const struct cpus *vcpus = &plan->group[G_VCPU];
	int best = -1;

	for (int c = 0; c < CPU_SETSIZE; c++) {
		if (!CPU_ISSET(c, &s->f->usable) || has(vcpus, c))
			continue;
		if (best < 0 || s->f->busy[c] < s->f->busy[best])
			best = c;
	}
	return best >= 0 || !vcpus->n ? best : vcpus->cpu[vcpus->n - 1];
}

static void choose_emulator(const struct site *s, struct plan *plan, struct plan_why *why)
{
	struct cpus none = {0};
	bool beside = false;
	int cpu = spare(s, plan, reach(s, plan), &none, &beside);
	const char *how;

	if (cpu < 0)
		cpu = spare(s, plan, UINT32_MAX, &none, &beside);
	how = beside ? "beside a vCPU on its core" : "on a core without vCPUs";
	if (cpu < 0) {
		cpu = last_resort(s, plan);
		how = has(&plan->group[G_VCPU], cpu) ? "shared with the last vCPU: no CPU is left"
						     : "shared with another pinned VM: no CPU is left";
	}
	put(&plan->group[G_EMULATOR], cpu);
	say(why, 5, "%d: %s", cpu, how);
}

static void choose_io(const struct site *s, struct plan *plan, struct plan_why *why)
{
	unsigned wanted = s->f->iothreads > s->f->vhosts ? s->f->iothreads : s->f->vhosts, far = reach(s, plan);
	struct cpus *io = &plan->group[G_IOTHREAD], taken = plan->group[G_EMULATOR];
	char text[120];
	bool beside;
	int cpu;

	for (; io->n < wanted && (cpu = spare(s, plan, far, &taken, &beside)) >= 0 && !beside; put(&taken, cpu))
		put(io, cpu);
	if (io->n) {
		say(why, 4, "%s: %s of their own", plan_cpus_format(io, text, sizeof(text)),
		    io->n == 1 ? "a core" : "cores");
	} else {
		*io = plan->group[G_EMULATOR];
		say(why, 4, wanted ? "%s: with the emulator, no core is left" : "%s: with the emulator, should any come",
		    plan_cpus_format(io, text, sizeof(text)));
	}
	plan->group[G_VHOST] = *io;
}

int plan_auto(const struct plan_facts *f, struct plan *plan, struct plan_why *why, struct err *err)
{
	struct site *s = calloc(1, sizeof(*s));
	cpu_set_t others;

	if (!s)
		return err_sys(err, -ENOMEM, "plan");
	memset(plan, 0, sizeof(*plan));
	memset(why, 0, sizeof(*why));
	s->f = f;
	CPU_XOR(&others, &f->taken, &f->usable);
	CPU_AND(&s->free, &others, &f->usable);
	if (!CPU_COUNT(&s->free)) {
		s->free = f->usable;
		s->shared = true;
	}
	if (!CPU_COUNT(&s->free)) {
		free(s);
		return err_set(err, -ENOSPC, "plan: no CPU is on line within the VM's cpuset");
	}
	survey(s);
	choose_node(s, why);
	choose_cache(s, why);
	rank(s);
	choose_vcpus(s, plan, why);
	choose_emulator(s, plan, why);
	choose_io(s, plan, why);
	if (s->shared)
		say(why, 1, "%d; every CPU has a pinned VM already", s->node);
	free(s);
	return 0;
}
