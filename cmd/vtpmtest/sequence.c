/* SPDX-License-Identifier: MIT */
/* A hash sequence (2.0) or the SHA1 thread (1.2), piece by piece. None is repeatable. */
#include "vtpmtest.h"

#define SHA1_BLOCK 64

static struct tpm_request request(const struct vt_worker *w, enum tpm_op op, uint32_t handle,
				  const uint8_t *data, size_t n)
{
	return (struct tpm_request){
		.family = w->conf->family,
		.op = op,
		.alg = w->conf->alg,
		.handle = handle,
		.data = data,
		.size = n,
	};
}

/* 1.2: whole blocks only (TPM Main part 3, 17.2); 2.0: as much as a buffer holds. */
size_t vt_seq_piece(const struct vt_worker *w)
{
	if (w->conf->family == TPM_FAMILY_12)
		return w->conf->buffer_max / SHA1_BLOCK * SHA1_BLOCK;
	return w->conf->buffer_max;
}

enum vt_reply vt_seq_start(struct vt_worker *w, uint32_t *handle)
{
	struct tpm_request rq = request(w, TPM_OP_SEQ_START, 0, NULL, 0);
	struct tpm_answer a;
	enum vt_reply reply = vt_call(w, &rq, &a, false);

	*handle = reply == VT_ANSWERED ? a.handle : 0;
	return reply;
}

enum vt_reply vt_seq_update(struct vt_worker *w, uint32_t handle, const uint8_t *data, size_t n,
			    struct tpm_answer *a)
{
	size_t piece = vt_seq_piece(w);

	for (size_t done = 0; done < n; done += piece) {
		size_t now = n - done < piece ? n - done : piece;
		struct tpm_request rq =
			request(w, TPM_OP_SEQ_UPDATE, handle, data + done, now);
		enum vt_reply reply = vt_call(w, &rq, a, false);

		if (reply != VT_ANSWERED)
			return reply;
	}
	return VT_ANSWERED;
}

enum vt_reply vt_seq_complete(struct vt_worker *w, uint32_t handle, const uint8_t *data,
			      size_t n, struct tpm_answer *a)
{
	struct tpm_request rq = request(w, TPM_OP_SEQ_COMPLETE, handle, data, n);

	return vt_call(w, &rq, a, false);
}

/* Give a sequence's place back; the TPM has only three. It may be gone already. */
void vt_seq_flush(struct vt_worker *w, uint32_t handle)
{
	struct tpm_request rq = request(w, TPM_OP_FLUSH, handle, NULL, 0);
	struct tpm_answer a;

	if (handle && w->conf->family == TPM_FAMILY_20 && w->tpm)
		vt_call(w, &rq, &a, true);
}
