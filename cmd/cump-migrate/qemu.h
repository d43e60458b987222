/* SPDX-License-Identifier: MIT */
/* What both sides of the QEMU driver share. */
#ifndef CUMP_QEMU_H
#define CUMP_QEMU_H

#include "pair/member.h"
#include "process.h"
#include "vm/qmp.h"

#define QEMU_QMP_MS 5000 /* an answer to a command that does nothing long */

/* The VM's own word on its vTPM VM: -fw_cfg name=…,string=UUID (the guest can read it too). */
#define QEMU_BINDING "opt/org.util-vm/vtpm-uuid"

struct qemu {
	char qmp_path[108];
	bool is_vtpm; /* its role in the pair */
	struct process process;
	struct qmp *qmp; /* NULL: its process is gone */
};

/* role, qmp path and process from JSON; connects unless its process is gone. */
int qemu_open(struct qemu *q, struct json_object *o, struct err *err);
void qemu_describe(const struct qemu *q, struct json_object *o);
int qemu_identify(struct qemu *q, struct pair_identity *id, struct err *err);
bool qemu_runs(struct qemu *q);
/* -ESRCH with words if its process is gone. */
int qemu_need(const struct qemu *q, struct err *err);
/* `quit`, then wait, then kill. */
int qemu_quit(struct qemu *q, struct err *err);
/*
 * A socket pair: one end goes to QEMU as "cump", the other is ours. *@theirs (if not NULL):
 * a second hand on QEMU's end, for net_write_ahead; while it is open there is no end of stream.
 */
int qemu_stream(struct qemu *q, int *stream, int *theirs, struct err *err);
/* Switch one migration capability. */
int qemu_capability(struct qemu *q, const char *name, bool on, struct err *err);
/* Another QEMU on this host that is bound to the same vTPM VM: its pid, or 0. */
pid_t qemu_rival(const char *vtpm_uuid, pid_t self);

#endif
