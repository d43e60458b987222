/* SPDX-License-Identifier: MIT */
/* Messages: what a peer may say of a member, and what is made of words that were not expected. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "pair/message.h"

#define UUID "0c4ab9bf-3ffc-4bd0-9a3b-0d2d3d1a97f1"

static struct json_object *parse(const char *text)
{
	struct json_object *o = json_tokener_parse(text);

	assert_non_null(o);
	return o;
}

static void fields(void **state)
{
	struct json_object *m = parse("{\"t\":\"text\",\"n\":18446744073709551615,\"neg\":-1,"
				      "\"real\":1.5,\"null\":null,\"list\":[1]}");
	struct json_object *list = parse("[1]"), *new = message_new("hello");

	(void)state;
	assert_string_equal(message_text(m, "t"), "text");
	assert_string_equal(message_text(m, "n"), "");
	assert_string_equal(message_text(m, "none"), "");
	assert_string_equal(message_text(m, "null"), "");
	assert_string_equal(message_text(list, "t"), "");
	assert_string_equal(message_text(NULL, "t"), "");
	assert_true(message_number(m, "n") == UINT64_MAX);
	assert_int_equal(message_number(m, "neg"), 0);
	assert_int_equal(message_number(m, "real"), 0);
	assert_int_equal(message_number(m, "t"), 0);
	assert_int_equal(message_number(NULL, "t"), 0);
	assert_string_equal(message_text(new, "type"), "hello");
	message_add_number(new, "n", UINT64_MAX);
	assert_true(message_number(new, "n") == UINT64_MAX);
	json_object_put(m);
	json_object_put(list);
	json_object_put(new);
}

static void identities_come_back(void **state)
{
	struct pair_identity in = {.uuid = UUID, .name = "vm äöü", .bound_to = "/run/swtpm.ctrl", .platform = "xen 4.17",
				   .mem_bytes = 1ull << 40, .disk_bytes = 12345}, out;
	struct json_object *o = message_from_identity("qemu", &in);
	struct err err = {0};

	(void)state;
	assert_string_equal(message_text(o, "kind"), "qemu");
	assert_int_equal(message_to_identity(o, &out, &err), 0);
	assert_memory_equal(&in, &out, sizeof(in));
	json_object_put(o);
	o = parse("{}");
	assert_int_equal(message_to_identity(o, &out, &err), 0);
	assert_string_equal(out.uuid, "");
	assert_int_equal(out.mem_bytes, 0);
	json_object_put(o);
}

static void assert_malformed(const char *text)
{
	struct json_object *o = parse(text);
	struct pair_identity id;
	struct err err = {0};

	if (message_to_identity(o, &id, &err) != -EPROTO)
		fail_msg("%s was taken", text);
	assert_true(!strncmp(err.text, "read request: a member", 22));
	json_object_put(o);
}

static void malformed_identities(void **state)
{
	struct json_object *o = json_object_new_object();
	char text[400], name[300];
	static const unsigned most[] = {63, 159};
	static const char *const key[] = {"name", "bound_to"};

	(void)state;
	assert_malformed("{\"uuid\":\"x\"}");
	assert_malformed("{\"uuid\":\"" UUID "0\"}");
	assert_malformed("{\"uuid\":\"0C4AB9BF-3ffc-4bd0-9a3b-0d2d3d1a97f1\"}");
	assert_malformed("{\"uuid\":\"../../etc/0c4ab9bf-3ffc-4bd0-9a3b\"}");
	assert_malformed("{\"uuid\":\"0c4ab9bf03ffc04bd009a3b00d2d3d1a97f1\"}");
	assert_malformed("{\"uuid\":\"------------------------------------\"}");
	assert_malformed("{\"name\":\"a\\u001b[2Jb\"}");
	assert_malformed("{\"name\":\"a\\nb\"}");
	assert_malformed("{\"bound_to\":\"a\\u007f\"}");
	assert_malformed("{\"mem_bytes\":1125899906842625}");
	assert_malformed("{\"disk_bytes\":18446744073709551615}");
	for (unsigned i = 0; i < 2; i++) {
		struct pair_identity id;
		struct json_object *p;

		memset(name, 'n', sizeof(name));
		name[most[i]] = '\0';
		snprintf(text, sizeof(text), "{\"%s\":\"%s\"}", key[i], name);
		p = parse(text);
		assert_int_equal(message_to_identity(p, &id, NULL), 0);
		json_object_put(p);
		name[most[i]] = 'n';
		name[most[i] + 1] = '\0';
		snprintf(text, sizeof(text), "{\"%s\":\"%s\"}", key[i], name);
		assert_malformed(text);
	}
	json_object_put(o);
}

/* Two wires: what the one says, the other expects. */
static void expectations(void **state)
{
	struct net_security_conf sc = {.insecure = true};
	struct wire_conf wc = {.silence_ms = 10000};
	struct net_security *sec;
	struct net_conn *conn[2];
	struct wire *w[2];
	struct json_object *m = NULL, *say;
	struct err err = {0};
	int fd[2], status = 0;

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(net_security_new(&sc, &sec, NULL), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(net_conn_open(sec, fd[i], 1000, &conn[i], NULL), 0);
		assert_int_equal(wire_start(conn[i], &wc, &w[i], NULL), 0);
	}
	assert_int_equal(wire_send(w[0], message_new("go"), &err), 0);
	assert_int_equal(message_expect(w[1], "go", 5000, &m, &status, &err), 0);
	assert_string_equal(message_text(m, "type"), "go");
	json_object_put(m);

	assert_int_equal(wire_send(w[0], message_new("gone"), &err), 0);
	assert_int_equal(message_expect(w[1], "go", 5000, &m, &status, &err), -EPROTO);
	assert_string_equal(err.text, "read message: 'gone' where 'go' was due");

	say = message_new("refused");
	message_add(say, "why", "not enough memory");
	message_add_number(say, "exit", 3);
	assert_int_equal(wire_send(w[0], say, &err), 0);
	assert_int_equal(message_expect(w[1], "go", 5000, &m, &status, &err), -ECANCELED);
	assert_string_equal(err.text, "the other end: not enough memory");
	assert_int_equal(status, 3);

	assert_int_equal(wire_send(w[0], json_object_new_object(), &err), 0);
	assert_int_equal(message_expect(w[1], "go", 5000, &m, NULL, &err), -EPROTO);
	assert_int_equal(message_expect(w[1], "go", 20, &m, NULL, &err), -ETIMEDOUT);
	wire_close(w[0], 1000);
	assert_int_equal(message_expect(w[1], "go", 5000, &m, NULL, &err), -ECONNRESET);
	wire_close(w[1], 1000);
	net_security_free(sec);
}

/* What a peer says is shown to people: nothing in it moves their cursor. */
static void words_of_the_peer_are_cleaned(void **state)
{
	struct net_security_conf sc = {.insecure = true};
	struct wire_conf wc = {.silence_ms = 10000};
	struct net_security *sec;
	struct net_conn *conn[2];
	struct wire *w[2];
	struct json_object *m = NULL, *say = message_new("failed");
	struct err err = {0};
	int fd[2];

	(void)state;
	assert_int_equal(net_security_new(&sc, &sec, NULL), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(net_conn_open(sec, fd[i], 1000, &conn[i], NULL), 0);
		assert_int_equal(wire_start(conn[i], &wc, &w[i], NULL), 0);
	}
	message_add(say, "why", "a\033[2J\r\nb");
	assert_int_equal(wire_send(w[0], say, &err), 0);
	assert_int_equal(wire_send(w[0], message_new("\033c"), &err), 0);
	assert_int_equal(message_expect(w[1], "go", 5000, &m, NULL, &err), -ECANCELED);
	for (const char *p = err.text; *p; p++)
		assert_true((unsigned char)*p >= ' ');
	assert_int_equal(message_expect(w[1], "go", 5000, &m, NULL, &err), -EPROTO);
	for (const char *p = err.text; *p; p++)
		assert_true((unsigned char)*p >= ' ');
	wire_close(w[0], 1000);
	wire_close(w[1], 1000);
	net_security_free(sec);
}

static void nonces_and_uuids(void **state)
{
	char a[65], b[65], uuid[37];

	(void)state;
	assert_int_equal(message_nonce(a, 32, NULL), 0);
	assert_int_equal(message_nonce(b, 32, NULL), 0);
	assert_int_equal(strlen(a), 64);
	assert_int_equal(strspn(a, "0123456789abcdef"), 64);
	assert_string_not_equal(a, b);
	assert_true(message_nonce(a, 65, NULL) < 0);
	for (unsigned i = 0; i < 50; i++) {
		struct pair_identity id;
		struct json_object *o = json_object_new_object();

		assert_int_equal(message_uuid(uuid, NULL), 0);
		assert_int_equal(strlen(uuid), 36);
		assert_int_equal(uuid[14], '4');
		assert_non_null(strchr("89ab", uuid[19]));
		message_add(o, "uuid", uuid);
		assert_int_equal(message_to_identity(o, &id, NULL), 0);
		json_object_put(o);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields),
		cmocka_unit_test(identities_come_back),
		cmocka_unit_test(malformed_identities),
		cmocka_unit_test(expectations),
		cmocka_unit_test(words_of_the_peer_are_cleaned),
		cmocka_unit_test(nonces_and_uuids),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
