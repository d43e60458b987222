/* SPDX-License-Identifier: MIT */
/*
 * Handles of an interface whose users hold void pointers: numbers of places in a table, with a
 * generation, never addresses. A handle that was never given, or is closed, names nothing. What is in
 * use while it is closed goes when its last user is done; all under it is closed with it.
 */
#ifndef FACE_HANDLES_H
#define FACE_HANDLES_H

#include <stdbool.h>
#include <stdint.h>

enum face_kind { FACE_DEVICE = 1, FACE_SESSION, FACE_KEY, FACE_AGREEMENT };

/* The first member of what a handle stands for. */
struct face_object {
	enum face_kind kind;
	bool closed;
	unsigned refs;
	uint32_t place;
	struct face_object *parent;	      /* held until this is gone */
	struct face_object *child, *next, *prev; /* open ones */
	void (*gone)(struct face_object *o);  /* nobody uses it any more: free it */
};

/* Give @o (kind and gone set, the rest zero) a handle under @parent, which may be NULL. NULL: no memory, or the
 * parent was closed meanwhile; then @o is the caller's as before. */
void *face_handle_new(struct face_object *o, struct face_object *parent);

/* What @handle stands for, held; NULL: nothing, or of another kind. */
struct face_object *face_handle_get(const void *handle, enum face_kind kind);
void face_object_hold(struct face_object *o);
void face_object_put(struct face_object *o); /* NULL is fine */

/* False: nothing open of this kind has this handle. */
bool face_handle_close(const void *handle, enum face_kind kind);

#endif
