/* SPDX-License-Identifier: MIT */
/*
 * The loop: look at the rings that are awake, serve whose turn it is, tell who waits; look at
 * descriptors now and then; sleep when nobody asked for a while.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/log.h"
#include "base/notify.h"
#include "base/units.h"
#include "cardd/inside.h"
#include "cardd/loop.h"

#define TURN_REQUESTS 64
#define TURN_NS 20000u	 /* so long is served before rings are looked at again: who asks seldom waits for one request */
#define EPOLL_NS 100000u /* so long may descriptors wait while rings are busy: a look is a system call */
#define TICK_NS 500000000u

int watch_add(struct cardd *d, struct watch *w, int fd, uint32_t events,
	      void (*ready)(struct watch *, uint32_t), void *owner)
{
	struct epoll_event ev = {.events = events, .data.ptr = w};

	*w = (struct watch){.fd = fd, .events = events, .ready = ready, .owner = owner};
	if (epoll_ctl(d->epoll, EPOLL_CTL_ADD, fd, &ev)) {
		w->fd = -1;
		return -errno;
	}
	return 0;
}

void watch_change(struct cardd *d, struct watch *w, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = w};

	if (w->events != events && w->fd >= 0 && !epoll_ctl(d->epoll, EPOLL_CTL_MOD, w->fd, &ev))
		w->events = events;
}

void watch_remove(struct cardd *d, struct watch *w)
{
	if (w->fd < 0 || !w->ready)
		return;
	epoll_ctl(d->epoll, EPOLL_CTL_DEL, w->fd, NULL);
	w->fd = -1;
	/* An event of it may already be in this turn's list. */
	for (int i = 0; i < d->event_count; i++)
		if (d->events[i].data.ptr == w)
			d->events[i].data.ptr = NULL;
}

struct cardd_job *job_get(struct cardd *d)
{
	struct cardd_job *job = d->free_jobs;

	if (job) {
		d->free_jobs = job->next;
		return job;
	}
	job = aligned_alloc(64, (sizeof(*job) + 63) & ~(size_t)63);
	if (job)
		memset(job, 0, sizeof(*job));
	return job;
}

void job_put(struct cardd *d, struct cardd_job *job)
{
	job->next = d->free_jobs;
	d->free_jobs = job;
}

void link_init(struct cardd_link *l, const struct cardd_link_ops *ops, struct cardd_vm *vm)
{
	l->ops = ops;
	l->vm = vm;
	l->depth = vm->conf->depth;
	l->epoch = ++vm->d->last_epoch;
	l->next = vm->links;
	vm->links = l;
	vm->link_count++;
	vm->links_ever++;
}

static int make_hot(struct cardd_link *l)
{
	struct cardd *d = l->vm->d;

	if (d->hot_count == d->hot_room) {
		uint32_t room = d->hot_room ? 2 * d->hot_room : 64;
		struct cardd_link **hot = realloc(d->hot, room * sizeof(struct cardd_link *));

		if (!hot)
			return -ENOMEM;
		d->hot = hot;
		d->hot_room = room;
	}
	l->state = LINK_HOT;
	l->hot_at = d->hot_count;
	d->hot[d->hot_count++] = l;
	d->hot_streams += l->ops->polled_by_epoll;
	return 0;
}

static void leave_hot(struct cardd_link *l)
{
	struct cardd *d = l->vm->d;
	struct cardd_link *last = d->hot[--d->hot_count];

	d->hot[l->hot_at] = last;
	last->hot_at = l->hot_at;
	d->hot_streams -= l->ops->polled_by_epoll;
	l->state = LINK_COLD;
}

/* At the end of its VM's line. */
static void link_pending(struct cardd_link *l)
{
	struct cardd_vm *vm = l->vm;

	l->state = LINK_PENDING;
	l->seen_ns = vm->d->now_ns;
	l->next_pending = NULL;
	if (vm->pending_last)
		vm->pending_last->next_pending = l;
	else
		vm->pending_first = l;
	vm->pending_last = l;
}

static void make_pending(struct cardd_link *l)
{
	struct cardd_vm *vm = l->vm;

	if (l->state == LINK_HOT)
		leave_hot(l);
	link_pending(l);
	if (!vm->parked_until_ns && !vm->blocked && fair_enter(&vm->d->fair, &vm->fair))
		vm->blocked = true; /* no memory: with the next answer of a card, or the next tick */
}

static void unlink_pending(struct cardd_link *l)
{
	struct cardd_vm *vm = l->vm;
	struct cardd_link **at = &vm->pending_first, *before = NULL;

	for (; *at != l; at = &(*at)->next_pending)
		before = *at;
	*at = l->next_pending;
	if (vm->pending_last == l)
		vm->pending_last = before;
	l->state = LINK_COLD;
}

static void leave_pending(struct cardd_link *l)
{
	unlink_pending(l);
	if (!l->vm->pending_first)
		fair_leave(&l->vm->d->fair, &l->vm->fair);
}

/* From pending to hot, for as long as one spins. */
static void keep_hot(struct cardd_link *l)
{
	l->hot_until_ns = l->vm->d->now_ns + l->vm->d->spin_ns;
	if (l->state == LINK_COLD && make_hot(l) && l->ops->rest)
		(void)l->ops->rest(l);
}

void link_wake(struct cardd_link *l)
{
	if (l->closed || l->state == LINK_PENDING)
		return;
	if (l->ops->peek(l))
		make_pending(l);
	else
		keep_hot(l);
}

void link_dirty(struct cardd_link *l)
{
	if (l->dirty)
		return;
	l->dirty = true;
	l->next_dirty = l->vm->d->dirty;
	l->vm->d->dirty = l;
}

void link_close(struct cardd_link *l)
{
	struct cardd *d = l->vm->d;
	struct cardd_link **at;

	if (l->closed)
		return;
	desk_reset(l);
	l->closed = true;
	if (l->state == LINK_HOT)
		leave_hot(l);
	else if (l->state == LINK_PENDING)
		leave_pending(l);
	for (at = &l->vm->links; *at != l; at = &(*at)->next)
		;
	*at = l->next;
	l->vm->link_count--;
	l->next = d->graves;
	d->graves = l;
}

static void flush_dirty(struct cardd *d)
{
	while (d->dirty) {
		struct cardd_link *l = d->dirty;

		d->dirty = l->next_dirty;
		l->dirty = false;
		if (!l->closed)
			l->ops->flush(l);
	}
}

static void bury(struct cardd *d)
{
	for (struct cardd_link **at = &d->graves; *at;) {
		struct cardd_link *l = *at;

		if (l->inflight) {
			at = &l->next;
			continue;
		}
		*at = l->next;
		l->ops->free(l);
	}
}

void loop_bury_all(struct cardd *d)
{
	while (d->graves) {
		struct cardd_link *l = d->graves;

		d->graves = l->next;
		l->ops->free(l);
	}
}

static void look_at_hot(struct cardd *d)
{
	for (uint32_t i = d->hot_count; i-- > 0;) {
		struct cardd_link *l = d->hot[i];

		if (l->ops->peek(l)) {
			make_pending(l);
		} else if (d->now_ns >= l->hot_until_ns) {
			leave_hot(l);
			if (l->ops->rest && !l->ops->rest(l))
				make_pending(l);
		}
	}
}

static bool has_room(const struct cardd_vm *vm)
{
	for (uint32_t i = 0; i < vm->card_count; i++) {
		struct cardd_card *c = vm->cards[i];

		if (!c->failed && c->card->driver->room && !c->card->driver->room(c->card))
			return false;
	}
	return true;
}

/* Over its rate: out until the bucket holds something. */
static bool park(struct cardd *d, struct cardd_vm *vm)
{
	uint64_t ops = fair_bucket_wait(&vm->ops, d->now_ns),
		 bytes = fair_bucket_wait(&vm->bytes, d->now_ns), wait = ops > bytes ? ops : bytes;

	if (!wait)
		return false;
	vm->parked_until_ns = d->now_ns + wait;
	vm->limited++;
	d->parked++;
	fair_leave(&d->fair, &vm->fair);
	return true;
}

static uint64_t unpark(struct cardd *d)
{
	uint64_t next = UINT64_MAX;

	for (struct cardd_vm *vm = d->parked ? d->vms : NULL; vm; vm = vm->next) {
		if (!vm->parked_until_ns)
			continue;
		if (vm->parked_until_ns > d->now_ns) {
			if (vm->parked_until_ns < next)
				next = vm->parked_until_ns;
			continue;
		}
		vm->parked_until_ns = 0;
		d->parked--;
		if (vm->pending_first && !vm->blocked)
			(void)fair_enter(&d->fair, &vm->fair);
	}
	return next;
}

static void serve_one(struct cardd *d, struct cardd_vm *vm)
{
	struct cardd_link *l = vm->pending_first;

	desk_serve(d, l);
	if (l->closed)
		return;
	if (l->ops->peek(l)) { /* the VM's other links come first */
		unlink_pending(l);
		link_pending(l);
	} else {
		leave_pending(l);
		keep_hot(l);
	}
}

static void serve_turn(struct cardd *d)
{
	uint64_t until = d->now_ns + TURN_NS;

	for (unsigned n = 0; n < TURN_REQUESTS && d->now_ns < until; n++) {
		struct cardd_vm *vm = (struct cardd_vm *)fair_next(&d->fair);

		if (!vm)
			break;
		if ((vm->ops.rate || vm->bytes.rate) && park(d, vm))
			continue;
		if (!has_room(vm)) {
			vm->blocked = true;
			fair_leave(&d->fair, &vm->fair);
			continue;
		}
		fair_begin(&d->fair, &vm->fair);
		serve_one(d, vm);
	}
}

static void tick(struct cardd *d)
{
	static uint64_t watchdog_ns;

	d->next_tick_ns = d->now_ns + TICK_NS;
	for (struct cardd_vm *vm = d->vms; vm; vm = vm->next) {
		ivshmem_tick(vm);
		if (vm->blocked && has_room(vm)) {
			vm->blocked = false;
			if (vm->pending_first)
				(void)fair_return(&d->fair, &vm->fair);
		}
	}
	audit_flush(d);
	cards_tick(d);
	if (d->now_ns - watchdog_ns >= 1000000000u) {
		watchdog_ns = d->now_ns;
		notify("WATCHDOG=1");
	}
}

static int wait_ms(struct cardd *d, uint64_t next_park)
{
	uint64_t until = d->next_tick_ns < next_park ? d->next_tick_ns : next_park;

	if (d->hot_count || d->fair.count)
		return 0;
	return until <= d->now_ns ? 0 : (int)((until - d->now_ns + 999999) / 1000000);
}

static int look_at_descriptors(struct cardd *d, int ms)
{
	int n = epoll_wait(d->epoll, d->events, CARDD_EVENTS, ms);

	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	d->event_count = n;
	if (ms)
		d->sleeps++;
	d->now_ns = units_now_ns();
	for (int i = 0; i < n; i++) {
		struct watch *w = d->events[i].data.ptr;

		if (w)
			w->ready(w, d->events[i].events);
	}
	d->event_count = 0;
	return 0;
}

static void on_wake(struct watch *w, uint32_t events)
{
	uint64_t n;

	(void)events;
	if (read(w->fd, &n, sizeof(n)) < 0)
		return;
}

/* What can be done now; how long it may sleep after it, ms. */
static int turn(struct cardd *d)
{
	d->turns++;
	look_at_hot(d);
	serve_turn(d);
	flush_dirty(d);
	if (d->graves)
		bury(d);
	if (d->now_ns >= d->next_tick_ns)
		tick(d);
	if (d->reload)
		cardd_take_reload(d);
	return wait_ms(d, unpark(d));
}

void loop_turn(struct cardd *d)
{
	d->now_ns = units_now_ns();
	(void)turn(d);
	(void)look_at_descriptors(d, 0);
}

int loop_run(struct cardd *d, struct err *err)
{
	uint64_t looked_ns = 0;
	int rc = watch_add(d, &d->wake_watch, d->wake, EPOLLIN, on_wake, d);

	if (rc)
		return err_sys(err, rc, "serve: epoll");
	d->now_ns = units_now_ns();
	while (!d->stop) {
		int ms = turn(d);

		if (ms || d->hot_streams || d->now_ns - looked_ns >= EPOLL_NS) {
			rc = look_at_descriptors(d, ms);
			if (rc)
				return err_sys(err, rc, "serve: epoll_wait");
			looked_ns = d->now_ns;
		} else {
			d->now_ns = units_now_ns();
		}
	}
	flush_dirty(d);
	return 0;
}
