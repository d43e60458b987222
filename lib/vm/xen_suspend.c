/* SPDX-License-Identifier: MIT */
/* Xen: domains that are asked to suspend together, and asked again where they could not. */
#ifdef HAVE_XEN
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
#define APART_MAX 2	   /* so many times: guests run on meanwhile, but what they ask of each other is slow */
#define STEP_US 50000	   /* who is ahead of the other waits no longer */
#define LOOK_MS 2	   /* xenstore's watch tells late of a domain's end: when it was is asked of Xen */
#define ASK_MS 20	   /* between two looks into xenstore */

struct suspend {
	libxl_ctx *ctx;
	xc_interface *xch;
	struct xs_handle *xs;
	const uint32_t *domid;
	uint64_t *when_us;
	unsigned n;
	uint64_t until_us;
	/* of the attempt under way */
	bool touched[XEN_SUSPEND_MAX]; /* its question was written or emptied */
	bool taken[XEN_SUSPEND_MAX], held[XEN_SUSPEND_MAX];
	uint64_t held_us; /* since when; 0: nobody was */
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

static bool late(const struct suspend *s)
{
	return units_now_us() > s->until_us;
}

/* ---- the question: xenstore's control/shutdown, which the guest empties when it takes it up ---- */

static char *question_path(const struct suspend *s, unsigned i, char path[80])
{
	snprintf(path, 80, "/local/domain/%u/control/shutdown", s->domid[i]);
	return path;
}

static bool put_node(const struct suspend *s, xs_transaction_t t, unsigned i, const char *text)
{
	char path[80];

	return xs_write(s->xs, t, question_path(s, i, path), text, (unsigned)strlen(text));
}

static int write_node(const struct suspend *s, unsigned i, const char *text, struct err *err)
{
	if (put_node(s, XBT_NULL, i, text))
		return 0;
	return err_sys(err, -errno, "suspend domain %u: write to xenstore", s->domid[i]);
}

/* All but @but, in one transaction, so that their watches go off together. */
static int ask_all(const struct suspend *s, unsigned but, struct err *err)
{
	bool ok, done;
	int why;

	do {
		xs_transaction_t t = xs_transaction_start(s->xs);

		ok = t != XBT_NULL;
		for (unsigned i = 0; ok && i < s->n; i++)
			ok = i == but || put_node(s, t, i, "suspend");
		why = errno;
		done = t != XBT_NULL && xs_transaction_end(s->xs, t, !ok);
		why = ok ? errno : why;
	} while (ok && !done && why == EAGAIN && !late(s));
	return ok && done ? 0 : err_sys(err, -why, "suspend %u domains: write to xenstore", s->n);
}

static bool taken_up(const struct suspend *s, unsigned i)
{
	unsigned size = 0;
	char path[80], *text;

	text = xs_read(s->xs, XBT_NULL, question_path(s, i, path), &size);
	free(text);
	return text && !size;
}

/* ---- waiting ---- */

static void wait_for_watch(struct suspend *s, int ms)
{
	struct pollfd p = {xs_fileno(s->xs), POLLIN, 0};
	char **event, path[80];

	poll(&p, 1, ms);
	while ((event = xs_check_watch(s->xs))) {
		for (unsigned i = 0; i < s->n; i++)
			if (!strcmp(event[XS_WATCH_PATH], question_path(s, i, path)))
				s->touched[i] = true;
		free(event);
	}
}

/* As xen_suspended(), without what libxl does around the one question: it takes processor time from the guests. */
static bool stands_still(const struct suspend *s, unsigned i)
{
	xc_domaininfo_t info;

	return xc_domain_getinfolist(s->xch, s->domid[i], 1, &info) == 1 && info.domain == s->domid[i] &&
	       (info.flags & (XEN_DOMINF_shutdown | XEN_DOMINF_dying)) == XEN_DOMINF_shutdown &&
	       (info.flags >> XEN_DOMINF_shutdownshift & XEN_DOMINF_shutdownmask) == SHUTDOWN_suspend;
}

/* How many stand still. Nothing else is done here: what delays the second look is taken for skew. */
static unsigned look(const struct suspend *s)
{
	unsigned still = 0;

	for (unsigned i = 0; i < s->n; i++) {
		if (!s->when_us[i] && stands_still(s, i))
			s->when_us[i] = units_realtime_us();
		still += s->when_us[i] != 0;
	}
	return still;
}

/* It would come up again when they run on. */
static void take_question_back(const struct suspend *s)
{
	for (unsigned i = 0; i < s->n; i++)
		write_node(s, i, "", NULL);
}

static void let_run(struct suspend *s, uint64_t us)
{
	uint64_t until = units_now_us() + us;

	while (units_now_us() < until)
		wait_for_watch(s, ASK_MS);
}

/* ---- an attempt ---- */

static void hold(struct suspend *s, unsigned i)
{
	s->held[i] = !xc_domain_pause(s->xch, s->domid[i]);
	s->held_us = units_now_us();
}

static void let_go(struct suspend *s)
{
	for (unsigned i = 0; i < s->n; i++) {
		if (s->held[i])
			xc_domain_unpause(s->xch, s->domid[i]);
		s->held[i] = false;
	}
}

static void begin_attempt(struct suspend *s)
{
	s->held_us = 0;
	for (unsigned i = 0; i < s->n; i++)
		s->touched[i] = s->taken[i] = false;
}

/*
 * The one that failed may still be at its last attempt: the others are asked when it has taken up the
 * new question, so that all stop together.
 */
static int ask(struct suspend *s, unsigned first, bool again, struct err *err)
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
	return rc ? rc : ask_all(s, again ? first : s->n, err);
}

/*
 * Xenstore's answers to the guests are as far apart as they are long, in dom0 of one busy processor some milliseconds;
 * from an answer to its standing still is not much longer. Who has it first waits for the other's.
 */
static void keep_in_step(struct suspend *s)
{
	unsigned taken = 0;

	for (unsigned i = 0; i < s->n; i++) {
		if (s->touched[i] && !s->taken[i])
			s->taken[i] = taken_up(s, i);
		s->touched[i] = false;
		taken += s->taken[i];
	}
	if (taken == s->n || (s->held_us && units_now_us() - s->held_us > STEP_US)) {
		let_go(s);
		return;
	}
	for (unsigned i = 0; i < s->n; i++)
		if (s->taken[i] && !s->held_us)
			hold(s, i);
}

static bool attempt(struct suspend *s, uint64_t patience_us)
{
	uint64_t since = units_now_us();
	unsigned still = 0, now;

	while (still < s->n && units_now_us() - since < patience_us) {
		wait_for_watch(s, LOOK_MS);
		if (!still && s->n > 1)
			keep_in_step(s);
		now = look(s);
		if (now != still) { /* each its own time */
			let_go(s);
			since = units_now_us();
		}
		still = now;
	}
	let_go(s);
	return still == s->n;
}

/* Let those run that stand still. *@failed: one that does not. */
static int take_back(const struct suspend *s, unsigned *failed, struct err *err)
{
	int rc = 0;

	take_question_back(s);
	for (unsigned i = 0; i < s->n; i++) {
		if (!s->when_us[i]) {
			*failed = i;
			continue;
		}
		s->when_us[i] = 0;
		if (libxl_domain_resume(s->ctx, s->domid[i], 1, NULL))
			rc = xen_error(err, -EIO, "resume domain %u", s->domid[i]);
	}
	return rc;
}

/* Who has taken the question up may stand still long after it was taken back, and nobody would wake it. */
static void resume_latecomer(struct suspend *s, unsigned i)
{
	uint64_t until = units_now_us() + LATE_US;
	bool still = false;

	while (!still && units_now_us() < until) {
		wait_for_watch(s, ASK_MS);
		still = stands_still(s, i);
	}
	if (still && libxl_domain_resume(s->ctx, s->domid[i], 1, NULL))
		log_error("domain %u stands still, and could not be resumed", s->domid[i]);
}

static uint64_t skew_us(const struct suspend *s)
{
	uint64_t first = s->when_us[0], last = s->when_us[0];

	for (unsigned i = 1; i < s->n; i++) {
		first = s->when_us[i] < first ? s->when_us[i] : first;
		last = s->when_us[i] > last ? s->when_us[i] : last;
	}
	return last - first;
}

static int suspend_all(struct suspend *s, struct err *err)
{
	unsigned failed = 0, apart = 0;
	uint64_t patience_us = PATIENCE_US;
	int rc;

	for (unsigned tries = 0;; tries++) {
		rc = ask(s, failed, tries > 0, err);
		if (rc)
			let_go(s);
		if (!rc && attempt(s, patience_us)) {
			if (skew_us(s) <= SKEW_US || apart++ == APART_MAX || late(s)) {
				take_question_back(s);
				return 0;
			}
			log_verbose("they stood still %.1f ms apart: again", (double)skew_us(s) / 1e3);
			rc = take_back(s, &failed, err);
			if (rc)
				return rc;
			continue;
		}
		patience_us += patience_us / 2;
		if (patience_us > PATIENCE_MAX_US)
			patience_us = PATIENCE_MAX_US;
		if (take_back(s, &failed, rc ? NULL : err) || rc)
			return rc ? rc : err ? err->code : -EIO;
		log_verbose("domain %u could not suspend while the other stood still: again", s->domid[failed]);
		if (late(s)) {
			resume_latecomer(s, failed);
			return err_set(err, -ETIMEDOUT, "suspend domain %u: it did not, asked %u times (does "
				       "it wait for what never comes?)", s->domid[failed], tries + 1);
		}
		let_run(s, PAUSE_US);
	}
}

static int watch(const struct suspend *s, struct err *err)
{
	bool ok = xs_watch(s->xs, "@releaseDomain", "end");
	char path[80];

	for (unsigned i = 0; ok && i < s->n; i++)
		ok = xs_watch(s->xs, question_path(s, i, path), "question");
	return ok ? 0 : err_sys(err, -errno, "watch xenstore");
}

int xen_suspend(libxl_ctx *ctx, const uint32_t *domid, uint64_t *when_us, unsigned n, int timeout_ms,
		struct err *err)
{
	struct suspend s = {.ctx = ctx, .xch = xen_control(err), .xs = xs_open(0), .domid = domid, .when_us = when_us,
			    .n = n, .until_us = units_now_us() + (uint64_t)timeout_ms * 1000};
	int rc;

	if (!s.xch || !s.xs) {
		rc = !s.xch ? -ENODEV : err_sys(err, -errno, "open xenstore");
		goto close;
	}
	memset(when_us, 0, n * sizeof(*when_us));
	rc = watch(&s, err);
	if (!rc)
		rc = suspend_all(&s, err);
close:
	if (s.xs)
		xs_close(s.xs);
	if (s.xch)
		xc_interface_close(s.xch);
	return rc;
}
#endif
