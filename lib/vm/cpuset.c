/* SPDX-License-Identifier: MIT */
#include "vm/cpuset.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/units.h"

#define PATH_BYTES 1100

/* Where a hierarchy is mounted: cgroup2, or v1 with the option @option. */
static bool mount_point(const char *type, const char *option, char *dir, size_t size)
{
	FILE *f = setmntent("/proc/self/mounts", "re");
	struct mntent *m;
	bool found = false;

	while (f && !found && (m = getmntent(f))) {
		if (strcmp(m->mnt_type, type) != 0 || (option && !hasmntopt(m, option)))
			continue;
		found = snprintf(dir, size, "%s", m->mnt_dir) < (int)size;
	}
	if (f)
		endmntent(f);
	return found;
}

static int read_word(char *buf, size_t size, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	*buf = '\0';
	if (fd < 0)
		return -errno;
	n = read(fd, buf, size - 1);
	if (n < 0)
		n = -errno;
	close(fd);
	buf[n > 0 ? n : 0] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
	return n < 0 ? (int)n : 0;
}

static int write_word(const char *text, const char *path)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), rc = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		rc = -errno;
	close(fd);
	return rc;
}

static int __attribute__((format(printf, 2, 3))) path_of(char *path, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(path, PATH_BYTES, fmt, ap);
	va_end(ap);
	return n < PATH_BYTES ? 0 : -ENAMETOOLONG;
}

/* --- what a process may use --- */

static int list_at(const char *mount, const char *path, const char *file, cpu_set_t *cpus)
{
	char name[PATH_BYTES], text[UNITS_CPULIST_MAX];
	int rc = path_of(name, "%s%s/%s", mount, path, file);

	if (!rc)
		rc = read_word(text, sizeof(text), name);
	return rc ? rc : units_cpulist(text, cpus);
}

/* /proc/PID/cpuset is the path in either version; on v2 the file may be further up. */
int cpuset_allowed(pid_t pid, cpu_set_t *cpus, char *path, size_t size)
{
	char name[64], mount[512], at[512], *slash;

	CPU_ZERO(cpus);
	for (int c = 0; c < CPU_SETSIZE; c++)
		CPU_SET(c, cpus);
	snprintf(name, sizeof(name), "/proc/%d/cpuset", (int)pid);
	if (read_word(at, sizeof(at), name))
		*at = '\0';
	snprintf(path, size, "%s", at);
	if (!*at)
		return 0;
	if (mount_point("cgroup", "cpuset", mount, sizeof(mount))) {
		if (!list_at(mount, at, "cpuset.effective_cpus", cpus))
			return 0;
		return list_at(mount, at, "cpuset.cpus", cpus);
	}
	if (!mount_point("cgroup2", NULL, mount, sizeof(mount)))
		return 0;
	while (list_at(mount, at, "cpuset.cpus.effective", cpus) && (slash = strrchr(at, '/')))
		*slash = '\0';
	if (!CPU_COUNT(cpus))
		for (int c = 0; c < CPU_SETSIZE; c++)
			CPU_SET(c, cpus);
	return 0;
}

/* --- partitions --- */

/* "0::/path" of /proc/PID/cgroup. */
static int cgroup_of(const char *proc, char *path, size_t size)
{
	char *line = NULL;
	size_t room = 0;
	int rc = -ENOTSUP;
	FILE *f = fopen(proc, "re");

	if (!f)
		return errno == ENOENT ? -ESRCH : -errno;
	while (rc && getline(&line, &room, f) >= 0)
		if (!strncmp(line, "0::/", 4)) {
			line[strcspn(line, "\n")] = '\0';
			rc = snprintf(path, size, "%s", line + 3) < (int)size ? 0 : -ENAMETOOLONG;
		}
	free(line);
	fclose(f);
	return rc;
}

static bool has_word(const char *text, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = text; (p = strstr(p, word)); p += n)
		if ((p == text || p[-1] == ' ') && (!p[n] || p[n] == ' '))
			return true;
	return false;
}

static int together(pid_t pid, const char *home, struct err *err)
{
	char name[PATH_BYTES], other[512];
	struct dirent *d;
	int rc = 0;
	DIR *dir;

	snprintf(name, sizeof(name), "/proc/%d/task", (int)pid);
	dir = opendir(name);
	while (dir && !rc && (d = readdir(dir))) {
		if (!isdigit((unsigned char)*d->d_name) ||
		    path_of(name, "/proc/%d/task/%s/cgroup", (int)pid, d->d_name) ||
		    cgroup_of(name, other, sizeof(other)) || !strcmp(other, home))
			continue;
		rc = err_set(err, -EBUSY,
			     "isolate: its threads are in cgroups of their own (%s): whoever made these must do it",
			     other);
	}
	if (dir)
		closedir(dir);
	return rc;
}

int partition_plan(pid_t pid, struct partition *p, struct err *err)
{
	char mount[512], path[PATH_BYTES], text[512];
	int rc;

	memset(p, 0, sizeof(*p));
	if (!mount_point("cgroup2", NULL, mount, sizeof(mount)))
		return err_set(err, -ENOTSUP, "isolate: no cgroup v2 is mounted here");
	rc = path_of(path, "%s/cgroup.controllers", mount);
	if (rc || read_word(text, sizeof(text), path) || !has_word(text, "cpuset"))
		return err_set(err, -ENOTSUP,
			       "isolate: cgroup v2 at %s has no cpuset controller (is it bound to v1?)", mount);
	rc = path_of(path, "%s/cgroup.subtree_control", mount);
	if (!rc)
		rc = read_word(text, sizeof(text), path);
	if (rc)
		return err_sys(err, rc, "isolate: %s", path);
	p->enabled = !has_word(text, "cpuset");
	snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
	rc = cgroup_of(path, p->home, sizeof(p->home));
	if (rc)
		return err_sys(err, rc, "isolate: find the cgroup of %d", (int)pid);
	snprintf(p->cgroup, sizeof(p->cgroup), "/pincore-%d", (int)pid);
	return together(pid, p->home, err);
}

static int put(const char *text, const char *mount, const char *cgroup, const char *file)
{
	char path[PATH_BYTES];
	int rc = path_of(path, "%s%s/%s", mount, cgroup, file);

	return rc ? rc : write_word(text, path);
}

static int put_number(pid_t pid, const char *mount, const char *cgroup)
{
	char number[16];

	snprintf(number, sizeof(number), "%d", (int)pid);
	return put(number, mount, cgroup, "cgroup.procs");
}

/* The kernel accepts the word and then says "isolated invalid (reason)". */
static int is_isolated(const char *mount, const struct partition *p, struct err *err)
{
	char path[PATH_BYTES], word[256];
	int rc = path_of(path, "%s%s/cpuset.cpus.partition", mount, p->cgroup);

	if (!rc)
		rc = read_word(word, sizeof(word), path);
	if (rc)
		return err_sys(err, rc, "isolate: %s", path);
	if (strcmp(word, "isolated") != 0)
		return err_set(err, -EINVAL, "isolate: the kernel says: %s", word);
	return 0;
}

static int set_up(const char *mount, const struct partition *p, const char *cpus, pid_t pid,
		  struct err *err)
{
	char path[PATH_BYTES];
	int rc = 0;

	if (p->enabled)
		rc = put("+cpuset", mount, "", "cgroup.subtree_control");
	if (rc)
		return err_sys(err, rc, "isolate: turn the cpuset controller on");
	rc = path_of(path, "%s%s", mount, p->cgroup);
	if (!rc && mkdir(path, 0755) && errno != EEXIST)
		rc = -errno;
	if (rc)
		return err_sys(err, rc, "isolate: make %s", path);
	rc = put(cpus, mount, p->cgroup, "cpuset.cpus");
	if (rc)
		return err_sys(err, rc, "isolate: give %s CPUs %s", path, cpus);
	rc = put("isolated", mount, p->cgroup, "cpuset.cpus.partition");
	if (rc)
		return err_sys(err, rc, "isolate: make a partition of CPUs %s", cpus);
	rc = is_isolated(mount, p, err);
	if (rc)
		return rc;
	rc = put_number(pid, mount, p->cgroup);
	if (rc)
		return err_sys(err, rc, "isolate: move process %d to %s", (int)pid, path);
	return is_isolated(mount, p, err);
}

int partition_make(const struct partition *p, const cpu_set_t *cpus, pid_t pid, struct err *err)
{
	char mount[512], list[UNITS_CPULIST_MAX];
	int rc;

	if (!mount_point("cgroup2", NULL, mount, sizeof(mount)))
		return err_set(err, -ENOTSUP, "isolate: no cgroup v2 is mounted here");
	rc = set_up(mount, p, units_format_cpulist(cpus, list, sizeof(list)), pid, err);
	if (rc)
		partition_end(p, NULL);
	return rc;
}

int partition_adopt(const struct partition *p, pid_t tid)
{
	char mount[512];

	if (!mount_point("cgroup2", NULL, mount, sizeof(mount)))
		return -ENOTSUP;
	return put_number(tid, mount, p->cgroup);
}

/* Kernel threads came from the root, processes from home (or, if that is gone, go to the root). */
static void go_home(const char *mount, const struct partition *p)
{
	char path[PATH_BYTES], line[32];
	FILE *f;

	if (path_of(path, "%s%s/cgroup.procs", mount, p->cgroup))
		return;
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		pid_t pid = (pid_t)strtol(line, NULL, 10);
		char exe[64], target[8];

		snprintf(exe, sizeof(exe), "/proc/%d/exe", (int)pid);
		if (readlink(exe, target, sizeof(target)) < 0 && errno == ENOENT)
			(void)put_number(pid, mount, "");
		else if (put_number(pid, mount, p->home))
			(void)put_number(pid, mount, "");
	}
	if (f)
		fclose(f);
}

int partition_end(const struct partition *p, struct err *err)
{
	char mount[512], path[PATH_BYTES];
	int rc;

	if (!mount_point("cgroup2", NULL, mount, sizeof(mount)))
		return 0;
	rc = path_of(path, "%s%s", mount, p->cgroup);
	if (rc || access(path, F_OK))
		return rc;
	/* Its CPUs are everybody's again before anybody leaves it, or home would have none. */
	(void)put("member", mount, p->cgroup, "cpuset.cpus.partition");
	go_home(mount, p);
	if (rmdir(path) && errno != ENOENT)
		return err_sys(err, -errno, "end the partition %s", path);
	if (p->enabled)
		(void)put("-cpuset", mount, "", "cgroup.subtree_control"); /* EBUSY: others use it by now */
	return 0;
}
