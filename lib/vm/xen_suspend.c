/* SPDX-License-Identifier: MIT */
/* Xen: domains that are asked to suspend together, and asked again where they could not. */
#ifdef HAVE_XEN
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xenstore.h>

#include "base/log.h"
#include "base/units.h"
#include "vm/xen.h"

#define PATIENCE_US 500000 /* from one's standing still, or the question, to the other's; it grows: hosts are busy */
#define PATIENCE_MAX_US 4000000
#define AGAIN_US 150000	   /* a guest that is still at its last attempt does not see the question */
/* Linux tries to freeze its processes for pm_freeze_timeout, 20 s unless told otherwise. */
#define LATE_US 20000000
#define PAUSE_US 40000	   /* for what was in flight to be answered */
#define SKEW_US 5000	   /* that far apart they are asked again, */
#define APART_MAX 3	   /* so many times: guests run on meanwhile, but what they ask of each other is slow */
#define STEP_US 50000	   /* who is ahead of the other waits no longer */
/* Xenstore's watch tells late of a domain's end: when it was is asked of Xen. Each look takes time from the guests. */
#define LOOK_US 2000
#define QUIET_US 8000	   /* none stands still so soon after it has gone on */
#define ASK_MS 20	   /* between two looks into xenstore */

struct xen_suspend {
	xc_interface *xch;
	struct xs_handle *xs;
	uint32_t domid[XEN_SUSPEND_MAX];
	unsigned n;
	uint64_t when_us[XEN_SUSPEND_MAX]; /* 0: it runs */
	uint64_t until_us;
	/* of the attempt under way */
	uint64_t asked_us; /* as when_us, by the real clock */
	unsigned asked[XEN_SUSPEND_MAX], touched[XEN_SUSPEND_MAX]; /* written by us; written, or emptied by the guest */
	unsigned seen[XEN_SUSPEND_MAX]; /* of the latter */
	bool taken[XEN_SUSPEND_MAX], held[XEN_SUSPEND_MAX];
	uint64_t held_us; /* since when; 0: nobody was */
	bool gone_on;	  /* those who have taken it up are held no more */
	uint64_t look_us; /* when the next look is due */
};

bool xen_suspended(libxl_ctx *ctx, uint32_t domid)
{
	libxl_dominfo info;
	bool yes;

	libxl_dominfo_init(&info);
	yes = !libxl_domain_info(ctx, &info, domid) && info.shutdown && !info.dying &&
	      info.shutdown_reason == LIBXL_SHUTDOWN_REASON_SUSPEND;
	libxl_dominfo_dispose(&info);
	return yes;
}

static bool late(const struct xen_suspend *s)
{
	return units_now_us() > s->until_us;
}

/* ---- the question: xenstore's control/shutdown, which the guest empties when it takes it up ---- */

static char *question_path(const struct xen_suspend *s, unsigned i, char path[80])
{
	snprintf(path, 80, "/local/domain/%u/control/shutdown", s->domid[i]);
	return path;
}

static int write_node(struct xen_suspend *s, unsigned i, const char *text, struct err *err)
{
	char path[80];

	s->asked[i]++;
	if (xs_write(s->xs, XBT_NULL, question_path(s, i, path), text, (unsigned)strlen(text)))
		return 0;
	return err_sys(err, -errno, "suspend domain %u: write to xenstore", s->domid[i]);
}

static int ask_all(struct xen_suspend *s, unsigned but, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; !rc && i < s->n; i++)
		if (i != but)
			rc = write_node(s, i, "suspend", err);
	return rc;
}

static bool taken_up(const struct xen_suspend *s, unsigned i)
{
	unsigned size = 0;
	char path[80], *text;

	text = xs_read(s->xs, XBT_NULL, question_path(s, i, path), &size);
	free(text);
	return text && !size;
}

/* ---- waiting ---- */

static void wait_for_watch(struct xen_suspend *s, int ms)
{
	struct pollfd p = {xs_fileno(s->xs), POLLIN, 0};
	char **event, path[80];

	poll(&p, 1, ms);
	while ((event = xs_check_watch(s->xs))) {
		for (unsigned i = 0; i < s->n; i++)
			if (!strcmp(event[XS_WATCH_PATH], question_path(s, i, path)))
				s->touched[i]++;
		free(event);
	}
}

/* As xen_suspended(), without what libxl does around the one question: it takes processor time from the guests. */
static bool stands_still(const struct xen_suspend *s, unsigned i)
{
	xc_domaininfo_t info;

	return xc_domain_getinfolist(s->xch, s->domid[i], 1, &info) == 1 && info.domain == s->domid[i] &&
	       (info.flags & (XEN_DOMINF_shutdown | XEN_DOMINF_dying)) == XEN_DOMINF_shutdown &&
	       (info.flags >> XEN_DOMINF_shutdownshift & XEN_DOMINF_shutdownmask) == SHUTDOWN_suspend;
}

static void tell(const struct xen_suspend *s, unsigned i, const char *what, uint64_t when_us)
{
	log_trace("domain %u %s %.1f ms after it was asked", s->domid[i], what, (double)(when_us - s->asked_us) / 1e3);
}

/* How many stand still. Nothing else is done here: what delays the second look is taken for skew. */
static unsigned look(struct xen_suspend *s)
{
	unsigned still = 0;

	for (unsigned i = 0; i < s->n; i++) {
		if (!s->when_us[i] && stands_still(s, i))
			s->when_us[i] = units_realtime_us();
		still += s->when_us[i] != 0;
	}
	return still;
}

/* It would come up again when they run on: where it is not known that the guest has emptied it. */
static void take_question_back(struct xen_suspend *s)
{
	for (unsigned i = 0; i < s->n; i++)
		if (!s->taken[i])
			write_node(s, i, "", NULL);
}

static void let_run(struct xen_suspend *s, uint64_t us)
{
	uint64_t until = units_now_us() + us;

	while (units_now_us() < until)
		wait_for_watch(s, ASK_MS);
}

/* ---- an attempt ---- */

/* Until all are as far; who comes later than that is not. */
static void hold(struct xen_suspend *s, unsigned i)
{
	if (s->n == 1 || s->gone_on)
		return;
	s->held[i] = s->held[i] || !xc_domain_pause(s->xch, s->domid[i]);
	s->held_us = s->held_us ? s->held_us : units_now_us();
}

static void let_go(struct xen_suspend *s, unsigned i)
{
	if (s->held[i])
		xc_domain_unpause(s->xch, s->domid[i]);
	s->held[i] = false;
}

static void let_all_go(struct xen_suspend *s)
{
	for (unsigned i = 0; i < s->n; i++)
		let_go(s, i);
}

static bool all_have_taken(const struct xen_suspend *s)
{
	bool all = true;

	for (unsigned i = 0; i < s->n; i++)
		all = all && s->taken[i];
	return all;
}

static void begin_attempt(struct xen_suspend *s)
{
	s->held_us = 0;
	s->gone_on = false;
	s->look_us = units_now_us() + ASK_MS * 1000;
	s->asked_us = units_realtime_us();
	for (unsigned i = 0; i < s->n; i++) {
		s->asked[i] = s->touched[i] = s->seen[i] = 0;
		s->taken[i] = false;
	}
}

/*
 * The one that failed may still be at its last attempt: the others are asked when it has taken up the
 * new question, so that all stop together.
 */
static int ask(struct xen_suspend *s, unsigned first, bool again, struct err *err)
{
	uint64_t asked = 0;
	int rc = 0;

	begin_attempt(s);
	while (!rc && again && !late(s)) {
		if (units_now_us() - asked > AGAIN_US) {
			rc = write_node(s, first, "suspend", err);
			asked = units_now_us();
		}
		wait_for_watch(s, ASK_MS);
		if (taken_up(s, first) || stands_still(s, first)) {
			hold(s, first);
			break;
		}
	}
	if (again) /* one may stand still already */
		s->look_us = 0;
	return rc ? rc : ask_all(s, again ? first : s->n, err);
}

/*
 * Xenstore's answers to the guests are as far apart as they are long, in dom0 of one busy processor some milliseconds;
 * from an answer to its standing still is not much longer. Who seems to have it is paused at once, before it is read
 * whether it has, and waits for the other's: so both are as far when they go on.
 */
static void keep_in_step(struct xen_suspend *s)
{
	for (unsigned i = 0; i < s->n; i++) {
		/* As often as it was written by us says nothing. */
		if (s->touched[i] != s->seen[i] && s->touched[i] > s->asked[i] && !s->taken[i]) {
			s->seen[i] = s->touched[i];
			hold(s, i);
			s->taken[i] = taken_up(s, i);
			if (s->taken[i])
				tell(s, i, "has taken it up", units_realtime_us());
			else
				let_go(s, i);
		}
	}
	if (!s->gone_on && (all_have_taken(s) || (s->held_us && units_now_us() - s->held_us > STEP_US))) {
		let_all_go(s);
		s->gone_on = true;
		s->look_us = units_now_us() + QUIET_US;
	}
}

/* Until a look is due, or something happens in xenstore: nothing of interest does where all have taken it up. */
static void wait_for_look(struct xen_suspend *s)
{
	uint64_t now = units_now_us(), wait = now < s->look_us ? s->look_us - now : 0;

	if (all_have_taken(s))
		usleep((useconds_t)wait);
	else
		wait_for_watch(s, (int)((wait + 999) / 1000));
}

static bool attempt(struct xen_suspend *s, uint64_t patience_us)
{
	uint64_t since = units_now_us();
	unsigned still = 0, now;
	bool close; /* one may stand still at any moment; a guest need not say that it has taken it up */

	while (still < s->n && units_now_us() - since < patience_us) {
		wait_for_look(s);
		if (!still)
			keep_in_step(s);
		if (units_now_us() < s->look_us)
			continue;
		now = look(s);
		close = now || s->gone_on || units_now_us() - since > STEP_US;
		s->look_us = units_now_us() + (close ? LOOK_US : ASK_MS * 1000);
		if (now != still) { /* each its own time */
			let_all_go(s);
			since = units_now_us();
		}
		still = now;
	}
	let_all_go(s);
	for (unsigned i = 0; i < s->n; i++)
		if (s->when_us[i])
			tell(s, i, "stood still", s->when_us[i]);
	return still == s->n;
}

/*
 * Those that stand still run on, at the same time: as by libxl_domain_resume(), but that first asks xenstore for a device
 * model. Where something failed the rest is done none the less.
 */
static int resume(struct xen_suspend *s, const bool which[XEN_SUSPEND_MAX], struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; i < s->n; i++)
		if (which[i] && xc_domain_resume(s->xch, s->domid[i], 1))
			rc = xen_error(rc ? NULL : err, -EIO, "resume domain %u", s->domid[i]);
	for (unsigned i = 0; i < s->n; i++)
		if (which[i] && !xs_resume_domain(s->xs, s->domid[i]))
			rc = rc ? rc : err_sys(err, -errno, "tell xenstore that domain %u runs on", s->domid[i]);
	return rc;
}

/* Let those run that stand still. *@failed: one that does not. */
static int run_on(struct xen_suspend *s, unsigned *failed, struct err *err)
{
	bool still[XEN_SUSPEND_MAX];

	for (unsigned i = 0; i < s->n; i++) {
		still[i] = s->when_us[i] != 0;
		*failed = still[i] ? *failed : i;
		s->when_us[i] = 0;
	}
	return resume(s, still, err);
}

/* Who has taken the question up may stand still long after it was taken back, and nobody would wake it. */
static void resume_latecomer(struct xen_suspend *s, unsigned i)
{
	uint64_t until = units_now_us() + LATE_US;
	bool still[XEN_SUSPEND_MAX] = {false};

	while (!still[i] && units_now_us() < until) {
		wait_for_watch(s, ASK_MS);
		still[i] = stands_still(s, i);
	}
	if (still[i] && resume(s, still, NULL))
		log_error("domain %u stands still, and could not be resumed", s->domid[i]);
}

static uint64_t skew_us(const struct xen_suspend *s)
{
	uint64_t first = s->when_us[0], last = s->when_us[0];

	for (unsigned i = 1; i < s->n; i++) {
		first = s->when_us[i] < first ? s->when_us[i] : first;
		last = s->when_us[i] > last ? s->when_us[i] : last;
	}
	return last - first;
}

/* Asked while all stand still: they find the question when they run on. */
static int ask_once_more(struct xen_suspend *s, struct err *err)
{
	unsigned none = 0;
	int rc, second;

	begin_attempt(s);
	rc = ask_all(s, s->n, err);
	if (rc)
		take_question_back(s);
	second = run_on(s, &none, rc ? NULL : err);
	if (!rc && second)
		take_question_back(s);
	return rc ? rc : second;
}

static int suspend_all(struct xen_suspend *s, struct err *err)
{
	unsigned failed = 0, apart = 0;
	uint64_t patience_us = PATIENCE_US;
	int rc = ask(s, failed, false, err);

	for (unsigned tries = 1;; tries++) {
		if (rc)
			let_all_go(s);
		if (!rc && attempt(s, patience_us)) {
			if (skew_us(s) <= SKEW_US || apart++ == APART_MAX || late(s)) {
				take_question_back(s);
				return 0;
			}
			log_verbose("they stood still %.1f ms apart: again", (double)skew_us(s) / 1e3);
			rc = ask_once_more(s, err);
			if (rc)
				return rc;
			continue;
		}
		patience_us += patience_us / 2;
		if (patience_us > PATIENCE_MAX_US)
			patience_us = PATIENCE_MAX_US;
		take_question_back(s);
		if (run_on(s, &failed, rc ? NULL : err) || rc)
			return rc ? rc : err ? err->code : -EIO;
		log_verbose("domain %u could not suspend while the other stood still: again", s->domid[failed]);
		if (late(s)) {
			resume_latecomer(s, failed);
			return err_set(err, -ETIMEDOUT, "suspend domain %u: it did not, asked %u times (does "
				       "it wait for what never comes?)", s->domid[failed], tries);
		}
		let_run(s, PAUSE_US);
		rc = ask(s, failed, true, err);
	}
}

static int watch(const struct xen_suspend *s, struct err *err)
{
	bool ok = xs_watch(s->xs, "@releaseDomain", "end");
	char path[80];

	for (unsigned i = 0; ok && i < s->n; i++)
		ok = xs_watch(s->xs, question_path(s, i, path), "question");
	return ok ? 0 : err_sys(err, -errno, "watch xenstore");
}

int xen_suspend_open(const uint32_t *domid, unsigned n, struct xen_suspend **out, struct err *err)
{
	struct xen_suspend *s = calloc(1, sizeof(*s));
	int rc = 0;

	if (!s)
		return err_set(err, -ENOMEM, "suspend domains: out of memory");
	memcpy(s->domid, domid, n * sizeof(*domid));
	s->n = n;
	s->xch = xen_control(err);
	s->xs = xs_open(0);
	if (!s->xch)
		rc = -ENODEV;
	else if (!s->xs)
		rc = err_sys(err, -errno, "open xenstore");
	if (!rc)
		rc = watch(s, err);
	if (rc) {
		xen_suspend_close(s);
		return rc;
	}
	*out = s;
	return 0;
}

int xen_suspend(struct xen_suspend *s, uint64_t *when_us, int timeout_ms, struct err *err)
{
	int rc;

	memset(s->when_us, 0, sizeof(s->when_us));
	s->until_us = units_now_us() + (uint64_t)timeout_ms * 1000;
	wait_for_watch(s, 0); /* a watch goes off once when it is set */
	rc = suspend_all(s, err);
	memcpy(when_us, s->when_us, s->n * sizeof(*when_us));
	return rc;
}

void xen_suspend_close(struct xen_suspend *s)
{
	if (!s)
		return;
	if (s->xs)
		xs_close(s->xs);
	if (s->xch)
		xc_interface_close(s->xch);
	free(s);
}
#endif
