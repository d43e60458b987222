/* SPDX-License-Identifier: MIT */
/* What a QEMU says of its memory: info mtree -f, gpa2hva. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vm/qemu_mtree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	uint64_t hva = 0, offset = 0, sum = 0;
	struct vm_slots slots;
	struct vm_slot piece;
	size_t slot = 0, n = 0;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	if (!qemu_gpa2hva_parse(text, &hva) && !hva)
		abort();
	if (!qemu_mtree_parse(text, size % 2, &slots, NULL)) {
		while (n++ < 1000 && vm_slots_next(&slots, &slot, &offset, 1ull << 40, 2 << 20, &piece))
			sum += piece.size;
		if (!slots.n || (n <= 1000 && sum != vm_slots_bytes(&slots, true)))
			abort();
		vm_slots_free(&slots);
	}
	free(text);
	return 0;
}
