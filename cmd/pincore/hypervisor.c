/* SPDX-License-Identifier: MIT */
#include "hypervisor.h"

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>

#include "base/exit.h"
#include "base/log.h"
#include "base/units.h"
#include "record.h"
#include "vm/qmp.h"
#include "vm/vcpus.h"

/* As they are now, and how they were when we first came; a record is a journal named by the VM's uuid. */
struct vcpus {
	const struct vm *vm;
	struct vm_vcpu *list;
	size_t n;
	cpu_set_t cpus;
	struct journal *journal;
};

bool hypervisor_vm(const char *target, struct vm *vm)
{
	return !vm_find(target, vm, NULL) && vm->driver && vm->driver->vcpus;
}

static int open_vcpus(const struct vm *vm, struct vcpus *v)
{
	struct err err = {0};

	*v = (struct vcpus){.vm = vm};
	if (!vm->driver->vcpus->list(vm, &v->list, &v->n, &v->cpus, &err))
		return 0;
	log_error("%s", err.text);
	return EXIT_REFUSED;
}

static void close_vcpus(struct vcpus *v)
{
	journal_close(v->journal);
	free(v->list);
}

static const char *name_of(const struct vm *vm)
{
	return *vm->name ? vm->name : vm->target;
}

/* ---- the record ---- */

static void file_of(const struct vm *vm, char file[64])
{
	snprintf(file, 64, "%s.hv", vm->uuid);
}

static struct json_object *vcpu_json(const struct vm_vcpu *c)
{
	struct json_object *o = json_object_new_object();
	char text[UNITS_CPULIST_MAX];

	json_object_object_add(o, "vcpu", json_object_new_int((int)c->id));
	json_object_object_add(o, "hard", json_object_new_string(units_format_cpulist(&c->hard, text, sizeof(text))));
	json_object_object_add(o, "soft", json_object_new_string(units_format_cpulist(&c->soft, text, sizeof(text))));
	return o;
}

/* The first entry tells how it was before anybody here touched it; later pins leave it. */
static int begin_record(struct vcpus *v, struct err *err)
{
	struct json_object *o = json_object_new_object(), *list = json_object_new_array();
	char file[64];
	int rc;

	file_of(v->vm, file);
	rc = journal_open(record_dir(), file, false, &v->journal, err);
	if (rc == -ENOENT)
		rc = journal_open(record_dir(), file, true, &v->journal, err);
	if (rc || json_object_array_length(journal_entries(v->journal))) {
		json_object_put(o);
		json_object_put(list);
		return rc;
	}
	for (size_t i = 0; i < v->n; i++)
		json_object_array_add(list, vcpu_json(&v->list[i]));
	json_object_object_add(o, "target", json_object_new_string(v->vm->target));
	json_object_object_add(o, "name", json_object_new_string(v->vm->name));
	json_object_object_add(o, "vcpus", list);
	return journal_append(v->journal, "pinning", o, err);
}

/* What is in the file may be anybody's. */
static bool recorded(struct json_object *entries, unsigned vcpu, struct vm_vcpu *before)
{
	struct json_object *list = NULL, *first = json_object_array_get_idx(entries, 0);

	if (!first || !json_object_object_get_ex(first, "vcpus", &list) ||
	    !json_object_is_type(list, json_type_array))
		return false;
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *o = json_object_array_get_idx(list, i);
		const char *hard = qmp_str(o, "hard"), *soft = qmp_str(o, "soft");

		if (qmp_u64(o, "vcpu", UINT64_MAX) == vcpu && hard && soft &&
		    !units_cpulist(hard, &before->hard) && !units_cpulist(soft, &before->soft))
			return true;
	}
	return false;
}

/* ---- pin ---- */

static int refuse(const char *what, const struct vm *vm)
{
	log_error("pin %s: %s: its vCPUs are the hypervisor's, and it has no threads here", name_of(vm), what);
	return EXIT_REFUSED;
}

static int check(const struct vcpus *v, const struct plan *plan, cpu_set_t *wanted)
{
	cpu_set_t missing;
	char text[200];

	if (plan->isolate || plan->irqs)
		return refuse(plan->isolate ? "--isolate" : "--irqs", v->vm);
	if (!plan->group[G_VCPU].n)
		return cli_usage_error("which CPUs? (--vcpus)");
	plan_cpus_set(&plan->group[G_VCPU], wanted);
	CPU_AND(&missing, wanted, &v->cpus);
	if (CPU_EQUAL(&missing, wanted))
		return 0;
	CPU_XOR(&missing, &missing, wanted);
	log_error("pin %s: CPU %s is not one of the hypervisor's", name_of(v->vm),
		  units_format_cpulist(&missing, text, sizeof(text)));
	return EXIT_REFUSED;
}

static void tell(const struct vcpus *v, const struct vm_vcpu *before, const struct vm_vcpu *now)
{
	char was[UNITS_CPULIST_MAX], hard[UNITS_CPULIST_MAX], soft[UNITS_CPULIST_MAX];
	struct json_object *o;

	units_format_cpulist(&before->hard, was, sizeof(was));
	units_format_cpulist(&now->hard, hard, sizeof(hard));
	units_format_cpulist(&now->soft, soft, sizeof(soft));
	if (!pin_opts.json) {
		if (pin_opts.dry_run || log_level() >= LOG_VERBOSE)
			printf("vcpu %-7u %-10s -> %s, rather %s\n", now->id, was, hard, soft);
		return;
	}
	o = vcpu_json(now);
	json_object_object_add(o, "schema", json_object_new_string("util-vm/pincore/vcpu/1"));
	json_object_object_add(o, "vm", json_object_new_string(name_of(v->vm)));
	json_object_object_add(o, "before", json_object_new_string(was));
	json_object_object_add(o, "dry_run", json_object_new_boolean(pin_opts.dry_run));
	print_json(o);
}

/* All back as it was when one could not be set. */
static int roll_back(const struct vcpus *v, size_t done)
{
	int status = EXIT_ROLLED_BACK;
	struct err err = {0};

	for (size_t i = 0; i < done; i++)
		if (v->vm->driver->vcpus->pin(v->vm, v->list[i].id, &v->list[i].hard, &v->list[i].soft, &err)) {
			log_error("%s", err.text);
			status = EXIT_RECOVER;
		}
	return status;
}

static int pin_all(struct vcpus *v, const struct plan *plan, const cpu_set_t *soft)
{
	struct plan_use use = {0};
	struct err err = {0};

	for (size_t i = 0; i < v->n; i++) {
		struct vm_vcpu to = v->list[i];

		plan_mask(plan, &use, G_VCPU, &to.hard);
		if (soft)
			to.soft = *soft;
		if (!pin_opts.dry_run && v->vm->driver->vcpus->pin(v->vm, to.id, &to.hard, &to.soft, &err)) {
			log_error("%s", err.text);
			return roll_back(v, i);
		}
		tell(v, &v->list[i], &to);
	}
	return 0;
}

int hypervisor_pin(const struct vm *vm, const struct plan *plan)
{
	struct err err = {0};
	cpu_set_t wanted, soft;
	struct vcpus v;
	int rc = open_vcpus(vm, &v);

	if (rc)
		return rc;
	rc = check(&v, plan, &wanted);
	if (!rc && pin_opts.soft && units_cpulist(pin_opts.soft, &soft))
		rc = cli_usage_error("--soft %s: not a CPU list such as 2,4-7", pin_opts.soft);
	if (!rc && !pin_opts.dry_run && begin_record(&v, &err)) {
		log_error("%s", err.text);
		rc = EXIT_REFUSED;
	}
	if (!rc)
		rc = pin_all(&v, plan, pin_opts.soft ? &soft : NULL);
	if (!rc && v.journal && journal_append(v.journal, "pinned", NULL, &err))
		log_warn("%s", err.text);
	close_vcpus(&v);
	return rc;
}

/* ---- show ---- */

int hypervisor_show(const struct vm *vm)
{
	char file[64], path[4200], hard[UNITS_CPULIST_MAX], soft[UNITS_CPULIST_MAX], was[UNITS_CPULIST_MAX];
	struct json_object *entries, *o;
	struct vm_vcpu before;
	struct vcpus v;
	bool live;
	int rc = open_vcpus(vm, &v);

	if (rc)
		return rc;
	file_of(vm, file);
	snprintf(path, sizeof(path), "%s/%s", record_dir(), file);
	entries = journal_read(path, &live, NULL);
	if (!pin_opts.json)
		printf("%s  domain %u  %s%s\n%-8s %4s %-12s %-12s %s\n", name_of(vm), vm->domid, vm->state,
		       entries ? "  pinned by pincore" : "", "VCPU", "LAST", "CPUS", "RATHER", "BEFORE");
	for (size_t i = 0; i < v.n; i++) {
		const struct vm_vcpu *c = &v.list[i];
		bool known = entries && recorded(entries, c->id, &before);

		units_format_cpulist(&c->hard, hard, sizeof(hard));
		units_format_cpulist(&c->soft, soft, sizeof(soft));
		units_format_cpulist(&before.hard, was, known ? sizeof(was) : 1);
		if (!pin_opts.json) {
			printf("vcpu %-3u %4d %-12s %-12s %s\n", c->id, c->cpu, hard, soft, known ? was : "");
			continue;
		}
		o = vcpu_json(c);
		json_object_object_add(o, "schema", json_object_new_string("util-vm/pincore/vcpu/1"));
		json_object_object_add(o, "vm", json_object_new_string(name_of(vm)));
		json_object_object_add(o, "last_cpu", json_object_new_int(c->cpu));
		json_object_object_add(o, "online", json_object_new_boolean(c->online));
		if (known)
			json_object_object_add(o, "before", json_object_new_string(was));
		print_json(o);
	}
	json_object_put(entries);
	close_vcpus(&v);
	return 0;
}

/* ---- undo ---- */

static int put_back(struct vcpus *v)
{
	struct json_object *entries = journal_entries(v->journal);
	struct vm_vcpu before;
	struct err err = {0};
	size_t n = 0;

	for (size_t i = 0; i < v->n; i++) {
		if (!recorded(entries, v->list[i].id, &before))
			continue; /* plugged in later: it was never pinned by us */
		before.id = v->list[i].id;
		tell(v, &v->list[i], &before);
		if (!pin_opts.dry_run &&
		    v->vm->driver->vcpus->pin(v->vm, before.id, &before.hard, &before.soft, &err)) {
			log_error("undo %s: %s", name_of(v->vm), err.text);
			return EXIT_RECOVER;
		}
		n++;
	}
	if (pin_opts.dry_run)
		return 0;
	log_verbose("undo %s: %zu vCPUs", name_of(v->vm), n);
	unlink(journal_path(v->journal));
	return 0;
}

int hypervisor_undo(const struct vm *vm)
{
	struct err err = {0};
	struct vcpus v;
	char file[64];
	int rc = open_vcpus(vm, &v);

	if (rc)
		return rc;
	file_of(vm, file);
	if (journal_open(record_dir(), file, false, &v.journal, &err)) {
		if (err.code == -ENOENT)
			log_error("undo %s: nothing is recorded of it in %s", name_of(vm), record_dir());
		else
			log_error("%s", err.text);
		rc = EXIT_REFUSED;
	} else {
		rc = put_back(&v);
	}
	close_vcpus(&v);
	return rc;
}

/* ---- all of them ---- */

/* One whose VM is gone: there is nothing to put back. */
static int forget(const char *path, const char *uuid)
{
	if (pin_opts.dry_run)
		printf("%s: ended, forgotten\n", uuid);
	else
		unlink(path);
	return 0;
}

static int each(bool undo)
{
	char pattern[4200], target[80];
	int status = 0, rc;
	struct vm vm;
	glob_t g;

	snprintf(pattern, sizeof(pattern), "%s/*.hv", record_dir());
	if (glob(pattern, 0, NULL, &g))
		return 0;
	for (size_t i = 0; i < g.gl_pathc; i++) {
		const char *name = strrchr(g.gl_pathv[i], '/') + 1;

		snprintf(target, sizeof(target), "xen:%.36s", name);
		if (hypervisor_vm(target, &vm))
			rc = undo ? hypervisor_undo(&vm) : hypervisor_show(&vm);
		else
			rc = undo ? forget(g.gl_pathv[i], target)
				  : (printf("%s: ended: 'pincore undo --all' clears up\n", target), 0);
		status = rc > status ? rc : status;
	}
	globfree(&g);
	return status;
}

int hypervisor_list(void)
{
	return each(false);
}

int hypervisor_undo_all(void)
{
	return each(true);
}
