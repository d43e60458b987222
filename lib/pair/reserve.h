/* SPDX-License-Identifier: MIT */
/* Room at the destination: is there memory and disk for one more pair, beside those under way? */
#ifndef PAIR_RESERVE_H
#define PAIR_RESERVE_H

#include <stdint.h>

#include "base/err.h"

/* Take the lock under which a reservation is checked and written down; a descriptor to close. */
int reserve_lock(const char *state_dir, struct err *err);

/*
 * MemAvailable less what pairs under way (journals "*.sink" not yet prepared, held by a live
 * process) will still take must hold @mem; the file system of @dir must hold @disk.
 * -ENOMEM, -ENOSPC with figures in @err.
 */
int reserve_check(const char *state_dir, uint64_t mem, const char *dir, uint64_t disk,
		  struct err *err);

#endif
