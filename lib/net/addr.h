/* SPDX-License-Identifier: MIT */
/* Addresses of stream sockets: tcp:HOST:PORT, unix:PATH, vsock:CID:PORT. */
#ifndef NET_ADDR_H
#define NET_ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum net_family { NET_TCP, NET_UNIX, NET_VSOCK };

struct net_addr {
	enum net_family family;
	char host[256];	    /* tcp: name or address, [] of an IPv6 address taken off; "" = any (listen only) */
	char service[32];   /* tcp: port number or service name */
	char path[108];	    /* unix */
	uint32_t cid, port; /* vsock; cid VMADDR_CID_ANY for "any" */
};

/*
 * "tcp:HOST:PORT", "tcp:[::1]:PORT", "tcp::PORT" (any), "unix:PATH", "vsock:CID:PORT",
 * "vsock:any:PORT"; a bare "HOST:PORT" is tcp, a bare "/PATH" is unix. -EINVAL with @err.
 */
int net_addr_parse(const char *text, struct net_addr *addr, struct err *err);

/* The canonical text, e.g. "tcp:[::1]:7000", into @buf; returns @buf. */
const char *net_addr_format(const struct net_addr *addr, char *buf, size_t size);

/*
 * A listening, close-on-exec, non-blocking descriptor, or -errno with @err. A stale unix
 * socket (nobody accepts: ECONNREFUSED) is taken over, a live one is -EADDRINUSE.
 * tcp sets SO_REUSEADDR. Port 0 is allowed: ask net_local_addr.
 */
int net_listen(const struct net_addr *addr, int backlog, struct err *err);

/* A TCP connection between two sockets of one address: both are on this host. */
bool net_within_host(int fd);

/* What the descriptor is bound to (for port 0 and for messages). */
int net_local_addr(int fd, struct net_addr *addr, struct err *err);

/* A connected, close-on-exec, non-blocking descriptor (TCP_NODELAY, keep-alive), or -errno. */
int net_connect(const struct net_addr *addr, int timeout_ms, struct err *err);

/* How much may be written into @fd, a socket, before the other end reads; less where the system allows less. */
#define NET_WRITE_AHEAD (1 << 20)
void net_write_ahead(int fd, int bytes);

/* Both ends of a stream within this host, close-on-exec, NET_WRITE_AHEAD either way; the caller's. 0 or -errno. */
int net_pair(int fd[2]);

/* Accept one; as net_connect's descriptor; @peer (may be NULL, ≥ 128 bytes) gets words for the log. */
int net_accept(int listener, char *peer, size_t size, struct err *err);

#endif
