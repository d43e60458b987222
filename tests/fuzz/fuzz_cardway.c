/* SPDX-License-Identifier: MIT */
/* What a client hears from the other end: the ivshmem handshake, a hybrid vsock's word, the header of a region. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "card/hybrid.h"
#include "card/ivshmem_client.h"
#include "card/ring.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void handshake(const uint8_t *data, size_t size)
{
	struct ivshmem_client c;

	ivshmem_client_init(&c);
	for (; size >= 9; data += 9, size -= 9) {
		int64_t number;

		memcpy(&number, data + 1, sizeof(number));
		if (ivshmem_client_feed(&c, number, data[0] & 1 ? open("/dev/null", O_RDONLY | O_CLOEXEC) : -1))
			break;
		if (c.own_bells > IVSHMEM_VECTORS_MAX)
			abort();
	}
	ivshmem_client_free(&c);
}

/* What is accepted must lie within what is mapped. */
static void region(const uint8_t *data, size_t size)
{
	struct card_region *r = aligned_alloc(64, CARD_REGION_HEAD);
	struct card_layout l;
	uint64_t mapped = 1 << 22;

	memset(r, 0, CARD_REGION_HEAD);
	memcpy(r, data, size < sizeof(*r) ? size : sizeof(*r));
	if (!card_layout_read(r, mapped, &l)) {
		const struct card_queue *last = card_layout_queue(&l, r, l.queues - 1);
		uintptr_t end = (uintptr_t)card_layout_completion(&l, last, l.slots - 1) + sizeof(struct card_slot);

		if (end - (uintptr_t)r > mapped)
			abort();
	}
	free(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct card_hybrid h = {0};

	if (!size)
		return 0;
	switch (data[0] % 3) {
	case 0:
		handshake(data + 1, size - 1);
		break;
	case 1:
		for (size_t i = 1; i < size && !card_hybrid_feed(&h, (char)data[i]); i++)
			;
		break;
	case 2:
		region(data + 1, size - 1);
	}
	return 0;
}
