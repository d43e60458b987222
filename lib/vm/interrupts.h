/* SPDX-License-Identifier: MIT */
/* Device interrupts and the CPUs that serve them: /proc/irq (Documentation/core-api/irq/irq-affinity.rst). */
#ifndef VM_INTERRUPTS_H
#define VM_INTERRUPTS_H

#include <sched.h>
#include <stddef.h>

#include "base/err.h"

struct interrupt {
	unsigned irq;
	char name[48]; /* of the devices, as the kernel lists them */
	cpu_set_t cpus;
};

/* Those that may be served by one of @cpus, into *@list (caller frees), *@n of them. */
int interrupts_on(const cpu_set_t *cpus, struct interrupt **list, size_t *n, struct err *err);

/* One of them as it is now. */
int interrupt_read(unsigned irq, struct interrupt *i);

/* -EIO, -EPERM: the kernel manages this one itself, it cannot be moved. -ENOENT: it is gone. */
int interrupt_move(unsigned irq, const cpu_set_t *cpus);

#endif
