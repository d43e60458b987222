/* SPDX-License-Identifier: MIT */
/*
 * An application of GM/T 0018: it knows sdf.h, and nothing of how the card is reached.
 *	app vectors [N]   results of GB/T 32905 (SM3), 32907 (SM4), 32918 (SM2) and RFC 8998 (GCM); there and back N
 *	                  times (10000) for the standard's million
 *	app keys          what the card's own key 1 and KEK 1 do
 *	app lacks         what the soft card has not: RSA, SM1, modes, keys; each by its own code
 *	app errors        wrong handles, wrong orders, wrong sizes
 *	app long          more than a request holds, against the same in pieces
 *	app threads N     N threads at once, each result checked
 *	app forks         parent and child
 *	app until-eof     checked calls until standard input ends; prints done, failed
 *	app dlopen LIB    every function is there, by name
 * Ends with 0, or 1 and a line for each thing that is wrong.
 */
#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sdf.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static int wrong;

static void check(int line, const char *what, long got, long expected)
{
	if (got == expected)
		return;
	printf("line %d: %s: %#lx, not %#lx\n", line, what, (unsigned long)got, (unsigned long)expected);
	__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
}
#define IS(call, expected) check(__LINE__, #call, (long)(call), (long)(expected))
#define OK(call) IS(call, SDR_OK)

static size_t hex(const char *text, unsigned char *out)
{
	size_t n = 0;
	unsigned byte;

	while (sscanf(text, "%2x", &byte) == 1) {
		out[n++] = (unsigned char)byte;
		text += 2 + (text[2] == ' ');
		if (!text[-1])
			break;
	}
	return n;
}

static void same(int line, const void *got, size_t n, const char *expected)
{
	unsigned char want[512];

	if (hex(expected, want) == n && !memcmp(got, want, n))
		return;
	printf("line %d: not %s\n", line, expected);
	__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
}
#define SAME(got, n, expected) same(__LINE__, got, n, expected)

static void *device, *session;

static void open_card(void)
{
	OK(SDF_OpenDevice(&device));
	OK(SDF_OpenSession(device, &session));
	if (wrong)
		exit(1);
}

static void close_card(void)
{
	OK(SDF_CloseSession(session));
	OK(SDF_CloseDevice(device));
}

/* --- published results --- */

#define KEY "0123456789abcdeffedcba9876543210"
#define SM2_D "3945208f7b2144b13f36e38ac6d39f95889393692860b51a42fb81ef4df7c5b8"
#define SM2_X "09f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020"
#define SM2_Y "ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13"

static void digest(const char *text, const char *expected)
{
	unsigned char out[32];
	unsigned int n = 0;

	OK(SDF_HashInit(session, SGD_SM3, NULL, NULL, 0));
	OK(SDF_HashUpdate(session, (unsigned char *)text, (unsigned int)strlen(text)));
	OK(SDF_HashFinal(session, NULL, &n));
	IS(n, 32);
	OK(SDF_HashFinal(session, out, &n));
	SAME(out, n, expected);
}

static void sm3(void)
{
	digest("abc", "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0");
	digest("abcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcd",
	       "debe9ff92275b8a138604889c18e5a4d6fdb70e5387e5765293dcba39c0c5732");
	digest("", "1ab21d8355cfa17f8e61194831e81a8f22bec8c728fefb747ed035eb5082aa2b");
}

static void *take(const char *text)
{
	unsigned char key[16];
	void *k = NULL;

	hex(text, key);
	OK(SDF_ImportKey(session, key, sizeof(key), &k));
	return k;
}

static void sm4(int rounds)
{
	unsigned char block[16], out[16];
	unsigned int n = 0;
	void *k = take(KEY);

	hex(KEY, block);
	OK(SDF_Encrypt(session, k, SGD_SM4_ECB, NULL, block, 16, out, &n));
	SAME(out, n, "681edf34d206965e86b3e94f536e4246");
	OK(SDF_Decrypt(session, k, SGD_SM4_ECB, NULL, out, 16, out, &n));
	SAME(out, n, KEY);
	for (int i = 0; i < rounds; i++)
		SDF_Encrypt(session, k, SGD_SM4_ECB, NULL, block, 16, block, &n);
	for (int i = 0; i < rounds; i++)
		SDF_Decrypt(session, k, SGD_SM4_ECB, NULL, block, 16, block, &n);
	SAME(block, 16, KEY);
	OK(SDF_ExternalKeyEncrypt(session, SGD_SM4_ECB, block, 16, NULL, 0, block, 16, out, &n));
	SAME(out, n, "681edf34d206965e86b3e94f536e4246");
	OK(SDF_DestroyKey(session, k));
}

/* RFC 8998, appendix A.1 */
static void gcm(void)
{
	unsigned char nonce[12], aad[20], text[64], out[64], tag[16], back[64], iv[16] = {0};
	unsigned int n = 0, t = 0, last = 0;
	void *k = take(KEY);

	(void)iv;
	hex("00001234567800000000abcd", nonce);
	hex("feedfacedeadbeeffeedfacedeadbeefabaddad2", aad);
	hex("aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccddddddddddddddddeeeeeeeeeeeeeeeeffffffffffffffff"
	    "eeeeeeeeeeeeeeeeaaaaaaaaaaaaaaaa", text);
	OK(SDF_AuthEnc(session, k, SGD_SM4_GCM, nonce, 12, aad, 20, text, 64, out, &n, tag, &t));
	SAME(out, n, "17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735d82710ca5c22f0ccfa7cbf93d496a"
		     "c15a56834cbcf98c397b4024a2691233b8d");
	SAME(tag, t, "83de3541e4c2b58177e065a9bf7b62ec");
	OK(SDF_AuthDec(session, k, SGD_SM4_GCM, nonce, 12, aad, 20, tag, 16, out, 64, back, &n));
	IS(memcmp(back, text, 64), 0);
	tag[3] ^= 1;
	IS(SDF_AuthDec(session, k, SGD_SM4_GCM, nonce, 12, aad, 20, tag, 16, out, 64, back, &n) != SDR_OK, 1);
	tag[3] ^= 1;
	/* in pieces of no particular size */
	OK(SDF_AuthEncInit(session, k, SGD_SM4_GCM, nonce, 12, aad, 20, 64));
	OK(SDF_AuthEncUpdate(session, text, 5, back, &n));
	IS(n, 0);
	OK(SDF_AuthEncUpdate(session, text + 5, 50, back, &n));
	IS(n, 48);
	OK(SDF_AuthEncUpdate(session, text + 55, 8, back + n, &last));
	n += last;
	OK(SDF_AuthEncUpdate(session, text + 63, 1, back + n, &last));
	n += last;
	OK(SDF_AuthEncFinal(session, back + n, &last, tag, &t));
	IS(n + last, 64);
	IS(memcmp(back, out, 64), 0);
	SAME(tag, t, "83de3541e4c2b58177e065a9bf7b62ec");
	OK(SDF_AuthDecInit(session, k, SGD_SM4_GCM, nonce, 12, aad, 20, tag, 16, 64));
	OK(SDF_AuthDecUpdate(session, out, 33, back, &n));
	OK(SDF_AuthDecUpdate(session, out + 33, 31, back + n, &last));
	n += last;
	OK(SDF_AuthDecFinal(session, back + n, &last));
	IS(memcmp(back, text, 64), 0);
	tag[0] ^= 1;
	OK(SDF_AuthDecInit(session, k, SGD_SM4_GCM, nonce, 12, aad, 20, tag, 16, 64));
	OK(SDF_AuthDecUpdate(session, out, 64, back, &n));
	IS(SDF_AuthDecFinal(session, back + n, &last) != SDR_OK, 1);
	OK(SDF_DestroyKey(session, k));
}

static void sm2_keys(ECCrefPublicKey *pub, ECCrefPrivateKey *priv)
{
	memset(pub, 0, sizeof(*pub));
	memset(priv, 0, sizeof(*priv));
	pub->bits = priv->bits = 256;
	hex(SM2_X, pub->x + 32);
	hex(SM2_Y, pub->y + 32);
	hex(SM2_D, priv->K + 32);
}

/* GB/T 32918.5, annexes A and C */
static void sm2(void)
{
	unsigned char id[] = "1234567812345678", m[] = "message digest", e[32], out[64];
	union {
		ECCCipher c;
		unsigned char room[sizeof(ECCCipher) + 64];
	} u = {.room = {0}};
	ECCrefPublicKey pub;
	ECCrefPrivateKey priv;
	ECCSignature sig = {{0}, {0}};
	unsigned int n = 0;

	sm2_keys(&pub, &priv);
	OK(SDF_HashInit(session, SGD_SM3, &pub, id, 16));
	OK(SDF_HashUpdate(session, m, 14));
	OK(SDF_HashFinal(session, e, &n));
	SAME(e, n, "f0b43e94ba45accaace692ed534382eb17e6ab5a19ce7b31f4486fdfc0d28640");
	hex("f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3", sig.r + 32);
	hex("b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa", sig.s + 32);
	OK(SDF_ExternalVerify_ECC(session, SGD_SM2_1, &pub, e, 32, &sig));
	sig.s[63] ^= 1;
	IS(SDF_ExternalVerify_ECC(session, SGD_SM2_1, &pub, e, 32, &sig), SDR_VERIFYERR);
	OK(SDF_ExternalSign_ECC(session, SGD_SM2_1, &priv, e, 32, &sig));
	OK(SDF_ExternalVerify_ECC(session, SGD_SM2_1, &pub, e, 32, &sig));
	hex("04ebfc718e8d1798620432268e77feb6415e2ede0e073c0f4f640ecd2e149a73", u.c.x + 32);
	hex("e858f9d81e5430a57b36daab8f950a3c64e6ee6a63094d99283aff767e124df0", u.c.y + 32);
	hex("59983c18f809e262923c53aec295d30383b54e39d609d160afcb1908d0bd8766", u.c.M);
	hex("21886ca989ca9c7d58087307ca93092d651efa", u.c.C);
	u.c.L = 19;
	OK(SDF_ExternalDecrypt_ECC(session, SGD_SM2_3, &priv, &u.c, out, &n));
	IS(n, 19);
	IS(memcmp(out, "encryption standard", 19), 0);
	u.c.M[0] ^= 1;
	IS(SDF_ExternalDecrypt_ECC(session, SGD_SM2_3, &priv, &u.c, out, &n) != SDR_OK, 1);
	OK(SDF_ExternalEncrypt_ECC(session, SGD_SM2_3, &pub, (unsigned char *)"a secret", 8, &u.c));
	OK(SDF_ExternalDecrypt_ECC(session, SGD_SM2_3, &priv, &u.c, out, &n));
	IS(memcmp(out, "a secret", 8), 0);
	OK(SDF_GenerateKeyPair_ECC(session, SGD_SM2_1, 256, &pub, &priv));
	OK(SDF_ExternalSign_ECC(session, SGD_SM2_1, &priv, e, 32, &sig));
	OK(SDF_ExternalVerify_ECC(session, SGD_SM2_1, &pub, e, 32, &sig));
}

static void vectors(int rounds)
{
	DEVICEINFO info;
	unsigned char r[2][16];

	OK(SDF_GetDeviceInfo(session, &info));
	IS(info.SymAlgAbility & 0x400, 0x400);
	OK(SDF_GenerateRandom(session, 16, r[0]));
	OK(SDF_GenerateRandom(session, 16, r[1]));
	IS(memcmp(r[0], r[1], 16) != 0, 1);
	sm3();
	sm4(rounds);
	gcm();
	sm2();
}

/* --- keys that live in the card --- */

static void key_works(void *a, void *b)
{
	unsigned char in[32] = "the same key at both ends", x[32], y[32];
	unsigned int n;

	OK(SDF_Encrypt(session, a, SGD_SM4_ECB, NULL, in, 32, x, &n));
	OK(SDF_Decrypt(session, b, SGD_SM4_ECB, NULL, x, 32, y, &n));
	IS(memcmp(in, y, 32), 0);
}

static void wrapped(void)
{
	union {
		ECCCipher c;
		unsigned char room[sizeof(ECCCipher) + 32];
	} u, v;
	ECCrefPublicKey pub;
	ECCrefPrivateKey priv;
	unsigned char key[64], out[64];
	unsigned int n = 0;
	void *a, *b;

	OK(SDF_GenerateKeyWithIPK_ECC(session, 1, 128, &u.c, &a));
	OK(SDF_ImportKeyWithISK_ECC(session, 1, &u.c, &b));
	key_works(a, b);
	OK(SDF_GenerateKeyPair_ECC(session, SGD_SM2_3, 256, &pub, &priv));
	OK(SDF_ExchangeDigitEnvelopeBaseOnECC(session, 1, SGD_SM2_3, &pub, &u.c, &v.c));
	OK(SDF_ExternalDecrypt_ECC(session, SGD_SM2_3, &priv, &v.c, out, &n));
	IS(n, 16);
	OK(SDF_DestroyKey(session, b));
	OK(SDF_ImportKey(session, out, 16, &b));
	key_works(a, b);
	OK(SDF_DestroyKey(session, a));
	OK(SDF_DestroyKey(session, b));
	OK(SDF_GenerateKeyWithEPK_ECC(session, 128, SGD_SM2_3, &pub, &u.c, &a));
	OK(SDF_ExternalDecrypt_ECC(session, SGD_SM2_3, &priv, &u.c, out, &n));
	OK(SDF_ImportKey(session, out, n, &b));
	key_works(a, b);
	OK(SDF_DestroyKey(session, b));
	OK(SDF_GenerateKeyWithKEK(session, 128, SGD_SM4_ECB, 1, key, &n, &a));
	OK(SDF_ImportKeyWithKEK(session, SGD_SM4_ECB, 1, key, n, &b));
	key_works(a, b);
}

/* Both ends of an agreement, by the same card. */
static void agreement(void)
{
	unsigned char one[] = "ALICE123@YAHOO.COM", two[] = "BILL456@YAHOO.COM";
	ECCrefPublicKey pub_a, tmp_a, pub_b, tmp_b;
	void *agree, *ka, *kb;

	OK(SDF_GenerateAgreementDataWithECC(session, 1, 128, one, 18, &pub_a, &tmp_a, &agree));
	OK(SDF_GenerateAgreementDataAndKeyWithECC(session, 1, 128, two, 17, one, 18, &pub_a, &tmp_a,
						  &pub_b, &tmp_b, &kb));
	OK(SDF_GenerateKeyWithECC(session, two, 17, &pub_b, &tmp_b, agree, &ka));
	key_works(ka, kb);
	IS(SDF_GenerateKeyWithECC(session, two, 17, &pub_b, &tmp_b, agree, &ka), SDR_INARGERR);
}

static void keys(void)
{
	union {
		ECCCipher c;
		unsigned char room[sizeof(ECCCipher) + 64];
	} u;
	unsigned char e[32] = "thirty-two bytes, as a digest is", out[64];
	ECCrefPublicKey pub;
	ECCSignature sig;
	unsigned int n;

	OK(SDF_ExportSignPublicKey_ECC(session, 1, &pub));
	OK(SDF_InternalSign_ECC(session, 1, e, 32, &sig));
	OK(SDF_InternalVerify_ECC(session, 1, e, 32, &sig));
	OK(SDF_ExternalVerify_ECC(session, SGD_SM2_1, &pub, e, 32, &sig));
	OK(SDF_ExportEncPublicKey_ECC(session, 1, &pub));
	OK(SDF_ExternalEncrypt_ECC(session, SGD_SM2_3, &pub, e, 32, &u.c));
	OK(SDF_InternalDecrypt_ECC(session, 1, SGD_SM2_3, &u.c, out, &n));
	IS(memcmp(out, e, 32), 0);
	OK(SDF_InternalEncrypt_ECC(session, 1, SGD_SM2_3, e, 32, &u.c));
	OK(SDF_InternalDecrypt_ECC(session, 1, SGD_SM2_3, &u.c, out, &n));
	IS(memcmp(out, e, 32), 0);
	IS(SDF_InternalSign_ECC(session, 77, e, 32, &sig), SDR_KEYNOTEXIST);
	IS(SDF_ExportSignPublicKey_ECC(session, 77, &pub), SDR_KEYNOTEXIST);
	wrapped();
	agreement();
}

/* --- what must not work --- */

static void handles(void)
{
	void *const bad[] = {NULL, (void *)1, (void *)8, (void *)&wrong, (void *)-1L, device};
	void *s, *k, *other;
	unsigned char b[16] = {0};
	unsigned int n;

	for (size_t i = 0; i < COUNT(bad); i++) {
		IS(SDF_CloseSession(bad[i]), SDR_INARGERR);
		IS(SDF_GenerateRandom(bad[i], 16, b), SDR_INARGERR);
		IS(SDF_HashInit(bad[i], SGD_SM3, NULL, NULL, 0), SDR_INARGERR);
		IS(SDF_Encrypt(session, bad[i], SGD_SM4_ECB, NULL, b, 16, b, &n), SDR_KEYNOTEXIST);
		IS(SDF_DestroyKey(session, bad[i]), SDR_KEYNOTEXIST);
		if (bad[i] != device)
			IS(SDF_OpenSession(bad[i], &s), SDR_INARGERR);
	}
	IS(SDF_CloseDevice(session), SDR_INARGERR);
	OK(SDF_OpenSession(device, &s));
	OK(SDF_ImportKey(s, b, 16, &k));
	OK(SDF_DestroyKey(s, k));
	IS(SDF_DestroyKey(s, k), SDR_KEYNOTEXIST);
	IS(SDF_Encrypt(s, k, SGD_SM4_ECB, NULL, b, 16, b, &n), SDR_KEYNOTEXIST);
	OK(SDF_ImportKey(s, b, 16, &other));
	IS(SDF_Encrypt(s, k, SGD_SM4_ECB, NULL, b, 16, b, &n), SDR_KEYNOTEXIST);
	OK(SDF_CloseSession(s));
	IS(SDF_CloseSession(s), SDR_INARGERR);
	IS(SDF_Encrypt(session, other, SGD_SM4_ECB, NULL, b, 16, b, &n), SDR_KEYNOTEXIST);
	IS(SDF_GenerateRandom(s, 16, b), SDR_INARGERR);
}

static void arguments(void)
{
	unsigned char b[32] = {0}, iv[16] = {0};
	ECCrefPublicKey pub = {.bits = 256};
	ECCSignature sig = {{0}, {0}};
	unsigned int n = 0;
	void *k = take(KEY);

	IS(SDF_OpenDevice(NULL), SDR_OUTARGERR);
	IS(SDF_OpenSession(device, NULL), SDR_OUTARGERR);
	IS(SDF_GetDeviceInfo(session, NULL), SDR_OUTARGERR);
	IS(SDF_Encrypt(session, k, SGD_SM4_CBC, iv, b, 17, b, &n), SDR_INARGERR);
	IS(SDF_Encrypt(session, k, SGD_SM4_CBC, NULL, b, 16, b, &n), SDR_INARGERR);
	IS(SDF_Encrypt(session, k, SGD_SM4_CBC, iv, b, 16, b, NULL), SDR_OUTARGERR);
	OK(SDF_Encrypt(session, k, SGD_SM4_CBC, iv, b, 32, NULL, &n));
	IS(n, 32);
	IS(SDF_Encrypt(session, k, SGD_SM1_ECB, NULL, b, 16, b, &n), SDR_ALGNOTSUPPORT);
	IS(SDF_HashUpdate(session, b, 1), SDR_STEPERR);
	IS(SDF_HashFinal(session, b, &n), SDR_STEPERR);
	IS(SDF_EncryptUpdate(session, b, 16, b, &n), SDR_STEPERR);
	IS(SDF_AuthDecFinal(session, b, &n), SDR_STEPERR);
	IS(SDF_HMACFinal(session, b, &n), SDR_STEPERR);
	IS(SDF_HashInit(session, 0x77777, NULL, NULL, 0), SDR_ALGNOTSUPPORT);
	OK(SDF_EncryptInit(session, k, SGD_SM4_CBC, iv, 16));
	OK(SDF_EncryptUpdate(session, b, 17, b, &n));
	IS(n, 16);
	IS(SDF_EncryptFinal(session, b, &n), SDR_INARGERR);
	IS(SDF_ExternalVerify_ECC(session, SGD_SM2_1, &pub, b, 32, &sig) != SDR_OK, 1);
	IS(SDF_ExternalVerify_ECC(session, SGD_RSA, &pub, b, 32, &sig), SDR_ALGNOTSUPPORT);
	IS(SDF_ReadFile(session, (unsigned char *)"none", 4, 0, &n, b) != SDR_OK, 1);
	IS(SDF_CreateFile(session, b, 200, 1), SDR_INARGERR);
	IS(SDF_ImportKey(session, b, 0, &k), SDR_INARGERR);
}

/* Every RSA function; SM1; keys that are not there, for each function that takes an index. */
static void no_rsa(void)
{
	RSArefPublicKey pub = {.bits = 2048};
	RSArefPrivateKey priv = {.bits = 2048};
	unsigned char in[256] = {0}, out[512];
	unsigned int n = sizeof(out);
	void *k = NULL;

	IS(SDF_ExportSignPublicKey_RSA(session, 1, &pub), SDR_KEYNOTEXIST);
	IS(SDF_ExportEncPublicKey_RSA(session, 1, &pub), SDR_KEYNOTEXIST);
	IS(SDF_GenerateKeyPair_RSA(session, 2048, &pub, &priv), SDR_ALGNOTSUPPORT);
	IS(SDF_GenerateKeyWithIPK_RSA(session, 1, 128, out, &n, &k), SDR_KEYNOTEXIST);
	IS(SDF_GenerateKeyWithEPK_RSA(session, 128, &pub, out, &n, &k), SDR_ALGNOTSUPPORT);
	IS(SDF_ImportKeyWithISK_RSA(session, 1, in, 256, &k), SDR_KEYNOTEXIST);
	IS(SDF_ExchangeDigitEnvelopeBaseOnRSA(session, 1, &pub, in, 256, out, &n), SDR_KEYNOTEXIST);
	IS(SDF_ExternalPublicKeyOperation_RSA(session, &pub, in, 256, out, &n), SDR_NOTSUPPORT);
	IS(SDF_InternalPublicKeyOperation_RSA(session, 1, in, 256, out, &n), SDR_NOTSUPPORT);
	IS(SDF_InternalPrivateKeyOperation_RSA(session, 1, in, 256, out, &n), SDR_NOTSUPPORT);
	IS(SDF_ExternalPrivateKeyOperation_RSA(session, &priv, in, 256, out, &n), SDR_NOTSUPPORT);
	IS(k == NULL, 1);
}

static void no_sm1(void)
{
	static const unsigned int algs[] = {SGD_SM1_ECB, SGD_SM1_CBC, SGD_SM1_CFB, SGD_SM1_OFB, SGD_SM1_CTR};
	unsigned char b[16] = {0}, iv[16] = {0}, key[16] = {0}, out[64];
	unsigned int n = 0, t = 0;
	void *k = take(KEY), *made = NULL;

	for (size_t i = 0; i < COUNT(algs); i++) {
		IS(SDF_Encrypt(session, k, algs[i], iv, b, 16, out, &n), SDR_ALGNOTSUPPORT);
		IS(SDF_Decrypt(session, k, algs[i], iv, b, 16, out, &n), SDR_ALGNOTSUPPORT);
		IS(SDF_EncryptInit(session, k, algs[i], iv, 16), SDR_ALGNOTSUPPORT);
		IS(SDF_DecryptInit(session, k, algs[i], iv, 16), SDR_ALGNOTSUPPORT);
		IS(SDF_ExternalKeyEncrypt(session, algs[i], key, 16, iv, 16, b, 16, out, &n), SDR_ALGNOTSUPPORT);
		IS(SDF_ExternalKeyDecrypt(session, algs[i], key, 16, iv, 16, b, 16, out, &n), SDR_ALGNOTSUPPORT);
		IS(SDF_ExternalKeyEncryptInit(session, algs[i], key, 16, iv, 16), SDR_ALGNOTSUPPORT);
		IS(SDF_ExternalKeyDecryptInit(session, algs[i], key, 16, iv, 16), SDR_ALGNOTSUPPORT);
	}
	IS(SDF_CalculateMAC(session, k, SGD_SM1_MAC, iv, b, 16, out, &n), SDR_ALGNOTSUPPORT);
	IS(SDF_CalculateMACInit(session, k, SGD_SM1_MAC, iv, 16), SDR_ALGNOTSUPPORT);
	IS(SDF_GenerateKeyWithKEK(session, 128, SGD_SM1_ECB, 1, out, &n, &made), SDR_ALGNOTSUPPORT);
	IS(SDF_ImportKeyWithKEK(session, SGD_SM1_ECB, 1, b, 16, &made), SDR_ALGNOTSUPPORT);
	IS(SDF_AuthEnc(session, k, SGD_SM1_CBC, iv, 12, b, 16, b, 16, out, &n, out + 32, &t), SDR_ALGNOTSUPPORT);
	IS(SDF_AuthDec(session, k, SGD_SM1_CBC, iv, 12, b, 16, b, 16, b, 16, out, &n), SDR_ALGNOTSUPPORT);
	IS(SDF_AuthEncInit(session, k, SGD_SM1_CBC, iv, 12, b, 16, 16), SDR_ALGNOTSUPPORT);
	IS(SDF_AuthDecInit(session, k, SGD_SM1_CBC, iv, 12, b, 16, b, 16, 16), SDR_ALGNOTSUPPORT);
	IS(SDF_HashInit(session, 0x80, NULL, NULL, 0), SDR_ALGNOTSUPPORT);
	IS(SDF_HMACInit(session, k, SGD_SHA256), SDR_ALGNOTSUPPORT);
	IS(SDF_ExternalKeyHMACInit(session, SGD_SHA256, key, 16), SDR_ALGNOTSUPPORT);
	IS(made == NULL, 1);
	OK(SDF_DestroyKey(session, k));
}

static void no_keys(void)
{
	union {
		ECCCipher c;
		unsigned char room[sizeof(ECCCipher) + 64];
	} u = {.c = {.L = 16}}, v;
	unsigned char e[32] = {0}, id[4] = "id", out[64];
	ECCrefPublicKey pub = {.bits = 256}, tmp = {.bits = 256};
	ECCSignature sig = {{0}, {0}};
	unsigned int n = 0;
	void *k = NULL;

	IS(SDF_GetPrivateKeyAccessRight(session, 77, e, 4), SDR_KEYNOTEXIST);
	IS(SDF_ReleasePrivateKeyAccessRight(session, 77), SDR_KEYNOTEXIST);
	IS(SDF_ExportEncPublicKey_ECC(session, 77, &pub), SDR_KEYNOTEXIST);
	IS(SDF_GenerateKeyWithIPK_ECC(session, 77, 128, &u.c, &k), SDR_KEYNOTEXIST);
	IS(SDF_ImportKeyWithISK_ECC(session, 77, &u.c, &k), SDR_KEYNOTEXIST);
	IS(SDF_ExchangeDigitEnvelopeBaseOnECC(session, 77, SGD_SM2_3, &pub, &u.c, &v.c), SDR_KEYNOTEXIST);
	IS(SDF_GenerateAgreementDataWithECC(session, 77, 128, id, 2, &pub, &tmp, &k), SDR_KEYNOTEXIST);
	IS(SDF_GenerateAgreementDataAndKeyWithECC(session, 77, 128, id, 2, id, 2, &pub, &tmp, &pub, &tmp, &k), SDR_KEYNOTEXIST);
	IS(SDF_GenerateKeyWithKEK(session, 128, SGD_SM4_ECB, 77, out, &n, &k), SDR_KEYNOTEXIST);
	IS(SDF_ImportKeyWithKEK(session, SGD_SM4_ECB, 77, e, 16, &k), SDR_KEYNOTEXIST);
	IS(SDF_InternalVerify_ECC(session, 77, e, 32, &sig), SDR_KEYNOTEXIST);
	IS(SDF_InternalEncrypt_ECC(session, 77, SGD_SM2_3, e, 16, &u.c), SDR_KEYNOTEXIST);
	IS(SDF_InternalDecrypt_ECC(session, 77, SGD_SM2_3, &u.c, out, &n), SDR_KEYNOTEXIST);
	IS(k == NULL, 1);
}

static void lacks(void)
{
	no_rsa();
	no_sm1();
	no_keys();
	digest("abc", "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0");
}

static void errors(void)
{
	handles();
	arguments();
}

/* --- more than a request holds --- */

static void *filled(size_t n)
{
	unsigned char *p = malloc(n);

	for (size_t i = 0; p && i < n; i++)
		p[i] = (unsigned char)(i * 7 + i / 251);
	return p;
}

static void pieces_agree(void *k, unsigned int alg, unsigned char *in, unsigned int n)
{
	unsigned char iv[2][16] = {{1, 2, 3}, {1, 2, 3}}, *whole = malloc(n), *parts = malloc(n + 16);
	unsigned int out = 0, at = 0, done = 0, step = 1;

	OK(SDF_Encrypt(session, k, alg, iv[0], in, n, whole, &out));
	IS(out, n);
	OK(SDF_EncryptInit(session, k, alg, iv[1], 16));
	for (; at < n; at += step, step = step * 3 + 5) {
		if (step > n - at)
			step = n - at;
		OK(SDF_EncryptUpdate(session, in + at, step, parts + done, &out));
		done += out;
	}
	OK(SDF_EncryptFinal(session, parts + done, &out));
	IS(done + out, n);
	IS(memcmp(whole, parts, n), 0);
	memcpy(iv[0], iv[1], 16);
	OK(SDF_Decrypt(session, k, alg, iv[0], whole, n, whole, &out));
	IS(memcmp(whole, in, n), 0);
	free(whole);
	free(parts);
}

static void large(void)
{
	static const unsigned int modes[] = {SGD_SM4_ECB, SGD_SM4_CBC, SGD_SM4_CFB, SGD_SM4_OFB, SGD_SM4_CTR};
	unsigned int n = 300000 / 16 * 16, m = 0, t = 0;
	unsigned char *in = filled(n), *out = malloc(n), mac[2][16], iv[2][16] = {{0}, {0}}, d[2][32], tag[16];
	void *k = take(KEY);

	for (size_t i = 0; i < COUNT(modes); i++)
		pieces_agree(k, modes[i], in, n);
	OK(SDF_CalculateMAC(session, k, SGD_SM4_MAC, iv[0], in, n, mac[0], &m));
	OK(SDF_Encrypt(session, k, SGD_SM4_CBC, iv[1], in, n, out, &m));
	IS(memcmp(mac[0], out + n - 16, 16), 0); /* the MAC is the last block of CBC */
	OK(SDF_CalculateMACInit(session, k, SGD_SM4_MAC, mac[1], 0) == SDR_INARGERR ? SDR_OK : 1);
	memset(iv, 0, sizeof(iv));
	OK(SDF_CalculateMACInit(session, k, SGD_SM4_MAC, iv[0], 16));
	OK(SDF_CalculateMACUpdate(session, in, 100001));
	OK(SDF_CalculateMACUpdate(session, in + 100001, n - 100001));
	OK(SDF_CalculateMACFinal(session, mac[1], &m));
	IS(memcmp(mac[0], mac[1], 16), 0);
	OK(SDF_HashInit(session, SGD_SM3, NULL, NULL, 0));
	OK(SDF_HashUpdate(session, in, n));
	OK(SDF_HashFinal(session, d[0], &m));
	OK(SDF_HashInit(session, SGD_SM3, NULL, NULL, 0));
	for (unsigned int i = 0; i < n; i += 1000)
		OK(SDF_HashUpdate(session, in + i, n - i < 1000 ? n - i : 1000));
	OK(SDF_HashFinal(session, d[1], &m));
	IS(memcmp(d[0], d[1], 32), 0);
	OK(SDF_HMACInit(session, k, SGD_SM3));
	OK(SDF_HMACUpdate(session, in, n));
	OK(SDF_HMACFinal(session, d[0], &m));
	OK(SDF_ExternalKeyHMACInit(session, SGD_SM3, (unsigned char *)"\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10", 16));
	OK(SDF_HMACUpdate(session, in, 20000));
	OK(SDF_HMACUpdate(session, in + 20000, n - 20000));
	OK(SDF_HMACFinal(session, d[1], &m));
	IS(memcmp(d[0], d[1], 32), 0);
	OK(SDF_AuthEnc(session, k, SGD_SM4_GCM, iv[1], 12, in, 30000, in, n, out, &m, tag, &t));
	OK(SDF_AuthDec(session, k, SGD_SM4_GCM, iv[1], 12, in, 30000, tag, t, out, n, out, &m));
	IS(memcmp(in, out, n), 0);
	OK(SDF_GenerateRandom(session, n, out));
	IS(memcmp(out, out + n / 2, 16) != 0, 1);
	free(in);
	free(out);
}

/* --- at once --- */

static void *work(void *arg)
{
	unsigned char in[5000], out[5008], iv[16], key[16] = {0}, d[2][32];
	void *s, *k;
	unsigned int n;

	memset(in, (int)(long)arg, sizeof(in));
	key[0] = (unsigned char)(long)arg;
	OK(SDF_OpenSession(device, &s));
	OK(SDF_ImportKey(s, key, 16, &k));
	for (int i = 0; i < 50; i++) {
		memset(iv, i, 16);
		OK(SDF_Encrypt(s, k, SGD_SM4_CTR, iv, in, sizeof(in), out, &n));
		memset(iv, i, 16);
		OK(SDF_Decrypt(s, k, SGD_SM4_CTR, iv, out, sizeof(in), out, &n));
		IS(memcmp(in, out, sizeof(in)), 0);
		OK(SDF_HashInit(s, SGD_SM3, NULL, NULL, 0));
		OK(SDF_HashUpdate(s, in, sizeof(in)));
		OK(SDF_HashFinal(s, d[!!i], &n));
		IS(i && memcmp(d[0], d[1], 32), 0);
	}
	OK(SDF_DestroyKey(s, k));
	OK(SDF_CloseSession(s));
	return NULL;
}

/* One session for all: calls are answered, or told the order was wrong, and nothing breaks. */
static void *share(void *arg)
{
	unsigned char b[64];
	unsigned int n;

	(void)arg;
	for (int i = 0; i < 200; i++) {
		SDF_HashInit(session, SGD_SM3, NULL, NULL, 0);
		SDF_HashUpdate(session, b, sizeof(b));
		SDF_HashFinal(session, b, &n);
		OK(SDF_GenerateRandom(session, sizeof(b), b));
	}
	return NULL;
}

static void threads(int n)
{
	pthread_t t[128];

	n = n < 1 ? 1 : n > 128 ? 128 : n;
	for (long i = 0; i < n; i++)
		pthread_create(&t[i], NULL, work, (void *)i);
	for (int i = 0; i < n; i++)
		pthread_join(t[i], NULL);
	for (long i = 0; i < n; i++)
		pthread_create(&t[i], NULL, share, NULL);
	for (int i = 0; i < n; i++)
		pthread_join(t[i], NULL);
}

/* The child has nothing of the parent's, opens its own, and leaves the parent's alone. */
static void forks(void)
{
	void *k = take(KEY);
	unsigned char b[16];
	unsigned int n;
	int status = 0;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		void *d, *s;

		IS(SDF_GenerateRandom(session, 16, b), SDR_INARGERR);
		IS(SDF_DestroyKey(session, k), SDR_INARGERR);
		OK(SDF_OpenDevice(&d));
		OK(SDF_OpenSession(d, &s));
		OK(SDF_GenerateRandom(s, 16, b));
		OK(SDF_CloseSession(s));
		OK(SDF_CloseDevice(d));
		exit(!!wrong);
	}
	waitpid(pid, &status, 0);
	IS(status, 0);
	hex(KEY, b);
	OK(SDF_Encrypt(session, k, SGD_SM4_ECB, NULL, b, 16, b, &n));
	SAME(b, 16, "681edf34d206965e86b3e94f536e4246");
}

/* Idempotent calls survive a daemon that is started again; "ready" when the first is done. */
static void until_eof(void)
{
	struct pollfd in = {.fd = 0, .events = POLLIN};
	unsigned long done = 0, failed = 0;
	void *k = take(KEY);
	char c;

	for (;;) {
		unsigned char b[16], d[32];
		unsigned int n = 0;

		hex(KEY, b);
		if (SDF_Encrypt(session, k, SGD_SM4_ECB, NULL, b, 16, b, &n) != SDR_OK)
			failed++;
		else
			SAME(b, n, "681edf34d206965e86b3e94f536e4246");
		if (SDF_HashInit(session, SGD_SM3, NULL, NULL, 0) != SDR_OK ||
		    SDF_HashUpdate(session, (unsigned char *)"abc", 3) != SDR_OK ||
		    SDF_HashFinal(session, d, &n) != SDR_OK)
			failed++;
		else
			SAME(d, n, "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0");
		done++;
		if (done == 1) {
			puts("ready");
			fflush(stdout);
		}
		if (poll(&in, 1, 0) == 1 && read(0, &c, 1) == 0)
			break;
	}
	printf("done %lu failed %lu\n", done, failed);
}

static const char *const names[] = {
	"OpenDevice", "CloseDevice", "OpenSession", "CloseSession", "GetDeviceInfo",
	"GenerateRandom", "GetPrivateKeyAccessRight", "ReleasePrivateKeyAccessRight",
	"ExportSignPublicKey_RSA", "ExportEncPublicKey_RSA", "GenerateKeyPair_RSA",
	"GenerateKeyWithIPK_RSA", "GenerateKeyWithEPK_RSA", "ImportKeyWithISK_RSA",
	"ExchangeDigitEnvelopeBaseOnRSA", "ExportSignPublicKey_ECC", "ExportEncPublicKey_ECC",
	"GenerateKeyPair_ECC", "GenerateKeyWithIPK_ECC", "GenerateKeyWithEPK_ECC",
	"ImportKeyWithISK_ECC", "GenerateAgreementDataWithECC", "GenerateKeyWithECC",
	"GenerateAgreementDataAndKeyWithECC", "ExchangeDigitEnvelopeBaseOnECC",
	"GenerateKeyWithKEK", "ImportKeyWithKEK", "DestroyKey", "ExternalPublicKeyOperation_RSA",
	"InternalPublicKeyOperation_RSA", "InternalPrivateKeyOperation_RSA", "ExternalVerify_ECC",
	"InternalSign_ECC", "InternalVerify_ECC", "ExternalEncrypt_ECC", "InternalEncrypt_ECC",
	"InternalDecrypt_ECC", "Encrypt", "Decrypt", "CalculateMAC", "HashInit", "HashUpdate",
	"HashFinal", "CreateFile", "ReadFile", "WriteFile", "DeleteFile",
	/* 2023 */
	"AuthEnc", "AuthDec", "EncryptInit", "EncryptUpdate", "EncryptFinal", "DecryptInit",
	"DecryptUpdate", "DecryptFinal", "CalculateMACInit", "CalculateMACUpdate",
	"CalculateMACFinal", "AuthEncInit", "AuthEncUpdate", "AuthEncFinal", "AuthDecInit",
	"AuthDecUpdate", "AuthDecFinal", "HMACInit", "HMACUpdate", "HMACFinal",
	"ExternalPrivateKeyOperation_RSA", "ExternalSign_ECC", "ExternalDecrypt_ECC",
	"ExternalKeyEncrypt", "ExternalKeyDecrypt", "ExternalKeyEncryptInit",
	"ExternalKeyDecryptInit", "ExternalKeyHMACInit", "ImportKey",
};

/* As programs do that choose their card at run time. */
static void by_name(const char *path)
{
	void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL), *d = NULL;
	int (*open_device)(void **), (*close_device)(void *);
	char name[64];

	if (!lib) {
		printf("%s\n", dlerror());
		exit(1);
	}
	for (size_t i = 0; i < COUNT(names); i++) {
		snprintf(name, sizeof(name), "SDF_%s", names[i]);
		if (!dlsym(lib, name)) {
			printf("%s is not there\n", name);
			wrong++;
		}
	}
	*(void **)&open_device = dlsym(lib, "SDF_OpenDevice");
	*(void **)&close_device = dlsym(lib, "SDF_CloseDevice");
	OK(open_device(&d));
	OK(close_device(d));
	dlclose(lib);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (argc > 2 && !strcmp(what, "dlopen")) {
		by_name(argv[2]);
		return !!wrong;
	}
	open_card();
	if (!strcmp(what, "vectors"))
		vectors(argc > 2 ? atoi(argv[2]) : 10000);
	else if (!strcmp(what, "keys"))
		keys();
	else if (!strcmp(what, "errors"))
		errors();
	else if (!strcmp(what, "lacks"))
		lacks();
	else if (!strcmp(what, "long"))
		large();
	else if (!strcmp(what, "threads") && argc > 2)
		threads(atoi(argv[2]));
	else if (!strcmp(what, "forks"))
		forks();
	else if (!strcmp(what, "until-eof"))
		until_eof();
	else
		return 2;
	close_card();
	return !!wrong;
}
