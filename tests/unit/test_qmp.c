/* SPDX-License-Identifier: MIT */
/* The QMP parser against split and hostile input, and the client against a real QEMU. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/units.h"
#include "net/addr.h"
#include "vm/qmp.h"

#define CALL_MS 10000

static char dir[] = "/tmp/test_qmp.XXXXXX";
static char path[64];
static pid_t qemu;

static int feed_text(struct qmp_parser *p, const char *text)
{
	return qmp_parser_feed(p, text, strlen(text));
}

static void one_message_in_any_pieces(void **state)
{
	const char *text = "{\"event\": \"STOP\", \"data\": {\"a\": [1, \"}\\n\"]}}\r\n{\"return\": {}}\n";
	size_t n = strlen(text);

	(void)state;
	for (size_t cut = 0; cut <= n; cut++) {
		struct qmp_parser *p = qmp_parser_new();
		struct json_object *first, *second;

		assert_int_equal(qmp_parser_feed(p, text, cut), 0);
		assert_int_equal(qmp_parser_feed(p, text + cut, n - cut), 0);
		first = qmp_parser_next(p);
		second = qmp_parser_next(p);
		assert_string_equal(qmp_str(first, "event"), "STOP");
		assert_non_null(second);
		assert_null(qmp_parser_next(p));
		json_object_put(first);
		json_object_put(second);
		qmp_parser_free(p);
	}
}

static void blank_lines_are_nothing(void **state)
{
	struct qmp_parser *p = qmp_parser_new();

	(void)state;
	assert_int_equal(feed_text(p, "\n\r\n  \t\n"), 0);
	assert_null(qmp_parser_next(p));
	qmp_parser_free(p);
}

static void what_is_not_a_message(void **state)
{
	static const char *const bad[] = {
		"[1]\n", "\"text\"\n", "17\n", "null\n", "{\"a\": 1} {\"b\": 2}\n", "{\"a\": 1\n",
		"{\"a\": \"\xff\"}\n", "HTTP/1.1 400 Bad Request\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct qmp_parser *p = qmp_parser_new();

		if (feed_text(p, bad[i]) != -EPROTO)
			fail_msg("accepted: %s", bad[i]);
		assert_null(qmp_parser_next(p));
		assert_int_equal(feed_text(p, "{\"fine\": 1}\n"), -EPROTO);
		qmp_parser_free(p);
	}
}

static int feed_nested(int depth)
{
	struct qmp_parser *p = qmp_parser_new();
	int rc = 0;

	for (int i = 0; i < depth; i++)
		rc |= feed_text(p, "{\"a\":");
	rc |= feed_text(p, "1");
	for (int i = 0; i < depth; i++)
		rc |= feed_text(p, "}");
	rc |= feed_text(p, "\n");
	qmp_parser_free(p);
	return rc;
}

static void depth_is_bounded(void **state)
{
	(void)state;
	assert_int_equal(feed_nested(60), 0);
	assert_int_equal(feed_nested(65), -EPROTO);
	assert_int_equal(feed_nested(200000), -EPROTO);
}

static void length_is_bounded(void **state)
{
	struct qmp_parser *p = qmp_parser_new();
	static char block[65536];
	int rc = 0;
	size_t fed = 0;

	(void)state;
	memset(block, ' ', sizeof(block));
	for (; !rc && fed < 20u << 20; fed += sizeof(block))
		rc = qmp_parser_feed(p, block, sizeof(block));
	assert_int_equal(rc, -EMSGSIZE);
	assert_in_range(fed, 16 << 20, (16 << 20) + 2 * sizeof(block));
	qmp_parser_free(p);
}

static void quoting(void **state)
{
	char buf[64], small[12];

	(void)state;
	assert_string_equal(qmp_quote("a\"b\\c\n", buf, sizeof(buf)), "\"a\\\"b\\\\c\\u000a\"");
	assert_string_equal(qmp_quote("", buf, sizeof(buf)), "\"\"");
	assert_string_equal(qmp_quote("too long for it", small, sizeof(small)), "");
	assert_string_equal(qmp_quote("abc", small, sizeof(small)), "\"abc\"");
}

static void answers_of_other_types(void **state)
{
	struct json_object *o = json_tokener_parse(
		"{\"n\": 7, \"neg\": -1, \"big\": 18446744073709551615, \"s\": \"x\", \"t\": true,"
		" \"o\": {\"deep\": {\"n\": 9}}, \"null\": null, \"d\": 1.5}");

	(void)state;
	assert_int_equal(qmp_u64(o, "n", 1), 7);
	assert_int_equal(qmp_u64(o, "neg", 1), 1);
	assert_true(qmp_u64(o, "big", 1) == UINT64_MAX);
	assert_int_equal(qmp_u64(o, "s", 1), 1);
	assert_int_equal(qmp_u64(o, "d", 1), 1);
	assert_int_equal(qmp_u64(o, "o.deep.n", 1), 9);
	assert_int_equal(qmp_u64(o, "o.none.n", 1), 1);
	assert_int_equal(qmp_u64(o, "n.n", 1), 1);
	assert_int_equal(qmp_u64(NULL, "n", 1), 1);
	assert_string_equal(qmp_str(o, "s"), "x");
	assert_null(qmp_str(o, "n"));
	assert_null(qmp_str(o, "null"));
	assert_true(qmp_bool(o, "t", false));
	assert_true(qmp_bool(o, "n", true));
	json_object_put(o);
}

/* At \001 the liar waits for a command. */
static void lie(int fd, const char *text)
{
	size_t n = strcspn(text, "\001");
	char command[200];

	if (write(fd, text, n) < 0 || !text[n])
		return;
	fcntl(fd, F_SETFL, 0);
	if (read(fd, command, sizeof(command)) > 0)
		lie(fd, text + n + 1);
}

/* A peer that says @text to whoever connects, and then nothing. */
static pid_t liar(const char *at, const char *text)
{
	struct net_addr addr = {.family = NET_UNIX};
	struct pollfd p = {.events = POLLIN};
	pid_t pid;

	snprintf(addr.path, sizeof(addr.path), "%s", at);
	p.fd = net_listen(&addr, 1, NULL);
	assert_true(p.fd >= 0);
	pid = fork();
	if (pid) {
		close(p.fd);
		return pid;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (poll(&p, 1, -1) == 1) {
		int fd = net_accept(p.fd, NULL, 0, NULL);

		lie(fd, text);
		if (!*text)
			close(fd);
	}
	_exit(0);
}

static void end_liar(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void hostile_monitors(void **state)
{
	static const struct {
		const char *says;
		int rc;
	} cases[] = {
		{"", -EPIPE},
		{"SSH-2.0-OpenSSH\r\n", -EPROTO},
		{"{\"QMP\": 1}\n[]\n", -EPROTO},
		{"{\"return\": {}, \"id\": 1}\n{\"QMP\": {}}\n{\"error\": 5}\n", -ETIMEDOUT},
		{"{\"QMP\": {}}\n{\"event\": 5}\n{\"event\": \"X\", \"timestamp\": []}\n"
		 "{\"return\": {}, \"id\": 99}\n", -ETIMEDOUT},
		{"{\"QMP\": {}}\n\001{\"error\": {\"desc\": \"\\u001b[2Jgone\"}, \"id\": 1}\n", -EREMOTEIO},
	};
	char at[80];

	(void)state;
	snprintf(at, sizeof(at), "%s/liar", dir);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		pid_t pid = liar(at, cases[i].says);
		struct qmp *qmp = NULL;
		struct err err = {0};
		int rc = qmp_open(at, 300, &qmp, &err);

		end_liar(pid);
		if (rc != cases[i].rc)
			fail_msg("case %zu: %d, %s", i, rc, err.text);
		assert_null(qmp);
		assert_null(strchr(err.text, '\033'));
	}
}

static int begin_qemu(void **state)
{
	struct qmp *qmp = NULL;
	char arg[100];
	int rc = -1;

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/qmp", dir);
	snprintf(arg, sizeof(arg), "unix:%s,server=on,wait=off", path);
	qemu = fork();
	if (!qemu) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execlp("qemu-system-x86_64", "qemu-system-x86_64", "-M", "none", "-nodefaults",
		       "-display", "none", "-name", "guest=unit", "-qmp", arg, (char *)NULL);
		_exit(127);
	}
	for (int i = 0; i < 400 && rc; i++) {
		rc = qmp_open(path, CALL_MS, &qmp, NULL);
		if (rc)
			usleep(25000);
	}
	qmp_close(qmp);
	return rc;
}

static int end_qemu(void **state)
{
	char cmd[64];

	(void)state;
	kill(qemu, SIGTERM);
	waitpid(qemu, NULL, 0);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return system(cmd);
}

static struct qmp *open_qemu(void)
{
	struct err err = {0};
	struct qmp *qmp = NULL;

	if (qmp_open(path, CALL_MS, &qmp, &err))
		fail_msg("%s", err.text);
	return qmp;
}

static void call_and_answer(void **state)
{
	struct qmp *qmp = open_qemu();
	struct json_object *ret = NULL;
	struct err err = {0};

	(void)state;
	assert_int_equal(qmp_call(qmp, CALL_MS, &ret, &err, "query-name", NULL), 0);
	assert_string_equal(qmp_str(ret, "name"), "unit");
	json_object_put(ret);
	assert_int_equal(qmp_peer_pid(qmp), qemu);
	qmp_close(qmp);
}

static void errors_in_its_own_words(void **state)
{
	struct qmp *qmp = open_qemu();
	struct json_object *ret = NULL;
	struct err err = {0};
	char quoted[64];

	(void)state;
	assert_int_equal(qmp_call(qmp, CALL_MS, &ret, &err, "no-such-command", NULL), -EREMOTEIO);
	assert_string_equal(err.text, "no-such-command: The command no-such-command has not been found");
	assert_null(ret);
	assert_int_equal(qmp_call(qmp, CALL_MS, NULL, &err, "device_del", "{\"id\": %s}",
				  qmp_quote("a\"b\n", quoted, sizeof(quoted))), -EREMOTEIO);
	assert_int_equal(qmp_call(qmp, CALL_MS, NULL, &err, "stop", "[1]"), -EINVAL);
	assert_int_equal(qmp_call(qmp, CALL_MS, NULL, &err, "stop", "{\"x\": "), -EINVAL);
	assert_int_equal(qmp_call(qmp, CALL_MS, NULL, &err, "query-status", NULL), 0);
	qmp_close(qmp);
}

struct seen {
	int stop, resume, last;
	uint64_t when_us;
};

static void on_event(void *ctx, const char *name, struct json_object *data, uint64_t when_us)
{
	struct seen *seen = ctx;

	(void)data;
	seen->stop += !strcmp(name, "STOP");
	seen->resume += !strcmp(name, "RESUME");
	seen->last = !strcmp(name, "RESUME");
	seen->when_us = when_us;
}

static void events_in_order(void **state)
{
	struct qmp *qmp = open_qemu();
	uint64_t now = units_realtime_us();
	struct seen seen = {0};
	struct err err = {0};

	(void)state;
	qmp_on_event(qmp, on_event, &seen);
	assert_int_equal(qmp_call(qmp, CALL_MS, NULL, &err, "stop", NULL), 0);
	assert_int_equal(qmp_call(qmp, CALL_MS, NULL, &err, "cont", NULL), 0);
	for (int i = 0; i < 20 && !seen.resume; i++)
		assert_int_equal(qmp_poll(qmp, 500, &err), 0);
	assert_int_equal(seen.stop, 1);
	assert_int_equal(seen.resume, 1);
	assert_int_equal(seen.last, 1);
	assert_in_range(seen.when_us, now - 1000000, now + 60000000);
	qmp_close(qmp);
}

static void calls_that_overlap(void **state)
{
	struct qmp *qmp = open_qemu();
	struct json_object *a = NULL, *b = NULL;
	struct err err = {0};
	uint64_t first, second;

	(void)state;
	assert_int_equal(qmp_start(qmp, &first, &err, "query-name", NULL), 0);
	assert_int_equal(qmp_start(qmp, &second, &err, "query-status", NULL), 0);
	assert_int_equal(qmp_finish(qmp, second, CALL_MS, &b, &err), 0);
	assert_int_equal(qmp_finish(qmp, first, CALL_MS, &a, &err), 0);
	assert_non_null(qmp_str(a, "name"));
	assert_non_null(qmp_str(b, "status"));
	assert_int_equal(qmp_finish(qmp, first, 10, NULL, &err), -EINVAL);
	json_object_put(a);
	json_object_put(b);
	qmp_close(qmp);
}

/* The late answer of an abandoned call must not be taken for another's. */
static void late_answers_are_dropped(void **state)
{
	struct qmp *qmp = open_qemu();
	struct json_object *ret = NULL;
	struct err err = {0};
	uint64_t id;

	(void)state;
	kill(qemu, SIGSTOP);
	for (int i = 0; i < 40; i++) {
		int rc = qmp_start(qmp, &id, &err, "query-name", NULL);

		if (rc) {
			assert_int_equal(rc, -EBUSY);
			break;
		}
		assert_int_equal(qmp_finish(qmp, id, 1, NULL, &err), -ETIMEDOUT);
	}
	kill(qemu, SIGCONT);
	for (int i = 0; i < 100 && qmp_start(qmp, &id, &err, "query-status", NULL); i++)
		assert_int_equal(qmp_poll(qmp, 100, &err), 0);
	assert_int_equal(qmp_finish(qmp, id, CALL_MS, &ret, &err), 0);
	assert_non_null(qmp_str(ret, "status"));
	json_object_put(ret);
	qmp_close(qmp);
}

static void second_client_is_told(void **state)
{
	struct qmp *holder = open_qemu(), *qmp = NULL;
	struct err err = {0};

	(void)state;
	assert_int_equal(qmp_open(path, 300, &qmp, &err), -ETIMEDOUT);
	assert_non_null(strstr(err.text, "another client"));
	assert_null(qmp);
	qmp_close(holder);
	qmp_close(open_qemu());
}

static void a_descriptor_is_handed_over(void **state)
{
	struct qmp *qmp = open_qemu();
	struct err err = {0};
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(qmp_send_fd(qmp, "stream", pair[0], CALL_MS, &err), 0);
	assert_int_equal(qmp_call(qmp, CALL_MS, NULL, &err, "closefd", "{\"fdname\": \"stream\"}"), 0);
	assert_int_equal(qmp_call(qmp, CALL_MS, NULL, &err, "closefd", "{\"fdname\": \"stream\"}"),
			 -EREMOTEIO);
	close(pair[0]);
	close(pair[1]);
	qmp_close(qmp);
}

static void nobody_there(void **state)
{
	char none[80], many[300];
	struct qmp *qmp = NULL;
	struct err err = {0};

	(void)state;
	snprintf(none, sizeof(none), "%s/none", dir);
	assert_int_equal(qmp_open(none, 100, &qmp, &err), -ENOENT);
	memset(many, 'x', sizeof(many));
	many[299] = '\0';
	assert_int_equal(qmp_open(many, 100, &qmp, &err), -EINVAL);
}

/* Last: it ends QEMU. */
static void monitor_that_goes(void **state)
{
	struct qmp *qmp = open_qemu();
	struct err err = {0};

	(void)state;
	assert_int_equal(qmp_call(qmp, CALL_MS, NULL, &err, "quit", NULL), 0);
	while (!qmp_poll(qmp, CALL_MS, &err))
		;
	assert_int_equal(err.code, -EPIPE);
	assert_int_equal(qmp_call(qmp, CALL_MS, NULL, &err, "query-name", NULL), -EPIPE);
	assert_string_equal(err.text, "query-name: the monitor is gone");
	qmp_close(qmp);
}

int main(void)
{
	const struct CMUnitTest parser[] = {
		cmocka_unit_test(one_message_in_any_pieces),
		cmocka_unit_test(blank_lines_are_nothing),
		cmocka_unit_test(what_is_not_a_message),
		cmocka_unit_test(depth_is_bounded),
		cmocka_unit_test(length_is_bounded),
		cmocka_unit_test(quoting),
		cmocka_unit_test(answers_of_other_types),
		cmocka_unit_test(hostile_monitors),
		cmocka_unit_test(call_and_answer),
		cmocka_unit_test(errors_in_its_own_words),
		cmocka_unit_test(events_in_order),
		cmocka_unit_test(calls_that_overlap),
		cmocka_unit_test(late_answers_are_dropped),
		cmocka_unit_test(second_client_is_told),
		cmocka_unit_test(a_descriptor_is_handed_over),
		cmocka_unit_test(nobody_there),
		cmocka_unit_test(monitor_that_goes),
	};

	return cmocka_run_group_tests(parser, begin_qemu, end_qemu);
}
