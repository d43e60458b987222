/* SPDX-License-Identifier: MIT */
/* A message of the peer, read as the wire reads it: what is taken as an identity is clean, and comes back. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pair/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must_be_clean(const char *text, size_t room)
{
	size_t n = strnlen(text, room);

	if (n == room)
		abort();
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
			abort();
}

static void look_at(struct json_object *o)
{
	struct pair_identity id, again;
	struct err err = {0};
	struct json_object *copy;

	message_text(o, "type");
	message_text(o, "why");
	message_number(o, "exit");
	if (message_to_identity(o, &id, &err)) {
		if (!err.text[0])
			abort();
		return;
	}
	must_be_clean(id.uuid, sizeof(id.uuid));
	must_be_clean(id.name, sizeof(id.name));
	must_be_clean(id.bound_to, sizeof(id.bound_to));
	if (id.uuid[0] && (strlen(id.uuid) != 36 || strchr(id.uuid, '/')))
		abort();
	copy = message_from_identity("qemu", &id);
	if (message_to_identity(copy, &again, NULL) || memcmp(&id, &again, sizeof(id)) != 0)
		abort();
	json_object_put(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct json_tokener *tok = json_tokener_new_ex(16);
	struct json_object *o = json_tokener_parse_ex(tok, (const char *)data, (int)size), *members;

	json_tokener_free(tok);
	look_at(o);
	if (json_object_is_type(o, json_type_object) &&
	    json_object_object_get_ex(o, "members", &members) &&
	    json_object_is_type(members, json_type_array))
		for (size_t i = 0; i < json_object_array_length(members); i++)
			look_at(json_object_array_get_idx(members, i));
	json_object_put(o);
	return 0;
}
