/* SPDX-License-Identifier: MIT */
/* The command line of a running QEMU, read as QEMU reads it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vm/vm.h"

#define CMDLINE_MAX (4u << 20)

/* Read it all: its size is not known before, and the process may change it meanwhile. */
static int read_whole(int fd, char **text, size_t *len)
{
	size_t room = 0, n = 0;
	char *buf = NULL;
	ssize_t got;

	do {
		if (room - n < 2) {
			char *more;

			room = room ? room * 2 : 8192;
			more = room <= CMDLINE_MAX ? realloc(buf, room) : NULL;
			if (!more) {
				free(buf);
				return room <= CMDLINE_MAX ? -ENOMEM : -E2BIG;
			}
			buf = more;
		}
		got = read(fd, buf + n, room - n - 1);
		if (got < 0) {
			int rc = -errno;

			free(buf);
			return rc;
		}
		n += (size_t)got;
	} while (got);
	buf[n] = '\0';
	*text = buf;
	*len = n;
	return 0;
}

static int read_cmdline(pid_t pid, char **text, size_t *len)
{
	char path[64];
	int fd, rc;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	rc = read_whole(fd, text, len);
	close(fd);
	if (!rc && !*len) { /* a zombie or a kernel thread */
		free(*text);
		rc = -ESRCH;
	}
	return rc;
}

static const char *next_arg(const char *arg, const char *end)
{
	arg += strlen(arg) + 1;
	return arg < end ? arg : NULL;
}

static const char *without_dashes(const char *arg)
{
	if (*arg != '-')
		return "";
	return arg[1] == '-' ? arg + 2 : arg + 1;
}

static int copy(const char *text, size_t n, char *buf, size_t size)
{
	if (n >= size)
		return -ENAMETOOLONG;
	memcpy(buf, text, n);
	buf[n] = '\0';
	return 0;
}

int vm_cmdline_option(pid_t pid, const char *option, int nth, char *buf, size_t size)
{
	const char *arg, *end, *wanted = without_dashes(option);
	char *text = NULL;
	size_t len = 0;
	int rc = read_cmdline(pid, &text, &len);

	if (rc)
		return rc;
	if (!*wanted)
		wanted = option;
	rc = -ENOENT;
	end = text + len;
	for (arg = next_arg(text, end); arg; arg = next_arg(arg, end)) {
		const char *value = next_arg(arg, end);

		if (strcmp(without_dashes(arg), wanted))
			continue;
		if (nth-- > 0)
			continue;
		rc = copy(value ? value : "", value ? strlen(value) : 0, buf, size);
		break;
	}
	free(text);
	return rc;
}

/* One element of the list into @buf, ",," made a comma; returns what follows, or NULL at the end. */
static const char *next_element(const char *text, char *buf)
{
	size_t n = 0;

	for (;; text++) {
		if (*text == ',' && *++text != ',')
			break;
		if (!*text)
			break;
		buf[n++] = *text;
	}
	buf[n] = '\0';
	/* A trailing comma leaves nothing to read. */
	return *text ? text : NULL;
}

/* Whether @element sets @key, and to what; a bare word is a flag, "noword" its opposite. */
static const char *value_of(const char *element, const char *key, bool first)
{
	size_t n = strlen(key);

	if (!strchr(element, '=')) {
		if (first)
			return n ? NULL : element;
		if (n && !strcmp(element, key))
			return "on";
		return n && !strncmp(element, "no", 2) && !strcmp(element + 2, key) ? "off" : NULL;
	}
	return n && !strncmp(element, key, n) && element[n] == '=' ? element + n + 1 : NULL;
}

int vm_suboption(const char *text, const char *key, char *buf, size_t size)
{
	char *element = malloc(strlen(text) + 1);
	bool first = true;
	int rc = -ENOENT;

	if (!element)
		return -ENOMEM;
	do { /* of several, the last counts */
		const char *value;

		text = next_element(text, element);
		value = value_of(element, key, first);
		if (value)
			rc = copy(value, strlen(value), buf, size);
		first = false;
	} while (text);
	free(element);
	return rc;
}
