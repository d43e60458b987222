/* SPDX-License-Identifier: MIT */
/* cardshare sign, verify: SM2 signatures of standard input by the card; random: its random numbers. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/exit.h"
#include "base/log.h"
#include "base/units.h"
#include "cardshare.h"
#include "hash.h"

#define DIGEST 32u
#define NUMBER 32u
#define AT (ECC_FIELD - NUMBER)
#define DEFAULT_ID "1234567812345678" /* GM/T 0009 */
#define SIGNATURE_MAX 256

static struct sign_opts {
	const char *key, *id, *signature, *password;
	bool raw, digest, hex;
} o = {.id = DEFAULT_ID};

#define SIGNED \
	{0, "id", CLI_STRING, &o.id, "TEXT", "of the signer (" DEFAULT_ID ")"}, \
	{0, "digest", CLI_FLAG, &o.digest, NULL, "the input is the digest, 32 bytes, not the message"}, \
	{0, "raw", CLI_FLAG, &o.raw, NULL, "the signature is r and s, 64 bytes, not DER"}
const struct cli_opt sign_opts[] = {
	{'k', "key", CLI_STRING, &o.key, "KEY", "index of a key of the card, or a PEM file"},
	{'p', "password-file", CLI_STRING, &o.password, "FILE", "its first line opens the card's key"},
	SIGNED,
	GUEST_OPT_ADDRESS,
	CLI_END,
};
const struct cli_opt verify_opts[] = {
	{'k', "key", CLI_STRING, &o.key, "KEY", "index of a key of the card, or a PEM file"},
	{'s', "signature", CLI_STRING, &o.signature, "FILE", "the signature"},
	SIGNED,
	GUEST_OPT_ADDRESS,
	CLI_END,
};
const struct cli_opt random_opts[] = {
	{0, "hex", CLI_FLAG, &o.hex, NULL, "hex digits, not bytes"},
	GUEST_OPT_ADDRESS,
	CLI_END,
};

static int read_digest(const char *verb, uint8_t *digest)
{
	uint8_t buf[DIGEST + 1];
	struct guest_stream in;
	ssize_t n;

	guest_stream_begin(&in, verb);
	n = guest_read(&in, buf, sizeof(buf));
	guest_stream_end(&in);
	if (n != DIGEST) {
		if (n >= 0)
			log_error("%s: --digest: the input has not 32 bytes", verb);
		return EXIT_REFUSED;
	}
	memcpy(digest, buf, DIGEST);
	return 0;
}

static int what_is_signed(struct guest *g, const char *verb, struct guest_key *k, uint8_t *digest)
{
	return o.digest ? read_digest(verb, digest) : digest_of_signer(g, verb, k, o.id, digest);
}

static int write_signature(const struct sdf_ecc_signature *s)
{
	ECDSA_SIG *sig;
	unsigned char raw[2 * NUMBER], der[SIGNATURE_MAX], *p = der;
	BIGNUM *r, *t;
	int n;

	if (o.raw) {
		memcpy(raw, s->r + AT, NUMBER);
		memcpy(raw + NUMBER, s->s + AT, NUMBER);
		return guest_write("sign", STDOUT_FILENO, raw, sizeof(raw));
	}
	sig = ECDSA_SIG_new();
	r = BN_bin2bn(s->r, ECC_FIELD, NULL);
	t = BN_bin2bn(s->s, ECC_FIELD, NULL);
	if (!sig || !r || !t || !ECDSA_SIG_set0(sig, r, t) || (n = i2d_ECDSA_SIG(sig, &p)) <= 0) {
		log_error("sign: no memory");
		return EXIT_ROLLED_BACK;
	}
	ECDSA_SIG_free(sig);
	return guest_write("sign", STDOUT_FILENO, der, (size_t)n);
}

/* In the form that was asked for, exactly; anything else is a wrong signature. */
static bool parse_signature(const uint8_t *buf, size_t n, struct sdf_ecc_signature *s)
{
	const unsigned char *p = buf;
	ECDSA_SIG *sig;
	bool ok;

	memset(s, 0, sizeof(*s));
	if (o.raw) {
		if (n != 2 * NUMBER)
			return false;
		memcpy(s->r + AT, buf, NUMBER);
		memcpy(s->s + AT, buf + NUMBER, NUMBER);
		return true;
	}
	sig = d2i_ECDSA_SIG(NULL, &p, (long)n);
	ok = sig && p == buf + n && !BN_is_negative(ECDSA_SIG_get0_r(sig)) &&
	     !BN_is_negative(ECDSA_SIG_get0_s(sig)) &&
	     BN_bn2binpad(ECDSA_SIG_get0_r(sig), s->r, ECC_FIELD) >= 0 &&
	     BN_bn2binpad(ECDSA_SIG_get0_s(sig), s->s, ECC_FIELD) >= 0;
	ECDSA_SIG_free(sig);
	return ok;
}

static int read_signature(struct sdf_ecc_signature *s)
{
	uint8_t buf[SIGNATURE_MAX + 1];
	int fd = open(o.signature, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof(buf));

	if (n < 0)
		log_error("verify: signature %s: %s", o.signature, strerror(errno));
	if (fd >= 0)
		close(fd);
	if (n < 0)
		return EXIT_REFUSED;
	if (parse_signature(buf, (size_t)n, s))
		return 0;
	log_error("verify: signature %s: it is none, %s", o.signature,
		  o.raw ? "without --raw it would be read as DER" : "or not in DER (--raw)");
	return EXIT_NO;
}

static int check(const char *verb, int argc, char **argv)
{
	if (argc)
		return cli_usage_error("%s %s: data comes on standard input", verb, argv[0]);
	if (!o.key)
		return cli_usage_error("%s: --key is missing", verb);
	if (!*o.id || strlen(o.id) > sizeof(((struct card_hash *)0)->id))
		return cli_usage_error("--id: 1 to 256 bytes");
	return 0;
}

int sign_run(int argc, char **argv)
{
	struct card_signature answer;
	struct card_sign given;
	uint8_t digest[DIGEST];
	struct card_io io = {.rq = {.op = CARD_OP_SIGN, .alg = SGD_SM2_SIGN, .data_len = DIGEST},
			     .data = digest, .out_args = &answer, .out_args_cap = sizeof(answer)};
	struct guest_key k;
	struct guest g;
	int rc = check("sign", argc, argv);

	if (!rc)
		rc = guest_key_sm2("sign", o.key, &k);
	if (!rc && k.kind == CARD_KEY_GIVEN && !k.has_private) {
		log_error("sign: key %s: it is a public one", o.key);
		rc = EXIT_REFUSED;
	}
	if (!rc)
		rc = guest_open(&g, "sign");
	if (rc)
		return rc;
	rc = guest_password(&g, "sign", o.password, &k);
	if (!rc)
		rc = what_is_signed(&g, "sign", &k, digest);
	io.rq.key_kind = k.kind;
	io.rq.key = k.key;
	if (k.kind == CARD_KEY_GIVEN) {
		given.key = k.priv;
		io.args = &given;
		io.rq.args_len = sizeof(given);
	}
	if (!rc)
		rc = guest_call(&g, "sign", &io);
	explicit_bzero(&given, sizeof(given));
	explicit_bzero(&k, sizeof(k));
	guest_close(&g);
	return rc ? rc : write_signature(&answer.sig);
}

int verify_run(int argc, char **argv)
{
	struct card_verify args = {.pub = {.bits = 0}};
	uint8_t digest[DIGEST];
	struct card_io io = {.rq = {.op = CARD_OP_VERIFY, .alg = SGD_SM2_SIGN, .data_len = DIGEST,
				    .args_len = sizeof(args)},
			     .args = &args, .data = digest};
	struct guest_key k;
	struct guest g;
	int rc = check("verify", argc, argv);

	if (!rc && !o.signature)
		rc = cli_usage_error("verify: --signature is missing");
	if (!rc)
		rc = guest_key_sm2("verify", o.key, &k);
	if (!rc)
		rc = read_signature(&args.sig);
	if (!rc)
		rc = guest_open(&g, "verify");
	if (rc)
		return rc;
	rc = what_is_signed(&g, "verify", &k, digest);
	io.rq.key_kind = k.kind;
	io.rq.key = k.key;
	if (k.kind == CARD_KEY_GIVEN)
		args.pub = k.pub;
	if (!rc)
		rc = guest_call(&g, "verify", &io);
	guest_close(&g);
	return rc;
}

static int random_bytes(struct guest *g, uint64_t left, uint8_t *buf)
{
	int rc = 0;

	while (left && !rc) {
		size_t n = left < GUEST_PIECE ? (size_t)left : GUEST_PIECE;
		struct card_io io = {.rq = {.op = CARD_OP_RANDOM}, .out = buf};

		rc = guest_call_long(g, "random", &io, n, n);
		if (!rc && o.hex)
			guest_print_hex(buf, n);
		else if (!rc)
			rc = guest_write("random", STDOUT_FILENO, buf, n);
		left -= n;
	}
	if (!rc && o.hex)
		putchar('\n');
	return rc;
}

int random_run(int argc, char **argv)
{
	uint64_t bytes;
	struct guest g;
	uint8_t *buf;
	int rc;

	if (argc != 1 || units_size(argv[0], &bytes))
		return cli_usage_error("random: how many bytes? (32, 4K, 1M)");
	rc = guest_open(&g, "random");
	if (rc)
		return rc;
	buf = malloc(GUEST_PIECE);
	rc = buf ? random_bytes(&g, bytes, buf) : EXIT_REFUSED;
	free(buf);
	guest_close(&g);
	return rc;
}
