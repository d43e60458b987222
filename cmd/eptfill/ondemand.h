/* SPDX-License-Identifier: MIT */
/* VMs whose memory is the hypervisor's to give, page by page (Xen): what is still on demand, and its fill. */
#ifndef EPTFILL_ONDEMAND_H
#define EPTFILL_ONDEMAND_H

#include "eptfill.h"

/* Is @name such a VM? Then it is in @vm. Says nothing if it is none, or cannot be found. */
bool ondemand_vm(const char *name, struct vm *vm);

/* Each an exit status, with the reason told. */
int ondemand_stat(const struct vm *vm);
int ondemand_fill(const struct vm *vm);

#endif
