/* SPDX-License-Identifier: MIT */
/* How a tick ends: its status, its counter, its words. */
#include "vtpmtest.h"

#include <stdarg.h>
#include <string.h>

#include "base/units.h"

static void keep_digest(struct vt_tick *t, const uint8_t *digest, size_t n)
{
	t->digest_size = n;
	if (n)
		memcpy(t->digest, digest, n);
}

void vt_tick_done(struct vt_worker *w, struct vt_tick *t, const uint8_t *digest, size_t n)
{
	t->answered_ns = units_now_ns();
	t->status = VT_DONE;
	w->counts.done++;
	keep_digest(t, digest, n);
}

void vt_tick_failed(struct vt_worker *w, struct vt_tick *t, enum vt_reply reply)
{
	t->answered_ns = units_now_ns();
	snprintf(t->why, sizeof(t->why), "%s", w->why);
	if (reply == VT_GARBLED) {
		w->counts.out_of_step++;
		w->counts.wrong++;
		t->status = VT_WRONG;
		return;
	}
	w->counts.lost++;
	t->status = VT_LOST;
}

void vt_tick_wrong(struct vt_worker *w, struct vt_tick *t, const uint8_t *digest,
		   const char *fmt, ...)
{
	va_list ap;

	t->answered_ns = units_now_ns();
	t->status = VT_WRONG;
	w->counts.wrong++;
	keep_digest(t, digest, digest ? w->conf->alg->size : 0);
	va_start(ap, fmt);
	vsnprintf(t->why, sizeof(t->why), fmt, ap);
	va_end(ap);
}
