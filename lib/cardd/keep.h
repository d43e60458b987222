/* SPDX-License-Identifier: MIT */
/*
 * Descriptors that outlive the daemon: the service manager holds them (sd_pid_notify_with_fds(3),
 * FDSTORE=1) and hands them to the next run (sd_listen_fds_with_names(3)). So a VM's memory and bells, and its
 * connection, stay while the daemon is restarted: QEMU notices nothing.
 */
#ifndef CARDD_KEEP_H
#define CARDD_KEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct keep_fd {
	char vm[32];
	uint32_t id;	/* of the peer */
	char kind[8];	/* "conn", "memory", "bell", or the number of a VM's bell */
	int fd;		/* -1: taken */
};

struct keep {
	struct keep_fd *fds;
	size_t count;
};

/* Whether a manager is there that keeps; then what it kept for us. */
bool keep_there(void);
void keep_begin(struct keep *k);
/* -1: not there. The caller owns it then. */
int keep_take(struct keep *k, const char *vm, uint32_t id, const char *kind);
/* The next peer of @vm whose connection is still there, or false. */
bool keep_next(const struct keep *k, const char *vm, uint32_t *id);
/* What nobody took is closed, and forgotten by the manager. */
void keep_end(struct keep *k);

void keep_store(const char *vm, uint32_t id, const char *kind, int fd);
void keep_forget(const char *vm, uint32_t id, const char *kind);

/* "peer.VM.ID.KIND", as the manager knows it; false: it is no such name. */
bool keep_parse(const char *name, struct keep_fd *to);

#endif
