/* SPDX-License-Identifier: MIT */
/* Pins a VM by a plan, and keeps it so: reads, records, pins, and reads again until nothing is new. */
#ifndef PINCORE_KEEPER_H
#define PINCORE_KEEPER_H

#include "pincore.h"
#include "record.h"

/* A thread that is pinned. */
struct held {
	struct vm_thread t;
	enum group group;
	cpu_set_t before, mask;
	bool settled; /* the mask is set */
};

struct keeper {
	struct subject s;
	struct plan plan;
	struct plan_use use;
	struct held *held;
	size_t n;
	struct record old;	/* what an earlier pin left; .pid 0: nothing */
	struct partition partition;
	struct interrupt *irqs; /* moved by us, as they were */
	size_t irqs_n, irqs_stuck;
	char stuck[160];	/* the names of some that cannot be moved */
	size_t pinned, unpinnable; /* threads in all; kernel threads that nobody can pin */
	uint64_t took_us;
};

/*
 * Pin @k->s by @k->plan. 0; EXIT_REFUSED: nothing was changed; EXIT_ROLLED_BACK: all is as it was
 * before; EXIT_RECOVER: some could not be put back, the record tells what. The reason is told.
 */
int keeper_pin(struct keeper *k);

/* Who would be pinned where, into @k->held; nothing is changed. */
void keeper_imagine(struct keeper *k);

/* Take up what is recorded of @k->s, with its plan. 0, -ENOENT, -EBADMSG. */
int keeper_resume(struct keeper *k, struct err *err);

/*
 * Look again: pin newcomers, and set back masks that somebody changed. *@born and *@reset: how many. -ESRCH:
 * the VM has ended; -ENOENT: it was undone; else -errno with @err.
 */
int keeper_look(struct keeper *k, size_t *born, size_t *reset, struct err *err);

void keeper_free(struct keeper *k);

/* Undo what the record @file tells: 0 or an exit status. */
int undo_record(const char *file);

#endif
