/* SPDX-License-Identifier: MIT */
/* A queue in shared memory, whatever it was mapped from. */
#ifndef CARD_WAY_RING_H
#define CARD_WAY_RING_H

#include "card/ring.h"
#include "card/way.h"

struct ring {
	struct card_way way; /* first */
	struct card_layout layout;
	const struct card_region *region;
	void *base;
	struct card_queue *q;
	uint32_t queue, open;
	uint32_t vector;  /* + 1: by which the daemon rings; 0: it cannot */
	int event_fd;	  /* readable when it rang; -1 */
	int lost_fd;	  /* readable when the link is lost; -1 */
	uint32_t nap_us;  /* where nobody rings */
	uint64_t next_seq, first_seq; /* unanswered: from first to before next */
	uint8_t *waiting; /* by slot: 1 unanswered */
	unsigned looks;
	uint32_t blocked_us; /* of the one who sleeps: a nap, 0: until it is rung for */
	bool woken, cut;
	void (*bell)(struct ring *r);	  /* ring the daemon's */
	void (*heard)(struct ring *r);	  /* the event was seen: make ready for the next */
};

/* Become the user of queue @queue. Before: base, bell, event_fd, lost_fd, vector. */
int ring_attach(struct ring *r, uint64_t mapped, uint32_t queue, int timeout_ms, struct err *err);
void ring_detach(struct ring *r);

int ring_put(struct card_way *way, const struct card_request *rq, const void *args, const void *data,
	     uint32_t data_len, const void *data2, uint32_t data2_len);
int ring_push(struct card_way *way);
int ring_get(struct card_way *way, struct card_reply *reply);
void ring_drop(struct card_way *way, const struct card_reply *reply);
bool ring_arm(struct card_way *way);
void ring_block(struct card_way *way, uint64_t timeout_us);
int ring_disarm(struct card_way *way);

#endif
