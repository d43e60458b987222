/* SPDX-License-Identifier: MIT */
/* Two wires, one connection: members' streams and messages cross, gates hold, ends are told. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
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
#include <xxhash.h>

#include "base/units.h"
#include "pair/wire.h"

#define WAIT_MS 15000
#define MB 1000000ull
#define KEY "migrate:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"

static char psk[] = "/tmp/test_wire.XXXXXX";

static int make_files(void **state)
{
	int fd = mkstemp(psk);

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	return fd < 0 || write(fd, KEY, strlen(KEY)) != (ssize_t)strlen(KEY) || close(fd);
}

static int remove_files(void **state)
{
	(void)state;
	return unlink(psk);
}

/* ---- two ends ---- */

struct ends {
	struct net_security *sec[2];
	int raw[2]; /* of the connection; the wires own them */
	struct net_conn *conn[2];
	struct wire *w[2];
	int member[2][PAIR_MEMBERS]; /* the hypervisors' side of what was attached */
};

static void *open_server(void *arg)
{
	struct ends *e = arg;

	net_conn_open(e->sec[1], e->raw[1], WAIT_MS, &e->conn[1], NULL);
	return NULL;
}

static struct wire_conf usual = {.compress = true, .silence_ms = 10000};

static void join(struct ends *e, bool tls, const struct wire_conf *conf)
{
	pthread_t t;

	memset(e, 0, sizeof(*e));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, e->raw), 0);
	for (unsigned i = 0; i < 2; i++) {
		struct net_security_conf sc = {.insecure = !tls, .psk_file = tls ? psk : NULL,
					       .server = i};
		struct err err = {0};

		if (net_security_new(&sc, &e->sec[i], &err))
			fail_msg("%s", err.text);
	}
	assert_int_equal(pthread_create(&t, NULL, open_server, e), 0);
	assert_int_equal(net_conn_open(e->sec[0], e->raw[0], WAIT_MS, &e->conn[0], NULL), 0);
	pthread_join(t, NULL);
	assert_non_null(e->conn[1]);
	for (unsigned i = 0; i < 2; i++) {
		struct err err = {0};

		if (wire_start(e->conn[i], conf, &e->w[i], &err))
			fail_msg("%s", err.text);
		for (unsigned k = 0; k < PAIR_MEMBERS; k++)
			e->member[i][k] = -1;
	}
}

/* One wire, and a bare socket in the peer's place. */
static void join_bare(struct ends *e, const struct wire_conf *conf)
{
	struct net_security_conf sc = {.insecure = true};

	memset(e, 0, sizeof(*e));
	for (unsigned k = 0; k < PAIR_MEMBERS; k++)
		e->member[0][k] = e->member[1][k] = -1;
	assert_int_equal(net_security_new(&sc, &e->sec[0], NULL), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, e->raw), 0);
	assert_int_equal(net_conn_open(e->sec[0], e->raw[0], WAIT_MS, &e->conn[0], NULL), 0);
	assert_int_equal(wire_start(e->conn[0], conf, &e->w[0], NULL), 0);
}

static void attach(struct ends *e, unsigned end, unsigned owner)
{
	struct timeval most = {WAIT_MS / 1000, 0}; /* a test that fails does not hang */
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	setsockopt(pair[1], SOL_SOCKET, SO_RCVTIMEO, &most, sizeof(most));
	setsockopt(pair[1], SOL_SOCKET, SO_SNDTIMEO, &most, sizeof(most));
	assert_int_equal(wire_attach(e->w[end], owner, pair[0], UINT64_MAX), 0);
	e->member[end][owner] = pair[1];
}

static void attach_all(struct ends *e)
{
	for (unsigned i = 0; i < 2; i++)
		for (unsigned k = 0; k < PAIR_MEMBERS; k++)
			attach(e, i, k);
}

static void hang_up(struct ends *e, unsigned end, unsigned owner)
{
	if (e->member[end][owner] >= 0)
		close(e->member[end][owner]);
	e->member[end][owner] = -1;
}

static void part(struct ends *e)
{
	for (unsigned i = 0; i < 2; i++) {
		for (unsigned k = 0; k < PAIR_MEMBERS; k++)
			hang_up(e, i, k);
		wire_close(e->w[i], 100);
	}
	net_security_free(e->sec[0]);
	net_security_free(e->sec[1]);
}

static void assert_up(struct ends *e)
{
	for (unsigned i = 0; i < 2; i++) {
		struct err err = {0};

		if (wire_status(e->w[i], &err))
			fail_msg("end %u: %s", i, err.text);
	}
}

/* Wait for @cond, at most WAIT_MS. */
#define EVENTUALLY(cond)                                                                       \
	do {                                                                                   \
		uint64_t until_ = units_now_us() + WAIT_MS * 1000ull;                          \
		while (!(cond) && units_now_us() < until_)                                     \
			usleep(500);                                                           \
		assert_true(cond);                                                             \
	} while (0)

/* ---- messages ---- */

static void tell(struct ends *e, unsigned end, int n)
{
	struct json_object *m = json_object_new_object();
	struct err err = {0};

	json_object_object_add(m, "n", json_object_new_int(n));
	if (wire_send(e->w[end], m, &err))
		fail_msg("%s", err.text);
}

static void expect(struct ends *e, unsigned end, int n)
{
	struct json_object *m = NULL, *v;
	struct err err = {0};

	if (wire_recv(e->w[end], WAIT_MS, &m, &err))
		fail_msg("%s", err.text);
	assert_true(json_object_object_get_ex(m, "n", &v));
	assert_int_equal(json_object_get_int(v), n);
	json_object_put(m);
}

static void messages(bool tls)
{
	struct json_object *m = NULL;
	struct err err = {0};
	struct pollfd p;
	struct ends e;

	join(&e, tls, &usual);
	assert_int_equal(wire_recv(e.w[0], 10, &m, &err), -ETIMEDOUT);
	assert_null(m);
	for (int i = 0; i < 40; i++) {
		tell(&e, 0, i);
		tell(&e, 1, 1000 + i);
	}
	p = (struct pollfd){.fd = wire_fd(e.w[1]), .events = POLLIN};
	for (int i = 0; i < 40; i++) {
		assert_int_equal(poll(&p, 1, WAIT_MS), 1); /* it tells of each that waits */
		expect(&e, 1, i);
		expect(&e, 0, 1000 + i);
	}
	assert_up(&e);
	part(&e);
}

static void messages_plain(void **state)
{
	(void)state;
	messages(false);
}

static void messages_by_tls(void **state)
{
	(void)state;
	messages(true);
}

/* ---- data ---- */

struct flow {
	int fd;
	uint64_t seed, bytes;
	XXH64_hash_t sum;
	pthread_t thread;
	bool failed;
};

/* Guest memory's likeness: a third zeros, a third text, a third noise. */
static void fill(uint64_t *seed, uint8_t *page)
{
	uint64_t x = ++*seed * 0x9e3779b97f4a7c15ull;
	unsigned kind = (unsigned)(x >> 40) % 3;

	for (size_t i = 0; i < 4096; i += 8) {
		uint64_t v = 0;

		if (kind == 1) {
			v = 0x6167612065676170ull + (i & 64);
		} else if (kind == 2) {
			x = x * 6364136223846793005ull + 1442695040888963407ull;
			v = x;
		}
		memcpy(page + i, &v, 8);
	}
}

static void *pour(void *arg)
{
	struct flow *f = arg;
	XXH3_state_t *x = XXH3_createState();
	uint8_t page[4096];
	uint64_t left = f->bytes;

	XXH3_64bits_reset(x);
	while (left && !f->failed) {
		size_t n = left < sizeof(page) ? (size_t)left : sizeof(page), at = 0;

		fill(&f->seed, page);
		XXH3_64bits_update(x, page, n);
		while (at < n && !f->failed) {
			ssize_t put = send(f->fd, page + at, n - at, MSG_NOSIGNAL);

			f->failed = put <= 0;
			at += put > 0 ? (size_t)put : 0;
		}
		left -= n;
	}
	shutdown(f->fd, SHUT_WR);
	f->sum = XXH3_64bits_digest(x);
	XXH3_freeState(x);
	return NULL;
}

static void *drink(void *arg)
{
	struct flow *f = arg;
	XXH3_state_t *x = XXH3_createState();
	static __thread uint8_t buf[65536];
	ssize_t n;

	XXH3_64bits_reset(x);
	f->bytes = 0;
	while ((n = read(f->fd, buf, sizeof(buf))) > 0) {
		XXH3_64bits_update(x, buf, (size_t)n);
		f->bytes += (uint64_t)n;
	}
	f->failed = n < 0;
	f->sum = XXH3_64bits_digest(x);
	XXH3_freeState(x);
	return NULL;
}

static void start(struct flow *f, void *(*run)(void *), int fd, uint64_t bytes, uint64_t seed)
{
	*f = (struct flow){.fd = fd, .bytes = bytes, .seed = seed};
	assert_int_equal(pthread_create(&f->thread, NULL, run, f), 0);
}

static void assert_arrived(struct flow *from, struct flow *to, uint64_t bytes)
{
	pthread_join(from->thread, NULL);
	pthread_join(to->thread, NULL);
	assert_false(from->failed);
	assert_false(to->failed);
	assert_int_equal(to->bytes, bytes);
	assert_true(from->sum == to->sum);
}

/* Both members, and both ways at once where @back bytes go back; then every end is told. */
static void carry(bool tls, bool compress, uint64_t bytes, uint64_t back)
{
	struct wire_conf conf = usual;
	struct flow out[PAIR_MEMBERS][2], in[PAIR_MEMBERS][2];
	struct wire_stats st[2];
	struct ends e;

	conf.compress = compress;
	join(&e, tls, &conf);
	attach_all(&e);
	for (unsigned k = 0; k < PAIR_MEMBERS; k++)
		for (unsigned i = 0; i < 2; i++) {
			start(&out[k][i], pour, e.member[i][k], i ? back : bytes >> k, k * 7 + i);
			start(&in[k][i], drink, e.member[!i][k], 0, 0);
		}
	tell(&e, 0, 1);
	expect(&e, 1, 1); /* words pass while data does */
	for (unsigned k = 0; k < PAIR_MEMBERS; k++)
		for (unsigned i = 0; i < 2; i++)
			assert_arrived(&out[k][i], &in[k][i], i ? back : bytes >> k);
	for (unsigned k = 0; k < PAIR_MEMBERS; k++) {
		EVENTUALLY(wire_drained(e.w[0], k));
		EVENTUALLY(wire_delivered(e.w[1], k));
		wire_stats(e.w[0], k, &st[0]);
		wire_stats(e.w[1], k, &st[1]);
		assert_true(st[0].raw_bytes >= bytes >> k);
		assert_true(st[1].raw_bytes >= bytes >> k);
		assert_true(st[0].wire_bytes || !(bytes >> k));
	}
	assert_up(&e);
	part(&e);
}

static void data_plain(void **state)
{
	(void)state;
	carry(false, true, 8 * MB, 2 * MB);
}

static void data_by_tls(void **state)
{
	(void)state;
	carry(true, true, 8 * MB, 2 * MB);
}

static void data_of_odd_sizes(void **state)
{
	(void)state;
	carry(false, false, 1, 0);
	carry(false, true, 4097, 1);
	carry(true, false, 131073, 3);
}

static void two_hundred_megabytes(void **state)
{
	(void)state;
	carry(false, true, 140 * MB, 0);
}

static void two_hundred_megabytes_by_tls(void **state)
{
	(void)state;
	carry(true, true, 140 * MB, 0);
}

/* ---- gates ---- */

static size_t arrived(int fd, int ms)
{
	uint64_t until = units_now_us() + (uint64_t)ms * 1000;
	static uint8_t buf[65536];
	size_t all = 0;

	while (units_now_us() < until) {
		ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);

		if (n <= 0)
			usleep(500);
		else
			all += (size_t)n;
	}
	return all;
}

static void credit_holds_and_lets_go(bool tls)
{
	struct flow out[2], in[2];
	struct ends e;
	size_t n;

	join(&e, tls, &usual);
	attach_all(&e);
	wire_gate(e.w[0], 0, 0);
	start(&out[0], pour, e.member[0][0], 3 * MB, 1);
	assert_int_equal(arrived(e.member[1][0], 150), 0);
	/* The other member is not held up by it, nor are words. */
	start(&out[1], pour, e.member[0][1], 2 * MB, 2);
	start(&in[1], drink, e.member[1][1], 0, 0);
	assert_arrived(&out[1], &in[1], 2 * MB);
	tell(&e, 0, 5);
	expect(&e, 1, 5);
	/* So much, and no more. */
	wire_gate(e.w[0], 0, 10000);
	n = arrived(e.member[1][0], 200);
	assert_int_equal(n, 10000);
	assert_false(wire_drained(e.w[0], 0));
	assert_false(wire_delivered(e.w[1], 0));
	wire_gate(e.w[0], 0, 1);
	assert_int_equal(arrived(e.member[1][0], 100), 1);
	wire_gate(e.w[0], 0, UINT64_MAX);
	start(&in[0], drink, e.member[1][0], 0, 0);
	pthread_join(out[0].thread, NULL);
	pthread_join(in[0].thread, NULL);
	assert_int_equal(in[0].bytes, 3 * MB - 10001);
	assert_up(&e);
	part(&e);
}

static void credit_plain(void **state)
{
	(void)state;
	credit_holds_and_lets_go(false);
}

static void credit_by_tls(void **state)
{
	(void)state;
	credit_holds_and_lets_go(true);
}

/* Parked and let go at any moment: a closed gate is never taken for the stream's end. */
static void gates_that_flap(void **state)
{
	uint64_t until = units_now_us() + 2000000;
	struct flow out, in;
	struct ends e;
	unsigned k = 0;

	(void)state;
	/* A gate that closes between poll and read leaves nothing to read: that is not an end. */
	join(&e, false, &usual);
	attach_all(&e);
	start(&out, pour, e.member[0][0], 60 * MB, 1);
	start(&in, drink, e.member[1][0], 0, 0);
	while (units_now_us() < until && !wire_drained(e.w[0], 0)) {
		wire_gate(e.w[0], 0, 0);
		wire_gate(e.w[0], 0, k++ % 2 ? 4096 : 65536);
	}
	wire_gate(e.w[0], 0, UINT64_MAX);
	assert_arrived(&out, &in, 60 * MB);
	assert_up(&e);
	part(&e);
}

/* ---- ends ---- */

/* The END comes when all data was handed over, however slowly it is taken. */
static void the_end_is_last(void **state)
{
	struct flow out, in;
	struct pollfd told;
	struct ends e;

	(void)state;
	join(&e, false, &usual);
	attach_all(&e);
	told = (struct pollfd){wire_fd(e.w[0]), POLLIN, 0};
	assert_int_equal(poll(&told, 1, 0), 0);
	start(&out, pour, e.member[0][1], 700000, 3);
	pthread_join(out.thread, NULL);
	assert_int_equal(poll(&told, 1, WAIT_MS), 1);
	EVENTUALLY(wire_drained(e.w[0], 1));
	usleep(50000);
	assert_false(wire_delivered(e.w[1], 1)); /* its hypervisor has not read it yet */
	start(&in, drink, e.member[1][1], 0, 0);
	pthread_join(in.thread, NULL);
	assert_int_equal(in.bytes, 700000);
	assert_true(in.sum == out.sum);
	EVENTUALLY(wire_delivered(e.w[1], 1));
	assert_false(wire_drained(e.w[0], 0));
	assert_false(wire_delivered(e.w[1], 0));
	part(&e);
}

/* What one hypervisor says last may come after it has stopped reading, and goes the other way. */
static void half_a_close(void **state)
{
	struct flow out, in;
	struct ends e;

	(void)state;
	join(&e, false, &usual);
	attach_all(&e);
	start(&out, pour, e.member[0][0], 500000, 3);
	start(&in, drink, e.member[1][0], 0, 0);
	assert_arrived(&out, &in, 500000);
	EVENTUALLY(wire_delivered(e.w[1], 0));
	start(&out, pour, e.member[1][0], 1000, 4);
	start(&in, drink, e.member[0][0], 0, 0);
	assert_arrived(&out, &in, 1000);
	assert_up(&e);
	part(&e);
}

/* A destination's hypervisor that dies holds up neither the other one nor the words. */
static void a_taker_that_hangs_up(void **state)
{
	struct flow out[2], in;
	struct ends e;

	(void)state;
	join(&e, false, &usual);
	attach_all(&e);
	start(&out[0], pour, e.member[0][0], 20 * MB, 5);
	arrived(e.member[1][0], 5);
	hang_up(&e, 1, 0);
	start(&out[1], pour, e.member[0][1], 5 * MB, 6);
	start(&in, drink, e.member[1][1], 0, 0);
	assert_arrived(&out[1], &in, 5 * MB);
	tell(&e, 1, 9);
	expect(&e, 0, 9);
	pthread_join(out[0].thread, NULL);
	assert_up(&e);
	part(&e);
}

/* As above: what was never written is not called delivered. */
static void what_was_dropped_is_not_delivered(void **state)
{
	struct flow out;
	struct ends e;

	(void)state;
	join(&e, false, &usual);
	attach_all(&e);
	hang_up(&e, 1, 0);
	start(&out, pour, e.member[0][0], MB, 5);
	pthread_join(out.thread, NULL);
	EVENTUALLY(wire_drained(e.w[0], 0));
	tell(&e, 0, 1);
	expect(&e, 1, 1); /* so the END has come before it */
	usleep(20000);
	assert_false(wire_delivered(e.w[1], 0));
	part(&e);
}

static void a_giver_that_hangs_up(void **state)
{
	struct flow in;
	struct ends e;

	(void)state;
	join(&e, false, &usual);
	attach_all(&e);
	start(&in, drink, e.member[1][0], 0, 0);
	assert_int_equal(send(e.member[0][0], "half a stream", 13, 0), 13);
	hang_up(&e, 0, 0);
	pthread_join(in.thread, NULL);
	assert_int_equal(in.bytes, 13);
	assert_true(in.sum == XXH3_64bits("half a stream", 13));
	EVENTUALLY(wire_drained(e.w[0], 0));
	EVENTUALLY(wire_delivered(e.w[1], 0));
	assert_up(&e);
	part(&e);
}

/* ---- the link ---- */

static void assert_down(struct ends *e, unsigned end, int rc, const char *words)
{
	struct json_object *m = NULL;
	static char rest[65536];
	struct err err = {0};
	int got = wire_recv(e->w[end], WAIT_MS, &m, &err);

	if (rc == -ECONNRESET && got == -EPIPE)
		rc = got; /* it was writing, not reading, when the link went */
	if (got != rc || !strstr(err.text, words))
		fail_msg("%d '%s', not %d '%s'", got, err.text, rc, words);
	assert_int_equal(wire_status(e->w[end], &err), rc);
	assert_int_equal(wire_send(e->w[end], json_object_new_object(), &err), -EPIPE);
	/* Its hypervisors learn at once. */
	for (unsigned k = 0; k < PAIR_MEMBERS; k++)
		while (e->member[end][k] >= 0) {
			ssize_t n = recv(e->member[end][k], rest, sizeof(rest), 0);

			assert_true(n >= 0 || errno != EAGAIN);
			if (n <= 0)
				break;
		}
}

static void cut(bool tls)
{
	struct flow out;
	struct ends e;

	join(&e, tls, &usual);
	attach_all(&e);
	tell(&e, 0, 1);
	expect(&e, 1, 1);
	start(&out, pour, e.member[0][0], 20 * MB, 5);
	usleep(2000);
	shutdown(e.raw[0], SHUT_RDWR);
	assert_down(&e, 1, -ECONNRESET, "stream: ");
	pthread_join(out.thread, NULL);
	assert_true(out.failed);
	assert_true(wire_status(e.w[0], NULL) < 0);
	assert_false(wire_delivered(e.w[1], 0));
	part(&e);
}

static void cut_plain(void **state)
{
	(void)state;
	cut(false);
}

static void cut_of_tls(void **state)
{
	(void)state;
	cut(true);
}

static void a_peer_that_says_nothing(void **state)
{
	struct wire_conf conf = {.compress = true, .silence_ms = 1200};
	uint64_t begun = units_now_us(), took;
	struct ends e;

	(void)state;
	join_bare(&e, &conf);
	attach(&e, 0, 0);
	assert_down(&e, 0, -ETIME, "nothing heard");
	took = units_now_us() - begun;
	assert_true(took > 1100000 && took < 4000000);
	close(e.raw[1]);
	part(&e);
}

/* Idle wires hear each other: silence alone does not bring them down. */
static void idle_wires_stay_up(void **state)
{
	struct wire_conf conf = {.compress = true, .silence_ms = 1500};
	struct ends e;

	(void)state;
	join(&e, true, &conf);
	attach_all(&e);
	wire_gate(e.w[0], 0, 0);
	usleep(2600000);
	assert_up(&e);
	tell(&e, 0, 1);
	expect(&e, 1, 1);
	part(&e);
}

static void a_peer_that_talks_nonsense(void **state)
{
	char text[200] = "GET / HTTP/1.1\r\n\r\n";
	struct ends e;

	(void)state;
	join_bare(&e, &usual);
	attach(&e, 0, 1);
	assert_int_equal(write(e.raw[1], text, sizeof(text)), (ssize_t)sizeof(text));
	assert_down(&e, 0, -EPROTO, "not a cump-migrate stream");
	close(e.raw[1]);
	part(&e);
}

/* Data of a member that this end never attached. */
static void a_member_that_was_not_let_in(void **state)
{
	struct ends e;

	(void)state;
	join(&e, false, &usual);
	attach(&e, 0, 1);
	attach(&e, 1, 0);
	assert_int_equal(send(e.member[0][1], "x", 1, 0), 1);
	assert_down(&e, 1, -EPROTO, "not let in");
	part(&e);
}

static void what_was_queued_leaves_before_the_close(void **state)
{
	struct json_object *m;
	struct err err = {0};
	struct ends e;

	(void)state;
	for (unsigned tls = 0; tls < 2; tls++) {
		join(&e, tls, &usual);
		for (int i = 0; i < 30; i++)
			tell(&e, 0, i);
		wire_close(e.w[0], WAIT_MS);
		e.w[0] = NULL;
		for (int i = 0; i < 30; i++)
			expect(&e, 1, i);
		assert_int_equal(wire_recv(e.w[1], WAIT_MS, &m, &err), -ECONNRESET);
		part(&e);
	}
}

/* A peer that takes nothing in does not keep us from closing. */
static void a_close_that_does_not_wait(void **state)
{
	struct ends e;
	uint64_t begun;
	struct flow out;

	(void)state;
	join_bare(&e, &usual);
	attach(&e, 0, 0);
	start(&out, pour, e.member[0][0], 50 * MB, 1);
	usleep(100000);
	begun = units_now_us();
	wire_close(e.w[0], 200);
	e.w[0] = NULL;
	assert_true(units_now_us() - begun < 3000000);
	pthread_join(out.thread, NULL);
	assert_true(out.failed);
	close(e.raw[1]);
	part(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages_plain),
		cmocka_unit_test(messages_by_tls),
		cmocka_unit_test(data_plain),
		cmocka_unit_test(data_by_tls),
		cmocka_unit_test(data_of_odd_sizes),
		cmocka_unit_test(two_hundred_megabytes),
		cmocka_unit_test(two_hundred_megabytes_by_tls),
		cmocka_unit_test(credit_plain),
		cmocka_unit_test(credit_by_tls),
		cmocka_unit_test(gates_that_flap),
		cmocka_unit_test(the_end_is_last),
		cmocka_unit_test(half_a_close),
		cmocka_unit_test(a_taker_that_hangs_up),
		cmocka_unit_test(what_was_dropped_is_not_delivered),
		cmocka_unit_test(a_giver_that_hangs_up),
		cmocka_unit_test(cut_plain),
		cmocka_unit_test(cut_of_tls),
		cmocka_unit_test(a_peer_that_says_nothing),
		cmocka_unit_test(idle_wires_stay_up),
		cmocka_unit_test(a_peer_that_talks_nonsense),
		cmocka_unit_test(a_member_that_was_not_let_in),
		cmocka_unit_test(what_was_queued_leaves_before_the_close),
		cmocka_unit_test(a_close_that_does_not_wait),
	};

	return cmocka_run_group_tests(tests, make_files, remove_files);
}
