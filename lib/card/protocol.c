/* SPDX-License-Identifier: MIT */
#include "card/protocol.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define NONE (1u << CARD_KEY_NONE)
#define INDEX (1u << CARD_KEY_INDEX)
#define OBJECT (1u << CARD_KEY_OBJECT)
#define GIVEN (1u << CARD_KEY_GIVEN)

#define ARGS(type) sizeof(struct type)

static const struct card_op_info ops[CARD_OP_COUNT] = {
	[CARD_OP_HELLO] = {"hello", ARGS(card_hello), 0, ARGS(card_hello_answer), .keys = NONE},
	[CARD_OP_ECHO] = {"echo", .idempotent = true, .streams = true, .keys = NONE},
	[CARD_OP_INFO] = {"info", .idempotent = true, .keys = NONE},
	[CARD_OP_SESSION_OPEN] = {"session-open", .keys = NONE},
	[CARD_OP_SESSION_CLOSE] = {"session-close", .session = true, .keys = NONE},
	[CARD_OP_RANDOM] = {"random", .session = true, .idempotent = true, .keys = NONE},
	[CARD_OP_RIGHT_GET] = {"right-get", .session = true, .idempotent = true, .keys = INDEX},
	[CARD_OP_RIGHT_DROP] = {"right-drop", .session = true, .idempotent = true, .keys = INDEX},
	[CARD_OP_PUBLIC] = {"public", .session = true, .idempotent = true, .keys = INDEX},
	[CARD_OP_PAIR] = {"pair", ARGS(card_pair), .session = true, .idempotent = true, .keys = NONE},
	[CARD_OP_KEY_MAKE] = {"key-make", ARGS(card_wrap), .session = true, .keys = INDEX | GIVEN},
	[CARD_OP_KEY_TAKE] = {"key-take", ARGS(card_wrap), .session = true, .keys = INDEX | GIVEN},
	[CARD_OP_KEY_EXCHANGE] = {"key-exchange", ARGS(card_wrap), .session = true,
				  .idempotent = true, .keys = INDEX},
	[CARD_OP_AGREE] = {"agree", ARGS(card_agree), 0, ARGS(card_agree), .session = true,
			   .keys = NONE | INDEX},
	[CARD_OP_DROP] = {"drop", .session = true, .keys = NONE},
	[CARD_OP_SIGN] = {"sign", 0, ARGS(card_sign), ARGS(card_signature), .session = true,
			  .idempotent = true, .keys = INDEX | GIVEN},
	[CARD_OP_VERIFY] = {"verify", ARGS(card_verify), ARGS(card_verify), .session = true,
			    .idempotent = true, .keys = INDEX | GIVEN},
	[CARD_OP_PK_ENCRYPT] = {"pk-encrypt", 0, ARGS(card_public), .session = true,
				.idempotent = true, .keys = INDEX | GIVEN},
	[CARD_OP_PK_DECRYPT] = {"pk-decrypt", 0, ARGS(card_sign), .session = true,
				.idempotent = true, .keys = INDEX | GIVEN},
	[CARD_OP_RSA_PUBLIC] = {"rsa-public", .session = true, .idempotent = true,
				.keys = INDEX | GIVEN},
	[CARD_OP_RSA_PRIVATE] = {"rsa-private", .session = true, .idempotent = true,
				 .keys = INDEX | GIVEN},
	[CARD_OP_CIPHER] = {"cipher", ARGS(card_cipher), 0, ARGS(card_cipher), .session = true,
			    .phased = true, .idempotent = true, .streams = true,
			    .keys = INDEX | OBJECT},
	[CARD_OP_MAC] = {"mac", ARGS(card_cipher), 0, ARGS(card_cipher), .session = true,
			 .phased = true, .idempotent = true, .streams = true,
			 .keys = INDEX | OBJECT},
	/* Two passes over the data, and a nonce that must not be used for two texts: copied, and
	 * never sent twice. */
	[CARD_OP_AEAD] = {"aead", ARGS(card_aead), 0, ARGS(card_aead), .session = true,
			  .phased = true, .keys = INDEX | OBJECT},
	[CARD_OP_HASH] = {"hash", ARGS(card_hash), .session = true, .phased = true,
			  .idempotent = true, .streams = true, .keys = NONE | INDEX},
	[CARD_OP_HMAC] = {"hmac", .session = true, .phased = true, .idempotent = true,
			  .streams = true, .keys = INDEX | OBJECT},
	[CARD_OP_FILE_CREATE] = {"file-create", ARGS(card_file), .session = true, .keys = NONE},
	[CARD_OP_FILE_READ] = {"file-read", ARGS(card_file), .session = true, .idempotent = true,
			       .keys = NONE},
	[CARD_OP_FILE_WRITE] = {"file-write", ARGS(card_file), .session = true, .keys = NONE},
	[CARD_OP_FILE_DELETE] = {"file-delete", ARGS(card_file), .session = true, .keys = NONE},
	[CARD_OP_KEYS] = {"keys", .idempotent = true, .keys = NONE},
};

const struct card_op_info *card_op_info(unsigned op)
{
	return op < CARD_OP_COUNT && ops[op].name ? &ops[op] : NULL;
}

const char *sdr_text(uint32_t status, char *buf, unsigned size)
{
	static const char *const names[] = {
#define SDR_NAME(name) [SDR_##name - SDR_BASE] = "SDR_" #name,
		SDR_CODES(SDR_NAME)
#undef SDR_NAME
	};

	if (status == SDR_OK)
		return "SDR_OK";
	if (status > SDR_BASE && status - SDR_BASE < sizeof(names) / sizeof(*names))
		return names[status - SDR_BASE];
	snprintf(buf, size, "SDR 0x%08x", status);
	return buf;
}

/* How many bytes of args a request of this kind brings: exactly so many. */
static bool args_len_is_right(const struct card_op_info *info, const struct card_request *rq)
{
	if (info->phased && !(rq->phase & CARD_PHASE_BEGIN))
		return !rq->args_len || (rq->op == CARD_OP_AEAD && (rq->phase & CARD_PHASE_END) &&
					 rq->args_len == info->args_len);
	if (rq->key_kind == CARD_KEY_GIVEN && info->given_args_len)
		return rq->args_len == info->given_args_len;
	return rq->args_len == info->args_len;
}

static bool phase_is_right(const struct card_op_info *info, const struct card_request *rq)
{
	unsigned known = CARD_PHASE_BEGIN | CARD_PHASE_END;

	if (!info->phased)
		return !rq->phase;
	if (rq->op == CARD_OP_AEAD && !(rq->phase & known))
		known |= CARD_PHASE_AAD;
	if (rq->phase & ~known)
		return false;
	/* A stream is there exactly when it was begun before, and then it knows its key. */
	if (rq->phase & CARD_PHASE_BEGIN)
		return !rq->object;
	return rq->object && rq->key_kind == CARD_KEY_NONE;
}

static bool key_is_right(const struct card_op_info *info, const struct card_request *rq)
{
	if (info->phased && !(rq->phase & CARD_PHASE_BEGIN))
		return !rq->key;
	if (rq->key_kind > CARD_KEY_GIVEN || !(info->keys & (1u << rq->key_kind)))
		return false;
	return rq->key || rq->key_kind == CARD_KEY_NONE || rq->key_kind == CARD_KEY_GIVEN;
}

static bool is_zero(const uint8_t *p, size_t n)
{
	uint8_t any = 0;

	while (n--)
		any |= *p++;
	return !any;
}

bool card_request_replays(const struct card_request *rq)
{
	const struct card_op_info *info = card_op_info(rq->op);

	return info && info->idempotent &&
	       (!info->phased || rq->phase == (CARD_PHASE_BEGIN | CARD_PHASE_END));
}

uint32_t card_request_check(const struct card_request *rq)
{
	const struct card_op_info *info = card_op_info(rq->op);

	if (rq->magic != CARD_REQUEST_MAGIC)
		return SDR_INARGERR;
	if (!info)
		return SDR_NOTSUPPORT;
	if (rq->args_len > CARD_ARGS_MAX || rq->data_len > CARD_DATA_MAX ||
	    rq->out_max > CARD_DATA_MAX || !is_zero(rq->reserved, sizeof(rq->reserved)))
		return SDR_INARGERR;
	if (rq->flags & ~(CARD_FLAG_DECRYPT | CARD_FLAG_REPLAY))
		return SDR_INARGERR;
	if ((rq->flags & CARD_FLAG_REPLAY) && !card_request_replays(rq))
		return SDR_INARGERR;
	if (!phase_is_right(info, rq) || !key_is_right(info, rq) || !args_len_is_right(info, rq))
		return SDR_INARGERR;
	if (info->session != (rq->session != 0))
		return SDR_INARGERR;
	return SDR_OK;
}

int card_answer_check(const struct card_answer *an, const struct card_request *rq)
{
	const struct card_op_info *info = card_op_info(rq->op);

	if (an->magic != CARD_ANSWER_MAGIC || an->op != rq->op || an->seq != rq->seq || !info)
		return -EPROTO;
	if (an->args_len != (an->status == SDR_OK ? info->answer_args : 0))
		return -EPROTO;
	return an->data_len > rq->out_max ? -EPROTO : 0;
}

static int message_size(const void *buf, size_t have, uint32_t magic, size_t args_at)
{
	uint32_t lens[2], seen;

	if (have < sizeof(struct card_request))
		return 0;
	memcpy(&seen, (const uint8_t *)buf + offsetof(struct card_request, magic), sizeof(seen));
	memcpy(lens, (const uint8_t *)buf + args_at, sizeof(lens));
	if (seen != magic || lens[0] > CARD_ARGS_MAX || lens[1] > CARD_DATA_MAX)
		return -EPROTO;
	return (int)(sizeof(struct card_request) + lens[0] + lens[1]);
}

int card_request_size(const void *buf, size_t have)
{
	return message_size(buf, have, CARD_REQUEST_MAGIC, offsetof(struct card_request, args_len));
}

int card_answer_size(const void *buf, size_t have)
{
	return message_size(buf, have, CARD_ANSWER_MAGIC, offsetof(struct card_answer, args_len));
}

enum card_key_class card_key_class(const struct card_request *rq, const void *args)
{
	const struct card_wrap *wrap = args;

	switch (rq->op) {
	case CARD_OP_RSA_PUBLIC:
	case CARD_OP_RSA_PRIVATE:
		return CARD_CLASS_RSA;
	case CARD_OP_CIPHER:
	case CARD_OP_MAC:
	case CARD_OP_AEAD:
	case CARD_OP_HMAC:
		return CARD_CLASS_KEK;
	case CARD_OP_PUBLIC:
	case CARD_OP_RIGHT_GET:
	case CARD_OP_RIGHT_DROP:
		return rq->alg & SGD_RSA ? CARD_CLASS_RSA : CARD_CLASS_ECC;
	case CARD_OP_KEY_MAKE:
	case CARD_OP_KEY_TAKE:
	case CARD_OP_KEY_EXCHANGE:
		if (wrap->by == CARD_WRAP_KEK)
			return CARD_CLASS_KEK;
		return wrap->family & SGD_RSA ? CARD_CLASS_RSA : CARD_CLASS_ECC;
	default:
		return CARD_CLASS_ECC;
	}
}
