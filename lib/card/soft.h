/* SPDX-License-Identifier: MIT */
/* The parts of the soft card. Status is enum sdr; numbers of curves are 32 bytes, big-endian. */
#ifndef CARD_SOFT_H
#define CARD_SOFT_H

#include <openssl/evp.h>

#include "card/card.h"

#define SM2_BYTES 32
#define SM4_BLOCK 16u
#define SOFT_KEY_MAX 64 /* of a session key */

/* soft_sm4.c */
struct sm4; /* contexts of one key, made when first needed */

struct sm4 *sm4_new(const uint8_t key[SM4_BLOCK]);
void sm4_free(struct sm4 *s);
/* Once: which library is the faster for each mode on this machine. */
void sm4_choose(void);
const char *sm4_engines(void); /* "ctr gcm cbc-dec: libgcrypt; …" */
/* @n bytes from @in to @out (not the same); @iv becomes the one that goes on. @alg: SGD_SM4 | mode. */
uint32_t sm4_crypt(struct sm4 *s, uint32_t alg, bool decrypt, uint8_t iv[SM4_BLOCK], const uint8_t *in,
		   uint8_t *out, size_t n);
/* CBC-MAC over whole blocks; @iv becomes the MAC. */
uint32_t sm4_mac(struct sm4 *s, uint8_t iv[SM4_BLOCK], const uint8_t *in, size_t n);

struct sm4_aead;
struct sm4_aead *sm4_aead_new(const uint8_t key[SM4_BLOCK], uint32_t alg, bool decrypt,
			      const struct card_aead *args, uint64_t aad_total, uint64_t text_total);
uint32_t sm4_aead_aad(struct sm4_aead *a, const uint8_t *aad, size_t n);
uint32_t sm4_aead_text(struct sm4_aead *a, const uint8_t *in, uint8_t *out, size_t n, bool last);
uint32_t sm4_aead_end(struct sm4_aead *a, const struct card_aead *given, struct card_aead *answer);
void sm4_aead_free(struct sm4_aead *a);

/* soft_sm2.c */
struct sm2_public {
	uint8_t x[SM2_BYTES], y[SM2_BYTES];
};

/* What a request brought; SDR_KEYERR: not 256 bits, or not on the curve. */
uint32_t sm2_public_in(const struct sdf_ecc_public *from, struct sm2_public *to);
void sm2_public_out(const struct sm2_public *from, struct sdf_ecc_public *to);
uint32_t sm2_private_in(const struct sdf_ecc_private *from, uint8_t k[SM2_BYTES]);
uint32_t sm2_generate(uint8_t k[SM2_BYTES], struct sm2_public *pub);
uint32_t sm2_derive(const uint8_t k[SM2_BYTES], struct sm2_public *pub);
/* @k NULL: public only. NULL: not a key. */
EVP_PKEY *sm2_pkey(const uint8_t *k, const struct sm2_public *pub);
/* The same for a public key that was given, kept for the next time; borrowed. */
EVP_PKEY *sm2_pkey_given(const struct sm2_public *pub);
uint32_t sm2_sign(EVP_PKEY *key, const uint8_t *digest, size_t n, struct sdf_ecc_signature *sig);
uint32_t sm2_verify(EVP_PKEY *key, const uint8_t *digest, size_t n, const struct sdf_ecc_signature *sig);
/* → struct sdf_ecc_cipher, sizeof + n bytes. */
uint32_t sm2_encrypt(EVP_PKEY *key, const uint8_t *in, size_t n, uint8_t *out, uint32_t cap, uint32_t *len);
uint32_t sm2_decrypt(EVP_PKEY *key, const uint8_t *in, size_t n, uint8_t *out, uint32_t cap, uint32_t *len);
/* Z of a signer (GB/T 32918.2, 5.5). */
uint32_t sm2_z(const struct sm2_public *pub, const uint8_t *id, size_t id_len, uint8_t z[32]);
/* Key of an agreement (GB/T 32918.3, 6.1): own static and ephemeral pair, the other's halves. */
uint32_t sm2_agree(bool initiator, const uint8_t k[SM2_BYTES], const uint8_t tmp_k[SM2_BYTES],
		   const struct sm2_public *tmp_pub, const struct sm2_public *peer,
		   const struct sm2_public *peer_tmp, const uint8_t z_own[32], const uint8_t z_peer[32],
		   uint8_t *key, size_t n);

/* soft_store.c: keys in files, encrypted */
enum soft_key_type { SOFT_KEY_SM2 = 1, SOFT_KEY_SM4 };

struct soft_key {
	char name[CARD_NAME_MAX];
	enum soft_key_type type;
	uint8_t secret[2][SM2_BYTES]; /* SM2: signing, encrypting; SM4: the first 16 bytes of the first */
	struct sm2_public pub[2];
	bool has_password;
	uint8_t salt[16], password[32];
	uint64_t created; /* seconds */
	/* in memory only */
	EVP_PKEY *pkey[2];
	struct sm4 *sm4;
	uint32_t wrong; /* passwords in a row */
	uint64_t wrong_ns, looked_ns;
	int64_t file_mtime_ns;
	uint64_t file_inode;
	struct soft_key *next;
};

struct soft_store {
	char dir[256];
	uint8_t key[32];
	struct soft_key *keys;
};

/* -errno with @err; the folder and its key are made if they are missing and @make. */
int soft_store_open(struct soft_store *s, const char *dir, const char *key_file, bool make, struct err *err);
void soft_store_close(struct soft_store *s);
/* NULL: no such key (or it cannot be read: damaged, another store's). */
struct soft_key *soft_store_find(struct soft_store *s, const char *name);
/* Durable when it returns 0. -EEXIST. */
int soft_store_put(struct soft_store *s, const struct soft_key *k, struct err *err);
int soft_store_destroy(struct soft_store *s, const char *name, struct err *err);
/* Names, NULL-terminated, to be freed with it all by soft_store_names_free. */
char **soft_store_names(struct soft_store *s, struct err *err);
void soft_store_names_free(char **names);
bool soft_key_name_ok(const char *name);
/* Fill @k's password from @text; check what a guest said. */
int soft_key_set_password(struct soft_key *k, const void *text, size_t n);
uint32_t soft_key_check_password(struct soft_key *k, const void *text, size_t n);
void soft_key_wipe(struct soft_key *k);

/* soft_keys.c: KEY_MAKE, KEY_TAKE, KEY_EXCHANGE, AGREE */
struct card_object {
	enum card_object_type type;
	/* key */
	uint8_t *key; /* in locked memory */
	uint32_t key_len;
	struct sm4 *sm4;
	/* stream */
	uint32_t alg;
	bool decrypt;
	uint8_t iv[SM4_BLOCK];
	struct sm4 *stream_sm4; /* its own: the key may be destroyed before it */
	struct sm4_aead *aead;
	EVP_MD_CTX *md;
	EVP_MAC_CTX *mac;
	/* agreement */
	uint8_t tmp_k[SM2_BYTES], own_k[SM2_BYTES], own_z[32];
	struct sm2_public tmp_pub;
	uint32_t bits;
};

struct soft {
	struct card card; /* first */
	struct soft_store store;
	bool has_store;
};

void soft_object_free(struct card_object *o);
uint32_t soft_make_key(const uint8_t *key, size_t n, struct card_call *call);
/* The key in the store that a request names. */
struct soft_key *soft_find(struct soft *s, const struct card_call *call, enum soft_key_type type,
			   uint32_t *status);
/* As above, if its private half may be used in this session. */
struct soft_key *soft_find_private(struct soft *s, const struct card_call *call, enum soft_key_type type,
				   uint32_t *status);
uint32_t soft_key_make(struct soft *s, struct card_call *call);
uint32_t soft_key_take(struct soft *s, struct card_call *call);
uint32_t soft_key_exchange(struct soft *s, struct card_call *call);
uint32_t soft_agree(struct soft *s, struct card_call *call);

/* soft_files.c: FILE_* */
uint32_t soft_file(struct soft *s, struct card_call *call);

#endif
