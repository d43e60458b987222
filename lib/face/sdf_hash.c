/* SPDX-License-Identifier: MIT */
/*
 * Digests and keyed digests, one a session. Data is sent when a request is full, so that short texts are
 * one request, which a lost link does not lose. What a card must look at first (a public key, an
 * algorithm it may not have) is asked at once.
 */
#include "face/sdf_inside.h"

#include <stdlib.h>
#include <string.h>

#define DIGEST_MAX 64u

static uint32_t send(struct sdf_session *s, struct sdf_stream *st, struct card_io *io,
		     unsigned phase, const uint8_t *data, uint32_t len)
{
	uint32_t status;

	if (st->object) {
		io->rq.object = st->object;
		io->rq.key = 0;
		io->rq.key_kind = CARD_KEY_NONE;
		io->rq.args_len = 0;
	} else {
		phase |= CARD_PHASE_BEGIN;
	}
	io->rq.alg = phase & CARD_PHASE_BEGIN ? st->alg : 0;
	io->rq.phase = (uint8_t)phase;
	io->rq.data_len = len;
	io->data = data;
	status = sdf_call(s, io);
	if (status == SDR_OK && phase == CARD_PHASE_BEGIN) {
		st->object = io->object;
		if (!st->object)
			status = SDR_COMMFAIL;
	}
	if (phase & CARD_PHASE_END)
		st->object = 0;
	return status;
}

/* What a request of this stream begins with; @k is held as long as @io is used. */
static uint32_t prepare(struct sdf_stream *st, struct card_io *io, const struct card_hash *plain,
			struct sdf_key **k)
{
	*k = NULL;
	*io = (struct card_io){.rq = {.op = st->key ? CARD_OP_HMAC : CARD_OP_HASH}};
	if (!st->key) {
		io->rq.args_len = sizeof(*plain);
		io->args = plain;
		return SDR_OK;
	}
	*k = sdf_key_get(st->key);
	if (!*k)
		return SDR_KEYNOTEXIST;
	io->rq.key = (*k)->number;
	io->rq.key_kind = CARD_KEY_OBJECT;
	return SDR_OK;
}

static uint32_t piece(struct sdf_session *s, struct sdf_stream *st, unsigned phase,
		      const uint8_t *data, uint32_t len, uint8_t *out, uint32_t *out_len)
{
	static const struct card_hash plain;
	struct card_io io;
	struct sdf_key *k;
	uint32_t status = prepare(st, &io, &plain, &k);

	if (status == SDR_OK) {
		io.out = out;
		io.out_cap = out ? DIGEST_MAX : 0;
		status = send(s, st, &io, phase, data, len);
		if (out_len)
			*out_len = io.out_len;
	}
	sdf_key_put(k);
	return status;
}

static uint32_t add(struct sdf_session *s, struct sdf_stream *st, const uint8_t *in, uint32_t len)
{
	uint32_t status = SDR_OK;

	while (len && status == SDR_OK) {
		uint32_t n = CARD_DATA_MAX - st->data_len;

		if (!st->data_len && len > CARD_DATA_MAX) { /* a full one that need not be copied */
			status = piece(s, st, 0, in, n, NULL, NULL);
		} else {
			n = n < len ? n : len;
			memcpy(st->data + st->data_len, in, n);
			st->data_len += n;
			if (st->data_len == CARD_DATA_MAX && len > n) {
				status = piece(s, st, 0, st->data, CARD_DATA_MAX, NULL, NULL);
				st->data_len = 0;
			}
		}
		in += n;
		len -= n;
	}
	return status;
}

static int update(void *handle, enum sdf_stream_kind kind, const uint8_t *in, uint32_t len)
{
	struct sdf_session *s;
	struct sdf_stream *st;
	uint32_t status = SDR_STEPERR;

	if (!in && len)
		return SDR_INARGERR;
	s = sdf_session_get(handle);
	if (!s)
		return SDR_INARGERR;
	pthread_mutex_lock(&s->lock);
	st = &s->streams[kind];
	if (st->active) {
		status = add(s, st, in, len);
		if (status != SDR_OK)
			sdf_stream_end(s, st);
	}
	pthread_mutex_unlock(&s->lock);
	sdf_put(s);
	return (int)status;
}

static uint32_t digest_bytes(uint32_t alg)
{
	return alg == SGD_SHA1 ? 20 : 32;
}

static int final(void *handle, enum sdf_stream_kind kind, uint8_t *out, unsigned int *out_len)
{
	uint8_t digest[DIGEST_MAX];
	struct sdf_session *s;
	struct sdf_stream *st;
	uint32_t status = SDR_STEPERR, n = 0;

	if (!out_len)
		return SDR_OUTARGERR;
	s = sdf_session_get(handle);
	if (!s)
		return SDR_INARGERR;
	pthread_mutex_lock(&s->lock);
	st = &s->streams[kind];
	if (st->active && !out) {
		n = digest_bytes(st->alg);
		status = SDR_OK;
	} else if (st->active) {
		status = piece(s, st, CARD_PHASE_END, st->data, st->data_len, digest, &n);
		if (status == SDR_OK && n != digest_bytes(st->alg))
			status = SDR_COMMFAIL;
		sdf_stream_end(s, st);
	}
	pthread_mutex_unlock(&s->lock);
	sdf_put(s);
	if (status != SDR_OK)
		return (int)status;
	if (out)
		memcpy(out, digest, n);
	*out_len = n;
	return SDR_OK;
}

/* With room for what is not sent yet; kept from stream to stream. */
static struct sdf_stream *begin(struct sdf_session *s, enum sdf_stream_kind kind, uint32_t alg,
				void *key)
{
	struct sdf_stream *st = sdf_stream_begin(s, kind, alg, key);

	if (!st->data)
		st->data = malloc(CARD_DATA_MAX);
	if (st->data)
		return st;
	sdf_stream_end(s, st);
	return NULL;
}

/* With a public key: SM3 over Z and the message (GB/T 32918.2), asked of the card at once. */
static uint32_t hash_begin(struct sdf_session *s, uint32_t alg, const ECCrefPublicKey *pub,
			   const uint8_t *id, uint32_t id_len)
{
	struct card_hash args = {.id_len = id_len};
	struct card_io io = {.rq = {.op = CARD_OP_HASH, .args_len = sizeof(args)}, .args = &args};
	struct sdf_stream *st = begin(s, SDF_HASH, alg, NULL);
	uint32_t status = SDR_OK;

	if (!st)
		return SDR_NOBUFFER;
	if (id_len) {
		memcpy(&args.pub, pub, sizeof(args.pub));
		memcpy(args.id, id, id_len);
	}
	if (alg != SGD_SM3 || id_len)
		status = send(s, st, &io, 0, NULL, 0);
	if (status != SDR_OK)
		sdf_stream_end(s, st);
	return status;
}

int SDF_HashInit(void *hSessionHandle, unsigned int uiAlgID, ECCrefPublicKey *pucPublicKey,
			unsigned char *pucID, unsigned int uiIDLength)
{
	struct sdf_session *s;
	uint32_t status;

	if (uiIDLength && (!pucID || !pucPublicKey))
		return SDR_INARGERR;
	if (uiIDLength > sizeof(((struct card_hash *)0)->id))
		return SDR_USERIDERR;
	s = sdf_session_get(hSessionHandle);
	if (!s)
		return SDR_INARGERR;
	pthread_mutex_lock(&s->lock);
	status = hash_begin(s, uiAlgID, pucPublicKey, pucID, uiIDLength);
	pthread_mutex_unlock(&s->lock);
	sdf_put(s);
	return (int)status;
}

int SDF_HashUpdate(void *hSessionHandle, unsigned char *pucData, unsigned int uiDataLength)
{
	return update(hSessionHandle, SDF_HASH, pucData, uiDataLength);
}

int SDF_HashFinal(void *hSessionHandle, unsigned char *pucHash, unsigned int *puiHashLength)
{
	return final(hSessionHandle, SDF_HASH, pucHash, puiHashLength);
}

uint32_t sdf_hmac_begin(struct sdf_session *s, void *key, uint32_t alg)
{
	struct sdf_key *k = sdf_key_get(key);
	struct sdf_stream *st;
	uint32_t status = SDR_OK;

	if (!k)
		return SDR_KEYNOTEXIST;
	sdf_key_put(k);
	st = begin(s, SDF_HMAC, alg, key);
	if (!st)
		return SDR_NOBUFFER;
	if (alg != SGD_SM3)
		status = piece(s, st, 0, NULL, 0, NULL, NULL);
	if (status != SDR_OK)
		sdf_stream_end(s, st);
	return status;
}

int SDF_HMACInit(void *hSessionHandle, void *hKeyHandle, unsigned int uiAlgID)
{
	struct sdf_session *s = sdf_session_get(hSessionHandle);
	uint32_t status;

	if (!s)
		return SDR_INARGERR;
	pthread_mutex_lock(&s->lock);
	status = sdf_hmac_begin(s, hKeyHandle, uiAlgID);
	pthread_mutex_unlock(&s->lock);
	sdf_put(s);
	return (int)status;
}

int SDF_HMACUpdate(void *hSessionHandle, unsigned char *pucData, unsigned int uiDataLength)
{
	return update(hSessionHandle, SDF_HMAC, pucData, uiDataLength);
}

int SDF_HMACFinal(void *hSessionHandle, unsigned char *pucHMac, unsigned int *puiHMacLength)
{
	return final(hSessionHandle, SDF_HMAC, pucHMac, puiHMacLength);
}
