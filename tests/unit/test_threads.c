/* SPDX-License-Identifier: MIT */
/* A VM's threads: lines of /proc, roles by name and by monitor, a real QEMU's. */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "vm/drivers.h"
#include "vm/migrations.h"
#include "vm/qmp.h"
#include "vm/threads.h"

static void stat_lines(void **state)
{
	static const char *const bad[] = {
		"", "x (a) S", "12", "12 a S 1", "(a) 12", "12 (a", "12 (a) S 1 2 3", "-1 (a) S 1 2 3", "0 (a) S",
		"99999999999 (a) S 1", "12 )a( S 1",
	};
	struct vm_thread t = {0};

	(void)state;
	assert_int_equal(vm_thread_parse("12 (CPU 0/KVM) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987654 20 21 22 23 24 "
					 "25 26 27 28 29 30 31 32 33 34 35 5 37\n", &t), 0);
	assert_int_equal(t.tid, 12);
	assert_string_equal(t.name, "CPU 0/KVM");
	assert_int_equal(t.starttime, 987654);
	assert_int_equal(t.cpu, 5);
	/* A name may look like the rest of the line. */
	assert_int_equal(vm_thread_parse("12 (a) R 1 (\x1b[2J) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 77 20\n", &t), 0);
	assert_string_equal(t.name, "a) R 1 (?[2J");
	assert_int_equal(t.starttime, 77);
	assert_int_equal(t.cpu, -1);
	assert_int_equal(vm_thread_parse("12 (a) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 77 20\n", &t), -ESRCH);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (vm_thread_parse(bad[i], &t) != -EBADMSG)
			fail_msg("taken: '%s'", bad[i]);
}

static void role_names(void **state)
{
	enum vm_role r;

	(void)state;
	for (unsigned i = 0; i < VM_ROLES; i++) {
		assert_int_equal(vm_role_parse(vm_role_name((enum vm_role)i), &r), 0);
		assert_int_equal(r, i);
	}
	assert_int_equal(vm_role_parse("king", &r), -EINVAL);
	assert_int_equal(vm_role_parse("", &r), -EINVAL);
}

static void roles_by_name(void **state)
{
	static const struct {
		const char *name;
		enum vm_role role;
		int index;
	} wanted[] = {
		{"qemu-system-x86", VM_MAIN, -1},  {"qemu-system-x86", VM_RCU, -1},
		{"CPU 0/KVM", VM_VCPU, 0},	   {"CPU 12/TCG", VM_VCPU, 12},
		{"CPU 12/TCG", VM_OTHER, -1},	   {"CPU x/KVM", VM_OTHER, -1},
		{"CPU 3", VM_OTHER, -1},	   {"CPU 99999/KVM", VM_OTHER, -1},
		{"IO io0", VM_IOTHREAD, -1},	   {"IO mon_iothread", VM_IOTHREAD, -1},
		{"worker", VM_WORKER, -1},	   {"vhost-4711", VM_VHOST, -1},
		{"kvm-nx-lpage-re", VM_NX_LPAGE, -1}, {"vnc_worker", VM_OTHER, -1},
		{"qemu-system-x86", VM_OTHER, -1}, {"", VM_OTHER, -1},
	};
	enum { N = sizeof(wanted) / sizeof(*wanted) };
	struct vm_thread list[N] = {0};
	struct vm vm = {.pid = 1};

	(void)state;
	for (int i = 0; i < N; i++) {
		list[i] = (struct vm_thread){.tid = i + 1, .starttime = 5, .index = -1,
					     .role = i ? VM_OTHER : VM_MAIN};
		strcpy(list[i].name, wanted[i].name);
	}
	qemu_roles(&vm, false, list, N);
	for (int i = 0; i < N; i++)
		if (list[i].role != wanted[i].role || list[i].index != wanted[i].index)
			fail_msg("'%s' (%d) is %s %d", wanted[i].name, i, vm_role_name(list[i].role), list[i].index);
}

static pid_t run(const char *const argv[])
{
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execvp(argv[0], (char *const *)argv);
		_exit(127);
	}
	return pid;
}

static unsigned count(const struct vm_thread *list, size_t n, enum vm_role role)
{
	unsigned c = 0;

	for (size_t i = 0; i < n; i++)
		c += list[i].role == role;
	return c;
}

static void wait_for(const char *path)
{
	struct qmp *qmp = NULL;
	struct err err = {0};

	for (int i = 0; !qmp && i < 400; i++)
		if (qmp_open(path, 10000, &qmp, &err))
			usleep(25000);
	if (!qmp)
		fail_msg("%s", err.text);
	qmp_close(qmp);
}

/* Without names only the monitor tells which is which. */
static void of_a_real_one(void **state)
{
	char dir[] = "/tmp/test_threads.XXXXXX", path[64], option[96], target[64];
	const char *argv[] = {"qemu-system-x86_64", "-M", "pc", "-accel", "tcg,thread=multi", "-smp", "3", "-m", "32",
			      "-nodefaults", "-display", "none", "-S", "-object", "iothread,id=io0", "-qmp", option, NULL};
	struct vm_thread *list = NULL;
	struct err err = {0};
	size_t n = 0;
	struct vm vm;
	pid_t pid;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/qmp", dir);
	snprintf(option, sizeof(option), "unix:%s,server=on,wait=off", path);
	pid = run(argv);
	wait_for(path);
	snprintf(target, sizeof(target), "pid:%d", (int)pid);
	assert_int_equal(vm_find(target, &vm, &err), 0);
	assert_int_equal(vm_threads(&vm, &list, &n, &err), 0);
	assert_int_equal(list[0].role, VM_MAIN);
	assert_int_equal(list[0].tid, pid);
	assert_int_equal(count(list, n, VM_VCPU), 3);
	assert_int_equal(count(list, n, VM_IOTHREAD), 1);
	assert_int_equal(count(list, n, VM_RCU), 1);
	for (size_t i = 1; i < 4; i++)
		assert_int_equal(list[i].index, i - 1);
	assert_int_equal(vm_threads_again(&vm, &list, &n, &err), 0);
	assert_int_equal(count(list, n, VM_VCPU), 3);
	kill(pid, SIGKILL);
	waitid(P_PID, (id_t)pid, NULL, WEXITED | WNOWAIT); /* a zombie is gone, too */
	assert_int_equal(vm_threads_again(&vm, &list, &n, &err), -ESRCH);
	waitpid(pid, NULL, 0);
	assert_int_equal(vm_threads_again(&vm, &list, &n, &err), -ESRCH);
	free(list);
	unlink(path);
	rmdir(dir);
}

static void migrations_of_ours(void **state)
{
	struct migrations m;
	cpu_set_t all, one;
	unsigned cpus = 0;

	(void)state;
	sched_getaffinity(0, sizeof(all), &all);
	assert_int_equal(migrations_begin(&m, getpid(), false, NULL), 0);
	for (int round = 0; round < 2; round++)
		for (int c = 0; c < CPU_SETSIZE && cpus < 8; c++) {
			if (!CPU_ISSET(c, &all))
				continue;
			CPU_ZERO(&one);
			CPU_SET(c, &one);
			assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
			cpus++;
		}
	sched_setaffinity(0, sizeof(all), &all);
	assert_int_equal(migrations_read(&m), 0);
	if (CPU_COUNT(&all) > 1)
		assert_in_range(m.count, cpus - 1, cpus + 50);
	else
		assert_int_equal(m.count, 0);
	migrations_end(&m);
	assert_int_equal(migrations_begin(&m, INT32_MAX, false, NULL), -ESRCH);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stat_lines),	 cmocka_unit_test(role_names), cmocka_unit_test(roles_by_name),
		cmocka_unit_test(of_a_real_one), cmocka_unit_test(migrations_of_ours),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
