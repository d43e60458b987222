/* SPDX-License-Identifier: MIT */
/*
 * Progress on stderr: one line redrawn on a terminal, plain lines every two seconds
 * otherwise, nothing under -q. Silent for the first second.
 */
#ifndef BASE_PROGRESS_H
#define BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
	uint64_t begun_us, shown_us;
	bool tty, colour, drawn;
};

void progress_begin(struct progress *p);

/* Whether it is time to draw; the caller then composes its line and calls progress_line. */
bool progress_due(struct progress *p);

/* A bar of @width cells for @done of @total, e.g. "[#####.....]", into @buf (≥ @width + 3). */
const char *progress_bar(uint64_t done, uint64_t total, int width, char *buf);

void progress_line(struct progress *p, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Take the line away so that what follows starts on a clean one. */
void progress_end(struct progress *p);

#endif
