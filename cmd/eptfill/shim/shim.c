/* SPDX-License-Identifier: MIT */
/*
 * Loaded into a hypervisor by `eptfill run` (LD_PRELOAD): fills its VM's memory from within, with
 * the VM's own mm and vCPUs. It sees KVM's system calls go by, and changes none of them.
 *
 * Host memory is populated before the first KVM_RUN. When the second level follows is a question of
 * memslots: firmware deletes some while it sets the machine up (pc 14, q35 15, microvm 1), and
 * by default KVM then zaps all entries of the VM (KVM_X86_QUIRK_SLOT_ZAP_ALL). Where the quirk can
 * be switched off, the second level is filled at once, too, and what is made anew later is
 * filled when it has settled; where it cannot, or the VM has an assigned device (for which the
 * quirk was kept), all of it is filled once the memslots have settled.
 *
 * $EPTFILL_SHIM: "THREADS:SETTLE_US:KEEP_QUIRK:HOST_ONLY:VERBOSITY".
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <linux/kvm.h>

#define SLOTS_MAX 1024
#define VCPUS_MAX 1024
#define THREADS_MAX 64
#define LATE_US 100000 /* a pre-fault that takes so long may never end */
#define CHUNK (32ull << 20)
#define HUGE_2M (2ull << 20)
#define POPULATE_READ 22 /* MADV_…, Linux 5.14 */
#define POPULATE_WRITE 23
#define CAP_PRE_FAULT_MEMORY 236 /* Linux 6.11 */
#define CAP_DISABLE_QUIRKS2 213
#define QUIRK_SLOT_ZAP_ALL (1u << 7) /* Linux 6.12 */
#define SET_USER_MEMORY_REGION2 0x40a0ae49ul
#define KICK (SIGRTMAX - 5)

struct pre_fault {
	uint64_t gpa, size, flags, padding[5];
};
#define PRE_FAULT_MEMORY _IOWR(KVMIO, 0xd5, struct pre_fault)

struct region {
	uint32_t slot, flags;
	uint64_t gpa, size, hva;
	bool mapped; /* its second level is there */
};

enum phase { IDLE, HOST, SECOND };

static int (*real_ioctl)(int, unsigned long, ...);
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static atomic_bool pending; /* something to fill, now or when it has settled */
static atomic_uint changing; /* memslots are being changed: nobody may be in a pre-fault */

/* Under the lock: */
static struct region regions[SLOTS_MAX];
static unsigned n_regions, deletes, fills;
static pid_t vcpu_tids[VCPUS_MAX];
static _Atomic uint64_t call_since[VCPUS_MAX]; /* of a vCPU's pre-fault; 0: it is in none */
static struct pre_fault returned[VCPUS_MAX];   /* what their vCPUs could not do */
static unsigned n_returned;
static unsigned n_vcpus, active, helped;
static bool has_helped[VCPUS_MAX];
static int vm_fd = -1;
static bool can_pre_fault, quirk_off, has_vfio, host_done, second_begun, watching;
static bool cut; /* the second level's fill was broken off: all of it again */
static uint64_t disabled_quirks, change_us, begun_us, host_us;
static uint64_t cursor_bytes, filled_bytes, host_bytes;
static unsigned cursor;
static enum phase phase;

static struct {
	unsigned threads, settle_us, keep_quirk, host_only;
	int verbosity;
} conf = {.settle_us = 500000};

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void say(int level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(int level, const char *fmt, ...)
{
	char text[300] = "eptfill: ";
	size_t n = strlen(text);
	va_list ap;

	if (conf.verbosity < level)
		return;
	va_start(ap, fmt);
	vsnprintf(text + n, sizeof(text) - n - 1, fmt, ap);
	va_end(ap);
	strcat(text, "\n");
	(void)!write(STDERR_FILENO, text, strlen(text));
}

/* What the hypervisor starts is not to be filled: its environment is as it was. */
__attribute__((constructor)) static void begin(void)
{
	const char *text = getenv("EPTFILL_SHIM"), *others = getenv("EPTFILL_PRELOAD");

	real_ioctl = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
	if (text)
		(void)!sscanf(text, "%u:%u:%u:%u:%d", &conf.threads, &conf.settle_us, &conf.keep_quirk,
			      &conf.host_only, &conf.verbosity);
	if (others && *others)
		setenv("LD_PRELOAD", others, 1);
	else
		unsetenv("LD_PRELOAD");
	unsetenv("EPTFILL_PRELOAD");
	unsetenv("EPTFILL_SHIM");
}

/* --- host memory: threads over the regions' pieces --- */

struct host_work {
	pthread_mutex_t lock;
	struct region list[SLOTS_MAX];
	unsigned n, at;
	uint64_t offset, done;
	int error;
};

static bool host_piece(struct host_work *w, uint64_t *hva, uint64_t *size, bool *rom)
{
	bool found = false;

	pthread_mutex_lock(&w->lock);
	while (w->at < w->n && w->offset >= w->list[w->at].size) {
		w->at++;
		w->offset = 0;
	}
	if (w->at < w->n && !w->error) {
		*hva = w->list[w->at].hva + w->offset;
		*size = w->list[w->at].size - w->offset;
		if (*size > CHUNK) /* the next one begins where a huge page does */
			*size = ((*hva + CHUNK) & ~(HUGE_2M - 1)) - *hva;
		*rom = w->list[w->at].flags & KVM_MEM_READONLY;
		w->offset += *size;
		found = true;
	}
	pthread_mutex_unlock(&w->lock);
	return found;
}

static void *populate(void *arg)
{
	struct host_work *w = arg;
	uint64_t hva, size;
	bool rom;

	while (host_piece(w, &hva, &size, &rom)) {
		int rc = madvise((void *)(uintptr_t)hva, size, rom ? POPULATE_READ : POPULATE_WRITE);

		while (rc && (errno == EINTR || errno == EAGAIN))
			rc = madvise((void *)(uintptr_t)hva, size, rom ? POPULATE_READ : POPULATE_WRITE);
		pthread_mutex_lock(&w->lock);
		if (!rc)
			w->done += size;
		else if (!rom && !w->error)
			w->error = errno;
		pthread_mutex_unlock(&w->lock);
	}
	return NULL;
}

static unsigned thread_count(void)
{
	cpu_set_t cpus;
	int n = sched_getaffinity(0, sizeof(cpus), &cpus) ? 1 : CPU_COUNT(&cpus);

	if (conf.threads)
		return conf.threads < THREADS_MAX ? conf.threads : THREADS_MAX;
	return n < 16 ? (unsigned)n : 16;
}

static void populate_all(struct host_work *w)
{
	pthread_t threads[THREADS_MAX];
	unsigned n = 0, wanted = thread_count();
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (n + 1 < wanted && !pthread_create(&threads[n], NULL, populate, w))
		n++;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	populate(w);
	while (n)
		pthread_join(threads[--n], NULL);
	if (w->error)
		say(-1, "populate host memory: %s: the VM runs, and its memory is not full",
		    strerror(w->error));
}

/* Called and left with the lock held. */
static void host_phase(void)
{
	struct host_work *w = calloc(1, sizeof(*w));
	uint64_t begun = now_us();

	phase = HOST;
	if (w) {
		pthread_mutex_init(&w->lock, NULL);
		for (unsigned i = 0; i < n_regions; i++)
			if (!regions[i].mapped)
				w->list[w->n++] = regions[i];
		pthread_mutex_unlock(&lock);
		populate_all(w);
		pthread_mutex_lock(&lock);
		host_bytes += w->done;
		pthread_mutex_destroy(&w->lock);
		free(w);
	}
	host_done = true;
	host_us += now_us() - begun;
}

/* --- the second level: every vCPU that comes by helps --- */

static void finish(void)
{
	phase = IDLE;
	if (cut || n_returned) {
		cut = false;
		n_returned = 0;
		for (unsigned i = 0; i < n_regions; i++)
			regions[i].mapped = false;
		change_us = now_us();
		atomic_store(&pending, true);
		pthread_cond_broadcast(&changed);
		return;
	}
	fills++;
	say(fills > 1, "%llu MiB mapped%s: host memory %llu MiB in %llu ms, second level in %llu ms by %u vCPUs, "
	    "%u memslots deleted so far",
	    (unsigned long long)filled_bytes >> 20, fills > 1 ? " again" : "",
	    (unsigned long long)host_bytes >> 20, (unsigned long long)host_us / 1000,
	    (unsigned long long)(now_us() - begun_us) / 1000, helped, deletes);
	host_bytes = host_us = 0;
	pthread_cond_broadcast(&changed);
}

static bool second_piece(struct pre_fault *p)
{
	if (atomic_load(&changing)) {
		cut = true;
		return false;
	}
	if (n_returned) {
		*p = returned[--n_returned];
		return true;
	}
	while (cursor < n_regions && (regions[cursor].mapped || cursor_bytes >= regions[cursor].size)) {
		if (cursor_bytes)
			regions[cursor].mapped = true;
		cursor++;
		cursor_bytes = 0;
	}
	if (cursor >= n_regions)
		return false;
	*p = (struct pre_fault){.gpa = regions[cursor].gpa + cursor_bytes,
				.size = regions[cursor].size - cursor_bytes};
	if (p->size > CHUNK)
		p->size = ((p->gpa + CHUNK) & ~(HUGE_2M - 1)) - p->gpa;
	cursor_bytes += p->size;
	return true;
}

static _Thread_local unsigned me; /* of the vCPUs that were seen */

/*
 * False: KVM will not. What is left of *@p it cannot do now: on Linux 6.12 a vCPU that has not been
 * in the guest since KVM threw its tables away gets nowhere until it is interrupted (kvm_mmu_reload).
 */
static bool pre_fault(int vcpu_fd, struct pre_fault *p)
{
	bool will = true;

	for (unsigned tries = 0; p->size && tries < 3 && !atomic_load(&changing);) {
		uint64_t before = p->size;
		int rc;

		atomic_store(&call_since[me], now_us());
		rc = real_ioctl(vcpu_fd, PRE_FAULT_MEMORY, p);
		if (rc && errno == ENOENT) { /* its memslot is gone meanwhile */
			p->size = 0;
		} else if (rc && errno != EINTR && errno != EAGAIN) {
			will = false;
			break;
		}
		tries = p->size < before ? 0 : tries + 1;
	}
	atomic_store(&call_since[me], 0);
	return will;
}

static void second_phase(int vcpu_fd)
{
	struct pre_fault p;

	active++;
	while (phase == SECOND && second_piece(&p)) {
		uint64_t size = p.size;
		bool will;

		helped += !has_helped[me];
		has_helped[me] = true;

		pthread_mutex_unlock(&lock);
		will = pre_fault(vcpu_fd, &p);
		pthread_mutex_lock(&lock);
		filled_bytes += size - p.size;
		cut = cut || atomic_load(&changing);
		if (!will) {
			say(-1, "second level: %s: left to the guest's own violations", strerror(errno));
			can_pre_fault = false;
			cursor = n_regions;
		} else if (p.size) { /* another's, or when this one has run */
			returned[n_returned++] = p;
			break;
		}
	}
	if (!--active && phase == SECOND)
		finish();
	pthread_cond_broadcast(&changed);
}

/* Nothing else must change KVM's view between its first look and the fill. */
static void try_quirk(void)
{
	struct kvm_enable_cap cap = {.cap = CAP_DISABLE_QUIRKS2};
	int valid = real_ioctl(vm_fd, KVM_CHECK_EXTENSION, CAP_DISABLE_QUIRKS2);

	if (conf.keep_quirk || has_vfio || valid <= 0 || !(valid & QUIRK_SLOT_ZAP_ALL))
		return;
	cap.args[0] = disabled_quirks | QUIRK_SLOT_ZAP_ALL;
	quirk_off = !real_ioctl(vm_fd, KVM_ENABLE_CAP, &cap);
	say(1, "memslots that go %s", quirk_off ? "take their own entries with them only" : "take all entries");
}

static bool settled(void)
{
	return now_us() - change_us >= conf.settle_us;
}

static void start_second(void)
{
	phase = SECOND;
	atomic_store(&pending, false);
	cursor = 0;
	cursor_bytes = filled_bytes = helped = 0;
	memset(has_helped, 0, sizeof(has_helped));
	begun_us = now_us();
	second_begun = true;
	if (!quirk_off) /* whatever was mapped before has been zapped by the last delete */
		for (unsigned i = 0; i < n_regions; i++)
			regions[i].mapped = false;
	pthread_cond_broadcast(&changed);
}

static void *kick_when_settled(void *arg);

static void start_watching(void)
{
	sigset_t all, old;
	pthread_t thread;

	watching = true;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if (!pthread_create(&thread, NULL, kick_when_settled, NULL))
		pthread_detach(thread);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void before_run(int vcpu_fd)
{
	pthread_mutex_lock(&lock);
	if (!watching) {
		can_pre_fault = real_ioctl(vm_fd, KVM_CHECK_EXTENSION, CAP_PRE_FAULT_MEMORY) > 0;
		if (can_pre_fault)
			try_quirk();
		else if (!conf.host_only)
			say(0, "this kernel has no KVM_PRE_FAULT_MEMORY (Linux 6.11): host memory only");
		start_watching();
	}
	while (phase == HOST)
		pthread_cond_wait(&changed, &lock);
	if (phase == IDLE && atomic_load(&pending) && (!host_done || settled())) {
		bool first = !host_done;

		host_phase();
		if (!can_pre_fault || conf.host_only) {
			atomic_store(&pending, false);
			for (unsigned i = 0; i < n_regions; i++)
				regions[i].mapped = true;
			begun_us = now_us();
			filled_bytes = 0;
			finish();
		} else if (quirk_off || !first) {
			start_second();
		} else {
			phase = IDLE;
			pthread_cond_broadcast(&changed);
		}
	}
	if (phase == SECOND)
		second_phase(vcpu_fd);
	pthread_mutex_unlock(&lock);
}

/* A vCPU in the guest comes out by a signal; QEMU and others take EINTR as nothing special. */
static void on_kick(int sig)
{
	(void)sig;
}

static void kick_late(void)
{
	uint64_t now = now_us();

	for (unsigned i = 0; i < n_vcpus; i++) {
		uint64_t since = atomic_load(&call_since[i]);

		if (since && now > since && now - since > LATE_US)
			syscall(SYS_tgkill, getpid(), vcpu_tids[i], KICK);
	}
}

static void *kick_when_settled(void *arg)
{
	(void)arg;
	for (;;) {
		usleep(conf.settle_us / 4 < 10000 ? 10000 : conf.settle_us / 4);
		kick_late();
		if (!atomic_load(&pending))
			continue;
		pthread_mutex_lock(&lock);
		if (phase == IDLE && host_done && settled())
			for (unsigned i = 0; i < n_vcpus; i++)
				syscall(SYS_tgkill, getpid(), vcpu_tids[i], KICK);
		pthread_mutex_unlock(&lock);
	}
	return NULL;
}

static void first_run_of_thread(void)
{
	static _Thread_local bool known;
	struct sigaction sa = {.sa_handler = on_kick};
	sigset_t kick;

	if (known)
		return;
	known = true;
	sigaction(KICK, &sa, NULL);
	sigemptyset(&kick);
	sigaddset(&kick, KICK);
	pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
	pthread_mutex_lock(&lock);
	me = n_vcpus < VCPUS_MAX ? n_vcpus : VCPUS_MAX - 1;
	if (n_vcpus < VCPUS_MAX)
		vcpu_tids[n_vcpus++] = (pid_t)syscall(SYS_gettid);
	pthread_mutex_unlock(&lock);
}

/* --- what goes by --- */

/*
 * A pre-fault of a page whose memslot is being deleted spins in the kernel, while who deletes it
 * waits for the pre-fault's end (kvm_tdp_map_page, kvm_swap_active_memslots of Linux 6.12): all come
 * out first. Who calls this is in none. What they leave is filled when it has settled.
 */
static void begin_change(void)
{
	struct timespec ts;

	atomic_fetch_add(&changing, 1);
	pthread_mutex_lock(&lock);
	while (active) {
		for (unsigned i = 0; i < n_vcpus; i++)
			syscall(SYS_tgkill, getpid(), vcpu_tids[i], KICK);
		clock_gettime(CLOCK_REALTIME, &ts);
		ts.tv_nsec += 2000000;
		if (ts.tv_nsec >= 1000000000) {
			ts.tv_nsec -= 1000000000;
			ts.tv_sec++;
		}
		pthread_cond_timedwait(&changed, &lock, &ts);
	}
	pthread_mutex_unlock(&lock);
}

static void end_change(void)
{
	atomic_fetch_sub(&changing, 1);
}

static void took_region(const struct kvm_userspace_memory_region *r)
{
	unsigned i;

	if (r->slot >> 16) /* SMM's view has the same memory */
		return;
	pthread_mutex_lock(&lock);
	for (i = 0; i < n_regions && regions[i].slot != r->slot; i++)
		;
	if (phase == SECOND) { /* the list moves under the fill: again, when it has settled */
		cursor = n_regions;
		cursor_bytes = 0;
		atomic_store(&pending, true);
	}
	if (!r->memory_size) {
		deletes++;
		if (i < n_regions)
			regions[i] = regions[--n_regions];
		change_us = now_us();
		if (!quirk_off)
			atomic_store(&pending, true);
	} else if (i < SLOTS_MAX) {
		struct region new = {r->slot, r->flags, r->guest_phys_addr, r->memory_size,
				     r->userspace_addr, false};

		if (i < n_regions && regions[i].gpa == new.gpa && regions[i].size == new.size &&
		    regions[i].hva == new.hva) { /* only its flags: the dirty log, on or off */
			regions[i].flags = new.flags;
		} else {
			regions[i] = new;
			n_regions += i == n_regions;
			change_us = now_us();
			atomic_store(&pending, true);
		}
	}
	pthread_mutex_unlock(&lock);
}

static void took_capability(struct kvm_enable_cap *cap)
{
	if (cap->cap == KVM_CAP_DISABLE_QUIRKS || cap->cap == CAP_DISABLE_QUIRKS2)
		disabled_quirks |= cap->args[0];
	if (quirk_off && cap->cap == CAP_DISABLE_QUIRKS2)
		cap->args[0] |= QUIRK_SLOT_ZAP_ALL;
}

int ioctl(int fd, unsigned long request, ...)
{
	bool change;
	va_list ap;
	void *arg;
	int rc;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (request == KVM_RUN && vm_fd >= 0) {
		int saved = errno;

		first_run_of_thread();
		if (atomic_load(&pending) || phase != IDLE)
			before_run(fd);
		errno = saved;
	} else if (request == KVM_ENABLE_CAP && fd == vm_fd && arg) {
		took_capability(arg);
	}
	change = fd == vm_fd &&
		 (request == KVM_SET_USER_MEMORY_REGION || request == SET_USER_MEMORY_REGION2);
	if (change)
		begin_change();
	rc = real_ioctl(fd, request, arg);
	if (change)
		end_change();
	if (rc < 0)
		return rc;
	if (request == KVM_CREATE_VM && vm_fd < 0)
		vm_fd = rc;
	else if (change)
		took_region(arg);
	else if (request == KVM_CREATE_DEVICE && fd == vm_fd &&
		 ((struct kvm_create_device *)arg)->type == KVM_DEV_TYPE_VFIO)
		has_vfio = true;
	return rc;
}
