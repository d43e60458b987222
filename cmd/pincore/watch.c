/* SPDX-License-Identifier: MIT */
/*
 * watch: keeps VMs pinned. Births are told by the kernel (as root), so that a vCPU that is plugged in or
 * a worker that is born is pinned at once; that somebody changes an affinity nobody tells, so that
 * is looked at once in a while. QMP is not held: QEMU serves one client at a time.
 */
#include "watch.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <json-c/json.h>

#include "base/exit.h"
#include "base/log.h"
#include "base/notify.h"
#include "base/units.h"
#include "pin.h"
#include "vm/births.h"

#define POLLING_US 100000 /* where births are not told */

struct watched {
	struct keeper *k;
	bool ended, undone;
	bool stir;	  /* something was born */
	uint64_t stir_us; /* when the first of it was; 0: nobody told */
	uint64_t born, reset;
	char warned[384]; /* once is enough, until something else is wrong */
};

struct watch {
	struct watched *vms;
	size_t n;
	int births, signals;
	int signal; /* that ended it; 0: none */
	pid_t child;
};

/* @since_us: the birth; 0: nobody told when that was. */
static void print_event(const struct watched *v, const char *what, size_t n, uint64_t since_us)
{
	uint64_t took_us = units_now_us() - since_us;
	struct json_object *o;
	char when[40], took[40] = "";

	if (!pin_opts.json) {
		if (since_us)
			snprintf(took, sizeof(took), ", %.1f ms after birth",
				 (double)took_us / 1e3);
		log_note("%s: %s%zu thread%s%s", subject_name(&v->k->s), what, n,
			 n == 1 ? "" : "s", took);
		return;
	}
	o = json_object_new_object();
	json_object_object_add(o, "schema", json_object_new_string("util-vm/pincore/event/1"));
	json_object_object_add(o, "when", json_object_new_string(units_iso8601(units_realtime_us(), when, sizeof(when))));
	json_object_object_add(o, "vm", json_object_new_string(subject_name(&v->k->s)));
	json_object_object_add(o, "pid", json_object_new_int(v->k->s.vm.pid));
	json_object_object_add(o, "event", json_object_new_string(*what == 's' ? "reset" : "born"));
	json_object_object_add(o, "threads", json_object_new_uint64(n));
	if (since_us)
		json_object_object_add(o, "after_us", json_object_new_uint64(took_us));
	print_json(o);
}

/* A name often comes a moment after the birth; then, and only then, is the VM itself asked again. */
static bool some_unclear(const struct keeper *k)
{
	for (size_t i = 0; i < k->s.n; i++)
		if (k->s.threads[i].role == VM_OTHER)
			return true;
	return false;
}

static void ask_again(struct keeper *k)
{
	struct vm_thread *list = NULL;
	size_t n = 0;

	if (vm_threads(&k->s.vm, &list, &n, NULL))
		return;
	free(k->s.threads);
	k->s.threads = list;
	k->s.n = n;
}

static void look(struct watched *v, uint64_t since_us)
{
	struct err err = {0};
	size_t born, reset;
	int rc = keeper_look(v->k, &born, &reset, &err);

	if (!rc) {
		v->born += born;
		v->reset += reset;
	}
	if (!rc && reset)
		print_event(v, "set back ", reset, 0);
	if (!rc && born)
		print_event(v, "pinned ", born, since_us);
	if (rc == -ESRCH || rc == -ENOENT) {
		log_verbose("%s: %s", subject_name(&v->k->s), rc == -ESRCH ? "has ended" : "was undone");
		v->ended = true;
		v->undone = rc == -ENOENT;
	} else if (rc == -EBUSY) { /* an undo or a pin is at it: the next look will tell */
		log_verbose("%s", err.text);
	} else if (rc) {
		if (strcmp(v->warned, err.text) != 0)
			log_warn("%s: %s", subject_name(&v->k->s), *err.text ? err.text : strerror(-rc));
		snprintf(v->warned, sizeof(v->warned), "%s", err.text);
	} else {
		*v->warned = '\0';
	}
}

/* @when_us: 0: nobody told. */
static void stir(struct watched *v, uint64_t when_us)
{
	if (!v->stir)
		v->stir_us = when_us;
	v->stir = true;
}

static void on_birth(void *ctx, enum birth what, pid_t pid, pid_t tid, pid_t by,
		     uint64_t when_us)
{
	struct watch *w = ctx;

	for (size_t i = 0; i < w->n; i++) {
		pid_t ours = w->vms[i].k->s.vm.pid;

		/* Kernel threads are children of kthreadd, number 2. */
		if (pid == ours ? what != BIRTH_EXIT || tid == ours : what != BIRTH_EXIT && by == 2)
			stir(&w->vms[i], when_us);
	}
}

static void everyone(struct watch *w)
{
	for (size_t i = 0; i < w->n; i++)
		stir(&w->vms[i], 0);
}

static size_t alive(const struct watch *w)
{
	size_t n = 0;

	for (size_t i = 0; i < w->n; i++)
		n += !w->vms[i].ended;
	return n;
}

static void take_signal(struct watch *w)
{
	struct signalfd_siginfo info;

	if (read(w->signals, &info, sizeof(info)) != (ssize_t)sizeof(info) || info.ssi_signo == SIGCHLD)
		return;
	w->signal = (int)info.ssi_signo;
	if (w->child)
		kill(w->child, w->signal);
}

static bool over(const struct watch *w)
{
	return !alive(w) || (w->signal && !w->child);
}

static void loop(struct watch *w)
{
	uint64_t every = w->births >= 0 ? pin_opts.every_us : POLLING_US, next = 0;

	while (!over(w)) {
		struct pollfd p[] = {{.fd = w->signals, .events = POLLIN}, {.fd = w->births, .events = POLLIN}};
		uint64_t now = units_now_us();

		if (now < next && poll(p, 2, (int)((next - now) / 1000) + 1) > 0) {
			if (p[0].revents)
				take_signal(w);
			if (p[1].revents && births_read(w->births, on_birth, w) == -ENOBUFS)
				everyone(w);
		}
		if (units_now_us() >= next) {
			next = units_now_us() + every;
			notify("WATCHDOG=1");
			for (size_t i = 0; i < w->n; i++)
				if (!w->vms[i].ended && some_unclear(w->vms[i].k))
					ask_again(w->vms[i].k);
			everyone(w);
		}
		for (size_t i = 0; i < w->n; i++) {
			struct watched *v = &w->vms[i];
			bool stirred = v->stir;

			v->stir = false;
			if (stirred && !v->ended)
				look(v, v->stir_us);
		}
	}
}

static int finish(struct watch *w)
{
	int status = 0;

	notify("STOPPING=1");
	for (size_t i = 0; i < w->n; i++) {
		struct watched *v = &w->vms[i];
		char file[64];
		int rc = 0;

		log_note("%s: %llu births pinned, %llu affinities set back%s", subject_name(&v->k->s),
			 (unsigned long long)v->born, (unsigned long long)v->reset, v->undone ? "; it was undone" : v->ended ? "; it has ended" : "");
		record_file(v->k->s.vm.pid, v->k->s.starttime, file, sizeof(file));
		/* Of a VM that has ended nothing must stay behind. */
		if (pin_opts.undo || !record_lives(&(struct record){.pid = v->k->s.vm.pid, .starttime = v->k->s.starttime}))
			rc = undo_record(file);
		if (rc > status)
			status = rc;
	}
	if (status)
		return status;
	return w->signal && !w->child && pin_opts.undo ? EXIT_SIGNAL + w->signal : 0;
}

/* Who is born runs at once, and where it likes: behind a busy machine's load we would come too late. */
static void stand_first(void)
{
	const struct sched_param lowest = {.sched_priority = sched_get_priority_min(SCHED_RR)};

	if (sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &lowest))
		log_verbose("watch: no real-time priority: %s", strerror(errno));
}

int watch_keepers(struct keeper *k, size_t n, pid_t child)
{
	struct watch w = {.n = n, .births = -1, .child = child};
	struct err err = {0};
	sigset_t set;
	int status;

	w.vms = calloc(n, sizeof(*w.vms));
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	w.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (!w.vms || w.signals < 0) {
		log_error("watch: %s", strerror(errno));
		free(w.vms);
		return EXIT_REFUSED;
	}
	for (size_t i = 0; i < n; i++)
		w.vms[i].k = &k[i];
	w.births = births_open(&err);
	if (w.births < 0)
		log_note("watch: looking every %d ms, the kernel tells births only to root: %s", POLLING_US / 1000,
			 err.text);
	stand_first();
	notify("READY=1");
	loop(&w);
	status = finish(&w);
	if (w.births >= 0)
		close(w.births);
	close(w.signals);
	free(w.vms);
	return status;
}

/* By the options; else as it is recorded; else as auto finds. */
static int begin(const char *target, struct keeper *k)
{
	struct err err = {0};
	struct plan_why why;
	bool given;
	int rc = plan_of_options(&k->plan, &given);

	if (!rc)
		rc = subject_open(target, &k->s);
	if (rc)
		return rc;
	if (!given) {
		rc = keeper_resume(k, &err);
		if (!rc)
			return 0;
		if (rc != -ENOENT) {
			log_error("%s", err.text);
			return EXIT_REFUSED;
		}
		rc = plan_find(&k->s, &k->plan, &why);
	}
	if (!rc)
		rc = plan_check(&k->plan, &k->s);
	return rc ? rc : pin_subject(k);
}

int pin_watch(int argc, char **argv)
{
	struct keeper *k;
	int rc = 0, n = 0;

	if (!argc)
		return cli_usage_error("a TARGET is missing");
	if (pin_opts.every_us < 1000)
		return cli_usage_error("--every: at least 1ms");
	setvbuf(stdout, NULL, _IOLBF, 0); /* who reads the events wants them now */
	k = calloc((size_t)argc, sizeof(*k));
	if (!k)
		return EXIT_REFUSED;
	for (; !rc && n < argc; n++)
		rc = begin(argv[n], &k[n]);
	if (!rc)
		rc = watch_keepers(k, (size_t)argc, 0);
	while (n--)
		keeper_free(&k[n]);
	free(k);
	return rc;
}
