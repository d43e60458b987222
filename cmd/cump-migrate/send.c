/* SPDX-License-Identifier: MIT */
/* check and send: the source's two verbs. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/exit.h"
#include "base/log.h"
#include "base/units.h"
#include "cump.h"
#include "pair/message.h"
#include "pairfile.h"

#define OFFLINE_RENDEZVOUS_US 3600000000ull

static int list_steps(void)
{
	for (int s = 0; s < STEP_COUNT; s++)
		printf("%-18s %s\n", pair_step_name((enum pair_step)s),
		       pair_step_what((enum pair_step)s));
	return EXIT_DONE;
}

int cump_finish(const struct pair_report *r, enum pair_outcome outcome, const struct err *err)
{
	int sig = cump_signal();

	if (outcome != PAIR_DONE)
		log_error("%s", err->text[0] ? err->text : "move pair: failed");
	if (cump_opts.json) {
		struct json_object *o = pair_report_json(r, outcome, err->text);

		printf("%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_NOSLASHESCAPE));
		json_object_put(o);
	} else if (log_level() >= LOG_NORMAL) {
		pair_report_text(r, outcome, stdout);
	}
	if (sig && (outcome == PAIR_ROLLED_BACK || outcome == PAIR_REFUSED ||
		    outcome == PAIR_TIMED_OUT))
		return EXIT_SIGNAL + sig;
	return (int)outcome;
}

static int run(struct pair_send *conf, const char *dest)
{
	struct pair_report report = {0};
	struct cump_watch watch;
	struct err err = {0};
	enum pair_outcome out;
	int status;

	if (net_addr_parse(dest, &conf->dest, &err))
		return cli_usage_error("%s", err.text);
	conf->state_dir = cump_state_dir();
	conf->limits = cump_limits();
	/* Off line all memory is copied between the stop and the promise: the usual limit is not meant for that. */
	if (cump_opts.offline && conf->limits.rendezvous_us < OFFLINE_RENDEZVOUS_US)
		conf->limits.rendezvous_us = OFFLINE_RENDEZVOUS_US;
	cump_watch_begin(&watch, &conf->hooks);
	out = pair_send(conf, &report, &err);
	cump_watch_end(&watch);
	if (conf->dry_run && out == PAIR_DONE) {
		char mem[32];

		units_format_size(report.member[0].id.mem_bytes + report.member[1].id.mem_bytes, mem,
				  sizeof(mem));
		printf("%s and %s are a pair; %s has room for it (%s)\n", report.member[0].id.name,
		       report.member[1].id.name, dest, mem);
		status = EXIT_DONE;
	} else {
		status = cump_finish(&report, out, &err);
	}
	json_object_put(report.receipts);
	return status;
}

static int send_pair(const char *dest, bool dry_run)
{
	struct pair_send conf = {.dry_run = dry_run};
	char *security_conf = NULL, *file = NULL;
	struct err err = {0};
	int status = cump_pair(conf.driver, conf.where);

	if (!status)
		status = cump_security(false, &conf.security, &security_conf);
	if (!status && cump_opts.pair_file) {
		file = pairfile_read(cump_opts.pair_file, &err);
		if (!file) {
			log_error("%s", err.text);
			status = EXIT_REFUSED;
		}
	}
	conf.pair_file = file;
	conf.security_conf = security_conf;
	if (!status)
		status = run(&conf, dest);
	net_security_free(conf.security);
	free(security_conf);
	free(file);
	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		json_object_put(conf.where[i]);
	return status;
}

int cump_send(int argc, char **argv)
{
	if (cump_opts.debug_steps)
		return list_steps();
	if (argc != 1)
		return cli_usage_error("one DEST is needed");
	return send_pair(argv[0], cump_opts.dry_run);
}

static void print_pair(const struct pair_identity id[PAIR_MEMBERS])
{
	char mem[32];

	if (cump_opts.json) {
		struct json_object *o = json_object_new_object();

		message_add(o, "schema", "util-vm/cump-migrate/check/1");
		json_object_object_add(o, "vm", message_from_identity("qemu", &id[PAIR_VM]));
		json_object_object_add(o, "vtpm", message_from_identity(
							  id[PAIR_VTPM].uuid[0] ? "qemu" : "swtpm",
							  &id[PAIR_VTPM]));
		printf("%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_NOSLASHESCAPE));
		json_object_put(o);
		return;
	}
	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		printf("%-5s %-20s %-36s %s\n", i ? "vTPM" : "VM", id[i].name,
		       id[i].uuid[0] ? id[i].uuid : id[i].bound_to,
		       units_format_size(id[i].mem_bytes, mem, sizeof(mem)));
	printf("bound by %s\n", id[PAIR_VM].bound_to);
}

int cump_check(int argc, char **argv)
{
	const struct pair_driver *driver[PAIR_MEMBERS];
	struct json_object *where[PAIR_MEMBERS];
	struct pair_identity id[PAIR_MEMBERS];
	struct err err = {0};
	int status, rc;

	if (argc > 1)
		return cli_usage_error("at most one DEST");
	status = cump_pair(driver, where);
	if (status)
		return status;
	rc = pair_identify(driver, where, id, &err);
	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		json_object_put(where[i]);
	if (rc) {
		log_error("%s", err.text);
		return rc == -EXDEV || rc == -ENXIO ? EXIT_NO : EXIT_REFUSED;
	}
	print_pair(id);
	return argc ? send_pair(argv[0], true) : EXIT_DONE;
}
