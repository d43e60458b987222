/* SPDX-License-Identifier: MIT */
/* cardshare serve: the daemon. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/exit.h"
#include "base/log.h"
#include "base/notify.h"
#include "cardd/cardd.h"
#include "cardshare.h"

static struct serve_opts {
	const char *config, *card, *store, *control, *spin;
	uint64_t shared_region, memory;
	uint32_t vsock_port, workers;
} o;

const struct cli_opt serve_opts[] = {
	{'c', "config", CLI_STRING, &o.config, "FILE", "cards and VMs (" CONFIG_FILE ")"},
	{0, "card", CLI_STRING, &o.card, "DRIVER", "without a file: the card, soft, null, slow:RATE or sdf:LIB (soft)"},
	{0, "workers", CLI_U32, &o.workers, "N", "without a file: processes that compute; 0: the daemon itself (0)"},
	{0, "store", CLI_STRING, &o.store, "DIR", "without a file: where the soft card's keys are"},
	{0, "control", CLI_STRING, &o.control, "PATH", "socket of 'cardshare stat' (" CARDD_RUN_DIR "/control)"},
	{0, "spin", CLI_STRING, &o.spin, "TIME", "poll so long before sleeping (measured)"},
	{0, "memory", CLI_SIZE, &o.memory, "BYTES", "of each ivshmem region, a power of two (4M)"},
	{0, "vsock-port", CLI_U32, &o.vsock_port, "PORT", "port of vsock links (7073)"},
	{0, "shared-region", CLI_SIZE, &o.shared_region, "BYTES",
	 "one region for all VMs, as in the paper: they see each other's data"},
	CLI_END,
};

static struct cardd *daemon_running;
static volatile sig_atomic_t ended_by;

static void on_signal(int sig)
{
	if (sig == SIGHUP) {
		cardd_reload(daemon_running);
		return;
	}
	ended_by = sig;
	cardd_stop(daemon_running);
}

/* "web=ivshmem:/run/web.sock" */
static int add_vm(struct cardd_conf *c, const char *word, struct err *err)
{
	static const char *const ways[] = {"ivshmem", "unix", "hybrid", "vsock"};
	const char *equals = strchr(word, '='), *colon = equals ? strchr(equals, ':') : NULL;
	char text[512];

	for (unsigned i = 0; colon && i < 4; i++)
		if ((size_t)(colon - equals - 1) == strlen(ways[i]) &&
		    !strncmp(equals + 1, ways[i], strlen(ways[i]))) {
			snprintf(text, sizeof(text), "[vm %.*s]\n%s = %s\n", (int)(equals - word), word,
				 ways[i], colon + 1);
			return cardd_conf_parse(c, word, text, err);
		}
	return err_set(err, -EINVAL, "'%.64s' is not VM=ivshmem:PATH, VM=unix:PATH, VM=hybrid:PATH or VM=vsock:CID",
		       word);
}

static int from_words(struct cardd_conf *c, int argc, char **argv, struct err *err)
{
	char text[512];
	int rc;

	snprintf(text, sizeof(text), "[card card]\ndriver = %s\nworkers = %u\n%s%s\n", o.card ? o.card : "soft",
		 o.workers, o.store ? "store = " : "", o.store ? o.store : "");
	rc = cardd_conf_parse(c, "--card", text, err);
	for (int i = 0; !rc && i < argc; i++)
		rc = add_vm(c, argv[i], err);
	for (struct cardd_vm_conf *vm = c->vms; !rc && vm; vm = vm->next)
		if (o.memory)
			vm->memory = o.memory;
	return rc;
}

static int from_options(struct cardd_conf *c, struct err *err)
{
	char text[256];
	int rc = 0;

	if (o.control) {
		snprintf(text, sizeof(text), "[daemon]\ncontrol = %s\n", o.control);
		rc = cardd_conf_parse(c, "--control", text, err);
	}
	if (!rc && o.spin) {
		snprintf(text, sizeof(text), "[daemon]\nspin = %s\n", o.spin);
		rc = cardd_conf_parse(c, "--spin", text, err);
	}
	if (o.vsock_port)
		c->vsock_port = o.vsock_port;
	if (o.shared_region)
		c->shared_region = o.shared_region;
	return rc;
}

struct words {
	int argc;
	char **argv;
};

static int load(void *ctx, struct cardd_conf *c, struct err *err)
{
	const struct words *w = ctx;
	const char *file = o.config ? o.config : CONFIG_FILE;
	int rc;

	if (w->argc)
		rc = from_words(c, w->argc, w->argv, err);
	else
		rc = cardd_conf_read(c, file, err);
	if (!rc)
		rc = from_options(c, err);
	return rc ? rc : cardd_conf_check(c, w->argc ? "serve" : file, err);
}

static void catch_signals(void)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
}

int serve_run(int argc, char **argv)
{
	struct words w = {argc, argv};
	struct cardd_conf c;
	struct cardd *d;
	struct err err = {0};
	const char *way;
	int rc;

	if (argc && o.config)
		return cli_usage_error("--config and VM=ADDRESS: one or the other");
	if (!argc && (o.card || o.store || o.memory || o.workers))
		return cli_usage_error("--card, --workers, --store and --memory go with VM=ADDRESS; a file says it itself");
	cardd_conf_init(&c);
	rc = load(&w, &c, &err);
	if (rc) {
		cardd_conf_free(&c);
		log_error("%s", err.text);
		return argc ? EXIT_USAGE : EXIT_REFUSED;
	}
	if (c.shared_region)
		log_warn("--shared-region: every VM can read and change what the others send; for comparison only");
	if (cardd_new(&c, &d, &err)) {
		log_error("%s", err.text);
		return EXIT_REFUSED;
	}
	daemon_running = d;
	cardd_on_reload(d, load, &w);
	catch_signals();
	for (unsigned i = 0; (way = cardd_way(d, i)); i++)
		log_note("%s", way);
	notify("READY=1");
	rc = cardd_run(d, &err);
	notify("STOPPING=1");
	cardd_free(d);
	if (rc) {
		log_error("%s", err.text);
		return EXIT_ROLLED_BACK;
	}
	return ended_by ? EXIT_SIGNAL + ended_by : EXIT_DONE;
}
