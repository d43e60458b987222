/* SPDX-License-Identifier: MIT */
#include "pair/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/sockios.h>
#include <linux/tcp.h>

#include "base/log.h"
#include "base/thread.h"
#include "base/units.h"

#define BATCH (128u << 10)	     /* one read of a member's stream */
#define OUT_HIGH (512u << 10)	     /* stop taking in while so much waits for the connection */
#define IN_HIGH (1u << 20)	     /* stop reading the connection while a member is so far behind */
#define UNSENT_LOW (256 << 10)	     /* bytes that TCP holds beyond what is on its way */
/* How wide the link is: bytes acknowledged in so much time that it was busy, and at least so many. */
#define WINDOW_US 12000
#define WINDOW_BYTES (512u << 10)
/* What packing a batch costs and spares: by so many of them, and tried again so long after. */
#define TRY_BATCHES 8
#define RETRY_US 250000
/* Packing takes processor time that the guests may want: so much of the link's time must a second of it save. */
#define PACK_GAIN 0.2
#define PACK_KEEP 0.05
#define MESSAGE_MAX (256u << 10)
#define QUEUE_MAX 64
#define PING_EVERY_US 1000000

struct lane {
	int fd; /* -1: not attached, or over */
	bool read_eof, drained, peer_end;
	bool dropped; /* data of the peer that its hypervisor did not take */
	bool deaf; /* its hypervisor reads no more: what comes for it is dropped */
	double left;
	uint64_t credit; /* bytes that may still be read while the gate is open */
	struct bytes out; /* of the peer, to be written to fd */
	struct wire_stats stats;
};

struct queue {
	struct json_object *item[QUEUE_MAX];
	unsigned head, n;
};

/* What the connection has done up to a moment. */
struct carried {
	uint64_t bytes; /* that the peer has acknowledged */
	uint64_t us;	/* spent on them */
};

/* Both measured over and over; 0: not known. */
struct pace {
	bool packing, kept;	      /* now; and not only on trial */
	uint64_t looked_us;	      /* at the link, which costs a system call */
	struct carried since;	      /* where the measurement of the link under way began */
	double link_rate;	      /* bytes/us that the link takes */
	unsigned batches;	      /* of the trial under way */
	uint64_t raw, packed, cpu_ns; /* of it: bytes in and out, processor time */
	double saved;		      /* seconds of the link, by one of packing */
	uint64_t tried_us;
};

struct wire {
	struct net_conn *conn;
	struct wire_conf conf;
	struct mux *mux;
	struct demux *demux;
	struct bytes out; /* frames for the connection */
	uint8_t *batch;
	uint64_t heard_us, pinged_us;
	bool may_pack;
	struct pace pace;
	uint64_t sent; /* bytes given to the connection */
	uint64_t behind_us;	  /* while more waited than it took */
	uint64_t behind_since_us; /* 0: nothing waits now */

	pthread_t thread;
	pthread_mutex_t lock; /* over what follows and the lanes' flags and counters */
	pthread_cond_t changed;
	int wake;  /* eventfd: the coordinator to the thread */
	int alert; /* eventfd: the thread to the coordinator */
	struct lane lane[PAIR_MEMBERS];
	struct queue in, to_send;
	struct err down; /* .code != 0: the wire is down, and why */
	bool closing;
};

static void ring(int fd)
{
	uint64_t one = 1;

	if (write(fd, &one, sizeof(one)) < 0)
		return; /* full counter: it is awake already */
}

static void quiet(int fd)
{
	uint64_t n;

	if (read(fd, &n, sizeof(n)) < 0)
		return;
}

static bool push(struct queue *q, struct json_object *item)
{
	if (q->n == QUEUE_MAX)
		return false;
	q->item[(q->head + q->n++) % QUEUE_MAX] = item;
	return true;
}

static struct json_object *pop(struct queue *q)
{
	struct json_object *item;

	if (!q->n)
		return NULL;
	item = q->item[q->head];
	q->head = (q->head + 1) % QUEUE_MAX;
	q->n--;
	return item;
}

/* ---- what the peer sent ---- */

static int on_message(void *ctx, const char *json, size_t n)
{
	struct wire *w = ctx;
	struct json_tokener *tok = json_tokener_new_ex(16);
	struct json_object *msg = NULL;
	bool ok;

	if (n <= MESSAGE_MAX && tok)
		msg = json_tokener_parse_ex(tok, json, (int)n);
	json_tokener_free(tok);
	if (!json_object_is_type(msg, json_type_object)) {
		json_object_put(msg);
		return -EPROTO;
	}
	if (log_level() >= LOG_TRACE)
		log_trace("read %s", json_object_to_json_string(msg));
	pthread_mutex_lock(&w->lock);
	ok = push(&w->in, msg);
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
	ring(w->alert);
	if (!ok)
		json_object_put(msg);
	return ok ? 0 : -EPROTO;
}

/* Straight to the member if it takes it; only what it does not take is kept. */
static int on_data(void *ctx, unsigned owner, const uint8_t *data, size_t n)
{
	struct wire *w = ctx;
	struct lane *l = &w->lane[owner];
	ssize_t done = 0;
	int rc = 0;

	pthread_mutex_lock(&w->lock);
	l->stats.raw_bytes += n;
	/* A hypervisor that has closed its end needs the rest no more; its own state tells why. */
	if (l->fd >= 0 && !l->deaf) {
		if (!bytes_size(&l->out))
			done = send(l->fd, data, n, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (done < 0)
			done = 0; /* full or gone: hand_over finds out */
		if ((size_t)done < n)
			rc = bytes_add(&l->out, data + done, n - (size_t)done);
	} else {
		l->dropped = true;
	}
	pthread_mutex_unlock(&w->lock);
	return rc;
}

static int on_end(void *ctx, unsigned owner)
{
	struct wire *w = ctx;

	pthread_mutex_lock(&w->lock);
	w->lane[owner].peer_end = true;
	pthread_mutex_unlock(&w->lock);
	return 0;
}

static const struct demux_events events = {on_message, on_data, on_end};

/* ---- the thread ---- */

static void lane_over(struct wire *w, struct lane *l)
{
	pthread_mutex_lock(&w->lock);
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
	bytes_free(&l->out);
	pthread_mutex_unlock(&w->lock);
}

/* Only writing ends: what its hypervisor sent before it closed is still to be read. */
static void lane_deaf(struct wire *w, struct lane *l)
{
	pthread_mutex_lock(&w->lock);
	l->deaf = true;
	l->dropped = l->dropped || bytes_size(&l->out);
	bytes_free(&l->out);
	pthread_mutex_unlock(&w->lock);
}

/*
 * TCP is busy neither while nothing is under way nor, here, while the peer, that reads late,
 * has no room for more (tcpi_delivery_rate is of no use: over virtual links, acknowledgements
 * come in bursts). Of what is not TCP it is known only whether more waits than it takes.
 */
static int carried_by(struct wire *w, struct carried *c)
{
	struct tcp_info ti = {0};
	socklen_t n = sizeof(ti);
	int queued;

	if (!getsockopt(net_conn_fd(w->conn), IPPROTO_TCP, TCP_INFO, &ti, &n)) {
		*c = (struct carried){ti.tcpi_bytes_acked,
				      ti.tcpi_busy_time - ti.tcpi_rwnd_limited};
		return 0;
	}
	if (ioctl(net_conn_fd(w->conn), SIOCOUTQ, &queued))
		return -errno;
	*c = (struct carried){w->sent - (uint64_t)queued, w->behind_us};
	return 0;
}

static void note_behind(struct wire *w, uint64_t now)
{
	if (w->behind_since_us)
		w->behind_us += now - w->behind_since_us;
	w->behind_since_us = bytes_size(&w->out) ? now : 0;
}

/* Slowly: after a rest a link may take a burst at many times its rate, and memory is not the same all over. */
static void blend(double *known, double seen)
{
	*known = *known > 0 ? *known + (seen - *known) / 8 : seen;
}

static void measure_link(struct wire *w)
{
	struct pace *p = &w->pace;
	struct carried now;

	if (carried_by(w, &now))
		return;
	if (now.us < p->since.us + WINDOW_US || now.bytes < p->since.bytes + WINDOW_BYTES)
		return;
	blend(&p->link_rate,
	      (double)(now.bytes - p->since.bytes) / (double)(now.us - p->since.us));
	p->since = now;
}

/* A second of packing is so many seconds of the link: much of a narrow one, little of a wide one. */
static double saved_by_packing(const struct pace *p)
{
	double link_us = (double)((int64_t)p->raw - (int64_t)p->packed) / p->link_rate;

	return link_us * 1e3 / (double)(p->cpu_ns ? p->cpu_ns : 1);
}

static void decide_packing(struct wire *w, uint64_t now)
{
	struct pace *p = &w->pace;
	bool kept = p->kept;

	if (!p->packing) {
		p->packing = p->link_rate > 0 && now - p->tried_us > RETRY_US;
		return;
	}
	if (p->batches < TRY_BATCHES)
		return;
	blend(&p->saved, saved_by_packing(p));
	p->kept = p->packing = p->saved > (kept ? PACK_KEEP : PACK_GAIN);
	p->tried_us = now;
	p->batches = 0;
	p->raw = p->packed = p->cpu_ns = 0;
	if (p->kept != kept)
		log_trace("%s: the link takes %.0f MB/s, and a second of packing saves it %.2f s",
			  p->kept ? "pack" : "no longer pack", p->link_rate, p->saved);
}

static void keep_pace(struct wire *w)
{
	uint64_t now = units_now_us();

	note_behind(w, now);
	if (now - w->pace.looked_us >= WINDOW_US) { /* it was not busy for longer than that */
		w->pace.looked_us = now;
		measure_link(w);
	}
	decide_packing(w, now);
}

static uint64_t own_cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int send_frame(struct wire *w, enum frame_type type, unsigned owner, const void *data,
		      size_t n)
{
	return mux_frame(w->mux, type, (uint8_t)owner, data, n, true, &w->out);
}

static int pack_data(struct wire *w, unsigned owner, size_t n)
{
	struct pace *p = &w->pace;
	size_t before = bytes_size(&w->out);
	uint64_t begun = own_cpu_ns();
	int rc = send_frame(w, FRAME_DATA, owner, w->batch, n);

	p->batches++;
	p->raw += n;
	p->packed += bytes_size(&w->out) - before;
	p->cpu_ns += own_cpu_ns() - begun;
	return rc;
}

/* Count what was read, and put it into a frame: packed from the batch, or where it lies. */
static int frame_data(struct wire *w, unsigned owner, size_t n, bool packing)
{
	struct lane *l = &w->lane[owner];
	size_t before = bytes_size(&w->out);
	int rc = 0;

	if (packing)
		rc = pack_data(w, owner, n);
	else
		mux_data(w->mux, (uint8_t)owner, n, &w->out);
	pthread_mutex_lock(&w->lock);
	if (l->credit != UINT64_MAX)
		l->credit -= l->credit < n ? l->credit : n;
	l->stats.raw_bytes += n;
	l->stats.wire_bytes += bytes_size(&w->out) - before;
	pthread_mutex_unlock(&w->lock);
	return rc;
}

static size_t allowance(struct wire *w, const struct lane *l)
{
	size_t most;

	pthread_mutex_lock(&w->lock);
	most = l->credit < BATCH ? (size_t)l->credit : BATCH;
	pthread_mutex_unlock(&w->lock);
	return most;
}

static int take_in(struct wire *w, unsigned owner)
{
	struct lane *l = &w->lane[owner];
	size_t most = allowance(w, l);
	bool packing = w->pace.packing;
	uint8_t *to = packing ? w->batch : mux_room(&w->out, most);
	ssize_t n;
	int rc;

	if (!most) /* parked since may_read: nothing read is not an end */
		return 0;
	if (!to)
		return -ENOMEM;
	n = read(l->fd, to, most);
	if (n > 0)
		return frame_data(w, owner, (size_t)n, packing);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	/* End of the member's stream (a reset is one too: its hypervisor tells why). */
	rc = send_frame(w, FRAME_END, owner, NULL, 0);
	pthread_mutex_lock(&w->lock);
	l->read_eof = true;
	pthread_mutex_unlock(&w->lock);
	return rc;
}

static void hand_over(struct wire *w, struct lane *l)
{
	while (bytes_size(&l->out)) {
		ssize_t n = send(l->fd, l->out.data + l->out.begin, bytes_size(&l->out), MSG_NOSIGNAL);

		if (n < 0) {
			if (errno != EAGAIN && errno != EINTR)
				lane_deaf(w, l);
			return;
		}
		pthread_mutex_lock(&w->lock);
		bytes_take(&l->out, (size_t)n);
		pthread_mutex_unlock(&w->lock);
	}
	if (l->peer_end && !l->deaf) { /* pass the end on */
		shutdown(l->fd, SHUT_WR);
		lane_deaf(w, l);
	}
}

static int queue_messages(struct wire *w)
{
	int rc = 0;

	for (;;) {
		struct json_object *msg;
		const char *text;

		pthread_mutex_lock(&w->lock);
		msg = pop(&w->to_send);
		pthread_mutex_unlock(&w->lock);
		if (!msg || rc) {
			json_object_put(msg);
			return rc;
		}
		text = json_object_to_json_string_ext(msg, JSON_C_TO_STRING_PLAIN);
		log_trace("send %s", text);
		rc = send_frame(w, FRAME_MESSAGE, FRAME_OWNER_PAIR, text, strlen(text));
		json_object_put(msg);
	}
}

static int flush_out(struct wire *w)
{
	while (bytes_size(&w->out)) {
		ssize_t n = net_conn_write(w->conn, w->out.data + w->out.begin, bytes_size(&w->out));

		if (n == -EAGAIN)
			return 0;
		if (n < 0)
			return (int)n;
		bytes_take(&w->out, (size_t)n);
		w->sent += (uint64_t)n;
	}
	return 0;
}

static bool members_behind(const struct wire *w)
{
	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		if (bytes_size(&w->lane[i].out) > IN_HIGH)
			return true;
	return false;
}

static int read_conn(struct wire *w, struct err *err)
{
	for (;;) {
		uint8_t *to;
		ssize_t n;
		int rc;

		if (members_behind(w))
			return 0;
		to = demux_room(w->demux, BATCH);
		if (!to)
			return -ENOMEM;
		n = net_conn_read(w->conn, to, BATCH);
		if (n == -EAGAIN)
			return 0;
		if (n == 0)
			return err_set(err, -ECONNRESET, "read stream: the other end closed it");
		if (n < 0)
			return err_set(err, (int)n, "read stream: %s", net_conn_why(w->conn));
		w->heard_us = units_now_us();
		rc = demux_feed(w->demux, NULL, (size_t)n, err);
		if (rc)
			return rc;
	}
}

/* Which members may be read now: credit left, not over, and the connection not behind. */
static bool may_read(struct wire *w, unsigned owner)
{
	struct lane *l = &w->lane[owner];
	bool ok;

	pthread_mutex_lock(&w->lock);
	ok = l->fd >= 0 && l->credit && !l->read_eof && bytes_size(&w->out) < OUT_HIGH;
	pthread_mutex_unlock(&w->lock);
	return ok;
}

static int keep_alive(struct wire *w, bool listening, struct err *err)
{
	uint64_t now = units_now_us();

	if (!listening)
		w->heard_us = now; /* we are the ones who do not listen */
	if (now - w->heard_us > (uint64_t)w->conf.silence_ms * 1000)
		return err_set(err, -ETIME, "read stream: nothing heard for %d s",
			       w->conf.silence_ms / 1000);
	if (now - w->pinged_us < PING_EVERY_US)
		return 0;
	w->pinged_us = now;
	return bytes_size(&w->out) < OUT_HIGH ? send_frame(w, FRAME_PING, FRAME_OWNER_PAIR, NULL, 0)
					      : 0;
}

struct round {
	struct pollfd p[2 + PAIR_MEMBERS];
	bool listening;
};

static void wait_round(struct wire *w, struct round *r)
{
	int timeout = 200;

	r->listening = !members_behind(w);
	r->p[0] = (struct pollfd){.fd = w->wake, .events = POLLIN};
	r->p[1] = (struct pollfd){.fd = net_conn_fd(w->conn),
				  .events = net_conn_events(w->conn, r->listening,
							    bytes_size(&w->out) > 0)};
	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		struct lane *l = &w->lane[i];
		short ev = (short)((may_read(w, i) ? POLLIN : 0) | (bytes_size(&l->out) ? POLLOUT : 0));

		/* Without an event wanted a hung-up socket would wake us for ever. */
		r->p[2 + i] = (struct pollfd){.fd = ev ? l->fd : -1, .events = ev};
	}
	if (r->listening && net_conn_has_buffered(w->conn))
		timeout = 0;
	poll(r->p, 2 + PAIR_MEMBERS, timeout);
	if (r->p[0].revents)
		quiet(w->wake);
}

static int one_round(struct wire *w, struct err *err)
{
	struct round r;
	unsigned first;
	int rc;

	wait_round(w, &r);
	rc = queue_messages(w);
	if (!rc && r.listening && (r.p[1].revents || net_conn_has_buffered(w->conn)))
		rc = read_conn(w, err);
	first = w->lane[1].left > w->lane[0].left;
	for (unsigned k = 0; !rc && k < PAIR_MEMBERS; k++) {
		unsigned i = k ^ first;

		if (w->lane[i].fd >= 0)
			hand_over(w, &w->lane[i]);
		if (r.p[2 + i].revents & (POLLIN | POLLHUP | POLLERR) && may_read(w, i))
			rc = take_in(w, i);
	}
	if (!rc)
		rc = keep_alive(w, r.listening, err);
	if (!rc)
		rc = flush_out(w);
	if (w->may_pack)
		keep_pace(w);
	if (rc && !err->code)
		err_set(err, rc, "write stream: %s", net_conn_why(w->conn));
	return rc;
}

/* Whether a lane is drained now that was not before: the coordinator waits for it. */
static bool note_drained(struct wire *w)
{
	bool any = false;

	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		struct lane *l = &w->lane[i];
		bool before = l->drained;

		l->drained = l->read_eof && !bytes_size(&w->out);
		any = any || (l->drained && !before);
	}
	return any;
}

static void *run(void *arg)
{
	struct wire *w = arg;
	struct err err = {0};
	int rc = 0;

	thread_batch();
	while (!rc) {
		bool done, drained;

		rc = one_round(w, &err);
		pthread_mutex_lock(&w->lock);
		done = w->closing && !w->to_send.n && !bytes_size(&w->out);
		drained = note_drained(w);
		pthread_mutex_unlock(&w->lock);
		if (drained)
			ring(w->alert);
		if (done)
			break;
	}
	pthread_mutex_lock(&w->lock);
	w->down = err;
	if (!w->down.code)
		err_set(&w->down, -EPIPE, "stream closed");
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		lane_over(w, &w->lane[i]); /* both hypervisors see the end at once */
	ring(w->alert);
	return NULL;
}

/* ---- the coordinator's side ---- */

static void destroy(struct wire *w)
{
	struct json_object *m;

	while ((m = pop(&w->in)) || (m = pop(&w->to_send)))
		json_object_put(m);
	net_conn_close(w->conn);
	mux_free(w->mux);
	demux_free(w->demux);
	bytes_free(&w->out);
	free(w->batch);
	if (w->wake >= 0)
		close(w->wake);
	if (w->alert >= 0)
		close(w->alert);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->changed);
	free(w);
}

static void init_locks(struct wire *w)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->changed, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&w->lock, NULL);
}

int wire_start(struct net_conn *conn, const struct wire_conf *conf, struct wire **out,
	       struct err *err)
{
	struct wire *w = calloc(1, sizeof(*w));
	int unsent = UNSENT_LOW;

	if (!w) {
		net_conn_close(conn);
		return err_set(err, -ENOMEM, "start stream: out of memory");
	}
	init_locks(w);
	w->conn = conn;
	w->conf = *conf;
	/* Within a host there is no link, and both ends would pack and unpack on the same processors. */
	w->may_pack = conf->compress && !net_within_host(net_conn_fd(conn));
	w->mux = mux_new(conf->zstd_level, conf->compress);
	w->demux = demux_new(&events, w);
	w->batch = malloc(BATCH);
	w->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	w->alert = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	w->heard_us = units_now_us();
	/* What waits in TCP's own queue would be in the way of the last and urgent bytes. */
	setsockopt(net_conn_fd(conn), IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		w->lane[i].fd = -1;
	if (!w->mux || !w->demux || !w->batch || w->wake < 0 || w->alert < 0 ||
	    pthread_create(&w->thread, NULL, run, w)) {
		destroy(w);
		return err_set(err, -ENOMEM, "start stream: out of memory or descriptors");
	}
	*out = w;
	return 0;
}

int wire_connect(const struct net_addr *dest, struct net_security *security, int timeout_ms,
		 const struct wire_conf *conf, struct wire **out, struct err *err)
{
	struct net_conn *conn;
	char text[300];
	int fd = net_connect(dest, timeout_ms, err), rc;

	if (fd < 0)
		return fd;
	rc = net_conn_open(security, fd, timeout_ms, &conn, err);
	if (rc)
		return rc;
	log_verbose("connected: %s", net_conn_describe(conn, text, sizeof(text)));
	return wire_start(conn, conf, out, err);
}

int wire_attach(struct wire *w, unsigned owner, int fd, uint64_t credit)
{
	struct lane *l = &w->lane[owner];

	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	pthread_mutex_lock(&w->lock);
	if (l->fd >= 0)
		close(l->fd);
	l->fd = fd;
	l->credit = credit;
	demux_allow(w->demux, owner, true);
	pthread_mutex_unlock(&w->lock);
	ring(w->wake);
	return 0;
}

void wire_gate(struct wire *w, unsigned owner, uint64_t credit)
{
	struct lane *l = &w->lane[owner];
	bool parked;

	pthread_mutex_lock(&w->lock);
	parked = !l->credit;
	l->credit = credit;
	pthread_mutex_unlock(&w->lock);
	if (parked && credit) /* else the thread waits for the member already, or sees to it when it has read */
		ring(w->wake);
}

void wire_cut(struct wire *w, unsigned owner)
{
	pthread_mutex_lock(&w->lock);
	if (w->lane[owner].fd >= 0)
		shutdown(w->lane[owner].fd, SHUT_RDWR);
	pthread_mutex_unlock(&w->lock);
	ring(w->wake);
}

void wire_share(struct wire *w, unsigned owner, double left)
{
	pthread_mutex_lock(&w->lock);
	w->lane[owner].left = left;
	pthread_mutex_unlock(&w->lock);
}

int wire_send(struct wire *w, struct json_object *message, struct err *err)
{
	int rc = 0;

	pthread_mutex_lock(&w->lock);
	if (w->down.code) {
		if (err)
			*err = w->down;
		rc = -EPIPE;
	} else if (!push(&w->to_send, message)) {
		rc = err_set(err, -ENOBUFS, "send message: the other end does not read");
	}
	pthread_mutex_unlock(&w->lock);
	if (rc)
		json_object_put(message);
	ring(w->wake);
	return rc;
}

static struct timespec deadline(int timeout_ms)
{
	uint64_t ns = units_now_ns() + (uint64_t)timeout_ms * 1000000;

	return (struct timespec){(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
}

int wire_recv(struct wire *w, int timeout_ms, struct json_object **message, struct err *err)
{
	struct timespec until = deadline(timeout_ms);
	int rc = 0;

	quiet(w->alert);
	pthread_mutex_lock(&w->lock);
	while (!w->in.n && !w->down.code && !rc)
		rc = timeout_ms ? -pthread_cond_timedwait(&w->changed, &w->lock, &until) : -ETIMEDOUT;
	*message = pop(&w->in);
	if (*message)
		rc = 0;
	else if (w->down.code) {
		if (err)
			*err = w->down;
		rc = w->down.code;
	} else {
		rc = err_set(err, -ETIMEDOUT, "wait for the other end: no answer in time");
	}
	if (w->in.n)
		ring(w->alert);
	pthread_mutex_unlock(&w->lock);
	return rc;
}

int wire_status(struct wire *w, struct err *err)
{
	int rc;

	pthread_mutex_lock(&w->lock);
	rc = w->down.code;
	if (rc && err)
		*err = w->down;
	pthread_mutex_unlock(&w->lock);
	return rc;
}

bool wire_drained(struct wire *w, unsigned owner)
{
	bool yes;

	pthread_mutex_lock(&w->lock);
	yes = w->lane[owner].drained;
	pthread_mutex_unlock(&w->lock);
	return yes;
}

bool wire_delivered(struct wire *w, unsigned owner)
{
	bool yes;

	pthread_mutex_lock(&w->lock);
	yes = w->lane[owner].peer_end && !w->lane[owner].dropped &&
	      !bytes_size(&w->lane[owner].out);
	pthread_mutex_unlock(&w->lock);
	return yes;
}

void wire_stats(struct wire *w, unsigned owner, struct wire_stats *stats)
{
	pthread_mutex_lock(&w->lock);
	*stats = w->lane[owner].stats;
	pthread_mutex_unlock(&w->lock);
}

int wire_fd(struct wire *w)
{
	return w->alert;
}

void wire_close(struct wire *w, int timeout_ms)
{
	struct timespec until = deadline(timeout_ms);
	int rc = 0;

	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->closing = true;
	ring(w->wake);
	while (!w->down.code && !rc)
		rc = pthread_cond_timedwait(&w->changed, &w->lock, &until);
	if (!w->down.code) /* the peer does not read: break the connection under the thread */
		shutdown(net_conn_fd(w->conn), SHUT_RDWR);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	destroy(w);
}
