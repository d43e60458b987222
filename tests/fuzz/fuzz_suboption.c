/* SPDX-License-Identifier: MIT */
/* Sub-options of another process's command line: "KEY\nTEXT". */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vm/vm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[1024], value[64], *newline;
	int rc;

	if (size >= sizeof(text))
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	newline = strchr(text, '\n');
	if (!newline)
		return 0;
	*newline = '\0';
	rc = vm_suboption(newline + 1, text, value, sizeof(value));
	if (rc ? rc != -ENOENT && rc != -ENAMETOOLONG : strlen(value) >= sizeof(value))
		abort();
	return 0;
}
