/* SPDX-License-Identifier: MIT */
/* The report of a move, as text and as JSON. */
#include <stdio.h>

#include "base/units.h"
#include "pair/message.h"
#include "pair/pair.h"

const char *pair_outcome_word(enum pair_outcome o)
{
	switch (o) {
	case PAIR_DONE:
		return "done";
	case PAIR_NO:
		return "not a pair";
	case PAIR_REFUSED:
		return "refused";
	case PAIR_ROLLED_BACK:
		return "rolled back";
	case PAIR_TIMED_OUT:
		return "timed out, rolled back";
	case PAIR_IN_DOUBT:
		break;
	}
	return "in doubt";
}

/* Events in the order in which they happened (steps 1 to 8 of the paper). */
static struct json_object *timeline(const struct pair_report *r)
{
	struct json_object *all = json_object_new_array();

	for (int s = 0; s < STEP_COUNT; s++) {
		struct json_object *o;

		if (!r->step_us[s])
			continue;
		o = json_object_new_object();
		message_add(o, "event", pair_step_name((enum pair_step)s));
		message_add_number(o, "at_us", r->step_us[s] - r->begun_us);
		json_object_array_add(all, o);
	}
	return all;
}

static struct json_object *member_json(const struct pair_member_report *m)
{
	struct json_object *o = json_object_new_object();

	message_add(o, "name", m->id.name);
	message_add(o, "uuid", m->id.uuid);
	message_add_number(o, "mem_bytes", m->id.mem_bytes);
	json_object_object_add(o, "streams", json_object_new_boolean(m->streams));
	message_add_number(o, "rounds", m->rounds);
	message_add_number(o, "zero_pages", m->zero_pages);
	message_add_number(o, "normal_pages", m->normal_pages);
	message_add_number(o, "deferred_pages", m->deferred_pages);
	message_add_number(o, "resent_pages", m->resent_pages);
	message_add_number(o, "raw_bytes", m->raw_bytes);
	message_add_number(o, "wire_bytes", m->wire_bytes);
	message_add_number(o, "downtime_us", m->downtime_us);
	return o;
}

struct json_object *pair_report_json(const struct pair_report *r, enum pair_outcome outcome,
				     const char *error)
{
	struct json_object *o = json_object_new_object();
	char when[40];

	message_add(o, "schema", "util-vm/cump-migrate/report/1");
	message_add(o, "id", r->id);
	message_add(o, "outcome", pair_outcome_word(outcome));
	message_add_number(o, "exit", (uint64_t)outcome);
	if (error && *error)
		message_add(o, "error", error);
	message_add(o, "begun", units_iso8601(r->begun_realtime_us, when, sizeof(when)));
	message_add_number(o, "total_us", r->total_us);
	message_add_number(o, "downtime_us", r->downtime_us);
	message_add_number(o, "stop_skew_us", r->stop_skew_us);
	json_object_object_add(o, "forced", json_object_new_boolean(r->forced));
	json_object_object_add(o, "vm", member_json(&r->member[PAIR_VM]));
	json_object_object_add(o, "vtpm", member_json(&r->member[PAIR_VTPM]));
	json_object_object_add(o, "timeline", timeline(r));
	if (r->receipts)
		json_object_object_add(o, "receipts", json_object_get(r->receipts));
	return o;
}

static void print_member(const char *what, const struct pair_member_report *m, FILE *to)
{
	char raw[32], wire[32], down[32];

	if (!m->streams) {
		fprintf(to, "%-5s %-16s with the VM's stream\n", what, m->id.name);
		return;
	}
	fprintf(to, "%-5s %-16s %3llu rounds  %8llu pages, %8llu zero  %10s, %10s on the wire  downtime %s\n",
		what, m->id.name, (unsigned long long)m->rounds,
		(unsigned long long)m->normal_pages, (unsigned long long)m->zero_pages,
		units_format_size(m->raw_bytes, raw, sizeof(raw)),
		units_format_size(m->wire_bytes, wire, sizeof(wire)),
		units_format_duration(m->downtime_us, down, sizeof(down)));
}

static void print_receipts(struct json_object *receipts, FILE *to)
{
	for (size_t i = 0; receipts && i < json_object_array_length(receipts); i++) {
		struct json_object *o = json_object_array_get_idx(receipts, i), *files;

		bool process = message_number(o, "pid") != 0;

		fprintf(to, "destroyed here: %s (%s %llu): %s\n", message_text(o, "member"),
			process ? "pid" : "domain", (unsigned long long)message_number(o, process ? "pid" : "domid"),
			message_text(o, "what"));
		if (!json_object_object_get_ex(o, "files", &files))
			continue;
		for (size_t k = 0; k < json_object_array_length(files); k++) {
			struct json_object *f = json_object_array_get_idx(files, k);

			fprintf(to, "  %s  %llu bytes  sha256 %s\n", message_text(f, "file"),
				(unsigned long long)message_number(f, "bytes"),
				message_text(f, "sha256"));
		}
	}
}

void pair_report_text(const struct pair_report *r, enum pair_outcome outcome, FILE *to)
{
	char total[32], down[32], skew[32], at[32];

	if (!r->step_us[STEP_SEND_STARTED] && !r->step_us[STEP_RECEIVE_DATA])
		return; /* nothing moved: the error says it all */
	fprintf(to, "pair %s: %s\n", r->id, pair_outcome_word(outcome));
	for (int s = 0; s < STEP_COUNT; s++)
		if (r->step_us[s])
			fprintf(to, "%12s  %-18s %s\n",
				units_format_duration(r->step_us[s] - r->begun_us, at, sizeof(at)),
				pair_step_name((enum pair_step)s), pair_step_what((enum pair_step)s));
	if (r->step_us[STEP_SEND_STARTED]) {
		print_member("VM", &r->member[PAIR_VM], to);
		print_member("vTPM", &r->member[PAIR_VTPM], to);
	}
	print_receipts(r->receipts, to);
	if (outcome == PAIR_DONE && r->step_us[STEP_SEND_DONE])
		fprintf(to, "total %s  joint downtime %s  stop skew %s%s\n",
			units_format_duration(r->total_us, total, sizeof(total)),
			units_format_duration(r->downtime_us, down, sizeof(down)),
			units_format_duration(r->stop_skew_us, skew, sizeof(skew)),
			r->forced ? "  (stopped beyond the budget)" : "");
}
