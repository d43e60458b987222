/* SPDX-License-Identifier: MIT */
/* One row a TPM family; what wire.c asks of tpm12.c and tpm20.c. */
#ifndef TPM_FAMILY_H
#define TPM_FAMILY_H

#include "tpm/marshal.h"
#include "tpm/tpm.h"

struct tpm_rc_name {
	uint32_t rc;
	const char *name;
};

struct tpm_wire {
	/* Everything after the header; the tag and the command code go to @tag and @code. */
	int (*build)(const struct tpm_request *rq, struct tpm_writer *w, uint16_t *tag,
		     uint32_t *code);
	/* Everything after the header of a success; @r is marked bad if it does not fit. */
	void (*parse)(const struct tpm_request *rq, uint16_t tag, struct tpm_reader *r,
		      struct tpm_answer *a);
	bool (*tag_is_right)(uint16_t tag, uint32_t rc);
	const struct tpm_rc_name *rc_names; /* ends with .name == NULL */
};

extern const struct tpm_wire tpm12_wire, tpm20_wire;

#endif
