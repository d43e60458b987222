/* SPDX-License-Identifier: MIT */
/* fill: a running VM, in two phases; and its words. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cli.h"
#include "base/exit.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/units.h"
#include "eptfill.h"
#include "ondemand.h"

struct show {
	struct progress bar;
	const char *name;
	uint64_t begun_us;
	enum fill_phase phase;
};

static void on_progress(void *ctx, enum fill_phase phase, uint64_t done, uint64_t total)
{
	struct show *s = ctx;
	char bar[40], at[32], of[32], rate[32];
	uint64_t now = units_now_us();

	if (phase != s->phase) {
		s->phase = phase;
		s->begun_us = now;
	}
	if (!progress_due(&s->bar))
		return;
	progress_line(&s->bar, "%s: %s %s %s of %s, %s/s", s->name,
		      phase == FILL_HOST ? "host memory" : "second level",
		      progress_bar(done, total, 20, bar), units_format_size(done, at, sizeof(at)),
		      units_format_size(total, of, sizeof(of)),
		      units_format_size(done * 1000000 / (now > s->begun_us ? now - s->begun_us : 1),
					rate, sizeof(rate)));
}

static int on_cancelled(void *ctx)
{
	(void)ctx;
	return signal_seen();
}

struct outcome {
	struct fill_report r;
	struct kvm_stats before, after;
	bool counted, by_monitor;
	int rc;
	struct err err;
};

static uint64_t rate_of(uint64_t bytes, uint64_t us)
{
	return us ? (uint64_t)((double)bytes / (double)us * 1e6) : 0;
}

static struct json_object *json_shares(const struct fill_report *r)
{
	struct json_object *list = json_object_new_array();

	for (size_t i = 0; i < r->n_shares; i++) {
		struct json_object *one = json_object_new_object();

		add_u64(one, "vcpu", (uint64_t)r->shares[i].vcpu);
		add_u64(one, "bytes", r->shares[i].bytes);
		add_u64(one, "stops", r->shares[i].stops);
		add_u64(one, "longest_stall_us", r->shares[i].longest_stall_us);
		json_object_array_add(list, one);
	}
	return list;
}

static void tell_json(const struct target *t, const struct outcome *o, int status)
{
	struct json_object *j = json_object_new_object();

	add_str(j, "schema", "util-vm/eptfill/fill/1");
	add_str(j, "target", t->vm.target);
	add_str(j, "name", t->vm.name);
	add_u64(j, "pid", (uint64_t)t->vm.pid);
	add_u64(j, "memory_bytes", t->vm.mem_bytes);
	add_u64(j, "slots_bytes", target_mappable(t));
	add_u64(j, "host_bytes", o->r.host_bytes);
	add_u64(j, "host_us", o->r.host_us);
	add_u64(j, "host_threads", o->r.threads);
	add_u64(j, "host_rate_bytes_per_s", rate_of(o->r.host_bytes, o->r.host_us));
	add_u64(j, "resident_bytes", t->resident.rss);
	add_u64(j, "second_bytes", o->r.second_bytes);
	add_u64(j, "second_us", o->r.second_us);
	add_u64(j, "second_calls", o->r.calls);
	add_u64(j, "vcpus", o->r.vcpus);
	add_u64(j, "vcpu_stops", o->r.stops);
	add_u64(j, "longest_stall_us", o->r.longest_stall_us);
	add_u64(j, "main_stall_us", o->r.main_stall_us);
	add_u64(j, "interrupted_calls", o->r.interrupted);
	json_object_object_add(j, "by_vcpu", json_shares(&o->r));
	if (o->counted) {
		add_u64(j, "mapped_bytes", kvm_mapped_bytes(&o->after));
		add_u64(j, "pages_4k", o->after.pages_4k);
		add_u64(j, "pages_2m", o->after.pages_2m);
		add_u64(j, "pages_1g", o->after.pages_1g);
		add_u64(j, "violations", kvm_violations(&o->before, &o->after));
	}
	add_bool(j, "host_done", o->r.host_done);
	add_bool(j, "second_done", o->r.second_done);
	add_bool(j, "by_monitor", o->by_monitor);
	if (o->rc)
		add_str(j, "error", o->err.text);
	add_u64(j, "status", (uint64_t)status);
	print_json(j);
}

static void tell_text(const struct target *t, const struct outcome *o)
{
	char size[32], time[32], rate[32], stall[32], res[32], ram[32];

	if (cli_common.verbosity < 0)
		return;
	printf("%s: host memory %s in %s by %u threads, %s/s; resident %s of %s\n", target_label(t),
	       units_format_size(o->r.host_bytes, size, sizeof(size)),
	       units_format_duration(o->r.host_us, time, sizeof(time)), o->r.threads,
	       units_format_size(rate_of(o->r.host_bytes, o->r.host_us), rate, sizeof(rate)),
	       units_format_size(t->resident.rss, res, sizeof(res)),
	       units_format_size(t->resident.size, ram, sizeof(ram)));
	if (!o->r.calls)
		return;
	printf("%s: second level %s in %s by %u vCPUs, %llu stops, longest stall %s (vCPU %d)\n",
	       target_label(t), units_format_size(o->r.second_bytes, size, sizeof(size)),
	       units_format_duration(o->r.second_us, time, sizeof(time)), o->r.vcpus,
	       (unsigned long long)o->r.stops,
	       units_format_duration(o->r.longest_stall_us, stall, sizeof(stall)), o->r.longest_vcpu);
	for (size_t i = 0; cli_common.verbosity > 0 && i < o->r.n_shares; i++) {
		const struct fill_share *s = &o->r.shares[i];

		printf("%s: vCPU %d: %s in %llu stops, longest stall %s\n", target_label(t), s->vcpu,
		       units_format_size(s->bytes, size, sizeof(size)), (unsigned long long)s->stops,
		       units_format_duration(s->longest_stall_us, stall, sizeof(stall)));
	}
	if (o->counted)
		printf("%s: KVM maps %s of %s: %llu of 4K, %llu of 2M, %llu of 1G\n", target_label(t),
		       units_format_size(kvm_mapped_bytes(&o->after), size, sizeof(size)),
		       units_format_size(target_mappable(t), ram, sizeof(ram)),
		       (unsigned long long)o->after.pages_4k, (unsigned long long)o->after.pages_2m,
		       (unsigned long long)o->after.pages_1g);
}

static bool tell_findings(const struct target *t, const struct room *room)
{
	bool stop = false;

	for (unsigned i = 0; i < room->n; i++) {
		bool refuse = room->finding[i].refuse && !eptfill_opts.force;

		stop = stop || refuse;
		if (refuse)
			log_error("fill %s: refused: %s; --force fills all the same", target_label(t),
				  room->finding[i].text);
		else
			log_warn("%s: %s", target_label(t), room->finding[i].text);
	}
	return stop;
}

/* What can be known before anything is touched. An exit status; EXIT_DONE: go ahead. */
static int may_fill(struct target *t, const struct room *room)
{
	if (tell_findings(t, room))
		return EXIT_REFUSED;
	if (!t->has_kvm && !eptfill_opts.host_only) {
		log_error("fill %s: it has no KVM machine, so there is no second level (--host-only fills "
			  "its host memory)", target_label(t));
		return EXIT_REFUSED;
	}
	if (t->has_kvm && !t->kvm.pre_fault && !eptfill_opts.host_only)
		log_warn("%s: this kernel has no KVM_PRE_FAULT_MEMORY (Linux 6.11): host memory only, each "
			 "page still costs one violation", target_label(t));
	return EXIT_DONE;
}

static void plan(const struct target *t, const struct room *room)
{
	char size[32], need[32], page[32];

	if (eptfill_opts.json) {
		struct json_object *j = json_object_new_object();

		add_str(j, "schema", "util-vm/eptfill/plan/1");
		add_str(j, "target", t->vm.target);
		add_u64(j, "memory_bytes", t->vm.mem_bytes);
		add_u64(j, "slots_bytes", target_mappable(t));
		add_u64(j, "missing_bytes", room->need_bytes);
		add_u64(j, "available_bytes", room->available_bytes);
		add_u64(j, "page_bytes", t->resident.page);
		add_u64(j, "vcpus", t->kvm.n_vcpus);
		add_bool(j, "kvm", t->has_kvm);
		add_bool(j, "pre_fault", t->kvm.pre_fault > 0);
		add_bool(j, "guessed", t->guessed);
		print_json(j);
		return;
	}
	printf("%s: %s of host memory to populate (%s pages), %s of them not there yet\n",
	       target_label(t), units_format_size(vm_slots_bytes(&t->slots, false), size, sizeof(size)),
	       units_format_size(t->resident.page, page, sizeof(page)),
	       units_format_size(room->need_bytes, need, sizeof(need)));
	for (size_t i = 0; i < t->slots.n; i++) {
		const struct vm_slot *s = &t->slots.slot[i];

		if (t->guessed)
			printf("  host 0x%llx %s\n", (unsigned long long)s->hva,
			       units_format_size(s->size, size, sizeof(size)));
		else
			printf("  guest 0x%llx host 0x%llx %s %s %s\n", (unsigned long long)s->gpa,
			       (unsigned long long)s->hva, units_format_size(s->size, size, sizeof(size)),
			       s->rom ? "rom" : "ram", s->name);
	}
	if (!t->has_kvm || !t->kvm.pre_fault || eptfill_opts.host_only)
		printf("  second level: not\n");
	else
		printf("  second level: by %zu vCPUs%s\n", t->kvm.n_vcpus,
		       t->guessed ? "; guest-physical memory is searched through" : "");
}

static int ram_only(const struct vm_slots *from, struct vm_slots *out)
{
	int rc = 0;

	for (size_t i = 0; i < from->n && !rc; i++)
		if (!from->slot[i].rom && from->slot[i].hva)
			rc = vm_slots_add(out, &from->slot[i]);
	return rc;
}

/* ptrace is not allowed here: the hypervisor may populate by itself. */
static bool by_monitor(const struct vm *vm, const char *label, const struct err *why)
{
	const struct vm_memory_ops *ops = vm->driver ? vm->driver->memory : NULL;
	struct err err = {0};

	if (!ops || !*vm->qmp_path)
		return false;
	log_warn("%s: %s; its monitor is asked to populate host memory instead (the VM stands still "
		 "meanwhile), and the second level is left out", label, why->text);
	if (!ops->populate(vm, &err))
		return true;
	log_warn("%s: %s", label, err.text);
	return false;
}

static bool is_not_allowed(int rc)
{
	return rc == -EPERM || rc == -EACCES || rc == -ENOTSUP || rc == -ENOSPC;
}

static void instead(struct target *t, struct outcome *o)
{
	uint64_t begun = units_now_us();

	if (!by_monitor(&t->vm, target_label(t), &o->err))
		return;
	o->by_monitor = true;
	o->r.host_us = units_now_us() - begun;
	o->r.host_bytes = vm_slots_bytes(&t->slots, false);
	o->r.host_done = true;
	o->rc = 0;
}

static int status_of(const struct target *t, const struct outcome *o)
{
	if (signal_seen())
		return EXIT_SIGNAL + signal_seen();
	if (is_not_allowed(o->rc))
		return EXIT_REFUSED;
	if (o->rc && o->rc != -ENOTTY)
		return EXIT_ROLLED_BACK;
	if (eptfill_opts.host_only)
		return o->r.host_done ? EXIT_DONE : EXIT_NO;
	if (!o->r.second_done || o->r.gone_bytes)
		return EXIT_NO;
	if (o->counted && kvm_mapped_bytes(&o->after) < target_mappable(t))
		return EXIT_NO;
	return EXIT_DONE;
}

static void conclude(struct target *t, struct outcome *o, int status)
{
	char size[32];

	if (eptfill_opts.json)
		tell_json(t, o, status);
	else
		tell_text(t, o);
	if (o->rc)
		log_error("fill %s: %s", target_label(t), o->err.text);
	else if (o->r.gone_bytes)
		log_warn("%s: %s changed places under way: fill again", target_label(t),
			 units_format_size(o->r.gone_bytes, size, sizeof(size)));
	else if (status == EXIT_NO && o->counted && o->r.second_done)
		log_warn("%s: KVM maps less than it was given: something undoes the fill (eptfill watch)",
			 target_label(t));
}

int fill_target(struct target *t)
{
	struct fill_options opts = {.threads = eptfill_opts.threads,
				    .stall_us = eptfill_opts.stall_us,
				    .duty_percent = eptfill_opts.duty_percent,
				    .host_only = eptfill_opts.host_only || !t->kvm.pre_fault};
	struct show show = {.name = target_label(t), .begun_us = units_now_us()};
	struct fill_hooks hooks = {&show, on_progress, on_cancelled};
	struct outcome o = {0};
	struct vm_slots ram = {0};
	struct err err = {0};
	int status;

	o.rc = ram_only(&t->slots, &ram);
	progress_begin(&show.bar);
	if (t->has_kvm)
		target_counters(t, &o.before, &err);
	if (!o.rc)
		o.rc = fill_run(t->vm.pid, t->has_kvm ? &t->kvm : NULL, &ram,
				t->guessed ? NULL : &t->slots, t->vm.mem_bytes, &opts, &hooks, &o.r, &o.err);
	progress_end(&show.bar);
	vm_slots_free(&ram);
	if (is_not_allowed(o.rc) && !o.r.host_bytes)
		instead(t, &o);
	if (t->has_kvm)
		o.counted = !target_counters(t, &o.after, &err);
	if (!vm_mappings_read(t->vm.pid, &t->mappings, &err))
		vm_resident_of(&t->slots, &t->mappings, &t->resident);
	status = status_of(t, &o);
	conclude(t, &o, status);
	fill_report_free(&o.r);
	return status;
}

static int fill_one(const char *name)
{
	struct target t;
	struct room room;
	struct err err = {0};
	int rc = target_open(name, &t, &err), status;

	/* Not even its mappings may be read: whether it fits is then the hypervisor's to find out. */
	if ((rc == -EPERM || rc == -EACCES) && eptfill_opts.force && !eptfill_opts.dry_run &&
	    by_monitor(&t.vm, name, &err))
		return eptfill_opts.host_only ? EXIT_DONE : EXIT_NO;
	if (rc)
		return refusal(&err, rc);
	preflight(&t, &room);
	if (eptfill_opts.dry_run)
		plan(&t, &room);
	status = may_fill(&t, &room);
	if (!status && !eptfill_opts.dry_run)
		status = fill_target(&t);
	target_close(&t);
	return status;
}

int eptfill_fill(int argc, char **argv)
{
	int status = EXIT_DONE;
	struct vm vm;

	if (!argc)
		return cli_usage_error("fill: a target is missing (NAME, pid:N or qmp:PATH)");
	if (!eptfill_opts.duty_percent || eptfill_opts.duty_percent > 100)
		return cli_usage_error("--duty %u: not from 1 to 100", eptfill_opts.duty_percent);
	if (eptfill_opts.stall_us < 50 || eptfill_opts.stall_us > 1000000)
		return cli_usage_error("--stall: not from 50us to 1s");
	catch_signals();
	for (int i = 0; i < argc && !signal_seen(); i++) {
		int one = ondemand_vm(argv[i], &vm) ? ondemand_fill(&vm) : fill_one(argv[i]);

		status = one > status ? one : status;
	}
	return status;
}
