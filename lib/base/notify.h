/* SPDX-License-Identifier: MIT */
#ifndef BASE_NOTIFY_H
#define BASE_NOTIFY_H

/* Tell the service manager ("READY=1", "STOPPING=1", "WATCHDOG=1"): sd_notify(3)'s protocol
 * on $NOTIFY_SOCKET. Without a manager nothing happens. */
void notify(const char *state);

/* The same with a descriptor for the manager to keep ("FDSTORE=1\nFDNAME=…"). */
void notify_with_fd(const char *state, int fd);

#endif
