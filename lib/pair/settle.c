/* SPDX-License-Identifier: MIT */
/* The source's questions to a sink it lost sight of, and what follows from the answers. */
#include "pair/settle.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/units.h"
#include "pair/message.h"

#define CONNECT_MS 3000
#define ANSWER_MS 30000 /* the sink may have to start or end two hypervisors first */
#define AGAIN_MS 250
#define SILENCE_MS 10000

void settle_release(const struct pair_driver *const driver[PAIR_MEMBERS],
		    void *const m[PAIR_MEMBERS], struct json_object **receipts)
{
	*receipts = json_object_new_array();
	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		struct json_object *r = NULL;
		struct err err = {0};

		if (driver[i]->source->release(m[i], &r, &err))
			log_error("%s", err.text);
		if (r)
			json_object_array_add(*receipts, r);
	}
}

/* -ESRCH only if that is all: a member whose process is gone, which nobody can resume. */
int settle_resume(const struct pair_driver *const driver[PAIR_MEMBERS],
		  void *const m[PAIR_MEMBERS], struct err *err)
{
	int worst = 0;

	for (unsigned k = PAIR_MEMBERS; k-- > 0;) {
		bool mild = !worst || worst == -ESRCH;
		int rc = driver[k]->source->resume(m[k], mild ? err : NULL);

		worst = rc && mild ? rc : worst;
	}
	return worst;
}

/* ---- one question ---- */

static struct net_security *security_from(struct json_object *begin, struct err *err)
{
	struct net_security_conf conf = {0};
	struct net_security *sec = NULL;
	struct json_object *o, *v;

	if (!json_object_object_get_ex(begin, "security", &o)) {
		err_set(err, -EINVAL, "ask destination: the journal names no keys: give --tls or --psk");
		return NULL;
	}
	conf.tls_dir = message_text(o, "tls_dir")[0] ? message_text(o, "tls_dir") : NULL;
	conf.psk_file = message_text(o, "psk_file")[0] ? message_text(o, "psk_file") : NULL;
	conf.peer_name = message_text(o, "peer_name")[0] ? message_text(o, "peer_name") : NULL;
	conf.insecure = json_object_object_get_ex(o, "insecure", &v) && json_object_get_boolean(v);
	net_security_new(&conf, &sec, err);
	return sec;
}

static int put_question(struct wire *w, struct json_object *begin, const char *decision,
			char state[16], struct err *err)
{
	struct json_object *m, *q;
	int rc = message_expect(w, "challenge", CONNECT_MS, &m, NULL, err);

	if (rc)
		return rc;
	q = message_new("resolve");
	message_add_number(q, "version", PAIR_VERSION);
	message_add(q, "nonce", message_text(m, "nonce"));
	message_add(q, "id", message_text(begin, "id"));
	message_add(q, "token", message_text(begin, "token"));
	message_add(q, "decision", decision);
	json_object_put(m);
	rc = wire_send(w, q, err);
	if (!rc)
		rc = message_expect(w, "resolved", ANSWER_MS, &m, NULL, err);
	if (rc)
		return rc;
	snprintf(state, 16, "%s", message_text(m, "state"));
	json_object_put(m);
	return 0;
}

/* Ask until there is an answer that settles, or patience is over. *@wire stays open on 0. */
static int ask_sink(struct json_object *begin, const struct settle_ask *ask, const char *decision,
		    char state[16], struct wire **wire, struct err *err)
{
	uint64_t until = units_now_us() + (uint64_t)ask->patience_ms * 1000;
	struct net_security *own = ask->security ? NULL : security_from(begin, err);
	struct net_security *security = ask->security ? ask->security : own;
	static const struct wire_conf wc = {.silence_ms = SILENCE_MS};
	static const struct timespec again = {0, AGAIN_MS * 1000000l};
	struct net_addr dest;
	int rc = ask->dest ? 0 : net_addr_parse(message_text(begin, "dest"), &dest, err);

	if (!security || rc) {
		net_security_free(own);
		return rc ? rc : -EINVAL;
	}
	for (;;) {
		*wire = NULL;
		rc = wire_connect(ask->dest ? ask->dest : &dest, security, CONNECT_MS, &wc, wire, err);
		if (!rc)
			rc = put_question(*wire, begin, decision, state, err);
		if (!rc && strcmp(state, "busy") != 0)
			break;
		wire_close(*wire, 0);
		if (!rc)
			rc = err_set(err, -EBUSY, "ask destination: it is still at it");
		if (units_now_us() > until)
			break;
		nanosleep(&again, NULL);
	}
	net_security_free(own);
	return rc;
}

static void heard(struct wire *w, struct journal **j)
{
	wire_send(w, message_new("end"), NULL);
	wire_close(w, 2000);
	journal_retire(*j);
	*j = NULL;
}

/* ---- what follows ---- */

int settle_tell_abort(struct journal **j, const struct settle_ask *ask, struct err *err)
{
	struct json_object *begin = journal_find(*j, "begin");
	struct wire *w;
	char state[16];
	int rc = ask_sink(begin, ask, "abort", state, &w, err);

	if (rc)
		return rc;
	if (!strcmp(state, "done")) { /* cannot be: it was never told to go */
		wire_close(w, 0);
		return err_set(err, -EILSEQ, "tell destination: it says that it started the pair");
	}
	heard(w, j);
	return 0;
}

void settle_tell_end(struct journal **j, const struct settle_ask *ask)
{
	struct wire *w;
	char state[16];

	if (!ask_sink(journal_find(*j, "begin"), ask, "go", state, &w, NULL))
		heard(w, j);
}

enum pair_outcome settle_after_go(struct journal **j, const struct settle_ask *ask,
				  const struct pair_driver *const driver[PAIR_MEMBERS],
				  void *const m[PAIR_MEMBERS], struct pair_report *report,
				  struct err *err)
{
	struct json_object *receipts = NULL;
	struct wire *w;
	char state[16];
	int rc = ask_sink(journal_find(*j, "begin"), ask, "go", state, &w, err);

	if (rc)
		return PAIR_IN_DOUBT;
	if (!strcmp(state, "done")) {
		if (journal_append(*j, "done", NULL, err))
			log_error("%s", err->text);
		settle_release(driver, m, &receipts);
		if (report)
			report->receipts = receipts;
		else
			json_object_put(receipts);
		heard(w, j);
		return PAIR_DONE;
	}
	if (!strcmp(state, "dropped")) {
		rc = journal_append(*j, "aborted", NULL, err);
		if (!rc)
			rc = settle_resume(driver, m, err);
		if (rc && rc != -ESRCH) {
			wire_close(w, 0);
			return PAIR_IN_DOUBT;
		}
		heard(w, j);
		err_set(err, -ECANCELED, "move pair: the destination could not start it and gave it up");
		return PAIR_ROLLED_BACK;
	}
	wire_close(w, 0);
	err_set(err, -ENOENT, "ask destination: it knows nothing of pair %s (wrong state folder?)",
		message_text(journal_find(*j, "begin"), "id"));
	return PAIR_IN_DOUBT;
}
