/* SPDX-License-Identifier: MIT */
/*
 * Requests one after another over a socket: unix, vsock, and the unix sockets that Firecracker
 * and Cloud Hypervisor make of a guest's vsock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "base/log.h"
#include "cardd/inside.h"

#define IN_SIZE (4 * CARD_MESSAGE_MAX)
#define OUT_SIZE (8 * CARD_MESSAGE_MAX)
#define HYBRID_WORD "CONNECT "
#define HYBRID_MAX 32

struct stream_link {
	struct cardd_link l; /* first */
	struct watch watch;
	int fd;
	bool begun; /* the first bytes were looked at */
	uint64_t last_seq;
	uint32_t in_from, in_to, out_from, out_to;
	uint8_t in[IN_SIZE], out[OUT_SIZE];
};

static uint32_t out_free(const struct stream_link *s)
{
	return OUT_SIZE - (s->out_to - s->out_from);
}

static int waiting_size(const struct stream_link *s)
{
	return card_request_size(s->in + s->in_from, s->in_to - s->in_from);
}

static bool stream_peek(struct cardd_link *l)
{
	struct stream_link *s = (struct stream_link *)l;
	int size = s->begun ? waiting_size(s) : 0;

	if (size < 0)
		return true; /* take() ends it */
	return size && (uint32_t)size <= s->in_to - s->in_from && l->inflight < l->depth &&
	       out_free(s) >= (l->inflight + 1) * CARD_MESSAGE_MAX;
}

static void cut(struct stream_link *s, const char *why)
{
	if (s->l.closed)
		return;
	log_verbose("vm %s: link cut: %s", s->l.vm->conf->name, why);
	watch_remove(s->l.vm->d, &s->watch);
	close(s->fd);
	s->fd = -1;
	link_close(&s->l);
}

static void make_out_room(struct stream_link *s)
{
	if (OUT_SIZE - s->out_to >= CARD_MESSAGE_MAX)
		return;
	memmove(s->out, s->out + s->out_from, s->out_to - s->out_from);
	s->out_to -= s->out_from;
	s->out_from = 0;
}

static bool stream_take(struct cardd_link *l, struct cardd_job *job)
{
	struct stream_link *s = (struct stream_link *)l;
	const struct card_op_info *info;
	const uint8_t *at = s->in + s->in_from;
	int size = waiting_size(s);

	if (size <= 0) {
		cut(s, "what came is no request");
		return false;
	}
	memcpy(&job->rq, at, sizeof(job->rq));
	if (job->rq.seq != s->last_seq + 1) {
		cut(s, "a request out of sequence");
		return false;
	}
	s->last_seq++;
	memcpy(job->args, at + sizeof(job->rq), job->rq.args_len);
	job->shared_in = (uint8_t *)(uintptr_t)(at + sizeof(job->rq) + job->rq.args_len);
	s->in_from += (uint32_t)size;
	make_out_room(s);
	info = card_op_info(job->rq.op);
	job->shared_out = s->out + s->out_to + sizeof(job->an) + (info ? info->answer_args : 0);
	return true;
}

static void stream_answer(struct cardd_link *l, struct cardd_job *job)
{
	struct stream_link *s = (struct stream_link *)l;
	uint8_t *to;

	make_out_room(s);
	to = s->out + s->out_to;
	memcpy(to, &job->an, sizeof(job->an));
	memcpy(to + sizeof(job->an), job->out_args, job->an.args_len);
	to += sizeof(job->an) + job->an.args_len;
	if (job->an.data_len && !job->direct)
		memcpy(to, job->call.out, job->an.data_len);
	s->out_to += (uint32_t)sizeof(job->an) + job->an.args_len + job->an.data_len;
	link_dirty(l);
}

static void watch_what_matters(struct stream_link *s)
{
	uint32_t events = 0;

	if (s->in_to - s->in_from < CARD_MESSAGE_MAX)
		events |= EPOLLIN;
	if (s->out_to > s->out_from)
		events |= EPOLLOUT;
	watch_change(s->l.vm->d, &s->watch, events);
}

static void stream_flush(struct cardd_link *l)
{
	struct stream_link *s = (struct stream_link *)l;

	while (s->out_to > s->out_from) {
		ssize_t n = send(s->fd, s->out + s->out_from, s->out_to - s->out_from, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN) {
			cut(s, strerror(errno));
			return;
		}
		if (n < 0)
			break;
		s->out_from += (uint32_t)n;
	}
	if (s->out_from == s->out_to)
		s->out_from = s->out_to = 0;
	watch_what_matters(s);
}

/* "CONNECT PORT\n" in front, as to a hybrid vsock: answered "OK PORT\n". A request begins otherwise. */
static void look_at_beginning(struct stream_link *s)
{
	uint32_t have = s->in_to - s->in_from, word = sizeof(HYBRID_WORD) - 1;
	uint32_t common = have < word ? have : word;
	char answer[HYBRID_MAX + 8];
	unsigned long port;
	uint8_t *end;
	char *rest;
	int n;

	if (memcmp(s->in + s->in_from, HYBRID_WORD, common) != 0) {
		s->begun = true;
		return;
	}
	end = memchr(s->in + s->in_from, '\n', have);
	if (!end && have >= HYBRID_MAX) {
		cut(s, "CONNECT without an end");
		return;
	}
	if (!end)
		return;
	*end = '\0';
	port = strtoul((char *)s->in + s->in_from + word, &rest, 10);
	if (rest != (char *)end || port != s->l.vm->d->conf->vsock_port) {
		cut(s, "CONNECT to another port than ours");
		return;
	}
	n = snprintf(answer, sizeof(answer), "OK %lu\n", port);
	s->in_from = (uint32_t)(end + 1 - s->in);
	s->begun = true;
	if (send(s->fd, answer, (size_t)n, MSG_NOSIGNAL) != n)
		cut(s, "CONNECT: the answer does not go out");
}

static void stream_ready(struct watch *w, uint32_t events)
{
	struct stream_link *s = w->owner;
	ssize_t n;

	if (events & EPOLLOUT)
		stream_flush(&s->l);
	if (s->l.closed || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		goto out;
	if (s->in_from == s->in_to)
		s->in_from = s->in_to = 0;
	if (IN_SIZE - s->in_to < CARD_MESSAGE_MAX) {
		memmove(s->in, s->in + s->in_from, s->in_to - s->in_from);
		s->in_to -= s->in_from;
		s->in_from = 0;
	}
	if (s->in_to == IN_SIZE)
		goto out;
	n = recv(s->fd, s->in + s->in_to, IN_SIZE - s->in_to, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		cut(s, n ? strerror(errno) : "the guest's end was closed");
		return;
	}
	s->in_to += (uint32_t)n;
	if (!s->begun)
		look_at_beginning(s);
out:
	if (s->l.closed)
		return;
	link_wake(&s->l);
	watch_what_matters(s);
}

static void stream_free(struct cardd_link *l)
{
	struct stream_link *s = (struct stream_link *)l;

	OPENSSL_cleanse(s->in, sizeof(s->in));
	OPENSSL_cleanse(s->out, sizeof(s->out));
	l->vm->streams--;
	free(s);
}

static const struct cardd_link_ops stream_ops = {
	.name = "stream",
	.peek = stream_peek,
	.take = stream_take,
	.answer = stream_answer,
	.flush = stream_flush,
	.free = stream_free,
	.private_memory = true,
	.polled_by_epoll = true,
};

int stream_accept(struct cardd_vm *vm, int fd)
{
	struct stream_link *s = NULL;
	int rc = -EMFILE;

	if (vm->streams < vm->conf->links_max) {
		rc = -ENOMEM;
		s = calloc(1, sizeof(*s));
	}
	if (!s) {
		close(fd);
		return rc;
	}
	s->fd = fd;
	rc = watch_add(vm->d, &s->watch, fd, EPOLLIN, stream_ready, s);
	if (rc) {
		close(fd);
		free(s);
		return rc;
	}
	vm->streams++;
	link_init(&s->l, &stream_ops, vm);
	return 0;
}

void stream_close_all(struct cardd_vm *vm)
{
	for (struct cardd_link *l = vm->links, *next; l; l = next) {
		next = l->next;
		if (l->ops == &stream_ops)
			cut((struct stream_link *)l, "the daemon ends");
	}
}
