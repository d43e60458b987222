/* SPDX-License-Identifier: MIT */
#ifndef PINCORE_PIN_H
#define PINCORE_PIN_H

#include "keeper.h"

/* Pin, or with -n tell how, and print what was done: 0 or an exit status. */
int pin_subject(struct keeper *k);

#endif
