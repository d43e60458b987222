/* SPDX-License-Identifier: MIT */
/*
 * What a hypervisor tells of a running VM's memory through its monitor: a driver's table, NULL
 * where the driver has none. Each call opens the monitor and closes it again, but for the watch.
 */
#ifndef VM_GUEST_H
#define VM_GUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "vm/kvm.h"
#include "vm/memory.h"
#include "vm/vm.h"

struct vm_memory_state {
	bool balloon;		  /* the VM has one */
	uint64_t balloon_bytes;	  /* what it has taken from the guest */
	bool free_page_reporting; /* the guest hands free pages back by itself */
	bool migrating;		  /* dirty pages are logged */
	bool assigned_device;	  /* VFIO: all memory is pinned anyway */
};

/* Something happened that may undo a fill; @what is one word of: */
enum vm_memory_event {
	VM_EVENT_BALLOON,   /* @detail: what it holds now, bytes */
	VM_EVENT_MIGRATION, /* @detail: 1 it logs dirty pages, 0 it has ended, 2 the VM has gone elsewhere */
	VM_EVENT_RESET,
	VM_EVENT_SHUTDOWN,
};

struct vm_watch;
typedef void vm_watch_fn(void *ctx, enum vm_memory_event event, uint64_t detail);

struct vm_memory_ops {
	/* The guest's memory; @with_kvm: that which the hypervisor has given to KVM. -ENODATA: the
	 * VM has no monitor. */
	int (*slots)(const struct vm *vm, bool with_kvm, struct vm_slots *out, struct err *err);
	int (*state)(const struct vm *vm, struct vm_memory_state *out, struct err *err);
	/* Populate host memory by the hypervisor's own means; it stands still meanwhile. */
	int (*populate)(const struct vm *vm, struct err *err);
	/* KVM's counters, where debugfs cannot be read. */
	int (*counters)(const struct vm *vm, struct kvm_stats *out, struct err *err);
	/* Events: open, poll(2) on the descriptor, take them in. Holds the monitor. */
	int (*watch_open)(const struct vm *vm, vm_watch_fn *fn, void *ctx, struct vm_watch **out,
			  struct err *err);
	int (*watch_fd)(const struct vm_watch *w);
	/* As counters, by the monitor that is held; events that come meanwhile are told. */
	int (*watch_counters)(struct vm_watch *w, struct kvm_stats *out, struct err *err);
	int (*watch_take)(struct vm_watch *w, struct err *err); /* -EPIPE: the VM is gone */
	void (*watch_close)(struct vm_watch *w);
};

/* Memory that a hypervisor's command line asks for, in bytes; 0: it does not tell. */
uint64_t vm_memory_asked_for(int argc, char **argv);

#endif
