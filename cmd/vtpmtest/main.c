/* SPDX-License-Identifier: MIT */
/* vtpmtest: a user who never stops asking the TPM, and checks every answer. */
#include "vtpmtest.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/cli.h"
#include "base/exit.h"
#include "base/log.h"
#include "base/units.h"

#define DEFAULT_TARGET "/dev/tpm0"
#define CONNECTIONS_MAX 64
#define US_MAX (UINT64_MAX / 1000)

static struct vtpmtest_opts {
	const char *mode, *format, *alg, *tpm, *rate, *cpu, *hdr, *seed_text;
	uint64_t period_us, duration_us, timeout_us, stall_us, size, count;
	uint32_t connections, pcr, length;
	bool startup, summary_only, json;
} o = {
	.mode = "hash",
	.format = NULL,
	.alg = "sha1",
	.tpm = "auto",
	.period_us = 0,
	.timeout_us = 10000000,
	.stall_us = 1000000,
	.connections = 1,
	.pcr = 16,
	.length = 50,
	.size = UINT64_MAX,
	.count = UINT64_MAX,
	.duration_us = UINT64_MAX,
};

static const struct cli_opt opts[] = {
	{'m', "mode", CLI_STRING, &o.mode, "MODE", "hash, sequence or pcr (hash)"},
	{'p', "period", CLI_DURATION, &o.period_us, "TIME", "a tick each TIME (1s)"},
	{'r', "rate", CLI_STRING, &o.rate, "N", "N ticks a second, or max: each when the last is answered"},
	{'n', "count", CLI_U64, &o.count, "N", "end after N ticks"},
	{'d', "duration", CLI_DURATION, &o.duration_us, "TIME", "end after TIME"},
	{'s', "size", CLI_SIZE, &o.size, "BYTES", "data of a tick, up to 1M (20; mode sequence: 64)"},
	{'a', "alg", CLI_STRING, &o.alg, "ALG", "sha1, sha256, sha384, sha512 or sm3_256 (sha1)"},
	{'c', "connections", CLI_U32, &o.connections, "N", "connections, each with its thread (1)"},
	{'t', "timeout", CLI_DURATION, &o.timeout_us, "TIME", "a tick not answered by then is lost (10s)"},
	{0, "stall", CLI_DURATION, &o.stall_us, "TIME", "report answers that took so long (1s)"},
	{0, "tpm", CLI_STRING, &o.tpm, "FAMILY", "1.2, 2.0 or auto (auto)"},
	{0, "startup", CLI_FLAG, &o.startup, NULL, "start the TPM up, as firmware would"},
	{0, "length", CLI_U32, &o.length, "TICKS", "mode sequence: ticks of one sequence (50)"},
	{0, "pcr", CLI_U32, &o.pcr, "N", "mode pcr: 16 or 23 (16)"},
	{0, "seed", CLI_STRING, &o.seed_text, "N", "the data's seed (random)"},
	{0, "cpu", CLI_STRING, &o.cpu, "LIST", "run on these CPUs only"},
	{'f', "format", CLI_STRING, &o.format, "FORMAT", "text, json or paper (text)"},
	{0, "json", CLI_FLAG, &o.json, NULL, "same as --format json"},
	{0, "summary-only", CLI_FLAG, &o.summary_only, NULL, "no line a tick (so does -q)"},
	{0, "hdr", CLI_STRING, &o.hdr, "FILE", "write the latencies, ms, as an HdrHistogram"},
	CLI_END,
};

static int choose_mode(struct vt_config *c)
{
	static const struct vt_mode *const modes[] = {&vt_mode_hash, &vt_mode_sequence,
						      &vt_mode_pcr};

	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		if (!strcmp(o.mode, modes[i]->name))
			c->mode = modes[i];
	if (!c->mode)
		return cli_usage_error("--mode %s: not hash, sequence or pcr", o.mode);
	c->alg = tpm_alg_find(o.alg);
	if (!c->alg)
		return cli_usage_error("--alg %s: not sha1, sha256, sha384, sha512 or sm3_256",
				       o.alg);
	if (!strcmp(o.tpm, "1.2"))
		c->family = TPM_FAMILY_12;
	else if (!strcmp(o.tpm, "2.0"))
		c->family = TPM_FAMILY_20;
	else if (strcmp(o.tpm, "auto"))
		return cli_usage_error("--tpm %s: not 1.2, 2.0 or auto", o.tpm);
	return 0;
}

static int choose_format(struct vt_config *c)
{
	const char *format = o.format ? o.format : o.json ? "json" : "text";

	if (o.json && strcmp(format, "json"))
		return cli_usage_error("--json and --format %s: one of them", format);
	if (!strcmp(format, "text"))
		c->format = VT_TEXT;
	else if (!strcmp(format, "json"))
		c->format = VT_JSON;
	else if (!strcmp(format, "paper"))
		c->format = VT_PAPER;
	else
		return cli_usage_error("--format %s: not text, json or paper", format);
	c->per_tick = !o.summary_only && cli_common.verbosity >= 0;
	return 0;
}

/* "100", "0.5", "max"; a period is its inverse. */
static int choose_schedule(struct vt_config *c)
{
	double rate;
	char *end;

	if (o.rate && o.period_us)
		return cli_usage_error("--rate and --period: one of them");
	c->period_ns = o.period_us ? (double)o.period_us * 1e3 : 1e9;
	if (o.rate && !strcmp(o.rate, "max")) {
		c->period_ns = 0;
	} else if (o.rate) {
		rate = strtod(o.rate, &end);
		if (end == o.rate || *end || !isfinite(rate) || rate < 1e-6 || rate > 1e7)
			return cli_usage_error("--rate %s: not a number of ticks a second, or max",
					       o.rate);
		c->period_ns = 1e9 / rate;
	}
	if (!o.count)
		return cli_usage_error("--count 0: nothing would be asked");
	if (!o.duration_us || !o.timeout_us || !o.stall_us)
		return cli_usage_error("--duration, --timeout, --stall: not 0");
	c->count = o.count == UINT64_MAX ? 0 : o.count;
	c->duration_ns = o.duration_us == UINT64_MAX ? 0 : o.duration_us * 1000;
	c->timeout_ns = o.timeout_us * 1000;
	c->stall_ns = o.stall_us * 1000;
	if ((c->duration_ns && o.duration_us > US_MAX) || o.timeout_us > US_MAX ||
	    o.stall_us > US_MAX)
		return cli_usage_error("--duration, --timeout, --stall: too long");
	return 0;
}

static int choose_limits(struct vt_config *c)
{
	c->size = o.size == UINT64_MAX ? c->mode->default_size : o.size;
	if (!c->size || c->size > VT_SIZE_MAX)
		return cli_usage_error("--size %llu: not from 1 to %u bytes",
				       (unsigned long long)c->size, VT_SIZE_MAX);
	if (!o.connections || o.connections > CONNECTIONS_MAX)
		return cli_usage_error("--connections %u: not from 1 to %d", o.connections,
				       CONNECTIONS_MAX);
	if (!o.length || o.length > VT_LENGTH_MAX)
		return cli_usage_error("--length %u: not from 1 to %u", o.length, VT_LENGTH_MAX);
	if (o.pcr != 16 && o.pcr != 23)
		return cli_usage_error("--pcr %u: only 16 and 23 are free for tests", o.pcr);
	if (c->mode == &vt_mode_pcr && o.connections > 1)
		return cli_usage_error("--mode pcr: one connection only, a PCR is one chain");
	c->connections = o.connections;
	c->length = o.length;
	c->pcr = o.pcr;
	c->startup = o.startup;
	return 0;
}

static int choose_seed(struct vt_config *c)
{
	char *end;

	if (!o.seed_text) {
		uint32_t random;

		if (getrandom(&random, sizeof(random), 0) == (ssize_t)sizeof(random))
			c->seed = random;
		return 0;
	}
	errno = 0;
	c->seed = strtoull(o.seed_text, &end, 0);
	if (errno || *end || *o.seed_text < '0' || *o.seed_text > '9')
		return cli_usage_error("--seed %s: not a number", o.seed_text);
	return 0;
}

static int choose_cpus(void)
{
	cpu_set_t set;

	if (!o.cpu)
		return 0;
	if (units_cpulist(o.cpu, &set))
		return cli_usage_error("--cpu %s: not a CPU list", o.cpu);
	if (sched_setaffinity(0, sizeof(set), &set)) {
		log_error("run on CPUs %s: %s", o.cpu, strerror(errno));
		return EXIT_REFUSED;
	}
	return 0;
}

static int run(int argc, char **argv)
{
	struct vt_config c = {.target = argc ? argv[0] : DEFAULT_TARGET};
	struct err err = {0};
	int rc;

	if (argc > 1)
		return cli_usage_error("%s: one TPM at a time", argv[1]);
	if (tpm_target_check(c.target, &err))
		return cli_usage_error("%s", err.text);
	if ((rc = choose_mode(&c)) || (rc = choose_format(&c)) || (rc = choose_schedule(&c)) ||
	    (rc = choose_limits(&c)) || (rc = choose_seed(&c)) || (rc = choose_cpus()))
		return rc;
	if (c.connections > 1 && tpm_target_is_exclusive(c.target)) {
		log_warn("%s can be open once: one connection, not %u", c.target, c.connections);
		c.connections = 1;
	}
	/* Our own messages say what failed; tpm2-tss's come on top only if asked for. */
	setenv("TSS2_LOG", "all+NONE", 0);
	return vt_run(&c, o.hdr);
}

static const struct cli_verb verbs[] = {
	{NULL, "[TARGET]",
	 "Ask a TPM for digests without end, and check each of them.\n"
	 "TARGET: /dev/tpm0 (default), unix:PATH, tcp:HOST:PORT, vsock:CID:PORT, tcti:CONF",
	 opts, run},
	{NULL, NULL, NULL, NULL, NULL},
};

static const struct cli_tool tool = {
	.name = "vtpmtest",
	.summary = "load test of a TPM",
	.features = "OpenSSL, tpm2-tss (tcti:)",
	.verbs = verbs,
};

int main(int argc, char **argv)
{
	return cli_main(&tool, argc, argv);
}
