/* SPDX-License-Identifier: MIT */
/*
 * watch: keeps filled what was filled. The monitor tells of balloons, migrations and resets as they
 * happen; of second-level entries that go the kernel tells nobody, so that their counters are
 * read at intervals.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cli.h"
#include "base/exit.h"
#include "base/log.h"
#include "base/notify.h"
#include "base/units.h"
#include "eptfill.h"

#define WATCHED_MAX 64
#define SETTLE_US 500000 /* a reset's firmware deletes memslots in bursts */
#define STALE_US 3000000 /* an event that took nothing by then is not what will */
#define AGAIN_US 5000000 /* what keeps undoing it is not fought all the time */

struct watched {
	const char *name;
	struct target t;
	struct vm_watch *monitor;
	struct vm_resident base; /* as it was filled */
	const char *outcome;	 /* of a refill, not told yet; NULL: none */
	uint64_t balloon, full, dropped_us, filled_us, cause_us, refills;
	bool migrating, was_protected, gone, told, named;
	char cause[160];
};

static void tell(const struct watched *w, const char *event, const char *cause, uint64_t mapped)
{
	uint64_t total = target_mappable(&w->t);
	unsigned cover = coverage(mapped, total);
	char when[32];

	units_iso8601(units_realtime_us(), when, sizeof(when));
	if (eptfill_opts.json) {
		struct json_object *j = json_object_new_object();

		add_str(j, "schema", "util-vm/eptfill/watch/1");
		add_str(j, "when", when);
		add_str(j, "target", w->t.vm.target);
		add_str(j, "name", w->t.vm.name);
		add_str(j, "event", event);
		if (*cause)
			add_str(j, "cause", cause);
		add_u64(j, "mapped_bytes", mapped);
		add_u64(j, "slots_bytes", total);
		add_percent(j, "coverage_percent", cover);
		print_json(j);
		return;
	}
	printf("%s %s: %s: %u.%02u %% mapped%s%s\n", when, target_label(&w->t), event, cover / 100,
	       cover % 100, *cause ? ": " : "", cause);
	fflush(stdout);
}

static void on_event(void *ctx, enum vm_memory_event event, uint64_t detail)
{
	struct watched *w = ctx;
	char size[32];

	w->cause_us = units_now_us();
	switch (event) {
	case VM_EVENT_BALLOON:
		w->balloon = detail;
		w->told = w->told && detail;
		snprintf(w->cause, sizeof(w->cause), "its balloon holds %s now",
			 units_format_size(detail, size, sizeof(size)));
		break;
	case VM_EVENT_MIGRATION:
		/* No entry goes, but each is for reading only from now on. */
		w->was_protected = w->was_protected || detail == 1;
		w->migrating = detail != 0;
		w->told = w->told && detail;
		if (detail == 1)
			snprintf(w->cause, sizeof(w->cause), "a migration logs its dirty pages");
		break;
	case VM_EVENT_RESET:
		snprintf(w->cause, sizeof(w->cause), "the VM was reset");
		break;
	case VM_EVENT_SHUTDOWN:
		snprintf(w->cause, sizeof(w->cause), "the VM shuts down");
		break;
	}
	log_verbose("%s: %s", target_label(&w->t), w->cause);
}

/*
 * If no event says what took the entries away: what the process's mappings tell of it. The entries
 * go first, so that it may be told a little later only. False: not yet.
 */
static bool find_cause(struct watched *w)
{
	if (!*w->cause)
		undone_by(&w->t, &w->base, w->cause, sizeof(w->cause));
	if (!*w->cause && units_now_us() - w->dropped_us < SETTLE_US)
		return false;
	if (!*w->cause)
		snprintf(w->cause, sizeof(w->cause), "host memory is all there: a memslot was deleted, pages "
			 "migrated between NUMA nodes, or were collapsed to huge ones");
	return true;
}

static bool may_refill(struct watched *w)
{
	uint64_t now = units_now_us();
	const char *not_yet = NULL;

	if (eptfill_opts.dry_run)
		return false;
	if (w->migrating)
		not_yet = "a migration logs its dirty pages, and a fill would be undone at once";
	else if (w->balloon && !eptfill_opts.force)
		not_yet = "its balloon holds memory that the guest gave away (--force takes it back)";
	if (not_yet && !w->told) {
		log_note("%s: not refilled: %s", target_label(&w->t), not_yet);
		w->told = true;
	}
	return !not_yet && now - w->dropped_us > SETTLE_US &&
	       (!w->filled_us || now - w->filled_us > AGAIN_US);
}

/* What would be undone again, or does not fit, is left as it is; said once. */
static bool is_refused(struct watched *w)
{
	struct room room;

	preflight(&w->t, &room);
	for (unsigned i = 0; i < room.n && !w->told; i++)
		log_warn("%s: %s%s", target_label(&w->t), room.finding[i].refuse ? "not refilled: " : "",
			 room.finding[i].text);
	if (eptfill_opts.force || !room_refuses(&room))
		return false;
	w->told = true;
	return true;
}

static void tell_outcome(struct watched *w, uint64_t mapped)
{
	w->full = mapped;
	tell(w, w->outcome, "", mapped);
	w->outcome = NULL;
}

/* Where the counters cannot be read now, it is told at the next look. */
static void filled(struct watched *w, bool whole)
{
	struct kvm_stats s;
	struct err err = {0};

	w->refills++;
	w->dropped_us = 0;
	w->told = w->was_protected = false;
	*w->cause = '\0';
	w->base = w->t.resident;
	w->outcome = whole ? "filled" : "partly filled";
	if (!target_counters(&w->t, &s, &err))
		tell_outcome(w, kvm_mapped_bytes(&s));
	else
		log_note("%s: %s, but %s", target_label(&w->t), w->outcome, err.text);
}

static void refill(struct watched *w)
{
	struct err err = {0};

	/* The fill asks the monitor, which serves one at a time. */
	if (w->monitor)
		w->t.vm.driver->memory->watch_close(w->monitor);
	w->monitor = NULL;
	if (target_refresh(&w->t, &err)) {
		log_error("%s", err.text);
	} else if (!is_refused(w)) {
		filled(w, fill_target(&w->t) == EXIT_DONE);
	}
	w->filled_us = units_now_us();
	if (*w->t.vm.qmp_path &&
	    w->t.vm.driver->memory->watch_open(&w->t.vm, on_event, w, &w->monitor, &err))
		log_warn("%s: no events: %s", target_label(&w->t), err.text);
}

static int read_counters(struct watched *w, struct kvm_stats *s, struct err *err)
{
	if (*w->t.kvm.debugfs || !w->monitor)
		return *w->t.kvm.debugfs ? kvm_read_stats(&w->t.kvm, s, err) :
					   target_counters(&w->t, s, err);
	/* With the monitor held, another connection would have to wait for ourselves. */
	return w->t.vm.driver->memory->watch_counters(w->monitor, s, err);
}

static void look(struct watched *w)
{
	uint64_t mapped, total = target_mappable(&w->t);
	struct kvm_stats s;
	struct err err = {0};
	int rc = read_counters(w, &s, &err);

	if (rc == -ETIMEDOUT) /* a monitor that is busy: next time */
		return;
	if (rc) {
		log_note("%s: it has ended", target_label(&w->t));
		w->gone = true;
		return;
	}
	mapped = kvm_mapped_bytes(&s);
	if (w->outcome)
		tell_outcome(w, mapped);
	/* A view of SMM's may add some pages; what counts is what is less than it was. */
	if (!w->was_protected && mapped >= total && mapped + (mapped >> 10) >= w->full) {
		w->dropped_us = 0;
		w->full = mapped > w->full ? mapped : w->full;
		if (units_now_us() - w->cause_us > STALE_US) /* it did no harm */
			*w->cause = '\0';
		return;
	}
	if (!w->dropped_us) {
		w->dropped_us = units_now_us();
		w->named = false;
	}
	if (!w->named && find_cause(w)) {
		w->named = true;
		tell(w, "undone", w->cause, mapped);
	}
	if (w->named && may_refill(w))
		refill(w);
}

static int begin(struct watched *w, const char *name)
{
	struct kvm_stats s;
	struct err err = {0};
	int rc = target_open(name, &w->t, &err);

	w->name = name;
	if (!rc && !w->t.has_kvm)
		rc = err_set(&err, -ENOENT, "watch %s: it has no KVM machine, so there is no second level",
			     name);
	if (!rc && !w->t.kvm.pre_fault)
		rc = err_set(&err, -ENOTSUP, "watch %s: this kernel has no KVM_PRE_FAULT_MEMORY (Linux 6.11), "
			     "so nothing could be refilled", name);
	if (!rc)
		rc = target_counters(&w->t, &s, &err);
	if (rc)
		return refusal(&err, rc);
	w->full = kvm_mapped_bytes(&s);
	w->base = w->t.resident;
	w->balloon = w->t.has_state ? w->t.state.balloon_bytes : 0;
	w->migrating = w->was_protected = w->t.has_state && w->t.state.migrating;
	if (w->migrating)
		snprintf(w->cause, sizeof(w->cause), "a migration logs its dirty pages");
	tell(w, "watching", "", w->full);
	if (*w->t.vm.qmp_path &&
	    w->t.vm.driver->memory->watch_open(&w->t.vm, on_event, w, &w->monitor, &err))
		log_warn("%s: no events: %s", target_label(&w->t), err.text);
	return EXIT_DONE;
}

static void take_events(struct watched *w)
{
	struct err err = {0};

	if (w->t.vm.driver->memory->watch_take(w->monitor, &err)) {
		log_verbose("%s: %s", target_label(&w->t), err.text);
		w->t.vm.driver->memory->watch_close(w->monitor);
		w->monitor = NULL;
	}
}

static bool watch_all(struct watched *list, int n)
{
	struct pollfd fds[WATCHED_MAX];
	struct watched *who[WATCHED_MAX];
	uint64_t deadline = units_now_us() + eptfill_opts.interval_us, now;
	bool any = false;

	while (!signal_seen() && (now = units_now_us()) < deadline) {
		int k = 0;

		for (int i = 0; i < n; i++)
			if (list[i].monitor && !list[i].gone) {
				who[k] = &list[i];
				fds[k++] = (struct pollfd){
					.fd = list[i].t.vm.driver->memory->watch_fd(list[i].monitor),
					.events = POLLIN};
			}
		if (poll(fds, (nfds_t)k, (int)((deadline - now + 999) / 1000)) <= 0)
			continue;
		for (int i = 0; i < k; i++)
			if (fds[i].revents)
				take_events(who[i]);
	}
	for (int i = 0; i < n && !signal_seen(); i++) {
		if (!list[i].gone)
			look(&list[i]);
		any = any || !list[i].gone;
	}
	return any;
}

int eptfill_watch(int argc, char **argv)
{
	static struct watched list[WATCHED_MAX];
	int status = EXIT_DONE, n = 0;

	if (!argc)
		return cli_usage_error("watch: a target is missing (NAME, pid:N or qmp:PATH)");
	if (argc > WATCHED_MAX)
		return cli_usage_error("watch: %d VMs at once at most", WATCHED_MAX);
	if (eptfill_opts.interval_us < 10000)
		return cli_usage_error("--interval: not below 10ms");
	if (!eptfill_opts.duty_percent || eptfill_opts.duty_percent > 100)
		return cli_usage_error("--duty %u: not from 1 to 100", eptfill_opts.duty_percent);
	if (eptfill_opts.stall_us < 50 || eptfill_opts.stall_us > 1000000)
		return cli_usage_error("--stall: not from 50us to 1s");
	catch_signals();
	for (; n < argc && !status; n++)
		status = begin(&list[n], argv[n]);
	if (!status) {
		notify("READY=1");
		while (watch_all(list, n) && !signal_seen())
			notify("WATCHDOG=1");
		notify("STOPPING=1");
	}
	for (int i = 0; i < n; i++) {
		if (list[i].monitor)
			list[i].t.vm.driver->memory->watch_close(list[i].monitor);
		if (!status && list[i].refills)
			log_note("%s: refilled %llu times", target_label(&list[i].t),
				 (unsigned long long)list[i].refills);
		target_close(&list[i].t);
	}
	return signal_seen() ? EXIT_SIGNAL + signal_seen() : status;
}
