/* SPDX-License-Identifier: MIT */
#include "plan.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/units.h"

enum group plan_group(enum vm_role role)
{
	switch (role) {
	case VM_VCPU:
		return G_VCPU;
	case VM_IOTHREAD:
		return G_IOTHREAD;
	case VM_VHOST:
		return G_VHOST;
	default:
		return G_EMULATOR;
	}
}

const char *plan_group_name(enum group g)
{
	static const char *const names[GROUPS] = {"vcpus", "iothreads", "vhost", "emulator"};

	return g < GROUPS ? names[g] : "";
}

static void append(struct cpus *cpus, int cpu)
{
	for (unsigned i = 0; i < cpus->n; i++)
		if (cpus->cpu[i] == cpu)
			return;
	cpus->cpu[cpus->n++] = (short)cpu;
}

int plan_cpus_parse(const char *text, struct cpus *cpus)
{
	cpus->n = 0;
	for (;;) {
		size_t len = strcspn(text, ",");
		char one[64];
		cpu_set_t set;
		int rc;

		if (len >= sizeof(one))
			return -EINVAL;
		memcpy(one, text, len);
		one[len] = '\0';
		rc = units_cpulist(one, &set);
		if (rc)
			return rc;
		for (int c = 0; c < CPU_SETSIZE; c++)
			if (CPU_ISSET(c, &set))
				append(cpus, c);
		if (!text[len])
			return 0;
		text += len + 1;
	}
}

const char *plan_cpus_format(const struct cpus *cpus, char *buf, size_t size)
{
	size_t n = 0;

	*buf = '\0';
	for (unsigned i = 0; i < cpus->n && n + 16 < size; i++) {
		unsigned last = i;

		while (last + 1 < cpus->n && cpus->cpu[last + 1] == cpus->cpu[last] + 1)
			last++;
		n += (size_t)snprintf(buf + n, size - n, last > i + 1 ? "%s%d-%d" : "%s%d", i ? "," : "",
				      cpus->cpu[i], cpus->cpu[last]);
		if (last > i + 1)
			i = last;
	}
	return buf;
}

void plan_cpus_set(const struct cpus *cpus, cpu_set_t *set)
{
	CPU_ZERO(set);
	for (unsigned i = 0; i < cpus->n; i++)
		CPU_SET(cpus->cpu[i], set);
}

void plan_all_cpus(const struct plan *plan, cpu_set_t *set)
{
	CPU_ZERO(set);
	for (int g = 0; g < GROUPS; g++) {
		cpu_set_t one;

		plan_cpus_set(&plan->group[g], &one);
		CPU_OR(set, set, &one);
	}
}

void plan_mask(const struct plan *plan, struct plan_use *use, enum group g, cpu_set_t *mask)
{
	const struct cpus *list = &plan->group[g];
	unsigned least = UINT_MAX;
	int best = -1;

	if (plan->floating) {
		plan_cpus_set(list, mask);
		return;
	}
	for (unsigned i = 0; i < list->n; i++)
		if (use->n[g][list->cpu[i]] < least) {
			least = use->n[g][list->cpu[i]];
			best = list->cpu[i];
		}
	CPU_ZERO(mask);
	if (best >= 0) {
		CPU_SET(best, mask);
		use->n[g][best]++;
	}
}
