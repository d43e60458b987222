/* SPDX-License-Identifier: MIT */
#include "process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pair/message.h"

#define TAG "UTIL_VM_PAIR="
#define KILL_MS 5000

static uint64_t start_of(pid_t pid, char *state)
{
	char path[64], text[1024], *p;
	unsigned long long start = 0;
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = '\0';
	p = strrchr(text, ')'); /* the name may hold anything, spaces and ')' too */
	if (!p || sscanf(p + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d "
				"%*d %*d %*d %*d %llu", state, &start) != 2)
		return 0;
	return start;
}

struct process process_of(pid_t pid)
{
	char state = 0;
	struct process p = {pid, start_of(pid, &state)};

	if (!p.start || state == 'Z' || state == 'X')
		p.pid = 0;
	return p;
}

bool process_alive(struct process p)
{
	struct process now;

	if (!p.pid)
		return false;
	waitpid(p.pid, NULL, WNOHANG); /* a child of ours that ended must not look alive */
	now = process_of(p.pid);
	return now.pid && now.start == p.start;
}

static void become(char **argv, const char *log, const char *tag)
{
	int null = open("/dev/null", O_RDONLY), out;

	setsid();
	out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	dup2(null, 0);
	dup2(out, 1);
	dup2(out, 2);
	syscall(SYS_close_range, 3, ~0u, 0);
	signal(SIGPIPE, SIG_DFL);
	setenv("UTIL_VM_PAIR", tag, 1);
	execvp(argv[0], argv);
	dprintf(2, "unable to run %s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

int process_spawn(struct json_object *argv, const char *log, const char *tag, struct process *p,
		  struct err *err)
{
	size_t n = json_object_array_length(argv);
	char **args = calloc(n + 1, sizeof(*args));
	pid_t pid;

	if (!args || !n) {
		free(args);
		return err_set(err, -EINVAL, "start process: empty command");
	}
	for (size_t i = 0; i < n; i++) /* execvp does not write through them */
		args[i] = strdup(json_object_get_string(json_object_array_get_idx(argv, i)));
	pid = fork();
	if (pid == 0)
		become(args, log, tag);
	*p = pid > 0 ? process_of(pid) : (struct process){0};
	for (size_t i = 0; i < n; i++)
		free(args[i]);
	free(args);
	if (pid < 0)
		return err_sys(err, -errno, "start process");
	return 0;
}

const char *process_last_words(const char *log, char *buf, size_t size)
{
	char line[512];
	FILE *f = fopen(log, "re");

	snprintf(buf, size, "it said nothing, see %s", log);
	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (line[0])
			snprintf(buf, size, "%s", line);
	}
	if (f)
		fclose(f);
	return buf;
}

static bool await_end(int pidfd, struct process p, int ms)
{
	struct pollfd pf = {.fd = pidfd, .events = POLLIN};

	poll(&pf, 1, ms);
	waitpid(p.pid, NULL, WNOHANG);
	return !process_alive(p);
}

int process_end(struct process p, int grace_ms, struct err *err)
{
	int fd, rc = 0;

	if (!process_alive(p))
		return 0;
	fd = (int)syscall(SYS_pidfd_open, p.pid, 0);
	if (fd < 0)
		return errno == ESRCH ? 0 : err_sys(err, -errno, "end process %d", (int)p.pid);
	/* Asked through the pidfd after the start time was seen: it cannot be somebody else. */
	if (process_alive(p)) {
		syscall(SYS_pidfd_send_signal, fd, grace_ms ? SIGTERM : SIGKILL, NULL, 0);
		if (!await_end(fd, p, grace_ms ? grace_ms : KILL_MS)) {
			syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
			if (!await_end(fd, p, KILL_MS))
				rc = err_set(err, -EBUSY, "end process %d: it does not end",
					     (int)p.pid);
		}
	}
	close(fd);
	return rc;
}

static bool tagged(pid_t pid, const char *tag)
{
	char path[64], *env = NULL;
	size_t room = 0;
	ssize_t n;
	bool yes = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/environ", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	while (!yes && (n = getdelim(&env, &room, '\0', f)) > 0)
		yes = !strncmp(env, TAG, strlen(TAG)) && !strcmp(env + strlen(TAG), tag);
	free(env);
	fclose(f);
	return yes;
}

int process_end_tagged(const char *tag)
{
	DIR *proc = opendir("/proc");
	struct dirent *e;
	int n = 0;

	while (proc && tag[0] && (e = readdir(proc))) {
		pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);

		if (pid > 1 && pid != getpid() && tagged(pid, tag)) {
			process_end(process_of(pid), 2000, NULL);
			n++;
		}
	}
	if (proc)
		closedir(proc);
	return n;
}

void process_to_json(struct process p, struct json_object *o)
{
	message_add_number(o, "pid", (uint64_t)p.pid);
	message_add_number(o, "start", p.start);
}

struct process process_from_json(struct json_object *o)
{
	return (struct process){(pid_t)message_number(o, "pid"), message_number(o, "start")};
}
