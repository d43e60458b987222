/* SPDX-License-Identifier: MIT */
/* Ciphers, MACs and authenticated ciphers, whole and in pieces. */
#include "face/sdf_inside.h"

#include <string.h>

#define BLOCK 16u
#define MODES 0x3fu

/* ECB and CBC take whole blocks only, and so does the MAC. */
static bool needs_blocks(uint32_t alg)
{
	return alg != SGD_SM4_GCM && alg != SGD_SM4_CCM && alg != SGD_SM4_XTS &&
	       (alg & MODES & (SGD_ECB | SGD_CBC | SGD_MAC));
}

static bool needs_iv(uint32_t alg)
{
	return (alg & MODES) != SGD_ECB;
}

/* One request or, for more than one holds, a chain of them. @cc goes on where it ended. */
static uint32_t run(struct sdf_session *s, struct card_io io, void *key, struct card_cipher *cc,
		    uint32_t len, uint32_t want)
{
	struct card_cipher next;
	struct sdf_key *k;
	uint32_t status;

	k = sdf_key_get(key);
	if (!k)
		return SDR_KEYNOTEXIST;
	io.rq.phase = CARD_PHASE_BEGIN | CARD_PHASE_END;
	io.rq.key_kind = CARD_KEY_OBJECT;
	io.rq.key = k->number;
	io.rq.args_len = sizeof(*cc);
	io.args = cc;
	io.out_args = &next;
	io.out_args_cap = sizeof(next);
	io.rq.data_len = len; /* as far as one request goes; else the long call cuts it */
	if (io.rq.alg == SGD_SM4_XTS && len <= CARD_DATA_MAX) {
		io.out_cap = want;
		status = sdf_call(s, &io);
		if (status == SDR_OK && io.out_len != want)
			status = SDR_COMMFAIL;
	} else {
		status = sdf_call_long(s, &io, len, want);
	}
	if (status == SDR_OK && io.out_args_len != sizeof(next))
		status = SDR_COMMFAIL;
	if (status == SDR_OK)
		memcpy(cc->iv, next.iv, sizeof(cc->iv));
	sdf_key_put(k);
	return status;
}

static uint32_t cipher(struct sdf_session *s, void *key, uint32_t alg, struct card_cipher *cc,
		       const uint8_t *in, uint32_t len, uint8_t *out, bool decrypt)
{
	struct card_io io = {.rq = {.op = CARD_OP_CIPHER, .alg = alg,
				    .flags = decrypt ? CARD_FLAG_DECRYPT : 0},
			     .data = in, .out = out};

	return len ? run(s, io, key, cc, len, len) : SDR_OK;
}

uint32_t sdf_cipher(struct sdf_session *s, void *key, uint32_t alg, uint8_t *iv, const uint8_t *in,
		    uint32_t len, uint8_t *out, bool decrypt)
{
	struct card_cipher cc = {.data_unit = 0};
	uint32_t status;

	if ((!in && len) || (needs_blocks(alg) && len % BLOCK) || (needs_iv(alg) && !iv))
		return SDR_INARGERR;
	if (needs_iv(alg))
		memcpy(cc.iv, iv, sizeof(cc.iv));
	status = cipher(s, key, alg, &cc, in, len, out, decrypt);
	if (status == SDR_OK && needs_iv(alg))
		memcpy(iv, cc.iv, sizeof(cc.iv));
	return status;
}

/* No buffer: the caller asks how large it must be. */
static int cipher_call(void *handle, void *key, uint32_t alg, uint8_t *iv, const uint8_t *in,
		       uint32_t len, uint8_t *out, unsigned int *out_len, bool decrypt)
{
	struct sdf_session *s;
	uint32_t status = SDR_OK;

	if (!out_len)
		return SDR_OUTARGERR;
	s = sdf_session_get(handle);
	if (!s)
		return SDR_INARGERR;
	if (out)
		status = sdf_cipher(s, key, alg, iv, in, len, out, decrypt);
	sdf_put(s);
	if (status == SDR_OK)
		*out_len = len;
	return (int)status;
}

int SDF_Encrypt(void *hSessionHandle, void *hKeyHandle, unsigned int uiAlgID,
		       unsigned char *pucIV, unsigned char *pucData, unsigned int uiDataLength,
		       unsigned char *pucEncData, unsigned int *puiEncDataLength)
{
	return cipher_call(hSessionHandle, hKeyHandle, uiAlgID, pucIV, pucData, uiDataLength,
			   pucEncData, puiEncDataLength, false);
}

int SDF_Decrypt(void *hSessionHandle, void *hKeyHandle, unsigned int uiAlgID,
		       unsigned char *pucIV, unsigned char *pucEncData,
		       unsigned int uiEncDataLength, unsigned char *pucData,
		       unsigned int *puiDataLength)
{
	return cipher_call(hSessionHandle, hKeyHandle, uiAlgID, pucIV, pucEncData, uiEncDataLength,
			   pucData, puiDataLength, true);
}

/* A CBC-MAC's value is the IV with which it would go on. */
static uint32_t mac(struct sdf_session *s, void *key, uint32_t alg, struct card_cipher *cc,
		    const uint8_t *in, uint32_t len)
{
	struct card_io io = {.rq = {.op = CARD_OP_MAC, .alg = alg}, .data = in};

	return run(s, io, key, cc, len, 0);
}

int SDF_CalculateMAC(void *hSessionHandle, void *hKeyHandle, unsigned int uiAlgID,
			    unsigned char *pucIV, unsigned char *pucData,
			    unsigned int uiDataLength, unsigned char *pucMac,
			    unsigned int *puiMacLength)
{
	struct card_cipher cc = {.data_unit = 0};
	struct sdf_session *s;
	uint32_t status = SDR_INARGERR;

	if (!puiMacLength)
		return SDR_OUTARGERR;
	s = sdf_session_get(hSessionHandle);
	if (!s)
		return SDR_INARGERR;
	if (!pucMac) {
		status = SDR_OK;
	} else if (pucIV && pucData && uiDataLength && uiDataLength % BLOCK == 0) {
		memcpy(cc.iv, pucIV, sizeof(cc.iv));
		status = mac(s, hKeyHandle, uiAlgID, &cc, pucData, uiDataLength);
	}
	sdf_put(s);
	if (status != SDR_OK)
		return (int)status;
	if (pucMac) {
		memcpy(pucMac, cc.iv, BLOCK);
		memcpy(pucIV, cc.iv, BLOCK);
	}
	*puiMacLength = BLOCK;
	return SDR_OK;
}

/* --- streams: chained requests that carry the IV, so that a lost link loses none of them --- */

void sdf_stream_end(struct sdf_session *s, struct sdf_stream *st)
{
	uint8_t *data = st->data;

	if (st->object && !s->o.closed)
		sdf_drop(s, st->object);
	if (st->passing)
		face_handle_close(st->key, FACE_KEY);
	if (data)
		explicit_bzero(data, st->data_len);
	explicit_bzero(st, sizeof(*st));
	st->data = data;
}

struct sdf_stream *sdf_stream_begin(struct sdf_session *s, enum sdf_stream_kind kind, uint32_t alg,
				    void *key)
{
	struct sdf_stream *st = &s->streams[kind];

	sdf_stream_end(s, st);
	st->active = true;
	st->alg = alg;
	st->key = key;
	return st;
}

/*
 * Whether the card has @alg for this key: one block, whose result nobody sees, the first time that a session
 * asks. Else a stream of pieces that are shorter would be told only at its end.
 */
static uint32_t probe(struct sdf_session *s, void *key, uint32_t alg, enum sdf_stream_kind kind)
{
	uint8_t block[BLOCK] = {0};
	struct card_cipher cc = {.data_unit = 0};
	uint32_t status;

	for (size_t i = 0; i < sizeof(s->known) / sizeof(*s->known); i++)
		if (s->known[i] == alg)
			return SDR_OK;
	status = kind == SDF_MAC ? mac(s, key, alg, &cc, block, BLOCK)
				 : cipher(s, key, alg, &cc, block, BLOCK, block, kind == SDF_DEC);
	if (status == SDR_OK)
		s->known[s->known_next++ % (sizeof(s->known) / sizeof(*s->known))] = alg;
	explicit_bzero(block, sizeof(block));
	return status;
}

uint32_t sdf_cipher_begin(struct sdf_session *s, void *key, uint32_t alg, const uint8_t *iv,
			  uint32_t iv_len, enum sdf_stream_kind kind)
{
	struct sdf_stream *st;
	struct sdf_key *k;
	uint32_t status;

	if (alg == SGD_SM4_GCM || alg == SGD_SM4_CCM || alg == SGD_SM4_XTS)
		return SDR_ALGMODNOTSUPPORT;
	if (needs_iv(alg) && (!iv || iv_len != BLOCK))
		return SDR_INARGERR;
	k = sdf_key_get(key);
	if (!k)
		return SDR_KEYNOTEXIST;
	sdf_key_put(k);
	status = probe(s, key, alg, kind);
	if (status != SDR_OK)
		return status;
	st = sdf_stream_begin(s, kind, alg, key);
	if (needs_iv(alg))
		memcpy(st->iv.iv, iv, BLOCK);
	return SDR_OK;
}

static int stream_init(void *handle, void *key, uint32_t alg, const uint8_t *iv, uint32_t iv_len,
		       enum sdf_stream_kind kind)
{
	struct sdf_session *s = sdf_session_get(handle);
	uint32_t status;

	if (!s)
		return SDR_INARGERR;
	pthread_mutex_lock(&s->lock);
	status = sdf_cipher_begin(s, key, alg, iv, iv_len, kind);
	pthread_mutex_unlock(&s->lock);
	sdf_put(s);
	return (int)status;
}

/*
 * The whole blocks of what was kept and what came, by way of @piece; the rest is kept. A block that
 * is made of both goes by itself: @in is not copied.
 */
typedef uint32_t piece_fn(struct sdf_session *s, struct sdf_stream *st, const uint8_t *in,
			  uint32_t len, uint8_t *out);

static uint32_t blocks(struct sdf_session *s, struct sdf_stream *st, const uint8_t *in,
		       uint32_t len, uint8_t *out, uint32_t *done, piece_fn *piece)
{
	uint32_t status, n;

	*done = 0;
	if (!in)
		return SDR_OK;
	if (st->tail_len && st->tail_len + len >= BLOCK) {
		n = BLOCK - st->tail_len;
		memcpy(st->tail + st->tail_len, in, n);
		status = piece(s, st, st->tail, BLOCK, out);
		if (status != SDR_OK)
			return status;
		st->tail_len = 0;
		in += n;
		len -= n;
		out = out ? out + BLOCK : NULL;
		*done = BLOCK;
	}
	n = st->tail_len ? 0 : len / BLOCK * BLOCK;
	if (n) {
		status = piece(s, st, in, n, out);
		if (status != SDR_OK)
			return status;
		*done += n;
	}
	if (len > n)
		memcpy(st->tail + st->tail_len, in + n, len - n);
	st->tail_len += len - n;
	return SDR_OK;
}

static uint32_t encrypt_piece(struct sdf_session *s, struct sdf_stream *st, const uint8_t *in,
			      uint32_t len, uint8_t *out)
{
	return cipher(s, st->key, st->alg, &st->iv, in, len, out, false);
}

static uint32_t decrypt_piece(struct sdf_session *s, struct sdf_stream *st, const uint8_t *in,
			      uint32_t len, uint8_t *out)
{
	return cipher(s, st->key, st->alg, &st->iv, in, len, out, true);
}

static uint32_t mac_piece(struct sdf_session *s, struct sdf_stream *st, const uint8_t *in,
			  uint32_t len, uint8_t *out)
{
	(void)out;
	return mac(s, st->key, st->alg, &st->iv, in, len);
}

/* A stream whose piece failed is over: what came out before it can't be told. */
static int stream_update(void *handle, enum sdf_stream_kind kind, const uint8_t *in, uint32_t len,
			 uint8_t *out, unsigned int *out_len, piece_fn *piece)
{
	struct sdf_session *s;
	struct sdf_stream *st;
	uint32_t status = SDR_OK, done = 0;

	if ((kind != SDF_MAC && !out_len) || len > UINT32_MAX - BLOCK)
		return SDR_OUTARGERR;
	if (!in && len)
		return SDR_INARGERR;
	s = sdf_session_get(handle);
	if (!s)
		return SDR_INARGERR;
	pthread_mutex_lock(&s->lock);
	st = &s->streams[kind];
	if (!st->active) {
		status = SDR_STEPERR;
	} else if (kind != SDF_MAC && !out) {
		done = (st->tail_len + len) / BLOCK * BLOCK;
	} else {
		status = blocks(s, st, in, len, out, &done, piece);
		if (status != SDR_OK)
			sdf_stream_end(s, st);
	}
	pthread_mutex_unlock(&s->lock);
	sdf_put(s);
	if (status == SDR_OK && out_len)
		*out_len = done;
	return (int)status;
}

static int stream_final(void *handle, enum sdf_stream_kind kind, uint8_t *out,
			unsigned int *out_len, piece_fn *piece)
{
	struct sdf_session *s;
	struct sdf_stream *st;
	uint32_t status = SDR_OK, n = 0;

	if (!out_len)
		return SDR_OUTARGERR;
	s = sdf_session_get(handle);
	if (!s)
		return SDR_INARGERR;
	pthread_mutex_lock(&s->lock);
	st = &s->streams[kind];
	n = kind == SDF_MAC ? BLOCK : st->tail_len;
	if (!st->active)
		status = SDR_STEPERR;
	else if (out || !n) {
		if (st->tail_len && needs_blocks(st->alg))
			status = SDR_INARGERR;
		else if (kind == SDF_MAC)
			memcpy(out, st->iv.iv, BLOCK);
		else if (n)
			status = piece(s, st, st->tail, n, out);
		sdf_stream_end(s, st);
	}
	pthread_mutex_unlock(&s->lock);
	sdf_put(s);
	if (status == SDR_OK)
		*out_len = n;
	return (int)status;
}

int SDF_EncryptInit(void *hSessionHandle, void *hKeyHandle, unsigned int uiAlgID,
			   unsigned char *pucIV, unsigned int uiIVLength)
{
	return stream_init(hSessionHandle, hKeyHandle, uiAlgID, pucIV, uiIVLength, SDF_ENC);
}

int SDF_EncryptUpdate(void *hSessionHandle, unsigned char *pucData,
			     unsigned int uiDataLength, unsigned char *pucEncData,
			     unsigned int *puiEncDataLength)
{
	return stream_update(hSessionHandle, SDF_ENC, pucData, uiDataLength, pucEncData,
			     puiEncDataLength, encrypt_piece);
}

int SDF_EncryptFinal(void *hSessionHandle, unsigned char *pucLastEncData,
			    unsigned int *puiLastEncDataLength)
{
	return stream_final(hSessionHandle, SDF_ENC, pucLastEncData, puiLastEncDataLength,
			    encrypt_piece);
}

int SDF_DecryptInit(void *hSessionHandle, void *hKeyHandle, unsigned int uiAlgID,
			   unsigned char *pucIV, unsigned int uiIVLength)
{
	return stream_init(hSessionHandle, hKeyHandle, uiAlgID, pucIV, uiIVLength, SDF_DEC);
}

int SDF_DecryptUpdate(void *hSessionHandle, unsigned char *pucEncData,
			     unsigned int uiEncDataLength, unsigned char *pucData,
			     unsigned int *puiDataLength)
{
	return stream_update(hSessionHandle, SDF_DEC, pucEncData, uiEncDataLength, pucData,
			     puiDataLength, decrypt_piece);
}

int SDF_DecryptFinal(void *hSessionHandle, unsigned char *pucLastData,
			    unsigned int *puiLastDataLength)
{
	return stream_final(hSessionHandle, SDF_DEC, pucLastData, puiLastDataLength, decrypt_piece);
}

int SDF_CalculateMACInit(void *hSessionHandle, void *hKeyHandle, unsigned int uiAlgID,
				unsigned char *pucIV, unsigned int uiIVLength)
{
	return stream_init(hSessionHandle, hKeyHandle, uiAlgID, pucIV, uiIVLength, SDF_MAC);
}

int SDF_CalculateMACUpdate(void *hSessionHandle, unsigned char *pucData,
				  unsigned int uiDataLength)
{
	return stream_update(hSessionHandle, SDF_MAC, pucData, uiDataLength, NULL, NULL, mac_piece);
}

int SDF_CalculateMACFinal(void *hSessionHandle, unsigned char *pucMac,
				 unsigned int *puiMacLength)
{
	return stream_final(hSessionHandle, SDF_MAC, pucMac, puiMacLength, mac_piece);
}

/* --- authenticated: a real stream in the card, never sent twice --- */

/* The parameters all four share. */
struct auth {
	uint32_t alg;
	const uint8_t *nonce, *aad;
	uint32_t nonce_len, aad_len;
};

static uint32_t auth_args(const struct auth *a, struct card_aead *args)
{
	if (!a->nonce || !a->nonce_len || a->nonce_len > sizeof(args->nonce) ||
	    (!a->aad && a->aad_len))
		return SDR_INARGERR;
	memset(args, 0, sizeof(*args));
	memcpy(args->nonce, a->nonce, a->nonce_len);
	args->nonce_len = a->nonce_len;
	args->tag_len = sizeof(args->tag);
	return SDR_OK;
}

/* All in one, or as long as it is. */
static uint32_t auth_whole(struct sdf_session *s, void *key, const struct auth *a,
			   struct card_aead *args, const uint8_t *in, uint32_t len, uint8_t *out,
			   bool decrypt)
{
	struct card_aead answer;
	struct card_io io = {.rq = {.op = CARD_OP_AEAD, .alg = a->alg,
				    .phase = CARD_PHASE_BEGIN | CARD_PHASE_END,
				    .flags = decrypt ? CARD_FLAG_DECRYPT : 0,
				    .key_kind = CARD_KEY_OBJECT, .args_len = sizeof(*args),
				    .data_len = a->aad_len},
			     .args = args, .data = a->aad, .data2 = in, .data2_len = len,
			     .out = out, .out_args = &answer, .out_args_cap = sizeof(answer)};
	struct sdf_key *k = sdf_key_get(key);
	uint32_t status;

	if (!k)
		return SDR_KEYNOTEXIST;
	io.rq.key = k->number;
	args->aad_len = a->aad_len;
	status = sdf_call_long(s, &io, len, len);
	if (status == SDR_OK && io.out_args_len != sizeof(answer))
		status = SDR_COMMFAIL;
	if (status == SDR_OK)
		memcpy(args->tag, answer.tag, sizeof(args->tag));
	sdf_key_put(k);
	return status;
}

int SDF_AuthEnc(void *hSessionHandle, void *hKeyHandle, unsigned int uiAlgID,
		       unsigned char *pucStartVar, unsigned int uiStartVarLength,
		       unsigned char *pucAad, unsigned int uiAadLength, unsigned char *pucData,
		       unsigned int uiDataLength, unsigned char *pucEncData,
		       unsigned int *puiEncDataLength, unsigned char *pucAuthData,
		       unsigned int *puiAuthDataLength)
{
	const struct auth a = {uiAlgID, pucStartVar, pucAad, uiStartVarLength, uiAadLength};
	struct card_aead args;
	struct sdf_session *s;
	uint32_t status;

	if (!puiEncDataLength || !puiAuthDataLength || (!pucEncData && uiDataLength && pucAuthData))
		return SDR_OUTARGERR;
	if (!pucData && uiDataLength)
		return SDR_INARGERR;
	s = sdf_session_get(hSessionHandle);
	if (!s)
		return SDR_INARGERR;
	status = auth_args(&a, &args);
	if (status == SDR_OK && pucAuthData)
		status = auth_whole(s, hKeyHandle, &a, &args, pucData, uiDataLength, pucEncData, false);
	sdf_put(s);
	if (status != SDR_OK)
		return (int)status;
	if (pucAuthData)
		memcpy(pucAuthData, args.tag, sizeof(args.tag));
	*puiEncDataLength = uiDataLength;
	*puiAuthDataLength = sizeof(args.tag);
	return SDR_OK;
}

int SDF_AuthDec(void *hSessionHandle, void *hKeyHandle, unsigned int uiAlgID,
		       unsigned char *pucStartVar, unsigned int uiStartVarLength,
		       unsigned char *pucAad, unsigned int uiAadLength, unsigned char *pucAuthData,
		       unsigned int uiAuthDataLength, unsigned char *pucEncData,
		       unsigned int uiEncDataLength, unsigned char *pucData,
		       unsigned int *puiDataLength)
{
	const struct auth a = {uiAlgID, pucStartVar, pucAad, uiStartVarLength, uiAadLength};
	struct card_aead args;
	struct sdf_session *s;
	uint32_t status;

	if (!puiDataLength)
		return SDR_OUTARGERR;
	if ((!pucEncData && uiEncDataLength) || !pucAuthData || !uiAuthDataLength ||
	    uiAuthDataLength > sizeof(args.tag))
		return SDR_INARGERR;
	s = sdf_session_get(hSessionHandle);
	if (!s)
		return SDR_INARGERR;
	status = auth_args(&a, &args);
	if (status == SDR_OK && (pucData || !uiEncDataLength)) {
		args.tag_len = uiAuthDataLength;
		memcpy(args.tag, pucAuthData, uiAuthDataLength);
		status = auth_whole(s, hKeyHandle, &a, &args, pucEncData, uiEncDataLength, pucData, true);
		if (status != SDR_OK && pucData) /* what was not authentic is nobody's */
			memset(pucData, 0, uiEncDataLength);
	}
	sdf_put(s);
	if (status == SDR_OK)
		*puiDataLength = uiEncDataLength;
	return (int)status;
}

/* BEGIN, and what of the additional data does not go with it. */
static uint32_t auth_begin(struct sdf_session *s, struct sdf_stream *st, struct sdf_key *k,
			   const struct auth *a, struct card_aead *args, bool decrypt)
{
	uint32_t first = a->aad_len < CARD_DATA_MAX ? a->aad_len : CARD_DATA_MAX, at = first;
	struct card_io io = {.rq = {.op = CARD_OP_AEAD, .alg = a->alg, .phase = CARD_PHASE_BEGIN,
				    .flags = decrypt ? CARD_FLAG_DECRYPT : 0,
				    .key_kind = CARD_KEY_OBJECT, .key = k->number,
				    .args_len = sizeof(*args), .data_len = first},
			     .args = args, .data = a->aad};
	struct card_aead answer;
	uint32_t status;

	args->aad_len = first;
	io.out_args = &answer;
	io.out_args_cap = sizeof(answer);
	status = sdf_call(s, &io);
	st->object = status == SDR_OK ? io.object : 0;
	while (status == SDR_OK && at < a->aad_len) {
		uint32_t n = a->aad_len - at < CARD_DATA_MAX ? a->aad_len - at : CARD_DATA_MAX;
		struct card_io more = {.rq = {.op = CARD_OP_AEAD, .phase = CARD_PHASE_AAD,
					      .object = st->object, .data_len = n},
				       .data = a->aad + at, .out_args = &answer,
				       .out_args_cap = sizeof(answer)};

		status = sdf_call(s, &more);
		at += n;
	}
	return status;
}

static uint32_t auth_init(struct sdf_session *s, void *key, const struct auth *a, const uint8_t *tag,
			  uint32_t tag_len, uint32_t total)
{
	struct sdf_key *k;
	struct sdf_stream *st;
	struct card_aead args;
	uint32_t status = auth_args(a, &args);

	if (status != SDR_OK)
		return status;
	k = sdf_key_get(key);
	if (!k)
		return SDR_KEYNOTEXIST;
	args.aad_total = a->aad_len;
	args.text_total = total;
	st = sdf_stream_begin(s, tag ? SDF_ADEC : SDF_AENC, a->alg, key);
	if (tag) {
		args.tag_len = st->tag_len = tag_len;
		memcpy(st->tag, tag, tag_len);
		memcpy(args.tag, tag, tag_len); /* cards of the standard want it before the text */
	}
	status = auth_begin(s, st, k, a, &args, tag);
	if (status != SDR_OK)
		sdf_stream_end(s, st);
	sdf_key_put(k);
	return status;
}

int SDF_AuthEncInit(void *hSessionHandle, void *hKeyHandle, unsigned int uiAlgID,
			   unsigned char *pucStartVar, unsigned int uiStartVarLength,
			   unsigned char *pucAad, unsigned int uiAadLength,
			   unsigned int uiDataLength)
{
	const struct auth a = {uiAlgID, pucStartVar, pucAad, uiStartVarLength, uiAadLength};
	struct sdf_session *s = sdf_session_get(hSessionHandle);
	uint32_t status;

	if (!s)
		return SDR_INARGERR;
	pthread_mutex_lock(&s->lock);
	status = auth_init(s, hKeyHandle, &a, NULL, 0, uiDataLength);
	pthread_mutex_unlock(&s->lock);
	sdf_put(s);
	return (int)status;
}

int SDF_AuthDecInit(void *hSessionHandle, void *hKeyHandle, unsigned int uiAlgID,
			   unsigned char *pucStartVar, unsigned int uiStartVarLength,
			   unsigned char *pucAad, unsigned int uiAadLength,
			   unsigned char *pucAuthData, unsigned int uiAuthDataLength,
			   unsigned int uiDataLength)
{
	const struct auth a = {uiAlgID, pucStartVar, pucAad, uiStartVarLength, uiAadLength};
	struct sdf_session *s;
	uint32_t status;

	if (!pucAuthData || !uiAuthDataLength || uiAuthDataLength > sizeof(s->streams[0].tag))
		return SDR_INARGERR;
	s = sdf_session_get(hSessionHandle);
	if (!s)
		return SDR_INARGERR;
	pthread_mutex_lock(&s->lock);
	status = auth_init(s, hKeyHandle, &a, pucAuthData, uiAuthDataLength, uiDataLength);
	pthread_mutex_unlock(&s->lock);
	sdf_put(s);
	return (int)status;
}

static uint32_t auth_piece(struct sdf_session *s, struct sdf_stream *st, const uint8_t *in,
			   uint32_t len, uint8_t *out)
{
	struct card_aead answer;
	uint32_t status = SDR_OK;

	for (uint32_t at = 0, n; status == SDR_OK && at < len; at += n) {
		struct card_io io = {.rq = {.op = CARD_OP_AEAD, .object = st->object},
				     .data = in + at, .out = out + at, .out_args = &answer,
				     .out_args_cap = sizeof(answer)};

		n = len - at < CARD_DATA_MAX ? len - at : CARD_DATA_MAX;
		io.rq.data_len = io.out_cap = n;
		status = sdf_call(s, &io);
		if (status == SDR_OK && io.out_len != n)
			status = SDR_COMMFAIL;
	}
	return status;
}

static uint32_t auth_end(struct sdf_session *s, struct sdf_stream *st, uint8_t *out, uint8_t *tag)
{
	struct card_aead args = {.tag_len = st->tag_len}, answer;
	struct card_io io = {.rq = {.op = CARD_OP_AEAD, .phase = CARD_PHASE_END,
				    .object = st->object, .data_len = st->tail_len},
			     .data = st->tail, .out = out, .out_cap = st->tail_len,
			     .out_args = &answer, .out_args_cap = sizeof(answer)};
	uint32_t status;

	if (!tag) {
		io.rq.args_len = sizeof(args);
		io.args = &args;
		memcpy(args.tag, st->tag, sizeof(args.tag));
	}
	status = sdf_call(s, &io);
	st->object = 0; /* an end is the end, well or not */
	if (status == SDR_OK && (io.out_len != st->tail_len || io.out_args_len != sizeof(answer)))
		status = SDR_COMMFAIL;
	if (status == SDR_OK && tag)
		memcpy(tag, answer.tag, sizeof(answer.tag));
	return status;
}

static int auth_final(void *handle, enum sdf_stream_kind kind, uint8_t *out, unsigned int *out_len,
		      uint8_t *tag)
{
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
	n = st->tail_len;
	if (st->active && n && !out) {
		status = SDR_OUTARGERR;
	} else if (st->active) {
		status = auth_end(s, st, out, tag);
		sdf_stream_end(s, st);
	}
	pthread_mutex_unlock(&s->lock);
	sdf_put(s);
	if (status == SDR_OK)
		*out_len = n;
	return (int)status;
}

int SDF_AuthEncUpdate(void *hSessionHandle, unsigned char *pucData,
			     unsigned int uiDataLength, unsigned char *pucEncData,
			     unsigned int *puiEncDataLength)
{
	return stream_update(hSessionHandle, SDF_AENC, pucData, uiDataLength, pucEncData,
			     puiEncDataLength, auth_piece);
}

int SDF_AuthEncFinal(void *hSessionHandle, unsigned char *pucLastEncData,
			    unsigned int *puiLastEncDataLength, unsigned char *pucAuthData,
			    unsigned int *puiAuthDataLength)
{
	int status;

	if (!pucAuthData || !puiAuthDataLength)
		return SDR_OUTARGERR;
	status = auth_final(hSessionHandle, SDF_AENC, pucLastEncData, puiLastEncDataLength,
			    pucAuthData);
	if (status == SDR_OK)
		*puiAuthDataLength = BLOCK;
	return status;
}

int SDF_AuthDecUpdate(void *hSessionHandle, unsigned char *pucEncData,
			     unsigned int uiEncDataLength, unsigned char *pucData,
			     unsigned int *puiDataLength)
{
	return stream_update(hSessionHandle, SDF_ADEC, pucEncData, uiEncDataLength, pucData,
			     puiDataLength, auth_piece);
}

int SDF_AuthDecFinal(void *hSessionHandle, unsigned char *pucLastData,
			    unsigned int *puiLastDataLength)
{
	return auth_final(hSessionHandle, SDF_ADEC, pucLastData, puiLastDataLength, NULL);
}
