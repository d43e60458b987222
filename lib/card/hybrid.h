/* SPDX-License-Identifier: MIT */
/* The word of a hybrid vsock (Firecracker, docs/vsock.md): "OK PORT\n", byte by byte. */
#ifndef CARD_HYBRID_H
#define CARD_HYBRID_H

#include <stdbool.h>
#include <stdint.h>

struct card_hybrid {
	uint8_t at; /* bytes seen */
	bool done;
};

/* 0; -EPROTO: it is something else. */
int card_hybrid_feed(struct card_hybrid *h, char byte);

#endif
