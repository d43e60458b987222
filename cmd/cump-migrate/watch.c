/* SPDX-License-Identifier: MIT */
/* What a user sees and does while a pair moves: progress, Ctrl-C, the debug hook. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/units.h"
#include "cump.h"
#include "pair/message.h"

static volatile sig_atomic_t signal_seen;

static void on_signal(int sig)
{
	signal_seen = sig;
}

int cump_signal(void)
{
	return signal_seen;
}

static int cancelled(void *ctx)
{
	(void)ctx;
	return signal_seen;
}

/* --debug-at STEP=COMMAND: break the protocol where a test wants it broken. */
static void on_step(void *ctx, enum pair_step step)
{
	const char *name = pair_step_name(step), *at = cump_opts.debug_at;
	struct cump_watch *w = ctx;
	size_t n = strlen(name);
	int status;

	if (step == STEP_SEND_CONVERGED && w->status_path[0])
		unlink(w->status_path); /* no figures come any more, and we may be killed */
	if (!at || strncmp(at, name, n) != 0 || at[n] != '=')
		return;
	status = system(at + n + 1); /* the user's own command, by the user's own option */
	log_verbose("%s: command ended with status %d", name, WEXITSTATUS(status));
}

static void show_line(struct cump_watch *w, const struct pair_progress *p)
{
	char bar[PAIR_MEMBERS][32], rate[PAIR_MEMBERS][24], bw[24], down[24];

	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		uint64_t total = p->member[i].total, left = p->member[i].remaining;

		progress_bar(total - (left < total ? left : total), total, 12, bar[i]);
		units_format_size(p->member[i].rate, rate[i], sizeof(rate[i]));
	}
	units_format_size(p->bandwidth, bw, sizeof(bw));
	units_format_duration(p->downtime_us, down, sizeof(down));
	if (p->report->member[PAIR_VTPM].streams)
		progress_line(&w->bar,
			      "VM %s round %llu dirty %s/s%s | vTPM %s round %llu dirty %s/s%s | %s/s, downtime %s",
			      bar[0], (unsigned long long)p->member[0].round, rate[0],
			      p->member[0].parked ? " parked" : "", bar[1],
			      (unsigned long long)p->member[1].round, rate[1],
			      p->member[1].parked ? " parked" : "", bw,
			      p->downtime_us == UINT64_MAX ? "?" : down);
	else
		progress_line(&w->bar, "VM %s round %llu dirty %s/s%s, vTPM with it | %s/s, downtime %s",
			      bar[0], (unsigned long long)p->member[0].round, rate[0],
			      p->member[0].parked ? " parked" : "", bw,
			      p->downtime_us == UINT64_MAX ? "?" : down);
}

/* For `status` in another terminal: the newest figures, written over in place. */
static void write_status(struct cump_watch *w, const struct pair_progress *p)
{
	struct json_object *o = message_new("progress");
	char temp[4310];
	FILE *f;

	message_add(o, "phase", p->phase);
	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		struct json_object *m = json_object_new_object();

		message_add_number(m, "total_bytes", p->member[i].total);
		message_add_number(m, "remaining_bytes", p->member[i].remaining);
		message_add_number(m, "round", p->member[i].round);
		json_object_object_add(m, "parked", json_object_new_boolean(p->member[i].parked));
		json_object_object_add(o, i ? "vtpm" : "vm", m);
	}
	message_add_number(o, "bandwidth_bytes_per_s", p->bandwidth);
	snprintf(temp, sizeof(temp), "%s.new", w->status_path);
	f = fopen(temp, "we");
	if (f) {
		fprintf(f, "%s\n", json_object_to_json_string(o));
		if (fclose(f) || rename(temp, w->status_path))
			unlink(temp);
	}
	json_object_put(o);
}

static void on_progress(void *ctx, const struct pair_progress *p)
{
	static uint64_t written_us;
	struct cump_watch *w = ctx;
	uint64_t now = units_now_us();

	if (!w->status_path[0])
		snprintf(w->status_path, sizeof(w->status_path), "%s/%s.status", cump_state_dir(),
			 p->report->id);
	if (now - written_us > 250000) {
		written_us = now;
		write_status(w, p);
	}
	if (progress_due(&w->bar))
		show_line(w, p);
}

void cump_watch_begin(struct cump_watch *w, struct pair_hooks *hooks)
{
	struct sigaction sa = {.sa_handler = on_signal};

	memset(w, 0, sizeof(*w));
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
	progress_begin(&w->bar);
	*hooks = (struct pair_hooks){w, on_step, on_progress, cancelled};
}

void cump_watch_end(struct cump_watch *w)
{
	progress_end(&w->bar);
	if (w->status_path[0])
		unlink(w->status_path);
}
