/* SPDX-License-Identifier: MIT */
/*
 * Requests in shared memory. The guest can write any byte of it at any time: a header is copied
 * once and only the copy is looked at, positions are counted here, and nothing that the
 * guest wrote is ever an address, an index or a length until the copy was checked.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/units.h"
#include "cardd/inside.h"
#include "cardd/serve_ring.h"

/* After this the compiler cannot read the shared original again in place of the copy. */
#define COPIED() __asm__ volatile("" ::: "memory")

static struct card_slot *next_slot(const struct ring_link *r)
{
	return card_layout_submission(r->q, r->next_place);
}

static bool ring_peek(struct cardd_link *l)
{
	const struct ring_link *r = (const struct ring_link *)l;

	return r->live && l->inflight < l->depth && card_slot_ready(next_slot(r), r->next_seq);
}

static bool ring_take(struct cardd_link *l, struct cardd_job *job)
{
	struct ring_link *r = (struct ring_link *)l;
	struct card_slot *slot = next_slot(r);

	if (!ring_peek(l))
		return false;
	memcpy(&job->rq, &slot->request, sizeof(job->rq));
	COPIED();
	job->rq.seq = r->next_seq;
	if (job->rq.args_len <= CARD_ARGS_MAX)
		memcpy(job->args, slot->args, job->rq.args_len);
	COPIED();
	job->place = r->next_place;
	job->shared_in = slot->data;
	job->shared_out = card_layout_completion(r->layout, r->q, r->next_place)->data;
	r->next_seq++;
	if (++r->next_place == r->layout->slots)
		r->next_place = 0;
	return true;
}

static void ring_answer(struct cardd_link *l, struct cardd_job *job)
{
	struct ring_link *r = (struct ring_link *)l;
	struct card_slot *slot = card_layout_completion(r->layout, r->q, job->place);
	size_t skip = sizeof(job->an.seq);

	memcpy((uint8_t *)slot + skip, (const uint8_t *)&job->an + skip, sizeof(job->an) - skip);
	memcpy(slot->args, job->out_args, job->an.args_len);
	if (job->an.data_len && !job->direct)
		memcpy(slot->data, job->call.out, job->an.data_len);
	card_slot_publish(slot, job->an.seq);
	link_dirty(l);
}

static void ring_flush(struct cardd_link *l)
{
	struct ring_link *r = (struct ring_link *)l;
	uint32_t waits = card_waits(&r->q->guest_waits);
	uint64_t one = 1;

	if (!waits || waits > r->bells)
		return;
	l->vm->kicks++;
	/* A bell that rang 2^64 times and was never heard does not take one more: EAGAIN. */
	if (write(r->bell[waits - 1], &one, sizeof(one)) < 0)
		return;
}

static bool ring_rest(struct cardd_link *l)
{
	struct ring_link *r = (struct ring_link *)l;

	card_waits_set(&r->q->daemon_waits, true);
	if (!ring_peek(l))
		return true;
	card_waits_set(&r->q->daemon_waits, false);
	return false;
}

static void ring_free(struct cardd_link *l)
{
	struct ring_link *r = (struct ring_link *)l;

	r->gone(r);
}

static const struct cardd_link_ops ring_ops = {
	.name = "ring",
	.peek = ring_peek,
	.take = ring_take,
	.answer = ring_answer,
	.flush = ring_flush,
	.rest = ring_rest,
	.free = ring_free,
};

void ring_init(struct ring_link *r, struct cardd_vm *vm, const struct card_layout *layout,
	       void *base, uint32_t queue)
{
	r->layout = layout;
	r->q = card_layout_queue(layout, base, queue);
	r->queue = queue;
	/* Whoever had it under the daemon's last run must open it again. */
	r->opened = atomic_load(&r->q->open);
	r->live = false;
	link_init(&r->l, &ring_ops, vm);
	r->l.depth = layout->slots;
	card_waits_set(&r->q->daemon_waits, true);
	atomic_store(&r->q->opened, 0);
}

/* The next user, or none: what the last one left goes first. */
static void reopen(struct ring_link *r, uint32_t open)
{
	struct cardd *d = r->l.vm->d;
	uint64_t begun = units_now_ns();

	desk_reset(&r->l);
	memset(card_layout_submission(r->q, 0), 0,
	       2 * (size_t)r->layout->slots * sizeof(struct card_slot));
	r->next_seq = 1;
	r->next_place = 0;
	r->opened = open;
	r->live = open != 0;
	atomic_store_explicit(&r->q->opened, open, memory_order_release);
	link_dirty(&r->l);
	fair_charge(&d->fair, &r->l.vm->fair, (int64_t)(units_now_ns() - begun));
}

bool ring_reclaim(struct ring_link *r)
{
	struct cardd *d = r->l.vm->d;
	uint64_t begun = units_now_ns();

	if (atomic_load_explicit(&r->q->opened, memory_order_relaxed) == (r->live ? r->opened : 0))
		return false;
	desk_reset(&r->l);
	r->live = false;
	r->opened = atomic_load(&r->q->open);
	card_waits_set(&r->q->daemon_waits, true);
	atomic_store(&r->q->opened, 0);
	fair_charge(&d->fair, &r->l.vm->fair, (int64_t)(units_now_ns() - begun));
	return true;
}

bool ring_rung(struct ring_link *r)
{
	bool moved = ring_reclaim(r);
	uint32_t open = atomic_load_explicit(&r->q->open, memory_order_acquire);
	bool new_user = open != r->opened;

	if (moved)
		return true;
	if (new_user)
		reopen(r, open);
	if (!ring_peek(&r->l))
		return new_user;
	card_waits_set(&r->q->daemon_waits, false);
	link_wake(&r->l);
	return true;
}
