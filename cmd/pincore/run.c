/* SPDX-License-Identifier: MIT */
/*
 * run: the VM is on its CPUs before its first instruction, and every thread inherits that; its memory comes
 * from their NUMA node. With one list it becomes the command (exec), so that nothing of ours stays behind.
 * With lists by role it stays as the parent: once there are vCPUs it pins, and keeps them pinned.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/exit.h"
#include "base/log.h"
#include "base/units.h"
#include "pin.h"
#include "watch.h"

#define LOOK_NS 20000000 /* for the first vCPU */

static int go_there(const cpu_set_t *wanted)
{
	char text[200];
	cpu_set_t now;

	units_format_cpulist(wanted, text, sizeof(text));
	if (sched_setaffinity(0, sizeof(*wanted), wanted)) {
		log_error("run on CPUs %s: %s", text,
			  errno == EINVAL ? "none of them is on line and in our cpuset" : strerror(errno));
		return EXIT_REFUSED;
	}
	if (sched_getaffinity(0, sizeof(now), &now) || !CPU_EQUAL(&now, wanted)) {
		log_error("run on CPUs %s: not all of them are on line and in our cpuset", text);
		return EXIT_REFUSED;
	}
	return 0;
}

static int become(char **argv)
{
	signal(SIGPIPE, SIG_DFL); /* which our own output had ignored */
	execvp(argv[0], argv);
	log_error("run %s: %s", argv[0], strerror(errno));
	return EXIT_REFUSED;
}

/* --- by role --- */

struct child {
	pid_t pid;
	bool ended;
	int status; /* as the shell has it */
	sigset_t signals;
};

static void reap(struct child *c, int flags)
{
	int status;

	if (c->ended || waitpid(c->pid, &status, flags) != c->pid)
		return;
	c->ended = true;
	c->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int start(char **argv, const cpu_set_t *cpus, struct child *c)
{
	sigset_t before;

	sigemptyset(&c->signals);
	sigaddset(&c->signals, SIGINT);
	sigaddset(&c->signals, SIGTERM);
	sigaddset(&c->signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &c->signals, &before);
	c->pid = fork();
	if (c->pid < 0) {
		log_error("run %s: %s", argv[0], strerror(errno));
		return EXIT_REFUSED;
	}
	if (!c->pid) {
		sigprocmask(SIG_SETMASK, &before, NULL);
		_exit(go_there(cpus) ? EXIT_REFUSED : become(argv));
	}
	return 0;
}

static bool has_vcpus(const char *target, struct subject *s)
{
	if (vm_find(target, &s->vm, NULL) || vm_threads(&s->vm, &s->threads, &s->n, NULL))
		return false;
	if (subject_count(s, G_VCPU) && s->threads[0].role == VM_MAIN) {
		s->starttime = s->threads[0].starttime;
		return true;
	}
	subject_close(s);
	return false;
}

/* Until the command is a VM that has vCPUs; signals are handed on. False: it has ended before. */
static bool await_vm(struct child *c, struct subject *s)
{
	static const struct timespec pause = {0, LOOK_NS};
	char target[32];

	snprintf(target, sizeof(target), "pid:%d", (int)c->pid);
	for (;;) {
		int sig = sigtimedwait(&c->signals, NULL, &pause);

		if (sig == SIGINT || sig == SIGTERM)
			kill(c->pid, sig);
		reap(c, WNOHANG);
		if (c->ended)
			return false;
		if (has_vcpus(target, s))
			return true;
	}
}

static int supervise(struct keeper *k, char **argv)
{
	struct child c = {0};
	cpu_set_t cpus;
	int rc;

	setvbuf(stdout, NULL, _IOLBF, 0); /* who reads the events wants them now */
	plan_all_cpus(&k->plan, &cpus);
	rc = start(argv, &cpus, &c);
	if (rc)
		return rc;
	if (!await_vm(&c, &k->s)) {
		log_error("run %s: it ended (%d) before it was a VM (-daemonize is not for here)", argv[0], c.status);
		return c.status ? c.status : EXIT_ROLLED_BACK;
	}
	rc = pin_subject(k);
	if (rc) { /* it was to run pinned, or not at all */
		kill(c.pid, SIGTERM);
		reap(&c, 0);
		return EXIT_ROLLED_BACK;
	}
	rc = watch_keepers(k, 1, c.pid);
	reap(&c, 0);
	return c.status ? c.status : rc;
}

static int by_role(struct plan *plan, int argc, char **argv)
{
	struct keeper k = {.plan = *plan};
	int rc;

	if (argc < 1)
		return cli_usage_error("a COMMAND is needed behind --");
	rc = plan_check(plan, NULL);
	if (!rc)
		rc = supervise(&k, argv);
	keeper_free(&k);
	return rc;
}

int pin_run(int argc, char **argv)
{
	struct plan plan;
	cpu_set_t set;
	bool given;
	int rc = plan_of_options(&plan, &given);

	if (rc)
		return rc;
	if (given)
		return by_role(&plan, argc, argv);
	if (plan.isolate || plan.irqs || plan.floating)
		return cli_usage_error("run: --isolate, --irqs and --float go with lists by role");
	if (argc < 2)
		return cli_usage_error("CPUS and a COMMAND are needed: run 2-5 -- qemu-system-x86_64 ...");
	if (units_cpulist(argv[0], &set))
		return cli_usage_error("%s: not a CPU list such as 2,4-7", argv[0]);
	rc = go_there(&set);
	return rc ? rc : become(argv + 1);
}
