/* SPDX-License-Identifier: MIT */
/*
 * QEMU's machine protocol (QMP; docs/interop/qmp-spec) over its unix socket. One thread at a time. The peer is not
 * trusted: a line is at most 16 MiB, nesting at most 64 deep; anything else is -EPROTO.
 */
#ifndef VM_QMP_H
#define VM_QMP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <json-c/json.h>

#include "base/err.h"

struct qmp;

/* Called from within qmp_call, qmp_finish and qmp_poll, in the order of arrival.
 * @when_us is QEMU's own CLOCK_REALTIME stamp of the event; @data may be NULL and is borrowed. */
typedef void qmp_event_fn(void *ctx, const char *name, struct json_object *data, uint64_t when_us);

/* Connect, read the greeting, negotiate capabilities. -ETIMEDOUT usually means that another
 * client holds the monitor (QEMU serves one at a time), and @err says so. */
int qmp_open(const char *path, int timeout_ms, struct qmp **out, struct err *err);
void qmp_close(struct qmp *qmp); /* NULL is fine */

void qmp_on_event(struct qmp *qmp, qmp_event_fn *fn, void *ctx);

/*
 * Run @cmd with @args (json text built by @fmt, or NULL for none; %s arguments must already be
 * escaped by qmp_quote) and wait for its answer. *@ret (may be NULL) is owned by the caller.
 * QEMU's own error: -EREMOTEIO with its description; -ETIMEDOUT; -EPIPE: the monitor is gone.
 */
int qmp_call(struct qmp *qmp, int timeout_ms, struct json_object **ret, struct err *err,
	     const char *cmd, const char *fmt, ...) __attribute__((format(printf, 6, 7)));

/* The two halves of qmp_call, so that commands to two machines overlap. *@id names the call. */
int qmp_start(struct qmp *qmp, uint64_t *id, struct err *err, const char *cmd, const char *fmt,
	      ...) __attribute__((format(printf, 5, 6)));
int qmp_finish(struct qmp *qmp, uint64_t id, int timeout_ms, struct json_object **ret,
	       struct err *err);

/* getfd: hand @fd (stays the caller's) to QEMU under @name, for "fd:NAME". */
int qmp_send_fd(struct qmp *qmp, const char *name, int fd, int timeout_ms, struct err *err);

/* Take in what has arrived, waiting at most @timeout_ms for the first byte. 0, or -EPIPE … */
int qmp_poll(struct qmp *qmp, int timeout_ms, struct err *err);

int qmp_fd(const struct qmp *qmp); /* for poll(2) */
pid_t qmp_peer_pid(const struct qmp *qmp); /* SO_PEERCRED: the pid of the QEMU behind the socket */

/* @text as a JSON string with its quotes, into @buf; returns @buf; "" if it does not fit. */
const char *qmp_quote(const char *text, char *buf, size_t size);

/* Helpers over an answer: dotted path, default where absent or of another type. */
uint64_t qmp_u64(struct json_object *obj, const char *path, uint64_t otherwise);
const char *qmp_str(struct json_object *obj, const char *path); /* NULL if absent; borrowed */
bool qmp_bool(struct json_object *obj, const char *path, bool otherwise);

/* The peer's words for terminals and logs: @text (NULL is "") without control characters, cut
 * to fit, into @buf; returns @buf. */
const char *qmp_clean(const char *text, char *buf, size_t size);

/*
 * The parser alone (also the fuzz target's door): feed bytes, take whole messages.
 * qmp_feed: 0, -EPROTO (not JSON, too deep), -EMSGSIZE. qmp_next: a message owned by the
 * caller or NULL.
 */
struct qmp_parser;
struct qmp_parser *qmp_parser_new(void);
void qmp_parser_free(struct qmp_parser *p);
int qmp_parser_feed(struct qmp_parser *p, const void *data, size_t n);
struct json_object *qmp_parser_next(struct qmp_parser *p);

#endif
