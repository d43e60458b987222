/* SPDX-License-Identifier: MIT */
/*
 * The split vTPM driver of the lab: a TPM in one guest, its user in another.
 *	vtpm_front		in the VM's kernel: a /dev/tpm0, whose commands it sends to the other guest
 *	vtpm-back PORT SOCKET	there: hands them to the swtpm that listens at SOCKET
 *
 * Datagrams with a session and a sequence number, not TCP: either guest may be stopped or
 * away for a while, and TCP doubles its retransmission timeout meanwhile (from 200 ms), so that
 * the user waits long after both are back. Here the front end repeats its command every
 * few milliseconds, and the back end does it once: it ignores a repetition of what is being done,
 * and answers that of what is done from memory. Both live in guest memory, so that
 * they migrate with their guests, and no connection is there to break.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../vtpm-front/frame.h"

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "vtpm-back: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint32_t tpm_u32(const uint8_t *at)
{
	uint32_t v;

	memcpy(&v, at, sizeof(v));
	return be32toh(v);
}

static void frame_init(struct frame *f, uint32_t type, uint64_t session, uint64_t seq)
{
	f->magic = htobe32(FRAME_MAGIC);
	f->type = htobe32(type);
	f->session = htobe64(session);
	f->seq = htobe64(seq);
}

/* 0 if it is a frame at all. */
static int frame_check(const struct frame *f, ssize_t n)
{
	return n >= (ssize_t)FRAME_HEAD && be32toh(f->magic) == FRAME_MAGIC ? 0 : -EBADMSG;
}

static uint16_t port_number(const char *text)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (end == text || *end || !n || n > 65535) {
		fprintf(stderr, "vtpm-back: %s: not a port\n", text);
		exit(2);
	}
	return htons((uint16_t)n);
}

static int swtpm_connect(const char *path)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || strlen(path) >= sizeof(to.sun_path))
		die(path);
	strcpy(to.sun_path, path);
	for (int i = 0; connect(fd, (struct sockaddr *)&to, sizeof(to)); i++) {
		if (i == 3000)
			die(path);
		usleep(10000);
	}
	return fd;
}

/* Read what there is of a response to @buf, *@have bytes so far. true: it is complete. */
static bool swtpm_read(int fd, uint8_t *buf, size_t *have)
{
	size_t want = *have < TPM_HEAD ? TPM_HEAD : tpm_u32(buf + 2);
	ssize_t n;

	if (want < TPM_HEAD || want > TPM_MAX) {
		errno = EBADMSG;
		die("swtpm's response");
	}
	n = *have < want ? read(fd, buf + *have, want - *have) : 0;
	if (n < 0 && errno == EINTR)
		return false;
	if (n <= 0) {
		errno = n < 0 ? errno : EPIPE;
		die("swtpm");
	}
	*have += (size_t)n;
	return *have >= TPM_HEAD && *have == tpm_u32(buf + 2);
}

static int serve(const char *port, const char *path)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = port_number(port) }, from, user = at;
	struct frame in, out;
	uint64_t session = 0, seq = 0;
	size_t have = 0;
	bool busy = false;
	int udp, tpm;

	tpm = swtpm_connect(path);
	udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (udp < 0 || bind(udp, (struct sockaddr *)&at, sizeof(at)))
		die("socket");
	puts("vtpm-back: serving");
	fflush(stdout);

	for (;;) {
		struct pollfd p[2] = { { .fd = udp, .events = POLLIN }, { .fd = tpm, .events = POLLIN } };
		socklen_t size = sizeof(from);
		ssize_t n;

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			die("poll");
		if (p[1].revents && swtpm_read(tpm, out.tpm, &have)) {
			busy = false;
			(void)!sendto(udp, &out, FRAME_HEAD + have, 0, (struct sockaddr *)&user, sizeof(user));
		}
		if (!p[0].revents)
			continue;
		n = recvfrom(udp, &in, sizeof(in), MSG_DONTWAIT, (struct sockaddr *)&from, &size);
		if (frame_check(&in, n) || be32toh(in.type) != FRAME_COMMAND ||
		    n < (ssize_t)FRAME_HEAD + TPM_HEAD)
			continue;
		if (busy)
			continue; /* a repetition; or a new front end, which will repeat */
		if (be64toh(in.session) == session && be64toh(in.seq) == seq) {
			(void)!sendto(udp, &out, FRAME_HEAD + have, 0, (struct sockaddr *)&from, size);
			continue;
		}
		if (be64toh(in.session) != session && be64toh(in.seq) != 1) {
			frame_init(&in, FRAME_NO_SESSION, be64toh(in.session), be64toh(in.seq));
			(void)!sendto(udp, &in, FRAME_HEAD, 0, (struct sockaddr *)&from, size);
			continue;
		}
		if (be64toh(in.session) == session && be64toh(in.seq) < seq)
			continue; /* late; one that is skipped was given up before it got here */
		session = be64toh(in.session);
		seq = be64toh(in.seq);
		user = from;
		frame_init(&out, FRAME_RESPONSE, session, seq);
		have = 0;
		busy = true;
		n -= (ssize_t)FRAME_HEAD;
		if (write(tpm, in.tpm, (size_t)n) != n)
			die("swtpm");
	}
}

int main(int argc, char **argv)
{
	if (argc == 3)
		return serve(argv[1], argv[2]);
	fputs("usage: vtpm-back PORT SOCKET\n", stderr);
	return 2;
}
