/* SPDX-License-Identifier: MIT */
/* SM2 signatures (GB/T 32918.2) and encryption (32918.4) by the card, in OpenSSL's encodings. */
#include "face/ossl.h"

#include <openssl/asn1t.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/proverr.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#define DIGEST 32u
#define SIGNATURE_MAX 72u
#define ID_MAX sizeof(((struct card_hash *)0)->id)

struct ctx {
	struct prov *prov;
	struct prov_sm2 *key;
	struct prov_hash *hash;
	unsigned char id[ID_MAX];
	size_t id_len;
	bool began; /* Z is in the digest: the identity can't change any more */
};

static void *newctx(void *provctx, const char *propq)
{
	struct ctx *c = calloc(1, sizeof(*c));

	(void)propq;
	if (c)
		c->prov = provctx;
	return c;
}

static void *newctx_plain(void *provctx)
{
	return newctx(provctx, NULL);
}

static void freectx(void *vctx)
{
	struct ctx *c = vctx;

	prov_sm2_free(c->key);
	prov_hash_free(c->hash);
	free(c);
}

static void *dupctx(void *vctx)
{
	const struct ctx *c = vctx;
	struct ctx *d = malloc(sizeof(*d));

	if (!d)
		return NULL;
	*d = *c;
	if (c->hash) {
		d->hash = prov_hash_dup(c->hash);
		if (!d->hash) {
			free(d);
			return NULL;
		}
	}
	prov_sm2_hold(d->key);
	return d;
}

static int set_ctx_params(void *vctx, const OSSL_PARAM params[])
{
	struct ctx *c = vctx;
	const OSSL_PARAM *p;
	const char *name;
	size_t n;

	if (!params)
		return 1;
	p = OSSL_PARAM_locate_const(params, OSSL_PKEY_PARAM_DIST_ID);
	if (p) {
		if (p->data_type != OSSL_PARAM_OCTET_STRING || p->data_size > sizeof(c->id) ||
		    c->began) {
			prov_error(PROV_R_INVALID_DATA, "the identity is too long, or late");
			return 0;
		}
		memcpy(c->id, p->data, p->data_size);
		c->id_len = p->data_size;
	}
	p = OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_DIGEST);
	if (p && (!OSSL_PARAM_get_utf8_string_ptr(p, &name) || strcasecmp(name, "SM3") != 0)) {
		prov_error(PROV_R_INVALID_DIGEST, "the digest of SM2 is SM3");
		return 0;
	}
	p = OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_DIGEST_SIZE);
	return !p || (OSSL_PARAM_get_size_t(p, &n) && n == DIGEST);
}

static int init(void *vctx, void *key, const OSSL_PARAM params[])
{
	struct ctx *c = vctx;

	if (key) {
		prov_sm2_free(c->key);
		c->key = prov_sm2_hold(key);
	}
	c->began = false;
	return c->key && set_ctx_params(c, params);
}

/* --- signatures --- */

static int der_of(const struct sdf_ecc_signature *raw, unsigned char *out, size_t *len, size_t size)
{
	ECDSA_SIG *sig = ECDSA_SIG_new();
	BIGNUM *r = BN_bin2bn(raw->r, sizeof(raw->r), NULL), *s = BN_bin2bn(raw->s, sizeof(raw->s), NULL);
	unsigned char der[2 * ECC_FIELD + 16], *p = der;
	int n = -1;

	if (sig && r && s && ECDSA_SIG_set0(sig, r, s)) {
		r = s = NULL;
		if (i2d_ECDSA_SIG(sig, NULL) <= (int)sizeof(der))
			n = i2d_ECDSA_SIG(sig, &p);
	}
	BN_free(r);
	BN_free(s);
	ECDSA_SIG_free(sig);
	if (n <= 0 || (size_t)n > size) {
		prov_error(PROV_R_OUTPUT_BUFFER_TOO_SMALL, "the signature does not fit");
		return 0;
	}
	memcpy(out, der, (size_t)n);
	*len = (size_t)n;
	return 1;
}

/* One encoding of a signature only, else it could be changed and stay good. */
static bool of_der(const unsigned char *in, size_t len, struct sdf_ecc_signature *raw)
{
	const unsigned char *p = in;
	ECDSA_SIG *sig = len <= 2 * ECC_FIELD ? d2i_ECDSA_SIG(NULL, &p, (long)len) : NULL;
	unsigned char *again = NULL;
	int n = sig ? i2d_ECDSA_SIG(sig, &again) : -1;
	bool ok;

	ok = again && n == (int)len && !memcmp(again, in, len) && !BN_is_negative(ECDSA_SIG_get0_r(sig)) &&
	     !BN_is_negative(ECDSA_SIG_get0_s(sig)) &&
	     BN_bn2binpad(ECDSA_SIG_get0_r(sig), raw->r, sizeof(raw->r)) >= 0 &&
	     BN_bn2binpad(ECDSA_SIG_get0_s(sig), raw->s, sizeof(raw->s)) >= 0;
	OPENSSL_free(again);
	ECDSA_SIG_free(sig);
	return ok;
}

static int sign(void *vctx, unsigned char *sig, size_t *sig_len, size_t size,
		const unsigned char *tbs, size_t len)
{
	struct ctx *c = vctx;
	struct card_signature answer;
	struct card_sign given;
	struct card_io io = {.rq = {.op = CARD_OP_SIGN, .alg = SGD_SM2_SIGN, .data_len = DIGEST},
			     .data = tbs, .out_args = &answer, .out_args_cap = sizeof(answer)};
	struct prov_link l;
	bool ok;

	if (!sig) {
		*sig_len = SIGNATURE_MAX;
		return 1;
	}
	if (len != DIGEST || !c->key->has_private) {
		prov_error(PROV_R_INVALID_DIGEST_LENGTH, "a private key signs 32 bytes, an SM3 digest");
		return 0;
	}
	io.rq.key_kind = CARD_KEY_INDEX;
	io.rq.key = c->key->index;
	if (!c->key->index) {
		given.key = c->key->priv;
		io.rq.key_kind = CARD_KEY_GIVEN;
		io.rq.args_len = sizeof(given);
		io.args = &given;
	}
	ok = prov_link(c->prov, &l) && prov_call(&l, &io);
	OPENSSL_cleanse(&given, sizeof(given));
	return ok && io.out_args_len == sizeof(answer) && der_of(&answer.sig, sig, sig_len, size);
}

/* By the public key, which is here: needs no right over a key of the card. A wrong signature is no error, but 0. */
static int verify(void *vctx, const unsigned char *sig, size_t sig_len, const unsigned char *tbs,
		  size_t len)
{
	struct ctx *c = vctx;
	struct card_verify args = {.pub = c->key->pub};
	struct card_io io = {.rq = {.op = CARD_OP_VERIFY, .alg = SGD_SM2_SIGN, .data_len = DIGEST,
				    .key_kind = CARD_KEY_GIVEN, .args_len = sizeof(args)},
			     .args = &args, .data = tbs};
	struct prov_link l;

	if (len != DIGEST || !c->key->has_public || !of_der(sig, sig_len, &args.sig))
		return 0;
	return prov_link(c->prov, &l) && prov_call(&l, &io);
}

static int digest_init(void *vctx, const char *digest, void *key, const OSSL_PARAM params[])
{
	struct ctx *c = vctx;

	if (digest && *digest && strcasecmp(digest, "SM3") != 0 &&
	    strcmp(digest, "1.2.156.10197.1.401") != 0) {
		prov_error(PROV_R_INVALID_DIGEST, "the digest of SM2 is SM3");
		return 0;
	}
	if (!init(c, key, params))
		return 0;
	if (!c->hash)
		c->hash = prov_hash_new(c->prov);
	return c->hash && prov_hash_init(c->hash, NULL);
}

/* a, b, G of the curve (GB/T 32918.5). */
static const unsigned char curve[] =
	"\xff\xff\xff\xfe\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
	"\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xfc"
	"\x28\xe9\xfa\x9e\x9d\x9f\x5e\x34\x4d\x5a\x9e\x4b\xcf\x65\x09\xa7"
	"\xf3\x97\x89\xf5\x15\xab\x8f\x92\xdd\xbc\xbd\x41\x4d\x94\x0e\x93"
	"\x32\xc4\xae\x2c\x1f\x19\x81\x19\x5f\x99\x04\x46\x6a\x39\xc9\x94"
	"\x8f\xe3\x0b\xbf\xf2\x66\x0b\xe1\x71\x5a\x45\x89\x33\x4c\x74\xc7"
	"\xbc\x37\x36\xa2\xf4\xf6\x77\x9c\x59\xbd\xce\xe3\x6b\x69\x21\x53"
	"\xd0\xa9\x87\x7c\xc6\x2a\x47\x40\x02\xdf\x32\xe5\x21\x39\xf0\xa0";

/*
 * OpenSSL's signer without an identity has an empty one, whose Z no card computes: GM/T 0018 takes a length
 * of 0 for 'no Z'. So it is put together here, and hashed by the card.
 */
static bool begin_nameless(struct ctx *c)
{
	unsigned char z[DIGEST], in[2 + sizeof(curve) - 1 + 2 * SM2_BYTES] = {0};

	memcpy(in + 2, curve, sizeof(curve) - 1);
	memcpy(in + 2 + sizeof(curve) - 1, c->key->pub.x + SM2_AT, SM2_BYTES);
	memcpy(in + 2 + sizeof(curve) - 1 + SM2_BYTES, c->key->pub.y + SM2_AT, SM2_BYTES);
	return prov_hash_init(c->hash, NULL) && prov_hash_update(c->hash, in, sizeof(in)) &&
	       prov_hash_final(c->hash, z) && prov_hash_init(c->hash, NULL) &&
	       prov_hash_update(c->hash, z, sizeof(z));
}

/* The identity is known when the first data comes: OpenSSL sets it after init. */
static bool begin(struct ctx *c)
{
	struct card_hash first = {.id_len = (uint32_t)c->id_len};

	if (c->began)
		return true;
	c->began = true;
	if (!c->key->has_public)
		return false;
	if (!c->id_len)
		return begin_nameless(c);
	first.pub = c->key->pub;
	memcpy(first.id, c->id, c->id_len);
	return prov_hash_init(c->hash, &first);
}

static int digest_update(void *vctx, const unsigned char *in, size_t len)
{
	struct ctx *c = vctx;

	return begin(c) && prov_hash_update(c->hash, in, len);
}

static int digest_sign_final(void *vctx, unsigned char *sig, size_t *sig_len, size_t size)
{
	struct ctx *c = vctx;
	unsigned char digest[DIGEST];

	if (!sig)
		return sign(c, NULL, sig_len, 0, NULL, 0);
	return begin(c) && prov_hash_final(c->hash, digest) &&
	       sign(c, sig, sig_len, size, digest, sizeof(digest));
}

static int digest_verify_final(void *vctx, const unsigned char *sig, size_t len)
{
	struct ctx *c = vctx;
	unsigned char digest[DIGEST];

	return begin(c) && prov_hash_final(c->hash, digest) &&
	       verify(c, sig, len, digest, sizeof(digest));
}

/* The AlgorithmIdentifier of a certificate's signature: SM2-with-SM3, no parameters. */
static int get_algorithm(OSSL_PARAM *p)
{
	X509_ALGOR *a = X509_ALGOR_new();
	unsigned char *der = NULL;
	int n = -1, ok;

	if (a && X509_ALGOR_set0(a, OBJ_nid2obj(NID_SM2_with_SM3), V_ASN1_UNDEF, NULL))
		n = i2d_X509_ALGOR(a, &der);
	ok = n > 0 && OSSL_PARAM_set_octet_string(p, der, (size_t)n);
	OPENSSL_free(der);
	X509_ALGOR_free(a);
	return ok;
}

static int get_ctx_params(void *vctx, OSSL_PARAM params[])
{
	OSSL_PARAM *p = OSSL_PARAM_locate(params, OSSL_SIGNATURE_PARAM_ALGORITHM_ID);

	(void)vctx;
	if (p && !get_algorithm(p))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_SIGNATURE_PARAM_DIGEST);
	if (p && !OSSL_PARAM_set_utf8_string(p, "SM3"))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_SIGNATURE_PARAM_DIGEST_SIZE);
	return !p || OSSL_PARAM_set_size_t(p, DIGEST);
}

static const OSSL_PARAM *gettable(void *ctx, void *provctx)
{
	static const OSSL_PARAM types[] = {
		OSSL_PARAM_octet_string(OSSL_SIGNATURE_PARAM_ALGORITHM_ID, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_DIGEST, NULL, 0),
		OSSL_PARAM_size_t(OSSL_SIGNATURE_PARAM_DIGEST_SIZE, NULL),
		OSSL_PARAM_END,
	};

	(void)ctx;
	(void)provctx;
	return types;
}

static const OSSL_PARAM *settable(void *ctx, void *provctx)
{
	static const OSSL_PARAM types[] = {
		OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_DIST_ID, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_DIGEST, NULL, 0),
		OSSL_PARAM_size_t(OSSL_SIGNATURE_PARAM_DIGEST_SIZE, NULL),
		OSSL_PARAM_END,
	};

	(void)ctx;
	(void)provctx;
	return types;
}

/* --- encryption: C1 || C3 || C2 as ASN.1 (GM/T 0009) --- */

typedef struct {
	BIGNUM *x, *y;
	ASN1_OCTET_STRING *hash, *text;
} SM2_TEXT;

ASN1_SEQUENCE(SM2_TEXT) = {
	ASN1_SIMPLE(SM2_TEXT, x, BIGNUM),
	ASN1_SIMPLE(SM2_TEXT, y, BIGNUM),
	ASN1_SIMPLE(SM2_TEXT, hash, ASN1_OCTET_STRING),
	ASN1_SIMPLE(SM2_TEXT, text, ASN1_OCTET_STRING),
} static_ASN1_SEQUENCE_END(SM2_TEXT)
IMPLEMENT_STATIC_ASN1_ENCODE_FUNCTIONS(SM2_TEXT)
IMPLEMENT_STATIC_ASN1_ALLOC_FUNCTIONS(SM2_TEXT)

#define PLAIN_MAX (CARD_DATA_MAX - sizeof(struct sdf_ecc_cipher))
#define AROUND (2 * (SM2_BYTES + 3) + 2 + DIGEST + 4 + 5) /* bytes that encryption adds, at most */

union text {
	struct sdf_ecc_cipher c;
	unsigned char room[CARD_DATA_MAX];
};

static int asn1_of(const union text *t, unsigned char *out, size_t *len, size_t size)
{
	SM2_TEXT *a = SM2_TEXT_new();
	unsigned char *der = NULL;
	int n = -1, ok = 0;

	if (a && BN_bin2bn(t->c.x, sizeof(t->c.x), a->x) && BN_bin2bn(t->c.y, sizeof(t->c.y), a->y) &&
	    ASN1_OCTET_STRING_set(a->hash, t->c.m, sizeof(t->c.m)) &&
	    ASN1_OCTET_STRING_set(a->text, t->c.c, (int)t->c.length))
		n = i2d_SM2_TEXT(a, &der);
	if (n > 0 && (size_t)n <= size) {
		memcpy(out, der, (size_t)n);
		*len = (size_t)n;
		ok = 1;
	}
	OPENSSL_free(der);
	SM2_TEXT_free(a);
	return ok;
}

static bool of_asn1(const unsigned char *in, size_t len, union text *t)
{
	const unsigned char *p = in;
	SM2_TEXT *a = len <= CARD_DATA_MAX ? d2i_SM2_TEXT(NULL, &p, (long)len) : NULL;
	bool ok = a && p == in + len && ASN1_STRING_length(a->hash) == (int)sizeof(t->c.m) &&
		  ASN1_STRING_length(a->text) > 0 &&
		  (size_t)ASN1_STRING_length(a->text) <= PLAIN_MAX &&
		  BN_bn2binpad(a->x, t->c.x, sizeof(t->c.x)) >= 0 &&
		  BN_bn2binpad(a->y, t->c.y, sizeof(t->c.y)) >= 0;

	if (ok) {
		t->c.length = (uint32_t)ASN1_STRING_length(a->text);
		memcpy(t->c.m, ASN1_STRING_get0_data(a->hash), sizeof(t->c.m));
		memcpy(t->c.c, ASN1_STRING_get0_data(a->text), t->c.length);
	}
	SM2_TEXT_free(a);
	return ok;
}

static int encrypt(void *vctx, unsigned char *out, size_t *out_len, size_t size,
		   const unsigned char *in, size_t len)
{
	struct ctx *c = vctx;
	struct card_public args = {.pub = c->key->pub};
	union text t;
	struct card_io io = {.rq = {.op = CARD_OP_PK_ENCRYPT, .alg = SGD_SM2_ENC,
				    .key_kind = CARD_KEY_GIVEN, .args_len = sizeof(args),
				    .data_len = (uint32_t)len},
			     .args = &args, .data = in, .out = &t};
	struct prov_link l;

	if (!len || len > PLAIN_MAX || !c->key->has_public) {
		prov_error(PROV_R_INVALID_INPUT_LENGTH, "SM2 encrypts 1 to 16220 bytes");
		return 0;
	}
	if (!out) {
		*out_len = len + AROUND;
		return 1;
	}
	io.out_cap = (uint32_t)(sizeof(t.c) + len);
	return prov_link(c->prov, &l) && prov_call(&l, &io) && io.out_len == io.out_cap &&
	       t.c.length == len && asn1_of(&t, out, out_len, size);
}

static int decrypt(void *vctx, unsigned char *out, size_t *out_len, size_t size,
		   const unsigned char *in, size_t len)
{
	struct ctx *c = vctx;
	struct card_sign given;
	union text t;
	struct card_io io = {.rq = {.op = CARD_OP_PK_DECRYPT, .alg = SGD_SM2_ENC,
				    .key_kind = CARD_KEY_INDEX, .key = c->key->index},
			     .data = &t, .out = out};
	struct prov_link l;
	bool ok;

	if (!c->key->has_private || !of_asn1(in, len, &t)) {
		prov_error(PROV_R_BAD_DECRYPT, "no private key, or this is not what SM2 encrypted");
		return 0;
	}
	if (!out) {
		*out_len = t.c.length;
		return 1;
	}
	io.rq.data_len = (uint32_t)sizeof(t.c) + t.c.length;
	io.out_cap = t.c.length;
	if (!c->key->index) {
		given.key = c->key->priv;
		io.rq.key_kind = CARD_KEY_GIVEN;
		io.rq.args_len = sizeof(given);
		io.args = &given;
	}
	ok = size >= t.c.length && prov_link(c->prov, &l) && prov_call(&l, &io);
	OPENSSL_cleanse(&given, sizeof(given));
	*out_len = io.out_len;
	return ok;
}

static const OSSL_DISPATCH signature[] = {
	FN(OSSL_FUNC_SIGNATURE_NEWCTX, newctx),
	FN(OSSL_FUNC_SIGNATURE_FREECTX, freectx),
	FN(OSSL_FUNC_SIGNATURE_DUPCTX, dupctx),
	FN(OSSL_FUNC_SIGNATURE_SIGN_INIT, init),
	FN(OSSL_FUNC_SIGNATURE_SIGN, sign),
	FN(OSSL_FUNC_SIGNATURE_VERIFY_INIT, init),
	FN(OSSL_FUNC_SIGNATURE_VERIFY, verify),
	FN(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, digest_init),
	FN(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_UPDATE, digest_update),
	FN(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_FINAL, digest_sign_final),
	FN(OSSL_FUNC_SIGNATURE_DIGEST_VERIFY_INIT, digest_init),
	FN(OSSL_FUNC_SIGNATURE_DIGEST_VERIFY_UPDATE, digest_update),
	FN(OSSL_FUNC_SIGNATURE_DIGEST_VERIFY_FINAL, digest_verify_final),
	FN(OSSL_FUNC_SIGNATURE_GET_CTX_PARAMS, get_ctx_params),
	FN(OSSL_FUNC_SIGNATURE_GETTABLE_CTX_PARAMS, gettable),
	FN(OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS, set_ctx_params),
	FN(OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS, settable),
	FN_END,
};

static const OSSL_DISPATCH asym_cipher[] = {
	FN(OSSL_FUNC_ASYM_CIPHER_NEWCTX, newctx_plain),
	FN(OSSL_FUNC_ASYM_CIPHER_FREECTX, freectx),
	FN(OSSL_FUNC_ASYM_CIPHER_DUPCTX, dupctx),
	FN(OSSL_FUNC_ASYM_CIPHER_ENCRYPT_INIT, init),
	FN(OSSL_FUNC_ASYM_CIPHER_ENCRYPT, encrypt),
	FN(OSSL_FUNC_ASYM_CIPHER_DECRYPT_INIT, init),
	FN(OSSL_FUNC_ASYM_CIPHER_DECRYPT, decrypt),
	FN_END,
};

#define OWN "provider=cardshare"
const OSSL_ALGORITHM prov_signatures[] = {
	{"SM2:1.2.156.10197.1.301", OWN, signature, "SM2 signatures by a shared card"},
	{NULL, NULL, NULL, NULL},
};
const OSSL_ALGORITHM prov_asym_ciphers[] = {
	{"SM2:1.2.156.10197.1.301", OWN, asym_cipher, "SM2 encryption by a shared card"},
	{NULL, NULL, NULL, NULL},
};
