/* SPDX-License-Identifier: MIT */
#include "card/ring.h"

#include <errno.h>
#include <string.h>

static uint64_t queue_bytes(uint64_t slots)
{
	return CARD_QUEUE_HEAD + 2 * slots * sizeof(struct card_slot);
}

int card_layout_make(uint64_t size, uint32_t queues, uint32_t slots, struct card_layout *l)
{
	uint64_t each;

	if (size > CARD_REGION_MAX || (size & (size - 1)) || size <= CARD_REGION_HEAD || !queues ||
	    queues > CARD_QUEUES_MAX || slots > CARD_SLOTS_MAX)
		return -EINVAL;
	each = (size - CARD_REGION_HEAD) / queues & ~UINT64_C(63);
	if (!slots && each > CARD_QUEUE_HEAD)
		slots = (uint32_t)((each - CARD_QUEUE_HEAD) / (2 * sizeof(struct card_slot)));
	if (slots > CARD_SLOTS_MAX)
		slots = CARD_SLOTS_MAX;
	if (!slots || queue_bytes(slots) > each)
		return -EINVAL;
	*l = (struct card_layout){size, queues, slots, (uint32_t)queue_bytes(slots)};
	return 0;
}

int card_layout_read(const struct card_region *r, uint64_t mapped, struct card_layout *l)
{
	uint32_t state;

	if (mapped < CARD_REGION_HEAD || r->magic != CARD_REGION_MAGIC)
		return -EPROTO;
	state = atomic_load_explicit(&r->state, memory_order_acquire);
	if (state == CARD_REGION_CLOSED)
		return -EAGAIN;
	*l = (struct card_layout){r->size, r->queues, r->slots, r->queue_size};
	if (r->version != CARD_VERSION || r->slot_size != sizeof(struct card_slot) ||
	    l->size > mapped || l->size < CARD_REGION_HEAD || !l->queues || l->queues > CARD_QUEUES_MAX ||
	    !l->slots || l->slots > CARD_SLOTS_MAX || l->queue_size % 64 ||
	    l->queue_size < queue_bytes(l->slots) ||
	    (uint64_t)l->queue_size * l->queues > l->size - CARD_REGION_HEAD)
		return -EPROTO;
	return 0;
}
