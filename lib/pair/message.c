/* SPDX-License-Identifier: MIT */
#include "pair/message.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "pair/pair.h"

struct json_object *message_new(const char *type)
{
	struct json_object *m = json_object_new_object();

	message_add(m, "type", type);
	return m;
}

const char *message_text(struct json_object *m, const char *key)
{
	struct json_object *v;

	if (!json_object_object_get_ex(m, key, &v) || !json_object_is_type(v, json_type_string))
		return "";
	return json_object_get_string(v);
}

uint64_t message_number(struct json_object *m, const char *key)
{
	struct json_object *v;

	if (!json_object_object_get_ex(m, key, &v) || !json_object_is_type(v, json_type_int))
		return 0;
	return json_object_get_uint64(v);
}

void message_add(struct json_object *m, const char *key, const char *text)
{
	json_object_object_add(m, key, json_object_new_string(text));
}

void message_add_number(struct json_object *m, const char *key, uint64_t n)
{
	json_object_object_add(m, key, json_object_new_uint64(n));
}

struct json_object *message_from_identity(const char *kind, const struct pair_identity *id)
{
	struct json_object *o = json_object_new_object();

	message_add(o, "kind", kind);
	message_add(o, "uuid", id->uuid);
	message_add(o, "name", id->name);
	message_add(o, "bound_to", id->bound_to);
	if (id->platform[0])
		message_add(o, "platform", id->platform);
	message_add_number(o, "mem_bytes", id->mem_bytes);
	message_add_number(o, "disk_bytes", id->disk_bytes);
	return o;
}

static bool uuid_like(const char *s)
{
	if (!*s)
		return true;
	for (unsigned i = 0; i < 36; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (!s[i] || !strchr(dash ? "-" : "0123456789abcdef", s[i]))
			return false;
	}
	return !s[36];
}

static bool copy(char *to, size_t size, const char *from)
{
	for (const char *p = from; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return false; /* no control characters: it goes to terminals and logs */
	return snprintf(to, size, "%s", from) < (int)size;
}

int message_to_identity(struct json_object *o, struct pair_identity *id, struct err *err)
{
	memset(id, 0, sizeof(*id));
	if (!uuid_like(message_text(o, "uuid")) ||
	    !copy(id->uuid, sizeof(id->uuid), message_text(o, "uuid")) ||
	    !copy(id->name, sizeof(id->name), message_text(o, "name")) ||
	    !copy(id->bound_to, sizeof(id->bound_to), message_text(o, "bound_to")) ||
	    !copy(id->platform, sizeof(id->platform), message_text(o, "platform")))
		return err_set(err, -EPROTO, "read request: a member's identity is malformed");
	id->mem_bytes = message_number(o, "mem_bytes");
	id->disk_bytes = message_number(o, "disk_bytes");
	if (id->mem_bytes > 1ull << 50 || id->disk_bytes > 1ull << 50)
		return err_set(err, -EPROTO, "read request: a member of an impossible size");
	return 0;
}

int message_expect(struct wire *w, const char *type, int timeout_ms, struct json_object **out,
		   int *status, struct err *err)
{
	struct json_object *m = NULL;
	const char *got;
	int rc = wire_recv(w, timeout_ms, &m, err);

	if (rc)
		return rc;
	got = message_text(m, "type");
	if (!strcmp(got, type)) {
		*out = m;
		return 0;
	}
	if (!strcmp(got, "refused") || !strcmp(got, "failed") || !strcmp(got, "abort")) {
		if (status)
			*status = (int)message_number(m, "exit");
		rc = err_set(err, -ECANCELED, "the other end: %s", message_text(m, "why"));
	} else {
		rc = err_set(err, -EPROTO, "read message: '%.32s' where '%s' was due", got, type);
	}
	json_object_put(m);
	return rc;
}

int message_nonce(char *buf, size_t n, struct err *err)
{
	unsigned char raw[64];

	if (n > sizeof(raw) || getrandom(raw, n, 0) != (ssize_t)n)
		return err_sys(err, -errno, "get random bytes");
	for (size_t i = 0; i < n; i++)
		snprintf(buf + 2 * i, 3, "%02x", raw[i]);
	return 0;
}

int message_uuid(char *buf, struct err *err)
{
	char hex[33];
	int rc = message_nonce(hex, 16, err);

	if (rc)
		return rc;
	hex[12] = '4';
	hex[16] = "89ab"[hex[16] & 3];
	snprintf(buf, PAIR_ID_SIZE, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16,
		 hex + 20);
	return 0;
}
