/* SPDX-License-Identifier: MIT */
#include "base/progress.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/units.h"

#define QUIET_FOR_US 1000000
#define TTY_EVERY_US 100000
#define LINE_EVERY_US 2000000

void progress_begin(struct progress *p)
{
	const char *term = getenv("TERM");

	*p = (struct progress){.begun_us = units_now_us()};
	p->tty = isatty(STDERR_FILENO) && !(term && !strcmp(term, "dumb"));
	p->colour = p->tty && !getenv("NO_COLOR");
}

bool progress_due(struct progress *p)
{
	uint64_t now = units_now_us();

	if (log_level() < LOG_NORMAL || now - p->begun_us < QUIET_FOR_US)
		return false;
	return now - p->shown_us >= (p->tty ? TTY_EVERY_US : LINE_EVERY_US);
}

const char *progress_bar(uint64_t done, uint64_t total, int width, char *buf)
{
	int full = total ? (int)((double)done / (double)total * width + 0.5) : width;

	if (full > width)
		full = width;
	buf[0] = '[';
	memset(buf + 1, '#', (size_t)full);
	memset(buf + 1 + full, '.', (size_t)(width - full));
	buf[width + 1] = ']';
	buf[width + 2] = '\0';
	return buf;
}

void progress_line(struct progress *p, const char *fmt, ...)
{
	char line[512];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line) - 8, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof(line) - 9)
		n = (int)sizeof(line) - 9;
	p->shown_us = units_now_us();
	p->drawn = true;
	if (p->tty)
		dprintf(STDERR_FILENO, "\r\033[K%s%.*s%s", p->colour ? "\033[36m" : "", n, line,
			p->colour ? "\033[0m" : "");
	else
		dprintf(STDERR_FILENO, "%.*s\n", n, line);
}

void progress_end(struct progress *p)
{
	if (p->tty && p->drawn)
		dprintf(STDERR_FILENO, "\r\033[K");
	p->drawn = false;
}
