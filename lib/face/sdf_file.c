/* SPDX-License-Identifier: MIT */
/* Files in the card, and the calls that take a symmetric key in the clear. */
#include "face/sdf_inside.h"

#include <string.h>


static bool name_file(struct card_file *f, const uint8_t *name, uint32_t len)
{
	if (!name || !len || len > sizeof(f->name))
		return false;
	memcpy(f->name, name, len);
	return true;
}

static uint32_t file_call(void *handle, uint16_t op, const struct card_file *f)
{
	struct card_io io = {.rq = {.op = op, .args_len = sizeof(*f)}, .args = f};
	struct sdf_session *s = sdf_session_get(handle);
	uint32_t status;

	if (!s)
		return SDR_INARGERR;
	status = sdf_call(s, &io);
	sdf_put(s);
	return status;
}

int SDF_CreateFile(void *hSessionHandle, unsigned char *pucFileName, unsigned int uiNameLen,
			  unsigned int uiFileSize)
{
	struct card_file f = {.size = uiFileSize};

	if (!name_file(&f, pucFileName, uiNameLen))
		return SDR_INARGERR;
	return (int)file_call(hSessionHandle, CARD_OP_FILE_CREATE, &f);
}

int SDF_DeleteFile(void *hSessionHandle, unsigned char *pucFileName, unsigned int uiNameLen)
{
	struct card_file f = {.size = 0};

	if (!name_file(&f, pucFileName, uiNameLen))
		return SDR_INARGERR;
	return (int)file_call(hSessionHandle, CARD_OP_FILE_DELETE, &f);
}

/* In pieces that a request holds; a short one is the file's end. */
static uint32_t read_pieces(struct sdf_session *s, struct card_file *f, uint8_t *to, uint32_t want,
			    uint32_t *done)
{
	uint32_t status = SDR_OK, offset = f->offset;

	for (*done = 0; status == SDR_OK && *done < want;) {
		uint32_t n = want - *done < CARD_DATA_MAX ? want - *done : CARD_DATA_MAX;
		struct card_io io = {.rq = {.op = CARD_OP_FILE_READ, .args_len = sizeof(*f)},
				     .args = f, .out = to + *done, .out_cap = n};

		f->offset = offset + *done;
		f->size = n;
		status = sdf_call(s, &io);
		if (status == SDR_OK)
			*done += io.out_len;
		if (status == SDR_OK && io.out_len < n)
			break;
	}
	return status;
}

int SDF_ReadFile(void *hSessionHandle, unsigned char *pucFileName, unsigned int uiNameLen,
			unsigned int uiOffset, unsigned int *puiFileLength, unsigned char *pucBuffer)
{
	struct card_file f = {.offset = uiOffset};
	struct sdf_session *s;
	uint32_t status, done = 0;

	if (!puiFileLength || (!pucBuffer && *puiFileLength))
		return SDR_OUTARGERR;
	if (!name_file(&f, pucFileName, uiNameLen) || *puiFileLength > UINT32_MAX - uiOffset)
		return SDR_INARGERR;
	s = sdf_session_get(hSessionHandle);
	if (!s)
		return SDR_INARGERR;
	status = read_pieces(s, &f, pucBuffer, *puiFileLength, &done);
	sdf_put(s);
	if (status == SDR_OK)
		*puiFileLength = done;
	return (int)status;
}

int SDF_WriteFile(void *hSessionHandle, unsigned char *pucFileName, unsigned int uiNameLen,
			 unsigned int uiOffset, unsigned int uiFileLength, unsigned char *pucBuffer)
{
	struct card_file f = {.offset = uiOffset};
	struct sdf_session *s;
	uint32_t status = SDR_OK;

	if (!name_file(&f, pucFileName, uiNameLen) || (!pucBuffer && uiFileLength) ||
	    uiFileLength > UINT32_MAX - uiOffset)
		return SDR_INARGERR;
	s = sdf_session_get(hSessionHandle);
	if (!s)
		return SDR_INARGERR;
	for (uint32_t at = 0, n; status == SDR_OK && at < uiFileLength; at += n) {
		struct card_io io = {.rq = {.op = CARD_OP_FILE_WRITE, .args_len = sizeof(f)},
				     .args = &f, .data = pucBuffer + at};

		n = uiFileLength - at < CARD_DATA_MAX ? uiFileLength - at : CARD_DATA_MAX;
		f.offset = uiOffset + at;
		f.size = io.rq.data_len = n;
		status = sdf_call(s, &io);
	}
	sdf_put(s);
	return (int)status;
}

/* --- a key in the clear: it lives in the card as long as the call, or the stream --- */

static int key_cipher(void *handle, uint32_t alg, const uint8_t *key, uint32_t key_len, uint8_t *iv,
		      uint32_t iv_len, const uint8_t *in, uint32_t len, uint8_t *out,
		      unsigned int *out_len, bool decrypt)
{
	struct sdf_session *s;
	void *k = NULL;
	uint32_t status = SDR_OK;

	if (!out_len)
		return SDR_OUTARGERR;
	if (iv && iv_len != 16)
		return SDR_INARGERR;
	s = sdf_session_get(handle);
	if (!s)
		return SDR_INARGERR;
	if (out)
		status = sdf_key_take(s, key, key_len, &k);
	if (k) {
		status = sdf_cipher(s, k, alg, iv, in, len, out, decrypt);
		face_handle_close(k, FACE_KEY);
	}
	sdf_put(s);
	if (status == SDR_OK)
		*out_len = len;
	return (int)status;
}

int SDF_ExternalKeyEncrypt(void *hSessionHandle, unsigned int uiAlgID, unsigned char *pucKey,
				  unsigned int uiKeyLength, unsigned char *pucIV,
				  unsigned int uiIVLength, unsigned char *pucData,
				  unsigned int uiDataLength, unsigned char *pucEncData,
				  unsigned int *puiEncDataLength)
{
	return key_cipher(hSessionHandle, uiAlgID, pucKey, uiKeyLength, pucIV, uiIVLength, pucData,
			  uiDataLength, pucEncData, puiEncDataLength, false);
}

int SDF_ExternalKeyDecrypt(void *hSessionHandle, unsigned int uiAlgID, unsigned char *pucKey,
				  unsigned int uiKeyLength, unsigned char *pucIV,
				  unsigned int uiIVLength, unsigned char *pucEncData,
				  unsigned int uiEncDataLength, unsigned char *pucData,
				  unsigned int *puiDataLength)
{
	return key_cipher(hSessionHandle, uiAlgID, pucKey, uiKeyLength, pucIV, uiIVLength,
			  pucEncData, uiEncDataLength, pucData, puiDataLength, true);
}

static int key_stream(void *handle, uint32_t alg, const uint8_t *key, uint32_t key_len,
		      const uint8_t *iv, uint32_t iv_len, enum sdf_stream_kind kind)
{
	struct sdf_session *s = sdf_session_get(handle);
	void *k = NULL;
	uint32_t status;

	if (!s)
		return SDR_INARGERR;
	pthread_mutex_lock(&s->lock);
	status = sdf_key_take(s, key, key_len, &k);
	if (status == SDR_OK)
		status = kind == SDF_HMAC ? sdf_hmac_begin(s, k, alg)
					  : sdf_cipher_begin(s, k, alg, iv, iv_len, kind);
	if (status == SDR_OK)
		s->streams[kind].passing = true;
	else if (k)
		face_handle_close(k, FACE_KEY);
	pthread_mutex_unlock(&s->lock);
	sdf_put(s);
	return (int)status;
}

int SDF_ExternalKeyEncryptInit(void *hSessionHandle, unsigned int uiAlgID,
				      unsigned char *pucKey, unsigned int uiKeyLength,
				      unsigned char *pucIV, unsigned int uiIVLength)
{
	return key_stream(hSessionHandle, uiAlgID, pucKey, uiKeyLength, pucIV, uiIVLength, SDF_ENC);
}

int SDF_ExternalKeyDecryptInit(void *hSessionHandle, unsigned int uiAlgID,
				      unsigned char *pucKey, unsigned int uiKeyLength,
				      unsigned char *pucIV, unsigned int uiIVLength)
{
	return key_stream(hSessionHandle, uiAlgID, pucKey, uiKeyLength, pucIV, uiIVLength, SDF_DEC);
}

int SDF_ExternalKeyHMACInit(void *hSessionHandle, unsigned int uiAlgID,
				   unsigned char *pucKey, unsigned int uiKeyLength)
{
	return key_stream(hSessionHandle, uiAlgID, pucKey, uiKeyLength, NULL, 0, SDF_HMAC);
}
