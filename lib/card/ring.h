/* SPDX-License-Identifier: MIT */
/*
 * Shared memory between one guest and the daemon: a header, and for each queue a control block, a
 * submission ring and a completion ring of fixed slots. Format: cardshare-protocol(7).
 *
 * A queue has one user in the guest at a time. Request n (from 1) stands in submission slot
 * (n - 1) % slots, and is there when the slot's seq is n; its answer stands in the completion slot of
 * the same number, and is there when that slot's seq is n. So nobody shares an index, an answer may
 * overtake another, and a slot is free again when its answer was taken. Who sleeps says so
 * (`waits`), and is rung for; who polls is not.
 */
#ifndef CARD_RING_H
#define CARD_RING_H

#include <stdatomic.h>

#include "card/protocol.h"

#define CARD_REGION_MAGIC UINT64_C(0x3152485344524143) /* "CARDSHR1" */
#define CARD_REGION_HEAD 4096u
#define CARD_QUEUES_MAX 64u
#define CARD_SLOTS_MAX 1024u
#define CARD_REGION_MAX (UINT64_C(1) << 30)

/* One slot: all of a message. The odd half kilobyte keeps 4-KiB payloads off each other's cache sets. */
struct card_slot {
	union {
		_Atomic uint64_t seq; /* stored with release after the rest, loaded with acquire */
		struct card_request request;
		struct card_answer answer;
	};
	uint8_t args[CARD_ARGS_MAX];
	uint8_t data[CARD_DATA_MAX];
};

enum card_region_state {
	CARD_REGION_CLOSED = 0, /* no daemon serves it (yet, or any more): wait */
	CARD_REGION_OPEN = 1,
	CARD_REGION_QUIET = 2, /* begin nothing new: a move or a restart is near */
};

/*
 * Written by the daemon only. With one region for all VMs (serve --shared-region, the paper's layout) the
 * first page of it is a header with shares > 0, and VM id's own region is at id * share_size.
 */
struct card_region {
	uint64_t magic;
	uint32_t version;
	_Atomic uint32_t state; /* enum card_region_state */
	uint64_t size;	     /* of this region, header included */
	uint32_t queues, slots; /* slots of each of a queue's two rings */
	uint32_t slot_size;  /* sizeof(struct card_slot) */
	uint32_t queue_size; /* bytes from queue to queue; the first is at CARD_REGION_HEAD */
	uint64_t daemon;     /* random number of this run of the daemon */
	_Atomic uint32_t beat; /* goes up at least each second while the daemon lives */
	uint32_t shares;
	uint64_t share_size;
	char vm[CARD_NAME_MAX];
};

/*
 * A queue's control block. To become a queue's user (after the one before, dead or alive): write a new
 * number other than 0 to @open, ring, and wait until @opened says the same; then the daemon has
 * dropped what was under way, closed the old user's sessions, and zeroed both rings. seq begins at 1.
 * The daemon that starts anew sets @opened to 0: open again.
 */
struct card_queue {
	/* the guest's line */
	_Atomic uint32_t open;	    /* 0: nobody */
	_Atomic uint32_t guest_waits; /* n > 0: send interrupt n - 1 when an answer is there */
	uint8_t pad[56];
	/* the daemon's line */
	_Atomic uint32_t opened;
	_Atomic uint32_t daemon_waits; /* 1: ring when a request is there (any vector) */
	_Atomic uint32_t broken;    /* why the daemon looks at this queue no more (enum sdr); 0: it does */
	uint8_t pad2[52];
};

#define CARD_QUEUE_HEAD 512u /* of the control block; then submission slots, then completion slots */

_Static_assert(sizeof(struct card_slot) == 16896, "head, args, data");
_Static_assert(sizeof(struct card_slot) % 64 == 0, "slots begin with a cache line");
_Static_assert(sizeof(struct card_region) == 96, "wire");
_Static_assert(sizeof(struct card_queue) == 128, "two cache lines");
_Static_assert(offsetof(struct card_queue, opened) == 64, "one line for each side");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "seq is read and written whole");

/* Where things are; made by card_layout_* once, then used without asking the region again. */
struct card_layout {
	uint64_t size;
	uint32_t queues, slots, queue_size;
};

/* What fits into @size bytes (a power of two) with @queues; slots 0: as many as fit. -EINVAL. */
int card_layout_make(uint64_t size, uint32_t queues, uint32_t slots, struct card_layout *l);

/* What a region says of itself, believed only as far as @mapped bytes go. -EPROTO; -EAGAIN: closed. */
int card_layout_read(const struct card_region *r, uint64_t mapped, struct card_layout *l);

static inline struct card_queue *card_layout_queue(const struct card_layout *l, void *base,
						   uint32_t queue)
{
	return (struct card_queue *)((uint8_t *)base + CARD_REGION_HEAD +
				     (uint64_t)queue * l->queue_size);
}

static inline struct card_slot *card_layout_submission(const struct card_queue *q, uint32_t slot)
{
	return (struct card_slot *)((uint8_t *)q + CARD_QUEUE_HEAD) + slot;
}

static inline struct card_slot *card_layout_completion(const struct card_layout *l,
						       const struct card_queue *q, uint32_t slot)
{
	return card_layout_submission(q, l->slots + slot);
}

/* The slot's message is request or answer @seq, and all of it can be read. */
static inline bool card_slot_ready(const struct card_slot *s, uint64_t seq)
{
	return atomic_load_explicit(&s->seq, memory_order_acquire) == seq;
}

/* The rest of the slot is written: there it is. */
static inline void card_slot_publish(struct card_slot *s, uint64_t seq)
{
	atomic_store_explicit(&s->seq, seq, memory_order_release);
}

/*
 * The two halves that keep a wakeup from getting lost: the one who goes to sleep sets its flag and
 * looks once more; the one who published looks at the flag. Both with a full fence between.
 */
static inline void card_waits_set(_Atomic uint32_t *flag, bool waits)
{
	atomic_store_explicit(flag, waits, memory_order_relaxed);
	if (waits)
		atomic_thread_fence(memory_order_seq_cst);
}

/* What the flag says: 0, nobody sleeps. */
static inline uint32_t card_waits(_Atomic uint32_t *flag)
{
	atomic_thread_fence(memory_order_seq_cst);
	return atomic_load_explicit(flag, memory_order_relaxed);
}

#endif
