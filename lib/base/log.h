/* SPDX-License-Identifier: MIT */
/*
 * Messages for people, on stderr, one line each: "tool: verb object: reason".
 * Data never goes through here. Thread safe: one write(2) a line.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

enum log_level {
	LOG_QUIET = -1, /* -q: errors only */
	LOG_NORMAL = 0, /* errors, warnings, notes */
	LOG_VERBOSE = 1, /* -v: what is being done */
	LOG_TRACE = 2,	/* -vv: every message on the wire */
};

/* Name the tool (static lifetime) and set the level; call once, first. */
void log_init(const char *tool, enum log_level level);
enum log_level log_level(void);

void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));   /* always */
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));    /* not under -q */
void log_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));    /* not under -q */
void log_verbose(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* -v */
void log_trace(const char *fmt, ...) __attribute__((format(printf, 1, 2)));   /* -vv */

#endif
