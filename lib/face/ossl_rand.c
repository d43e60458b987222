/* SPDX-License-Identifier: MIT */
/* Random numbers of the card as an OpenSSL generator: "random = CARDSHARE" in openssl.cnf. */
#include "face/ossl.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <stdlib.h>

#define REQUEST_MAX (1u << 20)
#define STRENGTH 256u

struct ctx {
	struct prov *prov;
	int state;
};

static void *newctx(void *provctx, void *parent, const OSSL_DISPATCH *parent_calls)
{
	struct ctx *c = calloc(1, sizeof(*c));

	(void)parent;
	(void)parent_calls;
	if (c) {
		c->prov = provctx;
		c->state = EVP_RAND_STATE_UNINITIALISED;
	}
	return c;
}

static void freectx(void *ctx)
{
	free(ctx);
}

static int instantiate(void *vctx, unsigned strength, int prediction_resistance,
		       const unsigned char *pstr, size_t pstr_len, const OSSL_PARAM params[])
{
	struct ctx *c = vctx;
	struct prov_link l;

	(void)prediction_resistance;
	(void)pstr;
	(void)pstr_len;
	(void)params;
	if (strength > STRENGTH || !prov_link(c->prov, &l)) {
		c->state = EVP_RAND_STATE_ERROR;
		return 0;
	}
	c->state = EVP_RAND_STATE_READY;
	return 1;
}

static int uninstantiate(void *vctx)
{
	((struct ctx *)vctx)->state = EVP_RAND_STATE_UNINITIALISED;
	return 1;
}

static int generate(void *vctx, unsigned char *out, size_t len, unsigned strength,
		    int prediction_resistance, const unsigned char *adin, size_t adin_len)
{
	struct ctx *c = vctx;
	struct card_io io = {.rq = {.op = CARD_OP_RANDOM}, .out = out};
	struct prov_link l;

	(void)prediction_resistance;
	(void)adin;
	(void)adin_len;
	if (strength > STRENGTH || len > REQUEST_MAX || c->state != EVP_RAND_STATE_READY)
		return 0;
	return !len || (prov_link(c->prov, &l) && prov_call_long(&l, &io, len, len));
}

static int reseed(void *ctx, int prediction_resistance, const unsigned char *entropy,
		  size_t entropy_len, const unsigned char *adin, size_t adin_len)
{
	(void)ctx;
	(void)prediction_resistance;
	(void)entropy;
	(void)entropy_len;
	(void)adin;
	(void)adin_len;
	return 1; /* the card's own affair */
}

/* Contexts hold nothing that threads could spoil for each other. */
static int enable_locking(void *ctx)
{
	(void)ctx;
	return 1;
}

static int get_ctx_params(void *vctx, OSSL_PARAM params[])
{
	const struct ctx *c = vctx;
	OSSL_PARAM *p = OSSL_PARAM_locate(params, OSSL_RAND_PARAM_STATE);

	if (p && !OSSL_PARAM_set_int(p, c->state))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_RAND_PARAM_STRENGTH);
	if (p && !OSSL_PARAM_set_uint(p, STRENGTH))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_RAND_PARAM_MAX_REQUEST);
	return !p || OSSL_PARAM_set_size_t(p, REQUEST_MAX);
}

static const OSSL_PARAM *gettable_ctx(void *ctx, void *provctx)
{
	static const OSSL_PARAM types[] = {
		OSSL_PARAM_int(OSSL_RAND_PARAM_STATE, NULL),
		OSSL_PARAM_uint(OSSL_RAND_PARAM_STRENGTH, NULL),
		OSSL_PARAM_size_t(OSSL_RAND_PARAM_MAX_REQUEST, NULL),
		OSSL_PARAM_END,
	};

	(void)ctx;
	(void)provctx;
	return types;
}

static const OSSL_DISPATCH functions[] = {
	FN(OSSL_FUNC_RAND_NEWCTX, newctx),
	FN(OSSL_FUNC_RAND_FREECTX, freectx),
	FN(OSSL_FUNC_RAND_INSTANTIATE, instantiate),
	FN(OSSL_FUNC_RAND_UNINSTANTIATE, uninstantiate),
	FN(OSSL_FUNC_RAND_GENERATE, generate),
	FN(OSSL_FUNC_RAND_RESEED, reseed),
	FN(OSSL_FUNC_RAND_ENABLE_LOCKING, enable_locking),
	FN(OSSL_FUNC_RAND_GET_CTX_PARAMS, get_ctx_params),
	FN(OSSL_FUNC_RAND_GETTABLE_CTX_PARAMS, gettable_ctx),
	FN_END,
};

const OSSL_ALGORITHM prov_rands[] = {
	{"CARDSHARE", "provider=cardshare", functions, "random numbers of a shared card"},
	{NULL, NULL, NULL, NULL},
};
