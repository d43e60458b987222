/* SPDX-License-Identifier: MIT */
/* The daemon in a thread of this process, real clients, real sockets and shared memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/units.h"
#include "card/client.h"
#include "card/ivshmem_client.h"
#include "card/ring.h"
#include "card/soft.h"
#include "cardd/cardd.h"
#include "net/addr.h"

#define ONE_SHOT (CARD_PHASE_BEGIN | CARD_PHASE_END)

static char dir[64];

struct running {
	struct cardd *d;
	pthread_t thread;
};

static void *serve(void *arg)
{
	struct err err = {0};
	int rc = cardd_run(arg, &err);

	return (void *)(intptr_t)rc;
}

static void daemon_start(struct running *r)
{
	struct cardd_conf c;
	struct err err = {0};
	char text[4096];

	snprintf(text, sizeof(text),
		 "[daemon]\ncontrol = %s/control\naudit = %s/audit\nspin = 20us\n"
		 "[card soft]\ndriver = soft\nstore = %s/store\n"
		 "[card other]\ndriver = null\n"
		 "[vm web]\ncard = soft\nivshmem = %s/web\nunix = %s/web.sock\nmemory = 1M\nqueues = 2\n"
		 "allow = all\necc.1 = web sign export unwrap wrap agree\nkek.1 = kek all\nsessions = 8\nobjects = 16\n"
		 "[vm db]\ncard = soft\nivshmem = %s/db\nunix = %s/db.sock\nmemory = 1M\nqueues = 1\n"
		 "allow = random\necc.1 = db sign\n"
		 "[vm slow]\ncard = other\nunix = %s/slow.sock\nops-rate = 200\n",
		 dir, dir, dir, dir, dir, dir, dir, dir);
	cardd_conf_init(&c);
	if (cardd_conf_parse(&c, "test", text, &err) || cardd_conf_check(&c, "test", &err) ||
	    cardd_new(&c, &r->d, &err))
		fail_msg("%s", err.text);
	assert_int_equal(pthread_create(&r->thread, NULL, serve, r->d), 0);
}

static void daemon_end(struct running *r)
{
	void *rc;

	cardd_stop(r->d);
	pthread_join(r->thread, &rc);
	assert_null(rc);
	cardd_free(r->d);
}

static void put_key(struct soft_store *s, const char *name, enum soft_key_type type)
{
	struct soft_key k = {.type = type};
	struct err err;

	snprintf(k.name, sizeof(k.name), "%s", name);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(sm2_generate(k.secret[i], &k.pub[i]), SDR_OK);
	assert_int_equal(soft_store_put(s, &k, &err), 0);
	soft_key_wipe(&k);
}

static int start(void **state)
{
	struct running *r = calloc(1, sizeof(*r));
	struct soft_store s;
	struct err err;
	char store[128];

	snprintf(dir, sizeof(dir), "/tmp/test_card_daemon.XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(store, sizeof(store), "%s/store", dir);
	assert_int_equal(soft_store_open(&s, store, NULL, true, &err), 0);
	put_key(&s, "web", SOFT_KEY_SM2);
	put_key(&s, "db", SOFT_KEY_SM2);
	put_key(&s, "kek", SOFT_KEY_SM4);
	soft_store_close(&s);
	daemon_start(r);
	*state = r;
	return 0;
}

static int end(void **state)
{
	char command[128];

	daemon_end(*state);
	free(*state);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	return system(command); /* NOLINT: a folder of our own */
}

static struct card_client *open_way(const char *way, const char *name)
{
	struct card_client_opts opts = {.timeout_us = 20000000};
	struct card_client *c;
	struct err err = {0};
	char address[160];

	snprintf(address, sizeof(address), "%s%s/%s", way, dir, name);
	if (card_client_open(address, &opts, &c, &err))
		fail_msg("%s", err.text);
	return c;
}

static uint32_t session_of(struct card_client *c)
{
	uint32_t s;

	assert_int_equal(card_session_open(c, &s), SDR_OK);
	assert_int_not_equal(s, 0);
	return s;
}

static uint32_t take_plain(struct card_client *c, uint32_t session, const void *key, uint32_t n, uint32_t *object)
{
	struct card_wrap wrap = {.by = CARD_WRAP_PLAIN};
	struct card_io io = {.rq = {.op = CARD_OP_KEY_TAKE, .session = session, .key_kind = CARD_KEY_GIVEN,
				    .args_len = sizeof(wrap), .data_len = n},
			     .args = &wrap, .data = key};

	card_call(c, &io);
	*object = io.object;
	return io.status;
}

static uint32_t sign(struct card_client *c, uint32_t session, uint32_t index)
{
	struct card_signature sig;
	uint8_t digest[32] = {1};
	struct card_io io = {.rq = {.op = CARD_OP_SIGN, .session = session, .key_kind = CARD_KEY_INDEX, .key = index,
				    .data_len = 32},
			     .data = digest, .out_args = &sig, .out_args_cap = sizeof(sig)};

	return card_call(c, &io);
}

static uint32_t echo(struct card_client *c, uint32_t n)
{
	static uint8_t in[CARD_DATA_MAX], out[CARD_DATA_MAX];
	struct card_io io = {.rq = {.op = CARD_OP_ECHO, .data_len = n}, .data = in, .out = out, .out_cap = n};

	for (uint32_t i = 0; i < n; i++)
		in[i] = (uint8_t)(i * 7 + n);
	memset(out, 0, sizeof(out));
	card_call(c, &io);
	assert_int_equal(io.rc, 0);
	if (!io.status) {
		assert_int_equal(io.out_len, n);
		assert_memory_equal(in, out, n);
	}
	return io.status;
}

static void echo_all_sizes(void **state)
{
	static const uint32_t sizes[] = {0, 1, 63, 64, 1024, 4096, 16383, 16384};

	(void)state;
	for (unsigned w = 0; w < 2; w++) {
		struct card_client *c = open_way(w ? "shm:" : "unix:", w ? "web" : "web.sock");

		for (unsigned i = 0; i < 8; i++)
			assert_int_equal(echo(c, sizes[i]), SDR_OK);
		card_client_close(c);
	}
}

/* Many more under way than there are slots; each gets its own answer. */
static void pipelining(void **state)
{
	(void)state;
	for (unsigned w = 0; w < 2; w++) {
		struct card_client *c = open_way(w ? "shm:" : "unix:", w ? "web" : "web.sock");
		static struct card_io io[64];
		static uint8_t in[64][100], out[64][100];

		for (unsigned round = 0; round < 50; round++) {
			card_cork(c, true);
			for (unsigned i = 0; i < 64; i++) {
				memset(in[i], (int)(round + i), 100);
				io[i] = (struct card_io){.rq = {.op = CARD_OP_ECHO, .data_len = 100}, .data = in[i],
							 .out = out[i], .out_cap = 100};
				while (card_submit(c, &io[i]) == -EAGAIN) {
					card_cork(c, false);
					assert_int_equal(card_wait_room(c), 0);
					card_cork(c, true);
				}
			}
			card_cork(c, false);
			for (unsigned i = 64; i-- > 0;) {
				assert_int_equal(card_wait(c, &io[i]), 0);
				assert_int_equal(io[i].status, SDR_OK);
				assert_memory_equal(in[i], out[i], 100);
			}
		}
		card_client_close(c);
	}
}

static void *echo_thread(void *arg)
{
	struct card_client *c = arg;
	uint8_t in[256], out[256];

	for (unsigned n = 0; n < 500; n++) {
		struct card_io io = {.rq = {.op = CARD_OP_ECHO, .data_len = 256}, .data = in, .out = out, .out_cap = 256};

		memset(in, (int)(n ^ (unsigned)(uintptr_t)&io), sizeof(in));
		if (card_call(c, &io) || memcmp(in, out, sizeof(in)) != 0)
			return c;
	}
	return NULL;
}

static void many_threads_one_client(void **state)
{
	pthread_t t[6];
	void *failed;

	(void)state;
	for (unsigned w = 0; w < 2; w++) {
		struct card_client *c = open_way(w ? "shm:" : "unix:", w ? "web" : "web.sock");

		for (unsigned i = 0; i < 6; i++)
			assert_int_equal(pthread_create(&t[i], NULL, echo_thread, c), 0);
		for (unsigned i = 0; i < 6; i++) {
			pthread_join(t[i], &failed);
			assert_null(failed);
		}
		card_client_close(c);
	}
}

/* 100 001 bytes in each mode, through requests of 16 KiB, against the primitive in one. */
static void long_data_is_the_same(void **state)
{
	static const uint32_t modes[] = {SGD_ECB, SGD_CBC, SGD_CFB, SGD_OFB, SGD_CTR};
	size_t n = 100000, got;
	uint8_t *in = malloc(n), *out = malloc(n), *want = malloc(n), key[16] = {9}, iv[16];
	struct card_client *c = open_way("shm:", "web");
	uint32_t s = session_of(c), k;
	struct sm4 *sm4 = sm4_new(key);

	(void)state;
	for (size_t i = 0; i < n; i++)
		in[i] = (uint8_t)(i ^ i >> 8);
	assert_int_equal(take_plain(c, s, key, 16, &k), SDR_OK);
	for (unsigned m = 0; m < 10; m++) {
		struct card_cipher args = {.iv = {0xff, [15] = 0xfe}}, next;
		struct card_io io = {.rq = {.op = CARD_OP_CIPHER, .alg = SGD_SM4 | modes[m % 5], .session = s, .key = k,
					    .key_kind = CARD_KEY_OBJECT, .phase = ONE_SHOT, .args_len = sizeof(args),
					    .flags = m >= 5 ? CARD_FLAG_DECRYPT : 0},
				     .args = &args, .data = in, .out = out, .out_args = &next,
				     .out_args_cap = sizeof(next)};

		memcpy(iv, args.iv, 16);
		assert_int_equal(sm4_crypt(sm4, io.rq.alg, m >= 5, iv, in, want, n), SDR_OK);
		assert_int_equal(card_call_long(c, &io, n, n, &got), SDR_OK);
		assert_int_equal(got, n);
		assert_memory_equal(out, want, n);
		if (modes[m % 5] != SGD_ECB)
			assert_memory_equal(next.iv, iv, 16);
	}
	{ /* a MAC and a digest */
		struct card_cipher args = {.iv = {0}}, mac;
		struct card_hash hash = {.id_len = 0};
		struct card_io io = {.rq = {.op = CARD_OP_MAC, .alg = SGD_SM4 | SGD_MAC, .session = s, .key = k,
					    .key_kind = CARD_KEY_OBJECT, .phase = ONE_SHOT, .args_len = sizeof(args)},
				     .args = &args, .data = in, .out_args = &mac, .out_args_cap = sizeof(mac)};
		uint8_t digest[32];
		unsigned len;

		memset(iv, 0, sizeof(iv));
		assert_int_equal(sm4_mac(sm4, iv, in, n), SDR_OK);
		assert_int_equal(card_call_long(c, &io, n, 0, &got), SDR_OK);
		assert_memory_equal(mac.iv, iv, 16);
		io = (struct card_io){.rq = {.op = CARD_OP_HASH, .alg = SGD_SM3, .session = s, .phase = ONE_SHOT,
					     .args_len = sizeof(hash)},
				      .args = &hash, .data = in, .out = out};
		assert_int_equal(card_call_long(c, &io, n, 32, &got), SDR_OK);
		EVP_Digest(in, n, digest, &len, EVP_sm3(), NULL);
		assert_int_equal(got, 32);
		assert_memory_equal(out, digest, 32);
	}
	{ /* GCM, there and back */
		struct card_aead args = {.nonce_len = 12, .tag_len = 16, .aad_len = 20000}, answer;
		struct card_io io = {.rq = {.op = CARD_OP_AEAD, .alg = SGD_SM4_GCM, .session = s, .key = k,
					    .key_kind = CARD_KEY_OBJECT, .phase = ONE_SHOT, .args_len = sizeof(args)},
				     .args = &args, .data = in, .data2 = in, .out = out, .out_args = &answer,
				     .out_args_cap = sizeof(answer)};

		assert_int_equal(card_call_long(c, &io, n, n, &got), SDR_OK);
		assert_int_equal(got, n);
		memcpy(want, out, n);
		memcpy(args.tag, answer.tag, 16);
		io.data2 = want;
		io.rq.flags = CARD_FLAG_DECRYPT;
		assert_int_equal(card_call_long(c, &io, n, n, &got), SDR_OK);
		assert_memory_equal(out, in, n);
		args.tag[0] ^= 1;
		assert_int_equal(card_call_long(c, &io, n, n, &got), SDR_MACERR);
		assert_int_equal(got, 0);
	}
	sm4_free(sm4);
	card_client_close(c);
	free(in);
	free(out);
	free(want);
}

/* A VM has its own keys for its own purposes, and no way to name another's. */
static void rights_are_kept(void **state)
{
	struct card_client *web = open_way("unix:", "web.sock"), *db = open_way("shm:", "db");
	uint32_t w = session_of(web), d = session_of(db), k, stolen;
	struct card_io io;
	uint8_t out[256], key[16] = {0};
	unsigned denied = 0;
	char line[1024];
	FILE *audit;

	(void)state;
	assert_int_equal(sign(web, w, 1), SDR_OK);
	assert_int_equal(sign(web, w, 2), SDR_KEYNOTEXIST);
	assert_int_equal(sign(db, d, 1), SDR_OK);
	assert_int_equal(sign(db, d, 255), SDR_KEYNOTEXIST);
	assert_int_equal(sign(db, d, 256), SDR_KEYNOTEXIST);
	assert_int_equal(sign(db, d, UINT32_MAX), SDR_KEYNOTEXIST);
	/* db may sign with its key, not read its public half; and take no key in clear. */
	io = (struct card_io){.rq = {.op = CARD_OP_PUBLIC, .session = d, .key_kind = CARD_KEY_INDEX, .key = 1,
				     .alg = SGD_SM2_SIGN}, .out = out, .out_cap = sizeof(out)};
	assert_int_equal(card_call(db, &io), SDR_PARDENY);
	assert_int_equal(take_plain(db, d, key, 16, &k), SDR_PARDENY);
	assert_int_equal(take_plain(web, w, key, 16, &k), SDR_OK);
	/* web's handle is nothing to another link, even of the same VM. */
	stolen = k;
	io = (struct card_io){.rq = {.op = CARD_OP_DROP, .session = d, .object = stolen}};
	assert_int_equal(card_call(db, &io), SDR_KEYNOTEXIST);
	card_client_close(web);
	card_client_close(db);
	/* Refusals are on record, with who and what. */
	snprintf((char *)out, sizeof(out), "%s/audit", dir);
	audit = fopen((char *)out, "r");
	assert_non_null(audit);
	while (fgets(line, sizeof(line), audit))
		if (strstr(line, "\"vm\":\"db\"") && strstr(line, "\"key\":\"db\"") &&
		    strstr(line, "\"denied\":\"public\""))
			denied++;
	fclose(audit);
	assert_int_equal(denied, 1);
}

static void limits_are_kept(void **state)
{
	struct card_client *c = open_way("unix:", "web.sock"), *second = open_way("shm:", "web");
	uint32_t s[9], k[17];
	uint8_t key[16] = {0};

	(void)state;
	for (unsigned i = 0; i < 8; i++)
		s[i] = session_of(c);
	assert_int_equal(card_session_open(second, &s[8]), SDR_OPENSESSION); /* of the VM, not of the link */
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(take_plain(c, s[0], key, 16, &k[i]), SDR_OK);
	assert_int_equal(take_plain(c, s[1], key, 16, &k[16]), SDR_NOBUFFER);
	assert_int_equal(card_session_close(c, s[0]), SDR_OK);
	assert_int_equal(take_plain(c, s[1], key, 16, &k[16]), SDR_OK);
	assert_int_equal(take_plain(c, s[0], key, 16, &k[0]), SDR_OPENSESSION);
	assert_int_equal(card_session_open(second, &s[8]), SDR_OK);
	card_client_close(c);
	card_client_close(second);
}

static void rate_is_kept(void **state)
{
	struct card_client *c = open_way("unix:", "slow.sock");
	uint64_t begun = units_now_us();

	(void)state;
	for (unsigned i = 0; i < 42; i++)
		assert_int_equal(echo(c, 16), SDR_OK);
	/* 200 a second, 3 at once: 42 take 190 ms or more. */
	assert_true(units_now_us() - begun > 180000);
	card_client_close(c);
}

/* The daemon is gone and comes back: sessions and keys are there, calls go on, streams do not. */
static void daemon_restarts(void **state)
{
	struct running *r = *state;

	for (unsigned w = 0; w < 2; w++) {
		struct card_client *c = open_way(w ? "shm:" : "unix:", w ? "web" : "web.sock");
		uint32_t s = session_of(c), k, stream;
		uint8_t key[16] = {3}, first[16], second[16], in[16] = {5};
		struct card_cipher args = {.data_unit = 0};
		struct card_io io = {.rq = {.op = CARD_OP_CIPHER, .alg = SGD_SM4 | SGD_ECB, .session = s,
					    .key_kind = CARD_KEY_OBJECT, .phase = ONE_SHOT, .args_len = sizeof(args),
					    .data_len = 16},
				     .args = &args, .data = in, .out = first, .out_cap = 16}, again, begin;
		struct card_client_stat st;

		assert_int_equal(take_plain(c, s, key, 16, &k), SDR_OK);
		io.rq.key = k;
		again = begin = io;
		assert_int_equal(card_call(c, &io), SDR_OK);
		begin.rq.phase = CARD_PHASE_BEGIN;
		begin.out = second;
		assert_int_equal(card_call(c, &begin), SDR_OK);
		stream = begin.object;
		assert_int_not_equal(stream, 0);
		daemon_end(r);
		daemon_start(r);
		again.out = second;
		assert_int_equal(card_call(c, &again), SDR_OK);
		assert_memory_equal(first, second, 16);
		begin.rq.phase = CARD_PHASE_END;
		begin.rq.object = stream;
		begin.rq.key = begin.rq.args_len = 0;
		begin.rq.key_kind = CARD_KEY_NONE;
		assert_int_equal(card_call(c, &begin), SDR_COMMFAIL);
		assert_int_equal(sign(c, s, 1), SDR_OK);
		card_client_stat(c, &st);
		assert_int_equal(st.reconnects, 1);
		card_client_close(c);
	}
}

/* A peer that knows the memory and writes what it likes into it. */
struct peer {
	struct ivshmem_client c;
	uint8_t *map;
	struct card_layout l;
	int fd;
};

static void peer_open(struct peer *p, const char *name)
{
	struct net_addr addr = {.family = NET_UNIX};
	struct err err = {0};
	uint32_t want = UINT32_MAX;

	snprintf(addr.path, sizeof(addr.path), "%s/%s", dir, name);
	p->fd = net_connect(&addr, 5000, &err);
	assert_true(p->fd >= 0);
	p->map = NULL;
	ivshmem_client_init(&p->c);
	while (p->c.own_bells < want) {
		char control[CMSG_SPACE(sizeof(int))];
		int64_t number;
		struct iovec iov = {&number, 8};
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
				     .msg_controllen = sizeof(control)};
		struct cmsghdr *h;
		int fd = -1;

		if (recvmsg(p->fd, &msg, MSG_WAITALL) != 8) {
			usleep(100);
			continue;
		}
		h = CMSG_FIRSTHDR(&msg);
		if (h)
			memcpy(&fd, CMSG_DATA(h), sizeof(fd));
		assert_int_equal(ivshmem_client_feed(&p->c, number, fd), 0);
		if (p->c.memory < 0 || p->map)
			continue;
		p->map = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, p->c.memory, 0);
		assert_true(p->map != MAP_FAILED);
		assert_int_equal(card_layout_read((struct card_region *)p->map, 1 << 20, &p->l), 0);
		want = p->l.queues;
	}
}

static void peer_bell(struct peer *p)
{
	uint64_t one = 1;

	assert_int_equal(write(p->c.peer_bell, &one, 8), 8);
}

static void peer_close(struct peer *p)
{
	munmap(p->map, 1 << 20);
	ivshmem_client_free(&p->c);
	close(p->fd);
}

static uint32_t roll(uint32_t *seed)
{
	return *seed = *seed * 1664525 + 1013904223;
}

/* Random bytes all over the region, bells, new users, plausible requests with wild fields: the daemon lives, and
 * another VM's calls are as right as ever. */
static void hostile_writer_reaches_nobody(void **state)
{
	struct card_client *c = open_way("shm:", "web");
	struct peer p;
	uint32_t seed = 42;

	(void)state;
	peer_open(&p, "db");
	for (unsigned round = 0; round < 300; round++) {
		struct card_queue *q = card_layout_queue(&p.l, p.map, 0);

		for (unsigned i = 0; i < 2000; i++)
			p.map[roll(&seed) >> 8 & 0xfffff] = (uint8_t)(roll(&seed) >> 24);
		if (round % 3 == 0)
			atomic_store(&q->open, roll(&seed));
		peer_bell(&p);
		for (unsigned i = 0; i < p.l.slots; i++) {
			struct card_slot *slot = card_layout_submission(q, i);
			struct card_request rq = {.magic = CARD_REQUEST_MAGIC, .op = (uint16_t)(roll(&seed) >> 27),
						  .session = roll(&seed) >> (roll(&seed) >> 27),
						  .key = roll(&seed) >> 31, .key_kind = (uint8_t)(roll(&seed) >> 30),
						  .phase = (uint8_t)(roll(&seed) >> 29), .alg = roll(&seed) >> 21,
						  .object = roll(&seed) >> (roll(&seed) >> 27),
						  .args_len = roll(&seed) >> (roll(&seed) >> 27),
						  .data_len = roll(&seed) >> (roll(&seed) >> 27),
						  .out_max = roll(&seed) >> (roll(&seed) >> 27)};
			const struct card_op_info *info = card_op_info(rq.op);

			if (info && roll(&seed) >> 31)
				rq.args_len = info->args_len;
			memcpy((uint8_t *)slot + 8, (uint8_t *)&rq + 8, sizeof(rq) - 8);
			card_slot_publish(slot, i + 1 + (round % 3 ? p.l.slots * (round % 3) : 0));
		}
		peer_bell(&p);
		if (round % 10 == 0)
			assert_int_equal(echo(c, 1000), SDR_OK);
	}
	assert_int_equal(echo(c, 4096), SDR_OK);
	peer_close(&p);
	/* The same VM is served again, and finds zeros where the other was. */
	peer_open(&p, "db");
	for (unsigned i = CARD_REGION_HEAD + CARD_QUEUE_HEAD; i < 1 << 20; i++)
		if (p.map[i])
			fail_msg("byte %u is %u", i, p.map[i]);
	peer_close(&p);
	card_client_close(c);
}

/* The next user of a queue finds nothing of the one before, and has none of its sessions. */
static void queue_changes_hands(void **state)
{
	struct card_client *c = open_way("shm:", "web"), *other = open_way("unix:", "web.sock");
	struct peer p;
	struct card_queue *q;
	uint8_t any = 0;
	uint32_t s = session_of(c);

	(void)state;
	(void)s;
	peer_open(&p, "db");
	q = card_layout_queue(&p.l, p.map, 0);
	memset(card_layout_submission(q, 0), 0x5a, (size_t)p.l.slots * 2 * sizeof(struct card_slot));
	atomic_store(&q->open, 77);
	peer_bell(&p);
	while (atomic_load(&q->opened) != 77)
		usleep(100);
	for (size_t i = 0; i < (size_t)p.l.slots * 2 * sizeof(struct card_slot); i++)
		any |= ((uint8_t *)card_layout_submission(q, 0))[i];
	assert_int_equal(any, 0);
	peer_close(&p);
	card_client_close(c);
	/* What the closed client had is free again: eight sessions are all that there are. */
	for (unsigned i = 0; i < 8; i++)
		session_of(other);
	card_client_close(other);
}

/* QEMU brings a VM and writes another daemon's memory over this one's: its user must open the queue again. */
static void memory_of_another_daemon(void **state)
{
	struct peer p;
	struct card_region *r;
	struct card_queue *q;
	uint64_t daemon;

	(void)state;
	peer_open(&p, "db");
	r = (struct card_region *)p.map;
	q = card_layout_queue(&p.l, p.map, 0);
	daemon = r->daemon;
	for (int rings = 0; rings < 2; rings++) {
		r->daemon = daemon + 1;
		atomic_store(&q->open, 1234);
		atomic_store(&q->opened, 1234);
		atomic_store(&q->daemon_waits, 0);
		if (rings)
			peer_bell(&p);
		/* Not the user of 1234, who would wait for ever; and by the daemon's own clock, if nobody rings. */
		while (atomic_load(&q->opened) != 0)
			usleep(100);
		assert_int_equal(atomic_load(&q->daemon_waits), 1);
		while (r->daemon != daemon)
			usleep(100);
		atomic_store(&q->open, 5678);
		peer_bell(&p);
		while (atomic_load(&q->opened) != 5678)
			usleep(100);
	}
	peer_close(&p);
}

static void nonsense_cuts_a_stream(void **state)
{
	struct net_addr addr = {.family = NET_UNIX};
	struct err err;
	char junk[200];
	int fd;

	(void)state;
	snprintf(addr.path, sizeof(addr.path), "%s/web.sock", dir);
	fd = net_connect(&addr, 5000, &err);
	assert_true(fd >= 0);
	memset(junk, 'x', sizeof(junk));
	assert_int_equal(send(fd, junk, sizeof(junk), MSG_NOSIGNAL), sizeof(junk));
	for (ssize_t n = -1; n < 0; n = recv(fd, junk, sizeof(junk), 0))
		assert_true(errno == EAGAIN || n == -1);
	close(fd);
}

static void hybrid_handshake(void **state)
{
	struct card_client *c;
	struct err err = {0};
	char address[160];

	(void)state;
	snprintf(address, sizeof(address), "hybrid:%s/web.sock:7073", dir);
	assert_int_equal(card_client_open(address, NULL, &c, &err), 0);
	assert_int_equal(echo(c, 100), SDR_OK);
	card_client_close(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(echo_all_sizes),
		cmocka_unit_test(pipelining),
		cmocka_unit_test(many_threads_one_client),
		cmocka_unit_test(long_data_is_the_same),
		cmocka_unit_test(rights_are_kept),
		cmocka_unit_test(limits_are_kept),
		cmocka_unit_test(rate_is_kept),
		cmocka_unit_test(daemon_restarts),
		cmocka_unit_test(hostile_writer_reaches_nobody),
		cmocka_unit_test(queue_changes_hands),
		cmocka_unit_test(memory_of_another_daemon),
		cmocka_unit_test(nonsense_cuts_a_stream),
		cmocka_unit_test(hybrid_handshake),
	};

	return cmocka_run_group_tests(tests, start, end);
}
