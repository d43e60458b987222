/* SPDX-License-Identifier: MIT */
/*
 * Targets: how a user names a VM, whatever runs it.
 *	qmp:PATH   the QMP socket of a QEMU         pid:N   a QEMU by its process
 *	libvirt:NAME[@URI]   xen:NAME-or-ID         (drivers of their own)
 *	NAME       looked up in every driver; must be unique
 * Adding a hypervisor is one file and one row of the table in vm.c.
 */
#ifndef VM_VM_H
#define VM_VM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct vm_thread;

struct vm {
	const struct vm_driver *driver;
	char target[160];	/* as the user gave it */
	char name[128];		/* -name guest=…, or "" */
	char uuid[37];		/* lower case; all zeros if the VM has none */
	pid_t pid;		/* the process that runs it; 0: a hypervisor without one */
	uint32_t domid;		/* Xen's number of it; 0: no domain of Xen */
	uint64_t mem_bytes;	/* RAM of the guest */
	char qmp_path[108];	/* where its monitor listens; "" if none is known */
	char state[32];		/* "running", "paused", …, by the hypervisor's own word; "unknown" */
};

struct vm_driver {
	const char *prefix;	/* "qmp" */
	const char *what;	/* for messages: "QEMU by its QMP socket" */
	/* Fill @vm from the text behind the prefix. -ENOENT: no such VM; -ENOTSUP: not built in. */
	int (*find)(const char *name, struct vm *vm, struct err *err);
	/* Is a VM of this bare name here? Number found (0, 1, many); fills @vm with the first. NULL: no. */
	int (*lookup)(const char *name, struct vm *vm, struct err *err);
	/* Tell the roles of the @n threads of @list that are still VM_OTHER (threads.h). With @ask the
	 * hypervisor is asked, too, else names have to do. NULL: its threads are not ours to know. */
	void (*roles)(const struct vm *vm, bool ask, struct vm_thread *list, size_t n);
	const struct vm_memory_ops *memory; /* vm/guest.h; NULL: it tells nothing of memory */
	/* Of hypervisors that are not processes; NULL of others. */
	const struct vm_vcpu_ops *vcpus;	 /* vm/vcpus.h */
	const struct vm_ondemand_ops *ondemand; /* vm/ondemand.h */
};

/* Find a VM; opens nothing that stays open. -ENOENT, -EEXIST (the name is not unique), -ENOTSUP, -EACCES. */
int vm_find(const char *target, struct vm *vm, struct err *err);

/*
 * Of a QEMU process: the value of -OPTION (the @nth occurrence from 0), from /proc/PID/cmdline,
 * into @buf. "-x" and "--x" are the same. -ENOENT if not given, -EACCES, -ESRCH,
 * -ENAMETOOLONG if it does not fit.
 */
int vm_cmdline_option(pid_t pid, const char *option, int nth, char *buf, size_t size);

/* The sub-option KEY of "driver,key=value,…" as QEMU splits it (",," is a comma), into @buf. KEY ""
 * asks for the leading word. A bare "word" is "on", "noword" is "off"; of several the last
 * counts. -ENOENT, -ENAMETOOLONG. */
int vm_suboption(const char *text, const char *key, char *buf, size_t size);

#endif
