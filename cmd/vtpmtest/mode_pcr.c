/* SPDX-License-Identifier: MIT */
/*
 * Mode pcr: each tick extends a PCR by the digest of its data and reads it back. The PCR is a
 * chain over all ticks so far, kept by the TPM alone: a state that went back, or a command
 * executed twice, breaks it. PCR 16 (debug) and 23 (application) are nobody's measurements.
 */
#include "vtpmtest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct chain {
	uint8_t value[TPM_DIGEST_MAX]; /* what the PCR must be */
	uint8_t next[TPM_DIGEST_MAX], event[TPM_DIGEST_MAX];
};

static enum vt_reply read_pcr(struct vt_worker *w, struct tpm_answer *a)
{
	struct tpm_request rq = {
		.family = w->conf->family,
		.op = TPM_OP_PCR_READ,
		.alg = w->conf->alg,
		.pcr = w->conf->pcr,
	};

	return vt_call(w, &rq, a, true);
}

static enum vt_reply extend_pcr(struct vt_worker *w, const uint8_t *event)
{
	struct tpm_answer a;
	struct tpm_request rq = {
		.family = w->conf->family,
		.op = TPM_OP_PCR_EXTEND,
		.alg = w->conf->alg,
		.pcr = w->conf->pcr,
		.data = event,
		.size = w->conf->alg->size,
	};

	return vt_call(w, &rq, &a, false);
}

static void link_of(struct vt_worker *w, const uint8_t *old, const uint8_t *event, uint8_t *next)
{
	vt_digest_begin(w);
	vt_digest_add(w, old, w->conf->alg->size);
	vt_digest_add(w, event, w->conf->alg->size);
	vt_digest_end(w, next);
}

static int begin(struct vt_worker *w, struct err *err)
{
	struct chain *c = calloc(1, sizeof(*c));
	struct tpm_answer a;

	w->state = c;
	if (!c)
		return err_sys(err, -ENOMEM, "start mode pcr");
	if (read_pcr(w, &a) != VT_ANSWERED)
		return err_set(err, -EIO, "read PCR %u: %.150s", w->conf->pcr, w->why);
	if (!a.digest_size)
		return err_set(err, -ENOTSUP,
			       "read PCR %u: the TPM has no bank of %s allocated (see --alg)",
			       w->conf->pcr, w->conf->alg->name);
	memcpy(c->value, a.digest, a.digest_size);
	return 0;
}

/* What must have happened that the PCR is @value and not c->next. */
static void explain(struct vt_worker *w, struct vt_tick *t, const uint8_t *value)
{
	static const uint8_t zero[TPM_DIGEST_MAX];
	struct chain *c = w->state;
	uint8_t maybe[TPM_DIGEST_MAX];
	uint64_t earlier = vt_recall(w, value);

	link_of(w, c->next, c->event, maybe);
	if (vt_digest_is(w, value, maybe)) {
		vt_tick_wrong(w, t, value, "duplicate: the extend was executed twice");
		return;
	}
	w->counts.state_lost++;
	link_of(w, zero, c->event, maybe);
	if (vt_digest_is(w, value, maybe))
		vt_tick_wrong(w, t, value, "state lost: PCR %u had been reset", w->conf->pcr);
	else if (vt_digest_is(w, value, zero))
		vt_tick_wrong(w, t, value, "state lost: PCR %u is reset", w->conf->pcr);
	else if (vt_digest_is(w, value, c->value))
		vt_tick_wrong(w, t, value, "state lost: the extend was answered, not executed");
	else if (earlier)
		vt_tick_wrong(w, t, value, "state lost: PCR %u is back at tick %llu",
			      w->conf->pcr, (unsigned long long)earlier);
	else
		vt_tick_wrong(w, t, value, "state lost, or someone else extends PCR %u",
			      w->conf->pcr);
}

/*
 * Extend once and only once: after a lost reply the PCR itself tells whether it was
 * executed. @unanswered is set if a reply was lost of a command that was.
 */
static enum vt_reply extend_once(struct vt_worker *w, struct tpm_answer *a, bool *unanswered)
{
	struct chain *c = w->state;
	enum vt_reply extended, reply;

	for (;;) {
		extended = extend_pcr(w, c->event);
		if (extended != VT_ANSWERED && extended != VT_UNANSWERED)
			return extended;
		reply = read_pcr(w, a);
		if (reply != VT_ANSWERED || extended == VT_ANSWERED)
			return reply;
		*unanswered = true;
		if (!vt_digest_is(w, a->digest, c->value))
			return VT_ANSWERED;
		*unanswered = false;
		if (!vt_time_is_left(w))
			return VT_UNANSWERED;
		w->counts.retries++;
	}
}

/* The reply was lost and so was the time to ask the PCR: have one more look, for the chain. */
static void look_again(struct vt_worker *w, struct vt_tick *t)
{
	struct chain *c = w->state;
	struct tpm_answer a;

	w->deadline_ns = t->answered_ns + w->conf->timeout_ns;
	if (read_pcr(w, &a) != VT_ANSWERED || !a.digest_size)
		return;
	if (vt_digest_is(w, a.digest, c->next)) {
		t->status = VT_REPLY_LOST;
		w->counts.lost--;
		w->counts.reply_lost++;
	}
	memcpy(c->value, a.digest, a.digest_size);
}

static void judge(struct vt_worker *w, struct vt_tick *t, const struct tpm_answer *a,
		  bool unanswered)
{
	struct chain *c = w->state;

	if (!vt_digest_is(w, a->digest, c->next)) {
		explain(w, t, a->digest);
	} else if (unanswered) {
		vt_tick_failed(w, t, VT_UNANSWERED);
		w->counts.lost--;
		w->counts.reply_lost++;
		t->status = VT_REPLY_LOST;
	} else {
		vt_tick_done(w, t, a->digest, a->digest_size);
	}
	vt_remember(w, t->number, a->digest);
	memcpy(c->value, a->digest, a->digest_size);
}

static void tick(struct vt_worker *w, struct vt_tick *t)
{
	struct chain *c = w->state;
	struct tpm_answer a;
	bool unanswered = false;
	enum vt_reply reply;

	vt_fill(w->conf->seed, t->number, w->data, w->conf->size);
	vt_digest_begin(w);
	vt_digest_add(w, w->data, w->conf->size);
	vt_digest_end(w, c->event);
	link_of(w, c->value, c->event, c->next);
	reply = extend_once(w, &a, &unanswered);
	if (reply == VT_ANSWERED && a.digest_size) {
		judge(w, t, &a, unanswered);
		return;
	}
	vt_tick_failed(w, t, reply == VT_ANSWERED ? VT_GARBLED : reply);
	if (reply == VT_UNANSWERED)
		look_again(w, t);
}

static void free_state(struct vt_worker *w)
{
	free(w->state);
	w->state = NULL;
}

const struct vt_mode vt_mode_pcr = {
	.name = "pcr",
	.default_size = 20,
	.begin = begin,
	.tick = tick,
	.free = free_state,
};
