/* SPDX-License-Identifier: MIT */
/*
 * One downtime budget over both members: when to hold a member back, when to let it make
 * another pass, when to stop both. Pure arithmetic over estimates; no clock, no socket.
 *
 * A hypervisor that finds little left stops its guest by itself, so a member is *parked*
 * (its stream is not read) before it comes to that; its guest runs on. What a parked or
 * passing guest has dirtied since the log was last read is reckoned from its dirty rate.
 */
#ifndef PAIR_BUDGET_H
#define PAIR_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

#include "pair/member.h"
#include "pair/frame.h"

#define BUDGET_PARK_BYTES (4u << 20) /* a member with less left is near the end of its pass */
#define BUDGET_PARK_US 1000000	     /* parked for longer, and much dirtied since: another pass */
/*
 * A parked member is not held quite still: a hypervisor that sent nothing for a while takes
 * its bandwidth for 0, hence anything for more than it can send in its downtime limit, and
 * at the end of the pass stops without another look at its dirty log (QEMU's
 * migration_update_counters).
 */
#define BUDGET_TRICKLE_BYTES (32u << 10)
#define BUDGET_TRICKLE_US 50000
#define BUDGET_NO_LIMIT UINT64_MAX

struct budget_track {
	bool streams;	/* has a pre-copy of its own */
	bool over;	/* it completed early, by itself */
	bool driven;	/* never parked */
	uint64_t total, remaining;
	uint64_t round, sync_us; /* when this round's log was read */
	bool rated;		 /* a whole round has shown its dirty rate */
	uint64_t dirtied, took_us; /* bytes dirtied in that round, and how long it was */
	double dirty_rate;	 /* bytes/s in it, for people */
	uint64_t parked_us;	 /* since when; 0: not parked */
	uint64_t trickle_us;	 /* when it last got a little */
	uint64_t pass_round;	 /* let through to the end of this round; 0: not */
};

struct budget {
	uint64_t limit_us;   /* joint downtime allowed */
	uint64_t max_rounds; /* then stop all the same */
	double bandwidth;    /* bytes/s over the connection, both members */
	uint64_t window_us, window_bytes; /* of the measurement under way */
	struct budget_track track[PAIR_MEMBERS];
};

void budget_init(struct budget *b, uint64_t limit_us, uint64_t max_rounds);

/* Take in a member's estimate at @now_us (any monotonic clock, never 0). */
void budget_note(struct budget *b, unsigned owner, const struct pair_estimate *e,
		 uint64_t now_us);

/* Take in how many bytes of both streams have been read in all; keeps the bandwidth. */
void budget_note_bytes(struct budget *b, uint64_t bytes, uint64_t now_us);

/* Bytes that @owner would still have to send if its guest stopped now. */
uint64_t budget_pending(const struct budget *b, unsigned owner, uint64_t now_us);

/* The joint downtime if both stopped now, microseconds; UINT64_MAX while nothing is known. */
uint64_t budget_downtime_us(const struct budget *b, uint64_t now_us);

enum budget_verdict {
	BUDGET_GO_ON,
	BUDGET_STOP,   /* within the budget, and another round of driven members would not pay: stop both now */
	BUDGET_FORCED, /* the rounds are used up, or one stopped by itself: stop both now */
};

/* Decide; *@credit per member is what may be read of its stream until the next call. */
enum budget_verdict budget_decide(struct budget *b, uint64_t now_us, uint64_t credit[PAIR_MEMBERS]);

#endif
