/* SPDX-License-Identifier: MIT */
/* The source's side of the commit: pre-copy, joint stop, decision, release. */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/units.h"
#include "pair/message.h"
#include "pair/pair.h"
#include "pair/settle.h"

#define ANSWER_MS 60000	 /* the destination starts two hypervisors before it answers */
#define CONNECT_MS 10000
#define TELL_MS 5000	 /* for the other end to hear that it is off */
#define ASK_MS 20000	 /* for it to come back after the decision */
#define FIRST_CREDIT (4u << 20)
#define TIGHT_BYTES (16u << 20) /* left in a pass */
#define ARRIVE_US 20000	 /* for what is on its way, before the stop */
#define STILL_TICKS 4	 /* of FINISH_TICK_MS: it has arrived, and is taken in */
#define TICK_MS 4	 /* between two looks at the estimates, near the end of a pass */
#define FAR_TICK_MS 32	 /* far from it: each look takes the hypervisor's lock */
#define FINISH_TICK_MS 1 /* guests stand still: every millisecond counts */
#define DRIVEN_TICK_MS 20 /* of members that say when they have ended; until then looks would take their time */

struct send;

struct stop_watch {
	struct send *send;
	unsigned owner;
	bool stopped;
};

struct send {
	const struct pair_send *conf;
	struct pair_report *report;
	struct journal *journal;
	struct wire *wire;
	void *m[PAIR_MEMBERS];
	bool streams[PAIR_MEMBERS];
	bool ran[PAIR_MEMBERS]; /* it ran before: it shall run afterwards */
	bool built; /* the other side has said so */
	bool waits; /* the members were told so */
	bool holds; /* they are about to be stopped */
	bool held[PAIR_MEMBERS];
	struct stop_watch watch[PAIR_MEMBERS];
	struct budget budget;
	struct pair_progress progress;
	char token[33];
};

static const struct pair_source_ops *ops(const struct send *s, unsigned i)
{
	return s->conf->driver[i]->source;
}

static void step(struct send *s, enum pair_step which)
{
	s->report->step_us[which] = units_now_us();
	log_verbose("%s: %s", pair_step_name(which), pair_step_what(which));
	if (s->conf->hooks.step)
		s->conf->hooks.step(s->conf->hooks.ctx, which);
}

static int cancelled(struct send *s, struct err *err)
{
	int sig = s->conf->hooks.cancelled ? s->conf->hooks.cancelled(s->conf->hooks.ctx) : 0;

	return sig ? err_set(err, -EINTR, "move pair: cancelled (%s)", strsignal(sig)) : 0;
}

/* ---- binding ---- */

static int bound(const struct pair_identity id[PAIR_MEMBERS], struct err *err)
{
	const struct pair_identity *vm = &id[PAIR_VM], *vtpm = &id[PAIR_VTPM];

	if (!vm->bound_to[0])
		return err_set(err, -ENXIO, "check pair: VM %s has no vTPM", vm->name);
	if (strcmp(vm->bound_to, vtpm->bound_to) != 0)
		return err_set(err, -EXDEV,
			       "check pair: VM %s is bound to vTPM %s, not to %s (%s)", vm->name,
			       vm->bound_to, vtpm->bound_to, vtpm->name);
	return 0;
}

static int open_members(const struct pair_driver *const driver[PAIR_MEMBERS],
			struct json_object *const where[PAIR_MEMBERS], void *m[PAIR_MEMBERS],
			struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; !rc && i < PAIR_MEMBERS; i++)
		rc = driver[i]->source->open(where[i], &m[i], err);
	return rc;
}

int pair_identify(const struct pair_driver *const driver[PAIR_MEMBERS],
		  struct json_object *const where[PAIR_MEMBERS],
		  struct pair_identity id[PAIR_MEMBERS], struct err *err)
{
	void *m[PAIR_MEMBERS] = {NULL};
	int rc = open_members(driver, where, m, err);

	for (unsigned i = 0; !rc && i < PAIR_MEMBERS; i++)
		rc = driver[i]->source->identify(m[i], &id[i], err);
	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		if (m[i])
			driver[i]->source->close(m[i]);
	return rc ? rc : bound(id, err);
}

static int identify(struct send *s, struct err *err)
{
	struct pair_identity id[PAIR_MEMBERS];
	int rc = open_members(s->conf->driver, s->conf->where, s->m, err);

	for (unsigned i = 0; !rc && i < PAIR_MEMBERS; i++) {
		rc = ops(s, i)->identify(s->m[i], &id[i], err);
		s->report->member[i].id = id[i];
		s->ran[i] = !rc && ops(s, i)->runs(s->m[i]);
	}
	return rc ? rc : bound(id, err);
}

/* ---- the request ---- */

static int connect_wire(struct send *s, struct err *err)
{
	const struct pair_limits *l = &s->conf->limits;
	struct wire_conf wc = {l->compress, (int)l->zstd_level, (int)(l->silence_us / 1000)};

	return wire_connect(&s->conf->dest, s->conf->security, CONNECT_MS, &wc, &s->wire, err);
}

/* The destination speaks first: its version, and a nonce that makes a replayed stream void. */
static int take_challenge(struct send *s, char nonce[65], struct err *err)
{
	struct json_object *m;
	int rc = message_expect(s->wire, "challenge", CONNECT_MS, &m, NULL, err);

	if (rc)
		return rc;
	snprintf(nonce, 65, "%s", message_text(m, "nonce"));
	if (message_number(m, "version") != PAIR_VERSION)
		rc = err_set(err, -EPROTONOSUPPORT,
			     "ask destination: it speaks version %llu of the protocol, this is %d",
			     (unsigned long long)message_number(m, "version"), PAIR_VERSION);
	json_object_put(m);
	return rc;
}

static int request(struct send *s, struct err *err)
{
	struct json_object *hello = message_new("hello"), *members = json_object_new_array();
	struct json_object *answer;
	char nonce[65];
	int rc = take_challenge(s, nonce, err), status = 0;

	if (rc) {
		json_object_put(hello);
		json_object_put(members);
		return rc;
	}
	message_add_number(hello, "version", PAIR_VERSION);
	message_add(hello, "nonce", nonce);
	message_add(hello, "id", s->report->id);
	message_add(hello, "token", s->token);
	json_object_object_add(hello, "dry_run", json_object_new_boolean(s->conf->dry_run));
	if (s->conf->pair_file)
		message_add(hello, "pair_file", s->conf->pair_file);
	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		struct json_object *o = message_from_identity(s->conf->driver[i]->kind,
							      &s->report->member[i].id);

		json_object_object_add(o, "runs", json_object_new_boolean(s->ran[i]));
		json_object_array_add(members, o);
	}
	json_object_object_add(hello, "members", members);
	rc = wire_send(s->wire, hello, err);
	if (!rc)
		rc = message_expect(s->wire, "reserved", ANSWER_MS, &answer, &status, err);
	if (rc)
		return rc == -ECANCELED && status == PAIR_NO ? -EXDEV : rc;
	json_object_put(answer);
	return 0;
}

/* ---- the journal ---- */

static struct json_object *whereabouts(struct send *s)
{
	struct json_object *all = json_object_new_array();

	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		struct json_object *o = json_object_new_object();

		message_add(o, "kind", s->conf->driver[i]->kind);
		json_object_object_add(o, "where", ops(s, i)->where(s->m[i]));
		json_object_object_add(o, "ran", json_object_new_boolean(s->ran[i]));
		json_object_array_add(all, o);
	}
	return all;
}

static int journal_begin(struct send *s, struct err *err)
{
	struct json_object *e = json_object_new_object();
	char name[64], dest[300];
	int rc;

	snprintf(name, sizeof(name), "%s.source", s->report->id);
	rc = journal_open(s->conf->state_dir, name, true, &s->journal, err);
	if (rc) {
		json_object_put(e);
		return rc;
	}
	message_add(e, "id", s->report->id);
	message_add(e, "token", s->token);
	message_add(e, "dest", net_addr_format(&s->conf->dest, dest, sizeof(dest)));
	message_add(e, "vm", s->report->member[PAIR_VM].id.name);
	message_add(e, "vtpm", s->report->member[PAIR_VTPM].id.name);
	message_add_number(e, "pid", (uint64_t)getpid());
	if (s->conf->security_conf)
		json_object_object_add(e, "security", json_tokener_parse(s->conf->security_conf));
	json_object_object_add(e, "members", whereabouts(s));
	return journal_append(s->journal, "begin", e, err);
}

static int journal_state_with_members(struct send *s, const char *state, struct err *err)
{
	struct json_object *e = json_object_new_object();

	json_object_object_add(e, "members", whereabouts(s));
	return journal_append(s->journal, state, e, err);
}

/* ---- pre-copy ---- */

/*
 * A guest was stopped. If it was not us, its hypervisor came to its end by itself and now
 * sends the rest, deaf to its monitor until that is read: so it must be read, and the
 * other guest stopped without a question asked.
 */
static void on_stop(void *ctx)
{
	struct stop_watch *w = ctx;

	w->stopped = true;
	wire_gate(w->send->wire, w->owner, BUDGET_NO_LIMIT);
}

static int join(struct send *s, struct err *err)
{
	if (!ops(s, PAIR_VM)->join)
		return 0;
	return ops(s, PAIR_VM)->join(s->m[PAIR_VM], s->m[PAIR_VTPM], err);
}

static int start(struct send *s, struct err *err)
{
	int joined = join(s, err);

	if (joined)
		return joined;
	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		int stream = -1, rc;

		s->watch[i] = (struct stop_watch){s, i, false};
		rc = ops(s, i)->start(s->m[i], &stream, err);
		if (rc)
			return rc;
		s->streams[i] = stream >= 0;
		s->report->member[i].streams = s->streams[i];
		if (stream < 0)
			continue;
		ops(s, i)->on_stop(s->m[i], on_stop, &s->watch[i]);
		/* Not far before the first look at both: a small one could be through by then. */
		wire_attach(s->wire, i, stream, FIRST_CREDIT);
	}
	return journal_state_with_members(s, "started", err);
}

static uint64_t raw_bytes(struct send *s)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		struct wire_stats st;

		wire_stats(s->wire, i, &st);
		s->report->member[i].raw_bytes = st.raw_bytes;
		s->report->member[i].wire_bytes = st.wire_bytes;
		sum += st.raw_bytes;
	}
	return sum;
}

static int look(struct send *s, bool *all_completed, struct err *err)
{
	*all_completed = true;
	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		struct pair_estimate e = {0};
		int rc;

		if (!s->streams[i])
			continue;
		rc = ops(s, i)->estimate(s->m[i], &e, err);
		if (rc)
			return rc;
		if (e.phase == PAIR_FAILED) {
			char why[sizeof(err->text)]; /* err_set must not print a text into itself */

			snprintf(why, sizeof(why), "%s", err->text[0] ? err->text : "no reason told");
			return err_set(err, -EIO, "move %s: its hypervisor gave up (%s)",
				       s->report->member[i].id.name, why);
		}
		*all_completed = *all_completed && e.phase == PAIR_COMPLETED;
		s->held[i] = e.held;
		budget_note(&s->budget, i, &e, units_now_us());
		s->report->member[i].rounds = e.round;
		s->report->member[i].zero_pages = e.zero_pages;
		s->report->member[i].normal_pages = e.normal_pages;
		s->report->member[i].deferred_pages = e.deferred_pages;
		s->report->member[i].resent_pages = e.resent_pages;
	}
	budget_note_bytes(&s->budget, raw_bytes(s), units_now_us());
	return 0;
}

static void show(struct send *s, const char *phase)
{
	struct pair_progress *p = &s->progress;
	uint64_t now = units_now_us();

	if (!s->conf->hooks.progress)
		return;
	p->report = s->report;
	p->phase = phase;
	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		const struct budget_track *t = &s->budget.track[i];

		p->member[i].total = t->total;
		p->member[i].remaining = t->remaining;
		p->member[i].round = t->round;
		p->member[i].rate = (uint64_t)t->dirty_rate;
		p->member[i].parked = t->parked_us != 0;
	}
	p->bandwidth = (uint64_t)s->budget.bandwidth;
	p->downtime_us = budget_downtime_us(&s->budget, now);
	s->conf->hooks.progress(s->conf->hooks.ctx, p);
}

/* While nothing is asked of the peer, a message can only be its "built" or "failed". */
static int unexpected(struct send *s, struct err *err)
{
	struct json_object *m = NULL;
	int rc = message_expect(s->wire, "built", 0, &m, NULL, err);

	json_object_put(m);
	s->built = s->built || !rc;
	if (rc == -ETIMEDOUT) {
		err->code = 0;
		err->text[0] = '\0';
		return 0;
	}
	return rc;
}

static void trace_budget(const struct budget *b, const uint64_t credit[PAIR_MEMBERS])
{
	const struct budget_track *vm = &b->track[PAIR_VM], *vtpm = &b->track[PAIR_VTPM];

	if (log_level() < LOG_TRACE)
		return;
	log_trace("VM round %llu left %llu K credit %lld K | vTPM round %llu left %llu K credit %lld K | %.0f MB/s",
		  (unsigned long long)vm->round, (unsigned long long)vm->remaining >> 10,
		  (long long)credit[PAIR_VM] >> 10, (unsigned long long)vtpm->round,
		  (unsigned long long)vtpm->remaining >> 10, (long long)credit[PAIR_VTPM] >> 10,
		  b->bandwidth / 1e6);
}

static bool one_stopped(struct send *s)
{
	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		if (s->streams[i] && !s->watch[i].stopped)
			ops(s, i)->poll(s->m[i]);
	return s->watch[0].stopped || s->watch[1].stopped;
}

/* To stop them before the other side has built them would only make them wait, standing still. */
static bool must_wait(struct send *s)
{
	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		if (!s->built && s->streams[i] && ops(s, i)->built_first && ops(s, i)->built_first(s->m[i]))
			return true;
	return false;
}

/* By the budget (@near) and by the other side. */
static bool may_stop(struct send *s, bool near)
{
	bool must = must_wait(s), wait = must && (near || s->waits);

	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		if (s->streams[i] && ops(s, i)->wait && s->waits != wait)
			ops(s, i)->wait(s->m[i], wait);
	s->waits = wait;
	return near && !must;
}

/*
 * A look is due when a quarter of what may be read of a member before it is parked has been; of those that are driven,
 * by one engine, a quarter of what both have left.
 */
static int tick_ms(const struct budget *b)
{
	double ms = FAR_TICK_MS, driven = 0;
	bool all_parked = true, any_driven = false;

	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		const struct budget_track *t = &b->track[i];

		if (!t->streams || t->over || t->parked_us)
			continue;
		all_parked = false;
		if (t->driven) {
			any_driven = t->round && b->bandwidth >= 1;
			driven += (double)t->remaining;
			continue;
		}
		if (b->bandwidth < 1 || !t->round || t->pass_round || t->remaining < BUDGET_PARK_BYTES)
			return TICK_MS;
		ms = fmin(ms, (double)(t->remaining - BUDGET_PARK_BYTES) * 250 / b->bandwidth);
	}
	if (any_driven)
		ms = fmin(ms, driven * 250 / b->bandwidth);
	return all_parked || ms < TICK_MS ? TICK_MS : (int)ms;
}

/* Until the next look, or until something happens to a member or on the wire. */
static void wait_tick(struct send *s)
{
	struct pollfd p[1 + PAIR_MEMBERS] = {{wire_fd(s->wire), POLLIN, 0}};

	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		p[1 + i] = (struct pollfd){s->streams[i] ? ops(s, i)->fd(s->m[i]) : -1, POLLIN, 0};
	poll(p, 1 + PAIR_MEMBERS, s->holds ? FINISH_TICK_MS : s->waits ? FAR_TICK_MS : tick_ms(&s->budget));
}

/* No further round, of those that we drive. */
static void hold(struct send *s)
{
	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		if (s->streams[i] && ops(s, i)->hold)
			ops(s, i)->hold(s->m[i]);
	s->holds = true;
}

static bool all_held(const struct send *s)
{
	bool all = true;

	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		all = all && (!s->streams[i] || !ops(s, i)->hold || s->held[i]);
	return all;
}

static int iterate(struct send *s, struct err *err)
{
	uint64_t begun = units_now_us();

	for (;;) {
		uint64_t credit[PAIR_MEMBERS] = {BUDGET_NO_LIMIT, BUDGET_NO_LIMIT}, now;
		enum budget_verdict v;
		bool completed;
		int rc = cancelled(s, err);

		if (!rc && !one_stopped(s))
			rc = look(s, &completed, err);
		if (!rc && one_stopped(s)) {
			s->report->forced = budget_downtime_us(&s->budget, units_now_us()) >
					    s->budget.limit_us;
			return 0;
		}
		if (rc)
			return rc;
		now = units_now_us();
		v = budget_decide(&s->budget, now, credit);
		trace_budget(&s->budget, credit);
		if (!s->holds && may_stop(s, v != BUDGET_GO_ON)) {
			s->report->forced = v == BUDGET_FORCED;
			hold(s);
		}
		if (s->holds && all_held(s))
			return 0;
		for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
			const struct budget_track *t = &s->budget.track[i];

			if (!s->streams[i])
				continue;
			wire_share(s->wire, i, t->total ? (double)t->remaining / (double)t->total : 0);
			wire_gate(s->wire, i, credit[i]);
			ops(s, i)->tighten(s->m[i], t->remaining < TIGHT_BYTES);
		}
		if (s->conf->limits.timeout_us && now - begun > s->conf->limits.timeout_us)
			return err_set(err, -ETIMEDOUT, "move pair: pre-copy did not end in time");
		show(s, "copy");
		rc = unexpected(s, err);
		if (rc)
			return rc;
		wait_tick(s);
	}
}

/* ---- stop, send the rest ---- */

/*
 * Let what is on its way arrive first, and no more: the stops then find processors
 * that are not busy with our own data.
 */
static void let_arrive(struct send *s)
{
	uint64_t until = units_now_us() + ARRIVE_US, before, now = raw_bytes(s);
	unsigned still = 0;

	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		if (s->streams[i] && !ops(s, i)->hold)
			wire_gate(s->wire, i, 0);
	do {
		before = now;
		poll(NULL, 0, FINISH_TICK_MS);
		now = raw_bytes(s);
		still = now == before ? still + 1 : 0;
	} while (still < STILL_TICKS && units_now_us() < until);
}

/* A member without a guest of its own (a TPM process) stops with the other. */
static void note_stops(struct send *s, const struct pair_stop stop[PAIR_MEMBERS], uint64_t asked_us)
{
	uint64_t first = stop[0].still_us, second = stop[1].still_us;

	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		const struct pair_stop *own = stop[i].still_us ? &stop[i] : &stop[!i];

		s->report->member[i].stopped_at_us = own->since_us ? own->since_us : asked_us;
	}
	if (first && second)
		s->report->stop_skew_us = first > second ? first - second : second - first;
}

static int stop_both(struct send *s, struct err *err)
{
	struct pair_stop stop[PAIR_MEMBERS] = {{0}};
	int rc = 0, begun = 0;
	uint64_t asked;

	if (!s->watch[0].stopped && !s->watch[1].stopped)
		let_arrive(s);
	asked = units_now_us();
	for (unsigned i = 0; !rc && i < PAIR_MEMBERS; i++, begun++)
		rc = ops(s, i)->stop_begin(s->m[i], err);
	for (int i = 0; i < begun; i++) {
		int one = ops(s, (unsigned)i)->stop_end(s->m[i], &stop[i], rc ? NULL : err);

		rc = rc ? rc : one;
	}
	if (!rc)
		note_stops(s, stop, asked);
	return rc;
}

/* Until a member may have ended, or something is on the wire. */
static void wait_for_end(struct send *s)
{
	struct pollfd p[1 + PAIR_MEMBERS] = {{wire_fd(s->wire), POLLIN, 0}};
	bool all_tell = true;

	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		const struct budget_track *t = &s->budget.track[i];
		int fd = t->streams && t->driven && !t->over ? ops(s, i)->fd(s->m[i]) : -1;

		p[1 + i] = (struct pollfd){fd, POLLIN, 0};
		all_tell = all_tell && (!t->streams || fd >= 0);
	}
	poll(p, 1 + PAIR_MEMBERS, all_tell ? DRIVEN_TICK_MS : FINISH_TICK_MS);
}

static int send_rest(struct send *s, struct err *err)
{
	uint64_t until = units_now_us() + s->conf->limits.rendezvous_us;
	int rc = 0;

	for (unsigned i = 0; !rc && i < PAIR_MEMBERS; i++) {
		if (s->streams[i])
			wire_gate(s->wire, i, BUDGET_NO_LIMIT);
		rc = ops(s, i)->finish(s->m[i], err);
	}
	while (!rc) {
		bool completed, drained = true;

		rc = look(s, &completed, err);
		for (unsigned i = 0; i < PAIR_MEMBERS; i++)
			drained = drained && (!s->streams[i] || wire_drained(s->wire, i));
		if (rc || (completed && drained))
			break;
		if (units_now_us() > until)
			rc = err_set(err, -ETIMEDOUT, "move pair: the rest was not sent in time");
		if (!rc)
			rc = cancelled(s, err);
		if (!rc)
			wait_for_end(s);
		if (!rc)
			rc = unexpected(s, err);
	}
	return rc;
}

static int promised(struct send *s, struct err *err)
{
	struct json_object *m = message_new("streamed");
	char hex[65];
	int rc;

	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		if (ops(s, i)->digest && !ops(s, i)->digest(s->m[i], hex, err))
			message_add(m, i ? "vtpm_digest" : "vm_digest", hex);
	rc = wire_send(s->wire, m, err);
	if (!rc)
		rc = message_expect(s->wire, "prepared", (int)(s->conf->limits.rendezvous_us / 1000),
				    &m, NULL, err);
	if (rc)
		return rc;
	json_object_put(m);
	return 0;
}

/* ---- the two ends ---- */

/*
 * What was under way when we gave up may arrive before the answer: a "failed", a "prepared".
 * A wire that is down says the same for ever, so not for ever.
 */
static int await_aborted(struct send *s, struct json_object **m)
{
	int rc = -EPROTO;

	for (unsigned n = 0; n < 4 && (rc == -EPROTO || rc == -ECANCELED); n++)
		rc = message_expect(s->wire, "aborted", TELL_MS, m, NULL, NULL);
	return rc;
}

/* Before "go": everything as it was. */
static enum pair_outcome roll_back(struct send *s, struct err *err)
{
	struct settle_ask ask = {s->conf->security, &s->conf->dest, TELL_MS};
	struct err second = {0};
	struct json_object *m = NULL;
	bool failed;
	int rc;

	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		wire_cut(s->wire, i);
	/* Durable first: after this nobody may ever answer "go" for this pair. */
	rc = journal_append(s->journal, "aborted", NULL, &second);
	if (!rc)
		rc = settle_resume(s->conf->driver, s->m, &second);
	if (rc)
		log_error("%s", second.text);
	failed = rc && rc != -ESRCH; /* a member that died is lost, but leaves nothing open */
	if (s->wire && !wire_status(s->wire, NULL)) {
		m = message_new("abort");
		message_add(m, "why", err->text);
		if (wire_send(s->wire, m, NULL) ||
		    await_aborted(s, &m))
			m = NULL;
	}
	wire_close(s->wire, 1000);
	s->wire = NULL;
	if (failed)
		return PAIR_IN_DOUBT; /* one of them does not run here: `recover` tries again */
	if (m) {
		json_object_put(m);
		journal_retire(s->journal);
		s->journal = NULL;
	} else if (settle_tell_abort(&s->journal, &ask, NULL)) {
		log_warn("move %s: the destination was not reached and may still hold paused "
			 "copies: 'cump-migrate recover' tells it", s->report->id);
	}
	return PAIR_ROLLED_BACK;
}

/* The destination tells how long before its "done" each of them ran; what that takes to come is downtime to us. */
static void note_started(struct send *s, struct json_object *done)
{
	struct pair_report *r = s->report;
	uint64_t now = units_now_us(), first_stop = UINT64_MAX, last_start = 0;

	r->total_us = now - r->step_us[STEP_SEND_REQUEST];
	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		struct pair_member_report *m = &r->member[i];
		uint64_t ago = message_number(done, i ? "vtpm_ran_us" : "vm_ran_us");

		m->started_at_us = ago < now - m->stopped_at_us ? now - ago : now;
		m->downtime_us = m->started_at_us - m->stopped_at_us;
		if (m->stopped_at_us < first_stop)
			first_stop = m->stopped_at_us;
		if (m->started_at_us > last_start)
			last_start = m->started_at_us;
	}
	r->downtime_us = last_start - first_stop;
}

static enum pair_outcome finish_done(struct send *s)
{
	struct settle_ask ask = {s->conf->security, &s->conf->dest, 0};
	struct err err = {0};
	struct json_object *e;
	bool told;

	step(s, STEP_SEND_DONE);
	if (journal_append(s->journal, "done", NULL, &err))
		log_error("%s", err.text);
	settle_release(s->conf->driver, s->m, &s->report->receipts);
	e = json_object_new_object();
	json_object_object_add(e, "receipts", json_object_get(s->report->receipts));
	if (journal_append(s->journal, "released", e, &err))
		log_error("%s", err.text);
	step(s, STEP_SEND_RELEASED);
	told = !wire_status(s->wire, NULL) && !wire_send(s->wire, message_new("end"), NULL);
	wire_close(s->wire, 2000);
	s->wire = NULL;
	if (!told)
		settle_tell_end(&s->journal, &ask);
	journal_retire(s->journal);
	s->journal = NULL;
	step(s, STEP_SEND_END);
	return PAIR_DONE;
}

/* "go" is durable: only forward, or what the other side's word allows. */
static enum pair_outcome decide(struct send *s, struct err *err)
{
	struct settle_ask ask = {s->conf->security, &s->conf->dest, ASK_MS};
	struct json_object *done = NULL;
	enum pair_outcome out;
	int rc = journal_append(s->journal, "go", NULL, err);

	if (rc) /* not known whether it is durable: ask before anything runs */
		return PAIR_IN_DOUBT;
	step(s, STEP_SEND_GO);
	rc = wire_send(s->wire, message_new("go"), err);
	if (!rc)
		rc = message_expect(s->wire, "done", (int)(s->conf->limits.rendezvous_us / 1000),
				    &done, NULL, err);
	if (!rc) {
		note_started(s, done);
		out = finish_done(s);
		json_object_put(done);
		return out;
	}
	wire_close(s->wire, 0);
	s->wire = NULL;
	return settle_after_go(&s->journal, &ask, s->conf->driver, s->m, s->report, err);
}

static enum pair_outcome outcome_of(int rc)
{
	switch (rc) {
	case -ENXIO:
	case -EXDEV:
		return PAIR_NO;
	default:
		return PAIR_REFUSED;
	}
}

static enum pair_outcome move(struct send *s, struct err *err)
{
	int rc = start(s, err);

	if (!rc) {
		step(s, STEP_SEND_STARTED);
		rc = iterate(s, err);
	}
	if (!rc) {
		step(s, STEP_SEND_CONVERGED);
		rc = stop_both(s, err);
	}
	if (!rc) {
		step(s, STEP_SEND_STOPPED);
		rc = send_rest(s, err);
	}
	if (!rc) {
		step(s, STEP_SEND_STREAMED);
		rc = promised(s, err);
	}
	if (!rc)
		step(s, STEP_SEND_PREPARED);
	if (!rc)
		rc = cancelled(s, err);
	if (rc) {
		enum pair_outcome out = roll_back(s, err);

		return rc == -ETIMEDOUT && out == PAIR_ROLLED_BACK ? PAIR_TIMED_OUT : out;
	}
	return decide(s, err);
}

/* Nothing was started yet: close, and the destination drops what it reserved. */
static void give_up(struct send *s)
{
	wire_close(s->wire, 1000);
	s->wire = NULL;
	journal_retire(s->journal);
	s->journal = NULL;
}

static enum pair_outcome run(struct send *s, struct err *err)
{
	int rc = identify(s, err);

	if (rc)
		return outcome_of(rc);
	if (!s->conf->dry_run)
		rc = journal_begin(s, err);
	if (rc)
		return PAIR_REFUSED;
	step(s, STEP_SEND_BEGIN);
	rc = connect_wire(s, err);
	if (!rc) {
		step(s, STEP_SEND_REQUEST);
		rc = request(s, err);
	}
	if (!rc)
		rc = cancelled(s, err);
	if (rc || s->conf->dry_run) {
		give_up(s);
		return rc ? outcome_of(rc) : PAIR_DONE;
	}
	step(s, STEP_SEND_RESERVED);
	return move(s, err);
}

enum pair_outcome pair_send(const struct pair_send *conf, struct pair_report *report,
			    struct err *err)
{
	struct send s = {.conf = conf, .report = report};
	enum pair_outcome out;

	report->begun_realtime_us = units_realtime_us();
	report->begun_us = units_now_us();
	budget_init(&s.budget, conf->limits.budget_us, conf->limits.max_rounds);
	if (message_uuid(report->id, err) || message_nonce(s.token, 16, err))
		return PAIR_REFUSED;
	out = run(&s, err);
	wire_close(s.wire, 0);
	journal_close(s.journal);
	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		if (s.m[i])
			ops(&s, i)->close(s.m[i]);
	return out;
}
