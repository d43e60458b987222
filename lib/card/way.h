/* SPDX-License-Identifier: MIT */
/* Ways from a client to the daemon: one file and one row of card_ways[] each. */
#ifndef CARD_WAY_H
#define CARD_WAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "card/protocol.h"

struct card_way;

/* An answer where it lies: in shared memory or in a buffer. Good until drop(). */
struct card_reply {
	struct card_answer an; /* a copy */
	const uint8_t *args, *data;
	uint64_t seq;
};

struct card_way_ops {
	const char *scheme; /* "unix:" */
	const char *found;  /* tried without an address if this file is there (a glob); NULL: not tried */
	const char *usual;  /* the address then */
	/* -errno with @err. @way is zeroed memory of @size bytes. */
	int (*open)(struct card_way *way, const char *address, int timeout_ms, struct err *err);
	void (*close)(struct card_way *way);
	/* Write request rq->seq (from 1, one by one). Room is there: fewer than @depth are unanswered. */
	int (*put)(struct card_way *way, const struct card_request *rq, const void *args,
		   const void *data, uint32_t data_len, const void *data2, uint32_t data2_len);
	/* What was put goes out. */
	int (*push)(struct card_way *way);
	/* 1: an answer, 0: none yet, -errno: the link is lost. */
	int (*get)(struct card_way *way, struct card_reply *reply);
	void (*drop)(struct card_way *way, const struct card_reply *reply);
	/* Sleep in three steps, so that others can put and get meanwhile: say that one sleeps (false:
	 * something is there already), sleep (touches nothing that they do), and that is over. -errno of the
	 * last: the link is lost. */
	bool (*arm)(struct card_way *way);
	void (*block)(struct card_way *way, uint64_t timeout_us);
	int (*disarm)(struct card_way *way);
	size_t size;
};

struct card_way {
	const struct card_way_ops *ops;
	uint32_t depth;
	uint64_t doorbells, wakeups;
	char text[192]; /* the address, in full */
	char how[48];	/* by which means, where there are several; for words */
};

extern const struct card_way_ops card_way_ivshmem, card_way_shm, card_way_unix, card_way_vsock,
	card_way_hybrid;

#endif
