/* SPDX-License-Identifier: MIT */
/* TPM 2.0 commands (TPM 2.0 Library, part 3; structures and constants of part 2). */
#include "tpm/family.h"

#include <errno.h>

#define TAG_PLAIN 0x8001 /* TPM_ST_NO_SESSIONS */
#define TAG_AUTH 0x8002	 /* TPM_ST_SESSIONS */
#define TAG_OLD 0x00c4	 /* TPM_ST_RSP_COMMAND: a 1.2 TPM, or "bad tag" */

#define RH_NULL 0x40000007u
#define RS_PASSWORD 0x40000009u
#define SU_CLEAR 0u
#define CAP_ALGS 0u
#define CAP_PROPERTIES 6u
#define ST_HASHCHECK 0x8024u
#define PCR_SELECT_BYTES 3

static const uint32_t codes[TPM_OP_COUNT] = {
	[TPM_OP_STARTUP] = 0x144,      [TPM_OP_PROPERTY] = 0x17a,
	[TPM_OP_HAS_ALG] = 0x17a,      [TPM_OP_HASH] = 0x17d,
	[TPM_OP_SEQ_START] = 0x186,    [TPM_OP_SEQ_UPDATE] = 0x15c,
	[TPM_OP_SEQ_COMPLETE] = 0x13e, [TPM_OP_FLUSH] = 0x165,
	[TPM_OP_PCR_EXTEND] = 0x182,   [TPM_OP_PCR_READ] = 0x17e,
};

static const struct tpm_rc_name rc_names[] = {
	{0x100, "TPM_RC_INITIALIZE"},	{0x101, "TPM_RC_FAILURE"},
	{0x143, "TPM_RC_COMMAND_CODE"}, {0x1d5, "TPM_RC_SIZE"},
	{0x2c3, "TPM_RC_HASH"},		{0x902, "TPM_RC_OBJECT_MEMORY"},
	{0x903, "TPM_RC_SESSION_MEMORY"}, {0x908, "TPM_RC_YIELDED"},
	{0x909, "TPM_RC_CANCELED"},	{0x90a, "TPM_RC_TESTING"},
	{0x910, "TPM_RC_REFERENCE_H0"}, {0x921, "TPM_RC_LOCKOUT"},
	{0x922, "TPM_RC_RETRY"},	{0x18b, "TPM_RC_HANDLE"},
	{0x09, "TPM_FAIL"},		{0x1e, "TPM_BADTAG"},
	{0, NULL},
};

static void put_tpm2b(struct tpm_writer *w, const void *data, size_t n)
{
	if (n > UINT16_MAX) {
		w->bad = true;
		return;
	}
	put_u16(w, (uint16_t)n);
	put_bytes(w, data, n);
}

/* An authorization area with one empty password. */
static void put_password(struct tpm_writer *w)
{
	put_u32(w, 9);
	put_u32(w, RS_PASSWORD);
	put_u16(w, 0); /* nonce */
	put_u8(w, 0);  /* attributes */
	put_u16(w, 0); /* password */
}

static void put_capability(struct tpm_writer *w, uint32_t capability, uint32_t property)
{
	put_u32(w, capability);
	put_u32(w, property);
	put_u32(w, 1);
}

static void put_pcr_selection(struct tpm_writer *w, const struct tpm_request *rq)
{
	uint8_t map[PCR_SELECT_BYTES] = {0};

	if (rq->pcr >= 8 * PCR_SELECT_BYTES) {
		w->bad = true;
		return;
	}
	map[rq->pcr / 8] = (uint8_t)(1u << rq->pcr % 8);
	put_u32(w, 1);
	put_u16(w, rq->alg->id);
	put_u8(w, PCR_SELECT_BYTES);
	put_bytes(w, map, sizeof(map));
}

static int build_sequence(const struct tpm_request *rq, struct tpm_writer *w, uint16_t *tag)
{
	if (rq->op == TPM_OP_SEQ_START) {
		put_u16(w, 0); /* password */
		put_u16(w, rq->alg->id);
		return 0;
	}
	*tag = TAG_AUTH;
	put_u32(w, rq->handle);
	put_password(w);
	put_tpm2b(w, rq->data, rq->size);
	if (rq->op == TPM_OP_SEQ_COMPLETE)
		put_u32(w, RH_NULL);
	return 0;
}

static int build_extend(const struct tpm_request *rq, struct tpm_writer *w, uint16_t *tag)
{
	if (rq->size != rq->alg->size)
		return -EINVAL;
	*tag = TAG_AUTH;
	put_u32(w, rq->pcr);
	put_password(w);
	put_u32(w, 1);
	put_u16(w, rq->alg->id);
	put_bytes(w, rq->data, rq->size);
	return 0;
}

static int build(const struct tpm_request *rq, struct tpm_writer *w, uint16_t *tag,
		 uint32_t *code)
{
	*tag = TAG_PLAIN;
	*code = codes[rq->op];
	switch (rq->op) {
	case TPM_OP_STARTUP:
		put_u16(w, SU_CLEAR);
		return 0;
	case TPM_OP_PROPERTY:
		put_capability(w, CAP_PROPERTIES, rq->property);
		return 0;
	case TPM_OP_HAS_ALG:
		put_capability(w, CAP_ALGS, rq->alg->id);
		return 0;
	case TPM_OP_HASH:
		put_tpm2b(w, rq->data, rq->size);
		put_u16(w, rq->alg->id);
		put_u32(w, RH_NULL);
		return 0;
	case TPM_OP_SEQ_START:
	case TPM_OP_SEQ_UPDATE:
	case TPM_OP_SEQ_COMPLETE:
		return build_sequence(rq, w, tag);
	case TPM_OP_FLUSH:
		put_u32(w, rq->handle);
		return 0;
	case TPM_OP_PCR_EXTEND:
		return build_extend(rq, w, tag);
	case TPM_OP_PCR_READ:
		put_pcr_selection(w, rq);
		return 0;
	default:
		return -EINVAL;
	}
}

/* A TPM2B that must be exactly the algorithm's digest. */
static void get_digest(const struct tpm_request *rq, struct tpm_reader *r, struct tpm_answer *a)
{
	size_t n = get_u16(r);

	if (n != rq->alg->size || n > sizeof(a->digest)) {
		r->bad = true;
		return;
	}
	get_bytes(r, a->digest, n);
	a->digest_size = n;
}

/* TPMT_TK_HASHCHECK: of hierarchy null it is empty, but nothing here depends on that. */
static void get_ticket(struct tpm_reader *r)
{
	if (get_u16(r) != ST_HASHCHECK)
		r->bad = true;
	get_skip(r, 4);
	get_skip(r, get_u16(r));
}

static void get_capability(const struct tpm_request *rq, struct tpm_reader *r,
			   struct tpm_answer *a)
{
	bool algs = rq->op == TPM_OP_HAS_ALG;
	uint32_t count;

	get_skip(r, 1); /* moreData */
	if (get_u32(r) != (algs ? CAP_ALGS : CAP_PROPERTIES))
		r->bad = true;
	count = get_u32(r);
	if (count > 1) {
		r->bad = true;
		return;
	}
	if (!count)
		return;
	if (algs) {
		a->value = get_u16(r) == rq->alg->id;
		get_skip(r, 4);
	} else {
		bool same = get_u32(r) == rq->property;

		a->value = get_u32(r);
		if (!same)
			a->value = 0;
	}
}

/* pcrUpdateCounter, TPML_PCR_SELECTION, TPML_DIGEST; a bank that is not there gives none. */
static void get_pcr(const struct tpm_request *rq, struct tpm_reader *r, struct tpm_answer *a)
{
	uint32_t count;

	get_skip(r, 4);
	count = get_u32(r);
	for (uint32_t i = 0; i < count && !r->bad; i++) {
		get_skip(r, 2);
		get_skip(r, get_u8(r));
	}
	count = get_u32(r);
	if (count > 1)
		r->bad = true;
	else if (count)
		get_digest(rq, r, a);
}

/* A response with sessions carries its parameters' size, then them, then the session's part. */
static void open_parameters(struct tpm_reader *r, struct tpm_reader *params)
{
	uint32_t n = get_u32(r);

	*params = (struct tpm_reader){.p = r->p, .left = n, .bad = r->bad};
	get_skip(r, n);
	get_skip(r, get_u16(r)); /* nonce */
	get_skip(r, 1);
	get_skip(r, get_u16(r)); /* acknowledgment */
	params->bad |= r->bad;
}

static void parse_parameters(const struct tpm_request *rq, struct tpm_reader *r,
			     struct tpm_answer *a)
{
	switch (rq->op) {
	case TPM_OP_PROPERTY:
	case TPM_OP_HAS_ALG:
		get_capability(rq, r, a);
		break;
	case TPM_OP_SEQ_START:
		a->handle = get_u32(r);
		break;
	case TPM_OP_HASH:
	case TPM_OP_SEQ_COMPLETE:
		get_digest(rq, r, a);
		get_ticket(r);
		break;
	case TPM_OP_PCR_READ:
		get_pcr(rq, r, a);
		break;
	default:
		break;
	}
}

static bool op_has_auth(enum tpm_op op)
{
	return op == TPM_OP_SEQ_UPDATE || op == TPM_OP_SEQ_COMPLETE || op == TPM_OP_PCR_EXTEND;
}

static void parse(const struct tpm_request *rq, uint16_t tag, struct tpm_reader *r,
		  struct tpm_answer *a)
{
	struct tpm_reader params;

	if ((tag == TAG_AUTH) != op_has_auth(rq->op)) {
		r->bad = true;
		return;
	}
	if (tag != TAG_AUTH) {
		parse_parameters(rq, r, a);
		return;
	}
	open_parameters(r, &params);
	parse_parameters(rq, &params, a);
	if (params.bad || params.left)
		r->bad = true;
}

static bool tag_is_right(uint16_t tag, uint32_t rc)
{
	return rc ? tag == TAG_PLAIN || tag == TAG_OLD : tag == TAG_PLAIN || tag == TAG_AUTH;
}

const struct tpm_wire tpm20_wire = {build, parse, tag_is_right, rc_names};
