/* SPDX-License-Identifier: MIT */
/*
 * SM4 by the faster of two libraries, mode by mode: libgcrypt has vector code where blocks do not
 * depend on each other (CTR, GCM, decrypting CBC and CFB), OpenSSL 3.0 is plain C but the faster one at the
 * rest. Which is which is measured, as both grow.
 */
#include <errno.h>
#include <gcrypt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "base/units.h"
#include "card/soft.h"

enum { MODE_ECB, MODE_CBC, MODE_CFB, MODE_OFB, MODE_CTR, MODES };

static const struct {
	uint32_t alg;
	int gcry;
	const char *openssl, *name;
} modes[MODES] = {
	{SGD_SM4 | SGD_ECB, GCRY_CIPHER_MODE_ECB, "SM4-ECB", "ecb"},
	{SGD_SM4 | SGD_CBC, GCRY_CIPHER_MODE_CBC, "SM4-CBC", "cbc"},
	{SGD_SM4 | SGD_CFB, GCRY_CIPHER_MODE_CFB, "SM4-CFB", "cfb"},
	{SGD_SM4 | SGD_OFB, GCRY_CIPHER_MODE_OFB, "SM4-OFB", "ofb"},
	{SGD_SM4 | SGD_CTR, GCRY_CIPHER_MODE_CTR, "SM4-CTR", "ctr"},
};

/* [mode][decrypt] */
static bool by_gcry[MODES][2] = {[MODE_CBC] = {false, true}, [MODE_CFB] = {false, true},
				 [MODE_CTR] = {true, true}};
static char engines[64];

struct sm4 {
	uint8_t key[SM4_BLOCK];
	gcry_cipher_hd_t gcry[MODES];
	EVP_CIPHER_CTX *evp[MODES][2];
};

static void start_gcry(void)
{
	if (gcry_control(GCRYCTL_INITIALIZATION_FINISHED_P))
		return;
	gcry_check_version(NULL);
	gcry_control(GCRYCTL_DISABLE_SECMEM, 0); /* it would want to be root; DONTDUMP is the daemon's */
	gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
}

struct sm4 *sm4_new(const uint8_t key[SM4_BLOCK])
{
	struct sm4 *s = OPENSSL_secure_zalloc(sizeof(*s));

	if (s)
		memcpy(s->key, key, SM4_BLOCK);
	return s;
}

void sm4_free(struct sm4 *s)
{
	if (!s)
		return;
	for (unsigned m = 0; m < MODES; m++) {
		gcry_cipher_close(s->gcry[m]);
		EVP_CIPHER_CTX_free(s->evp[m][0]);
		EVP_CIPHER_CTX_free(s->evp[m][1]);
	}
	OPENSSL_secure_clear_free(s, sizeof(*s));
}

static uint32_t crypt_gcry(struct sm4 *s, unsigned m, bool decrypt, const uint8_t *iv, const uint8_t *in,
			   uint8_t *out, size_t n)
{
	gcry_error_t rc = 0;

	if (!s->gcry[m]) {
		start_gcry();
		rc = gcry_cipher_open(&s->gcry[m], GCRY_CIPHER_SM4, modes[m].gcry, 0);
		if (!rc)
			rc = gcry_cipher_setkey(s->gcry[m], s->key, SM4_BLOCK);
	}
	if (!rc && m == MODE_CTR)
		rc = gcry_cipher_setctr(s->gcry[m], iv, SM4_BLOCK);
	else if (!rc && m != MODE_ECB)
		rc = gcry_cipher_setiv(s->gcry[m], iv, SM4_BLOCK);
	if (!rc)
		rc = decrypt ? gcry_cipher_decrypt(s->gcry[m], out, n, in, n)
			     : gcry_cipher_encrypt(s->gcry[m], out, n, in, n);
	return rc ? SDR_SYMOPERR : SDR_OK;
}

static uint32_t crypt_evp(struct sm4 *s, unsigned m, bool decrypt, const uint8_t *iv, const uint8_t *in,
			  uint8_t *out, size_t n)
{
	EVP_CIPHER_CTX **ctx = &s->evp[m][decrypt];
	bool ok = true;
	int len;

	if (!*ctx) {
		EVP_CIPHER *c = EVP_CIPHER_fetch(NULL, modes[m].openssl, NULL);

		*ctx = EVP_CIPHER_CTX_new();
		ok = c && *ctx && EVP_CipherInit_ex2(*ctx, c, s->key, NULL, !decrypt, NULL) &&
		     EVP_CIPHER_CTX_set_padding(*ctx, 0);
		EVP_CIPHER_free(c);
	}
	ok = ok && EVP_CipherInit_ex2(*ctx, NULL, NULL, m == MODE_ECB ? NULL : iv, !decrypt, NULL) &&
	     EVP_CipherUpdate(*ctx, out, &len, in, (int)n) && (size_t)len == n;
	return ok ? SDR_OK : SDR_SYMOPERR;
}

static int mode_of(uint32_t alg)
{
	for (int m = 0; m < MODES; m++)
		if (modes[m].alg == alg)
			return m;
	return -1;
}

/* The counter goes on by so many blocks, a begun one counts whole. */
static void add_counter(uint8_t iv[SM4_BLOCK], uint64_t blocks)
{
	unsigned carry = 0;

	for (unsigned i = SM4_BLOCK; i-- > 0; blocks >>= 8) {
		unsigned sum = iv[i] + (unsigned)(blocks & 0xff) + carry;

		iv[i] = (uint8_t)sum;
		carry = sum >> 8;
	}
}

static void next_iv(unsigned m, bool decrypt, uint8_t iv[SM4_BLOCK], const uint8_t *in,
		    const uint8_t *out, size_t n)
{
	const uint8_t *last_in = in + n - SM4_BLOCK, *last_out = out + n - SM4_BLOCK;

	if (m == MODE_CTR)
		add_counter(iv, (n + SM4_BLOCK - 1) / SM4_BLOCK);
	else if (m == MODE_CBC || m == MODE_CFB)
		memcpy(iv, decrypt ? last_in : last_out, n >= SM4_BLOCK ? SM4_BLOCK : 0);
	else if (m == MODE_OFB)
		for (unsigned i = 0; n >= SM4_BLOCK && i < SM4_BLOCK; i++)
			iv[i] = last_in[i] ^ last_out[i];
}

uint32_t sm4_crypt(struct sm4 *s, uint32_t alg, bool decrypt, uint8_t iv[SM4_BLOCK], const uint8_t *in,
		   uint8_t *out, size_t n)
{
	int m = mode_of(alg);
	uint32_t status;

	if (m < 0)
		return SDR_ALGMODNOTSUPPORT;
	if ((m == MODE_ECB || m == MODE_CBC) && n % SM4_BLOCK)
		return SDR_INARGERR;
	if (!n)
		return SDR_OK;
	status = by_gcry[m][decrypt] ? crypt_gcry(s, (unsigned)m, decrypt, iv, in, out, n)
				     : crypt_evp(s, (unsigned)m, decrypt, iv, in, out, n);
	if (!status)
		next_iv((unsigned)m, decrypt, iv, in, out, n);
	return status;
}

uint32_t sm4_mac(struct sm4 *s, uint8_t iv[SM4_BLOCK], const uint8_t *in, size_t n)
{
	uint8_t scratch[2048];
	uint32_t status = n % SM4_BLOCK ? SDR_INARGERR : SDR_OK;

	for (size_t part; n && !status; in += part, n -= part) {
		part = n < sizeof(scratch) ? n : sizeof(scratch);
		status = sm4_crypt(s, SGD_SM4 | SGD_CBC, false, iv, in, scratch, part);
	}
	OPENSSL_cleanse(scratch, sizeof(scratch)); /* what stands between is as good as a MAC of less */
	return status;
}

static uint64_t time_of(bool gcry, unsigned m, bool decrypt)
{
	static const uint8_t key[SM4_BLOCK] = {1};
	static uint8_t in[4096], out[4096];
	struct sm4 *s = sm4_new(key);
	uint8_t iv[SM4_BLOCK] = {0};
	uint64_t best = UINT64_MAX;

	for (unsigned round = 0; s && round < 5; round++) {
		uint64_t begun = units_now_ns(), took;
		uint32_t status = gcry ? crypt_gcry(s, m, decrypt, iv, in, out, sizeof(in))
				       : crypt_evp(s, m, decrypt, iv, in, out, sizeof(in));

		took = units_now_ns() - begun;
		if (!status && round && took < best) /* the first makes the context */
			best = took;
	}
	sm4_free(s);
	return best;
}

void sm4_choose(void)
{
	size_t n = 0;

	if (engines[0])
		return;
	for (unsigned m = 0; m < MODES; m++)
		for (unsigned decrypt = 0; decrypt < 2; decrypt++) {
			by_gcry[m][decrypt] = time_of(true, m, decrypt) < time_of(false, m, decrypt);
			if (by_gcry[m][decrypt] && n < sizeof(engines))
				n += (size_t)snprintf(engines + n, sizeof(engines) - n, "%s%s%s",
						      n ? " " : "", modes[m].name, decrypt ? "-dec" : "");
		}
	if (!n)
		snprintf(engines, sizeof(engines), "none");
}

const char *sm4_engines(void)
{
	return engines;
}

/* Modes that prove what they carry. OpenSSL 3.0 has none of them for SM4. */
struct sm4_aead {
	gcry_cipher_hd_t h;
	bool decrypt;
	uint32_t tag_len;
};

struct sm4_aead *sm4_aead_new(const uint8_t key[SM4_BLOCK], uint32_t alg, bool decrypt,
			      const struct card_aead *args, uint64_t aad_total, uint64_t text_total)
{
	struct sm4_aead *a = calloc(1, sizeof(*a));
	uint64_t lengths[3] = {text_total, aad_total, args->tag_len};
	bool ccm = alg == SGD_SM4_CCM;
	gcry_error_t rc;

	if (!a)
		return NULL;
	start_gcry();
	a->decrypt = decrypt;
	a->tag_len = args->tag_len;
	rc = gcry_cipher_open(&a->h, GCRY_CIPHER_SM4, ccm ? GCRY_CIPHER_MODE_CCM : GCRY_CIPHER_MODE_GCM, 0);
	if (!rc)
		rc = gcry_cipher_setkey(a->h, key, SM4_BLOCK);
	if (!rc)
		rc = gcry_cipher_setiv(a->h, args->nonce, args->nonce_len);
	if (!rc && ccm)
		rc = gcry_cipher_ctl(a->h, GCRYCTL_SET_CCM_LENGTHS, lengths, sizeof(lengths));
	if (!rc)
		return a;
	sm4_aead_free(a);
	return NULL;
}

uint32_t sm4_aead_aad(struct sm4_aead *a, const uint8_t *aad, size_t n)
{
	return n && gcry_cipher_authenticate(a->h, aad, n) ? SDR_STEPERR : SDR_OK;
}

uint32_t sm4_aead_text(struct sm4_aead *a, const uint8_t *in, uint8_t *out, size_t n, bool last)
{
	gcry_error_t rc = last ? gcry_cipher_final(a->h) : 0;

	if (!rc)
		rc = a->decrypt ? gcry_cipher_decrypt(a->h, out, n, in, n)
				: gcry_cipher_encrypt(a->h, out, n, in, n);
	return rc ? SDR_SYMOPERR : SDR_OK;
}

uint32_t sm4_aead_end(struct sm4_aead *a, const struct card_aead *given, struct card_aead *answer)
{
	if (a->decrypt)
		return gcry_cipher_checktag(a->h, given->tag, a->tag_len) ? SDR_MACERR : SDR_OK;
	answer->tag_len = a->tag_len;
	return gcry_cipher_gettag(a->h, answer->tag, a->tag_len) ? SDR_SYMOPERR : SDR_OK;
}

void sm4_aead_free(struct sm4_aead *a)
{
	if (!a)
		return;
	gcry_cipher_close(a->h); /* wipes its keys */
	free(a);
}
