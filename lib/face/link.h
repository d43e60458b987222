/* SPDX-License-Identifier: MIT */
/*
 * One client of the shared card for a whole process: what a face opens, all that it makes shares. A child
 * of fork(2) gets one of its own, for a link belongs to the process that made it.
 */
#ifndef FACE_LINK_H
#define FACE_LINK_H

#include "card/client.h"

/* Open, or one more user. Give it back by face_link_put. -errno of card_client_open, with @err. */
int face_link_get(const char *address, struct card_client **out, struct err *err);
void face_link_put(struct card_client *c);

/* Another number after fork(2) in the child: what was made under the old one is the parent's. */
unsigned face_link_process(void);

#endif
