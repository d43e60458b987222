/* SPDX-License-Identifier: MIT */
/*
 * System calls made in another process, by its own threads (ptrace(2), x86-64).
 *
 * A thread of the process is stopped, makes the calls, and goes on where it was as if nothing had
 * been: registers, an interrupted system call and pending signals are the kernel's own again.
 * Helpers are threads that are made in the process for calls that may take long; they run
 * no code of the process and end with the session.
 *
 * Nothing depends on our being alive. What a thread executes after an injected call restores its
 * registers from its own stack and jumps to where it was (a helper ends itself), so that a
 * tracer that dies at any moment leaves the process running. PTRACE_O_EXITKILL is not set. A call
 * that would then wait for ever is interrupted by a guard, a child of the caller's for the time of
 * the session.
 *
 * All calls of a session come from one thread (ptrace's rule), with SIGCHLD blocked in it.
 */
#ifndef VM_INJECT_H
#define VM_INJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#include "base/err.h"

#define INJECT_DATA_MAX 128 /* bytes of a call's argument in memory */

struct inject;

enum inject_state {
	INJECT_RUNNING,	 /* its own work */
	INJECT_STOPPING, /* asked to stop */
	INJECT_STOPPED,	 /* stands still, its own registers saved; calls may be made */
	INJECT_CALLING,	 /* in an injected call */
	INJECT_SETTLING, /* on its way back */
	INJECT_GONE,	 /* it has ended */
};

/* One thread. Read only, save @user. */
struct inject_thread {
	pid_t tid;
	bool helper;
	enum inject_state state;
	long result;	      /* of the last call: as the kernel returned it, -errno on failure */
	uint64_t asked_us;    /* when it was asked to stop */
	uint64_t stall_us;    /* its latest absence from its own work */
	uint64_t longest_us;  /* the longest of them */
	struct user_regs_struct own; /* its own registers while it is stopped */
	void *user;	      /* the caller's */
	/* The rest is inject.c's. */
	struct inject *session;
	struct inject_thread *next;
	long call[7];
	unsigned char data[INJECT_DATA_MAX];
	size_t data_size;
	int data_arg;
	bool inside;  /* past the call's entry */
	bool put_off; /* a signal came first */
	bool suspended; /* by SIGSTOP and the like, as is all of its process */
	int snippet;
};

/*
 * Begin a session with process @pid. Nothing is stopped yet. -ENOTSUP: not this machine's
 * instruction set, or the process uses shadow stacks; -ENOSPC: no room for the code;
 * -EACCES, -EPERM (Yama, another user's), -ESRCH.
 */
int inject_open(pid_t pid, struct inject **out, struct err *err);

/* Take thread @tid on. It goes on running. -EPERM: not allowed, or another tracer has it. */
int inject_attach(struct inject *in, pid_t tid, struct inject_thread **out, struct err *err);

/* Ask @t to stop; inject_wait tells when it has. */
int inject_stop(struct inject_thread *t, struct err *err);

/*
 * Let @t, stopped, make system call @nr; inject_wait tells when it has returned. @data_arg ≥ 0:
 * argument number @data_arg is the address of a copy of @data (at most INJECT_DATA_MAX bytes) in
 * the process; t->data has it as the call left it.
 */
int inject_call(struct inject_thread *t, long nr, const long args[6], int data_arg,
		const void *data, size_t size, struct err *err);

/* Interrupt the call that @t is in, as a signal would: it returns with what it has, often -EINTR. */
int inject_interrupt(struct inject_thread *t, struct err *err);

/* Let @t, stopped, go on with its own work. */
int inject_resume(struct inject_thread *t, struct err *err);

/*
 * Make @n helpers out of @t, which is stopped and stays so. They come stopped, with all
 * signals blocked. @helpers gets them.
 */
int inject_spawn(struct inject_thread *t, unsigned n, struct inject_thread **helpers,
		 struct err *err);

/*
 * Wait at most @timeout_ms until a thread has stopped, has returned from its call (both:
 * INJECT_STOPPED), or is gone. 1: *@t; 0: nothing yet (also when a signal came in); -errno.
 */
int inject_wait(struct inject *in, int timeout_ms, struct inject_thread **t, struct err *err);

/* End: calls under way are awaited, all threads go on with their own work, helpers end. */
void inject_close(struct inject *in); /* NULL is fine */

#endif
