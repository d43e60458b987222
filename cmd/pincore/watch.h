/* SPDX-License-Identifier: MIT */
#ifndef PINCORE_WATCH_H
#define PINCORE_WATCH_H

#include "keeper.h"

/* Keep @n VMs pinned until they have all ended or a signal comes. @child (0: none): a process of ours that
 * signals are handed on to. An exit status. */
int watch_keepers(struct keeper *k, size_t n, pid_t child);

#endif
