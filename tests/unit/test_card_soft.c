/* SPDX-License-Identifier: MIT */
/* The soft card against the examples of the standards: SM3 GB/T 32905, SM4 GB/T 32907, SM2 GB/T 32918. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "card/soft.h"

#define ONE_SHOT (CARD_PHASE_BEGIN | CARD_PHASE_END)
#define KEY "3945208f7b2144b13f36e38ac6d39f95889393692860b51a42fb81ef4df7c5b8"
#define PUB_X "09f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020"
#define PUB_Y "ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13"

static char dir[64];

struct ask {
	struct card_request rq;
	union {
		uint8_t bytes[CARD_ARGS_MAX];
		struct card_cipher cipher;
		struct card_aead aead;
		struct card_hash hash;
		struct card_sign sign;
		struct card_verify verify;
		struct card_public public;
		struct card_wrap wrap;
		struct card_agree agree;
		struct card_file file;
	} args, answer;
	uint8_t in[CARD_DATA_MAX], out[CARD_DATA_MAX];
	struct card_call call;
};

static size_t unhex(const char *text, uint8_t *to)
{
	size_t n = strlen(text) / 2;

	for (size_t i = 0; i < n; i++)
		assert_int_equal(sscanf(text + 2 * i, "%2hhx", &to[i]), 1);
	return n;
}

static void assert_hex(const uint8_t *got, const char *want)
{
	uint8_t bytes[256];
	size_t n = unhex(want, bytes);

	assert_memory_equal(got, bytes, n);
}

static int open_card_(void **state)
{
	const struct card_conf conf = {.name = "soft", .spec = "soft", .store = dir};
	struct card *card;
	struct err err = {0};

	snprintf(dir, sizeof(dir), "/tmp/test_card_soft.XXXXXX");
	assert_non_null(mkdtemp(dir));
	assert_int_equal(card_open(&conf, &card, &err), 0);
	*state = card;
	return 0;
}

static int close_card(void **state)
{
	char command[128];

	card_close(*state);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	return system(command); /* NOLINT: a folder of our own */
}

static uint32_t ask(struct card *card, struct ask *a)
{
	a->call.rq = &a->rq;
	a->call.args = &a->args;
	a->call.in = a->in;
	a->call.in_len = a->rq.data_len;
	a->call.vm = "vm";
	a->call.out = a->out;
	a->call.out_cap = sizeof(a->out);
	a->call.out_len = 0;
	a->call.out_args = &a->answer;
	a->call.made = NULL;
	return card->driver->run(card, &a->call);
}

/* A session key in the card, taken in clear. */
static struct card_object *take_key(struct card *card, const char *hex)
{
	struct ask a = {.rq = {.op = CARD_OP_KEY_TAKE, .key_kind = CARD_KEY_GIVEN},
			.args.wrap = {.by = CARD_WRAP_PLAIN}};

	a.rq.data_len = (uint32_t)unhex(hex, a.in);
	assert_int_equal(ask(card, &a), SDR_OK);
	assert_int_equal(a.call.made_type, CARD_OBJ_KEY);
	return a.call.made;
}

static void given_public(struct sdf_ecc_public *pub)
{
	*pub = (struct sdf_ecc_public){.bits = 256};
	unhex(PUB_X, pub->x + 32);
	unhex(PUB_Y, pub->y + 32);
}

static void sm3(void **state)
{
	static const struct {
		const char *text, *digest;
	} v[] = { /* GB/T 32905, annex A */
		{"abc", "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"},
		{"abcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcd",
		 "debe9ff92275b8a138604889c18e5a4d6fdb70e5387e5765293dcba39c0c5732"},
	};

	for (unsigned i = 0; i < 2; i++) {
		struct ask a = {.rq = {.op = CARD_OP_HASH, .alg = SGD_SM3, .phase = ONE_SHOT}};

		a.rq.data_len = (uint32_t)strlen(v[i].text);
		memcpy(a.in, v[i].text, a.rq.data_len);
		assert_int_equal(ask(*state, &a), SDR_OK);
		assert_int_equal(a.call.out_len, 32);
		assert_hex(a.out, v[i].digest);
	}
}

/* The same in a stream, byte by byte. */
static void sm3_stream(void **state)
{
	struct ask a = {.rq = {.op = CARD_OP_HASH, .alg = SGD_SM3, .phase = CARD_PHASE_BEGIN}};
	struct card_object *o;

	assert_int_equal(ask(*state, &a), SDR_OK);
	o = a.call.made;
	assert_int_equal(a.call.made_type, CARD_OBJ_STREAM);
	for (unsigned i = 0; i < 3; i++) {
		a.call.object = o;
		a.rq.phase = i == 2 ? CARD_PHASE_END : 0;
		a.rq.data_len = 1;
		a.in[0] = (uint8_t)"abc"[i];
		assert_int_equal(ask(*state, &a), SDR_OK);
	}
	assert_hex(a.out, "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0");
	((struct card *)*state)->driver->release(*state, CARD_OBJ_STREAM, o);
}

static void sm4_ecb(void **state)
{
	static const char key[] = "0123456789abcdeffedcba9876543210";
	struct ask a = {.rq = {.op = CARD_OP_CIPHER, .alg = SGD_SM4 | SGD_ECB, .phase = ONE_SHOT,
			       .key_kind = CARD_KEY_OBJECT, .data_len = 16}};

	a.call.key = take_key(*state, key);
	unhex(key, a.in);
	assert_int_equal(ask(*state, &a), SDR_OK);
	assert_hex(a.out, "681edf34d206965e86b3e94f536e4246");
	memcpy(a.in, a.out, 16);
	a.rq.flags = CARD_FLAG_DECRYPT;
	assert_int_equal(ask(*state, &a), SDR_OK);
	assert_hex(a.out, key);
	((struct card *)*state)->driver->release(*state, CARD_OBJ_KEY, a.call.key);
}

/* GB/T 32907, annex A.2: a million times. A thousand chained calls of a thousand blocks would not be
 * the same, so the primitive itself runs. */
static void sm4_a_million_times(void **state)
{
	uint8_t key[16], block[2][16], iv[16] = {0};
	struct sm4 *s;

	(void)state;
	unhex("0123456789abcdeffedcba9876543210", key);
	memcpy(block[0], key, 16);
	s = sm4_new(key);
	for (unsigned i = 0; i < 1000000; i++)
		assert_int_equal(sm4_crypt(s, SGD_SM4 | SGD_ECB, false, iv, block[i & 1], block[~i & 1], 16), 0);
	assert_hex(block[0], "595298c7c6fd271f0402f804c33d3f66");
	sm4_free(s);
}

/* Each mode: a chain of parts gives what one call gives, and decrypts to what it was. */
static void sm4_modes_chain(void **state)
{
	static const uint32_t modes[] = {SGD_ECB, SGD_CBC, SGD_CFB, SGD_OFB, SGD_CTR};
	static const size_t parts[] = {16, 48, 160, 32, 768}; /* 1024 */
	uint8_t key[16] = {7}, in[1024], whole[1024], chained[1024], back[1024];

	(void)state;
	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = (uint8_t)(i * 31 + i / 256);
	for (unsigned m = 0; m < 5; m++)
		for (unsigned at_first = 0; at_first < 2; at_first++) {
			struct sm4 *s = sm4_new(key);
			uint8_t iv[16], iv2[16];
			size_t at = 0;

			memset(iv, 0xff, sizeof(iv)); /* so that a counter carries all the way */
			memcpy(iv2, iv, sizeof(iv));
			assert_int_equal(sm4_crypt(s, SGD_SM4 | modes[m], false, iv, in, whole, 1024), 0);
			for (unsigned i = 0; i < 5; at += parts[i++])
				assert_int_equal(sm4_crypt(s, SGD_SM4 | modes[m], false, iv2, in + at,
							   chained + at, parts[i]), 0);
			assert_memory_equal(whole, chained, 1024);
			assert_memory_equal(iv, iv2, 16);
			memset(iv2, 0xff, sizeof(iv2));
			for (at = 0; at < 1024; at += 512)
				assert_int_equal(sm4_crypt(s, SGD_SM4 | modes[m], true, iv2, whole + at,
							   back + at, 512), 0);
			assert_memory_equal(back, in, 1024);
			assert_memory_equal(iv, iv2, 16);
			sm4_free(s);
		}
}

/* RFC 8998, appendix A.1 and A.2. */
static void sm4_gcm_ccm(void **state)
{
	static const struct {
		uint32_t alg;
		const char *text, *tag;
	} v[] = {
		{SGD_SM4_GCM, "17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735"
			      "d82710ca5c22f0ccfa7cbf93d496ac15a56834cbcf98c397b4024a2691233b8d",
		 "83de3541e4c2b58177e065a9bf7b62ec"},
		{SGD_SM4_CCM, "48af93501fa62adbcd414cce6034d895dda1bf8f132f042098661572e7483094"
			      "fd12e518ce062c98acee28d95df4416bed31a2f04476c18bb40c84a74b97dc5b",
		 "16842d4fa186f56ab33256971fa110f4"},
	};
	static const char aad[] = "feedfacedeadbeeffeedfacedeadbeefabaddad2";

	for (unsigned i = 0; i < 2; i++) {
		struct ask a = {.rq = {.op = CARD_OP_AEAD, .alg = v[i].alg, .phase = ONE_SHOT,
				       .key_kind = CARD_KEY_OBJECT, .data_len = 20 + 64}};
		uint8_t plain[64];

		for (unsigned k = 0; k < 64; k++)
			plain[k] = (const uint8_t[]){0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0xee, 0xaa}[k / 8];
		a.call.key = take_key(*state, "0123456789abcdeffedcba9876543210");
		a.args.aead = (struct card_aead){.nonce_len = 12, .tag_len = 16, .aad_len = 20};
		unhex("00001234567800000000abcd", a.args.aead.nonce);
		unhex(aad, a.in);
		memcpy(a.in + 20, plain, 64);
		assert_int_equal(ask(*state, &a), SDR_OK);
		assert_int_equal(a.call.out_len, 64);
		assert_hex(a.out, v[i].text);
		assert_hex(a.answer.aead.tag, v[i].tag);
		/* Back, and not with one bit of the additional data changed. */
		a.rq.flags = CARD_FLAG_DECRYPT;
		memcpy(a.in + 20, a.out, 64);
		memcpy(a.args.aead.tag, a.answer.aead.tag, 16);
		assert_int_equal(ask(*state, &a), SDR_OK);
		assert_memory_equal(a.out, plain, 64);
		a.in[0] ^= 1;
		memset(a.out, 0x55, 64);
		assert_int_equal(ask(*state, &a), SDR_MACERR);
		assert_int_equal(a.call.out_len, 0);
		for (unsigned k = 0; k < 64; k++)
			assert_int_equal(a.out[k], 0); /* nothing of what was not proven */
		((struct card *)*state)->driver->release(*state, CARD_OBJ_KEY, a.call.key);
	}
}

static void sm1_is_not_supported(void **state)
{
	struct ask a = {.rq = {.op = CARD_OP_CIPHER, .alg = SGD_SM1 | SGD_ECB, .phase = ONE_SHOT,
			       .key_kind = CARD_KEY_OBJECT, .data_len = 16}};

	a.call.key = take_key(*state, "00000000000000000000000000000000");
	assert_int_equal(ask(*state, &a), SDR_ALGNOTSUPPORT);
	((struct card *)*state)->driver->release(*state, CARD_OBJ_KEY, a.call.key);
}

/* GB/T 32918.5, annex A: Z and digest of the message, and the signature given there. */
static void sm2_verify_example(void **state)
{
	struct ask a = {.rq = {.op = CARD_OP_HASH, .alg = SGD_SM3, .phase = ONE_SHOT, .data_len = 14}};

	given_public(&a.args.hash.pub);
	a.args.hash.id_len = 16;
	memcpy(a.args.hash.id, "1234567812345678", 16);
	memcpy(a.in, "message digest", 14);
	assert_int_equal(ask(*state, &a), SDR_OK);
	assert_hex(a.out, "f0b43e94ba45accaace692ed534382eb17e6ab5a19ce7b31f4486fdfc0d28640");

	memcpy(a.in, a.out, 32);
	a.rq = (struct card_request){.op = CARD_OP_VERIFY, .key_kind = CARD_KEY_GIVEN, .data_len = 32};
	memset(&a.args, 0, sizeof(a.args));
	given_public(&a.args.verify.pub);
	unhex("f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3", a.args.verify.sig.r + 32);
	unhex("b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa", a.args.verify.sig.s + 32);
	assert_int_equal(ask(*state, &a), SDR_OK);
	a.in[31] ^= 1;
	assert_int_equal(ask(*state, &a), SDR_VERIFYERR);
	a.args.verify.pub.y[63] ^= 1;
	assert_int_equal(ask(*state, &a), SDR_KEYERR); /* not on the curve */
}

static void sm2_sign_verifies(void **state)
{
	struct ask a = {.rq = {.op = CARD_OP_SIGN, .key_kind = CARD_KEY_GIVEN, .data_len = 32}};
	struct sdf_ecc_signature sig;

	a.args.sign.key.bits = 256;
	unhex(KEY, a.args.sign.key.k + 32);
	memset(a.in, 0x77, 32);
	assert_int_equal(ask(*state, &a), SDR_OK);
	memcpy(&sig, &a.answer, sizeof(sig));
	a.rq.op = CARD_OP_VERIFY;
	memset(&a.args, 0, sizeof(a.args));
	given_public(&a.args.verify.pub);
	a.args.verify.sig = sig;
	assert_int_equal(ask(*state, &a), SDR_OK);
	memset(&a.args.verify.sig, 0, sizeof(sig));
	assert_int_equal(ask(*state, &a), SDR_VERIFYERR);
	/* A key of zero, and one as large as the curve's order, are none. */
	a.rq.op = CARD_OP_SIGN;
	memset(&a.args, 0, sizeof(a.args));
	a.args.sign.key.bits = 256;
	assert_int_equal(ask(*state, &a), SDR_KEYERR);
	memset(a.args.sign.key.k + 32, 0xff, 32);
	assert_int_equal(ask(*state, &a), SDR_KEYERR);
}

/* GB/T 32918.5, annex C. */
static void sm2_decrypt_example(void **state)
{
	struct ask a = {.rq = {.op = CARD_OP_PK_DECRYPT, .key_kind = CARD_KEY_GIVEN}};
	struct sdf_ecc_cipher *c = (struct sdf_ecc_cipher *)a.in;

	a.args.sign.key.bits = 256;
	unhex(KEY, a.args.sign.key.k + 32);
	unhex("04ebfc718e8d1798620432268e77feb6415e2ede0e073c0f4f640ecd2e149a73", c->x + 32);
	unhex("e858f9d81e5430a57b36daab8f950a3c64e6ee6a63094d99283aff767e124df0", c->y + 32);
	unhex("59983c18f809e262923c53aec295d30383b54e39d609d160afcb1908d0bd8766", c->m);
	c->length = (uint32_t)unhex("21886ca989ca9c7d58087307ca93092d651efa", c->c);
	a.rq.data_len = (uint32_t)(sizeof(*c) + c->length);
	assert_int_equal(ask(*state, &a), SDR_OK);
	assert_int_equal(a.call.out_len, 19);
	assert_memory_equal(a.out, "encryption standard", 19);
	c->m[0] ^= 1;
	assert_int_equal(ask(*state, &a), SDR_SKOPERR);
	c->length++;
	assert_int_equal(ask(*state, &a), SDR_ENCDATAERR);
}

static struct soft_store *store_of(struct card *card)
{
	return &((struct soft *)card)->store;
}

static void put_key(struct card *card, const char *name, enum soft_key_type type, const char *password)
{
	struct soft_key k = {.type = type};
	struct err err;

	snprintf(k.name, sizeof(k.name), "%s", name);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(sm2_generate(k.secret[i], &k.pub[i]), SDR_OK);
	if (password)
		assert_int_equal(soft_key_set_password(&k, password, strlen(password)), 0);
	assert_int_equal(soft_store_put(store_of(card), &k, &err), 0);
	assert_int_equal(soft_store_put(store_of(card), &k, &err), -EEXIST);
	soft_key_wipe(&k);
}

/* A session key under the key of the store, and back: the two encrypt alike. */
static void keys_wrap_and_unwrap(void **state)
{
	static const enum card_wrap_by ways[] = {CARD_WRAP_INTERNAL, CARD_WRAP_KEK};
	static const char *const names[] = {"wrap-sm2", "wrap-kek"};

	put_key(*state, names[0], SOFT_KEY_SM2, NULL);
	put_key(*state, names[1], SOFT_KEY_SM4, NULL);
	for (unsigned i = 0; i < 2; i++) {
		struct ask a = {.rq = {.op = CARD_OP_KEY_MAKE, .key_kind = CARD_KEY_INDEX, .key = 1,
				       .alg = SGD_SM4 | SGD_ECB},
				.args.wrap = {.by = ways[i], .bits = 128, .family = SGD_SM2}};
		struct card_object *made, *taken;
		uint8_t first[16];

		a.call.key_name = names[i];
		assert_int_equal(ask(*state, &a), SDR_OK);
		made = a.call.made;
		a.rq.op = CARD_OP_KEY_TAKE;
		a.rq.data_len = a.call.out_len;
		memcpy(a.in, a.out, a.call.out_len);
		assert_int_equal(ask(*state, &a), SDR_OK);
		taken = a.call.made;
		a.rq = (struct card_request){.op = CARD_OP_CIPHER, .alg = SGD_SM4 | SGD_ECB, .phase = ONE_SHOT,
					     .key_kind = CARD_KEY_OBJECT, .data_len = 16};
		a.call.key = made;
		assert_int_equal(ask(*state, &a), SDR_OK);
		memcpy(first, a.out, 16);
		a.call.key = taken;
		assert_int_equal(ask(*state, &a), SDR_OK);
		assert_memory_equal(a.out, first, 16);
		((struct card *)*state)->driver->release(*state, CARD_OBJ_KEY, made);
		((struct card *)*state)->driver->release(*state, CARD_OBJ_KEY, taken);
	}
}

/* Both sides of an agreement come to the same key. */
static void keys_agree(void **state)
{
	struct ask a = {.rq = {.op = CARD_OP_AGREE, .key_kind = CARD_KEY_INDEX, .key = 1, .alg = SGD_SM2_KEX,
			       .data_len = 3},
			.args.agree = {.step = CARD_AGREE_OFFER, .bits = 128, .own_id_len = 3}},
		   b = {.rq = {.op = CARD_OP_AGREE, .key_kind = CARD_KEY_INDEX, .key = 1, .alg = SGD_SM2_KEX,
			       .data_len = 6},
			.args.agree = {.step = CARD_AGREE_ACCEPT, .bits = 128, .own_id_len = 3, .peer_id_len = 3}};
	struct card_object *offer, *key_a, *key_b;

	put_key(*state, "agree-a", SOFT_KEY_SM2, NULL);
	put_key(*state, "agree-b", SOFT_KEY_SM2, NULL);
	a.call.key_name = "agree-a";
	b.call.key_name = "agree-b";
	memcpy(a.in, "AAABBB", 6);
	memcpy(b.in, "BBBAAA", 6);
	assert_int_equal(ask(*state, &a), SDR_OK);
	offer = a.call.made;
	b.args.agree.pub = a.answer.agree.pub;
	b.args.agree.tmp = a.answer.agree.tmp;
	assert_int_equal(ask(*state, &b), SDR_OK);
	key_b = b.call.made;
	a.rq.key_kind = CARD_KEY_NONE;
	a.rq.data_len = 6;
	a.call.object = offer;
	a.args.agree = b.answer.agree;
	a.args.agree.step = CARD_AGREE_FINISH;
	a.args.agree.own_id_len = a.args.agree.peer_id_len = 3;
	assert_int_equal(ask(*state, &a), SDR_OK);
	key_a = a.call.made;
	assert_int_equal(key_a->key_len, 16);
	assert_memory_equal(key_a->key, key_b->key, 16);
	soft_object_free(offer);
	soft_object_free(key_a);
	soft_object_free(key_b);
}

static void password_guards_private_half(void **state)
{
	struct ask a = {.rq = {.op = CARD_OP_SIGN, .key_kind = CARD_KEY_INDEX, .key = 1, .data_len = 32}};

	put_key(*state, "guarded", SOFT_KEY_SM2, "open sesame");
	a.call.key_name = "guarded";
	assert_int_equal(ask(*state, &a), SDR_PARDENY);
	a.rq.op = CARD_OP_RIGHT_GET;
	a.rq.data_len = 11;
	memcpy(a.in, "open sesamE", 11);
	assert_int_equal(ask(*state, &a), SDR_PRKRERR);
	memcpy(a.in, "open sesame", 11);
	assert_int_equal(ask(*state, &a), SDR_OK);
	a.rq.op = CARD_OP_SIGN;
	a.rq.data_len = 32;
	a.call.right_got = true;
	assert_int_equal(ask(*state, &a), SDR_OK);
	/* After five wrong ones the right one is not listened to for a while. */
	a.rq.op = CARD_OP_RIGHT_GET;
	a.rq.data_len = 3;
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(ask(*state, &a), SDR_PRKRERR);
	a.rq.data_len = 11;
	memcpy(a.in, "open sesame", 11);
	assert_int_equal(ask(*state, &a), SDR_PRKRERR);
}

/* A VM's files are its own, as large as they were made, and in clear nowhere. */
static void files_of_a_vm(void **state)
{
	struct ask a = {.rq = {.op = CARD_OP_FILE_CREATE}, .args.file = {.name = "../../etc/passwd", .size = 100}};
	char command[128];

	assert_int_equal(ask(*state, &a), SDR_OK);
	assert_int_equal(ask(*state, &a), SDR_FILEEXISTS);
	a.rq.op = CARD_OP_FILE_WRITE;
	a.args.file.offset = 90;
	a.rq.data_len = 10;
	memcpy(a.in, "PLAINTEXT!", 10);
	assert_int_equal(ask(*state, &a), SDR_OK);
	a.rq.data_len = 11;
	assert_int_equal(ask(*state, &a), SDR_FILEOFSERR);
	a.args.file.offset = UINT32_MAX;
	assert_int_equal(ask(*state, &a), SDR_FILEOFSERR);
	a.rq.op = CARD_OP_FILE_READ;
	a.rq.data_len = 0;
	a.args.file.offset = 88;
	a.args.file.size = 50;
	assert_int_equal(ask(*state, &a), SDR_OK);
	assert_int_equal(a.call.out_len, 12);
	assert_memory_equal(a.out, "\0\0PLAINTEXT!", 12);
	snprintf(command, sizeof(command), "! grep -rq PLAINTEXT %s && [ $(ls %s/files.vm | wc -l) = 1 ]", dir, dir);
	assert_int_equal(system(command), 0); /* NOLINT: a folder of our own */
	a.args.file.name[0] = 'x';
	assert_int_equal(ask(*state, &a), SDR_FILENOEXIST);
	a.args.file.name[0] = '.';
	a.rq.op = CARD_OP_FILE_DELETE;
	assert_int_equal(ask(*state, &a), SDR_OK);
	assert_int_equal(ask(*state, &a), SDR_FILENOEXIST);
	a.rq.op = CARD_OP_FILE_CREATE;
	a.args.file.size = 65537;
	assert_int_equal(ask(*state, &a), SDR_FILESIZEERR);
	a.args.file.size = 1;
	for (unsigned i = 0; i < 64; i++) {
		a.args.file.name[0] = (char)('0' + i);
		assert_int_equal(ask(*state, &a), SDR_OK);
	}
	a.args.file.name[0] = 1;
	assert_int_equal(ask(*state, &a), SDR_FILEWERR);
}

static void damaged_files_are_no_keys(void **state)
{
	char path[128];
	FILE *f;

	put_key(*state, "damaged", SOFT_KEY_SM2, NULL);
	snprintf(path, sizeof(path), "%s/damaged.key", dir);
	f = fopen(path, "r+");
	assert_non_null(f);
	fseek(f, 100, SEEK_SET);
	fputc('x', f);
	fputc('y', f);
	fclose(f);
	assert_null(soft_store_find(store_of(*state), "damaged"));
	assert_null(soft_store_find(store_of(*state), "../damaged"));
	assert_null(soft_store_find(store_of(*state), "none"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sm3),
		cmocka_unit_test(sm3_stream),
		cmocka_unit_test(sm4_ecb),
		cmocka_unit_test(sm4_a_million_times),
		cmocka_unit_test(sm4_modes_chain),
		cmocka_unit_test(sm4_gcm_ccm),
		cmocka_unit_test(sm1_is_not_supported),
		cmocka_unit_test(sm2_verify_example),
		cmocka_unit_test(sm2_sign_verifies),
		cmocka_unit_test(sm2_decrypt_example),
		cmocka_unit_test(keys_wrap_and_unwrap),
		cmocka_unit_test(keys_agree),
		cmocka_unit_test(password_guards_private_half),
		cmocka_unit_test(files_of_a_vm),
		cmocka_unit_test(damaged_files_are_no_keys),
	};

	return cmocka_run_group_tests(tests, open_card_, close_card);
}
