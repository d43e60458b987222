/* SPDX-License-Identifier: MIT */
/* Session keys of the soft card: made, wrapped, unwrapped, agreed on. */
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "card/soft.h"

void soft_object_free(struct card_object *o)
{
	if (!o)
		return;
	if (o->key)
		OPENSSL_secure_clear_free(o->key, o->key_len);
	sm4_free(o->sm4);
	sm4_free(o->stream_sm4);
	sm4_aead_free(o->aead);
	EVP_MD_CTX_free(o->md);
	EVP_MAC_CTX_free(o->mac);
	OPENSSL_clear_free(o, sizeof(*o));
}

uint32_t soft_make_key(const uint8_t *key, size_t n, struct card_call *call)
{
	struct card_object *o = OPENSSL_zalloc(sizeof(*o));

	if (!o)
		return SDR_NOBUFFER;
	o->type = CARD_OBJ_KEY;
	o->key_len = (uint32_t)n;
	o->key = OPENSSL_secure_malloc(n);
	if (o->key)
		memcpy(o->key, key, n);
	if (o->key && n == SM4_BLOCK)
		o->sm4 = sm4_new(key);
	if (!o->key || (n == SM4_BLOCK && !o->sm4)) {
		soft_object_free(o);
		return SDR_NOBUFFER;
	}
	call->made = o;
	call->made_type = CARD_OBJ_KEY;
	return SDR_OK;
}

static uint32_t given_key(const struct sdf_ecc_public *from, EVP_PKEY **key)
{
	struct sm2_public pub;
	uint32_t status = sm2_public_in(from, &pub);

	*key = status ? NULL : sm2_pkey_given(&pub);
	return *key ? SDR_OK : SDR_KEYERR;
}

static uint32_t wrap_by_kek(struct soft_key *kek, const uint8_t *key, size_t n, struct card_call *call)
{
	uint8_t iv[SM4_BLOCK] = {0};
	uint32_t status;

	if (n > call->out_cap)
		return SDR_NOBUFFER;
	if ((call->rq->alg & ~SGD_ECB) != SGD_SM4) /* the standard wraps in ECB */
		return SDR_ALGNOTSUPPORT;
	status = sm4_crypt(kek->sm4, SGD_SM4 | SGD_ECB, false, iv, key, call->out, n);
	call->out_len = (uint32_t)n;
	return status;
}

uint32_t soft_key_make(struct soft *s, struct card_call *call)
{
	const struct card_wrap *w = call->args;
	uint8_t key[SOFT_KEY_MAX];
	uint32_t n = w->bits / 8, status = SDR_OK;
	struct soft_key *k;
	EVP_PKEY *pkey = NULL;

	if (!n || w->bits % 8 || n > sizeof(key) || (w->by == CARD_WRAP_KEK && n % SM4_BLOCK))
		return SDR_INARGERR;
	if (w->by != CARD_WRAP_KEK && (w->family & SGD_RSA))
		return SDR_ALGNOTSUPPORT;
	if (RAND_priv_bytes(key, (int)n) != 1)
		return SDR_RANDERR;
	if (w->by == CARD_WRAP_KEK) {
		k = soft_find(s, call, SOFT_KEY_SM4, &status);
		status = k ? wrap_by_kek(k, key, n, call) : status;
	} else if (w->by == CARD_WRAP_INTERNAL) {
		k = soft_find(s, call, SOFT_KEY_SM2, &status);
		pkey = k ? k->pkey[1] : NULL;
	} else if (w->by == CARD_WRAP_EXTERNAL && call->rq->key_kind == CARD_KEY_GIVEN) {
		status = given_key(&w->pub, &pkey);
	} else {
		status = SDR_INARGERR;
	}
	if (!status && pkey)
		status = sm2_encrypt(pkey, key, n, call->out, call->out_cap, &call->out_len);
	if (!status)
		status = soft_make_key(key, n, call);
	OPENSSL_cleanse(key, sizeof(key));
	return status;
}

static uint32_t unwrap(struct soft *s, struct card_call *call, uint8_t *key, uint32_t *n)
{
	const struct card_wrap *w = call->args;
	uint8_t iv[SM4_BLOCK] = {0};
	uint32_t status = SDR_OK;
	struct soft_key *k;

	switch (w->by) {
	case CARD_WRAP_PLAIN:
		if (call->in_len > SOFT_KEY_MAX || call->rq->key_kind != CARD_KEY_GIVEN)
			return SDR_INARGERR;
		memcpy(key, call->in, call->in_len);
		*n = call->in_len;
		return SDR_OK;
	case CARD_WRAP_KEK:
		if (call->in_len > SOFT_KEY_MAX || call->in_len % SM4_BLOCK)
			return SDR_INARGERR;
		if ((call->rq->alg & ~SGD_ECB) != SGD_SM4)
			return SDR_ALGNOTSUPPORT;
		k = soft_find_private(s, call, SOFT_KEY_SM4, &status);
		*n = call->in_len;
		return k ? sm4_crypt(k->sm4, SGD_SM4 | SGD_ECB, true, iv, call->in, key, call->in_len) : status;
	case CARD_WRAP_INTERNAL:
		if (w->family & SGD_RSA)
			return SDR_ALGNOTSUPPORT;
		k = soft_find_private(s, call, SOFT_KEY_SM2, &status);
		return k ? sm2_decrypt(k->pkey[1], call->in, call->in_len, key, SOFT_KEY_MAX, n) : status;
	default:
		return SDR_INARGERR;
	}
}

uint32_t soft_key_take(struct soft *s, struct card_call *call)
{
	uint8_t key[SOFT_KEY_MAX];
	uint32_t n = 0, status = unwrap(s, call, key, &n);

	if (!status)
		status = n ? soft_make_key(key, n, call) : SDR_INARGERR;
	OPENSSL_cleanse(key, sizeof(key));
	return status;
}

/* From under one's own key to under somebody else's, without showing it. */
uint32_t soft_key_exchange(struct soft *s, struct card_call *call)
{
	const struct card_wrap *w = call->args;
	uint8_t key[SOFT_KEY_MAX];
	EVP_PKEY *to = NULL;
	uint32_t n = 0, status;
	struct soft_key *k;

	if (w->by != CARD_WRAP_INTERNAL)
		return SDR_INARGERR;
	if (w->family & SGD_RSA)
		return SDR_ALGNOTSUPPORT;
	k = soft_find_private(s, call, SOFT_KEY_SM2, &status);
	if (!k)
		return status;
	status = given_key(&w->pub, &to);
	if (!status)
		status = sm2_decrypt(k->pkey[1], call->in, call->in_len, key, sizeof(key), &n);
	if (!status)
		status = sm2_encrypt(to, key, n, call->out, call->out_cap, &call->out_len);
	OPENSSL_cleanse(key, sizeof(key));
	return status;
}

struct agreement {
	struct sm2_public peer, peer_tmp;
	uint8_t z_peer[32];
};

static uint32_t read_peer(const struct card_agree *a, const uint8_t *id, struct agreement *g)
{
	uint32_t status = sm2_public_in(&a->pub, &g->peer);

	if (!status)
		status = sm2_public_in(&a->tmp, &g->peer_tmp);
	return status ? status : sm2_z(&g->peer, id, a->peer_id_len, g->z_peer);
}

static uint32_t finish_agreement(bool initiator, const struct card_object *own, const struct agreement *g,
				 struct card_call *call)
{
	uint8_t key[SOFT_KEY_MAX];
	uint32_t n = own->bits / 8, status;

	status = sm2_agree(initiator, own->own_k, own->tmp_k, &own->tmp_pub, &g->peer, &g->peer_tmp,
			   own->own_z, g->z_peer, key, n);
	if (!status)
		status = soft_make_key(key, n, call);
	OPENSSL_cleanse(key, sizeof(key));
	return status;
}

/* OFFER leaves an agreement, ACCEPT has its own for a moment. */
static uint32_t begin_agreement(struct soft *s, struct card_call *call, struct card_object *o)
{
	const struct card_agree *a = call->args;
	struct card_agree *answer = call->out_args;
	uint32_t status = SDR_OK;
	struct soft_key *k = soft_find_private(s, call, SOFT_KEY_SM2, &status);

	if (!k)
		return status;
	if (!a->bits || a->bits % 8 || a->bits / 8 > SOFT_KEY_MAX)
		return SDR_INARGERR;
	o->type = CARD_OBJ_AGREEMENT;
	o->bits = a->bits;
	/* The encryption pair is the one that agrees (GM/T 0018, 6.3.12). */
	memcpy(o->own_k, k->secret[1], SM2_BYTES);
	status = sm2_z(&k->pub[1], call->in, a->own_id_len, o->own_z);
	if (!status)
		status = sm2_generate(o->tmp_k, &o->tmp_pub);
	*answer = (struct card_agree){.step = a->step, .bits = a->bits};
	sm2_public_out(&k->pub[1], &answer->pub);
	sm2_public_out(&o->tmp_pub, &answer->tmp);
	return status;
}

uint32_t soft_agree(struct soft *s, struct card_call *call)
{
	const struct card_agree *a = call->args;
	struct card_object *o;
	struct agreement g;
	uint32_t status;

	if (a->own_id_len > call->in_len || a->peer_id_len > call->in_len - a->own_id_len)
		return SDR_INARGERR;
	if (a->step == CARD_AGREE_FINISH) {
		if (!call->object || call->rq->key_kind != CARD_KEY_NONE)
			return SDR_STEPERR;
		status = read_peer(a, call->in + a->own_id_len, &g);
		return status ? status : finish_agreement(true, call->object, &g, call);
	}
	if (a->step > CARD_AGREE_FINISH || call->object || call->rq->key_kind != CARD_KEY_INDEX)
		return SDR_INARGERR;
	o = OPENSSL_zalloc(sizeof(*o));
	status = o ? begin_agreement(s, call, o) : SDR_NOBUFFER;
	if (!status && a->step == CARD_AGREE_OFFER) {
		call->made = o;
		call->made_type = CARD_OBJ_AGREEMENT;
		return SDR_OK;
	}
	if (!status)
		status = read_peer(a, call->in + a->own_id_len, &g);
	if (!status)
		status = finish_agreement(false, o, &g, call);
	soft_object_free(o);
	return status;
}
