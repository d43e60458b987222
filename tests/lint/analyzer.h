/* SPDX-License-Identifier: MIT */
/*
 * Read by clang-tidy before each file: what its analyzer cannot know and would otherwise take
 * for ways through the program. A failed system call leaves errno above zero (it cannot
 * derive from x > 0 that -x is not 0, so these are constants), and err_set() and err_sys()
 * return the code that they are given.
 */
#include <errno.h>
#include "base/err.h"

int analyzer_any(void);

static inline int *analyzer_errno(void)
{
	static int value;
	int any = analyzer_any();

	value = any == 1 ? EAGAIN : any == 2 ? ENOENT : any == 3 ? EINTR : EIO;
	return &value;
}

#undef errno
#define errno (*analyzer_errno())
#define err_set(err, code, ...) ((void)(err_set)(err, 0, __VA_ARGS__), (code))
#define err_sys(err, code, ...) ((void)(err_sys)(err, 0, __VA_ARGS__), (code))
