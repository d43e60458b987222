/* SPDX-License-Identifier: MIT */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *tool_name = "util-vm";
static enum log_level level_now = LOG_NORMAL;

void log_init(const char *tool, enum log_level level)
{
	tool_name = tool;
	level_now = level;
}

enum log_level log_level(void)
{
	return level_now;
}

/* On a terminal a progress bar may stand on the line: "\r\033[K" takes it away first. */
static void __attribute__((format(printf, 2, 0))) say(const char *mark, const char *fmt, va_list ap)
{
	char line[1024];
	int n, text;

	n = snprintf(line, sizeof(line), "%s%s: %s", isatty(STDERR_FILENO) ? "\r\033[K" : "",
		     tool_name, mark);
	text = n;
	n += vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	if (n > (int)sizeof(line) - 2)
		n = (int)sizeof(line) - 2;
	for (char *p = line + text; p < line + n; p++) /* words of a peer move no cursor */
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
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
