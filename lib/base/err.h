/* SPDX-License-Identifier: MIT */
/*
 * What went wrong, in words that a user can act on.
 *
 * A function of lib/ that can fail for a reason which errno cannot tell takes a
 * `struct err *` as its last fixed argument (NULL: the caller does not care),
 * returns 0 or -errno, and on failure leaves one line "VERB OBJECT: reason" here.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stddef.h>

struct err {
	int code;	/* the -errno that was returned; 0: nothing happened */
	char text[384]; /* one line, no newline at its end */
};

/* Fill @err (may be NULL) and return @code, so that `return err_set(...)` reads well. */
int err_set(struct err *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* As err_set, with ": " and strerror(-@code) after the text. */
int err_sys(struct err *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Put "prefix: " before the text already in @err; returns its code. */
int err_prefix(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
