/* SPDX-License-Identifier: MIT */
#include "card/ivshmem_client.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

void ivshmem_client_init(struct ivshmem_client *c)
{
	*c = (struct ivshmem_client){.memory = -1, .peer_bell = -1};
	memset(c->own_bell, 0xff, sizeof(c->own_bell));
}

static int peer_message(struct ivshmem_client *c, int64_t number, int *fd)
{
	if (number < 0 || number > 65535)
		return -EPROTO;
	if (*fd < 0) /* a peer is gone; ours is the daemon */
		return 0;
	if (number == c->id) {
		if (c->own_bells == IVSHMEM_VECTORS_MAX)
			return -EPROTO;
		c->own_bell[c->own_bells++] = *fd;
		*fd = -1;
	} else if (c->peer_bells++ == 0) {
		c->peer_bell = *fd;
		*fd = -1;
	}
	return 0;
}

static int feed(struct ivshmem_client *c, int64_t number, int *fd)
{
	if (c->state != IVSHMEM_PEERS && (*fd >= 0) != (c->state == IVSHMEM_MEMORY))
		return -EPROTO;
	switch (c->state) {
	case IVSHMEM_VERSION:
		c->state = IVSHMEM_ID;
		return number ? -EPROTO : 0;
	case IVSHMEM_ID:
		c->state = IVSHMEM_MEMORY;
		c->id = (uint32_t)number;
		return number < 0 || number > 65535 ? -EPROTO : 0;
	case IVSHMEM_MEMORY:
		c->state = IVSHMEM_PEERS;
		c->memory = *fd;
		*fd = -1;
		return number != -1 ? -EPROTO : 0;
	case IVSHMEM_PEERS:
		return peer_message(c, number, fd);
	}
	return -EPROTO;
}

int ivshmem_client_feed(struct ivshmem_client *c, int64_t number, int fd)
{
	int rc = feed(c, number, &fd);

	if (fd >= 0)
		close(fd);
	return rc;
}

void ivshmem_client_free(struct ivshmem_client *c)
{
	if (c->memory >= 0)
		close(c->memory);
	if (c->peer_bell >= 0)
		close(c->peer_bell);
	for (uint32_t i = 0; i < c->own_bells; i++)
		close(c->own_bell[i]);
	ivshmem_client_init(c);
}
