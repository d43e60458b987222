/* SPDX-License-Identifier: MIT */
#include "qemu.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/addr.h"
#include "pair/message.h"
#include "vm/vm.h"

int qemu_open(struct qemu *q, struct json_object *o, struct err *err)
{
	pid_t peer;
	int rc;

	snprintf(q->qmp_path, sizeof(q->qmp_path), "%s", message_text(o, "qmp"));
	q->is_vtpm = !strcmp(message_text(o, "role"), "vtpm");
	q->process = process_from_json(o);
	if (q->process.pid && !process_alive(q->process))
		return 0;
	rc = qmp_open(q->qmp_path, QEMU_QMP_MS, &q->qmp, err);
	if (rc)
		return rc;
	peer = qmp_peer_pid(q->qmp);
	if (!q->process.pid)
		q->process = process_of(peer);
	if (q->process.pid != peer)
		return err_set(err, -ESTALE, "open %s: another process listens there now",
			       q->qmp_path);
	return 0;
}

void qemu_describe(const struct qemu *q, struct json_object *o)
{
	message_add(o, "role", q->is_vtpm ? "vtpm" : "vm");
	message_add(o, "qmp", q->qmp_path);
	process_to_json(q->process, o);
}

int qemu_need(const struct qemu *q, struct err *err)
{
	if (q->qmp)
		return 0;
	return err_set(err, -ESRCH, "ask %s %s: its process %d is gone", q->is_vtpm ? "vTPM" : "VM",
		       q->qmp_path, (int)q->process.pid);
}

/* The chardev of its `-tpmdev emulator`. -ENOENT: it has no such TPM. */
static int tpm_chardev(struct qemu *q, char *buf, size_t size, struct err *err)
{
	struct json_object *tpms = NULL;
	const char *label = NULL;
	int rc = qmp_call(q->qmp, QEMU_QMP_MS, &tpms, err, "query-tpm", NULL);

	if (rc)
		return rc;
	if (json_object_array_length(tpms))
		label = qmp_str(json_object_array_get_idx(tpms, 0), "options.data.chardev");
	snprintf(buf, size, "%s", label ? label : "");
	json_object_put(tpms);
	return buf[0] ? 0 : -ENOENT;
}

/*
 * The control socket of its TPM, as a path without links. query-chardev shows no path for
 * a socket that QEMU connected itself, so the command line has to tell.
 */
static int swtpm_socket(struct qemu *q, char *buf, size_t size, struct err *err)
{
	char wanted[64], value[512], id[64], path[256], *real;
	int rc = tpm_chardev(q, wanted, sizeof(wanted), err);

	if (rc)
		return rc;
	for (int i = 0; !vm_cmdline_option(q->process.pid, "chardev", i, value, sizeof(value)); i++) {
		if (vm_suboption(value, "id", id, sizeof(id)) || strcmp(id, wanted) != 0 ||
		    vm_suboption(value, "path", path, sizeof(path)))
			continue;
		real = realpath(path, NULL);
		snprintf(buf, size, "%s", real ? real : path);
		free(real);
		return 0;
	}
	return err_set(err, -ENOTSUP, "ask VM %s: its TPM's chardev %s is not on its command line",
		       q->qmp_path, wanted);
}

static bool binding_of(pid_t pid, char *buf, size_t size)
{
	char value[512], name[128];

	for (int i = 0; !vm_cmdline_option(pid, "fw_cfg", i, value, sizeof(value)); i++)
		if (!vm_suboption(value, "name", name, sizeof(name)) && !strcmp(name, QEMU_BINDING))
			return !vm_suboption(value, "string", buf, size);
	return false;
}

pid_t qemu_rival(const char *vtpm_uuid, pid_t self)
{
	DIR *proc = opendir("/proc");
	struct dirent *e;
	pid_t found = 0;
	char uuid[64];

	while (proc && !found && (e = readdir(proc))) {
		pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);

		if (pid > 1 && pid != self && binding_of(pid, uuid, sizeof(uuid)) &&
		    !strcasecmp(uuid, vtpm_uuid))
			found = pid;
	}
	if (proc)
		closedir(proc);
	return found;
}

static void lower(char *s)
{
	for (; *s; s++)
		if (*s >= 'A' && *s <= 'Z')
			*s = (char)(*s | 32);
}

static int identify_binding(struct qemu *q, struct pair_identity *id, struct err *err)
{
	int rc;

	if (q->is_vtpm) {
		snprintf(id->bound_to, sizeof(id->bound_to), "%s", id->uuid);
		return 0;
	}
	if (binding_of(q->process.pid, id->bound_to, sizeof(id->bound_to))) {
		lower(id->bound_to);
		return 0;
	}
	rc = swtpm_socket(q, id->bound_to, sizeof(id->bound_to), err);
	return rc == -ENOENT ? 0 : rc; /* no vTPM at all: the coordinator says so */
}

int qemu_identify(struct qemu *q, struct pair_identity *id, struct err *err)
{
	struct json_object *r = NULL;
	int rc = qemu_need(q, err);

	memset(id, 0, sizeof(*id));
	if (rc)
		return rc;
	rc = qmp_call(q->qmp, QEMU_QMP_MS, &r, err, "query-uuid", NULL);
	if (rc)
		return rc;
	snprintf(id->uuid, sizeof(id->uuid), "%s", qmp_str(r, "UUID") ? qmp_str(r, "UUID") : "");
	json_object_put(r);
	rc = qmp_call(q->qmp, QEMU_QMP_MS, &r, err, "query-name", NULL);
	if (rc)
		return rc;
	snprintf(id->name, sizeof(id->name), "%s",
		 qmp_str(r, "name") ? qmp_str(r, "name") : id->uuid);
	json_object_put(r);
	rc = qmp_call(q->qmp, QEMU_QMP_MS, &r, err, "query-memory-size-summary", NULL);
	if (rc)
		return rc;
	id->mem_bytes = qmp_u64(r, "base-memory", 0) + qmp_u64(r, "plugged-memory", 0);
	json_object_put(r);
	return identify_binding(q, id, err);
}

bool qemu_runs(struct qemu *q)
{
	struct json_object *r = NULL;
	bool running;

	if (!q->qmp || qmp_call(q->qmp, QEMU_QMP_MS, &r, NULL, "query-status", NULL))
		return false;
	running = qmp_bool(r, "running", false);
	json_object_put(r);
	return running;
}

int qemu_quit(struct qemu *q, struct err *err)
{
	if (q->qmp)
		qmp_call(q->qmp, 2000, NULL, NULL, "quit", NULL);
	qmp_close(q->qmp);
	q->qmp = NULL;
	return process_end(q->process, 2000, err);
}

int qemu_stream(struct qemu *q, int *stream, int *theirs, struct err *err)
{
	int sv[2], rc = net_pair(sv);

	if (rc)
		return err_sys(err, rc, "make socket pair");
	rc = qmp_send_fd(q->qmp, "cump", sv[1], QEMU_QMP_MS, err);
	if (rc || !theirs)
		close(sv[1]);
	else
		*theirs = sv[1];
	if (rc)
		close(sv[0]);
	else
		*stream = sv[0];
	return rc;
}

int qemu_capability(struct qemu *q, const char *name, bool on, struct err *err)
{
	return qmp_call(q->qmp, QEMU_QMP_MS, NULL, err, "migrate-set-capabilities",
			"{\"capabilities\":[{\"capability\":\"%s\",\"state\":%s}]}", name,
			on ? "true" : "false");
}
