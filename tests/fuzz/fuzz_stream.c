/* SPDX-License-Identifier: MIT */
/*
 * A peer's stream, whole and in pieces: the same frames come out, and after an error nothing does.
 * The first byte chooses: the bytes as they are, or records of which frames with the right length,
 * sequence and checksum are made, so that the fuzzer gets to what lies behind those.
 */
#include <endian.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include <zstd.h>

#include "pair/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
	uint64_t digest, events;
	bool ended[PAIR_MEMBERS], over;
};

static int note(struct seen *s, uint8_t kind, unsigned owner, const void *data, size_t n)
{
	uint8_t head[2] = {kind, (uint8_t)owner};

	if (s->over || n > FRAME_MAX)
		abort();
	s->digest = XXH3_64bits_withSeed(head, sizeof(head), s->digest);
	s->digest = XXH3_64bits_withSeed(data, n, s->digest);
	s->events++;
	return 0;
}

static int on_message(void *ctx, const char *json, size_t n)
{
	return note(ctx, 'm', 0, json, n);
}

static int on_data(void *ctx, unsigned owner, const uint8_t *data, size_t n)
{
	struct seen *s = ctx;

	if (owner != 1 || s->ended[owner])
		abort();
	return note(s, 'd', owner, data, n);
}

static int on_end(void *ctx, unsigned owner)
{
	struct seen *s = ctx;

	if (owner != 1 || s->ended[owner])
		abort();
	s->ended[owner] = true;
	return note(s, 'e', owner, "", 0);
}

static const struct demux_events events = {on_message, on_data, on_end};

static int feed(const uint8_t *data, size_t n, const uint8_t *piece, size_t pieces, struct seen *s)
{
	struct demux *d = demux_new(&events, s);
	struct err err = {0};
	size_t at = 0;
	int rc = 0;

	demux_allow(d, 1, true);
	for (size_t k = 0; !rc && at < n; k++) {
		size_t some = pieces ? piece[k % pieces] + 1u : n;

		if (some > n - at)
			some = n - at;
		rc = demux_feed(d, data + at, some, &err);
		at += some;
	}
	if (rc) {
		if (err.code != rc || !err.text[0])
			abort();
		s->over = true;
		for (int i = 0; i < 3; i++)
			if (!demux_feed(d, data, i ? n : 0, NULL))
				abort();
	}
	demux_free(d);
	return rc;
}

/* type, owner, flags, how raw_length lies, 2 bytes of length, payload; and so on. */
static void make_frames(const uint8_t *data, size_t size, struct bytes *out)
{
	static ZSTD_CCtx *z; /* kept: it is dear */
	static uint8_t packed[1 << 17];

	z = z ? z : ZSTD_createCCtx();
	ZSTD_CCtx_reset(z, ZSTD_reset_session_and_parameters);
	ZSTD_CCtx_setParameter(z, ZSTD_c_windowLog, 12);
	for (uint64_t sequence = 0; size >= 6; sequence++) {
		struct frame_header h = {.magic = htole32(FRAME_MAGIC), .type = data[0],
					 .owner = data[1], .flags = htole16(data[2] & 3)};
		size_t n = data[4] | (size_t)data[5] << 8;
		int8_t lie = (int8_t)data[3];
		const uint8_t *payload = data + 6;

		if (n > size - 6)
			n = size - 6;
		size -= 6 + n;
		data += 6 + n;
		h.raw_length = htole32((uint32_t)((int64_t)n + lie));
		if ((h.flags & htole16(FRAME_ZSTD)) && !(h.owner & 0x80)) {
			ZSTD_inBuffer in = {payload, n, 0};
			ZSTD_outBuffer to = {packed, sizeof(packed), 0};

			if (ZSTD_compressStream2(z, &to, &in, ZSTD_e_flush))
				break;
			payload = packed;
			n = to.pos;
		}
		h.owner &= 0x7f;
		if (h.owner == 0x7f)
			h.owner = FRAME_OWNER_PAIR;
		h.length = htole32((uint32_t)n);
		h.sequence = htole64(sequence);
		h.checksum = htole64(XXH3_64bits_withSeed(payload, n, sequence));
		bytes_add(out, &h, sizeof(h));
		if (n)
			bytes_add(out, payload, n);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct seen whole = {0}, pieces = {0};
	struct bytes made = {0};
	const uint8_t *split = data + 1;
	size_t splits;
	int rc;

	if (size < 6)
		return 0;
	splits = 1 + data[0] / 2 % 4;
	data += 5;
	size -= 5;
	if (split[-1] & 1) {
		make_frames(data, size, &made);
		size = bytes_size(&made);
		data = size ? made.data + made.begin : data;
	}
	rc = size ? feed(data, size, NULL, 0, &whole) : 0;
	if (size && (feed(data, size, split, splits, &pieces) != rc || whole.digest != pieces.digest ||
		     whole.events != pieces.events))
		abort();
	bytes_free(&made);
	return 0;
}
