/* SPDX-License-Identifier: MIT */
/* QEMU: by its QMP socket, by its process, by its -name. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/log.h"
#include "base/units.h"
#include "vm/drivers.h"
#include "vm/guest.h"
#include "vm/qmp.h"

#define QMP_MS 3000
#define SECOND_CHOICE_MS 1000 /* where the command line tells enough */
#define VALUE_MAX 2048 /* of an option that matters here */
#define DEFAULT_MEM (128ull << 20)

static bool is_qemu_name(const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;

	return !strncmp(name, "qemu", 4) || !strcmp(name, "kvm");
}

static ssize_t read_link(pid_t pid, const char *what, char *buf, size_t size)
{
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, what);
	n = readlink(path, buf, size - 1);
	buf[n > 0 ? n : 0] = '\0';
	return n;
}

/* The program tells; of another user's process only its own word does. */
static bool is_qemu(pid_t pid)
{
	char exe[PATH_MAX], path[64];
	FILE *f;
	size_t n;

	if (read_link(pid, "exe", exe, sizeof(exe)) > 0)
		return is_qemu_name(exe);
	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	n = fread(exe, 1, sizeof(exe) - 1, f);
	fclose(f);
	exe[n] = '\0';
	return is_qemu_name(exe);
}

/* -name foo,…  and  -name guest=foo,… are the same. */
static bool name_on_cmdline(pid_t pid, char *name, size_t size)
{
	char value[VALUE_MAX];

	if (vm_cmdline_option(pid, "name", 0, value, sizeof(value)))
		return false;
	return !vm_suboption(value, "guest", name, size) || !vm_suboption(value, "", name, size);
}

/* -m takes MiB where no unit is given (qemu(1)). */
static uint64_t mem_of_option(const char *value)
{
	char size[64];
	uint64_t bytes;

	if ((vm_suboption(value, "size", size, sizeof(size)) &&
	     vm_suboption(value, "", size, sizeof(size))) ||
	    units_size(size, &bytes))
		return DEFAULT_MEM;
	if (!size[strspn(size, "0123456789")])
		return bytes > UINT64_MAX >> 20 ? DEFAULT_MEM : bytes << 20;
	return bytes;
}

static uint64_t mem_on_cmdline(pid_t pid)
{
	char value[VALUE_MAX];

	return vm_cmdline_option(pid, "m", 0, value, sizeof(value)) ? DEFAULT_MEM : mem_of_option(value);
}

uint64_t vm_memory_asked_for(int argc, char **argv)
{
	if (argc < 1 || !is_qemu_name(argv[0]))
		return 0;
	for (int i = 1; i + 1 < argc; i++)
		if (!strcmp(argv[i], "-m") || !strcmp(argv[i], "--m"))
			return mem_of_option(argv[i + 1]);
	return DEFAULT_MEM;
}

static void set_uuid(struct vm *vm, const char *text)
{
	static const char shape[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

	if (!text || strlen(text) != sizeof(shape) - 1)
		return;
	for (size_t i = 0; shape[i]; i++)
		if (shape[i] == '-' ? text[i] != '-' : !isxdigit((unsigned char)text[i]))
			return;
	for (size_t i = 0; shape[i]; i++)
		vm->uuid[i] = (char)tolower((unsigned char)text[i]);
}

/*
 * A path of QEMU's as we reach it: relative ones start at its working directory, and what
 * runs in a mount namespace of its own (a container) is seen through /proc/PID/root.
 */
static bool our_path(pid_t pid, const char *path, char *out, size_t size)
{
	char cwd[PATH_MAX] = "", theirs[64], ours[64];
	bool inside = read_link(pid, "ns/mnt", theirs, sizeof(theirs)) > 0 &&
		      read_link(getpid(), "ns/mnt", ours, sizeof(ours)) > 0 && strcmp(theirs, ours);
	int n;

	if (*path != '/' && read_link(pid, "cwd", cwd, sizeof(cwd)) <= 0)
		return false;
	if (inside)
		n = snprintf(out, size, "/proc/%d/root%s%s%s", (int)pid, cwd, *cwd ? "/" : "", path);
	else
		n = snprintf(out, size, "%s%s%s", cwd, *cwd ? "/" : "", path);
	if (n < (int)size)
		return true;
	/* A socket's path has at most 107 bytes; this way round is short. */
	return *cwd && snprintf(out, size, "/proc/%d/cwd/%s", (int)pid, path) < (int)size;
}

static bool chardev_path(pid_t pid, const char *id, char *path, size_t size)
{
	char value[VALUE_MAX], part[256];
	int rc;

	for (int i = 0; (rc = vm_cmdline_option(pid, "chardev", i, value, sizeof(value))) != -ENOENT; i++) {
		if (rc == -ENAMETOOLONG)
			continue;
		if (rc)
			return false;
		if (!vm_suboption(value, "", part, sizeof(part)) && !strcmp(part, "socket") &&
		    !vm_suboption(value, "id", part, sizeof(part)) && !strcmp(part, id))
			return !vm_suboption(value, "path", path, size);
	}
	return false;
}

/* -qmp unix:PATH,server=on,…  or  -qmp chardev:ID */
static bool qmp_option(pid_t pid, const char *value, char *path, size_t size)
{
	if (!strncmp(value, "chardev:", 8))
		return chardev_path(pid, value + 8, path, size);
	return !strncmp(value, "unix:", 5) && !vm_suboption(value + 5, "", path, size);
}

/* -mon [chardev=]ID,mode=control */
static bool mon_option(pid_t pid, const char *value, char *path, size_t size)
{
	char mode[16], id[256];

	if (vm_suboption(value, "mode", mode, sizeof(mode)) || strcmp(mode, "control"))
		return false;
	if (vm_suboption(value, "chardev", id, sizeof(id)) && vm_suboption(value, "", id, sizeof(id)))
		return false;
	return chardev_path(pid, id, path, size);
}

static void find_monitor(struct vm *vm)
{
	static const struct {
		const char *option;
		bool (*path_of)(pid_t pid, const char *value, char *path, size_t size);
	} kinds[] = {{"qmp", qmp_option}, {"mon", mon_option}};
	char value[VALUE_MAX], path[sizeof(vm->qmp_path)];

	for (size_t k = 0; k < 2; k++)
		for (int i = 0;; i++) {
			int rc = vm_cmdline_option(vm->pid, kinds[k].option, i, value, sizeof(value));

			if (rc == -ENAMETOOLONG)
				continue;
			if (rc)
				break;
			if (kinds[k].path_of(vm->pid, value, path, sizeof(path)) &&
			    our_path(vm->pid, path, vm->qmp_path, sizeof(vm->qmp_path)))
				return;
			*vm->qmp_path = '\0';
		}
}

static void facts_of_cmdline(struct vm *vm)
{
	char name[sizeof(vm->name)], uuid[64];

	if (name_on_cmdline(vm->pid, name, sizeof(name)))
		qmp_clean(name, vm->name, sizeof(vm->name));
	if (!vm_cmdline_option(vm->pid, "uuid", 0, uuid, sizeof(uuid)))
		set_uuid(vm, uuid);
	vm->mem_bytes = mem_on_cmdline(vm->pid);
	strcpy(vm->state, "unknown");
	find_monitor(vm);
}

static int ask(struct qmp *qmp, const char *cmd, struct json_object **ret, struct err *err)
{
	return qmp_call(qmp, QMP_MS, ret, err, cmd, NULL);
}

static int facts_of_qmp(struct qmp *qmp, struct vm *vm, struct err *err)
{
	struct json_object *name = NULL, *uuid = NULL, *status = NULL, *mem = NULL;
	int rc;

	rc = ask(qmp, "query-name", &name, err);
	if (!rc)
		rc = ask(qmp, "query-uuid", &uuid, err);
	if (!rc)
		rc = ask(qmp, "query-status", &status, err);
	if (!rc)
		rc = ask(qmp, "query-memory-size-summary", &mem, err);
	if (!rc) {
		qmp_clean(qmp_str(name, "name"), vm->name, sizeof(vm->name));
		set_uuid(vm, qmp_str(uuid, "UUID"));
		qmp_clean(qmp_str(status, "status"), vm->state, sizeof(vm->state));
		vm->mem_bytes = qmp_u64(mem, "base-memory", 0) + qmp_u64(mem, "plugged-memory", 0);
	}
	json_object_put(name);
	json_object_put(uuid);
	json_object_put(status);
	json_object_put(mem);
	return rc;
}

static int find_qmp(const char *path, struct vm *vm, struct err *err)
{
	struct qmp *qmp;
	int rc = qmp_open(path, QMP_MS, &qmp, err);

	if (rc)
		return rc;
	snprintf(vm->qmp_path, sizeof(vm->qmp_path), "%s", path);
	rc = facts_of_qmp(qmp, vm, err);
	vm->pid = qmp_peer_pid(qmp);
	if (vm->pid && !is_qemu(vm->pid))
		vm->pid = 0; /* whoever made the socket has handed it to QEMU */
	qmp_close(qmp);
	if (rc)
		err_prefix(err, "qmp:%s", path);
	return rc;
}

/* What QMP knows is newer than the command line; without it, that has to do. */
static void refine_by_qmp(struct vm *vm)
{
	struct err err = {0};
	struct vm newer = *vm;
	struct qmp *qmp;

	if (!*vm->qmp_path)
		return;
	if (qmp_open(vm->qmp_path, SECOND_CHOICE_MS, &qmp, &err)) {
		log_verbose("pid:%d: only what its command line tells: %s", (int)vm->pid, err.text);
		return;
	}
	if (qmp_peer_pid(qmp) != vm->pid) { /* a later QEMU has taken the path over */
		log_verbose("pid:%d: %s is another process's now", (int)vm->pid, vm->qmp_path);
		*vm->qmp_path = '\0';
	} else if (!facts_of_qmp(qmp, &newer, &err)) {
		*vm = newer;
	}
	qmp_close(qmp);
}

static int find_pid(const char *text, struct vm *vm, struct err *err)
{
	char *end, value[8];
	long pid;
	int rc;

	errno = 0;
	pid = strtol(text, &end, 10);
	if (!isdigit((unsigned char)*text) || *end || errno || pid < 1 || pid > INT_MAX)
		return err_set(err, -EINVAL, "pid:%s: not a process number", text);
	rc = vm_cmdline_option((pid_t)pid, "name", 0, value, sizeof(value));
	if (rc == -ESRCH)
		return err_set(err, -ENOENT, "pid:%ld: no such process", pid);
	if (rc == -EACCES || rc == -EPERM)
		return err_sys(err, -EACCES, "pid:%ld", pid);
	if (!is_qemu((pid_t)pid))
		return err_set(err, -ENOENT, "pid:%ld: this process is not a QEMU", pid);
	vm->pid = (pid_t)pid;
	facts_of_cmdline(vm);
	refine_by_qmp(vm);
	return 0;
}

static bool bears_name(pid_t pid, const char *name)
{
	char theirs[256];

	return is_qemu(pid) && name_on_cmdline(pid, theirs, sizeof(theirs)) && !strcmp(theirs, name);
}

static int lookup_name(const char *name, struct vm *vm, struct err *err)
{
	DIR *proc = opendir("/proc");
	struct dirent *d;
	int count = 0;

	if (!proc)
		return err_sys(err, -errno, "/proc");
	while ((d = readdir(proc))) {
		pid_t pid = isdigit((unsigned char)*d->d_name) ? (pid_t)strtol(d->d_name, NULL, 10) : 0;

		if (pid > 0 && bears_name(pid, name) && !count++)
			vm->pid = pid;
	}
	closedir(proc);
	if (count == 1) {
		facts_of_cmdline(vm);
		refine_by_qmp(vm);
	}
	return count;
}

const struct vm_driver vm_driver_qmp = {
	.prefix = "qmp", .what = "a QEMU by its QMP socket", .find = find_qmp,
	.roles = qemu_roles, .memory = &qemu_memory_ops};
const struct vm_driver vm_driver_pid = {
	.prefix = "pid", .what = "a QEMU by its process", .find = find_pid, .lookup = lookup_name,
	.roles = qemu_roles, .memory = &qemu_memory_ops};
