/* SPDX-License-Identifier: MIT */
#include "net/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/vm_sockets.h> /* needs struct sockaddr before it */

#include "base/units.h"

_Static_assert(sizeof(((struct net_addr *)0)->path) == sizeof(((struct sockaddr_un *)0)->sun_path),
	       "net_addr holds any unix path");

#define SHAPES "tcp:HOST:PORT, unix:PATH or vsock:CID:PORT"

static int parse_u32(const char *text, uint32_t *out)
{
	char *end;
	unsigned long long v;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno || *end || v > UINT32_MAX)
		return -EINVAL;
	*out = (uint32_t)v;
	return 0;
}

static bool good_host(const char *host)
{
	for (const unsigned char *p = (const unsigned char *)host; *p; p++)
		if (*p <= ' ' || *p >= 0x7f || strchr("[]/", *p))
			return false;
	return true;
}

static bool good_service(const char *service)
{
	size_t digits = strspn(service, "0123456789");
	uint32_t port;

	if (!*service)
		return false;
	if (!service[digits])
		return !parse_u32(service, &port) && port <= 65535;
	return !service[strspn(service, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
					"0123456789-_")];
}

static int copy_part(char *to, size_t size, const char *from, size_t n)
{
	if (n >= size)
		return -EINVAL;
	memcpy(to, from, n);
	to[n] = '\0';
	return 0;
}

static int parse_tcp(const char *text, const char *whole, struct net_addr *addr, struct err *err)
{
	const char *host = text, *colon = strrchr(text, ':');
	size_t n;

	if (!colon)
		return err_set(err, -EINVAL, "address '%.64s': a port is missing (%s)", whole, SHAPES);
	n = (size_t)(colon - host);
	if (*host == '[') {
		if (n < 3 || host[n - 1] != ']')
			return err_set(err, -EINVAL, "address '%.64s': '[' without ']:PORT'", whole);
		host++;
		n -= 2;
	} else if (memchr(host, ':', n)) {
		return err_set(err, -EINVAL, "address '%.64s': an IPv6 address stands in [ ]", whole);
	}
	addr->family = NET_TCP;
	if (copy_part(addr->host, sizeof(addr->host), host, n) || !good_host(addr->host))
		return err_set(err, -EINVAL, "address '%.64s': not a host name or address", whole);
	if (copy_part(addr->service, sizeof(addr->service), colon + 1, strlen(colon + 1)) ||
	    !good_service(addr->service))
		return err_set(err, -EINVAL, "address '%.64s': not a port", whole);
	return 0;
}

static int parse_unix(const char *text, struct net_addr *addr, struct err *err)
{
	addr->family = NET_UNIX;
	if (!*text)
		return err_set(err, -EINVAL, "address 'unix:': a path is missing");
	if (copy_part(addr->path, sizeof(addr->path), text, strlen(text)))
		return err_set(err, -EINVAL, "address 'unix:%.32s…': a socket's path has at most %zu bytes",
			       text, sizeof(addr->path) - 1);
	return 0;
}

static int parse_vsock(const char *text, const char *whole, struct net_addr *addr, struct err *err)
{
	const char *colon = strchr(text, ':');
	char cid[16];

	addr->family = NET_VSOCK;
	if (!colon || copy_part(cid, sizeof(cid), text, (size_t)(colon - text)))
		return err_set(err, -EINVAL, "address '%.64s': not vsock:CID:PORT", whole);
	if (!strcmp(cid, "any"))
		addr->cid = VMADDR_CID_ANY;
	else if (parse_u32(cid, &addr->cid))
		return err_set(err, -EINVAL, "address '%.64s': not a CID (a number or 'any')", whole);
	if (parse_u32(colon + 1, &addr->port))
		return err_set(err, -EINVAL, "address '%.64s': not a port number", whole);
	return 0;
}

int net_addr_parse(const char *text, struct net_addr *addr, struct err *err)
{
	memset(addr, 0, sizeof(*addr));
	if (!strncmp(text, "tcp:", 4))
		return parse_tcp(text + 4, text, addr, err);
	if (!strncmp(text, "unix:", 5))
		return parse_unix(text + 5, addr, err);
	if (!strncmp(text, "vsock:", 6))
		return parse_vsock(text + 6, text, addr, err);
	if (*text == '/')
		return parse_unix(text, addr, err);
	return parse_tcp(text, text, addr, err);
}

const char *net_addr_format(const struct net_addr *addr, char *buf, size_t size)
{
	bool v6 = strchr(addr->host, ':') != NULL;

	switch (addr->family) {
	case NET_TCP:
		snprintf(buf, size, "tcp:%s%s%s:%s", v6 ? "[" : "", addr->host, v6 ? "]" : "",
			 addr->service);
		break;
	case NET_UNIX:
		snprintf(buf, size, "unix:%s", addr->path);
		break;
	case NET_VSOCK:
		if (addr->cid == VMADDR_CID_ANY)
			snprintf(buf, size, "vsock:any:%u", addr->port);
		else
			snprintf(buf, size, "vsock:%u:%u", addr->cid, addr->port);
		break;
	}
	return buf;
}

static void fill_unix(const struct net_addr *addr, struct sockaddr_un *un)
{
	*un = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(un->sun_path, addr->path, sizeof(un->sun_path));
}

static void fill_vsock(const struct net_addr *addr, struct sockaddr_vm *vm)
{
	*vm = (struct sockaddr_vm){
		.svm_family = AF_VSOCK, .svm_cid = addr->cid, .svm_port = addr->port};
}

static int resolve(const struct net_addr *addr, bool passive, struct addrinfo **list,
		   struct err *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
				 .ai_flags = passive ? AI_PASSIVE : AI_ADDRCONFIG};
	char text[320];
	int rc;

	net_addr_format(addr, text, sizeof(text));
	if (!*addr->host && !passive)
		return err_set(err, -EINVAL, "connect to %s: a host is missing", text);
	rc = getaddrinfo(*addr->host ? addr->host : NULL, addr->service, &hints, list);
	/* A machine with the loopback only has no "configured" family: ask again without. */
	if (rc == EAI_NONAME && !passive) {
		hints.ai_flags = 0;
		rc = getaddrinfo(addr->host, addr->service, &hints, list);
	}
	if (!rc)
		return 0;
	return err_set(err, rc == EAI_SYSTEM ? -errno : -ENOENT, "%s: %s", text,
		       rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
}

static int new_socket(int family, struct err *err)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return err_sys(err, -errno, "socket");
	return fd;
}

static void set_int(int fd, int level, int option, int value)
{
	/* A hint to the kernel: without it the connection works, only less well. */
	(void)setsockopt(fd, level, option, &value, sizeof(value));
}

/* A peer that vanished is noticed after 30 + 6 × 10 s, also while nothing is sent. */
static void tune_tcp(int fd)
{
	set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, 30);
	set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, 10);
	set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, 6);
}

static int bind_listen(int fd, const struct sockaddr *sa, socklen_t len, int backlog)
{
	if (bind(fd, sa, len) || listen(fd, backlog))
		return -errno;
	return fd;
}

static int listen_tcp(const struct net_addr *addr, int backlog, struct err *err)
{
	struct addrinfo *list, *ai;
	char text[320];
	int rc = resolve(addr, true, &list, err);

	if (rc)
		return rc;
	rc = -EADDRNOTAVAIL;
	/* "Any" is IPv6 with IPv4 mapped into it, and IPv4 alone only where there is no IPv6. */
	for (int pass = 0; pass < 2 && rc < 0; pass++)
		for (ai = list; ai && rc < 0; ai = ai->ai_next) {
			int fd;

			if (!*addr->host && (ai->ai_family == AF_INET6) != (pass == 0))
				continue;
			fd = new_socket(ai->ai_family, NULL);
			if (fd < 0)
				continue;
			set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
			if (ai->ai_family == AF_INET6)
				set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, *addr->host != '\0');
			rc = bind_listen(fd, ai->ai_addr, ai->ai_addrlen, backlog);
			if (rc < 0)
				close(fd);
		}
	freeaddrinfo(list);
	return rc >= 0 ? rc : err_sys(err, rc, "listen on %s",
				      net_addr_format(addr, text, sizeof(text)));
}

/* Whether nobody listens behind a socket file. Connecting to a plain file is refused, too. */
static bool is_stale(const struct sockaddr_un *un)
{
	struct stat st;
	bool stale;
	int fd;

	if (lstat(un->sun_path, &st) || !S_ISSOCK(st.st_mode))
		return false;
	fd = new_socket(AF_UNIX, NULL);
	if (fd < 0)
		return false;
	stale = connect(fd, (const struct sockaddr *)un, sizeof(*un)) && errno == ECONNREFUSED;
	close(fd);
	return stale;
}

static int listen_unix(const struct net_addr *addr, int backlog, struct err *err)
{
	struct sockaddr_un un;
	int fd = new_socket(AF_UNIX, err), rc;

	if (fd < 0)
		return fd;
	fill_unix(addr, &un);
	rc = bind_listen(fd, (struct sockaddr *)&un, sizeof(un), backlog);
	if (rc == -EADDRINUSE && is_stale(&un)) {
		unlink(un.sun_path);
		rc = bind_listen(fd, (struct sockaddr *)&un, sizeof(un), backlog);
	}
	if (rc >= 0)
		return rc;
	close(fd);
	return err_sys(err, rc, "listen on unix:%s", addr->path);
}

static int listen_vsock(const struct net_addr *addr, int backlog, struct err *err)
{
	struct sockaddr_vm vm;
	int fd = new_socket(AF_VSOCK, err), rc;

	if (fd < 0)
		return fd;
	fill_vsock(addr, &vm);
	rc = bind_listen(fd, (struct sockaddr *)&vm, sizeof(vm), backlog);
	if (rc >= 0)
		return rc;
	close(fd);
	return err_sys(err, rc, "listen on vsock:%u:%u", addr->cid, addr->port);
}

int net_listen(const struct net_addr *addr, int backlog, struct err *err)
{
	switch (addr->family) {
	case NET_TCP:
		return listen_tcp(addr, backlog, err);
	case NET_UNIX:
		return listen_unix(addr, backlog, err);
	case NET_VSOCK:
		return listen_vsock(addr, backlog, err);
	}
	return err_set(err, -EINVAL, "listen: no such kind of address");
}

static void from_inet(const struct sockaddr_storage *ss, struct net_addr *addr)
{
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)ss;
	const struct sockaddr_in *in = (const struct sockaddr_in *)ss;

	addr->family = NET_TCP;
	if (ss->ss_family == AF_INET) {
		snprintf(addr->service, sizeof(addr->service), "%u", ntohs(in->sin_port));
		if (in->sin_addr.s_addr != htonl(INADDR_ANY))
			inet_ntop(AF_INET, &in->sin_addr, addr->host, sizeof(addr->host));
		return;
	}
	snprintf(addr->service, sizeof(addr->service), "%u", ntohs(in6->sin6_port));
	if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
		inet_ntop(AF_INET, in6->sin6_addr.s6_addr + 12, addr->host, sizeof(addr->host));
	else if (!IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr))
		inet_ntop(AF_INET6, &in6->sin6_addr, addr->host, sizeof(addr->host));
}

static int from_sockaddr(const struct sockaddr_storage *ss, struct net_addr *addr)
{
	const struct sockaddr_un *un = (const struct sockaddr_un *)ss;
	const struct sockaddr_vm *vm = (const struct sockaddr_vm *)ss;

	memset(addr, 0, sizeof(*addr));
	switch (ss->ss_family) {
	case AF_INET:
	case AF_INET6:
		from_inet(ss, addr);
		return 0;
	case AF_UNIX:
		addr->family = NET_UNIX;
		snprintf(addr->path, sizeof(addr->path), "%.*s", (int)sizeof(un->sun_path) - 1,
			 un->sun_path);
		return 0;
	case AF_VSOCK:
		addr->family = NET_VSOCK;
		addr->cid = vm->svm_cid;
		addr->port = vm->svm_port;
		return 0;
	}
	return -EAFNOSUPPORT;
}

bool net_within_host(int fd)
{
	struct sockaddr_storage end[2] = {0};
	socklen_t len[2] = {sizeof(end[0]), sizeof(end[1])};
	char host[2][NI_MAXHOST];

	if (getsockname(fd, (struct sockaddr *)&end[0], &len[0]) ||
	    getpeername(fd, (struct sockaddr *)&end[1], &len[1]))
		return false;
	for (unsigned i = 0; i < 2; i++)
		if (getnameinfo((struct sockaddr *)&end[i], len[i], host[i], sizeof(host[i]),
				NULL, 0, NI_NUMERICHOST))
			return false;
	return end[0].ss_family != AF_UNIX && !strcmp(host[0], host[1]);
}

int net_local_addr(int fd, struct net_addr *addr, struct err *err)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);
	int rc;

	if (getsockname(fd, (struct sockaddr *)&ss, &len))
		return err_sys(err, -errno, "getsockname");
	rc = from_sockaddr(&ss, addr);
	return rc ? err_sys(err, rc, "getsockname") : 0;
}

static int remaining_ms(uint64_t deadline_us)
{
	uint64_t now = units_now_us();

	return now >= deadline_us ? 0 : (int)((deadline_us - now + 999) / 1000);
}

static int wait_connected(int fd, uint64_t deadline_us)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	socklen_t len = sizeof(int);
	int rc, so_error = 0;

	do
		rc = poll(&p, 1, remaining_ms(deadline_us));
	while (rc < 0 && errno == EINTR);
	if (rc < 0)
		return -errno;
	if (!rc)
		return -ETIMEDOUT;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &so_error, &len))
		return -errno;
	return -so_error;
}

static int connect_one(int family, const struct sockaddr *sa, socklen_t len, uint64_t deadline_us)
{
	int fd = new_socket(family, NULL), rc;

	if (fd < 0)
		return fd;
	rc = connect(fd, sa, len) ? -errno : 0;
	if (rc == -EINPROGRESS)
		rc = wait_connected(fd, deadline_us);
	if (!rc)
		return fd;
	close(fd);
	return rc;
}

static int connect_tcp(const struct net_addr *addr, uint64_t deadline_us, struct err *err)
{
	struct addrinfo *list, *ai;
	char text[320];
	int left = 0, rc = resolve(addr, false, &list, err);

	if (rc)
		return rc;
	for (ai = list; ai; ai = ai->ai_next)
		left++;
	/* Each address gets its share of the time, so that a silent one hides no other. */
	for (ai = list, rc = -ETIMEDOUT; ai && rc < 0; ai = ai->ai_next, left--) {
		uint64_t share = (uint64_t)(remaining_ms(deadline_us) / left) * 1000;

		rc = connect_one(ai->ai_family, ai->ai_addr, ai->ai_addrlen, units_now_us() + share);
	}
	freeaddrinfo(list);
	if (rc < 0)
		return err_sys(err, rc, "connect to %s", net_addr_format(addr, text, sizeof(text)));
	tune_tcp(rc);
	return rc;
}

/*
 * A unix socket whose backlog is full gives a non-blocking connect(2) nothing to poll for,
 * a blocking one waits for SO_SNDTIMEO (unix(7)).
 */
static int connect_unix(const struct net_addr *addr, int timeout_ms, struct err *err)
{
	struct timeval tv = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
	struct sockaddr_un un;
	int fd, rc = 0;

	fill_unix(addr, &un);
	if (!timeout_ms)
		tv.tv_usec = 1; /* 0 would be for ever */
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_sys(err, -errno, "socket");
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)))
		rc = -errno;
	while (!rc && connect(fd, (struct sockaddr *)&un, sizeof(un)))
		if (errno != EINTR)
			rc = errno == EAGAIN ? -ETIMEDOUT : -errno;
	if (!rc && fcntl(fd, F_SETFL, O_NONBLOCK))
		rc = -errno;
	if (!rc)
		return fd;
	close(fd);
	if (rc == -ECONNREFUSED)
		return err_set(err, rc, "connect to unix:%s: nobody listens there any more", addr->path);
	return err_sys(err, rc, "connect to unix:%s", addr->path);
}

int net_connect(const struct net_addr *addr, int timeout_ms, struct err *err)
{
	uint64_t deadline_us = units_now_us() + (uint64_t)timeout_ms * 1000;
	struct sockaddr_vm vm;
	int rc;

	switch (addr->family) {
	case NET_TCP:
		return connect_tcp(addr, deadline_us, err);
	case NET_UNIX:
		return connect_unix(addr, timeout_ms, err);
	case NET_VSOCK:
		fill_vsock(addr, &vm);
		rc = connect_one(AF_VSOCK, (struct sockaddr *)&vm, sizeof(vm), deadline_us);
		if (rc < 0)
			return err_sys(err, rc, "connect to vsock:%u:%u", addr->cid, addr->port);
		return rc;
	}
	return err_set(err, -EINVAL, "connect: no such kind of address");
}

static void peer_words(int fd, const struct sockaddr_storage *ss, char *peer, size_t size)
{
	struct net_addr addr;
	struct ucred cred;
	socklen_t len = sizeof(cred);
	char text[320];

	if (ss->ss_family == AF_UNIX && !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		snprintf(peer, size, "pid %d of uid %u", (int)cred.pid, (unsigned)cred.uid);
	else if (!from_sockaddr(ss, &addr))
		snprintf(peer, size, "%s", net_addr_format(&addr, text, sizeof(text)));
	else
		snprintf(peer, size, "unknown");
}

void net_write_ahead(int fd, int bytes)
{
	/* Beyond net.core.wmem_max only with CAP_NET_ADMIN; else as much as is allowed. */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)))
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

int net_pair(int fd[2])
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
		return -errno;
	net_write_ahead(fd[0], NET_WRITE_AHEAD);
	net_write_ahead(fd[1], NET_WRITE_AHEAD);
	return 0;
}

int net_accept(int listener, char *peer, size_t size, struct err *err)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);
	int fd;

	do
		fd = accept4(listener, (struct sockaddr *)&ss, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
	while (fd < 0 && errno == EINTR);
	if (fd < 0) /* one that gave up before we came is no failure of ours */
		return err_sys(err, errno == ECONNABORTED ? -EAGAIN : -errno, "accept");
	if (ss.ss_family == AF_INET || ss.ss_family == AF_INET6)
		tune_tcp(fd);
	if (peer)
		peer_words(fd, &ss, peer, size);
	return fd;
}
