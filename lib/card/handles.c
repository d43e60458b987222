/* SPDX-License-Identifier: MIT */
#include "card/handles.h"

#include <stdlib.h>

#include "card/protocol.h"

static int grow(struct handles *h)
{
	uint32_t room = h->room ? 2 * h->room : 16;
	struct handle_entry *places;

	if (room > CARD_HANDLE_PLACES_MAX)
		return -1;
	places = realloc(h->places, room * sizeof(*places));
	if (!places)
		return -1;
	h->places = places;
	h->room = room;
	return 0;
}

static uint32_t take_place(struct handles *h)
{
	uint32_t place;

	if (h->first_free) {
		place = h->first_free - 1;
		h->first_free = h->places[place].next;
		if (!h->first_free)
			h->last_free = 0;
		return place;
	}
	if (h->count == h->room && grow(h))
		return UINT32_MAX;
	h->places[h->count].generation = 0;
	return h->count++;
}

uint32_t handles_add(struct handles *h, uint8_t type, uint32_t owner, void *thing)
{
	uint32_t place = take_place(h);
	struct handle_entry *e;

	if (place == UINT32_MAX)
		return 0;
	e = &h->places[place];
	e->generation++; /* never from 65535: such places are not on the list */
	e->type = type;
	e->owner = owner;
	e->next = 0;
	e->thing = thing;
	return card_handle(place, e->generation);
}

struct handle_entry *handles_find_other(const struct handles *h, uint32_t handle, uint8_t not)
{
	uint32_t place = handle & 0xffffu;
	struct handle_entry *e;

	if (place >= h->count)
		return NULL;
	e = &h->places[place];
	return e->type && e->type != not && e->generation == handle >> 16 ? e : NULL;
}

struct handle_entry *handles_find(const struct handles *h, uint32_t handle, uint8_t type)
{
	struct handle_entry *e = handles_find_other(h, handle, 0);

	return e && e->type == type ? e : NULL;
}

void handles_remove(struct handles *h, uint32_t handle)
{
	struct handle_entry *e = handles_find_other(h, handle, 0);
	uint32_t place = handle & 0xffffu;

	if (!e)
		return;
	e->type = 0;
	e->thing = NULL;
	if (e->generation == CARD_HANDLE_GENERATIONS)
		return; /* this place is used up */
	if (h->last_free)
		h->places[h->last_free - 1].next = place + 1;
	else
		h->first_free = place + 1;
	h->last_free = place + 1;
}

struct handle_entry *handles_next(const struct handles *h, uint32_t *place, uint32_t *handle)
{
	for (; *place < h->count; ++*place) {
		struct handle_entry *e = &h->places[*place];

		if (!e->type)
			continue;
		*handle = card_handle(*place, e->generation);
		++*place;
		return e;
	}
	return NULL;
}

void handles_free(struct handles *h)
{
	free(h->places);
	*h = (struct handles){0};
}
