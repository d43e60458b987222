/* SPDX-License-Identifier: MIT */
/* The destination's side of the commit: reserve, receive, promise, start. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/units.h"
#include "pair/message.h"
#include "pair/pair.h"
#include "pair/reserve.h"
#include "pair/settle.h"

#define REQUEST_MS 10000
#define END_MS 30000 /* the source releases its copies before it says "end" */
#define TICK_MS 20
#define RESTORE_TICK_MS 1 /* of kinds that must be asked: guests stand still */

struct receive {
	const struct pair_receive *conf;
	struct pair_report *report;
	struct wire *wire;
	struct journal *journal;
	struct settle_sink s;
	struct pair_place place;
	struct pair_identity want[PAIR_MEMBERS]; /* as announced by the source */
	char kind[PAIR_MEMBERS][16];
	char token[65], nonce[65];
	char digest[PAIR_MEMBERS][65]; /* of the source's durable state; "" none */
	const char *handed;
	bool dry_run;
	bool ready[PAIR_MEMBERS];
	bool told_late; /* who they are shows only when they are whole */
	bool told_built;
};

static void step(struct receive *r, enum pair_step which)
{
	r->report->step_us[which] = units_now_us();
	log_verbose("%s: %s", pair_step_name(which), pair_step_what(which));
	if (r->conf->hooks.step)
		r->conf->hooks.step(r->conf->hooks.ctx, which);
}

static void step_from_go(void *ctx, enum pair_step which)
{
	struct receive *r = ctx;

	r->report->step_us[which] = units_now_us();
	if (r->conf->hooks.step)
		r->conf->hooks.step(r->conf->hooks.ctx, which);
}

/* ---- the request ---- */

static int read_members(struct receive *r, struct json_object *hello, struct err *err)
{
	struct json_object *members;
	int rc = 0;

	if (!json_object_object_get_ex(hello, "members", &members) ||
	    !json_object_is_type(members, json_type_array) ||
	    json_object_array_length(members) != PAIR_MEMBERS)
		return err_set(err, -EPROTO, "read request: it does not name two members");
	for (unsigned i = 0; !rc && i < PAIR_MEMBERS; i++) {
		struct json_object *o = json_object_array_get_idx(members, i), *runs;

		rc = message_to_identity(o, &r->want[i], err);
		r->report->member[i].id = r->want[i];
		snprintf(r->kind[i], sizeof(r->kind[i]), "%s", message_text(o, "kind"));
		r->s.runs[i] = !json_object_object_get_ex(o, "runs", &runs) ||
			       json_object_get_boolean(runs);
	}
	return rc;
}

static int check_greeting(struct receive *r, struct json_object *m, struct err *err)
{
	if (message_number(m, "version") != PAIR_VERSION)
		return err_set(err, -EPROTONOSUPPORT,
			       "read request: version %llu of the protocol, this end speaks %d",
			       (unsigned long long)message_number(m, "version"), PAIR_VERSION);
	if (strcmp(message_text(m, "nonce"), r->nonce) != 0)
		return err_set(err, -EPROTO, "read request: it answers another greeting (replayed?)");
	if (strlen(message_text(m, "id")) != PAIR_ID_SIZE - 1 ||
	    strspn(message_text(m, "id"), "0123456789abcdef-") != PAIR_ID_SIZE - 1)
		return err_set(err, -EPROTO, "read request: malformed id");
	return 0;
}

static int read_hello(struct receive *r, struct json_object *m, struct err *err)
{
	struct json_object *v;
	int rc = read_members(r, m, err);

	if (rc)
		return rc;
	snprintf(r->report->id, sizeof(r->report->id), "%s", message_text(m, "id"));
	snprintf(r->token, sizeof(r->token), "%s", message_text(m, "token"));
	if (message_text(m, "pair_file")[0])
		r->handed = message_text(m, "pair_file");
	r->dry_run = json_object_object_get_ex(m, "dry_run", &v) && json_object_get_boolean(v);
	return 0;
}

static struct json_object *places(struct receive *r, bool launched)
{
	struct json_object *all = json_object_new_array();

	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		struct json_object *o = json_object_new_object();

		message_add(o, "kind", r->s.driver[i]->kind);
		json_object_object_add(o, "place",
				       launched ? r->s.driver[i]->sink->place(r->s.m[i])
						: json_object_get(r->place.place[i]));
		json_object_object_add(o, "runs", json_object_new_boolean(r->s.runs[i]));
		json_object_array_add(all, o);
	}
	return all;
}

static int journal_reserved(struct receive *r, uint64_t mem, struct err *err)
{
	struct json_object *e = json_object_new_object();
	char name[64];
	int rc;

	snprintf(name, sizeof(name), "%s.sink", r->report->id);
	rc = journal_open(r->conf->state_dir, name, true, &r->journal, err);
	if (rc) {
		json_object_put(e);
		return rc;
	}
	message_add(e, "id", r->report->id);
	message_add(e, "token", r->token);
	message_add(e, "vm", r->want[PAIR_VM].name);
	message_add(e, "vtpm", r->want[PAIR_VTPM].name);
	message_add(e, "dir", r->place.dir);
	message_add_number(e, "pid", (uint64_t)getpid());
	message_add_number(e, "mem_bytes", mem);
	json_object_object_add(e, "members", places(r, false));
	return journal_append(r->journal, "reserved", e, err);
}

static int find_place(struct receive *r, struct err *err)
{
	int rc = r->conf->find_place(r->conf->ctx, r->report->id, r->want, r->handed, &r->place, err);

	if (rc)
		return rc;
	snprintf(r->s.dir, sizeof(r->s.dir), "%s", r->place.dir);
	for (unsigned i = 0; !rc && i < PAIR_MEMBERS; i++) {
		r->s.driver[i] = r->place.driver[i];
		if (strcmp(r->place.driver[i]->kind, r->kind[i]) != 0)
			return err_set(err, -EINVAL,
				       "place pair: its %s is a %s, the pair file here has a %s",
				       i ? "vTPM" : "VM", r->kind[i], r->place.driver[i]->kind);
		rc = r->s.driver[i]->sink->open(r->place.place[i], &r->s.m[i], err);
	}
	return rc;
}

static int reserve(struct receive *r, struct err *err)
{
	uint64_t mem = 0;
	uint64_t disk = r->want[PAIR_VM].disk_bytes + r->want[PAIR_VTPM].disk_bytes;
	int lock, rc;

	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		mem += r->s.driver[i]->beneath ? 0 : r->want[i].mem_bytes;
	lock = reserve_lock(r->conf->state_dir, err);
	if (lock < 0)
		return lock;
	rc = reserve_check(r->conf->state_dir, mem, r->place.dir, disk, err);
	if (!rc && !r->dry_run)
		rc = journal_reserved(r, mem, err);
	close(lock);
	return rc;
}

/*
 * Definition 3 of the paper: what was made here is the same pair, bound in the same way. Asked when they
 * are launched, and of kinds that know it only then, when they are whole.
 */
static int check_identities(struct receive *r, bool whole, struct err *err)
{
	struct pair_identity id[PAIR_MEMBERS];

	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		int rc = r->s.driver[i]->sink->identify(r->s.m[i], &id[i], err);

		if (rc == -EAGAIN && !whole) {
			r->told_late = true;
			return 0;
		}
		if (rc)
			return rc;
		if (strcmp(id[i].uuid, r->want[i].uuid) != 0)
			return err_set(err, -EXDEV,
				       "check pair: the %s started here is %s, the one to come is %s",
				       i ? "vTPM" : "VM", id[i].uuid, r->want[i].uuid);
		if (id[i].mem_bytes != r->want[i].mem_bytes)
			return err_set(err, -EXDEV,
				       "check pair: the %s here has %llu bytes of memory, not %llu",
				       i ? "vTPM" : "VM", (unsigned long long)id[i].mem_bytes,
				       (unsigned long long)r->want[i].mem_bytes);
	}
	if (strcmp(id[PAIR_VM].bound_to, id[PAIR_VTPM].bound_to) != 0)
		return err_set(err, -EXDEV, "check pair: here the VM is bound to %s, not to %s",
			       id[PAIR_VM].bound_to, id[PAIR_VTPM].bound_to);
	return 0;
}

static int launch(struct receive *r, struct err *err)
{
	struct json_object *e;
	int rc = 0;

	/* The VM connects to its vTPM when it starts. */
	for (unsigned k = PAIR_MEMBERS; !rc && k-- > 0;)
		rc = r->s.driver[k]->sink->launch(r->s.m[k], err);
	e = json_object_new_object();
	json_object_object_add(e, "members", places(r, true));
	if (journal_append(r->journal, "launched", e, rc ? NULL : err) && !rc)
		rc = -EIO;
	return rc ? rc : check_identities(r, false, err);
}

static int listen_streams(struct receive *r, struct err *err)
{
	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		int stream = -1, rc = r->s.driver[i]->sink->receive(r->s.m[i], &stream, err);

		if (rc)
			return rc;
		r->report->member[i].streams = stream >= 0;
		if (stream >= 0)
			wire_attach(r->wire, i, stream, BUDGET_NO_LIMIT);
	}
	return 0;
}

/* ---- data ---- */

static void count(struct receive *r)
{
	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		struct wire_stats st;

		wire_stats(r->wire, i, &st);
		r->report->member[i].raw_bytes = st.raw_bytes;
		r->report->member[i].wire_bytes = st.wire_bytes;
	}
}

/* 1: both whole and paused. */
static int both_ready(struct receive *r, struct err *err)
{
	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		int rc = r->s.driver[i]->sink->ready(r->s.m[i], err);

		if (rc < 0)
			return rc;
		r->ready[i] = rc;
	}
	return r->ready[PAIR_VM] && r->ready[PAIR_VTPM];
}

/* Told once: some sources wait for it before they stop their guests. A wrong pair is seen before they do. */
static int tell_built(struct receive *r, struct err *err)
{
	bool any = false;
	int rc = 0;

	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		const struct pair_sink_ops *o = r->s.driver[i]->sink;

		any = any || o->built;
		if (o->built && !o->built(r->s.m[i]))
			return 0;
	}
	if (!any || r->told_built)
		return 0;
	r->told_built = true;
	if (r->told_late)
		rc = check_identities(r, true, err);
	r->told_late = false;
	return rc ? rc : wire_send(r->wire, message_new("built"), err);
}

static int take_data(struct receive *r, struct err *err)
{
	for (;;) {
		struct json_object *m;
		struct err none = {0};
		int rc = message_expect(r->wire, "streamed", TICK_MS, &m, NULL, err);

		if (!rc) {
			for (unsigned i = 0; i < PAIR_MEMBERS; i++)
				snprintf(r->digest[i], sizeof(r->digest[i]), "%s",
					 message_text(m, i ? "vtpm_digest" : "vm_digest"));
			json_object_put(m);
			return 0;
		}
		if (rc != -ETIMEDOUT)
			return rc;
		*err = none;
		rc = both_ready(r, err);
		if (rc >= 0)
			rc = tell_built(r, err);
		if (rc < 0)
			return rc;
		if (r->conf->hooks.cancelled && r->conf->hooks.cancelled(r->conf->hooks.ctx))
			return err_set(err, -EINTR, "receive pair: cancelled");
	}
}

/* Until another member may be ready, or something is on the wire. */
static void wait_ready(struct receive *r)
{
	struct pollfd p[1 + PAIR_MEMBERS] = {{wire_fd(r->wire), POLLIN, 0}};
	int ms = TICK_MS;

	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		const struct pair_sink_ops *o = r->s.driver[i]->sink;

		p[1 + i] = (struct pollfd){!r->ready[i] && o->fd ? o->fd(r->s.m[i]) : -1, POLLIN, 0};
		if (!r->ready[i] && !o->fd)
			ms = RESTORE_TICK_MS;
	}
	poll(p, 1 + PAIR_MEMBERS, ms);
}

static int await_ready(struct receive *r, struct err *err)
{
	uint64_t until = units_now_us() + r->conf->limits.rendezvous_us;
	struct json_object *m;
	struct err none = {0};

	for (;;) {
		int rc = both_ready(r, err);

		if (rc)
			return rc < 0 ? rc : 0;
		if (units_now_us() > until)
			return err_set(err, -ETIMEDOUT, "receive pair: it was not whole in time");
		wait_ready(r);
		rc = message_expect(r->wire, "", 0, &m, NULL, err);
		if (rc != -ETIMEDOUT)
			return rc ? rc : err_set(err, -EPROTO, "read message: none was due");
		*err = none;
	}
}

/* A TPM that came up with anything but the state that was sent must never start. */
static int check_digests(struct receive *r, struct err *err)
{
	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		const struct pair_sink_ops *o = r->s.driver[i]->sink;
		char hex[65];

		if (!r->digest[i][0] || !o->digest || o->digest(r->s.m[i], hex, NULL))
			continue;
		if (strcmp(hex, r->digest[i]) != 0)
			return err_set(err, -EBADMSG, "receive pair: the %s's state here is not the "
				       "source's (%.8s… for %.8s…)", i ? "vTPM" : "VM", hex,
				       r->digest[i]);
		log_verbose("state of the %s is the source's: %s", i ? "vTPM" : "VM", hex);
	}
	return 0;
}

/* ---- outcomes ---- */

static void refuse(struct receive *r, enum pair_outcome as, const struct err *err)
{
	struct json_object *m = message_new("refused");

	message_add(m, "why", err->text);
	message_add_number(m, "exit", (uint64_t)as);
	wire_send(r->wire, m, NULL);
	wire_close(r->wire, 2000);
	r->wire = NULL;
}

/* Before the promise, or told to: nothing stays. */
static enum pair_outcome give_up(struct receive *r, int why, struct err *err)
{
	struct err second = {0};
	struct json_object *m;
	bool dropped;

	dropped = !settle_sink_drop(r->journal, &r->s, &r->report->receipts, &second);
	if (!dropped)
		log_error("%s", second.text);
	if (!wire_status(r->wire, NULL)) {
		/* -ECANCELED: the source said "abort" and waits for the answer. */
		m = message_new(why == -ECANCELED ? "aborted" : "failed");
		message_add(m, "why", err->text);
		wire_send(r->wire, m, NULL);
	}
	if (why != -ECANCELED && !wire_status(r->wire, NULL)) {
		/* The source rolls back and says so; then our journal has served. */
		if (!message_expect(r->wire, "abort", END_MS, &m, NULL, NULL))
			json_object_put(m);
		if (!wire_status(r->wire, NULL))
			wire_send(r->wire, message_new("aborted"), NULL);
	}
	wire_close(r->wire, 2000);
	r->wire = NULL;
	if (dropped)
		journal_retire(r->journal);
	else
		journal_close(r->journal);
	r->journal = NULL;
	return dropped ? PAIR_ROLLED_BACK : PAIR_IN_DOUBT;
}

static void send_done(struct receive *r, const uint64_t ran_us[PAIR_MEMBERS])
{
	struct json_object *m = message_new("done"), *end;
	uint64_t now = units_now_us();

	message_add_number(m, "vm_ran_us", now - ran_us[PAIR_VM]);
	message_add_number(m, "vtpm_ran_us", now - ran_us[PAIR_VTPM]);
	wire_send(r->wire, m, NULL);
	step(r, STEP_RECEIVE_DONE);
	if (!message_expect(r->wire, "end", END_MS, &end, NULL, NULL)) {
		json_object_put(end);
		journal_retire(r->journal);
		r->journal = NULL;
	} /* else the journal stays: the source may ask again */
	step(r, STEP_RECEIVE_END);
}

static enum pair_outcome start(struct receive *r, struct err *err)
{
	struct pair_hooks hooks = {.ctx = r, .step = step_from_go};
	uint64_t ran_us[PAIR_MEMBERS] = {0};
	int rc;

	step(r, STEP_RECEIVE_GO);
	rc = settle_sink_go(r->journal, &r->s, &hooks, ran_us, err);
	if (!rc)
		rc = journal_append(r->journal, "done", NULL, err);
	if (!rc) {
		send_done(r, ran_us);
		return PAIR_DONE;
	}
	/* Dropped, or not sure: the source will ask, and the journal answers. */
	return rc == -ECANCELED ? PAIR_ROLLED_BACK : PAIR_IN_DOUBT;
}

static enum pair_outcome promise(struct receive *r, struct err *err)
{
	struct json_object *m;
	int rc = journal_append(r->journal, "prepared", NULL, err);

	if (rc)
		return give_up(r, rc, err);
	step(r, STEP_RECEIVE_PREPARED);
	rc = wire_send(r->wire, message_new("prepared"), err);
	if (!rc)
		rc = message_expect(r->wire, "go", (int)(2 * r->conf->limits.rendezvous_us / 1000),
				    &m, NULL, err);
	if (rc == -ECANCELED)
		return give_up(r, rc, err);
	if (rc) { /* promised, and not told: the source's journal decides */
		err_prefix(err, "pair %s waits, paused, for its source's decision",
			   r->report->id);
		return PAIR_IN_DOUBT;
	}
	json_object_put(m);
	return start(r, err);
}

static enum pair_outcome receive_pair(struct receive *r, struct err *err)
{
	int rc = launch(r, err);

	if (!rc) {
		step(r, STEP_RECEIVE_LAUNCHED);
		rc = listen_streams(r, err);
	}
	if (!rc)
		rc = wire_send(r->wire, message_new("reserved"), err);
	if (rc) {
		enum pair_outcome as = rc == -EXDEV ? PAIR_NO : PAIR_REFUSED;

		settle_sink_drop(r->journal, &r->s, NULL, NULL);
		journal_retire(r->journal);
		r->journal = NULL;
		refuse(r, as, err);
		return as;
	}
	step(r, STEP_RECEIVE_DATA);
	rc = take_data(r, err);
	if (!rc)
		rc = await_ready(r, err);
	if (!rc && r->told_late)
		rc = check_identities(r, true, err);
	if (!rc)
		rc = check_digests(r, err);
	count(r);
	if (rc)
		return give_up(r, rc, err);
	step(r, STEP_RECEIVE_RESTORED);
	return promise(r, err);
}

/* Memory that is not this system's: only the kind can tell, and launch() starts nothing of such a one. */
static int ask_beneath(struct receive *r, struct err *err)
{
	int rc = 0;

	for (unsigned k = PAIR_MEMBERS; !rc && k-- > 0;)
		if (r->s.driver[k]->beneath)
			rc = r->s.driver[k]->sink->launch(r->s.m[k], err);
	return rc;
}

static enum pair_outcome serve_hello(struct receive *r, struct json_object *m, struct err *err)
{
	int rc = read_hello(r, m, err);

	if (!rc) {
		step(r, STEP_RECEIVE_REQUEST);
		rc = find_place(r, err);
	}
	if (!rc)
		rc = reserve(r, err);
	if (!rc && r->dry_run)
		rc = ask_beneath(r, err);
	if (rc) {
		refuse(r, rc == -EXDEV ? PAIR_NO : PAIR_REFUSED, err);
		if (r->place.dir[0])
			rmdir(r->place.dir);
		journal_retire(r->journal); /* opened, but not written: the disk is full */
		r->journal = NULL;
		return rc == -EXDEV ? PAIR_NO : PAIR_REFUSED;
	}
	if (r->dry_run) {
		wire_send(r->wire, message_new("reserved"), NULL);
		rmdir(r->place.dir);
		return PAIR_DONE;
	}
	step(r, STEP_RECEIVE_RESERVED);
	return receive_pair(r, err);
}

static enum pair_outcome serve_resolve(struct receive *r, struct json_object *m, struct err *err)
{
	struct json_object *answer = message_new("resolved"), *end;
	const char *state = settle_answer(r->conf, message_text(m, "id"), message_text(m, "token"),
					  message_text(m, "decision"), &r->journal, err);

	log_note("pair %s: its source asks (%s): %s", message_text(m, "id"),
		 message_text(m, "decision"), state);
	message_add(answer, "state", state);
	if (!wire_send(r->wire, answer, err) &&
	    !message_expect(r->wire, "end", REQUEST_MS, &end, NULL, NULL)) {
		json_object_put(end);
		if (strcmp(state, "done") == 0 || strcmp(state, "dropped") == 0) {
			journal_retire(r->journal);
			r->journal = NULL;
		}
	}
	return PAIR_DONE;
}

static enum pair_outcome serve(struct receive *r, struct err *err)
{
	struct json_object *m = message_new("challenge");
	enum pair_outcome out;
	const char *type;
	int rc;

	message_add_number(m, "version", PAIR_VERSION);
	message_add(m, "nonce", r->nonce);
	rc = wire_send(r->wire, m, err);
	if (!rc)
		rc = wire_recv(r->wire, REQUEST_MS, &m, err);
	if (rc)
		return PAIR_REFUSED;
	type = message_text(m, "type");
	rc = check_greeting(r, m, err);
	if (!rc && strcmp(type, "hello") != 0 && strcmp(type, "resolve") != 0)
		rc = err_set(err, -EPROTO, "read request: '%.32s' where 'hello' was due", type);
	if (rc) {
		refuse(r, PAIR_REFUSED, err);
		out = PAIR_REFUSED;
	} else {
		out = !strcmp(type, "hello") ? serve_hello(r, m, err) : serve_resolve(r, m, err);
	}
	json_object_put(m);
	return out;
}

enum pair_outcome pair_receive(const struct pair_receive *conf, struct net_conn *conn,
			       struct pair_report *report, struct err *err)
{
	struct wire_conf wc = {.silence_ms = (int)(conf->limits.silence_us / 1000)};
	struct receive r = {.conf = conf, .report = report};
	enum pair_outcome out;

	report->begun_realtime_us = units_realtime_us();
	report->begun_us = units_now_us();
	if (message_nonce(r.nonce, 32, err)) {
		net_conn_close(conn);
		return PAIR_REFUSED;
	}
	if (wire_start(conn, &wc, &r.wire, err))
		return PAIR_REFUSED;
	out = serve(&r, err);
	wire_close(r.wire, 2000);
	journal_close(r.journal);
	settle_sink_close(&r.s);
	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		json_object_put(r.place.place[i]);
	return out;
}
