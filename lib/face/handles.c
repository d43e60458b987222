/* SPDX-License-Identifier: MIT */
#include "face/handles.h"

#include <pthread.h>
#include <stdlib.h>

#include "face/link.h"

#define PLACES_MAX (1u << 20)
#define GENERATIONS 0xffffffu /* 24 bits above 20 of place and 4 of kind, above a bit that is always set */

struct place {
	struct face_object *object; /* NULL: free */
	uint32_t generation;
	uint32_t next_free;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct place *places;
static uint32_t used, room, first_free = UINT32_MAX;
static unsigned process; /* whose the table is */

_Static_assert(sizeof(uintptr_t) == 8, "a handle has 49 bits");

static void before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&lock);
}

__attribute__((constructor)) static void watch_forks(void)
{
	pthread_atfork(before_fork, after_fork, after_fork);
}

/* In a child of fork(2) the parent's handles name nothing. What they named stays unused. */
static void look_whose(void)
{
	unsigned now = face_link_process();

	if (process == now)
		return;
	process = now;
	places = NULL;
	used = room = 0;
	first_free = UINT32_MAX;
}

static void enter(void)
{
	pthread_mutex_lock(&lock);
	look_whose();
}

static int more_places(void)
{
	uint32_t n = room ? 2 * room : 64;
	struct place *p = n <= PLACES_MAX ? realloc(places, n * sizeof(*p)) : NULL;

	if (!p)
		return -1;
	places = p;
	room = n;
	return 0;
}

static int take_place(uint32_t *place)
{
	if (first_free != UINT32_MAX) {
		*place = first_free;
		first_free = places[first_free].next_free;
		return 0;
	}
	if (used == room && more_places())
		return -1;
	places[used] = (struct place){.generation = 0};
	*place = used++;
	return 0;
}

static void *handle_of(const struct face_object *o)
{
	uint64_t n = (uint64_t)places[o->place].generation << 25 | (uint64_t)o->place << 5 |
		     (uint64_t)o->kind << 1 | 1;

	return (void *)(uintptr_t)n; /* NOLINT(performance-no-int-to-ptr): never followed */
}

static struct face_object *find(const void *handle, enum face_kind kind)
{
	uint64_t n = (uintptr_t)handle;
	uint32_t place = n >> 5 & (PLACES_MAX - 1);

	if (!(n & 1) || place >= used || !places[place].object ||
	    places[place].generation != n >> 25 || places[place].object->kind != kind ||
	    (n >> 1 & 0xf) != (uint64_t)kind)
		return NULL;
	return places[place].object;
}

void *face_handle_new(struct face_object *o, struct face_object *parent)
{
	void *handle = NULL;

	enter();
	if ((parent && parent->closed) || take_place(&o->place))
		goto out;
	o->refs = 1;
	o->parent = parent;
	if (parent) {
		parent->refs++;
		o->next = parent->child;
		if (o->next)
			o->next->prev = o;
		parent->child = o;
	}
	places[o->place].object = o;
	places[o->place].generation = places[o->place].generation % GENERATIONS + 1;
	handle = handle_of(o);
out:
	pthread_mutex_unlock(&lock);
	return handle;
}

struct face_object *face_handle_get(const void *handle, enum face_kind kind)
{
	struct face_object *o;

	enter();
	o = find(handle, kind);
	if (o)
		o->refs++;
	pthread_mutex_unlock(&lock);
	return o;
}

void face_object_hold(struct face_object *o)
{
	enter();
	o->refs++;
	pthread_mutex_unlock(&lock);
}

void face_object_put(struct face_object *o)
{
	while (o) {
		struct face_object *parent = o->parent;
		bool last;

		enter();
		last = !--o->refs;
		pthread_mutex_unlock(&lock);
		if (!last)
			return;
		o->gone(o);
		o = parent;
	}
}

static void unlink_place(struct face_object *o)
{
	places[o->place].object = NULL;
	places[o->place].next_free = first_free;
	first_free = o->place;
	o->closed = true;
}

/* All under @o, in a list by @next; each keeps the table's reference until it is put. */
static void close_below(struct face_object *o, struct face_object **list)
{
	while (o->child) {
		struct face_object *c = o->child;

		o->child = c->next;
		close_below(c, list);
		unlink_place(c);
		c->next = *list;
		*list = c;
	}
}

bool face_handle_close(const void *handle, enum face_kind kind)
{
	struct face_object *o, *list = NULL;
	bool was_open;

	enter();
	o = find(handle, kind);
	was_open = o;
	if (o) {
		if (o->prev)
			o->prev->next = o->next;
		else if (o->parent)
			o->parent->child = o->next;
		if (o->next)
			o->next->prev = o->prev;
		unlink_place(o);
		close_below(o, &list);
		o->next = list;
	}
	pthread_mutex_unlock(&lock);
	for (struct face_object *next; o; o = next) {
		next = o->next;
		face_object_put(o);
	}
	return was_open;
}
