/* SPDX-License-Identifier: MIT */
/* Devices, sessions, random numbers, rights; and how a call is made. */
#include "face/sdf_inside.h"

#include <stdlib.h>
#include <string.h>

#include "face/link.h"


_Static_assert(sizeof(DEVICEINFO) == sizeof(struct sdf_device_info), "GM/T 0018");
_Static_assert(sizeof(ECCrefPublicKey) == sizeof(struct sdf_ecc_public), "GM/T 0018");
_Static_assert(sizeof(ECCrefPrivateKey) == sizeof(struct sdf_ecc_private), "GM/T 0018");
_Static_assert(sizeof(ECCSignature) == sizeof(struct sdf_ecc_signature), "GM/T 0018");
_Static_assert(offsetof(ECCCipher, C) == offsetof(struct sdf_ecc_cipher, c), "GM/T 0018");
_Static_assert(sizeof(RSArefPublicKey) == sizeof(struct sdf_rsa_public), "GM/T 0018");
_Static_assert(sizeof(RSArefPrivateKey) == sizeof(struct sdf_rsa_private), "GM/T 0018");

struct sdf_session *sdf_session_get(void *handle)
{
	return (struct sdf_session *)face_handle_get(handle, FACE_SESSION);
}

void sdf_put(struct sdf_session *s)
{
	face_object_put(&s->o);
}

uint32_t sdf_call(struct sdf_session *s, struct card_io *io)
{
	io->rq.session = s->number;
	return card_call(s->client, io);
}

uint32_t sdf_call_long(struct sdf_session *s, struct card_io *io, size_t len, size_t want)
{
	size_t got = 0;
	uint32_t status;

	io->rq.session = s->number;
	status = card_call_long(s->client, io, len, want, &got);
	return status == SDR_OK && got != want ? SDR_COMMFAIL : status;
}

static void device_gone(struct face_object *o)
{
	struct sdf_device *d = (struct sdf_device *)o;

	face_link_put(d->client);
	free(d);
}

/* What was made in it goes with it: the card need not be told of each. */
static void session_gone(struct face_object *o)
{
	struct sdf_session *s = (struct sdf_session *)o;

	for (int i = 0; i < SDF_STREAMS; i++) {
		s->streams[i].object = 0;
		sdf_stream_end(s, &s->streams[i]);
		free(s->streams[i].data);
	}
	card_session_close(s->client, s->number);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

int SDF_OpenDevice(void **phDeviceHandle)
{
	struct sdf_device *d;

	if (!phDeviceHandle)
		return SDR_OUTARGERR;
	*phDeviceHandle = NULL;
	d = calloc(1, sizeof(*d));
	if (!d)
		return SDR_NOBUFFER;
	d->o.kind = FACE_DEVICE;
	d->o.gone = device_gone;
	if (face_link_get(NULL, &d->client, NULL)) {
		free(d);
		return SDR_OPENDEVICE;
	}
	*phDeviceHandle = face_handle_new(&d->o, NULL);
	if (*phDeviceHandle)
		return SDR_OK;
	device_gone(&d->o);
	return SDR_NOBUFFER;
}

int SDF_CloseDevice(void *hDeviceHandle)
{
	return face_handle_close(hDeviceHandle, FACE_DEVICE) ? SDR_OK : SDR_INARGERR;
}

static uint32_t session_open(struct sdf_device *d, void **handle)
{
	struct sdf_session *s = calloc(1, sizeof(*s));
	uint32_t status;

	if (!s)
		return SDR_NOBUFFER;
	s->o.kind = FACE_SESSION;
	s->o.gone = session_gone;
	s->client = d->client;
	pthread_mutex_init(&s->lock, NULL);
	status = card_session_open(d->client, &s->number);
	if (status == SDR_OK) {
		*handle = face_handle_new(&s->o, &d->o);
		if (*handle)
			return SDR_OK;
		card_session_close(d->client, s->number);
		status = SDR_OPENSESSION;
	}
	pthread_mutex_destroy(&s->lock);
	free(s);
	return status;
}

int SDF_OpenSession(void *hDeviceHandle, void **phSessionHandle)
{
	struct sdf_device *d;
	uint32_t status;

	if (!phSessionHandle)
		return SDR_OUTARGERR;
	*phSessionHandle = NULL;
	d = (struct sdf_device *)face_handle_get(hDeviceHandle, FACE_DEVICE);
	if (!d)
		return SDR_INARGERR;
	status = session_open(d, phSessionHandle);
	face_object_put(&d->o);
	return (int)status;
}

int SDF_CloseSession(void *hSessionHandle)
{
	return face_handle_close(hSessionHandle, FACE_SESSION) ? SDR_OK : SDR_INARGERR;
}

int SDF_GetDeviceInfo(void *hSessionHandle, DEVICEINFO *pstDeviceInfo)
{
	struct sdf_device_info info;
	struct card_io io = {.rq = {.op = CARD_OP_INFO}, .out = &info, .out_cap = sizeof(info)};
	struct sdf_session *s;
	uint32_t status;

	if (!pstDeviceInfo)
		return SDR_OUTARGERR;
	s = sdf_session_get(hSessionHandle);
	if (!s)
		return SDR_INARGERR;
	status = card_call(s->client, &io); /* of no session */
	sdf_put(s);
	if (status == SDR_OK && io.out_len != sizeof(info))
		status = SDR_COMMFAIL;
	if (status == SDR_OK)
		memcpy(pstDeviceInfo, &info, sizeof(info));
	return (int)status;
}

int SDF_GenerateRandom(void *hSessionHandle, unsigned int uiLength, unsigned char *pucRandom)
{
	struct card_io io = {.rq = {.op = CARD_OP_RANDOM}, .out = pucRandom};
	struct sdf_session *s;
	uint32_t status = SDR_OK;

	if (!pucRandom && uiLength)
		return SDR_OUTARGERR;
	s = sdf_session_get(hSessionHandle);
	if (!s)
		return SDR_INARGERR;
	if (uiLength)
		status = sdf_call_long(s, &io, uiLength, uiLength);
	sdf_put(s);
	return (int)status;
}

/*
 * The standard has one right for an index, whatever keys it has: of both kinds, asked for one after
 * the other. One that is there and opens is enough; a wrong password of one that is there is the answer.
 */
static uint32_t right(struct sdf_session *s, uint16_t op, uint32_t index, const uint8_t *password,
		      uint32_t len)
{
	static const uint32_t families[] = {SGD_SM2, SGD_RSA};
	uint32_t answer = SDR_KEYNOTEXIST;

	for (int i = 0; i < 2; i++) {
		struct card_io io = {.rq = {.op = op, .key = index, .key_kind = CARD_KEY_INDEX,
					    .alg = families[i], .data_len = len},
				     .data = password};
		uint32_t status = sdf_call(s, &io);

		if (status != SDR_KEYNOTEXIST && (status == SDR_OK || answer != SDR_OK))
			answer = status;
	}
	return answer;
}

int SDF_GetPrivateKeyAccessRight(void *hSessionHandle, unsigned int uiKeyIndex,
					unsigned char *pucPassword, unsigned int uiPwdLength)
{
	struct sdf_session *s;
	uint32_t status;

	if (!uiKeyIndex || (!pucPassword && uiPwdLength) || uiPwdLength > CARD_DATA_MAX)
		return SDR_INARGERR;
	s = sdf_session_get(hSessionHandle);
	if (!s)
		return SDR_INARGERR;
	status = right(s, CARD_OP_RIGHT_GET, uiKeyIndex, pucPassword, uiPwdLength);
	sdf_put(s);
	return (int)status;
}

int SDF_ReleasePrivateKeyAccessRight(void *hSessionHandle, unsigned int uiKeyIndex)
{
	struct sdf_session *s;
	uint32_t status;

	if (!uiKeyIndex)
		return SDR_INARGERR;
	s = sdf_session_get(hSessionHandle);
	if (!s)
		return SDR_INARGERR;
	status = right(s, CARD_OP_RIGHT_DROP, uiKeyIndex, NULL, 0);
	sdf_put(s);
	return (int)status;
}
