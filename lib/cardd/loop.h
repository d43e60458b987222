/* SPDX-License-Identifier: MIT */
#ifndef CARDD_LOOP_H
#define CARDD_LOOP_H

#include "base/err.h"

struct cardd;

/* Until d->stop. 0, or -errno of epoll. */
int loop_run(struct cardd *d, struct err *err);

/* One turn without sleeping, for who has a loop of his own. */
void loop_turn(struct cardd *d);

/* Free the closed links, whatever was under way: no card is left that could answer. */
void loop_bury_all(struct cardd *d);

/* cardd.c, for the loop */
void cardd_take_reload(struct cardd *d);
void cards_tick(struct cardd *d);

#endif
