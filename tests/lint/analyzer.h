/* SPDX-License-Identifier: MIT */
/*
 * Read by clang-tidy before each file: what its analyzer cannot know and would otherwise take
 * for ways through the program. A failed system call leaves errno above zero (constants,
 * for it cannot derive from x > 0 that -x is not 0), err_set() and err_sys() return the code
 * that they are given, and cli_usage_error() is never 0.
 */
#include <errno.h>
#include "base/cli.h"
#include "base/err.h"

int analyzer_any(void);

#undef errno
#define errno (*(analyzer_any() ? &(int){EAGAIN} : analyzer_any() ? &(int){ENOENT} : &(int){EIO}))
#define err_set(err, code, ...) ((void)(err_set)(err, 0, __VA_ARGS__), (code))
#define err_sys(err, code, ...) ((void)(err_sys)(err, 0, __VA_ARGS__), (code))
#ifndef ANALYZER_CLI_ITSELF
#define cli_usage_error(...) ((void)(cli_usage_error)(__VA_ARGS__), 2)
#endif
