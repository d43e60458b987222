/* SPDX-License-Identifier: MIT */
/* The coordinator's messages: JSON objects with a "type"; see cump-stream(5). */
#ifndef PAIR_MESSAGE_H
#define PAIR_MESSAGE_H

#include <stddef.h>
#include <json-c/json.h>

#include "base/err.h"
#include "pair/member.h"
#include "pair/wire.h"

struct json_object *message_new(const char *type);
/* Borrowed text of @key, "" if absent or no string. */
const char *message_text(struct json_object *m, const char *key);
uint64_t message_number(struct json_object *m, const char *key);
void message_add(struct json_object *m, const char *key, const char *text);
void message_add_number(struct json_object *m, const char *key, uint64_t n);

struct json_object *message_from_identity(const char *kind, const struct pair_identity *id);
/* Checks lengths, and that a uuid looks like one. -EPROTO. */
int message_to_identity(struct json_object *o, struct pair_identity *id, struct err *err);

/*
 * Wait for a message of @type. A "refused" or "failed" of the peer is -ECANCELED with its
 * own words in @err and its exit status in *@status (may be NULL); any other type is -EPROTO.
 */
int message_expect(struct wire *w, const char *type, int timeout_ms, struct json_object **out,
		   int *status, struct err *err);

/* @n random bytes as hex, from the kernel, into @buf (2n + 1). */
int message_nonce(char *buf, size_t n, struct err *err);
/* A random (version 4) uuid into @buf (37). */
int message_uuid(char *buf, struct err *err);

#endif
