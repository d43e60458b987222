/* SPDX-License-Identifier: MIT */
/*
 * Data of any length over requests of 16 KiB: chained calls where the mode hands an IV on (each can
 * be replayed by itself), streams where the card must keep a state; several under way where
 * the next does not need the answer of the last.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "card/client.h"

#define WINDOW 8
#define BLOCK 16u
#define CHUNK CARD_DATA_MAX

struct job {
	struct card_client *c;
	const struct card_io *what; /* the caller's */
	const uint8_t *in;
	uint8_t *out;
	size_t len, out_cap, done; /* done: bytes of out */
	uint32_t status, session_stream;
	uint8_t iv[BLOCK]; /* of the next part: its text may be gone by the time it is asked for (in == out) */
	int rc;
};

static uint32_t part_at(const struct job *j, size_t at)
{
	return j->len - at < CHUNK ? (uint32_t)(j->len - at) : CHUNK;
}

/* The counter goes on by so many blocks. */
static void add_counter(uint8_t iv[BLOCK], uint64_t blocks)
{
	unsigned carry = 0;

	for (unsigned i = BLOCK; i-- > 0; blocks >>= 8) {
		unsigned sum = iv[i] + (unsigned)(blocks & 0xff) + carry;

		iv[i] = (uint8_t)sum;
		carry = sum >> 8;
	}
}

/* The IV behind the part at @at, known before the part is answered. */
static void next_iv(struct job *j, size_t at)
{
	uint32_t mode = j->what->rq.alg & 0xffu, n = part_at(j, at);

	if (mode == SGD_CTR)
		add_counter(j->iv, n / BLOCK);
	else if (mode != SGD_ECB && n >= BLOCK)
		memcpy(j->iv, j->in + at + n / BLOCK * BLOCK - BLOCK, BLOCK);
}

static bool independent(const struct card_request *rq)
{
	uint32_t mode = rq->alg & 0xffu;

	if (rq->op == CARD_OP_RANDOM || rq->op == CARD_OP_ECHO)
		return true;
	if (rq->op != CARD_OP_CIPHER)
		return false;
	return mode == SGD_ECB || mode == SGD_CTR ||
	       ((mode == SGD_CBC || mode == SGD_CFB) && (rq->flags & CARD_FLAG_DECRYPT));
}

static void part_begin(struct job *j, struct card_io *io, struct card_cipher *args, size_t at)
{
	*io = (struct card_io){.rq = j->what->rq, .out = j->out + at, .out_cap = part_at(j, at)};
	if (io->rq.op == CARD_OP_RANDOM) {
		io->rq.data_len = 0;
	} else {
		io->data = j->in + at;
		io->rq.data_len = io->out_cap;
	}
	if (io->rq.op == CARD_OP_CIPHER) {
		*args = *(const struct card_cipher *)j->what->args;
		memcpy(args->iv, j->iv, BLOCK);
		io->args = args;
		next_iv(j, at);
	}
}

/* Parts that need nothing of each other, so many at a time. */
static void run_independent(struct job *j)
{
	struct card_io io[WINDOW];
	struct card_cipher args[WINDOW];
	size_t begun = 0, ended = 0, parts = (j->len + CHUNK - 1) / CHUNK;
	bool ready = false; /* the next one is only to be submitted */

	while (ended < parts) {
		struct card_io *oldest = &io[ended % WINDOW];

		while (begun < parts && begun - ended < WINDOW && !j->status) {
			struct card_io *next = &io[begun % WINDOW];
			int rc;

			if (!ready)
				part_begin(j, next, &args[begun % WINDOW], begun * CHUNK);
			ready = true;
			rc = card_submit(j->c, next);
			if (rc == -EAGAIN && begun > ended)
				break;
			if (rc == -EAGAIN && !card_wait_room(j->c))
				continue;
			if (rc) {
				j->status = SDR_COMMFAIL;
				j->rc = rc;
				break;
			}
			ready = false;
			begun++;
		}
		if (ended == begun)
			break;
		card_wait(j->c, oldest);
		if (oldest->status && !j->status) {
			j->status = oldest->status;
			j->rc = oldest->rc;
		}
		j->done += oldest->out_len;
		ended++;
	}
}

/* Each part with the IV that the one before left. */
static void run_chained(struct job *j, struct card_cipher *args)
{
	for (size_t at = 0; at < j->len && !j->status; at += CHUNK) {
		bool mac = j->what->rq.op == CARD_OP_MAC;
		struct card_io io = {.rq = j->what->rq, .args = args, .data = j->in + at,
				     .out_args = args, .out_args_cap = sizeof(*args),
				     .out = mac ? NULL : j->out + at, .out_cap = mac ? 0 : part_at(j, at)};
		uint32_t unit = args->data_unit;

		io.rq.data_len = part_at(j, at);
		j->status = card_call(j->c, &io);
		j->rc = io.rc;
		args->data_unit = unit;
		j->done += io.out_len;
	}
}

static void stream_step(struct job *j, uint8_t phase, const uint8_t *in, uint32_t n, struct card_io *io)
{
	*io = (struct card_io){.rq = j->what->rq, .data = in, .out = j->out + j->done,
			       .out_args = j->what->out_args, .out_args_cap = j->what->out_args_cap};
	io->out_cap = j->out_cap - j->done < CHUNK ? (uint32_t)(j->out_cap - j->done) : CHUNK;
	io->rq.phase = phase;
	io->rq.data_len = n;
	if (phase & CARD_PHASE_BEGIN) {
		io->args = j->what->args;
	} else {
		io->rq.object = j->session_stream;
		io->rq.key_kind = CARD_KEY_NONE;
		io->rq.key = io->rq.args_len = 0;
	}
}

/* HASH and HMAC: the card keeps the state. */
static void run_digest(struct job *j)
{
	struct card_io io;
	uint8_t phase = CARD_PHASE_BEGIN;

	for (size_t at = 0; !j->status; at += CHUNK) {
		uint32_t n = part_at(j, at);

		if (at + n == j->len)
			phase |= CARD_PHASE_END;
		stream_step(j, phase, j->in + at, n, &io);
		j->status = card_call(j->c, &io);
		j->rc = io.rc;
		if (phase & CARD_PHASE_END) {
			j->done = io.out_len;
			break;
		}
		if (phase & CARD_PHASE_BEGIN)
			j->session_stream = io.object;
		phase = 0;
	}
}

/* AEAD: additional data, text, and the tag with the last of it. */
static void run_aead(struct job *j, const uint8_t *aad, size_t aad_len)
{
	struct card_aead args = *(const struct card_aead *)j->what->args;
	struct card_io io;

	args.aad_len = 0;
	args.aad_total = aad_len;
	args.text_total = j->len;
	stream_step(j, CARD_PHASE_BEGIN, NULL, 0, &io);
	io.args = &args;
	j->status = card_call(j->c, &io);
	j->session_stream = io.object;
	for (size_t at = 0; at < aad_len && !j->status; at += CHUNK) {
		stream_step(j, CARD_PHASE_AAD, aad + at, aad_len - at < CHUNK ? (uint32_t)(aad_len - at) : CHUNK,
			    &io);
		j->status = card_call(j->c, &io);
	}
	for (size_t at = 0; !j->status; at += CHUNK) {
		bool last = at + part_at(j, at) == j->len;

		stream_step(j, last ? CARD_PHASE_END : 0, j->in + at, part_at(j, at), &io);
		if (last) {
			io.args = &args;
			io.rq.args_len = sizeof(args);
		}
		j->status = card_call(j->c, &io);
		j->done += io.out_len;
		if (last)
			break;
	}
	if (j->status && j->out) /* text that was not proven */
		OPENSSL_cleanse(j->out, j->done);
}

/* What fits into one request goes as one: a third of the time, and no stream that a lost link ends. */
static void run_aead_once(struct job *j, const uint8_t *aad, uint32_t aad_len)
{
	struct card_aead args = *(const struct card_aead *)j->what->args;
	struct card_io io = *j->what;

	args.aad_len = aad_len;
	args.aad_total = args.text_total = 0;
	io.rq.phase = CARD_PHASE_BEGIN | CARD_PHASE_END;
	io.rq.data_len = aad_len + (uint32_t)j->len;
	io.rq.out_max = 0;
	io.args = &args;
	io.data = aad;
	io.data2 = j->in;
	io.data2_len = (uint32_t)j->len;
	io.out = j->out;
	io.out_cap = (uint32_t)j->len;
	j->status = card_call(j->c, &io);
	j->rc = io.rc;
	j->done = io.out_len;
}

uint32_t card_call_long(struct card_client *c, struct card_io *io, size_t len, size_t out_cap,
			size_t *out_len)
{
	struct job j = {.c = c, .what = io, .in = io->data, .out = io->out, .len = len, .out_cap = out_cap};
	struct card_cipher args = {0};
	bool digest = io->rq.op == CARD_OP_HASH || io->rq.op == CARD_OP_HMAC;

	*out_len = 0;
	if (io->rq.op != CARD_OP_MAC && !digest && out_cap < len)
		return io->status = SDR_NOBUFFER;
	if (io->rq.op == CARD_OP_CIPHER || io->rq.op == CARD_OP_MAC)
		args = *(const struct card_cipher *)io->args;
	if (independent(&io->rq)) {
		memcpy(j.iv, args.iv, sizeof(j.iv));
		run_independent(&j);
		memcpy(args.iv, j.iv, sizeof(args.iv));
	} else if (io->rq.op == CARD_OP_CIPHER || io->rq.op == CARD_OP_MAC) {
		run_chained(&j, &args);
	} else if (digest) {
		run_digest(&j);
	} else if (io->rq.op == CARD_OP_AEAD) {
		uint32_t aad_len = ((const struct card_aead *)io->args)->aad_len;

		j.in = io->data2;
		if (len <= CARD_DATA_MAX && aad_len <= CARD_DATA_MAX - len)
			run_aead_once(&j, io->data, aad_len);
		else
			run_aead(&j, io->data, aad_len);
	} else {
		j.status = SDR_NOTSUPPORT;
	}
	if (io->rq.op == CARD_OP_CIPHER || io->rq.op == CARD_OP_MAC) {
		if (io->out_args && io->out_args_cap >= sizeof(args))
			memcpy(io->out_args, &args, sizeof(args));
	}
	io->out_args_len = j.status ? 0 : card_op_info(io->rq.op)->answer_args;
	io->rc = j.rc;
	*out_len = j.status ? 0 : j.done;
	return io->status = j.status;
}
