/* SPDX-License-Identifier: MIT */
/* What the files of the OpenSSL provider share. */
#ifndef FACE_OSSL_H
#define FACE_OSSL_H

#include <openssl/core.h>
#include <openssl/core_dispatch.h>
#include <stddef.h>

#include "card/client.h"

/*
 * The provider as loaded. Its link is made when something is first computed, not when it is loaded, so that a
 * program starts without a card; and anew in a child of fork(2).
 */
struct prov;

/* A link: who asks, and in which session. */
struct prov_link {
	struct card_client *client;
	uint32_t session;
	unsigned process; /* face_link_process(): objects made under another are gone */
};

/* True, with @l; false with an error on OpenSSL's queue. */
bool prov_link(struct prov *p, struct prov_link *l);

/* One request; false with an error raised that names the operation and the card's answer. */
bool prov_call(const struct prov_link *l, struct card_io *io);
/* Any length; exactly @want bytes must come. */
bool prov_call_long(const struct prov_link *l, struct card_io *io, size_t len, size_t want);
void prov_drop(const struct prov_link *l, uint32_t object);
/* An error of ours: "cardshare: TEXT". */
void prov_error(int reason, const char *text);

/* A symmetric key in the card, shared by contexts that were copied. */
struct prov_key;
struct prov_key *prov_key_new(struct prov *p, const unsigned char *key, size_t len);
struct prov_key *prov_key_hold(struct prov_key *k);
void prov_key_free(struct prov_key *k); /* NULL is fine */
/* Its number under this link, taken again if it must be; 0: failed, error raised. */
uint32_t prov_key_number(struct prov_key *k, const struct prov_link *l);

/* SM3 as a stream that can be copied, see ossl_digest.c. */
struct prov_hash;
struct prov_hash *prov_hash_new(struct prov *p);
/* @first: what BEGIN says (public key and identity, for Z), or NULL. */
bool prov_hash_init(struct prov_hash *h, const struct card_hash *first);
bool prov_hash_update(struct prov_hash *h, const unsigned char *in, size_t len);
bool prov_hash_final(struct prov_hash *h, unsigned char out[32]);
struct prov_hash *prov_hash_dup(const struct prov_hash *h);
void prov_hash_free(struct prov_hash *h); /* NULL is fine */

/* An SM2 key: given, or of the card (index not 0: the private half is there). */
struct prov_sm2 {
	struct prov *prov;
	_Atomic int refs;
	bool has_public, has_private;
	struct sdf_ecc_public pub;
	struct sdf_ecc_private priv;
	uint32_t index; /* in the card */
	uint32_t alg;	/* index: SGD_SM2_SIGN or SGD_SM2_ENC */
};
struct prov_sm2 *prov_sm2_new(struct prov *p);
struct prov_sm2 *prov_sm2_hold(struct prov_sm2 *k);
void prov_sm2_free(struct prov_sm2 *k);

#define SM2_BYTES 32u
#define SM2_AT (ECC_FIELD - SM2_BYTES) /* where a number begins in its field */

extern const OSSL_ALGORITHM prov_ciphers[], prov_digests[], prov_keymgmts[], prov_signatures[],
	prov_asym_ciphers[], prov_stores[], prov_rands[];

#define FN(id, f) {(id), (void (*)(void))(f)}
#define FN_END {0, NULL}

#endif
