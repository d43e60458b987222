/* SPDX-License-Identifier: MIT */
/* Whatever a TPM answers: parsed as the answer to every command of both families. */
#include <stdlib.h>
#include <string.h>

#include "tpm/tpm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct tpm_request *rq, const uint8_t *rsp, size_t n)
{
	struct tpm_answer a;
	char text[64];
	int rc = tpm_parse(rq, rsp, n, &a);

	if (a.digest_size > sizeof(a.digest))
		abort();
	if (!rc && (a.rc || tpm_response_size(rsp, n) != n))
		abort();
	if (!rc && a.digest_size && a.digest_size != rq->alg->size && rq->family == TPM_FAMILY_20)
		abort();
	tpm_rc_text(rq->family, a.rc, text, sizeof(text));
	tpm_rc_is_transient(rq->family, a.rc);
	tpm_rc_is_no_sequence(rq->family, a.rc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* A copy of the exact size, so that the sanitizer sees a read past its end. */
	uint8_t *rsp = malloc(size ? size : 1);

	if (!rsp)
		return 0;
	memcpy(rsp, data, size);
	for (int family = TPM_FAMILY_12; family <= TPM_FAMILY_20; family++)
		for (int op = 0; op < TPM_OP_COUNT; op++)
			for (size_t i = 0; tpm_alg_at(i); i++) {
				struct tpm_request rq = {
					.family = (enum tpm_family)family,
					.op = (enum tpm_op)op,
					.alg = tpm_alg_at(i),
					.property = TPM20_PT_FAMILY,
					.pcr = 16,
				};

				check(&rq, rsp, size);
			}
	free(rsp);
	return 0;
}
