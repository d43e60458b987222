/* SPDX-License-Identifier: MIT */
/* A run: workers on one schedule, signals, and the sum of what they saw. */
#include "vtpmtest.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <poll.h>
#include <unistd.h>

#include "base/exit.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/units.h"

#define AFTER_REFUSAL_NS 100000000u /* a TPM that refuses at once is not asked in a tight loop */
#define PROGRESS_MS 100

struct crew {
	struct vt_run run;
	struct vt_worker *workers;
	pthread_t *threads;
	uint32_t n, started;
	int signal_fd, idle_fd; /* idle_fd counts the workers that have ended */
	sigset_t blocked;
};

static void stop(struct vt_run *run)
{
	uint64_t one = 1;

	if (atomic_exchange(&run->stopping, true))
		return;
	if (write(run->stop_fd, &one, sizeof(one)) < 0)
		log_warn("stop: %s", strerror(errno));
}

static void request_stop(struct vt_run *run)
{
	atomic_store(&run->stop_ns, units_now_ns());
	stop(run);
}

static void note_answer(struct vt_run *run, uint64_t when_ns)
{
	uint64_t before = atomic_exchange_explicit(&run->answered_ns, when_ns,
						   memory_order_relaxed);
	uint64_t gap = when_ns > before ? when_ns - before : 0;
	uint64_t longest = atomic_load_explicit(&run->gap_ns, memory_order_relaxed);

	while (gap > longest && !atomic_compare_exchange_weak(&run->gap_ns, &longest, gap))
		;
}

static void account(struct vt_worker *w, struct vt_tick *t)
{
	const struct vt_config *c = w->conf;
	uint64_t took = t->answered_ns - t->begun_ns;
	char text[32];

	if (c->period_ns > 0 && (double)(t->begun_ns - t->planned_ns) >= c->period_ns)
		w->counts.late++;
	if (t->status == VT_DONE) {
		histogram_record(w->latency, t->answered_ns - t->planned_ns);
		note_answer(w->run, t->answered_ns);
		if (took >= c->stall_ns) {
			w->counts.stalls++;
			vt_report_event(w->run, t->number, "stall", "stall: answered after %s",
					units_format_duration(took / 1000, text, sizeof(text)));
		}
	}
}

/* The next tick of the common schedule; false: there is none, or it is time to stop. */
static bool next_tick(struct vt_worker *w, struct vt_tick *t)
{
	struct vt_run *run = w->run;
	const struct vt_config *c = w->conf;
	uint64_t n, end = c->duration_ns ? run->start_ns + c->duration_ns : UINT64_MAX;

	if (atomic_load_explicit(&run->stopping, memory_order_relaxed))
		return false;
	n = atomic_fetch_add_explicit(&run->next, 1, memory_order_relaxed);
	if (c->count && n >= c->count)
		return false;
	t->number = n + 1;
	if (c->period_ns > 0) {
		t->planned_ns = run->start_ns + (uint64_t)((double)n * c->period_ns);
		if (t->planned_ns >= end || !vt_sleep_until(run, t->planned_ns))
			return false;
	}
	t->begun_ns = units_now_ns();
	if (c->period_ns <= 0)
		t->planned_ns = t->begun_ns;
	return t->begun_ns < end;
}

static void *work(void *arg)
{
	struct vt_worker *w = arg;
	const struct vt_config *c = w->conf;
	struct vt_tick t = {0};

	prctl(PR_SET_TIMERSLACK, 1);
	while (next_tick(w, &t)) {
		uint64_t retries = w->counts.retries;

		t.digest_size = 0;
		t.why[0] = '\0';
		w->tick = t.number;
		w->deadline_ns = t.begun_ns + c->timeout_ns;
		w->counts.sent++;
		c->mode->tick(w, &t);
		t.retries = w->counts.retries - retries;
		account(w, &t);
		if (c->per_tick || t.status != VT_DONE)
			vt_report_tick(w->run, &t);
		if (t.status == VT_LOST && c->period_ns <= 0)
			vt_sleep_until(w->run, units_now_ns() + AFTER_REFUSAL_NS);
	}
	w->deadline_ns = units_now_ns() + c->timeout_ns;
	if (c->mode->end)
		c->mode->end(w);
	return NULL;
}

static void *work_and_tell(void *arg)
{
	struct vt_worker *w = arg;
	struct crew *crew = (struct crew *)((char *)w->run - offsetof(struct crew, run));
	uint64_t one = 1;

	work(w);
	if (write(crew->idle_fd, &one, sizeof(one)) < 0)
		log_warn("end of a worker: %s", strerror(errno));
	return NULL;
}

static int worker_init(struct vt_worker *w, struct vt_run *run)
{
	w->run = run;
	w->conf = run->conf;
	w->latency = histogram_new();
	w->data = malloc(run->conf->size);
	w->md_ctx = EVP_MD_CTX_new();
	w->md = EVP_MD_fetch(NULL, run->conf->alg->name[0] == 's' && run->conf->alg->name[1] == 'm'
					   ? "SM3"
					   : run->conf->alg->name,
			     NULL);
	if (!w->md) {
		log_error("start: this OpenSSL has no %s", run->conf->alg->name);
		return EXIT_REFUSED;
	}
	if (!w->latency || !w->data || !w->md_ctx) {
		log_error("start: %s", strerror(ENOMEM));
		return EXIT_REFUSED;
	}
	return 0;
}

static void worker_free(struct vt_worker *w)
{
	if (w->conf && w->conf->mode->free)
		w->conf->mode->free(w);
	tpm_close(w->tpm);
	histogram_free(w->latency);
	free(w->data);
	EVP_MD_CTX_free(w->md_ctx);
	EVP_MD_free(w->md);
}

/* The first opening of each connection is told at once: what is not there is refused. */
static int worker_connect(struct vt_worker *w, struct vt_config *conf)
{
	uint64_t ms = conf->timeout_ns / 1000000;
	struct err err = {0};
	int rc;

	if (tpm_open(conf->target, ms > 60000 ? 60000 : (int)ms + 1, &w->tpm, &err)) {
		log_error("%s", err.text);
		return err.code == -ETIMEDOUT ? EXIT_TIMED_OUT : EXIT_REFUSED;
	}
	rc = vt_probe(w, conf);
	if (rc)
		return rc;
	w->deadline_ns = units_now_ns() + conf->timeout_ns;
	if (conf->mode->begin(w, &err)) {
		log_error("%s", err.text);
		return err.code == -EINVAL ? EXIT_USAGE : EXIT_REFUSED;
	}
	return 0;
}

static int crew_begin(struct crew *crew, struct vt_config *conf)
{
	int rc = 0;

	sigemptyset(&crew->blocked);
	sigaddset(&crew->blocked, SIGINT);
	sigaddset(&crew->blocked, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &crew->blocked, NULL);
	crew->run.conf = conf;
	crew->run.stop_fd = eventfd(0, EFD_CLOEXEC);
	crew->idle_fd = eventfd(0, EFD_CLOEXEC);
	crew->signal_fd = signalfd(-1, &crew->blocked, SFD_CLOEXEC);
	crew->workers = calloc(conf->connections, sizeof(*crew->workers));
	crew->threads = calloc(conf->connections, sizeof(*crew->threads));
	if (crew->run.stop_fd < 0 || crew->idle_fd < 0 || crew->signal_fd < 0 ||
	    !crew->workers || !crew->threads) {
		log_error("start: %s", strerror(errno));
		return EXIT_REFUSED;
	}
	for (; !rc && crew->n < conf->connections; crew->n++) {
		struct vt_worker *w = &crew->workers[crew->n];

		rc = worker_init(w, &crew->run);
		if (!rc)
			rc = worker_connect(w, conf);
		if (rc && crew->n)
			log_error("connection %u of %u failed; an swtpm serves one at a time",
				  crew->n + 1, conf->connections);
	}
	return rc;
}

static void show_progress(struct crew *crew, struct progress *p)
{
	const struct vt_config *c = crew->run.conf;
	uint64_t next = atomic_load(&crew->run.next);
	char bar[32], took[32];

	if (c->per_tick || !progress_due(p))
		return;
	units_format_duration((units_now_ns() - crew->run.start_ns) / 1000, took, sizeof(took));
	if (c->count)
		progress_line(p, "%s %llu of %llu ticks, %s",
			      progress_bar(next, c->count, 20, bar),
			      (unsigned long long)(next < c->count ? next : c->count),
			      (unsigned long long)c->count, took);
	else
		progress_line(p, "%llu ticks, %s", (unsigned long long)next, took);
}

/* Until all workers have ended; a signal tells them to, a second one ends the process. */
static void crew_watch(struct crew *crew)
{
	struct pollfd p[] = {{.fd = crew->idle_fd, .events = POLLIN},
			     {.fd = crew->signal_fd, .events = POLLIN}};
	struct signalfd_siginfo info;
	struct progress progress;
	uint32_t ended = 0;
	uint64_t n;

	progress_begin(&progress);
	while (ended < crew->started) {
		if (poll(p, 2, crew->run.conf->per_tick ? -1 : PROGRESS_MS) < 0)
			continue;
		if (p[0].revents && read(crew->idle_fd, &n, sizeof(n)) == (ssize_t)sizeof(n))
			ended += (uint32_t)n;
		if (p[1].revents && read(crew->signal_fd, &info, sizeof(info)) > 0) {
			request_stop(&crew->run);
			pthread_sigmask(SIG_UNBLOCK, &crew->blocked, NULL);
		}
		show_progress(crew, &progress);
	}
	progress_end(&progress);
}

static void crew_run(struct crew *crew)
{
	crew->run.start_ns = units_now_ns();
	atomic_store(&crew->run.answered_ns, crew->run.start_ns);
	for (; crew->started < crew->n; crew->started++) {
		int rc = pthread_create(&crew->threads[crew->started], NULL, work_and_tell,
					&crew->workers[crew->started]);

		if (rc) {
			log_error("start a thread: %s", strerror(rc));
			request_stop(&crew->run);
			break;
		}
	}
	crew_watch(crew);
	for (uint32_t i = 0; i < crew->started; i++)
		pthread_join(crew->threads[i], NULL);
	crew->run.end_ns = units_now_ns();
}

static void add(struct vt_counts *to, const struct vt_counts *from)
{
	to->sent += from->sent;
	to->done += from->done;
	to->lost += from->lost;
	to->wrong += from->wrong;
	to->reply_lost += from->reply_lost;
	to->late += from->late;
	to->retries += from->retries;
	to->reconnects += from->reconnects;
	to->out_of_step += from->out_of_step;
	to->state_lost += from->state_lost;
	to->stalls += from->stalls;
	to->timed_out += from->timed_out;
}

/* Ticks whose whole period had passed at the end, and which were never begun. */
static uint64_t missed(const struct vt_run *run, uint64_t sent)
{
	const struct vt_config *c = run->conf;
	uint64_t end = atomic_load(&run->stop_ns) ? atomic_load(&run->stop_ns) : run->end_ns;
	double due;

	if (c->period_ns <= 0)
		return 0;
	if (c->duration_ns && end > run->start_ns + c->duration_ns)
		end = run->start_ns + c->duration_ns;
	due = (double)(end - run->start_ns) / c->period_ns;
	if (c->count && due > (double)c->count)
		due = (double)c->count;
	return due > (double)sent ? (uint64_t)due - sent : 0;
}

static int verdict(struct vt_run *run, const struct vt_counts *c)
{
	int error = atomic_load(&run->output_error);

	if (error && error != EPIPE) {
		log_error("write to standard output: %s", strerror(error));
		return EXIT_ROLLED_BACK;
	}
	if (!c->done && c->timed_out && !c->wrong)
		return EXIT_TIMED_OUT;
	return c->lost || c->wrong || c->reply_lost || c->out_of_step ? EXIT_NO : EXIT_DONE;
}

static int write_hdr(const struct histogram *h, FILE *hdr, const char *path, int status)
{
	int rc = hdr ? histogram_write_percentiles(h, 1e6, hdr) : 0;

	if (hdr && fclose(hdr) && !rc)
		rc = -errno;
	if (!rc)
		return status;
	log_error("write %s: %s", path, strerror(-rc));
	return status ? status : EXIT_ROLLED_BACK;
}

static int crew_sum(struct crew *crew, FILE *hdr, const char *hdr_path)
{
	struct histogram *sum = crew->workers[0].latency;
	struct vt_counts counts = {0};
	int status;

	for (uint32_t i = 0; i < crew->n; i++) {
		add(&counts, &crew->workers[i].counts);
		if (i)
			histogram_merge(sum, crew->workers[i].latency);
	}
	/* A silence that lasted to the end is a gap, too. */
	if (counts.lost)
		note_answer(&crew->run, crew->run.end_ns);
	counts.missed = missed(&crew->run, counts.sent);
	status = write_hdr(sum, hdr, hdr_path, verdict(&crew->run, &counts));
	vt_report_summary(&crew->run, &counts, sum, status);
	return verdict(&crew->run, &counts) == EXIT_ROLLED_BACK ? EXIT_ROLLED_BACK : status;
}

int vt_run(struct vt_config *conf, const char *hdr_path)
{
	struct crew crew = {.signal_fd = -1, .idle_fd = -1, .run.stop_fd = -1};
	FILE *hdr = NULL;
	int status;

	if (hdr_path && !(hdr = fopen(hdr_path, "we"))) {
		log_error("open %s: %s", hdr_path, strerror(errno));
		return EXIT_REFUSED;
	}
	status = crew_begin(&crew, conf);
	if (!status) {
		vt_report_config(&crew.run);
		crew_run(&crew);
		status = crew_sum(&crew, hdr, hdr_path);
		hdr = NULL;
	}
	if (hdr)
		fclose(hdr);
	for (uint32_t i = 0; i < crew.n; i++)
		worker_free(&crew.workers[i]);
	free(crew.workers);
	free(crew.threads);
	close(crew.run.stop_fd);
	close(crew.idle_fd);
	close(crew.signal_fd);
	return status;
}
