/* SPDX-License-Identifier: MIT */
/*
 * Filling a running VM's memory from outside, in two phases.
 *
 * Host: MADV_POPULATE_WRITE over its RAM, by helper threads made in its process. No thread of
 * the VM waits for them. The page size is the mapping's own.
 *
 * Second level: KVM_PRE_FAULT_MEMORY on the vCPUs' own descriptors, by their own threads, since
 * it takes the vCPU's mutex and the VM's own mm (virt/kvm/kvm_main.c). Each vCPU is out of the guest
 * for a bounded time, and then in it for as long as the duty leaves it. It maps as a read does, and
 * does not break copy-on-write: that is why the host phase comes first, and for write.
 */
#ifndef VM_FILL_H
#define VM_FILL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "vm/kvm.h"
#include "vm/memory.h"

enum fill_phase { FILL_HOST, FILL_SECOND };

struct fill_options {
	unsigned threads;      /* helpers; 0: one for each CPU of the VM's vCPUs, at most 16 */
	uint64_t stall_us;     /* a vCPU is out of the guest for so long at a time, about */
	unsigned duty_percent; /* of its time that a vCPU may be kept out, 1 … 100 */
	bool host_only;
};

struct fill_hooks {
	void *ctx;
	void (*progress)(void *ctx, enum fill_phase phase, uint64_t done, uint64_t total);
	int (*cancelled)(void *ctx); /* true: stop soon */
};

struct fill_share { /* of the second level */
	int vcpu;
	uint64_t bytes, stops, longest_stall_us;
};

struct fill_report {
	unsigned threads, vcpus;
	uint64_t host_bytes, host_us;
	uint64_t second_bytes, second_us, calls, stops;
	uint64_t interrupted; /* calls that would not have ended by themselves */
	struct fill_share *shares;
	size_t n_shares;
	uint64_t gone_bytes;	   /* no longer in a memslot: the VM changed under way */
	uint64_t longest_stall_us; /* of a vCPU */
	int longest_vcpu;
	uint64_t main_stall_us; /* of the thread that the helpers were made of */
	bool host_done, second_done, cancelled;
	char why[160]; /* the second phase was not done: why */
};

/*
 * Fill process @pid. @host: RAM by hva; @guest: RAM and ROM by gpa, or NULL: guest-physical
 * memory is searched through, @ram_bytes of it are expected. @kvm NULL: there is none. -ECANCELED, -EPERM (ptrace is not
 * allowed; nothing was done), -ENOMEM, -EIO …; @report tells how far it came; fill_report_free it.
 */
int fill_run(pid_t pid, const struct kvm *kvm, const struct vm_slots *host,
	     const struct vm_slots *guest, uint64_t ram_bytes, const struct fill_options *opts,
	     const struct fill_hooks *hooks, struct fill_report *report, struct err *err);
void fill_report_free(struct fill_report *report);

#endif
