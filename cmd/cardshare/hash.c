/* SPDX-License-Identifier: MIT */
/* cardshare hash, hmac, mac: digests of standard input by the card. */
#include <stdlib.h>
#include <string.h>

#include "base/exit.h"
#include "base/log.h"
#include "cardshare.h"
#include "guest.h"
#include "hash.h"

#define BLOCK 16u

static struct hash_opts {
	const char *key, *alg, *id;
	bool binary;
} o;

#define BINARY {0, "binary", CLI_FLAG, &o.binary, NULL, "bytes, not hex digits"}
const struct cli_opt hash_opts[] = {
	{'k', "key", CLI_STRING, &o.key, "KEY", "with --id: of the signer, an index or a PEM file"},
	{0, "id", CLI_STRING, &o.id, "TEXT", "of the signer: the digest is the one that SM2 signs"},
	BINARY,
	GUEST_OPT_ADDRESS,
	CLI_END,
};
const struct cli_opt hmac_opts[] = {
	{'k', "key", CLI_STRING, &o.key, "KEY", "index of a key of the card, or a file with 32 hex digits"},
	BINARY,
	GUEST_OPT_ADDRESS,
	CLI_END,
};
const struct cli_opt mac_opts[] = {
	{'k', "key", CLI_STRING, &o.key, "KEY", "index of a key of the card, or a file with 32 hex digits"},
	{0, "alg", CLI_STRING, &o.alg, "ALG", "sm4 or sm1 (sm4)"},
	BINARY,
	GUEST_OPT_ADDRESS,
	CLI_END,
};

/* Pieces that a request holds: the first begins, the last ends; one that is both can be sent again. */
int digest_input(struct guest *g, const char *verb, const struct card_io *begin, uint8_t *out,
		 uint32_t *out_len)
{
	struct guest_stream in;
	uint8_t buf[2][CARD_DATA_MAX];
	uint32_t stream = 0;
	ssize_t have, next;
	int rc = 0;

	guest_stream_begin(&in, verb);
	have = guest_read(&in, buf[0], CARD_DATA_MAX);
	for (unsigned i = 0; have >= 0 && !rc; i ^= 1, have = next) {
		struct card_io io = *begin;

		next = have == CARD_DATA_MAX ? guest_read(&in, buf[i ^ 1], CARD_DATA_MAX) : 0;
		if (next < 0) {
			have = -1;
			break;
		}
		if (stream)
			io = (struct card_io){.rq = {.op = begin->rq.op, .object = stream}};
		else
			io.rq.phase = CARD_PHASE_BEGIN;
		if (!next) {
			io.rq.phase |= CARD_PHASE_END;
			io.out = out;
			io.out_cap = *out_len;
		}
		io.data = buf[i];
		io.rq.data_len = (uint32_t)have;
		rc = guest_call(g, verb, &io);
		if (!stream)
			stream = io.object;
		if (next || rc)
			continue;
		*out_len = io.out_len;
		break;
	}
	guest_stream_end(&in);
	return have < 0 ? EXIT_ROLLED_BACK : rc;
}

int digest_of_signer(struct guest *g, const char *verb, struct guest_key *k, const char *id,
		     uint8_t digest[32])
{
	struct card_hash args = {.id_len = (uint32_t)strlen(id)};
	struct card_io io = {.rq = {.op = CARD_OP_HASH, .alg = SGD_SM3, .args_len = sizeof(args)},
			     .args = &args};
	uint32_t n = 32;
	int rc = guest_key_public(g, verb, SGD_SM2_SIGN, k);

	if (rc)
		return rc;
	args.pub = k->pub;
	memcpy(args.id, id, args.id_len);
	rc = digest_input(g, verb, &io, digest, &n);
	return rc || n == 32 ? rc : guest_answer(verb, SDR_COMMFAIL);
}

static int print(const char *verb, const uint8_t *p, size_t n)
{
	if (o.binary)
		return guest_write(verb, 1, p, n);
	guest_print_hex(p, n);
	putchar('\n');
	return 0;
}

int hash_run(int argc, char **argv)
{
	struct card_hash plain = {.id_len = 0};
	struct card_io io = {.rq = {.op = CARD_OP_HASH, .alg = SGD_SM3, .args_len = sizeof(plain)},
			     .args = &plain};
	struct guest_key k = {0};
	uint8_t digest[64];
	uint32_t n = sizeof(digest);
	struct guest g;
	int rc = 0;

	if (argc)
		return cli_usage_error("hash %s: data comes on standard input", argv[0]);
	if (!o.id != !o.key)
		return cli_usage_error("hash: --id and --key go together");
	if (o.id && (!*o.id || strlen(o.id) > sizeof(plain.id)))
		return cli_usage_error("--id: 1 to %zu bytes", sizeof(plain.id));
	if (o.key)
		rc = guest_key_sm2("hash", o.key, &k);
	if (!rc)
		rc = guest_open(&g, "hash");
	if (rc)
		return rc;
	rc = o.id ? digest_of_signer(&g, "hash", &k, o.id, digest)
		  : digest_input(&g, "hash", &io, digest, &n);
	guest_close(&g);
	return rc ? rc : print("hash", digest, o.id ? 32 : n);
}

int hmac_run(int argc, char **argv)
{
	struct card_io io = {.rq = {.op = CARD_OP_HMAC, .alg = SGD_SM3}};
	uint8_t code[64];
	uint32_t n = sizeof(code);
	struct guest_key k;
	struct guest g;
	int rc;

	if (argc)
		return cli_usage_error("hmac %s: data comes on standard input", argv[0]);
	if (!o.key)
		return cli_usage_error("hmac: --key is missing");
	rc = guest_open(&g, "hmac");
	if (rc)
		return rc;
	rc = guest_key_symmetric(&g, "hmac", o.key, &k);
	io.rq.key_kind = k.kind;
	io.rq.key = k.key;
	if (!rc)
		rc = digest_input(&g, "hmac", &io, code, &n);
	guest_close(&g);
	return rc ? rc : print("hmac", code, n);
}

/* A chain of requests: the code so far is the next one's IV. */
static int mac_input(struct guest *g, uint32_t alg, const struct guest_key *k, uint8_t *buf,
		     struct card_cipher *at)
{
	struct guest_stream in;
	struct card_cipher next;
	ssize_t n;
	int rc = 0;

	guest_stream_begin(&in, "mac");
	while (!rc && (n = guest_read(&in, buf, GUEST_PIECE)) > 0) {
		struct card_io io = {.rq = {.op = CARD_OP_MAC, .alg = alg, .key_kind = k->kind,
					    .key = k->key, .phase = CARD_PHASE_BEGIN | CARD_PHASE_END,
					    .args_len = sizeof(*at)},
				     .args = at, .data = buf, .out_args = &next,
				     .out_args_cap = sizeof(next)};

		if (n % BLOCK) {
			log_error("mac: the input is not a number of whole blocks of 16 bytes");
			rc = EXIT_REFUSED;
			break;
		}
		rc = guest_call_long(g, "mac", &io, (size_t)n, 0);
		if (!rc)
			memcpy(at->iv, next.iv, sizeof(at->iv));
	}
	if (!rc && n >= 0 && !in.done) {
		log_error("mac: no input, and nothing has no code");
		rc = EXIT_REFUSED;
	}
	guest_stream_end(&in);
	return rc ? rc : n < 0 ? EXIT_ROLLED_BACK : 0;
}

int mac_run(int argc, char **argv)
{
	struct card_cipher at = {.data_unit = 0};
	uint32_t family = SGD_SM4;
	struct guest_key k;
	struct guest g;
	uint8_t *buf;
	int rc;

	if (argc)
		return cli_usage_error("mac %s: data comes on standard input", argv[0]);
	if (!o.key)
		return cli_usage_error("mac: --key is missing");
	if (o.alg && !strcmp(o.alg, "sm1"))
		family = SGD_SM1;
	else if (o.alg && strcmp(o.alg, "sm4") != 0)
		return cli_usage_error("--alg %s: not sm4 or sm1", o.alg);
	rc = guest_open(&g, "mac");
	if (rc)
		return rc;
	buf = malloc(GUEST_PIECE);
	rc = buf ? guest_key_symmetric(&g, "mac", o.key, &k) : EXIT_REFUSED;
	if (!rc)
		rc = mac_input(&g, family | SGD_MAC, &k, buf, &at);
	free(buf);
	guest_close(&g);
	return rc ? rc : print("mac", at.iv, BLOCK);
}
