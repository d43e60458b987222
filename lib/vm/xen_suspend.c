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
#define PAUSE_US 40000	   /* for what was in flight to be answered */
#define LOOK_MS 20	   /* Xen tells of a domain's end by a watch; this is for what a watch may miss */

struct suspend {
	libxl_ctx *ctx;
	struct xs_handle *xs;
	const uint32_t *domid;
	uint64_t *when_us;
	unsigned n;
	uint64_t until_us;
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

/* ---- the question: xenstore's control/shutdown, which the guest empties when it takes it up ---- */

static int write_node(const struct suspend *s, unsigned i, const char *text, struct err *err)
{
	char path[80];

	snprintf(path, sizeof(path), "/local/domain/%u/control/shutdown", s->domid[i]);
	if (xs_write(s->xs, XBT_NULL, path, text, (unsigned)strlen(text)))
		return 0;
	return err_sys(err, -errno, "suspend domain %u: write %s", s->domid[i], path);
}

static bool taken_up(const struct suspend *s, unsigned i)
{
	unsigned size = 0;
	char path[80], *text;

	snprintf(path, sizeof(path), "/local/domain/%u/control/shutdown", s->domid[i]);
	text = xs_read(s->xs, XBT_NULL, path, &size);
	free(text);
	return text && !size;
}

/* ---- waiting ---- */

static void wait_for_watch(const struct suspend *s)
{
	struct pollfd p = {xs_fileno(s->xs), POLLIN, 0};
	char **event;

	poll(&p, 1, LOOK_MS);
	while ((event = xs_check_watch(s->xs)))
		free(event);
}

/* How many stand still. The question is taken back at once: it would come up again when they run on. */
static unsigned look(const struct suspend *s)
{
	unsigned still = 0;

	for (unsigned i = 0; i < s->n; i++) {
		if (!s->when_us[i] && xen_suspended(s->ctx, s->domid[i])) {
			s->when_us[i] = units_realtime_us();
			write_node(s, i, "", NULL);
		}
		still += s->when_us[i] != 0;
	}
	return still;
}

static bool late(const struct suspend *s)
{
	return units_now_us() > s->until_us;
}

static void let_run(const struct suspend *s, uint64_t us)
{
	uint64_t until = units_now_us() + us;

	while (units_now_us() < until)
		wait_for_watch(s);
}

/* ---- an attempt ---- */

/*
 * The one that failed may still be at its last attempt: the others are asked when it has taken up the
 * new question, so that all stop together.
 */
static int ask(const struct suspend *s, unsigned first, bool again, struct err *err)
{
	uint64_t asked = 0;
	int rc = 0;

	while (!rc && again && !late(s)) {
		if (units_now_us() - asked > AGAIN_US) {
			rc = write_node(s, first, "suspend", err);
			asked = units_now_us();
		}
		wait_for_watch(s);
		if (taken_up(s, first) || xen_suspended(s->ctx, s->domid[first]))
			break;
	}
	for (unsigned i = 0; !rc && i < s->n; i++)
		if (!again || i != first)
			rc = write_node(s, i, "suspend", err);
	return rc;
}

static bool attempt(const struct suspend *s, uint64_t patience_us)
{
	uint64_t since = units_now_us();
	unsigned still = 0, now;

	while (units_now_us() - since < patience_us) {
		wait_for_watch(s);
		now = look(s);
		if (now == s->n)
			return true;
		if (now != still) /* each its own time */
			since = units_now_us();
		still = now;
	}
	return false;
}

/* Let those run that stand still. *@failed: one that does not. */
static int take_back(const struct suspend *s, unsigned *failed, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; i < s->n; i++) {
		if (!s->when_us[i]) {
			*failed = i;
			write_node(s, i, "", NULL);
			continue;
		}
		s->when_us[i] = 0;
		if (libxl_domain_resume(s->ctx, s->domid[i], 1, NULL))
			rc = xen_error(err, -EIO, "resume domain %u", s->domid[i]);
	}
	return rc;
}

static int suspend_all(const struct suspend *s, struct err *err)
{
	uint64_t patience_us = PATIENCE_US;
	unsigned failed = 0;
	int rc;

	for (unsigned tries = 0;; tries++) {
		rc = ask(s, failed, tries > 0, err);
		if (!rc && attempt(s, patience_us))
			return 0;
		patience_us += patience_us / 2;
		if (patience_us > PATIENCE_MAX_US)
			patience_us = PATIENCE_MAX_US;
		if (take_back(s, &failed, rc ? NULL : err) || rc)
			return rc ? rc : err ? err->code : -EIO;
		log_verbose("domain %u could not suspend while the other stood still: again", s->domid[failed]);
		if (late(s))
			return err_set(err, -ETIMEDOUT, "suspend domain %u: it did not, asked %u times (does "
				       "it wait for what never comes?)", s->domid[failed], tries + 1);
		let_run(s, PAUSE_US);
	}
}

int xen_suspend(libxl_ctx *ctx, const uint32_t *domid, uint64_t *when_us, unsigned n, int timeout_ms,
		struct err *err)
{
	struct suspend s = {ctx, xs_open(0), domid, when_us, n,
			    units_now_us() + (uint64_t)timeout_ms * 1000};
	int rc;

	if (!s.xs)
		return err_sys(err, -errno, "open xenstore");
	memset(when_us, 0, n * sizeof(*when_us));
	if (!xs_watch(s.xs, "@releaseDomain", "end"))
		rc = err_sys(err, -errno, "watch xenstore");
	else
		rc = suspend_all(&s, err);
	xs_close(s.xs);
	return rc;
}
#endif
