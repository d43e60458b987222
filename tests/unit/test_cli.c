/* SPDX-License-Identifier: MIT */
/* Command lines: what the typed tables take, and what they say of the rest. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/cli.h"
#include "base/exit.h"

static struct {
	bool flag;
	int count;
	const char *text;
	uint32_t u32;
	uint64_t u64, size, time;
	double ratio;
} o;

static const struct cli_opt opts[] = {
	{'f', "flag", CLI_FLAG, &o.flag, NULL, "a flag"},
	{'c', "count", CLI_COUNT, &o.count, NULL, "one more"},
	{'t', "text", CLI_STRING, &o.text, "TEXT", "any text"},
	{0, "u32", CLI_U32, &o.u32, "N", "a number"},
	{0, "u64", CLI_U64, &o.u64, "N", "a larger number"},
	{'s', "size", CLI_SIZE, &o.size, "SIZE", "bytes"},
	{0, "time", CLI_DURATION, &o.time, "TIME", "a time"},
	{0, "ratio", CLI_DOUBLE, &o.ratio, "RATIO", "a ratio"},
	CLI_END,
};

/* getopt moves the words about: every call gets a copy. */
static int parse(struct err *err, char **rest, const char *line)
{
	static char copy[256];
	static char *argv[32];
	int argc = 1, first = 0, rc;

	snprintf(copy, sizeof(copy), "%s", line);
	memset(&o, 0, sizeof(o));
	memset(argv, 0, sizeof(argv));
	argv[0] = copy + strlen(copy);
	for (char *p = strtok(copy, " "); p; p = strtok(NULL, " "))
		argv[argc++] = p;
	rc = cli_parse(opts, argc, argv, &first, err);
	*rest = rc ? NULL : argv[first];
	return rc;
}

static void assert_error(const char *line, const char *words)
{
	struct err err = {0};
	char *rest;

	assert_int_equal(parse(&err, &rest, line), -EINVAL);
	assert_string_equal(err.text, words);
}

static void every_type(void **state)
{
	struct err err = {0};
	char *rest;

	(void)state;
	assert_int_equal(parse(&err, &rest, "-f -ccc --text=a -s 4K --u32 0xffffffff"), 0);
	assert_true(o.flag);
	assert_int_equal(o.count, 3);
	assert_string_equal(o.text, "a");
	assert_int_equal(o.size, 4096);
	assert_true(o.u32 == UINT32_MAX);
	assert_null(rest);
	assert_int_equal(parse(&err, &rest, "--u64 18446744073709551615 --time 20us --ratio 0.5"), 0);
	assert_true(o.u64 == UINT64_MAX);
	assert_int_equal(o.time, 20);
	assert_true(o.ratio == 0.5);
}

static void operands(void **state)
{
	struct err err = {0};
	char *rest;

	(void)state;
	assert_int_equal(parse(&err, &rest, "one -f two"), 0);
	assert_true(o.flag);
	assert_string_equal(rest, "one");
	assert_int_equal(parse(&err, &rest, "-- -f"), 0);
	assert_false(o.flag);
	assert_string_equal(rest, "-f");
}

static void help_and_version(void **state)
{
	struct err err = {0};
	char *rest;

	(void)state;
	assert_int_equal(parse(&err, &rest, "-f --help --nonsense"), 1);
	assert_int_equal(parse(&err, &rest, "-h"), 1);
	assert_int_equal(parse(&err, &rest, "-V"), 2);
}

static void verbosity(void **state)
{
	struct err err = {0};
	char *rest;

	(void)state;
	cli_common.verbosity = 0;
	assert_int_equal(parse(&err, &rest, "-vv -q"), 0);
	assert_int_equal(cli_common.verbosity, 1);
	cli_common.verbosity = 0;
}

static void errors(void **state)
{
	(void)state;
	assert_error("--none", "--none: no such option, or not clear which");
	assert_error("--t x", "--t: no such option, or not clear which");
	assert_error("-z", "-z: no such option");
	assert_error("-fz", "-z: no such option");
	assert_error("-zf", "-z: no such option");
	assert_error("-t", "-t: an argument is missing");
	assert_error("-ft", "-t: an argument is missing");
	assert_error("--text", "--text: an argument is missing");
	assert_error("--flag=1", "--flag: it takes no argument");
	assert_error("-s 4X", "--size 4X: not a valid SIZE");
	assert_error("--u32 4294967296", "--u32 4294967296: not a valid N");
	assert_error("--u32 -1", "--u32 -1: not a valid N");
	assert_error("--u32 0x", "--u32 0x: not a valid N");
	assert_error("--u64 18446744073709551616", "--u64 18446744073709551616: not a valid N");
	assert_error("--time 1y", "--time 1y: not a valid TIME");
	assert_error("--ratio -1", "--ratio -1: not a valid RATIO");
	assert_error("--ratio nan", "--ratio nan: not a valid RATIO");
	assert_error("--ratio 1x", "--ratio 1x: not a valid RATIO");
}

static int run_verb(int argc, char **argv)
{
	(void)argv;
	return argc == 1 ? EXIT_NO : EXIT_DONE;
}

static const struct cli_verb verbs[] = {
	{"do", "WHAT", "do something", opts, run_verb},
	{NULL, NULL, NULL, NULL, NULL},
};
static const struct cli_tool tool = {"tool", "a tool", "nothing", verbs};

static int run_main(char *a, char *b, char *c)
{
	char name[] = "tool";
	char *argv[] = {name, a, b, c, NULL};
	int argc = 1 + !!a + !!b + !!c, saved = dup(STDERR_FILENO), status;
	int null = open("/dev/null", O_WRONLY);

	dup2(null, STDERR_FILENO);
	status = cli_main(&tool, argc, argv);
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(null);
	return status;
}

static void exit_statuses(void **state)
{
	char verb[] = "do", none[] = "none", operand[] = "x", flag[] = "-f", bad[] = "--bad";

	(void)state;
	assert_int_equal(run_main(NULL, NULL, NULL), EXIT_USAGE);
	assert_int_equal(run_main(none, NULL, NULL), EXIT_USAGE);
	assert_int_equal(run_main(verb, bad, NULL), EXIT_USAGE);
	assert_int_equal(run_main(verb, NULL, NULL), EXIT_DONE);
	assert_int_equal(run_main(verb, flag, operand), EXIT_NO);
}

static void help_lists_every_option(void **state)
{
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);

	(void)state;
	cli_usage(&tool, &verbs[0], f);
	fclose(f);
	assert_non_null(strstr(text, "Usage: tool do [OPTION]... WHAT\n"));
	for (const struct cli_opt *opt = opts; opt->name; opt++) {
		char wanted[64];

		snprintf(wanted, sizeof(wanted), " --%s%s%s ", opt->name, opt->arg ? " " : "",
			 opt->arg ? opt->arg : "");
		if (!strstr(text, wanted))
			fail_msg("no '%s' in: %s", wanted, text);
	}
	assert_non_null(strstr(text, "-V, --version"));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_type),	    cmocka_unit_test(operands),
		cmocka_unit_test(help_and_version), cmocka_unit_test(verbosity),
		cmocka_unit_test(errors),	    cmocka_unit_test(exit_statuses),
		cmocka_unit_test(help_lists_every_option),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
