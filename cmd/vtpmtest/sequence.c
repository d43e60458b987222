/* SPDX-License-Identifier: MIT */
/* A hash sequence (2.0) or the SHA1 thread (1.2), piece by piece. None is repeatable. */
#include "vtpmtest.h"

#include <string.h>

#define SHA1_BLOCK 64
#define TPM20_OBJECT_MEMORY 0x902

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

static bool list_handles(struct vt_worker *w, struct tpm_answer *a)
{
	struct tpm_request rq = request(w, TPM_OP_HANDLES, 0, NULL, 0);

	return vt_call(w, &rq, a, true) == VT_ANSWERED;
}

void vt_seq_note_others(struct vt_worker *w)
{
	struct tpm_answer a;

	if (w->conf->family != TPM_FAMILY_20 || !list_handles(w, &a))
		return;
	w->handle_count = a.count;
	memcpy(w->handles, a.handles, sizeof(w->handles));
}

static bool is_of_others(const struct vt_worker *w, uint32_t handle)
{
	for (uint32_t i = 0; i < w->handle_count; i++)
		if (w->handles[i] == handle)
			return true;
	return false;
}

/*
 * A start whose answer was lost left a sequence of unknown handle, and the TPM has place
 * for three. What came since the beginning is ours, if we are the only connection.
 */
static void flush_leaked(struct vt_worker *w)
{
	struct tpm_answer a;

	if (!list_handles(w, &a))
		return;
	for (uint32_t i = 0; i < a.count; i++)
		if (!is_of_others(w, a.handles[i]))
			vt_seq_flush(w, a.handles[i]);
	w->lost_starts = 0;
}

enum vt_reply vt_seq_start(struct vt_worker *w, uint32_t *handle)
{
	struct tpm_request rq = request(w, TPM_OP_SEQ_START, 0, NULL, 0);
	struct tpm_answer a;
	enum vt_reply reply = vt_call(w, &rq, &a, false);

	if (reply == VT_UNANSWERED)
		w->lost_starts++;
	if (reply == VT_REFUSED && a.rc == TPM20_OBJECT_MEMORY && w->lost_starts &&
	    w->conf->connections == 1) {
		flush_leaked(w);
		reply = vt_call(w, &rq, &a, false);
	}

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
