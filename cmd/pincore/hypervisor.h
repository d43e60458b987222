/* SPDX-License-Identifier: MIT */
/* VMs whose vCPUs are the hypervisor's own, and no threads here (Xen): pinned by it, recorded by us. */
#ifndef PINCORE_HYPERVISOR_H
#define PINCORE_HYPERVISOR_H

#include "pincore.h"

/* Is @target such a VM? Then it is in @vm. Says nothing if it is none, or cannot be found. */
bool hypervisor_vm(const char *target, struct vm *vm);

/* Each 0 or an exit status, with the reason told. */
int hypervisor_pin(const struct vm *vm, const struct plan *plan);
int hypervisor_show(const struct vm *vm);
int hypervisor_undo(const struct vm *vm);

/* Records of them: all are listed, or undone. Worst exit status. */
int hypervisor_list(void);
int hypervisor_undo_all(void);

#endif
