/* SPDX-License-Identifier: MIT */
/* Is there room on this host for memory that a process has not touched yet, and will it stay? */
#ifndef VM_ROOM_H
#define VM_ROOM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "vm/memory.h"

#define ROOM_FINDINGS_MAX 12

struct room {
	uint64_t need_bytes;	  /* not there yet */
	uint64_t available_bytes; /* the narrowest of all limits */
	unsigned n;
	struct room_finding {
		bool refuse;	/* else it is to be known */
		char text[224]; /* with the way out */
	} finding[ROOM_FINDINGS_MAX];
};

void room_add(struct room *r, bool refuse, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
bool room_refuses(const struct room *r);

/* The host's free memory and the limits of control groups of @pid, for @bytes more. */
void room_check_memory(struct room *r, pid_t pid, uint64_t bytes);

/*
 * All of that for what is missing of @slots in process @pid: pools of huge pages, NUMA policy, and
 * what would undo a fill: KSM.
 */
void room_check(struct room *r, pid_t pid, const struct vm_slots *slots,
		const struct vm_mappings *mappings);

/* "MemAvailable:" and the like, of /proc/meminfo or a node's; 0 if it is not there. */
uint64_t room_meminfo(const char *path, const char *field);

#endif
