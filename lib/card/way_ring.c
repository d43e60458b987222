/* SPDX-License-Identifier: MIT */
#include "card/way_ring.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/units.h"

#define NAP_MIN_US 20
#define NAP_MAX_US 500
#define LOOK_AGAIN_US 500000
#define LOOK_AROUND 16 /* each so many looks: also at answers that overtook the first */

static bool still_ours(const struct ring *r)
{
	return atomic_load_explicit(&r->region->state, memory_order_relaxed) != CARD_REGION_CLOSED &&
	       atomic_load_explicit(&r->q->opened, memory_order_acquire) == r->open;
}

int ring_attach(struct ring *r, uint64_t mapped, uint32_t queue, int timeout_ms, struct err *err)
{
	uint64_t until = units_now_us() + (uint64_t)timeout_ms * 1000;
	int rc;

	r->region = r->base;
	while ((rc = card_layout_read(r->region, mapped, &r->layout)) == -EAGAIN &&
	       units_now_us() < until)
		usleep(1000);
	if (rc == -EAGAIN)
		return err_set(err, -ETIMEDOUT, "open %s: no daemon serves it", r->way.text);
	if (rc)
		return err_set(err, rc, "open %s: it is not the memory of a cardshare daemon", r->way.text);
	if (queue >= r->layout.queues)
		return err_set(err, -EINVAL, "open %s: it has queues 0 to %u", r->way.text,
			       r->layout.queues - 1);
	r->queue = queue;
	r->q = card_layout_queue(&r->layout, r->base, queue);
	r->way.depth = r->layout.slots;
	r->waiting = calloc(r->layout.slots, 1);
	r->next_seq = r->first_seq = 1;
	r->nap_us = NAP_MIN_US;
	if (!r->waiting)
		return err_sys(err, -ENOMEM, "open %s", r->way.text);
	do {
		if (getrandom(&r->open, sizeof(r->open), 0) != sizeof(r->open))
			r->open = (uint32_t)units_now_ns();
	} while (!r->open || r->open == atomic_load(&r->q->opened));
	card_waits_set(&r->q->guest_waits, false);
	atomic_store(&r->q->open, r->open);
	for (unsigned tries = 0; !still_ours(r); tries++) {
		if (units_now_us() >= until)
			return err_set(err, -ETIMEDOUT, "open %s: the daemon does not answer", r->way.text);
		if (tries % 64 == 0)
			r->bell(r);
		usleep(20);
	}
	return 0;
}

void ring_detach(struct ring *r)
{
	if (r->q && atomic_load(&r->q->open) == r->open) {
		atomic_store(&r->q->open, 0);
		r->bell(r);
	}
	free(r->waiting);
	r->waiting = NULL;
}

int ring_put(struct card_way *way, const struct card_request *rq, const void *args, const void *data,
	     uint32_t data_len, const void *data2, uint32_t data2_len)
{
	struct ring *r = (struct ring *)way;
	uint32_t at = (uint32_t)((rq->seq - 1) % r->layout.slots);
	struct card_slot *slot = card_layout_submission(r->q, at);

	memcpy((uint8_t *)slot + sizeof(rq->seq), (const uint8_t *)rq + sizeof(rq->seq),
	       sizeof(*rq) - sizeof(rq->seq));
	if (rq->args_len)
		memcpy(slot->args, args, rq->args_len);
	if (data_len)
		memcpy(slot->data, data, data_len);
	if (data2_len)
		memcpy(slot->data + data_len, data2, data2_len);
	r->waiting[at] = 1;
	r->next_seq = rq->seq + 1;
	card_slot_publish(slot, rq->seq);
	return 0;
}

int ring_push(struct card_way *way)
{
	struct ring *r = (struct ring *)way;

	if (!card_waits(&r->q->daemon_waits))
		return 0;
	way->doorbells++;
	r->bell(r);
	return 0;
}

/* 1, 0: not yet. What is no answer at all may be what is read of a device that was unplugged. */
static int take(struct ring *r, uint64_t seq, struct card_reply *reply)
{
	uint32_t at = (uint32_t)((seq - 1) % r->layout.slots);
	const struct card_slot *slot = card_layout_completion(&r->layout, r->q, at);

	if (!r->waiting[at] || !card_slot_ready(slot, seq))
		return 0;
	memcpy(&reply->an, &slot->answer, sizeof(reply->an));
	__asm__ volatile("" ::: "memory"); /* the copy is looked at, not the original */
	reply->seq = seq;
	reply->args = slot->args;
	reply->data = slot->data;
	return reply->an.magic == CARD_ANSWER_MAGIC || still_ours(r) ? 1 : -ENOTCONN;
}

static bool is_cut(const struct ring *r)
{
	struct pollfd p = {.fd = r->lost_fd, .events = POLLIN};

	return r->lost_fd >= 0 && poll(&p, 1, 0) > 0;
}

int ring_get(struct card_way *way, struct card_reply *reply)
{
	struct ring *r = (struct ring *)way;
	int rc;

	if (r->first_seq == r->next_seq)
		return 0;
	rc = take(r, r->first_seq, reply);
	if (rc || ++r->looks % LOOK_AROUND)
		return rc;
	for (uint64_t seq = r->first_seq + 1; seq < r->next_seq && !rc; seq++)
		rc = take(r, seq, reply);
	if (rc || r->looks % 4096)
		return rc;
	return still_ours(r) && !is_cut(r) ? 0 : -ENOTCONN;
}

void ring_drop(struct card_way *way, const struct card_reply *reply)
{
	struct ring *r = (struct ring *)way;

	r->waiting[(reply->seq - 1) % r->layout.slots] = 0;
	while (r->first_seq < r->next_seq && !r->waiting[(r->first_seq - 1) % r->layout.slots])
		r->first_seq++;
	r->nap_us = NAP_MIN_US;
}

static bool any_answer(const struct ring *r)
{
	for (uint64_t seq = r->first_seq; seq < r->next_seq; seq++) {
		uint32_t at = (uint32_t)((seq - 1) % r->layout.slots);

		if (r->waiting[at] &&
		    card_slot_ready(card_layout_completion(&r->layout, r->q, at), seq))
			return true;
	}
	return false;
}

bool ring_arm(struct card_way *way)
{
	struct ring *r = (struct ring *)way;

	r->looks |= LOOK_AROUND - 1; /* the next get looks at all */
	way->wakeups++;
	r->woken = r->cut = false;
	r->blocked_us = 0;
	if (r->vector && r->event_fd >= 0) {
		atomic_store_explicit(&r->q->guest_waits, r->vector, memory_order_relaxed);
		atomic_thread_fence(memory_order_seq_cst);
		return !any_answer(r);
	}
	r->blocked_us = r->nap_us; /* nobody rings: a nap */
	if (r->nap_us < NAP_MAX_US)
		r->nap_us *= 2;
	return true;
}

void ring_block(struct card_way *way, uint64_t timeout_us)
{
	struct ring *r = (struct ring *)way;
	struct pollfd p[2] = {{.fd = r->event_fd, .events = POLLIN}, {.fd = r->lost_fd, .events = POLLIN}};

	if (r->blocked_us) {
		usleep((useconds_t)(timeout_us < r->blocked_us ? timeout_us : r->blocked_us));
		return;
	}
	/* A daemon that died rings nobody: look now and then. */
	if (timeout_us > LOOK_AGAIN_US)
		timeout_us = LOOK_AGAIN_US;
	if (poll(p, 2, (int)((timeout_us + 999) / 1000)) > 0) {
		r->woken = p[0].revents;
		r->cut = p[1].revents;
	}
}

int ring_disarm(struct card_way *way)
{
	struct ring *r = (struct ring *)way;

	if (r->vector && r->event_fd >= 0)
		card_waits_set(&r->q->guest_waits, false);
	if (r->woken)
		r->heard(r);
	/* What was answered before the end is still there. */
	return (r->cut || !still_ours(r)) && !any_answer(r) ? -ENOTCONN : 0;
}
