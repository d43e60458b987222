/* SPDX-License-Identifier: MIT */
#include "vm/qmp.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/units.h"
#include "net/addr.h"

#define CALLS_MAX 32
#define SEND_MS 5000
#define READ_BYTES 65536
#define POLL_READS 256 /* in one qmp_poll: a peer that floods must not hold us */

/* A command that was sent and whose answer nobody has taken yet. */
struct call {
	uint64_t id; /* 0: free */
	char cmd[40];
	struct json_object *answer;
	bool abandoned; /* nobody waits any more: drop the answer when it comes */
};

struct qmp {
	int fd;
	struct qmp_parser *parser;
	uint64_t last_id;
	struct call calls[CALLS_MAX];
	struct json_object *greeting;
	qmp_event_fn *on_event;
	void *event_ctx;
	int broken;
	char *buf;
};

const char *qmp_clean(const char *text, char *buf, size_t size)
{
	size_t i;

	for (i = 0; text && text[i] && i + 1 < size; i++)
		buf[i] = (unsigned char)text[i] < ' ' || text[i] == 0x7f ? '?' : text[i];
	buf[i] = '\0';
	return buf;
}

static struct json_object *at_path(struct json_object *obj, const char *path)
{
	char key[64];

	while (obj && *path) {
		size_t n = strcspn(path, ".");

		if (n >= sizeof(key))
			return NULL;
		memcpy(key, path, n);
		key[n] = '\0';
		path += n + (path[n] == '.');
		if (!json_object_is_type(obj, json_type_object) ||
		    !json_object_object_get_ex(obj, key, &obj))
			return NULL;
	}
	return obj;
}

uint64_t qmp_u64(struct json_object *obj, const char *path, uint64_t otherwise)
{
	struct json_object *v = at_path(obj, path);

	if (!json_object_is_type(v, json_type_int))
		return otherwise;
	/* json-c clamps a negative number to 0 here. */
	return json_object_get_int64(v) < 0 ? otherwise : json_object_get_uint64(v);
}

const char *qmp_str(struct json_object *obj, const char *path)
{
	struct json_object *v = at_path(obj, path);

	return json_object_is_type(v, json_type_string) ? json_object_get_string(v) : NULL;
}

bool qmp_bool(struct json_object *obj, const char *path, bool otherwise)
{
	struct json_object *v = at_path(obj, path);

	return json_object_is_type(v, json_type_boolean) ? json_object_get_boolean(v) : otherwise;
}

/* One character of a JSON string into @to; the bytes that it takes. */
static size_t escape(unsigned char c, char to[7])
{
	if (c == '"' || c == '\\')
		return (size_t)snprintf(to, 7, "\\%c", c);
	return (size_t)snprintf(to, 7, c < ' ' || c == 0x7f ? "\\u%04x" : "%c", c);
}

const char *qmp_quote(const char *text, char *buf, size_t size)
{
	size_t n = 0;

	if (size < 3) {
		if (size)
			*buf = '\0';
		return buf;
	}
	buf[n++] = '"';
	for (const char *p = text; *p; p++) {
		char one[7];
		size_t len = escape((unsigned char)*p, one);

		if (n + len + 2 > size) {
			*buf = '\0';
			return buf;
		}
		memcpy(buf + n, one, len);
		n += len;
	}
	memcpy(buf + n, "\"", 2);
	return buf;
}

static struct call *find_call(struct qmp *qmp, uint64_t id)
{
	for (struct call *c = qmp->calls; c < qmp->calls + CALLS_MAX; c++)
		if (c->id == id)
			return c;
	return NULL;
}

static void end_call(struct call *c)
{
	json_object_put(c->answer);
	memset(c, 0, sizeof(*c));
}

/* QEMU's answer to what it could not even parse bears no id: it is the oldest call's. */
static struct call *oldest_call(struct qmp *qmp)
{
	struct call *oldest = NULL;

	for (struct call *c = qmp->calls; c < qmp->calls + CALLS_MAX; c++)
		if (c->id && !c->answer && (!oldest || c->id < oldest->id))
			oldest = c;
	return oldest;
}

static void take_answer(struct qmp *qmp, struct json_object *msg)
{
	uint64_t id = qmp_u64(msg, "id", 0);
	struct call *c = id ? find_call(qmp, id) : oldest_call(qmp);

	if (!c || c->answer)
		return;
	if (c->abandoned)
		end_call(c);
	else
		c->answer = json_object_get(msg);
}

static void take_event(struct qmp *qmp, struct json_object *msg)
{
	uint64_t sec = qmp_u64(msg, "timestamp.seconds", 0);
	uint64_t usec = qmp_u64(msg, "timestamp.microseconds", 0);
	const char *name = qmp_str(msg, "event");

	if (!name || !qmp->on_event)
		return;
	if (sec > UINT32_MAX * 1000ull || usec >= 1000000)
		sec = usec = 0;
	qmp->on_event(qmp->event_ctx, name, at_path(msg, "data"), sec * 1000000 + usec);
}

static void dispatch(struct qmp *qmp)
{
	struct json_object *msg;

	while ((msg = qmp_parser_next(qmp->parser))) {
		if (log_level() >= LOG_TRACE)
			log_trace("qmp < %.800s", json_object_to_json_string(msg));
		if (at_path(msg, "return") || at_path(msg, "error"))
			take_answer(qmp, msg);
		else if (at_path(msg, "event"))
			take_event(qmp, msg);
		else if (at_path(msg, "QMP") && !qmp->greeting)
			qmp->greeting = json_object_get(msg);
		json_object_put(msg);
	}
}

static int broke(struct qmp *qmp, int code)
{
	qmp->broken = code;
	return code;
}

/* One read(2) at most, waiting for it until @deadline. 1: something came, 0: nothing. */
static int take_in(struct qmp *qmp, uint64_t deadline)
{
	struct pollfd p = {.fd = qmp->fd, .events = POLLIN};
	uint64_t now = units_now_us();
	ssize_t n;
	int rc;

	if (qmp->broken)
		return qmp->broken;
	rc = poll(&p, 1, now < deadline ? (int)((deadline - now + 999) / 1000) : 0);
	if (rc <= 0)
		return rc < 0 && errno != EINTR ? -errno : 0;
	n = recv(qmp->fd, qmp->buf, READ_BYTES, 0);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : broke(qmp, -EPIPE);
	if (!n)
		return broke(qmp, -EPIPE);
	rc = qmp_parser_feed(qmp->parser, qmp->buf, (size_t)n);
	dispatch(qmp);
	return rc ? broke(qmp, rc) : 1;
}

static int monitor_err(struct err *err, int rc, const char *doing)
{
	if (rc == -EPIPE)
		return err_set(err, rc, "%s: the monitor is gone", doing);
	if (rc == -EPROTO || rc == -EMSGSIZE)
		return err_set(err, -EPROTO, "%s: what answers there does not speak QMP", doing);
	return err_sys(err, rc, "%s", doing);
}

static uint64_t deadline_of(int timeout_ms)
{
	return units_now_us() + (timeout_ms > 0 ? (uint64_t)timeout_ms * 1000 : 0);
}

static int send_all(struct qmp *qmp, const char *text, size_t n, int pass_fd)
{
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	uint64_t deadline = deadline_of(SEND_MS);
	struct iovec iov = {.iov_base = (char *)text, .iov_len = n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (pass_fd >= 0) {
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control.room);
		*CMSG_FIRSTHDR(&msg) = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
							.cmsg_type = SCM_RIGHTS,
							.cmsg_len = CMSG_LEN(sizeof(int))};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &pass_fd, sizeof(int));
	}
	while (iov.iov_len) {
		struct pollfd p = {.fd = qmp->fd, .events = POLLOUT};
		ssize_t sent = sendmsg(qmp->fd, &msg, MSG_NOSIGNAL);

		if (sent > 0) { /* the descriptor goes with the first byte */
			iov.iov_base = (char *)iov.iov_base + sent;
			iov.iov_len -= (size_t)sent;
			msg.msg_control = NULL;
			msg.msg_controllen = 0;
			continue;
		}
		if (errno != EAGAIN && errno != EINTR)
			return broke(qmp, errno == ECONNRESET ? -EPIPE : -errno);
		if (units_now_us() >= deadline)
			return broke(qmp, -ETIMEDOUT);
		poll(&p, 1, 100);
	}
	return 0;
}

/* The whole command as one line. @args is parsed first, so that no text of it can be a command. */
static int compose(uint64_t id, const char *cmd, const char *args, char **line)
{
	struct json_object *msg, *obj = NULL;
	int n;

	if (args) {
		obj = json_tokener_parse(args);
		if (!json_object_is_type(obj, json_type_object)) {
			json_object_put(obj);
			return -EINVAL;
		}
	}
	msg = json_object_new_object();
	json_object_object_add(msg, "execute", json_object_new_string(cmd));
	if (obj)
		json_object_object_add(msg, "arguments", obj);
	json_object_object_add(msg, "id", json_object_new_uint64(id));
	n = asprintf(line, "%s\n", json_object_to_json_string_ext(msg, JSON_C_TO_STRING_PLAIN));
	json_object_put(msg);
	return n < 0 ? -ENOMEM : n;
}

static int start(struct qmp *qmp, uint64_t *id, int pass_fd, struct err *err, const char *cmd,
		 const char *args)
{
	struct call *c = find_call(qmp, 0);
	char *line;
	int rc;

	if (qmp->broken)
		return monitor_err(err, qmp->broken, cmd);
	if (!c)
		return err_set(err, -EBUSY, "%s: too many commands without an answer", cmd);
	rc = compose(qmp->last_id + 1, cmd, args, &line);
	if (rc < 0)
		return err_set(err, rc, "%s: its arguments are not a JSON object", cmd);
	log_trace("qmp > %.*s", rc < 800 ? rc - 1 : 800, line);
	rc = send_all(qmp, line, (size_t)rc, pass_fd);
	free(line);
	if (rc)
		return monitor_err(err, rc, cmd);
	*id = c->id = ++qmp->last_id;
	snprintf(c->cmd, sizeof(c->cmd), "%s", cmd);
	return 0;
}

static int __attribute__((format(printf, 5, 0)))
vstart(struct qmp *qmp, uint64_t *id, struct err *err, const char *cmd,
		  const char *fmt, va_list ap)
{
	char *args = NULL;
	int rc;

	if (fmt && vasprintf(&args, fmt, ap) < 0)
		return err_sys(err, -ENOMEM, "%s", cmd);
	rc = start(qmp, id, -1, err, cmd, args);
	free(args);
	return rc;
}

int qmp_start(struct qmp *qmp, uint64_t *id, struct err *err, const char *cmd, const char *fmt, ...)
{
	va_list ap;
	int rc;

	va_start(ap, fmt);
	rc = vstart(qmp, id, err, cmd, fmt, ap);
	va_end(ap);
	return rc;
}

static int take_result(struct call *c, struct json_object **ret, struct err *err)
{
	struct json_object *error = at_path(c->answer, "error");
	char words[300];
	int rc = 0;

	if (error)
		rc = err_set(err, -EREMOTEIO, "%s: %s", c->cmd,
			     qmp_clean(qmp_str(error, "desc"), words, sizeof(words)));
	else if (ret)
		*ret = json_object_get(at_path(c->answer, "return"));
	end_call(c);
	return rc;
}

int qmp_finish(struct qmp *qmp, uint64_t id, int timeout_ms, struct json_object **ret,
	       struct err *err)
{
	uint64_t deadline = deadline_of(timeout_ms);
	struct call *c = id ? find_call(qmp, id) : NULL;
	int rc = 0;

	if (ret)
		*ret = NULL;
	if (!c)
		return err_set(err, -EINVAL, "QMP: no such command was sent");
	while (!c->answer && rc >= 0) {
		bool late = units_now_us() >= deadline;

		rc = take_in(qmp, deadline);
		if (late && rc >= 0) /* also while events flood in */
			rc = -ETIMEDOUT;
	}
	if (c->answer)
		return take_result(c, ret, err);
	if (rc == -ETIMEDOUT) {
		c->abandoned = true;
		return err_set(err, rc, "%s: no answer within %d ms", c->cmd, timeout_ms);
	}
	rc = monitor_err(err, rc, c->cmd);
	end_call(c);
	return rc;
}

int qmp_call(struct qmp *qmp, int timeout_ms, struct json_object **ret, struct err *err,
	     const char *cmd, const char *fmt, ...)
{
	uint64_t id = 0;
	va_list ap;
	int rc;

	if (ret)
		*ret = NULL;
	va_start(ap, fmt);
	rc = vstart(qmp, &id, err, cmd, fmt, ap);
	va_end(ap);
	return rc ? rc : qmp_finish(qmp, id, timeout_ms, ret, err);
}

int qmp_send_fd(struct qmp *qmp, const char *name, int fd, int timeout_ms, struct err *err)
{
	char quoted[128], args[160];
	uint64_t id;
	int rc;

	if (!*qmp_quote(name, quoted, sizeof(quoted)))
		return err_set(err, -EINVAL, "getfd: the name is too long");
	snprintf(args, sizeof(args), "{\"fdname\": %s}", quoted);
	rc = start(qmp, &id, fd, err, "getfd", args);
	return rc ? rc : qmp_finish(qmp, id, timeout_ms, NULL, err);
}

int qmp_poll(struct qmp *qmp, int timeout_ms, struct err *err)
{
	uint64_t deadline = deadline_of(timeout_ms);
	int rc = 0;

	for (int i = 0; i < POLL_READS && rc >= 0; i++) {
		rc = take_in(qmp, i ? 0 : deadline);
		if (!rc)
			break;
	}
	return rc < 0 ? monitor_err(err, rc, "QMP") : 0;
}

static int greet(struct qmp *qmp, const char *path, int timeout_ms, struct err *err)
{
	uint64_t deadline = deadline_of(timeout_ms), now;
	int rc = 0;

	while (!qmp->greeting && rc >= 0) {
		rc = take_in(qmp, deadline);
		if (rc >= 0 && !qmp->greeting && units_now_us() >= deadline)
			return err_set(err, -ETIMEDOUT,
				       "qmp:%s: no greeting within %d ms (does another client hold the "
				       "monitor? QEMU serves one at a time)",
				       path, timeout_ms);
	}
	if (rc < 0) {
		char doing[128];

		snprintf(doing, sizeof(doing), "qmp:%s", path);
		return monitor_err(err, rc, doing);
	}
	now = units_now_us();
	rc = qmp_call(qmp, now < deadline ? (int)((deadline - now) / 1000) + 1 : 1, NULL, err,
		      "qmp_capabilities", NULL);
	if (rc)
		err_prefix(err, "qmp:%s", path);
	return rc;
}

int qmp_open(const char *path, int timeout_ms, struct qmp **out, struct err *err)
{
	struct net_addr addr = {.family = NET_UNIX};
	struct qmp *qmp;
	int rc;

	if (strlen(path) >= sizeof(addr.path))
		return err_set(err, -EINVAL, "qmp:%.32s…: a socket's path has at most %zu bytes", path,
			       sizeof(addr.path) - 1);
	memcpy(addr.path, path, strlen(path));
	qmp = calloc(1, sizeof(*qmp));
	if (!qmp)
		return err_sys(err, -ENOMEM, "qmp:%s", path);
	qmp->parser = qmp_parser_new();
	qmp->buf = malloc(READ_BYTES);
	qmp->fd = -1;
	if (!qmp->parser || !qmp->buf) {
		qmp_close(qmp);
		return err_sys(err, -ENOMEM, "qmp:%s", path);
	}
	qmp->fd = net_connect(&addr, timeout_ms, err);
	rc = qmp->fd < 0 ? qmp->fd : greet(qmp, path, timeout_ms, err);
	if (rc)
		qmp_close(qmp);
	else
		*out = qmp;
	return rc;
}

void qmp_close(struct qmp *qmp)
{
	if (!qmp)
		return;
	for (struct call *c = qmp->calls; c < qmp->calls + CALLS_MAX; c++)
		json_object_put(c->answer);
	json_object_put(qmp->greeting);
	qmp_parser_free(qmp->parser);
	if (qmp->fd >= 0)
		close(qmp->fd);
	free(qmp->buf);
	free(qmp);
}

void qmp_on_event(struct qmp *qmp, qmp_event_fn *fn, void *ctx)
{
	qmp->on_event = fn;
	qmp->event_ctx = ctx;
}

int qmp_fd(const struct qmp *qmp)
{
	return qmp->fd;
}

pid_t qmp_peer_pid(const struct qmp *qmp)
{
	struct ucred cred = {0};
	socklen_t len = sizeof(cred);

	return getsockopt(qmp->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) ? 0 : cred.pid;
}
