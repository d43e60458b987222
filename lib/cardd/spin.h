/* SPDX-License-Identifier: MIT */
#ifndef CARDD_SPIN_H
#define CARDD_SPIN_H

#include <stdint.h>

/*
 * How long polling before sleeping is worth it here, in ns: twice what it takes to wake a thread
 * by an eventfd (the ski rental rule, and both sides sleep); 0 where there is one CPU only.
 */
uint64_t spin_measure(void);

#endif
