/* SPDX-License-Identifier: MIT */
#include "cardd/cardd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/vm_sockets.h> /* needs struct sockaddr before it */

#include "base/log.h"
#include "base/units.h"
#include "card/worker.h"
#include "cardd/inside.h"
#include "cardd/loop.h"
#include "cardd/spin.h"
#include "net/addr.h"

#define BACKLOG 64

int cardd_listen(struct cardd *d, const struct net_addr *addr, struct err *err)
{
	mode_t old = umask(0777);
	int fd = net_listen(addr, BACKLOG, err);

	umask(old);
	/* Nobody can connect before the mode is right. */
	if (fd >= 0 && addr->family == NET_UNIX && chmod(addr->path, (mode_t)d->conf->socket_mode)) {
		int rc = err_sys(err, -errno, "chmod %s", addr->path);

		close(fd);
		return rc;
	}
	return fd;
}

/* Cards. */
static int open_card(struct cardd_card *c, struct err *err)
{
	const struct card_conf conf = {.name = c->name, .spec = c->conf->spec,
				       .store = c->conf->store[0] ? c->conf->store : NULL,
				       .store_key = c->conf->store_key[0] ? c->conf->store_key : NULL,
				       .timeout_us = c->conf->timeout_us};
	int rc = c->conf->workers ? card_worker_open(&conf, &c->card, err) : card_open(&conf, &c->card, err), fd;

	if (rc)
		return rc;
	c->card->driver->info(c->card, &c->info);
	fd = c->card->driver->fd ? c->card->driver->fd(c->card) : -1;
	if (fd >= 0)
		rc = watch_add(c->d, &c->watch, fd, EPOLLIN, desk_card_ready, c);
	if (rc) {
		card_close(c->card);
		c->card = NULL;
		return err_sys(err, rc, "card %s: epoll", c->name);
	}
	c->failed = false;
	return 0;
}

static int open_cards(struct cardd *d, struct err *err)
{
	for (struct cardd_card_conf *conf = d->conf->cards; conf; conf = conf->next)
		for (uint32_t i = 0; i < cardd_conf_opened(conf); i++) {
			struct cardd_card *c = &d->cards[d->card_count++];
			int rc;

			*c = (struct cardd_card){.conf = conf, .d = d, .watch = {.fd = -1}};
			snprintf(c->name, sizeof(c->name), "%s", conf->name);
			if (conf->workers > 1)
				snprintf(c->name, sizeof(c->name), "%s.%u", conf->name, i + 1);
			rc = open_card(c, err);
			if (rc)
				return rc;
		}
	return 0;
}

static struct cardd_card *find_card(struct cardd *d, const char *name)
{
	for (uint32_t i = 0; i < d->card_count; i++)
		if (!strcmp(d->cards[i].conf->name, name))
			return &d->cards[i];
	return NULL;
}

/* A card that says it is gone gets no more sessions; the others do. It is asked again now and then. */
void card_look(struct cardd_card *c)
{
	int rc = c->card->driver->health ? c->card->driver->health(c->card) : 0;

	if (rc && !c->failed)
		log_error("card %s: it failed (%s): its sessions end", c->name, strerror(-rc));
	else if (!rc && c->failed)
		log_note("card %s: it is back", c->name);
	c->failed = rc != 0;
}

void cards_tick(struct cardd *d)
{
	for (uint32_t i = 0; i < d->card_count; i++)
		card_look(&d->cards[i]);
}

/* Ways in. */
static void on_stream(struct watch *w, uint32_t events)
{
	struct cardd_vm *vm = w->owner;
	char who[128] = "";
	int fd = net_accept(w->fd, who, sizeof(who), NULL), rc;

	(void)events;
	if (fd < 0)
		return;
	rc = stream_accept(vm, fd);
	if (rc)
		log_verbose("vm %s: no link for %s: %s", vm->conf->name, who,
			    rc == -EMFILE ? "it has all that it may (links)" : strerror(-rc));
}

static void on_vsock(struct watch *w, uint32_t events)
{
	struct cardd *d = w->owner;
	struct sockaddr_vm peer = {0};
	socklen_t len = sizeof(peer);
	char who[128] = "";
	int fd = net_accept(w->fd, who, sizeof(who), NULL);

	(void)events;
	if (fd < 0)
		return;
	if (!getpeername(fd, (struct sockaddr *)&peer, &len) && peer.svm_family == AF_VSOCK)
		for (struct cardd_vm *vm = d->vms; vm; vm = vm->next)
			if (vm->conf->cid == peer.svm_cid) {
				(void)stream_accept(vm, fd);
				return;
			}
	log_verbose("%s: no VM of the configuration has this CID", who);
	close(fd);
}

static int listen_unix(struct cardd_vm *vm, struct watch *w, const char *path, struct err *err)
{
	struct net_addr addr = {.family = NET_UNIX};
	int fd, rc;

	snprintf(addr.path, sizeof(addr.path), "%s", path);
	fd = cardd_listen(vm->d, &addr, err);
	if (fd < 0)
		return fd;
	rc = watch_add(vm->d, w, fd, EPOLLIN, on_stream, vm);
	if (rc) {
		close(fd);
		return err_sys(err, rc, "vm %s: epoll", vm->conf->name);
	}
	return 0;
}

/* Where Firecracker and its kin connect to for a guest's connection to the host's port. */
static const char *hybrid_path(const struct cardd_vm *vm, char *path, size_t size)
{
	snprintf(path, size, "%s_%u", vm->conf->hybrid, vm->d->conf->vsock_port);
	return path;
}

static int open_ways(struct cardd_vm *vm, struct err *err)
{
	char path[CARDD_PATH_MAX];
	int rc = 0;

	if (vm->conf->unix_path[0])
		rc = listen_unix(vm, &vm->unix_watch, vm->conf->unix_path, err);
	if (!rc && vm->conf->hybrid[0])
		rc = listen_unix(vm, &vm->hybrid_watch, hybrid_path(vm, path, sizeof(path)), err);
	if (!rc && vm->conf->ivshmem[0])
		rc = ivshmem_listen(vm, err);
	return rc;
}

static void close_listener(struct cardd *d, struct watch *w, const char *path)
{
	int fd = w->fd;

	if (fd < 0)
		return;
	watch_remove(d, w);
	close(fd);
	if (path)
		unlink(path);
}

static void close_ways(struct cardd_vm *vm)
{
	char path[CARDD_PATH_MAX];

	close_listener(vm->d, &vm->unix_watch, vm->conf->unix_path);
	close_listener(vm->d, &vm->hybrid_watch, hybrid_path(vm, path, sizeof(path)));
	stream_close_all(vm);
	ivshmem_close(vm);
}

static int listen_vsock(struct cardd *d, struct err *err)
{
	struct net_addr addr = {.family = NET_VSOCK, .cid = VMADDR_CID_ANY, .port = d->conf->vsock_port};
	bool wanted = false;
	int fd, rc;

	for (const struct cardd_vm_conf *vm = d->conf->vms; vm; vm = vm->next)
		wanted |= vm->cid != 0;
	if (!wanted || d->vsock_watch.fd >= 0)
		return 0;
	fd = net_listen(&addr, BACKLOG, err);
	if (fd < 0)
		return fd;
	rc = watch_add(d, &d->vsock_watch, fd, EPOLLIN, on_vsock, d);
	return rc ? err_sys(err, rc, "serve: epoll") : 0;
}

/* VMs. */
static int apply_conf(struct cardd_vm *vm, struct cardd_vm_conf *conf)
{
	uint64_t now = units_now_ns();

	vm->conf = conf;
	vm->fair.weight = conf->weight;
	vm->card_count = 0;
	for (uint32_t i = 0; i < conf->card_count; i++)
		for (uint32_t j = 0; j < vm->d->card_count && vm->card_count < CARDD_CARDS_MAX; j++)
			if (!strcmp(vm->d->cards[j].conf->name, conf->cards[i]))
				vm->cards[vm->card_count++] = &vm->d->cards[j];
	fair_bucket_init(&vm->ops, conf->ops_rate, 0, now);
	fair_bucket_init(&vm->bytes, conf->byte_rate, 0, now);
	for (unsigned i = 0; i < CARD_CLASSES; i++)
		if (conf->keys[i] && !vm->uses[i]) {
			vm->uses[i] = calloc(CARDD_INDEX_MAX + 1, sizeof(*vm->uses[i]));
			if (!vm->uses[i])
				return -ENOMEM;
		}
	return 0;
}

static void vm_free(struct cardd_vm *vm)
{
	for (unsigned i = 0; i < CARD_CLASSES; i++)
		free(vm->uses[i]);
	histogram_free(vm->latency);
	ivshmem_free(vm);
	free(vm);
}

static int vm_new(struct cardd *d, struct cardd_vm_conf *conf, struct err *err)
{
	struct cardd_vm *vm = calloc(1, sizeof(*vm)), **at = &d->vms;
	int rc;

	if (!vm)
		return err_sys(err, -ENOMEM, "vm %s", conf->name);
	vm->d = d;
	vm->unix_watch.fd = vm->hybrid_watch.fd = -1;
	vm->latency = histogram_new();
	rc = apply_conf(vm, conf);
	if (rc || !vm->latency) {
		vm_free(vm);
		return err_sys(err, -ENOMEM, "vm %s", conf->name);
	}
	while (*at)
		at = &(*at)->next;
	*at = vm;
	return open_ways(vm, err);
}

/* Its links are closed; calls under way are waited for by their graves. */
static void vm_remove(struct cardd *d, struct cardd_vm *vm)
{
	struct cardd_vm **at = &d->vms;

	static struct cardd_vm_conf nothing = {.name = "gone", .weight = 1};

	close_ways(vm);
	while (vm->links)
		link_close(vm->links);
	vm->conf = &nothing; /* its own may be freed before it */
	fair_leave(&d->fair, &vm->fair);
	if (vm->parked_until_ns)
		d->parked--;
	while (*at != vm)
		at = &(*at)->next;
	*at = vm->next;
	vm->next = d->gone_vms;
	d->gone_vms = vm;
}

/* Told what it is: a stream of JSON, one object, then the end. */
static void on_control(struct watch *w, uint32_t events)
{
	struct cardd *d = w->owner;
	int fd = net_accept(w->fd, NULL, 0, NULL), size = 8 << 20;
	struct json_object *o;
	const char *text;
	size_t n;

	(void)events;
	if (fd < 0)
		return;
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	o = cardd_stat(d);
	text = json_object_to_json_string_length(o, JSON_C_TO_STRING_PLAIN, &n);
	if (send(fd, text, n, MSG_NOSIGNAL) == (ssize_t)n)
		(void)send(fd, "\n", 1, MSG_NOSIGNAL);
	json_object_put(o);
	close(fd);
}

static int listen_control(struct cardd *d, struct err *err)
{
	struct net_addr addr = {.family = NET_UNIX};
	int fd, rc;

	if (!d->conf->control[0])
		return 0;
	memcpy(addr.path, d->conf->control, sizeof(addr.path));
	fd = cardd_listen(d, &addr, err);
	if (fd < 0)
		return fd;
	rc = watch_add(d, &d->control_watch, fd, EPOLLIN, on_control, d);
	return rc ? err_sys(err, rc, "serve: epoll") : 0;
}

static int start(struct cardd *d, struct err *err)
{
	int rc;

	d->epoll = epoll_create1(EPOLL_CLOEXEC);
	d->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (d->epoll < 0 || d->wake < 0)
		return err_sys(err, -errno, "serve");
	if (getrandom(&d->random, sizeof(d->random), 0) != sizeof(d->random))
		return err_sys(err, -errno, "serve: random numbers");
	/* An epoch of one run is not one of the next. */
	d->last_epoch = (uint32_t)(d->random >> 33); /* far from 0, which is none */
	d->spin_ns = d->conf->spin_auto ? spin_measure() : d->conf->spin_us * 1000;
	/* Keys and guests' data are in this memory: no core dump, no ptrace by others of its user. */
	(void)prctl(PR_SET_DUMPABLE, 0);
	rc = audit_open(d, err);
	if (!rc)
		rc = open_cards(d, err);
	if (!rc && d->conf->shared_region)
		rc = ivshmem_shared_new(d, err);
	if (!rc)
		rc = listen_control(d, err);
	keep_begin(&d->keep);
	for (struct cardd_vm_conf *vm = d->conf->vms; !rc && vm; vm = vm->next)
		rc = vm_new(d, vm, err);
	if (!rc)
		keep_end(&d->keep);
	return rc ? rc : listen_vsock(d, err);
}

int cardd_new(struct cardd_conf *conf, struct cardd **out, struct err *err)
{
	struct cardd *d = calloc(1, sizeof(*d));
	int rc;

	if (!d) {
		cardd_conf_free(conf);
		return err_sys(err, -ENOMEM, "serve");
	}
	d->conf = malloc(sizeof(*conf));
	if (!d->conf) {
		free(d);
		cardd_conf_free(conf);
		return err_sys(err, -ENOMEM, "serve");
	}
	*d->conf = *conf;
	d->epoll = d->wake = d->audit_fd = -1;
	d->vsock_watch.fd = d->control_watch.fd = d->wake_watch.fd = -1;
	d->started_ns = units_now_ns();
	rc = start(d, err);
	if (rc) {
		cardd_free(d);
		return rc;
	}
	*out = d;
	return 0;
}

int cardd_run(struct cardd *d, struct err *err)
{
	return loop_run(d, err);
}

static void wake(struct cardd *d)
{
	uint64_t one = 1;

	if (write(d->wake, &one, sizeof(one)) < 0)
		return;
}

void cardd_stop(struct cardd *d)
{
	d->stop = 1;
	wake(d);
}

void cardd_on_reload(struct cardd *d, cardd_load_fn load, void *ctx)
{
	d->load = load;
	d->load_ctx = ctx;
}

void cardd_reload(struct cardd *d)
{
	d->reload = 1;
	wake(d);
}

static bool same_ways(const struct cardd_vm_conf *a, const struct cardd_vm_conf *b)
{
	return !strcmp(a->ivshmem, b->ivshmem) && !strcmp(a->unix_path, b->unix_path) &&
	       !strcmp(a->hybrid, b->hybrid) && a->cid == b->cid && a->memory == b->memory &&
	       a->queues == b->queues && a->migratable == b->migratable;
}

/* Cards are not changed while they are in use. */
static int same_cards(struct cardd *d, const struct cardd_conf *conf, struct err *err)
{
	uint32_t n = 0;

	for (const struct cardd_card_conf *c = conf->cards; c; c = c->next) {
		const struct cardd_card *now = find_card(d, c->name);

		if (!now || strcmp(now->conf->spec, c->spec) != 0 || strcmp(now->conf->store, c->store) != 0 ||
		    now->conf->workers != c->workers)
			return err_set(err, -EBUSY, "[card %s] is new or another: restart for that", c->name);
		n += cardd_conf_opened(c);
	}
	return n == d->card_count ? 0 : err_set(err, -EBUSY, "a [card] is missing: restart for that");
}

static void take_conf(struct cardd *d, struct cardd_conf *conf)
{
	struct cardd_conf old = *d->conf;
	struct err err = {0};

	for (struct cardd_vm *vm = d->vms, *next; vm; vm = next) {
		struct cardd_vm_conf *c = cardd_conf_vm(conf, vm->conf->name, false);

		next = vm->next;
		if (!c || !same_ways(c, vm->conf))
			vm_remove(d, vm);
		else if (apply_conf(vm, c))
			log_error("vm %s: out of memory", c->name);
	}
	/* The cards stay, with what they were told. */
	cardd_conf_free(&(struct cardd_conf){.cards = conf->cards});
	conf->cards = old.cards;
	old.cards = NULL;
	*d->conf = *conf;
	for (struct cardd_vm_conf *c = d->conf->vms; c; c = c->next) {
		struct cardd_vm *vm = d->vms;

		while (vm && vm->conf != c)
			vm = vm->next;
		if (!vm && vm_new(d, c, &err))
			log_error("%s", err.text);
	}
	if (listen_vsock(d, &err))
		log_error("%s", err.text);
	cardd_conf_free(&old);
}

void cardd_take_reload(struct cardd *d)
{
	struct cardd_conf conf;
	struct err err = {0};
	int rc;

	d->reload = 0;
	if (!d->load)
		return;
	cardd_conf_init(&conf);
	rc = d->load(d->load_ctx, &conf, &err);
	if (!rc)
		rc = same_cards(d, &conf, &err);
	if (rc) {
		log_error("reload: %s: nothing is changed", err.text);
		cardd_conf_free(&conf);
		return;
	}
	take_conf(d, &conf);
	log_note("reload: done");
}

const char *cardd_way(struct cardd *d, unsigned i)
{
	static char text[256];
	char path[CARDD_PATH_MAX];

	for (struct cardd_vm *vm = d->vms; vm; vm = vm->next) {
		const struct cardd_vm_conf *c = vm->conf;

		if (c->ivshmem[0] && !i--)
			snprintf(text, sizeof(text), "vm %s: ivshmem %s", c->name, c->ivshmem);
		else if (c->unix_path[0] && !i--)
			snprintf(text, sizeof(text), "vm %s: unix %s", c->name, c->unix_path);
		else if (c->hybrid[0] && !i--)
			snprintf(text, sizeof(text), "vm %s: hybrid vsock %s", c->name,
				 hybrid_path(vm, path, sizeof(path)));
		else if (c->cid && !i--)
			snprintf(text, sizeof(text), "vm %s: vsock CID %u port %u", c->name, c->cid,
				 d->conf->vsock_port);
		else
			continue;
		return text;
	}
	return NULL;
}

void cardd_free(struct cardd *d)
{
	if (!d)
		return;
	d->ending = true;
	while (d->vms)
		vm_remove(d, d->vms);
	for (uint32_t i = 0; i < d->card_count; i++) {
		watch_remove(d, &d->cards[i].watch);
		card_close(d->cards[i].card);
		d->cards[i].card = NULL;
	}
	loop_bury_all(d);
	while (d->gone_vms) {
		struct cardd_vm *vm = d->gone_vms;

		d->gone_vms = vm->next;
		vm_free(vm);
	}
	ivshmem_shared_free(d);
	close_listener(d, &d->vsock_watch, NULL);
	close_listener(d, &d->control_watch, d->conf->control);
	audit_flush(d);
	if (d->audit_fd >= 0)
		close(d->audit_fd);
	if (d->held)
		job_put(d, d->held);
	while (d->free_jobs) {
		struct cardd_job *job = d->free_jobs;

		d->free_jobs = job->next;
		free(job);
	}
	if (d->epoll >= 0)
		close(d->epoll);
	if (d->wake >= 0)
		close(d->wake);
	fair_free(&d->fair);
	free(d->hot);
	cardd_conf_free(d->conf);
	free(d->conf);
	free(d);
}
