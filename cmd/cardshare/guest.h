/* SPDX-License-Identifier: MIT */
/* What the verbs that use a card share: the link, keys as they are named on a command line, data through it. */
#ifndef GUEST_H
#define GUEST_H

#include <stdint.h>
#include <sys/types.h>

#include "base/progress.h"
#include "card/client.h"

/* "-a ADDRESS" of each of these verbs. */
extern const char *guest_address;
#define GUEST_OPT_ADDRESS \
	{'a', "address", CLI_STRING, &guest_address, "ADDRESS", "of the card (CARDSHARE, or what is there)"}

struct guest {
	struct card_client *c;
	uint32_t session;
};

/* Each 0 or an exit status, with the error reported under @verb. */
int guest_open(struct guest *g, const char *verb);
void guest_close(struct guest *g);
int guest_call(struct guest *g, const char *verb, struct card_io *io);
/* @len bytes in, exactly @want bytes out. */
int guest_call_long(struct guest *g, const char *verb, struct card_io *io, size_t len, size_t want);
/* What the card answered, in words, and what to exit with. */
int guest_answer(const char *verb, uint32_t status);

/*
 * A key: "3" is the third of the card (for symmetric use: of its key-encryption keys); anything else
 * names a file. A symmetric one holds 32 hex digits or 16 bytes; an SM2 one is PEM (private, public, or
 * a certificate) or, private, 64 hex digits.
 */
struct guest_key {
	uint8_t kind; /* CARD_KEY_INDEX, OBJECT, GIVEN */
	uint32_t key; /* index or object */
	bool has_public, has_private;
	struct sdf_ecc_public pub;
	struct sdf_ecc_private priv;
};
int guest_key_symmetric(struct guest *g, const char *verb, const char *text, struct guest_key *k);
int guest_key_sm2(const char *verb, const char *text, struct guest_key *k);
/* The public half of a key of the card, for Z. */
int guest_key_public(struct guest *g, const char *verb, uint32_t alg, struct guest_key *k);
/* "--password-file FILE": the first line opens private key @k; NULL: nothing to do. */
int guest_password(struct guest *g, const char *verb, const char *file, const struct guest_key *k);

/* Algorithms by name; NULL: reported, with the names there are. */
struct guest_cipher {
	const char *name;
	uint32_t alg;
	uint8_t iv;    /* bytes of it */
	bool pads;     /* whole blocks only: PKCS #7 */
	bool aead;
};
const struct guest_cipher *guest_cipher(const char *verb, const char *name);

/* Standard input in large pieces; every byte of it once. */
#define GUEST_PIECE (1u << 20)
struct guest_stream {
	const char *verb;
	struct progress progress;
	uint64_t done, total; /* total 0: not known */
	uint64_t begun_us;
};
void guest_stream_begin(struct guest_stream *s, const char *verb);
void guest_stream_end(struct guest_stream *s);
/* Fill @buf as far as there is input: bytes, or -1 with the error reported. */
ssize_t guest_read(struct guest_stream *s, void *buf, size_t size);
int guest_write(const char *verb, int fd, const void *buf, size_t n);

int guest_hex(const char *text, uint8_t *out, size_t size); /* bytes, or -1: no hex, or too much */
void guest_print_hex(const uint8_t *p, size_t n);

#endif
