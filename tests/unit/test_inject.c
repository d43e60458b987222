/* SPDX-License-Identifier: MIT */
/*
 * System calls injected into a process that notices the slightest change: every register and the
 * flags over millions of turns, interrupted sleeps and reads; and into one whose tracer is killed.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "vm/inject.h"

/* What a victim tells, in memory that it shares with the test. */
struct shared {
	atomic_ulong turns, signals, wakes, wrong;
	atomic_int sleeper, ready;
};

static struct shared *shared;

static void on_signal(int sig)
{
	(void)sig;
	atomic_fetch_add(&shared->signals, 1);
}

#ifdef __x86_64__
/* Known values in all registers that a system call leaves alone, and in those that it does not; a
 * red zone in use; then the same again. Returns whether something has changed. */
static unsigned long hold_registers(unsigned long turns)
{
	unsigned long bad = 0;

	__asm__ volatile("movq $0x1111, %%rcx\n"
			 "movq $0x2222, %%rdx\n"
			 "movq $0x3333, %%rsi\n"
			 "movq $0x4444, %%rdi\n"
			 "movq $0x5555, %%r8\n"
			 "movq $0x6666, %%r9\n"
			 "movq $0x7777, %%r10\n"
			 "movq $0x8888, %%r11\n"
			 "movq $0x9999, %%rax\n"
			 "movq %%rax, %%xmm7\n"
			 "movq %%rax, -8(%%rsp)\n"
			 "movq %%rax, -128(%%rsp)\n"
			 "1:\n"
			 "stc\n"
			 "nop\n nop\n nop\n nop\n nop\n nop\n nop\n nop\n"
			 "jnc 2f\n"
			 "cmpq $0x1111, %%rcx\n jne 2f\n"
			 "cmpq $0x2222, %%rdx\n jne 2f\n"
			 "cmpq $0x3333, %%rsi\n jne 2f\n"
			 "cmpq $0x4444, %%rdi\n jne 2f\n"
			 "cmpq $0x5555, %%r8\n jne 2f\n"
			 "cmpq $0x6666, %%r9\n jne 2f\n"
			 "cmpq $0x7777, %%r10\n jne 2f\n"
			 "cmpq $0x8888, %%r11\n jne 2f\n"
			 "cmpq $0x9999, %%rax\n jne 2f\n"
			 "cmpq %%rax, -8(%%rsp)\n jne 2f\n"
			 "cmpq %%rax, -128(%%rsp)\n jne 2f\n"
			 "decq %[turns]\n"
			 "jnz 1b\n"
			 "jmp 3f\n"
			 "2: movq $1, %[bad]\n"
			 "3: movq %%xmm7, %%rcx\n"
			 "cmpq %%rax, %%rcx\n je 4f\n movq $1, %[bad]\n4:\n"
			 : [bad] "+r"(bad), [turns] "+r"(turns)
			 :
			 : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "xmm7",
			   "memory", "cc");
	return bad;
}

/* A read that nothing interrupts visibly: SA_RESTART, and one that ppoll's rules allow to be. */
static void *sleep_and_read(void *arg)
{
	int *fds = arg;
	char c;

	atomic_store(&shared->sleeper, (int)syscall(SYS_gettid));
	atomic_fetch_add(&shared->ready, 1);
	for (;;) {
		struct timespec ts = {.tv_nsec = 20000000};
		ssize_t n;

		if (nanosleep(&ts, &ts) && errno != EINTR)
			atomic_fetch_add(&shared->wrong, 1);
		n = read(fds[0], &c, 1);
		if (n != 1) /* EINTR would be a lie: nobody sent a signal to this thread */
			atomic_fetch_add(&shared->wrong, 1);
		else
			atomic_fetch_add(&shared->wakes, 1);
	}
	return NULL;
}

static void victim(int *fds)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	sigset_t usr1;
	pthread_t t;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigaction(SIGUSR1, &sa, NULL);
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &usr1, NULL);
	pthread_create(&t, NULL, sleep_and_read, fds);
	pthread_sigmask(SIG_UNBLOCK, &usr1, NULL);
	atomic_fetch_add(&shared->ready, 1);
	for (;;) {
		atomic_fetch_add(&shared->wrong, hold_registers(20000));
		if (getppid() == 1)
			_exit(0);
		atomic_fetch_add(&shared->turns, 1);
	}
}

static pid_t start_victim(int *fds)
{
	pid_t pid;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(shared != MAP_FAILED);
	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		victim(fds);
	while (atomic_load(&shared->ready) < 2)
		poll(NULL, 0, 1);
	return pid;
}

static void end_victim(pid_t pid, int *fds)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(fds[0]);
	close(fds[1]);
	munmap(shared, sizeof(*shared));
}

static void await(struct inject *in, struct inject_thread *t)
{
	struct err err = {0};
	struct inject_thread *which;

	while (t->state != INJECT_STOPPED && t->state != INJECT_GONE)
		assert_true(inject_wait(in, 1000, &which, &err) >= 0);
	assert_int_equal(t->state, INJECT_STOPPED);
}

static long call(struct inject *in, struct inject_thread *t, long nr, const long args[6])
{
	struct err err = {0};

	assert_int_equal(inject_call(t, nr, args, -1, NULL, 0, &err), 0);
	await(in, t);
	return t->result;
}

static void progresses(atomic_ulong *what)
{
	unsigned long before = atomic_load(what);

	for (int i = 0; i < 5000 && atomic_load(what) == before; i++)
		poll(NULL, 0, 1);
	assert_true(atomic_load(what) != before);
}

static void wakes(const int *fds)
{
	unsigned long before = atomic_load(&shared->wakes);

	assert_int_equal(write(fds[1], "x", 1), 1);
	for (int i = 0; i < 5000 && atomic_load(&shared->wakes) == before; i++)
		poll(NULL, 0, 1);
	assert_true(atomic_load(&shared->wakes) > before);
}

static void test_registers_and_signals(void **state)
{
	static const long none[6];
	struct inject_thread *t;
	struct inject *in;
	struct err err = {0};
	int fds[2];
	pid_t pid = start_victim(fds);

	(void)state;
	assert_int_equal(inject_open(pid, &in, &err), 0);
	assert_int_equal(inject_attach(in, pid, &t, &err), 0);
	for (int i = 0; i < 300; i++) {
		assert_int_equal(inject_stop(t, &err), 0);
		if (i % 3 == 0)
			kill(pid, SIGUSR1);
		await(in, t);
		assert_int_equal(call(in, t, SYS_getpid, none), pid);
		assert_int_equal(call(in, t, SYS_getpgid, (long[6]){-1}), -ESRCH);
		assert_int_equal(inject_resume(t, &err), 0);
	}
	inject_close(in);
	progresses(&shared->turns);
	assert_true(atomic_load(&shared->signals) > 0);
	assert_int_equal(atomic_load(&shared->wrong), 0);
	assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
	end_victim(pid, fds);
}

static void test_data(void **state)
{
	struct timespec ts = {0, 1000}, *back;
	struct inject_thread *t;
	struct inject *in;
	struct err err = {0};
	int fds[2];
	pid_t pid = start_victim(fds);

	(void)state;
	assert_int_equal(inject_open(pid, &in, &err), 0);
	assert_int_equal(inject_attach(in, pid, &t, &err), 0);
	assert_int_equal(inject_stop(t, &err), 0);
	await(in, t);
	assert_int_equal(inject_call(t, SYS_clock_gettime, (long[6]){CLOCK_MONOTONIC}, 1, &ts, sizeof(ts),
				     &err), 0);
	await(in, t);
	assert_int_equal(t->result, 0);
	back = (struct timespec *)(void *)t->data;
	assert_true(back->tv_sec > 0);
	inject_close(in); /* while it is stopped */
	progresses(&shared->turns);
	assert_int_equal(atomic_load(&shared->wrong), 0);
	end_victim(pid, fds);
}

/* A thread that sleeps in the kernel: its call goes on where it was. */
static void test_interrupted_call(void **state)
{
	static const long none[6];
	struct inject_thread *t;
	struct inject *in;
	struct err err = {0};
	int fds[2];
	pid_t pid = start_victim(fds);

	(void)state;
	assert_int_equal(inject_open(pid, &in, &err), 0);
	assert_int_equal(inject_attach(in, atomic_load(&shared->sleeper), &t, &err), 0);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(inject_stop(t, &err), 0);
		await(in, t);
		assert_int_equal(call(in, t, SYS_gettid, none), atomic_load(&shared->sleeper));
		assert_int_equal(inject_resume(t, &err), 0);
		if (i % 10 == 9) {
			struct inject_thread *which;

			assert_int_equal(write(fds[1], "x", 1), 1);
			while (atomic_load(&shared->wakes) < (unsigned long)(i / 10 + 1))
				inject_wait(in, 1, &which, &err);
		}
		while (t->state == INJECT_SETTLING) {
			struct inject_thread *which;

			inject_wait(in, 10, &which, &err);
		}
	}
	inject_close(in);
	wakes(fds);
	assert_int_equal(atomic_load(&shared->wrong), 0);
	end_victim(pid, fds);
}

static unsigned thread_count(pid_t pid)
{
	char path[64], line[128];
	unsigned n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, "Threads:", 8))
			n = (unsigned)strtoul(line + 8, NULL, 10);
	if (f)
		fclose(f);
	return n;
}

static void test_helpers(void **state)
{
	struct inject_thread *t, *helper[4];
	struct inject *in;
	struct err err = {0};
	int fds[2];
	pid_t pid = start_victim(fds);
	unsigned before = thread_count(pid);

	(void)state;
	assert_int_equal(inject_open(pid, &in, &err), 0);
	assert_int_equal(inject_attach(in, pid, &t, &err), 0);
	assert_int_equal(inject_stop(t, &err), 0);
	await(in, t);
	assert_int_equal(inject_spawn(t, 4, helper, &err), 0);
	assert_int_equal(inject_resume(t, &err), 0);
	assert_int_equal(thread_count(pid), before + 4);
	for (int i = 0; i < 4; i++) {
		static const long none[6];

		assert_int_equal(call(in, helper[i], SYS_gettid, none), helper[i]->tid);
		assert_int_equal(call(in, helper[i], SYS_getpid, none), pid);
	}
	inject_close(in);
	for (int i = 0; i < 2000 && thread_count(pid) != before; i++)
		poll(NULL, 0, 1);
	assert_int_equal(thread_count(pid), before);
	progresses(&shared->turns);
	assert_int_equal(atomic_load(&shared->wrong), 0);
	end_victim(pid, fds);
}

/* A tracer that does all of it without end, until it is killed. */
static void trace_for_ever(pid_t pid)
{
	struct inject_thread *t, *s, *helper[2], *which;
	struct inject *in;
	struct err err = {0};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (inject_open(pid, &in, &err) || inject_attach(in, pid, &t, &err) ||
	    inject_attach(in, atomic_load(&shared->sleeper), &s, &err))
		_exit(1);
	for (;;) {
		static const long none[6];

		if (inject_stop(t, &err))
			_exit(2);
		while (t->state != INJECT_STOPPED)
			inject_wait(in, 100, &which, &err);
		if (inject_spawn(t, 2, helper, &err) || inject_call(t, SYS_getpid, none, -1, NULL, 0, &err))
			_exit(3);
		while (t->state != INJECT_STOPPED)
			inject_wait(in, 100, &which, &err);
		if (inject_call(helper[0], SYS_sched_yield, none, -1, NULL, 0, &err) ||
		    inject_resume(t, &err) || (s->state == INJECT_RUNNING && inject_stop(s, &err)))
			_exit(4);
		for (int i = 0; i < 4; i++)
			inject_wait(in, 1, &which, &err);
		if (s->state == INJECT_STOPPED && inject_resume(s, &err))
			_exit(5);
		/* Helpers are not given back one by one: begin anew, over the killed ones' code. */
		if (thread_count(pid) > 40)
			_exit(0);
	}
}

static void test_tracer_killed(void **state)
{
	int fds[2], status;
	pid_t pid = start_victim(fds);
	unsigned before = thread_count(pid);

	(void)state;
	srand(1);
	for (int i = 0; i < 60; i++) {
		pid_t tracer = fork();

		if (!tracer)
			trace_for_ever(pid);
		usleep((useconds_t)(rand() % 20000));
		kill(tracer, SIGKILL);
		waitpid(tracer, &status, 0);
		assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
		assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
	}
	progresses(&shared->turns);
	wakes(fds);
	for (int i = 0; i < 2000 && thread_count(pid) != before; i++)
		poll(NULL, 0, 1);
	assert_int_equal(thread_count(pid), before); /* helpers end by themselves */
	assert_int_equal(atomic_load(&shared->wrong), 0);
	end_victim(pid, fds);
}

/* In a call that nothing but an interruption ends, and that is then not made again: a wait for one of
 * no signals. */
static struct inject_thread *let_wait(struct inject *in, pid_t pid)
{
	static const long args[6] = {0, 0, 0, 8};
	struct inject_thread *t, *which;
	uint64_t nothing = 0;
	struct err err = {0};

	if (inject_attach(in, pid, &t, &err) || inject_stop(t, &err))
		return NULL;
	while (t->state != INJECT_STOPPED)
		inject_wait(in, 100, &which, &err);
	if (inject_call(t, SYS_rt_sigtimedwait, args, 0, &nothing, sizeof(nothing), &err))
		return NULL;
	inject_wait(in, 100, &which, &err);
	return t->state == INJECT_CALLING ? t : NULL;
}

static void test_interrupt(void **state)
{
	struct inject_thread *t;
	struct inject *in;
	struct err err = {0};
	int fds[2];
	pid_t pid = start_victim(fds);

	(void)state;
	for (int i = 0; i < 20; i++) {
		assert_int_equal(inject_open(pid, &in, &err), 0);
		t = let_wait(in, pid);
		assert_non_null(t);
		if (i % 2) { /* else the session's end sees to it */
			assert_int_equal(inject_interrupt(t, &err), 0);
			await(in, t);
			assert_int_equal(t->result, -EINTR);
			assert_int_equal(inject_interrupt(t, &err), -EINVAL);
		}
		inject_close(in);
		progresses(&shared->turns);
	}
	assert_int_equal(atomic_load(&shared->wrong), 0);
	end_victim(pid, fds);
}

/* Its tracer is killed while it waits for what nobody will do. */
static void test_guard(void **state)
{
	int fds[2], status;
	pid_t pid = start_victim(fds), tracer;
	struct inject *in;
	struct err err = {0};

	(void)state;
	for (int i = 0; i < 10; i++) {
		tracer = fork();
		if (!tracer) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (inject_open(pid, &in, &err) || !let_wait(in, pid))
				_exit(1);
			raise(SIGKILL);
		}
		assert_int_equal(waitpid(tracer, &status, 0), tracer);
		assert_true(WIFSIGNALED(status));
		progresses(&shared->turns);
	}
	assert_int_equal(atomic_load(&shared->wrong), 0);
	end_victim(pid, fds);
}

static void stands_still(void)
{
	unsigned long before;

	poll(NULL, 0, 50);
	before = atomic_load(&shared->turns);
	poll(NULL, 0, 100);
	assert_int_equal(atomic_load(&shared->turns), before);
}

/* A process that somebody has stopped makes calls, and stays stopped. */
static void test_suspended(void **state)
{
	static const long none[6];
	struct inject_thread *t, *s, *helper[2], *which;
	struct inject *in;
	struct err err = {0};
	int fds[2], status;
	pid_t pid = start_victim(fds);

	(void)state;
	kill(pid, SIGSTOP);
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	assert_int_equal(inject_open(pid, &in, &err), 0);
	assert_int_equal(inject_attach(in, pid, &t, &err), 0);
	assert_int_equal(inject_attach(in, atomic_load(&shared->sleeper), &s, &err), 0);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(inject_stop(t, &err), 0);
		await(in, t);
		assert_int_equal(call(in, t, SYS_getpid, none), pid);
		assert_int_equal(inject_resume(t, &err), 0);
		assert_int_equal(inject_stop(s, &err), 0);
		await(in, s);
		assert_int_equal(call(in, s, SYS_getpid, none), pid);
		assert_int_equal(inject_resume(s, &err), 0);
		while (t->state == INJECT_SETTLING || s->state == INJECT_SETTLING)
			assert_true(inject_wait(in, 1000, &which, &err) >= 0);
	}
	assert_int_equal(inject_stop(t, &err), 0);
	await(in, t);
	assert_int_equal(inject_spawn(t, 2, helper, &err), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(call(in, helper[i], SYS_gettid, none), helper[i]->tid);
	assert_int_equal(inject_resume(t, &err), 0);
	while (t->state == INJECT_SETTLING)
		assert_true(inject_wait(in, 1000, &which, &err) >= 0);
	stands_still();
	if (!fork()) { /* it goes on under our eyes */
		poll(NULL, 0, 50);
		kill(pid, SIGCONT);
		_exit(0);
	}
	for (int i = 0; i < 20; i++)
		inject_wait(in, 20, &which, &err);
	progresses(&shared->turns);
	kill(pid, SIGSTOP);
	for (int i = 0; i < 10; i++)
		inject_wait(in, 20, &which, &err);
	stands_still();
	inject_close(in);
	stands_still();
	kill(pid, SIGCONT);
	progresses(&shared->turns);
	wakes(fds);
	assert_int_equal(atomic_load(&shared->wrong), 0);
	end_victim(pid, fds);
}

static pid_t second_thread(pid_t pid)
{
	char path[64];
	struct dirent *d;
	pid_t tid = 0;
	DIR *tasks;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	tasks = opendir(path);
	assert_non_null(tasks);
	while ((d = readdir(tasks)))
		if (*d->d_name != '.' && atoi(d->d_name) != pid)
			tid = atoi(d->d_name);
	closedir(tasks);
	assert_true(tid > 0);
	return tid;
}

/* It is killed while one of its threads stands still and the first one runs: the session ends
 * all the same. */
static void test_victim_killed(void **state)
{
	struct inject_thread *first, *second;
	struct inject *in;
	struct err err = {0};
	int fds[2];

	(void)state;
	for (int i = 0; i < 20; i++) {
		pid_t pid = start_victim(fds), tid = second_thread(pid);

		assert_int_equal(inject_open(pid, &in, &err), 0);
		assert_int_equal(
		    inject_attach(in, i % 2 ? tid : pid, i % 2 ? &second : &first, &err), 0);
		assert_int_equal(
		    inject_attach(in, i % 2 ? pid : tid, i % 2 ? &first : &second, &err), 0);
		assert_int_equal(inject_stop(second, &err), 0);
		await(in, second);
		if (i % 4 > 1) {
			assert_int_equal(inject_stop(first, &err), 0);
			await(in, first);
		}
		kill(pid, SIGKILL);
		inject_close(in);
		end_victim(pid, fds);
	}
}

static void test_refusals(void **state)
{
	struct inject_thread *t;
	struct inject *in = NULL;
	struct err err = {0};
	int fds[2];
	pid_t pid = start_victim(fds);

	(void)state;
	assert_int_equal(inject_open(pid, &in, &err), 0);
	assert_int_equal(inject_attach(in, getpid(), &t, &err), -EPERM);
	assert_int_equal(inject_attach(in, pid, &t, &err), 0);
	assert_int_equal(inject_call(t, SYS_getpid, (long[6]){0}, -1, NULL, 0, &err), -EINVAL);
	assert_int_equal(inject_resume(t, &err), -EINVAL);
	kill(pid, SIGKILL);
	inject_stop(t, &err);
	while (t->state != INJECT_GONE)
		assert_true(inject_wait(in, 1000, &t, &err) >= 0);
	inject_close(in);
	end_victim(pid, fds);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_registers_and_signals),
		cmocka_unit_test(test_data),
		cmocka_unit_test(test_interrupted_call),
		cmocka_unit_test(test_helpers),
		cmocka_unit_test(test_tracer_killed),
		cmocka_unit_test(test_interrupt),
		cmocka_unit_test(test_guard),
		cmocka_unit_test(test_suspended),
		cmocka_unit_test(test_victim_killed),
		cmocka_unit_test(test_refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
int main(void)
{
	return 0;
}
#endif
