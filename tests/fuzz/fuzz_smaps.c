/* SPDX-License-Identifier: MIT */
/* /proc/PID/smaps, in which paths are the process's own words. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vm/memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vm_mappings m;
	struct vm_slots slots;

	if (vm_mappings_parse((const char *)data, size, &m, NULL))
		return 0;
	for (size_t i = 0; i < m.n; i++)
		if (m.map[i].end <= m.map[i].start || strlen(m.map[i].path) >= sizeof(m.map[i].path))
			abort();
	if (!vm_slots_guess(&m, 1 << 20, &slots, NULL)) {
		struct vm_resident r;

		vm_resident_of(&slots, &m, &r);
		if (vm_slots_bytes(&slots, true) < 1 << 20)
			abort();
		vm_slots_free(&slots);
	}
	vm_mappings_free(&m);
	return 0;
}
