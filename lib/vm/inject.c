/* SPDX-License-Identifier: MIT */
#include "vm/inject.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <linux/ptrace.h>
#include <linux/sched.h>

#include "base/log.h"
#include "base/units.h"

#ifdef __x86_64__

/*
 * What threads execute; written into the zeros between the end of a program's code and the end of
 * its last page. Each snippet is a system call and what must come after it if nobody is there
 * any more. The tracer's own way never gets beyond the `syscall`: at its exit stop the thread
 * gets its own registers back.
 *
 * A thread's frame lies FRAME bytes below its stack pointer, beyond the red zone (System V
 * ABI, 3.2.2), with the stack pointer set to it, so that signal handlers stay below. No
 * instruction here touches the flags; the last one restores rip and rsp at once.
 */
#define FRAME 512
#define FRAME_WORDS 10 /* rdi rsi rdx r10 r8 r9 rcx r11 rax rip, then the call's data */
#define FRAME_DATA (FRAME_WORDS * 8)
_Static_assert(FRAME - FRAME_DATA == 432, "the snippets' ret");
_Static_assert(FRAME_DATA + INJECT_DATA_MAX <= FRAME - 128, "the data stays out of the red zone");

#define GO_BACK                                                                                \
	"	pop %rdi\n	pop %rsi\n	pop %rdx\n	pop %r10\n	pop %r8\n"             \
	"	pop %r9\n	pop %rcx\n	pop %r11\n	pop %rax\n	ret $432\n"
/* clang-format off */
__asm__(".pushsection .rodata\n"
	"inject_code:\n"
	"	syscall\n" GO_BACK
	"inject_code_clone:\n"
	"	syscall\n"
	"	mov %rax, %rcx\n"
	"	jrcxz inject_code_end\n" GO_BACK
	"inject_code_helper:\n"
	"	syscall\n"
	"inject_code_end:\n"		/* SYS_exit: a helper's end, of itself alone */
	"	mov $60, %eax\n"
	"	xor %edi, %edi\n"
	"	syscall\n"
	"	ud2\n"
	"inject_code_limit:\n"
	".popsection\n");
/* clang-format on */
extern const char inject_code[], inject_code_clone[], inject_code_helper[], inject_code_end[],
	inject_code_limit[];

enum snippet { SNIPPET_CALL, SNIPPET_CLONE, SNIPPET_HELPER, SNIPPET_END };
#define CODE_MAX 128
#define GUARDED_MAX 4096

/* linux/errno.h: what a system call leaves that a signal interrupted. */
#define ERESTARTSYS 512
#define ERESTARTNOINTR 513
#define ERESTARTNOHAND 514
#define ERESTART_RESTARTBLOCK 516

struct inject {
	pid_t pid;
	int mem_fd, signal_fd;
	sigset_t old_mask;
	unsigned long code; /* address in the process */
	bool code_there, code_ours;
	struct inject_thread *threads;
	pid_t newborn; /* a clone's child, while its parent is in the call */
	pid_t guard;
	int guard_fd; /* tells it of threads; its end is our death */
};

static unsigned long snippet_address(const struct inject *in, enum snippet snippet)
{
	static const char *const at[] = {inject_code, inject_code_clone, inject_code_helper,
					 inject_code_end};

	return in->code + ((uintptr_t)at[snippet] - (uintptr_t)inject_code);
}

static size_t code_size(void)
{
	return (uintptr_t)inject_code_limit - (uintptr_t)inject_code;
}

/* --- a place for the code --- */

static int tail_of_mapping(struct inject *in, unsigned long end)
{
	static const unsigned char zeros[CODE_MAX];
	unsigned char tail[CODE_MAX];

	if (pread(in->mem_fd, tail, CODE_MAX, (off_t)(end - CODE_MAX)) != CODE_MAX)
		return -ENOSPC;
	in->code_there = !memcmp(tail, inject_code, code_size()); /* left by one that was killed */
	if (!in->code_there && memcmp(tail, zeros, CODE_MAX) != 0)
		return -ENOSPC;
	in->code = end - CODE_MAX;
	return 0;
}

static int find_room(struct inject *in, struct err *err)
{
	char path[64], line[512];
	int rc = -ENOSPC;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)in->pid);
	f = fopen(path, "re");
	if (!f)
		return err_sys(err, -errno, "%s", path);
	while (rc && fgets(line, sizeof(line), f)) {
		unsigned long start, end, inode;
		char perms[5];

		if (sscanf(line, "%lx-%lx %4s %*x %*x:%*x %lu", &start, &end, perms, &inode) == 4 &&
		    !strcmp(perms, "r-xp") && inode)
			rc = tail_of_mapping(in, end);
	}
	fclose(f);
	if (rc)
		return err_set(err, rc, "pid:%d: no room for code between its programs' ends and "
			       "their pages'", (int)in->pid);
	return 0;
}

/* By ptrace, since /proc/PID/mem may be told not to write where the process itself may not. */
static int poke(pid_t tid, unsigned long at, const void *bytes, size_t n)
{
	for (size_t i = 0; i < n; i += sizeof(long)) {
		long word = 0;

		memcpy(&word, (const char *)bytes + i, n - i < sizeof(word) ? n - i : sizeof(word));
		if (ptrace(PTRACE_POKEDATA, tid, at + i, word))
			return -errno;
	}
	return 0;
}

/* What the process may write itself: in one call. */
static int write_there(pid_t tid, unsigned long at, const void *bytes, size_t n)
{
	struct iovec from = {(void *)(uintptr_t)bytes, n}, to = {(void *)at, n};

	return process_vm_writev(tid, &from, 1, &to, 1, 0) == (ssize_t)n ? 0 : poke(tid, at, bytes, n);
}

static int read_there(pid_t tid, unsigned long at, void *bytes, size_t n)
{
	struct iovec to = {bytes, n}, from = {(void *)at, n};

	if (!n)
		return 0;
	return process_vm_readv(tid, &to, 1, &from, 1, 0) == (ssize_t)n ? 0 : -errno;
}

static int install_code(struct inject_thread *t)
{
	struct inject *in = t->session;
	int rc;

	if (in->code_there)
		return 0;
	rc = poke(t->tid, in->code, inject_code, code_size());
	in->code_there = in->code_ours = !rc;
	return rc;
}

static void remove_code(struct inject_thread *t)
{
	static const char zeros[CODE_MAX];
	struct inject *in = t->session;

	/* What another session left may still have a helper in it. */
	if (in->code_ours && !poke(t->tid, in->code, zeros, code_size()))
		in->code_there = in->code_ours = false;
}

/* --- the guard --- */

static pid_t tracer_of(pid_t tid)
{
	char path[64], line[128];
	pid_t tracer = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)tid);
	f = fopen(path, "re");
	while (f && !tracer && fgets(line, sizeof(line), f))
		if (!strncmp(line, "TracerPid:", 10))
			tracer = (pid_t)strtol(line + 10, NULL, 10);
	if (f)
		fclose(f);
	return tracer;
}

/* TRACESYSGOOD also keeps a thread alive whose tracer dies at a call's stop: the kernel then sends
 * the stop's number as a signal, and SIGTRAP|0x80 is none (ptrace_report_syscall). Another's
 * guard may have the thread, for a moment. */
static int seize(pid_t tid, int patience_ms)
{
	struct timespec ms = {.tv_nsec = 1000000};
	int untraced = 0;

	while (ptrace(PTRACE_SEIZE, tid, 0, PTRACE_O_TRACESYSGOOD)) {
		if (errno != EPERM || !patience_ms--)
			return -errno;
		if (!tracer_of(tid) && ++untraced > 2) /* it is not allowed, then */
			return -EPERM;
		nanosleep(&ms, NULL);
	}
	return 0;
}

/*
 * A thread whose tracer dies finds its way back when its call returns; but a call may wait for
 * something that only a signal ends (KVM_PRE_FAULT_MEMORY spins on a memslot that somebody deletes,
 * who waits for it). So a child of ours does what we cannot any more: each thread is interrupted
 * once, all of them before the first is waited for, which may be the one that deletes.
 */
static void interrupt_all(const pid_t *tids, size_t n)
{
	size_t left = 0;
	int status;
	pid_t tid;

	for (size_t i = 0; i < n; i++) /* the kernel may not have taken them from the dead one yet */
		if (!seize(tids[i], 2000)) {
			ptrace(PTRACE_INTERRUPT, tids[i], 0, 0);
			left++;
		}
	while (left && (tid = waitpid(-1, &status, __WALL)) > 0) {
		if (WIFSTOPPED(status) && status >> 16 != PTRACE_EVENT_STOP) {
			/* Any other stop takes a pending interrupt away (ptrace_stop). */
			ptrace(PTRACE_INTERRUPT, tid, 0, 0);
			ptrace(PTRACE_CONT, tid, 0, WSTOPSIG(status) & 0x80 ? 0 : WSTOPSIG(status));
			continue;
		}
		ptrace(PTRACE_DETACH, tid, 0, 0);
		left--;
	}
}

static _Noreturn void guard(int fd)
{
	pid_t tids[GUARDED_MAX];
	sigset_t all;
	size_t n = 0;

	/* What ends us leaves it alone: it ends when we do. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	setsid();
	while (n < GUARDED_MAX && read(fd, &tids[n], sizeof(*tids)) == sizeof(*tids)) {
		if (!tids[n]) /* all is well */
			_exit(0);
		n++;
	}
	if (n < GUARDED_MAX)
		interrupt_all(tids, n);
	_exit(0);
}

static int start_guard(struct inject *in)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
		return -errno;
	in->guard = fork();
	if (!in->guard) {
		close(fds[1]);
		guard(fds[0]);
	}
	close(fds[0]);
	if (in->guard < 0) {
		close(fds[1]);
		return -errno;
	}
	in->guard_fd = fds[1];
	return 0;
}

static void tell_guard(struct inject *in, pid_t tid)
{
	if (in->guard_fd >= 0)
		(void)!send(in->guard_fd, &tid, sizeof(tid), MSG_NOSIGNAL);
}

static void end_guard(struct inject *in)
{
	tell_guard(in, 0);
	if (in->guard_fd >= 0)
		close(in->guard_fd);
	if (in->guard > 0)
		waitpid(in->guard, NULL, 0);
}

/* --- begin --- */

/* A return that nobody called is a fault to a shadow stack; "x86_Thread_features: shstk". */
static bool has_shadow_stack(pid_t pid)
{
	char path[64], line[256];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	while (f && !found && fgets(line, sizeof(line), f))
		found = !strncmp(line, "x86_Thread_features:", 20) && strstr(line, "shstk");
	if (f)
		fclose(f);
	return found;
}

/* The exec'd file is 64 bit: the snippets and the numbers of system calls are. */
static bool is_64bit(pid_t pid)
{
	unsigned char ident[EI_NIDENT] = {0};
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return true; /* ptrace will have its word */
	(void)!read(fd, ident, sizeof(ident));
	close(fd);
	return ident[EI_CLASS] == ELFCLASS64;
}

static int begin_signals(struct inject *in)
{
	sigset_t child;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &child, &in->old_mask))
		return -errno;
	in->signal_fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
	return in->signal_fd < 0 ? -errno : 0;
}

int inject_open(pid_t pid, struct inject **out, struct err *err)
{
	struct inject *in;
	char path[64];
	int rc;

	if (!is_64bit(pid) || has_shadow_stack(pid))
		return err_set(err, -ENOTSUP, "pid:%d: system calls are injected into 64-bit "
			       "programs without shadow stacks only", (int)pid);
	in = calloc(1, sizeof(*in));
	if (!in)
		return err_sys(err, -ENOMEM, "pid:%d", (int)pid);
	in->pid = pid;
	in->mem_fd = in->signal_fd = in->guard_fd = -1;
	rc = begin_signals(in);
	snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	if (!rc) {
		in->mem_fd = open(path, O_RDONLY | O_CLOEXEC);
		rc = in->mem_fd < 0 ? err_sys(err, -errno, "%s", path) : find_room(in, err);
	}
	if (!rc) {
		rc = start_guard(in);
		if (rc)
			err_sys(err, rc, "fork");
	}
	if (rc) {
		inject_close(in);
		return rc;
	}
	*out = in;
	return 0;
}

static struct inject_thread *adopt(struct inject *in, pid_t tid)
{
	struct inject_thread *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->tid = tid;
	t->session = in;
	t->next = in->threads;
	in->threads = t;
	return t;
}

int inject_attach(struct inject *in, pid_t tid, struct inject_thread **out, struct err *err)
{
	struct inject_thread *t;
	pid_t tracer;
	int rc = seize(tid, 500);

	if (rc) {
		tracer = tracer_of(tid);
		if (tracer)
			return err_set(err, -EPERM, "attach thread %d: process %d traces it already",
				       (int)tid, (int)tracer);
		return err_sys(err, rc, "attach thread %d", (int)tid);
	}
	t = adopt(in, tid);
	if (!t) {
		ptrace(PTRACE_DETACH, tid, 0, 0);
		return err_sys(err, -ENOMEM, "attach thread %d", (int)tid);
	}
	tell_guard(in, tid);
	*out = t;
	return 0;
}

/* --- stopping and calling --- */

static int gone(struct inject_thread *t, int rc, struct err *err, const char *doing)
{
	if (rc == -ESRCH)
		t->state = INJECT_GONE;
	return err_sys(err, rc, "%s thread %d", doing, (int)t->tid);
}

int inject_stop(struct inject_thread *t, struct err *err)
{
	if (t->state != INJECT_RUNNING)
		return err_set(err, -EINVAL, "stop thread %d: it does not run", (int)t->tid);
	t->asked_us = units_now_us();
	if (ptrace(PTRACE_INTERRUPT, t->tid, 0, 0))
		return gone(t, -errno, err, "stop");
	t->state = INJECT_STOPPING;
	return 0;
}

/* What the registers will be if the kernel restarts what was interrupted, as it would by itself. */
static void as_restarted(struct user_regs_struct *r)
{
	long rax = (long)r->rax;

	if ((long)r->orig_rax < 0)
		return;
	if (rax == -ERESTARTSYS || rax == -ERESTARTNOINTR || rax == -ERESTARTNOHAND)
		r->rax = r->orig_rax;
	else if (rax == -ERESTART_RESTARTBLOCK)
		r->rax = SYS_restart_syscall;
	else
		return;
	r->rip -= 2;
}

static bool was_interrupted(const struct user_regs_struct *r)
{
	struct user_regs_struct copy = *r;

	as_restarted(&copy);
	return copy.rip != r->rip;
}

/* The frame that leads back without us. */
static int write_frame(struct inject_thread *t)
{
	struct user_regs_struct r = t->own;
	unsigned long words[FRAME_WORDS];
	char frame[FRAME_DATA + INJECT_DATA_MAX];

	as_restarted(&r);
	memcpy(words,
	       (unsigned long[FRAME_WORDS]){r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9, r.rcx, r.r11,
					    r.rax, r.rip},
	       sizeof(words));
	memcpy(frame, words, sizeof(words));
	memcpy(frame + FRAME_DATA, t->data, t->data_size);
	return write_there(t->tid, t->own.rsp - FRAME, frame, FRAME_DATA + t->data_size);
}

static void set_call(struct inject_thread *t, struct user_regs_struct *r)
{
	unsigned long frame = t->own.rsp - FRAME;
	long args[6];

	memcpy(args, t->call + 1, sizeof(args));
	if (t->data_arg >= 0)
		args[t->data_arg] = (long)(frame + FRAME_DATA);
	*r = t->own;
	r->rax = (unsigned long)t->call[0];
	r->rdi = (unsigned long)args[0];
	r->rsi = (unsigned long)args[1];
	r->rdx = (unsigned long)args[2];
	r->r10 = (unsigned long)args[3];
	r->r8 = (unsigned long)args[4];
	r->r9 = (unsigned long)args[5];
	r->orig_rax = -1ul; /* nothing to restart */
	if (!t->helper)
		r->rsp = frame;
	r->rip = snippet_address(t->session, t->snippet);
}

static int begin_call(struct inject_thread *t)
{
	struct user_regs_struct r;
	int rc = install_code(t);

	if (!rc && !t->helper)
		rc = write_frame(t);
	if (rc)
		return rc;
	set_call(t, &r);
	if (ptrace(PTRACE_SETREGS, t->tid, 0, &r))
		return -errno;
	t->inside = false;
	if (ptrace(PTRACE_SYSCALL, t->tid, 0, 0))
		return -errno;
	t->state = INJECT_CALLING;
	return 0;
}

int inject_call(struct inject_thread *t, long nr, const long args[6], int data_arg,
		const void *data, size_t size, struct err *err)
{
	int rc;

	if (t->state != INJECT_STOPPED || size > INJECT_DATA_MAX || (t->helper && data_arg >= 0))
		return err_set(err, -EINVAL, "inject into thread %d: it is not stopped for this",
			       (int)t->tid);
	t->call[0] = nr;
	memcpy(t->call + 1, args, 6 * sizeof(long));
	t->data_arg = data_arg;
	t->data_size = data_arg < 0 ? 0 : size;
	if (t->data_size)
		memcpy(t->data, data, t->data_size);
	t->snippet = t->helper ? SNIPPET_HELPER : SNIPPET_CALL;
	rc = begin_call(t);
	return rc ? gone(t, rc, err, "inject into") : 0;
}

int inject_interrupt(struct inject_thread *t, struct err *err)
{
	if (t->state != INJECT_CALLING)
		return err_set(err, -EINVAL, "interrupt thread %d: it is in no call", (int)t->tid);
	return ptrace(PTRACE_INTERRUPT, t->tid, 0, 0) ? gone(t, -errno, err, "interrupt") : 0;
}

/*
 * Its own registers, and the way back. An interrupted call is restarted by the kernel on its way
 * through signal handling, which one more stop makes sure of; and one that had been stopped by
 * SIGSTOP is stopped again, at that same stop.
 */
static int go_back(struct inject_thread *t)
{
	bool settle = was_interrupted(&t->own) || t->suspended;

	if (ptrace(PTRACE_SETREGS, t->tid, 0, &t->own) ||
	    (settle && ptrace(PTRACE_INTERRUPT, t->tid, 0, 0)) ||
	    ptrace(PTRACE_CONT, t->tid, 0, 0))
		return -errno;
	t->state = settle ? INJECT_SETTLING : INJECT_RUNNING;
	t->stall_us = units_now_us() - t->asked_us;
	if (t->stall_us > t->longest_us)
		t->longest_us = t->stall_us;
	return 0;
}

int inject_resume(struct inject_thread *t, struct err *err)
{
	int rc;

	if (t->state != INJECT_STOPPED || t->helper)
		return err_set(err, -EINVAL, "resume thread %d: it is not stopped", (int)t->tid);
	rc = go_back(t);
	return rc ? gone(t, rc, err, "resume") : 0;
}

/* --- events --- */

static int stopped_for_call(struct inject_thread *t)
{
	struct user_regs_struct r;

	if (!t->inside) {
		t->inside = true;
		return ptrace(PTRACE_SYSCALL, t->tid, 0, 0) ? -errno : 0;
	}
	if (ptrace(PTRACE_GETREGS, t->tid, 0, &r))
		return -errno;
	t->result = (long)r.rax;
	if (read_there(t->tid, t->own.rsp - FRAME + FRAME_DATA, t->data, t->data_size))
		t->result = -EFAULT;
	t->state = INJECT_STOPPED;
	return 1;
}

/* PTRACE_EVENT_STOP: our interrupt, a helper's first stop, or a stop signal for all of it. */
static int stopped_by_event(struct inject_thread *t, int sig)
{
	t->suspended = sig != SIGTRAP;
	if (t->state == INJECT_STOPPING) {
		if (ptrace(PTRACE_GETREGS, t->tid, 0, &t->own))
			return -errno;
		t->state = INJECT_STOPPED;
		t->inside = false;
		if (!t->put_off)
			return 1;
		t->put_off = false;
		return begin_call(t);
	}
	if (t->state == INJECT_SETTLING)
		t->state = INJECT_RUNNING;
	if (t->suspended && t->state == INJECT_RUNNING && !t->helper) /* stays stopped, as sent */
		return ptrace(PTRACE_LISTEN, t->tid, 0, 0) ? -errno : 0;
	return ptrace(t->state == INJECT_CALLING ? PTRACE_SYSCALL : PTRACE_CONT, t->tid, 0, 0) ?
		       -errno : 0;
}

/* A signal on its way to the thread. Its handler must find the thread's own registers. */
static int stopped_by_signal(struct inject_thread *t, int sig)
{
	bool again = t->state == INJECT_CALLING && !t->helper;

	if (again && ptrace(PTRACE_SETREGS, t->tid, 0, &t->own))
		return -errno;
	/* A stop of any kind takes a pending interrupt away (ptrace_stop): ask again. */
	if ((again || t->state == INJECT_STOPPING || t->state == INJECT_SETTLING) &&
	    ptrace(PTRACE_INTERRUPT, t->tid, 0, 0))
		return -errno;
	if (ptrace(PTRACE_CONT, t->tid, 0, sig))
		return -errno;
	if (!again)
		return 0;
	t->state = INJECT_STOPPING;
	t->put_off = true; /* the call is made at the next stop */
	return 0;
}

static int take_stop(struct inject_thread *t, int status)
{
	int sig = WSTOPSIG(status), event = status >> 16;

	if (event == PTRACE_EVENT_STOP)
		return stopped_by_event(t, sig);
	if (event == PTRACE_EVENT_CLONE) {
		unsigned long child = 0;

		ptrace(PTRACE_GETEVENTMSG, t->tid, 0, &child);
		t->session->newborn = (pid_t)child;
		return ptrace(PTRACE_SYSCALL, t->tid, 0, 0) ? -errno : 0;
	}
	if (sig == (SIGTRAP | 0x80) && t->state == INJECT_CALLING)
		return stopped_for_call(t);
	if (sig == (SIGTRAP | 0x80) || event)
		return ptrace(PTRACE_CONT, t->tid, 0, 0) ? -errno : 0;
	return stopped_by_signal(t, sig);
}

static struct inject_thread *find_thread(struct inject *in, pid_t tid)
{
	struct inject_thread *t = in->threads;

	while (t && t->tid != tid)
		t = t->next;
	return t;
}

/* A helper is born stopped. Its registers are its maker's, in the middle of clone. */
static int newborn(struct inject *in, pid_t tid)
{
	struct inject_thread *t = adopt(in, tid);
	uint64_t all = ~UINT64_C(0);

	if (!t)
		return -ENOMEM;
	t->helper = true;
	t->state = INJECT_STOPPED;
	if (ptrace(PTRACE_SETSIGMASK, tid, sizeof(all), &all) ||
	    ptrace(PTRACE_GETREGS, tid, 0, &t->own))
		return -errno;
	return 0;
}

/* One event. 1: it is somebody's news, *@out; 0: none, or nobody's; *@any: there was one. */
static int take_event(struct inject *in, struct inject_thread **out, bool *any)
{
	struct inject_thread *t;
	int status, rc;
	pid_t tid = 0;

	/* Ours only: the caller may have children that it waits for itself. */
	for (t = in->threads; t && tid <= 0; t = tid > 0 ? t : t->next)
		if (t->state != INJECT_GONE)
			tid = waitpid(t->tid, &status, WNOHANG | __WALL);
	if (tid <= 0 && in->newborn > 0)
		tid = waitpid(in->newborn, &status, WNOHANG | __WALL);
	*any = tid > 0;
	if (tid <= 0)
		return 0;
	t = find_thread(in, tid);
	if (!t) {
		in->newborn = 0;
		return WIFSTOPPED(status) ? newborn(in, tid) : 0;
	}
	if (!WIFSTOPPED(status)) {
		t->state = INJECT_GONE;
		*out = t;
		return 1;
	}
	rc = take_stop(t, status);
	if (rc == -ESRCH) { /* killed meanwhile; its end will be told */
		rc = 0;
	}
	*out = t;
	return rc;
}

int inject_wait(struct inject *in, int timeout_ms, struct inject_thread **t, struct err *err)
{
	struct pollfd p = {.fd = in->signal_fd, .events = POLLIN};
	uint64_t deadline = units_now_us() + (uint64_t)(timeout_ms > 0 ? timeout_ms : 0) * 1000;

	for (;;) {
		struct signalfd_siginfo info;
		uint64_t now;
		bool any;
		int rc = take_event(in, t, &any);

		if (rc < 0)
			return err_sys(err, rc, "trace process %d", (int)in->pid);
		if (rc)
			return 1;
		if (any)
			continue;
		now = units_now_us();
		if (poll(&p, 1, now < deadline ? (int)((deadline - now + 999) / 1000) : 0) <= 0)
			return 0;
		while (read(in->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
			; /* one signal may stand for many events */
	}
}

/* --- helpers --- */

static int spawn_one(struct inject_thread *t, struct inject_thread **helper, struct err *err)
{
	static const long flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND |
				  CLONE_THREAD | CLONE_SYSVSEM;
	struct inject_thread *before = t->session->threads, *which;
	uint64_t deadline = units_now_us() + 5000000;
	int rc;

	t->call[0] = SYS_clone;
	memset(t->call + 1, 0, 6 * sizeof(long));
	t->call[1] = flags;
	t->data_arg = -1;
	t->data_size = 0;
	t->snippet = SNIPPET_CLONE;
	t->result = 0;
	rc = begin_call(t);
	if (rc)
		return gone(t, rc, err, "make a helper of");
	/* Both the return of the call and the helper's first stop are awaited. */
	while (t->state != INJECT_STOPPED || t->session->threads == before) {
		rc = inject_wait(t->session, 100, &which, err);
		if (rc < 0)
			return rc;
		if (t->state == INJECT_GONE)
			return err_set(err, -ESRCH, "thread %d is gone", (int)t->tid);
		/* A signal was on its way: it is handled, and the call made then. */
		if (t->state == INJECT_STOPPED && t->result == -ERESTARTNOINTR &&
		    units_now_us() < deadline) {
			rc = begin_call(t);
			if (rc)
				return gone(t, rc, err, "make a helper of");
			continue;
		}
		if (t->state == INJECT_STOPPED && t->result < 0)
			return err_sys(err, (int)t->result, "make a thread in process %d",
				       (int)t->session->pid);
		if (units_now_us() > deadline)
			return err_set(err, -ETIMEDOUT, "make a thread in process %d: it does not come",
				       (int)t->session->pid);
	}
	*helper = t->session->threads;
	return 0;
}

int inject_spawn(struct inject_thread *t, unsigned n, struct inject_thread **helpers,
		 struct err *err)
{
	int rc = 0;

	if (t->state != INJECT_STOPPED || t->helper)
		return err_set(err, -EINVAL, "make helpers of thread %d: it is not stopped",
			       (int)t->tid);
	if (ptrace(PTRACE_SETOPTIONS, t->tid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE))
		return gone(t, -errno, err, "make helpers of");
	for (unsigned i = 0; i < n && !rc; i++)
		rc = spawn_one(t, &helpers[i], err);
	if (t->state == INJECT_STOPPED)
		ptrace(PTRACE_SETOPTIONS, t->tid, 0, PTRACE_O_TRACESYSGOOD);
	return rc;
}

/* --- the end --- */

static void end_helper(struct inject_thread *t)
{
	struct user_regs_struct r = t->own;

	r.orig_rax = -1ul;
	r.rip = snippet_address(t->session, SNIPPET_END);
	ptrace(PTRACE_SETREGS, t->tid, 0, &r);
	ptrace(PTRACE_CONT, t->tid, 0, 0);
	t->state = INJECT_RUNNING;
}

static bool is_busy(const struct inject_thread *t)
{
	if (t->state == INJECT_GONE)
		return false;
	return t->helper || (t->state != INJECT_RUNNING && t->state != INJECT_STOPPED);
}

/* Helpers go; calls come back, the VM's own threads' soon. */
static void settle(struct inject *in)
{
	uint64_t patience = units_now_us() + 100000;
	struct inject_thread *which;
	bool busy = true;

	while (busy) {
		busy = false;
		for (struct inject_thread *t = in->threads; t; t = t->next) {
			if (t->helper && t->state == INJECT_STOPPED)
				end_helper(t);
			if (!t->helper && t->state == INJECT_CALLING && units_now_us() > patience)
				inject_interrupt(t, NULL);
			busy = busy || is_busy(t);
		}
		if (busy && inject_wait(in, 100, &which, NULL) < 0)
			return;
	}
}

/* However long the kernel holds on to it: what we have asked to stop will, and then needs us. */
static void stand_still(struct inject_thread *t)
{
	struct inject_thread *which;

	while (t->state == INJECT_STOPPING && inject_wait(t->session, 1000, &which, NULL) >= 0)
		;
}

/*
 * A thread that was killed is there until its tracer has seen its end, and a process's first
 * thread reports its own end only when all others have gone (wait(2), ptrace(2)).
 */
static void see_its_end(const struct inject_thread *t)
{
	int status;

	while (waitpid(t->tid, &status, __WALL) == t->tid && WIFSTOPPED(status))
		;
}

/* An interrupted call restarts on the way out of this very stop, or, after calls of ours, out of one more. */
static int to_its_own_way(struct inject_thread *t)
{
	int status, rc;

	if (!t->inside || !was_interrupted(&t->own))
		return ptrace(PTRACE_SETREGS, t->tid, 0, &t->own) ? -errno : 0;
	rc = go_back(t);
	if (rc)
		return rc;
	while (waitpid(t->tid, &status, __WALL) == t->tid && WIFSTOPPED(status) &&
	       status >> 16 != PTRACE_EVENT_STOP) {
		ptrace(PTRACE_INTERRUPT, t->tid, 0, 0);
		ptrace(PTRACE_CONT, t->tid, 0, WSTOPSIG(status) & 0x80 ? 0 : WSTOPSIG(status));
	}
	return 0;
}

static void let_go(struct inject_thread *t)
{
	int rc;

	if (t->state == INJECT_RUNNING && !inject_stop(t, NULL))
		stand_still(t);
	if (t->state != INJECT_STOPPED)
		return; /* our own end lets it go, too */
	rc = to_its_own_way(t);
	if (!rc && ptrace(PTRACE_DETACH, t->tid, 0, 0))
		rc = -errno;
	if (rc == -ESRCH)
		see_its_end(t);
}

/* Who waits for the end of it must have seen all others' before. */
static void first_thread_last(struct inject *in)
{
	struct inject_thread **at = &in->threads, *first;

	while (*at && (*at)->tid != in->pid)
		at = &(*at)->next;
	first = *at;
	if (!first)
		return;
	*at = first->next;
	while (*at)
		at = &(*at)->next;
	first->next = NULL;
	*at = first;
}

void inject_close(struct inject *in)
{
	struct inject_thread *t;

	if (!in)
		return;
	settle(in);
	/* The code goes while somebody still stands still. */
	for (t = in->threads; t; t = t->next)
		if (!t->helper && t->state == INJECT_RUNNING)
			break;
	if (t && in->code_ours && !inject_stop(t, NULL)) {
		stand_still(t);
		if (t->state == INJECT_STOPPED)
			remove_code(t);
	}
	first_thread_last(in);
	while ((t = in->threads)) {
		let_go(t);
		in->threads = t->next;
		free(t);
	}
	end_guard(in);
	if (in->mem_fd >= 0)
		close(in->mem_fd);
	if (in->signal_fd >= 0) {
		close(in->signal_fd);
		sigprocmask(SIG_SETMASK, &in->old_mask, NULL);
	}
	free(in);
}

#else /* another instruction set */

int inject_open(pid_t pid, struct inject **out, struct err *err)
{
	(void)out;
	return err_set(err, -ENOTSUP, "pid:%d: system calls are injected on x86-64 only", (int)pid);
}

int inject_attach(struct inject *in, pid_t tid, struct inject_thread **out, struct err *err)
{
	(void)in, (void)out;
	return err_set(err, -ENOTSUP, "attach thread %d", (int)tid);
}

int inject_stop(struct inject_thread *t, struct err *err)
{
	return err_set(err, -ENOTSUP, "stop thread %d", (int)t->tid);
}

int inject_call(struct inject_thread *t, long nr, const long args[6], int data_arg,
		const void *data, size_t size, struct err *err)
{
	(void)nr, (void)args, (void)data_arg, (void)data, (void)size;
	return err_set(err, -ENOTSUP, "inject into thread %d", (int)t->tid);
}

int inject_interrupt(struct inject_thread *t, struct err *err)
{
	return err_set(err, -ENOTSUP, "interrupt thread %d", (int)t->tid);
}

int inject_resume(struct inject_thread *t, struct err *err)
{
	return err_set(err, -ENOTSUP, "resume thread %d", (int)t->tid);
}

int inject_spawn(struct inject_thread *t, unsigned n, struct inject_thread **helpers,
		 struct err *err)
{
	(void)n, (void)helpers;
	return err_set(err, -ENOTSUP, "make helpers of thread %d", (int)t->tid);
}

int inject_wait(struct inject *in, int timeout_ms, struct inject_thread **t, struct err *err)
{
	(void)in, (void)timeout_ms, (void)t;
	return err_set(err, -ENOTSUP, "wait for threads");
}

void inject_close(struct inject *in)
{
	(void)in;
}

#endif
