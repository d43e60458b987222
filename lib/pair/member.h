/* SPDX-License-Identifier: MIT */
/*
 * What the coordinator knows of a member: two tables of operations, one for each side.
 * A driver ("qemu", "swtpm") is one file with these tables and one row in the command's
 * table; the coordinator knows no hypervisor.
 *
 * estimate, on_stop, fd, poll and tighten are called only of members that have a stream.
 * All functions return 0 or -errno with @err. resume, release and drop may be called in
 * any state and again after a crash; they do what is still to be done.
 */
#ifndef PAIR_MEMBER_H
#define PAIR_MEMBER_H

#include <stdbool.h>
#include <stdint.h>
#include <json-c/json.h>

#include "base/err.h"

enum pair_role { PAIR_VM = 0, PAIR_VTPM = 1 };

struct pair_identity {
	char uuid[37];	   /* its own; "" if it has none (a swtpm process) */
	char name[64];	   /* for people */
	char bound_to[160]; /* of the VM: the vTPM it uses: a uuid, or the path of a control socket */
	char platform[32];  /* what only the same can take: "xen 4.17"; "": no matter */
	uint64_t mem_bytes; /* RAM that the destination must have */
	uint64_t disk_bytes; /* state files that the destination must hold */
};

enum pair_phase {
	PAIR_ACTIVE,	/* its pre-copy runs */
	PAIR_HELD,	/* its guest is stopped and its pre-copy over: waits for finish() */
	PAIR_COMPLETED, /* all of it was sent */
	PAIR_FAILED,
};

#define PAIR_ROUND_US 10000 /* between the beginnings of two rounds of a driven member, at least */

struct pair_estimate {
	enum pair_phase phase;
	uint64_t total_bytes;	  /* of RAM */
	uint64_t remaining_bytes; /* not sent yet in this round */
	uint64_t round;		  /* times the dirty log was read; grows by one a pass */
	uint64_t round_us;	  /* CLOCK_MONOTONIC of the last time; 0: it is not told, about now */
	uint64_t zero_pages, normal_pages;
	uint64_t deferred_pages, resent_pages; /* of those that are driven: skipped in a round; sent again */
	bool driven; /* by us, page by page: it does not stop by itself and need not be parked */
	bool held;   /* as hold() has it: nothing more is sent while its guest runs */
};

struct pair_stop {
	uint64_t still_us; /* CLOCK_REALTIME at which its guest stood still; 0: it has none of its own */
	uint64_t since_us; /* CLOCK_MONOTONIC from which on it has served nobody; 0: from stop_begin on */
};

struct pair_source_ops {
	/* @where names it as where() does, also after a crash of ours. */
	int (*open)(struct json_object *where, void **m, struct err *err);
	/* Durable form: what open() needs to find it and what resume() must restore. Caller owns. */
	struct json_object *(*where)(void *m);
	int (*identify)(void *m, struct pair_identity *id, struct err *err);
	/*
	 * Whom to tell when its guest is stopped, by anybody. Called from within any other of
	 * these functions, perhaps while its hypervisor waits for its stream to be read.
	 */
	void (*on_stop)(void *m, void (*fn)(void *ctx), void *ctx);
	/*
	 * Of kinds that are driven as a pair: called once, of the VM with its vTPM, before start().
	 * NULL: each runs its own pre-copy.
	 */
	int (*join)(void *vm, void *vtpm, struct err *err);
	/* Begin pre-copy; *@stream is our end of its stream (caller owns), or -1 if it has none. */
	int (*start)(void *m, int *stream, struct err *err);
	int (*estimate)(void *m, struct pair_estimate *e, struct err *err);
	/* Is its guest to be stopped only when the other side has built() it? NULL: no. */
	bool (*built_first)(void *m);
	/* It would be stopped but for that: it need not do much until it is told otherwise. NULL: it is all the same. */
	void (*wait)(void *m, bool yes);
	/*
	 * Its guest is about to be stopped: the round that it is in is the last until then, and when that is over, the
	 * estimate says so. NULL: its stream is held as it is.
	 */
	void (*hold)(void *m);
	/* Readable when something happened to it; -1: nothing ever does. */
	int (*fd)(void *m);
	/* Take in what happened to it; asks nothing. */
	void (*poll)(void *m);
	/*
	 * Near the end of a pass it must not write ahead of us: with a whole small dirty set in
	 * its socket it would look at its log again, find nothing, and stop its guest.
	 */
	void (*tighten)(void *m, bool tight);
	/* Stop its guest, in two halves so that both members' stops overlap. *@stop is all 0 before. */
	int (*stop_begin)(void *m, struct err *err);
	int (*stop_end)(void *m, struct pair_stop *stop, struct err *err);
	/* Its guest stands still: send the rest, as fast as it can. */
	int (*finish)(void *m, struct err *err);
	/* Its guest runs here again as it did before. */
	int (*resume)(void *m, struct err *err);
	/*
	 * SHA-256 of its durable state while it stands still, as hex; the destination's must be
	 * the same. NULL: the kind has none; -ENODATA: not comparable (encrypted at rest).
	 */
	int (*digest)(void *m, char hex[65], struct err *err);
	/* The pair runs elsewhere: end this copy, destroy its state. *@receipt (caller owns) says what. */
	int (*release)(void *m, struct json_object **receipt, struct err *err);
	bool (*runs)(void *m); /* does its guest run here now? */
	void (*close)(void *m);
};

struct pair_sink_ops {
	/* @place: from the pair file (command, paths) or from our journal. Starts nothing. */
	int (*open)(struct json_object *place, void **m, struct err *err);
	struct json_object *(*place)(void *m); /* durable: place plus pid; caller owns */
	/* Start its process, paused and empty. */
	int (*launch)(void *m, struct err *err);
	/* -EAGAIN: not known before its stream is here; asked again then. */
	int (*identify)(void *m, struct pair_identity *id, struct err *err);
	/* Listen for its stream; *@stream is our end (caller owns), or -1. */
	int (*receive)(void *m, int *stream, struct err *err);
	/* All is done that can be before its guest is stopped. NULL: nothing takes long. */
	bool (*built)(void *m);
	/* 1: all of it is here, paused; 0: not yet; -errno: it failed or died. */
	int (*ready)(void *m, struct err *err);
	/* Readable when that has come to be, or has failed. NULL: it must be asked. */
	int (*fd)(void *m);
	int (*digest)(void *m, char hex[65], struct err *err); /* as at the source; NULL: none */
	int (*go)(void *m, struct err *err);
	/* End it and destroy what it left. */
	int (*drop)(void *m, struct json_object **receipt, struct err *err);
	bool (*alive)(void *m);
	void (*close)(void *m);
};

struct pair_driver {
	const char *kind; /* "qemu", "swtpm" */
	const struct pair_source_ops *source;
	const struct pair_sink_ops *sink;
	/* Its hypervisor lies beneath this system: the memory it takes is not this system's, and its
	 * sink's launch() tells whether there is enough, and starts nothing. */
	bool beneath;
};

#endif
