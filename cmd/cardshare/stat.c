/* SPDX-License-Identifier: MIT */
/* cardshare stat: what the daemon says of itself, as a table, JSON or Prometheus' text. */
#include <errno.h>
#include <json-c/json.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/exit.h"
#include "base/log.h"
#include "base/units.h"
#include "cardd/cardd.h"
#include "cardshare.h"
#include "net/addr.h"

#define ANSWER_MAX (64u << 20)
#define ANSWER_MS 5000

static struct stat_opts {
	const char *control;
	bool json, prometheus;
} o = {.control = CARDD_RUN_DIR "/control"};

const struct cli_opt stat_opts[] = {
	{0, "control", CLI_STRING, &o.control, "PATH", "the daemon's socket (" CARDD_RUN_DIR "/control)"},
	{0, "json", CLI_FLAG, &o.json, NULL, "one JSON object"},
	{0, "prometheus", CLI_FLAG, &o.prometheus, NULL, "metrics in Prometheus' text format"},
	CLI_END,
};

/* All that comes until the end. */
static char *read_answer(int fd, struct err *err)
{
	size_t have = 0, room = 65536;
	char *text = malloc(room), *more;

	while (text) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n;

		if (poll(&p, 1, ANSWER_MS) <= 0) {
			err_set(err, -ETIMEDOUT, "stat %s: no answer", o.control);
			break;
		}
		n = read(fd, text + have, room - have - 1);
		if (n == 0) {
			text[have] = '\0';
			return text;
		}
		if (n < 0) {
			err_sys(err, -errno, "stat %s", o.control);
			break;
		}
		have += (size_t)n;
		if (room - have > 1)
			continue;
		room *= 2;
		if (room > ANSWER_MAX) {
			err_set(err, -E2BIG, "stat %s: no end of it", o.control);
			break;
		}
		more = realloc(text, room);
		if (!more)
			break;
		text = more;
	}
	free(text);
	return NULL;
}

static struct json_object *ask(struct err *err)
{
	struct net_addr addr = {.family = NET_UNIX};
	struct json_object *stat = NULL;
	char *text = NULL;
	int fd;

	if (strlen(o.control) >= sizeof(addr.path)) {
		err_set(err, -EINVAL, "stat %.32s…: a socket's path has at most %zu bytes", o.control,
			sizeof(addr.path) - 1);
		return NULL;
	}
	memcpy(addr.path, o.control, strlen(o.control) + 1);
	fd = net_connect(&addr, ANSWER_MS, err);
	if (fd < 0)
		return NULL;
	text = read_answer(fd, err);
	close(fd);
	if (text) {
		stat = json_tokener_parse(text);
		if (!stat)
			err_set(err, -EPROTO, "stat %s: the answer is not JSON", o.control);
	}
	free(text);
	return stat;
}

static int64_t number(struct json_object *o_, const char *key)
{
	struct json_object *v;

	return json_object_object_get_ex(o_, key, &v) ? json_object_get_int64(v) : 0;
}

static const char *text(struct json_object *o_, const char *key)
{
	struct json_object *v;

	return json_object_object_get_ex(o_, key, &v) ? json_object_get_string(v) : "";
}

static size_t list(struct json_object *o_, const char *key, struct json_object **v)
{
	return json_object_object_get_ex(o_, key, v) ? json_object_array_length(*v) : 0;
}

static void print_table(struct json_object *stat)
{
	struct json_object *cards, *vms, *links;
	size_t n = list(stat, "cards", &cards), m = list(stat, "vms", &vms);
	char up[32], bytes[32], used[32], p50[32], p99[32];

	printf("pid %d up %s requests %lld sleeps %lld\n", (int)number(stat, "pid"),
	       units_format_duration((uint64_t)number(stat, "uptime_us"), up, sizeof(up)),
	       (long long)number(stat, "requests"), (long long)number(stat, "sleeps"));
	for (size_t i = 0; i < n; i++) {
		struct json_object *c = json_object_array_get_idx(cards, i);

		printf("card %-16s %-8s %-7s calls %-10lld %10s busy %s\n", text(c, "name"),
		       text(c, "driver"), text(c, "state"), (long long)number(c, "calls"),
		       units_format_size((uint64_t)number(c, "bytes"), bytes, sizeof(bytes)),
		       units_format_duration((uint64_t)number(c, "busy_ns") / 1000, used, sizeof(used)));
	}
	for (size_t i = 0; i < m; i++) {
		struct json_object *v = json_object_array_get_idx(vms, i);

		printf("vm   %-16s links %-3zu requests %-10lld %10s card time %-9s p50 %-9s p99 %-9s errors "
		       "%lld denied %lld\n", text(v, "name"), list(v, "links", &links),
		       (long long)number(v, "requests"),
		       units_format_size((uint64_t)number(v, "in_bytes"), bytes, sizeof(bytes)),
		       units_format_duration((uint64_t)number(v, "card_ns") / 1000, used, sizeof(used)),
		       units_format_duration((uint64_t)number(v, "latency_p50_ns") / 1000, p50, sizeof(p50)),
		       units_format_duration((uint64_t)number(v, "latency_p99_ns") / 1000, p99, sizeof(p99)),
		       (long long)number(v, "errors"), (long long)number(v, "denied"));
	}
}

/* Names hold letters, digits, dots, - and _ only: nothing to escape. */
static void print_metric(struct json_object *items, size_t n, const char *what, const char *key,
			 const char *metric, const char *type, double scale)
{
	printf("# TYPE cardshare_%s_%s %s\n", what, metric, type);
	for (size_t i = 0; i < n; i++) {
		struct json_object *v = json_object_array_get_idx(items, i);

		if (scale == 1)
			printf("cardshare_%s_%s{%s=\"%s\"} %lld\n", what, metric, what, text(v, "name"),
			       (long long)number(v, key));
		else
			printf("cardshare_%s_%s{%s=\"%s\"} %.9f\n", what, metric, what, text(v, "name"),
			       (double)number(v, key) / scale);
	}
}

static void print_prometheus(struct json_object *stat)
{
	static const struct {
		const char *key, *metric, *type;
		double scale;
	} of_vm[] = {
		{"requests", "requests_total", "counter", 1},
		{"errors", "errors_total", "counter", 1},
		{"denied", "denied_total", "counter", 1},
		{"limited", "limited_total", "counter", 1},
		{"in_bytes", "in_bytes_total", "counter", 1},
		{"out_bytes", "out_bytes_total", "counter", 1},
		{"card_ns", "card_seconds_total", "counter", 1e9},
		{"latency_p50_ns", "latency_p50_seconds", "gauge", 1e9},
		{"latency_p99_ns", "latency_p99_seconds", "gauge", 1e9},
		{"sessions", "sessions", "gauge", 1},
		{"objects", "objects", "gauge", 1},
	}, of_card[] = {
		{"calls", "calls_total", "counter", 1},
		{"bytes", "bytes_total", "counter", 1},
		{"errors", "errors_total", "counter", 1},
		{"busy_ns", "busy_seconds_total", "counter", 1e9},
		{"pending", "pending", "gauge", 1},
	};
	struct json_object *cards, *vms;
	size_t n = list(stat, "cards", &cards), m = list(stat, "vms", &vms);

	for (size_t i = 0; i < sizeof(of_card) / sizeof(*of_card); i++)
		print_metric(cards, n, "card", of_card[i].key, of_card[i].metric, of_card[i].type,
			     of_card[i].scale);
	for (size_t i = 0; i < sizeof(of_vm) / sizeof(*of_vm); i++)
		print_metric(vms, m, "vm", of_vm[i].key, of_vm[i].metric, of_vm[i].type, of_vm[i].scale);
}

int stat_run(int argc, char **argv)
{
	struct json_object *stat;
	struct err err = {0};

	if (argc)
		return cli_usage_error("%s: no arguments are taken", argv[0]);
	if (o.json && o.prometheus)
		return cli_usage_error("--json and --prometheus: one or the other");
	stat = ask(&err);
	if (!stat) {
		log_error("%s%s", err.text,
			  err.code == -ENOENT || err.code == -ECONNREFUSED ? " (is 'cardshare serve' running?)" : "");
		return EXIT_REFUSED;
	}
	if (o.json)
		puts(json_object_to_json_string_ext(stat, JSON_C_TO_STRING_PLAIN));
	else if (o.prometheus)
		print_prometheus(stat);
	else
		print_table(stat);
	json_object_put(stat);
	return EXIT_DONE;
}
