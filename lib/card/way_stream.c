/* SPDX-License-Identifier: MIT */
/* unix:PATH, vsock:CID:PORT, hybrid:PATH:PORT: messages one after another. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "base/units.h"
#include "card/hybrid.h"
#include "card/way.h"
#include "net/addr.h"

#define DEPTH 32
#define IN_SIZE (4 * CARD_MESSAGE_MAX)
#define OUT_SIZE (2 * CARD_MESSAGE_MAX)

struct stream {
	struct card_way way; /* first */
	int fd;
	short events; /* waited for; of the one who sleeps */
	uint32_t in_from, in_to, out_from, out_to;
	uint8_t in[IN_SIZE], out[OUT_SIZE];
};

static int stream_start(struct stream *s, const struct net_addr *addr, int timeout_ms, struct err *err)
{
	s->fd = net_connect(addr, timeout_ms, err);
	s->way.depth = DEPTH;
	return s->fd < 0 ? s->fd : 0;
}

static int stream_open(struct card_way *way, const char *address, int timeout_ms, struct err *err)
{
	struct net_addr addr;
	int rc = net_addr_parse(address, &addr, err);

	if (rc)
		return rc;
	net_addr_format(&addr, way->text, sizeof(way->text));
	return stream_start((struct stream *)way, &addr, timeout_ms, err);
}

/* A Firecracker-like socket: ask it for the port, and wait for its word. */
static int hybrid_open(struct card_way *way, const char *address, int timeout_ms, struct err *err)
{
	struct stream *s = (struct stream *)way;
	struct net_addr addr = {.family = NET_UNIX};
	struct card_hybrid h = {0};
	const char *path = address + strlen("hybrid:"), *colon = strrchr(path, ':');
	uint64_t until = units_now_us() + (uint64_t)timeout_ms * 1000;
	char word[64];
	int n, rc;

	if (!colon || colon == path || (size_t)(colon - path) >= sizeof(addr.path) ||
	    strspn(colon + 1, "0123456789") != strlen(colon + 1) || !colon[1])
		return err_set(err, -EINVAL, "address '%.64s': not hybrid:PATH:PORT", address);
	memcpy(addr.path, path, (size_t)(colon - path));
	snprintf(way->text, sizeof(way->text), "%s", address);
	rc = stream_start(s, &addr, timeout_ms, err);
	if (rc)
		return rc;
	n = snprintf(word, sizeof(word), "CONNECT %.10s\n", colon + 1);
	if (send(s->fd, word, (size_t)n, MSG_NOSIGNAL) != n)
		rc = err_sys(err, -EIO, "connect to %s", address);
	while (!rc && !h.done) {
		struct pollfd p = {.fd = s->fd, .events = POLLIN};
		uint64_t now = units_now_us();
		char byte;

		if (now >= until || poll(&p, 1, (int)((until - now + 999) / 1000)) <= 0)
			rc = err_sys(err, -ETIMEDOUT, "connect to %s", address);
		else if (recv(s->fd, &byte, 1, 0) != 1) /* one by one: what follows is not ours */
			rc = err_set(err, -ECONNREFUSED, "connect to %s: nobody listens at this port",
				     address);
		else if (card_hybrid_feed(&h, byte))
			rc = err_set(err, -EPROTO, "connect to %s: it does not answer 'OK PORT'", address);
	}
	if (rc)
		close(s->fd);
	return rc;
}

static void stream_close(struct card_way *way)
{
	struct stream *s = (struct stream *)way;

	close(s->fd);
	OPENSSL_cleanse(s->in, sizeof(s->in));
	OPENSSL_cleanse(s->out, sizeof(s->out));
}

static int stream_push(struct card_way *way)
{
	struct stream *s = (struct stream *)way;

	while (s->out_from < s->out_to) {
		ssize_t n = send(s->fd, s->out + s->out_from, s->out_to - s->out_from, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -ENOTCONN;
		s->out_from += (uint32_t)n;
	}
	s->out_from = s->out_to = 0;
	return 0;
}

static int fill_in(struct stream *s)
{
	ssize_t n;

	if (s->in_from == s->in_to)
		s->in_from = s->in_to = 0;
	if (IN_SIZE - s->in_to < CARD_MESSAGE_MAX) {
		memmove(s->in, s->in + s->in_from, s->in_to - s->in_from);
		s->in_to -= s->in_from;
		s->in_from = 0;
	}
	n = recv(s->fd, s->in + s->in_to, IN_SIZE - s->in_to, 0);
	if (n > 0)
		s->in_to += (uint32_t)n;
	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return 0;
	return -ENOTCONN;
}

/* The daemon may answer nothing until it got rid of answers: take those while there is no room. */
static int make_out_room(struct stream *s)
{
	while (OUT_SIZE - s->out_to < CARD_MESSAGE_MAX) {
		struct pollfd p = {.fd = s->fd, .events = POLLOUT};
		int rc;

		if (s->in_to - s->in_from < IN_SIZE)
			p.events |= POLLIN;
		if (poll(&p, 1, -1) < 0 && errno != EINTR)
			return -ENOTCONN;
		rc = p.revents & (POLLIN | POLLHUP | POLLERR) ? fill_in(s) : 0;
		if (!rc)
			rc = stream_push(&s->way);
		if (rc)
			return rc;
		if (s->out_from) {
			memmove(s->out, s->out + s->out_from, s->out_to - s->out_from);
			s->out_to -= s->out_from;
			s->out_from = 0;
		}
	}
	return 0;
}

static void append(struct stream *s, const void *p, uint32_t n)
{
	if (n)
		memcpy(s->out + s->out_to, p, n);
	s->out_to += n;
}

static int stream_put(struct card_way *way, const struct card_request *rq, const void *args,
		      const void *data, uint32_t data_len, const void *data2, uint32_t data2_len)
{
	struct stream *s = (struct stream *)way;
	int rc = make_out_room(s);

	if (rc)
		return rc;
	append(s, rq, sizeof(*rq));
	append(s, args, rq->args_len);
	append(s, data, data_len);
	append(s, data2, data2_len);
	return 0;
}

static int stream_get(struct card_way *way, struct card_reply *reply)
{
	struct stream *s = (struct stream *)way;
	int size, rc;

	for (int tries = 0;; tries++) {
		uint32_t have = s->in_to - s->in_from;

		size = card_answer_size(s->in + s->in_from, have);
		if (size < 0)
			return -ENOTCONN;
		if (size && (uint32_t)size <= have)
			break;
		if (tries)
			return 0;
		if (s->out_from < s->out_to && stream_push(way))
			return -ENOTCONN;
		rc = fill_in(s);
		if (rc)
			return rc;
	}
	memcpy(&reply->an, s->in + s->in_from, sizeof(reply->an));
	reply->seq = reply->an.seq;
	reply->args = s->in + s->in_from + sizeof(reply->an);
	reply->data = reply->args + reply->an.args_len;
	return 1;
}

static void stream_drop(struct card_way *way, const struct card_reply *reply)
{
	((struct stream *)way)->in_from +=
		(uint32_t)sizeof(reply->an) + reply->an.args_len + reply->an.data_len;
}

static bool stream_arm(struct card_way *way)
{
	struct stream *s = (struct stream *)way;

	s->events = POLLIN | (s->out_from < s->out_to ? POLLOUT : 0);
	way->wakeups++;
	return true;
}

static void stream_block(struct card_way *way, uint64_t timeout_us)
{
	const struct stream *s = (const struct stream *)way;
	struct pollfd p = {.fd = s->fd, .events = s->events};

	(void)poll(&p, 1, (int)((timeout_us + 999) / 1000));
}

static int stream_disarm(struct card_way *way)
{
	(void)way; /* get() tells whether the link is lost */
	return 0;
}

#define STREAM_OPS \
	.close = stream_close, .put = stream_put, .push = stream_push, .get = stream_get, \
	.drop = stream_drop, .arm = stream_arm, .block = stream_block, .disarm = stream_disarm, \
	.size = sizeof(struct stream)

const struct card_way_ops card_way_unix = {
	.scheme = "unix:",
	.found = "/run/util-vm/cardshare/card.sock",
	.usual = "unix:/run/util-vm/cardshare/card.sock",
	.open = stream_open,
	STREAM_OPS,
};

const struct card_way_ops card_way_vsock = {
	.scheme = "vsock:",
	.found = "/dev/vsock",
	.usual = "vsock:2:7073",
	.open = stream_open,
	STREAM_OPS,
};

const struct card_way_ops card_way_hybrid = {
	.scheme = "hybrid:",
	.open = hybrid_open,
	STREAM_OPS,
};
