/* SPDX-License-Identifier: MIT */
/* The drivers that vm.c's table names. */
#ifndef VM_DRIVERS_H
#define VM_DRIVERS_H

#include "vm/vm.h"

extern const struct vm_memory_ops qemu_memory_ops; /* qemu_memory.c */
extern const struct vm_driver vm_driver_qmp, vm_driver_pid; /* qemu.c */
#ifdef HAVE_XEN
extern const struct vm_driver vm_driver_xen; /* xen.c */
extern const struct vm_vcpu_ops xen_vcpu_ops; /* xen_vcpus.c */
extern const struct vm_ondemand_ops xen_ondemand_ops; /* xen_ondemand.c */
#endif

void qemu_roles(const struct vm *vm, bool ask, struct vm_thread *list, size_t n); /* qemu_threads.c */

#endif
