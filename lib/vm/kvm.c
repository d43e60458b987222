/* SPDX-License-Identifier: MIT */
#include "vm/kvm.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <linux/kvm.h>

#define DEBUGFS "/sys/kernel/debug/kvm"
#define CAP_PRE_FAULT_MEMORY 236 /* Linux 6.11; the headers of this build may be older */

static const struct {
	const char *name;
	size_t offset;
} counters[] = {
#define C(f) {#f, offsetof(struct kvm_stats, f)}
	C(pages_4k), C(pages_2m), C(pages_1g), C(pf_taken), C(pf_fixed),
	C(pf_emulate), C(pf_spurious), C(pf_fast), C(exits),
#undef C
};
#define N_COUNTERS (sizeof(counters) / sizeof(counters[0]))

uint64_t *kvm_stat_by_name(struct kvm_stats *stats, const char *name)
{
	for (size_t i = 0; i < N_COUNTERS; i++)
		if (!strcmp(counters[i].name, name))
			return (uint64_t *)((char *)stats + counters[i].offset);
	return NULL;
}

static int by_id(const void *a, const void *b)
{
	const struct kvm_vcpu *x = a, *y = b;

	return (x->id > y->id) - (x->id < y->id);
}

/* "anon_inode:kvm-vm", "anon_inode:kvm-vcpu:3" (kvm_main.c, create_vcpu_fd). */
static void take_link(struct kvm *kvm, int fd, const char *link)
{
	static const char vcpu[] = "anon_inode:kvm-vcpu:";

	if (!strcmp(link, "anon_inode:kvm-vm") && kvm->vm_fd < 0)
		kvm->vm_fd = fd;
	if (!strncmp(link, vcpu, sizeof(vcpu) - 1) && kvm->n_vcpus < KVM_VCPUS_MAX)
		kvm->vcpus[kvm->n_vcpus++] = (struct kvm_vcpu){
			.id = (int)strtol(link + sizeof(vcpu) - 1, NULL, 10), .fd = fd};
}

static int read_fds(struct kvm *kvm, struct err *err)
{
	char path[64], link[64];
	struct dirent *d;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)kvm->pid);
	dir = opendir(path);
	if (!dir)
		return err_sys(err, errno == ENOENT ? -ESRCH : -errno, "%s", path);
	while ((d = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), d->d_name, link, sizeof(link) - 1);

		if (n <= 0)
			continue;
		link[n] = '\0';
		take_link(kvm, (int)strtol(d->d_name, NULL, 10), link);
	}
	closedir(dir);
	if (kvm->vm_fd < 0)
		return err_set(err, -ENOENT, "pid:%d: it has no KVM machine (it emulates its VM)",
			       (int)kvm->pid);
	qsort(kvm->vcpus, kvm->n_vcpus, sizeof(kvm->vcpus[0]), by_id);
	return 0;
}

static int read_number(const char *dir, const char *name, uint64_t *value)
{
	char path[300], text[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return -EIO;
	text[n] = '\0';
	*value = strtoull(text, NULL, 10);
	return 0;
}

/* The folder is named after the thread that made the VM, and the descriptor that it got. */
static void find_debugfs(struct kvm *kvm)
{
	uint64_t value;
	int rc;

	snprintf(kvm->debugfs, sizeof(kvm->debugfs), DEBUGFS "/%d-%d", (int)kvm->pid, kvm->vm_fd);
	rc = read_number(kvm->debugfs, "pf_taken", &value);
	if (!rc)
		return;
	*kvm->debugfs = '\0';
	if (rc == -EPERM)
		kvm->why_not = "the kernel is locked down";
	else if (access("/sys/kernel/debug", R_OK | X_OK))
		kvm->why_not = "debugfs is for root";
	else
		kvm->why_not = access(DEBUGFS, R_OK | X_OK) ?
				       "debugfs is not mounted: mount -t debugfs none /sys/kernel/debug" :
				       "it is another PID namespace's, or another thread made the VM";
}

/* Of kernels before 6.5, whose debugfs has no vcpuN/pid: as their threads are usually named. */
static pid_t thread_by_name(pid_t pid, int id)
{
	char path[300], name[32], wanted[32];
	struct dirent *d;
	pid_t tid = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	snprintf(wanted, sizeof(wanted), "CPU %d/KVM\n", id);
	dir = opendir(path);
	while (dir && !tid && (d = readdir(dir))) {
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%d/task/%.20s/comm", (int)pid, d->d_name);
		f = fopen(path, "re");
		if (f && fgets(name, sizeof(name), f) && !strcmp(name, wanted))
			tid = (pid_t)strtol(d->d_name, NULL, 10);
		if (f)
			fclose(f);
	}
	if (dir)
		closedir(dir);
	return tid;
}

static void find_threads(struct kvm *kvm)
{
	for (size_t i = 0; i < kvm->n_vcpus; i++) {
		char name[32];
		uint64_t tid;

		snprintf(name, sizeof(name), "vcpu%d/pid", kvm->vcpus[i].id);
		if (*kvm->debugfs && !read_number(kvm->debugfs, name, &tid) && tid)
			kvm->vcpus[i].tid = (pid_t)tid;
		else
			kvm->vcpus[i].tid = thread_by_name(kvm->pid, kvm->vcpus[i].id);
	}
}

static int ask_kernel(void)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), rc;

	if (fd < 0)
		return -1;
	rc = ioctl(fd, KVM_CHECK_EXTENSION, CAP_PRE_FAULT_MEMORY);
	close(fd);
	return rc < 0 ? -1 : rc > 0;
}

int kvm_find(pid_t pid, struct kvm *kvm, struct err *err)
{
	int rc;

	memset(kvm, 0, sizeof(*kvm));
	kvm->pid = pid;
	kvm->vm_fd = -1;
	rc = read_fds(kvm, err);
	if (rc)
		return rc;
	find_debugfs(kvm);
	find_threads(kvm);
	kvm->pre_fault = ask_kernel();
	return 0;
}

const struct kvm_vcpu *kvm_vcpu_of(const struct kvm *kvm, pid_t tid)
{
	for (size_t i = 0; i < kvm->n_vcpus; i++)
		if (kvm->vcpus[i].tid == tid)
			return &kvm->vcpus[i];
	return NULL;
}

int kvm_read_stats(const struct kvm *kvm, struct kvm_stats *stats, struct err *err)
{
	memset(stats, 0xff, sizeof(*stats));
	if (!*kvm->debugfs)
		return err_set(err, -ENODATA, "pid:%d: KVM's counters cannot be read: %s",
			       (int)kvm->pid, kvm->why_not);
	for (size_t i = 0; i < N_COUNTERS; i++) {
		uint64_t *value = kvm_stat_by_name(stats, counters[i].name);

		if (read_number(kvm->debugfs, counters[i].name, value))
			*value = UINT64_MAX;
	}
	if (stats->pages_4k == UINT64_MAX || stats->pf_taken == UINT64_MAX)
		return err_set(err, -ENODATA, "%s: the VM is gone", kvm->debugfs);
	return 0;
}

static uint64_t known(uint64_t value)
{
	return value == UINT64_MAX ? 0 : value;
}

uint64_t kvm_mapped_bytes(const struct kvm_stats *s)
{
	return (known(s->pages_4k) << 12) + (known(s->pages_2m) << 21) + (known(s->pages_1g) << 30);
}

uint64_t kvm_violations(const struct kvm_stats *before, const struct kvm_stats *after)
{
	uint64_t taken = known(after->pf_taken) - known(before->pf_taken);
	uint64_t emulated = known(after->pf_emulate) - known(before->pf_emulate);

	return taken > emulated ? taken - emulated : 0;
}
