/* SPDX-License-Identifier: MIT */
/* What the verbs of cump-migrate share: options, the pair on the command line, the report. */
#ifndef CUMP_CUMP_H
#define CUMP_CUMP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cli.h"
#include "base/progress.h"
#include "pair/pair.h"

struct cump_opts {
	const char *vm, *vtpm;				/* PAIR */
	const char *tls, *psk, *peer_name;		/* keys */
	const char *policy; /* of the union engine */
	bool verify, offline;
	bool insecure;
	const char *state_dir, *run_dir, *pairs;
	const char *pair_file;
	uint64_t budget_us, timeout_us, rendezvous_us, silence_us, max_rounds;
	uint32_t level;
	bool no_compress, dry_run, json, once, accept_handed, all, no_wait;
	const char *debug_at, *debug_streams;
	bool debug_steps;
};
extern struct cump_opts cump_opts;

/* The verbs; each returns an exit status. */
int cump_check(int argc, char **argv);
int cump_send(int argc, char **argv);
int cump_receive(int argc, char **argv);
int cump_status(int argc, char **argv);
int cump_cancel(int argc, char **argv);
int cump_recover(int argc, char **argv);

/* The two members named by --vm and --vtpm. @where: new objects, caller owns. 0 or an exit status. */
int cump_pair(const struct pair_driver *driver[PAIR_MEMBERS],
	      struct json_object *where[PAIR_MEMBERS]);

/* Journals: --state-dir, or by default one folder for root and one a user. */
const char *cump_state_dir(void);
const char *cump_run_dir(void);

/* Keys from the options; 0 or an exit status. @conf_json (may be NULL): for the journal, caller frees. */
int cump_security(bool server, struct net_security **sec, char **conf_json);

struct pair_limits cump_limits(void);

/* Hooks: progress, steps (--debug-at), SIGINT and SIGTERM as cancellation. */
struct cump_watch {
	struct progress bar;
	char status_path[4300]; /* where `status` looks for figures; "" none */
};
void cump_watch_begin(struct cump_watch *w, struct pair_hooks *hooks);
void cump_watch_end(struct cump_watch *w);
int cump_signal(void); /* the signal that came, or 0 */

/* Report to stdout (text or JSON), error to stderr; returns the exit status. */
int cump_finish(const struct pair_report *r, enum pair_outcome outcome, const struct err *err);

#endif
