/* SPDX-License-Identifier: MIT */
/* SM2 and RSA, by keys in the card and keys given. */
#include "face/sdf_inside.h"

#include <string.h>

#define PLAIN_MAX (CARD_DATA_MAX - sizeof(struct sdf_ecc_cipher))

/* Where the key is: an index, or 0 and the key itself in @args. */
struct where {
	uint32_t index;
	const void *key;
	uint32_t key_len;
};

static uint32_t call(void *handle, struct card_io *io, const struct where *w)
{
	struct sdf_session *s;
	uint32_t status;

	if (w->key) {
		io->rq.key_kind = CARD_KEY_GIVEN;
	} else {
		io->rq.key_kind = CARD_KEY_INDEX;
		io->rq.key = w->index;
	}
	if (!w->key && !w->index)
		return SDR_INARGERR;
	s = sdf_session_get(handle);
	if (!s)
		return SDR_INARGERR;
	status = sdf_call(s, io);
	sdf_put(s);
	return status;
}

static int sign(void *handle, const struct where *w, const uint8_t *data, uint32_t len,
		ECCSignature *sig)
{
	struct card_signature answer;
	struct card_io io = {.rq = {.op = CARD_OP_SIGN, .alg = SGD_SM2_SIGN, .data_len = len,
				    .args_len = w->key_len},
			     .args = w->key, .data = data, .out_args = &answer,
			     .out_args_cap = sizeof(answer)};
	uint32_t status;

	if (!sig)
		return SDR_OUTARGERR;
	if (!data || !len || len > CARD_DATA_MAX)
		return SDR_INARGERR;
	status = call(handle, &io, w);
	if (status == SDR_OK && io.out_args_len != sizeof(answer))
		status = SDR_COMMFAIL;
	if (status == SDR_OK)
		memcpy(sig, &answer.sig, sizeof(answer.sig));
	return (int)status;
}

static int verify(void *handle, uint32_t index, const ECCrefPublicKey *pub, const uint8_t *data,
		  uint32_t len, const ECCSignature *sig)
{
	struct card_verify args = {.pub = {.bits = 0}};
	struct where w = {.index = index, .key = pub ? &args : NULL};
	struct card_io io = {.rq = {.op = CARD_OP_VERIFY, .alg = SGD_SM2_SIGN, .data_len = len,
				    .args_len = sizeof(args)},
			     .args = &args, .data = data};

	if (!data || !len || len > CARD_DATA_MAX || !sig)
		return SDR_INARGERR;
	memcpy(&args.sig, sig, sizeof(args.sig));
	if (pub)
		memcpy(&args.pub, pub, sizeof(args.pub));
	return (int)call(handle, &io, &w);
}

int SDF_InternalSign_ECC(void *hSessionHandle, unsigned int uiISKIndex,
				unsigned char *pucData, unsigned int uiDataLength,
				ECCSignature *pucSignature)
{
	struct where w = {.index = uiISKIndex};

	return sign(hSessionHandle, &w, pucData, uiDataLength, pucSignature);
}

int SDF_ExternalSign_ECC(void *hSessionHandle, unsigned int uiAlgID,
				ECCrefPrivateKey *pucPrivateKey, unsigned char *pucDataInput,
				unsigned int uiInputLength, ECCSignature *pucSignature)
{
	struct where w = {.key = pucPrivateKey, .key_len = sizeof(*pucPrivateKey)};

	if (uiAlgID != SGD_SM2_1 && uiAlgID != SGD_SM2)
		return SDR_ALGNOTSUPPORT;
	return sign(hSessionHandle, &w, pucDataInput, uiInputLength, pucSignature);
}

int SDF_InternalVerify_ECC(void *hSessionHandle, unsigned int uiISKIndex,
				  unsigned char *pucData, unsigned int uiDataLength,
				  ECCSignature *pucSignature)
{
	return verify(hSessionHandle, uiISKIndex, NULL, pucData, uiDataLength, pucSignature);
}

int SDF_ExternalVerify_ECC(void *hSessionHandle, unsigned int uiAlgID,
				  ECCrefPublicKey *pucPublicKey, unsigned char *pucDataInput,
				  unsigned int uiInputLength, ECCSignature *pucSignature)
{
	if (uiAlgID != SGD_SM2_1 && uiAlgID != SGD_SM2)
		return SDR_ALGNOTSUPPORT;
	if (!pucPublicKey)
		return SDR_INARGERR;
	return verify(hSessionHandle, 0, pucPublicKey, pucDataInput, uiInputLength, pucSignature);
}

static bool encrypts(uint32_t alg)
{
	return alg == SGD_SM2_3 || alg == SGD_SM2;
}

static int encrypt(void *handle, const struct where *w, uint32_t alg, const uint8_t *data,
		   uint32_t len, ECCCipher *out)
{
	union {
		struct sdf_ecc_cipher c;
		uint8_t room[CARD_DATA_MAX];
	} u;
	struct card_io io = {.rq = {.op = CARD_OP_PK_ENCRYPT, .alg = SGD_SM2_ENC, .data_len = len,
				    .args_len = w->key_len},
			     .args = w->key, .data = data, .out = &u};
	uint32_t status;

	if (!out)
		return SDR_OUTARGERR;
	if (!encrypts(alg))
		return SDR_ALGNOTSUPPORT;
	if (!data || !len || len > PLAIN_MAX)
		return SDR_INARGERR;
	io.out_cap = (uint32_t)sizeof(u.c) + len;
	status = call(handle, &io, w);
	if (status == SDR_OK && (io.out_len != io.out_cap || u.c.length != len))
		status = SDR_COMMFAIL;
	if (status == SDR_OK)
		memcpy(out, &u, io.out_len);
	return (int)status;
}

int SDF_ExternalEncrypt_ECC(void *hSessionHandle, unsigned int uiAlgID,
				   ECCrefPublicKey *pucPublicKey, unsigned char *pucData,
				   unsigned int uiDataLength, ECCCipher *pucEncData)
{
	struct where w = {.key = pucPublicKey, .key_len = sizeof(*pucPublicKey)};

	return encrypt(hSessionHandle, &w, uiAlgID, pucData, uiDataLength, pucEncData);
}

int SDF_InternalEncrypt_ECC(void *hSessionHandle, unsigned int uiIPKIndex,
				   unsigned int uiAlgID, unsigned char *pucData,
				   unsigned int uiDataLength, ECCCipher *pucEncData)
{
	struct where w = {.index = uiIPKIndex};

	return encrypt(hSessionHandle, &w, uiAlgID, pucData, uiDataLength, pucEncData);
}

/* The plain text is never longer than what was encrypted. */
static int decrypt(void *handle, const struct where *w, uint32_t alg, const ECCCipher *in,
		   uint8_t *out, unsigned int *out_len)
{
	struct card_io io = {.rq = {.op = CARD_OP_PK_DECRYPT, .alg = SGD_SM2_ENC,
				    .args_len = w->key_len},
			     .args = w->key, .data = in, .out = out};
	uint32_t status = SDR_OK;

	if (!out_len)
		return SDR_OUTARGERR;
	if (!encrypts(alg))
		return SDR_ALGNOTSUPPORT;
	if (!in || !in->L || in->L > PLAIN_MAX)
		return SDR_INARGERR;
	io.out_cap = in->L;
	io.rq.data_len = (uint32_t)offsetof(ECCCipher, C) + in->L;
	if (out)
		status = call(handle, &io, w);
	if (status == SDR_OK)
		*out_len = out ? io.out_len : in->L;
	return (int)status;
}

int SDF_InternalDecrypt_ECC(void *hSessionHandle, unsigned int uiISKIndex,
				   unsigned int uiAlgID, ECCCipher *pucEncData,
				   unsigned char *pucData, unsigned int *puiDataLength)
{
	struct where w = {.index = uiISKIndex};

	return decrypt(hSessionHandle, &w, uiAlgID, pucEncData, pucData, puiDataLength);
}

int SDF_ExternalDecrypt_ECC(void *hSessionHandle, unsigned int uiAlgID,
				   ECCrefPrivateKey *pucPrivateKey, ECCCipher *pucEncData,
				   unsigned char *pucData, unsigned int *puiDataLength)
{
	struct where w = {.key = pucPrivateKey, .key_len = sizeof(*pucPrivateKey)};

	return decrypt(hSessionHandle, &w, uiAlgID, pucEncData, pucData, puiDataLength);
}

/* --- RSA, raw: as many bytes as the modulus has, in and out. A key that is given goes before the data --- */

static int rsa(void *handle, struct where *w, uint16_t op, const uint8_t *in, uint32_t len,
	       uint8_t *out, unsigned int *out_len)
{
	uint8_t data[sizeof(struct sdf_rsa_private) + EXRSA_FIELD], room[EXRSA_FIELD];
	struct card_io io = {.rq = {.op = op, .alg = SGD_RSA, .data_len = w->key_len + len},
			     .data = data, .out = room, .out_cap = len};
	uint32_t status;

	if (!out_len)
		return SDR_OUTARGERR;
	if (!in || !len || len > EXRSA_FIELD)
		return SDR_INARGERR;
	if (!out) {
		*out_len = len;
		return SDR_OK;
	}
	if (w->key)
		memcpy(data, w->key, w->key_len);
	memcpy(data + w->key_len, in, len);
	status = call(handle, &io, w);
	if (status == SDR_OK) {
		memcpy(out, room, io.out_len);
		*out_len = io.out_len;
	}
	explicit_bzero(data, sizeof(data));
	explicit_bzero(room, sizeof(room));
	return (int)status;
}

int SDF_ExternalPublicKeyOperation_RSA(void *hSessionHandle, RSArefPublicKey *pucPublicKey,
					      unsigned char *pucDataInput,
					      unsigned int uiInputLength,
					      unsigned char *pucDataOutput,
					      unsigned int *puiOutputLength)
{
	struct where w = {.key = pucPublicKey, .key_len = sizeof(*pucPublicKey)};

	return rsa(hSessionHandle, &w, CARD_OP_RSA_PUBLIC, pucDataInput, uiInputLength,
		   pucDataOutput, puiOutputLength);
}

int SDF_InternalPublicKeyOperation_RSA(void *hSessionHandle, unsigned int uiKeyIndex,
					      unsigned char *pucDataInput,
					      unsigned int uiInputLength,
					      unsigned char *pucDataOutput,
					      unsigned int *puiOutputLength)
{
	struct where w = {.index = uiKeyIndex};

	return rsa(hSessionHandle, &w, CARD_OP_RSA_PUBLIC, pucDataInput, uiInputLength,
		   pucDataOutput, puiOutputLength);
}

int SDF_InternalPrivateKeyOperation_RSA(void *hSessionHandle, unsigned int uiKeyIndex,
					       unsigned char *pucDataInput,
					       unsigned int uiInputLength,
					       unsigned char *pucDataOutput,
					       unsigned int *puiOutputLength)
{
	struct where w = {.index = uiKeyIndex};

	return rsa(hSessionHandle, &w, CARD_OP_RSA_PRIVATE, pucDataInput, uiInputLength,
		   pucDataOutput, puiOutputLength);
}

int SDF_ExternalPrivateKeyOperation_RSA(void *hSessionHandle,
					       RSArefPrivateKey *pucPrivateKey,
					       unsigned char *pucDataInput,
					       unsigned int uiInputLength,
					       unsigned char *pucDataOutput,
					       unsigned int *puiOutputLength)
{
	struct where w = {.key = pucPrivateKey, .key_len = sizeof(*pucPrivateKey)};

	return rsa(hSessionHandle, &w, CARD_OP_RSA_PRIVATE, pucDataInput, uiInputLength,
		   pucDataOutput, puiOutputLength);
}
