/* SPDX-License-Identifier: MIT */
/*
 * A Xen domain that arrives: its stream is a preface with its configuration, and then what
 * libxl_domain_create_restore takes, which leaves it paused, and what is late for that.
 */
#ifdef HAVE_XEN
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"
#include "drivers.h"
#include "net/addr.h"
#include "pair/message.h"
#include "vm/xen.h"
#include "xen.h"
#include "xen_maps.h"
#include "xen_stream.h"

struct sink {
	struct json_object *place;
	struct xen_domain d;
	xc_interface *xch; /* open before it is to start: the other, which runs then, keeps this system busy */
	bool is_vtpm, mine; /* no domain of this uuid was here: one that is, is ours to drop */
	int theirs;	    /* libxl's end of the stream */
	pthread_t thread;
	bool restoring; /* the thread is to be joined */
	/* The thread's; closed when the pair runs: that takes longer than it may stand still. */
	libxl_ctx *own; /* libxl holds a context's lock while it sets a domain up, and there are two */
	struct xen_maps late;
	int ended;	/* an eventfd: it is over */
	/* A copy of the stream is kept: then libxl reads what the copier has written to the file. */
	pthread_t copier;
	bool copying;
	int to_libxl, from_copier, file;

	pthread_mutex_t lock; /* what follows */
	bool built, over;
	int rc;
	struct err err;
};

/* ---- a copy of it, for other eyes ---- */

/* To the end of the stream, or until one of both ends is shut. */
static void *copy_stream(void *ctx)
{
	struct sink *s = ctx;
	char buf[65536];
	ssize_t n;

	while ((n = read(s->theirs, buf, sizeof(buf))) > 0 || (n < 0 && errno == EINTR)) {
		if (n < 0)
			continue;
		if (write(s->file, buf, (size_t)n) != n)
			log_warn("keep the stream of %s: %s", s->d.name, strerror(errno));
		if (xen_write(s->from_copier, buf, (size_t)n, NULL))
			break;
	}
	shutdown(s->from_copier, SHUT_WR);
	return NULL;
}

static int begin_copy(struct sink *s, int *stream, struct err *err)
{
	const char *dir = message_text(s->place, "streams");
	char path[4200];
	int fd[2], rc;

	if (!dir[0])
		return 0;
	snprintf(path, sizeof(path), "%s/%s.stream", dir, s->is_vtpm ? "vtpm" : "vm");
	s->file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (s->file < 0)
		return err_sys(err, -errno, "keep the stream of %s: %s", s->d.name, path);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
		return err_sys(err, -errno, "make a stream for %s", s->d.name);
	s->from_copier = fd[0];
	s->to_libxl = *stream = fd[1];
	rc = pthread_create(&s->copier, NULL, copy_stream, s);
	s->copying = !rc;
	return rc ? err_sys(err, -rc, "keep the stream of %s", s->d.name) : 0;
}

static void end_copy(struct sink *s)
{
	if (s->copying)
		pthread_join(s->copier, NULL);
	s->copying = false;
}

/* All that there was has been read, and the last @late bytes are not libxl's. */
static void shorten_copy(struct sink *s, uint64_t late)
{
	off_t size = s->copying ? lseek(s->file, 0, SEEK_END) : -1;

	if (size >= 0 && ftruncate(s->file, size - (off_t)late))
		log_warn("keep the stream of %s: %s", s->d.name, strerror(errno));
}

/* ---- its life ---- */

static void end_restore(struct sink *s)
{
	if (!s->restoring)
		return;
	shutdown(s->theirs, SHUT_RDWR);
	if (s->from_copier >= 0)
		shutdown(s->from_copier, SHUT_RDWR);
	pthread_join(s->thread, NULL);
	s->restoring = false;
	xen_maps_close(&s->late);
	if (s->own)
		libxl_ctx_free(s->own);
	s->own = NULL;
}

static void close_one(int fd)
{
	if (fd >= 0)
		close(fd);
}

static void sink_close(void *m)
{
	struct sink *s = m;

	end_restore(s);
	end_copy(s);
	close_one(s->theirs);
	close_one(s->ended);
	close_one(s->to_libxl);
	close_one(s->from_copier);
	close_one(s->file);
	if (s->xch)
		xc_interface_close(s->xch);
	pthread_mutex_destroy(&s->lock);
	json_object_put(s->place);
	free(s);
}

static int sink_open(struct json_object *place, void **m, struct err *err)
{
	struct sink *s = calloc(1, sizeof(*s));
	struct json_object *v;

	if (!s)
		return err_set(err, -ENOMEM, "open domain: out of memory");
	s->place = json_object_get(place);
	s->is_vtpm = !strcmp(message_text(place, "role"), "vtpm");
	s->theirs = s->ended = s->to_libxl = s->from_copier = s->file = -1;
	s->mine = json_object_object_get_ex(place, "mine", &v) && json_object_get_boolean(v);
	pthread_mutex_init(&s->lock, NULL);
	if (strlen(message_text(place, "uuid")) != 36) {
		sink_close(s);
		return err_set(err, -EINVAL, "place pair: a domain of Xen needs a uuid");
	}
	xen_domain_find(message_text(place, "uuid"), &s->d, NULL); /* after a crash of ours */
	snprintf(s->d.name, sizeof(s->d.name), "%s", message_text(place, "name"));
	*m = s;
	return 0;
}

static struct json_object *sink_place(void *m)
{
	struct json_object *o = NULL;
	struct sink *s = m;

	json_object_deep_copy(s->place, &o, NULL);
	json_object_object_add(o, "mine", json_object_new_boolean(s->mine));
	return o;
}

/* What both members of the pair that this process serves need; each asks alone. */
static int check_memory(struct sink *s, libxl_ctx *ctx, struct err *err)
{
	static uint64_t others_kib;
	uint64_t free_kib = 0, need_kib = message_number(s->place, "mem_bytes") >> 10;

	if (libxl_get_free_memory(ctx, &free_kib))
		return xen_error(err, -EIO, "ask Xen for free memory");
	if (free_kib < others_kib + need_kib)
		return err_set(err, -ENOMEM, "place %s: %llu MiB needed, Xen has %llu MiB free", s->d.name,
			       (unsigned long long)(others_kib + need_kib) >> 10,
			       (unsigned long long)free_kib >> 10);
	others_kib += need_kib;
	return 0;
}

/* Nothing is started before the stream comes; but what would fail then must fail now. */
static int sink_launch(void *m, struct err *err)
{
	libxl_ctx *ctx = xen_ctx(err);
	struct sink *s = m;
	char platform[32];
	uint32_t domid;
	int rc;

	if (!ctx)
		return err ? err->code : -ENODEV;
	xen_platform(platform);
	if (strcmp(platform, message_text(s->place, "platform")) != 0)
		return err_set(err, -EPROTONOSUPPORT, "place %s: it comes from a '%s', and this is a '%s'",
			       s->d.name, message_text(s->place, "platform"), platform);
	if (s->d.domid != UINT32_MAX)
		return err_set(err, -EEXIST, "place %s: a domain with its uuid is here already", s->d.name);
	if (!libxl_name_to_domid(ctx, s->d.name, &domid))
		return err_set(err, -EEXIST, "place %s: a domain of this name is here already", s->d.name);
	rc = check_memory(s, ctx, err);
	s->mine = !rc;
	return rc;
}

static int sink_identify(void *m, struct pair_identity *id, struct err *err)
{
	struct sink *s = m;

	if (s->d.domid == UINT32_MAX)
		return -EAGAIN; /* its stream tells */
	return xen_domain_identify(&s->d, s->is_vtpm, id, err);
}

/* *@stream: what libxl has read from, and leaves where its own stream ends. */
static int restore_configured(struct sink *s, libxl_ctx *ctx, const char *config_text, int *stream, struct err *err)
{
	libxl_domain_restore_params params;
	libxl_domain_config config;
	uint32_t domid = UINT32_MAX;
	char uuid[37];
	int rc = 0;

	libxl_domain_config_init(&config);
	libxl_domain_restore_params_init(&params);
	params.stream_version = 2;
	if (libxl_domain_config_from_json(ctx, &config, config_text))
		rc = xen_error(err, -EBADMSG, "restore %s: its configuration", s->d.name);
	if (!rc)
		rc = begin_copy(s, stream, err);
	xen_uuid_text(&config.c_info.uuid, uuid);
	if (!rc && strcasecmp(uuid, s->d.uuid) != 0)
		rc = err_set(err, -EXDEV, "restore %s: its configuration is that of %s", s->d.name, uuid);
	if (!rc && libxl_domain_create_restore(ctx, &config, &domid, *stream, -1, &params, NULL, NULL))
		rc = xen_error(err, -EIO, "restore %s", s->d.name);
	if (!rc)
		s->d.domid = domid;
	libxl_domain_restore_params_dispose(&params);
	libxl_domain_config_dispose(&config);
	return rc;
}

static int restore(struct sink *s, struct err *err)
{
	struct json_object *preface = NULL, *config = NULL, *late = NULL;
	libxl_ctx *ctx = s->own = xen_ctx_new(err);
	int rc = ctx ? xen_read_preface(s->theirs, &preface, err) : -ENODEV, stream = s->theirs;
	uint64_t bytes = 0;

	if (!rc && !json_object_object_get_ex(preface, "config", &config))
		rc = err_set(err, -EBADMSG, "restore %s: its stream has no configuration", s->d.name);
	if (!rc)
		rc = restore_configured(s, ctx, json_object_to_json_string(config), &stream, err);
	if (!rc && message_text(preface, "vtpm")[0])
		rc = xen_bind_vtpm(ctx, s->d.domid, message_text(preface, "vtpm"), err);
	if (!rc) {
		pthread_mutex_lock(&s->lock);
		s->built = true;
		pthread_mutex_unlock(&s->lock);
	}
	if (!rc && json_object_object_get_ex(preface, "late", &late) && json_object_get_boolean(late))
		rc = xen_take_late(stream, s->d.domid, s->d.name, &s->late, &bytes, err);
	if (!rc)
		shorten_copy(s, bytes);
	json_object_put(preface);
	return rc;
}

static void *run_restore(void *ctx)
{
	struct err err = {0};
	struct sink *s = ctx;
	int rc;

	thread_batch();
	rc = restore(s, &err);

	pthread_mutex_lock(&s->lock);
	s->over = true;
	s->rc = rc;
	s->err = err;
	pthread_mutex_unlock(&s->lock);
	eventfd_write(s->ended, 1);
	return NULL;
}

static int sink_receive(void *m, int *stream, struct err *err)
{
	struct sink *s = m;
	int fd[2], rc;

	s->xch = xen_control(err);
	if (!s->xch)
		return -ENODEV;
	s->ended = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->ended < 0)
		return err_sys(err, -errno, "restore %s", s->d.name);
	rc = net_pair(fd);
	if (rc)
		return err_sys(err, rc, "make a stream for %s", s->d.name);
	s->theirs = fd[0];
	rc = pthread_create(&s->thread, NULL, run_restore, s);
	if (rc) {
		close(fd[1]);
		return err_sys(err, -rc, "restore %s", s->d.name);
	}
	s->restoring = true;
	*stream = fd[1];
	return 0;
}

static bool sink_built(void *m)
{
	struct sink *s = m;
	bool yes;

	pthread_mutex_lock(&s->lock);
	yes = s->built;
	pthread_mutex_unlock(&s->lock);
	return yes;
}

static int sink_ready(void *m, struct err *err)
{
	struct sink *s = m;
	int rc;

	pthread_mutex_lock(&s->lock);
	rc = !s->over ? 0 : s->rc ? err_set(err, s->rc, "%s", s->err.text) : 1;
	pthread_mutex_unlock(&s->lock);
	return rc;
}

static int sink_fd(void *m)
{
	return ((struct sink *)m)->ended;
}

static int sink_digest(void *m, char hex[65], struct err *err)
{
	return xen_domain_digest(&((struct sink *)m)->d, NULL, hex, err);
}

static int sink_go(void *m, struct err *err)
{
	struct sink *s = m;

	if (!s->xch)
		s->xch = xen_control(err); /* after a crash of ours */
	return s->xch ? xen_domain_start(s->xch, &s->d, err) : -ENODEV;
}

static int sink_drop(void *m, struct json_object **receipt, struct err *err)
{
	struct sink *s = m;
	int rc = 0;

	end_restore(s);
	if (s->mine && s->d.domid == UINT32_MAX)
		xen_domain_find(s->d.uuid, &s->d, NULL); /* a restore that was broken off */
	if (s->mine)
		rc = xen_domain_destroy(&s->d, err);
	*receipt = json_object_new_object();
	message_add(*receipt, "member", s->is_vtpm ? "vtpm" : "vm");
	message_add(*receipt, "what", s->mine ? "domain destroyed, its memory is freed and scrubbed"
					      : "no domain was made");
	message_add(*receipt, "uuid", s->d.uuid);
	return rc;
}

static bool sink_alive(void *m)
{
	return xen_domain_alive(&((struct sink *)m)->d);
}

const struct pair_sink_ops xen_sink_ops = {
	.open = sink_open,
	.place = sink_place,
	.launch = sink_launch,
	.identify = sink_identify,
	.receive = sink_receive,
	.built = sink_built,
	.ready = sink_ready,
	.fd = sink_fd,
	.digest = sink_digest,
	.go = sink_go,
	.drop = sink_drop,
	.alive = sink_alive,
	.close = sink_close,
};
#endif
