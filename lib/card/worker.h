/* SPDX-License-Identifier: MIT */
/*
 * A card in a process of its own: a vendor's library that hangs or crashes takes nothing of the daemon with it, and
 * several cards compute at once. The two share memory for calls and a socket for who is next; both are the
 * pair's own, and the daemon believes nothing in them that it did not check.
 */
#ifndef CARD_WORKER_H
#define CARD_WORKER_H

#include "card/card.h"

/*
 * Open @conf's card in a worker process, which is this program with the words "card-worker NAME SPEC [STORE [KEY]]".
 * The card answers CARD_PENDING. When a call takes longer than conf->timeout_us, or the worker ends, the call that it
 * was at is answered by CARD_LOST, those behind it by CARD_NOT_BEGUN; health() fails until another is up.
 * -ETIMEDOUT, -EIO, or errno with @err, which is the worker's own words if it has any.
 */
int card_worker_open(const struct card_conf *conf, struct card **out, struct err *err);

/* The worker's main(): serve what started it until that ends. @argv: NAME SPEC [STORE [KEY]]. An exit status. */
int card_worker_main(int argc, char **argv);

/* --- between the two --- */

#define WORKER_SOCKET 3 /* descriptors of the worker */
#define WORKER_MEMORY 4
#define WORKER_SLOTS 32 /* calls that it may be asked at a time; it answers them in order */

enum worker_message_kind {
	WORKER_READY = 1, /* from it: memory->info is filled in */
	WORKER_REFUSED,	  /* from it: memory->error tells why there is no card; it ends */
	WORKER_CALL,	  /* to it: @number is a slot */
	WORKER_DONE,	  /* from it: @number is a slot */
	WORKER_DROP,	  /* to it: @number is an object */
};

struct worker_message {
	uint32_t kind, number;
};

struct worker_ask {
	struct card_request rq;
	char vm[CARD_NAME_MAX], key_name[CARD_NAME_MAX];
	uint32_t key_rights;
	uint32_t key, object; /* numbers of objects, 0: none */
	uint32_t in_len, out_cap;
	bool has_name, right_got;
};

struct worker_answer {
	uint32_t status, out_len, out_args_len;
	uint32_t made, made_type;
};

struct worker_slot {
	struct worker_ask ask;
	struct worker_answer answer;
	_Alignas(64) uint8_t args[CARD_ARGS_MAX];
	_Alignas(64) uint8_t out_args[CARD_ARGS_MAX];
	_Alignas(64) uint8_t in[CARD_DATA_MAX];
	_Alignas(64) uint8_t out[CARD_DATA_MAX];
};

struct worker_memory {
	struct card_info info;
	char error[256];
	struct worker_slot slots[WORKER_SLOTS];
};

#endif
