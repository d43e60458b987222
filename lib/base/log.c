/* SPDX-License-Identifier: MIT */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/units.h"

static const char *tool_name = "util-vm";
static enum log_level level_now = LOG_NORMAL;
static uint64_t begun_us;

void log_init(const char *tool, enum log_level level)
{
	tool_name = tool;
	level_now = level;
	begun_us = units_now_us();
}

enum log_level log_level(void)
{
	return level_now;
}

/* On a terminal a progress bar may stand on the line: "\r\033[K" takes it away first. */
static void __attribute__((format(printf, 2, 0))) say(const char *mark, const char *fmt, va_list ap)
{
	char line[1024];
	int n, body;

	n = snprintf(line, sizeof(line), "%s%s: %s", isatty(STDERR_FILENO) ? "\r\033[K" : "",
		     tool_name, mark);
	if (level_now >= LOG_TRACE) /* who reads every message wants to know when */
		n += snprintf(line + n, sizeof(line) - (size_t)n, "%9.3f ms  ",
			      (double)(units_now_us() - begun_us) / 1e3);
	body = n;
	n += vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	if (n > (int)sizeof(line) - 2)
		n = (int)sizeof(line) - 2;
	for (int i = body; i < n; i++) /* words of a peer must not write on the terminal */
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = '?';
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		return; /* nobody is left to tell */
}

#define SAY(min, mark)                                                                         \
	do {                                                                                   \
		va_list ap;                                                                    \
		if (level_now < (min))                                                         \
			return;                                                                \
		va_start(ap, fmt);                                                             \
		say(mark, fmt, ap);                                                            \
		va_end(ap);                                                                    \
	} while (0)

void log_error(const char *fmt, ...)
{
	SAY(LOG_QUIET, "");
}

void log_warn(const char *fmt, ...)
{
	SAY(LOG_NORMAL, "warning: ");
}

void log_note(const char *fmt, ...)
{
	SAY(LOG_NORMAL, "");
}

void log_verbose(const char *fmt, ...)
{
	SAY(LOG_VERBOSE, "");
}

void log_trace(const char *fmt, ...)
{
	SAY(LOG_TRACE, "");
}
