/* SPDX-License-Identifier: MIT */
/* Numbers as people write them: CPU lists, sizes, durations. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_number(int rc, uint64_t value)
{
	if (rc ? rc != -EINVAL && rc != -ERANGE : value > INT64_MAX)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[512], out[40], list[UNITS_CPULIST_MAX];
	uint64_t value = 0;
	cpu_set_t set, back;
	int rc;

	if (size >= sizeof(text))
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	rc = units_cpulist(text, &set);
	if (rc ? rc != -EINVAL && rc != -ERANGE : !CPU_COUNT(&set))
		abort();
	if (!rc && (units_cpulist(units_format_cpulist(&set, list, sizeof(list)), &back) || !CPU_EQUAL(&set, &back)))
		abort();
	units_format_cpulist(&set, out, sizeof(out));
	rc = units_size(text, &value);
	check_number(rc, value);
	units_format_size(value, out, sizeof(out));
	rc = units_duration(text, &value);
	check_number(rc, value);
	units_format_duration(value, out, sizeof(out));
	return 0;
}
