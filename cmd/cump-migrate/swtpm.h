/* SPDX-License-Identifier: MIT */
/* A TPM that is a process beside its VM (`-tpmdev emulator`). */
#ifndef CUMP_SWTPM_H
#define CUMP_SWTPM_H

#include <sys/types.h>

#include "base/err.h"

/* The process that listens on control socket @ctrl; -ENOENT: nobody does. */
int swtpm_pid(const char *ctrl, pid_t *pid, struct err *err);

/* The control socket and state folder of a swtpm by its command line, absolute. -ENOENT. */
int swtpm_ctrl_of(pid_t pid, char *buf, size_t size);
int swtpm_state_of(pid_t pid, char *buf, size_t size);

#endif
