/* SPDX-License-Identifier: MIT */
#ifndef HASH_H
#define HASH_H

#include "guest.h"

/* Standard input through a stream that @begin (its phase and data apart) begins. 0, or an exit status. */
int digest_input(struct guest *g, const char *verb, const struct card_io *begin, uint8_t *out,
		 uint32_t *out_len);

/* SM3 over Z of @k's owner @id and standard input: what SM2 signs. */
int digest_of_signer(struct guest *g, const char *verb, struct guest_key *k, const char *id,
		     uint8_t digest[32]);

#endif
