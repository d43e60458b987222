/* SPDX-License-Identifier: MIT */
/*
 * Two Xen domains that leave: a driven pair. One engine (cump/engine.h) copies the memory of
 * both by the union's bitmaps, over the hypervisor's dirty logs, and writes two standard
 * streams, and behind each what is late for it; what is on the wire is then as with any other member.
 */
#ifdef HAVE_XEN
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"
#include "base/units.h"
#include "cump/engine.h"
#include "drivers.h"
#include "net/addr.h"
#include "pair/message.h"
#include "vm/xen.h"
#include "xen.h"
#include "xen_maps.h"
#include "xen_stream.h"

#define WAIT_ROUND_US 250000 /* while libxl builds both over there, and nothing else is left to do */
#define SUSPEND_MS 30000  /* for both guests to suspend */
#define PAGE 4096u

_Static_assert(CUMP_BATCH <= XEN_TYPES_MAX, "one question a batch");

struct xen_pair;

struct source {
	struct xen_domain d;
	enum cump_policy policy;
	bool is_vtpm, was_running;
	bool offline; /* not copied before it stands still */
	struct xen_pair *pair;
	unsigned index; /* in it: enum cump_member */
	/* its memory */
	xc_interface *xch;
	struct xen_maps maps;
	uint64_t pages;
	xc_hypercall_buffer_t log; /* one bit a page */
	size_t log_frames;
	int theirs; /* the engine's end of the stream */
	bool verify; /* compare the memory of both sides, page by page */
	struct xen_sent sent;
	char digest[65];
	/* Its stream has its head; under the pair's lock */
	int described; /* 1 yes, < 0 failed */
	struct err describe_err;
	/* A PV domain is written by libxc, once it stands still. */
	pthread_t saver;
	bool saving; /* the thread is to be joined */
	int saved;   /* 1 done, < 0 failed; under the pair's lock */
	struct err save_err;
};

/* Both members and the engine that drives them; it goes with the last of them. */
struct xen_pair {
	struct source *member[CUMP_MEMBERS];
	struct cump_engine *engine;
	struct err err; /* of the engine's thread, once it is over */
	pthread_t thread;
	bool runs;
	int ended; /* an eventfd: the engine is */
	pthread_t describer;
	bool describes;
	pthread_mutex_t lock; /* of what the describer, the stopper and the savers have done */
	pthread_cond_t told;  /* one is described; the stop is due, or done */
	bool finishing;
	/* their stop; under the lock */
	pthread_t stopper;
	bool has_stopper;
	struct xen_suspend *suspend; /* the stopper's; closed when it is joined: that takes longer than the guests' stop */
	enum stop_phase { STOP_NOT_YET, STOP_SOON, STOP_NOW, STOP_DONE, STOP_NEVER } stop_phase;
	struct err stop_err;
	int stop_rc;
	struct xen_still still[CUMP_MEMBERS];
	unsigned users;
};

/* ---- what the engine sees: a sink, two streams ---- */

/* Frames that are no more say nothing: the other side has none there either. */
static int put_pages(void *ctx, enum cump_member member, const struct cump_page *page, size_t n,
		     struct err *err)
{
	struct source *s = ((struct xen_pair *)ctx)->member[member];
	struct cump_page there[CUMP_BATCH];
	size_t kept = 0;

	for (size_t i = 0; i < n; i++)
		if (xen_page_exists(page[i].type))
			there[kept++] = page[i];
	for (size_t i = 0; s->verify && i < kept; i++)
		if (there[i].data)
			xen_sent_note(&s->sent, there[i].gfn, there[i].data);
	return kept ? xen_write_pages(s->theirs, there, kept, err) : 0;
}

static int put_state(void *ctx, enum cump_member member, enum cump_state which, const void *data, size_t n,
		     struct err *err)
{
	struct xen_pair *p = ctx;
	int rc = xen_write(p->member[member]->theirs, data, n, err);

	if (!rc && which == CUMP_TAIL)
		shutdown(p->member[member]->theirs, SHUT_WR);
	return rc;
}

static const struct cump_sink_ops engine_sink = {put_pages, put_state};

/* ---- what the engine sees: a source ---- */

static uint64_t engine_pages(void *ctx)
{
	return ((struct source *)ctx)->pages;
}

static int engine_present(void *ctx, uint64_t *there, struct err *err)
{
	struct source *s = ctx;

	return xen_frames(s->xch, s->d.domid, s->pages, there, err);
}

static int read_log(struct source *s, unsigned how, unsigned mode, uint64_t *dirty, struct err *err)
{
	if (s->offline) { /* it stood still all the time */
		memset(dirty, 0, (s->pages + 63) / 64 * 8);
		return 0;
	}
	if (xc_logdirty_control(s->xch, s->d.domid, how, &s->log, s->pages, mode, NULL) !=
	    (long long)s->pages)
		return xen_error(err, -EIO, "read dirty log of %s", s->d.name);
	memcpy(dirty, s->log.hbuf, (s->pages + 63) / 64 * 8);
	return 0;
}

static int engine_peek(void *ctx, uint64_t *dirty, struct err *err)
{
	return read_log(ctx, XEN_DOMCTL_SHADOW_OP_PEEK, 0, dirty, err);
}

static int engine_clean(void *ctx, uint64_t *dirty, bool last, struct err *err)
{
	/* At last it need not be cleared, for which Xen goes through the domain's second-level tables. */
	return last ? read_log(ctx, XEN_DOMCTL_SHADOW_OP_PEEK, XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL, dirty, err) :
		      read_log(ctx, XEN_DOMCTL_SHADOW_OP_CLEAN, 0, dirty, err);
}

static void engine_unmap(void *ctx)
{
	xen_maps_trim(&((struct source *)ctx)->maps);
}

/* Map what has content; a frame that went away between the two calls comes later, if it is there again. */
static int engine_map(void *ctx, const uint64_t *gfn, size_t n, struct cump_page *page, struct err *err)
{
	xen_pfn_t type[CUMP_BATCH], frame[CUMP_BATCH];
	int failed[CUMP_BATCH];
	struct source *s = ctx;
	size_t with = 0;
	uint8_t *at;
	int rc;

	for (size_t i = 0; i < n; i++)
		type[i] = gfn[i];
	rc = xen_page_types(s->xch, s->d.domid, type, (unsigned)n, err);
	for (size_t i = 0; !rc && i < n; i++) {
		page[i] = (struct cump_page){gfn[i], (uint32_t)type[i], NULL};
		if (xen_page_has_data((uint32_t)type[i]))
			frame[with++] = gfn[i];
	}
	if (rc || !with)
		return rc;
	at = xen_maps_add(&s->maps, PROT_READ, frame, with, failed, err);
	if (!at)
		return err ? err->code : -EIO;
	for (size_t i = 0, k = 0; i < n; i++) {
		if (!xen_page_has_data(page[i].type))
			continue;
		if (failed[k])
			page[i].type = CUMP_LATER;
		page[i].data = at + k++ * PAGE;
	}
	return 0;
}

/* The configuration goes first: a libxl stream has none. */
static int make_preface(struct source *s, struct json_object **preface, struct err *err)
{
	libxl_ctx *ctx = xen_ctx(err);
	libxl_domain_config config;
	char *text = NULL, vtpm[37] = "";
	int rc = 0;

	libxl_domain_config_init(&config);
	if (!ctx || libxl_retrieve_domain_configuration(ctx, s->d.domid, &config, NULL))
		rc = xen_error(err, -EIO, "read configuration of %s", s->d.name);
	else
		text = libxl_domain_config_to_json(ctx, &config);
	libxl_domain_config_dispose(&config);
	if (!rc && !text)
		rc = err_set(err, -EIO, "read configuration of %s: libxl cannot tell it", s->d.name);
	if (!rc)
		rc = xen_vtpm_of(ctx, s->d.domid, vtpm, err);
	if (!rc) {
		*preface = json_object_new_object();
		json_object_object_add(*preface, "config", json_tokener_parse(text));
		message_add(*preface, "vtpm", vtpm);
	}
	free(text);
	return rc;
}

/* @b, which is freed, unless to make it has failed with @rc. */
static int put_bytes(struct source *s, enum cump_state which, struct xen_bytes *b, int rc, struct err *err)
{
	int failed;

	if (!rc && !b->failed)
		rc = put_state(s->pair, s->index, which, b->data, b->size, err);
	failed = xen_bytes_free(b);
	return rc || !failed ? rc : err_set(err, failed, "write state of %s: out of memory", s->d.name);
}

static int put_head(struct source *s, struct err *err)
{
	struct json_object *preface = NULL;
	xc_interface *xch = xen_control(err);
	struct xen_bytes b = {0};
	int rc = xch ? make_preface(s, &preface, err) : -ENODEV;

	if (!rc) {
		json_object_object_add(preface, "late", json_object_new_boolean(true));
		rc = xen_put_head(&b, xch, s->d.domid, preface, err);
	}
	rc = put_bytes(s, CUMP_HEAD, &b, rc, err);
	json_object_put(preface);
	if (xch)
		xc_interface_close(xch);
	return rc;
}

/* The smaller one first, as the engine: the other's head goes out while that one's memory is on its way. */
static void *run_describer(void *ctx)
{
	struct xen_pair *p = ctx;
	unsigned first = p->member[CUMP_VTPM] && p->member[CUMP_VTPM]->pages < p->member[CUMP_VM]->pages;

	thread_batch();
	for (unsigned i = 0; i < CUMP_MEMBERS; i++) {
		struct source *s = p->member[i ^ first];
		struct err err = {0};
		int rc;

		if (!s || s->d.pv)
			continue;
		rc = put_head(s, &err);
		pthread_mutex_lock(&p->lock);
		s->describe_err = err;
		s->described = rc ? rc : 1;
		pthread_cond_broadcast(&p->told);
		pthread_mutex_unlock(&p->lock);
	}
	return NULL;
}

static int await_head(struct source *s, struct err *err)
{
	struct xen_pair *p = s->pair;
	int rc;

	pthread_mutex_lock(&p->lock);
	while (!s->described)
		pthread_cond_wait(&p->told, &p->lock);
	rc = s->described < 0 ? err_set(err, s->described, "%s", s->describe_err.text) : 0;
	pthread_mutex_unlock(&p->lock);
	return rc;
}

static int send_again(void *ctx, uint64_t gfn, const void *data, struct err *err)
{
	struct cump_page page = {gfn, XEN_DOMCTL_PFINFO_NOTAB, data};
	struct source *s = ctx;

	log_verbose("%s: frame %#llx was written, and no log tells of it: sent again", s->d.name,
		    (unsigned long long)gfn);
	return xen_write_pages(s->theirs, &page, 1, err);
}

static int engine_state(void *ctx, enum cump_state which, const struct cump_sink *sink,
			enum cump_member member, struct err *err)
{
	struct xen_bytes b = {0};
	struct source *s = ctx;
	int rc = 0;

	(void)sink, (void)member; /* it is the pair's, and knows its members */
	if (which == CUMP_HEAD)
		return await_head(s, err);
	if (which == CUMP_WHOLE) {
		rc = xen_put_end(&b, s->xch, s->d.domid, err);
	} else {
		rc = s->verify ? xen_domain_digest(&s->d, &s->sent, s->digest, err) : 0;
		if (!rc)
			rc = xen_put_late_end(&b, s->xch, s->d.domid, err);
	}
	return put_bytes(s, which, &b, rc, err);
}

static const struct cump_source_ops engine_source = {
	.pages = engine_pages,
	.present = engine_present,
	.peek = engine_peek,
	.clean = engine_clean,
	.map = engine_map,
	.unmap = engine_unmap,
	.state = engine_state,
};

/* ---- a PV domain, which libxc writes ---- */

static int stands_still(void *ctx)
{
	(void)ctx;
	return 1; /* the pair's stop has seen to it */
}

static int no_logdirty(uint32_t domid, unsigned enable, void *ctx)
{
	(void)domid, (void)enable, (void)ctx;
	return 0;
}

static int save_pv(struct source *s, struct err *err)
{
	struct save_callbacks callbacks = {.suspend = stands_still, .switch_qemu_logdirty = no_logdirty};
	struct json_object *preface = NULL;
	struct xen_bytes b = {0};
	int rc = make_preface(s, &preface, err);

	if (!rc) {
		xen_put_opening(&b, preface);
		rc = xen_write(s->theirs, b.data, b.size, err);
	}
	json_object_put(preface);
	if (xen_bytes_free(&b) && !rc)
		rc = err_set(err, -ENOMEM, "write %s: out of memory", s->d.name);
	if (!rc && xc_domain_save(s->xch, s->theirs, s->d.domid, 0, &callbacks, XC_STREAM_PLAIN, -1))
		rc = xen_error(err, -EIO, "write %s", s->d.name);
	if (!rc) {
		xen_put_closing(&b);
		rc = xen_write(s->theirs, b.data, b.size, err);
		xen_bytes_free(&b);
	}
	shutdown(s->theirs, SHUT_WR);
	return rc;
}

static void *run_saver(void *ctx)
{
	struct source *s = ctx;
	struct err err = {0};
	int rc = save_pv(s, &err);

	pthread_mutex_lock(&s->pair->lock);
	s->saved = rc ? rc : 1;
	s->save_err = err;
	pthread_mutex_unlock(&s->pair->lock);
	return NULL;
}

/* The phase that comes after @phase. */
static enum stop_phase await_stop(struct xen_pair *p, enum stop_phase phase)
{
	pthread_mutex_lock(&p->lock);
	while (p->stop_phase == phase)
		pthread_cond_wait(&p->told, &p->lock);
	phase = p->stop_phase;
	pthread_mutex_unlock(&p->lock);
	return phase;
}

/* Unless it is further already. */
static void advance_stop(struct xen_pair *p, enum stop_phase to)
{
	pthread_mutex_lock(&p->lock);
	if (p->stop_phase < to)
		p->stop_phase = to;
	pthread_cond_broadcast(&p->told);
	pthread_mutex_unlock(&p->lock);
}

static void say_stopped(struct xen_pair *p, int rc)
{
	pthread_mutex_lock(&p->lock);
	p->stop_rc = rc;
	p->stop_phase = p->stop_phase == STOP_NOW ? STOP_DONE : p->stop_phase;
	pthread_cond_broadcast(&p->told);
	pthread_mutex_unlock(&p->lock);
}

/*
 * The guests themselves must bring their devices to rest; it takes as long as it takes. All that this needs is
 * opened while they still run.
 */
static void *run_stopper(void *ctx)
{
	uint32_t domid[CUMP_MEMBERS];
	struct xen_pair *p = ctx;
	enum stop_phase phase;
	unsigned n = 0;
	int rc;

	thread_urgent();
	for (unsigned i = 0; i < CUMP_MEMBERS; i++)
		if (p->member[i])
			domid[n++] = p->member[i]->d.domid;
	rc = xen_suspend_open(domid, n, &p->suspend, &p->stop_err);
	phase = await_stop(p, STOP_NOT_YET);
	if (phase == STOP_SOON) {
		rc = rc ? rc : xen_suspend_mark(p->suspend, &p->stop_err);
		phase = await_stop(p, STOP_SOON);
	}
	if (phase == STOP_NOW) {
		if (!rc)
			rc = xen_suspend(p->suspend, p->still, SUSPEND_MS, &p->stop_err);
		say_stopped(p, rc);
	}
	return NULL;
}

/* As soon as both are known; what they are stopped for comes later. */
static int start_stopper(struct xen_pair *p, struct err *err)
{
	int rc = pthread_create(&p->stopper, NULL, run_stopper, p);

	p->has_stopper = !rc;
	return rc ? err_sys(err, -rc, "suspend pair") : 0;
}

static void join_stopper(struct xen_pair *p)
{
	if (!p->has_stopper)
		return;
	pthread_mutex_lock(&p->lock);
	if (p->stop_phase < STOP_NOW)
		p->stop_phase = STOP_NEVER;
	pthread_cond_broadcast(&p->told);
	pthread_mutex_unlock(&p->lock);
	pthread_join(p->stopper, NULL);
	p->has_stopper = false;
	xen_suspend_close(p->suspend);
	p->suspend = NULL;
}

static void *run_engine(void *ctx)
{
	struct xen_pair *p = ctx;

	thread_batch();
	cump_engine_run(p->engine, &p->err);
	eventfd_write(p->ended, 1);
	return NULL;
}

static void stop_engine(struct xen_pair *p)
{
	if (!p)
		return;
	join_stopper(p);
	if (p->runs)
		cump_engine_abort(p->engine);
	for (unsigned i = 0; i < CUMP_MEMBERS; i++)
		if (p->member[i] && (p->runs || p->member[i]->saving))
			shutdown(p->member[i]->theirs, SHUT_RDWR);
	if (p->describes)
		pthread_join(p->describer, NULL);
	p->describes = false;
	if (p->runs)
		pthread_join(p->thread, NULL);
	p->runs = false;
	for (unsigned i = 0; i < CUMP_MEMBERS; i++)
		if (p->member[i] && p->member[i]->saving) {
			pthread_join(p->member[i]->saver, NULL);
			p->member[i]->saving = false;
		}
}

/* ---- its memory ---- */

static int open_memory(struct source *s, struct err *err)
{
	xen_pfn_t pages = 0;

	if (xc_domain_nr_gpfns(s->xch, s->d.domid, &pages) < 0)
		return xen_error(err, -EIO, "ask for the memory of %s", s->d.name);
	s->pages = pages;
	s->sent = (struct xen_sent){.frames = pages, .again = send_again, .ctx = s};
	if (s->verify && !(s->sent.hash = calloc(pages, sizeof(*s->sent.hash))))
		return err_set(err, -ENOMEM, "remember what is sent of %s: out of memory", s->d.name);
	if (xen_maps_open(&s->maps, s->d.domid, err))
		return err ? err->code : -EIO;
	s->log = (xc_hypercall_buffer_t){.ubuf = (void *)-1};
	s->log_frames = (pages / 8 + PAGE) / PAGE;
	if (!xc__hypercall_buffer_alloc_pages(s->xch, &s->log, (int)s->log_frames))
		return xen_error(err, -ENOMEM, "make a dirty log for %s", s->d.name);
	return 0;
}

static void close_memory(struct source *s)
{
	xen_maps_close(&s->maps);
	if (s->log_frames)
		xc__hypercall_buffer_free_pages(s->xch, &s->log, (int)s->log_frames);
	s->log_frames = 0;
	free(s->sent.hash);
	s->sent.hash = NULL;
}

static int log_dirty(struct source *s, bool on, struct err *err)
{
	unsigned op = on ? XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY : XEN_DOMCTL_SHADOW_OP_OFF;

	if (xc_shadow_control(s->xch, s->d.domid, op, NULL, 0) < 0) {
		if (on && errno == EOPNOTSUPP)
			return err_set(err, -EOPNOTSUPP, "move %s: this Xen cannot log what a domain of its "
				       "kind writes (PV needs shadow paging)", s->d.name);
		return xen_error(err, -EIO, "%s dirty log of %s", on ? "begin" : "end", s->d.name);
	}
	return 0;
}

/* ---- the member ---- */

static void leave_pair(struct source *s)
{
	struct xen_pair *p = s->pair;

	if (!p)
		return;
	stop_engine(p);
	p->member[s->index] = NULL;
	s->pair = NULL;
	if (--p->users)
		return;
	cump_engine_free(p->engine);
	close(p->ended);
	pthread_cond_destroy(&p->told);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static void source_close(void *m)
{
	struct source *s = m;

	leave_pair(s);
	close_memory(s);
	if (s->theirs >= 0)
		close(s->theirs);
	if (s->xch)
		xc_interface_close(s->xch);
	free(s);
}

static int source_open(struct json_object *where, void **m, struct err *err)
{
	struct source *s = calloc(1, sizeof(*s));
	struct json_object *v;
	int rc;

	if (!s)
		return err_set(err, -ENOMEM, "open domain: out of memory");
	s->theirs = -1;
	s->is_vtpm = !strcmp(message_text(where, "role"), "vtpm");
	rc = xen_domain_find(message_text(where, "uuid"), &s->d, err);
	if (rc == -ESRCH) { /* destroyed, and we died before we noted it: each operation says what that means */
		snprintf(s->d.name, sizeof(s->d.name), "%s", s->d.uuid);
		rc = 0;
	}
	if (!rc && !(s->xch = xen_control(err)))
		rc = err ? err->code : -ENODEV;
	if (rc) {
		source_close(s);
		return rc;
	}
	if (cump_policy_parse(message_text(where, "policy"), &s->policy))
		s->policy = CUMP_INDEPENDENT;
	s->verify = json_object_object_get_ex(where, "verify", &v) && json_object_get_boolean(v);
	s->offline = json_object_object_get_ex(where, "offline", &v) && json_object_get_boolean(v);
	s->was_running = json_object_object_get_ex(where, "running", &v) ? json_object_get_boolean(v)
									  : xen_domain_runs(&s->d);
	*m = s;
	return 0;
}

static struct json_object *source_where(void *m)
{
	struct json_object *o = json_object_new_object();
	struct source *s = m;

	message_add(o, "role", s->is_vtpm ? "vtpm" : "vm");
	message_add(o, "uuid", s->d.uuid);
	message_add(o, "policy", cump_policy_name(s->policy));
	json_object_object_add(o, "running", json_object_new_boolean(s->was_running));
	json_object_object_add(o, "verify", json_object_new_boolean(s->verify));
	json_object_object_add(o, "offline", json_object_new_boolean(s->offline));
	return o;
}

static int source_identify(void *m, struct pair_identity *id, struct err *err)
{
	struct source *s = m;
	int rc = xen_domain_movable(&s->d, s->offline, err);

	return rc ? rc : xen_domain_identify(&s->d, s->is_vtpm, id, err);
}

static uint64_t no_pages(void *ctx)
{
	(void)ctx;
	return 0;
}

/*
 * One engine for both: the VM's operations and the vTPM's then mean their halves of it. @vtpm NULL: the
 * bench, which moves one alone to compare.
 */
static int source_join(void *vm, void *vtpm, struct err *err)
{
	static const struct cump_source_ops nothing = {.pages = no_pages};
	struct source *member[CUMP_MEMBERS] = {vm, vtpm};
	enum cump_policy policy = member[CUMP_VM]->policy;
	struct cump_source source[CUMP_MEMBERS];
	struct xen_pair *p = calloc(1, sizeof(*p));
	struct cump_sink sink = {&engine_sink, p};
	int rc = 0;

	if (!p)
		return err_set(err, -ENOMEM, "join pair: out of memory");
	for (unsigned i = 0; !rc && i < CUMP_MEMBERS; i++) {
		bool ours = member[i] && !member[i]->d.pv;

		source[i] = (struct cump_source){ours ? &engine_source : &nothing, member[i]};
		rc = ours ? open_memory(member[i], err) : 0;
		p->member[i] = member[i];
	}
	p->ended = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!rc && p->ended < 0)
		rc = err_sys(err, -errno, "join pair");
	if (!rc)
		rc = cump_engine_new(source, &sink, policy, PAIR_ROUND_US, &p->engine, err);
	if (rc) {
		if (p->ended >= 0)
			close(p->ended);
		free(p);
		return rc;
	}
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->told, NULL);
	for (unsigned i = 0; i < CUMP_MEMBERS; i++) {
		if (!member[i])
			continue;
		member[i]->pair = p;
		member[i]->index = i;
		p->users++;
	}
	return start_stopper(p, err);
}

static bool all_have_streams(const struct xen_pair *p)
{
	for (unsigned i = 0; i < CUMP_MEMBERS; i++)
		if (p->member[i] && p->member[i]->theirs < 0)
			return false;
	return true;
}

static int start_engine(struct xen_pair *p, struct err *err)
{
	int rc = pthread_create(&p->describer, NULL, run_describer, p);

	p->describes = !rc;
	if (!rc) {
		rc = pthread_create(&p->thread, NULL, run_engine, p);
		p->runs = !rc;
	}
	return rc ? err_sys(err, -rc, "start the engine") : 0;
}

/* The engine runs when both have a stream; of those that move off line, when they stand still. */
static int source_start(void *m, int *stream, struct err *err)
{
	struct source *s = m;
	struct xen_pair *p = s->pair;
	int fd[2], rc = s->offline ? 0 : log_dirty(s, true, err);

	if (rc)
		return rc;
	rc = net_pair(fd);
	if (rc)
		return err_sys(err, rc, "make a stream for %s", s->d.name);
	s->theirs = fd[0];
	*stream = fd[1];
	return s->offline || !all_have_streams(p) ? 0 : start_engine(p, err);
}

/* Before it stands still nothing is sent, so that what is reckoned ends at once. */
static int estimate_offline(struct source *s, struct pair_estimate *e, struct err *err)
{
	struct xen_pair *p = s->pair;

	e->driven = e->held = true;
	e->total_bytes = e->remaining_bytes = 0;
	e->round = 1;
	pthread_mutex_lock(&p->lock);
	e->phase = !p->finishing ? PAIR_HELD : !s->saved ? PAIR_ACTIVE : s->saved < 0 ? PAIR_FAILED
										       : PAIR_COMPLETED;
	if (e->phase == PAIR_FAILED)
		err_set(err, 0, "%s", s->save_err.text);
	pthread_mutex_unlock(&p->lock);
	return 0;
}

static int source_estimate(void *m, struct pair_estimate *e, struct err *err)
{
	struct source *s = m;
	struct cump_progress *p;
	struct cump_stats st;

	if (s->d.pv || (s->offline && !s->pair->finishing))
		return estimate_offline(s, e, err);
	cump_engine_stats(s->pair->engine, &st);
	p = &st.member[s->index];
	e->driven = true;
	e->held = st.phase == CUMP_HELD;
	e->phase = st.phase == CUMP_DONE ? PAIR_COMPLETED : st.phase == CUMP_FAILED ? PAIR_FAILED : PAIR_ACTIVE;
	e->round = st.round;
	e->round_us = st.begun_us;
	e->total_bytes = p->pages * PAGE;
	e->remaining_bytes = p->remaining * PAGE;
	e->normal_pages = p->sent - p->empty;
	e->deferred_pages = p->deferred;
	e->resent_pages = p->sent > p->pages ? p->sent - p->pages : 0;
	if (e->phase == PAIR_FAILED)
		err_set(err, 0, "%s", s->pair->err.text);
	return 0;
}

/* To build a domain takes longer than all the rest: while it still runs here. */
static bool source_built_first(void *m)
{
	return !((struct source *)m)->offline;
}

static void source_wait(void *m, bool yes)
{
	cump_engine_pace(((struct source *)m)->pair->engine, yes ? WAIT_ROUND_US : PAIR_ROUND_US);
}

static void source_hold(void *m)
{
	struct source *s = m;

	cump_engine_hold(s->pair->engine);
	advance_stop(s->pair, STOP_SOON);
}

static int source_fd(void *m)
{
	struct source *s = m;

	return s->d.pv ? -1 : s->pair->ended;
}

static void source_poll(void *m)
{
	(void)m;
}

static void source_tighten(void *m, bool tight)
{
	(void)m, (void)tight;
}

static void source_on_stop(void *m, void (*fn)(void *ctx), void *ctx)
{
	(void)m, (void)fn, (void)ctx; /* a domain does not stop by itself because of us */
}

/* The first to be told tells both. */
static int source_stop_begin(void *m, struct err *err)
{
	(void)err;
	advance_stop(((struct source *)m)->pair, STOP_NOW);
	return 0;
}

static int source_stop_end(void *m, struct pair_stop *stop, struct err *err)
{
	struct source *s = m;
	struct xen_pair *p = s->pair;
	const struct xen_still *still = &p->still[p->member[0] ? s->index : 0];

	pthread_mutex_lock(&p->lock);
	while (p->stop_phase != STOP_DONE)
		pthread_cond_wait(&p->told, &p->lock);
	pthread_mutex_unlock(&p->lock);
	*stop = (struct pair_stop){still->when_us, still->since_us};
	return p->stop_rc ? err_set(err, p->stop_rc, "%s", p->stop_err.text) : 0;
}

static bool any_is_ours(const struct xen_pair *p)
{
	for (unsigned i = 0; i < CUMP_MEMBERS; i++)
		if (p->member[i] && !p->member[i]->d.pv)
			return true;
	return false;
}

/* Of either: the engine is the same. A PV domain is written now. */
static int source_finish(void *m, struct err *err)
{
	struct source *s = m;
	struct xen_pair *p = s->pair;
	int rc = 0;

	pthread_mutex_lock(&p->lock);
	p->finishing = true;
	pthread_mutex_unlock(&p->lock);
	cump_engine_finish(p->engine);
	if (!p->runs && any_is_ours(p))
		rc = start_engine(p, err);
	if (!rc && s->d.pv && !s->saving) {
		rc = pthread_create(&s->saver, NULL, run_saver, s);
		s->saving = !rc;
		rc = rc ? err_sys(err, -rc, "write %s", s->d.name) : 0;
	}
	return rc;
}

static int source_digest(void *m, char hex[65], struct err *err)
{
	struct source *s = m;

	(void)err;
	snprintf(hex, 65, "%s", s->digest);
	return s->digest[0] ? 0 : -ENODATA;
}

/* Who was killed while the one waited for the other to suspend has left it paused (xen_suspend.c). */
static int unpause(struct source *s, libxl_ctx *ctx, struct err *err)
{
	libxl_dominfo info;
	bool paused;

	libxl_dominfo_init(&info);
	paused = !libxl_domain_info(ctx, &info, s->d.domid) && info.paused;
	libxl_dominfo_dispose(&info);
	if (s->was_running && paused && libxl_domain_unpause(ctx, s->d.domid, NULL))
		return xen_error(err, -EIO, "resume %s", s->d.name);
	return 0;
}

static int source_resume(void *m, struct err *err)
{
	struct source *s = m;
	libxl_ctx *ctx = xen_ctx(err);

	stop_engine(s->pair);
	if (!ctx)
		return err ? err->code : -ENODEV;
	log_dirty(s, false, NULL);
	xen_suspend_forget(s->xch, s->d.domid);
	if (!xen_domain_suspended(&s->d))
		return xen_domain_alive(&s->d) ? unpause(s, ctx, err)
					       : err_set(err, -ESRCH, "resume %s: it is gone", s->d.name);
	if (libxl_domain_resume(ctx, s->d.domid, 1, NULL))
		return xen_error(err, -EIO, "resume %s", s->d.name);
	return unpause(s, ctx, err);
}

static int source_release(void *m, struct json_object **receipt, struct err *err)
{
	struct source *s = m;
	int rc;

	stop_engine(s->pair);
	close_memory(s); /* it is not free before nobody has it mapped */
	rc = xen_domain_destroy(&s->d, err);
	*receipt = json_object_new_object();
	message_add(*receipt, "member", s->is_vtpm ? "vtpm" : "vm");
	message_add(*receipt, "what", "domain destroyed, its memory is freed and scrubbed");
	message_add_number(*receipt, "domid", s->d.domid);
	json_object_object_add(*receipt, "ok", json_object_new_boolean(!rc));
	return rc;
}

static bool source_runs(void *m)
{
	return xen_domain_runs(&((struct source *)m)->d);
}

const struct pair_source_ops xen_source_ops = {
	.open = source_open,
	.where = source_where,
	.identify = source_identify,
	.join = source_join,
	.start = source_start,
	.estimate = source_estimate,
	.built_first = source_built_first,
	.wait = source_wait,
	.hold = source_hold,
	.fd = source_fd,
	.poll = source_poll,
	.tighten = source_tighten,
	.on_stop = source_on_stop,
	.stop_begin = source_stop_begin,
	.stop_end = source_stop_end,
	.finish = source_finish,
	.digest = source_digest,
	.resume = source_resume,
	.release = source_release,
	.runs = source_runs,
	.close = source_close,
};
#endif
