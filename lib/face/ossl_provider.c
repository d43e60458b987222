/* SPDX-License-Identifier: MIT */
/* The OpenSSL provider "cardshare": SM2, SM3, SM4 and random numbers from a shared card. */
#include "face/ossl.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "face/link.h"

#ifndef UTIL_VM_VERSION
#define UTIL_VM_VERSION "unknown"
#endif

struct prov {
	pthread_mutex_t lock;
	struct prov_link link; /* client NULL: not made yet */
};

struct prov_key {
	struct prov *prov;
	_Atomic int refs;
	pthread_mutex_t lock;
	uint32_t number; /* 0: not in the card (yet) */
	unsigned process;
	unsigned char key[16];
	size_t len;
};

void prov_error(int reason, const char *text)
{
	ERR_raise_data(ERR_LIB_PROV, reason, "cardshare: %s", text);
}

/* After fork(2) the parent's link is left alone: it is the parent's. */
bool prov_link(struct prov *p, struct prov_link *l)
{
	struct err err = {0};
	uint32_t status = SDR_OK;
	char text[32];
	int rc = 0;

	pthread_mutex_lock(&p->lock);
	if (p->link.client && p->link.process != face_link_process())
		p->link = (struct prov_link){0};
	if (!p->link.client) {
		p->link.process = face_link_process();
		rc = face_link_get(NULL, &p->link.client, &err);
		if (rc)
			p->link.client = NULL;
		else
			status = card_session_open(p->link.client, &p->link.session);
		if (status != SDR_OK) {
			face_link_put(p->link.client);
			p->link.client = NULL;
		}
	}
	*l = p->link;
	pthread_mutex_unlock(&p->lock);
	if (rc)
		prov_error(ERR_R_OPERATION_FAIL, err.text);
	else if (status != SDR_OK)
		ERR_raise_data(ERR_LIB_PROV, ERR_R_OPERATION_FAIL, "cardshare: open a session: %s",
			       sdr_text(status, text, sizeof(text)));
	return l->client;
}

static bool answered(const struct card_io *io, uint32_t status)
{
	const struct card_op_info *info = card_op_info(io->rq.op);
	char text[32];

	if (status != SDR_OK)
		ERR_raise_data(ERR_LIB_PROV, ERR_R_OPERATION_FAIL, "cardshare: %s: %s",
			       info ? info->name : "call", sdr_text(status, text, sizeof(text)));
	return status == SDR_OK;
}

bool prov_call(const struct prov_link *l, struct card_io *io)
{
	io->rq.session = l->session;
	return answered(io, card_call(l->client, io));
}

bool prov_call_long(const struct prov_link *l, struct card_io *io, size_t len, size_t want)
{
	uint32_t status;
	size_t got = 0;

	io->rq.session = l->session;
	status = card_call_long(l->client, io, len, want, &got);
	if (status == SDR_OK && got != want)
		status = SDR_COMMFAIL;
	return answered(io, status);
}

void prov_drop(const struct prov_link *l, uint32_t object)
{
	struct card_io io = {.rq = {.op = CARD_OP_DROP, .object = object, .session = l->session}};

	if (object)
		card_call(l->client, &io);
}

/* --- symmetric keys --- */

struct prov_key *prov_key_new(struct prov *p, const unsigned char *key, size_t len)
{
	struct prov_key *k = len <= sizeof(k->key) ? calloc(1, sizeof(*k)) : NULL;

	if (!k)
		return NULL;
	k->prov = p;
	k->refs = 1;
	k->len = len;
	memcpy(k->key, key, len);
	pthread_mutex_init(&k->lock, NULL);
	return k;
}

struct prov_key *prov_key_hold(struct prov_key *k)
{
	if (k)
		k->refs++;
	return k;
}

void prov_key_free(struct prov_key *k)
{
	struct prov_link l;

	if (!k || --k->refs)
		return;
	if (k->number && k->process == face_link_process() && prov_link(k->prov, &l))
		prov_drop(&l, k->number);
	explicit_bzero(k->key, sizeof(k->key));
	pthread_mutex_destroy(&k->lock);
	free(k);
}

uint32_t prov_key_number(struct prov_key *k, const struct prov_link *l)
{
	struct card_wrap wrap = {.by = CARD_WRAP_PLAIN};
	struct card_io io = {.rq = {.op = CARD_OP_KEY_TAKE, .key_kind = CARD_KEY_GIVEN,
				    .args_len = sizeof(wrap), .data_len = (uint32_t)k->len},
			     .args = &wrap, .data = k->key};
	uint32_t number;

	pthread_mutex_lock(&k->lock);
	if (!k->number || k->process != l->process) {
		k->number = prov_call(l, &io) ? io.object : 0;
		k->process = l->process;
	}
	number = k->number;
	pthread_mutex_unlock(&k->lock);
	return number;
}

/* --- what OpenSSL asks of a provider --- */

static const OSSL_PARAM *gettable(void *provctx)
{
	static const OSSL_PARAM types[] = {
		OSSL_PARAM_DEFN(OSSL_PROV_PARAM_NAME, OSSL_PARAM_UTF8_PTR, NULL, 0),
		OSSL_PARAM_DEFN(OSSL_PROV_PARAM_VERSION, OSSL_PARAM_UTF8_PTR, NULL, 0),
		OSSL_PARAM_DEFN(OSSL_PROV_PARAM_BUILDINFO, OSSL_PARAM_UTF8_PTR, NULL, 0),
		OSSL_PARAM_DEFN(OSSL_PROV_PARAM_STATUS, OSSL_PARAM_INTEGER, NULL, 0),
		OSSL_PARAM_END,
	};

	(void)provctx;
	return types;
}

static int get_params(void *provctx, OSSL_PARAM params[])
{
	OSSL_PARAM *p;

	(void)provctx;
	p = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_NAME);
	if (p && !OSSL_PARAM_set_utf8_ptr(p, "shared crypto card (SM2, SM3, SM4)"))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_VERSION);
	if (p && !OSSL_PARAM_set_utf8_ptr(p, UTIL_VM_VERSION))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_BUILDINFO);
	if (p && !OSSL_PARAM_set_utf8_ptr(p, "util-vm " UTIL_VM_VERSION))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_STATUS);
	return !p || OSSL_PARAM_set_int(p, 1);
}

static const OSSL_ALGORITHM *query(void *provctx, int operation, int *no_cache)
{
	(void)provctx;
	*no_cache = 0;
	switch (operation) {
	case OSSL_OP_DIGEST:
		return prov_digests;
	case OSSL_OP_CIPHER:
		return prov_ciphers;
	case OSSL_OP_RAND:
		return prov_rands;
	case OSSL_OP_KEYMGMT:
		return prov_keymgmts;
	case OSSL_OP_SIGNATURE:
		return prov_signatures;
	case OSSL_OP_ASYM_CIPHER:
		return prov_asym_ciphers;
	case OSSL_OP_STORE:
		return prov_stores;
	default:
		return NULL;
	}
}

static void teardown(void *provctx)
{
	struct prov *p = provctx;

	if (p->link.client && p->link.process == face_link_process()) {
		card_session_close(p->link.client, p->link.session);
		face_link_put(p->link.client);
	}
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static const OSSL_DISPATCH functions[] = {
	FN(OSSL_FUNC_PROVIDER_GETTABLE_PARAMS, gettable),
	FN(OSSL_FUNC_PROVIDER_GET_PARAMS, get_params),
	FN(OSSL_FUNC_PROVIDER_QUERY_OPERATION, query),
	FN(OSSL_FUNC_PROVIDER_TEARDOWN, teardown),
	FN_END,
};

int OSSL_provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in,
		       const OSSL_DISPATCH **out, void **provctx)
{
	struct prov *p = calloc(1, sizeof(*p));

	(void)handle;
	(void)in;
	if (!p)
		return 0;
	pthread_mutex_init(&p->lock, NULL);
	*out = functions;
	*provctx = p;
	return 1;
}
