/* SPDX-License-Identifier: MIT */
/* A pair file, as it may be handed over: whole or refused, and a VM's name adds no word to a command. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../cmd/cump-migrate/pairfile.h"
#include "pair/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t words_of(const struct pair_place *p, unsigned i)
{
	struct json_object *words;

	if (p->driver[i] && !strcmp(p->driver[i]->kind, "xen"))
		return 0; /* nothing is started for a domain */
	if (!p->driver[i] || !json_object_object_get_ex(p->place[i], "command", &words) ||
	    !json_object_is_type(words, json_type_array) || !json_object_array_length(words))
		abort();
	return json_object_array_length(words);
}

static int parse(const char *text, const char *name, size_t words[PAIR_MEMBERS])
{
	struct pair_identity ident[PAIR_MEMBERS] = {{.uuid = "0c4ab9bf-3ffc-4bd0-9a3b-0d2d3d1a97f1"}};
	struct pair_place place;
	struct err err = {0};
	int rc;

	strcpy(ident[PAIR_VM].name, name);
	rc = pairfile_parse("f", text, "/run/x", ident, &place, &err);
	if (rc) {
		if (err.code != rc || strncmp(err.text, "read f: ", 8) != 0)
			abort();
		for (const char *p = err.text; *p; p++)
			if ((unsigned char)*p < ' ')
				abort();
		return rc;
	}
	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		words[i] = words_of(&place, i);
		for (const char *p = place.uuid[i]; *p; p++)
			if (!strchr("0123456789abcdef-", *p))
				abort();
	}
	pairfile_free(&place);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t tame[PAIR_MEMBERS] = {0}, wild[PAIR_MEMBERS] = {0};
	char *text = malloc(size + 1);

	memcpy(text, data, size);
	text[size] = '\0';
	/* A value that is a path may have a tame name in it and not a wild one; a command not. */
	if (!parse(text, "a", tame) && !parse(text, "b c' -d \"e\\", wild) &&
	    memcmp(tame, wild, sizeof(tame)) != 0)
		abort();
	free(text);
	return 0;
}
