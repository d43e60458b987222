/* SPDX-License-Identifier: MIT */
#include "vm/fill.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <linux/kvm.h>

#include "base/log.h"
#include "base/units.h"
#include "vm/inject.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

#define HELPERS_MAX 64
#define HELPERS_DEFAULT_MAX 16
#define HOST_CHUNK (32ull << 20) /* some 10 ms of zeroing: what Ctrl-C may wait for */
#define HUGE_2M (2ull << 20)
#define CHUNK_MAX (1ull << 30)
#define GIB (1ull << 30)
#define STOP_MS 5000   /* a thread that does not come out by then is left alone */
#define LATE_US 50000  /* beyond twice a stall: a call that takes so long hangs */
#define STUCK_US 10000000 /* no vCPU got on for so long */
#define TRIES_MAX 100  /* EAGAIN, EOPNOTSUPP: they pass, or they don't */
#define ENOTSUPP_NR 524

/* linux/kvm.h, Linux 6.11 */
struct pre_fault {
	uint64_t gpa, size, flags, padding[5];
};
#define PRE_FAULT_MEMORY _IOWR(KVMIO, 0xd5, struct pre_fault)
_Static_assert(PRE_FAULT_MEMORY == 0xc040aed5, "the kernel's number");

struct worker {
	struct inject_thread *t;
	const struct kvm_vcpu *vcpu;
	struct vm_slot piece;
	bool has_piece, busy, late;
	struct fill_share share;
	uint64_t rest_until, call_since;
	uint64_t chunk;	   /* bytes that fit into a stall */
	uint64_t least_us; /* the shortest call: what one costs by itself */
	unsigned tries;
};

struct filler {
	pid_t pid;
	struct inject *in;
	const struct kvm *kvm;
	const struct fill_options *opts;
	const struct fill_hooks *hooks;
	struct fill_report *report;
	struct err *err;
	const struct vm_slots *slots; /* of the phase */
	size_t slot;
	uint64_t offset, total;
	bool searching;
	uint64_t ram_bytes;
	struct worker *workers;
	size_t n_workers;
	struct vm_slot *returned; /* pieces that their vCPUs could not do, at most one each */
	size_t n_returned;
	uint64_t done_us; /* when a call did something */
	int failed;
};

static bool cancelled(struct filler *f)
{
	if (!f->report->cancelled && f->hooks && f->hooks->cancelled)
		f->report->cancelled = f->hooks->cancelled(f->hooks->ctx);
	return f->report->cancelled;
}

static void progress(struct filler *f, enum fill_phase phase, uint64_t done)
{
	if (f->hooks && f->hooks->progress)
		f->hooks->progress(f->hooks->ctx, phase, done, f->total);
}

static bool take_piece(struct filler *f, struct worker *w, uint64_t bytes, uint64_t align)
{
	if (w->has_piece)
		return true;
	if (f->failed || cancelled(f))
		return false;
	if (f->n_returned) {
		w->piece = f->returned[--f->n_returned];
		w->has_piece = true;
		return true;
	}
	w->has_piece = vm_slots_next(f->slots, &f->slot, &f->offset, bytes, align, &w->piece);
	return w->has_piece;
}

static struct worker *worker_of(struct filler *f, const struct inject_thread *t)
{
	for (size_t i = 0; i < f->n_workers; i++)
		if (f->workers[i].t == t)
			return &f->workers[i];
	return NULL;
}

/* --- host memory --- */

static unsigned default_threads(const struct filler *f, const cpu_set_t *cpus)
{
	int n = CPU_COUNT(cpus);

	if (f->opts->threads)
		return f->opts->threads < HELPERS_MAX ? f->opts->threads : HELPERS_MAX;
	return n < 1 ? 1 : n < HELPERS_DEFAULT_MAX ? (unsigned)n : HELPERS_DEFAULT_MAX;
}

/* Where the VM's vCPUs may run its memory should be, unless its own policy says otherwise. */
static void cpus_of_vm(const struct filler *f, cpu_set_t *cpus)
{
	CPU_ZERO(cpus);
	for (size_t i = 0; f->kvm && i < f->kvm->n_vcpus; i++) {
		cpu_set_t one;

		if (f->kvm->vcpus[i].tid &&
		    !sched_getaffinity(f->kvm->vcpus[i].tid, sizeof(one), &one))
			CPU_OR(cpus, cpus, &one);
	}
	if (!CPU_COUNT(cpus) && sched_getaffinity(f->pid, sizeof(*cpus), cpus))
		CPU_SET(0, cpus);
}

static int await_stop(struct filler *f, struct inject_thread *t)
{
	uint64_t deadline = units_now_us() + STOP_MS * 1000ull;
	struct inject_thread *which;
	int rc = inject_stop(t, f->err);

	while (!rc && t->state == INJECT_STOPPING) {
		rc = inject_wait(f->in, 100, &which, f->err);
		rc = rc < 0 ? rc : 0;
		if (!rc && t->state == INJECT_STOPPING && units_now_us() > deadline)
			rc = err_set(f->err, -ETIMEDOUT, "stop thread %d: it does not come to rest",
				     (int)t->tid);
	}
	if (!rc && t->state != INJECT_STOPPED)
		rc = err_set(f->err, -ESRCH, "process %d: it is gone", (int)f->pid);
	return rc;
}

static int make_helpers(struct filler *f)
{
	struct inject_thread *maker = NULL, *helpers[HELPERS_MAX] = {0};
	cpu_set_t cpus;
	unsigned n;
	int rc;

	cpus_of_vm(f, &cpus);
	n = default_threads(f, &cpus);
	rc = inject_attach(f->in, f->pid, &maker, f->err);
	if (!rc)
		rc = await_stop(f, maker);
	if (!rc)
		rc = inject_spawn(maker, n, helpers, f->err);
	if (!rc)
		rc = inject_resume(maker, f->err);
	if (rc)
		return rc;
	f->report->main_stall_us = maker->longest_us;
	f->report->threads = n;
	f->workers = calloc(n, sizeof(*f->workers));
	if (!f->workers)
		return err_sys(f->err, -ENOMEM, "fill");
	f->n_workers = n;
	for (unsigned i = 0; i < n; i++) {
		f->workers[i].t = helpers[i];
		if (sched_setaffinity(helpers[i]->tid, sizeof(cpus), &cpus))
			log_verbose("helper %d stays on its CPUs", (int)helpers[i]->tid);
	}
	return 0;
}

static void populate_next(struct filler *f, struct worker *w)
{
	long args[6] = {0};

	if (w->busy || w->t->state != INJECT_STOPPED || !take_piece(f, w, HOST_CHUNK, HUGE_2M))
		return;
	args[0] = (long)w->piece.hva;
	args[1] = (long)w->piece.size;
	args[2] = MADV_POPULATE_WRITE;
	if (inject_call(w->t, SYS_madvise, args, -1, NULL, 0, f->err))
		f->failed = -EIO;
	else
		w->busy = true;
}

static int why_not_populated(struct filler *f, const struct worker *w)
{
	int rc = (int)w->t->result;

	if (rc == -EINVAL)
		return err_set(f->err, -ENOTSUP, "populate host memory: this kernel has no "
			       "MADV_POPULATE_WRITE (Linux 5.14), or %s is a device's",
			       w->piece.name);
	if (rc == -ENOMEM)
		return err_set(f->err, rc, "populate host memory at 0x%" PRIx64 " (%s): no memory, or "
			       "the VM has unmapped it", w->piece.hva, w->piece.name);
	if (rc == -EFAULT)
		return err_set(f->err, rc, "populate host memory at 0x%" PRIx64 " (%s): the pool of "
			       "huge pages or the file behind it is used up",
			       w->piece.hva, w->piece.name);
	return err_sys(f->err, rc, "populate host memory at 0x%" PRIx64 " (%s)", w->piece.hva,
		       w->piece.name);
}

static void populated(struct filler *f, struct worker *w)
{
	w->busy = false;
	if (w->t->state == INJECT_GONE) {
		f->failed = err_set(f->err, -ESRCH, "process %d: it is gone", (int)f->pid);
		return;
	}
	if (w->t->result == -EINTR || w->t->result == -EAGAIN)
		return; /* the same piece again */
	if (w->t->result) {
		f->failed = f->failed ? f->failed : why_not_populated(f, w);
		return;
	}
	w->has_piece = false;
	f->report->host_bytes += w->piece.size;
	progress(f, FILL_HOST, f->report->host_bytes);
}

static bool any_busy(const struct filler *f)
{
	for (size_t i = 0; i < f->n_workers; i++)
		if (f->workers[i].busy && f->workers[i].t->state != INJECT_GONE)
			return true;
	return false;
}

static int fill_host(struct filler *f, const struct vm_slots *host)
{
	uint64_t begun;
	int rc = make_helpers(f);

	if (rc)
		return rc;
	begun = units_now_us();
	f->slots = host;
	f->slot = 0;
	f->offset = 0;
	f->total = vm_slots_bytes(host, true);
	do {
		struct inject_thread *t;

		for (size_t i = 0; i < f->n_workers && !f->failed; i++)
			populate_next(f, &f->workers[i]);
		if (!any_busy(f))
			break;
		rc = inject_wait(f->in, 100, &t, f->err);
		if (rc > 0 && worker_of(f, t) && worker_of(f, t)->busy)
			populated(f, worker_of(f, t));
		cancelled(f);
	} while (rc >= 0);
	f->report->host_us = units_now_us() - begun;
	free(f->workers);
	f->workers = NULL;
	f->n_workers = 0;
	if (rc < 0 || f->failed)
		return rc < 0 ? rc : f->failed;
	if (f->report->cancelled)
		return err_set(f->err, -ECANCELED, "stopped in its first phase");
	f->report->host_done = true;
	return 0;
}

/* --- the second level --- */

static int attach_vcpus(struct filler *f)
{
	int rc = 0;

	f->workers = calloc(f->kvm->n_vcpus ? f->kvm->n_vcpus : 1, sizeof(*f->workers));
	f->returned = calloc(f->kvm->n_vcpus ? f->kvm->n_vcpus : 1, sizeof(*f->returned));
	if (!f->workers || !f->returned)
		return err_sys(f->err, -ENOMEM, "fill");
	for (size_t i = 0; i < f->kvm->n_vcpus && !rc; i++) {
		struct worker *w = &f->workers[f->n_workers];

		if (!f->kvm->vcpus[i].tid)
			continue;
		w->vcpu = &f->kvm->vcpus[i];
		w->chunk = HUGE_2M;
		rc = inject_attach(f->in, w->vcpu->tid, &w->t, f->err);
		if (!rc)
			f->n_workers++;
	}
	if (!rc && !f->n_workers)
		rc = err_set(f->err, -ENOENT, "process %d: no thread of a vCPU is known (debugfs, or "
			     "QEMU's -name debug-threads=on, tells)", (int)f->pid);
	f->report->vcpus = (unsigned)f->n_workers;
	return rc;
}

/* The vCPU that the thread was in, by its own registers; else the one that it ran last. */
static int fd_of(const struct worker *w)
{
	const struct user_regs_struct *r = &w->t->own;

	if (r->orig_rax == SYS_ioctl && (unsigned)r->rsi == (unsigned)KVM_RUN)
		return (int)r->rdi;
	return w->vcpu->fd;
}

static void call_pre_fault(struct filler *f, struct worker *w)
{
	struct pre_fault p = {.gpa = w->piece.gpa, .size = w->piece.size};
	long args[6] = {fd_of(w), (long)PRE_FAULT_MEMORY};

	w->call_since = units_now_us();
	w->late = false;
	if (inject_call(w->t, SYS_ioctl, args, 2, &p, sizeof(p), f->err)) {
		f->failed = f->failed ? f->failed : -EIO;
		return;
	}
	w->busy = true;
	f->report->calls++;
}

static void back_to_guest(struct filler *f, struct worker *w, uint64_t extra_us)
{
	uint64_t away, now;

	if (inject_resume(w->t, f->err)) {
		f->failed = f->failed ? f->failed : -EIO;
		return;
	}
	now = units_now_us();
	away = now - w->t->asked_us;
	w->rest_until = now + extra_us + away * (100 - f->opts->duty_percent) / f->opts->duty_percent;
	if (w->t->longest_us > f->report->longest_stall_us) {
		f->report->longest_stall_us = w->t->longest_us;
		f->report->longest_vcpu = w->vcpu->id;
	}
	w->share.longest_stall_us = w->t->longest_us;
}

/* How much fits into a stall, by what the last call did, beyond what any call costs. */
static void learn(struct filler *f, struct worker *w, uint64_t bytes)
{
	uint64_t took = units_now_us() - w->call_since, work;
	double fits;

	if (!bytes)
		return;
	if (!w->least_us || took < w->least_us)
		w->least_us = took;
	work = took - w->least_us > 1 ? took - w->least_us : 1;
	fits = (double)bytes * (double)f->opts->stall_us / (double)work;
	if (fits > (double)w->chunk * 2)
		fits = (double)w->chunk * 2;
	w->chunk = fits < (double)HUGE_2M ? HUGE_2M : fits > (double)CHUNK_MAX ? CHUNK_MAX : (uint64_t)fits;
}

/* Not in a memslot (any more). */
static void skip_hole(struct filler *f, struct worker *w)
{
	/* The holes below 1 MiB are small ones, and there may be memory behind each. */
	uint64_t skip = f->searching && w->piece.gpa < (1u << 20) ? 4096 : w->piece.size;

	f->done_us = units_now_us();
	if (!f->searching)
		f->report->gone_bytes += skip;
	w->piece.gpa += skip;
	w->piece.size -= skip;
	w->has_piece = w->piece.size != 0;
}

static const char *why_no_second_level(int rc)
{
	switch (rc) {
	case -ENOTTY:
	case -EINVAL:
		return "this kernel has no KVM_PRE_FAULT_MEMORY (Linux 6.11)";
	case -EOPNOTSUPP:
	case -ENOTSUPP_NR:
		return "this machine has no second-level tables (EPT, NPT), or the vCPU runs a nested guest";
	case -EFAULT:
		return "host memory was taken away under way (balloon?)";
	case -EIO:
		return "KVM says that the VM is dead";
	default:
		return strerror(-rc);
	}
}

/*
 * A call had to be interrupted and had done nothing. Where the vCPU has not been in the guest since
 * KVM threw all tables away, none of its calls gets on (kvm_mmu_reload of Linux 6.12 keeps an
 * obsolete root): one that waits for its start-up interrupt, or of a paused VM. The others
 * do its piece.
 */
static void give_back(struct filler *f, struct worker *w)
{
	if (w->has_piece)
		f->returned[f->n_returned++] = w->piece;
	w->has_piece = false;
	w->chunk = HUGE_2M;
	if (units_now_us() - f->done_us > STUCK_US && !f->failed)
		f->failed = err_set(f->err, -EAGAIN, "second level at 0x%" PRIx64 ": KVM takes nothing from "
				    "vCPUs that have not run since it dropped its tables (let the VM run, and "
				    "fill again)", w->piece.gpa);
}

/* A call has returned. True: the vCPU must go back into the guest now. */
static bool pre_faulted(struct filler *f, struct worker *w)
{
	long rc = w->t->result;
	struct pre_fault p;
	uint64_t done = 0;

	w->busy = false;
	memcpy(&p, w->t->data, sizeof(p));
	if (!rc && p.size <= w->piece.size) {
		done = w->piece.size - p.size;
		f->done_us = units_now_us();
		f->report->second_bytes += done;
		w->share.bytes += done;
		w->piece.gpa += done;
		w->piece.size -= done;
		w->has_piece = w->piece.size != 0;
		w->tries = 0;
		learn(f, w, done);
		progress(f, FILL_SECOND, f->report->second_bytes);
		return units_now_us() - w->t->asked_us >= f->opts->stall_us / 2;
	}
	if (rc == -ENOENT) {
		skip_hole(f, w);
		return units_now_us() - w->t->asked_us > f->opts->stall_us / 2;
	}
	if (rc == -EINTR) { /* a signal waits for the thread, or it was late */
		if (w->late)
			give_back(f, w);
		return true;
	}
	if ((rc == -EAGAIN || rc == -EOPNOTSUPP || rc == -EFAULT) && ++w->tries < TRIES_MAX)
		return true;
	if (!rc) /* more is left than there was: it is not the struct that we know */
		rc = -EPROTO;
	if (!f->failed)
		f->failed = err_set(f->err, rc == -EINVAL || rc == -ENOTTY ? -ENOTTY : (int)rc,
				    "second level at 0x%" PRIx64 ": %s", w->piece.gpa,
				    why_no_second_level((int)rc));
	return true;
}

static void vcpu_event(struct filler *f, struct worker *w)
{
	bool back = false;

	if (w->t->state == INJECT_GONE) {
		w->busy = false;
		if (w->has_piece)
			f->failed = f->failed ? f->failed :
				    err_set(f->err, -ESRCH, "vCPU %d: its thread has ended", w->vcpu->id);
		return;
	}
	if (w->t->state != INJECT_STOPPED)
		return;
	if (w->busy) {
		back = pre_faulted(f, w);
	} else {
		f->report->stops++;
		w->share.stops++;
	}
	if (!back && take_piece(f, w, w->chunk, HUGE_2M))
		call_pre_fault(f, w);
	else
		back_to_guest(f, w, w->tries ? 1000 : 0);
}

static bool pieces_left(const struct filler *f)
{
	struct vm_slot piece;
	size_t slot = f->slot;
	uint64_t offset = f->offset;

	return f->n_returned || vm_slots_next(f->slots, &slot, &offset, 4096, 4096, &piece);
}

static bool work_left(const struct filler *f, const struct worker *w)
{
	if (f->failed || f->report->cancelled)
		return false;
	return w->has_piece || pieces_left(f);
}

/*
 * Until a call is late, in ms; a late one is interrupted, and what it did until then counts. It may
 * never end by itself: kvm_tdp_map_page of Linux 6.12 tries again and again what cannot come
 * right before it returns: a page of a memslot whose deletion waits for the call
 * (kvm_swap_active_memslots), or any, below a root that is obsolete.
 */
static int until_late(struct filler *f, struct worker *w, uint64_t now)
{
	uint64_t late = w->call_since + 2 * f->opts->stall_us + LATE_US;

	if (now < late)
		return (int)((late - now + 999) / 1000);
	inject_interrupt(w->t, NULL);
	w->late = true;
	w->call_since = now;
	f->report->interrupted++;
	return LATE_US / 1000;
}

/*
 * Ask those out who have rested, hurry those who are late; how long until the next will be either, in
 * ms. -1: nothing is left to do.
 */
static int ask_out(struct filler *f)
{
	uint64_t now = units_now_us();
	int wait_ms = -1;

	for (size_t i = 0; i < f->n_workers; i++) {
		struct worker *w = &f->workers[i];
		int ms = 100;

		if (w->t->state == INJECT_GONE)
			continue;
		if (w->t->state == INJECT_RUNNING) {
			if (!work_left(f, w))
				continue;
			if (now >= w->rest_until)
				inject_stop(w->t, f->err);
			else
				ms = (int)((w->rest_until - now + 999) / 1000);
		} else if (w->t->state == INJECT_CALLING) {
			ms = until_late(f, w, now);
		}
		if (wait_ms < 0 || ms < wait_ms)
			wait_ms = ms;
	}
	return wait_ms;
}

static int run_vcpus(struct filler *f)
{
	int rc = 0, ms;

	while (rc >= 0 && (ms = ask_out(f)) >= 0) {
		struct inject_thread *t;
		struct worker *w;

		rc = inject_wait(f->in, ms, &t, f->err);
		w = rc > 0 ? worker_of(f, t) : NULL;
		if (w)
			vcpu_event(f, w);
		cancelled(f);
		if (f->searching && f->report->second_bytes >= f->ram_bytes) { /* all found */
			f->slot = f->slots->n;
			f->n_returned = 0;
		}
	}
	if (rc >= 0 && !f->failed && !f->report->cancelled && pieces_left(f)) /* nobody is left to do it */
		f->failed = err_set(f->err, -ESRCH, "process %d: it is gone", (int)f->pid);
	return rc < 0 ? rc : f->failed;
}

static void keep_shares(struct filler *f)
{
	f->report->shares = calloc(f->n_workers, sizeof(*f->report->shares));
	for (size_t i = 0; f->report->shares && i < f->n_workers; i++) {
		f->report->shares[i] = f->workers[i].share;
		f->report->shares[i].vcpu = f->workers[i].vcpu->id;
		f->report->n_shares++;
	}
}

static int fill_second(struct filler *f, const struct vm_slots *guest)
{
	struct vm_slot whole[2] = {{.gpa = 0, .size = 4 * GIB},
				   {.gpa = 4 * GIB, .size = f->ram_bytes}};
	struct vm_slots search = {whole, f->ram_bytes ? 2 : 1};
	uint64_t begun = units_now_us();
	int rc = attach_vcpus(f);

	if (rc)
		return rc;
	f->done_us = begun;
	f->searching = !guest;
	f->slots = guest ? guest : &search;
	f->slot = 0;
	f->offset = 0;
	f->total = guest ? vm_slots_bytes(guest, true) : f->ram_bytes;
	rc = run_vcpus(f);
	f->slots = NULL;
	f->report->second_us = units_now_us() - begun;
	keep_shares(f);
	if (rc)
		return rc;
	if (f->report->cancelled)
		return err_set(f->err, -ECANCELED, "stopped in its second phase");
	if (f->searching && f->report->second_bytes < f->ram_bytes)
		return err_set(f->err, -ENOENT, "second level: only %" PRIu64 " of %" PRIu64 " bytes of "
			       "memory were found (name the VM by qmp:PATH)",
			       f->report->second_bytes, f->ram_bytes);
	f->report->second_done = true;
	return 0;
}

int fill_run(pid_t pid, const struct kvm *kvm, const struct vm_slots *host,
	     const struct vm_slots *guest, uint64_t ram_bytes, const struct fill_options *opts,
	     const struct fill_hooks *hooks, struct fill_report *report, struct err *err)
{
	struct err own = {0};
	struct filler f = {.pid = pid, .kvm = kvm, .opts = opts, .hooks = hooks, .report = report,
			   .err = err ? err : &own, .ram_bytes = ram_bytes};
	int rc;

	memset(report, 0, sizeof(*report));
	rc = inject_open(pid, &f.in, f.err);
	if (rc)
		return rc;
	rc = fill_host(&f, host);
	if (!rc && kvm && !opts->host_only)
		rc = fill_second(&f, guest);
	if (rc)
		snprintf(report->why, sizeof(report->why), "%.150s", f.err->text);
	inject_close(f.in);
	free(f.workers);
	free(f.returned);
	return rc;
}

void fill_report_free(struct fill_report *report)
{
	free(report->shares);
	report->shares = NULL;
	report->n_shares = 0;
}
