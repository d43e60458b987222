/* SPDX-License-Identifier: MIT */
/* What a sink does with its members, in the normal course and after a crash: go, drop, answer. */
#include <errno.h>
#include <ftw.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"
#include "base/units.h"
#include "pair/message.h"
#include "pair/settle.h"

int settle_sink_open(struct journal *j, const struct pair_driver *(*find)(const char *),
		     struct settle_sink *s, struct err *err)
{
	struct json_object *e = journal_find(j, "launched"), *members, *o, *place, *runs;

	memset(s, 0, sizeof(*s));
	if (!e)
		e = journal_find(j, "reserved");
	if (!e || !json_object_object_get_ex(e, "members", &members) ||
	    json_object_array_length(members) != PAIR_MEMBERS)
		return err_set(err, -EBADMSG, "read %s: no members in it", journal_path(j));
	snprintf(s->dir, sizeof(s->dir), "%s", message_text(journal_find(j, "reserved"), "dir"));
	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		int rc;

		o = json_object_array_get_idx(members, i);
		s->driver[i] = find(message_text(o, "kind"));
		if (!s->driver[i] || !json_object_object_get_ex(o, "place", &place))
			return err_set(err, -EBADMSG, "read %s: unknown kind of member",
				       journal_path(j));
		s->runs[i] = !json_object_object_get_ex(o, "runs", &runs) ||
			     json_object_get_boolean(runs);
		rc = s->driver[i]->sink->open(place, &s->m[i], err);
		if (rc)
			return rc;
	}
	return 0;
}

void settle_sink_close(struct settle_sink *s)
{
	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		if (s->m[i])
			s->driver[i]->sink->close(s->m[i]);
	memset(s, 0, sizeof(*s));
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

int settle_sink_drop(struct journal *j, struct settle_sink *s, struct json_object **receipts,
		     struct err *err)
{
	struct json_object *all = json_object_new_array(), *e;
	int first = 0;

	/* The VM before the vTPM it uses. */
	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		struct json_object *r = NULL;
		int rc = s->m[i] ? s->driver[i]->sink->drop(s->m[i], &r, first ? NULL : err) : 0;

		if (r)
			json_object_array_add(all, r);
		first = first ? first : rc;
	}
	if (s->dir[0] && !first)
		nftw(s->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	if (!first) {
		e = json_object_new_object();
		json_object_object_add(e, "receipts", json_object_get(all));
		first = journal_append(j, "dropped", e, err);
	}
	if (receipts)
		*receipts = all;
	else
		json_object_put(all);
	return first;
}

static void tell_step(const struct pair_hooks *hooks, enum pair_step step)
{
	log_verbose("%s: %s", pair_step_name(step), pair_step_what(step));
	if (hooks && hooks->step)
		hooks->step(hooks->ctx, step);
}

int settle_sink_go(struct journal *j, struct settle_sink *s, const struct pair_hooks *hooks,
		   uint64_t ran_us[PAIR_MEMBERS], struct err *err)
{
	struct err second = {0};
	int rc = 0;

	thread_urgent(); /* the first one that runs keeps this system busy, and the other waits for it */
	for (unsigned k = PAIR_MEMBERS; !rc && k-- > 0;) {
		if (s->runs[k])
			rc = s->driver[k]->sink->go(s->m[k], err);
		ran_us[k] = units_now_us();
		if (!rc)
			tell_step(hooks, k ? STEP_RECEIVE_VTPM : STEP_RECEIVE_STARTED);
	}
	thread_normal();
	for (unsigned i = 0; !rc && i < PAIR_MEMBERS; i++)
		if (!s->driver[i]->sink->alive(s->m[i]))
			rc = err_set(err, -ECHILD, "start pair: its %s ended at once",
				     i ? "vTPM" : "VM");
	if (!rc)
		return 0;
	if (settle_sink_drop(j, s, NULL, &second)) {
		log_error("%s", second.text);
		return rc;
	}
	return -ECANCELED;
}

/* ---- a source's question ---- */

static bool same_token(struct journal *j, const char *token)
{
	const char *own = message_text(journal_find(j, "reserved"), "token");

	return own[0] && !strcmp(own, token);
}

/* Finished pairs are looked up too: the source may have died before it heard. */
static const char *archived(const struct pair_receive *conf, const char *id)
{
	char pattern[4300];
	const char *answer = "unknown";
	glob_t g;

	snprintf(pattern, sizeof(pattern), "%s/done/*-%s.sink", conf->state_dir, id);
	if (glob(pattern, 0, NULL, &g))
		return answer;
	for (size_t i = 0; i < g.gl_pathc; i++) {
		bool live;
		struct json_object *all = journal_read(g.gl_pathv[i], &live, NULL), *last;

		if (!all || !json_object_array_length(all)) {
			json_object_put(all);
			continue;
		}
		last = json_object_array_get_idx(all, json_object_array_length(all) - 1);
		answer = !strcmp(message_text(last, "state"), "done") ? "done" : "dropped";
		json_object_put(all);
	}
	globfree(&g);
	return answer;
}

/* A sink that has promised and is told "go"; or anything else, which is dropped. */
static const char *carry_out(const struct pair_receive *conf, struct journal *j, bool go,
			     struct err *err)
{
	uint64_t ran_us[PAIR_MEMBERS];
	struct settle_sink s;
	const char *answer = "busy"; /* ask again */
	int rc = settle_sink_open(j, conf->find_driver, &s, err);

	if (!rc && go) {
		rc = settle_sink_go(j, &s, NULL, ran_us, err);
		if (!rc)
			rc = journal_append(j, "done", NULL, err);
		if (!rc)
			answer = "done";
		else if (rc == -ECANCELED)
			answer = "dropped";
	} else if (!rc && !settle_sink_drop(j, &s, NULL, err)) {
		answer = "dropped";
	}
	settle_sink_close(&s);
	return answer;
}

const char *settle_answer(const struct pair_receive *conf, const char *id, const char *token,
			  const char *decision, struct journal **j, struct err *err)
{
	char name[64];
	const char *state;
	int rc;

	snprintf(name, sizeof(name), "%s.sink", id);
	rc = journal_open(conf->state_dir, name, false, j, err);
	if (rc) {
		*j = NULL;
		return rc == -EBUSY ? "busy" : archived(conf, id);
	}
	if (!same_token(*j, token)) {
		err_set(err, -EACCES, "answer for pair %s: wrong token", id);
		journal_close(*j);
		*j = NULL;
		return "unknown";
	}
	state = journal_state(*j);
	if (!strcmp(state, "done") || !strcmp(state, "dropped"))
		return state;
	return carry_out(conf, *j, !strcmp(state, "prepared") && !strcmp(decision, "go"), err);
}
