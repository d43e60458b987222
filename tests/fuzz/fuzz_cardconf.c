/* SPDX-License-Identifier: MIT */
/* The configuration of cardshare: read, checked, and given back. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cardd/cardd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	struct cardd_conf c;
	struct err err;

	memcpy(text, data, size);
	text[size] = '\0';
	cardd_conf_init(&c);
	if (!cardd_conf_parse(&c, "fuzz", text, &err))
		(void)cardd_conf_check(&c, "fuzz", &err);
	cardd_conf_free(&c);
	free(text);
	return 0;
}
