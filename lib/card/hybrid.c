/* SPDX-License-Identifier: MIT */
#include "card/hybrid.h"

#include <errno.h>

#define DIGITS_MAX 10 /* of a port */

int card_hybrid_feed(struct card_hybrid *h, char byte)
{
	static const char ok[] = "OK ";

	if (h->done)
		return -EPROTO;
	if (h->at < 3) {
		if (byte != ok[h->at++])
			return -EPROTO;
		return 0;
	}
	if (byte == '\n' && h->at > 3) {
		h->done = true;
		return 0;
	}
	return byte >= '0' && byte <= '9' && h->at++ < 3 + DIGITS_MAX ? 0 : -EPROTO;
}
