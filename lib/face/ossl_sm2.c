/* SPDX-License-Identifier: MIT */
/*
 * SM2 keys: given ones, which other providers made or which were read from files, and those that live in the
 * card, which a store names: cardshare:sign=1, cardshare:enc=1. Of these only the public half is ever here.
 */
#include "face/ossl.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/core_object.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/obj_mac.h>
#include <openssl/param_build.h>
#include <openssl/params.h>
#include <openssl/proverr.h>
#include <stdlib.h>
#include <string.h>

#define BITS 256u
#define POINT (1 + 2 * SM2_BYTES)
#define SIGNATURE_MAX 72

struct prov_sm2 *prov_sm2_new(struct prov *p)
{
	struct prov_sm2 *k = calloc(1, sizeof(*k));

	if (k) {
		k->prov = p;
		k->refs = 1;
	}
	return k;
}

struct prov_sm2 *prov_sm2_hold(struct prov_sm2 *k)
{
	if (k)
		k->refs++;
	return k;
}

void prov_sm2_free(struct prov_sm2 *k)
{
	if (!k || --k->refs)
		return;
	OPENSSL_cleanse(k, sizeof(*k));
	free(k);
}

/* --- numbers in and out of the card's fields --- */

static void set_public(struct prov_sm2 *k, const unsigned char *point)
{
	memset(&k->pub, 0, sizeof(k->pub));
	k->pub.bits = BITS;
	memcpy(k->pub.x + SM2_AT, point + 1, SM2_BYTES);
	memcpy(k->pub.y + SM2_AT, point + 1 + SM2_BYTES, SM2_BYTES);
	k->has_public = true;
}

static void get_point(const struct prov_sm2 *k, unsigned char *point)
{
	point[0] = POINT_CONVERSION_UNCOMPRESSED;
	memcpy(point + 1, k->pub.x + SM2_AT, SM2_BYTES);
	memcpy(point + 1 + SM2_BYTES, k->pub.y + SM2_AT, SM2_BYTES);
}

/* A point in any form, or that of the private key @d (@in NULL). */
static bool point_of(const unsigned char *in, size_t len, const BIGNUM *d, unsigned char *out)
{
	EC_GROUP *group = EC_GROUP_new_by_curve_name(NID_sm2);
	EC_POINT *point = group ? EC_POINT_new(group) : NULL;
	bool ok = point &&
		  (in ? EC_POINT_oct2point(group, point, in, len, NULL)
		      : EC_POINT_mul(group, point, d, NULL, NULL, NULL)) &&
		  EC_POINT_point2oct(group, point, POINT_CONVERSION_UNCOMPRESSED, out, POINT,
				     NULL) == POINT;

	EC_POINT_free(point);
	EC_GROUP_free(group);
	return ok;
}

/* --- keys of the card --- */

/* Its public half, which the card must be willing to tell. */
static struct prov_sm2 *load_index(struct prov *p, uint32_t alg, uint32_t index)
{
	struct prov_sm2 *k = prov_sm2_new(p);
	struct card_io io = {.rq = {.op = CARD_OP_PUBLIC, .key_kind = CARD_KEY_INDEX, .key = index,
				    .alg = alg}};
	struct prov_link l;

	if (!k)
		return NULL;
	io.out = &k->pub;
	io.out_cap = sizeof(k->pub);
	if (!prov_link(p, &l) || !prov_call(&l, &io) || io.out_len != sizeof(k->pub) ||
	    k->pub.bits != BITS) {
		free(k);
		return NULL;
	}
	k->index = index;
	k->alg = alg;
	k->has_public = k->has_private = true;
	return k;
}

struct store {
	struct prov *prov;
	uint32_t alg, index;
	bool done;
};

/* cardshare:sign=INDEX or cardshare:enc=INDEX; also cardshare:INDEX, a signing key. */
static bool parse_uri(const char *uri, uint32_t *alg, uint32_t *index)
{
	unsigned long n;
	char *end;

	if (strncmp(uri, "cardshare:", 10) != 0)
		return false;
	uri += 10;
	*alg = strncmp(uri, "enc=", 4) ? SGD_SM2_SIGN : SGD_SM2_ENC;
	if (!strncmp(uri, "sign=", 5))
		uri += 5;
	else if (*alg == SGD_SM2_ENC)
		uri += 4;
	if (*uri < '0' || *uri > '9')
		return false;
	n = strtoul(uri, &end, 10);
	*index = (uint32_t)n;
	return !*end && n && n <= UINT32_MAX;
}

static void *store_open(void *provctx, const char *uri)
{
	struct store *s;
	uint32_t alg, index;

	if (!parse_uri(uri, &alg, &index)) {
		prov_error(PROV_R_INVALID_DATA, "a key is cardshare:sign=INDEX or cardshare:enc=INDEX");
		return NULL;
	}
	s = calloc(1, sizeof(*s));
	if (s)
		*s = (struct store){.prov = provctx, .alg = alg, .index = index};
	return s;
}

static int store_load(void *ctx, OSSL_CALLBACK *object_cb, void *object_arg,
		      OSSL_PASSPHRASE_CALLBACK *pw_cb, void *pw_arg)
{
	struct store *s = ctx;
	struct prov_sm2 *k;
	int type = OSSL_OBJECT_PKEY, ok;

	(void)pw_cb;
	(void)pw_arg;
	s->done = true;
	k = load_index(s->prov, s->alg, s->index);
	if (!k)
		return 0;
	{
		OSSL_PARAM params[] = {
			OSSL_PARAM_int(OSSL_OBJECT_PARAM_TYPE, &type),
			OSSL_PARAM_utf8_string(OSSL_OBJECT_PARAM_DATA_TYPE, (char *)"SM2", 0),
			OSSL_PARAM_octet_string(OSSL_OBJECT_PARAM_REFERENCE, &k, sizeof(void *)),
			OSSL_PARAM_END,
		};

		ok = object_cb(params, object_arg); /* load() below takes k away if it is called */
	}
	prov_sm2_free(k);
	return ok;
}

static int store_eof(void *ctx)
{
	return ((struct store *)ctx)->done;
}

static int store_close(void *ctx)
{
	free(ctx);
	return 1;
}

static const OSSL_PARAM *store_settable(void *provctx)
{
	static const OSSL_PARAM types[] = {
		OSSL_PARAM_int(OSSL_STORE_PARAM_EXPECT, NULL),
		OSSL_PARAM_END,
	};

	(void)provctx;
	return types;
}

static int store_set(void *ctx, const OSSL_PARAM params[])
{
	(void)ctx;
	(void)params;
	return 1;
}

/* --- key management --- */

static void *keymgmt_new(void *provctx)
{
	return prov_sm2_new(provctx);
}

static void keymgmt_free(void *key)
{
	prov_sm2_free(key);
}

static void *keymgmt_load(const void *reference, size_t size)
{
	struct prov_sm2 *k;

	if (size != sizeof(void *))
		return NULL;
	memcpy(&k, reference, sizeof(void *));
	return prov_sm2_hold(k);
}

static int keymgmt_has(const void *key, int selection)
{
	const struct prov_sm2 *k = key;

	if (!k)
		return 0;
	if ((selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) && !k->has_public)
		return 0;
	return !(selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) || k->has_private;
}

static int keymgmt_match(const void *key1, const void *key2, int selection)
{
	const struct prov_sm2 *a = key1, *b = key2;

	if (!(selection & OSSL_KEYMGMT_SELECT_KEYPAIR))
		return 1; /* one curve only */
	return a->has_public && b->has_public && !memcmp(&a->pub, &b->pub, sizeof(a->pub));
}

static bool import_private(struct prov_sm2 *k, const OSSL_PARAM *p)
{
	unsigned char point[POINT];
	BIGNUM *d = NULL;
	bool ok = OSSL_PARAM_get_BN(p, &d) && BN_num_bits(d) <= (int)BITS && !BN_is_zero(d) &&
		  BN_bn2binpad(d, k->priv.k + SM2_AT, SM2_BYTES) == (int)SM2_BYTES;

	if (ok && !k->has_public) {
		ok = point_of(NULL, 0, d, point);
		if (ok)
			set_public(k, point);
	}
	k->priv.bits = BITS;
	k->has_private = ok;
	BN_clear_free(d);
	return ok;
}

static int keymgmt_import(void *key, int selection, const OSSL_PARAM params[])
{
	struct prov_sm2 *k = key;
	const OSSL_PARAM *p = OSSL_PARAM_locate_const(params, OSSL_PKEY_PARAM_GROUP_NAME);
	unsigned char point[POINT];
	const char *group;

	if (p && (!OSSL_PARAM_get_utf8_string_ptr(p, &group) || strcasecmp(group, "SM2") != 0)) {
		prov_error(PROV_R_INVALID_CURVE, "the curve is not SM2");
		return 0;
	}
	p = OSSL_PARAM_locate_const(params, OSSL_PKEY_PARAM_PUB_KEY);
	if (p && (selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY)) {
		if (p->data_type != OSSL_PARAM_OCTET_STRING ||
		    !point_of(p->data, p->data_size, NULL, point))
			return 0;
		set_public(k, point);
	}
	p = OSSL_PARAM_locate_const(params, OSSL_PKEY_PARAM_PRIV_KEY);
	if (p && (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY))
		return import_private(k, p);
	return 1;
}

static const OSSL_PARAM *keymgmt_types(int selection)
{
	static const OSSL_PARAM types[] = {
		OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
		OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
		OSSL_PARAM_BN(OSSL_PKEY_PARAM_PRIV_KEY, NULL, 0),
		OSSL_PARAM_END,
	};

	return selection & (OSSL_KEYMGMT_SELECT_KEYPAIR | OSSL_KEYMGMT_SELECT_ALL_PARAMETERS) ? types
											       : NULL;
}

/* The private half of a key of the card is nobody's to export. */
static int keymgmt_export(void *key, int selection, OSSL_CALLBACK *cb, void *arg)
{
	const struct prov_sm2 *k = key;
	OSSL_PARAM_BLD *b = OSSL_PARAM_BLD_new();
	OSSL_PARAM *params = NULL;
	unsigned char point[POINT];
	BIGNUM *d = NULL;
	int ok = b && OSSL_PARAM_BLD_push_utf8_string(b, OSSL_PKEY_PARAM_GROUP_NAME, "SM2", 0);

	if (ok && (selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) && k->has_public) {
		get_point(k, point);
		ok = OSSL_PARAM_BLD_push_octet_string(b, OSSL_PKEY_PARAM_PUB_KEY, point, POINT);
	}
	if (ok && (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY)) {
		d = k->has_private && !k->index ? BN_secure_new() : NULL;
		ok = d && BN_bin2bn(k->priv.k, sizeof(k->priv.k), d) &&
		     OSSL_PARAM_BLD_push_BN_pad(b, OSSL_PKEY_PARAM_PRIV_KEY, d, SM2_BYTES);
		if (!ok)
			prov_error(PROV_R_NOT_A_PRIVATE_KEY, "a private key of the card stays there");
	}
	if (ok) {
		params = OSSL_PARAM_BLD_to_param(b);
		ok = params && cb(params, arg);
	}
	OSSL_PARAM_free(params);
	BN_clear_free(d);
	OSSL_PARAM_BLD_free(b);
	return ok;
}

static int keymgmt_get_params(void *key, OSSL_PARAM params[])
{
	const struct prov_sm2 *k = key;
	unsigned char point[POINT];
	OSSL_PARAM *p = OSSL_PARAM_locate(params, OSSL_PKEY_PARAM_BITS);

	if (p && !OSSL_PARAM_set_int(p, BITS))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_PKEY_PARAM_SECURITY_BITS);
	if (p && !OSSL_PARAM_set_int(p, BITS / 2))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_PKEY_PARAM_MAX_SIZE);
	if (p && !OSSL_PARAM_set_int(p, SIGNATURE_MAX))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_PKEY_PARAM_DEFAULT_DIGEST);
	if (p && !OSSL_PARAM_set_utf8_string(p, "SM3"))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_PKEY_PARAM_GROUP_NAME);
	if (p && !OSSL_PARAM_set_utf8_string(p, "SM2"))
		return 0;
	if (!k->has_public)
		return 1;
	get_point(k, point);
	p = OSSL_PARAM_locate(params, OSSL_PKEY_PARAM_PUB_KEY);
	if (p && !OSSL_PARAM_set_octet_string(p, point, POINT))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY);
	return !p || OSSL_PARAM_set_octet_string(p, point, POINT);
}

static const OSSL_PARAM *keymgmt_gettable(void *provctx)
{
	static const OSSL_PARAM types[] = {
		OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL),
		OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL),
		OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL),
		OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_DEFAULT_DIGEST, NULL, 0),
		OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
		OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
		OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, NULL, 0),
		OSSL_PARAM_END,
	};

	(void)provctx;
	return types;
}

static void *keymgmt_dup(const void *from, int selection)
{
	const struct prov_sm2 *k = from;
	struct prov_sm2 *d = prov_sm2_new(k->prov);

	if (!d)
		return NULL;
	if ((selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) && k->has_public) {
		d->pub = k->pub;
		d->has_public = true;
	}
	if (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) {
		d->priv = k->priv;
		d->has_private = k->has_private;
		d->index = k->index;
		d->alg = k->alg;
	}
	return d;
}

static const char *keymgmt_operation(int operation)
{
	(void)operation;
	return "SM2";
}

/* --- a new pair, made by the card and given away --- */

static void *gen_init(void *provctx, int selection, const OSSL_PARAM params[])
{
	(void)params;
	return selection & OSSL_KEYMGMT_SELECT_KEYPAIR ? prov_sm2_new(provctx) : NULL;
}

static int gen_set_params(void *gen, const OSSL_PARAM params[])
{
	const OSSL_PARAM *p = OSSL_PARAM_locate_const(params, OSSL_PKEY_PARAM_GROUP_NAME);
	const char *group;

	(void)gen;
	return !p || (OSSL_PARAM_get_utf8_string_ptr(p, &group) && !strcasecmp(group, "SM2"));
}

static const OSSL_PARAM *gen_settable(void *gen, void *provctx)
{
	static const OSSL_PARAM types[] = {
		OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
		OSSL_PARAM_END,
	};

	(void)gen;
	(void)provctx;
	return types;
}

static void *gen(void *vgen, OSSL_CALLBACK *cb, void *arg)
{
	struct prov_sm2 *k = prov_sm2_hold(vgen);
	struct card_pair args = {.bits = BITS};
	struct {
		struct sdf_ecc_public pub;
		struct sdf_ecc_private priv;
	} pair = {.pub = {.bits = 0}};
	struct card_io io = {.rq = {.op = CARD_OP_PAIR, .alg = SGD_SM2, .args_len = sizeof(args)},
			     .args = &args, .out = &pair, .out_cap = sizeof(pair)};
	struct prov_link l;

	(void)cb;
	(void)arg;
	if (!prov_link(k->prov, &l) || !prov_call(&l, &io) || io.out_len != sizeof(pair)) {
		prov_sm2_free(k);
		return NULL;
	}
	k->pub = pair.pub;
	k->priv = pair.priv;
	k->has_public = k->has_private = true;
	OPENSSL_cleanse(&pair, sizeof(pair));
	return k;
}

static void gen_cleanup(void *vgen)
{
	prov_sm2_free(vgen);
}

static const OSSL_DISPATCH keymgmt[] = {
	FN(OSSL_FUNC_KEYMGMT_NEW, keymgmt_new),
	FN(OSSL_FUNC_KEYMGMT_FREE, keymgmt_free),
	FN(OSSL_FUNC_KEYMGMT_LOAD, keymgmt_load),
	FN(OSSL_FUNC_KEYMGMT_HAS, keymgmt_has),
	FN(OSSL_FUNC_KEYMGMT_MATCH, keymgmt_match),
	FN(OSSL_FUNC_KEYMGMT_IMPORT, keymgmt_import),
	FN(OSSL_FUNC_KEYMGMT_IMPORT_TYPES, keymgmt_types),
	FN(OSSL_FUNC_KEYMGMT_EXPORT, keymgmt_export),
	FN(OSSL_FUNC_KEYMGMT_EXPORT_TYPES, keymgmt_types),
	FN(OSSL_FUNC_KEYMGMT_GET_PARAMS, keymgmt_get_params),
	FN(OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, keymgmt_gettable),
	FN(OSSL_FUNC_KEYMGMT_DUP, keymgmt_dup),
	FN(OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, keymgmt_operation),
	FN(OSSL_FUNC_KEYMGMT_GEN_INIT, gen_init),
	FN(OSSL_FUNC_KEYMGMT_GEN_SET_PARAMS, gen_set_params),
	FN(OSSL_FUNC_KEYMGMT_GEN_SETTABLE_PARAMS, gen_settable),
	FN(OSSL_FUNC_KEYMGMT_GEN, gen),
	FN(OSSL_FUNC_KEYMGMT_GEN_CLEANUP, gen_cleanup),
	FN_END,
};

static const OSSL_DISPATCH store[] = {
	FN(OSSL_FUNC_STORE_OPEN, store_open),
	FN(OSSL_FUNC_STORE_LOAD, store_load),
	FN(OSSL_FUNC_STORE_EOF, store_eof),
	FN(OSSL_FUNC_STORE_CLOSE, store_close),
	FN(OSSL_FUNC_STORE_SETTABLE_CTX_PARAMS, store_settable),
	FN(OSSL_FUNC_STORE_SET_CTX_PARAMS, store_set),
	FN_END,
};

#define OWN "provider=cardshare"
const OSSL_ALGORITHM prov_keymgmts[] = {
	{"SM2:1.2.156.10197.1.301", OWN, keymgmt, "SM2 keys, given or of a shared card"},
	{NULL, NULL, NULL, NULL},
};
const OSSL_ALGORITHM prov_stores[] = {
	{"cardshare", OWN, store, "keys of a shared card"},
	{NULL, NULL, NULL, NULL},
};
