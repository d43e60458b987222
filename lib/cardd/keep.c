/* SPDX-License-Identifier: MIT */
#include "cardd/keep.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/notify.h"

#define FDS_START 3
#define FDS_MAX 4096
#define PREFIX "peer."

bool keep_there(void)
{
	const char *store = getenv("FDSTORE"); /* systemd 254 and later say how many */

	return getenv("NOTIFY_SOCKET") && (!store || strtoul(store, NULL, 10));
}

/* A VM's name may hold dots, so the parts behind it are found from the end. */
bool keep_parse(const char *name, struct keep_fd *to)
{
	const char *kind, *id, *vm = name + strlen(PREFIX);
	char *end;
	unsigned long n;

	if (strncmp(name, PREFIX, strlen(PREFIX)) != 0)
		return false;
	kind = strrchr(vm, '.');
	if (!kind || kind == vm)
		return false;
	for (id = kind - 1; id > vm && *id != '.'; id--)
		;
	if (id == vm || (size_t)(id - vm) >= sizeof(to->vm) || !kind[1] || strlen(kind + 1) >= sizeof(to->kind))
		return false;
	n = strtoul(id + 1, &end, 10);
	if (end != kind || end == id + 1 || n > 65535 || id[1] < '0' || id[1] > '9')
		return false;
	*to = (struct keep_fd){.id = (uint32_t)n, .fd = -1};
	memcpy(to->vm, vm, (size_t)(id - vm));
	strcpy(to->kind, kind + 1); /* NOLINT: measured above */
	return true;
}

static void name_of(char *name, size_t size, const char *vm, uint32_t id, const char *kind)
{
	snprintf(name, size, PREFIX "%s.%u.%s", vm, id, kind);
}

void keep_begin(struct keep *k)
{
	const char *count = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID"), *names = getenv("LISTEN_FDNAMES");
	unsigned long n = count ? strtoul(count, NULL, 10) : 0;

	*k = (struct keep){0};
	if (!n || n > FDS_MAX || !names || !pid || strtoul(pid, NULL, 10) != (unsigned long)getpid())
		return;
	k->fds = calloc(n, sizeof(*k->fds));
	for (unsigned long i = 0; k->fds && i < n; i++) {
		size_t len = strcspn(names, ":");
		char name[128];

		snprintf(name, sizeof(name), "%.*s", (int)len, names);
		names += len + (names[len] == ':');
		if (fcntl(FDS_START + (int)i, F_SETFD, FD_CLOEXEC) || !keep_parse(name, &k->fds[k->count]))
			continue;
		k->fds[k->count++].fd = FDS_START + (int)i;
	}
	unsetenv("LISTEN_FDS");
}

int keep_take(struct keep *k, const char *vm, uint32_t id, const char *kind)
{
	for (size_t i = 0; i < k->count; i++) {
		struct keep_fd *f = &k->fds[i];
		int fd = f->fd;

		if (fd < 0 || f->id != id || strcmp(f->vm, vm) != 0 || strcmp(f->kind, kind) != 0)
			continue;
		f->fd = -1;
		return fd;
	}
	return -1;
}

bool keep_next(const struct keep *k, const char *vm, uint32_t *id)
{
	for (size_t i = 0; i < k->count; i++)
		if (k->fds[i].fd >= 0 && !strcmp(k->fds[i].vm, vm) && !strcmp(k->fds[i].kind, "conn")) {
			*id = k->fds[i].id;
			return true;
		}
	return false;
}

void keep_end(struct keep *k)
{
	for (size_t i = 0; i < k->count; i++) {
		if (k->fds[i].fd < 0)
			continue;
		close(k->fds[i].fd);
		keep_forget(k->fds[i].vm, k->fds[i].id, k->fds[i].kind);
	}
	free(k->fds);
	*k = (struct keep){0};
}

void keep_store(const char *vm, uint32_t id, const char *kind, int fd)
{
	char name[128], text[192];

	name_of(name, sizeof(name), vm, id, kind);
	snprintf(text, sizeof(text), "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", name);
	notify_with_fd(text, fd);
}

void keep_forget(const char *vm, uint32_t id, const char *kind)
{
	char name[128], text[192];

	name_of(name, sizeof(name), vm, id, kind);
	snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", name);
	notify(text);
}
