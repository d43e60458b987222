/* SPDX-License-Identifier: MIT */
/* What the files of vtpmtest share: the configuration, a run, its workers, their ticks. */
#ifndef VTPMTEST_H
#define VTPMTEST_H

#include <openssl/evp.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/histogram.h"
#include "tpm/tpm.h"

#define VT_SIZE_MAX (1u << 20)
#define VT_LENGTH_MAX 100000u
#define VT_RECENT 64 /* digests remembered, to tell whose a wrong one is */

struct vt_worker;
struct vt_tick;

enum vt_format { VT_TEXT, VT_JSON, VT_PAPER };

/* What a tick is made of; each tick() leaves its status, and its digest if it has one. */
struct vt_mode {
	const char *name;
	uint32_t default_size;
	int (*begin)(struct vt_worker *w, struct err *err);
	void (*tick)(struct vt_worker *w, struct vt_tick *t);
	void (*end)(struct vt_worker *w); /* settle what is open; NULL: nothing is */
	void (*free)(struct vt_worker *w);
};
extern const struct vt_mode vt_mode_hash, vt_mode_sequence, vt_mode_pcr;

struct vt_config {
	const char *target;
	const struct vt_mode *mode;
	const struct tpm_alg *alg;
	enum tpm_family family;
	enum vt_format format;
	bool per_tick; /* a record a tick, not only the summary */
	bool startup;
	uint32_t connections, pcr, length;
	uint32_t buffer_max; /* bytes of data that one command may carry */
	uint32_t manufacturer;
	uint64_t size, count, seed;
	double period_ns; /* 0: closed loop */
	uint64_t duration_ns, timeout_ns, stall_ns;
};

struct vt_counts {
	uint64_t sent, done, lost, wrong, reply_lost, late, missed;
	uint64_t retries, reconnects, out_of_step, state_lost, stalls, timed_out;
};

enum vt_status {
	VT_DONE,
	VT_LOST,	/* never answered, or refused */
	VT_WRONG,	/* answered, and the answer is not right */
	VT_REPLY_LOST,	/* not answered, but it is known to have been executed */
	VT_UNSETTLED,	/* not answered; the sequence's final digest will tell */
};

struct vt_tick {
	uint64_t number; /* from 1 */
	uint64_t planned_ns, begun_ns, answered_ns;
	enum vt_status status;
	uint8_t digest[TPM_DIGEST_MAX];
	size_t digest_size; /* 0: this tick has none */
	uint64_t retries;
	char why[200];
};

struct vt_run {
	const struct vt_config *conf;
	uint64_t start_ns, end_ns;
	int stop_fd; /* readable once it is time to stop */
	atomic_bool stopping;
	atomic_uint_fast64_t stop_ns; /* when; calls in flight have a grace from here */
	atomic_uint_fast64_t next;    /* tick to hand out, from 0 */
	atomic_uint_fast64_t answered_ns, gap_ns;
	atomic_int output_error; /* errno of standard output */
};

struct vt_recent {
	uint64_t tick;
	uint8_t digest[TPM_DIGEST_MAX];
};

struct vt_worker {
	struct vt_run *run;
	const struct vt_config *conf;
	struct tpm *tpm; /* NULL: to be opened again */
	struct vt_counts counts;
	struct histogram *latency;
	uint64_t deadline_ns; /* of the tick's calls */
	uint64_t tick;	      /* its number */
	char why[200];	      /* of the last call that failed */
	void (*meanwhile)(struct vt_worker *w); /* run once while the TPM is at work */
	uint8_t *data;	      /* conf->size bytes */
	uint8_t expected[TPM_DIGEST_MAX];
	EVP_MD *md;
	EVP_MD_CTX *md_ctx;
	struct vt_recent recent[VT_RECENT];
	unsigned recent_next;
	void *state; /* the mode's own */
	uint8_t cmd[TPM_BUF_MAX], rsp[TPM_BUF_MAX];
};

/* --- link.c: one connection, its errors, its second tries --- */

enum vt_reply {
	VT_ANSWERED,
	VT_REFUSED,    /* the TPM's own code says no: it was not executed */
	VT_UNSENT,     /* it did not get out: it was not executed */
	VT_UNANSWERED, /* it may have been executed */
	VT_GARBLED,    /* something else came back */
};

/* Until w->deadline_ns; a call that is not @repeatable is never sent twice unless it is
 * known not to have been executed. w->why says what failed. */
enum vt_reply vt_call(struct vt_worker *w, const struct tpm_request *rq, struct tpm_answer *a,
		      bool repeatable);
void vt_disconnect(struct vt_worker *w);
bool vt_time_is_left(const struct vt_worker *w);
bool vt_sleep_until(struct vt_run *run, uint64_t when_ns); /* false: it is time to stop */

/* --- probe.c: what the TPM is --- */

/* Fill in conf->family, buffer_max, manufacturer; an exit status, EXIT_DONE if all is there. */
int vt_probe(struct vt_worker *w, struct vt_config *conf);

/* --- data.c: what is hashed, and what must come out --- */

void vt_fill(uint64_t seed, uint64_t tick, uint8_t *data, size_t n);
void vt_digest_begin(struct vt_worker *w);
void vt_digest_add(struct vt_worker *w, const void *data, size_t n);
void vt_digest_end(struct vt_worker *w, uint8_t *digest);
bool vt_digest_is(const struct vt_worker *w, const uint8_t *a, const uint8_t *b);
void vt_remember(struct vt_worker *w, uint64_t tick, const uint8_t *digest);
/* The tick that had this digest before, or 0. */
uint64_t vt_recall(const struct vt_worker *w, const uint8_t *digest);

/* --- sequence.c: a hash sequence (2.0) or the SHA1 thread (1.2), piece by piece --- */

enum vt_reply vt_seq_start(struct vt_worker *w, uint32_t *handle);
enum vt_reply vt_seq_update(struct vt_worker *w, uint32_t handle, const uint8_t *data, size_t n,
			    struct tpm_answer *a);
enum vt_reply vt_seq_complete(struct vt_worker *w, uint32_t handle, const uint8_t *data,
			      size_t n, struct tpm_answer *a);
void vt_seq_flush(struct vt_worker *w, uint32_t handle);
size_t vt_seq_piece(const struct vt_worker *w); /* bytes of one update */

/* --- tick.c: how a tick ends --- */

void vt_tick_done(struct vt_worker *w, struct vt_tick *t, const uint8_t *digest, size_t n);
void vt_tick_failed(struct vt_worker *w, struct vt_tick *t, enum vt_reply reply);
void vt_tick_wrong(struct vt_worker *w, struct vt_tick *t, const uint8_t *digest,
		   const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* --- run.c, report.c --- */

int vt_run(struct vt_config *conf, const char *hdr_path); /* exit status */

void vt_report_config(struct vt_run *run);
void vt_report_tick(struct vt_run *run, const struct vt_tick *t);
/* Something that is no tick: a reconnection, a stall, a tick settled later. */
void vt_report_event(struct vt_run *run, uint64_t tick, const char *kind, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
void vt_report_summary(struct vt_run *run, const struct vt_counts *c, const struct histogram *h,
		       int status);

#endif
