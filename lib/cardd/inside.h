/* SPDX-License-Identifier: MIT */
/* What the daemon's files know of each other. */
#ifndef CARDD_INSIDE_H
#define CARDD_INSIDE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "base/histogram.h"
#include "card/card.h"
#include "card/ring.h"
#include "cardd/cardd.h"
#include "cardd/fair.h"
#include "cardd/keep.h"
#include "card/handles.h"

#define CARDD_EVENTS 64

struct cardd_vm;
struct cardd_link;
struct cardd_job;

/* Something that epoll watches. */
struct watch {
	int fd;
	uint32_t events;
	void (*ready)(struct watch *w, uint32_t events);
	void *owner;
};

/* An open card, and how busy it is. */
struct cardd_card {
	struct card *card;
	char name[CARD_NAME_MAX + 4]; /* NAME, or NAME.N of several workers */
	struct cardd_card_conf *conf;
	struct card_info info;
	struct watch watch; /* asynchronous cards */
	uint64_t calls, bytes, errors, busy_ns;
	uint32_t pending, sessions;
	uint64_t last_done_ns, usual_ns; /* asynchronous cards: what a call usually takes */
	bool failed;
	struct cardd *d;
};

/*
 * One request on its way. Everything in it is the daemon's own copy; only @in and @out of a card
 * that answers at once may be the guest's memory.
 */
struct cardd_job {
	struct cardd *d;
	struct cardd_link *link;
	uint32_t epoch; /* of the link then: a link that began anew gets no old answers */
	struct card_request rq;
	struct card_answer an;
	struct card_call call;
	struct cardd_card *card;
	struct cardd_object *key, *object;
	uint64_t seen_ns, begun_ns, charged_ns;
	uint32_t place;	  /* the transport's: slot */
	uint8_t *shared_in, *shared_out; /* where the transport has the data, and wants it */
	bool direct;	  /* call.out is shared_out */
	bool copied;	  /* in[] holds data */
	struct cardd_job *next;
	_Alignas(64) uint8_t args[CARD_ARGS_MAX];
	_Alignas(64) uint8_t out_args[CARD_ARGS_MAX];
	_Alignas(64) uint8_t in[CARD_DATA_MAX], out[CARD_DATA_MAX];
};

/* A transport of requests. */
struct cardd_link_ops {
	const char *name;
	/* Whether a request waits that can be taken now. */
	bool (*peek)(struct cardd_link *l);
	/* Copy header and args into @job, say where data is and may go. false: nothing was there, or the
	 * link is broken. */
	bool (*take)(struct cardd_link *l, struct cardd_job *job);
	/* @job's answer: header and args from the job; data is in call.out unless job->direct. */
	void (*answer)(struct cardd_link *l, struct cardd_job *job);
	/* Answers of this turn are complete: wake the guest, write the socket. */
	void (*flush)(struct cardd_link *l);
	/* About to look away: false if something came meanwhile. NULL: epoll tells. */
	bool (*rest)(struct cardd_link *l);
	void (*free)(struct cardd_link *l); /* it is in no list any more */
	bool private_memory; /* what take() points to is the daemon's alone */
	bool polled_by_epoll; /* peek sees only what epoll brought */
};

enum { LINK_COLD, LINK_HOT, LINK_PENDING }; /* not looked at; looked at; has a request */

struct cardd_link {
	const struct cardd_link_ops *ops;
	struct cardd_vm *vm;
	struct handles handles;
	uint32_t epoch, depth;
	bool greeted, closed, dirty; /* dirty: flush is due */
	char app[CARD_NAME_MAX];
	uint8_t state;
	uint32_t hot_at; /* place in the daemon's list */
	uint64_t hot_until_ns, seen_ns;
	uint32_t inflight, sessions, objects;
	struct cardd_link *next_pending, *next_dirty;
	struct cardd_link *next; /* of the VM */
};

struct cardd_session {
	struct cardd_card *card;
	uint64_t rights[CARD_CLASSES][(CARDD_INDEX_MAX + 64) / 64]; /* RIGHT_GET, by index */
};

struct cardd_object {
	struct cardd_card *card;
	struct card_object *o;
	enum card_object_type type;
	uint32_t refs;	  /* the table's, and one of each call under way */
	uint16_t op;	  /* STREAM: the operation that began it */
};

#define HANDLE_SESSION 1 /* types in struct handles; objects: 1 + enum card_object_type */

struct cardd_use { /* of a key, for the audit log */
	uint64_t done, failed, denied;
};

struct cardd_vm {
	struct fair_member fair; /* first */
	struct cardd *d;
	struct cardd_vm_conf *conf;
	struct cardd_card *cards[CARDD_CARDS_MAX];
	uint32_t card_count;
	struct cardd_link *links, *pending_first, *pending_last;
	struct watch unix_watch, hybrid_watch;
	struct ivshmem *ivshmem;
	struct fair_bucket ops, bytes;
	uint64_t parked_until_ns; /* rate limits; 0: not parked */
	bool blocked;		  /* its cards are full */
	uint32_t link_count, streams, sessions, objects, inflight;
	uint64_t requests, errors, denied, in_bytes, out_bytes, limited, doorbells, kicks, links_ever;
	struct histogram *latency; /* ns, seen to answered */
	struct cardd_use *uses[CARD_CLASSES];
	uint32_t by_op[CARD_OP_COUNT];
	struct cardd_vm *next;
};

struct cardd {
	struct cardd_conf *conf;
	struct cardd_card cards[CARDD_CARDS_MAX];
	uint32_t card_count;
	struct cardd_vm *vms, *gone_vms; /* gone: closed, freed when nothing of them is under way */
	struct fair fair;
	int epoll, wake;
	struct epoll_event events[CARDD_EVENTS];
	int event_count;
	struct watch wake_watch, vsock_watch, control_watch;
	struct cardd_link **hot;
	uint32_t hot_count, hot_room;
	struct cardd_link *dirty, *graves;
	uint32_t hot_streams, parked;
	struct cardd_job *free_jobs;
	struct cardd_job *held; /* the job of the loop, which a card that answers at once needs one of */
	uint64_t random; /* of this run */
	uint32_t last_epoch;
	uint64_t spin_ns, now_ns, started_ns;
	uint64_t next_tick_ns;
	uint32_t async_pending;
	struct ivshmem_shared *shared;
	int audit_fd;
	bool audit_failed;
	uint32_t denied_lines, last_peer;
	struct keep keep; /* while it starts */
	bool ending;	  /* what is kept stays kept */
	volatile int stop, reload;
	cardd_load_fn load;
	void *load_ctx;
	uint64_t turns, sleeps, requests;
};

/* loop.c */
int watch_add(struct cardd *d, struct watch *w, int fd, uint32_t events,
	      void (*ready)(struct watch *, uint32_t), void *owner);
void watch_change(struct cardd *d, struct watch *w, uint32_t events);
void watch_remove(struct cardd *d, struct watch *w); /* the descriptor stays the caller's */
void link_init(struct cardd_link *l, const struct cardd_link_ops *ops, struct cardd_vm *vm);
void link_close(struct cardd_link *l);	 /* what it had goes; freed by ops->free when nobody uses it */
void link_wake(struct cardd_link *l);	 /* something came: look at it */
void link_dirty(struct cardd_link *l);
struct cardd_job *job_get(struct cardd *d);
void job_put(struct cardd *d, struct cardd_job *job);

/* cardd.c: listen, with the mode that the configuration says */
struct net_addr;
int cardd_listen(struct cardd *d, const struct net_addr *addr, struct err *err);

/* desk.c: what is done with a request */
void desk_serve(struct cardd *d, struct cardd_link *l);
void desk_reset(struct cardd_link *l); /* sessions and objects go, a new epoch begins */
void desk_card_ready(struct watch *w, uint32_t events);

/* cardd.c: whether it is there; no session is given to one that is not. */
void card_look(struct cardd_card *c);

/* serve_stream.c, serve_ring.c, ivshmem.c */
int stream_accept(struct cardd_vm *vm, int fd); /* takes @fd over */
void stream_close_all(struct cardd_vm *vm);
int ivshmem_listen(struct cardd_vm *vm, struct err *err);
void ivshmem_close(struct cardd_vm *vm);
void ivshmem_free(struct cardd_vm *vm);
int ivshmem_shared_new(struct cardd *d, struct err *err);
void ivshmem_shared_free(struct cardd *d);
void ivshmem_tick(struct cardd_vm *vm); /* the daemon lives */
struct json_object *ivshmem_stat(struct cardd_vm *vm);

/* audit.c */
int audit_open(struct cardd *d, struct err *err);
void audit_denied(struct cardd_vm *vm, const struct card_request *rq, enum card_key_class class);
void audit_flush(struct cardd *d);

#endif
