/* SPDX-License-Identifier: MIT */
/*
 * Command lines from typed tables: one table a verb, parsed into the command's own
 * options struct, and the same table prints --help, so that the two cannot differ.
 *
 *	static struct send_opts { uint64_t budget_us; bool insecure; } o = { .budget_us = 300000 };
 *	static const struct cli_opt opts[] = {
 *		{ 'b', "budget", CLI_DURATION, &o.budget_us, "TIME", "downtime budget (300ms)" },
 *		{ 0, "insecure", CLI_FLAG, &o.insecure, NULL, "plain TCP, nothing is encrypted" },
 *		CLI_END
 *	};
 */
#ifndef BASE_CLI_H
#define BASE_CLI_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

enum cli_type {
	CLI_FLAG,	/* bool: set to true */
	CLI_COUNT,	/* int: one more each time it is given */
	CLI_LESS,	/* int: one less each time (-q against -v) */
	CLI_STRING,	/* const char *, points into argv */
	CLI_U32,	/* uint32_t, decimal or 0x… */
	CLI_U64,	/* uint64_t */
	CLI_SIZE,	/* uint64_t bytes, units_size() */
	CLI_DURATION,	/* uint64_t microseconds, units_duration() */
	CLI_DOUBLE,	/* double, not negative, finite */
};

struct cli_opt {
	char short_name; /* 0: none */
	const char *name;
	enum cli_type type;
	void *dest;
	const char *arg;  /* name of the argument in --help; NULL for flags */
	const char *help; /* one line */
};

#define CLI_END {0, NULL, CLI_FLAG, NULL, NULL, NULL}

struct cli_verb {
	const char *name; /* NULL: the tool has no verbs (a table of one) */
	const char *args; /* "PAIR DEST", for the usage line */
	const char *help; /* one line */
	const struct cli_opt *opts;
	int (*run)(int argc, char **argv); /* operands only; returns an exit status */
};

struct cli_tool {
	const char *name;	/* "cump-migrate" */
	const char *summary;	/* one line */
	const char *features;	/* what it is built with, one line, for --version */
	const struct cli_verb *verbs; /* ends with .run == NULL */
};

/*
 * The options that all tools share. Every verb has -h, -V, -v, -q; the command reads
 * the rest of what it supports from its own tables.
 */
struct cli_common {
	int verbosity; /* -v adds, -q subtracts */
};
extern struct cli_common cli_common;

/*
 * Parse @argv by @opts. Returns 0 with *@first set to the index of the first operand;
 * 1 if --help or 2 if --version was asked for; -EINVAL with @err saying what is wrong.
 * Operands may stand among the options; after "--" all are operands.
 */
int cli_parse(const struct cli_opt *opts, int argc, char **argv, int *first, struct err *err);

/* Print the usage of one verb, or of the tool (@verb NULL), to @to. */
void cli_usage(const struct cli_tool *tool, const struct cli_verb *verb, FILE *to);

/*
 * The whole of main(): find the verb, parse, set up the log, run it, and check stdout
 * at the end (a full disk is a failure: EXIT_ROLLED_BACK). Returns the exit status.
 */
int cli_main(const struct cli_tool *tool, int argc, char **argv);

/* Report @err as "tool: text" and a hint to --help; returns EXIT_USAGE. */
int cli_usage_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
