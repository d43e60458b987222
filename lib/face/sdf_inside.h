/* SPDX-License-Identifier: MIT */
/* What the files of the SDF library share: sessions, their streams, and how a call is made. */
#ifndef FACE_SDF_INSIDE_H
#define FACE_SDF_INSIDE_H

#include <pthread.h>
#include <stddef.h>

#include "card/client.h"
#include "face/sdf.h"
#include "face/handles.h"

/* A session has one of each at a time. */
enum sdf_stream_kind { SDF_HASH, SDF_HMAC, SDF_MAC, SDF_ENC, SDF_DEC, SDF_AENC, SDF_ADEC, SDF_STREAMS };

struct sdf_stream {
	bool active;
	uint32_t object; /* the card's end of it; 0: it has none (yet) */
	uint32_t alg;
	void *key;    /* handle, looked up each time: it may have been destroyed */
	bool passing; /* the key was given in the clear, and goes with the stream */
	struct card_cipher iv; /* ENC, DEC, MAC: where it goes on */
	uint8_t tail[16];	/* less than a block, kept for the next piece */
	uint32_t tail_len;
	uint8_t tag[16]; /* ADEC: what must come out */
	uint32_t tag_len;
	uint8_t *data; /* HASH, HMAC: not sent yet, CARD_DATA_MAX bytes of room */
	uint32_t data_len;
};

struct sdf_device {
	struct face_object o;
	struct card_client *client;
};

struct sdf_session {
	struct face_object o;
	struct card_client *client;
	uint32_t number;
	pthread_mutex_t lock; /* of the streams */
	struct sdf_stream streams[SDF_STREAMS];
	uint32_t known[12], known_next; /* ciphers that the card has, as far as was asked */
};

struct sdf_key { /* or agreement */
	struct face_object o;
	struct sdf_session *session; /* the parent */
	uint32_t number;
};

/* Held until sdf_put; NULL: no such handle. */
struct sdf_session *sdf_session_get(void *handle);
void sdf_put(struct sdf_session *s);
struct sdf_key *sdf_key_get(void *handle);
void sdf_key_put(struct sdf_key *k); /* NULL is fine */

/* One request of this session, enum sdr. What it can't tell by a status is SDR_COMMFAIL. */
uint32_t sdf_call(struct sdf_session *s, struct card_io *io);
/* Of any length: @len bytes in, room for exactly @want bytes, and so many must come. */
uint32_t sdf_call_long(struct sdf_session *s, struct card_io *io, size_t len, size_t want);

/* A handle for key or agreement @number of this session; dropped in the card if there is none left. */
uint32_t sdf_key_new(struct sdf_session *s, enum face_kind kind, uint32_t number, void **handle);
uint32_t sdf_drop(struct sdf_session *s, uint32_t number);
/* A key given in the clear. */
uint32_t sdf_key_take(struct sdf_session *s, const uint8_t *key, uint32_t len, void **handle);

void sdf_stream_end(struct sdf_session *s, struct sdf_stream *st);
/* Begin anew, whatever was before. */
struct sdf_stream *sdf_stream_begin(struct sdf_session *s, enum sdf_stream_kind kind, uint32_t alg,
				    void *key);

/* sdf_cipher.c: @iv NULL with ECB; updated. @len bytes out. */
uint32_t sdf_cipher(struct sdf_session *s, void *key, uint32_t alg, uint8_t *iv, const uint8_t *in,
		    uint32_t len, uint8_t *out, bool decrypt);
uint32_t sdf_cipher_begin(struct sdf_session *s, void *key, uint32_t alg, const uint8_t *iv,
			  uint32_t iv_len, enum sdf_stream_kind kind);
uint32_t sdf_hmac_begin(struct sdf_session *s, void *key, uint32_t alg);

#endif
