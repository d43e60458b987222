/* SPDX-License-Identifier: MIT */
#ifndef CARDD_SERVE_RING_H
#define CARDD_SERVE_RING_H

#include "cardd/inside.h"

/* One queue of a region. */
struct ring_link {
	struct cardd_link l; /* first */
	const struct card_layout *layout;
	struct card_queue *q;
	uint32_t queue, opened; /* what `open` said when it was looked at last */
	bool live;		/* it has a user, who opened it under this run of the daemon */
	uint32_t next_place;
	uint64_t next_seq;
	const int *bell; /* eventfds by which the guest is rung, @bells of them */
	uint32_t bells;
	void (*gone)(struct ring_link *r); /* nobody uses it any more */
	void *owner;
};

/* Before: bell, bells, gone, owner. */
void ring_init(struct ring_link *r, struct cardd_vm *vm, const struct card_layout *layout,
	       void *base, uint32_t queue);

/*
 * What the daemon wrote is not there any more: QEMU brought the VM here, and with it (master=on) the memory of
 * another daemon. Whoever has the queue must open it again. false: all is well.
 */
bool ring_reclaim(struct ring_link *r);

/* The guest rang (for one of its queues): false if there was nothing. */
bool ring_rung(struct ring_link *r);

#endif
