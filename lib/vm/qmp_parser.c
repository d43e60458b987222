/* SPDX-License-Identifier: MIT */
/* QMP messages out of a byte stream: one JSON object a line. */
#include "vm/qmp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_BYTES (16u << 20)
#define DEPTH_MAX 64

struct message {
	struct message *next;
	struct json_object *obj;
};

struct qmp_parser {
	struct json_tokener *tok;
	struct message *first, **last;
	char *line; /* what has come of the line so far */
	size_t len, room;
	int broken; /* the error that every further feed gets */
};

struct qmp_parser *qmp_parser_new(void)
{
	struct qmp_parser *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->last = &p->first;
	p->tok = json_tokener_new_ex(DEPTH_MAX);
	if (!p->tok) {
		free(p);
		return NULL;
	}
	json_tokener_set_flags(p->tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	return p;
}

void qmp_parser_free(struct qmp_parser *p)
{
	struct json_object *obj;

	if (!p)
		return;
	while ((obj = qmp_parser_next(p)))
		json_object_put(obj);
	json_tokener_free(p->tok);
	free(p->line);
	free(p);
}

static int append(struct qmp_parser *p, const char *data, size_t n)
{
	if (!n)
		return 0;
	if (n > LINE_MAX_BYTES - p->len)
		return -EMSGSIZE;
	if (p->len + n > p->room) {
		size_t room = p->room ? p->room : 4096;
		char *line;

		while (room < p->len + n)
			room *= 2;
		line = realloc(p->line, room);
		if (!line)
			return -ENOMEM;
		p->line = line;
		p->room = room;
	}
	memcpy(p->line + p->len, data, n);
	p->len += n;
	return 0;
}

static int queue(struct qmp_parser *p, struct json_object *obj)
{
	struct message *m = malloc(sizeof(*m));

	if (!m) {
		json_object_put(obj);
		return -ENOMEM;
	}
	*m = (struct message){.obj = obj};
	*p->last = m;
	p->last = &m->next;
	return 0;
}

static int take_line(struct qmp_parser *p)
{
	size_t n = p->len;
	struct json_object *obj;

	p->len = 0;
	while (n && strchr(" \t\r", p->line[n - 1]) && p->line[n - 1])
		n--;
	if (!n)
		return 0;
	json_tokener_reset(p->tok);
	obj = json_tokener_parse_ex(p->tok, p->line, (int)n);
	if (obj && json_tokener_get_error(p->tok) == json_tokener_success &&
	    json_tokener_get_parse_end(p->tok) == n && json_object_is_type(obj, json_type_object))
		return queue(p, obj);
	json_object_put(obj);
	return -EPROTO;
}

int qmp_parser_feed(struct qmp_parser *p, const void *data, size_t n)
{
	const char *at = data, *end = at + n;

	while (at < end && !p->broken) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));

		p->broken = append(p, at, (size_t)((newline ? newline : end) - at));
		if (!newline)
			break;
		if (!p->broken)
			p->broken = take_line(p);
		at = newline + 1;
	}
	return p->broken;
}

struct json_object *qmp_parser_next(struct qmp_parser *p)
{
	struct message *m = p->first;
	struct json_object *obj;

	if (!m)
		return NULL;
	p->first = m->next;
	if (!p->first)
		p->last = &p->first;
	obj = m->obj;
	free(m);
	return obj;
}
