/* SPDX-License-Identifier: MIT */
/*
 * cardshare enc, dec: standard input through a cipher of the card. A random IV stands in front of what is
 * encrypted, the tag of an authenticated cipher behind it; with --iv nothing is added in front, and the output
 * is that of `openssl enc -K -iv`. Nothing that is not authentic leaves dec.
 */
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/exit.h"
#include "base/log.h"
#include "cardshare.h"
#include "guest.h"

#define BLOCK 16u
#define DEFAULT_ALG "sm4-gcm"

static struct enc_opts {
	const char *key, *alg, *iv, *aad;
	bool no_padding;
} o = {.alg = DEFAULT_ALG};

const struct cli_opt enc_opts[] = {
	{'k', "key", CLI_STRING, &o.key, "KEY", "index of a key of the card, or a file with 32 hex digits"},
	{0, "alg", CLI_STRING, &o.alg, "ALG", "sm4-gcm, -cbc, -ctr, -cfb, -ofb, -ecb; sm1-… (" DEFAULT_ALG ")"},
	{0, "iv", CLI_STRING, &o.iv, "HEX", "this IV, and not a random one in front of the text"},
	{0, "aad", CLI_STRING, &o.aad, "TEXT", "gcm: additional data that the tag is for, too"},
	{0, "no-padding", CLI_FLAG, &o.no_padding, NULL, "cbc, ecb: the text fills whole blocks"},
	GUEST_OPT_ADDRESS,
	CLI_END,
};

struct job {
	const char *verb;
	const struct guest_cipher *alg;
	bool decrypt, pads;
	struct guest g;
	struct guest_key key;
	uint8_t iv[BLOCK];
	struct guest_stream in;
	uint8_t *buf; /* a piece, and the rest of the one before it */
	size_t have;
	uint32_t stream; /* aead */
	bool begun;
	uint8_t tag[BLOCK];
	int out; /* where the text goes: standard output, or memory until it is known to be authentic */
};

static int prepare(struct job *j)
{
	if (!o.key)
		return cli_usage_error("%s: --key is missing", j->verb);
	j->alg = guest_cipher(j->verb, o.alg);
	if (!j->alg)
		return EXIT_USAGE;
	if (o.iv && guest_hex(o.iv, j->iv, j->alg->iv) != j->alg->iv)
		return cli_usage_error("--iv: %s takes %u hex digits", o.alg, 2u * j->alg->iv);
	if (o.aad && (!j->alg->aead || strlen(o.aad) > CARD_DATA_MAX / 2))
		return cli_usage_error("--aad: for sm4-gcm, and at most 8192 bytes");
	if (o.no_padding && !j->alg->pads)
		return cli_usage_error("--no-padding: %s pads nothing anyway", o.alg);
	if (isatty(STDOUT_FILENO) && !j->decrypt)
		log_warn("%s: cipher text on a terminal", j->verb);
	j->pads = j->alg->pads && !o.no_padding;
	return 0;
}

/* The IV: given, random and written in front, or read from there. */
static int begin_iv(struct job *j)
{
	struct card_io io = {.rq = {.op = CARD_OP_RANDOM}, .out = j->iv, .out_cap = j->alg->iv};
	ssize_t n;
	int rc;

	if (o.iv || !j->alg->iv)
		return 0;
	if (j->decrypt) {
		n = guest_read(&j->in, j->iv, j->alg->iv);
		if (n >= 0 && n < j->alg->iv)
			log_error("%s: the input is too short to begin with an IV (it was made with --iv?)", j->verb);
		return n < j->alg->iv ? EXIT_REFUSED : 0;
	}
	rc = guest_call(&j->g, j->verb, &io);
	if (!rc && io.out_len != j->alg->iv)
		rc = guest_answer(j->verb, SDR_COMMFAIL);
	return rc ? rc : guest_write(j->verb, j->out, j->iv, j->alg->iv);
}

/* --- ciphers that chain --- */

static int through(struct job *j, uint8_t *buf, size_t n)
{
	struct card_cipher args = {.data_unit = 0}, next;
	struct card_io io = {.rq = {.op = CARD_OP_CIPHER, .alg = j->alg->alg,
				    .phase = CARD_PHASE_BEGIN | CARD_PHASE_END,
				    .flags = j->decrypt ? CARD_FLAG_DECRYPT : 0,
				    .key_kind = j->key.kind, .key = j->key.key,
				    .args_len = sizeof(args)},
			     .args = &args, .data = buf, .out = buf, .out_args = &next,
			     .out_args_cap = sizeof(next)};
	int rc;

	if (!n)
		return 0;
	memcpy(args.iv, j->iv, sizeof(args.iv));
	rc = guest_call_long(&j->g, j->verb, &io, n, n);
	if (!rc)
		memcpy(j->iv, next.iv, sizeof(j->iv));
	return rc;
}

/* PKCS #7; decrypting, every wrong padding is told in the same words. */
static int last_blocks(struct job *j)
{
	size_t n = j->have;
	int rc;

	if (j->pads && !j->decrypt) {
		uint8_t pad = (uint8_t)(BLOCK - n % BLOCK);

		memset(j->buf + n, pad, pad);
		n += pad;
	} else if (j->alg->pads && (n % BLOCK || (j->pads && !n))) {
		log_error("%s: the input is not a number of whole blocks", j->verb);
		return j->decrypt ? EXIT_NO : EXIT_REFUSED;
	}
	rc = through(j, j->buf, n);
	if (rc)
		return rc;
	if (j->pads && j->decrypt) {
		uint8_t pad = j->buf[n - 1], wrong = pad < 1 || pad > BLOCK;

		for (size_t i = 1; !wrong && i <= pad; i++)
			wrong |= j->buf[n - i] != pad;
		if (wrong)
			return guest_answer(j->verb, SDR_MACERR);
		n -= pad;
	}
	return guest_write(j->verb, j->out, j->buf, n);
}

/* Whole pieces as they come; the last bytes are kept until it is known that they are the last. */
static int chain(struct job *j)
{
	for (;;) {
		ssize_t n = guest_read(&j->in, j->buf + j->have, GUEST_PIECE);
		size_t all, go;
		int rc;

		if (n < 0)
			return EXIT_ROLLED_BACK;
		all = j->have + (size_t)n;
		go = (size_t)n < GUEST_PIECE ? 0 : all / BLOCK * BLOCK;
		if (j->pads && j->decrypt && go == all && go)
			go -= BLOCK;
		if (!go) {
			j->have = all;
			return last_blocks(j);
		}
		rc = through(j, j->buf, go);
		if (!rc)
			rc = guest_write(j->verb, j->out, j->buf, go);
		if (rc)
			return rc;
		j->have = all - go;
		memmove(j->buf, j->buf + go, j->have);
	}
}

/* --- authenticated --- */

static int auth_call(struct job *j, unsigned phase, uint8_t *buf, size_t n)
{
	struct card_aead args = {.nonce_len = j->alg->iv, .tag_len = BLOCK}, answer;
	struct card_io io = {.rq = {.op = CARD_OP_AEAD, .object = j->stream,
				    .data_len = (uint32_t)n},
			     .data = buf, .out = buf, .out_cap = (uint32_t)n, .out_args = &answer,
			     .out_args_cap = sizeof(answer)};
	int rc;

	io.rq.phase = (uint8_t)phase;
	if (!j->stream) {
		args.aad_len = o.aad ? (uint32_t)strlen(o.aad) : 0;
		memcpy(args.nonce, j->iv, j->alg->iv);
		io.rq.phase |= CARD_PHASE_BEGIN;
		io.rq.alg = j->alg->alg;
		io.rq.flags = j->decrypt ? CARD_FLAG_DECRYPT : 0;
		io.rq.key_kind = j->key.kind;
		io.rq.key = j->key.key;
		io.data = o.aad;
		io.rq.data_len += args.aad_len;
		io.data2 = buf;
		io.data2_len = (uint32_t)n;
	}
	if ((io.rq.phase & CARD_PHASE_BEGIN) || (phase && j->decrypt)) {
		io.args = &args;
		io.rq.args_len = sizeof(args);
		memcpy(args.tag, j->tag, sizeof(args.tag));
	}
	rc = guest_call(&j->g, j->verb, &io);
	if (rc)
		return rc;
	if (io.rq.phase == CARD_PHASE_BEGIN)
		j->stream = io.object;
	if (phase && !j->decrypt)
		memcpy(j->tag, answer.tag, sizeof(j->tag));
	return io.out_len == n ? 0 : guest_answer(j->verb, SDR_COMMFAIL);
}

static int auth_bytes(struct job *j, uint8_t *buf, size_t n)
{
	size_t room = CARD_DATA_MAX / 2; /* the first goes with the additional data */
	int rc = 0;

	for (size_t at = 0, take; at < n && !rc; at += take) {
		take = n - at < room ? n - at : room;
		rc = auth_call(j, 0, buf + at, take);
		room = CARD_DATA_MAX;
	}
	return rc ? rc : guest_write(j->verb, j->out, buf, n);
}

static int auth_end(struct job *j)
{
	size_t n = j->have, rest;
	int rc;

	if (j->decrypt) {
		if (n < BLOCK) {
			log_error("%s: the input is too short to end with a tag", j->verb);
			return EXIT_NO;
		}
		n -= BLOCK;
		memcpy(j->tag, j->buf + n, BLOCK);
	}
	rest = n % BLOCK; /* no block: the end takes it */
	n -= rest;
	rc = auth_bytes(j, j->buf, n);
	if (!rc)
		rc = auth_call(j, CARD_PHASE_END, j->buf + n, rest);
	if (!rc)
		rc = guest_write(j->verb, j->out, j->buf + n, rest);
	return rc || j->decrypt ? rc : guest_write(j->verb, j->out, j->tag, BLOCK);
}

static int authenticated(struct job *j)
{
	for (;;) {
		ssize_t n = guest_read(&j->in, j->buf + j->have, GUEST_PIECE);
		size_t go;
		int rc;

		if (n < 0)
			return EXIT_ROLLED_BACK;
		j->have += (size_t)n;
		if ((size_t)n < GUEST_PIECE)
			return auth_end(j);
		go = (j->have - BLOCK) / BLOCK * BLOCK; /* what may be the tag stays */
		rc = auth_bytes(j, j->buf, go);
		if (rc)
			return rc;
		j->have -= go;
		memmove(j->buf, j->buf + go, j->have);
	}
}

/* What was kept in memory is authentic now: out with it. */
static int let_out(struct job *j)
{
	ssize_t n;
	int rc = 0;

	if (lseek(j->out, 0, SEEK_SET) < 0)
		return EXIT_ROLLED_BACK;
	while (!rc && (n = read(j->out, j->buf, GUEST_PIECE)) > 0)
		rc = guest_write(j->verb, STDOUT_FILENO, j->buf, (size_t)n);
	return rc;
}

static int run(struct job *j)
{
	bool hold = j->alg->aead && j->decrypt;
	int rc = guest_open(&j->g, j->verb);

	if (rc)
		return rc;
	j->out = hold ? memfd_create("cardshare-dec", MFD_CLOEXEC) : STDOUT_FILENO;
	j->buf = malloc(GUEST_PIECE + 2 * BLOCK);
	guest_stream_begin(&j->in, j->verb);
	if (!j->buf || j->out < 0) {
		log_error("%s: no memory", j->verb);
		rc = EXIT_REFUSED;
	}
	if (!rc)
		rc = guest_key_symmetric(&j->g, j->verb, o.key, &j->key);
	if (!rc)
		rc = begin_iv(j);
	if (!rc)
		rc = j->alg->aead ? authenticated(j) : chain(j);
	if (!rc && hold)
		rc = let_out(j);
	guest_stream_end(&j->in);
	if (j->buf)
		OPENSSL_cleanse(j->buf, GUEST_PIECE + 2 * BLOCK);
	free(j->buf);
	if (hold && j->out >= 0)
		close(j->out);
	guest_close(&j->g);
	return rc;
}

static int start(const char *verb, bool decrypt, int argc, char **argv)
{
	struct job j = {.verb = verb, .decrypt = decrypt};
	int rc;

	if (argc)
		return cli_usage_error("%s %s: data comes on standard input", verb, argv[0]);
	rc = prepare(&j);
	return rc ? rc : run(&j);
}

int enc_run(int argc, char **argv)
{
	return start("enc", false, argc, argv);
}

int dec_run(int argc, char **argv)
{
	return start("dec", true, argc, argv);
}
