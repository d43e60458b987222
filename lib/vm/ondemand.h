/* SPDX-License-Identifier: MIT */
/*
 * Memory that a hypervisor promised a guest and has not given yet: it is populated on demand, while the guest
 * waits. A driver's table; NULL where memory is a process's (vm/memory.h).
 */
#ifndef VM_ONDEMAND_H
#define VM_ONDEMAND_H

#include <stdint.h>

#include "base/err.h"
#include "vm/vm.h"

struct vm_ondemand {
	uint64_t max_bytes;    /* what the guest may ever have */
	uint64_t target_bytes; /* what its balloon is to leave it */
	uint64_t given_bytes;  /* frames that are its own now, those of the cache below included */
	/* Of a guest with pages on demand: the cache they come from, how many there are in all, and those
	 * without a frame. Entries beyond the cache kill the guest when it touches them. */
	uint64_t cache_bytes, entry_bytes;
};

struct vm_ondemand_ops {
	int (*read)(const struct vm *vm, struct vm_ondemand *out, struct err *err);
	/* Let the guest have so much: its balloon's target, and frames for what is on demand. -ENOMEM: the
	 * hypervisor has no more. */
	int (*fill)(const struct vm *vm, uint64_t bytes, struct err *err);
	int (*room)(uint64_t *free_bytes, struct err *err); /* what the hypervisor has left */
};

#endif
