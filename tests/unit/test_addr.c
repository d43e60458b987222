/* SPDX-License-Identifier: MIT */
/* Addresses as text, and sockets of each kind that this machine has. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/units.h"
#include "net/addr.h"

#define WAIT_MS 5000

static char dir[] = "/tmp/test_addr.XXXXXX";

static void texts(void **state)
{
	static const struct {
		const char *text, *canonical; /* NULL: refused */
	} cases[] = {
		{"tcp:host:7000", "tcp:host:7000"},
		{"host:7000", "tcp:host:7000"},
		{"10.0.0.1:http", "tcp:10.0.0.1:http"},
		{"tcp:[::1]:7000", "tcp:[::1]:7000"},
		{"[fe80::1%eth0]:1", "tcp:[fe80::1%eth0]:1"},
		{"tcp::0", "tcp::0"},
		{":7000", "tcp::7000"},
		{"unix:/run/a b.sock", "unix:/run/a b.sock"},
		{"/run/a.sock", "unix:/run/a.sock"},
		{"unix:relative", "unix:relative"},
		{"vsock:3:1024", "vsock:3:1024"},
		{"vsock:any:1024", "vsock:any:1024"},
		{"vsock:4294967295:1", "vsock:any:1"},
		{"", NULL},
		{"host", NULL},
		{"tcp:7000", NULL},
		{"tcp:host:", NULL},
		{"tcp:host:65536", NULL},
		{"tcp:host:99999999999999999999", NULL},
		{"tcp:host:a b", NULL},
		{"tcp:ho st:1", NULL},
		{"tcp:::1:7000", NULL},
		{"tcp:[::1:7000", NULL},
		{"tcp:[]:7000", NULL},
		{"tcp:[[::1]]:7000", NULL},
		{"tcp:h\033[2J:1", NULL},
		{"unix:", NULL},
		{"vsock:3", NULL},
		{"vsock::1", NULL},
		{"vsock:-1:1", NULL},
		{"vsock:3:4294967296", NULL},
		{"vsock:3:1:1", NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct net_addr addr, again;
		struct err err = {0};
		char buf[320];
		int rc = net_addr_parse(cases[i].text, &addr, &err);

		if (rc != (cases[i].canonical ? 0 : -EINVAL))
			fail_msg("'%s': %d", cases[i].text, rc);
		if (rc) {
			assert_true(*err.text);
			continue;
		}
		assert_string_equal(net_addr_format(&addr, buf, sizeof(buf)), cases[i].canonical);
		assert_int_equal(net_addr_parse(buf, &again, &err), 0);
		assert_memory_equal(&addr, &again, sizeof(addr));
	}
}

static void parts_that_are_too_long(void **state)
{
	char text[600];
	struct net_addr addr;

	(void)state;
	snprintf(text, sizeof(text), "unix:/%0106d", 1);
	assert_int_equal(net_addr_parse(text, &addr, NULL), 0);
	snprintf(text, sizeof(text), "unix:/%0107d", 1);
	assert_int_equal(net_addr_parse(text, &addr, NULL), -EINVAL);
	snprintf(text, sizeof(text), "tcp:h%0300d:1", 1);
	assert_int_equal(net_addr_parse(text, &addr, NULL), -EINVAL);
	snprintf(text, sizeof(text), "tcp:h:s%0300d", 1);
	assert_int_equal(net_addr_parse(text, &addr, NULL), -EINVAL);
	snprintf(text, sizeof(text), "vsock:%0300d:1", 1);
	assert_int_equal(net_addr_parse(text, &addr, NULL), -EINVAL);
}

static int listen_at(const char *text, struct net_addr *where)
{
	struct net_addr addr;
	struct err err = {0};
	int fd;

	assert_int_equal(net_addr_parse(text, &addr, &err), 0);
	fd = net_listen(&addr, 4, &err);
	if (fd < 0)
		return fd;
	assert_int_equal(net_local_addr(fd, where, &err), 0);
	return fd;
}

static void assert_descriptor(int fd)
{
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
}

/* One byte from a client to what the listener accepts; @peer gets the words. */
static void assert_carries(int listener, const struct net_addr *addr, char *peer)
{
	struct pollfd p = {.fd = listener, .events = POLLIN};
	struct err err = {0};
	int client = net_connect(addr, WAIT_MS, &err), server;
	char byte = 0;

	if (client < 0)
		fail_msg("%s", err.text);
	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	server = net_accept(listener, peer, 128, &err);
	assert_true(server >= 0);
	assert_descriptor(listener);
	assert_descriptor(client);
	assert_descriptor(server);
	assert_int_equal(write(client, "x", 1), 1);
	p.fd = server;
	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	assert_int_equal(read(server, &byte, 1), 1);
	assert_int_equal(byte, 'x');
	assert_int_equal(net_accept(listener, NULL, 0, &err), -EAGAIN);
	close(client);
	close(server);
	close(listener);
}

static void over_tcp(void **state)
{
	struct net_addr addr;
	char peer[128];
	int fd = listen_at("tcp:127.0.0.1:0", &addr);

	(void)state;
	assert_true(fd >= 0);
	assert_string_equal(addr.host, "127.0.0.1");
	assert_string_not_equal(addr.service, "0");
	assert_carries(fd, &addr, peer);
	assert_int_equal(strncmp(peer, "tcp:127.0.0.1:", 14), 0);
}

static void over_any_address(void **state)
{
	struct net_addr addr;
	char peer[128];
	int fd = listen_at("tcp::0", &addr);

	(void)state;
	assert_true(fd >= 0);
	assert_string_equal(addr.host, "");
	strcpy(addr.host, "127.0.0.1");
	assert_carries(fd, &addr, peer);
	assert_int_equal(strncmp(peer, "tcp:127.0.0.1:", 14), 0);
}

static void over_ipv6(void **state)
{
	struct net_addr addr;
	char peer[128];
	int fd = listen_at("tcp:[::1]:0", &addr);

	(void)state;
	if (fd < 0)
		skip(); /* no IPv6 here */
	assert_string_equal(addr.host, "::1");
	assert_carries(fd, &addr, peer);
	assert_int_equal(strncmp(peer, "tcp:[::1]:", 10), 0);
}

static void over_unix(void **state)
{
	struct net_addr addr;
	char peer[128], text[64], words[64];
	int fd;

	(void)state;
	snprintf(text, sizeof(text), "unix:%s/u", dir);
	fd = listen_at(text, &addr);
	assert_true(fd >= 0);
	assert_string_equal(addr.path, text + 5);
	assert_carries(fd, &addr, peer);
	snprintf(words, sizeof(words), "pid %d of uid %d", (int)getpid(), (int)getuid());
	assert_string_equal(peer, words);
}

static void stale_and_live_unix_sockets(void **state)
{
	struct net_addr addr;
	char text[64];
	int first, second, fd;

	(void)state;
	snprintf(text, sizeof(text), "unix:%s/s", dir);
	first = listen_at(text, &addr);
	assert_true(first >= 0);
	assert_int_equal(listen_at(text, &addr), -EADDRINUSE);
	close(first);
	second = listen_at(text, &addr);
	assert_true(second >= 0);
	close(second);
	unlink(text + 5);
	fd = open(text + 5, O_CREAT | O_WRONLY, 0600); /* refuses as a stale socket does */
	close(fd);
	assert_int_equal(listen_at(text, &addr), -EADDRINUSE);
	assert_int_equal(access(text + 5, F_OK), 0);
}

static void nobody_listens(void **state)
{
	struct net_addr addr;
	struct err err = {0};
	char text[64];
	int fd = listen_at("tcp:127.0.0.1:0", &addr);

	(void)state;
	close(fd);
	assert_int_equal(net_connect(&addr, WAIT_MS, &err), -ECONNREFUSED);
	snprintf(text, sizeof(text), "unix:%s/gone", dir);
	close(listen_at(text, &addr));
	assert_int_equal(net_connect(&addr, WAIT_MS, &err), -ECONNREFUSED);
	assert_non_null(strstr(err.text, "nobody listens"));
	unlink(addr.path);
	assert_int_equal(net_connect(&addr, WAIT_MS, &err), -ENOENT);
	assert_int_equal(net_addr_parse("tcp::1", &addr, &err), 0);
	assert_int_equal(net_connect(&addr, WAIT_MS, &err), -EINVAL);
}

/* A listener that never accepts: the backlog fills, and the deadline must hold. */
static void full_backlog_meets_the_deadline(void **state)
{
	struct net_addr addr = {.family = NET_UNIX};
	int clients[8], n = 0, fd;
	uint64_t begun;

	(void)state;
	snprintf(addr.path, sizeof(addr.path), "%s/full", dir);
	fd = net_listen(&addr, 1, NULL);
	assert_true(fd >= 0);
	begun = units_now_us();
	while (n < 8 && (clients[n] = net_connect(&addr, 200, NULL)) >= 0)
		n++;
	assert_in_range(n, 1, 4);
	assert_int_equal(clients[n], -ETIMEDOUT);
	assert_in_range(units_now_us() - begun, 190000, 5000000);
	while (n--)
		close(clients[n]);
	close(fd);
}

static void over_vsock(void **state)
{
	struct net_addr addr;
	char peer[128];
	int fd = listen_at("vsock:any:40960", &addr), probe;

	(void)state;
	if (fd < 0)
		skip(); /* no vsock here */
	assert_int_equal(addr.port, 40960);
	addr.cid = 1; /* VMADDR_CID_LOCAL, where the kernel has vsock_loopback */
	probe = net_connect(&addr, WAIT_MS, NULL);
	if (probe < 0) {
		close(fd);
		skip();
	}
	close(net_accept(fd, NULL, 0, NULL));
	close(probe);
	assert_carries(fd, &addr, peer);
	assert_int_equal(strncmp(peer, "vsock:", 6), 0);
}

static int begin(void **state)
{
	(void)state;
	signal(SIGPIPE, SIG_IGN);
	return mkdtemp(dir) ? 0 : -1;
}

static int finish(void **state)
{
	char cmd[64];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return system(cmd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts),
		cmocka_unit_test(parts_that_are_too_long),
		cmocka_unit_test(over_tcp),
		cmocka_unit_test(over_any_address),
		cmocka_unit_test(over_ipv6),
		cmocka_unit_test(over_unix),
		cmocka_unit_test(stale_and_live_unix_sockets),
		cmocka_unit_test(nobody_listens),
		cmocka_unit_test(full_backlog_meets_the_deadline),
		cmocka_unit_test(over_vsock),
	};

	return cmocka_run_group_tests(tests, begin, finish);
}
