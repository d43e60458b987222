/* SPDX-License-Identifier: MIT */
/*
 * carry: run commands within a lab host as if they ran here.
 *	carry host LOG BOOT-SECONDS SECONDS QEMU-WORD… -- COMMAND…
 *		Start QEMU, whose descriptor 3 is the other end of the channel; send the command, the
 *		environment and the directory, pass stdin, stdout, stderr and the exit status. QEMU's own
 *		words go to LOG. 4: the host did not boot, or ended by itself; 124: not done in time
 *		(0: no limit); 128+n: ended by signal n. The host is gone when carry is.
 *	carry keep SOCKET LOG BOOT-SECONDS QEMU-WORD…
 *		The same, for any number of commands: ends when the host is up, and leaves a process behind
 *		(SOCKET.pid) that keeps it and serves SOCKET, until SIGTERM.
 *	carry on ADDRESS SECONDS -- COMMAND…
 *		A command in a host that is kept. ADDRESS is a SOCKET, or IPV4:PORT of who serves.
 *		Whoever ends this one, ends the command: SIGTERM to its process group.
 *	carry guest PORT
 *		The host's first process, in the end: run what comes through the port.
 *	carry serve IPV4:PORT
 *		In a host: the same for its neighbours. Ends when it listens, and leaves a process behind.
 * The channel is one stream of frames (type, session, length, data), so that what was printed is here
 * before the status is, in order, byte by byte.
 */
#include <arpa/inet.h>
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
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <linux/kvm.h>

enum frame_type { HELLO = 1, START, IN, IN_END, OUT, ERR, STATUS, DROP };

enum { LOOK_MS = 2000, STILL_MS = 60000 };
enum { CHUNK = 32768, IN_CHUNK = 4096, IN_QUEUE = 4 << 20, FRAME_MAX = 4 << 20, SESSIONS = 64 };

struct head {
	uint16_t type, session;
	uint32_t size;
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

static bool put_frame(int fd, enum frame_type type, uint16_t session, const void *data, size_t n)
{
	static char buf[sizeof(struct head) + CHUNK];
	struct head head = { (uint16_t)type, session, (uint32_t)n };

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

static const int ending[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, 0 };
static pid_t qemu;
static const char *log_path; /* of a QEMU that is ours */

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
	if (log_path)
		unlink(log_path);
	done(status);
}

/* The host's end without it: with the last lines of its console. */
static _Noreturn void broken(int status, const char *what)
{
	char tail[1024] = "", *line, lost[4096];
	ssize_t n;
	int fd, ws;

	if (!log_path)
		fail(status, "%s", what);
	fd = open(log_path, O_RDONLY | O_CLOEXEC);
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
	/* For who would try again: this was not COMMAND's own 4. */
	snprintf(lost, sizeof(lost), "%s.lost", log_path);
	close(open(lost, O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
	done(status);
}

static int start_qemu(char **words)
{
	pid_t parent = getpid();
	int sv[2], fd;
	sigset_t none;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv))
		fail(4, "socketpair: %s", strerror(errno));
	qemu = fork();
	if (qemu < 0)
		fail(4, "fork: %s", strerror(errno));
	if (qemu) {
		close(sv[1]);
		return sv[0];
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(4);
	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND, 0666);
	if (fd < 0)
		fail(4, "open %s: %s", log_path, strerror(errno));
	dup2(sv[1], 3);
	dup2(fd, 1);
	dup2(fd, 2);
	fd = open("/dev/null", O_RDONLY);
	dup2(fd, 0);
	closefrom(4);
	execvp(words[0], words);
	fail(4, "exec %s: %s", words[0], strerror(errno));
}

/* Until the host greets; a signal ends it all. */
static void wait_hello(int channel, int sigfd, struct inbox *in, int64_t boot_ms)
{
	const int64_t deadline = now_ms() + boot_ms;
	struct signalfd_siginfo si;
	struct head head;

	while (!frame(in, &head)) {
		struct pollfd p[] = { { .fd = channel, .events = POLLIN }, { .fd = sigfd, .events = POLLIN } };
		int64_t left = deadline - now_ms();

		if (left <= 0)
			broken(4, "the host did not boot in time");
		poll(p, 2, (int)left);
		if (read(sigfd, &si, sizeof(si)) == sizeof(si))
			over(128 + (int)si.ssi_signo);
		if (p[0].revents && !fill(in, channel))
			broken(4, "the host did not boot");
	}
	drop_frame(in, &head);
}

/* DIRECTORY ARGC ARGV… ENVIRONMENT…, each with its zero byte */
static void send_start(int fd, char **argv)
{
	char *text, *cwd = getcwd(NULL, 0);
	size_t n;
	FILE *f = open_memstream(&text, &n);
	int argc = 0;

	if (!f || !cwd)
		fail(4, "out of memory");
	while (argv[argc])
		argc++;
	fprintf(f, "%s%c%d%c", cwd, 0, argc, 0);
	for (int i = 0; i < argc; i++)
		fprintf(f, "%s%c", argv[i], 0);
	for (char **e = environ; *e; e++)
		fprintf(f, "%s%c", *e, 0);
	fclose(f);
	if (n > FRAME_MAX)
		fail(2, "the command and its environment are too long");
	if (!put_frame(fd, START, 1, text, n))
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

/* Processor time that QEMU has had, in ticks of 10 ms; -1: not known, or no QEMU of ours. */
static long spent(void)
{
	unsigned long user, system;
	char path[40];
	FILE *f;
	int n;

	if (qemu <= 0)
		return -1;
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)qemu);
	f = fopen(path, "re");
	if (!f)
		return -1;
	n = fscanf(f, "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
	fclose(f);
	return n == 2 ? (long)(user + system) : -1;
}

/*
 * An idle kernel does something now and then. One that does nothing at all gets no interrupts any more, which happens
 * to hosts of one CPU: QEMU 7.2 loses one in the midst of a guest's exit.
 */
static bool stands_still(void)
{
	static int64_t since_ms;
	static long before = -1;
	long now = spent();

	if (now < 0 || now != before) {
		before = now;
		since_ms = now_ms();
	}
	return now_ms() - since_ms > STILL_MS;
}

/* Have a command run at the other end of @channel. */
static _Noreturn void command(int channel, int sigfd, struct inbox *in, int64_t limit_ms, char **argv)
{
	const int64_t deadline = limit_ms ? now_ms() + limit_ms : 0;
	bool in_open = stdin_is_ours();
	int status;

	send_start(channel, argv);
	for (;;) {
		struct pollfd p[] = {
			{ .fd = channel, .events = POLLIN },
			{ .fd = sigfd, .events = POLLIN },
			{ .fd = in_open ? 0 : -1, .events = POLLIN },
		};
		int64_t left = deadline - now_ms();
		struct signalfd_siginfo si;
		char buf[IN_CHUNK];

		if (deadline && left <= 0) {
			fputs("lab/run: not done in time\n", stderr);
			over(124);
		}
		poll(p, 3, deadline && left < LOOK_MS ? (int)left : LOOK_MS);
		if (stands_still())
			broken(4, "the host stood still");
		if (read(sigfd, &si, sizeof(si)) == sizeof(si))
			over(128 + (int)si.ssi_signo);
		if (p[0].revents) {
			bool more = fill(in, channel);

			if (from_host(in, &status))
				over(status);
			if (!more)
				broken(4, "the host ended by itself");
		}
		/* Asked only together with stdin: is there room for what it gives? */
		if (p[2].revents && poll(&(struct pollfd){ .fd = channel, .events = POLLOUT }, 1, 0) > 0) {
			ssize_t n = read(0, buf, sizeof(buf));

			in_open = n > 0;
			put_frame(channel, n > 0 ? IN : IN_END, 1, buf, n > 0 ? (size_t)n : 0);
		}
	}
}

static char **after_dashes(char **argv)
{
	while (*argv && strcmp(*argv, "--"))
		argv++;
	if (!*argv || !argv[1])
		fail(2, "no command");
	*argv = NULL;
	return argv + 1;
}

static _Noreturn void host(char **argv)
{
	int64_t boot_ms = atoi(argv[1]) * INT64_C(1000), limit_ms = atoi(argv[2]) * INT64_C(1000);
	char **words = after_dashes(argv + 3);
	struct inbox in = { 0 };
	sigset_t set;
	int sigfd, channel;

	log_path = argv[0];
	sigfd = signals(ending, &set);
	channel = start_qemu(argv + 3);
	wait_hello(channel, sigfd, &in, boot_ms);
	command(channel, sigfd, &in, limit_ms, words);
}

/* A socket for ADDRESS, a path or IPV4:PORT; connected, or listening. */
static int open_socket(const char *address, bool listening)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct sockaddr_in ip = { .sin_family = AF_INET };
	struct sockaddr *to = (struct sockaddr *)&un;
	socklen_t size = sizeof(un);
	const char *colon = strrchr(address, ':');
	char text[INET_ADDRSTRLEN] = "";
	int fd;

	if (colon && (size_t)(colon - address) < sizeof(text)) {
		memcpy(text, address, (size_t)(colon - address));
		if (inet_pton(AF_INET, text, &ip.sin_addr) != 1)
			fail(2, "%s: neither a path nor IPV4:PORT", address);
		ip.sin_port = htons((uint16_t)atoi(colon + 1));
		to = (struct sockaddr *)&ip;
		size = sizeof(ip);
	} else if (strlen(address) < sizeof(un.sun_path)) {
		strcpy(un.sun_path, address);
	} else {
		fail(2, "%s: too long for a socket", address);
	}
	fd = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		fail(4, "socket: %s", strerror(errno));
	if (!listening) {
		if (connect(fd, to, size))
			fail(4, "connect %s: %s", address, strerror(errno));
		return fd;
	}
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	if (bind(fd, to, size) || listen(fd, 64))
		fail(4, "listen %s: %s", address, strerror(errno));
	return fd;
}

static _Noreturn void on(char **argv)
{
	int64_t limit_ms = atoi(argv[1]) * INT64_C(1000);
	struct inbox in = { 0 };
	sigset_t set;
	int sigfd = signals(ending, &set);

	command(open_socket(argv[0], false), sigfd, &in, limit_ms, after_dashes(argv + 2));
}

/* One who asks for a command at the socket of a host that is kept. */
struct client {
	int fd;
	uint16_t session;
	struct inbox in;
};

static struct client clients[SESSIONS];
static unsigned int n_clients;

static struct client *find_client(uint16_t session)
{
	for (unsigned int i = 0; i < n_clients; i++)
		if (clients[i].session == session)
			return &clients[i];
	return NULL;
}

static void add_client(int fd)
{
	static uint16_t last;

	if (fd < 0)
		return;
	do
		last++;
	while (!last || find_client(last));
	clients[n_clients++] = (struct client){ .fd = fd, .session = last };
}

static void drop_client(struct client *c, int channel)
{
	put_frame(channel, DROP, c->session, NULL, 0);
	close(c->fd);
	free(c->in.data);
	*c = clients[--n_clients];
}

static void from_client(struct client *c, int channel)
{
	bool more = fill(&c->in, c->fd);
	struct head head;

	for (; frame(&c->in, &head); drop_frame(&c->in, &head))
		put_frame(channel, head.type, c->session, c->in.data + sizeof(head), head.size);
	if (!more)
		drop_client(c, channel);
}

static void to_clients(struct inbox *in, int channel)
{
	struct head head;

	for (; frame(in, &head); drop_frame(in, &head)) {
		struct client *c = find_client(head.session);

		if (c && !put_frame(c->fd, head.type, 1, in->data + sizeof(head), head.size))
			drop_client(c, channel);
	}
}

static void write_pid(const char *socket)
{
	char path[4096];
	FILE *f;

	snprintf(path, sizeof(path), "%s.pid", socket);
	f = fopen(path, "w");
	if (!f || fprintf(f, "%d\n", getpid()) < 0 || fclose(f))
		fail(4, "write %s: %s", path, strerror(errno));
}

/* Go on in a child; the parent ends with 0 once told(), else with the child's status. */
static int told = -1;

static void go_to_background(void)
{
	int p[2], ws = 0;
	char byte;
	pid_t child;

	if (pipe2(p, O_CLOEXEC))
		fail(4, "pipe: %s", strerror(errno));
	child = fork();
	if (child < 0)
		fail(4, "fork: %s", strerror(errno));
	if (!child) {
		setsid();
		close(p[0]);
		told = p[1];
		return;
	}
	close(p[1]);
	if (read(p[0], &byte, 1) == 1)
		exit(0);
	waitpid(child, &ws, 0);
	exit(WIFEXITED(ws) ? WEXITSTATUS(ws) : 4);
}

/* It works: let go of the parent, and of its terminal. */
static void tell(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)!write(told, "", 1);
	close(told);
	for (int i = 0; i < 3; i++)
		dup2(fd, i);
}

static _Noreturn void keep(char **argv)
{
	const char *path = argv[0];
	struct pollfd p[SESSIONS + 3];
	struct signalfd_siginfo si;
	struct inbox in = { 0 };
	int sigfd, channel, door;
	sigset_t set;

	go_to_background();
	write_pid(path);
	signal(SIGPIPE, SIG_IGN);
	sigfd = signals(ending, &set);
	log_path = argv[1];
	channel = start_qemu(argv + 3);
	wait_hello(channel, sigfd, &in, atoi(argv[2]) * INT64_C(1000));
	unlink(path);
	door = open_socket(path, true);
	tell();
	for (;;) {
		p[0] = (struct pollfd){ .fd = channel, .events = POLLIN };
		p[1] = (struct pollfd){ .fd = sigfd, .events = POLLIN };
		p[2] = (struct pollfd){ .fd = n_clients < SESSIONS ? door : -1, .events = POLLIN };
		for (unsigned int i = 0; i < n_clients; i++)
			p[3 + i] = (struct pollfd){ .fd = clients[i].fd, .events = POLLIN };
		poll(p, 3 + n_clients, -1);
		if (p[1].revents && read(sigfd, &si, sizeof(si)) == sizeof(si))
			break;
		/* From the last: the place of one that is dropped is taken by the last. */
		for (unsigned int i = n_clients; i--;)
			if (p[3 + i].revents)
				from_client(&clients[i], channel);
		if (p[0].revents && !fill(&in, channel)) {
			unlink(path);
			broken(4, "the host ended by itself");
		}
		to_clients(&in, channel);
		if (p[2].revents)
			add_client(accept4(door, NULL, NULL, SOCK_CLOEXEC));
	}
	unlink(path);
	over(0);
}

/* --- Inside */

/* A command that runs. */
struct job {
	uint16_t session;
	pid_t pid;
	int fds[3];
	struct inbox in; /* bytes for its stdin */
	bool in_over;
};

static struct job jobs[SESSIONS];
static unsigned int n_jobs;

static _Noreturn void run_command(char *text, size_t n)
{
	char *end = text + n, *at = text, *cwd = at, **argv, **env;
	const char *lab = getenv("UTIL_VM_LAB");
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
	for (i = 0; at < end; at += strlen(at) + 1)
		if (strncmp(at, "UTIL_VM_LAB=", 12))
			env[i++] = at;
	if (lab && asprintf(&env[i], "UTIL_VM_LAB=%s", lab) < 0)
		_exit(126);
	environ = env;
	if (chdir(cwd)) {
		dprintf(2, "lab/run: chdir %s: %s\n", cwd, strerror(errno));
		_exit(126);
	}
	execvp(argv[0], argv);
	dprintf(2, "lab/run: exec %s: %s\n", argv[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

static pid_t start_command(char *text, size_t n, int fds[3])
{
	int in[2], out[2], err[2];
	sigset_t none;
	pid_t pid;

	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
		fail(4, "pipe: %s", strerror(errno));
	pid = fork();
	if (pid < 0)
		fail(4, "fork: %s", strerror(errno));
	if (!pid) {
		setsid();
		signal(SIGPIPE, SIG_DFL);
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
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

/* The machine's files may have changed since the last command, and a 9p client with a cache does not look. */
static void look_again(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);

	if (fd >= 0) {
		(void)!write(fd, "3", 1);
		close(fd);
	}
}

static void start_job(uint16_t session, char *text, size_t n)
{
	struct job *j = &jobs[n_jobs];
	static bool before;

	if (before)
		look_again();
	before = true;

	if (n_jobs == SESSIONS)
		fail(4, "too many commands");
	*j = (struct job){ .session = session };
	j->pid = start_command(text, n, j->fds);
	n_jobs++;
}

static void close_one(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static struct job *find_job(uint16_t session)
{
	for (unsigned int i = 0; i < n_jobs; i++)
		if (jobs[i].session == session)
			return &jobs[i];
	return NULL;
}

static void keep_input(struct job *j, const char *data, size_t n)
{
	if (j->fds[0] < 0)
		return;
	if (j->in.size < j->in.have + n) {
		j->in.size = j->in.have + n + CHUNK;
		j->in.data = realloc(j->in.data, j->in.size);
		if (!j->in.data)
			fail(4, "out of memory");
	}
	memcpy(j->in.data + j->in.have, data, n);
	j->in.have += n;
}

static void to_jobs(struct inbox *in)
{
	struct head head;

	for (; frame(in, &head); drop_frame(in, &head)) {
		char *data = in->data + sizeof(head);
		struct job *j = find_job(head.session);

		if (head.type == START)
			start_job(head.session, data, head.size);
		else if (j && head.type == IN)
			keep_input(j, data, head.size);
		else if (j && head.type == IN_END)
			j->in_over = true;
		else if (j && head.type == DROP)
			kill(-j->pid, SIGTERM);
	}
}

/* As much of its input as the command takes. */
static void feed(struct job *j)
{
	ssize_t n;

	if (j->fds[0] >= 0 && j->in.have) {
		n = write(j->fds[0], j->in.data, j->in.have);
		if (n > 0) {
			j->in.have -= (size_t)n;
			memmove(j->in.data, j->in.data + n, j->in.have);
		} else if (n < 0 && errno != EAGAIN && errno != EINTR) {
			close_one(&j->fds[0]);
			j->in.have = 0;
		}
	}
	if (j->in_over && !j->in.have)
		close_one(&j->fds[0]);
}

/* What a pipe of the command holds. */
static void pass(int port, struct job *j, int i)
{
	static char buf[CHUNK];
	ssize_t n = read(j->fds[i], buf, sizeof(buf));

	if (n > 0)
		put_frame(port, i == 1 ? OUT : ERR, j->session, buf, (size_t)n);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		close_one(&j->fds[i]);
}

static void end_job(int port, struct job *j, int ws)
{
	uint32_t status = (uint32_t)(WIFSIGNALED(ws) ? 128 + WTERMSIG(ws) : WEXITSTATUS(ws));

	/* What it left in its pipes; who else may hold them is not waited for. */
	for (int i = 1; i < 3; i++)
		while (j->fds[i] >= 0 && poll(&(struct pollfd){ .fd = j->fds[i], .events = POLLIN }, 1, 0) > 0)
			pass(port, j, i);
	sync();
	put_frame(port, STATUS, j->session, &status, sizeof(status));
	for (int i = 0; i < 3; i++)
		close_one(&j->fds[i]);
	free(j->in.data);
	*j = jobs[--n_jobs];
}

/* Everybody's parent. */
static void reap(int port)
{
	int ws;
	pid_t pid;

	while ((pid = waitpid(-1, &ws, WNOHANG)) > 0)
		for (unsigned int i = 0; i < n_jobs; i++)
			if (jobs[i].pid == pid)
				end_job(port, &jobs[i], ws);
}

/* Run what comes through @port, until it ends. */
static void run_jobs(int port)
{
	static const int caught[] = { SIGCHLD, 0 };
	struct pollfd p[2 + 3 * SESSIONS];
	struct inbox in = { 0 };
	struct signalfd_siginfo si;
	bool more = true;
	sigset_t set;
	int sigfd;

	signal(SIGPIPE, SIG_IGN);
	sigfd = signals(caught, &set);
	while (more) {
		const unsigned int n = n_jobs;
		bool full = false;

		for (unsigned int i = 0; i < n; i++) {
			struct job *j = &jobs[i];

			feed(j);
			full |= j->in.have >= IN_QUEUE;
			p[2 + 3 * i] = (struct pollfd){ .fd = j->in.have ? j->fds[0] : -1, .events = POLLOUT };
			p[3 + 3 * i] = (struct pollfd){ .fd = j->fds[1], .events = POLLIN };
			p[4 + 3 * i] = (struct pollfd){ .fd = j->fds[2], .events = POLLIN };
		}
		p[0] = (struct pollfd){ .fd = full ? -1 : port, .events = POLLIN };
		p[1] = (struct pollfd){ .fd = sigfd, .events = POLLIN };
		poll(p, 2 + 3 * n, -1);
		for (unsigned int i = 0; i < n; i++)
			for (int k = 1; k < 3; k++)
				if (p[2 + 3 * i + (unsigned int)k].revents)
					pass(port, &jobs[i], k);
		if (p[0].revents) {
			more = fill(&in, port);
			to_jobs(&in);
		}
		while (read(sigfd, &si, sizeof(si)) > 0)
			;
		reap(port);
	}
	for (unsigned int i = 0; i < n_jobs; i++)
		kill(-jobs[i].pid, SIGTERM);
}

/*
 * The first VM patches the scheduler's code (kvm_create_vm: preempt_notifier_key), and the last one patches it back.
 * QEMU before 8.1 translates code while another CPU patches it, and then keeps what it has read half way: an int3
 * that nobody expects any more, or the old code. So there is always a VM, made while there is one CPU.
 */
static void patch_scheduler_for_good(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (kvm < 0)
		return; /* a host without */
	if (ioctl(kvm, KVM_CREATE_VM, 0) < 0)
		fail(4, "make a VM: %s", strerror(errno));
	close(kvm);
}

static void start_other_cpus(void)
{
	for (int cpu = 1;; cpu++) {
		char path[64];
		int fd;

		snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/online", cpu);
		fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0)
			return; /* that was the last */
		if (write(fd, "1", 1) != 1)
			fail(4, "%s: %s", path, strerror(errno));
		close(fd);
	}
}

static _Noreturn void guest(const char *path)
{
	int port = open(path, O_RDWR | O_CLOEXEC);

	if (port < 0)
		fail(4, "open %s: %s", path, strerror(errno));
	patch_scheduler_for_good();
	start_other_cpus();
	put_frame(port, HELLO, 0, NULL, 0);
	run_jobs(port);
	fail(4, "the channel ended");
}

static _Noreturn void serve(const char *address)
{
	int door;

	go_to_background();
	door = open_socket(address, true);
	signal(SIGCHLD, SIG_IGN);
	tell();
	for (;;) {
		int fd = accept4(door, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0 && !fork()) {
			signal(SIGCHLD, SIG_DFL);
			look_again();
			run_jobs(fd);
			_exit(0);
		}
		if (fd >= 0)
			close(fd);
	}
}

int main(int argc, char **argv)
{
	if (argc > 6 && !strcmp(argv[1], "host"))
		host(argv + 2);
	if (argc > 5 && !strcmp(argv[1], "keep"))
		keep(argv + 2);
	if (argc > 5 && !strcmp(argv[1], "on"))
		on(argv + 2);
	if (argc == 3 && !strcmp(argv[1], "guest"))
		guest(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "serve"))
		serve(argv[2]);
	fputs("usage: carry host LOG BOOT-SECONDS SECONDS QEMU-WORD… -- COMMAND…\n"
	      "       carry keep SOCKET LOG BOOT-SECONDS QEMU-WORD…\n"
	      "       carry on ADDRESS SECONDS -- COMMAND…\n"
	      "       carry guest PORT | carry serve IPV4:PORT\n", stderr);
	return 2;
}
