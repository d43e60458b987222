/* SPDX-License-Identifier: MIT */
/*
 * What the kernel knows of a process's KVM machine, seen from outside: its descriptors
 * (/proc/PID/fd) and its counters (debugfs kvm/PID-FD, Documentation/virt/kvm).
 */
#ifndef VM_KVM_H
#define VM_KVM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define KVM_VCPUS_MAX 1024

struct kvm_vcpu {
	int id;	   /* KVM's vcpu_id */
	int fd;	   /* its number in the process */
	pid_t tid; /* the thread that ran it last; 0: not known */
};

struct kvm {
	pid_t pid;
	int vm_fd;	    /* its number in the process */
	char debugfs[128];  /* "" if it cannot be read */
	const char *why_not; /* why it cannot */
	int pre_fault;	    /* KVM_CAP_PRE_FAULT_MEMORY of this kernel: 1, 0, or -1: not known */
	size_t n_vcpus;
	struct kvm_vcpu vcpus[KVM_VCPUS_MAX];
};

/* Counters of the whole VM. What this kernel does not count is UINT64_MAX. */
struct kvm_stats {
	uint64_t pages_4k, pages_2m, pages_1g; /* second-level entries, now */
	uint64_t pf_taken;    /* violations since it began */
	uint64_t pf_fixed;    /* of those, such as made an entry */
	uint64_t pf_emulate;  /* of those, such as were no memory: MMIO and the like */
	uint64_t pf_spurious, pf_fast;
	uint64_t exits;
};

/* Find the KVM machine of @pid. -ENOENT: it has none (an emulated VM); -EACCES, -ESRCH. */
int kvm_find(pid_t pid, struct kvm *kvm, struct err *err);

/* The vCPU that thread @tid ran last, or NULL. */
const struct kvm_vcpu *kvm_vcpu_of(const struct kvm *kvm, pid_t tid);

/* -ENODATA: debugfs cannot be read. */
int kvm_read_stats(const struct kvm *kvm, struct kvm_stats *stats, struct err *err);

/* Bytes that second-level entries cover. */
uint64_t kvm_mapped_bytes(const struct kvm_stats *stats);

/* Violations of memory between two readings: those that were no memory are left out. */
uint64_t kvm_violations(const struct kvm_stats *before, const struct kvm_stats *after);

/* One counter by its debugfs name; NULL: there is none. For readers that get them elsewhere. */
uint64_t *kvm_stat_by_name(struct kvm_stats *stats, const char *name);

#endif
