/* SPDX-License-Identifier: MIT */
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/exit.h"
#include "base/log.h"
#include "cump.h"
#include "drivers.h"
#include "pair/message.h"

static void say(void *ctx, const char *id, const char *role, const char *outcome,
		const char *detail)
{
	(void)ctx;
	if (cump_opts.json) {
		struct json_object *o = json_object_new_object();

		message_add(o, "schema", "util-vm.cump-migrate.recover.1");
		message_add(o, "id", id);
		message_add(o, "role", role);
		message_add(o, "outcome", outcome);
		message_add(o, "detail", detail);
		printf("%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_NOSLASHESCAPE));
		json_object_put(o);
		return;
	}
	printf("%s %-6s %s%s%s\n", id, role, outcome, *detail ? ": " : "", detail);
}

/* The figures of a sender that was killed: of no use once its journal is settled. */
static void forget_progress(void)
{
	char pattern[4200], journal[4300];
	glob_t g;

	snprintf(pattern, sizeof(pattern), "%s/*.status", cump_state_dir());
	if (glob(pattern, 0, NULL, &g))
		return;
	for (size_t i = 0; i < g.gl_pathc; i++) {
		const char *path = g.gl_pathv[i];

		snprintf(journal, sizeof(journal), "%.*s.source",
			 (int)(strrchr(path, '.') - path), path);
		if (access(journal, F_OK))
			unlink(path);
	}
	globfree(&g);
}

int cump_recover(int argc, char **argv)
{
	struct pair_recover conf = {
		.state_dir = cump_state_dir(),
		.only_id = argc > 0 ? argv[0] : NULL,
		.decision = argc > 1 ? argv[1] : NULL,
		.find_driver = driver_find,
		.say = say,
		.dry_run = cump_opts.dry_run,
	};
	struct net_security *sec = NULL;
	struct err err = {0};
	int left, status;

	if (argc > 2 || (conf.decision && strcmp(conf.decision, "go") != 0 &&
			 strcmp(conf.decision, "abort") != 0))
		return cli_usage_error("recover takes an ID, and 'go' or 'abort' for a pair in doubt");
	if (cump_opts.tls || cump_opts.psk || cump_opts.insecure) {
		status = cump_security(false, &sec, NULL);
		if (status)
			return status;
	}
	conf.security = sec;
	left = pair_recover(&conf, &err);
	net_security_free(sec);
	if (!cump_opts.dry_run)
		forget_progress();
	if (left < 0) {
		log_error("%s", err.text);
		return EXIT_ROLLED_BACK;
	}
	return left ? EXIT_RECOVER : EXIT_DONE;
}
