/* SPDX-License-Identifier: MIT */
/*
 * One member's stream through two wires over a TCP connection of this machine, or through two
 * bare loops of read and write in their place:
 *   wire_flow bare|plain|tls|packed|tls-packed MEGABYTES PSKFILE
 * Prints seconds, bytes on the connection and the processor's seconds.
 */
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/units.h"
#include "pair/wire.h"

#define POOL (64u << 20) /* larger than zstd's window: no page is seen again before it has left it */
#define BATCH (128u << 10)

static uint8_t *pool;
static uint64_t total;

static void die(const char *what)
{
	perror(what);
	exit(4);
}

/* As a guest's memory is: a third zeros, a third that packs well, a third that does not. */
static void make_pool(void)
{
	uint64_t x = 1;

	pool = calloc(1, POOL);
	if (!pool)
		die("memory");
	for (size_t page = 0; page < POOL; page += 4096)
		for (size_t i = 0; i < 4096 && page / 4096 % 3; i += 8) {
			uint64_t v;

			x = x * 6364136223846793005ull + 1442695040888963407ull;
			v = page / 4096 % 3 == 1 ? x : 0x0000556677000000ull | (x >> 52);
			memcpy(pool + page + i, &v, 8);
		}
}

static void *pour(void *arg)
{
	int fd = *(int *)arg;

	for (uint64_t at = 0; at < total;) {
		uint64_t in = at % POOL, n = POOL - in < BATCH ? POOL - in : BATCH;
		ssize_t put = write(fd, pool + in, n < total - at ? n : total - at);

		if (put <= 0)
			die("write");
		at += (uint64_t)put;
	}
	shutdown(fd, SHUT_WR);
	return NULL;
}

struct hop {
	int from, to;
};

static void *relay(void *arg)
{
	struct hop *h = arg;
	uint8_t *buf = malloc(BATCH);
	ssize_t n;

	while ((n = read(h->from, buf, BATCH)) > 0)
		for (ssize_t at = 0; at < n;) {
			ssize_t put = write(h->to, buf + at, (size_t)(n - at));

			if (put <= 0)
				die("write");
			at += put;
		}
	shutdown(h->to, SHUT_WR);
	free(buf);
	return NULL;
}

static void connect_pair(int fd[2])
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(sa);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	fd[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&sa, n) || listen(listener, 1) ||
	    getsockname(listener, (struct sockaddr *)&sa, &n) ||
	    connect(fd[0], (struct sockaddr *)&sa, n))
		die("connect");
	fd[1] = accept(listener, NULL, NULL);
	close(listener);
}

static struct net_security *sec[2];
static struct net_conn *conn[2];

static void *open_end(void *arg)
{
	int *fd = arg;
	struct err err = {0};

	if (net_conn_open(sec[1], *fd, 5000, &conn[1], &err))
		fprintf(stderr, "%s\n", err.text);
	return NULL;
}

static void start_wires(int link[2], bool tls, bool pack, const char *psk, struct wire *w[2])
{
	struct wire_conf conf = {.compress = pack, .silence_ms = 60000};
	struct err err = {0};
	pthread_t t;

	for (int i = 0; i < 2; i++) {
		struct net_security_conf sc = {.insecure = !tls, .psk_file = tls ? psk : NULL,
					       .server = i};

		if (net_security_new(&sc, &sec[i], &err)) {
			fprintf(stderr, "%s\n", err.text);
			exit(4);
		}
	}
	pthread_create(&t, NULL, open_end, &link[1]);
	if (net_conn_open(sec[0], link[0], 5000, &conn[0], &err))
		fprintf(stderr, "%s\n", err.text);
	pthread_join(t, NULL);
	for (int i = 0; i < 2; i++)
		if (!conn[i] || wire_start(conn[i], &conf, &w[i], &err))
			exit(4);
}

int main(int argc, char **argv)
{
	int in[2], out[2], link[2];
	struct wire *w[2] = {NULL, NULL};
	struct wire_stats st = {0};
	pthread_t t[3];
	struct hop hop[2];
	struct rusage ru;
	uint64_t begun, got = 0;
	uint8_t *buf = malloc(BATCH);
	ssize_t n;

	if (argc != 4)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	total = strtoull(argv[2], NULL, 10) * 1000000;
	make_pool();
	connect_pair(link);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, in) || socketpair(AF_UNIX, SOCK_STREAM, 0, out))
		die("socketpair");
	if (strcmp(argv[1], "bare") != 0)
		start_wires(link, !strncmp(argv[1], "tls", 3), !!strstr(argv[1], "packed"), argv[3], w);
	begun = units_now_us();
	if (w[0]) {
		wire_attach(w[1], 0, out[0], UINT64_MAX);
		wire_attach(w[0], 0, in[1], UINT64_MAX);
	} else {
		hop[0] = (struct hop){in[1], link[0]};
		hop[1] = (struct hop){link[1], out[0]};
		pthread_create(&t[1], NULL, relay, &hop[0]);
		pthread_create(&t[2], NULL, relay, &hop[1]);
	}
	pthread_create(&t[0], NULL, pour, &in[0]);
	while (got < total && (n = read(out[1], buf, BATCH)) > 0)
		got += (uint64_t)n;
	begun = units_now_us() - begun;
	if (got != total) {
		fprintf(stderr, "wire_flow: %llu of %llu bytes\n", (unsigned long long)got,
			(unsigned long long)total);
		return 4;
	}
	st.wire_bytes = total;
	if (w[0])
		wire_stats(w[0], 0, &st);
	getrusage(RUSAGE_SELF, &ru);
	printf("%.6f %llu %.3f\n", (double)begun / 1e6, (unsigned long long)st.wire_bytes,
	       (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
		       (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6);
	return 0;
}
