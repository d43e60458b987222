/* SPDX-License-Identifier: MIT */
/*
 * A QEMU that leaves. It runs its own pre-copy into our socket; the wire parks it by not
 * reading. Its own downtime-limit is kept at 1 ms, so that it does not stop its guest by
 * itself unless it has nothing to send (0 would make it stop after the first pass:
 * migration_iteration_run in QEMU's migration/migration.c).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/units.h"
#include "drivers.h"
#include "net/addr.h"
#include "pair/message.h"
#include "qemu.h"

#define NO_LIMIT_BYTES 0x7fffffffffffull /* per second */
#define TCG_UNIT (256u << 10)
#define TIGHT_AHEAD (16 << 10)
#define HOLD_MS 1
#define FINISH_MS 2000000 /* QEMU's largest downtime-limit */
#define CANCEL_MS 10000

struct source {
	struct qemu q;
	bool was_running;
	uint64_t old_bandwidth, old_downtime; /* restored by resume */
	bool old_return_path;
	uint64_t stop_id, stopped_us;
	int theirs; /* QEMU's end of its stream; -1: none */
	void (*on_stop)(void *ctx);
	void *on_stop_ctx;
};

static void on_event(void *ctx, const char *name, struct json_object *data, uint64_t when_us)
{
	struct source *s = ctx;

	(void)data;
	if (!strcmp(name, "STOP")) {
		s->stopped_us = when_us;
		if (s->on_stop)
			s->on_stop(s->on_stop_ctx);
	} else if (!strcmp(name, "RESUME")) {
		s->stopped_us = 0;
	}
}

static bool old_capability(struct qemu *q, const char *name)
{
	struct json_object *r = NULL;
	bool on = false;

	if (qmp_call(q->qmp, QEMU_QMP_MS, &r, NULL, "query-migrate-capabilities", NULL))
		return false;
	for (size_t i = 0; i < json_object_array_length(r); i++) {
		struct json_object *c = json_object_array_get_idx(r, i);

		if (qmp_str(c, "capability") && !strcmp(qmp_str(c, "capability"), name))
			on = qmp_bool(c, "state", false);
	}
	json_object_put(r);
	return on;
}

/* What resume must restore: from the journal if it was us who changed it, else as it is now. */
static int remember(struct source *s, struct json_object *where, struct err *err)
{
	struct json_object *saved, *r = NULL;
	int rc;

	if (json_object_object_get_ex(where, "saved", &saved)) {
		s->was_running = qmp_bool(saved, "running", true);
		s->old_bandwidth = message_number(saved, "max-bandwidth");
		s->old_downtime = message_number(saved, "downtime-limit");
		s->old_return_path = qmp_bool(saved, "return-path", false);
		return 0;
	}
	rc = qmp_call(s->q.qmp, QEMU_QMP_MS, &r, err, "query-migrate-parameters", NULL);
	if (rc)
		return rc;
	s->old_bandwidth = qmp_u64(r, "max-bandwidth", 0);
	s->old_downtime = qmp_u64(r, "downtime-limit", 300);
	json_object_put(r);
	s->old_return_path = old_capability(&s->q, "return-path");
	s->was_running = qemu_runs(&s->q);
	return 0;
}

static void let_go(struct source *s)
{
	if (s->theirs >= 0)
		close(s->theirs);
	s->theirs = -1;
}

static void source_close(void *m)
{
	struct source *s = m;

	let_go(s);
	qmp_close(s->q.qmp);
	free(s);
}

static int source_open(struct json_object *where, void **m, struct err *err)
{
	struct source *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return err_set(err, -ENOMEM, "open VM: out of memory");
	s->theirs = -1;
	rc = qemu_open(&s->q, where, err);
	if (!rc && s->q.qmp) {
		qmp_on_event(s->q.qmp, on_event, s);
		rc = remember(s, where, err);
	}
	if (rc)
		source_close(s);
	else
		*m = s;
	return rc;
}

static struct json_object *source_where(void *m)
{
	struct source *s = m;
	struct json_object *o = json_object_new_object(), *saved = json_object_new_object();

	qemu_describe(&s->q, o);
	message_add_number(saved, "max-bandwidth", s->old_bandwidth);
	message_add_number(saved, "downtime-limit", s->old_downtime);
	json_object_object_add(saved, "return-path", json_object_new_boolean(s->old_return_path));
	json_object_object_add(saved, "running", json_object_new_boolean(s->was_running));
	json_object_object_add(o, "saved", saved);
	return o;
}

/*
 * QEMU before 9.0 does not bring TCG's TLB up to date when it reads the dirty log of a RAM
 * block of whole 256-KiB units, and then misses writes (its commit 03bfc2188f). KVM is right.
 */
static void warn_of_lost_pages(struct source *s, const struct pair_identity *id)
{
	struct json_object *version = NULL, *kvm = NULL;

	if (id->mem_bytes % TCG_UNIT || qmp_call(s->q.qmp, QEMU_QMP_MS, &version, NULL, "query-version", NULL))
		return;
	if (!qmp_call(s->q.qmp, QEMU_QMP_MS, &kvm, NULL, "query-kvm", NULL) &&
	    !qmp_bool(kvm, "enabled", false) && qmp_u64(version, "qemu.major", 9) < 9)
		log_warn("%s: this QEMU (%llu.%llu), emulating its processor, can lose pages in any live "
			 "migration; give it 8 KiB more memory (cump-migrate(1), CAVEATS)", id->name,
			 (unsigned long long)qmp_u64(version, "qemu.major", 0),
			 (unsigned long long)qmp_u64(version, "qemu.minor", 0));
	json_object_put(version);
	json_object_put(kvm);
}

static int source_identify(void *m, struct pair_identity *id, struct err *err)
{
	struct source *s = m;
	pid_t rival;
	int rc = qemu_identify(&s->q, id, err);

	if (!rc)
		warn_of_lost_pages(s, id);
	if (rc || s->q.is_vtpm || id->bound_to[0] == '/' || !id->bound_to[0])
		return rc;
	rival = qemu_rival(id->bound_to, s->q.process.pid);
	if (rival)
		return err_set(err, -EXDEV, "check pair: vTPM %s is bound to process %d, too",
			       id->bound_to, (int)rival);
	return 0;
}

static int set_limits(struct source *s, uint64_t bandwidth, uint64_t downtime_ms, struct err *err)
{
	return qmp_call(s->q.qmp, QEMU_QMP_MS, NULL, err, "migrate-set-parameters",
			"{\"max-bandwidth\":%llu,\"downtime-limit\":%llu}",
			(unsigned long long)bandwidth, (unsigned long long)downtime_ms);
}

static int source_start(void *m, int *stream, struct err *err)
{
	struct source *s = m;
	int rc = qemu_need(&s->q, err);

	if (!rc)
		rc = set_limits(s, NO_LIMIT_BYTES, HOLD_MS, err);
	if (!rc)
		rc = qemu_capability(&s->q, "return-path", true, err);
	if (!rc)
		rc = qemu_stream(&s->q, stream, &s->theirs, err);
	if (rc)
		return rc;
	rc = qmp_call(s->q.qmp, QEMU_QMP_MS, NULL, err, "migrate", "{\"uri\":\"fd:cump\"}");
	if (rc) {
		close(*stream);
		*stream = -1;
		let_go(s);
	}
	return rc;
}

static enum pair_phase phase_of(const char *status)
{
	if (!strcmp(status, "completed"))
		return PAIR_COMPLETED;
	if (!strcmp(status, "failed") || !strncmp(status, "cancel", 6))
		return PAIR_FAILED;
	if (!strcmp(status, "device") || !strcmp(status, "pre-switchover"))
		return PAIR_HELD;
	return PAIR_ACTIVE;
}

static int source_estimate(void *m, struct pair_estimate *e, struct err *err)
{
	struct source *s = m;
	struct json_object *r = NULL;
	int rc = qmp_call(s->q.qmp, QEMU_QMP_MS, &r, err, "query-migrate", NULL);
	const char *why;

	if (rc)
		return rc;
	e->phase = phase_of(qmp_str(r, "status") ? qmp_str(r, "status") : "none");
	e->total_bytes = qmp_u64(r, "ram.total", 0);
	e->remaining_bytes = qmp_u64(r, "ram.remaining", 0);
	e->round = qmp_u64(r, "ram.dirty-sync-count", 0);
	e->zero_pages = qmp_u64(r, "ram.duplicate", 0);
	e->normal_pages = qmp_u64(r, "ram.normal", 0);
	why = qmp_str(r, "error-desc");
	if (e->phase == PAIR_FAILED)
		err_set(err, 0, "%s", why && *why ? why : "its stream was cut");
	json_object_put(r);
	return 0;
}

static int source_fd(void *m)
{
	return qmp_fd(((struct source *)m)->q.qmp);
}

static void source_poll(void *m)
{
	qmp_poll(((struct source *)m)->q.qmp, 0, NULL); /* a monitor that is gone shows in the next estimate */
}

static void source_on_stop(void *m, void (*fn)(void *ctx), void *ctx)
{
	struct source *s = m;

	s->on_stop = fn;
	s->on_stop_ctx = ctx;
}

static int source_stop_begin(void *m, struct err *err)
{
	struct source *s = m;

	return qmp_start(s->q.qmp, &s->stop_id, err, "stop", NULL);
}

static int source_stop_end(void *m, struct pair_stop *stop, struct err *err)
{
	struct source *s = m;
	int rc = qmp_finish(s->q.qmp, s->stop_id, QEMU_QMP_MS, NULL, err);

	stop->still_us = s->stopped_us; /* the event comes before the answer */
	return rc;
}

static void source_tighten(void *m, bool tight)
{
	struct source *s = m;

	if (s->theirs >= 0)
		net_write_ahead(s->theirs, tight ? TIGHT_AHEAD : NET_WRITE_AHEAD);
}

static int source_finish(void *m, struct err *err)
{
	source_tighten(m, false);
	let_go(m);
	return set_limits(m, NO_LIMIT_BYTES, FINISH_MS, err);
}

/* Wait until no migration is under way. A cancel resumes a guest that it stopped itself. */
static int cancel(struct source *s, struct err *err)
{
	uint64_t until = units_now_us() + CANCEL_MS * 1000ull;
	static const struct timespec tick = {0, 5000000};
	bool asked = false;

	for (;;) {
		struct json_object *r = NULL;
		int rc = qmp_call(s->q.qmp, QEMU_QMP_MS, &r, err, "query-migrate", NULL);
		const char *status;
		bool over;

		if (rc)
			return rc;
		status = qmp_str(r, "status");
		over = !status || !strcmp(status, "none") || !strcmp(status, "completed") ||
		       !strcmp(status, "failed") || !strcmp(status, "cancelled");
		json_object_put(r);
		if (over)
			return 0;
		if (!asked)
			rc = qmp_call(s->q.qmp, QEMU_QMP_MS, NULL, err, "migrate_cancel", NULL);
		if (rc)
			return rc;
		asked = true;
		if (units_now_us() > until)
			return err_set(err, -ETIMEDOUT, "cancel migration of %s: it goes on",
				       s->q.qmp_path);
		nanosleep(&tick, NULL);
	}
}

static int source_resume(void *m, struct err *err)
{
	struct source *s = m;
	int rc = qemu_need(&s->q, err);

	let_go(s);

	if (!rc)
		rc = cancel(s, err);
	if (rc)
		return rc;
	if (set_limits(s, s->old_bandwidth, s->old_downtime, err) ||
	    qemu_capability(&s->q, "return-path", s->old_return_path, err))
		log_warn("%s", err ? err->text : "migration parameters were not restored");
	if (s->was_running && !qemu_runs(&s->q))
		rc = qmp_call(s->q.qmp, QEMU_QMP_MS, NULL, err, "cont", NULL);
	return rc;
}

static int source_release(void *m, struct json_object **receipt, struct err *err)
{
	struct source *s = m;
	int rc = qemu_quit(&s->q, err);

	*receipt = json_object_new_object();
	message_add(*receipt, "member", s->q.is_vtpm ? "vtpm" : "vm");
	message_add(*receipt, "what", "QEMU ended, its memory is freed");
	message_add_number(*receipt, "pid", (uint64_t)s->q.process.pid);
	json_object_object_add(*receipt, "ok", json_object_new_boolean(!rc));
	return rc;
}

static bool source_runs(void *m)
{
	return qemu_runs(&((struct source *)m)->q);
}

const struct pair_source_ops qemu_source_ops = {
	.open = source_open,
	.where = source_where,
	.identify = source_identify,
	.start = source_start,
	.estimate = source_estimate,
	.fd = source_fd,
	.poll = source_poll,
	.tighten = source_tighten,
	.on_stop = source_on_stop,
	.stop_begin = source_stop_begin,
	.stop_end = source_stop_end,
	.finish = source_finish,
	.resume = source_resume,
	.release = source_release,
	.runs = source_runs,
	.close = source_close,
};
