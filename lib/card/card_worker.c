/* SPDX-License-Identifier: MIT */
/* The daemon's side of a card in a process of its own: start it, ask it, watch its deadline, start it again. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/units.h"
#include "card/worker.h"

#define AGAIN_NS UINT64_C(2000000000) /* between the end of a worker and the start of the next */
#define END_MS 1000		      /* so long a worker may take to end by itself */

extern char **environ;

enum worker_state {
	DOWN,	  /* there is none, or what is left of one */
	STARTING, /* it has not said READY */
	RUNNING,
};

/* An object of a worker is gone with it: @life tells which one's it was. */
struct card_object {
	uint32_t number, life;
};

struct asked {
	struct card_call *call;
	uint64_t since_ns;
};

struct worker {
	struct card card; /* first */
	char name[CARD_NAME_MAX + 4], spec[128], store[108], store_key[108];
	struct worker_memory *memory;
	int memory_fd, socket, timer, epoll;
	enum worker_state state;
	pid_t pid; /* not yet waited for; 0: none */
	uint32_t life;
	uint64_t timeout_ns, again_ns, deadline_ns; /* deadline: what the timer is set to, 0: not set */
	uint64_t last_done_ns;
	struct asked asked[WORKER_SLOTS]; /* slot by slot, first in, first out */
	unsigned first, count;
	bool guilty; /* the first of them was under way when the worker ended */
	uint32_t *drops; /* numbers that the socket had no room for */
	size_t drop_count, drop_room;
	struct card_info info;
};

static void set_timer(struct worker *w, uint64_t at_ns)
{
	struct itimerspec when = {.it_value = {(time_t)(at_ns / 1000000000u), (long)(at_ns % 1000000000u)}};

	w->deadline_ns = at_ns;
	(void)timerfd_settime(w->timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static void reap_process(struct worker *w)
{
	if (w->pid && waitpid(w->pid, NULL, WNOHANG))
		w->pid = 0;
}

/* Its end, whoever caused it. What it was asked is answered by reap. */
static void down(struct worker *w, const char *why)
{
	if (w->state == DOWN)
		return;
	log_error("card %s: its worker %s: calls under way fail, another is started", w->name, why);
	w->state = DOWN;
	kill(w->pid, SIGKILL); /* not waited for yet: it is no other's number */
	reap_process(w);
	close(w->socket); /* leaves epoll by it */
	w->socket = -1;
	w->drop_count = 0;
	w->guilty = w->count;
	w->again_ns = units_now_ns() + AGAIN_NS;
	set_timer(w, 0);
}

/* Descriptors of the worker's numbers would be in each other's way. */
static int above(int fd)
{
	int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, WORKER_MEMORY + 1);

	if (fd >= 0)
		close(fd);
	return high;
}

static int spawn(struct worker *w, int socket)
{
	char program[] = "cardshare", verb[] = "card-worker";
	char *argv[] = {program, verb, w->name, w->spec, w->store[0] ? w->store : NULL,
			w->store_key[0] ? w->store_key : NULL, NULL};
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none;
	int rc;

	posix_spawn_file_actions_init(&files);
	posix_spawnattr_init(&attr);
	sigemptyset(&none);
	/* Ctrl-C is for the daemon: a worker ends when it did. */
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
	posix_spawnattr_setsigmask(&attr, &none);
	rc = posix_spawn_file_actions_adddup2(&files, socket, WORKER_SOCKET);
	if (!rc)
		rc = posix_spawn_file_actions_adddup2(&files, w->memory_fd, WORKER_MEMORY);
	if (!rc)
		rc = posix_spawn(&w->pid, "/proc/self/exe", &files, &attr, argv, environ);
	if (rc)
		w->pid = 0;
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	return -rc;
}

static int start(struct worker *w)
{
	int sv[2] = {-1, -1}, rc;
	struct epoll_event ev = {.events = EPOLLIN};

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv))
		return -errno;
	w->socket = above(sv[0]);
	sv[1] = above(sv[1]);
	rc = w->socket < 0 || sv[1] < 0 || epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->socket, &ev) ? -errno : spawn(w, sv[1]);
	if (sv[1] >= 0)
		close(sv[1]);
	if (rc) {
		close(w->socket);
		w->socket = -1;
		w->again_ns = units_now_ns() + AGAIN_NS;
		return rc;
	}
	w->life++;
	w->state = STARTING;
	set_timer(w, units_now_ns() + w->timeout_ns);
	return 0;
}

static bool send_message(struct worker *w, enum worker_message_kind kind, uint32_t number)
{
	struct worker_message m = {kind, number};

	return send(w->socket, &m, sizeof(m), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(m);
}

static void send_drops(struct worker *w)
{
	while (w->drop_count && send_message(w, WORKER_DROP, w->drops[w->drop_count - 1]))
		w->drop_count--;
}

static void keep_drop(struct worker *w, uint32_t number)
{
	if (w->drop_count == w->drop_room) {
		size_t room = w->drop_room ? 2 * w->drop_room : 64;
		uint32_t *drops = realloc(w->drops, room * sizeof(*drops));

		if (!drops)
			return; /* the worker keeps it until it ends */
		w->drops = drops;
		w->drop_room = room;
	}
	w->drops[w->drop_count++] = number;
}

static void worker_release(struct card *card, enum card_object_type type, struct card_object *o)
{
	struct worker *w = (struct worker *)card;

	(void)type;
	if (w->state == RUNNING && o->life == w->life) {
		keep_drop(w, o->number);
		send_drops(w);
	}
	free(o);
}

static bool alive(const struct worker *w, const struct card_object *o)
{
	return !o || o->life == w->life;
}

static uint32_t worker_run(struct card *card, struct card_call *call)
{
	struct worker *w = (struct worker *)card;
	unsigned at = (w->first + w->count) % WORKER_SLOTS;
	struct worker_slot *slot = &w->memory->slots[at];
	struct worker_ask *ask = &slot->ask;

	if (w->state != RUNNING || w->count == WORKER_SLOTS || !alive(w, call->key) || !alive(w, call->object))
		return CARD_NOT_BEGUN;
	*ask = (struct worker_ask){.rq = *call->rq, .key_rights = call->key_rights, .in_len = call->in_len,
				   .out_cap = call->out_cap, .has_name = call->key_name, .right_got = call->right_got,
				   .key = call->key ? call->key->number : 0,
				   .object = call->object ? call->object->number : 0};
	snprintf(ask->vm, sizeof(ask->vm), "%s", call->vm);
	snprintf(ask->key_name, sizeof(ask->key_name), "%s", call->key_name ? call->key_name : "");
	memcpy(slot->args, call->args, call->rq->args_len);
	memcpy(slot->in, call->in, call->in_len);
	send_drops(w);
	if (w->drop_count || !send_message(w, WORKER_CALL, at))
		return CARD_NOT_BEGUN;
	w->asked[at] = (struct asked){call, units_now_ns()};
	if (!w->count++ && !w->deadline_ns)
		set_timer(w, w->asked[at].since_ns + w->timeout_ns);
	return CARD_PENDING;
}

static struct card_call *take_first(struct worker *w)
{
	struct card_call *call = w->asked[w->first].call;

	w->first = (w->first + 1) % WORKER_SLOTS;
	w->count--;
	return call;
}

/* The worker's answer, as far as it can be one. */
static bool take_answer(struct worker *w, unsigned at, uint32_t *status)
{
	struct worker_slot *slot = &w->memory->slots[at];
	struct card_call *call = w->asked[at].call;
	struct worker_answer a = slot->answer; /* once: the worker could write on */

	if (a.out_len > call->out_cap || a.out_len > CARD_DATA_MAX || a.out_args_len > CARD_ARGS_MAX ||
	    a.status >= CARD_LOST || (a.made && (a.made_type < CARD_OBJ_KEY || a.made_type > CARD_OBJ_AGREEMENT)))
		return false;
	*status = a.status;
	if (a.made) {
		call->made = malloc(sizeof(*call->made));
		if (!call->made) {
			keep_drop(w, a.made);
			*status = SDR_NOBUFFER;
			return true;
		}
		*call->made = (struct card_object){a.made, w->life};
		call->made_type = (enum card_object_type)a.made_type;
	}
	memcpy(call->out, slot->out, a.out_len);
	memcpy(call->out_args, slot->out_args, CARD_ARGS_MAX);
	call->out_len = a.out_len;
	call->out_args_len = a.out_args_len;
	/* What was secret in it does not wait there for the next. */
	explicit_bzero(slot->args, call->rq->args_len);
	explicit_bzero(slot->in, call->in_len);
	explicit_bzero(slot->out, a.out_len);
	explicit_bzero(slot->out_args, sizeof(slot->out_args));
	return true;
}

/* When the first of what it was asked must be answered: it began when the one before was done. */
static uint64_t first_deadline(const struct worker *w)
{
	uint64_t since = w->asked[w->first].since_ns;

	return (since > w->last_done_ns ? since : w->last_done_ns) + w->timeout_ns;
}

/* The timer is set once for many calls, and looks again when it fires. */
static void check_deadline(struct worker *w)
{
	uint64_t fired, now = units_now_ns();

	if (!w->deadline_ns || now < w->deadline_ns)
		return;
	while (read(w->timer, &fired, sizeof(fired)) < 0 && errno == EINTR)
		;
	if (w->state == STARTING)
		down(w, "did not get ready in time");
	else if (w->count && first_deadline(w) <= now)
		down(w, "did not answer in time");
	else
		set_timer(w, w->count ? first_deadline(w) : 0);
}

static void ready(struct worker *w)
{
	w->info = w->memory->info;
	w->info.engine[sizeof(w->info.engine) - 1] = '\0';
	w->state = RUNNING;
	w->last_done_ns = 0;
	set_timer(w, 0);
}

/* One message; a call that it answered. *@more: there was one. */
static struct card_call *hear(struct worker *w, uint32_t *status, bool *more)
{
	struct worker_message m;
	ssize_t n = recv(w->socket, &m, sizeof(m), MSG_DONTWAIT);

	*more = n >= 0 || errno == EINTR;
	if (n < 0) {
		check_deadline(w);
		return NULL;
	}
	if (n == sizeof(m) && m.kind == WORKER_READY && w->state == STARTING) {
		ready(w);
	} else if (n == sizeof(m) && m.kind == WORKER_DONE && w->count && m.number == w->first &&
		   take_answer(w, w->first, status)) {
		w->last_done_ns = units_now_ns();
		send_drops(w);
		return take_first(w);
	} else if (n == sizeof(m) && m.kind == WORKER_REFUSED) {
		down(w, "could not open it again"); /* it said why on standard error */
	} else {
		down(w, n ? "spoke nonsense" : "ended");
	}
	return NULL;
}

static struct card_call *worker_reap(struct card *card, uint32_t *status)
{
	struct worker *w = (struct worker *)card;
	struct card_call *call = NULL;
	bool more = true;

	while (!call && more && w->state != DOWN)
		call = hear(w, status, &more);
	if (call || w->state != DOWN || !w->count)
		return call;
	/* It was at the first; it had not looked at the others. */
	*status = w->guilty ? CARD_LOST : CARD_NOT_BEGUN;
	w->guilty = false;
	return take_first(w);
}

static int worker_health(struct card *card)
{
	struct worker *w = (struct worker *)card;

	if (w->state == DOWN)
		reap_process(w);
	if (w->state == DOWN && !w->pid && !w->count && units_now_ns() >= w->again_ns) {
		int rc = start(w);

		if (rc)
			log_error("card %s: start a worker: %s", w->name, strerror(-rc));
	}
	return w->state == RUNNING ? 0 : -EIO;
}

static void worker_info(struct card *card, struct card_info *info)
{
	*info = ((struct worker *)card)->info;
}

static int worker_fd(struct card *card)
{
	return ((struct worker *)card)->epoll;
}

static unsigned worker_room(struct card *card)
{
	struct worker *w = (struct worker *)card;

	send_drops(w);
	return w->drop_count ? 0 : WORKER_SLOTS - w->count;
}

static void worker_close(struct card *card)
{
	struct worker *w = (struct worker *)card;

	if (w->socket >= 0)
		close(w->socket); /* it ends by that */
	for (int i = 0; w->pid && i < END_MS / 10; i++) {
		reap_process(w);
		if (w->pid)
			usleep(10000);
	}
	if (w->pid) {
		kill(w->pid, SIGKILL);
		reap_process(w);
	}
	if (w->memory)
		munmap(w->memory, sizeof(*w->memory));
	for (int i = 0, fds[] = {w->memory_fd, w->timer, w->epoll}; i < 3; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	free(w->drops);
	free(w);
}

static const struct card_driver driver = {
	.name = "worker",
	.help = "a card in a process of its own",
	.close = worker_close,
	.info = worker_info,
	.run = worker_run,
	.release = worker_release,
	.fd = worker_fd,
	.reap = worker_reap,
	.room = worker_room,
	.health = worker_health,
};

static int prepare(struct worker *w)
{
	struct epoll_event ev = {.events = EPOLLIN};

	w->memory_fd = above(memfd_create("card-worker", MFD_CLOEXEC));
	w->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	w->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (w->memory_fd < 0 || w->timer < 0 || w->epoll < 0 || ftruncate(w->memory_fd, sizeof(*w->memory)) ||
	    epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->timer, &ev))
		return -errno;
	w->memory = mmap(NULL, sizeof(*w->memory), PROT_READ | PROT_WRITE, MAP_SHARED, w->memory_fd, 0);
	if (w->memory == MAP_FAILED) {
		w->memory = NULL;
		return -errno;
	}
	(void)madvise(w->memory, sizeof(*w->memory), MADV_DONTDUMP);
	return 0;
}

/* Until the first worker has its card. */
static int wait_ready(struct worker *w, struct err *err)
{
	struct pollfd p = {.fd = w->socket, .events = POLLIN};
	struct worker_message m = {0};
	int n;

	do {
		n = poll(&p, 1, (int)(w->timeout_ns / 1000000));
	} while (n < 0 && errno == EINTR);
	if (!n)
		return err_sys(err, -ETIMEDOUT, "open card %s: %s", w->name, w->spec);
	if (recv(w->socket, &m, sizeof(m), MSG_DONTWAIT) != sizeof(m))
		return err_set(err, -EIO, "open card %s: %s: its worker ended", w->name, w->spec);
	if (m.kind != WORKER_READY)
		return err_set(err, -EIO, "%.*s", (int)sizeof(w->memory->error) - 1, w->memory->error);
	ready(w);
	return 0;
}

int card_worker_open(const struct card_conf *conf, struct card **out, struct err *err)
{
	struct worker *w = calloc(1, sizeof(*w));
	int rc;

	if (!w)
		return err_sys(err, -ENOMEM, "open card %s", conf->name);
	w->socket = w->memory_fd = w->timer = w->epoll = -1;
	w->card.driver = &driver;
	w->timeout_ns = conf->timeout_us * 1000;
	snprintf(w->name, sizeof(w->name), "%s", conf->name);
	snprintf(w->card.name, sizeof(w->card.name), "%s", conf->name);
	snprintf(w->spec, sizeof(w->spec), "%s", conf->spec);
	snprintf(w->store, sizeof(w->store), "%s", conf->store ? conf->store : "");
	snprintf(w->store_key, sizeof(w->store_key), "%s", conf->store_key ? conf->store_key : "");
	rc = prepare(w);
	if (!rc)
		rc = start(w);
	rc = rc ? err_sys(err, rc, "open card %s: worker", conf->name) : wait_ready(w, err);
	if (rc)
		worker_close(&w->card);
	else
		*out = &w->card;
	return rc;
}
