/* SPDX-License-Identifier: MIT */
/* TPM 1.2 commands (TPM Main, part 3: command numbers as in its section 17 and part 2). */
#include "tpm/family.h"

#include <errno.h>

#define TAG_COMMAND 0x00c1
#define TAG_RESPONSE 0x00c4
#define SHA1_SIZE 20

#define CAP_PROPERTY 5u
#define ST_CLEAR 1u

static const uint32_t codes[TPM_OP_COUNT] = {
	[TPM_OP_STARTUP] = 0x99,      [TPM_OP_PROPERTY] = 0x65,
	[TPM_OP_SEQ_START] = 0xa0,    [TPM_OP_SEQ_UPDATE] = 0xa1,
	[TPM_OP_SEQ_COMPLETE] = 0xa2, [TPM_OP_PCR_EXTEND] = 0x14,
	[TPM_OP_PCR_READ] = 0x15,
};

static const struct tpm_rc_name rc_names[] = {
	{0x03, "TPM_BAD_PARAMETER"}, {0x09, "TPM_FAIL"},
	{0x0a, "TPM_BAD_ORDINAL"},   {0x19, "TPM_BAD_PARAM_SIZE"},
	{0x1a, "TPM_SHA_THREAD"},    {0x1b, "TPM_SHA_ERROR"},
	{0x1c, "TPM_FAILEDSELFTEST"}, {0x1e, "TPM_BADTAG"},
	{0x26, "TPM_INVALID_POSTINIT"}, {0x800, "TPM_RETRY"},
	{0x801, "TPM_NEEDS_SELFTEST"}, {0x802, "TPM_DOING_SELFTEST"},
	{0, NULL},
};

static int build(const struct tpm_request *rq, struct tpm_writer *w, uint16_t *tag,
		 uint32_t *code)
{
	*tag = TAG_COMMAND;
	*code = codes[rq->op];
	switch (rq->op) {
	case TPM_OP_STARTUP:
		put_u16(w, ST_CLEAR);
		return 0;
	case TPM_OP_PROPERTY:
		put_u32(w, CAP_PROPERTY);
		put_u32(w, 4);
		put_u32(w, rq->property);
		return 0;
	case TPM_OP_SEQ_START:
		return 0;
	case TPM_OP_SEQ_UPDATE:
	case TPM_OP_SEQ_COMPLETE:
		put_u32(w, (uint32_t)rq->size);
		put_bytes(w, rq->data, rq->size);
		return 0;
	case TPM_OP_PCR_EXTEND:
		if (rq->size != SHA1_SIZE)
			return -EINVAL;
		put_u32(w, rq->pcr);
		put_bytes(w, rq->data, rq->size);
		return 0;
	case TPM_OP_PCR_READ:
		put_u32(w, rq->pcr);
		return 0;
	default:
		return -EINVAL;
	}
}

static void parse(const struct tpm_request *rq, uint16_t tag, struct tpm_reader *r,
		  struct tpm_answer *a)
{
	(void)tag;
	switch (rq->op) {
	case TPM_OP_PROPERTY:
		if (get_u32(r) != 4)
			r->bad = true;
		a->value = get_u32(r);
		break;
	case TPM_OP_SEQ_START:
		a->max = get_u32(r);
		break;
	case TPM_OP_SEQ_COMPLETE:
	case TPM_OP_PCR_EXTEND:
	case TPM_OP_PCR_READ:
		a->digest_size = SHA1_SIZE;
		get_bytes(r, a->digest, SHA1_SIZE);
		break;
	default:
		break;
	}
}

static bool tag_is_right(uint16_t tag, uint32_t rc)
{
	(void)rc;
	return tag == TAG_RESPONSE;
}

const struct tpm_wire tpm12_wire = {build, parse, tag_is_right, rc_names};
