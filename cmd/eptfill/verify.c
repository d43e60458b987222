/* SPDX-License-Identifier: MIT */
/*
 * verify: coverage by KVM's own counters, and the violations of a period. Emulated MMIO is a
 * violation too, where the hardware has no other way to tell it (NPF); KVM counts what it then
 * emulates apart (pf_emulate, arch/x86/kvm/mmu/mmu_internal.h), and it is left out.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/cli.h"
#include "base/exit.h"
#include "base/log.h"
#include "base/units.h"
#include "eptfill.h"

struct trial {
	struct target t;
	struct kvm_stats before, after;
	char cause[160];
	int status;
};

static int begin(const char *name, struct trial *v)
{
	struct err err = {0};
	int rc = target_open(name, &v->t, &err);

	if (!rc && !v->t.has_kvm)
		rc = err_set(&err, -ENOENT, "%s: it has no KVM machine, so there is no second level", name);
	if (!rc)
		rc = target_counters(&v->t, &v->before, &err);
	return rc ? refusal(&err, rc) : EXIT_DONE;
}

static void tell(const struct trial *v, uint64_t us, unsigned cover, uint64_t violations)
{
	uint64_t total = target_mappable(&v->t), mapped = kvm_mapped_bytes(&v->after);
	uint64_t emulated = v->after.pf_emulate - v->before.pf_emulate;
	char time[32], a[32], b[32];

	if (eptfill_opts.json) {
		struct json_object *j = json_object_new_object();

		add_str(j, "schema", "util-vm/eptfill/verify/1");
		add_str(j, "target", v->t.vm.target);
		add_str(j, "name", v->t.vm.name);
		add_u64(j, "slots_bytes", total);
		add_u64(j, "mapped_bytes", mapped);
		add_percent(j, "coverage_percent", cover);
		add_u64(j, "period_us", us);
		add_u64(j, "pf_taken", v->after.pf_taken - v->before.pf_taken);
		add_u64(j, "pf_emulate", emulated);
		add_u64(j, "violations", violations);
		add_u64(j, "exits", v->after.exits - v->before.exits);
		add_u64(j, "resident_bytes", v->t.resident.rss);
		if (*v->cause)
			add_str(j, "cause", v->cause);
		add_u64(j, "status", (uint64_t)v->status);
		print_json(j);
		return;
	}
	printf("%s: %s: %u.%02u %% mapped (%s of %s), %llu violations in %s (%llu taken, %llu of them emulated)%s%s\n",
	       target_label(&v->t), v->status ? "no" : "yes", cover / 100, cover % 100,
	       units_format_size(mapped, a, sizeof(a)), units_format_size(total, b, sizeof(b)),
	       (unsigned long long)violations, units_format_duration(us, time, sizeof(time)),
	       (unsigned long long)(v->after.pf_taken - v->before.pf_taken),
	       (unsigned long long)emulated, *v->cause ? ": " : "", v->cause);
}

/* Why the answer is no, if anything tells. */
static void find_cause(struct trial *v)
{
	const struct vm_memory_ops *ops = v->t.vm.driver ? v->t.vm.driver->memory : NULL;
	struct vm_resident none = {0}, *now = &v->t.resident;
	char size[32];

	v->t.has_state = v->t.has_state && ops && !ops->state(&v->t.vm, &v->t.state, NULL);
	if (v->t.has_state && v->t.state.migrating)
		snprintf(v->cause, sizeof(v->cause), "a migration logs its dirty pages");
	else if (v->t.has_state && v->t.state.balloon_bytes)
		snprintf(v->cause, sizeof(v->cause), "its balloon holds %s",
			 units_format_size(v->t.state.balloon_bytes, size, sizeof(size)));
	else
		undone_by(&v->t, &none, v->cause, sizeof(v->cause));
	if (!*v->cause && now->rss < now->size)
		snprintf(v->cause, sizeof(v->cause), "%s of its host memory are not there",
			 units_format_size(now->size - now->rss, size, sizeof(size)));
}

static int end(struct trial *v, uint64_t us)
{
	struct err err = {0};
	uint64_t violations;
	unsigned cover;
	int rc;

	rc = target_counters(&v->t, &v->after, &err);
	if (rc) {
		log_error("%s", err.text);
		return EXIT_NO; /* it ended under our eyes */
	}
	cover = coverage(kvm_mapped_bytes(&v->after), target_mappable(&v->t));
	violations = kvm_violations(&v->before, &v->after);
	v->status = cover == 10000 && !violations ? EXIT_DONE : EXIT_NO;
	if (v->status)
		find_cause(v);
	tell(v, us, cover, violations);
	return v->status;
}

#define TRIALS_MAX 64

int eptfill_verify(int argc, char **argv)
{
	static struct trial trials[TRIALS_MAX];
	uint64_t begun, deadline, now;
	int status = EXIT_DONE, n = 0;

	if (!argc)
		return cli_usage_error("verify: a target is missing (NAME, pid:N or qmp:PATH)");
	if (argc > TRIALS_MAX)
		return cli_usage_error("verify: %d VMs at once at most", TRIALS_MAX);
	catch_signals();
	for (; n < argc && !status; n++)
		status = begin(argv[n], &trials[n]);
	begun = units_now_us();
	deadline = begun + eptfill_opts.for_us;
	while (!status && !signal_seen() && (now = units_now_us()) < deadline)
		poll(NULL, 0, (int)((deadline - now) / 1000) + 1);
	if (!status)
		for (int i = 0; i < n; i++) {
			int one = end(&trials[i], units_now_us() - begun);

			status = one > status ? one : status;
		}
	for (int i = 0; i < n; i++)
		target_close(&trials[i].t);
	return signal_seen() ? EXIT_SIGNAL + signal_seen() : status;
}
