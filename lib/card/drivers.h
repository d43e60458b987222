/* SPDX-License-Identifier: MIT */
#ifndef CARD_DRIVERS_H
#define CARD_DRIVERS_H

#include "card/card.h"

extern const struct card_driver card_soft, card_null, card_slow, card_sdf;

#endif
