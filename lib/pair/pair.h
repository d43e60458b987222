/* SPDX-License-Identifier: MIT */
/*
 * The coordinator: two members leave one host and arrive at another, both or neither.
 *
 * A durable two-phase commit. The source decides; its journal is the truth:
 *	source   begin → started → go → done            or → aborted
 *	sink     reserved → launched → prepared → done  or → dropped
 * Before "go" is durable the source may always roll back by itself. After it the source
 * never resumes by itself: only the sink's word "dropped" (a promise never to start them)
 * lets it. A sink that has promised ("prepared") and hears nothing stays paused, and its
 * journal waits for the source's decision.
 */
#ifndef PAIR_PAIR_H
#define PAIR_PAIR_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <json-c/json.h>

#include "base/err.h"
#include "base/journal.h"
#include "net/addr.h"
#include "net/conn.h"
#include "pair/budget.h"
#include "pair/member.h"
#include "pair/step.h"
#include "pair/wire.h"

#define PAIR_VERSION 2
#define PAIR_ID_SIZE 37

enum pair_outcome {
	PAIR_DONE = 0,	  /* both run at the destination */
	PAIR_NO = 1,	  /* the pair is not one: nothing was changed */
	PAIR_REFUSED = 3, /* nothing was changed */
	PAIR_ROLLED_BACK = 4, /* both run at the source, as before */
	PAIR_IN_DOUBT = 5,    /* both paused: `recover` settles it */
	PAIR_TIMED_OUT = 124, /* as ROLLED_BACK: a deadline passed */
};

struct pair_member_report {
	struct pair_identity id;
	bool streams;
	uint64_t rounds, zero_pages, normal_pages, deferred_pages, resent_pages;
	uint64_t raw_bytes, wire_bytes;
	uint64_t stopped_at_us, started_at_us; /* source's clock (monotonic) */
	uint64_t downtime_us;
};

struct pair_report {
	char id[PAIR_ID_SIZE];
	uint64_t begun_realtime_us, begun_us; /* both clocks at the beginning */
	uint64_t step_us[STEP_COUNT];	      /* monotonic; 0: not reached */
	uint64_t total_us;		      /* request to started */
	uint64_t stop_skew_us, downtime_us;   /* joint: first stop to last start */
	bool forced;			      /* stopped beyond the budget */
	struct pair_member_report member[PAIR_MEMBERS];
	struct json_object *receipts; /* array: what was destroyed at the losing side */
};

struct pair_progress {
	const struct pair_report *report;
	const char *phase;
	struct {
		uint64_t total, remaining, round, rate; /* rate: dirty bytes/s */
		bool parked;
	} member[PAIR_MEMBERS];
	uint64_t bandwidth, downtime_us; /* bytes/s; estimate */
};

struct pair_hooks {
	void *ctx;
	void (*step)(void *ctx, enum pair_step step);
	void (*progress)(void *ctx, const struct pair_progress *p);
	int (*cancelled)(void *ctx); /* 0, or the signal number that asks to roll back */
};

struct pair_limits {
	uint64_t budget_us;	  /* joint downtime */
	uint64_t max_rounds;	  /* then stop all the same */
	uint64_t timeout_us;	  /* of the pre-copy as a whole; 0: none */
	uint64_t rendezvous_us;	  /* from the stop to the promise; then both run on at the source */
	uint64_t silence_us;	  /* nothing heard from the other end: the link is dead */
	bool compress;
	uint32_t zstd_level;
};

/* ---- source ---- */

struct pair_send {
	const struct pair_driver *driver[PAIR_MEMBERS];
	struct json_object *where[PAIR_MEMBERS]; /* borrowed */
	struct net_addr dest;
	struct net_security *security;
	const char *security_conf; /* JSON text, kept in the journal for recover */
	const char *pair_file;	   /* handed over in the stream; NULL: the destination has its own */
	const char *state_dir;
	struct pair_limits limits;
	struct pair_hooks hooks;
	bool dry_run; /* ask the destination, reserve nothing, move nothing */
};

/* Move the pair. @report is filled as far as it got; free report->receipts. */
enum pair_outcome pair_send(const struct pair_send *conf, struct pair_report *report,
			    struct err *err);

/*
 * Identify both and check that they are bound to each other. -ENXIO: the VM has no vTPM;
 * -EXDEV: they do not belong together; other: a member cannot be asked.
 */
int pair_identify(const struct pair_driver *const driver[PAIR_MEMBERS],
		  struct json_object *const where[PAIR_MEMBERS],
		  struct pair_identity id[PAIR_MEMBERS], struct err *err);

/* ---- destination ---- */

struct pair_place { /* where a pair will live here, out of its pair file */
	const struct pair_driver *driver[PAIR_MEMBERS];
	struct json_object *place[PAIR_MEMBERS]; /* owned */
	char dir[108]; /* its run folder, made by the receiver; removed on roll-back */
	char uuid[PAIR_MEMBERS][37]; /* whom it is for; "" any */
};

struct pair_receive {
	const char *state_dir;
	struct pair_limits limits;
	struct pair_hooks hooks;
	void *ctx;
	/* Find the place for this pair (@handed: a pair file's text from the source, or NULL).
	 * -ENOENT: none; -EACCES: handed over but not allowed. */
	int (*find_place)(void *ctx, const char *id, const struct pair_identity ident[PAIR_MEMBERS],
			  const char *handed, struct pair_place *place, struct err *err);
	/* Name → driver, for journals. */
	const struct pair_driver *(*find_driver)(const char *kind);
};

/* Serve one connection to its end (takes it over): a pair, or a recover. */
enum pair_outcome pair_receive(const struct pair_receive *conf, struct net_conn *conn,
			       struct pair_report *report, struct err *err);

/* ---- both ---- */

/*
 * Settle every transaction in the state folder that no live process holds. The source
 * asks the destination it names. Number of transactions that stay in doubt, or -errno.
 * @say gets one line for each.
 */
struct pair_recover {
	const char *state_dir;
	const char *only_id;	/* NULL: all */
	const char *decision;	/* NULL, or "abort"/"go": the operator's word for a sink in doubt */
	struct net_security *security; /* NULL: nothing remote can be asked */
	const struct net_addr *dest;   /* NULL: the one in the journal */
	const struct pair_driver *(*find_driver)(const char *kind);
	void (*say)(void *ctx, const char *id, const char *role, const char *outcome,
		    const char *detail);
	void *ctx;
	bool dry_run;
	bool sinks_only;
};
int pair_recover(const struct pair_recover *conf, struct err *err);

/* "done", "rolled-back", …: as in the reports. */
const char *pair_outcome_word(enum pair_outcome outcome);

/* The report as text or JSON object (caller owns), for a given outcome. */
struct json_object *pair_report_json(const struct pair_report *r, enum pair_outcome outcome,
				     const char *error);
void pair_report_text(const struct pair_report *r, enum pair_outcome outcome, FILE *to);

#endif
