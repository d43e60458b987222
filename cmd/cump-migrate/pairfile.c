/* SPDX-License-Identifier: MIT */
#include "pairfile.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "drivers.h"
#include "pair/message.h"

#define TEXT_MAX 65536
#define VALUE_MAX 16384
#define LINE_MAX_CHARS 190

struct parse {
	const char *name, *dir;
	const struct pair_identity *ident;
	struct pair_place *place;
	struct err *err;
	int rc;
};

static const struct {
	const char *name;
	unsigned member;
} sections[] = {{"vm", PAIR_VM}, {"vtpm", PAIR_VTPM}};

/*
 * The name is the source's word. Within a word of a command it could still begin another
 * option's argument or leave a folder: such names do not stand for ${name}.
 */
static bool plain_name(const char *name)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-+@ ";

	return *name && *name != '-' && *name != '.' && strspn(name, plain) == strlen(name);
}

static const char *variable(const struct parse *p, const char *name, size_t n)
{
	if (n == 3 && !strncmp(name, "dir", n))
		return p->dir;
	if (n == 4 && !strncmp(name, "uuid", n))
		return p->ident[PAIR_VM].uuid;
	if (n == 4 && !strncmp(name, "name", n) && plain_name(p->ident[PAIR_VM].name))
		return p->ident[PAIR_VM].name;
	return NULL;
}

/* ${…} replaced; NULL if one is unknown or has no fit value. Caller frees. */
static char *expand(const struct parse *p, const char *text)
{
	char *out = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&out, &size);

	while (f && *text) {
		const char *end, *value;

		if (text[0] != '$' || text[1] != '{') {
			fputc(*text++, f);
			continue;
		}
		end = strchr(text, '}');
		value = end ? variable(p, text + 2, (size_t)(end - text - 2)) : NULL;
		if (!value) {
			fclose(f);
			free(out);
			return NULL;
		}
		fputs(value, f);
		text = end + 1;
	}
	if (f)
		fclose(f);
	return out;
}

/* Words as a shell splits them: blanks, '…', "…", backslash; nothing is replaced. -EINVAL. */
static int split(const char *text, struct json_object *words)
{
	char *word = malloc(strlen(text) + 1);
	int rc = 0;

	while (word && !rc) {
		char quote = 0, *w = word;
		bool any = false;

		text += strspn(text, " \t");
		if (!*text)
			break;
		for (; *text && (quote || (*text != ' ' && *text != '\t')); text++) {
			any = true;
			if (quote ? *text == quote : (*text == '\'' || *text == '"'))
				quote = quote ? 0 : *text;
			else if (*text == '\\' && quote != '\'' && text[1])
				*w++ = *++text;
			else
				*w++ = *text;
		}
		*w = '\0';
		if (quote)
			rc = -EINVAL;
		else if (any)
			json_object_array_add(words, json_object_new_string(word));
	}
	free(word);
	return rc;
}

static int set_member(struct parse *p, unsigned i, const char *key, const char *value)
{
	struct json_object *o = p->place->place[i];

	if (!strcmp(key, "command")) { /* a continuation line comes as the same key again */
		char *whole = NULL;

		if (asprintf(&whole, "%s %s", message_text(o, "command"), value) < 0)
			return err_set(p->err, -ENOMEM, "read %s: out of memory", p->name);
		message_add(o, "command", whole);
		free(whole);
		return 0;
	}
	if (!strcmp(key, "domain")) {
		message_add(o, "domain", value);
		return 0;
	}
	if (strcmp(key, "qmp") != 0 && strcmp(key, "ctrl") != 0 && strcmp(key, "state") != 0)
		return err_set(p->err, -EINVAL, "read %s: [%s] %s: no such key (command, qmp, ctrl, state, "
			       "domain)", p->name, sections[i].name, key);
	if (value[0] != '/' || strlen(value) > 107)
		return err_set(p->err, -EINVAL, "read %s: [%s] %s: not an absolute path of at most 107 characters",
			       p->name, sections[i].name, key);
	message_add(o, key, value);
	return 0;
}

static int set_pair(struct parse *p, const char *key, const char *value)
{
	unsigned i = !strcmp(key, "vtpm-uuid");

	if (!i && strcmp(key, "vm-uuid") != 0)
		return err_set(p->err, -EINVAL, "read %s: [pair] %s: no such key (vm-uuid, vtpm-uuid)",
			       p->name, key);
	if (strlen(value) != 36 || strspn(value, "0123456789abcdefABCDEF-") != 36)
		return err_set(p->err, -EINVAL, "read %s: [pair] %s: not a uuid", p->name, key);
	for (unsigned k = 0; k <= 36; k++)
		p->place->uuid[i][k] = value[k] >= 'A' && value[k] <= 'Z' ? (char)(value[k] | 32)
									 : value[k];
	return 0;
}

static int unknown_variable(const struct parse *p, const char *section, const char *key)
{
	return err_set(p->err, -EINVAL, "read %s: [%s] %s: unknown ${…} (dir, uuid, name), or the "
		       "VM's name is too odd to stand for ${name}", p->name, section, key);
}

/* libinih's callback: 1 goes on, 0 is an error. */
static int on_entry(void *ctx, const char *section, const char *key, const char *value)
{
	struct parse *p = ctx;
	char *full;

	if (p->rc)
		return 0; /* the first error is the one to tell */
	/* A command is split first, so that no value can bring in words of its own. */
	full = strcmp(key, "command") != 0 ? expand(p, value) : strdup(value);
	p->rc = -EINVAL;
	if (!full)
		unknown_variable(p, section, key);
	else if (!strcmp(section, "pair"))
		p->rc = set_pair(p, key, full);
	else if (!strcmp(section, "vm") || !strcmp(section, "vtpm"))
		p->rc = set_member(p, !strcmp(section, "vtpm"), key, full);
	else
		err_set(p->err, -EINVAL, "read %s: [%s]: no such section (pair, vm, vtpm)", p->name,
			section);
	free(full);
	return p->rc == 0;
}

static int expand_words(const struct parse *p, const char *section, struct json_object *words)
{
	for (size_t i = 0; i < json_object_array_length(words); i++) {
		const char *word = json_object_get_string(json_object_array_get_idx(words, i));
		char *full = expand(p, word);

		if (!full)
			return unknown_variable(p, section, "command");
		json_object_array_put_idx(words, i, json_object_new_string(full));
		free(full);
	}
	return 0;
}

/* A domain of Xen brings its own configuration along; here it is only allowed in. */
static int choose_domain(struct parse *p, unsigned i)
{
	struct json_object *o = p->place->place[i];
	const struct pair_driver *driver = driver_find("xen");

	if (strcmp(message_text(o, "domain"), "handed") != 0)
		return err_set(p->err, -EINVAL, "read %s: [%s] domain: 'handed' is all it can be", p->name,
			       sections[i].name);
	if (message_text(o, "command")[0] || message_text(o, "qmp")[0] || message_text(o, "ctrl")[0])
		return err_set(p->err, -EINVAL, "read %s: [%s]: a domain has no command", p->name,
			       sections[i].name);
	if (!driver)
		return err_set(p->err, -ENOTSUP, "read %s: [%s] domain: this build does not know Xen",
			       p->name, sections[i].name);
	p->place->driver[i] = driver;
	message_add(o, "role", sections[i].name);
	message_add(o, "dir", p->dir);
	message_add(o, "uuid", p->ident[i].uuid);
	message_add(o, "name", p->ident[i].name);
	message_add(o, "platform", p->ident[i].platform);
	message_add_number(o, "mem_bytes", p->ident[i].mem_bytes);
	return 0;
}

/* A member with a monitor is a QEMU, one with a control socket a swtpm. */
static int choose_drivers(struct parse *p)
{
	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		struct json_object *o = p->place->place[i];
		bool swtpm = message_text(o, "ctrl")[0] && i == PAIR_VTPM;
		struct json_object *words;
		int rc;

		if (message_text(o, "domain")[0]) {
			rc = choose_domain(p, i);
			if (rc)
				return rc;
			continue;
		}
		words = json_object_new_array();
		rc = split(message_text(o, "command"), words);
		json_object_object_add(o, "command", words);
		if (rc || !json_object_array_length(words))
			return err_set(p->err, -EINVAL, "read %s: [%s] command: %s", p->name,
				       sections[i].name, rc ? "a quote is open" : "it is missing");
		if (expand_words(p, sections[i].name, words))
			return -EINVAL;
		if (!swtpm && !message_text(o, "qmp")[0])
			return err_set(p->err, -EINVAL, "read %s: [%s]: %s is missing", p->name,
				       sections[i].name, i ? "qmp or ctrl" : "qmp");
		p->place->driver[i] = driver_find(swtpm ? "swtpm" : "qemu");
		message_add(o, "role", sections[i].name);
		message_add(o, "dir", p->dir);
	}
	return 0;
}

/* libinih (as Debian builds it) cuts lines of 200 characters in two: never let it. */
static int check_lines(const char *name, const char *text, struct err *err)
{
	for (unsigned line = 1; *text; line++) {
		size_t n = strcspn(text, "\n");

		if (n > LINE_MAX_CHARS)
			return err_set(err, -EINVAL, "read %s: line %u has more than %d characters: "
				       "go on in an indented line", name, line, LINE_MAX_CHARS);
		text += n + (text[n] == '\n');
	}
	return 0;
}

int pairfile_parse(const char *name, const char *text, const char *dir,
		   const struct pair_identity ident[PAIR_MEMBERS], struct pair_place *place,
		   struct err *err)
{
	struct parse p = {name, dir, ident, place, err, 0};
	int rc;

	memset(place, 0, sizeof(*place));
	if (check_lines(name, text, err))
		return -EINVAL;
	snprintf(place->dir, sizeof(place->dir), "%s", dir);
	for (unsigned i = 0; i < PAIR_MEMBERS; i++)
		place->place[i] = json_object_new_object();
	rc = ini_parse_string(text, on_entry, &p);
	if (p.rc || rc) {
		if (!p.rc)
			err_set(err, -EINVAL, "read %s: line %d is not 'key = value' or '[section]'",
				name, rc);
		rc = -EINVAL;
	} else {
		rc = choose_drivers(&p);
	}
	if (rc)
		pairfile_free(place);
	return rc;
}

char *pairfile_read(const char *path, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *text = NULL;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st)) {
		err_sys(err, -errno, "read %s", path);
	} else if (!S_ISREG(st.st_mode) || st.st_size > TEXT_MAX) {
		err_set(err, -EINVAL, "read %s: not a pair file", path);
	} else if ((st.st_mode & 022) || (st.st_uid && st.st_uid != geteuid())) {
		err_set(err, -EACCES, "read %s: others may write it, and it says what is run "
			"(chmod go-w, chown)", path);
	} else {
		text = calloc(1, (size_t)st.st_size + 1);
		n = text ? read(fd, text, (size_t)st.st_size) : -1;
		if (n != st.st_size || strlen(text) != (size_t)n) {
			if (n != st.st_size)
				err_sys(err, -EIO, "read %s", path);
			else
				err_set(err, -EINVAL, "read %s: not a text", path);
			free(text);
			text = NULL;
		}
	}
	if (fd >= 0)
		close(fd);
	return text;
}

void pairfile_show(const struct pair_place *place)
{
	for (unsigned k = PAIR_MEMBERS; k-- > 0;) {
		struct json_object *words;
		char line[VALUE_MAX] = "";
		size_t n = 0;

		if (!json_object_object_get_ex(place->place[k], "command", &words))
			continue;
		for (size_t i = 0; i < json_object_array_length(words) && n < sizeof(line); i++)
			n += (size_t)snprintf(line + n, sizeof(line) - n, " %s",
					      json_object_get_string(
						      json_object_array_get_idx(words, i)));
		log_note("runs for the %s:%s", sections[k].name, line);
	}
}

void pairfile_free(struct pair_place *place)
{
	for (unsigned i = 0; i < PAIR_MEMBERS; i++) {
		json_object_put(place->place[i]);
		place->place[i] = NULL;
	}
}
