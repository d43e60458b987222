/* SPDX-License-Identifier: MIT */
/*
 * Births, renamings and deaths of threads as the kernel reports them: its process connector
 * (linux/cn_proc.h; Documentation/driver-api/connector.rst). It speaks to root (CAP_NET_ADMIN) in the
 * first network and pid namespace only.
 */
#ifndef VM_BIRTHS_H
#define VM_BIRTHS_H

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

enum birth {
	BIRTH_FORK, /* @tid of @pid is new; @by is the process that made it */
	BIRTH_COMM, /* has another name */
	BIRTH_EXIT, /* is gone */
};

/* @when_us: when the kernel saw it, by units_now_us. */
typedef void births_fn(void *ctx, enum birth what, pid_t pid, pid_t tid, pid_t by,
		       uint64_t when_us);

/* A descriptor to poll, that has been heard to speak; -EPERM, or -ENOTSUP: it stays silent here. */
int births_open(struct err *err);

/* Take in what has arrived. 0; -ENOBUFS: events were lost, and all must be looked at. */
int births_read(int fd, births_fn *fn, void *ctx);

#endif
