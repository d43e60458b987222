/* SPDX-License-Identifier: MIT */
/* What the handles of a link name, at either end. A handle that was given back never names anything again. */
#ifndef CARD_HANDLES_H
#define CARD_HANDLES_H

#include <stddef.h>
#include <stdint.h>

struct handle_entry {
	uint16_t generation; /* of the one that it has now, or had last */
	uint8_t type;	     /* of the caller's; 0: free */
	uint32_t owner;	     /* handle of the session that it goes with; 0: itself a session */
	uint32_t next;	     /* free list, place + 1 */
	void *thing;
};

struct handles {
	struct handle_entry *places;
	uint32_t count, room;		/* places ever used, allocated */
	uint32_t first_free, last_free; /* place + 1; first in, first out: the longest time between uses */
};

/* 0: no memory, or all places and generations are used up. @thing is the caller's. */
uint32_t handles_add(struct handles *h, uint8_t type, uint32_t owner, void *thing);

/* What @handle names, if it is of @type; NULL. */
struct handle_entry *handles_find(const struct handles *h, uint32_t handle, uint8_t type);

/* As above, of any type but @not. */
struct handle_entry *handles_find_other(const struct handles *h, uint32_t handle, uint8_t not);

void handles_remove(struct handles *h, uint32_t handle);

/* The next entry in use at or after @place (start with 0), whose handle goes to *@handle; NULL: the end. */
struct handle_entry *handles_next(const struct handles *h, uint32_t *place, uint32_t *handle);

/* All are to be gone. */
void handles_free(struct handles *h);

#endif
