/* SPDX-License-Identifier: MIT */
/* Addresses: what is accepted must read the same when it is written out. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "net/addr.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct net_addr addr, again;
	struct err err;
	char text[1024], out[320];

	if (size >= sizeof(text))
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	if (net_addr_parse(text, &addr, &err))
		return 0;
	if (net_addr_parse(net_addr_format(&addr, out, sizeof(out)), &again, &err) ||
	    memcmp(&addr, &again, sizeof(addr)))
		abort();
	return 0;
}
