/* SPDX-License-Identifier: MIT */
/* Keys as a command line names them: an index of the card, or a file. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/exit.h"
#include "base/log.h"
#include "guest.h"

#define FILE_MAX 16384
#define BITS 256u
#define NUMBER 32u
#define AT (ECC_FIELD - NUMBER)

static bool is_index(const char *text, uint32_t *index)
{
	unsigned long n;
	char *end;

	if (*text < '0' || *text > '9' || strlen(text) > 10)
		return false;
	n = strtoul(text, &end, 10);
	*index = (uint32_t)n;
	return !*end && n && n <= UINT32_MAX;
}

/* All of a small file; a key that others may read is worth a word. */
static ssize_t read_file(const char *verb, const char *path, char *buf, bool secret)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	ssize_t n = 0, have = 0;
	struct stat st;

	if (fd < 0) {
		log_error("%s: key %s: %s%s", verb, path, strerror(errno),
			  errno == ENOENT ? " (a number is a key of the card)" : "");
		return -1;
	}
	if (secret && !fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_mode & (S_IRGRP | S_IROTH))
		log_warn("%s: key %s: others may read it (chmod go= %s)", verb, path, path);
	while (have < FILE_MAX && (n = read(fd, buf + have, (size_t)(FILE_MAX - have))) > 0)
		have += n;
	if (n < 0)
		log_error("%s: key %s: %s", verb, path, strerror(errno));
	close(fd);
	return n < 0 ? -1 : have;
}

static size_t trim(char *buf, size_t n)
{
	while (n && strchr("\r\n \t", buf[n - 1]))
		n--;
	buf[n] = '\0';
	return n;
}

int guest_key_symmetric(struct guest *g, const char *verb, const char *text, struct guest_key *k)
{
	struct card_wrap wrap = {.by = CARD_WRAP_PLAIN};
	struct card_io io = {.rq = {.op = CARD_OP_KEY_TAKE, .key_kind = CARD_KEY_GIVEN,
				    .args_len = sizeof(wrap)},
			     .args = &wrap};
	char buf[FILE_MAX + 1];
	uint8_t key[16];
	ssize_t n;
	int rc;

	*k = (struct guest_key){.kind = CARD_KEY_INDEX};
	if (is_index(text, &k->key))
		return 0;
	n = read_file(verb, text, buf, true);
	if (n < 0)
		return EXIT_REFUSED;
	if (n == sizeof(key))
		memcpy(key, buf, sizeof(key));
	else if (guest_hex((trim(buf, (size_t)n), buf), key, sizeof(key)) != (int)sizeof(key))
		n = -1;
	OPENSSL_cleanse(buf, sizeof(buf));
	if (n < 0) {
		log_error("%s: key %s: neither 32 hex digits nor 16 bytes", verb, text);
		return EXIT_REFUSED;
	}
	io.data = key;
	io.rq.data_len = sizeof(key);
	rc = guest_call(g, verb, &io);
	OPENSSL_cleanse(key, sizeof(key));
	k->kind = CARD_KEY_OBJECT;
	k->key = io.object;
	return rc;
}

/* --- SM2 --- */

static EVP_PKEY *read_pem(const char *buf, size_t n)
{
	BIO *bio = BIO_new_mem_buf(buf, (int)n);
	EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL) : NULL;

	if (!key && bio && BIO_reset(bio) == 1)
		key = PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL);
	if (!key && bio && BIO_reset(bio) == 1) {
		X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);

		key = cert ? X509_get_pubkey(cert) : NULL;
		X509_free(cert);
	}
	BIO_free(bio);
	return key;
}

static bool of_pem(const char *buf, size_t n, struct guest_key *k)
{
	EVP_PKEY *key = read_pem(buf, n);
	BIGNUM *x = NULL, *y = NULL, *d = NULL;
	char group[32] = "";

	if (key && EVP_PKEY_get_utf8_string_param(key, OSSL_PKEY_PARAM_GROUP_NAME, group,
						  sizeof(group), NULL) &&
	    !strcmp(group, "SM2")) {
		k->has_public = EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_EC_PUB_X, &x) &&
				EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_EC_PUB_Y, &y) &&
				BN_bn2binpad(x, k->pub.x, ECC_FIELD) > 0 &&
				BN_bn2binpad(y, k->pub.y, ECC_FIELD) > 0;
		k->has_private = EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_PRIV_KEY, &d) &&
				 BN_bn2binpad(d, k->priv.k, ECC_FIELD) > 0;
	}
	BN_free(x);
	BN_free(y);
	BN_clear_free(d);
	EVP_PKEY_free(key);
	return k->has_public;
}

/* 64 hex digits: a private key; its public half is computed here, once. */
static bool of_hex(char *buf, size_t n, struct guest_key *k)
{
	EC_GROUP *group = EC_GROUP_new_by_curve_name(NID_sm2);
	EC_POINT *point = group ? EC_POINT_new(group) : NULL;
	BIGNUM *x = BN_new(), *y = BN_new(), *d = NULL;

	trim(buf, n);
	k->has_private = guest_hex(buf, k->priv.k + AT, NUMBER) == (int)NUMBER;
	d = k->has_private ? BN_bin2bn(k->priv.k, ECC_FIELD, NULL) : NULL;
	k->has_public = d && point && x && y && EC_POINT_mul(group, point, d, NULL, NULL, NULL) &&
			EC_POINT_get_affine_coordinates(group, point, x, y, NULL) &&
			BN_bn2binpad(x, k->pub.x, ECC_FIELD) > 0 &&
			BN_bn2binpad(y, k->pub.y, ECC_FIELD) > 0;
	BN_free(x);
	BN_free(y);
	BN_clear_free(d);
	EC_POINT_free(point);
	EC_GROUP_free(group);
	return k->has_public;
}

int guest_key_sm2(const char *verb, const char *text, struct guest_key *k)
{
	char buf[FILE_MAX + 1];
	ssize_t n;
	bool ok;

	*k = (struct guest_key){.kind = CARD_KEY_INDEX};
	if (is_index(text, &k->key))
		return 0;
	n = read_file(verb, text, buf, false);
	if (n < 0)
		return EXIT_REFUSED;
	k->kind = CARD_KEY_GIVEN;
	k->pub.bits = k->priv.bits = BITS;
	ok = of_pem(buf, (size_t)n, k) || of_hex(buf, (size_t)n, k);
	OPENSSL_cleanse(buf, sizeof(buf));
	if (ok)
		return 0;
	log_error("%s: key %s: neither an SM2 key or certificate in PEM nor 64 hex digits", verb, text);
	return EXIT_REFUSED;
}

int guest_key_public(struct guest *g, const char *verb, uint32_t alg, struct guest_key *k)
{
	struct card_io io = {.rq = {.op = CARD_OP_PUBLIC, .key_kind = CARD_KEY_INDEX, .alg = alg,
				    .key = k->key},
			     .out = &k->pub, .out_cap = sizeof(k->pub)};
	int rc;

	if (k->has_public)
		return 0;
	rc = guest_call(g, verb, &io);
	if (!rc && io.out_len != sizeof(k->pub))
		rc = guest_answer(verb, SDR_COMMFAIL);
	k->has_public = !rc;
	return rc;
}

int guest_password(struct guest *g, const char *verb, const char *file, const struct guest_key *k)
{
	struct card_io io = {.rq = {.op = CARD_OP_RIGHT_GET, .key_kind = CARD_KEY_INDEX, .key = k->key,
				    .alg = SGD_SM2_SIGN}};
	char buf[FILE_MAX + 1];
	ssize_t n;
	int rc;

	if (!file || k->kind != CARD_KEY_INDEX)
		return 0;
	n = read_file(verb, file, buf, true);
	if (n < 0)
		return EXIT_REFUSED;
	buf[n] = '\0';
	io.data = buf;
	io.rq.data_len = (uint32_t)strcspn(buf, "\r\n");
	rc = guest_call(g, verb, &io);
	OPENSSL_cleanse(buf, sizeof(buf));
	return rc;
}
