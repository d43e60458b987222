/* SPDX-License-Identifier: MIT */
/* Keys: exported, made, taken, agreed on, destroyed. */
#include "face/sdf_inside.h"

#include <stdlib.h>
#include <string.h>

#define KEY_BYTES_MAX 256u /* of a session key: more than any card makes */

struct sdf_key *sdf_key_get(void *handle)
{
	return (struct sdf_key *)face_handle_get(handle, FACE_KEY);
}

void sdf_key_put(struct sdf_key *k)
{
	if (k)
		face_object_put(&k->o);
}

uint32_t sdf_drop(struct sdf_session *s, uint32_t number)
{
	struct card_io io = {.rq = {.op = CARD_OP_DROP, .object = number}};

	return sdf_call(s, &io);
}

static void key_gone(struct face_object *o)
{
	struct sdf_key *k = (struct sdf_key *)o;

	if (!k->session->o.closed)
		sdf_drop(k->session, k->number);
	free(k);
}

uint32_t sdf_key_new(struct sdf_session *s, enum face_kind kind, uint32_t number, void **handle)
{
	struct sdf_key *k = calloc(1, sizeof(*k));

	*handle = NULL;
	if (k) {
		k->o.kind = kind;
		k->o.gone = key_gone;
		k->session = s;
		k->number = number;
		*handle = face_handle_new(&k->o, &s->o);
	}
	if (*handle)
		return SDR_OK;
	free(k);
	sdf_drop(s, number);
	return SDR_NOBUFFER;
}

uint32_t sdf_key_take(struct sdf_session *s, const uint8_t *key, uint32_t len, void **handle)
{
	struct card_wrap wrap = {.by = CARD_WRAP_PLAIN};
	struct card_io io = {.rq = {.op = CARD_OP_KEY_TAKE, .key_kind = CARD_KEY_GIVEN,
				    .args_len = sizeof(wrap), .data_len = len},
			     .args = &wrap, .data = key};
	uint32_t status;

	*handle = NULL;
	if (!key || !len || len > KEY_BYTES_MAX)
		return SDR_INARGERR;
	status = sdf_call(s, &io);
	if (status != SDR_OK)
		return status;
	return io.object ? sdf_key_new(s, FACE_KEY, io.object, handle) : SDR_COMMFAIL;
}

/* --- public keys --- */

static uint32_t export_public(void *handle, uint32_t index, uint32_t alg, void *out, size_t size)
{
	struct card_io io = {.rq = {.op = CARD_OP_PUBLIC, .key = index, .key_kind = CARD_KEY_INDEX,
				    .alg = alg},
			     .out_cap = (uint32_t)size};
	uint8_t room[sizeof(struct sdf_rsa_public)];
	struct sdf_session *s;
	uint32_t status;

	if (!out)
		return SDR_OUTARGERR;
	s = index ? sdf_session_get(handle) : NULL;
	if (!s)
		return SDR_INARGERR;
	io.out = room;
	status = sdf_call(s, &io);
	sdf_put(s);
	if (status == SDR_OK && io.out_len != size)
		status = SDR_COMMFAIL;
	if (status == SDR_OK)
		memcpy(out, room, size);
	return status;
}

int SDF_ExportSignPublicKey_RSA(void *hSessionHandle, unsigned int uiKeyIndex,
				       RSArefPublicKey *pucPublicKey)
{
	return (int)export_public(hSessionHandle, uiKeyIndex, SGD_RSA_SIGN, pucPublicKey,
				  sizeof(*pucPublicKey));
}

int SDF_ExportEncPublicKey_RSA(void *hSessionHandle, unsigned int uiKeyIndex,
				      RSArefPublicKey *pucPublicKey)
{
	return (int)export_public(hSessionHandle, uiKeyIndex, SGD_RSA_ENC, pucPublicKey,
				  sizeof(*pucPublicKey));
}

int SDF_ExportSignPublicKey_ECC(void *hSessionHandle, unsigned int uiKeyIndex,
				       ECCrefPublicKey *pucPublicKey)
{
	return (int)export_public(hSessionHandle, uiKeyIndex, SGD_SM2_SIGN, pucPublicKey,
				  sizeof(*pucPublicKey));
}

int SDF_ExportEncPublicKey_ECC(void *hSessionHandle, unsigned int uiKeyIndex,
				      ECCrefPublicKey *pucPublicKey)
{
	return (int)export_public(hSessionHandle, uiKeyIndex, SGD_SM2_ENC, pucPublicKey,
				  sizeof(*pucPublicKey));
}

/* --- pairs that leave the card --- */

static uint32_t pair(void *handle, uint32_t alg, uint32_t bits, void *pub, size_t pub_size,
		     void *priv, size_t priv_size)
{
	struct card_pair args = {.bits = bits};
	uint8_t room[sizeof(struct sdf_rsa_public) + sizeof(struct sdf_rsa_private)];
	struct card_io io = {.rq = {.op = CARD_OP_PAIR, .alg = alg, .args_len = sizeof(args)},
			     .args = &args, .out = room, .out_cap = (uint32_t)(pub_size + priv_size)};
	struct sdf_session *s;
	uint32_t status;

	if (!pub || !priv)
		return SDR_OUTARGERR;
	s = sdf_session_get(handle);
	if (!s)
		return SDR_INARGERR;
	status = sdf_call(s, &io);
	sdf_put(s);
	if (status == SDR_OK && io.out_len != pub_size + priv_size)
		status = SDR_COMMFAIL;
	if (status == SDR_OK) {
		memcpy(pub, room, pub_size);
		memcpy(priv, room + pub_size, priv_size);
	}
	explicit_bzero(room, sizeof(room));
	return status;
}

int SDF_GenerateKeyPair_RSA(void *hSessionHandle, unsigned int uiKeyBits,
				   RSArefPublicKey *pucPublicKey, RSArefPrivateKey *pucPrivateKey)
{
	if (!uiKeyBits || uiKeyBits > RSAref_MAX_BITS)
		return SDR_INARGERR;
	return (int)pair(hSessionHandle, SGD_RSA, uiKeyBits, pucPublicKey, sizeof(*pucPublicKey),
			 pucPrivateKey, sizeof(*pucPrivateKey));
}

int SDF_GenerateKeyPair_ECC(void *hSessionHandle, unsigned int uiAlgID,
				   unsigned int uiKeyBits, ECCrefPublicKey *pucPublicKey,
				   ECCrefPrivateKey *pucPrivateKey)
{
	return (int)pair(hSessionHandle, uiAlgID, uiKeyBits, pucPublicKey, sizeof(*pucPublicKey),
			 pucPrivateKey, sizeof(*pucPrivateKey));
}

/* --- session keys, wrapped --- */

/*
 * A request of the three that wrap: @wrap tells how, @data what it needs. @out has room for @cap
 * bytes; *@out_len what came, and exactly @exact bytes if that is not 0. @made: the new key's handle, or NULL.
 */
struct wrapping {
	uint16_t op;
	uint8_t key_kind;
	uint32_t key, alg;
	struct card_wrap wrap;
	const void *data;
	uint32_t data_len;
	void *out;
	uint32_t cap, out_len;
	void **made;
};

static uint32_t wrapping(void *handle, struct wrapping *w)
{
	struct card_io io = {.rq = {.op = w->op, .key_kind = w->key_kind, .key = w->key,
				    .alg = w->alg, .args_len = sizeof(w->wrap),
				    .data_len = w->data_len},
			     .args = &w->wrap, .data = w->data, .out = w->out, .out_cap = w->cap};
	struct sdf_session *s;
	uint32_t status;

	if (w->made)
		*w->made = NULL;
	if (w->key_kind == CARD_KEY_INDEX && !w->key)
		return SDR_INARGERR;
	s = sdf_session_get(handle);
	if (!s)
		return SDR_INARGERR;
	status = sdf_call(s, &io);
	w->out_len = io.out_len;
	if (status == SDR_OK && w->made)
		status = io.object ? sdf_key_new(s, FACE_KEY, io.object, w->made) : SDR_COMMFAIL;
	sdf_put(s);
	return status;
}

/* An ECCCipher that came holds as many bytes as it says. */
static uint32_t take_ecc_cipher(ECCCipher *to, const struct sdf_ecc_cipher *from, uint32_t len,
				uint32_t room)
{
	if (len < sizeof(*from) || from->length != len - sizeof(*from) || from->length > room)
		return SDR_COMMFAIL;
	memcpy(to, from, len);
	return SDR_OK;
}

static uint32_t key_bytes(uint32_t bits)
{
	return bits && bits % 8 == 0 && bits / 8 <= KEY_BYTES_MAX ? bits / 8 : 0;
}

/* The handle is given away only together with a wrapped key that can be used. */
static uint32_t make_ecc(void *handle, struct wrapping w, ECCCipher *out, uint32_t bits, void **made)
{
	union {
		struct sdf_ecc_cipher c;
		uint8_t room[sizeof(struct sdf_ecc_cipher) + KEY_BYTES_MAX];
	} u;
	uint32_t status, n = key_bytes(bits);

	if (!out || !made)
		return SDR_OUTARGERR;
	if (!n)
		return SDR_INARGERR;
	w.op = CARD_OP_KEY_MAKE;
	w.alg = w.alg ? w.alg : SGD_SM2_ENC;
	w.wrap.family = SGD_SM2;
	w.wrap.bits = bits;
	w.out = &u;
	w.cap = (uint32_t)sizeof(u.c) + n;
	w.made = made;
	status = wrapping(handle, &w);
	if (status == SDR_OK && (status = take_ecc_cipher(out, &u.c, w.out_len, n)) != SDR_OK) {
		face_handle_close(*made, FACE_KEY);
		*made = NULL;
	}
	return status;
}

int SDF_GenerateKeyWithIPK_ECC(void *hSessionHandle, unsigned int uiIPKIndex,
				      unsigned int uiKeyBits, ECCCipher *pucKey, void **phKeyHandle)
{
	struct wrapping w = {.key_kind = CARD_KEY_INDEX, .key = uiIPKIndex,
			     .wrap = {.by = CARD_WRAP_INTERNAL}};

	return (int)make_ecc(hSessionHandle, w, pucKey, uiKeyBits, phKeyHandle);
}

int SDF_GenerateKeyWithEPK_ECC(void *hSessionHandle, unsigned int uiKeyBits,
				      unsigned int uiAlgID, ECCrefPublicKey *pucPublicKey,
				      ECCCipher *pucKey, void **phKeyHandle)
{
	struct wrapping w = {.key_kind = CARD_KEY_GIVEN, .alg = uiAlgID,
			     .wrap = {.by = CARD_WRAP_EXTERNAL}};

	if (!pucPublicKey)
		return SDR_INARGERR;
	memcpy(&w.wrap.pub, pucPublicKey, sizeof(w.wrap.pub));
	return (int)make_ecc(hSessionHandle, w, pucKey, uiKeyBits, phKeyHandle);
}

int SDF_ImportKeyWithISK_ECC(void *hSessionHandle, unsigned int uiISKIndex,
				    ECCCipher *pucKey, void **phKeyHandle)
{
	struct wrapping w = {.op = CARD_OP_KEY_TAKE, .key_kind = CARD_KEY_INDEX, .key = uiISKIndex,
			     .alg = SGD_SM2_ENC, .data = pucKey, .made = phKeyHandle,
			     .wrap = {.by = CARD_WRAP_INTERNAL, .family = SGD_SM2}};

	if (!phKeyHandle)
		return SDR_OUTARGERR;
	if (!pucKey || !pucKey->L || pucKey->L > KEY_BYTES_MAX)
		return SDR_INARGERR;
	w.data_len = (uint32_t)offsetof(ECCCipher, C) + pucKey->L;
	return (int)wrapping(hSessionHandle, &w);
}

int SDF_ExchangeDigitEnvelopeBaseOnECC(void *hSessionHandle, unsigned int uiKeyIndex,
					      unsigned int uiAlgID, ECCrefPublicKey *pucPublicKey,
					      ECCCipher *pucEncDataIn, ECCCipher *pucEncDataOut)
{
	union {
		struct sdf_ecc_cipher c;
		uint8_t room[CARD_DATA_MAX];
	} u;
	struct wrapping w = {.op = CARD_OP_KEY_EXCHANGE, .key_kind = CARD_KEY_INDEX,
			     .key = uiKeyIndex, .alg = uiAlgID, .data = pucEncDataIn, .out = &u,
			     .wrap = {.by = CARD_WRAP_INTERNAL, .family = SGD_SM2}};
	uint32_t status;

	if (!pucEncDataOut)
		return SDR_OUTARGERR;
	if (!pucPublicKey || !pucEncDataIn || pucEncDataIn->L > sizeof(u) - sizeof(u.c))
		return SDR_INARGERR;
	memcpy(&w.wrap.pub, pucPublicKey, sizeof(w.wrap.pub));
	w.data_len = w.cap = (uint32_t)sizeof(u.c) + pucEncDataIn->L;
	status = wrapping(hSessionHandle, &w);
	return (int)(status ? status : take_ecc_cipher(pucEncDataOut, &u.c, w.out_len, w.cap));
}

/* RSA and KEK: @out has the room of a modulus; NULL asks how much that may be. */
static uint32_t make_bytes(void *handle, struct wrapping w, uint8_t *out, uint32_t *out_len,
			   uint32_t bits, void **made)
{
	uint8_t room[RSA_FIELD > KEY_BYTES_MAX + 16 ? RSA_FIELD : KEY_BYTES_MAX + 16];
	uint32_t status;

	if (!out || !out_len || !made)
		return SDR_OUTARGERR;
	if (!key_bytes(bits))
		return SDR_INARGERR;
	w.op = CARD_OP_KEY_MAKE;
	w.wrap.bits = bits;
	w.out = room;
	w.made = made;
	status = wrapping(handle, &w);
	if (status == SDR_OK) {
		memcpy(out, room, w.out_len);
		*out_len = w.out_len;
	}
	return status;
}

int SDF_GenerateKeyWithIPK_RSA(void *hSessionHandle, unsigned int uiIPKIndex,
				      unsigned int uiKeyBits, unsigned char *pucKey,
				      unsigned int *puiKeyLength, void **phKeyHandle)
{
	struct wrapping w = {.key_kind = CARD_KEY_INDEX, .key = uiIPKIndex, .alg = SGD_RSA_ENC,
			     .wrap = {.by = CARD_WRAP_INTERNAL, .family = SGD_RSA}, .cap = RSA_FIELD};

	return (int)make_bytes(hSessionHandle, w, pucKey, puiKeyLength, uiKeyBits, phKeyHandle);
}

int SDF_GenerateKeyWithEPK_RSA(void *hSessionHandle, unsigned int uiKeyBits,
				      RSArefPublicKey *pucPublicKey, unsigned char *pucKey,
				      unsigned int *puiKeyLength, void **phKeyHandle)
{
	struct wrapping w = {.key_kind = CARD_KEY_GIVEN, .alg = SGD_RSA_ENC, .data = pucPublicKey,
			     .data_len = sizeof(*pucPublicKey), .cap = RSA_FIELD,
			     .wrap = {.by = CARD_WRAP_EXTERNAL, .family = SGD_RSA}};

	if (!pucPublicKey)
		return SDR_INARGERR;
	return (int)make_bytes(hSessionHandle, w, pucKey, puiKeyLength, uiKeyBits, phKeyHandle);
}

/* A card pads a key by a block at most. */
int SDF_GenerateKeyWithKEK(void *hSessionHandle, unsigned int uiKeyBits,
				  unsigned int uiAlgID, unsigned int uiKEKIndex,
				  unsigned char *pucKey, unsigned int *puiKeyLength,
				  void **phKeyHandle)
{
	struct wrapping w = {.key_kind = CARD_KEY_INDEX, .key = uiKEKIndex, .alg = uiAlgID,
			     .wrap = {.by = CARD_WRAP_KEK}, .cap = key_bytes(uiKeyBits) + 16};

	return (int)make_bytes(hSessionHandle, w, pucKey, puiKeyLength, uiKeyBits, phKeyHandle);
}

static uint32_t take_bytes(void *handle, struct wrapping *w, const uint8_t *key, uint32_t len,
			   void **made)
{
	if (!made)
		return SDR_OUTARGERR;
	if (!key || !len || len > CARD_DATA_MAX)
		return SDR_INARGERR;
	w->op = CARD_OP_KEY_TAKE;
	w->data = key;
	w->data_len = len;
	w->made = made;
	return wrapping(handle, w);
}

int SDF_ImportKeyWithISK_RSA(void *hSessionHandle, unsigned int uiISKIndex,
				    unsigned char *pucKey, unsigned int uiKeyLength,
				    void **phKeyHandle)
{
	struct wrapping w = {.key_kind = CARD_KEY_INDEX, .key = uiISKIndex, .alg = SGD_RSA_ENC,
			     .wrap = {.by = CARD_WRAP_INTERNAL, .family = SGD_RSA}};

	return (int)take_bytes(hSessionHandle, &w, pucKey, uiKeyLength, phKeyHandle);
}

int SDF_ImportKeyWithKEK(void *hSessionHandle, unsigned int uiAlgID, unsigned int uiKEKIndex,
				unsigned char *pucKey, unsigned int uiKeyLength, void **phKeyHandle)
{
	struct wrapping w = {.key_kind = CARD_KEY_INDEX, .key = uiKEKIndex, .alg = uiAlgID,
			     .wrap = {.by = CARD_WRAP_KEK}};

	return (int)take_bytes(hSessionHandle, &w, pucKey, uiKeyLength, phKeyHandle);
}

int SDF_ImportKey(void *hSessionHandle, unsigned char *pucKey, unsigned int uiKeyLength,
			 void **phKeyHandle)
{
	struct sdf_session *s;
	uint32_t status;

	if (!phKeyHandle)
		return SDR_OUTARGERR;
	*phKeyHandle = NULL;
	s = sdf_session_get(hSessionHandle);
	if (!s)
		return SDR_INARGERR;
	status = sdf_key_take(s, pucKey, uiKeyLength, phKeyHandle);
	sdf_put(s);
	return (int)status;
}

int SDF_ExchangeDigitEnvelopeBaseOnRSA(void *hSessionHandle, unsigned int uiKeyIndex,
					      RSArefPublicKey *pucPublicKey,
					      unsigned char *pucDEInput, unsigned int uiDELength,
					      unsigned char *pucDEOutput,
					      unsigned int *puiDELength)
{
	uint8_t in[sizeof(*pucPublicKey) + EXRSA_FIELD], out[RSA_FIELD];
	struct wrapping w = {.op = CARD_OP_KEY_EXCHANGE, .key_kind = CARD_KEY_INDEX,
			     .key = uiKeyIndex, .alg = SGD_RSA_ENC, .data = in,
			     .data_len = (uint32_t)sizeof(*pucPublicKey) + uiDELength, .out = out,
			     .cap = sizeof(out),
			     .wrap = {.by = CARD_WRAP_INTERNAL, .family = SGD_RSA}};
	uint32_t status;

	if (!pucDEOutput || !puiDELength)
		return SDR_OUTARGERR;
	if (!pucPublicKey || !pucDEInput || !uiDELength || uiDELength > EXRSA_FIELD)
		return SDR_INARGERR;
	memcpy(in, pucPublicKey, sizeof(*pucPublicKey));
	memcpy(in + sizeof(*pucPublicKey), pucDEInput, uiDELength);
	status = wrapping(hSessionHandle, &w);
	if (status == SDR_OK) {
		memcpy(pucDEOutput, out, w.out_len);
		*puiDELength = w.out_len;
	}
	return (int)status;
}

/* --- key agreement (GB/T 32918.3) --- */

static uint32_t agree(struct sdf_session *s, struct card_io *io, const struct card_agree *args,
		      const uint8_t *own, const uint8_t *peer, struct card_agree *answer)
{
	uint32_t status;

	if ((!own && args->own_id_len) || (!peer && args->peer_id_len) ||
	    args->own_id_len > CARD_DATA_MAX / 2 || args->peer_id_len > CARD_DATA_MAX / 2)
		return SDR_INARGERR;
	io->rq.op = CARD_OP_AGREE;
	io->rq.alg = SGD_SM2_KEX;
	io->rq.args_len = sizeof(*args);
	io->args = args;
	io->data = own;
	io->data2 = peer;
	io->data2_len = args->peer_id_len;
	io->rq.data_len = args->own_id_len + args->peer_id_len;
	io->out_args = answer;
	io->out_args_cap = sizeof(*answer);
	status = sdf_call(s, io);
	return status == SDR_OK && !io->object ? SDR_COMMFAIL : status;
}

int SDF_GenerateAgreementDataWithECC(void *hSessionHandle, unsigned int uiISKIndex,
					    unsigned int uiKeyBits, unsigned char *pucSponsorID,
					    unsigned int uiSponsorIDLength,
					    ECCrefPublicKey *pucSponsorPublicKey,
					    ECCrefPublicKey *pucSponsorTmpPublicKey,
					    void **phAgreementHandle)
{
	struct card_agree args = {.step = CARD_AGREE_OFFER, .bits = uiKeyBits,
				  .own_id_len = uiSponsorIDLength};
	struct card_io io = {.rq = {.key = uiISKIndex, .key_kind = CARD_KEY_INDEX}};
	struct card_agree answer;
	struct sdf_session *s;
	uint32_t status;

	if (!pucSponsorPublicKey || !pucSponsorTmpPublicKey || !phAgreementHandle)
		return SDR_OUTARGERR;
	*phAgreementHandle = NULL;
	s = uiISKIndex ? sdf_session_get(hSessionHandle) : NULL;
	if (!s)
		return SDR_INARGERR;
	status = agree(s, &io, &args, pucSponsorID, NULL, &answer);
	if (status == SDR_OK) {
		memcpy(pucSponsorPublicKey, &answer.pub, sizeof(answer.pub));
		memcpy(pucSponsorTmpPublicKey, &answer.tmp, sizeof(answer.tmp));
		status = sdf_key_new(s, FACE_AGREEMENT, io.object, phAgreementHandle);
	}
	sdf_put(s);
	return (int)status;
}

/* The sponsor has the other's half now: the agreement is used up, its handle with it. */
int SDF_GenerateKeyWithECC(void *hSessionHandle, unsigned char *pucResponseID,
				  unsigned int uiResponseIDLength,
				  ECCrefPublicKey *pucResponsePublicKey,
				  ECCrefPublicKey *pucResponseTmpPublicKey, void *hAgreementHandle,
				  void **phKeyHandle)
{
	struct card_agree args = {.step = CARD_AGREE_FINISH, .peer_id_len = uiResponseIDLength};
	struct card_agree answer;
	struct card_io io = {.rq = {.key_kind = CARD_KEY_NONE}};
	struct face_object *a = NULL;
	struct sdf_session *s;
	uint32_t status = SDR_INARGERR;

	if (!phKeyHandle)
		return SDR_OUTARGERR;
	*phKeyHandle = NULL;
	if (!pucResponsePublicKey || !pucResponseTmpPublicKey)
		return SDR_INARGERR;
	s = sdf_session_get(hSessionHandle);
	if (!s)
		return SDR_INARGERR;
	a = face_handle_get(hAgreementHandle, FACE_AGREEMENT);
	if (a) {
		memcpy(&args.pub, pucResponsePublicKey, sizeof(args.pub));
		memcpy(&args.tmp, pucResponseTmpPublicKey, sizeof(args.tmp));
		io.rq.object = ((struct sdf_key *)a)->number;
		status = agree(s, &io, &args, NULL, pucResponseID, &answer);
	}
	if (status == SDR_OK)
		status = sdf_key_new(s, FACE_KEY, io.object, phKeyHandle);
	if (status == SDR_OK)
		face_handle_close(hAgreementHandle, FACE_AGREEMENT);
	face_object_put(a);
	sdf_put(s);
	return (int)status;
}

int SDF_GenerateAgreementDataAndKeyWithECC(
	void *hSessionHandle, unsigned int uiISKIndex, unsigned int uiKeyBits,
	unsigned char *pucResponseID, unsigned int uiResponseIDLength,
	unsigned char *pucSponsorID, unsigned int uiSponsorIDLength,
	ECCrefPublicKey *pucSponsorPublicKey, ECCrefPublicKey *pucSponsorTmpPublicKey,
	ECCrefPublicKey *pucResponsePublicKey, ECCrefPublicKey *pucResponseTmpPublicKey,
	void **phKeyHandle)
{
	struct card_agree args = {.step = CARD_AGREE_ACCEPT, .bits = uiKeyBits,
				  .own_id_len = uiResponseIDLength,
				  .peer_id_len = uiSponsorIDLength};
	struct card_io io = {.rq = {.key = uiISKIndex, .key_kind = CARD_KEY_INDEX}};
	struct card_agree answer;
	struct sdf_session *s;
	uint32_t status;

	if (!pucResponsePublicKey || !pucResponseTmpPublicKey || !phKeyHandle)
		return SDR_OUTARGERR;
	*phKeyHandle = NULL;
	if (!uiISKIndex || !pucSponsorPublicKey || !pucSponsorTmpPublicKey)
		return SDR_INARGERR;
	s = sdf_session_get(hSessionHandle);
	if (!s)
		return SDR_INARGERR;
	memcpy(&args.pub, pucSponsorPublicKey, sizeof(args.pub));
	memcpy(&args.tmp, pucSponsorTmpPublicKey, sizeof(args.tmp));
	status = agree(s, &io, &args, pucResponseID, pucSponsorID, &answer);
	if (status == SDR_OK) {
		memcpy(pucResponsePublicKey, &answer.pub, sizeof(answer.pub));
		memcpy(pucResponseTmpPublicKey, &answer.tmp, sizeof(answer.tmp));
		status = sdf_key_new(s, FACE_KEY, io.object, phKeyHandle);
	}
	sdf_put(s);
	return (int)status;
}

/* Agreements, too: the standard has no call of their own for it. */
int SDF_DestroyKey(void *hSessionHandle, void *hKeyHandle)
{
	struct sdf_session *s = sdf_session_get(hSessionHandle);
	bool was_open;

	if (!s)
		return SDR_INARGERR;
	was_open = face_handle_close(hKeyHandle, FACE_KEY) ||
		   face_handle_close(hKeyHandle, FACE_AGREEMENT);
	sdf_put(s);
	return was_open ? SDR_OK : SDR_KEYNOTEXIST;
}
