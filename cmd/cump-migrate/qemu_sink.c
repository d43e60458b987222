/* SPDX-License-Identifier: MIT */
/* A QEMU that arrives: started with -S -incoming defer by the pair file's command. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/units.h"
#include "drivers.h"
#include "pair/message.h"
#include "qemu.h"

#define LAUNCH_MS 30000

struct sink {
	struct qemu q;
	struct json_object *place; /* as in the pair file */
	const char *dir;	   /* borrowed from place */
	char log[160];
};

static void sink_close(void *m)
{
	struct sink *s = m;

	qmp_close(s->q.qmp);
	json_object_put(s->place);
	free(s);
}

static int sink_open(struct json_object *place, void **m, struct err *err)
{
	struct sink *s = calloc(1, sizeof(*s));
	struct json_object *v;

	if (!s)
		return err_set(err, -ENOMEM, "open VM: out of memory");
	s->place = json_object_get(place);
	s->dir = message_text(place, "dir");
	s->q.is_vtpm = !strcmp(message_text(place, "role"), "vtpm");
	s->q.process = process_from_json(place);
	snprintf(s->q.qmp_path, sizeof(s->q.qmp_path), "%s", message_text(place, "qmp"));
	snprintf(s->log, sizeof(s->log), "%s/%s.log", s->dir, s->q.is_vtpm ? "vtpm" : "vm");
	*m = s;
	if (!json_object_object_get_ex(place, "command", &v) || !s->q.qmp_path[0]) {
		sink_close(s);
		return err_set(err, -EINVAL, "place pair: a QEMU needs 'command' and 'qmp'");
	}
	if (process_alive(s->q.process)) /* after a crash of ours */
		qmp_open(s->q.qmp_path, QEMU_QMP_MS, &s->q.qmp, NULL);
	return 0;
}

static struct json_object *sink_place(void *m)
{
	struct sink *s = m;
	struct json_object *o = NULL;

	json_object_deep_copy(s->place, &o, NULL);
	process_to_json(s->q.process, o);
	return o;
}

static int died(struct sink *s, struct err *err)
{
	char words[256];

	return err_set(err, -ECHILD, "start %s: %s", s->q.is_vtpm ? "vTPM" : "VM",
		       process_last_words(s->log, words, sizeof(words)));
}

static int sink_launch(void *m, struct err *err)
{
	uint64_t until = units_now_us() + LAUNCH_MS * 1000ull;
	static const struct timespec tick = {0, 5000000};
	struct sink *s = m;
	struct json_object *command;
	int rc;

	json_object_object_get_ex(s->place, "command", &command);
	rc = process_spawn(command, s->log, s->dir, &s->q.process, err);
	if (rc)
		return rc;
	for (;;) {
		if (!process_alive(s->q.process))
			return died(s, err);
		if (!access(s->q.qmp_path, F_OK) &&
		    !qmp_open(s->q.qmp_path, QEMU_QMP_MS, &s->q.qmp, err))
			break;
		if (units_now_us() > until)
			return err_set(err, -ETIMEDOUT, "start %s: no monitor at %s",
				       s->q.is_vtpm ? "vTPM" : "VM", s->q.qmp_path);
		nanosleep(&tick, NULL);
	}
	if (qmp_peer_pid(s->q.qmp) != s->q.process.pid)
		return err_set(err, -ESTALE, "start %s: %s belongs to another process",
			       s->q.is_vtpm ? "vTPM" : "VM", s->q.qmp_path);
	return 0;
}

static int sink_identify(void *m, struct pair_identity *id, struct err *err)
{
	return qemu_identify(&((struct sink *)m)->q, id, err);
}

static int sink_receive(void *m, int *stream, struct err *err)
{
	struct sink *s = m;
	int rc = qemu_stream(&s->q, stream, NULL, err);

	if (rc)
		return rc;
	rc = qmp_call(s->q.qmp, QEMU_QMP_MS, NULL, err, "migrate-incoming", "{\"uri\":\"fd:cump\"}");
	if (rc) {
		close(*stream);
		*stream = -1;
	}
	return rc;
}

static int sink_ready(void *m, struct err *err)
{
	struct sink *s = m;
	struct json_object *r = NULL;
	const char *status;
	int rc = qemu_need(&s->q, err);

	if (!rc && !process_alive(s->q.process))
		rc = died(s, err);
	if (!rc)
		rc = qmp_call(s->q.qmp, 2 * QEMU_QMP_MS, &r, err, "query-status", NULL);
	if (rc)
		return process_alive(s->q.process) ? rc : died(s, err);
	status = qmp_str(r, "status");
	/* Until then "inmigrate"; then as the source was: "paused", "prelaunch" if it never ran … */
	rc = status && strcmp(status, "inmigrate") != 0;
	json_object_put(r);
	return rc;
}

static int sink_go(void *m, struct err *err)
{
	struct sink *s = m;
	int rc = qemu_need(&s->q, err);

	if (!rc && !qemu_runs(&s->q))
		rc = qmp_call(s->q.qmp, QEMU_QMP_MS, NULL, err, "cont", NULL);
	return rc;
}

static int sink_drop(void *m, struct json_object **receipt, struct err *err)
{
	struct sink *s = m;
	int rc;

	qmp_close(s->q.qmp);
	s->q.qmp = NULL;
	rc = process_end(s->q.process, 0, err);
	process_end_tagged(s->dir); /* started, and the journal did not get to know of it */
	unlink(s->q.qmp_path);
	*receipt = json_object_new_object();
	message_add(*receipt, "member", s->q.is_vtpm ? "vtpm" : "vm");
	message_add(*receipt, "what", "QEMU ended, its memory is freed");
	message_add_number(*receipt, "pid", (uint64_t)s->q.process.pid);
	return rc;
}

static bool sink_alive(void *m)
{
	return process_alive(((struct sink *)m)->q.process);
}

const struct pair_sink_ops qemu_sink_ops = {
	.open = sink_open,
	.place = sink_place,
	.launch = sink_launch,
	.identify = sink_identify,
	.receive = sink_receive,
	.ready = sink_ready,
	.go = sink_go,
	.drop = sink_drop,
	.alive = sink_alive,
	.close = sink_close,
};
