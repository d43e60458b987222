/* SPDX-License-Identifier: MIT */
#ifndef BASE_NOTIFY_H
#define BASE_NOTIFY_H

/* Tell the service manager ("READY=1", "STOPPING=1", "WATCHDOG=1"): sd_notify(3)'s protocol
 * on $NOTIFY_SOCKET. Without a manager nothing happens. */
void notify(const char *state);

#endif
