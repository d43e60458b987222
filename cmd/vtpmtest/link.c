/* SPDX-License-Identifier: MIT */
/* One connection to the TPM: calls with a deadline, second tries, reconnection. */
#include "vtpmtest.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/units.h"

#define NS_PER_MS 1000000u
#define SLICE_MS 100
#define PAUSE_FIRST_NS (5 * NS_PER_MS)
#define PAUSE_MAX_NS (500 * NS_PER_MS)
#define CONNECT_MS_MAX 1000
#define GRACE_NS (1000 * NS_PER_MS) /* of a call in flight when the run is stopped */

/* The tick's own deadline, or the end of the grace once the run is being stopped. */
static uint64_t deadline(const struct vt_worker *w)
{
	uint64_t stop;

	if (!atomic_load_explicit(&w->run->stopping, memory_order_relaxed))
		return w->deadline_ns;
	stop = atomic_load(&w->run->stop_ns) + GRACE_NS;
	return stop < w->deadline_ns ? stop : w->deadline_ns;
}

static int ms_left(const struct vt_worker *w, int max)
{
	uint64_t now = units_now_ns(), end = deadline(w);
	uint64_t ms = end > now ? (end - now + NS_PER_MS - 1) / NS_PER_MS : 0;

	return ms < (uint64_t)max ? (int)ms : max;
}

bool vt_time_is_left(const struct vt_worker *w)
{
	return units_now_ns() < deadline(w);
}

bool vt_sleep_until(struct vt_run *run, uint64_t when_ns)
{
	struct pollfd p = {.fd = run->stop_fd, .events = POLLIN};
	uint64_t now;

	while (!atomic_load_explicit(&run->stopping, memory_order_relaxed)) {
		struct timespec ts;

		now = units_now_ns();
		if (now >= when_ns)
			return true;
		ts.tv_sec = (time_t)((when_ns - now) / 1000000000u);
		ts.tv_nsec = (long)((when_ns - now) % 1000000000u);
		ppoll(&p, 1, &ts, NULL);
	}
	return false;
}

/* Before a second try; also in the grace after a stop, when vt_sleep_until does not sleep. */
static bool back_off(struct vt_worker *w, uint64_t *pause_ns)
{
	uint64_t now = units_now_ns(), until = now + *pause_ns;

	if (until > deadline(w))
		until = deadline(w);
	if (until <= now)
		return false;
	if (!vt_sleep_until(w->run, until))
		nanosleep(&(struct timespec){.tv_nsec = 10 * NS_PER_MS}, NULL);
	if (*pause_ns < PAUSE_MAX_NS)
		*pause_ns *= 2;
	return vt_time_is_left(w);
}

void vt_disconnect(struct vt_worker *w)
{
	tpm_close(w->tpm);
	w->tpm = NULL;
}

/*
 * Without a pause between answer and next command an answer too many comes too late to be
 * seen before it; in mode hash its digest gives it away, so that the look can be spared.
 */
static bool must_look(const struct vt_worker *w)
{
	return w->conf->period_ns > 0 || w->conf->mode != &vt_mode_hash;
}

static bool connected(struct vt_worker *w)
{
	struct err err = {0};

	if (w->tpm && tpm_out_of_step(w->tpm, must_look(w))) {
		w->counts.out_of_step++;
		vt_report_event(w->run, w->tick, "out-of-step",
				"duplicate: an answer came that nobody asked for; connection renewed");
		vt_disconnect(w);
	}
	if (w->tpm)
		return true;
	if (tpm_open(w->conf->target, ms_left(w, CONNECT_MS_MAX), &w->tpm, &err)) {
		snprintf(w->why, sizeof(w->why), "%.*s", (int)sizeof(w->why) - 1, err.text);
		return false;
	}
	w->counts.reconnects++;
	log_verbose("tick %llu: connected again", (unsigned long long)w->tick);
	return true;
}

static enum vt_reply broken(struct vt_worker *w, const char *verb, int rc, enum vt_reply reply)
{
	snprintf(w->why, sizeof(w->why), "%s %s: %s", verb, w->conf->target, strerror(-rc));
	if (!tpm_survives(w->tpm, rc))
		vt_disconnect(w);
	return reply;
}

/* Since the tick began; a stop cuts it short. */
static uint64_t waited_ns(const struct vt_worker *w)
{
	return units_now_ns() - (w->deadline_ns - w->conf->timeout_ns);
}

static enum vt_reply receive(struct vt_worker *w, const struct tpm_request *rq,
			     struct tpm_answer *a)
{
	char code[64], took[32];
	int ms = w->fresh ? SLICE_MS : ms_left(w, SLICE_MS);
	int rc = -EAGAIN;

	w->fresh = false;
	while (ms > 0) {
		rc = tpm_receive(w->tpm, w->rsp, ms);
		if (rc != -EAGAIN)
			break;
		ms = ms_left(w, SLICE_MS);
	}
	if (rc == -EAGAIN) {
		w->counts.timed_out++;
		snprintf(w->why, sizeof(w->why), "no answer in %s",
			 units_format_duration(waited_ns(w) / 1000, took, sizeof(took)));
		if (!tpm_abandon(w->tpm))
			vt_disconnect(w);
		return VT_UNANSWERED;
	}
	if (rc < 0)
		return broken(w, "receive from", rc, VT_UNANSWERED);
	rc = tpm_parse(rq, w->rsp, (size_t)rc, a);
	if (!rc)
		return VT_ANSWERED;
	if (rc == -EREMOTEIO) {
		snprintf(w->why, sizeof(w->why), "the TPM refuses: %s",
			 tpm_rc_text(rq->family, a->rc, code, sizeof(code)));
		return VT_REFUSED;
	}
	snprintf(w->why, sizeof(w->why), "not an answer to what was asked: out of step?");
	vt_disconnect(w);
	return VT_GARBLED;
}

static void run_meanwhile(struct vt_worker *w)
{
	void (*meanwhile)(struct vt_worker *) = w->meanwhile;

	w->meanwhile = NULL;
	if (meanwhile)
		meanwhile(w);
}

static enum vt_reply attempt(struct vt_worker *w, const struct tpm_request *rq,
			     struct tpm_answer *a)
{
	int n = tpm_build(rq, w->cmd), rc;

	a->rc = 0;
	if (n < 0) {
		snprintf(w->why, sizeof(w->why), "no such command in this TPM family");
		return VT_GARBLED;
	}
	if (!connected(w))
		return VT_UNSENT;
	rc = tpm_send(w->tpm, w->cmd, (size_t)n);
	/* ETIME and EIO of a device: the kernel gave up waiting, the TPM perhaps did not. */
	if (rc == -ETIME || rc == -EIO)
		return broken(w, "send to", rc, VT_UNANSWERED);
	if (rc)
		return broken(w, "send to", rc, VT_UNSENT);
	run_meanwhile(w);
	return receive(w, rq, a);
}

/* A TPM that was started anew in the middle (a swtpm) needs its Startup again. */
static void start_up(struct vt_worker *w)
{
	struct tpm_request rq = {.family = w->conf->family, .op = TPM_OP_STARTUP};
	struct tpm_answer a;

	if (attempt(w, &rq, &a) == VT_ANSWERED)
		vt_report_event(w->run, w->tick, "startup", "the TPM had to be started up");
}

static bool may_repeat(struct vt_worker *w, const struct tpm_request *rq,
		       const struct tpm_answer *a, enum vt_reply reply, bool repeatable)
{
	switch (reply) {
	case VT_REFUSED:
		if (w->conf->startup && rq->op != TPM_OP_STARTUP &&
		    tpm_rc_needs_startup(rq->family, a->rc)) {
			start_up(w);
			return true;
		}
		return tpm_rc_is_transient(rq->family, a->rc);
	case VT_UNSENT:
		return true;
	case VT_UNANSWERED:
		return repeatable;
	default:
		return false;
	}
}

enum vt_reply vt_call(struct vt_worker *w, const struct tpm_request *rq, struct tpm_answer *a,
		      bool repeatable)
{
	uint64_t pause_ns = PAUSE_FIRST_NS;
	enum vt_reply reply = VT_UNSENT; /* of a tick whose time earlier calls have used up */

	while (w->fresh || vt_time_is_left(w)) {
		reply = attempt(w, rq, a);
		if (reply == VT_ANSWERED)
			break;
		log_verbose("tick %llu: %s", (unsigned long long)w->tick, w->why);
		w->fresh = false;
		if (!may_repeat(w, rq, a, reply, repeatable) || !back_off(w, &pause_ns))
			break;
		w->counts.retries++;
	}
	run_meanwhile(w);
	return reply;
}
