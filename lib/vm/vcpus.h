/* SPDX-License-Identifier: MIT */
/*
 * vCPUs that a hypervisor schedules itself, on CPUs by its own numbers, which no thread of this system is: a
 * driver's table, NULL where vCPUs are threads of a process.
 */
#ifndef VM_VCPUS_H
#define VM_VCPUS_H

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "vm/vm.h"

struct vm_vcpu {
	unsigned id;
	bool online;
	int cpu;	 /* where it runs or last ran; -1: it never did */
	cpu_set_t hard;	 /* it may run only there */
	cpu_set_t soft;	 /* it runs there if it can; all: it does not matter */
};

struct vm_vcpu_ops {
	/* @list: malloc'ed, in order; *@cpus: those that the hypervisor has. -ESRCH, -EIO. */
	int (*list)(const struct vm *vm, struct vm_vcpu **list, size_t *n, cpu_set_t *cpus, struct err *err);
	/* Both masks of one vCPU. -EINVAL: no CPU of a mask is there. */
	int (*pin)(const struct vm *vm, unsigned vcpu, const cpu_set_t *hard, const cpu_set_t *soft,
		   struct err *err);
};

#endif
