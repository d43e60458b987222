/* SPDX-License-Identifier: MIT */
/*
 * What an ivshmem server says to a client, as QEMU reads it (docs/specs/ivshmem-spec): a number of
 * eight bytes, little-endian, and at most one descriptor each. A state machine without a socket.
 */
#ifndef CARD_IVSHMEM_CLIENT_H
#define CARD_IVSHMEM_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#define IVSHMEM_VECTORS_MAX 64

struct ivshmem_client {
	enum { IVSHMEM_VERSION, IVSHMEM_ID, IVSHMEM_MEMORY, IVSHMEM_PEERS } state;
	uint32_t id;
	int memory;		/* -1: not yet */
	int peer_bell;		/* the first of the daemon's, -1 */
	uint32_t peer_bells, own_bells;
	int own_bell[IVSHMEM_VECTORS_MAX];
};

void ivshmem_client_init(struct ivshmem_client *c);

/* One message; @fd (-1: none) is taken over in any case. -EPROTO. */
int ivshmem_client_feed(struct ivshmem_client *c, int64_t number, int fd);

void ivshmem_client_free(struct ivshmem_client *c);

#endif
