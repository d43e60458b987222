/* SPDX-License-Identifier: MIT */
/* shm:PATH[,queue=N]: the daemon's ivshmem socket, as a VM of its own, without a VM. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/units.h"
#include "card/ivshmem_client.h"
#include "card/way_address.h"
#include "card/way_ring.h"
#include "net/addr.h"

struct shm {
	struct ring r; /* first */
	struct ivshmem_client c;
	int fd;
	uint8_t *map;
	size_t size;
};

/* One message and its descriptor. 1; 0: none yet; -errno. */
static int hear(int fd, int64_t *number, int *descriptor)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	int64_t le = 0;
	struct iovec iov = {&le, sizeof(le)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf)};
	ssize_t n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c;

	*descriptor = -1;
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
	    c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(descriptor, CMSG_DATA(c), sizeof(int));
	*number = (int64_t)le64toh((uint64_t)le);
	return n == (ssize_t)sizeof(le) ? 1 : -EPROTO;
}

static int map_memory(struct shm *s, struct err *err)
{
	struct stat st;
	void *p;

	if (fstat(s->c.memory, &st) || st.st_size < (off_t)CARD_REGION_HEAD ||
	    st.st_size > (off_t)CARD_REGION_MAX)
		return err_set(err, -EPROTO, "open %s: that is no memory of a card", s->r.way.text);
	s->size = (size_t)st.st_size;
	p = mmap(NULL, s->size, PROT_READ | PROT_WRITE, MAP_SHARED, s->c.memory, 0);
	if (p == MAP_FAILED)
		return err_sys(err, -errno, "open %s: map", s->r.way.text);
	(void)madvise(p, s->size, MADV_DONTDUMP);
	s->map = p;
	return 0;
}

/* Its own part of one region for all, by the id that the server gave. */
static int find_share(struct shm *s, struct err *err)
{
	const struct card_region *head = (const struct card_region *)s->map;

	s->r.base = s->map;
	if (head->magic != CARD_REGION_MAGIC || !head->shares)
		return 0;
	if (!head->share_size || head->share_size > s->size / (s->c.id + 1) || s->c.id >= head->shares)
		return err_set(err, -EPROTO, "open %s: no share for peer %u", s->r.way.text, s->c.id);
	s->r.base = s->map + s->c.id * head->share_size;
	return 0;
}

static void ring_bell(struct ring *r)
{
	uint64_t one = 1;

	if (write(((struct shm *)r)->c.peer_bell, &one, sizeof(one)) < 0)
		return; /* it rang 2^64 times: it is ringing */
}

static void bell_heard(struct ring *r)
{
	uint64_t n;

	if (read(r->event_fd, &n, sizeof(n)) < 0)
		return;
}

/* Until the memory is there, and as many bells as it has queues. */
static int shake_hands(struct shm *s, int timeout_ms, struct err *err)
{
	uint64_t until = units_now_us() + (uint64_t)timeout_ms * 1000;
	uint32_t want = UINT32_MAX;
	int64_t number = 0;
	int rc, fd;

	while (s->c.own_bells < want || s->c.peer_bells < want) {
		uint64_t now = units_now_us();
		struct pollfd p = {.fd = s->fd, .events = POLLIN};

		if (now >= until || poll(&p, 1, (int)((until - now + 999) / 1000)) <= 0)
			return err_set(err, -ETIMEDOUT, "open %s: the daemon is silent", s->r.way.text);
		rc = hear(s->fd, &number, &fd);
		if (rc > 0)
			rc = ivshmem_client_feed(&s->c, number, fd);
		if (rc < 0)
			return err_set(err, rc, "open %s: it does not speak as an ivshmem server",
				       s->r.way.text);
		if (want != UINT32_MAX || s->c.memory < 0)
			continue;
		rc = s->map ? 0 : map_memory(s, err);
		if (!rc)
			rc = find_share(s, err);
		if (rc)
			return rc;
		if (card_layout_read(s->r.base, s->size - (size_t)((uint8_t *)s->r.base - s->map),
				     &s->r.layout))
			return err_set(err, -EPROTO, "open %s: it is not the memory of a cardshare daemon",
				       s->r.way.text);
		want = s->r.layout.queues;
	}
	return 0;
}

static void region_close(struct card_way *way)
{
	struct shm *s = (struct shm *)way;

	if (s->r.q)
		ring_detach(&s->r);
	if (s->map)
		munmap(s->map, s->size);
	ivshmem_client_free(&s->c);
	if (s->fd >= 0)
		close(s->fd);
}

static int region_open(struct card_way *way, const char *address, int timeout_ms, struct err *err)
{
	struct shm *s = (struct shm *)way;
	struct net_addr addr = {.family = NET_UNIX};
	uint32_t queue;
	int rc = way_address(address, "shm:", addr.path, sizeof(addr.path), &queue, err);

	ivshmem_client_init(&s->c);
	s->fd = -1;
	snprintf(way->text, sizeof(way->text), "shm:%s,queue=%u", addr.path, queue);
	if (!rc && !addr.path[0])
		rc = err_set(err, -EINVAL, "address 'shm:': a path is missing");
	if (rc)
		return rc;
	s->fd = net_connect(&addr, timeout_ms, err);
	rc = s->fd < 0 ? s->fd : shake_hands(s, timeout_ms, err);
	if (!rc) {
		if (queue < s->c.own_bells) {
			s->r.vector = queue + 1;
			s->r.event_fd = s->c.own_bell[queue];
		}
		s->r.lost_fd = s->fd;
		s->r.bell = ring_bell;
		s->r.heard = bell_heard;
		rc = ring_attach(&s->r, s->size - (size_t)((uint8_t *)s->r.base - s->map), queue,
				 timeout_ms, err);
	}
	if (rc)
		region_close(way);
	return rc;
}

const struct card_way_ops card_way_shm = {
	.scheme = "shm:",
	.open = region_open,
	.close = region_close,
	.put = ring_put,
	.push = ring_push,
	.get = ring_get,
	.drop = ring_drop,
	.arm = ring_arm,
	.block = ring_block,
	.disarm = ring_disarm,
	.size = sizeof(struct shm),
};
