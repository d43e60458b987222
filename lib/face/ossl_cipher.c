/* SPDX-License-Identifier: MIT */
/*
 * SM4 by the card: ECB, CBC, CTR, CFB, OFB as chained requests that carry the IV, GCM and CCM as streams.
 * Padding, and bytes that fill no block, are dealt with here.
 */
#include "face/ossl.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/proverr.h>
#include <stdlib.h>
#include <string.h>

#include "face/link.h"

#define BLOCK 16u
#define KEY 16u

struct mode {
	uint32_t alg;
	unsigned evp; /* EVP_CIPH_*_MODE */
	size_t block, iv;
	bool aead;
};

struct ctx {
	struct prov *prov;
	const struct mode *mode;
	struct prov_key *key;
	bool encrypt, pad, iv_set;
	struct card_cipher cc;	/* where it goes on */
	unsigned char first_iv[BLOCK];
	unsigned char part[BLOCK]; /* bytes of a block that is not complete */
	size_t part_len;
	/* GCM, CCM */
	size_t iv_len, tag_len;
	unsigned char tag[BLOCK];
	bool tag_set, tag_made;
	unsigned char *aad;
	size_t aad_len;
	uint64_t text_total; /* CCM is told before */
	struct prov_link link;
	uint32_t stream;
	bool begun;	 /* the nonce is used up */
	uint64_t blocks; /* that the stream has */
};

/* --- one request, or a chain --- */

static bool run_alg(struct ctx *c, uint32_t alg, const unsigned char *in, size_t len,
		    unsigned char *out, struct card_cipher *cc)
{
	struct card_cipher next;
	struct card_io io = {.rq = {.op = CARD_OP_CIPHER, .alg = alg,
				    .phase = CARD_PHASE_BEGIN | CARD_PHASE_END,
				    .flags = c->encrypt ? 0 : CARD_FLAG_DECRYPT,
				    .key_kind = CARD_KEY_OBJECT, .args_len = sizeof(*cc)},
			     .args = cc, .data = in, .out = out, .out_args = &next,
			     .out_args_cap = sizeof(next)};
	struct prov_link l;

	if (!len)
		return true;
	if (!c->key) {
		prov_error(PROV_R_NO_KEY_SET, "no key");
		return false;
	}
	if (!prov_link(c->prov, &l))
		return false;
	io.rq.key = prov_key_number(c->key, &l);
	if (!io.rq.key || !prov_call_long(&l, &io, len, len))
		return false;
	*cc = next;
	return true;
}

static bool run(struct ctx *c, const unsigned char *in, size_t len, unsigned char *out,
		struct card_cipher *cc)
{
	return run_alg(c, c->mode->alg, in, len, out, cc);
}

/*
 * CTR, CFB, OFB: byte n of a block's output needs no later input. A part of a block goes filled up, without
 * moving on; once the rest is there the whole block goes again.
 */
static bool part(struct ctx *c, const unsigned char *in, size_t n, unsigned char *out)
{
	struct card_cipher cc = c->cc;
	unsigned char block[BLOCK];

	memcpy(c->part + c->part_len, in, n);
	memset(c->part + c->part_len + n, 0, BLOCK - c->part_len - n);
	if (!run(c, c->part, BLOCK, block, &cc))
		return false;
	memcpy(out, block + c->part_len, n);
	c->part_len += n;
	if (c->part_len == BLOCK) {
		c->cc = cc;
		c->part_len = 0;
	}
	return true;
}

static bool stream_bytes(struct ctx *c, const unsigned char *in, size_t len, unsigned char *out)
{
	size_t n = 0, whole;

	if (c->part_len) {
		n = len < BLOCK - c->part_len ? len : BLOCK - c->part_len;
		if (!part(c, in, n, out))
			return false;
	}
	whole = (len - n) / BLOCK * BLOCK;
	if (!run(c, in + n, whole, out + n, &c->cc))
		return false;
	n += whole;
	return n == len || part(c, in + n, len - n, out + n);
}

/* How many of @all bytes can go: whole blocks, but a padded text's last one only when it is known to be that. */
static size_t whole_blocks(const struct ctx *c, size_t all)
{
	size_t n = all / BLOCK * BLOCK;

	return c->pad && !c->encrypt && n == all && n ? n - BLOCK : n;
}

static bool block_bytes(struct ctx *c, const unsigned char *in, size_t len, unsigned char *out,
			size_t *out_len)
{
	size_t n = whole_blocks(c, c->part_len + len);

	*out_len = n;
	if (n && c->part_len) {
		size_t take = BLOCK - c->part_len;

		memcpy(c->part + c->part_len, in, take);
		if (!run(c, c->part, BLOCK, out, &c->cc))
			return false;
		c->part_len = 0;
		in += take;
		len -= take;
		out += BLOCK;
		n -= BLOCK;
	}
	if (!run(c, in, n, out, &c->cc))
		return false;
	memcpy(c->part + c->part_len, in + n, len - n);
	c->part_len += len - n;
	return true;
}

static bool pad_final(struct ctx *c, unsigned char *out, size_t *out_len)
{
	unsigned char n, wrong = 0;

	*out_len = 0;
	if (!c->pad) {
		if (c->part_len)
			prov_error(PROV_R_WRONG_FINAL_BLOCK_LENGTH, "the text fills no whole block");
		return !c->part_len;
	}
	if (c->encrypt) {
		n = (unsigned char)(BLOCK - c->part_len);
		memset(c->part + c->part_len, n, n);
		*out_len = BLOCK;
		return run(c, c->part, BLOCK, out, &c->cc);
	}
	if (c->part_len != BLOCK) {
		prov_error(PROV_R_WRONG_FINAL_BLOCK_LENGTH, "the text fills no whole block");
		return false;
	}
	if (!run(c, c->part, BLOCK, c->part, &c->cc))
		return false;
	n = c->part[BLOCK - 1];
	for (unsigned i = 0; i < BLOCK; i++)
		wrong |= (unsigned char)(i < n && c->part[BLOCK - 1 - i] != n);
	if (!n || n > BLOCK || wrong) {
		prov_error(PROV_R_BAD_DECRYPT, "the padding is wrong");
		return false;
	}
	*out_len = BLOCK - n;
	memcpy(out, c->part, *out_len);
	return true;
}

/* --- GCM, CCM --- */

static void stream_end(struct ctx *c)
{
	if (c->stream && c->link.process == face_link_process())
		prov_drop(&c->link, c->stream);
	c->stream = 0;
}

static bool add_aad(struct ctx *c, const unsigned char *in, size_t len)
{
	unsigned char *p;

	if (c->begun || len > CARD_DATA_MAX - c->aad_len) {
		prov_error(PROV_R_INVALID_DATA, "more than 16 KiB of additional data, or after text");
		return false;
	}
	p = realloc(c->aad, c->aad_len + len);
	if (!p)
		return false;
	memcpy(p + c->aad_len, in, len);
	c->aad = p;
	c->aad_len += len;
	return true;
}

static bool aead_ready(struct ctx *c)
{
	if (c->begun && !c->stream) {
		prov_error(PROV_R_MISSING_CONFIG_DATA, "this nonce was used: set another");
		return false;
	}
	if (!c->key || !c->iv_set) {
		prov_error(c->key ? ERR_R_OPERATION_FAIL : PROV_R_NO_KEY_SET, "no key or no nonce");
		return false;
	}
	return true;
}

/* One request of the stream; the first one brings nonce and additional data along. */
static bool aead_call(struct ctx *c, unsigned phase, const unsigned char *in, size_t len,
		      unsigned char *out)
{
	struct card_aead args = {.nonce_len = (uint32_t)c->iv_len, .tag_len = (uint32_t)c->tag_len,
				 .aad_len = (uint32_t)c->aad_len, .aad_total = c->aad_len,
				 .text_total = c->text_total};
	struct card_aead answer;
	struct card_io io = {.rq = {.op = CARD_OP_AEAD, .object = c->stream,
				    .data_len = (uint32_t)len},
			     .data = in, .out = out, .out_cap = (uint32_t)len,
			     .out_args = &answer, .out_args_cap = sizeof(answer)};

	io.rq.phase = (uint8_t)phase;
	if (!c->stream) {
		io.rq.phase |= CARD_PHASE_BEGIN;
		io.rq.alg = c->mode->alg;
		io.rq.flags = c->encrypt ? 0 : CARD_FLAG_DECRYPT;
		io.rq.key_kind = CARD_KEY_OBJECT;
		io.data = c->aad;
		io.rq.data_len = (uint32_t)(c->aad_len + len);
		io.data2 = in;
		io.data2_len = (uint32_t)len;
		memcpy(args.nonce, c->cc.iv, c->iv_len);
		c->begun = true;
		if (!prov_link(c->prov, &c->link))
			return false;
		io.rq.key = prov_key_number(c->key, &c->link);
		if (!io.rq.key)
			return false;
	}
	if ((io.rq.phase & CARD_PHASE_BEGIN) || (phase && !c->encrypt)) {
		io.args = &args;
		io.rq.args_len = sizeof(args);
	}
	if (phase && !c->encrypt)
		memcpy(args.tag, c->tag, c->tag_len);
	if (phase)
		c->stream = 0;
	if (!prov_call(&c->link, &io))
		return false;
	if (io.out_len != len) {
		prov_error(ERR_R_OPERATION_FAIL, "the card answered more or less than was asked");
		return false;
	}
	if (!phase)
		c->stream = io.rq.phase & CARD_PHASE_BEGIN ? io.object : c->stream;
	else if (c->encrypt)
		memcpy(c->tag, answer.tag, sizeof(c->tag));
	return true;
}

/* The block that a nonce of 12 bytes makes of block @n of the text: GCM counts from 2, CCM (L = 3) from 1. */
static void counter_block(const struct ctx *c, uint64_t n, unsigned char *block)
{
	bool gcm = c->mode->evp == EVP_CIPH_GCM_MODE;
	uint32_t count = (uint32_t)n + (gcm ? 2 : 1);

	memcpy(block + (gcm ? 0 : 1), c->cc.iv, 12);
	if (!gcm)
		block[0] = 2;
	block[15] = (unsigned char)count;
	block[14] = (unsigned char)(count >> 8);
	block[13] = (unsigned char)(count >> 16);
	if (gcm)
		block[12] = (unsigned char)(count >> 24);
}

/*
 * A stream of the card takes whole blocks until it ends, OpenSSL's users want each byte at once. Underneath both
 * modes are CTR: the bytes of a block that is not full come from there, and the stream gets the block later.
 */
static bool aead_part(struct ctx *c, const unsigned char *in, size_t n, unsigned char *out)
{
	unsigned char block[BLOCK] = {0};
	struct card_cipher cc = {.data_unit = 0};
	bool encrypt = c->encrypt, ok;

	if (c->iv_len != 12) {
		prov_error(PROV_R_INVALID_IV_LENGTH, "text in odd pieces wants a nonce of 12 bytes");
		return false;
	}
	memcpy(block + c->part_len, in, n);
	memcpy(c->part + c->part_len, in, n);
	counter_block(c, c->blocks, cc.iv);
	c->encrypt = true;
	ok = run_alg(c, SGD_SM4 | SGD_CTR, block, BLOCK, block, &cc);
	c->encrypt = encrypt;
	if (!ok)
		return false;
	memcpy(out, block + c->part_len, n);
	c->part_len += n;
	return true;
}

static bool aead_whole(struct ctx *c, const unsigned char *in, size_t len, unsigned char *out)
{
	size_t room = c->stream ? CARD_DATA_MAX : (CARD_DATA_MAX - c->aad_len) / BLOCK * BLOCK;

	while (len || !c->stream) {
		size_t n = len < room ? len : room;

		if (!aead_call(c, 0, in, n, out))
			return false;
		in += n;
		out += n;
		len -= n;
		c->blocks += n / BLOCK;
		room = CARD_DATA_MAX;
	}
	return true;
}

static bool aead_bytes(struct ctx *c, const unsigned char *in, size_t len, unsigned char *out)
{
	unsigned char scratch[BLOCK];
	size_t n;

	if (!aead_ready(c))
		return false;
	if (c->mode->evp == EVP_CIPH_CCM_MODE && !c->begun && !c->text_total)
		c->text_total = len;
	if (c->part_len) {
		n = len < BLOCK - c->part_len ? len : BLOCK - c->part_len;
		if (!aead_part(c, in, n, out))
			return false;
		if (c->part_len == BLOCK) {
			if (!aead_whole(c, c->part, BLOCK, scratch))
				return false;
			c->part_len = 0;
		}
		in += n;
		out += n;
		len -= n;
	}
	n = len / BLOCK * BLOCK;
	return (!n || aead_whole(c, in, n, out)) && (n == len || aead_part(c, in + n, len - n, out + n));
}

static bool aead_final(struct ctx *c)
{
	unsigned char scratch[BLOCK];

	if (!aead_ready(c))
		return false;
	if (!c->encrypt && !c->tag_set) {
		prov_error(PROV_R_TAG_NOT_SET, "no tag to compare with");
		return false;
	}
	/* additional data that leaves no room for the rest of the text goes alone */
	if (!c->stream && c->aad_len + c->part_len > CARD_DATA_MAX && !aead_whole(c, NULL, 0, NULL))
		return false;
	if (!aead_call(c, CARD_PHASE_END, c->part, c->part_len, scratch))
		return false;
	c->tag_made = c->encrypt;
	return true;
}

/* --- what OpenSSL asks of a cipher --- */

static void *newctx(struct prov *p, const struct mode *m)
{
	struct ctx *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->prov = p;
	c->mode = m;
	c->pad = m->block > 1;
	c->iv_len = m->iv;
	c->tag_len = BLOCK;
	return c;
}

static void freectx(void *vctx)
{
	struct ctx *c = vctx;

	stream_end(c);
	prov_key_free(c->key);
	if (c->aad)
		OPENSSL_cleanse(c->aad, c->aad_len);
	free(c->aad);
	OPENSSL_cleanse(c, sizeof(*c));
	free(c);
}

/* A stream that has begun is the card's, and can't be copied. */
static void *dupctx(void *vctx)
{
	const struct ctx *c = vctx;
	struct ctx *d = c->stream ? NULL : malloc(sizeof(*d));

	if (!d)
		return NULL;
	*d = *c;
	d->aad = NULL;
	if (c->aad_len) {
		d->aad = malloc(c->aad_len);
		if (!d->aad) {
			free(d);
			return NULL;
		}
		memcpy(d->aad, c->aad, c->aad_len);
	}
	prov_key_hold(d->key);
	return d;
}

static int set_ctx_params(void *vctx, const OSSL_PARAM params[]);

static int init(struct ctx *c, const unsigned char *key, size_t key_len, const unsigned char *iv,
		size_t iv_len, const OSSL_PARAM params[], bool encrypt)
{
	stream_end(c);
	c->encrypt = encrypt;
	c->part_len = 0;
	c->aad_len = 0;
	c->text_total = c->blocks = 0;
	c->tag_made = false;
	if (iv) {
		if (iv_len != c->iv_len) {
			prov_error(PROV_R_INVALID_IV_LENGTH, "the IV's length is wrong");
			return 0;
		}
		memset(&c->cc, 0, sizeof(c->cc));
		memcpy(c->cc.iv, iv, iv_len);
		memcpy(c->first_iv, iv, iv_len);
		c->iv_set = true;
		c->begun = false;
		c->tag_set = false;
	} else if (c->iv_set && !c->mode->aead) {
		memcpy(c->cc.iv, c->first_iv, sizeof(c->first_iv));
	}
	if (key) {
		if (key_len != KEY) {
			prov_error(PROV_R_INVALID_KEY_LENGTH, "the key has not 16 bytes");
			return 0;
		}
		prov_key_free(c->key);
		c->key = prov_key_new(c->prov, key, key_len);
		if (!c->key)
			return 0;
	}
	return set_ctx_params(c, params);
}

static int encrypt_init(void *ctx, const unsigned char *key, size_t key_len,
			const unsigned char *iv, size_t iv_len, const OSSL_PARAM params[])
{
	return init(ctx, key, key_len, iv, iv_len, params, true);
}

static int decrypt_init(void *ctx, const unsigned char *key, size_t key_len,
			const unsigned char *iv, size_t iv_len, const OSSL_PARAM params[])
{
	return init(ctx, key, key_len, iv, iv_len, params, false);
}

static int update(void *vctx, unsigned char *out, size_t *out_len, size_t size,
		  const unsigned char *in, size_t len)
{
	struct ctx *c = vctx;

	*out_len = 0;
	if (c->mode->aead && !out) {
		if (c->mode->evp == EVP_CIPH_CCM_MODE && !in) { /* the text's length, before all else */
			c->text_total = len;
			*out_len = len;
			return 1;
		}
		*out_len = len;
		return add_aad(c, in, len);
	}
	if (!len)
		return 1;
	if (size < (c->mode->block > 1 ? whole_blocks(c, c->part_len + len) : len)) {
		prov_error(PROV_R_OUTPUT_BUFFER_TOO_SMALL, "the buffer is too small");
		return 0;
	}
	if (c->mode->block > 1)
		return block_bytes(c, in, len, out, out_len);
	if (!(c->mode->aead ? aead_bytes(c, in, len, out) : stream_bytes(c, in, len, out)))
		return 0;
	*out_len = len;
	return 1;
}

static int final(void *vctx, unsigned char *out, size_t *out_len, size_t size)
{
	struct ctx *c = vctx;

	*out_len = 0;
	if (c->mode->aead)
		return aead_final(c);
	if (c->mode->block == 1)
		return 1;
	if (c->pad && size < BLOCK) {
		prov_error(PROV_R_OUTPUT_BUFFER_TOO_SMALL, "the buffer is too small");
		return 0;
	}
	if (!pad_final(c, out, out_len))
		return 0;
	c->part_len = 0;
	return 1;
}

/* EVP_Cipher: no padding, whole blocks. */
static int cipher(void *vctx, unsigned char *out, size_t *out_len, size_t size,
		  const unsigned char *in, size_t len)
{
	struct ctx *c = vctx;

	if (c->mode->aead)
		return in ? update(c, out, out_len, size, in, len) : final(c, out, out_len, size);
	if (size < len || (c->mode->block > 1 && len % BLOCK))
		return 0;
	if (!(c->mode->block > 1 ? run(c, in, len, out, &c->cc) : stream_bytes(c, in, len, out)))
		return 0;
	*out_len = len;
	return 1;
}

static int get_params(OSSL_PARAM params[], const struct mode *m)
{
	const struct {
		const char *name;
		size_t value;
	} sizes[] = {{OSSL_CIPHER_PARAM_KEYLEN, KEY},
		     {OSSL_CIPHER_PARAM_BLOCK_SIZE, m->block},
		     {OSSL_CIPHER_PARAM_IVLEN, m->iv}};
	OSSL_PARAM *p = OSSL_PARAM_locate(params, OSSL_CIPHER_PARAM_MODE);

	if (p && !OSSL_PARAM_set_uint(p, m->evp))
		return 0;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		p = OSSL_PARAM_locate(params, sizes[i].name);
		if (p && !OSSL_PARAM_set_size_t(p, sizes[i].value))
			return 0;
	}
	p = OSSL_PARAM_locate(params, OSSL_CIPHER_PARAM_AEAD);
	if (p && !OSSL_PARAM_set_int(p, m->aead))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_CIPHER_PARAM_CUSTOM_IV);
	return !p || OSSL_PARAM_set_int(p, m->aead);
}

static const OSSL_PARAM *gettable_params(void *provctx)
{
	static const OSSL_PARAM types[] = {
		OSSL_PARAM_uint(OSSL_CIPHER_PARAM_MODE, NULL),
		OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_KEYLEN, NULL),
		OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_IVLEN, NULL),
		OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_BLOCK_SIZE, NULL),
		OSSL_PARAM_int(OSSL_CIPHER_PARAM_AEAD, NULL),
		OSSL_PARAM_int(OSSL_CIPHER_PARAM_CUSTOM_IV, NULL),
		OSSL_PARAM_END,
	};

	(void)provctx;
	return types;
}

static int get_tag(struct ctx *c, OSSL_PARAM *p)
{
	if (!c->tag_made || !p->data_size || p->data_size > sizeof(c->tag)) {
		prov_error(PROV_R_TAG_NOT_SET, "there is no such tag (yet)");
		return 0;
	}
	return OSSL_PARAM_set_octet_string(p, c->tag, p->data_size);
}

static int get_ctx_params(void *vctx, OSSL_PARAM params[])
{
	struct ctx *c = vctx;
	OSSL_PARAM *p = OSSL_PARAM_locate(params, OSSL_CIPHER_PARAM_KEYLEN);

	if (p && !OSSL_PARAM_set_size_t(p, KEY))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_CIPHER_PARAM_IVLEN);
	if (p && !OSSL_PARAM_set_size_t(p, c->iv_len))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_CIPHER_PARAM_PADDING);
	if (p && !OSSL_PARAM_set_uint(p, c->pad))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_CIPHER_PARAM_IV);
	if (p && !OSSL_PARAM_set_octet_string(p, c->first_iv, c->iv_len))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_CIPHER_PARAM_UPDATED_IV);
	if (p && !OSSL_PARAM_set_octet_string(p, c->cc.iv, c->iv_len))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_CIPHER_PARAM_NUM);
	if (p && !OSSL_PARAM_set_uint(p, (unsigned)c->part_len))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_CIPHER_PARAM_AEAD_TAGLEN);
	if (p && !OSSL_PARAM_set_size_t(p, c->tag_len))
		return 0;
	p = OSSL_PARAM_locate(params, OSSL_CIPHER_PARAM_AEAD_TAG);
	return !p || get_tag(c, p);
}

static bool set_tag(struct ctx *c, const OSSL_PARAM *p)
{
	if (p->data_type != OSSL_PARAM_OCTET_STRING || p->data_size < 4 ||
	    p->data_size > sizeof(c->tag) || (c->encrypt && p->data)) {
		prov_error(PROV_R_INVALID_TAG_LENGTH, "the tag's length is wrong");
		return false;
	}
	c->tag_len = p->data_size;
	if (p->data) {
		memcpy(c->tag, p->data, p->data_size);
		c->tag_set = true;
	}
	return true;
}

static int set_ctx_params(void *vctx, const OSSL_PARAM params[])
{
	struct ctx *c = vctx;
	const OSSL_PARAM *p;
	unsigned pad;
	size_t n;

	if (!params)
		return 1;
	p = OSSL_PARAM_locate_const(params, OSSL_CIPHER_PARAM_PADDING);
	if (p) {
		if (!OSSL_PARAM_get_uint(p, &pad))
			return 0;
		c->pad = pad && c->mode->block > 1;
	}
	p = OSSL_PARAM_locate_const(params, OSSL_CIPHER_PARAM_KEYLEN);
	if (p && (!OSSL_PARAM_get_size_t(p, &n) || n != KEY))
		return 0;
	if (!c->mode->aead)
		return 1;
	p = OSSL_PARAM_locate_const(params, OSSL_CIPHER_PARAM_AEAD_IVLEN);
	if (p) {
		if (!OSSL_PARAM_get_size_t(p, &n) || !n || n > BLOCK) {
			prov_error(PROV_R_INVALID_IV_LENGTH, "a nonce has 1 to 16 bytes");
			return 0;
		}
		c->iv_set = c->iv_set && n == c->iv_len;
		c->iv_len = n;
	}
	p = OSSL_PARAM_locate_const(params, OSSL_CIPHER_PARAM_AEAD_TAG);
	return !p || set_tag(c, p);
}

static const OSSL_PARAM *gettable_ctx(void *ctx, void *provctx)
{
	static const OSSL_PARAM types[] = {
		OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_KEYLEN, NULL),
		OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_IVLEN, NULL),
		OSSL_PARAM_uint(OSSL_CIPHER_PARAM_PADDING, NULL),
		OSSL_PARAM_uint(OSSL_CIPHER_PARAM_NUM, NULL),
		OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_IV, NULL, 0),
		OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_UPDATED_IV, NULL, 0),
		OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_AEAD_TAGLEN, NULL),
		OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, NULL, 0),
		OSSL_PARAM_END,
	};

	(void)ctx;
	(void)provctx;
	return types;
}

static const OSSL_PARAM *settable_ctx(void *ctx, void *provctx)
{
	static const OSSL_PARAM types[] = {
		OSSL_PARAM_uint(OSSL_CIPHER_PARAM_PADDING, NULL),
		OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_KEYLEN, NULL),
		OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_AEAD_IVLEN, NULL),
		OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, NULL, 0),
		OSSL_PARAM_END,
	};

	(void)ctx;
	(void)provctx;
	return types;
}

#define MODE(word, sgd, evp_mode, block_size, iv_size, is_aead) \
	static const struct mode word = {(sgd), (evp_mode), (block_size), (iv_size), (is_aead)}; \
	static void *word##_newctx(void *provctx) \
	{ \
		return newctx(provctx, &(word)); \
	} \
	static int word##_get_params(OSSL_PARAM params[]) \
	{ \
		return get_params(params, &(word)); \
	} \
	static const OSSL_DISPATCH word##_functions[] = { \
		FN(OSSL_FUNC_CIPHER_NEWCTX, word##_newctx), \
		FN(OSSL_FUNC_CIPHER_FREECTX, freectx), \
		FN(OSSL_FUNC_CIPHER_DUPCTX, dupctx), \
		FN(OSSL_FUNC_CIPHER_ENCRYPT_INIT, encrypt_init), \
		FN(OSSL_FUNC_CIPHER_DECRYPT_INIT, decrypt_init), \
		FN(OSSL_FUNC_CIPHER_UPDATE, update), \
		FN(OSSL_FUNC_CIPHER_FINAL, final), \
		FN(OSSL_FUNC_CIPHER_CIPHER, cipher), \
		FN(OSSL_FUNC_CIPHER_GET_PARAMS, word##_get_params), \
		FN(OSSL_FUNC_CIPHER_GETTABLE_PARAMS, gettable_params), \
		FN(OSSL_FUNC_CIPHER_GET_CTX_PARAMS, get_ctx_params), \
		FN(OSSL_FUNC_CIPHER_GETTABLE_CTX_PARAMS, gettable_ctx), \
		FN(OSSL_FUNC_CIPHER_SET_CTX_PARAMS, set_ctx_params), \
		FN(OSSL_FUNC_CIPHER_SETTABLE_CTX_PARAMS, settable_ctx), \
		FN_END, \
	};

MODE(ecb, SGD_SM4 | SGD_ECB, EVP_CIPH_ECB_MODE, BLOCK, 0, false)
MODE(cbc, SGD_SM4 | SGD_CBC, EVP_CIPH_CBC_MODE, BLOCK, BLOCK, false)
MODE(cfb, SGD_SM4 | SGD_CFB, EVP_CIPH_CFB_MODE, 1, BLOCK, false)
MODE(ofb, SGD_SM4 | SGD_OFB, EVP_CIPH_OFB_MODE, 1, BLOCK, false)
MODE(ctr, SGD_SM4 | SGD_CTR, EVP_CIPH_CTR_MODE, 1, BLOCK, false)
MODE(gcm, SGD_SM4_GCM, EVP_CIPH_GCM_MODE, 1, 12, true)
MODE(ccm, SGD_SM4_CCM, EVP_CIPH_CCM_MODE, 1, 12, true)

#define OWN "provider=cardshare"
const OSSL_ALGORITHM prov_ciphers[] = {
	{"SM4-ECB:1.2.156.10197.1.104.1", OWN, ecb_functions, NULL},
	{"SM4-CBC:SM4:1.2.156.10197.1.104.2", OWN, cbc_functions, NULL},
	{"SM4-CTR:1.2.156.10197.1.104.7", OWN, ctr_functions, NULL},
	{"SM4-OFB:SM4-OFB128:1.2.156.10197.1.104.3", OWN, ofb_functions, NULL},
	{"SM4-CFB:SM4-CFB128:1.2.156.10197.1.104.4", OWN, cfb_functions, NULL},
	{"SM4-GCM:1.2.156.10197.1.104.8", OWN, gcm_functions, NULL},
	{"SM4-CCM:1.2.156.10197.1.104.9", OWN, ccm_functions, NULL},
	{NULL, NULL, NULL, NULL},
};
