/* SPDX-License-Identifier: MIT */
/* Targets: command lines as QEMU reads them, and finding real QEMU processes. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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

#include "vm/qmp.h"
#include "vm/vm.h"

#define UUID "12345678-9ABC-def0-1234-56789abcdef0"

static char dir[] = "/tmp/test_vm.XXXXXX";
static char unique[64];

static void assert_sub(const char *text, const char *key, const char *value)
{
	char buf[64];
	int rc = vm_suboption(text, key, buf, sizeof(buf));

	if (!value)
		assert_int_equal(rc, -ENOENT);
	else if (rc || strcmp(buf, value))
		fail_msg("%s of '%s': %d '%s', not '%s'", key, text, rc, rc ? "" : buf, value);
}

static void suboptions(void **state)
{
	char tiny[4];

	(void)state;
	assert_sub("socket,id=mon0,path=/run/a.sock,server=on", "path", "/run/a.sock");
	assert_sub("socket,id=mon0,path=/run/a.sock", "id", "mon0");
	assert_sub("socket,id=mon0", "", "socket");
	assert_sub("socket,id=mon0", "socket", NULL);
	assert_sub("socket,id=mon0", "i", NULL);
	assert_sub("socket,id=mon0", "idd", NULL);
	assert_sub("id=mon0,socket", "", NULL);
	assert_sub("/a,,b,id=x,,y", "", "/a,b");
	assert_sub("/a,,b,id=x,,y", "id", "x,y");
	assert_sub("x,path=a=b,c", "path", "a=b");
	assert_sub("x,server,nowait", "server", "on");
	assert_sub("x,server,nowait", "wait", "off");
	assert_sub("x,id=1,id=2", "id", "2");
	assert_sub("x,id=", "id", "");
	assert_sub("", "id", NULL);
	assert_sub("", "", "");
	assert_sub(",", "", "");
	assert_sub(",,,", "", ",");
	assert_sub("x,", "id", NULL);
	assert_int_equal(vm_suboption("x,id=abcd", "id", tiny, sizeof(tiny)), -ENAMETOOLONG);
}

/* A process under any name and command line, that waits for its end. */
static pid_t run(const char *const argv[], const char *cwd)
{
	int sync[2];
	pid_t pid;
	char byte;

	assert_int_equal(pipe2(sync, O_CLOEXEC), 0);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (!chdir(cwd))
			execvp(argv[0], (char *const *)argv);
		_exit(127);
	}
	close(sync[1]);
	assert_int_equal(read(sync[0], &byte, 1), 0); /* the exec has closed it */
	close(sync[0]);
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void options_of_a_process(void **state)
{
	const char *argv[] = {"cat", "-u", "--", "-", NULL};
	char buf[64];
	pid_t pid = run(argv, "/");

	(void)state;
	end(pid);
	assert_int_equal(vm_cmdline_option(pid, "u", 0, buf, sizeof(buf)), -ESRCH);
}

/* The file is there before anybody listens: only a greeting shows that QEMU is ready. */
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

static void cmdline_of_a_process(void **state)
{
	const char *argv[] = {"qemu-system-x86_64", "-M", "none", "-nodefaults", "--display", "none", "-S",
			"-name", "cmdline,debug-threads=on", "-fw_cfg", "name=opt/a,string=1",
			"-fw_cfg", "name=opt/b,string=2", "-m", "64", NULL};
	char buf[64], tiny[4];
	pid_t pid = run(argv, "/");

	(void)state;
	assert_int_equal(vm_cmdline_option(pid, "display", 0, buf, sizeof(buf)), 0);
	assert_string_equal(buf, "none");
	assert_int_equal(vm_cmdline_option(pid, "-M", 0, buf, sizeof(buf)), 0);
	assert_string_equal(buf, "none");
	assert_int_equal(vm_cmdline_option(pid, "fw_cfg", 1, buf, sizeof(buf)), 0);
	assert_string_equal(buf, "name=opt/b,string=2");
	assert_int_equal(vm_cmdline_option(pid, "fw_cfg", 2, buf, sizeof(buf)), -ENOENT);
	assert_int_equal(vm_cmdline_option(pid, "none", 0, buf, sizeof(buf)), -ENOENT);
	assert_int_equal(vm_cmdline_option(pid, "m", 0, buf, sizeof(buf)), 0);
	assert_string_equal(buf, "64");
	assert_int_equal(vm_cmdline_option(pid, "name", 0, tiny, sizeof(tiny)), -ENAMETOOLONG);
	end(pid);
}

static void assert_found(const char *target, pid_t pid, const char *state)
{
	struct err err = {0};
	struct vm vm;

	if (vm_find(target, &vm, &err))
		fail_msg("%s", err.text);
	assert_string_equal(vm.target, target);
	assert_string_equal(vm.name, unique);
	assert_string_equal(vm.uuid, "12345678-9abc-def0-1234-56789abcdef0");
	assert_int_equal(vm.pid, pid);
	assert_int_equal(vm.mem_bytes, 48 << 20);
	assert_string_equal(vm.state, state);
	assert_non_null(strstr(vm.qmp_path, "/mon.sock"));
}

static pid_t run_guest(const char *name, const char *option, const char *value, const char *more,
		       const char *more_value)
{
	char named[100];
	const char *argv[] = {"qemu-system-x86_64", "-M", "pc", "-accel", "tcg", "-nodefaults", "-display",
			"none", "-m", "48", "-uuid", UUID, "-S", "-name", named, option, value, more,
			more_value, NULL};

	snprintf(named, sizeof(named), "guest=%s,debug-threads=on", name);
	return run(argv, dir);
}

static void in_every_way(const char *option, const char *value, const char *more,
			 const char *more_value)
{
	char sock[64], target[80];
	struct err err = {0};
	struct qmp *qmp;
	struct vm vm;
	pid_t pid;

	snprintf(sock, sizeof(sock), "%s/mon.sock", dir);
	unlink(sock);
	pid = run_guest(unique, option, value, more, more_value);
	wait_for(sock);
	snprintf(target, sizeof(target), "qmp:%s", sock);
	assert_found(target, pid, "prelaunch");
	snprintf(target, sizeof(target), "pid:%d", (int)pid);
	assert_found(target, pid, "prelaunch");
	assert_found(unique, pid, "prelaunch");
	/* Another client holds the monitor: the process still tells. */
	assert_int_equal(qmp_open(sock, 5000, &qmp, &err), 0);
	assert_found(target, pid, "unknown");
	qmp_close(qmp);
	end(pid);
	assert_int_equal(vm_find(unique, &vm, &err), -ENOENT);
	assert_int_equal(vm_find(target, &vm, &err), -ENOENT);
}

static void by_qmp_option(void **state)
{
	(void)state;
	in_every_way("-qmp", "unix:mon.sock,server=on,wait=off", NULL, NULL);
}

static void by_monitor_of_a_chardev(void **state)
{
	(void)state;
	in_every_way("-chardev", "socket,id=m0,path=mon.sock,server=on,wait=off", "-mon",
		     "chardev=m0,mode=control");
}

static void by_absolute_path(void **state)
{
	char value[100];

	(void)state;
	snprintf(value, sizeof(value), "unix:%s/mon.sock,server,nowait", dir);
	in_every_way("--qmp", value, NULL, NULL);
}

static void by_unclear_name(void **state)
{
	pid_t a = run_guest(unique, NULL, NULL, NULL, NULL);
	pid_t b = run_guest(unique, NULL, NULL, NULL, NULL);
	struct err err = {0};
	struct vm vm;
	int rc = vm_find(unique, &vm, &err);

	(void)state;
	end(a);
	end(b);
	assert_int_equal(rc, -EEXIST);
	assert_non_null(strstr(err.text, "2 running VMs"));
}

/* Two QEMUs, one path: the first one's command line leads to the second one's socket. */
static void by_path_that_was_taken_over(void **state)
{
	const char *value = "unix:mon.sock,server=on,wait=off";
	char sock[64], target[32];
	struct err err = {0};
	pid_t first, second;
	struct vm vm;
	int rc;

	(void)state;
	snprintf(sock, sizeof(sock), "%s/mon.sock", dir);
	unlink(sock);
	first = run_guest("first", "-qmp", value, NULL, NULL);
	wait_for(sock);
	unlink(sock);
	second = run_guest("second", "-qmp", value, NULL, NULL);
	wait_for(sock);
	snprintf(target, sizeof(target), "pid:%d", (int)first);
	rc = vm_find(target, &vm, &err);
	end(first);
	end(second);
	assert_int_equal(rc, 0);
	assert_string_equal(vm.name, "first");
	assert_string_equal(vm.qmp_path, "");
	assert_string_equal(vm.state, "unknown");
}

static void what_is_not_there(void **state)
{
	char longer[300], self[32];
	struct err err = {0};
	struct vm vm;

	(void)state;
	memset(longer, 'x', sizeof(longer));
	longer[299] = '\0';
	snprintf(self, sizeof(self), "pid:%d", (int)getpid());
	assert_int_equal(vm_find("", &vm, &err), -EINVAL);
	assert_int_equal(vm_find("pid:", &vm, &err), -EINVAL);
	assert_int_equal(vm_find("pid:1x", &vm, &err), -EINVAL);
	assert_int_equal(vm_find("pid:-1", &vm, &err), -EINVAL);
	assert_int_equal(vm_find("pid:99999999999", &vm, &err), -EINVAL);
	assert_int_equal(vm_find("pid:2147483647", &vm, &err), -ENOENT);
	assert_int_equal(vm_find(self, &vm, &err), -ENOENT);
	assert_non_null(strstr(err.text, "not a QEMU"));
	assert_int_equal(vm_find("qmp:/nonexistent", &vm, &err), -ENOENT);
	assert_int_equal(vm_find("no such guest anywhere", &vm, &err), -ENOENT);
	assert_int_equal(vm_find("libvirt:web@qemu:///system", &vm, &err), -ENOTSUP);
#ifdef HAVE_XEN /* and this is not a dom0 */
	assert_int_equal(vm_find("xen:3", &vm, &err), -ENODEV);
#else
	assert_int_equal(vm_find("xen:3", &vm, &err), -ENOTSUP);
#endif
	assert_int_equal(vm_find(longer, &vm, &err), -EINVAL);
}

static int begin(void **state)
{
	(void)state;
	signal(SIGPIPE, SIG_IGN);
	snprintf(unique, sizeof(unique), "unit-%d", (int)getpid());
	return mkdtemp(dir) ? 0 : -1;
}

static int finish(void **state)
{
	char cmd[64];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return system(cmd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(suboptions),
		cmocka_unit_test(options_of_a_process),
		cmocka_unit_test(cmdline_of_a_process),
		cmocka_unit_test(by_qmp_option),
		cmocka_unit_test(by_monitor_of_a_chardev),
		cmocka_unit_test(by_absolute_path),
		cmocka_unit_test(by_unclear_name),
		cmocka_unit_test(by_path_that_was_taken_over),
		cmocka_unit_test(what_is_not_there),
	};

	return cmocka_run_group_tests(tests, begin, finish);
}
