/* SPDX-License-Identifier: MIT */
/*
 * The split vTPM driver of the lab: a TPM in one guest, its user in another.
 *	vtpm-relay front ADDRESS PORT	in the VM: makes /dev/tpm0 of tpm_vtpm_proxy, sends each command
 *	vtpm-relay serve PORT SOCKET	in the vTPM guest: hands it to the swtpm that listens at SOCKET
 *
 * Datagrams with a session and a sequence number, not TCP: either guest may be stopped or
 * away for a while, and TCP doubles its retransmission timeout meanwhile (from 200 ms), so that
 * the user waits long after both are back. Here the front end repeats its command every
 * REPEAT_MS, and the back end does it once: it ignores a repetition of what is being done,
 * and answers that of what is done from memory. Both live in guest memory, so that
 * they migrate with their guests, and no connection is there to break.
 * SIGUSR1 prints what the front end has seen.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/vtpm_proxy.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define REPEAT_MS     4
#define ANSWER_MS     400
#define TPM_MAX	      4096 /* TPM_BUFSIZE of the kernel */
#define TPM_HEAD      10   /* tag, length, command or response code; big-endian */
#define TPM_RC_FAILURE 0x101
#define TPM_RC_RETRY  0x922
#define FRAME_MAGIC   UINT32_C(0x76747231) /* "vtr1" */

enum { FRAME_COMMAND, FRAME_RESPONSE, FRAME_NO_SESSION, FRAME_HELLO };

struct frame {
	uint32_t magic;
	uint32_t type;
	uint64_t session;
	uint64_t seq;
	uint8_t tpm[TPM_MAX];
} __attribute__((packed));

#define FRAME_HEAD offsetof(struct frame, tpm)

static volatile sig_atomic_t asked;

static void on_usr1(int sig)
{
	(void)sig;
	asked = 1;
}

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "vtpm-relay: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint32_t tpm_u32(const uint8_t *at)
{
	uint32_t v;

	memcpy(&v, at, sizeof(v));
	return be32toh(v);
}

/* A response that consists of its head. Returns its size. */
static size_t tpm_bare_response(uint8_t *buf, uint32_t rc)
{
	const uint8_t head[TPM_HEAD] = { 0x80, 0x01, 0, 0, 0, TPM_HEAD, (uint8_t)(rc >> 24),
					 (uint8_t)(rc >> 16), (uint8_t)(rc >> 8), (uint8_t)rc };

	memcpy(buf, head, sizeof(head));
	return sizeof(head);
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
		fprintf(stderr, "vtpm-relay: %s: not a port\n", text);
		exit(2);
	}
	return htons((uint16_t)n);
}

struct front {
	int udp;
	uint64_t session, seq;
	struct frame out; /* the command that is under way */
	size_t pending;	  /* its size, or 0 */
	uint64_t begun_us;
	uint64_t commands, repeats, longest_us;
};

static void front_new_session(struct front *f)
{
	/* GRND_INSECURE: early in boot the other kinds wait for entropy. */
	if (getrandom(&f->session, sizeof(f->session), GRND_INSECURE) != sizeof(f->session))
		die("getrandom");
	f->seq = 0;
}

static void front_begin(struct front *f, const uint8_t *command, size_t len)
{
	frame_init(&f->out, FRAME_COMMAND, f->session, ++f->seq);
	memcpy(f->out.tpm, command, len);
	f->pending = len;
	f->begun_us = now_us();
	f->commands++;
}

/* The answer to what is pending: its size, or 0 if it is not this. */
static size_t front_take(struct front *f, const struct frame *in, ssize_t n, uint8_t *response)
{
	uint64_t us = now_us() - f->begun_us;

	if (frame_check(in, n) || be64toh(in->session) != f->session || be64toh(in->seq) != f->seq)
		return 0;
	if (be32toh(in->type) == FRAME_NO_SESSION) {
		/* Another back end, or it began anew: nobody can tell whether the
		 * command was done, so the caller is told that it failed. */
		front_new_session(f);
		return tpm_bare_response(response, TPM_RC_FAILURE);
	}
	n -= (ssize_t)FRAME_HEAD;
	if (n < TPM_HEAD)
		return 0;
	if (us > f->longest_us)
		f->longest_us = us;
	memcpy(response, in->tpm, (size_t)n);
	return (size_t)n;
}

/* Have what is pending done exactly once; the size of its @response, or 0: not within ANSWER_MS. */
static size_t front_ask(struct front *f, uint8_t *response)
{
	const uint64_t until = now_us() + ANSWER_MS * 1000;
	struct frame in;
	size_t size;
	ssize_t n;

	while (now_us() < until) {
		struct pollfd p = { .fd = f->udp, .events = POLLIN };

		/* A send that fails is a datagram lost: the peer may be away. */
		(void)!send(f->udp, &f->out, FRAME_HEAD + f->pending, 0);
		while (poll(&p, 1, REPEAT_MS) > 0) {
			n = recv(f->udp, &in, sizeof(in), MSG_DONTWAIT);
			if (n < 0 && errno != EAGAIN && errno != EINTR)
				break; /* ECONNREFUSED: the back end is not up yet */
			size = front_take(f, &in, n, response);
			if (size) {
				f->pending = 0;
				return size;
			}
		}
		if (p.revents && REPEAT_MS)
			usleep(REPEAT_MS * 1000);
		f->repeats++;
	}
	return 0;
}

/*
 * The kernel waits 750 ms for most commands and then gives up, which a move of both guests can take. What a TPM
 * that is busy answers, it asks again, for some seconds; so it is told that, and the answer is for who asks next.
 */
static size_t front_do(struct front *f, const uint8_t *command, size_t len, uint8_t *response)
{
	size_t size;

	if (f->pending && (f->pending != len || memcmp(f->out.tpm, command, len) != 0))
		while (!front_ask(f, response))
			; /* given up by the kernel; but the back end must have had it before the next */
	if (!f->pending)
		front_begin(f, command, len);
	size = front_ask(f, response);
	return size ? size : tpm_bare_response(response, TPM_RC_RETRY);
}

/* Until the back end answers at all. The kernel gives a TPM up for good that does not answer
 * its first commands within a second or two, so it is shown one only then. */
static void front_wait(struct front *f)
{
	struct frame hello;
	ssize_t n;

	for (;;) {
		struct pollfd p = { .fd = f->udp, .events = POLLIN };

		frame_init(&hello, FRAME_HELLO, f->session, 0);
		(void)!send(f->udp, &hello, FRAME_HEAD, 0);
		if (poll(&p, 1, 20) > 0) {
			n = recv(f->udp, &hello, sizeof(hello), MSG_DONTWAIT);
			if (!frame_check(&hello, n))
				return;
			usleep(20000);
		}
	}
}

/* Returns the descriptor behind a new /dev/tpmN. */
static int front_new_tpm(void)
{
	struct vtpm_proxy_new_dev dev = { .flags = VTPM_PROXY_FLAG_TPM2 };
	int ctl = open("/dev/vtpmx", O_RDWR | O_CLOEXEC);

	if (ctl < 0)
		die("/dev/vtpmx");
	if (ioctl(ctl, VTPM_PROXY_IOC_NEW_DEV, &dev))
		die("VTPM_PROXY_IOC_NEW_DEV");
	close(ctl);
	return (int)dev.fd;
}

static int front(const char *address, const char *port)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = port_number(port) };
	const struct sigaction act = { .sa_handler = on_usr1 };
	uint8_t command[TPM_MAX], response[TPM_MAX];
	static struct front f;
	int tpm;

	if (inet_pton(AF_INET, address, &to.sin_addr) != 1) {
		fprintf(stderr, "vtpm-relay: %s: not an IPv4 address\n", address);
		return 2;
	}
	f.udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (f.udp < 0 || connect(f.udp, (struct sockaddr *)&to, sizeof(to)))
		die("socket");
	front_new_session(&f);
	front_wait(&f);
	tpm = front_new_tpm();
	if (sigaction(SIGUSR1, &act, NULL))
		die("sigaction");

	for (;;) {
		ssize_t n = read(tpm, command, sizeof(command));
		size_t len;

		if (asked) {
			asked = 0;
			printf("vtpm-relay: %" PRIu64 " commands, %" PRIu64
			       " repeated, longest %" PRIu64 " us\n",
			       f.commands, f.repeats, f.longest_us);
			fflush(stdout);
		}
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0 && errno == EPIPE) {
			/* The kernel gave it up while it was getting to know it. */
			fputs("vtpm-relay: the kernel gave the TPM up; again\n", stderr);
			close(tpm);
			usleep(100000);
			tpm = front_new_tpm();
			continue;
		}
		if (n < TPM_HEAD) {
			errno = n < 0 ? errno : EBADMSG;
			die("read a command");
		}
		/* The kernel's own wish about the proxy, not the TPM's business. */
		if (tpm_u32(command + 6) == TPM2_CC_SET_LOCALITY)
			len = tpm_bare_response(response, 0);
		else
			len = front_do(&f, command, (size_t)n, response);
		/* EIO and EPIPE: the kernel's deadline passed and it wants no answer any more. */
		if (write(tpm, response, len) < 0 && errno != EIO && errno != EPIPE)
			die("write a response");
	}
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

/* The kernel's first wish is a self-test, for which it waits 2 s; that can be short for an emulated
 * CPU. Afterwards it takes no time, so it is done before anyone asks. */
static void swtpm_self_test(int fd)
{
	static const uint8_t command[] = { 0x80, 0x01, 0, 0, 0, 11, 0, 0, 0x01, 0x43, 0 };
	uint8_t response[TPM_MAX];
	size_t have = 0;

	if (write(fd, command, sizeof(command)) != sizeof(command))
		die("swtpm");
	while (!swtpm_read(fd, response, &have))
		;
	if (tpm_u32(response + 6)) {
		fprintf(stderr, "vtpm-relay: self-test: 0x%x\n", tpm_u32(response + 6));
		exit(1);
	}
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
	swtpm_self_test(tpm);
	udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (udp < 0 || bind(udp, (struct sockaddr *)&at, sizeof(at)))
		die("socket");
	puts("vtpm-relay: serving");
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
		if (!frame_check(&in, n) && be32toh(in.type) == FRAME_HELLO)
			(void)!sendto(udp, &in, FRAME_HEAD, 0, (struct sockaddr *)&from, size);
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
		if (be64toh(in.session) == session && be64toh(in.seq) != seq + 1)
			continue; /* late */
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
	if (argc == 4 && !strcmp(argv[1], "front"))
		return front(argv[2], argv[3]);
	if (argc == 4 && !strcmp(argv[1], "serve"))
		return serve(argv[2], argv[3]);
	fputs("usage: vtpm-relay front ADDRESS PORT | vtpm-relay serve PORT SOCKET\n", stderr);
	return 2;
}
