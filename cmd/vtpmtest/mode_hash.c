/* SPDX-License-Identifier: MIT */
/* Mode hash: each tick asks for the digest of its own data, as the paper's user does. */
#include "vtpmtest.h"

#include <string.h>

#define SHA1_BLOCK 64

static void expect(struct vt_worker *w)
{
	vt_digest_begin(w);
	vt_digest_add(w, w->data, w->conf->size);
	vt_digest_end(w, w->expected);
}

static enum vt_reply in_one(struct vt_worker *w, struct tpm_answer *a)
{
	struct tpm_request rq = {
		.family = w->conf->family,
		.op = TPM_OP_HASH,
		.alg = w->conf->alg,
		.data = w->data,
		.size = w->conf->size,
	};

	return vt_call(w, &rq, a, true);
}

/* Start, updates, complete; @a->rc and w->why tell which of them failed. */
static enum vt_reply in_pieces_once(struct vt_worker *w, struct tpm_answer *a)
{
	bool old = w->conf->family == TPM_FAMILY_12;
	size_t last = old ? w->conf->size % SHA1_BLOCK : 0, n = w->conf->size - last;
	enum vt_reply reply;
	uint32_t handle;

	a->rc = 0;
	reply = vt_seq_start(w, &handle);
	if (reply != VT_ANSWERED)
		return reply;
	reply = vt_seq_update(w, handle, w->data, n, a);
	if (reply == VT_ANSWERED)
		reply = vt_seq_complete(w, handle, w->data + n, last, a);
	if (reply != VT_ANSWERED)
		vt_seq_flush(w, handle);
	return reply;
}

/*
 * The whole of it can be repeated, its pieces cannot. A 1.2 TPM has one SHA1 thread, which
 * any other command ends: the kernel's random number driver does that now and then.
 */
static enum vt_reply in_pieces(struct vt_worker *w, struct tpm_answer *a)
{
	for (;;) {
		enum vt_reply reply = in_pieces_once(w, a);
		bool again = reply == VT_UNSENT || reply == VT_UNANSWERED ||
			     (reply == VT_REFUSED &&
			      tpm_rc_is_no_sequence(w->conf->family, a->rc));

		if (!again || !vt_time_is_left(w))
			return reply;
		w->counts.retries++;
	}
}

static int begin(struct vt_worker *w, struct err *err)
{
	(void)w;
	(void)err;
	return 0;
}

static void judge(struct vt_worker *w, struct vt_tick *t, const struct tpm_answer *a)
{
	uint64_t earlier;

	if (vt_digest_is(w, a->digest, w->expected)) {
		vt_tick_done(w, t, a->digest, a->digest_size);
		vt_remember(w, t->number, a->digest);
		return;
	}
	earlier = vt_recall(w, a->digest);
	if (!earlier) {
		vt_tick_wrong(w, t, a->digest, "wrong digest");
		return;
	}
	w->counts.out_of_step++;
	vt_tick_wrong(w, t, a->digest, "duplicate: the answer to tick %llu again: out of step",
		      (unsigned long long)earlier);
	vt_disconnect(w);
}

static void tick(struct vt_worker *w, struct vt_tick *t)
{
	bool one = w->conf->family == TPM_FAMILY_20 && w->conf->size <= w->conf->buffer_max;
	struct tpm_answer a;
	enum vt_reply reply;

	vt_fill(w->conf->seed, t->number, w->data, w->conf->size);
	w->meanwhile = expect;
	reply = one ? in_one(w, &a) : in_pieces(w, &a);
	if (reply == VT_ANSWERED)
		judge(w, t, &a);
	else
		vt_tick_failed(w, t, reply);
}

const struct vt_mode vt_mode_hash = {
	.name = "hash",
	.default_size = 20,
	.begin = begin,
	.tick = tick,
};
