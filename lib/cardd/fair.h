/* SPDX-License-Identifier: MIT */
/*
 * Whose turn it is: weighted fair shares of the card's time, by start-time fair queueing over
 * what each request *measured*, since one SM2 signature costs as much as a dozen 4-KiB
 * ciphers. Who was idle comes in at the present virtual time: it is served next, and saved
 * nothing up.
 */
#ifndef CARDD_FAIR_H
#define CARDD_FAIR_H

#include <stdbool.h>
#include <stdint.h>

struct fair_member {
	uint64_t vtime;	  /* charged so far, divided by weight */
	uint32_t weight;  /* ≥ 1 */
	uint32_t at;	  /* place in the heap + 1; 0: it asks for nothing */
	uint64_t used_ns; /* charged in all */
};

struct fair {
	struct fair_member **heap;
	uint32_t count, room;
	uint64_t now; /* virtual time: of the last one chosen */
};

/* @m has something to do, and had not: it begins at the present virtual time. -ENOMEM. */
int fair_enter(struct fair *f, struct fair_member *m);
/* @m had something to do all the time, and could not: what it did not get is still due to it. */
int fair_return(struct fair *f, struct fair_member *m);
void fair_leave(struct fair *f, struct fair_member *m);

/* Whose turn it is, or NULL. It stays in. */
struct fair_member *fair_next(const struct fair *f);
/* The turn is taken: virtual time goes on to it. */
void fair_begin(struct fair *f, const struct fair_member *m);

/* @m had the card for @ns. */
void fair_charge(struct fair *f, struct fair_member *m, int64_t ns); /* < 0: it was too much */

void fair_free(struct fair *f);

/* A bucket that fills at @rate a second, up to @burst; rate 0: no limit. */
struct fair_bucket {
	uint64_t rate, burst;
	int64_t level_x1e9; /* in units × 1e9 */
	uint64_t filled_ns;
};

void fair_bucket_init(struct fair_bucket *b, uint64_t rate, uint64_t burst, uint64_t now_ns);

/* Take @n, if the level is above 0 (it may then go below: large requests are not shut out for
 * ever). 0, or ns until it is worth asking again. */
uint64_t fair_bucket_wait(struct fair_bucket *b, uint64_t now_ns);
void fair_bucket_take(struct fair_bucket *b, uint64_t n);

#endif
