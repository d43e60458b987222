/* SPDX-License-Identifier: MIT */
/*
 * The stream between the two ends of a paired migration: one connection carries both
 * members' own migration streams, both ways, and the coordinator's messages (see
 * cump-stream(5)). Typed frames with owner, sequence number, bounded length and checksum.
 *
 * One zstd stream with a long window runs over the data of *both* members: a page that
 * was sent before, by either of them, becomes a reference, and a zero page next to nothing.
 */
#ifndef PAIR_FRAME_H
#define PAIR_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define FRAME_MAGIC 0x31504d43u /* "CMP1" */
#define FRAME_MAX (1u << 20)	/* payload of one frame, packed or not */
#define FRAME_WINDOW_LOG 23	/* zstd window: 8 MiB at either end */

#define PAIR_MEMBERS 2 /* 0: the VM, 1: its vTPM */
#define FRAME_OWNER_PAIR 255

enum frame_type { FRAME_MESSAGE = 1, FRAME_DATA = 2, FRAME_END = 3, FRAME_PING = 4 };
enum frame_flag { FRAME_ZSTD = 1 };

/* On the wire, little-endian. */
struct frame_header {
	uint32_t magic;
	uint8_t type, owner;
	uint16_t flags;
	uint32_t length;     /* of the payload behind this header */
	uint32_t raw_length; /* of the payload once unpacked */
	uint64_t sequence;   /* 0, 1, 2 … in each direction */
	uint64_t checksum;   /* XXH3-64 of the payload, seeded with sequence */
};
_Static_assert(sizeof(struct frame_header) == 32, "the frame header is 32 bytes on the wire");

/* A growing queue of bytes: in at the end, out at the front. */
struct bytes {
	uint8_t *data;
	size_t begin, end, room;
};
int bytes_add(struct bytes *b, const void *data, size_t n); /* 0 or -ENOMEM */
uint8_t *bytes_reserve(struct bytes *b, size_t n);	    /* n writable bytes at the end, or NULL */
void bytes_take(struct bytes *b, size_t n);
size_t bytes_size(const struct bytes *b);
void bytes_free(struct bytes *b);

/* The sending half. @zstd_level 0: FRAME_FAST. */
#define FRAME_FAST (-3) /* on memory of Linux guests: 2 × the speed of level 1, a tenth more bytes */
struct mux;
struct mux *mux_new(int zstd_level, bool compress); /* NULL: out of memory */
void mux_free(struct mux *m);
/*
 * Data that is read straight into its frame: room for the header and @n bytes at the end of
 * @out (NULL: out of memory), then what came of them. Without the second nothing is added.
 */
uint8_t *mux_room(struct bytes *out, size_t n);
void mux_data(struct mux *m, uint8_t owner, size_t n, struct bytes *out);
/* Append one frame to @out; data is packed if @pack and the mux compresses. @n ≤ FRAME_MAX. */
int mux_frame(struct mux *m, enum frame_type type, uint8_t owner, const void *data, size_t n,
	      bool pack, struct bytes *out);

/* The receiving half. Callbacks return 0 or -errno, which ends the stream. */
struct demux_events {
	int (*message)(void *ctx, const char *json, size_t n);
	int (*data)(void *ctx, unsigned owner, const uint8_t *data, size_t n);
	int (*end)(void *ctx, unsigned owner);
};
struct demux;
struct demux *demux_new(const struct demux_events *events, void *ctx);
void demux_free(struct demux *d);
/* Only owners that were let in may send: others' frames are -EPROTO. */
void demux_allow(struct demux *d, unsigned owner, bool allowed);
/* Bytes read straight into the stream: room for @n (NULL: out of memory), then demux_feed(d, NULL, n). */
uint8_t *demux_room(struct demux *d, size_t n);
/* -EPROTO: not a frame of ours; -EBADMSG: checksum; -EILSEQ: out of sequence. @err has words. */
int demux_feed(struct demux *d, const void *data, size_t n, struct err *err);

#endif
