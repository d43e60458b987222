/* SPDX-License-Identifier: MIT */
/*
 * What was before, so that it can be undone: a journal a VM, written before anything is changed.
 * Entries (all integers raw, CPU lists as text):
 *	pinning   target, name, pid, starttime, plan{vcpus,…,float,isolate,irqs}, threads[{tid,starttime,
 *		  kernel,role,index,name,before,pinned}]; later ones add to the first
 *	isolating partition{cgroup,home,enabled}
 *	irqs      irqs[{irq,name,before}]
 *	pinned, undoing
 */
#ifndef PINCORE_RECORD_H
#define PINCORE_RECORD_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/journal.h"
#include "plan.h"
#include "vm/cpuset.h"
#include "vm/interrupts.h"

struct rec_thread {
	pid_t tid;
	uint64_t starttime;
	enum vm_role role;
	int index;
	bool kernel;
	cpu_set_t before; /* the first one recorded: the thread's own */
	cpu_set_t pinned; /* the last one */
	char name[32];
};

struct record {
	char file[64]; /* within the state folder */
	char target[160], name[128];
	pid_t pid;
	uint64_t starttime;
	struct plan plan;
	struct rec_thread *threads;
	size_t n;
	struct partition partition; /* .cgroup "": none */
	struct interrupt *irqs;	    /* .cpus: as they were */
	size_t irqs_n;
	bool finished;		    /* the last entry says "pinned" */
};

/* Where records are: --state-dir, or by default one folder for root and one a user. */
const char *record_dir(void);
void record_file(pid_t pid, uint64_t starttime, char *buf, size_t size);

/* Entries of a journal into @r; whatever is in them is checked. -EBADMSG. */
int record_parse(struct json_object *entries, struct record *r, struct err *err);
void record_free(struct record *r);

/* Read without locking. -ENOENT: no record. */
int record_read(const char *file, struct record *r, struct err *err);

/* Call @fn for each record there is, damaged ones (@r NULL) too, until it does not return 0. */
int record_each(int (*fn)(void *ctx, const char *file, struct record *r, const struct err *err), void *ctx);

/* Does the VM of this record still run? A pid that is another process's by now is told by its start. */
bool record_lives(const struct record *r);
const struct rec_thread *record_thread(const struct record *r, pid_t tid, uint64_t starttime);

/* Entries to append; each is owned by the caller until journal_append takes it. */
struct json_object *record_plan_json(const struct plan *plan);
struct json_object *record_thread_json(const struct rec_thread *t);

#endif
