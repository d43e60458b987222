/* SPDX-License-Identifier: MIT */
/* A monitor's bytes, whole and in pieces (the first byte says how long): the same messages. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vm/qmp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look_at(struct json_object *msg)
{
	char small[16], large[512];
	const char *text = qmp_str(msg, "error.desc");

	qmp_u64(msg, "timestamp.seconds", 0);
	qmp_u64(msg, "id", 0);
	qmp_bool(msg, "return.running", false);
	qmp_str(msg, "event");
	qmp_clean(text, small, sizeof(small));
	if (text) {
		qmp_quote(text, small, sizeof(small));
		qmp_quote(text, large, sizeof(large));
	}
	for (const char *p = small; *p; p++)
		if ((unsigned char)*p < ' ')
			abort();
}

static int feed(const uint8_t *data, size_t size, size_t piece, size_t *messages)
{
	struct qmp_parser *p = qmp_parser_new();
	struct json_object *msg;
	int rc = 0;

	*messages = 0;
	for (size_t at = 0; !rc && at < size; at += piece)
		rc = qmp_parser_feed(p, data + at, size - at < piece ? size - at : piece);
	while ((msg = qmp_parser_next(p))) {
		look_at(msg);
		json_object_put(msg);
		++*messages;
	}
	qmp_parser_free(p);
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t whole, pieces;

	if (size < 2)
		return 0;
	if (feed(data + 1, size - 1, size - 1, &whole) != feed(data + 1, size - 1, data[0] + 1u, &pieces) ||
	    whole != pieces)
		abort();
	return 0;
}
