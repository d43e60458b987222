/* SPDX-License-Identifier: MIT */
#include "base/cli.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/exit.h"
#include "base/log.h"
#include "base/units.h"

#ifndef UTIL_VM_VERSION
#define UTIL_VM_VERSION "unknown"
#endif

#define OPTS_MAX 64

struct cli_common cli_common;

static const struct cli_opt shared_opts[] = {
	{'v', "verbose", CLI_COUNT, &cli_common.verbosity, NULL, "say what is done (-vv: every message)"},
	{'q', "quiet", CLI_LESS, &cli_common.verbosity, NULL, "errors only"},
	{'h', "help", CLI_FLAG, NULL, NULL, "print this help"},
	{'V', "version", CLI_FLAG, NULL, NULL, "print the version and what it is built with"},
	CLI_END,
};

static bool takes_arg(const struct cli_opt *o)
{
	return o->type >= CLI_STRING;
}

static int parse_number(const char *s, uint64_t max, uint64_t *out)
{
	char *end;

	if (*s < '0' || *s > '9')
		return -EINVAL;
	errno = 0;
	*out = strtoull(s, &end, s[0] == '0' && (s[1] | 32) == 'x' ? 16 : 10);
	return errno || *end || *out > max ? -EINVAL : 0;
}

static int parse_double(const char *s, double *out)
{
	char *end;

	errno = 0;
	*out = strtod(s, &end);
	return errno || end == s || *end || !isfinite(*out) || *out < 0 ? -EINVAL : 0;
}

static int store(const struct cli_opt *o, const char *arg, struct err *err)
{
	uint64_t n = 0;
	int rc = 0;

	switch (o->type) {
	case CLI_FLAG:
		*(bool *)o->dest = true;
		break;
	case CLI_COUNT:
		++*(int *)o->dest;
		break;
	case CLI_LESS:
		--*(int *)o->dest;
		break;
	case CLI_STRING:
		*(const char **)o->dest = arg;
		break;
	case CLI_U32:
		rc = parse_number(arg, UINT32_MAX, &n);
		if (!rc)
			*(uint32_t *)o->dest = (uint32_t)n;
		break;
	case CLI_U64:
		rc = parse_number(arg, UINT64_MAX, o->dest);
		break;
	case CLI_SIZE:
		rc = units_size(arg, o->dest);
		break;
	case CLI_DURATION:
		rc = units_duration(arg, o->dest);
		break;
	case CLI_DOUBLE:
		rc = parse_double(arg, o->dest);
		break;
	}
	if (rc)
		return err_set(err, -EINVAL, "--%s %s: not a valid %s", o->name, arg,
			       o->arg ? o->arg : "value");
	return 0;
}

/* getopt's tables out of ours. val = index + 256 so that no letter collides. */
static void build(const struct cli_opt *const *tab, size_t n, struct option *longs, char *shorts)
{
	char *s = shorts;

	*s++ = ':';
	for (size_t i = 0; i < n; i++) {
		longs[i] = (struct option){tab[i]->name, takes_arg(tab[i]) ? 1 : 0, NULL,
					   (int)i + 256};
		if (!tab[i]->short_name)
			continue;
		*s++ = tab[i]->short_name;
		if (takes_arg(tab[i]))
			*s++ = ':';
	}
	longs[n] = (struct option){0};
	*s = '\0';
}

static size_t collect(const struct cli_opt *opts, const struct cli_opt **tab)
{
	size_t n = 0;

	for (const struct cli_opt *o = opts; o && o->name && n < OPTS_MAX; o++)
		tab[n++] = o;
	for (const struct cli_opt *o = shared_opts; o->name && n < OPTS_MAX; o++)
		tab[n++] = o;
	return n;
}

static const struct cli_opt *by_letter(const struct cli_opt *const *tab, size_t n, int c)
{
	for (size_t i = 0; i < n; i++)
		if (tab[i]->short_name == c)
			return tab[i];
	return NULL;
}

/* What getopt did not like: @c ':' or '?'. In "-vx" argv tells nothing, optopt does. */
static int complain(const struct cli_opt *const *tab, int c, char **argv, struct err *err)
{
	const char *why = c == ':' ? "an argument is missing" : "it takes no argument";

	if (optopt >= 256)
		return err_set(err, -EINVAL, "--%s: %s", tab[optopt - 256]->name, why);
	if (optopt)
		return err_set(err, -EINVAL, "-%c: %s", optopt, c == ':' ? why : "no such option");
	return err_set(err, -EINVAL, "%s: no such option, or not clear which", argv[optind - 1]);
}

int cli_parse(const struct cli_opt *opts, int argc, char **argv, int *first, struct err *err)
{
	const struct cli_opt *tab[OPTS_MAX];
	struct option longs[OPTS_MAX + 1];
	char shorts[2 * OPTS_MAX + 2];
	size_t n = collect(opts, tab);
	int c;

	build(tab, n, longs, shorts);
	optind = 0;
	opterr = 0;
	while ((c = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		const struct cli_opt *o;
		int rc;

		if (c == ':' || c == '?')
			return complain(tab, c, argv, err);
		o = c >= 256 ? tab[c - 256] : by_letter(tab, n, c);
		if (o->short_name == 'h' && !o->dest)
			return 1;
		if (o->short_name == 'V' && !o->dest)
			return 2;
		rc = store(o, optarg, err);
		if (rc)
			return rc;
	}
	*first = optind;
	return 0;
}

static void print_opts(const struct cli_opt *opts, FILE *to)
{
	for (const struct cli_opt *o = opts; o && o->name; o++) {
		char left[64];

		snprintf(left, sizeof(left), "%c%c%s --%s%s%s", o->short_name ? '-' : ' ',
			 o->short_name ? o->short_name : ' ', o->short_name ? "," : " ", o->name,
			 o->arg ? " " : "", o->arg ? o->arg : "");
		fprintf(to, "  %-28s %s\n", left, o->help);
	}
}

void cli_usage(const struct cli_tool *tool, const struct cli_verb *verb, FILE *to)
{
	if (!verb && !tool->verbs[0].name)
		verb = &tool->verbs[0];
	if (verb) {
		fprintf(to, "Usage: %s%s%s [OPTION]... %s\n%s\n\n", tool->name,
			verb->name ? " " : "", verb->name ? verb->name : "", verb->args, verb->help);
		print_opts(verb->opts, to);
		print_opts(shared_opts, to);
	} else {
		fprintf(to, "Usage: %s VERB [OPTION]... [ARGUMENT]...\n%s\n\n", tool->name,
			tool->summary);
		for (const struct cli_verb *v = tool->verbs; v->run; v++)
			fprintf(to, "  %-10s %s\n", v->name, v->help);
		fprintf(to, "\n'%s VERB --help' tells the options of a verb.\n", tool->name);
	}
	fprintf(to, "\nManual: man %s\n", tool->name);
}

static const char *usage_name = "util-vm";
static const char *usage_verb;

int cli_usage_error(const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_error("%s (see '%s%s%s --help')", text, usage_name, usage_verb ? " " : "",
		  usage_verb ? usage_verb : "");
	return EXIT_USAGE;
}

static const struct cli_verb *find_verb(const struct cli_tool *tool, const char *name)
{
	for (const struct cli_verb *v = tool->verbs; v->run; v++)
		if (!v->name || !strcmp(v->name, name))
			return v;
	return NULL;
}

/* stdout may sit on a full disk: what was not written must not look like success. */
static int check_stdout(int status)
{
	if ((fflush(stdout) || ferror(stdout)) && errno != EPIPE) {
		log_error("write to standard output: %s", strerror(errno));
		return status ? status : EXIT_ROLLED_BACK;
	}
	return status;
}

static int help_or_version(const struct cli_tool *tool, const struct cli_verb *verb, bool version)
{
	if (version)
		printf("%s (util-vm) %s\nbuilt with: %s\n", tool->name, UTIL_VM_VERSION,
		       tool->features);
	else
		cli_usage(tool, verb, stdout);
	return check_stdout(EXIT_DONE);
}

int cli_main(const struct cli_tool *tool, int argc, char **argv)
{
	const struct cli_verb *verb;
	bool has_verbs = tool->verbs[0].name != NULL;
	struct err err = {0};
	int first, rc;

	usage_name = tool->name;
	log_init(tool->name, LOG_NORMAL);
	signal(SIGPIPE, SIG_IGN);
	if (has_verbs) {
		if (argc < 2)
			return cli_usage_error("a verb is missing");
		if (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help"))
			return help_or_version(tool, NULL, false);
		if (!strcmp(argv[1], "-V") || !strcmp(argv[1], "--version"))
			return help_or_version(tool, NULL, true);
		verb = find_verb(tool, argv[1]);
		if (!verb)
			return cli_usage_error("%s: no such verb", argv[1]);
		usage_verb = verb->name;
		argc--;
		argv++;
	} else {
		verb = &tool->verbs[0];
	}
	rc = cli_parse(verb->opts, argc, argv, &first, &err);
	if (rc > 0)
		return help_or_version(tool, verb, rc == 2);
	if (rc)
		return cli_usage_error("%s", err.text);
	log_init(tool->name, cli_common.verbosity < -1 ? LOG_QUIET : (enum log_level)cli_common.verbosity);
	return check_stdout(verb->run(argc - first, argv + first));
}
