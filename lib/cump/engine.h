/* SPDX-License-Identifier: MIT */
/*
 * The round engine: copies the memory of both members by the union's bitmaps (union.h) while they run,
 * round after round, until it is told that they stand still; then the rest. It knows a member as a
 * table of what its hypervisor can do, and the other side as a table that takes pages.
 *
 * One thread runs it. Any other may watch it and tell it what to do.
 */
#ifndef CUMP_ENGINE_H
#define CUMP_ENGINE_H

#include <pthread.h>

#include "base/err.h"
#include "cump/union.h"

#define CUMP_BATCH 1024 /* pages mapped and handed on at a time: 4 MiB */

/* One page as the sink gets it, valid until it returns. */
struct cump_page {
	uint64_t gfn;
	uint32_t type;	  /* the source's own word; the engine only passes it on */
	const void *data; /* 4096 bytes; NULL: a page without content (a hole, a broken one) */
};

/* What goes before the first page; once all pages were sent once, or all that are left; and after the last. */
enum cump_state { CUMP_HEAD, CUMP_WHOLE, CUMP_TAIL };

struct cump_sink_ops {
	/* @n pages of @member, in rising order. */
	int (*pages)(void *ctx, enum cump_member member, const struct cump_page *page, size_t n,
		     struct err *err);
	/* State that is not memory: bytes that the source made and the other side understands. */
	int (*state)(void *ctx, enum cump_member member, enum cump_state which, const void *data,
		     size_t n, struct err *err);
};

struct cump_sink {
	const struct cump_sink_ops *ops;
	void *ctx;
};

struct cump_source_ops {
	uint64_t (*pages)(void *ctx); /* gfns 0 … pages() - 1 can exist; must not grow afterwards */
	/* Which of them do, into @there (words of 64 pages, all 0 before). NULL: all. Others need not be
	 * sent unless they get dirty. */
	int (*present)(void *ctx, uint64_t *there, struct err *err);
	/* Read the dirty log into @dirty (words of 64 pages), and leave it (peek) or clear it
	 * (clean). @last: the member stands still, the log is not needed any more. */
	int (*peek)(void *ctx, uint64_t *dirty, struct err *err);
	int (*clean)(void *ctx, uint64_t *dirty, bool last, struct err *err);
	/*
	 * Make @n pages readable until unmap; @page[i] is of @gfn[i]. A page that cannot be mapped
	 * now, but may be later, gets type CUMP_LATER.
	 */
	int (*map)(void *ctx, const uint64_t *gfn, size_t n, struct cump_page *page,
		   struct err *err);
	void (*unmap)(void *ctx);
	/* Put @which into @sink, any number of pieces. NULL: there is none. */
	int (*state)(void *ctx, enum cump_state which, const struct cump_sink *sink,
		     enum cump_member member, struct err *err);
};
#define CUMP_LATER UINT32_MAX

struct cump_source {
	const struct cump_source_ops *ops;
	void *ctx;
};

enum cump_phase {
	CUMP_COPYING,	/* rounds while the members run */
	CUMP_HELD,	/* the last of these is over; they still run */
	CUMP_FINISHING, /* they stand still: the last round and the state */
	CUMP_DONE,
	CUMP_FAILED,
};

/* Of one member. */
struct cump_progress {
	uint64_t pages;	    /* in all, that there were at the beginning */
	uint64_t remaining; /* of this round, with what is deferred */
	uint64_t sent;	    /* pages, each time they were sent */
	uint64_t deferred;  /* times that a page was to be sent in a round and was not */
	uint64_t empty;	    /* sent without content */
};

struct cump_stats {
	enum cump_phase phase;
	uint64_t round;	   /* from 1 */
	uint64_t begun_us; /* CLOCK_MONOTONIC: when this round's log was read */
	struct cump_progress member[CUMP_MEMBERS];
};

struct cump_engine;

/*
 * @source and @sink must outlive the engine. -ENOMEM, -E2BIG, or what a source says.
 * @round_us: a round is not begun sooner after the one before; it spares idle members.
 */
int cump_engine_new(const struct cump_source source[CUMP_MEMBERS], const struct cump_sink *sink,
		    enum cump_policy policy, uint64_t round_us, struct cump_engine **out,
		    struct err *err);
void cump_engine_free(struct cump_engine *e); /* NULL is fine; not while it runs */

/*
 * Run to the end: 0 when all was put into the sink after cump_engine_finish(), -ECANCELED after
 * cump_engine_abort(), or the first error of a source or the sink.
 */
int cump_engine_run(struct cump_engine *e, struct err *err);

/* As @round_us of cump_engine_new; comes into effect at once. */
void cump_engine_pace(struct cump_engine *e, uint64_t round_us);
/*
 * Both members are about to stand still: no further round after this one, which would only take time from them. What is
 * left of this one would have to be sent while they stand still.
 */
void cump_engine_hold(struct cump_engine *e);
/* Both members stand still: send the rest. Comes into effect at the next batch. */
void cump_engine_finish(struct cump_engine *e);
/* Stop at the next batch. A sink that blocks is the caller's to unblock. */
void cump_engine_abort(struct cump_engine *e);

void cump_engine_stats(struct cump_engine *e, struct cump_stats *out);

#endif
