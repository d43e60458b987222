/* SPDX-License-Identifier: MIT */
/* Records on standard output, each with one write(2): text, JSON lines, the paper's lines. */
#include "vtpmtest.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/exit.h"
#include "base/log.h"
#include "base/units.h"

#define LINE_MAX_SIZE 2048

static const char *const status_names[] = {
	[VT_DONE] = "done",
	[VT_LOST] = "lost",
	[VT_WRONG] = "wrong",
	[VT_REPLY_LOST] = "reply-lost",
	[VT_UNSETTLED] = "unsettled",
};

struct line {
	char text[LINE_MAX_SIZE];
	size_t n;
};

static void put(struct line *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(struct line *l, const char *fmt, ...)
{
	size_t left = sizeof(l->text) - l->n;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(l->text + l->n, left, fmt, ap);
	va_end(ap);
	if (n > 0)
		l->n += (size_t)n < left ? (size_t)n : left - 1;
}

static void put_hex(struct line *l, const uint8_t *data, size_t n)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n && l->n + 2 < sizeof(l->text); i++) {
		l->text[l->n++] = digits[data[i] >> 4];
		l->text[l->n++] = digits[data[i] & 15];
	}
	l->text[l->n] = '\0';
}

static void put_json_string(struct line *l, const char *key, const char *s)
{
	put(l, ",\"%s\":\"", key);
	for (; *s; s++) {
		if ((unsigned char)*s < 0x20)
			put(l, "\\u%04x", (unsigned)*s);
		else
			put(l, *s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
	}
	put(l, "\"");
}

static void put_json_number(struct line *l, const char *key, uint64_t value)
{
	put(l, ",\"%s\":%llu", key, (unsigned long long)value);
}

static void put_duration(struct line *l, const char *key, uint64_t ns)
{
	char text[32];

	if (ns < 1000000)
		put(l, "%s%.1f us", key, (double)ns / 1e3);
	else
		put(l, "%s%s", key, units_format_duration(ns / 1000, text, sizeof(text)));
}

/* A reader that went away, or a full disk, ends the run; main tells of the second. */
static void emit(struct vt_run *run, const struct line *l)
{
	size_t done = 0;

	while (done < l->n && !atomic_load(&run->output_error)) {
		ssize_t n = write(STDOUT_FILENO, l->text + done, l->n - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			uint64_t one = 1;

			atomic_store(&run->output_error, errno);
			atomic_store(&run->stop_ns, units_now_ns());
			if (!atomic_exchange(&run->stopping, true) &&
			    write(run->stop_fd, &one, sizeof(one)) < 0)
				return;
			return;
		}
		done += (size_t)n;
	}
}

static const char *family_name(const struct vt_config *c)
{
	return c->family == TPM_FAMILY_12 ? "1.2" : "2.0";
}

/* TCG's four-letter manufacturer id, "IBM", "IFX". */
static const char *manufacturer(const struct vt_config *c, char *buf)
{
	size_t n = 0;

	for (int shift = 24; shift >= 0; shift -= 8) {
		char ch = (char)(c->manufacturer >> shift);

		if (isgraph((unsigned char)ch))
			buf[n++] = ch;
	}
	buf[n] = '\0';
	return buf;
}

static void config_json(struct line *l, const struct vt_config *c)
{
	char maker[8], when[40];

	put(l, "{\"schema\":\"util-vm/vtpmtest/config/1\"");
	put_json_string(l, "time", units_iso8601(units_realtime_us(), when, sizeof(when)));
	put_json_string(l, "target", c->target);
	put_json_string(l, "tpm", family_name(c));
	put_json_string(l, "manufacturer", manufacturer(c, maker));
	put_json_string(l, "mode", c->mode->name);
	put_json_string(l, "alg", c->alg->name);
	put_json_number(l, "size_bytes", c->size);
	put_json_number(l, "period_ns", (uint64_t)c->period_ns);
	put_json_number(l, "count", c->count);
	put_json_number(l, "duration_ns", c->duration_ns);
	put_json_number(l, "timeout_ns", c->timeout_ns);
	put_json_number(l, "connections", c->connections);
	put_json_number(l, "length_ticks", c->length);
	put_json_number(l, "pcr", c->pcr);
	put_json_number(l, "buffer_bytes", c->buffer_max);
	put_json_number(l, "seed", c->seed);
	put(l, "}\n");
}

void vt_report_config(struct vt_run *run)
{
	const struct vt_config *c = run->conf;
	struct line l = {.n = 0};
	char maker[8];

	if (c->format == VT_PAPER) {
		if (!c->per_tick)
			return;
		put(&l, "Take_");
		for (const char *p = c->alg->name; *p; p++)
			put(&l, "%c", toupper((unsigned char)*p));
		put(&l, "_BASH\n");
	} else if (c->format == VT_JSON) {
		config_json(&l, c);
	} else {
		put(&l, "# %s TPM %s %s mode %s alg %s size %llu seed %llu\n", c->target,
		    family_name(c), manufacturer(c, maker), c->mode->name, c->alg->name,
		    (unsigned long long)c->size, (unsigned long long)c->seed);
	}
	emit(run, &l);
}

/* Figure 10 of the VM-vTPM paper: local time to the minute. */
static void tick_paper(struct line *l, const struct vt_config *c, const struct vt_tick *t)
{
	time_t now = time(NULL);
	char when[32];
	struct tm tm;

	if (!t->digest_size && t->status == VT_DONE)
		return;
	strftime(when, sizeof(when), "%Y-%m-%d:%H-%M", localtime_r(&now, &tm));
	put(l, "%llu--time:%s\nThe ", (unsigned long long)t->number, when);
	for (const char *p = c->alg->name; *p; p++)
		put(l, "%c", toupper((unsigned char)*p));
	put(l, " Result\n");
	if (t->digest_size)
		put_hex(l, t->digest, t->digest_size);
	else
		put(l, "%s", status_names[t->status]);
	put(l, "\n\n");
}

static void tick_text(struct line *l, const struct vt_tick *t)
{
	char when[40];

	put(l, "%llu %s ", (unsigned long long)t->number,
	    units_iso8601(units_realtime_us(), when, sizeof(when)));
	if (t->digest_size)
		put_hex(l, t->digest, t->digest_size);
	else
		put(l, "-");
	put_duration(l, " ", t->answered_ns - t->planned_ns);
	if (t->status != VT_DONE)
		put(l, " %s: %s", status_names[t->status], t->why);
	if (t->retries)
		put(l, " (retries %llu)", (unsigned long long)t->retries);
	put(l, "\n");
}

static void tick_json(struct line *l, const struct vt_tick *t)
{
	char when[40];

	put(l, "{\"schema\":\"util-vm/vtpmtest/tick/1\"");
	put_json_number(l, "tick", t->number);
	put_json_string(l, "time", units_iso8601(units_realtime_us(), when, sizeof(when)));
	put_json_string(l, "status", status_names[t->status]);
	if (t->digest_size) {
		put(l, ",\"digest\":\"");
		put_hex(l, t->digest, t->digest_size);
		put(l, "\"");
	}
	put_json_number(l, "latency_ns", t->answered_ns - t->planned_ns);
	put_json_number(l, "retries", t->retries);
	if (t->status != VT_DONE)
		put_json_string(l, "reason", t->why);
	put(l, "}\n");
}

void vt_report_tick(struct vt_run *run, const struct vt_tick *t)
{
	const struct vt_config *c = run->conf;
	struct line l = {.n = 0};

	if (t->status != VT_DONE && (!c->per_tick || c->format == VT_PAPER))
		log_warn("tick %llu: %s: %s", (unsigned long long)t->number,
			 status_names[t->status], t->why);
	if (!c->per_tick)
		return;
	if (c->format == VT_PAPER)
		tick_paper(&l, c, t);
	else if (c->format == VT_JSON)
		tick_json(&l, t);
	else
		tick_text(&l, t);
	emit(run, &l);
}

void vt_report_event(struct vt_run *run, uint64_t tick, const char *kind, const char *fmt, ...)
{
	struct line l = {.n = 0};
	char text[256], when[40];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!run->conf->per_tick || run->conf->format == VT_PAPER) {
		log_warn("tick %llu: %s", (unsigned long long)tick, text);
		return;
	}
	units_iso8601(units_realtime_us(), when, sizeof(when));
	if (run->conf->format == VT_TEXT) {
		put(&l, "# %llu %s %s\n", (unsigned long long)tick, when, text);
	} else {
		put(&l, "{\"schema\":\"util-vm/vtpmtest/event/1\"");
		put_json_number(&l, "tick", tick);
		put_json_string(&l, "time", when);
		put_json_string(&l, "event", kind);
		put_json_string(&l, "reason", text);
		put(&l, "}\n");
	}
	emit(run, &l);
}

struct named_count {
	const char *text, *json;
	uint64_t value;
};

static void summary_json(struct line *l, const struct vt_run *run, const struct vt_counts *c,
			 const struct histogram *h, int status)
{
	const struct named_count all[] = {
		{NULL, "sent", c->sent}, {NULL, "done", c->done},
		{NULL, "lost", c->lost}, {NULL, "wrong", c->wrong},
		{NULL, "reply_lost", c->reply_lost}, {NULL, "late", c->late},
		{NULL, "missed", c->missed}, {NULL, "retries", c->retries},
		{NULL, "reconnects", c->reconnects}, {NULL, "out_of_step", c->out_of_step},
		{NULL, "state_lost", c->state_lost}, {NULL, "stalls", c->stalls},
		{NULL, "elapsed_ns", run->end_ns - run->start_ns},
		{NULL, "gap_ns", atomic_load(&run->gap_ns)},
		{NULL, "mean_ns", (uint64_t)histogram_mean(h)},
		{NULL, "p50_ns", histogram_percentile(h, 50)},
		{NULL, "p90_ns", histogram_percentile(h, 90)},
		{NULL, "p99_ns", histogram_percentile(h, 99)},
		{NULL, "p99_9_ns", histogram_percentile(h, 99.9)},
		{NULL, "max_ns", histogram_max(h)},
		{NULL, "exit_status", (uint64_t)status},
	};

	put(l, "{\"schema\":\"util-vm/vtpmtest/summary/1\"");
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		put_json_number(l, all[i].json, all[i].value);
	put(l, "}\n");
}

static void summary_text(struct line *l, const struct vt_run *run, const struct vt_counts *c,
			 const struct histogram *h)
{
	const struct named_count rare[] = {
		{"retries", NULL, c->retries},	       {"reconnects", NULL, c->reconnects},
		{"out-of-step", NULL, c->out_of_step}, {"state-lost", NULL, c->state_lost},
		{"stalls", NULL, c->stalls},
	};
	double seconds = (double)(run->end_ns - run->start_ns) / 1e9;

	put(l, "done %llu lost %llu wrong %llu reply-lost %llu late %llu missed %llu",
	    (unsigned long long)c->done, (unsigned long long)c->lost,
	    (unsigned long long)c->wrong, (unsigned long long)c->reply_lost,
	    (unsigned long long)c->late, (unsigned long long)c->missed);
	for (size_t i = 0; i < sizeof(rare) / sizeof(rare[0]); i++)
		if (rare[i].value)
			put(l, " %s %llu", rare[i].text, (unsigned long long)rare[i].value);
	put_duration(l, " gap ", atomic_load(&run->gap_ns));
	put_duration(l, " p50 ", histogram_percentile(h, 50));
	put_duration(l, " p90 ", histogram_percentile(h, 90));
	put_duration(l, " p99 ", histogram_percentile(h, 99));
	put_duration(l, " p99.9 ", histogram_percentile(h, 99.9));
	put_duration(l, " max ", histogram_max(h));
	put(l, " rate %.1f/s\n", seconds > 0 ? (double)c->done / seconds : 0);
}

void vt_report_summary(struct vt_run *run, const struct vt_counts *c, const struct histogram *h,
		       int status)
{
	struct line l = {.n = 0};

	if (run->conf->format == VT_JSON)
		summary_json(&l, run, c, h, status);
	else
		summary_text(&l, run, c, h);
	/* The paper's program prints nothing of the kind: there it is a message. */
	if (run->conf->format == VT_PAPER && run->conf->per_tick)
		log_note("%.*s", (int)l.n - 1, l.text);
	else
		emit(run, &l);
}
