/* SPDX-License-Identifier: MIT */
/*
 * carry: run a command within a lab host as if it ran here.
 *	carry host LOG BOOT-SECONDS SECONDS QEMU-WORD… -- COMMAND…
 *		Start QEMU, whose descriptor 3 is the other end of the channel; send the command, the
 *		environment and the directory, pass stdin, stdout, stderr and the exit status. QEMU's own
 *		words go to LOG. 4: the host did not boot, or ended by itself; 124: not done in time
 *		(0: no limit); 128+n: ended by signal n. The host is gone when carry is.
 *	carry guest PORT
 *		The host's first process, in the end: run what comes through the port.
 * The channel is one stream of frames (type, length, data), so that what was printed is here before the
 * status is, in order, byte by byte.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum frame_type { HELLO = 1, START, IN, IN_END, OUT, ERR, STATUS };

enum { CHUNK = 32768, FRAME_MAX = 4 << 20 };

struct head {
	uint32_t type, size;
};

extern char **environ;

static _Noreturn void fail(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static _Noreturn void fail(int status, const char *fmt, ...)
{
	va_list ap;

	fputs("lab/run: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(status);
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* All of it, whatever the descriptor's mode is. */
static bool put(int fd, const void *data, size_t n)
{
	const char *at = data;

	while (n) {
		ssize_t done = write(fd, at, n);

		if (done > 0) {
			at += done;
			n -= (size_t)done;
		} else if (done < 0 && errno == EAGAIN) {
			poll(&(struct pollfd){ .fd = fd, .events = POLLOUT }, 1, -1);
		} else if (done == 0 || errno != EINTR) {
			return false;
		}
	}
	return true;
}

static bool put_frame(int fd, enum frame_type type, const void *data, size_t n)
{
	static char buf[sizeof(struct head) + CHUNK];
	struct head head = { type, (uint32_t)n };

	if (n > CHUNK)
		return put(fd, &head, sizeof(head)) && put(fd, data, n);
	memcpy(buf, &head, sizeof(head));
	if (n)
		memcpy(buf + sizeof(head), data, n);
	return put(fd, buf, sizeof(head) + n);
}

/* What came in, until a frame of it is complete. */
struct inbox {
	char *data;
	size_t have, size;
};

/* One read; false at the end of the channel. */
static bool fill(struct inbox *in, int fd)
{
	ssize_t got;

	if (in->size - in->have < CHUNK) {
		in->size = in->size * 2 + 2 * CHUNK;
		in->data = realloc(in->data, in->size);
		if (!in->data)
			fail(4, "out of memory");
	}
	got = read(fd, in->data + in->have, in->size - in->have);
	if (got > 0)
		in->have += (size_t)got;
	return got > 0 || (got < 0 && (errno == EINTR || errno == EAGAIN));
}

/* Is there a whole frame? Its data follows the head. */
static bool frame(const struct inbox *in, struct head *head)
{
	if (in->have < sizeof(*head))
		return false;
	memcpy(head, in->data, sizeof(*head));
	if (head->size > FRAME_MAX)
		fail(4, "the channel carries nonsense");
	return in->have - sizeof(*head) >= head->size;
}

static void drop_frame(struct inbox *in, const struct head *head)
{
	size_t n = sizeof(*head) + head->size;

	memmove(in->data, in->data + n, in->have - n);
	in->have -= n;
}

static int signals(const int *list, sigset_t *set)
{
	int fd;

	sigemptyset(set);
	for (; *list; list++)
		sigaddset(set, *list);
	sigprocmask(SIG_BLOCK, set, NULL);
	fd = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		fail(4, "signalfd: %s", strerror(errno));
	return fd;
}

/* --- Outside */

static pid_t qemu;
static bool running; /* the command, as far as it is known here */
static const char *log_path;

static _Noreturn void done(int status)
{
	if (qemu > 0) {
		kill(qemu, SIGKILL);
		while (waitpid(qemu, NULL, 0) < 0 && errno == EINTR)
			;
	}
	exit(status);
}

/* The command's own end, or ours: the log has nothing to tell. */
static _Noreturn void over(int status)
{
	unlink(log_path);
	done(status);
}

/* The host's end without it: with the last lines of its console. */
static _Noreturn void broken(int status, const char *what)
{
	char tail[1024] = "", *line;
	int ws;
	int fd = open(log_path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	lseek(fd, -(off_t)sizeof(tail) + 1, SEEK_END);
	n = read(fd, tail, sizeof(tail) - 1);
	tail[n > 0 ? n : 0] = '\0';
	line = n == (ssize_t)sizeof(tail) - 1 ? strchr(tail, '\n') : NULL;
	/* After the channel's end, QEMU's own end is near, if it was not we who waited too long. */
	for (int i = 0; i < 100 && !waitpid(qemu, &ws, WNOHANG); i++)
		usleep(10000);
	if (kill(qemu, 0)) {
		if (WIFSIGNALED(ws))
			fprintf(stderr, "lab/run: QEMU: %s\n", strsignal(WTERMSIG(ws)));
		qemu = 0;
	}
	fprintf(stderr, "%s\nlab/run: %s; all it said is in %s\n", line ? line + 1 : tail, what, log_path);
	done(status);
}

static void start_qemu(char **words, int channel, const sigset_t *blocked)
{
	pid_t parent = getpid();
	int fd;

	qemu = fork();
	if (qemu < 0)
		fail(4, "fork: %s", strerror(errno));
	if (qemu)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(4);
	setsid();
	sigprocmask(SIG_UNBLOCK, blocked, NULL);
	fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND, 0666);
	if (fd < 0)
		fail(4, "open %s: %s", log_path, strerror(errno));
	dup2(channel, 3);
	dup2(fd, 1);
	dup2(fd, 2);
	fd = open("/dev/null", O_RDONLY);
	dup2(fd, 0);
	closefrom(4);
	execvp(words[0], words);
	fail(4, "exec %s: %s", words[0], strerror(errno));
}

/* DIRECTORY ARGC ARGV… ENVIRONMENT…, each with its zero byte */
static void send_start(int fd, int argc, char **argv)
{
	char *text, *cwd = getcwd(NULL, 0);
	size_t n;
	FILE *f = open_memstream(&text, &n);

	if (!f || !cwd)
		fail(4, "out of memory");
	fprintf(f, "%s%c%d%c", cwd, 0, argc, 0);
	for (int i = 0; i < argc; i++)
		fprintf(f, "%s%c", argv[i], 0);
	for (char **e = environ; *e; e++)
		fprintf(f, "%s%c", *e, 0);
	fclose(f);
	if (n > FRAME_MAX)
		fail(2, "the command and its environment are too long");
	if (!put_frame(fd, START, text, n))
		fail(4, "the host ended");
	free(text);
	free(cwd);
}

/* Read only what is meant for us: not a terminal whose foreground is somebody else's. */
static bool stdin_is_ours(void)
{
	return fcntl(0, F_GETFD) >= 0 && (!isatty(0) || tcgetpgrp(0) == getpgrp());
}

/* True once the status is known. */
static bool from_host(struct inbox *in, int *status)
{
	struct head head;
	uint32_t value;

	for (; frame(in, &head); drop_frame(in, &head)) {
		const char *data = in->data + sizeof(head);

		switch (head.type) {
		case HELLO:
			running = true;
			break;
		case OUT:
		case ERR:
			if (!put(head.type == OUT ? 1 : 2, data, head.size))
				over(4);
			break;
		case STATUS:
			memcpy(&value, data, sizeof(value));
			*status = (int)value;
			return true;
		}
	}
	return false;
}

static int host(int argc, char **argv)
{
	static const int caught[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, 0 };
	int64_t boot_ms = atoi(argv[1]) * INT64_C(1000), limit_ms = atoi(argv[2]) * INT64_C(1000);
	int64_t deadline = now_ms() + boot_ms;
	bool sent = false, in_open = stdin_is_ours();
	int sv[2], sigfd, words = 3, status;
	struct inbox in = { 0 };
	sigset_t set;

	log_path = argv[0];
	while (words < argc && strcmp(argv[words], "--"))
		words++;
	if (words + 1 >= argc)
		fail(2, "no command");
	argv[words] = NULL;
	sigfd = signals(caught, &set);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv))
		fail(4, "socketpair: %s", strerror(errno));
	start_qemu(argv + 3, sv[1], &set);
	close(sv[1]);

	for (;;) {
		struct pollfd p[] = {
			{ .fd = sv[0], .events = POLLIN },
			{ .fd = sigfd, .events = POLLIN },
			{ .fd = sent && in_open ? 0 : -1, .events = POLLIN },
			/* Asked only together with stdin: is there room for what it gives? */
		};
		int64_t left = deadline - now_ms();
		struct signalfd_siginfo si;
		char buf[CHUNK];

		if (deadline && left <= 0 && running) {
			fputs("lab/run: not done in time\n", stderr);
			over(124);
		}
		if (deadline && left <= 0)
			broken(4, "the host did not boot in time");
		poll(p, 3, deadline ? (int)left : -1);
		if (read(sigfd, &si, sizeof(si)) == sizeof(si))
			over(128 + (int)si.ssi_signo);
		if (p[0].revents) {
			bool more = fill(&in, sv[0]);

			if (from_host(&in, &status))
				over(status);
			if (!more)
				broken(4, running ? "the host ended by itself" : "the host did not boot");
		}
		if (running && !sent) {
			send_start(sv[0], argc - words - 1, argv + words + 1);
			sent = true;
			deadline = limit_ms ? now_ms() + limit_ms : 0;
		} else if (p[2].revents && poll(&(struct pollfd){ .fd = sv[0], .events = POLLOUT }, 1, 0) > 0) {
			ssize_t n = read(0, buf, sizeof(buf));

			in_open = n > 0;
			put_frame(sv[0], n > 0 ? IN : IN_END, buf, n > 0 ? (size_t)n : 0);
		}
	}
}

/* --- Inside */

static _Noreturn void run_command(char *text, size_t n)
{
	char *end = text + n, *at = text, *cwd = at, **argv, **env;
	int argc, i;

	at += strlen(at) + 1;
	argc = atoi(at);
	at += strlen(at) + 1;
	argv = calloc((size_t)argc + 1, sizeof(*argv));
	env = calloc(n + 2, sizeof(*env));
	if (!argv || !env)
		_exit(126);
	for (i = 0; i < argc && at < end; i++, at += strlen(at) + 1)
		argv[i] = at;
	for (i = 0; at < end; i++, at += strlen(at) + 1)
		env[i] = at;
	env[i] = (char *)"UTIL_VM_LAB=kvm";
	environ = env;
	if (chdir(cwd)) {
		dprintf(2, "lab/run: chdir %s: %s\n", cwd, strerror(errno));
		_exit(126);
	}
	execvp(argv[0], argv);
	dprintf(2, "lab/run: exec %s: %s\n", argv[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

static pid_t start_command(char *text, size_t n, int fds[3], const sigset_t *blocked)
{
	int in[2], out[2], err[2];
	pid_t pid;

	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
		fail(4, "pipe: %s", strerror(errno));
	pid = fork();
	if (pid < 0)
		fail(4, "fork: %s", strerror(errno));
	if (!pid) {
		setsid();
		signal(SIGPIPE, SIG_DFL);
		sigprocmask(SIG_UNBLOCK, blocked, NULL);
		dup2(in[0], 0);
		dup2(out[1], 1);
		dup2(err[1], 2);
		run_command(text, n);
	}
	close(in[0]);
	close(out[1]);
	close(err[1]);
	fds[0] = in[1];
	fds[1] = out[0];
	fds[2] = err[0];
	for (int i = 0; i < 3; i++)
		fcntl(fds[i], F_SETFL, O_NONBLOCK);
	return pid;
}

/* What a pipe of the command holds; false at its end. */
static bool pass(int port, enum frame_type type, int fd)
{
	static char buf[CHUNK];
	ssize_t n = read(fd, buf, sizeof(buf));

	if (n > 0)
		put_frame(port, type, buf, (size_t)n);
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static void close_one(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* The first frame, if it is complete, is input for the command: as much as it takes. */
static bool feed(struct inbox *in, int *fd)
{
	struct head head;
	static size_t used;
	ssize_t n;

	if (!frame(in, &head) || (head.type != IN && head.type != IN_END))
		return false;
	if (head.type == IN && *fd >= 0) {
		n = write(*fd, in->data + sizeof(head) + used, head.size - used);
		if (n < 0 && errno == EAGAIN)
			return false;
		used += n > 0 ? (size_t)n : 0;
		if (n >= 0 && used < head.size)
			return false;
		if (n < 0)
			close_one(fd);
	}
	if (head.type == IN_END)
		close_one(fd);
	used = 0;
	drop_frame(in, &head);
	return true;
}

/* Everybody's parent: true when it is the command itself that ended. */
static bool reap(pid_t command, uint32_t *status)
{
	bool over = false;
	int ws;
	pid_t pid;

	while ((pid = waitpid(-1, &ws, WNOHANG)) > 0) {
		if (pid != command)
			continue;
		*status = (uint32_t)(WIFSIGNALED(ws) ? 128 + WTERMSIG(ws) : WEXITSTATUS(ws));
		over = true;
	}
	return over;
}

static _Noreturn void guest(const char *path)
{
	static const int caught[] = { SIGCHLD, 0 };
	int port = open(path, O_RDWR | O_CLOEXEC), fds[3] = { -1, -1, -1 }, sigfd;
	struct inbox in = { 0 };
	struct signalfd_siginfo si;
	uint32_t status = 0;
	struct head head;
	sigset_t set;
	pid_t command;

	if (port < 0)
		fail(4, "open %s: %s", path, strerror(errno));
	signal(SIGPIPE, SIG_IGN);
	sigfd = signals(caught, &set);
	put_frame(port, HELLO, NULL, 0);
	while (!frame(&in, &head))
		if (!fill(&in, port))
			fail(4, "the channel ended");
	command = start_command(in.data + sizeof(head), head.size, fds, &set);
	drop_frame(&in, &head);

	do {
		bool full;

		while (feed(&in, &fds[0]))
			;
		full = frame(&in, &head);
		struct pollfd p[] = {
			{ .fd = full ? -1 : port, .events = POLLIN },
			{ .fd = sigfd, .events = POLLIN },
			{ .fd = full ? fds[0] : -1, .events = POLLOUT },
			{ .fd = fds[1], .events = POLLIN },
			{ .fd = fds[2], .events = POLLIN },
		};

		poll(p, 5, -1);
		if (p[0].revents)
			fill(&in, port);
		if (p[3].revents && !pass(port, OUT, fds[1]))
			close_one(&fds[1]);
		if (p[4].revents && !pass(port, ERR, fds[2]))
			close_one(&fds[2]);
		while (read(sigfd, &si, sizeof(si)) > 0)
			;
	} while (!reap(command, &status));

	/* What it left in its pipes; who else may hold them is not waited for. */
	for (int i = 1; i < 3; i++)
		while (fds[i] >= 0 && poll(&(struct pollfd){ .fd = fds[i], .events = POLLIN }, 1, 0) > 0)
			if (!pass(port, i == 1 ? OUT : ERR, fds[i]))
				close_one(&fds[i]);
	sync();
	put_frame(port, STATUS, &status, sizeof(status));
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	if (argc > 5 && !strcmp(argv[1], "host"))
		return host(argc - 2, argv + 2);
	if (argc == 3 && !strcmp(argv[1], "guest"))
		guest(argv[2]);
	fputs("usage: carry host LOG BOOT-SECONDS SECONDS QEMU-WORD… -- COMMAND… | carry guest PORT\n", stderr);
	return 2;
}
