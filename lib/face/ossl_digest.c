/* SPDX-License-Identifier: MIT */
/*
 * SM3 by a card whose streams can't be copied, for OpenSSL, which copies digests all the time. Up to
 * KEEP bytes are kept here and sent when the digest is asked for: such a digest is copied in earnest. Beyond
 * that, copies share the card's stream, and may read the same digest; of several that go on differently only the
 * first one can.
 */
#include "face/ossl.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "face/link.h"

#define KEEP (4u * CARD_DATA_MAX)
#define SM3_BYTES 32u
#define SM3_BLOCK 64u

/* The card's end, shared by copies. */
struct shared {
	_Atomic int refs;
	pthread_mutex_t lock;
	struct prov_link link;
	uint32_t object; /* 0: it has ended */
	uint64_t len;	 /* bytes that it has seen */
	bool ended;
	unsigned char digest[SM3_BYTES];
};

struct prov_hash {
	struct prov *prov;
	struct card_hash first;
	struct shared *stream; /* NULL: all is in @kept */
	uint64_t sent;	       /* of ours; another number than the stream's: a copy went on without us */
	unsigned char *kept;
	size_t n, room;
};

static void shared_put(struct shared *s)
{
	if (!s || --s->refs)
		return;
	if (s->object && s->link.process == face_link_process())
		prov_drop(&s->link, s->object);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

struct prov_hash *prov_hash_new(struct prov *p)
{
	struct prov_hash *h = calloc(1, sizeof(*h));

	if (h)
		h->prov = p;
	return h;
}

void prov_hash_free(struct prov_hash *h)
{
	if (!h)
		return;
	shared_put(h->stream);
	if (h->kept)
		OPENSSL_cleanse(h->kept, h->n);
	free(h->kept);
	free(h);
}

bool prov_hash_init(struct prov_hash *h, const struct card_hash *first)
{
	shared_put(h->stream);
	h->stream = NULL;
	h->sent = 0;
	h->n = 0;
	memset(&h->first, 0, sizeof(h->first));
	if (first)
		h->first = *first;
	return true;
}

struct prov_hash *prov_hash_dup(const struct prov_hash *h)
{
	struct prov_hash *d = malloc(sizeof(*d));

	if (!d)
		return NULL;
	*d = *h;
	d->kept = NULL;
	d->room = 0;
	if (h->n) {
		d->kept = malloc(h->n);
		if (!d->kept) {
			free(d);
			return NULL;
		}
		memcpy(d->kept, h->kept, h->n);
		d->room = h->n;
	}
	if (d->stream)
		d->stream->refs++;
	return d;
}

static bool keep(struct prov_hash *h, const unsigned char *in, size_t len)
{
	size_t room = h->room ? h->room : 1024;
	unsigned char *p;

	while (room < h->n + len)
		room *= 2;
	if (room != h->room) {
		p = realloc(h->kept, room);
		if (!p)
			return false;
		h->kept = p;
		h->room = room;
	}
	memcpy(h->kept + h->n, in, len);
	h->n += len;
	return true;
}

/* With the stream's lock held: @len bytes and @phase on to the card. */
static bool forward(struct prov_hash *h, unsigned phase, const unsigned char *in, size_t len)
{
	struct shared *s = h->stream;

	if (s->ended || s->len != h->sent) {
		prov_error(ERR_R_OPERATION_FAIL, "a copy of this digest went on without it");
		return false;
	}
	for (size_t at = 0, n; at < len || (phase && at == len); at += n) {
		struct card_io io = {.rq = {.op = CARD_OP_HASH, .alg = SGD_SM3, .object = s->object},
				     .data = in + at};
		bool last;

		n = len - at < CARD_DATA_MAX ? len - at : CARD_DATA_MAX;
		last = at + n == len;
		io.rq.data_len = (uint32_t)n;
		if (!s->object) {
			io.rq.phase = CARD_PHASE_BEGIN;
			io.rq.args_len = sizeof(h->first);
			io.args = &h->first;
		} else {
			io.rq.alg = 0;
		}
		if (last && phase) {
			io.rq.phase |= CARD_PHASE_END;
			io.out = s->digest;
			io.out_cap = SM3_BYTES;
		}
		if (!prov_call(&s->link, &io))
			return false;
		if (io.rq.phase == CARD_PHASE_BEGIN)
			s->object = io.object;
		if (last && phase) {
			s->object = 0;
			s->ended = true;
			phase = 0;
			if (io.out_len != SM3_BYTES)
				return false;
		}
		if (!n)
			break;
	}
	s->len += len;
	h->sent += len;
	return true;
}

static struct shared *shared_new(struct prov *p)
{
	struct shared *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	if (!prov_link(p, &s->link)) {
		free(s);
		return NULL;
	}
	s->refs = 1;
	pthread_mutex_init(&s->lock, NULL);
	return s;
}

/* What is kept goes to the card, and @in after it. */
static bool send(struct prov_hash *h, unsigned phase, const unsigned char *in, size_t len)
{
	bool ok;

	if (!h->stream)
		h->stream = shared_new(h->prov);
	if (!h->stream)
		return false;
	pthread_mutex_lock(&h->stream->lock);
	ok = (!h->n || forward(h, len ? 0 : phase, h->kept, h->n)) &&
	     ((h->n && !len) || forward(h, phase, in, len));
	h->n = 0;
	pthread_mutex_unlock(&h->stream->lock);
	return ok;
}

bool prov_hash_update(struct prov_hash *h, const unsigned char *in, size_t len)
{
	if (!len)
		return true;
	if (h->n + len <= (h->stream ? CARD_DATA_MAX : KEEP))
		return keep(h, in, len);
	return send(h, 0, in, len);
}

static bool read_again(struct prov_hash *h, unsigned char *out)
{
	struct shared *s = h->stream;
	bool same;

	pthread_mutex_lock(&s->lock);
	same = s->ended && !h->n && s->len == h->sent;
	if (same)
		memcpy(out, s->digest, SM3_BYTES);
	pthread_mutex_unlock(&s->lock);
	return same;
}

/* What fits into one request needs no stream: a link that was lost then loses nothing. */
bool prov_hash_final(struct prov_hash *h, unsigned char out[SM3_BYTES])
{
	if (h->stream && read_again(h, out))
		return true;
	if (!send(h, CARD_PHASE_END, NULL, 0))
		return false;
	memcpy(out, h->stream->digest, SM3_BYTES);
	return true;
}

/* --- what OpenSSL asks of a digest --- */

static void *newctx(void *provctx)
{
	return prov_hash_new(provctx);
}

static void freectx(void *ctx)
{
	prov_hash_free(ctx);
}

static void *dupctx(void *ctx)
{
	return prov_hash_dup(ctx);
}

static int init(void *ctx, const OSSL_PARAM params[])
{
	(void)params;
	return prov_hash_init(ctx, NULL);
}

static int update(void *ctx, const unsigned char *in, size_t len)
{
	return prov_hash_update(ctx, in, len);
}

static int final(void *ctx, unsigned char *out, size_t *out_len, size_t size)
{
	if (size < SM3_BYTES || !prov_hash_final(ctx, out))
		return 0;
	*out_len = SM3_BYTES;
	return 1;
}

static int digest(void *provctx, const unsigned char *in, size_t len, unsigned char *out,
		  size_t *out_len, size_t size)
{
	struct card_hash first = {.id_len = 0};
	struct card_io io = {.rq = {.op = CARD_OP_HASH, .alg = SGD_SM3,
				    .phase = CARD_PHASE_BEGIN | CARD_PHASE_END,
				    .args_len = sizeof(first)},
			     .args = &first, .data = in, .out = out};
	struct prov_link l;

	if (size < SM3_BYTES || !prov_link(provctx, &l) || !prov_call_long(&l, &io, len, SM3_BYTES))
		return 0;
	*out_len = SM3_BYTES;
	return 1;
}

static int get_params(OSSL_PARAM params[])
{
	OSSL_PARAM *p = OSSL_PARAM_locate(params, OSSL_DIGEST_PARAM_BLOCK_SIZE);

	if (p && !OSSL_PARAM_set_size_t(p, SM3_BLOCK))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_DIGEST_PARAM_SIZE);
	if (p && !OSSL_PARAM_set_size_t(p, SM3_BYTES))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_DIGEST_PARAM_XOF);
	if (p && !OSSL_PARAM_set_int(p, 0))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_DIGEST_PARAM_ALGID_ABSENT);
	return !p || OSSL_PARAM_set_int(p, 0);
}

static const OSSL_PARAM *gettable_params(void *provctx)
{
	static const OSSL_PARAM types[] = {
		OSSL_PARAM_size_t(OSSL_DIGEST_PARAM_BLOCK_SIZE, NULL),
		OSSL_PARAM_size_t(OSSL_DIGEST_PARAM_SIZE, NULL),
		OSSL_PARAM_int(OSSL_DIGEST_PARAM_XOF, NULL),
		OSSL_PARAM_int(OSSL_DIGEST_PARAM_ALGID_ABSENT, NULL),
		OSSL_PARAM_END,
	};

	(void)provctx;
	return types;
}

static const OSSL_DISPATCH sm3[] = {
	FN(OSSL_FUNC_DIGEST_NEWCTX, newctx),
	FN(OSSL_FUNC_DIGEST_FREECTX, freectx),
	FN(OSSL_FUNC_DIGEST_DUPCTX, dupctx),
	FN(OSSL_FUNC_DIGEST_INIT, init),
	FN(OSSL_FUNC_DIGEST_UPDATE, update),
	FN(OSSL_FUNC_DIGEST_FINAL, final),
	FN(OSSL_FUNC_DIGEST_DIGEST, digest),
	FN(OSSL_FUNC_DIGEST_GET_PARAMS, get_params),
	FN(OSSL_FUNC_DIGEST_GETTABLE_PARAMS, gettable_params),
	FN_END,
};

const OSSL_ALGORITHM prov_digests[] = {
	{"SM3:1.2.156.10197.1.401", "provider=cardshare", sm3, "SM3 of a shared card"},
	{NULL, NULL, NULL, NULL},
};
