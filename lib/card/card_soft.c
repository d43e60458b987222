/* SPDX-License-Identifier: MIT */
/*
 * soft: the card in software. SM2, SM3, HMAC and random numbers by OpenSSL, SM4 by the faster library
 * (soft_sm4.c), keys in an encrypted store. SM1 is secret hardware: 'algorithm not supported'.
 */
#include <errno.h>
#include <gcrypt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "card/drivers.h"
#include "card/soft.h"

#define SECURE_HEAP (4u << 20)

static int soft_open(const struct card_conf *conf, struct card **out, struct err *err)
{
	const char *dir = conf->store ? conf->store : *conf->arg ? conf->arg : NULL;
	struct soft *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return err_sys(err, -ENOMEM, "open card %s", conf->name);
	/* Session keys in memory that is neither swapped nor dumped, as far as the limits allow. */
	if (!CRYPTO_secure_malloc_initialized())
		(void)CRYPTO_secure_malloc_init(SECURE_HEAP, 32);
	sm4_choose();
	if (dir) {
		rc = soft_store_open(&s->store, dir, conf->store_key, true, err);
		if (rc) {
			err_prefix(err, "card %s", conf->name);
			free(s);
			return rc;
		}
		s->has_store = true;
	}
	*out = &s->card;
	return 0;
}

static void soft_close(struct card *card)
{
	struct soft *s = (struct soft *)card;

	if (s->has_store)
		soft_store_close(&s->store);
	free(s);
}

static void soft_info(struct card *card, struct card_info *info)
{
	static const uint8_t ops[] = {
		CARD_OP_RANDOM,	      CARD_OP_RIGHT_GET, CARD_OP_RIGHT_DROP, CARD_OP_PUBLIC, CARD_OP_PAIR,
		CARD_OP_KEY_MAKE,     CARD_OP_KEY_TAKE,	 CARD_OP_KEY_EXCHANGE, CARD_OP_AGREE, CARD_OP_DROP,
		CARD_OP_SIGN,	      CARD_OP_VERIFY,	 CARD_OP_PK_ENCRYPT, CARD_OP_PK_DECRYPT,
		CARD_OP_CIPHER,	      CARD_OP_MAC,	 CARD_OP_AEAD,	     CARD_OP_HASH, CARD_OP_HMAC,
		CARD_OP_FILE_CREATE,  CARD_OP_FILE_READ,	 CARD_OP_FILE_WRITE, CARD_OP_FILE_DELETE,
	};

	(void)card;
	*info = (struct card_info){.sdf = {
		.version = 1, .standard = 2, .asym_abilities = {SGD_SM2_SIGN | SGD_SM2_KEX | SGD_SM2_ENC, 256},
		.sym_abilities = SGD_SM4 | SGD_ECB | SGD_CBC | SGD_CFB | SGD_OFB | SGD_MAC | SGD_CTR,
		.hash_abilities = SGD_SM3 | SGD_SHA1 | SGD_SHA256, .buffer_size = CARD_DATA_MAX}};
	snprintf((char *)info->sdf.issuer, sizeof(info->sdf.issuer), "util-vm");
	snprintf((char *)info->sdf.name, sizeof(info->sdf.name), "cardshare soft");
	snprintf((char *)info->sdf.serial, sizeof(info->sdf.serial), "1");
	for (size_t i = 0; i < sizeof(ops); i++)
		info->ops |= UINT64_C(1) << ops[i];
	snprintf(info->engine, sizeof(info->engine), "OpenSSL %s; libgcrypt: %s",
		 OpenSSL_version(OPENSSL_VERSION_STRING), sm4_engines());
}

/* Contexts of a key from the store are made when it is first used. */
static bool prepare(struct soft_key *k)
{
	if (k->type == SOFT_KEY_SM4 && !k->sm4)
		k->sm4 = sm4_new(k->secret[0]);
	for (unsigned i = 0; k->type == SOFT_KEY_SM2 && i < 2; i++)
		if (!k->pkey[i])
			k->pkey[i] = sm2_pkey(k->secret[i], &k->pub[i]);
	return k->type == SOFT_KEY_SM4 ? k->sm4 != NULL : k->pkey[0] && k->pkey[1];
}

struct soft_key *soft_find(struct soft *s, const struct card_call *call, enum soft_key_type type,
			   uint32_t *status)
{
	struct soft_key *k = s->has_store && call->key_name ? soft_store_find(&s->store, call->key_name) : NULL;

	*status = !k ? SDR_KEYNOTEXIST : k->type != type ? SDR_KEYTYPEERR : SDR_OK;
	if (!*status && !prepare(k))
		*status = SDR_KEYERR;
	return *status ? NULL : k;
}

struct soft_key *soft_find_private(struct soft *s, const struct card_call *call, enum soft_key_type type,
				   uint32_t *status)
{
	struct soft_key *k = soft_find(s, call, type, status);

	if (!k || !k->has_password || call->right_got)
		return k;
	*status = SDR_PARDENY;
	return NULL;
}

static uint32_t random_bytes(struct card_call *call)
{
	call->out_len = call->out_cap;
	return RAND_bytes(call->out, (int)call->out_cap) == 1 ? SDR_OK : SDR_RANDERR;
}

static uint32_t right_get(struct soft *s, struct card_call *call)
{
	struct soft_key *k = s->has_store ? soft_store_find(&s->store, call->key_name) : NULL;

	return k ? soft_key_check_password(k, call->in, call->in_len) : SDR_KEYNOTEXIST;
}

static uint32_t export_public(struct soft *s, struct card_call *call)
{
	bool enc = call->rq->alg == SGD_SM2_ENC;
	struct sdf_ecc_public pub;
	uint32_t status;
	struct soft_key *k;

	if (!enc && call->rq->alg != SGD_SM2_SIGN)
		return SDR_ALGNOTSUPPORT;
	k = soft_find(s, call, SOFT_KEY_SM2, &status);
	if (!k)
		return status;
	if (call->out_cap < sizeof(pub))
		return SDR_NOBUFFER;
	sm2_public_out(&k->pub[enc], &pub);
	memcpy(call->out, &pub, sizeof(pub));
	call->out_len = sizeof(pub);
	return SDR_OK;
}

static uint32_t make_pair(struct card_call *call)
{
	const struct card_pair *args = call->args;
	struct sdf_ecc_public pub;
	struct sdf_ecc_private key = {.bits = 256};
	struct sm2_public p;
	uint32_t status;

	if (!(call->rq->alg & (SGD_SM2 & 0x20000)) || args->bits != 256)
		return SDR_ALGNOTSUPPORT;
	if (call->out_cap < sizeof(pub) + sizeof(key))
		return SDR_NOBUFFER;
	status = sm2_generate(key.k + ECC_FIELD - SM2_BYTES, &p);
	if (status)
		return status;
	sm2_public_out(&p, &pub);
	memcpy(call->out, &pub, sizeof(pub));
	memcpy(call->out + sizeof(pub), &key, sizeof(key));
	OPENSSL_cleanse(&key, sizeof(key));
	call->out_len = sizeof(pub) + sizeof(key);
	return SDR_OK;
}

/* The key of an operation with a private one: in the store, or given. *@own: to be freed. */
static EVP_PKEY *private_key(struct soft *s, const struct card_call *call, unsigned half, EVP_PKEY **own,
			     uint32_t *status)
{
	const struct card_sign *given = call->args;
	uint8_t k[SM2_BYTES];
	struct sm2_public pub;

	*own = NULL;
	if (call->rq->key_kind == CARD_KEY_INDEX) {
		struct soft_key *key = soft_find_private(s, call, SOFT_KEY_SM2, status);

		return key ? key->pkey[half] : NULL;
	}
	*status = sm2_private_in(&given->key, k);
	if (!*status)
		*status = sm2_derive(k, &pub);
	if (!*status)
		*own = sm2_pkey(k, &pub);
	OPENSSL_cleanse(k, sizeof(k));
	if (!*status && !*own)
		*status = SDR_KEYERR;
	return *own;
}

static EVP_PKEY *public_key(struct soft *s, const struct card_call *call, unsigned half,
			    const struct sdf_ecc_public *given, uint32_t *status)
{
	struct sm2_public pub;
	EVP_PKEY *key;

	if (call->rq->key_kind == CARD_KEY_INDEX) {
		struct soft_key *k = soft_find(s, call, SOFT_KEY_SM2, status);

		return k ? k->pkey[half] : NULL;
	}
	*status = sm2_public_in(given, &pub);
	key = *status ? NULL : sm2_pkey_given(&pub);
	if (!key)
		*status = SDR_KEYERR;
	return key;
}

static uint32_t asymmetric(struct soft *s, struct card_call *call)
{
	const struct card_verify *verify = call->args;
	const struct card_public *to = call->args;
	struct card_signature *sig = call->out_args;
	EVP_PKEY *own = NULL, *key;
	uint32_t status = SDR_OK;

	switch (call->rq->op) {
	case CARD_OP_SIGN:
		key = private_key(s, call, 0, &own, &status);
		if (key)
			status = sm2_sign(key, call->in, call->in_len, &sig->sig);
		break;
	case CARD_OP_VERIFY:
		key = public_key(s, call, 0, &verify->pub, &status);
		if (key)
			status = sm2_verify(key, call->in, call->in_len, &verify->sig);
		break;
	case CARD_OP_PK_ENCRYPT:
		key = public_key(s, call, 1, &to->pub, &status);
		if (key)
			status = sm2_encrypt(key, call->in, call->in_len, call->out, call->out_cap,
					     &call->out_len);
		break;
	default:
		key = private_key(s, call, 1, &own, &status);
		if (key)
			status = sm2_decrypt(key, call->in, call->in_len, call->out, call->out_cap,
					     &call->out_len);
	}
	EVP_PKEY_free(own);
	return status;
}

/* The symmetric key of a request: a session key, or one of the store. */
static uint32_t symmetric_key(struct soft *s, const struct card_call *call, struct sm4 **sm4,
			      const uint8_t **bytes, uint32_t *n)
{
	uint32_t status = SDR_OK;
	struct soft_key *k;

	*n = 0;
	*bytes = NULL;
	if (call->rq->key_kind == CARD_KEY_OBJECT) {
		*sm4 = call->key->sm4;
		*bytes = call->key->key;
		*n = call->key->key_len;
		return SDR_OK;
	}
	k = soft_find_private(s, call, SOFT_KEY_SM4, &status);
	if (!k)
		return status;
	*sm4 = k->sm4;
	*bytes = k->secret[0];
	*n = SM4_BLOCK;
	return SDR_OK;
}

static uint32_t keep_stream(struct card_call *call, struct card_object *o, uint32_t status)
{
	if (status) {
		soft_object_free(o);
		return status;
	}
	o->type = CARD_OBJ_STREAM;
	call->made = o;
	call->made_type = CARD_OBJ_STREAM;
	return SDR_OK;
}

static uint32_t cipher_some(struct card_call *call, struct sm4 *sm4, uint32_t alg, bool decrypt,
			    uint8_t iv[SM4_BLOCK])
{
	uint32_t status;

	if (call->rq->op == CARD_OP_MAC)
		return sm4_mac(sm4, iv, call->in, call->in_len);
	if (call->out_cap < call->in_len)
		return SDR_NOBUFFER;
	status = sm4_crypt(sm4, alg, decrypt, iv, call->in, call->out, call->in_len);
	call->out_len = status ? 0 : call->in_len;
	return status;
}

/* CIPHER and MAC. A stream ends at a block's end, save its last part. */
static uint32_t cipher(struct soft *s, struct card_call *call)
{
	const struct card_request *rq = call->rq;
	const struct card_cipher *args = call->args;
	struct card_cipher *answer = call->out_args;
	bool begin = rq->phase & CARD_PHASE_BEGIN, end = rq->phase & CARD_PHASE_END;
	struct card_object *o = call->object;
	struct sm4 *sm4 = NULL;
	const uint8_t *bytes;
	uint32_t n, status;

	if (begin) {
		bool mac = rq->op == CARD_OP_MAC;

		if ((rq->alg & 0xffffff00u) != SGD_SM4)
			return SDR_ALGNOTSUPPORT;
		if (mac && rq->alg != (SGD_SM4 | SGD_MAC))
			return SDR_ALGMODNOTSUPPORT;
		status = symmetric_key(s, call, &sm4, &bytes, &n);
		if (!status && !sm4)
			status = SDR_KEYERR;
		if (status)
			return status;
	}
	if (!end && call->in_len % SM4_BLOCK)
		return SDR_INARGERR;
	memcpy(answer->iv, begin ? args->iv : o->iv, SM4_BLOCK);
	if (!begin) {
		status = cipher_some(call, o->stream_sm4, o->alg, o->decrypt, answer->iv);
		memcpy(o->iv, answer->iv, SM4_BLOCK);
		return status;
	}
	status = cipher_some(call, sm4, rq->alg, rq->flags & CARD_FLAG_DECRYPT, answer->iv);
	if (end || status)
		return status;
	o = OPENSSL_zalloc(sizeof(*o));
	if (!o)
		return SDR_NOBUFFER;
	o->alg = rq->alg;
	o->decrypt = rq->flags & CARD_FLAG_DECRYPT;
	o->stream_sm4 = sm4_new(bytes);
	memcpy(o->iv, answer->iv, SM4_BLOCK);
	return keep_stream(call, o, o->stream_sm4 ? SDR_OK : SDR_NOBUFFER);
}

static uint32_t aead_begin(struct soft *s, struct card_call *call, struct card_object **out)
{
	const struct card_request *rq = call->rq;
	const struct card_aead *args = call->args;
	bool whole = rq->phase & CARD_PHASE_END, decrypt = rq->flags & CARD_FLAG_DECRYPT;
	struct sm4 *sm4;
	const uint8_t *bytes;
	uint32_t n, status;
	struct card_object *o;

	if (rq->alg != SGD_SM4_GCM && rq->alg != SGD_SM4_CCM)
		return (rq->alg & SGD_SM4) ? SDR_ALGMODNOTSUPPORT : SDR_ALGNOTSUPPORT;
	if (!args->nonce_len || args->nonce_len > sizeof(args->nonce) || args->aad_len > call->in_len ||
	    args->tag_len < 4 || args->tag_len > sizeof(args->tag))
		return SDR_INARGERR;
	status = symmetric_key(s, call, &sm4, &bytes, &n);
	if (!status && n != SM4_BLOCK)
		status = SDR_KEYERR;
	if (status)
		return status;
	o = OPENSSL_zalloc(sizeof(*o));
	if (!o)
		return SDR_NOBUFFER;
	o->alg = rq->alg;
	o->decrypt = decrypt;
	o->aead = sm4_aead_new(bytes, rq->alg, decrypt, args, whole ? args->aad_len : args->aad_total,
			       whole ? call->in_len - args->aad_len : args->text_total);
	if (!o->aead) {
		soft_object_free(o);
		return SDR_INARGERR;
	}
	*out = o;
	return SDR_OK;
}

static uint32_t aead_text(struct card_call *call, struct card_object *o, uint32_t skip)
{
	const struct card_request *rq = call->rq;
	uint32_t n = call->in_len - skip, status;

	if (n > call->out_cap)
		return SDR_NOBUFFER;
	if (!(rq->phase & CARD_PHASE_END) && n % SM4_BLOCK)
		return SDR_INARGERR;
	status = sm4_aead_text(o->aead, call->in + skip, call->out, n, rq->phase & CARD_PHASE_END);
	call->out_len = status ? 0 : n;
	if (!status && (rq->phase & CARD_PHASE_END))
		status = sm4_aead_end(o->aead, call->args, call->out_args);
	if (status) { /* nothing of a text that is not proven leaves the card */
		OPENSSL_cleanse(call->out, n);
		call->out_len = 0;
	}
	return status;
}

/*
 * GCM and CCM. Decrypting as a stream gives out text before its end is proven, as the standard's
 * calls do; in one request it does not.
 */
static uint32_t aead(struct soft *s, struct card_call *call)
{
	const struct card_request *rq = call->rq;
	const struct card_aead *args = call->args;
	struct card_object *o = call->object;
	uint32_t status = SDR_OK, skip = 0;

	if (!(rq->phase & CARD_PHASE_BEGIN)) {
		if (rq->phase & CARD_PHASE_AAD)
			return sm4_aead_aad(o->aead, call->in, call->in_len);
		if ((rq->phase & CARD_PHASE_END) && o->decrypt && !rq->args_len)
			return SDR_INARGERR;
		return aead_text(call, o, 0);
	}
	status = aead_begin(s, call, &o);
	if (status)
		return status;
	skip = args->aad_len;
	status = sm4_aead_aad(o->aead, call->in, skip);
	if (!status && ((rq->phase & CARD_PHASE_END) || call->in_len > skip))
		status = aead_text(call, o, skip);
	if (rq->phase & CARD_PHASE_END) {
		soft_object_free(o);
		return status;
	}
	return keep_stream(call, o, status);
}

static uint32_t hash_begin(struct soft *s, struct card_call *call, struct card_object *o)
{
	const struct card_hash *args = call->args;
	const EVP_MD *md = call->rq->alg == SGD_SM3 ? EVP_sm3() : call->rq->alg == SGD_SHA1 ? EVP_sha1()
			   : call->rq->alg == SGD_SHA256 ? EVP_sha256() : NULL;
	struct sm2_public pub;
	uint32_t status = SDR_OK;
	uint8_t z[32];

	if (!md)
		return SDR_ALGNOTSUPPORT;
	if (args->id_len > sizeof(args->id) || (args->id_len && call->rq->alg != SGD_SM3))
		return SDR_INARGERR;
	o->md = EVP_MD_CTX_new();
	if (!o->md || !EVP_DigestInit_ex2(o->md, md, NULL))
		return SDR_NOBUFFER;
	if (!args->id_len)
		return SDR_OK;
	if (call->rq->key_kind == CARD_KEY_INDEX) {
		const struct soft_key *k = soft_find(s, call, SOFT_KEY_SM2, &status);

		if (k)
			pub = k->pub[0];
	} else {
		status = sm2_public_in(&args->pub, &pub);
	}
	if (!status)
		status = sm2_z(&pub, args->id, args->id_len, z);
	if (!status && !EVP_DigestUpdate(o->md, z, sizeof(z)))
		status = SDR_UNKNOWERR;
	return status;
}

static uint32_t hmac_begin(struct soft *s, struct card_call *call, struct card_object *o)
{
	OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char[]){"SM3"}, 0),
			       OSSL_PARAM_construct_end()};
	EVP_MAC *mac;
	struct sm4 *sm4;
	const uint8_t *bytes;
	uint32_t n, status = symmetric_key(s, call, &sm4, &bytes, &n);

	if (status)
		return status;
	if (call->rq->alg != SGD_SM3)
		return SDR_ALGNOTSUPPORT;
	mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	o->mac = EVP_MAC_CTX_new(mac);
	EVP_MAC_free(mac);
	return o->mac && EVP_MAC_init(o->mac, bytes, n, params) ? SDR_OK : SDR_UNKNOWERR;
}

static uint32_t digest_end(struct card_call *call, struct card_object *o)
{
	uint8_t out[EVP_MAX_MD_SIZE];
	unsigned n = 0;
	size_t mac_n = 0;
	bool ok = o->md ? EVP_DigestFinal_ex(o->md, out, &n) : EVP_MAC_final(o->mac, out, &mac_n, sizeof(out));

	n += (unsigned)mac_n;
	if (!ok)
		return SDR_UNKNOWERR;
	if (n > call->out_cap)
		return SDR_NOBUFFER;
	memcpy(call->out, out, n);
	call->out_len = n;
	return SDR_OK;
}

/* HASH and HMAC. */
static uint32_t digest(struct soft *s, struct card_call *call)
{
	bool begin = call->rq->phase & CARD_PHASE_BEGIN, end = call->rq->phase & CARD_PHASE_END;
	struct card_object fresh = {0}, *o = begin ? &fresh : call->object, *kept;
	uint32_t status = SDR_OK;

	if (begin)
		status = call->rq->op == CARD_OP_HASH ? hash_begin(s, call, o) : hmac_begin(s, call, o);
	if (!status && !(o->md ? EVP_DigestUpdate(o->md, call->in, call->in_len)
			       : EVP_MAC_update(o->mac, call->in, call->in_len)))
		status = SDR_UNKNOWERR;
	if (!status && end)
		status = digest_end(call, o);
	if (begin && !status && !end) {
		kept = OPENSSL_zalloc(sizeof(*kept));
		if (kept) {
			*kept = fresh;
			return keep_stream(call, kept, SDR_OK);
		}
		status = SDR_NOBUFFER;
	}
	if (begin) {
		EVP_MD_CTX_free(fresh.md);
		EVP_MAC_CTX_free(fresh.mac);
	}
	return status;
}

static uint32_t soft_run(struct card *card, struct card_call *call)
{
	struct soft *s = (struct soft *)card;

	switch (call->rq->op) {
	case CARD_OP_RANDOM:
		return random_bytes(call);
	case CARD_OP_RIGHT_GET:
		return right_get(s, call);
	case CARD_OP_RIGHT_DROP:
		return SDR_OK;
	case CARD_OP_PUBLIC:
		return export_public(s, call);
	case CARD_OP_PAIR:
		return make_pair(call);
	case CARD_OP_KEY_MAKE:
		return soft_key_make(s, call);
	case CARD_OP_KEY_TAKE:
		return soft_key_take(s, call);
	case CARD_OP_KEY_EXCHANGE:
		return soft_key_exchange(s, call);
	case CARD_OP_AGREE:
		return soft_agree(s, call);
	case CARD_OP_SIGN:
	case CARD_OP_VERIFY:
	case CARD_OP_PK_ENCRYPT:
	case CARD_OP_PK_DECRYPT:
		return asymmetric(s, call);
	case CARD_OP_CIPHER:
	case CARD_OP_MAC:
		return cipher(s, call);
	case CARD_OP_AEAD:
		return aead(s, call);
	case CARD_OP_HASH:
	case CARD_OP_HMAC:
		return digest(s, call);
	case CARD_OP_FILE_CREATE:
	case CARD_OP_FILE_READ:
	case CARD_OP_FILE_WRITE:
	case CARD_OP_FILE_DELETE:
		return soft_file(s, call);
	default:
		return SDR_NOTSUPPORT;
	}
}

static void soft_release(struct card *card, enum card_object_type type, struct card_object *o)
{
	(void)card;
	(void)type;
	soft_object_free(o);
}

const struct card_driver card_soft = {
	.name = "soft",
	.help = "SM2, SM3, SM4 and random numbers in software, keys in an encrypted store",
	.open = soft_open,
	.close = soft_close,
	.info = soft_info,
	.run = soft_run,
	.release = soft_release,
};
