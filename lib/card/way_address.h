/* SPDX-License-Identifier: MIT */
#ifndef CARD_WAY_ADDRESS_H
#define CARD_WAY_ADDRESS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* "SCHEME:NAME[,queue=N]" → name (may be empty) and queue; *queue UINT32_MAX if not said and
 * the name is empty or a device, else 0. -EINVAL. */
int way_address(const char *address, const char *scheme, char *name, size_t size, uint32_t *queue,
		struct err *err);

#endif
