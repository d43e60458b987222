/* SPDX-License-Identifier: MIT */
/*
 * All threads that work for one VM, by what they do: those of its process, and those that the
 * kernel runs on its behalf (vhost before Linux 6.4, kvm-pit). What is read is a moment's
 * picture: threads come and go while /proc/PID/task is read, so that whoever acts upon it reads again until
 * nothing new appears.
 */
#ifndef VM_THREADS_H
#define VM_THREADS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "vm/vm.h"

enum vm_role {
	VM_MAIN,	/* the process's main loop */
	VM_VCPU,	/* runs guest code */
	VM_IOTHREAD,	/* -object iothread, and the monitor's */
	VM_WORKER,	/* QEMU's thread pool: comes and goes */
	VM_RCU,		/* call_rcu */
	VM_VHOST,	/* vhost worker: a kernel thread before Linux 6.4, a thread of the process since */
	VM_NX_LPAGE,	/* kvm-nx-lpage-recovery, in the process */
	VM_PIT,		/* kvm-pit/PID, a kernel thread */
	VM_OTHER,	/* a thread of the process with a name that we do not know */
	VM_ROLES
};

struct vm_thread {
	pid_t tid;
	enum vm_role role;
	int index;	      /* VM_VCPU: the vCPU's number; else -1 */
	bool kernel;	      /* not of the VM's process: a kernel thread found by its name */
	int cpu;	      /* where it ran last (field 39 of proc_pid_stat(5)) */
	uint64_t starttime;   /* clock ticks since boot (field 22): tells a reused tid */
	char name[32];	      /* /proc/…/comm, without control characters */
};

/* "main", "vcpu", "iothread", … ; and back (-EINVAL). */
const char *vm_role_name(enum vm_role role);
int vm_role_parse(const char *text, enum vm_role *role);

/*
 * The threads of @vm now, main first, then by role and tid, into *@list (the caller frees it),
 * *@n of them. vCPUs are told by QMP's query-cpus-fast where the monitor answers, else by
 * KVM's debugfs (vcpuN/pid), else by name ("CPU n/KVM", -name debug-threads=on).
 * -ESRCH: the VM is gone; -EACCES; -ENOMEM.
 */
int vm_threads(const struct vm *vm, struct vm_thread **list, size_t *n, struct err *err);

/*
 * Read again: *@list is replaced. Who was in it keeps its role, so that the hypervisor is asked only
 * where a newcomer's name does not tell. The number of newcomers, or -errno as above (*@list stays).
 */
int vm_threads_again(const struct vm *vm, struct vm_thread **list, size_t *n, struct err *err);

/* What one line of /proc/PID/stat tells of a thread: tid, name, cpu, starttime. -EBADMSG; -ESRCH: a
 * zombie. */
int vm_thread_parse(const char *stat, struct vm_thread *t);

/* The thread @tid as it is now, into @t (role and index untouched). -ESRCH: gone. */
int vm_thread_read(pid_t tid, struct vm_thread *t);

/* What @tid is called within its own pid namespace (a container's); @tid itself where there is none. */
pid_t vm_thread_inner(pid_t tid);

#endif
