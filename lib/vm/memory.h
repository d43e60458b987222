/* SPDX-License-Identifier: MIT */
/*
 * A VM's memory from both sides: slots, pieces of the guest's physical memory with their place in
 * the process, and mappings, the process's own (/proc/PID/smaps).
 */
#ifndef VM_MEMORY_H
#define VM_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define VM_SLOTS_MAX 4096
#define VM_MAPPINGS_MAX 65536

struct vm_slot {
	uint64_t gpa, size; /* multiples of 4096 */
	uint64_t hva;	    /* in the process; 0: not known */
	bool rom;	    /* the guest does not write there */
	char name[48];
};

struct vm_slots {
	struct vm_slot *slot;
	size_t n;
};

struct vm_mapping {
	uint64_t start, end;
	bool writable, executable, shared, hugetlb;
	bool mergeable;	 /* VmFlags mg: KSM may merge it */
	bool no_huge;	 /* VmFlags nh */
	uint64_t page;	 /* of the mapping: 4096, or a hugetlb size */
	uint64_t rss, swap, huge, ksm; /* bytes; huge: mapped by 2M entries (THP) */
	char path[64];	 /* "" if anonymous */
};

struct vm_mappings {
	struct vm_mapping *map;
	size_t n;
};

/* Append; -E2BIG beyond VM_SLOTS_MAX, -EINVAL if it wraps around or overlaps another. */
int vm_slots_add(struct vm_slots *s, const struct vm_slot *slot);
void vm_slots_free(struct vm_slots *s);
uint64_t vm_slots_bytes(const struct vm_slots *s, bool with_rom);

/*
 * The next piece of @s at the cursor (*@slot, *@offset), of at most @bytes and ending at a
 * multiple of @align of guest-physical memory if it can; moves the cursor. False at the end.
 */
bool vm_slots_next(const struct vm_slots *s, size_t *slot, uint64_t *offset, uint64_t bytes,
		   uint64_t align, struct vm_slot *piece);

/* /proc/PID/smaps, as text. The result is sorted as the kernel gives it. -EPROTO, -E2BIG. */
int vm_mappings_parse(const char *text, size_t size, struct vm_mappings *out, struct err *err);
int vm_mappings_read(pid_t pid, struct vm_mappings *out, struct err *err);
void vm_mappings_free(struct vm_mappings *m);
const struct vm_mapping *vm_mapping_at(const struct vm_mappings *m, uint64_t address);

/* The sum over those mappings that hold RAM of @s, each once; swap and ksm: ROM, too. */
struct vm_resident {
	uint64_t size, rss, swap, huge, ksm; /* bytes */
	uint64_t page;	  /* the smallest page size of them */
	uint64_t largest; /* the largest */
	bool hugetlb, mergeable;
};
void vm_resident_of(const struct vm_slots *s, const struct vm_mappings *m, struct vm_resident *r);

/*
 * Without a monitor: the largest writable mappings that together make up @bytes, as slots with
 * an hva and without a gpa. -ENOENT: none of that size.
 */
int vm_slots_guess(const struct vm_mappings *m, uint64_t bytes, struct vm_slots *out,
		   struct err *err);

#endif
