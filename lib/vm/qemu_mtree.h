/* SPDX-License-Identifier: MIT */
#ifndef VM_QEMU_MTREE_H
#define VM_QEMU_MTREE_H

#include "vm/memory.h"

/*
 * QEMU's "info mtree -f" (softmmu/memory.c, mtree_print_flatview): the ranges of the view of
 * address space "memory" that KVM holds, without hva. -EPROTO: no such view in @text.
 */
int qemu_mtree_parse(const char *text, bool with_kvm, struct vm_slots *out, struct err *err);

/* "Host virtual address for 0x0 (pc.ram) is 0x7f…". -EPROTO. */
int qemu_gpa2hva_parse(const char *text, uint64_t *hva);

#endif
