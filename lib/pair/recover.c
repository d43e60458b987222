/* SPDX-License-Identifier: MIT */
/* Settle what crashes and cuts left open, from the journals. */
#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "pair/message.h"
#include "pair/settle.h"

#define PATIENCE_MS 5000

struct case_ {
	const struct pair_recover *conf;
	struct journal *journal;
	const char *id, *role;
};

static void say(const struct case_ *c, const char *outcome, const char *detail)
{
	c->conf->say(c->conf->ctx, c->id, c->role, outcome, detail);
}

/* The source's members, by the newest entry that tells where they are. */
static int open_source(const struct case_ *c, const struct pair_driver *driver[PAIR_MEMBERS],
		       void *m[PAIR_MEMBERS], struct err *err)
{
	struct json_object *e = journal_find(c->journal, "started"), *members, *where;

	if (!e)
		e = journal_find(c->journal, "begin");
	if (!e || !json_object_object_get_ex(e, "members", &members) ||
	    json_object_array_length(members) != PAIR_MEMBERS)
		return err_set(err, -EBADMSG, "read %s: no members in it", journal_path(c->journal));
	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		struct json_object *o = json_object_array_get_idx(members, i);
		int rc;

		driver[i] = c->conf->find_driver(message_text(o, "kind"));
		if (!driver[i] || !json_object_object_get_ex(o, "where", &where))
			return err_set(err, -EBADMSG, "read %s: unknown kind of member",
				       journal_path(c->journal));
		rc = driver[i]->source->open(where, &m[i], err);
		if (rc)
			return rc;
	}
	return 0;
}

static bool state_is(const struct case_ *c, const char *state)
{
	return !strcmp(journal_state(c->journal), state);
}

/*
 * Nobody was ever told to go: the source runs, and the destination hears that it is off. A
 * member whose process is gone (killed, or its host was restarted) keeps nothing open: what
 * is left of the pair runs here.
 */
static int source_abort(struct case_ *c, const struct pair_driver *const driver[PAIR_MEMBERS],
			void *const m[PAIR_MEMBERS], struct err *err)
{
	struct settle_ask ask = {c->conf->security, c->conf->dest, PATIENCE_MS};
	char gone[sizeof(err->text)] = "";
	int rc = 0;

	if (!state_is(c, "aborted"))
		rc = journal_append(c->journal, "aborted", NULL, err);
	if (!rc)
		rc = settle_resume(driver, m, err);
	if (rc == -ESRCH) {
		snprintf(gone, sizeof(gone), "%s", err->text);
	} else if (rc) {
		say(c, "in doubt", err->text);
		return 1;
	}
	if (settle_tell_abort(&c->journal, &ask, err)) {
		say(c, "runs at the source; the destination was not told", err->text);
		return 1;
	}
	say(c, gone[0] ? "what is left of it runs at the source" : "runs at the source",
	    gone[0] ? gone : "rolled back");
	return 0;
}

static int source_done(struct case_ *c, const struct pair_driver *const driver[PAIR_MEMBERS],
		       void *const m[PAIR_MEMBERS])
{
	struct settle_ask ask = {c->conf->security, c->conf->dest, 0};
	struct json_object *receipts;

	settle_release(driver, m, &receipts);
	json_object_put(receipts);
	settle_tell_end(&c->journal, &ask);
	journal_retire(c->journal);
	c->journal = NULL;
	say(c, "runs at the destination", "the copies here are destroyed");
	return 0;
}

static int source_go(struct case_ *c, const struct pair_driver *const driver[PAIR_MEMBERS],
		     void *const m[PAIR_MEMBERS], struct err *err)
{
	struct settle_ask ask = {c->conf->security, c->conf->dest, PATIENCE_MS};
	enum pair_outcome out;

	if (c->conf->decision && !strcmp(c->conf->decision, "abort")) {
		/* The operator vouches that nothing of it runs, or will run, at the destination. */
		if (journal_append(c->journal, "aborted", NULL, err))
			return 1;
		return source_abort(c, driver, m, err);
	}
	out = settle_after_go(&c->journal, &ask, driver, m, NULL, err);
	if (out == PAIR_IN_DOUBT)
		say(c, "in doubt, paused here", err->text);
	else
		say(c, out == PAIR_DONE ? "runs at the destination" : "runs at the source", "");
	return out == PAIR_IN_DOUBT;
}

static int recover_source(struct case_ *c, struct err *err)
{
	const struct pair_driver *driver[PAIR_MEMBERS] = {NULL};
	void *m[PAIR_MEMBERS] = {NULL};
	int left = 1;

	if (open_source(c, driver, m, err))
		say(c, "in doubt", err->text);
	else if (c->conf->dry_run)
		say(c, journal_state(c->journal), "would be settled");
	else if (state_is(c, "go"))
		left = source_go(c, driver, m, err);
	else if (state_is(c, "done") || state_is(c, "released"))
		left = source_done(c, driver, m);
	else
		left = source_abort(c, driver, m, err);
	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		if (driver[i] && m[i])
			driver[i]->source->close(m[i]);
	return left;
}

/* ---- sink ---- */

static int sink_by_operator(struct case_ *c, struct settle_sink *s, struct err *err)
{
	uint64_t ran_us[PAIR_MEMBERS];
	int rc;

	if (!strcmp(c->conf->decision, "abort")) {
		rc = settle_sink_drop(c->journal, s, NULL, err);
		say(c, rc ? "in doubt" : "dropped", rc ? err->text : "by the operator's word");
		return rc != 0;
	}
	rc = settle_sink_go(c->journal, s, NULL, ran_us, err);
	if (!rc)
		rc = journal_append(c->journal, "done", NULL, err);
	say(c, rc ? "not started" : "runs here", rc ? err->text : "by the operator's word");
	return rc != 0;
}

static int recover_sink(struct case_ *c, struct err *err)
{
	struct settle_sink s;
	int left = 0;

	if (state_is(c, "done") || state_is(c, "dropped")) {
		const char *what = state_is(c, "done") ? "runs here" : "dropped";

		/* Settled here; its source may still ask, and is answered out of done/. */
		if (!c->conf->dry_run) {
			journal_retire(c->journal);
			c->journal = NULL;
		}
		say(c, what, "its source may still ask");
		return 0;
	}
	if (settle_sink_open(c->journal, c->conf->find_driver, &s, err)) {
		say(c, "in doubt", err->text);
		return 1;
	}
	if (c->conf->dry_run) {
		say(c, journal_state(c->journal), "would be settled");
	} else if (!state_is(c, "prepared")) { /* no promise was given */
		if (settle_sink_drop(c->journal, &s, NULL, err)) {
			say(c, "in doubt", err->text);
			left = 1;
		} else {
			say(c, "dropped", "it had not been promised");
		}
	} else if (c->conf->decision) {
		left = sink_by_operator(c, &s, err);
	} else {
		say(c, "in doubt, paused here",
		    "its source decides: run 'cump-migrate recover' there");
		left = 1;
	}
	settle_sink_close(&s);
	if (!left && !c->conf->dry_run) {
		journal_retire(c->journal);
		c->journal = NULL;
	}
	return left;
}

static int recover_one(const struct pair_recover *conf, const char *path)
{
	struct err err = {0};
	const char *name = strrchr(path, '/') + 1, *dot = strrchr(name, '.');
	char dir[4096], id[64];
	struct case_ c = {.conf = conf, .id = id, .role = dot + 1};
	int left;

	snprintf(id, sizeof(id), "%.*s", (int)(dot - name), name);
	snprintf(dir, sizeof(dir), "%.*s", (int)(name - path - 1), path);
	if (conf->only_id && strcmp(conf->only_id, id) != 0)
		return 0;
	if (journal_open(dir, name, false, &c.journal, &err)) {
		if (err.code == -EBUSY)
			say(&c, "under way", "a live process holds it");
		else
			say(&c, "in doubt", err.text);
		return err.code != -EBUSY;
	}
	if (!json_object_array_length(journal_entries(c.journal))) {
		journal_retire(c.journal); /* opened, and nothing was ever promised or done */
		return 0;
	}
	left = !strcmp(c.role, "source") ? recover_source(&c, &err) : recover_sink(&c, &err);
	journal_close(c.journal);
	return left;
}

int pair_recover(const struct pair_recover *conf, struct err *err)
{
	char pattern[4200];
	int left = 0;
	glob_t g = {0};

	snprintf(pattern, sizeof(pattern), "%s/*.sink", conf->state_dir);
	glob(pattern, 0, NULL, &g);
	snprintf(pattern, sizeof(pattern), "%s/*.source", conf->state_dir);
	if (!conf->sinks_only && glob(pattern, GLOB_APPEND, NULL, &g) == GLOB_NOSPACE)
		return err_set(err, -ENOMEM, "read %s: out of memory", conf->state_dir);
	for (size_t i = 0; i < g.gl_pathc; i++)
		left += recover_one(conf, g.gl_pathv[i]);
	globfree(&g);
	return left;
}
