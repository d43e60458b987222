/* SPDX-License-Identifier: MIT */
/* What the verbs of pincore share. */
#ifndef PINCORE_PINCORE_H
#define PINCORE_PINCORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cli.h"
#include "plan.h"
#include "vm/threads.h"
#include "vm/vm.h"

struct pin_opts {
	const char *cpus[GROUPS];	/* --vcpus, --iothreads, --vhost, --emulator */
	const char *all, *single, *soft;
	bool floating, isolate, irqs;
	bool dry_run, json, undo, everything;
	uint64_t for_us, sample_us, every_us;
	const char *state_dir;
};
extern struct pin_opts pin_opts;

/* The verbs; each returns an exit status. */
int pin_pin(int argc, char **argv);
int pin_auto(int argc, char **argv);
int pin_show(int argc, char **argv);
int pin_verify(int argc, char **argv);
int pin_watch(int argc, char **argv);
int pin_undo(int argc, char **argv);
int pin_run(int argc, char **argv);

/* A VM and its threads. */
struct subject {
	struct vm vm;
	struct vm_thread *threads;
	size_t n;
	uint64_t starttime; /* of its process */
};

/* Find a VM and read its threads: 0, or an exit status, with the reason told. */
int subject_open(const char *target, struct subject *s);
void subject_close(struct subject *s);
unsigned subject_count(const struct subject *s, enum group g);
const char *subject_name(const struct subject *s); /* its name, or how the user called it */

/* "vcpu 3", "main", "iothread" … into @buf; returns @buf. */
const char *thread_label(const struct vm_thread *t, char *buf, size_t size);

/* The plan that the options tell: 0, or an exit status. *@given: any of them was there. */
int plan_of_options(struct plan *plan, bool *given);
/* Can this machine and this VM (NULL: not there yet) be pinned so? 0, or an exit status, with the reason told. */
int plan_check(const struct plan *plan, const struct subject *s);
/* The plan that auto finds, and why. 0 or an exit status. */
int plan_find(const struct subject *s, struct plan *plan, struct plan_why *why);

/* One JSON object on a line of standard output; consumed. */
struct json_object;
void print_json(struct json_object *o);

/* SIGINT and SIGTERM are noted from here on, and no longer end us; the one that came, or 0. */
void signals_note(void);
int signal_noted(void);

#endif
