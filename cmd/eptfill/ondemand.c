/* SPDX-License-Identifier: MIT */
#include "ondemand.h"

#include <stdio.h>
#include <string.h>

#include "base/exit.h"
#include "base/log.h"
#include "base/units.h"
#include "vm/ondemand.h"

#define ROOM_SLACK (4ull << 20) /* page tables of what is given */

bool ondemand_vm(const char *name, struct vm *vm)
{
	return !vm_find(name, vm, NULL) && vm->driver && vm->driver->ondemand;
}

static const char *label(const struct vm *vm)
{
	return *vm->name ? vm->name : vm->target;
}

/* Mapped: its own frames, less those that only wait in the cache. */
static uint64_t mapped(const struct vm_ondemand *m)
{
	return m->given_bytes > m->cache_bytes ? m->given_bytes - m->cache_bytes : 0;
}

static unsigned cover(const struct vm_ondemand *m)
{
	return coverage(mapped(m), mapped(m) + m->entry_bytes);
}

static int read_it(const struct vm *vm, struct vm_ondemand *m)
{
	struct err err = {0};
	int rc = vm->driver->ondemand->read(vm, m, &err);

	return rc ? refusal(&err, rc) : EXIT_DONE;
}

static void add_state(struct json_object *j, const struct vm *vm, const struct vm_ondemand *m)
{
	add_str(j, "target", vm->target);
	add_str(j, "name", vm->name);
	add_u64(j, "domid", vm->domid);
	add_u64(j, "max_bytes", m->max_bytes);
	add_u64(j, "target_bytes", m->target_bytes);
	add_u64(j, "given_bytes", m->given_bytes);
	add_u64(j, "on_demand_bytes", m->entry_bytes);
	add_u64(j, "cache_bytes", m->cache_bytes);
	add_percent(j, "coverage_percent", cover(m));
}

int ondemand_stat(const struct vm *vm)
{
	struct json_object *j;
	struct vm_ondemand m;
	char a[32], b[32], c[32];
	int status = read_it(vm, &m);

	if (status)
		return status;
	if (eptfill_opts.json) {
		j = json_object_new_object();
		add_str(j, "schema", "util-vm/eptfill/on-demand/1");
		add_state(j, vm, &m);
		print_json(j);
		return EXIT_DONE;
	}
	printf("%s domain %u %s\n", label(vm), vm->domid, vm->state);
	printf("  %-14s %s given of at most %s, balloon's target %s\n", "memory",
	       units_format_size(m.given_bytes, a, sizeof(a)), units_format_size(m.max_bytes, b, sizeof(b)),
	       units_format_size(m.target_bytes, c, sizeof(c)));
	printf("  %-14s %u.%02u %%: %s of %s\n", "second level", cover(&m) / 100, cover(&m) % 100,
	       units_format_size(mapped(&m), a, sizeof(a)),
	       units_format_size(mapped(&m) + m.entry_bytes, b, sizeof(b)));
	printf("  %-14s %s, %s of it in the cache\n", "on demand", units_format_size(m.entry_bytes, a, sizeof(a)),
	       units_format_size(m.cache_bytes, b, sizeof(b)));
	return EXIT_DONE;
}

/* What the fill takes from the hypervisor: frames for entries that the cache does not cover. */
static uint64_t missing(const struct vm_ondemand *m)
{
	return m->entry_bytes > m->cache_bytes ? m->entry_bytes - m->cache_bytes : 0;
}

static int may_fill(const struct vm *vm, const struct vm_ondemand *m)
{
	uint64_t have = 0, need = missing(m);
	struct err err = {0};
	char a[32], b[32];
	int rc = vm->driver->ondemand->room(&have, &err);

	if (rc)
		return refusal(&err, rc);
	if (!need || have >= need + ROOM_SLACK)
		return EXIT_DONE;
	if (eptfill_opts.force) {
		log_warn("fill %s: %s are missing, and the hypervisor has %s: tried all the same", label(vm),
			 units_format_size(need, a, sizeof(a)), units_format_size(have, b, sizeof(b)));
		return EXIT_DONE;
	}
	log_error("fill %s: %s are missing, and the hypervisor has %s (give some back: xl mem-set)", label(vm),
		  units_format_size(need, a, sizeof(a)), units_format_size(have, b, sizeof(b)));
	return EXIT_REFUSED;
}

static void tell(const struct vm *vm, const struct vm_ondemand *was, const struct vm_ondemand *is, uint64_t took_us,
		 int status)
{
	char a[32], b[32], c[32];
	struct json_object *j;

	if (eptfill_opts.json) {
		j = json_object_new_object();
		add_str(j, "schema", "util-vm/eptfill/on-demand-fill/1");
		add_state(j, vm, is);
		add_u64(j, "on_demand_before_bytes", was->entry_bytes);
		add_u64(j, "target_before_bytes", was->target_bytes);
		add_u64(j, "took_us", took_us);
		add_bool(j, "dry_run", eptfill_opts.dry_run);
		add_u64(j, "exit", (uint64_t)status);
		print_json(j);
		return;
	}
	printf("%s: %s on demand, %s given%s in %s; balloon's target %s\n", label(vm),
	       units_format_size(was->entry_bytes, a, sizeof(a)),
	       units_format_size(was->entry_bytes - (is->entry_bytes < was->entry_bytes ? is->entry_bytes : was->entry_bytes),
				 b, sizeof(b)),
	       eptfill_opts.dry_run ? " (dry run)" : "", units_format_duration(took_us, c, sizeof(c)),
	       is->target_bytes == was->target_bytes ? "as it was" : "raised to what it may have");
}

int ondemand_fill(const struct vm *vm)
{
	struct vm_ondemand was, is;
	uint64_t begun = units_now_us();
	struct err err = {0};
	int status = read_it(vm, &was), rc;

	if (!status && was.entry_bytes)
		status = may_fill(vm, &was);
	if (status)
		return status;
	is = was;
	if (was.entry_bytes && !eptfill_opts.dry_run) {
		/* With as many frames as entries nothing changes for the guest's balloon. */
		rc = vm->driver->ondemand->fill(vm, missing(&was) ? was.max_bytes : was.target_bytes, &err);
		if (rc) {
			log_error("%s", err.text);
			return EXIT_ROLLED_BACK;
		}
		status = read_it(vm, &is);
		if (!status && is.entry_bytes)
			status = EXIT_NO; /* still on demand */
	}
	tell(vm, &was, &is, units_now_us() - begun, status);
	return status;
}
