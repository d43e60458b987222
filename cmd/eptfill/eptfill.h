/* SPDX-License-Identifier: MIT */
/* What the verbs of eptfill share: options, a VM with all that is known of its memory. */
#ifndef EPTFILL_H
#define EPTFILL_H

#include <stdbool.h>
#include <stdint.h>
#include <json-c/json.h>

#include "base/err.h"
#include "vm/fill.h"
#include "vm/guest.h"
#include "vm/kvm.h"
#include "vm/memory.h"
#include "vm/room.h"
#include "vm/vm.h"

struct eptfill_opts {
	bool json, dry_run, force, host_only, once, plain, keep_quirk;
	uint32_t threads, duty_percent;
	uint64_t stall_us, interval_us, again_us, for_us, settle_us;
	uint64_t alloc_size, write_size;
	uint32_t alloc_count, write_count;
	bool free_each;
};
extern struct eptfill_opts eptfill_opts;

/* Everything about one VM; read again whenever the VM may have changed. */
struct target {
	struct vm vm;
	struct kvm kvm;
	bool has_kvm;
	struct vm_slots slots; /* by the monitor; else guessed, with hva and no gpa */
	bool guessed;
	struct vm_mappings mappings;
	struct vm_resident resident;
	struct vm_memory_state state;
	bool has_state;
};

/* Find and read. 0; -errno: see eptfill_refusal. */
int target_open(const char *name, struct target *t, struct err *err);
int target_refresh(struct target *t, struct err *err);
void target_close(struct target *t);

/* From debugfs, or from the monitor. */
int target_counters(const struct target *t, struct kvm_stats *s, struct err *err);

/* What KVM should map: RAM and ROM of the slots. */
uint64_t target_mappable(const struct target *t);
const char *target_label(const struct target *t); /* its name, or how it was named */

/*
 * What took host memory or entries away since @before, as the process's mappings and what is known of
 * its devices tell (t->resident is read again); "" if they do not.
 */
void undone_by(struct target *t, const struct vm_resident *before, char *buf, size_t size);

/* Second-level coverage in hundredths of a percent, never rounded up to 10000. */
unsigned coverage(uint64_t mapped, uint64_t total);

/* Whether it fits and will stay; the findings are printed by the verb. */
void preflight(const struct target *t, struct room *room);

/* Fill one VM that was opened; tells its findings and its report; an exit status. */
int fill_target(struct target *t);

/* Ctrl-C and the like: the signal seen, or 0. */
void catch_signals(void);
int signal_seen(void);

/* Exit status of a target that could not be opened; says why. */
int refusal(const struct err *err, int rc);

void print_json(struct json_object *o); /* consumed; one line */
void add_u64(struct json_object *o, const char *key, uint64_t value); /* UINT64_MAX: left out */
void add_str(struct json_object *o, const char *key, const char *value);
void add_percent(struct json_object *o, const char *key, unsigned hundredths);
void add_bool(struct json_object *o, const char *key, bool value);

int eptfill_fill(int argc, char **argv);
int eptfill_run(int argc, char **argv);
int eptfill_stat(int argc, char **argv);
int eptfill_verify(int argc, char **argv);
int eptfill_watch(int argc, char **argv);
int eptfill_memtest(int argc, char **argv);

#endif
