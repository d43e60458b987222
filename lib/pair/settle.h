/* SPDX-License-Identifier: MIT */
/* Settling what a cut left open: the source's questions to the sink, by a connection of its own. */
#ifndef PAIR_SETTLE_H
#define PAIR_SETTLE_H

#include "pair/pair.h"

/* What a question needs besides the journal, which names destination and keys itself. */
struct settle_ask {
	struct net_security *security; /* NULL: by the journal's own "security" */
	const struct net_addr *dest;   /* NULL: the journal's own "dest" */
	int patience_ms;	       /* go on asking for so long */
};

/*
 * The source rolled back: tell the sink. Retires *@j (and sets it to NULL) when the sink
 * has dropped its copies or knows of none; else -errno, and the journal stays for `recover`.
 */
int settle_tell_abort(struct journal **j, const struct settle_ask *ask, struct err *err);

/*
 * The source's copies are gone: let the sink file its journal. A courtesy, tried for as long
 * as @ask has patience; *@j is retired and NULL if the sink heard it.
 */
void settle_tell_end(struct journal **j, const struct settle_ask *ask);

/*
 * "go" is durable and no "done" was heard: ask the sink. On its "done" the members are
 * released, on its "dropped" they are resumed; both retire *@j (set to NULL). Else
 * PAIR_IN_DOUBT. @report may be NULL.
 */
enum pair_outcome settle_after_go(struct journal **j, const struct settle_ask *ask,
				  const struct pair_driver *const driver[PAIR_MEMBERS],
				  void *const m[PAIR_MEMBERS], struct pair_report *report,
				  struct err *err);

/* End the source's copies; *@receipts: a new array, caller owns. Errors are logged. */
void settle_release(const struct pair_driver *const driver[PAIR_MEMBERS],
		    void *const m[PAIR_MEMBERS], struct json_object **receipts);

/* Resume the source's members, the vTPM first. -ESRCH if the worst is that the process of one
 * is gone: it is lost, and leaves nothing to settle. */
int settle_resume(const struct pair_driver *const driver[PAIR_MEMBERS],
		  void *const m[PAIR_MEMBERS], struct err *err);

/* ---- the sink's own side ---- */

/* Where a sink's journal is: its members opened by it. Free with settle_sink_close. */
struct settle_sink {
	const struct pair_driver *driver[PAIR_MEMBERS];
	void *m[PAIR_MEMBERS];
	bool runs[PAIR_MEMBERS]; /* they ran at the source: they shall run here */
	char dir[108];
};
int settle_sink_open(struct journal *j, const struct pair_driver *(*find)(const char *),
		     struct settle_sink *s, struct err *err);
void settle_sink_close(struct settle_sink *s);

/* End both, destroy what they left, write "dropped". *@receipts: array, caller owns; may be NULL. */
int settle_sink_drop(struct journal *j, struct settle_sink *s, struct json_object **receipts,
		     struct err *err);

/*
 * Start both, the vTPM first. If one of them cannot be started and the VM has not run yet,
 * both are dropped: -ECANCELED. @hooks may be NULL. ran_us: monotonic time each was started.
 */
int settle_sink_go(struct journal *j, struct settle_sink *s, const struct pair_hooks *hooks,
		   uint64_t ran_us[PAIR_MEMBERS], struct err *err);

/*
 * Answer a source's question about transaction @id: "done", "dropped", "unknown", "busy".
 * *@j (may come back NULL) stays open until the source has said that it heard the answer.
 */
const char *settle_answer(const struct pair_receive *conf, const char *id, const char *token,
			  const char *decision, struct journal **j, struct err *err);

#endif
