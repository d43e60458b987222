/* SPDX-License-Identifier: MIT */
#include "vm/threads.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vm/qmp.h"

static const char *const role_names[VM_ROLES] = {
	[VM_MAIN] = "main",	[VM_VCPU] = "vcpu",	[VM_IOTHREAD] = "iothread",
	[VM_WORKER] = "worker", [VM_RCU] = "rcu",	[VM_VHOST] = "vhost",
	[VM_NX_LPAGE] = "nx-lpage", [VM_PIT] = "pit",	[VM_OTHER] = "other",
};

const char *vm_role_name(enum vm_role role)
{
	return role < VM_ROLES ? role_names[role] : "other";
}

int vm_role_parse(const char *text, enum vm_role *role)
{
	for (unsigned i = 0; i < VM_ROLES; i++)
		if (!strcmp(text, role_names[i])) {
			*role = (enum vm_role)i;
			return 0;
		}
	return -EINVAL;
}

/* --- one thread --- */

/* The name may hold anything, blanks and brackets too: it ends at the last bracket of the line. */
int vm_thread_parse(const char *stat, struct vm_thread *t)
{
	const char *open = strchr(stat, '('), *close = strrchr(stat, ')');
	char name[sizeof(t->name)], *end;
	long tid = strtol(stat, &end, 10);
	size_t len;

	if (!isdigit((unsigned char)*stat) || tid < 1 || tid > INT_MAX || !open || end + 1 != open ||
	    !close || close < open)
		return -EBADMSG;
	len = (size_t)(close - open - 1);
	if (len >= sizeof(name))
		len = sizeof(name) - 1;
	memcpy(name, open + 1, len);
	name[len] = '\0';
	t->tid = (pid_t)tid;
	qmp_clean(name, t->name, sizeof(t->name));
	t->cpu = -1;
	end = (char *)close + 1;
	for (int field = 3; field <= 39; field++) {
		const char *text = end + strspn(end, " ");

		end = (char *)text + strcspn(text, " \n");
		if (end == text)
			return field > 22 ? 0 : -EBADMSG;
		if (field == 3 && (*text == 'Z' || *text == 'X')) /* only its parent has not yet asked */
			return -ESRCH;
		if (field == 22) /* starttime */
			t->starttime = strtoull(text, NULL, 10);
		if (field == 39) /* processor */
			t->cpu = (int)strtol(text, NULL, 10);
	}
	return 0;
}

static int read_file(int dir, const char *path, char *buf, size_t size)
{
	int fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	n = read(fd, buf, size - 1);
	if (n < 0)
		n = -errno;
	close(fd);
	buf[n > 0 ? n : 0] = '\0';
	return n < 0 ? (int)n : n ? 0 : -ESRCH;
}

/* @dir and @name are those of the thread's folder. */
static int read_thread(int dir, const char *name, struct vm_thread *t)
{
	char path[300], stat[1024];
	int rc;

	snprintf(path, sizeof(path), "%s/stat", name);
	rc = read_file(dir, path, stat, sizeof(stat));
	return rc ? rc : vm_thread_parse(stat, t);
}

int vm_thread_read(pid_t tid, struct vm_thread *t)
{
	char name[32];

	snprintf(name, sizeof(name), "/proc/%d", (int)tid);
	return read_thread(AT_FDCWD, name, t);
}

/* --- the list --- */

struct list {
	struct vm_thread *at;
	size_t n, room;
};

static int add(struct list *l, const struct vm_thread *t)
{
	if (l->n == l->room) {
		size_t room = l->room ? l->room * 2 : 64;
		struct vm_thread *more = realloc(l->at, room * sizeof(*more));

		if (!more)
			return -ENOMEM;
		l->at = more;
		l->room = room;
	}
	l->at[l->n++] = *t;
	return 0;
}

/* Those of the process. One that ends while we read is no error. */
static int add_tasks(pid_t pid, struct list *l)
{
	struct dirent *d;
	char path[64];
	int rc = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	if (!dir)
		return errno == ENOENT ? -ESRCH : -errno;
	while (!rc && (d = readdir(dir))) {
		struct vm_thread t = {.role = VM_OTHER, .index = -1};

		if (!isdigit((unsigned char)*d->d_name))
			continue;
		rc = read_thread(dirfd(dir), d->d_name, &t);
		if (rc == -ESRCH) {
			rc = 0;
			continue;
		}
		if (t.tid == pid)
			t.role = VM_MAIN;
		if (!rc)
			rc = add(l, &t);
	}
	closedir(dir);
	return !rc && !l->n ? -ESRCH : rc;
}

pid_t vm_thread_inner(pid_t tid)
{
	char path[64], text[4096], *line;
	pid_t inner = tid;

	/* Threads have a folder of their own, too, though it is not listed. */
	snprintf(path, sizeof(path), "/proc/%d/status", (int)tid);
	if (read_file(AT_FDCWD, path, text, sizeof(text)) || !(line = strstr(text, "\nNSpid:")))
		return tid;
	for (char *at = line + 7, *end;; at = end) { /* from the outermost to the innermost */
		long number;

		at += strspn(at, " \t");
		number = strtol(at, &end, 10);
		if (*at == '\n' || end == at)
			return inner;
		inner = (pid_t)number;
	}
}

/*
 * Kernel threads that bear the number of a process: vhost-PID (drivers/vhost/vhost.c, before 6.4; the
 * number is global), kvm-nx-lpage-recovery-PID (virt/kvm/kvm_main.c, before 6.13; global), and
 * kvm-pit/PID (arch/x86/kvm/i8254.c; the number in the process's own namespace).
 */
static bool is_helper(const char *name, pid_t pid, pid_t own, struct vm_thread *t)
{
	static const struct {
		const char *prefix;
		enum vm_role role;
		bool own;
	} kinds[] = {
		{"vhost-", VM_VHOST, false},
		{"kvm-nx-lpage-recovery-", VM_NX_LPAGE, false},
		{"kvm-pit/", VM_PIT, true},
	};
	char wanted[48];

	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		snprintf(wanted, sizeof(wanted), "%s%d", kinds[i].prefix, (int)(kinds[i].own ? own : pid));
		if (!strcmp(name, wanted)) {
			t->role = kinds[i].role;
			return true;
		}
	}
	return false;
}

/*
 * In containers of their own, several VMs are all process 1 to themselves, and their kvm-pit have
 * the same name: ours is then the first that was made after our process.
 */
static int add_helper(struct list *l, const struct vm_thread *t, uint64_t since)
{
	if (t->starttime < since)
		return 0;
	for (size_t i = 0; t->role == VM_PIT && i < l->n; i++)
		if (l->at[i].role == VM_PIT) {
			if (t->starttime < l->at[i].starttime)
				l->at[i] = *t;
			return 0;
		}
	return add(l, t);
}

static int consider(struct list *l, const char *tid, pid_t pid, pid_t own, uint64_t since)
{
	struct vm_thread t = {.index = -1, .kernel = true};
	char path[64], name[64];

	snprintf(path, sizeof(path), "/proc/%s/comm", tid);
	if (read_file(AT_FDCWD, path, name, sizeof(name)))
		return 0;
	name[strcspn(name, "\n")] = '\0';
	if (!is_helper(name, pid, own, &t) || vm_thread_read((pid_t)strtol(tid, NULL, 10), &t))
		return 0;
	return add_helper(l, &t, since);
}

/* kthreadd's children in one reading (CONFIG_PROC_CHILDREN); NULL if the kernel does not tell. */
static FILE *open_children_of_kthreadd(void)
{
	char name[32];

	if (read_file(AT_FDCWD, "/proc/2/comm", name, sizeof(name)) || strcmp(name, "kthreadd\n") != 0)
		return NULL;
	return fopen("/proc/2/task/2/children", "re");
}

static int scan_proc(struct list *l, pid_t pid, pid_t own, uint64_t since)
{
	DIR *proc = opendir("/proc");
	struct dirent *d;
	int rc = 0;

	if (!proc)
		return 0;
	while (!rc && (d = readdir(proc)))
		if (isdigit((unsigned char)*d->d_name))
			rc = consider(l, d->d_name, pid, own, since);
	closedir(proc);
	return rc;
}

static int add_helpers(pid_t pid, struct list *l)
{
	FILE *children = open_children_of_kthreadd();
	pid_t own = vm_thread_inner(pid);
	uint64_t since = 0;
	char tid[16];
	int rc = 0;

	for (size_t i = 0; i < l->n; i++)
		if (l->at[i].role == VM_MAIN)
			since = l->at[i].starttime;
	if (!children)
		return scan_proc(l, pid, own, since);
	while (!rc && fscanf(children, "%15s", tid) == 1)
		rc = consider(l, tid, pid, own, since);
	fclose(children);
	return rc;
}

static int compare(const void *a, const void *b)
{
	const struct vm_thread *x = a, *y = b;

	if (x->role != y->role)
		return x->role < y->role ? -1 : 1;
	if (x->index != y->index)
		return x->index < y->index ? -1 : 1;
	return x->tid < y->tid ? -1 : x->tid > y->tid;
}

static const struct vm_thread *find(const struct vm_thread *list, size_t n, const struct vm_thread *t)
{
	for (size_t i = 0; i < n; i++)
		if (list[i].tid == t->tid && list[i].starttime == t->starttime)
			return &list[i];
	return NULL;
}

static int failed(const struct vm *vm, int rc, struct err *err)
{
	if (rc == -ESRCH)
		return err_set(err, rc, "read the threads of %s: the VM is gone", vm->target);
	return err_sys(err, rc, "read the threads of %s", vm->target);
}

static int read_list(const struct vm *vm, struct list *l, struct err *err)
{
	int rc;

	if (!vm->driver || !vm->driver->roles || vm->pid <= 0)
		return err_set(err, -ENOTSUP,
			       "read the threads of %s: its process is not known (name it by pid:N)",
			       vm->target);
	rc = add_tasks(vm->pid, l);
	if (!rc)
		rc = add_helpers(vm->pid, l);
	return rc ? failed(vm, rc, err) : 0;
}

int vm_threads(const struct vm *vm, struct vm_thread **list, size_t *n, struct err *err)
{
	struct list l = {0};
	int rc = read_list(vm, &l, err);

	if (rc) {
		free(l.at);
		return rc;
	}
	vm->driver->roles(vm, true, l.at, l.n);
	qsort(l.at, l.n, sizeof(*l.at), compare);
	*list = l.at;
	*n = l.n;
	return 0;
}

/* How many are new; the others take the roles that they had. */
static int recognize(struct list *l, const struct vm_thread *before, size_t n)
{
	int news = 0;

	for (size_t i = 0; i < l->n; i++) {
		const struct vm_thread *known = find(before, n, &l->at[i]);

		if (known && known->role != VM_OTHER) {
			l->at[i].role = known->role;
			l->at[i].index = known->index;
		}
		news += !known;
	}
	return news;
}

static bool unclear(const struct list *l, const struct vm_thread *before, size_t n)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->at[i].role == VM_OTHER && !find(before, n, &l->at[i]))
			return true;
	return false;
}

int vm_threads_again(const struct vm *vm, struct vm_thread **list, size_t *n, struct err *err)
{
	struct list l = {0};
	int rc = read_list(vm, &l, err);

	if (rc) {
		free(l.at);
		return rc;
	}
	rc = recognize(&l, *list, *n);
	vm->driver->roles(vm, false, l.at, l.n);
	if (rc && unclear(&l, *list, *n))
		vm->driver->roles(vm, true, l.at, l.n);
	qsort(l.at, l.n, sizeof(*l.at), compare);
	free(*list);
	*list = l.at;
	*n = l.n;
	return rc;
}
