/* SPDX-License-Identifier: MIT */
/*
 * Run a command; at its end write what it and the children that it waited for have used:
 *   measure FILE COMMAND ARG…    {"max_kib": N, "cpu_s": N}
 * Ends as the command does. SIGTERM and SIGINT are passed on.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t child;

static void pass_on(int sig)
{
	if (child > 0)
		kill(child, sig);
}

static double seconds(struct timeval t)
{
	return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

int main(int argc, char **argv)
{
	struct rusage use;
	int status;
	FILE *f;

	if (argc < 3)
		return 2;
	child = fork();
	if (!child) {
		execvp(argv[2], argv + 2);
		perror(argv[2]);
		_exit(127);
	}
	signal(SIGTERM, pass_on);
	signal(SIGINT, pass_on);
	if (child < 0 || wait4(child, &status, 0, &use) != child)
		return 127;
	f = fopen(argv[1], "w");
	if (!f) {
		perror(argv[1]);
		return 127;
	}
	fprintf(f, "{\"max_kib\": %ld, \"cpu_s\": %.3f}\n", use.ru_maxrss,
		seconds(use.ru_utime) + seconds(use.ru_stime));
	fclose(f);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
