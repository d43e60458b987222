/* SPDX-License-Identifier: MIT */
/* What both families share: the ten-byte header, the algorithms, the return codes. */
#include "tpm/family.h"

#include <errno.h>
#include <stdio.h>

#define HEADER 10

static const struct tpm_alg algs[] = {
	{"sha1", 0x0004, 20},	{"sha256", 0x000b, 32},	 {"sha384", 0x000c, 48},
	{"sha512", 0x000d, 64}, {"sm3_256", 0x0012, 32},
};

const struct tpm_alg *tpm_alg_at(size_t i)
{
	return i < sizeof(algs) / sizeof(algs[0]) ? &algs[i] : NULL;
}

const struct tpm_alg *tpm_alg_find(const char *name)
{
	for (size_t i = 0; tpm_alg_at(i); i++)
		if (!strcmp(algs[i].name, name))
			return &algs[i];
	return NULL;
}

static const struct tpm_wire *wire_of(enum tpm_family family)
{
	return family == TPM_FAMILY_12 ? &tpm12_wire : &tpm20_wire;
}

int tpm_build(const struct tpm_request *rq, uint8_t *buf)
{
	struct tpm_writer w = {.buf = buf, .size = TPM_BUF_MAX, .n = HEADER};
	struct tpm_writer head = {.buf = buf, .size = HEADER};
	uint32_t code;
	uint16_t tag;
	int rc;

	if ((unsigned)rq->op >= TPM_OP_COUNT || rq->size > TPM_BUF_MAX)
		return -EINVAL;
	rc = wire_of(rq->family)->build(rq, &w, &tag, &code);
	if (rc || w.bad)
		return -EINVAL;
	put_u16(&head, tag);
	put_u32(&head, (uint32_t)w.n);
	put_u32(&head, code);
	return (int)w.n;
}

size_t tpm_response_size(const uint8_t *rsp, size_t n)
{
	struct tpm_reader r = {.p = rsp, .left = n};

	if (n < HEADER)
		return 0;
	get_skip(&r, 2);
	return get_u32(&r);
}

int tpm_parse(const struct tpm_request *rq, const uint8_t *rsp, size_t n, struct tpm_answer *a)
{
	const struct tpm_wire *wire = wire_of(rq->family);
	struct tpm_reader r = {.p = rsp, .left = n};
	uint16_t tag = get_u16(&r);
	uint32_t size = get_u32(&r);

	*a = (struct tpm_answer){.rc = get_u32(&r)};
	if (r.bad || size != n || !wire->tag_is_right(tag, a->rc))
		return -EPROTO;
	if (a->rc)
		return n == HEADER ? -EREMOTEIO : -EPROTO;
	wire->parse(rq, tag, &r, a);
	return r.bad || r.left ? -EPROTO : 0;
}

/*
 * TPM 2.0, part 2, section 6.6: bit 7 set is a format-one code, whose bits 6 and 8-11 tell
 * which parameter, handle or session it is about.
 */
static uint32_t rc_plain(enum tpm_family family, uint32_t rc)
{
	return family != TPM_FAMILY_12 && (rc & 0x80) ? rc & 0xbf : rc;
}

bool tpm_rc_is_transient(enum tpm_family family, uint32_t rc)
{
	if (family == TPM_FAMILY_12)
		return rc == 0x800 || rc == 0x802;
	return rc == 0x908 || rc == 0x909 || rc == 0x90a || rc == 0x922;
}

bool tpm_rc_needs_startup(enum tpm_family family, uint32_t rc)
{
	return rc == (family == TPM_FAMILY_12 ? 0x26 : 0x100);
}

bool tpm_rc_is_no_sequence(enum tpm_family family, uint32_t rc)
{
	if (family == TPM_FAMILY_12)
		return rc == 0x1a;
	/* TPM_RC_HANDLE, TPM_RC_MODE, TPM_RC_REFERENCE_H0 */
	return rc_plain(family, rc) == 0x8b || rc_plain(family, rc) == 0x89 || rc == 0x910;
}

const char *tpm_rc_text(enum tpm_family family, uint32_t rc, char *buf, size_t size)
{
	const struct tpm_rc_name *n = wire_of(family)->rc_names;

	while (n->name && n->rc != rc)
		n++;
	snprintf(buf, size, "0x%03x%s%s", rc, n->name ? " " : "", n->name ? n->name : "");
	return buf;
}
