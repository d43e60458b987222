/* SPDX-License-Identifier: MIT */
/*
 * Mode sequence: one hash sequence stays open over many ticks, each adds its data. Only the
 * TPM's own state knows what was added, so the final digest proves that the state moved; and
 * it tells of an update that was not answered whether it was executed all the same.
 */
#include "vtpmtest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define UNSURE_MAX 10 /* 2^10 digests are tried at most */
#define NONE UINT32_MAX

struct item {
	uint64_t tick;
	bool unsure;
};

struct sequence {
	bool open;
	uint32_t handle;
	uint32_t n, unsure;
	struct item items[];
};

static int begin(struct vt_worker *w, struct err *err)
{
	const struct vt_config *c = w->conf;

	if (c->size > vt_seq_piece(w))
		return err_set(err, -EINVAL, "--size %llu: at most %zu in mode sequence on this TPM",
			       (unsigned long long)c->size, vt_seq_piece(w));
	if (c->family == TPM_FAMILY_12 && c->size % 64)
		return err_set(err, -EINVAL,
			       "--size %llu: a 1.2 TPM adds multiples of 64 bytes to a sequence",
			       (unsigned long long)c->size);
	w->state = calloc(1, sizeof(struct sequence) + c->length * sizeof(struct item));
	return w->state ? 0 : err_sys(err, -ENOMEM, "start mode sequence");
}

static void reset(struct sequence *s)
{
	s->open = false;
	s->handle = 0;
	s->n = 0;
	s->unsure = 0;
}

/* The digest if bit i of @mask says whether the i-th unsure update is in it. */
static void digest_if(struct vt_worker *w, const struct sequence *s, uint32_t mask,
		      uint32_t twice, uint32_t without, uint8_t *digest)
{
	vt_digest_begin(w);
	for (uint32_t i = 0; i < s->n; i++) {
		bool in = true;

		if (s->items[i].unsure) {
			in = mask & 1;
			mask >>= 1;
		}
		if (!in || i == without)
			continue;
		vt_fill(w->conf->seed, s->items[i].tick, w->data, w->conf->size);
		vt_digest_add(w, w->data, w->conf->size);
		if (i == twice)
			vt_digest_add(w, w->data, w->conf->size);
	}
	vt_digest_end(w, digest);
}

static void settle_one(struct vt_worker *w, struct vt_tick *t, uint64_t tick, bool executed,
		       const char *why)
{
	if (executed)
		w->counts.reply_lost++;
	else
		w->counts.lost++;
	if (t && t->number == tick && t->status == VT_UNSETTLED) {
		t->status = executed ? VT_REPLY_LOST : VT_LOST;
		return;
	}
	vt_report_event(w->run, tick, executed ? "reply-lost" : "lost", "%s", why);
}

/* Nothing will tell any more: an unanswered update then counts as lost. */
static void give_up(struct vt_worker *w, struct vt_tick *t, const char *why)
{
	struct sequence *s = w->state;

	for (uint32_t i = 0; i < s->n; i++)
		if (s->items[i].unsure)
			settle_one(w, t, s->items[i].tick, false, why);
	reset(s);
}

static void settle(struct vt_worker *w, struct vt_tick *t, uint32_t mask)
{
	struct sequence *s = w->state;

	for (uint32_t i = 0; i < s->n; i++) {
		if (!s->items[i].unsure)
			continue;
		settle_one(w, t, s->items[i].tick, mask & 1,
			   mask & 1 ? "reply lost: the final digest holds its data"
				    : "lost: the final digest does not hold its data");
		mask >>= 1;
	}
	reset(s);
}

/* Say what the TPM must have done to come to @digest. */
static void explain(struct vt_worker *w, struct vt_tick *t, const uint8_t *digest)
{
	struct sequence *s = w->state;
	uint8_t maybe[TPM_DIGEST_MAX];

	for (uint32_t i = 0; i < s->n; i++) {
		digest_if(w, s, 0, i, NONE, maybe);
		if (vt_digest_is(w, digest, maybe)) {
			vt_tick_wrong(w, t, digest, "duplicate: tick %llu was executed twice",
				      (unsigned long long)s->items[i].tick);
			return;
		}
		digest_if(w, s, 0, NONE, i, maybe);
		if (vt_digest_is(w, digest, maybe)) {
			w->counts.state_lost++;
			vt_tick_wrong(w, t, digest,
				      "state lost: tick %llu was answered, yet is not in the digest",
				      (unsigned long long)s->items[i].tick);
			return;
		}
	}
	w->counts.state_lost++;
	vt_tick_wrong(w, t, digest, "state lost: the digest is not that of ticks %llu to %llu",
		      (unsigned long long)s->items[0].tick, (unsigned long long)t->number);
}

static void judge(struct vt_worker *w, struct vt_tick *t, const uint8_t *digest)
{
	struct sequence *s = w->state;
	uint32_t masks = s->unsure > UNSURE_MAX ? 0 : 1u << s->unsure;

	for (uint32_t mask = 0; mask < masks; mask++) {
		digest_if(w, s, mask, NONE, NONE, w->expected);
		if (!vt_digest_is(w, digest, w->expected))
			continue;
		if (t->status == VT_DONE)
			vt_tick_done(w, t, digest, w->conf->alg->size);
		settle(w, t, mask);
		return;
	}
	if (masks)
		explain(w, t, digest);
	give_up(w, t, "lost: too much was lost for the final digest to tell");
}

/* The TPM says that there is no such sequence, though one is open. */
static void gone(struct vt_worker *w, struct vt_tick *t)
{
	char why[sizeof(w->why)];

	memcpy(why, w->why, sizeof(why));
	w->counts.state_lost++;
	vt_tick_wrong(w, t, NULL, "state lost: the sequence is gone; %.150s", why);
	give_up(w, t, "lost: the sequence is gone, nothing will tell");
}

/*
 * 1.2 only: any other command ends the SHA1 thread, which says nothing of the state. Begin
 * again with what was answered; the rest can no longer be told.
 */
static enum vt_reply replay(struct vt_worker *w, struct tpm_answer *a)
{
	struct sequence *s = w->state;
	uint32_t kept = 0;
	enum vt_reply reply;

	w->counts.retries++;
	for (uint32_t i = 0; i < s->n; i++) {
		if (s->items[i].unsure)
			settle_one(w, NULL, s->items[i].tick, false,
				   "lost: the SHA1 thread ended, nothing will tell");
		else
			s->items[kept++] = s->items[i];
	}
	s->n = kept;
	s->unsure = 0;
	reply = vt_seq_start(w, &s->handle);
	for (uint32_t i = 0; reply == VT_ANSWERED && i < s->n; i++) {
		vt_fill(w->conf->seed, s->items[i].tick, w->data, w->conf->size);
		reply = vt_seq_update(w, s->handle, w->data, w->conf->size, a);
	}
	return reply;
}

static bool thread_ended(const struct vt_worker *w, enum vt_reply reply,
			 const struct tpm_answer *a)
{
	return w->conf->family == TPM_FAMILY_12 && reply == VT_REFUSED &&
	       tpm_rc_is_no_sequence(TPM_FAMILY_12, a->rc) && vt_time_is_left(w);
}

static enum vt_reply update(struct vt_worker *w, struct vt_tick *t, struct tpm_answer *a)
{
	struct sequence *s = w->state;
	enum vt_reply reply = VT_ANSWERED;

	for (;;) {
		vt_fill(w->conf->seed, t->number, w->data, w->conf->size);
		if (reply == VT_ANSWERED)
			reply = vt_seq_update(w, s->handle, w->data, w->conf->size, a);
		if (!thread_ended(w, reply, a))
			return reply;
		reply = replay(w, a);
	}
}

static void complete(struct vt_worker *w, struct vt_tick *t)
{
	struct sequence *s = w->state;
	struct tpm_answer a;
	enum vt_reply reply = vt_seq_complete(w, s->handle, NULL, 0, &a);

	while (thread_ended(w, reply, &a)) {
		reply = replay(w, &a);
		if (reply == VT_ANSWERED)
			reply = vt_seq_complete(w, s->handle, NULL, 0, &a);
	}
	if (t->status == VT_DONE)
		w->counts.done--; /* its update was; it is done when the digest is right */
	if (reply == VT_ANSWERED) {
		judge(w, t, a.digest);
	} else if (reply == VT_REFUSED && tpm_rc_is_no_sequence(w->conf->family, a.rc)) {
		gone(w, t);
	} else {
		vt_seq_flush(w, s->handle);
		vt_tick_failed(w, t, reply);
		give_up(w, t, "lost: the final digest did not come, nothing will tell");
	}
}

static void add_item(struct sequence *s, struct vt_tick *t, bool unsure)
{
	s->items[s->n++] = (struct item){t->number, unsure};
	s->unsure += unsure;
}

static void tick(struct vt_worker *w, struct vt_tick *t)
{
	struct sequence *s = w->state;
	enum vt_reply reply = VT_ANSWERED;
	struct tpm_answer a = {0};

	if (!s->open)
		reply = vt_seq_start(w, &s->handle);
	if (reply != VT_ANSWERED) {
		vt_tick_failed(w, t, reply);
		return;
	}
	s->open = true;
	reply = update(w, t, &a);
	if (reply == VT_ANSWERED) {
		vt_tick_done(w, t, NULL, 0);
		add_item(s, t, false);
	} else if (reply == VT_UNANSWERED || reply == VT_GARBLED) {
		vt_tick_failed(w, t, VT_UNANSWERED);
		w->counts.lost--;
		t->status = VT_UNSETTLED;
		add_item(s, t, true);
	} else if (reply == VT_REFUSED && tpm_rc_is_no_sequence(w->conf->family, a.rc)) {
		gone(w, t);
		return;
	} else {
		vt_tick_failed(w, t, reply);
		return;
	}
	if (s->n == w->conf->length)
		complete(w, t);
}

/* The run is over: an open sequence is completed, as one more answer to be right or wrong. */
static void end(struct vt_worker *w)
{
	struct sequence *s = w->state;
	struct vt_tick t = {.status = VT_DONE};

	if (!s || !s->open || !s->n)
		return;
	t.number = s->items[s->n - 1].tick;
	complete(w, &t);
	if (t.status == VT_LOST || t.status == VT_WRONG)
		vt_report_event(w->run, t.number, t.status == VT_LOST ? "lost" : "wrong", "%s",
				t.why);
}

static void free_state(struct vt_worker *w)
{
	free(w->state);
	w->state = NULL;
}

const struct vt_mode vt_mode_sequence = {
	.name = "sequence",
	.default_size = 64,
	.begin = begin,
	.tick = tick,
	.end = end,
	.free = free_state,
};
