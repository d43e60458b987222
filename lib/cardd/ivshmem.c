/* SPDX-License-Identifier: MIT */
/*
 * An ivshmem server for stock QEMU, `-device ivshmem-doorbell` (docs/specs/ivshmem-spec): itself
 * peer 0. Each VM gets memory of its own, sealed, and hears of no other peer, with eventfds of its
 * own for peer 0 (a doorbell carries no sender): its writes and doorbells reach nobody else, and
 * QEMU need not be changed for that.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/units.h"
#include "cardd/inside.h"
#include "cardd/serve_ring.h"
#include "net/addr.h"

#define PEERS_MAX 4 /* of a VM: it, and its copy that a migration brings to the same host */
#define EMPTY_BELLS_MAX 2000 /* in a tick; who rings more for nothing is not heard until the next */
#define SHARES 16 /* of one region for all; the first holds its header */
#define DAEMON_ID 0
#define DAEMON_ID_MIGRATABLE 1

struct peer {
	struct ivshmem *server;
	int fd, memory, bell;
	int vm_bell[CARD_QUEUES_MAX];
	struct watch watch, bell_watch;
	uint32_t id, empty_bells, refs;
	bool closed, muted;
	uint8_t *base; /* of this VM's region */
	void *map;
	size_t map_size;
	struct card_layout layout;
	struct ring_link rings[CARD_QUEUES_MAX];
	struct peer *next;
};

struct ivshmem {
	struct cardd_vm *vm;
	int listener;
	struct watch watch;
	uint32_t peer_count;
	struct peer *peers;
};

struct ivshmem_shared {
	int memory;
	uint8_t *map;
	size_t size;
	uint64_t share;
	bool used[SHARES + 1];
};

static int map_memory(int fd, size_t size, uint8_t **map)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	/* Not in core dumps, not merged with what looks the same. A kernel without KSM says EINVAL. */
	(void)madvise(p, size, MADV_DONTDUMP);
	(void)madvise(p, size, MADV_UNMERGEABLE);
	*map = p;
	return 0;
}

static int make_memory(const char *name, size_t size, int *fd, uint8_t **map, struct err *err)
{
	int rc;

	*fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	rc = *fd >= 0 && !ftruncate(*fd, (off_t)size) &&
			     !fcntl(*fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
		     ? map_memory(*fd, size, map)
		     : -errno;
	if (!rc)
		return 0;
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	return err_sys(err, rc, "serve: memory of %zu bytes for %s", size, name);
}

static void fill_header(struct peer *p)
{
	struct card_region *r = (struct card_region *)p->base;
	const struct cardd_vm *vm = p->server->vm;

	r->magic = CARD_REGION_MAGIC;
	r->version = CARD_VERSION;
	r->size = p->layout.size;
	r->queues = p->layout.queues;
	r->slots = p->layout.slots;
	r->slot_size = sizeof(struct card_slot);
	r->queue_size = p->layout.queue_size;
	r->daemon = vm->d->random;
	memcpy(r->vm, vm->conf->name, sizeof(r->vm));
	atomic_store_explicit(&r->state, CARD_REGION_OPEN, memory_order_release);
}

/* One message: a number, and a descriptor or none (-1). */
static int tell(int fd, int64_t number, int descriptor)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	int64_t le = (int64_t)htole64((uint64_t)number);
	struct iovec iov = {&le, sizeof(le)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (descriptor >= 0) {
		struct cmsghdr *c;

		msg.msg_control = control.buf;
		msg.msg_controllen = sizeof(control.buf);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &descriptor, sizeof(descriptor));
	}
	return sendmsg(fd, &msg, MSG_NOSIGNAL) == (ssize_t)sizeof(le) ? 0 : -errno;
}

/* Version, own id, memory, peer 0's bells, own bells. */
static int shake_hands(struct peer *p)
{
	bool migratable = p->server->vm->conf->migratable;
	int64_t daemon_id = migratable ? DAEMON_ID_MIGRATABLE : DAEMON_ID;
	int64_t id = migratable ? 0 : p->id;
	int rc = tell(p->fd, 0, -1);

	if (!rc)
		rc = tell(p->fd, id, -1);
	if (!rc)
		rc = tell(p->fd, -1, p->memory);
	/* Any vector is the same bell: every queue is looked at. */
	for (uint32_t i = 0; !rc && i < p->layout.queues; i++)
		rc = tell(p->fd, daemon_id, p->bell);
	for (uint32_t i = 0; !rc && i < p->layout.queues; i++)
		rc = tell(p->fd, id, p->vm_bell[i]);
	return rc;
}

static void peer_put(struct peer *p)
{
	struct peer **at = &p->server->peers;

	if (--p->refs)
		return;
	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	if (p->map)
		munmap(p->map, p->map_size);
	if (p->memory >= 0 && !p->server->vm->d->shared)
		close(p->memory);
	if (p->server->vm->d->shared && p->base && !p->map)
		p->server->vm->d->shared->used[p->id] = false;
	free(p);
}

static void ring_gone(struct ring_link *r)
{
	peer_put(r->owner);
}

static void peer_keep(struct peer *p, bool keep);

static void peer_close(struct peer *p)
{
	struct cardd *d = p->server->vm->d;

	if (p->closed)
		return;
	p->closed = true;
	p->server->peer_count--;
	if (!d->ending)
		peer_keep(p, false);
	watch_change(d, &p->server->watch, EPOLLIN);
	watch_remove(d, &p->watch);
	watch_remove(d, &p->bell_watch);
	if (p->fd >= 0)
		close(p->fd);
	if (p->bell >= 0)
		close(p->bell);
	for (uint32_t i = 0; i < p->layout.queues; i++) {
		if (p->rings[i].owner)
			link_close(&p->rings[i].l);
		if (p->vm_bell[i] >= 0)
			close(p->vm_bell[i]);
		p->rings[i].bells = 0;
	}
	if (p->base) {
		struct card_region *r = (struct card_region *)p->base;

		atomic_store(&r->state, CARD_REGION_CLOSED);
		if (!p->map) /* part of what others still use */
			memset(p->base, 0, p->layout.size);
	}
	peer_put(p);
}

static void peer_rung(struct watch *w, uint32_t events)
{
	struct peer *p = w->owner;
	uint64_t n;
	bool any = false;

	(void)events;
	if (read(p->bell, &n, sizeof(n)) < 0)
		return;
	p->server->vm->doorbells++;
	for (uint32_t i = 0; i < p->layout.queues; i++)
		any |= ring_rung(&p->rings[i]);
	if (any || ++p->empty_bells <= EMPTY_BELLS_MAX)
		return;
	p->muted = true;
	watch_change(p->server->vm->d, &p->bell_watch, 0);
}

/* See ring_reclaim; a guest that rings meanwhile is not left to wait for this. */
static void peer_check(struct peer *p)
{
	const struct card_region *r = (const struct card_region *)p->base;
	bool moved = r->daemon != p->server->vm->d->random;

	if (moved)
		fill_header(p);
	for (uint32_t i = 0; i < p->layout.queues; i++)
		moved |= ring_reclaim(&p->rings[i]);
	if (moved)
		log_verbose("vm %s: ivshmem peer %u came with another daemon's memory", p->server->vm->conf->name, p->id);
}

void ivshmem_tick(struct cardd_vm *vm)
{
	for (struct peer *p = vm->ivshmem ? vm->ivshmem->peers : NULL; p; p = p->next) {
		if (p->closed)
			continue;
		peer_check(p);
		atomic_fetch_add_explicit(&((struct card_region *)p->base)->beat, 1,
					  memory_order_relaxed);
		p->empty_bells = 0;
		if (!p->muted)
			continue;
		p->muted = false;
		watch_change(vm->d, &p->bell_watch, EPOLLIN);
	}
}

/* A QEMU says nothing, ever: what comes is its end. */
static void peer_ready(struct watch *w, uint32_t events)
{
	struct peer *p = w->owner;
	char byte;

	(void)events;
	if (recv(p->fd, &byte, 1, MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	log_verbose("vm %s: ivshmem peer %u is gone", p->server->vm->conf->name, p->id);
	peer_close(p);
}

static int peer_memory(struct peer *p, struct err *err)
{
	const struct cardd_vm_conf *conf = p->server->vm->conf;
	struct ivshmem_shared *shared = p->server->vm->d->shared;
	uint64_t size = shared ? shared->share : conf->memory;

	if (card_layout_make(size, conf->queues, 0, &p->layout))
		return err_set(err, -EINVAL, "vm %s: %u queues do not fit into its memory", conf->name,
			       conf->queues);
	if (shared) {
		if (p->id * shared->share >= shared->size)
			return err_set(err, -ENOSPC, "vm %s: the shared region has no room for peer %u",
				       conf->name, p->id);
		p->memory = shared->memory;
		p->base = shared->map + p->id * shared->share;
		shared->used[p->id] = true;
		return 0;
	}
	p->map_size = size;
	return make_memory(conf->name, size, &p->memory, &p->base, err);
}

static uint32_t next_id(struct cardd *d)
{
	struct ivshmem_shared *shared = d->shared;

	/* In one region the id is the place, and places are few. Told to another QEMU, an id may come again. */
	for (uint32_t i = 1; shared && i < SHARES; i++)
		if (!shared->used[i])
			return i;
	if (shared)
		return SHARES;
	if (++d->last_peer > 65535)
		d->last_peer = 1;
	return d->last_peer;
}

static struct peer *peer_alloc(struct ivshmem *s, int fd, uint32_t id)
{
	struct peer *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	*p = (struct peer){.server = s, .fd = fd, .memory = -1, .bell = -1, .refs = 1, .id = id};
	p->watch.fd = p->bell_watch.fd = -1;
	memset(p->vm_bell, 0xff, sizeof(p->vm_bell));
	p->next = s->peers;
	s->peers = p;
	s->peer_count++;
	return p;
}

static int peer_bells(struct peer *p, struct err *err)
{
	p->bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (p->bell < 0)
		return err_sys(err, -errno, "vm %s: eventfd", p->server->vm->conf->name);
	for (uint32_t i = 0; i < p->layout.queues; i++) {
		p->vm_bell[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		if (p->vm_bell[i] < 0)
			return err_sys(err, -errno, "vm %s: eventfd", p->server->vm->conf->name);
	}
	return 0;
}

static void peer_rings(struct peer *p)
{
	for (uint32_t i = 0; i < p->layout.queues; i++) {
		struct ring_link *r = &p->rings[i];

		*r = (struct ring_link){.bell = p->vm_bell, .bells = p->layout.queues,
					.gone = ring_gone, .owner = p};
		ring_init(r, p->server->vm, &p->layout, p->base, i);
		p->refs++;
	}
	fill_header(p);
}

static int peer_watch(struct peer *p, struct err *err)
{
	struct cardd *d = p->server->vm->d;
	int rc = watch_add(d, &p->watch, p->fd, EPOLLIN | EPOLLRDHUP, peer_ready, p);

	if (!rc)
		rc = watch_add(d, &p->bell_watch, p->bell, EPOLLIN, peer_rung, p);
	return rc ? err_sys(err, rc, "vm %s: epoll", p->server->vm->conf->name) : 0;
}

/* For the next run of the daemon. */
static void peer_keep(struct peer *p, bool keep)
{
	const char *vm = p->server->vm->conf->name;
	const int fds[] = {p->fd, p->memory, p->bell};
	static const char *const kinds[] = {"conn", "memory", "bell"};
	char kind[8];

	if (!keep_there() || p->server->vm->d->shared)
		return;
	for (unsigned i = 0; i < 3; i++)
		if (keep)
			keep_store(vm, p->id, kinds[i], fds[i]);
		else
			keep_forget(vm, p->id, kinds[i]);
	for (uint32_t i = 0; i < p->layout.queues; i++) {
		snprintf(kind, sizeof(kind), "%u", i);
		if (keep)
			keep_store(vm, p->id, kind, p->vm_bell[i]);
		else
			keep_forget(vm, p->id, kind);
	}
}

static int peer_new(struct ivshmem *s, int fd, struct err *err)
{
	struct peer *p = peer_alloc(s, fd, next_id(s->vm->d));
	int rc;

	if (!p) {
		close(fd);
		return err_sys(err, -ENOMEM, "vm %s", s->vm->conf->name);
	}
	rc = peer_memory(p, err);
	if (!rc && !s->vm->d->shared)
		p->map = p->base;
	if (!rc)
		rc = peer_bells(p, err);
	if (!rc) {
		peer_rings(p);
		rc = shake_hands(p);
		if (rc)
			err_sys(err, rc, "vm %s: ivshmem handshake", s->vm->conf->name);
	}
	if (!rc)
		rc = peer_watch(p, err);
	if (rc)
		peer_close(p);
	else
		peer_keep(p, true);
	return rc;
}

/* A peer of the daemon's last life: its memory, bells and connection are still there. */
static void peer_resume(struct ivshmem *s, struct keep *k, uint32_t id)
{
	const struct cardd_vm_conf *conf = s->vm->conf;
	struct cardd *d = s->vm->d;
	struct peer *p = peer_alloc(s, keep_take(k, conf->name, id, "conn"), id);
	struct err err = {0};
	struct stat st;
	char kind[8];
	bool whole;

	if (!p)
		return;
	p->memory = keep_take(k, conf->name, id, "memory");
	p->bell = keep_take(k, conf->name, id, "bell");
	/* As the configuration has it now, it must be what it was. */
	whole = !card_layout_make(conf->memory, conf->queues, 0, &p->layout) && p->memory >= 0 && p->bell >= 0 &&
		!fstat(p->memory, &st) && (uint64_t)st.st_size == conf->memory &&
		!map_memory(p->memory, conf->memory, &p->base);
	if (whole) {
		p->map = p->base;
		p->map_size = conf->memory;
	}
	for (uint32_t i = 0; i < p->layout.queues; i++) {
		snprintf(kind, sizeof(kind), "%u", i);
		p->vm_bell[i] = keep_take(k, conf->name, id, kind);
		whole = whole && p->vm_bell[i] >= 0;
	}
	if (id > d->last_peer)
		d->last_peer = id;
	if (whole)
		peer_rings(p);
	if (!whole || peer_watch(p, &err)) {
		log_warn("vm %s: peer %u of the last run cannot go on: %s", conf->name, id,
			 whole ? err.text : "its memory or bells are not what they were");
		peer_close(p);
		return;
	}
	log_note("vm %s: peer %u goes on", conf->name, id);
	/* Who waits is told that there is a daemon again. */
	for (uint32_t i = 0; i < p->layout.queues; i++) {
		uint64_t one = 1;

		ring_rung(&p->rings[i]);
		(void)!write(p->vm_bell[i], &one, sizeof(one));
	}
}

static void on_connect(struct watch *w, uint32_t events)
{
	struct ivshmem *s = w->owner;
	struct err err = {0};
	char who[128] = "";
	int fd;

	(void)events;
	if (s->peer_count >= PEERS_MAX) { /* wait in the backlog: a QEMU that is cut off here spins */
		watch_change(s->vm->d, &s->watch, 0);
		return;
	}
	fd = net_accept(s->listener, who, sizeof(who), &err);
	if (fd < 0)
		return;
	if (peer_new(s, fd, &err))
		log_warn("%s", err.text);
	else
		log_verbose("vm %s: ivshmem peer %u: %s", s->vm->conf->name, s->vm->d->last_peer, who);
}

int ivshmem_listen(struct cardd_vm *vm, struct err *err)
{
	struct net_addr addr = {.family = NET_UNIX};
	struct ivshmem *s = calloc(1, sizeof(*s));
	uint32_t id;
	int rc;

	if (!s)
		return err_sys(err, -ENOMEM, "vm %s", vm->conf->name);
	memcpy(addr.path, vm->conf->ivshmem, sizeof(addr.path));
	s->vm = vm;
	s->listener = cardd_listen(vm->d, &addr, err);
	if (s->listener < 0) {
		rc = s->listener;
		free(s);
		return rc;
	}
	vm->ivshmem = s;
	while (!vm->d->shared && keep_next(&vm->d->keep, vm->conf->name, &id))
		peer_resume(s, &vm->d->keep, id);
	rc = watch_add(vm->d, &s->watch, s->listener, EPOLLIN, on_connect, s);
	return rc ? err_sys(err, rc, "vm %s: epoll", vm->conf->name) : 0;
}

/* Listen no more; peers that are still used by calls under way go later. */
void ivshmem_close(struct cardd_vm *vm)
{
	struct ivshmem *s = vm->ivshmem;

	if (!s)
		return;
	watch_remove(vm->d, &s->watch);
	close(s->listener);
	unlink(vm->conf->ivshmem);
	for (struct peer *p = s->peers, *next; p; p = next) {
		next = p->next;
		peer_close(p);
	}
}

void ivshmem_free(struct cardd_vm *vm)
{
	free(vm->ivshmem);
	vm->ivshmem = NULL;
}

int ivshmem_shared_new(struct cardd *d, struct err *err)
{
	struct ivshmem_shared *s = calloc(1, sizeof(*s));
	struct card_region *head;
	int rc;

	if (!s)
		return err_sys(err, -ENOMEM, "serve");
	s->size = d->conf->shared_region;
	s->share = s->size / SHARES;
	rc = make_memory("shared", s->size, &s->memory, &s->map, err);
	if (rc) {
		free(s);
		return rc;
	}
	head = (struct card_region *)s->map;
	head->version = CARD_VERSION;
	head->size = s->size;
	head->shares = SHARES;
	head->share_size = s->share;
	head->magic = CARD_REGION_MAGIC;
	d->shared = s;
	return 0;
}

void ivshmem_shared_free(struct cardd *d)
{
	if (!d->shared)
		return;
	munmap(d->shared->map, d->shared->size);
	close(d->shared->memory);
	free(d->shared);
	d->shared = NULL;
}

struct json_object *ivshmem_stat(struct cardd_vm *vm)
{
	struct json_object *list = json_object_new_array();

	for (struct peer *p = vm->ivshmem ? vm->ivshmem->peers : NULL; p; p = p->next) {
		struct json_object *o;

		if (p->closed)
			continue;
		o = json_object_new_object();
		json_object_object_add(o, "id", json_object_new_int64(p->id));
		json_object_object_add(o, "memory_bytes", json_object_new_int64((int64_t)p->layout.size));
		json_object_object_add(o, "queues", json_object_new_int64(p->layout.queues));
		json_object_object_add(o, "slots", json_object_new_int64(p->layout.slots));
		json_object_array_add(list, o);
	}
	return list;
}
