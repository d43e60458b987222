/* SPDX-License-Identifier: MIT */
/* SM2 (GB/T 32918) by OpenSSL, between its DER and the cards' fixed fields. */
#include <stdlib.h>
#include <string.h>

#include <openssl/asn1t.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/obj_mac.h>
#include <openssl/param_build.h>

#include "card/soft.h"

#define GIVEN_KEYS 16
#define DER_SPARE 128 /* of a signature or of what is around an encrypted text */

static const EC_GROUP *curve(void)
{
	static EC_GROUP *group;

	if (!group)
		group = EC_GROUP_new_by_curve_name(NID_sm2);
	return group;
}

static bool fits(uint32_t bits, const uint8_t *field, size_t size)
{
	uint8_t any = 0;

	for (size_t i = 0; i < size - SM2_BYTES; i++)
		any |= field[i];
	return bits == 256 && !any;
}

uint32_t sm2_public_in(const struct sdf_ecc_public *from, struct sm2_public *to)
{
	if (!fits(from->bits, from->x, sizeof(from->x)) || !fits(from->bits, from->y, sizeof(from->y)))
		return SDR_KEYERR;
	memcpy(to->x, from->x + ECC_FIELD - SM2_BYTES, SM2_BYTES);
	memcpy(to->y, from->y + ECC_FIELD - SM2_BYTES, SM2_BYTES);
	return SDR_OK;
}

void sm2_public_out(const struct sm2_public *from, struct sdf_ecc_public *to)
{
	memset(to, 0, sizeof(*to));
	to->bits = 256;
	memcpy(to->x + ECC_FIELD - SM2_BYTES, from->x, SM2_BYTES);
	memcpy(to->y + ECC_FIELD - SM2_BYTES, from->y, SM2_BYTES);
}

uint32_t sm2_private_in(const struct sdf_ecc_private *from, uint8_t k[SM2_BYTES])
{
	if (!fits(from->bits, from->k, sizeof(from->k)))
		return SDR_KEYERR;
	memcpy(k, from->k + ECC_FIELD - SM2_BYTES, SM2_BYTES);
	return SDR_OK;
}

static bool point_out(const EC_POINT *p, struct sm2_public *pub, BN_CTX *bn)
{
	uint8_t buf[1 + 2 * SM2_BYTES];

	if (EC_POINT_point2oct(curve(), p, POINT_CONVERSION_UNCOMPRESSED, buf, sizeof(buf), bn) != sizeof(buf))
		return false;
	memcpy(pub->x, buf + 1, SM2_BYTES);
	memcpy(pub->y, buf + 1 + SM2_BYTES, SM2_BYTES);
	return true;
}

/* On the curve, or false. */
static bool point_in(const struct sm2_public *pub, EC_POINT *p, BN_CTX *bn)
{
	uint8_t buf[1 + 2 * SM2_BYTES] = {POINT_CONVERSION_UNCOMPRESSED};

	memcpy(buf + 1, pub->x, SM2_BYTES);
	memcpy(buf + 1 + SM2_BYTES, pub->y, SM2_BYTES);
	return EC_POINT_oct2point(curve(), p, buf, sizeof(buf), bn);
}

uint32_t sm2_derive(const uint8_t k[SM2_BYTES], struct sm2_public *pub)
{
	EC_POINT *p = EC_POINT_new(curve());
	BIGNUM *d = BN_secure_new();
	uint32_t status = SDR_KEYERR;

	/* 1 … n - 2 (GB/T 32918.1, 6.1) */
	if (p && d && BN_bin2bn(k, SM2_BYTES, d) && !BN_is_zero(d) && BN_add_word(d, 1) &&
	    BN_cmp(d, EC_GROUP_get0_order(curve())) < 0 && BN_sub_word(d, 1) &&
	    EC_POINT_mul(curve(), p, d, NULL, NULL, NULL) && point_out(p, pub, NULL))
		status = SDR_OK;
	EC_POINT_free(p);
	BN_clear_free(d);
	return status;
}

uint32_t sm2_generate(uint8_t k[SM2_BYTES], struct sm2_public *pub)
{
	BIGNUM *d = BN_secure_new(), *top = BN_dup(EC_GROUP_get0_order(curve()));
	uint32_t status = SDR_KEYERR;

	if (d && top && BN_sub_word(top, 2) && BN_priv_rand_range(d, top) && BN_add_word(d, 1) &&
	    BN_bn2binpad(d, k, SM2_BYTES) == SM2_BYTES)
		status = sm2_derive(k, pub);
	BN_clear_free(d);
	BN_free(top);
	return status;
}

EVP_PKEY *sm2_pkey(const uint8_t *k, const struct sm2_public *pub)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "SM2", NULL);
	OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
	BIGNUM *d = k ? BN_secure_new() : NULL;
	OSSL_PARAM *params = NULL;
	EVP_PKEY *key = NULL;
	uint8_t point[1 + 2 * SM2_BYTES] = {POINT_CONVERSION_UNCOMPRESSED};
	bool ok;

	memcpy(point + 1, pub->x, SM2_BYTES);
	memcpy(point + 1 + SM2_BYTES, pub->y, SM2_BYTES);
	ok = ctx && bld && (!k || (d && BN_bin2bn(k, SM2_BYTES, d))) &&
	     OSSL_PARAM_BLD_push_utf8_string(bld, OSSL_PKEY_PARAM_GROUP_NAME, "SM2", 0) &&
	     OSSL_PARAM_BLD_push_octet_string(bld, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point)) &&
	     (!k || OSSL_PARAM_BLD_push_BN_pad(bld, OSSL_PKEY_PARAM_PRIV_KEY, d, SM2_BYTES));
	if (ok)
		params = OSSL_PARAM_BLD_to_param(bld);
	if (!params || EVP_PKEY_fromdata_init(ctx) <= 0 ||
	    EVP_PKEY_fromdata(ctx, &key, k ? EVP_PKEY_KEYPAIR : EVP_PKEY_PUBLIC_KEY, params) <= 0)
		key = NULL;
	OSSL_PARAM_free(params);
	OSSL_PARAM_BLD_free(bld);
	BN_clear_free(d);
	EVP_PKEY_CTX_free(ctx);
	ERR_clear_error();
	return key;
}

/* Many verify against few keys, and importing a key takes as long as using it. */
EVP_PKEY *sm2_pkey_given(const struct sm2_public *pub)
{
	static struct {
		struct sm2_public pub;
		EVP_PKEY *key;
	} kept[GIVEN_KEYS];
	static unsigned oldest;
	EVP_PKEY *key;

	for (unsigned i = 0; i < GIVEN_KEYS; i++)
		if (kept[i].key && !memcmp(&kept[i].pub, pub, sizeof(*pub)))
			return kept[i].key;
	key = sm2_pkey(NULL, pub);
	if (!key)
		return NULL;
	EVP_PKEY_free(kept[oldest].key);
	kept[oldest].pub = *pub;
	kept[oldest].key = key;
	oldest = (oldest + 1) % GIVEN_KEYS;
	return key;
}

uint32_t sm2_sign(EVP_PKEY *key, const uint8_t *digest, size_t n, struct sdf_ecc_signature *sig)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
	uint8_t der[DER_SPARE];
	const uint8_t *p = der;
	size_t len = sizeof(der);
	ECDSA_SIG *s = NULL;
	uint32_t status = SDR_SIGNERR;

	memset(sig, 0, sizeof(*sig));
	if (n == 32 && ctx && EVP_PKEY_sign_init(ctx) > 0 && EVP_PKEY_sign(ctx, der, &len, digest, n) > 0)
		s = d2i_ECDSA_SIG(NULL, &p, (long)len);
	if (s && BN_bn2binpad(ECDSA_SIG_get0_r(s), sig->r, ECC_FIELD) == ECC_FIELD &&
	    BN_bn2binpad(ECDSA_SIG_get0_s(s), sig->s, ECC_FIELD) == ECC_FIELD)
		status = SDR_OK;
	ECDSA_SIG_free(s);
	EVP_PKEY_CTX_free(ctx);
	ERR_clear_error();
	return status;
}

uint32_t sm2_verify(EVP_PKEY *key, const uint8_t *digest, size_t n, const struct sdf_ecc_signature *sig)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
	ECDSA_SIG *s = ECDSA_SIG_new();
	BIGNUM *r = BN_bin2bn(sig->r, ECC_FIELD, NULL), *v = BN_bin2bn(sig->s, ECC_FIELD, NULL);
	uint8_t *der = NULL;
	uint32_t status = SDR_VERIFYERR;
	int len = -1;

	if (s && r && v && ECDSA_SIG_set0(s, r, v)) {
		r = v = NULL;
		len = i2d_ECDSA_SIG(s, &der);
	}
	if (len > 0 && n == 32 && ctx && EVP_PKEY_verify_init(ctx) > 0 &&
	    EVP_PKEY_verify(ctx, der, (size_t)len, digest, n) == 1)
		status = SDR_OK;
	OPENSSL_free(der);
	BN_free(r);
	BN_free(v);
	ECDSA_SIG_free(s);
	EVP_PKEY_CTX_free(ctx);
	ERR_clear_error();
	return status;
}

/* SM2Cipher of GM/T 0009. */
typedef struct {
	ASN1_INTEGER *x, *y;
	ASN1_OCTET_STRING *hash, *text;
} SM2_CIPHER;

ASN1_SEQUENCE(SM2_CIPHER) = {
	ASN1_SIMPLE(SM2_CIPHER, x, ASN1_INTEGER),
	ASN1_SIMPLE(SM2_CIPHER, y, ASN1_INTEGER),
	ASN1_SIMPLE(SM2_CIPHER, hash, ASN1_OCTET_STRING),
	ASN1_SIMPLE(SM2_CIPHER, text, ASN1_OCTET_STRING),
} static_ASN1_SEQUENCE_END(SM2_CIPHER)

static SM2_CIPHER *cipher_new(void)
{
	return (SM2_CIPHER *)ASN1_item_new(ASN1_ITEM_rptr(SM2_CIPHER));
}

static void cipher_free(SM2_CIPHER *c)
{
	ASN1_item_free((ASN1_VALUE *)c, ASN1_ITEM_rptr(SM2_CIPHER));
}

static bool number_out(const ASN1_INTEGER *n, uint8_t field[ECC_FIELD])
{
	BIGNUM *bn = ASN1_INTEGER_to_BN(n, NULL);
	bool ok = bn && BN_bn2binpad(bn, field, ECC_FIELD) == ECC_FIELD;

	BN_free(bn);
	return ok;
}

static bool number_in(const uint8_t field[ECC_FIELD], ASN1_INTEGER *n)
{
	BIGNUM *bn = BN_bin2bn(field, ECC_FIELD, NULL);
	bool ok = bn && BN_to_ASN1_INTEGER(bn, n);

	BN_free(bn);
	return ok;
}

uint32_t sm2_encrypt(EVP_PKEY *key, const uint8_t *in, size_t n, uint8_t *out, uint32_t cap, uint32_t *len)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
	struct sdf_ecc_cipher *to = (struct sdf_ecc_cipher *)out;
	size_t der_len = n + 2 * DER_SPARE;
	uint8_t *der = malloc(der_len);
	const uint8_t *p = der;
	SM2_CIPHER *c = NULL;
	uint32_t status = SDR_PKOPERR;

	if (!n || sizeof(*to) + n > cap)
		status = n ? SDR_NOBUFFER : SDR_INARGERR;
	else if (der && ctx && EVP_PKEY_encrypt_init(ctx) > 0 &&
		 EVP_PKEY_encrypt(ctx, der, &der_len, in, n) > 0)
		c = (SM2_CIPHER *)ASN1_item_d2i(NULL, &p, (long)der_len, ASN1_ITEM_rptr(SM2_CIPHER));
	if (c && number_out(c->x, to->x) && number_out(c->y, to->y) &&
	    ASN1_STRING_length(c->hash) == (int)sizeof(to->m) && ASN1_STRING_length(c->text) == (int)n) {
		memcpy(to->m, ASN1_STRING_get0_data(c->hash), sizeof(to->m));
		memcpy(to->c, ASN1_STRING_get0_data(c->text), n);
		to->length = (uint32_t)n;
		*len = (uint32_t)(sizeof(*to) + n);
		status = SDR_OK;
	}
	cipher_free(c);
	free(der);
	EVP_PKEY_CTX_free(ctx);
	ERR_clear_error();
	return status;
}

uint32_t sm2_decrypt(EVP_PKEY *key, const uint8_t *in, size_t n, uint8_t *out, uint32_t cap, uint32_t *len)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
	const struct sdf_ecc_cipher *from = (const struct sdf_ecc_cipher *)in;
	SM2_CIPHER *c = cipher_new();
	uint8_t *der = NULL, *plain = NULL;
	uint32_t status = SDR_SKOPERR;
	size_t out_len = 0;
	int der_len = -1;

	if (n < sizeof(*from) || !from->length || from->length != n - sizeof(*from)) {
		status = SDR_ENCDATAERR;
	} else if (from->length > cap) {
		status = SDR_NOBUFFER;
	} else if (c && number_in(from->x, c->x) && number_in(from->y, c->y) &&
		   ASN1_OCTET_STRING_set(c->hash, from->m, sizeof(from->m)) &&
		   ASN1_OCTET_STRING_set(c->text, from->c, (int)from->length)) {
		der_len = ASN1_item_i2d((ASN1_VALUE *)c, &der, ASN1_ITEM_rptr(SM2_CIPHER));
		out_len = n + DER_SPARE; /* OpenSSL asks for as much as it might be */
		plain = malloc(out_len);
	}
	if (der_len > 0 && plain && ctx && EVP_PKEY_decrypt_init(ctx) > 0 &&
	    EVP_PKEY_decrypt(ctx, plain, &out_len, der, (size_t)der_len) > 0 && out_len == from->length) {
		memcpy(out, plain, out_len);
		*len = (uint32_t)out_len;
		status = SDR_OK;
	}
	if (plain)
		OPENSSL_cleanse(plain, n + DER_SPARE);
	free(plain);
	OPENSSL_free(der);
	cipher_free(c);
	EVP_PKEY_CTX_free(ctx);
	ERR_clear_error();
	return status;
}

uint32_t sm2_z(const struct sm2_public *pub, const uint8_t *id, size_t id_len, uint8_t z[32])
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	BN_CTX *bn = BN_CTX_new();
	BIGNUM *a = BN_new(), *b = BN_new(), *p = BN_new();
	uint8_t fields[4][SM2_BYTES], bits[2] = {(uint8_t)(id_len >> 5), (uint8_t)(id_len << 3)};
	struct sm2_public g;
	bool ok = md && bn && a && b && p && id_len < 8192 && EC_GROUP_get_curve(curve(), p, a, b, bn) &&
		  BN_bn2binpad(a, fields[0], SM2_BYTES) == SM2_BYTES &&
		  BN_bn2binpad(b, fields[1], SM2_BYTES) == SM2_BYTES &&
		  point_out(EC_GROUP_get0_generator(curve()), &g, bn);

	ok = ok && EVP_DigestInit_ex2(md, EVP_sm3(), NULL) && EVP_DigestUpdate(md, bits, 2) &&
	     EVP_DigestUpdate(md, id, id_len) && EVP_DigestUpdate(md, fields, (size_t)2 * SM2_BYTES) &&
	     EVP_DigestUpdate(md, &g, sizeof(g)) && EVP_DigestUpdate(md, pub, sizeof(*pub)) &&
	     EVP_DigestFinal_ex(md, z, NULL);
	EVP_MD_CTX_free(md);
	BN_CTX_free(bn);
	BN_free(a);
	BN_free(b);
	BN_free(p);
	return ok ? SDR_OK : SDR_UNKNOWERR;
}

/* x̄ = 2^127 + (x mod 2^127), GB/T 32918.3, 6.1 (w = 127) */
static bool half_x(const uint8_t x[SM2_BYTES], BIGNUM *n)
{
	uint8_t buf[16];

	memcpy(buf, x + 16, 16);
	buf[0] |= 0x80;
	return BN_bin2bn(buf, 16, n);
}

static bool kdf(const uint8_t *in, size_t in_len, uint8_t *out, size_t n)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	uint8_t digest[32];
	bool ok = md != NULL;

	for (uint32_t i = 1; ok && n; i++) {
		uint8_t counter[4] = {(uint8_t)(i >> 24), (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i};
		size_t part = n < sizeof(digest) ? n : sizeof(digest);

		ok = EVP_DigestInit_ex2(md, EVP_sm3(), NULL) && EVP_DigestUpdate(md, in, in_len) &&
		     EVP_DigestUpdate(md, counter, 4) && EVP_DigestFinal_ex(md, digest, NULL);
		memcpy(out, digest, part);
		out += part;
		n -= part;
	}
	OPENSSL_cleanse(digest, sizeof(digest));
	EVP_MD_CTX_free(md);
	return ok;
}

uint32_t sm2_agree(bool initiator, const uint8_t k[SM2_BYTES], const uint8_t tmp_k[SM2_BYTES],
		   const struct sm2_public *tmp_pub, const struct sm2_public *peer,
		   const struct sm2_public *peer_tmp, const uint8_t z_own[32], const uint8_t z_peer[32],
		   uint8_t *key, size_t n)
{
	BN_CTX *bn = BN_CTX_secure_new();
	const BIGNUM *order = EC_GROUP_get0_order(curve());
	EC_POINT *p = EC_POINT_new(curve()), *r = EC_POINT_new(curve()), *u = EC_POINT_new(curve());
	BIGNUM *t = BN_secure_new(), *d = BN_secure_new(), *h = BN_new();
	struct sm2_public shared;
	uint8_t buf[2 * SM2_BYTES + 64];
	bool ok = bn && p && r && u && t && d && h && point_in(peer, p, bn) && point_in(peer_tmp, r, bn);

	/* t = (d + x̄₁ · r) mod n;  U = t · (P + x̄₂ · R), the cofactor being 1 */
	ok = ok && half_x(tmp_pub->x, h) && BN_bin2bn(tmp_k, SM2_BYTES, t) &&
	     BN_mod_mul(t, t, h, order, bn) && BN_bin2bn(k, SM2_BYTES, d) && BN_mod_add(t, t, d, order, bn) &&
	     half_x(peer_tmp->x, h) && EC_POINT_mul(curve(), u, NULL, r, h, bn) &&
	     EC_POINT_add(curve(), u, u, p, bn) && EC_POINT_mul(curve(), u, NULL, u, t, bn) &&
	     !EC_POINT_is_at_infinity(curve(), u) && point_out(u, &shared, bn);
	if (ok) {
		memcpy(buf, &shared, sizeof(shared));
		memcpy(buf + 64, initiator ? z_own : z_peer, 32);
		memcpy(buf + 96, initiator ? z_peer : z_own, 32);
		ok = kdf(buf, sizeof(buf), key, n);
	}
	OPENSSL_cleanse(buf, sizeof(buf));
	OPENSSL_cleanse(&shared, sizeof(shared));
	EC_POINT_free(p);
	EC_POINT_free(r);
	EC_POINT_clear_free(u);
	BN_clear_free(t);
	BN_clear_free(d);
	BN_free(h);
	BN_CTX_free(bn);
	ERR_clear_error();
	return ok ? SDR_OK : SDR_PKOPERR;
}
