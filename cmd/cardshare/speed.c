/* SPDX-License-Identifier: MIT */
/* cardshare speed: one operation again and again, over the shared card or on a card itself. */
#include <errno.h>
#include <json-c/json.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/exit.h"
#include "base/histogram.h"
#include "base/log.h"
#include "base/units.h"
#include "card/card.h"
#include "card/client.h"
#include "cardshare.h"

#define DEPTH_MAX 256
#define LINKS_MAX 256

static struct speed_opts {
	const char *op, *direct, *store;
	uint64_t size, duration_us, spin_us;
	uint32_t depth, links;
	bool json, sleep, reconnect;
} o = {.op = "sm4-cbc", .size = 4096, .duration_us = 1000000, .depth = 1, .links = 1};

const struct cli_opt speed_opts[] = {
	{'o', "op", CLI_STRING, &o.op, "OP",
	 "echo, random, sm3, hmac, sm4-{ecb,cbc,cfb,ofb,ctr,mac,gcm}, sm2-{sign,verify} (sm4-cbc)"},
	{'s', "size", CLI_SIZE, &o.size, "BYTES", "of a request, up to 16K (4K)"},
	{'d', "duration", CLI_DURATION, &o.duration_us, "TIME", "measure so long (1s)"},
	{'n', "depth", CLI_U32, &o.depth, "N", "requests under way on a link (1)"},
	{'l', "links", CLI_U32, &o.links, "N", "links, each with its thread (1)"},
	{0, "spin", CLI_DURATION, &o.spin_us, "TIME", "poll so long before sleeping (50us)"},
	{0, "sleep", CLI_FLAG, &o.sleep, NULL, "never poll"},
	{0, "reconnect", CLI_FLAG, &o.reconnect, NULL, "go on when the daemon comes back, or the VM has moved"},
	{0, "direct", CLI_STRING, &o.direct, "CARD", "on this card (soft, null), without a daemon"},
	{0, "store", CLI_STRING, &o.store, "DIR", "where the direct card's keys are"},
	{0, "json", CLI_FLAG, &o.json, NULL, "one JSON object"},
	CLI_END,
};

static const struct work {
	const char *name;
	uint16_t op;
	uint32_t alg;
	bool key;
} works[] = {
	{"echo", CARD_OP_ECHO, 0, false},
	{"random", CARD_OP_RANDOM, 0, false},
	{"sm3", CARD_OP_HASH, SGD_SM3, false},
	{"hmac", CARD_OP_HMAC, SGD_SM3, true},
	{"sm4-ecb", CARD_OP_CIPHER, SGD_SM4 | SGD_ECB, true},
	{"sm4-cbc", CARD_OP_CIPHER, SGD_SM4 | SGD_CBC, true},
	{"sm4-cfb", CARD_OP_CIPHER, SGD_SM4 | SGD_CFB, true},
	{"sm4-ofb", CARD_OP_CIPHER, SGD_SM4 | SGD_OFB, true},
	{"sm4-ctr", CARD_OP_CIPHER, SGD_SM4 | SGD_CTR, true},
	{"sm4-mac", CARD_OP_MAC, SGD_SM4 | SGD_MAC, true},
	{"sm4-gcm", CARD_OP_AEAD, SGD_SM4_GCM, true},
	{"sm2-sign", CARD_OP_SIGN, SGD_SM2_SIGN, false},
	{"sm2-verify", CARD_OP_VERIFY, SGD_SM2_SIGN, false},
};

/* One end: a link, or a card itself. */
struct end {
	const struct work *work;
	struct card_client *client;
	struct card *card;
	struct card_object *key_object;
	uint32_t session, key;
	union {
		uint8_t bytes[CARD_ARGS_MAX];
		struct card_cipher cipher;
		struct card_aead aead;
		struct card_hash hash;
		struct card_sign sign;
		struct card_verify verify;
		struct card_wrap wrap;
		struct card_pair pair;
	} args;
	uint8_t *data, *out;
	uint64_t done, failed, begun_ns, ended_ns;
	uint32_t status;
	struct histogram *latency;
	char way[256]; /* the last that it had */
	pthread_t thread;
};

static volatile bool stop;

/* On the card itself, as the daemon would ask it. */
static uint32_t run_direct(struct end *e, struct card_io *io)
{
	uint8_t out_args[CARD_ARGS_MAX] = {0};
	struct card_call call = {.rq = &io->rq, .args = io->args, .in = io->data, .in_len = io->rq.data_len,
				 .vm = "speed", .out = io->out, .out_cap = io->out_cap, .out_args = out_args,
				 .key = io->rq.key_kind == CARD_KEY_OBJECT ? e->key_object : NULL};

	io->status = e->card->driver->run(e->card, &call);
	io->out_len = call.out_len;
	if (io->out_args && io->status == SDR_OK)
		memcpy(io->out_args, out_args, io->out_args_cap);
	if (call.made)
		e->key_object = call.made;
	io->object = call.made != NULL;
	return io->status;
}

static uint32_t ask(struct end *e, struct card_io *io)
{
	return e->card ? run_direct(e, io) : card_call(e->client, io);
}

/* A key pair; null cards have none, and take any. */
static uint32_t make_pair(struct end *e, struct sdf_ecc_public *pub, struct sdf_ecc_private *key)
{
	uint8_t buf[sizeof(*pub) + sizeof(*key)] = {0};
	struct card_pair args = {.bits = 256};
	struct card_io io = {.rq = {.op = CARD_OP_PAIR, .session = e->session, .alg = SGD_SM2,
				    .args_len = sizeof(args)},
			     .args = &args, .out = buf, .out_cap = sizeof(buf)};
	uint32_t status = ask(e, &io);

	memcpy(pub, buf, sizeof(*pub));
	memcpy(key, buf + sizeof(*pub), sizeof(*key));
	return status == SDR_NOTSUPPORT ? SDR_OK : status;
}

static uint32_t make_key(struct end *e)
{
	struct card_wrap args = {.by = CARD_WRAP_EXTERNAL, .bits = 128, .family = SGD_SM2};
	struct card_io io = {.rq = {.op = CARD_OP_KEY_MAKE, .session = e->session, .alg = SGD_SM2_ENC,
				    .key_kind = CARD_KEY_GIVEN, .args_len = sizeof(args)},
			     .args = &args, .out = e->out, .out_cap = CARD_DATA_MAX};
	struct sdf_ecc_private ignored;
	uint32_t status = make_pair(e, &args.pub, &ignored);

	if (!status)
		status = ask(e, &io);
	e->key = io.object;
	return status;
}

static uint32_t make_signature(struct end *e)
{
	struct card_sign sign = {0};
	struct card_signature signature = {0};
	struct card_verify verify = {0};
	struct card_io io = {.rq = {.op = CARD_OP_SIGN, .session = e->session, .alg = SGD_SM2_SIGN,
				    .key_kind = CARD_KEY_GIVEN, .args_len = sizeof(sign), .data_len = 32},
			     .args = &sign, .data = e->data, .out_args = &signature,
			     .out_args_cap = sizeof(signature)};
	uint32_t status = make_pair(e, &verify.pub, &sign.key);

	if (!status)
		status = ask(e, &io);
	verify.sig = signature.sig;
	if (e->work->op == CARD_OP_SIGN)
		e->args.sign = sign;
	else
		e->args.verify = verify;
	return status;
}

static uint32_t prepare(struct end *e)
{
	const struct work *w = e->work;
	uint32_t status = e->card ? SDR_OK : card_session_open(e->client, &e->session);

	if (!status && w->key)
		status = make_key(e);
	if (!status && (w->op == CARD_OP_SIGN || w->op == CARD_OP_VERIFY))
		status = make_signature(e);
	if (w->op == CARD_OP_AEAD)
		e->args.aead = (struct card_aead){.nonce_len = 12, .tag_len = 16};
	return status;
}

/* One request of the work; its answer's args go nowhere. */
static void fill(struct end *e, struct card_io *io, uint32_t at)
{
	const struct work *w = e->work;
	const struct card_op_info *info = card_op_info(w->op);
	bool pk = w->op == CARD_OP_SIGN || w->op == CARD_OP_VERIFY;

	*io = (struct card_io){.rq = {.op = w->op, .alg = w->alg, .session = info->session ? e->session : 0}};
	io->rq.phase = info->phased ? CARD_PHASE_BEGIN | CARD_PHASE_END : 0;
	io->rq.data_len = pk ? 32 : w->op == CARD_OP_RANDOM ? 0 : (uint32_t)o.size;
	io->rq.args_len = pk && info->given_args_len ? info->given_args_len : info->args_len;
	io->rq.key_kind = w->key ? CARD_KEY_OBJECT : pk ? CARD_KEY_GIVEN : CARD_KEY_NONE;
	io->rq.key = w->key ? e->key : 0;
	io->args = &e->args;
	io->data = e->data + (size_t)at * CARD_DATA_MAX;
	io->out = e->out + (size_t)at * CARD_DATA_MAX;
	io->out_cap = w->op == CARD_OP_HASH || w->op == CARD_OP_HMAC ? 64 : pk ? 0 : (uint32_t)o.size;
}

static bool note(struct end *e, const struct card_io *io, uint64_t begun)
{
	e->done++;
	if (io->status) {
		e->failed++;
		e->status = io->status;
		return false;
	}
	if (!(e->done & 7) || e->work->op == CARD_OP_SIGN)
		histogram_record(e->latency, units_now_ns() - begun);
	return true;
}

static void run_card(struct end *e)
{
	while (!stop) {
		struct card_io io;
		uint64_t begun = units_now_ns();

		fill(e, &io, 0);
		run_direct(e, &io);
		if (!note(e, &io, begun))
			return;
	}
}

static void run_link(struct end *e)
{
	struct card_io *ios = calloc(o.depth, sizeof(*ios));
	uint64_t begun[DEPTH_MAX], next = 0, oldest = 0;

	while (ios && (!stop || oldest < next)) {
		while (!stop && next - oldest < o.depth) {
			uint32_t at = (uint32_t)(next % o.depth);
			int rc;

			fill(e, &ios[at], at);
			begun[at] = units_now_ns();
			rc = card_submit(e->client, &ios[at]);
			if (rc && rc != -EAGAIN)
				e->status = SDR_COMMFAIL;
			if (rc)
				break;
			next++;
		}
		if (oldest == next) {
			if (card_wait_room(e->client))
				break;
			continue;
		}
		card_wait(e->client, &ios[oldest % o.depth]);
		if (!note(e, &ios[oldest % o.depth], begun[oldest % o.depth]))
			stop = true;
		oldest++;
	}
	free(ios);
}

static void *run_end(void *arg)
{
	struct end *e = arg;

	e->begun_ns = units_now_ns();
	if (e->card)
		run_card(e);
	else
		run_link(e);
	e->ended_ns = units_now_ns();
	if (e->client)
		card_client_way(e->client, e->way, sizeof(e->way));
	return NULL;
}

static int open_end(struct end *e, const char *address, struct err *err)
{
	const struct card_client_opts opts = {.app = "speed", .spin_us = o.spin_us, .no_spin = o.sleep,
					      .no_reconnect = !o.reconnect};
	const struct card_conf conf = {.name = "direct", .spec = o.direct, .store = o.store};
	char buf[32];
	uint32_t status;
	int rc;

	e->latency = histogram_new();
	e->data = calloc(o.depth, CARD_DATA_MAX);
	e->out = calloc(o.depth, CARD_DATA_MAX);
	if (!e->latency || !e->data || !e->out)
		return err_sys(err, -ENOMEM, "speed");
	rc = o.direct ? card_open(&conf, &e->card, err) : card_client_open(address, &opts, &e->client, err);
	if (!rc && o.direct && e->card->driver->reap)
		return err_set(err, -ENOTSUP, "speed: %s answers by itself: it has no direct speed", o.direct);
	if (rc)
		return rc;
	status = prepare(e);
	return status ? err_set(err, -EPROTO, "speed %s: %s", e->work->name,
				sdr_text(status, buf, sizeof(buf))) : 0;
}

static void close_end(struct end *e)
{
	if (e->key_object)
		e->card->driver->release(e->card, CARD_OBJ_KEY, e->key_object);
	card_close(e->card);
	card_client_close(e->client);
	histogram_free(e->latency);
	free(e->data);
	free(e->out);
}

static void report(struct end *ends, uint32_t n)
{
	struct histogram *all = ends[0].latency;
	double rate = 0, sum = 0, squares = 0, mbps, jain;
	uint64_t done = 0;
	bool pk = ends[0].work->op == CARD_OP_SIGN || ends[0].work->op == CARD_OP_VERIFY;
	char p50[32], p99[32];

	for (uint32_t i = 0; i < n; i++) {
		double r = (double)ends[i].done * 1e9 / (double)(ends[i].ended_ns - ends[i].begun_ns);

		rate += r;
		done += ends[i].done;
		sum += r;
		squares += r * r;
		if (i)
			histogram_merge(all, ends[i].latency);
	}
	jain = squares > 0 ? sum * sum / ((double)n * squares) : 0;
	mbps = pk ? 0 : rate * (double)o.size * 8 / 1e6;
	if (o.json) {
		struct json_object *j = json_object_new_object();

		json_object_object_add(j, "schema", json_object_new_string("util-vm/cardshare/speed/1"));
		json_object_object_add(j, "op", json_object_new_string(ends[0].work->name));
		if (ends[0].client)
			json_object_object_add(j, "way", json_object_new_string(ends[0].way));
		json_object_object_add(j, "size_bytes", json_object_new_int64((int64_t)o.size));
		json_object_object_add(j, "links", json_object_new_int64(n));
		json_object_object_add(j, "depth", json_object_new_int64(o.depth));
		json_object_object_add(j, "requests", json_object_new_int64((int64_t)done));
		json_object_object_add(j, "requests_per_s", json_object_new_double(rate));
		json_object_object_add(j, "bits_per_s", json_object_new_int64((int64_t)(mbps * 1e6)));
		json_object_object_add(j, "p50_ns", json_object_new_int64((int64_t)histogram_percentile(all, 50)));
		json_object_object_add(j, "p99_ns", json_object_new_int64((int64_t)histogram_percentile(all, 99)));
		json_object_object_add(j, "jain", json_object_new_double(jain));
		puts(json_object_to_json_string_ext(j, JSON_C_TO_STRING_PLAIN));
		json_object_put(j);
		return;
	}
	printf("%s %llu bytes links %u depth %u: %.0f requests/s", ends[0].work->name,
	       (unsigned long long)o.size, n, o.depth, rate);
	if (!pk)
		printf(" %.0f Mb/s", mbps);
	printf(" p50 %s p99 %s",
	       units_format_duration(histogram_percentile(all, 50) / 1000, p50, sizeof(p50)),
	       units_format_duration(histogram_percentile(all, 99) / 1000, p99, sizeof(p99)));
	if (n > 1)
		printf(" jain %.4f", jain);
	if (ends[0].client)
		printf(" by %s", ends[0].way);
	putchar('\n');
}

static int measure(struct end *ends, uint32_t n)
{
	char buf[32];
	struct timespec ts = {(time_t)(o.duration_us / 1000000), (long)(o.duration_us % 1000000) * 1000};
	uint32_t status = SDR_OK, started = 0;

	for (; started < n; started++)
		if (pthread_create(&ends[started].thread, NULL, run_end, &ends[started]))
			break;
	nanosleep(&ts, NULL);
	stop = true;
	for (uint32_t i = 0; i < started; i++) {
		pthread_join(ends[i].thread, NULL);
		status = ends[i].status ? ends[i].status : status;
	}
	if (started < n || status) {
		log_error("speed %s: %s", ends[0].work->name, sdr_text(status, buf, sizeof(buf)));
		return EXIT_ROLLED_BACK;
	}
	report(ends, n);
	return EXIT_DONE;
}

int speed_run(int argc, char **argv)
{
	const struct work *w = NULL;
	struct end *ends;
	struct err err = {0};
	int rc = 0;

	for (size_t i = 0; i < sizeof(works) / sizeof(*works); i++)
		if (!strcmp(works[i].name, o.op))
			w = &works[i];
	if (!w)
		return cli_usage_error("--op %s: no such operation", o.op);
	if (argc > 1 || (argc && o.direct))
		return cli_usage_error("one ADDRESS, or --direct CARD");
	if (o.size > CARD_DATA_MAX || (w->op == CARD_OP_CIPHER && o.size % 16))
		return cli_usage_error("--size %llu: up to 16K, and whole blocks of 16", (unsigned long long)o.size);
	if (!o.depth || o.depth > DEPTH_MAX || !o.links || o.links > LINKS_MAX)
		return cli_usage_error("--depth and --links: 1 to %d", DEPTH_MAX);
	ends = calloc(o.links, sizeof(*ends));
	for (uint32_t i = 0; ends && i < o.links && !rc; i++) {
		ends[i].work = w;
		rc = open_end(&ends[i], argc ? argv[0] : NULL, &err);
	}
	if (rc)
		log_error("%s", err.text);
	rc = rc || !ends ? EXIT_REFUSED : measure(ends, o.links);
	for (uint32_t i = 0; ends && i < o.links; i++)
		close_end(&ends[i]);
	free(ends);
	return rc;
}
