/* SPDX-License-Identifier: MIT */
/* Processes of members: started so that they outlive us, named so that a crash loses none. */
#ifndef CUMP_PROCESS_H
#define CUMP_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <json-c/json.h>

#include "base/err.h"

/* A pid alone may be used again by the kernel; with its start time it is unique. */
struct process {
	pid_t pid;	/* 0: none */
	uint64_t start; /* field 22 of /proc/PID/stat, clock ticks since boot */
};

struct process process_of(pid_t pid); /* .pid 0 if there is none */
bool process_alive(struct process p);

/*
 * Start argv (array of strings) in a session of its own, output appended to @log. The
 * environment gets UTIL_VM_PAIR=@tag: process_find finds it again after a crash of ours.
 */
int process_spawn(struct json_object *argv, const char *log, const char *tag, struct process *p,
		  struct err *err);

/* The last line in a log, for errors, into @buf; returns @buf. */
const char *process_last_words(const char *log, char *buf, size_t size);

/* SIGTERM, and SIGKILL after @grace_ms; waits until it is gone. 0 also if it was gone before. */
int process_end(struct process p, int grace_ms, struct err *err);

/* End every process whose environment carries UTIL_VM_PAIR=@tag; their number. */
int process_end_tagged(const char *tag);

/* pid and start to and from a JSON object's "pid" and "start". */
void process_to_json(struct process p, struct json_object *o);
struct process process_from_json(struct json_object *o);

#endif
