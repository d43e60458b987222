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

#define PATIENCE_US 125000 /* from one's standing still to the other's; it grows: hosts are busy */
#define PATIENCE_MAX_US 4000000
#define FIRST_TIMES 4	   /* so much more from the question to the first one's: nobody stands still meanwhile */
#define AGAIN_US 150000	   /* a guest that is still at its last attempt does not see the question */
/* Linux tries to freeze its processes for pm_freeze_timeout, 20 s unless told otherwise. */
#define LATE_US 20000000
#define PAUSE_US 40000	   /* for what was in flight to be answered */
#define SKEW_US 5000	   /* that far apart they are asked again, */
#define APART_MAX 3	   /* so many times: guests run on meanwhile, but what they ask of each other is slow */
#define STEP_US 50000	   /* who is ahead of the other waits no longer */
#define TICK_MS 20	   /* how long a wait lasts in which nothing happens */

struct xen_suspend {
	xc_interface *xch;
	struct xs_handle *xs;
	xenevtchn_handle *events;
	uint32_t domid[XEN_SUSPEND_MAX];
	evtchn_port_t theirs[XEN_SUSPEND_MAX], ours[XEN_SUSPEND_MAX]; /* the ends of the channel by which Xen tells */
	unsigned n;
	bool marked;
	uint64_t when_us[XEN_SUSPEND_MAX]; /* 0: it runs */
	uint64_t since_us[XEN_SUSPEND_MAX], ran_from_us[XEN_SUSPEND_MAX]; /* xen_still's; when all ran on, 0: they did not */
	uint64_t begun_us, until_us;
	/* of the attempt under way */
	uint64_t asked_us; /* as when_us, by the real clock; 0: none yet */
	unsigned asked[XEN_SUSPEND_MAX], touched[XEN_SUSPEND_MAX]; /* written by us; written, or emptied by the guest */
	unsigned seen[XEN_SUSPEND_MAX]; /* of the latter */
	bool taken[XEN_SUSPEND_MAX], held[XEN_SUSPEND_MAX];
	uint64_t held_us; /* since when; 0: nobody was */
	bool gone_on;	  /* those who have taken it up are held no more */
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

static void take_watches(struct xen_suspend *s)
{
	char **event, path[80];

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

/* The time is taken first: what delays it is taken for skew. An event may be from before, so that Xen is asked. */
static void take_event(struct xen_suspend *s)
{
	xenevtchn_port_or_error_t port = xenevtchn_pending(s->events);
	uint64_t now = units_realtime_us();

	for (unsigned i = 0; i < s->n; i++)
		if (port >= 0 && (evtchn_port_t)port == s->ours[i]) {
			xenevtchn_unmask(s->events, s->ours[i]);
			if (!s->when_us[i] && stands_still(s, i))
				s->when_us[i] = now;
		}
}

/* Until something happens: one stands still, or somebody writes to a question. */
static void wait_ms(struct xen_suspend *s, int ms)
{
	struct pollfd p[] = {{xenevtchn_fd(s->events), POLLIN, 0}, {xs_fileno(s->xs), POLLIN, 0}};

	if (poll(p, 2, ms) <= 0)
		return;
	if (p[0].revents)
		take_event(s);
	if (p[1].revents)
		take_watches(s);
}

static unsigned how_many_still(const struct xen_suspend *s)
{
	unsigned still = 0;

	for (unsigned i = 0; i < s->n; i++)
		still += s->when_us[i] != 0;
	return still;
}

static void tell(const struct xen_suspend *s, unsigned i, const char *what, uint64_t when_us)
{
	log_trace("domain %u %s %.1f ms after it was asked", s->domid[i], what, (double)(when_us - s->asked_us) / 1e3);
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
		wait_ms(s, TICK_MS);
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
	bool any = false;

	if (s->held[i])
		xc_domain_unpause(s->xch, s->domid[i]);
	s->held[i] = false;
	for (unsigned k = 0; k < s->n; k++)
		any = any || s->held[k];
	s->held_us = any ? s->held_us : 0;
}

static void let_all_go(struct xen_suspend *s)
{
	for (unsigned i = 0; i < s->n; i++)
		let_go(s, i);
}

/* At @now_us, which hold() comes after. */
static void note_taken(struct xen_suspend *s, unsigned i, uint64_t now_us)
{
	s->taken[i] = true;
	if (!s->since_us[i])
		s->since_us[i] = now_us;
	else if (s->ran_from_us[i])
		s->since_us[i] += now_us - s->ran_from_us[i];
	s->ran_from_us[i] = 0;
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
	bool again = s->asked_us != 0;

	s->gone_on = false;
	s->asked_us = units_realtime_us();
	for (unsigned i = 0; i < s->n; i++) {
		if (again && !s->since_us[i]) /* it was not seen to take the last one up, and may have */
			s->since_us[i] = s->begun_us;
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
		wait_ms(s, TICK_MS);
		if (s->when_us[first] || taken_up(s, first)) {
			hold(s, first);
			break;
		}
	}
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
			uint64_t now = units_now_us();

			s->seen[i] = s->touched[i];
			hold(s, i);
			if (taken_up(s, i)) {
				note_taken(s, i, now);
				tell(s, i, "has taken it up", units_realtime_us());
			} else {
				let_go(s, i);
			}
		}
	}
	if (!s->gone_on && (all_have_taken(s) || (s->held_us && units_now_us() - s->held_us > STEP_US))) {
		let_all_go(s);
		s->gone_on = true;
	}
}

static bool attempt(struct xen_suspend *s, uint64_t patience_us)
{
	uint64_t since = units_now_us();
	unsigned still = how_many_still(s), now;

	while (still < s->n && !late(s) && units_now_us() - since < (still ? patience_us : FIRST_TIMES * patience_us)) {
		wait_ms(s, TICK_MS);
		now = how_many_still(s);
		if (!now)
			keep_in_step(s);
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

static void await_latecomer(struct xen_suspend *s, unsigned i)
{
	uint64_t until = units_now_us() + LATE_US;

	while (!s->when_us[i] && units_now_us() < until)
		wait_ms(s, TICK_MS);
}

/* Who has taken the question up may stand still long after it was taken back, and nobody would wake it. */
static void resume_latecomer(struct xen_suspend *s, unsigned i)
{
	bool still[XEN_SUSPEND_MAX] = {false};

	await_latecomer(s, i);
	still[i] = s->when_us[i] != 0;
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
	uint64_t now;

	begin_attempt(s);
	rc = ask_all(s, s->n, err);
	if (rc)
		take_question_back(s);
	second = run_on(s, &none, rc ? NULL : err);
	now = units_now_us();
	for (unsigned i = 0; i < s->n; i++)
		s->ran_from_us[i] = s->since_us[i] ? now : 0;
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
	bool ok = true;
	char path[80];

	for (unsigned i = 0; ok && i < s->n; i++)
		ok = xs_watch(s->xs, question_path(s, i, path), "question");
	return ok ? 0 : err_sys(err, -errno, "watch xenstore");
}

/* ---- Xen's word that a domain stands still: by an event channel of its own (XEN_DOMCTL_subscribe) ---- */

/* A domain's end of a channel cannot be closed by others: where it is kept, so that whoever suspends it next has it. */
static char *port_path(const struct xen_suspend *s, unsigned i, char path[80])
{
	snprintf(path, 80, "/local/domain/%u/util-vm/suspend-event-channel", s->domid[i]);
	return path;
}

static bool bind_channel(struct xen_suspend *s, unsigned i, evtchn_port_t theirs)
{
	xenevtchn_port_or_error_t ours = xenevtchn_bind_interdomain(s->events, s->domid[i], theirs);

	if (ours < 0)
		return false;
	s->theirs[i] = theirs;
	s->ours[i] = (evtchn_port_t)ours;
	return true;
}

static int open_channel(struct xen_suspend *s, unsigned i, struct err *err)
{
	char path[80], *text = xs_read(s->xs, XBT_NULL, port_path(s, i, path), NULL), number[16];
	bool bound = text && bind_channel(s, i, (evtchn_port_t)strtoul(text, NULL, 10));
	int theirs;

	free(text);
	if (bound)
		return 0;
	theirs = xc_evtchn_alloc_unbound(s->xch, s->domid[i], DOMID_SELF);
	if (theirs < 0 || !bind_channel(s, i, (evtchn_port_t)theirs))
		return err_sys(err, -errno, "make an event channel to domain %u", s->domid[i]);
	snprintf(number, sizeof(number), "%d", theirs);
	if (!xs_write(s->xs, XBT_NULL, path, number, (unsigned)strlen(number)))
		return err_sys(err, -errno, "note the event channel to domain %u", s->domid[i]);
	return 0;
}

static int open_channels(struct xen_suspend *s, struct err *err)
{
	int rc = 0;

	s->events = xenevtchn_open(NULL, 0);
	if (!s->events)
		return err_sys(err, -errno, "open event channels");
	for (unsigned i = 0; !rc && i < s->n; i++)
		rc = open_channel(s, i, err);
	return rc;
}

static int subscribe(struct xen_suspend *s, struct err *err)
{
	for (unsigned i = 0; i < s->n; i++)
		if (xc_domain_subscribe_for_suspend(s->xch, s->domid[i], s->theirs[i]))
			return xen_error(err, -EIO, "have Xen tell when domain %u is suspended", s->domid[i]);
	return 0;
}

/* ---- what one that is killed leaves behind ---- */

/* It is there from before the question until nothing of it is open: a question that is gone may have been taken up. */
static char *mark_path(const struct xen_suspend *s, unsigned i, char path[80])
{
	snprintf(path, 80, "/local/domain/%u/util-vm/suspending", s->domid[i]);
	return path;
}

static void remove_marks(struct xen_suspend *s)
{
	char path[80];

	for (unsigned i = 0; i < s->n; i++)
		xs_rm(s->xs, XBT_NULL, mark_path(s, i, path));
	s->marked = false;
}

static bool is_marked(struct xen_suspend *s)
{
	char path[80], *text = xs_read(s->xs, XBT_NULL, mark_path(s, 0, path), NULL);
	bool yes = text != NULL;

	free(text);
	return yes;
}

/* As the guest takes it up, in a transaction: one of the two has it. True: it is taken back, so that the guest will not suspend. */
static bool take_back_for_sure(struct xen_suspend *s)
{
	char path[80], *text;
	bool ours, done;

	do {
		xs_transaction_t t = xs_transaction_start(s->xs);

		text = t ? xs_read(s->xs, t, question_path(s, 0, path), NULL) : NULL;
		ours = text && !strcmp(text, "suspend");
		free(text);
		if (ours)
			xs_write(s->xs, t, path, "", 0);
		done = !t || xs_transaction_end(s->xs, t, !ours);
	} while (!done && errno == EAGAIN);
	return ours && done;
}

/* Xen tells only of what comes after the subscription. Where nobody has paused it (hold()), to unpause it does nothing. */
static void await_still(struct xen_suspend *s)
{
	if (subscribe(s, NULL))
		return;
	xc_domain_unpause(s->xch, s->domid[0]);
	if (!stands_still(s, 0))
		await_latecomer(s, 0);
	xc_domain_subscribe_for_suspend(s->xch, s->domid[0], 0);
}

void xen_suspend_forget(xc_interface *xch, uint32_t domid)
{
	struct xen_suspend *s;

	xc_domain_subscribe_for_suspend(xch, domid, 0);
	if (xen_suspend_open(&domid, 1, &s, NULL))
		return;
	if (!take_back_for_sure(s) && is_marked(s) && !stands_still(s, 0)) {
		log_verbose("domain %u was asked to suspend: until it stands still", domid);
		await_still(s);
	}
	remove_marks(s);
	xen_suspend_close(s);
}

/* ---- for others ---- */

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
	if (!rc)
		rc = open_channels(s, err);
	if (rc) {
		xen_suspend_close(s);
		return rc;
	}
	*out = s;
	return 0;
}

int xen_suspend_mark(struct xen_suspend *s, struct err *err)
{
	char path[80];

	for (unsigned i = 0; !s->marked && i < s->n; i++)
		if (!xs_write(s->xs, XBT_NULL, mark_path(s, i, path), "", 0))
			return err_sys(err, -errno, "suspend domain %u: write to xenstore", s->domid[i]);
	s->marked = true;
	return 0;
}

int xen_suspend(struct xen_suspend *s, struct xen_still *still, int timeout_ms, struct err *err)
{
	int rc = xen_suspend_mark(s, err);

	if (rc)
		return rc;
	memset(s->when_us, 0, sizeof(s->when_us));
	memset(s->since_us, 0, sizeof(s->since_us));
	memset(s->ran_from_us, 0, sizeof(s->ran_from_us));
	s->asked_us = 0;
	s->begun_us = units_now_us();
	s->until_us = s->begun_us + (uint64_t)timeout_ms * 1000;
	for (unsigned i = 0; i < s->n; i++)
		wait_ms(s, 0); /* a channel, as a watch, tells once when it is made */
	rc = subscribe(s, err);
	if (!rc)
		rc = suspend_all(s, err);
	for (unsigned i = 0; i < s->n; i++)
		xc_domain_subscribe_for_suspend(s->xch, s->domid[i], 0);
	for (unsigned i = 0; i < s->n; i++)
		still[i] = (struct xen_still){s->when_us[i], s->since_us[i]};
	return rc;
}

void xen_suspend_close(struct xen_suspend *s)
{
	if (!s)
		return;
	if (s->marked)
		remove_marks(s);
	if (s->events)
		xenevtchn_close(s->events);
	if (s->xs)
		xs_close(s->xs);
	if (s->xch)
		xc_interface_close(s->xch);
	free(s);
}
#endif
