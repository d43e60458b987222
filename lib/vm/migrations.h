/* SPDX-License-Identifier: MIT */
/*
 * How often a thread was moved to another CPU. Two sources, both of which the kernel counts in
 * set_task_cpu() (kernel/sched/core.c), one beside the other: the software event CPU_MIGRATIONS of
 * perf_event_open(2), and se.nr_migrations of /proc/PID/sched, which needs no right.
 */
#ifndef VM_MIGRATIONS_H
#define VM_MIGRATIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct migrations {
	pid_t tid;
	int fd;		/* of perf; -1: se.nr_migrations */
	uint64_t base;	/* what that stood at in the beginning */
	uint64_t count; /* as read last; stays when the thread is gone */
};

/*
 * Count from now on; with @born, from the thread's birth where the kernel tells (else from now).
 * -ESRCH: no such thread. -EACCES: neither source is open to us, and @err tells the way out.
 */
int migrations_begin(struct migrations *m, pid_t tid, bool born, struct err *err);

/* Bring @m->count up to date. 0, or -ESRCH: the thread is gone, and the count is its last. */
int migrations_read(struct migrations *m);
void migrations_end(struct migrations *m);

#endif
