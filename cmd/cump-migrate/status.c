/* SPDX-License-Identifier: MIT */
/* status and cancel: what other processes of ours are doing. */
#include <errno.h>
#include <glob.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/exit.h"
#include "base/journal.h"
#include "base/log.h"
#include "base/units.h"
#include "cump.h"
#include "pair/message.h"
#include "process.h"

#define CANCEL_US 60000000 /* a roll-back tells the destination, which may be slow to answer */

struct entry {
	char id[64], role[8];
	const char *state;
	bool live;
	struct json_object *all, *first;
};

static int read_entry(const char *path, struct entry *e)
{
	const char *name = strrchr(path, '/') + 1, *dot = strrchr(name, '.');
	size_t n;

	memset(e, 0, sizeof(*e));
	e->all = journal_read(path, &e->live, NULL);
	n = e->all ? json_object_array_length(e->all) : 0;
	if (!n) {
		json_object_put(e->all);
		return -ENOENT;
	}
	if (dot - name > 36) /* in done/, the time stands before the id */
		name = dot - 36;
	snprintf(e->id, sizeof(e->id), "%.*s", (int)(dot - name), name);
	snprintf(e->role, sizeof(e->role), "%s", dot + 1);
	e->first = json_object_array_get_idx(e->all, 0);
	e->state = message_text(json_object_array_get_idx(e->all, n - 1), "state");
	return 0;
}

/* What a process that is at it wrote last; one that was killed left figures that tell nothing. */
static struct json_object *progress_of(const struct entry *e)
{
	char path[4300];

	if (!e->live)
		return NULL;
	snprintf(path, sizeof(path), "%s/%s.status", cump_state_dir(), e->id);
	return json_object_from_file(path);
}

static const char *condition(const struct entry *e, bool archived)
{
	if (archived)
		return "finished";
	return e->live ? "under way" : "needs recover";
}

static void print_json(const struct entry *e, bool archived)
{
	struct json_object *o = json_object_new_object(), *p = progress_of(e);

	message_add(o, "schema", "util-vm/cump-migrate/status/1");
	message_add(o, "id", e->id);
	message_add(o, "role", e->role);
	message_add(o, "vm", message_text(e->first, "vm"));
	message_add(o, "vtpm", message_text(e->first, "vtpm"));
	message_add(o, "state", e->state);
	message_add(o, "condition", condition(e, archived));
	message_add(o, "since", message_text(e->first, "when"));
	if (p)
		json_object_object_add(o, "progress", p);
	printf("%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
}

static void print_text(const struct entry *e, bool archived)
{
	struct json_object *p = progress_of(e), *m;

	printf("%s %-6s %-10s %-13s %s + %s since %s\n", e->id, e->role, e->state,
	       condition(e, archived), message_text(e->first, "vm"), message_text(e->first, "vtpm"),
	       message_text(e->first, "when"));
	for (unsigned i = 0; p && i < PAIR_MEMBERS; i++) {
		char left[32], total[32];

		if (!json_object_object_get_ex(p, i ? "vtpm" : "vm", &m) ||
		    !message_number(m, "total_bytes"))
			continue;
		printf("    %-4s round %llu, %s of %s left\n", i ? "vTPM" : "VM",
		       (unsigned long long)message_number(m, "round"),
		       units_format_size(message_number(m, "remaining_bytes"), left, sizeof(left)),
		       units_format_size(message_number(m, "total_bytes"), total, sizeof(total)));
	}
	json_object_put(p);
}

/* Print all journals that match; the number that need recover. */
static int list(const char *pattern, const char *only, bool archived, int *shown)
{
	int open = 0;
	glob_t g;

	if (glob(pattern, 0, NULL, &g))
		return 0;
	for (size_t i = 0; i < g.gl_pathc; i++) {
		struct entry e;

		if (read_entry(g.gl_pathv[i], &e))
			continue;
		if (!only || !strcmp(only, e.id)) {
			if (cump_opts.json)
				print_json(&e, archived);
			else
				print_text(&e, archived);
			++*shown;
			/* A settled sink only waits for its source to hear of it. */
			open += !archived && !e.live && strcmp(e.state, "done") != 0 &&
				strcmp(e.state, "dropped") != 0;
		}
		json_object_put(e.all);
	}
	globfree(&g);
	return open;
}

int cump_status(int argc, char **argv)
{
	const char *only = argc > 0 ? argv[0] : NULL;
	char pattern[4200];
	int open, shown = 0;

	if (argc > 1)
		return cli_usage_error("at most one ID");
	snprintf(pattern, sizeof(pattern), "%s/*.s[oi]*", cump_state_dir());
	open = list(pattern, only, false, &shown);
	if (cump_opts.all || only) {
		snprintf(pattern, sizeof(pattern), "%s/done/*.s[oi]*", cump_state_dir());
		list(pattern, only, true, &shown);
	}
	if (only && !shown) {
		log_error("show %s: no such pair in %s", only, cump_state_dir());
		return EXIT_NO;
	}
	return open ? EXIT_RECOVER : EXIT_DONE;
}

/* ---- cancel ---- */

/* Wait for the end of @p, at most @us. -ETIMEDOUT. */
static int await_end(struct process p, uint64_t us)
{
	struct pollfd end = {pidfd_open(p.pid, 0), POLLIN, 0};
	int rc = 0;

	if (end.fd >= 0 && process_alive(p))
		rc = poll(&end, 1, us > 1000ull * INT_MAX ? INT_MAX : (int)(us / 1000)) ? 0 : -ETIMEDOUT;
	if (end.fd >= 0)
		close(end.fd);
	return rc;
}

/* How it ended: the journal is where it was, and open, or among the finished ones. */
static enum pair_outcome ending_of(const char *id, const char *path)
{
	enum pair_outcome out = PAIR_ROLLED_BACK;
	char pattern[4300];
	struct entry e;
	glob_t g = {0};
	bool open = !read_entry(path, &e), found = open;

	snprintf(pattern, sizeof(pattern), "%s/done/*%s.source", cump_state_dir(), id);
	if (!open && !glob(pattern, 0, NULL, &g))
		found = !read_entry(g.gl_pathv[g.gl_pathc - 1], &e);
	globfree(&g);
	if (!found) /* given up before anything was promised */
		return out;
	if (!strcmp(e.state, "done") || !strcmp(e.state, "released"))
		out = PAIR_DONE;
	else if (open && strcmp(e.state, "aborted") != 0)
		out = PAIR_IN_DOUBT;
	json_object_put(e.all);
	return out;
}

static int tell_ending(const char *id, enum pair_outcome out)
{
	if (cump_opts.json) {
		struct json_object *o = json_object_new_object();

		message_add(o, "schema", "util-vm/cump-migrate/cancel/1");
		message_add(o, "id", id);
		message_add(o, "outcome", pair_outcome_word(out));
		printf("%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_NOSLASHESCAPE));
		json_object_put(o);
	}
	switch (out) {
	case PAIR_ROLLED_BACK:
		return EXIT_DONE;
	case PAIR_DONE:
		log_error("cancel %s: too late, the pair runs at its destination", id);
		return EXIT_NO;
	default:
		log_error("cancel %s: left in doubt; 'cump-migrate recover' settles it", id);
		return EXIT_RECOVER;
	}
}

int cump_cancel(int argc, char **argv)
{
	char path[4300];
	struct err err = {0};
	struct entry e;
	struct process p;

	if (argc != 1)
		return cli_usage_error("one ID is needed");
	snprintf(path, sizeof(path), "%s/%s.source", cump_state_dir(), argv[0]);
	if (strchr(argv[0], '/') || read_entry(path, &e)) {
		log_error("cancel %s: no such move from here in %s", argv[0], cump_state_dir());
		return EXIT_REFUSED;
	}
	p = process_of((pid_t)message_number(e.first, "pid"));
	if (!e.live || !p.pid) {
		log_error("cancel %s: nobody is at it; 'cump-migrate recover' settles it", argv[0]);
		json_object_put(e.all);
		return EXIT_REFUSED;
	}
	json_object_put(e.all);
	if (kill(p.pid, SIGTERM)) {
		err_sys(&err, -errno, "cancel %s", argv[0]);
		log_error("%s", err.text);
		return EXIT_REFUSED;
	}
	if (cump_opts.no_wait)
		return EXIT_DONE;
	if (await_end(p, cump_opts.timeout_us ? cump_opts.timeout_us : CANCEL_US)) {
		log_error("cancel %s: it was told, and is still at it", argv[0]);
		return EXIT_TIMED_OUT;
	}
	return tell_ending(argv[0], ending_of(argv[0], path));
}
