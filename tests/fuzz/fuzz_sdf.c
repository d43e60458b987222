/* SPDX-License-Identifier: MIT */
/*
 * The SDF library over a card that answers what it likes: lengths, handles, structs. Of the client only the contract
 * stands in between: what comes fits where it was asked to, and its length is known.
 */
#include <stdlib.h>
#include <string.h>

#include "card/client.h"
#include "face/sdf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t *left;
static size_t n_left;
static int one_client;

static uint8_t next(void)
{
	return n_left ? (n_left--, *left++) : 0;
}

static void fill(void *to, size_t n)
{
	for (size_t i = 0; i < n; i++)
		((uint8_t *)to)[i] = next();
}

int card_client_open(const char *address, const struct card_client_opts *opts,
		     struct card_client **out, struct err *err)
{
	(void)address;
	(void)opts;
	(void)err;
	*out = (struct card_client *)&one_client;
	return 0;
}

void card_client_close(struct card_client *c)
{
	(void)c;
}

static uint32_t answer(struct card_io *io, size_t cap, size_t *len)
{
	static const uint8_t shorter[] = {0, 0, 0, 1, 2, 16, 33};
	uint8_t kind = next();
	size_t less = shorter[kind % sizeof(shorter)];

	io->status = kind & 0x80 ? SDR_BASE + next() : SDR_OK;
	io->object = kind & 0x40 ? 0 : 1u + next();
	*len = io->status ? 0 : cap > less ? cap - less : 0;
	if (io->out && *len)
		fill(io->out, *len < 512 ? *len : 512);
	io->out_args_len = io->out_args && !io->status ? io->out_args_cap : 0;
	if (io->out_args_len)
		fill(io->out_args, io->out_args_len);
	return io->status;
}

uint32_t card_call(struct card_client *c, struct card_io *io)
{
	size_t len;

	(void)c;
	answer(io, io->out_cap < CARD_DATA_MAX ? io->out_cap : CARD_DATA_MAX, &len);
	io->out_len = (uint32_t)len;
	return io->status;
}

uint32_t card_call_long(struct card_client *c, struct card_io *io, size_t len, size_t out_cap,
			size_t *out_len)
{
	(void)c;
	(void)len;
	return answer(io, out_cap, out_len);
}

uint32_t card_session_open(struct card_client *c, uint32_t *session)
{
	(void)c;
	*session = 1;
	return SDR_OK;
}

uint32_t card_session_close(struct card_client *c, uint32_t session)
{
	(void)c;
	(void)session;
	return SDR_OK;
}

/* Buffers end where the interface says that they may: what is written behind them is found. */
static void keys(void *s, void **k)
{
	ECCCipher *c = malloc(sizeof(*c) + 16), *d = malloc(sizeof(*d) + 16);
	ECCrefPublicKey pub = {.bits = 256}, tmp = pub;
	ECCrefPrivateKey priv;
	unsigned char *wrapped = malloc(256);
	unsigned int n = 0;
	void *a = NULL;

	memset(c, 0, sizeof(*c) + 16);
	SDF_GenerateKeyWithIPK_ECC(s, 1, 128, c, k);
	SDF_GenerateKeyWithEPK_ECC(s, 128, SGD_SM2_3, &pub, c, k);
	c->L = next() % 17;
	SDF_ImportKeyWithISK_ECC(s, 1, c, k);
	SDF_ExchangeDigitEnvelopeBaseOnECC(s, 1, SGD_SM2_3, &pub, c, d);
	SDF_GenerateKeyWithKEK(s, 128, SGD_SM4_ECB, 1, wrapped, &n, k);
	SDF_GenerateKeyWithIPK_RSA(s, 1, 128, wrapped, &n, k);
	SDF_GenerateKeyPair_ECC(s, SGD_SM2_1, 256, &pub, &priv);
	SDF_ExportSignPublicKey_ECC(s, 1, &pub);
	SDF_GenerateAgreementDataWithECC(s, 1, 128, wrapped, 16, &pub, &tmp, &a);
	SDF_GenerateKeyWithECC(s, wrapped, 16, &pub, &tmp, a, k);
	SDF_DestroyKey(s, a);
	free(c);
	free(d);
	free(wrapped);
}

static void asymmetric(void *s)
{
	ECCCipher *c = malloc(offsetof(ECCCipher, C) + 20);
	unsigned char *plain = malloc(20), *modulus = malloc(256);
	ECCSignature sig;
	unsigned int n = 0;

	memset(c, 0, offsetof(ECCCipher, C) + 20);
	memset(modulus, 1, 256);
	memset(plain, 1, 20);
	SDF_InternalSign_ECC(s, 1, modulus, 32, &sig);
	SDF_InternalVerify_ECC(s, 1, modulus, 32, &sig);
	SDF_InternalEncrypt_ECC(s, 1, SGD_SM2_3, plain, 20, c);
	c->L = 20;
	SDF_InternalDecrypt_ECC(s, 1, SGD_SM2_3, c, plain, &n);
	SDF_InternalPrivateKeyOperation_RSA(s, 1, modulus, 256, modulus, &n);
	free(c);
	free(plain);
	free(modulus);
}

static void symmetric(void *s, void *k)
{
	unsigned char *in = calloc(1, 48), *out = malloc(48), *tag = malloc(16), *iv = calloc(1, 16), *d = malloc(32);
	unsigned int n = 0, m = 0, t = 0;

	SDF_Encrypt(s, k, SGD_SM4_CBC, iv, in, 48, out, &n);
	SDF_CalculateMAC(s, k, SGD_SM4_MAC, iv, in, 48, tag, &n);
	SDF_AuthEnc(s, k, SGD_SM4_GCM, iv, 12, in, 5, in, 48, out, &n, tag, &t);
	SDF_AuthEncInit(s, k, SGD_SM4_GCM, iv, 12, in, 20, 48);
	n = m = 0;
	SDF_AuthEncUpdate(s, in, 1 + next() % 40, out, &n);
	if (n <= 32)
		SDF_AuthEncFinal(s, out + n, &m, tag, &t);
	SDF_EncryptInit(s, k, SGD_SM4_CTR, iv, 16);
	SDF_EncryptUpdate(s, in, 1 + next() % 47, out, &n);
	SDF_EncryptFinal(s, tag, &n);
	SDF_HashInit(s, next() % 8, NULL, NULL, 0);
	SDF_HashUpdate(s, in, 48);
	SDF_HashFinal(s, d, &n);
	SDF_HMACInit(s, k, SGD_SM3);
	SDF_HMACUpdate(s, in, 48);
	SDF_HMACFinal(s, d, &n);
	n = 48;
	SDF_ReadFile(s, in, 8, 0, &n, out);
	SDF_GenerateRandom(s, 48, out);
	free(in);
	free(out);
	free(tag);
	free(iv);
	free(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	DEVICEINFO info;
	void *d, *s, *k = NULL;

	left = data;
	n_left = size;
	if (SDF_OpenDevice(&d))
		return 0;
	if (!SDF_OpenSession(d, &s)) {
		SDF_GetDeviceInfo(s, &info);
		keys(s, &k);
		if (!k)
			SDF_ImportKey(s, (unsigned char *)"0123456789abcdef", 16, &k);
		asymmetric(s);
		symmetric(s, k);
	}
	SDF_CloseDevice(d);
	return 0;
}
