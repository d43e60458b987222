/* SPDX-License-Identifier: MIT */
#include "card/way_address.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "card/ring.h"

int way_address(const char *address, const char *scheme, char *name, size_t size, uint32_t *queue,
		struct err *err)
{
	const char *rest = address + strlen(scheme), *comma = strchr(rest, ',');
	size_t n = comma ? (size_t)(comma - rest) : strlen(rest);
	char *end;

	*queue = 0;
	if (n >= size)
		return err_set(err, -EINVAL, "address '%.64s…': too long", address);
	memcpy(name, rest, n);
	name[n] = '\0';
	if (!comma)
		return 0;
	if (strncmp(comma, ",queue=", 7) != 0 || comma[7] < '0' || comma[7] > '9')
		return err_set(err, -EINVAL, "address '%.64s': not %sNAME[,queue=N]", address, scheme);
	*queue = (uint32_t)strtoul(comma + 7, &end, 10);
	if (*end || *queue >= CARD_QUEUES_MAX)
		return err_set(err, -EINVAL, "address '%.64s': not a queue", address);
	return 0;
}
