/* SPDX-License-Identifier: MIT */
/*
 * The TPM's state travels in the VM's own stream (tpm-emulator's vmstate): this member has
 * no stream. What moves with it is its life: a fresh process at the destination, the old
 * one ended and its files destroyed, or the new one ended and its files destroyed.
 */
#include "swtpm.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/units.h"
#include "drivers.h"
#include "pair/message.h"
#include "process.h"
#include "tpmstate.h"
#include "vm/vm.h"

#define LAUNCH_MS 10000
#define STATE_MARGIN (1u << 20) /* what a TPM's state may grow to */

struct swtpm {
	struct json_object *place; /* sink only */
	struct process process;
	char ctrl[256], state[256], dir[160];
};

/* ---- which process, which files ---- */

/* A socket inode of @path out of /proc/net/unix (listening or connected), from *@skip on. */
static unsigned long socket_inode(const char *path, unsigned skip)
{
	char line[512], name[300];
	unsigned long inode, found = 0;
	FILE *f = fopen("/proc/net/unix", "re");

	while (f && !found && fgets(line, sizeof(line), f)) {
		name[0] = '\0';
		if (sscanf(line, "%*s %*s %*s %*s %*s %*s %lu %299[^\n]", &inode, name) == 2 &&
		    !strcmp(name, path) && !skip--)
			found = inode;
	}
	if (f)
		fclose(f);
	return found;
}

static bool holds(pid_t pid, unsigned long inode)
{
	char dir[64], path[400], target[64], want[64];
	struct dirent *e;
	bool yes = false;
	DIR *d;

	snprintf(want, sizeof(want), "socket:[%lu]", inode);
	snprintf(dir, sizeof(dir), "/proc/%d/fd", (int)pid);
	d = opendir(dir);
	while (d && !yes && (e = readdir(d))) {
		ssize_t n;

		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		n = readlink(path, target, sizeof(target) - 1);
		if (n > 0) {
			target[n] = '\0';
			yes = !strcmp(target, want);
		}
	}
	if (d)
		closedir(d);
	return yes;
}

/* On the server's side every socket of a listener bears its path; the client's bears none. */
int swtpm_pid(const char *ctrl, pid_t *pid, struct err *err)
{
	DIR *proc = opendir("/proc");
	unsigned long inode;
	struct dirent *e;

	*pid = 0;
	for (unsigned i = 0; proc && !*pid && (inode = socket_inode(ctrl, i)); i++) {
		rewinddir(proc);
		while (!*pid && (e = readdir(proc))) {
			pid_t one = (pid_t)strtol(e->d_name, NULL, 10);

			if (one > 0 && holds(one, inode))
				*pid = one;
		}
	}
	if (proc)
		closedir(proc);
	return *pid ? 0 : err_set(err, -ENOENT, "find vTPM: no process serves %s", ctrl);
}

static int absolute(pid_t pid, char *path, size_t size)
{
	char link[64], cwd[PATH_MAX], both[2 * PATH_MAX], *real;
	ssize_t n;

	snprintf(both, sizeof(both), "%s", path);
	if (path[0] != '/') {
		snprintf(link, sizeof(link), "/proc/%d/cwd", (int)pid);
		n = readlink(link, cwd, sizeof(cwd) - 1);
		if (n < 0)
			return -errno;
		cwd[n] = '\0';
		snprintf(both, sizeof(both), "%s/%s", cwd, path);
	}
	real = realpath(both, NULL);
	snprintf(path, size, "%s", real ? real : both);
	free(real);
	return 0;
}

int swtpm_ctrl_of(pid_t pid, char *buf, size_t size)
{
	char value[512];

	if (vm_cmdline_option(pid, "ctrl", 0, value, sizeof(value)) ||
	    vm_suboption(value, "path", buf, size))
		return -ENOENT;
	return absolute(pid, buf, size);
}

int swtpm_state_of(pid_t pid, char *buf, size_t size)
{
	char value[512], uri[400];

	if (vm_cmdline_option(pid, "tpmstate", 0, value, sizeof(value)))
		return -ENOENT;
	if (vm_suboption(value, "dir", buf, size)) {
		if (vm_suboption(value, "backend-uri", uri, sizeof(uri)) ||
		    strncmp(uri, "dir://", 6) != 0)
			return -ENOENT;
		snprintf(buf, size, "%s", uri + 6);
	}
	return absolute(pid, buf, size);
}

/* ---- both sides ---- */

static void swtpm_close(void *m)
{
	struct swtpm *t = m;

	if (t)
		json_object_put(t->place);
	free(t);
}

static bool swtpm_alive(void *m)
{
	return process_alive(((struct swtpm *)m)->process);
}

static int swtpm_identify(void *m, struct pair_identity *id, struct err *err)
{
	struct swtpm *t = m;
	char *real = realpath(t->ctrl, NULL);

	memset(id, 0, sizeof(*id));
	if (!swtpm_alive(t)) {
		free(real);
		return err_set(err, -ESRCH, "ask vTPM %s: its process is gone", t->ctrl);
	}
	snprintf(id->name, sizeof(id->name), "swtpm %d", (int)t->process.pid);
	snprintf(id->bound_to, sizeof(id->bound_to), "%s", real ? real : t->ctrl);
	id->disk_bytes = tpmstate_bytes(t->state) + STATE_MARGIN;
	free(real);
	return 0;
}

/* End it, then destroy its files, and say what they were. */
static int end_and_destroy(struct swtpm *t, struct json_object **receipt, struct err *err)
{
	struct json_object *files = json_object_new_array();
	int rc = process_end(t->process, 2000, err);

	if (!rc)
		rc = tpmstate_destroy(t->state, files, err);
	unlink(t->ctrl);
	*receipt = json_object_new_object();
	message_add(*receipt, "member", "vtpm");
	message_add(*receipt, "what", "TPM process ended, its state files overwritten and removed");
	message_add_number(*receipt, "pid", (uint64_t)t->process.pid);
	json_object_object_add(*receipt, "files", files);
	json_object_object_add(*receipt, "ok", json_object_new_boolean(!rc));
	return rc;
}

/* Encrypted at rest (--key), the same state makes other bytes each time. */
static int swtpm_digest(void *m, char hex[65], struct err *err)
{
	struct swtpm *t = m;
	char key[512];

	(void)err;
	if (vm_cmdline_option(t->process.pid, "key", 0, key, sizeof(key)) != -ENOENT)
		return -ENODATA;
	return tpmstate_digest(t->state, hex);
}

/* ---- source ---- */

static int source_open(struct json_object *where, void **m, struct err *err)
{
	struct swtpm *t = calloc(1, sizeof(*t));
	pid_t pid = 0;
	int rc = 0;

	if (!t)
		return err_set(err, -ENOMEM, "open vTPM: out of memory");
	snprintf(t->ctrl, sizeof(t->ctrl), "%s", message_text(where, "ctrl"));
	snprintf(t->state, sizeof(t->state), "%s", message_text(where, "state"));
	t->process = process_from_json(where);
	if (!t->process.pid) {
		rc = swtpm_pid(t->ctrl, &pid, err);
		t->process = process_of(pid);
	}
	if (!rc && !t->state[0] && swtpm_state_of(t->process.pid, t->state, sizeof(t->state)))
		rc = err_set(err, -ENOENT, "find vTPM: process %d shows no --tpmstate folder",
			     (int)t->process.pid);
	if (rc)
		swtpm_close(t);
	else
		*m = t;
	return rc;
}

static struct json_object *source_where(void *m)
{
	struct swtpm *t = m;
	struct json_object *o = json_object_new_object();

	message_add(o, "ctrl", t->ctrl);
	message_add(o, "state", t->state);
	process_to_json(t->process, o);
	return o;
}

static int source_start(void *m, int *stream, struct err *err)
{
	*stream = -1;
	if (swtpm_alive(m))
		return 0;
	return err_set(err, -ESRCH, "move vTPM: its process is gone");
}

static int source_stop_begin(void *m, struct err *err)
{
	(void)m;
	(void)err;
	return 0; /* it stands still when its VM does */
}

static int source_stop_end(void *m, struct pair_stop *stop, struct err *err)
{
	(void)m;
	(void)stop;
	(void)err;
	return 0;
}

static int source_finish(void *m, struct err *err)
{
	(void)m;
	(void)err;
	return 0;
}

static int source_resume(void *m, struct err *err)
{
	struct swtpm *t = m;

	(void)err;
	if (!swtpm_alive(t)) /* not our doing, and not ours to undo */
		log_warn("vTPM %s ended by itself; its VM runs without it", t->ctrl);
	return 0;
}

static int source_release(void *m, struct json_object **receipt, struct err *err)
{
	return end_and_destroy(m, receipt, err);
}

const struct pair_source_ops swtpm_source_ops = {
	.open = source_open,
	.where = source_where,
	.identify = swtpm_identify,
	.start = source_start,
	.stop_begin = source_stop_begin,
	.stop_end = source_stop_end,
	.finish = source_finish,
	.resume = source_resume,
	.digest = swtpm_digest,
	.release = source_release,
	.runs = swtpm_alive,
	.close = swtpm_close,
};

/* ---- destination ---- */

static int sink_open(struct json_object *place, void **m, struct err *err)
{
	struct swtpm *t = calloc(1, sizeof(*t));
	struct json_object *v;

	if (!t)
		return err_set(err, -ENOMEM, "open vTPM: out of memory");
	t->place = json_object_get(place);
	t->process = process_from_json(place);
	snprintf(t->ctrl, sizeof(t->ctrl), "%s", message_text(place, "ctrl"));
	snprintf(t->state, sizeof(t->state), "%s", message_text(place, "state"));
	snprintf(t->dir, sizeof(t->dir), "%s", message_text(place, "dir"));
	*m = t;
	if (json_object_object_get_ex(place, "command", &v) && t->ctrl[0] && t->state[0])
		return 0;
	swtpm_close(t);
	return err_set(err, -EINVAL, "place pair: a swtpm needs 'command', 'ctrl' and 'state'");
}

static struct json_object *sink_place(void *m)
{
	struct swtpm *t = m;
	struct json_object *o = NULL;

	json_object_deep_copy(t->place, &o, NULL);
	process_to_json(t->process, o);
	return o;
}

static int sink_launch(void *m, struct err *err)
{
	uint64_t until = units_now_us() + LAUNCH_MS * 1000ull;
	static const struct timespec tick = {0, 2000000};
	struct swtpm *t = m;
	struct json_object *command;
	char log[200], words[256];
	int rc;

	if (tpmstate_bytes(t->state)) /* a restored TPM must not start from an old copy */
		return err_set(err, -EEXIST, "start vTPM: %s holds a TPM's state already", t->state);
	if (mkdir(t->state, 0700) && errno != EEXIST)
		return err_sys(err, -errno, "make folder %s", t->state);
	snprintf(log, sizeof(log), "%s/vtpm.log", t->dir);
	json_object_object_get_ex(t->place, "command", &command);
	rc = process_spawn(command, log, t->dir, &t->process, err);
	while (!rc && !socket_inode(t->ctrl, 0)) {
		if (!process_alive(t->process))
			return err_set(err, -ECHILD, "start vTPM: %s",
				       process_last_words(log, words, sizeof(words)));
		if (units_now_us() > until)
			return err_set(err, -ETIMEDOUT, "start vTPM: no control socket at %s",
				       t->ctrl);
		nanosleep(&tick, NULL);
	}
	return rc;
}

static int sink_receive(void *m, int *stream, struct err *err)
{
	(void)m;
	(void)err;
	*stream = -1;
	return 0;
}

static int sink_ready(void *m, struct err *err)
{
	return swtpm_alive(m) ? 1 : err_set(err, -ECHILD, "receive vTPM: its process ended");
}

static int sink_go(void *m, struct err *err)
{
	return swtpm_alive(m) ? 0 : err_set(err, -ECHILD, "start vTPM: its process ended");
}

static int sink_drop(void *m, struct json_object **receipt, struct err *err)
{
	struct swtpm *t = m;

	process_end_tagged(t->dir);
	return end_and_destroy(t, receipt, err);
}

const struct pair_sink_ops swtpm_sink_ops = {
	.open = sink_open,
	.place = sink_place,
	.launch = sink_launch,
	.identify = swtpm_identify,
	.receive = sink_receive,
	.ready = sink_ready,
	.digest = swtpm_digest,
	.go = sink_go,
	.drop = sink_drop,
	.alive = swtpm_alive,
	.close = swtpm_close,
};
