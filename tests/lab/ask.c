/* SPDX-License-Identifier: MIT */
/*
 * ask: a shell script's hand on the unix sockets of a lab guest.
 *	ask ctl SOCKET LINE	a line to the guest's control port; prints the answer, exits by its status.
 *				A terminal in place of SOCKET is a console, which the guest's own words go to
 *				as well: they are passed over, and a guest that is not up yet is waited for
 *	ask qmp SOCKET WORD…	each in order: {…} is a QMP command, whose return value it prints;
 *				@EVENT or @EVENT:TEXT waits for that event (with TEXT in its line) and
 *				prints it; events that came before are kept, so that none is missed.
 *				A MIGRATION event that says failed ends it
 * 124: no answer within 60 s (ASK_TIMEOUT, in seconds). 4: cannot, or QEMU says error.
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
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static int fd;
static int64_t deadline_ms;

static _Noreturn void fail(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static _Noreturn void fail(int status, const char *fmt, ...)
{
	va_list ap;

	fputs("ask: ", stderr);
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

static void connect_to(const char *path)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(to.sun_path))
		fail(2, "%s: too long for a socket", path);
	strcpy(to.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)))
		fail(4, "connect %s: %s", path, strerror(errno));
}

static void put(const char *text)
{
	size_t n = strlen(text);

	while (n) {
		ssize_t done = write(fd, text, n);

		if (done < 0 && errno != EINTR)
			fail(4, "write: %s", strerror(errno));
		if (done > 0) {
			text += done;
			n -= (size_t)done;
		}
	}
}

/* The next line, without its end; the caller frees it. */
static char *get(void)
{
	static char buf[65536];
	static size_t have, used;
	char *line = NULL;
	size_t size = 0;

	for (;;) {
		char *end = memchr(buf + used, '\n', have - used);
		size_t n = end ? (size_t)(end - buf) - used : have - used;
		struct pollfd p = { .fd = fd, .events = POLLIN };
		int64_t left;
		ssize_t got;

		line = realloc(line, size + n + 1);
		if (!line)
			fail(4, "out of memory");
		memcpy(line + size, buf + used, n);
		size += n;
		line[size] = '\0';
		used += n + (end != NULL);
		if (end) {
			if (size && line[size - 1] == '\r')
				line[size - 1] = '\0';
			return line;
		}
		left = deadline_ms - now_ms();
		if (left <= 0 || poll(&p, 1, (int)left) == 0)
			fail(124, "no answer in time");
		got = read(fd, buf, sizeof(buf));
		if (got <= 0)
			fail(4, "the other end closed");
		used = 0;
		have = (size_t)got;
	}
}

static bool is_terminal(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISCHR(st.st_mode);
}

/* One at a time on a console. What is there already was for nobody, or for one who gave up. */
static void open_console(const char *path)
{
	struct termios t;
	char ask[64], want[64];

	fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || flock(fd, LOCK_EX) || tcgetattr(fd, &t))
		fail(4, "open %s: %s", path, strerror(errno));
	cfmakeraw(&t);
	tcsetattr(fd, TCSANOW, &t);
	snprintf(ask, sizeof(ask), "sync %d-%lld\n", getpid(), (long long)now_ms());
	snprintf(want, sizeof(want), "synced %.*s", (int)strlen(ask) - 6, ask + 5);
	put(ask);
	for (bool synced = false;;) {
		char *line = get();

		if (!strncmp(line, "lab: FAILED", 11) || strstr(line, "Kernel panic"))
			fail(4, "%s", line);
		if (synced && !strcmp(line, "ok"))
			return;
		synced |= !strcmp(line, want);
		free(line);
	}
}

static int ctl(const char *line)
{
	put(line);
	put("\n");
	for (;;) {
		char *answer = get();

		if (!strcmp(answer, "ok"))
			return 0;
		if (!strncmp(answer, "error ", 6))
			return atoi(answer + 6);
		puts(answer);
		free(answer);
	}
}

static char *events[4096];
static unsigned int n_events;

static bool is_event(const char *line, const char *word)
{
	const char *at = strstr(line, "\"event\": \""), *text = strchr(word, ':');
	size_t n = text ? (size_t)(text - word) : strlen(word);

	return at && !strncmp(at + 10, word, n) && at[10 + n] == '"' &&
	       (!text || strstr(at, text + 1));
}

/* Wait for the answer of a command, or, if @event, for that. */
static void qmp_wait(const char *event)
{
	for (unsigned int i = 0; event && i < n_events; i++) {
		if (!events[i] || !is_event(events[i], event))
			continue;
		puts(events[i]);
		events[i] = NULL;
		return;
	}
	for (;;) {
		char *line = get();

		if (!strncmp(line, "{\"error\"", 8))
			fail(4, "%s", line);
		if (!strncmp(line, "{\"return\": ", 11)) {
			if (!event) {
				printf("%.*s\n", (int)strlen(line) - 12, line + 11);
				return;
			}
		} else if (strstr(line, "\"event\": \"")) {
			if (is_event(line, "MIGRATION:\"failed\""))
				fail(4, "%s", line);
			if (event && is_event(line, event)) {
				puts(line);
				return;
			}
			if (n_events < sizeof(events) / sizeof(*events)) {
				events[n_events++] = line;
				continue;
			}
		}
		free(line);
	}
}

static int qmp(char **words)
{
	free(get()); /* the greeting */
	put("{\"execute\":\"qmp_capabilities\"}\n");
	free(get());
	for (; *words; words++) {
		if (**words == '@') {
			qmp_wait(*words + 1);
		} else {
			put(*words);
			put("\n");
			qmp_wait(NULL);
		}
		fflush(stdout);
	}
	return 0;
}

int main(int argc, char **argv)
{
	const char *timeout = getenv("ASK_TIMEOUT");

	signal(SIGPIPE, SIG_IGN);
	deadline_ms = now_ms() + (timeout ? atoi(timeout) : 60) * INT64_C(1000);
	if (argc == 4 && !strcmp(argv[1], "ctl")) {
		if (is_terminal(argv[2]))
			open_console(argv[2]);
		else
			connect_to(argv[2]);
		return ctl(argv[3]);
	}
	if (argc > 3 && !strcmp(argv[1], "qmp")) {
		connect_to(argv[2]);
		return qmp(argv + 3);
	}
	fputs("usage: ask ctl SOCKET|TERMINAL LINE | ask qmp SOCKET {COMMAND}|@EVENT…\n", stderr);
	return 2;
}
