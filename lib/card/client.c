/* SPDX-License-Identifier: MIT */
/*
 * The client: requests out, answers in, and what has to be done again when a link was lost. One lock
 * over it all; of the threads that wait, one looks at the link, and wakes the others.
 */
#include "card/client.h"

#include <errno.h>
#include <glob.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "base/units.h"
#include "card/handles.h"
#include "card/way.h"

#define TIMEOUT_US 30000000u
#define SPIN_US 50u
#define PAUSES 8
#define OPEN_MS 5000
#define RETRY_FIRST_US 1000u
#define RETRY_MAX_US 250000u

static const struct card_way_ops *const card_ways[] = {&card_way_ivshmem, &card_way_vsock,
							&card_way_unix, &card_way_shm,
							&card_way_hybrid, NULL};

enum { IO_IDLE, IO_FLYING, IO_DONE, IO_AGAIN }; /* again: the link was lost under it */
enum { TYPE_SESSION = 1, TYPE_OBJECT };

/* A request that is made again on a new link, so that what it made is there again. */
struct recipe {
	struct card_request rq;
	uint8_t args[CARD_ARGS_MAX];
	struct recipe *next;
	uint32_t data_len;
	uint8_t data[];
};

struct thing { /* what a client's number stands for */
	uint32_t server; /* handle on the present link; 0: lost */
	struct recipe *recipes; /* session: rights got; key: how it was taken */
};

struct card_client {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct card_client_opts opts;
	char app[CARD_NAME_MAX], *address;
	const struct card_way_ops *ops;
	struct card_way *way; /* NULL: lost */
	struct card_hello_answer hello;
	struct handles handles;
	struct card_io **flying; /* by seq % depth */
	uint8_t *unanswered;	 /* the same: 1 */
	uint64_t next_seq, first_seq;
	uint32_t depth;
	struct card_io *again; /* to be sent on the next link */
	uint64_t retry_at_us, retry_us;
	bool looking, unpushed, closing;
	bool asleep; /* a thread uses the way without the lock */
	int lost;    /* why the way is lost; who is asleep there closes it */
	int cork_depth;
	struct err why; /* the link was lost */
	struct card_client_stat stat;
};

static void recipes_free(struct recipe *r)
{
	while (r) {
		struct recipe *next = r->next;

		OPENSSL_clear_free(r, sizeof(*r) + r->data_len);
		r = next;
	}
}

static struct recipe *recipe_new(const struct card_request *rq, const void *args, const void *data,
				 uint32_t data_len)
{
	struct recipe *r = OPENSSL_zalloc(sizeof(*r) + data_len);

	if (!r)
		return NULL;
	r->rq = *rq;
	r->data_len = r->rq.data_len = data_len;
	if (rq->args_len && args)
		memcpy(r->args, args, rq->args_len);
	if (data_len)
		memcpy(r->data, data, data_len);
	return r;
}

static void thing_free(struct thing *t)
{
	recipes_free(t->recipes);
	free(t);
}

static void drop_thing(struct card_client *c, uint32_t number, uint8_t type)
{
	struct handle_entry *e = handles_find(&c->handles, number, type);
	uint32_t place = 0, handle;

	if (!e)
		return;
	thing_free(e->thing);
	handles_remove(&c->handles, number);
	while (type == TYPE_SESSION && (e = handles_next(&c->handles, &place, &handle)))
		if (e->owner == number) {
			thing_free(e->thing);
			handles_remove(&c->handles, handle);
		}
}

static uint32_t add_thing(struct card_client *c, uint8_t type, uint32_t owner, uint32_t server)
{
	struct thing *t = calloc(1, sizeof(*t));
	uint32_t number;

	if (!t)
		return 0;
	t->server = server;
	number = handles_add(&c->handles, type, owner, t);
	if (!number)
		free(t);
	return number;
}

static struct thing *find_thing(struct card_client *c, uint32_t number, uint8_t type)
{
	struct handle_entry *e = handles_find(&c->handles, number, type);

	return e ? e->thing : NULL;
}

/* The client's numbers in @rq become the link's. -ENOENT: no such thing; -ESTALE: lost with a link. */
static int translate(struct card_client *c, struct card_request *rq)
{
	uint32_t *fields[] = {&rq->session, &rq->object, rq->key_kind == CARD_KEY_OBJECT ? &rq->key : NULL};

	for (unsigned i = 0; i < 3; i++) {
		struct thing *t;

		if (!fields[i] || !*fields[i])
			continue;
		t = find_thing(c, *fields[i], i ? TYPE_OBJECT : TYPE_SESSION);
		if (!t)
			return -ENOENT;
		if (!t->server)
			return -ESTALE;
		*fields[i] = t->server;
	}
	return 0;
}

/* What an answer made becomes the client's. */
static void note_made(struct card_client *c, struct card_io *io, uint32_t server)
{
	const struct card_request *rq = &io->rq;
	bool session = rq->op == CARD_OP_SESSION_OPEN;
	const struct card_wrap *wrap = io->args;
	struct thing *t;

	io->object = add_thing(c, session ? TYPE_SESSION : TYPE_OBJECT, rq->session, server);
	t = io->object ? find_thing(c, io->object, session ? TYPE_SESSION : TYPE_OBJECT) : NULL;
	if (!t) {
		io->status = SDR_NOBUFFER;
		return;
	}
	if (rq->op == CARD_OP_KEY_TAKE && !io->data2_len) {
		t->recipes = recipe_new(rq, io->args, io->data, rq->data_len);
	} else if (rq->op == CARD_OP_KEY_MAKE && wrap->by != CARD_WRAP_EXTERNAL) {
		struct card_request take = *rq;

		take.op = CARD_OP_KEY_TAKE;
		t->recipes = recipe_new(&take, io->args, io->out, io->out_len);
	}
}

static void note_rights(struct card_client *c, const struct card_io *io)
{
	struct thing *s = find_thing(c, io->rq.session, TYPE_SESSION);
	struct recipe **at;

	for (at = s ? &s->recipes : NULL; at && *at; at = &(*at)->next)
		if ((*at)->rq.key == io->rq.key && (*at)->rq.alg == io->rq.alg) {
			struct recipe *old = *at;

			*at = old->next;
			old->next = NULL;
			recipes_free(old);
			break;
		}
	if (s && io->rq.op == CARD_OP_RIGHT_GET) {
		struct recipe *r = recipe_new(&io->rq, NULL, io->data, io->rq.data_len);

		if (r) {
			r->next = s->recipes;
			s->recipes = r;
		}
	}
}

/* What is gone after this answer, whatever it says of the rest. */
static void note_gone(struct card_client *c, const struct card_io *io)
{
	const struct card_request *rq = &io->rq;
	bool phased = card_op_info(rq->op)->phased;

	if (rq->op == CARD_OP_SESSION_CLOSE && io->status == SDR_OK)
		drop_thing(c, rq->session, TYPE_SESSION);
	else if (rq->op == CARD_OP_DROP && io->status == SDR_OK)
		drop_thing(c, rq->object, TYPE_OBJECT);
	else if (phased && rq->object && (io->status || (rq->phase & CARD_PHASE_END)))
		drop_thing(c, rq->object, TYPE_OBJECT);
	else if (rq->op == CARD_OP_AGREE && rq->object)
		drop_thing(c, rq->object, TYPE_OBJECT);
}

static void take_answer(struct card_client *c, struct card_io *io, const struct card_reply *reply)
{
	const struct card_answer *an = &reply->an;

	io->rc = card_answer_check(an, &(struct card_request){.seq = io->seq, .op = io->rq.op,
							      .out_max = io->rq.out_max});
	io->status = io->rc ? SDR_COMMFAIL : an->status;
	io->state = IO_DONE;
	if (io->rc)
		return;
	io->card_ns = an->card_ns;
	io->queued_ns = an->queued_ns;
	io->out_args_len = an->args_len < io->out_args_cap ? an->args_len : io->out_args_cap;
	io->out_len = an->data_len;
	if (io->out_args_len)
		memcpy(io->out_args, reply->args, io->out_args_len);
	if (io->out_len)
		memcpy(io->out, reply->data, io->out_len);
	if (an->object && an->status == SDR_OK)
		note_made(c, io, an->object);
	if (an->status == SDR_OK && (io->rq.op == CARD_OP_RIGHT_GET || io->rq.op == CARD_OP_RIGHT_DROP))
		note_rights(c, io);
	note_gone(c, io);
}

/* The link is lost: what was under way is sent again, or failed. */
static void lose(struct card_client *c, int rc)
{
	struct handle_entry *e;
	uint32_t place = 0, handle;

	if (!c->way)
		return;
	if (c->asleep) {
		c->lost = rc;
		return;
	}
	c->lost = 0;
	err_sys(&c->why, rc, "link %s", c->way->text);
	c->ops->close(c->way);
	OPENSSL_clear_free(c->way, c->ops->size);
	c->way = NULL;
	for (uint32_t i = 0; i < c->depth; i++) {
		struct card_io *io = c->flying[i];

		c->flying[i] = NULL;
		if (!io)
			continue;
		if (!c->opts.no_reconnect && card_request_replays(&io->rq)) {
			io->state = IO_AGAIN;
			io->next = c->again;
			c->again = io;
			continue;
		}
		io->state = IO_DONE;
		io->rc = -ENOTCONN;
		io->status = SDR_COMMFAIL;
	}
	while ((e = handles_next(&c->handles, &place, &handle)))
		((struct thing *)e->thing)->server = 0;
	c->retry_us = RETRY_FIRST_US;
	c->retry_at_us = units_now_us();
	c->unpushed = false;
	pthread_cond_broadcast(&c->changed);
}

static int way_sleep(struct card_way *way, uint64_t timeout_us)
{
	if (way->ops->arm(way))
		way->ops->block(way, timeout_us);
	return way->ops->disarm(way);
}

/* One request alone on a new link, before anybody else gets it. */
static int exchange(struct card_client *c, struct card_way *way, struct card_request *rq,
		    const void *args, const void *data, struct card_reply *reply, struct err *err)
{
	uint64_t until = units_now_us() + (uint64_t)OPEN_MS * 1000;
	int rc;

	rq->magic = CARD_REQUEST_MAGIC;
	rq->seq = c->next_seq++;
	rq->epoch = c->hello.epoch;
	rc = way->ops->put(way, rq, args, data, rq->data_len, NULL, 0);
	if (!rc)
		rc = way->ops->push(way);
	while (!rc && !(rc = way->ops->get(way, reply))) {
		if (units_now_us() > until)
			return err_set(err, -ETIMEDOUT, "open %s: no answer", way->text);
		rc = way_sleep(way, 100000);
	}
	if (rc < 0)
		return err_set(err, rc, "open %s: the daemon cut the link (see its log)", way->text);
	way->ops->drop(way, reply);
	c->first_seq = c->next_seq;
	if (card_answer_check(&reply->an, rq))
		return err_set(err, -EPROTO, "open %s: the answer is none", way->text);
	return 0;
}

static int greet(struct card_client *c, struct card_way *way, struct err *err)
{
	struct card_request rq = {.op = CARD_OP_HELLO, .args_len = sizeof(struct card_hello)};
	struct card_hello hello = {.version_min = CARD_VERSION, .version_max = CARD_VERSION};
	struct card_reply reply;
	int rc;

	memcpy(hello.app, c->app, sizeof(hello.app));
	c->next_seq = c->first_seq = 1;
	c->hello.epoch = 0;
	rc = exchange(c, way, &rq, &hello, NULL, &reply, err);
	if (rc)
		return rc;
	if (reply.an.status)
		return err_set(err, -EPROTO, "open %s: the daemon speaks another version", way->text);
	memcpy(&c->hello, reply.args, sizeof(c->hello));
	c->hello.vm[CARD_NAME_MAX - 1] = c->hello.card[CARD_NAME_MAX - 1] = '\0';
	if (!c->hello.depth || c->hello.data_max != CARD_DATA_MAX)
		return err_set(err, -EPROTO, "open %s: limits that make no sense", way->text);
	return 0;
}

static int cook(struct card_client *c, struct card_way *way, const struct recipe *r, uint32_t session,
		uint32_t *server)
{
	struct card_request rq = r->rq;
	struct card_reply reply;

	rq.session = session;
	rq.flags = card_request_replays(&rq) ? CARD_FLAG_REPLAY : 0;
	rq.out_max = 0;
	if (exchange(c, way, &rq, r->args, r->data, &reply, NULL))
		return -ENOTCONN;
	if (!reply.an.epoch) /* the card went away again: not what it says of this recipe */
		return -EAGAIN;
	*server = reply.an.status ? 0 : reply.an.object;
	return 0;
}

/*
 * Sessions, their rights and keys, as they were. What cannot be made again stays lost. A card that is away is
 * waited for as a daemon is: -EAGAIN.
 */
static int restore(struct card_client *c, struct card_way *way)
{
	struct handle_entry *e;
	uint32_t place = 0, handle, ignored;

	while ((e = handles_next(&c->handles, &place, &handle))) {
		struct card_request rq = {.op = CARD_OP_SESSION_OPEN};
		struct thing *s = e->thing;
		struct card_reply reply;

		if (e->type != TYPE_SESSION)
			continue;
		if (exchange(c, way, &rq, NULL, NULL, &reply, NULL))
			return -ENOTCONN;
		if (reply.an.status == SDR_HARDFAIL)
			return -EAGAIN;
		s->server = reply.an.status ? 0 : reply.an.object;
		for (const struct recipe *r = s->recipes; r && s->server; r = r->next)
			if (cook(c, way, r, s->server, &ignored))
				return -ENOTCONN;
	}
	for (place = 0; (e = handles_next(&c->handles, &place, &handle));) {
		struct thing *t = e->thing, *s = find_thing(c, e->owner, TYPE_SESSION);

		if (e->type == TYPE_OBJECT && t->recipes && s && s->server &&
		    cook(c, way, t->recipes, s->server, &t->server))
			return -ENOTCONN;
	}
	return 0;
}

static int set_depth(struct card_client *c, uint32_t depth)
{
	struct card_io **flying = calloc(depth, sizeof(struct card_io *));
	uint8_t *unanswered = calloc(depth, 1);

	if (!flying || !unanswered) {
		free(flying);
		free(unanswered);
		return -ENOMEM;
	}
	free(c->flying);
	free(c->unanswered);
	c->flying = flying;
	c->unanswered = unanswered;
	c->depth = depth;
	return 0;
}

static int connect_way(struct card_client *c, int timeout_ms, struct err *err)
{
	struct card_way *way = OPENSSL_zalloc(c->ops->size);
	int rc;

	if (!way)
		return err_sys(err, -ENOMEM, "open %s", c->address);
	way->ops = c->ops;
	rc = c->ops->open(way, c->address, timeout_ms, err);
	if (rc) {
		OPENSSL_free(way);
		return rc;
	}
	rc = greet(c, way, err);
	if (!rc)
		rc = restore(c, way);
	if (!rc)
		rc = set_depth(c, way->depth < c->hello.depth ? way->depth : c->hello.depth);
	if (rc) {
		c->ops->close(way);
		OPENSSL_clear_free(way, c->ops->size);
		return rc;
	}
	c->way = way;
	return 0;
}

static bool has_link(const struct card_client *c)
{
	return c->way && !c->lost;
}

static bool has_room(const struct card_client *c)
{
	return has_link(c) && c->next_seq - c->first_seq < c->depth;
}

/* Write a request; the caller pushes. The link is there and has room. */
static int send_io(struct card_client *c, struct card_io *io, uint8_t flags)
{
	struct card_request rq = io->rq;
	uint32_t at = (uint32_t)(c->next_seq % c->depth);
	int rc = translate(c, &rq);

	if (rc)
		return rc;
	rq.magic = CARD_REQUEST_MAGIC;
	rq.seq = io->seq = c->next_seq;
	rq.epoch = c->hello.epoch;
	rq.flags |= flags;
	rc = c->ops->put(c->way, &rq, io->args, io->data, rq.data_len - io->data2_len, io->data2,
			 io->data2_len);
	if (rc)
		return rc;
	c->next_seq++;
	c->flying[at] = io;
	c->unanswered[at] = 1;
	io->state = IO_FLYING;
	c->stat.requests++;
	c->stat.bytes += rq.data_len;
	c->unpushed = true;
	return 0;
}

static void push(struct card_client *c)
{
	int rc;

	if (!c->unpushed || !has_link(c) || c->cork_depth)
		return;
	c->unpushed = false;
	rc = c->ops->push(c->way);
	if (rc)
		lose(c, rc);
}

static void send_again(struct card_client *c)
{
	while (c->again && has_room(c)) {
		struct card_io *io = c->again;
		int rc;

		c->again = io->next;
		io->next = NULL;
		rc = send_io(c, io, CARD_FLAG_REPLAY);
		if (!rc) {
			c->stat.replays++;
			continue;
		}
		io->state = IO_DONE;
		io->rc = rc == -ESTALE ? -ENOTCONN : rc;
		io->status = SDR_COMMFAIL;
	}
	push(c);
}

/* Try to have a link again, if it is time to. */
static int reconnect(struct card_client *c)
{
	uint64_t now = units_now_us();
	int rc;

	if (has_link(c))
		return 0;
	if (c->opts.no_reconnect || c->closing)
		return -ENOTCONN;
	if (c->way || now < c->retry_at_us)
		return -EAGAIN;
	rc = connect_way(c, 1000, &c->why);
	if (rc) {
		c->retry_at_us = units_now_us() + c->retry_us;
		c->retry_us = c->retry_us * 2 < RETRY_MAX_US ? c->retry_us * 2 : RETRY_MAX_US;
		return -EAGAIN;
	}
	c->stat.reconnects++;
	send_again(c);
	pthread_cond_broadcast(&c->changed);
	return 0;
}

/*
 * The answer says that the link, or the card behind it, is not what it was: the request is kept for
 * the next; once, if a card may have had it.
 */
static bool is_for_the_next(const struct card_client *c, struct card_io *io, const struct card_answer *an)
{
	bool stale = an->status == SDR_COMMFAIL && an->epoch != c->hello.epoch;
	/* another card takes over, or the same comes back with nothing of ours in it */
	bool broken = an->status == SDR_HARDFAIL && (c->hello.cards > 1 || !an->epoch);
	bool unseen = stale && !an->epoch;	  /* no card did anything for it yet */

	return io && (stale || broken) && (unseen || !io->tries++) && !c->opts.no_reconnect &&
	       card_request_replays(&io->rq);
}

/*
 * Take the answers that are there. true: something changed. Not while a thread sleeps on the link:
 * its own answer, taken by another, would not wake it.
 */
static bool collect(struct card_client *c)
{
	struct card_reply reply;
	bool any = false;
	int rc = 0;

	if (c->asleep)
		return false;
	while (has_link(c) && (rc = c->ops->get(c->way, &reply)) > 0) {
		uint32_t at = (uint32_t)(reply.seq % c->depth);
		struct card_io *io = c->flying[at];

		if (reply.seq < c->first_seq || reply.seq >= c->next_seq || !c->unanswered[at]) {
			rc = -EPROTO;
			break;
		}
		if (is_for_the_next(c, io, &reply.an)) {
			rc = -ESTALE;
			break;
		}
		c->flying[at] = NULL;
		c->unanswered[at] = 0;
		if (io)
			take_answer(c, io, &reply);
		c->ops->drop(c->way, &reply);
		while (c->first_seq < c->next_seq && !c->unanswered[c->first_seq % c->depth])
			c->first_seq++;
		any = true;
	}
	if (rc < 0)
		lose(c, rc);
	if (c->again)
		send_again(c);
	return any;
}

/* Between two looks: some 100 ns. Locking without a pause slows the daemon's CPU down by 5 %. */
static void relax(void)
{
	for (unsigned i = 0; i < PAUSES; i++)
#if defined(__x86_64__) || defined(__i386__)
		__builtin_ia32_pause();
#elif defined(__aarch64__)
		__asm__ volatile("yield");
#else
		;
#endif
}

static void wait_for_others(struct card_client *c, uint64_t until_us)
{
	struct timespec ts = {(time_t)(until_us / 1000000), (long)(until_us % 1000000) * 1000};

	pthread_cond_timedwait(&c->changed, &c->lock, &ts);
}

static void sleep_on_link(struct card_client *c, uint64_t span_us)
{
	struct card_way *way = c->way;
	int rc;

	c->looking = c->asleep = true;
	if (way->ops->arm(way)) {
		pthread_mutex_unlock(&c->lock);
		way->ops->block(way, span_us);
		pthread_mutex_lock(&c->lock);
	}
	c->asleep = false;
	rc = way->ops->disarm(way);
	if (c->lost || rc)
		lose(c, c->lost ? c->lost : rc);
	else
		collect(c);
	c->looking = false;
	pthread_cond_broadcast(&c->changed);
}

/*
 * Until something may have changed, or @until_us. The lock is held on entry and exit. Of the threads
 * that sleep one looks at the link, the others wait for it.
 */
static void wait_change(struct card_client *c, uint64_t until_us, uint64_t *spin_until_us)
{
	uint64_t now = units_now_us(), span = until_us > now ? until_us - now : 0;

	if (!has_link(c) && !c->looking && reconnect(c)) {
		if (c->retry_at_us > now && c->retry_at_us - now < span)
			span = c->retry_at_us - now;
		pthread_mutex_unlock(&c->lock);
		usleep((useconds_t)(span < RETRY_MAX_US ? span : RETRY_MAX_US));
		pthread_mutex_lock(&c->lock);
		return;
	}
	if (!*spin_until_us)
		*spin_until_us = now + c->opts.spin_us;
	if (now < *spin_until_us && has_link(c) && !c->asleep) {
		for (unsigned i = 0; i < 16; i++) {
			pthread_mutex_unlock(&c->lock);
			relax();
			pthread_mutex_lock(&c->lock);
			if (collect(c))
				return;
		}
		return;
	}
	if (c->looking)
		wait_for_others(c, until_us);
	else if (has_link(c))
		sleep_on_link(c, span);
}

static void settle(struct card_io *io, int rc, uint32_t status)
{
	io->rc = rc;
	io->status = status;
	io->state = IO_DONE;
}

static void abandon(struct card_client *c, struct card_io *io)
{
	struct card_io **at = &c->again;

	if (io->state == IO_FLYING)
		c->flying[io->seq % c->depth] = NULL;
	while (io->state == IO_AGAIN && *at && *at != io)
		at = &(*at)->next;
	if (io->state == IO_AGAIN && *at)
		*at = io->next;
	settle(io, -ETIMEDOUT, SDR_COMMFAIL);
}

static int check_io(struct card_io *io)
{
	struct card_request *rq = &io->rq;

	if (rq->data_len > CARD_DATA_MAX || io->data2_len > rq->data_len || !card_op_info(rq->op) ||
	    rq->op == CARD_OP_HELLO)
		return -EINVAL;
	if (!rq->out_max || rq->out_max > io->out_cap)
		rq->out_max = io->out_cap;
	if (rq->out_max > CARD_DATA_MAX)
		rq->out_max = CARD_DATA_MAX;
	rq->magic = CARD_REQUEST_MAGIC;
	io->rc = 0;
	io->tries = 0;
	io->object = io->out_args_len = io->out_len = 0;
	io->status = card_request_check(rq);
	return 0;
}

static int submit(struct card_client *c, struct card_io *io)
{
	int rc = check_io(io);

	if (rc || io->status) {
		io->state = IO_DONE;
		return rc;
	}
	rc = reconnect(c);
	if (!rc && !has_room(c) && !collect(c))
		rc = -EAGAIN;
	if (!rc && !has_room(c))
		rc = has_link(c) ? -EAGAIN : -ENOTCONN;
	if (rc)
		return rc;
	rc = send_io(c, io, 0);
	if (rc == -ENOENT)
		settle(io, 0, io->rq.key_kind == CARD_KEY_OBJECT || io->rq.object ? SDR_KEYNOTEXIST
									    : SDR_OPENSESSION);
	else if (rc == -ESTALE)
		settle(io, -ENOTCONN, SDR_COMMFAIL);
	else if (rc)
		lose(c, rc);
	else
		push(c);
	return rc == -ENOENT || rc == -ESTALE ? 0 : rc;
}

int card_submit(struct card_client *c, struct card_io *io)
{
	int rc;

	pthread_mutex_lock(&c->lock);
	rc = submit(c, io);
	pthread_mutex_unlock(&c->lock);
	return rc;
}

void card_cork(struct card_client *c, bool on)
{
	pthread_mutex_lock(&c->lock);
	c->cork_depth += on ? 1 : -1;
	if (!on)
		push(c);
	pthread_mutex_unlock(&c->lock);
}

int card_wait_room(struct card_client *c)
{
	uint64_t until = units_now_us() + c->opts.timeout_us, spin_until = 0;
	int rc = 0;

	pthread_mutex_lock(&c->lock);
	while (!has_room(c) && !rc) {
		if (!has_link(c) && (c->opts.no_reconnect || c->closing))
			rc = -ENOTCONN;
		else if (units_now_us() >= until)
			rc = -ETIMEDOUT;
		else if (!collect(c) && !has_room(c))
			wait_change(c, until, &spin_until);
	}
	pthread_mutex_unlock(&c->lock);
	return rc;
}

static int wait_io(struct card_client *c, struct card_io *io, uint64_t until)
{
	uint64_t spin_until = 0;

	while (io->state != IO_DONE) {
		if (collect(c) && io->state == IO_DONE)
			break;
		if (!has_link(c) && c->closing)
			abandon(c, io);
		else if (units_now_us() >= until)
			abandon(c, io);
		else
			wait_change(c, until, &spin_until);
	}
	return io->rc;
}

int card_wait(struct card_client *c, struct card_io *io)
{
	int rc;

	pthread_mutex_lock(&c->lock);
	rc = wait_io(c, io, units_now_us() + c->opts.timeout_us);
	pthread_mutex_unlock(&c->lock);
	return rc;
}

bool card_done(struct card_client *c, struct card_io *io)
{
	bool done;

	pthread_mutex_lock(&c->lock);
	if (io->state != IO_DONE)
		collect(c);
	done = io->state == IO_DONE;
	pthread_mutex_unlock(&c->lock);
	return done;
}

uint32_t card_call(struct card_client *c, struct card_io *io)
{
	uint64_t until = units_now_us() + c->opts.timeout_us, spin_until = 0;
	int rc;

	pthread_mutex_lock(&c->lock);
	while ((rc = submit(c, io)) == -EAGAIN && units_now_us() < until)
		wait_change(c, until, &spin_until);
	if (rc)
		settle(io, rc == -EAGAIN ? -ETIMEDOUT : rc, rc == -EINVAL ? SDR_INARGERR : SDR_COMMFAIL);
	else
		wait_io(c, io, until);
	pthread_mutex_unlock(&c->lock);
	return io->status;
}

uint32_t card_session_open(struct card_client *c, uint32_t *session)
{
	struct card_io io = {.rq = {.op = CARD_OP_SESSION_OPEN}};

	card_call(c, &io);
	*session = io.object;
	return io.status;
}

uint32_t card_session_close(struct card_client *c, uint32_t session)
{
	struct card_io io = {.rq = {.op = CARD_OP_SESSION_CLOSE, .session = session}};

	return card_call(c, &io);
}

/* Opening and closing. */
static const struct card_way_ops *way_by_address(const char *address)
{
	for (const struct card_way_ops *const *w = card_ways; *w; w++)
		if (!strncmp(address, (*w)->scheme, strlen((*w)->scheme)))
			return *w;
	return NULL;
}

static bool is_there(const char *pattern)
{
	glob_t g;
	bool there = !glob(pattern, 0, NULL, &g);

	if (there)
		globfree(&g);
	return there;
}

static int set_address(struct card_client *c, const char *address, struct err *err)
{
	c->ops = way_by_address(address);
	if (!c->ops)
		return err_set(err, -EINVAL, "address '%.64s': not ivshmem:, vsock:CID:PORT, unix:PATH or shm:PATH",
			       address);
	free(c->address);
	c->address = strdup(address);
	return c->address ? 0 : err_sys(err, -ENOMEM, "open %s", address);
}

/* The first way that is there and leads to a card. */
static int find_way(struct card_client *c, struct err *err)
{
	int rc = err_set(err, -ENOENT, "open: no card is shared with this machine (give an address, or set "
			 "CARDSHARE)");

	for (const struct card_way_ops *const *w = card_ways; *w && rc; w++) {
		if (!(*w)->found || !is_there((*w)->found) || set_address(c, (*w)->usual, err))
			continue;
		rc = connect_way(c, OPEN_MS, err);
	}
	return rc;
}

static uint64_t usual_spin(void)
{
	cpu_set_t cpus;

	return !sched_getaffinity(0, sizeof(cpus), &cpus) && CPU_COUNT(&cpus) > 1 ? SPIN_US : 0;
}

static struct card_client *client_new(const struct card_client_opts *opts)
{
	struct card_client *c = calloc(1, sizeof(*c));
	pthread_condattr_t attr;

	if (!c)
		return NULL;
	if (opts)
		c->opts = *opts;
	if (!c->opts.timeout_us && (!secure_getenv("CARDSHARE_TIMEOUT") ||
				    units_duration(secure_getenv("CARDSHARE_TIMEOUT"), &c->opts.timeout_us)))
		c->opts.timeout_us = TIMEOUT_US;
	if (!c->opts.spin_us)
		c->opts.spin_us = usual_spin();
	if (c->opts.no_spin)
		c->opts.spin_us = 0;
	snprintf(c->app, sizeof(c->app), "%s", opts && opts->app ? opts->app : program_invocation_short_name);
	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->changed, &attr);
	pthread_condattr_destroy(&attr);
	return c;
}

int card_client_open(const char *address, const struct card_client_opts *opts,
		     struct card_client **out, struct err *err)
{
	struct card_client *c = client_new(opts);
	int rc;

	if (!c)
		return err_sys(err, -ENOMEM, "open");
	if (!address)
		address = secure_getenv("CARDSHARE");
	if (address && *address) {
		rc = set_address(c, address, err);
		if (!rc)
			rc = connect_way(c, OPEN_MS, err);
	} else {
		rc = find_way(c, err);
	}
	if (rc) {
		card_client_close(c);
		return rc;
	}
	*out = c;
	return 0;
}

void card_client_close(struct card_client *c)
{
	struct handle_entry *e;
	uint32_t place = 0, handle;

	if (!c)
		return;
	pthread_mutex_lock(&c->lock);
	c->closing = true;
	c->opts.no_reconnect = true;
	lose(c, -ESHUTDOWN);
	while (c->looking) { /* it sees `lost`, and closes */
		lose(c, -ESHUTDOWN);
		wait_for_others(c, units_now_us() + 100000);
	}
	pthread_mutex_unlock(&c->lock);
	while ((e = handles_next(&c->handles, &place, &handle)))
		thing_free(e->thing);
	handles_free(&c->handles);
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->changed);
	free(c->flying);
	free(c->unanswered);
	free(c->address);
	free(c);
}

void card_client_hello(struct card_client *c, struct card_hello_answer *hello)
{
	pthread_mutex_lock(&c->lock);
	*hello = c->hello;
	pthread_mutex_unlock(&c->lock);
}

const char *card_client_address(const struct card_client *c)
{
	return c->address;
}

void card_client_way(struct card_client *c, char *buf, size_t size)
{
	pthread_mutex_lock(&c->lock);
	if (c->way)
		snprintf(buf, size, "%s%s%s%s", c->way->text, c->way->how[0] ? " (" : "", c->way->how,
			 c->way->how[0] ? ")" : "");
	else
		snprintf(buf, size, "%s (lost)", c->address);
	pthread_mutex_unlock(&c->lock);
}

void card_client_stat(struct card_client *c, struct card_client_stat *st)
{
	pthread_mutex_lock(&c->lock);
	*st = c->stat;
	if (c->way) {
		st->doorbells += c->way->doorbells;
		st->wakeups += c->way->wakeups;
	}
	pthread_mutex_unlock(&c->lock);
}
