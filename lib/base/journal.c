/* SPDX-License-Identifier: MIT */
#include "base/journal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/units.h"

#define KEEP_DONE 100
#define JOURNAL_MAX (4u << 20) /* a journal is a few KiB; more is damage */
#define LOCK_TRIES 100	       /* a millisecond apart: journal_read has it for a moment */

struct journal {
	int fd;
	char dir[4096], path[4400];
	struct json_object *entries;
	bool torn; /* half a line could not be cut off: what follows would be glued to it */
};

static int make_dirs(const char *dir, struct err *err)
{
	char path[4096];

	if (snprintf(path, sizeof(path), "%s", dir) >= (int)sizeof(path))
		return err_set(err, -ENAMETOOLONG, "make %s: name too long", dir);
	for (char *p = path + 1;; p++) {
		char c = *p;

		if (c != '/' && c)
			continue;
		*p = '\0';
		if (mkdir(path, 0700) && errno != EEXIST)
			return err_sys(err, -errno, "make folder %s", path);
		*p = c;
		if (!c)
			return 0;
	}
}

static int sync_dir(const char *dir, struct err *err)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

	if (fd < 0 || fsync(fd))
		rc = err_sys(err, -errno, "sync %s", dir);
	if (fd >= 0)
		close(fd);
	return rc;
}

static char *read_all(int fd, size_t *size, struct err *err)
{
	struct stat st;
	char *text;
	ssize_t n;

	if (fstat(fd, &st) || st.st_size > JOURNAL_MAX) {
		err_set(err, -EFBIG, "read journal: not a journal (too large)");
		return NULL;
	}
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return NULL;
	n = pread(fd, text, (size_t)st.st_size, 0);
	if (n < 0) {
		err_sys(err, -errno, "read journal");
		free(text);
		return NULL;
	}
	text[n] = '\0';
	*size = (size_t)n;
	return text;
}

/* *@whole: bytes up to the end of the last complete line. */
static struct json_object *parse_lines(char *text, size_t *whole)
{
	struct json_object *all = json_object_new_array();
	char *line = text, *end;

	*whole = 0;
	while ((end = strchr(line, '\n'))) {
		struct json_object *one;

		*end = '\0';
		one = json_tokener_parse(line);
		if (!json_object_is_type(one, json_type_object)) {
			json_object_put(one);
			break;
		}
		json_object_array_add(all, one);
		line = end + 1;
		*whole = (size_t)(line - text);
	}
	return all;
}

/*
 * What a crash leaves of the last append: no end of line, or zeros where its blocks were not
 * written. Anything else is damage, and behind it may stand a "go".
 */
static bool torn(const char *rest, size_t n)
{
	const char *end = memchr(rest, '\n', n);

	return !end || (end == rest + n - 1 && memchr(rest, '\0', n));
}

/* The entries, or NULL with @err; *@whole as parse_lines has it. */
static struct json_object *entries_of(const char *path, int fd, size_t *size, size_t *whole,
				      struct err *err)
{
	char *text = read_all(fd, size, err), *copy;
	struct json_object *all = NULL;

	if (!text)
		return NULL;
	copy = strdup(text);
	if (copy)
		all = parse_lines(copy, whole);
	free(copy);
	if (all && !torn(text + *whole, *size - *whole)) {
		json_object_put(all);
		all = NULL;
		err_set(err, -EBADMSG, "read %s: damaged after %zu bytes", path, *whole);
	}
	free(text);
	return all;
}

static int load(struct journal *j, struct err *err)
{
	struct err why = {0};
	size_t size = 0, whole = 0;

	j->entries = entries_of(j->path, j->fd, &size, &whole, &why);
	if (!j->entries)
		return err_set(err, why.code ? why.code : -ENOMEM, "%s",
			       why.code ? why.text : "read journal: out of memory");
	/* A torn line was never promised: cut it off, or the next one would be glued to it. */
	if (whole != size && ftruncate(j->fd, (off_t)whole))
		return err_sys(err, -errno, "mend %s", j->path);
	return 0;
}

static int lock(int fd)
{
	static const struct timespec pause = {0, 1000000};
	int rc;

	for (int tries = 0; (rc = flock(fd, LOCK_EX | LOCK_NB)) && tries < LOCK_TRIES; tries++)
		nanosleep(&pause, NULL);
	return rc;
}

int journal_open(const char *dir, const char *name, bool create, struct journal **out,
		 struct err *err)
{
	struct journal *j = calloc(1, sizeof(*j));
	int rc = create ? make_dirs(dir, err) : 0;

	if (!j)
		return err_set(err, -ENOMEM, "open journal: out of memory");
	j->fd = -1;
	if (rc)
		goto fail;
	snprintf(j->dir, sizeof(j->dir), "%s", dir);
	snprintf(j->path, sizeof(j->path), "%s/%s", dir, name);
	j->fd = open(j->path, O_RDWR | O_APPEND | O_CLOEXEC | (create ? O_CREAT | O_EXCL : 0), 0600);
	if (j->fd < 0) {
		rc = err_sys(err, -errno, "open journal %s", j->path);
		goto fail;
	}
	if (lock(j->fd)) {
		rc = err_set(err, -EBUSY, "open journal %s: a live process holds it", j->path);
		goto fail;
	}
	rc = load(j, err);
	if (!rc && create)
		rc = sync_dir(dir, err);
	if (rc)
		goto fail;
	*out = j;
	return 0;
fail:
	journal_close(j);
	return rc;
}

static int write_line(int fd, const char *text, size_t size)
{
	ssize_t n = write(fd, text, size);

	if (n >= 0 && (size_t)n < size)
		errno = ENOSPC;
	return n != (ssize_t)size || fdatasync(fd) ? -1 : 0;
}

int journal_append(struct journal *j, const char *state, struct json_object *entry,
		   struct err *err)
{
	struct json_object *line = json_object_new_object();
	char when[40];
	const char *text;
	char *whole = NULL;
	off_t before = lseek(j->fd, 0, SEEK_END);
	int n, rc = 0;

	json_object_object_add(line, "state", json_object_new_string(state));
	json_object_object_add(line, "when", json_object_new_string(units_iso8601(
						     units_realtime_us(), when, sizeof(when))));
	if (entry) {
		json_object_object_foreach(entry, key, value)
			json_object_object_add(line, key, json_object_get(value));
		json_object_put(entry);
	}
	text = json_object_to_json_string_ext(line, JSON_C_TO_STRING_NOSLASHESCAPE);
	n = asprintf(&whole, "%s\n", text);
	if (n < 0)
		rc = err_set(err, -ENOMEM, "write %s: out of memory", j->path);
	else if (j->torn)
		rc = err_set(err, -EIO, "write %s: an earlier line is torn", j->path);
	else if (write_line(j->fd, whole, (size_t)n))
		rc = err_sys(err, -errno, "write %s", j->path);
	free(whole);
	if (!rc) {
		json_object_array_add(j->entries, line);
		return 0;
	}
	json_object_put(line);
	if (ftruncate(j->fd, before)) /* half a line must not stay; load() would cut it off too */
		j->torn = true;
	return rc;
}

struct json_object *journal_entries(struct journal *j)
{
	return j->entries;
}

static const char *state_of(struct json_object *entry)
{
	struct json_object *s;

	if (entry && json_object_object_get_ex(entry, "state", &s))
		return json_object_get_string(s);
	return "";
}

struct json_object *journal_find(struct journal *j, const char *state)
{
	for (size_t i = json_object_array_length(j->entries); i-- > 0;) {
		struct json_object *e = json_object_array_get_idx(j->entries, i);

		if (!strcmp(state_of(e), state))
			return e;
	}
	return NULL;
}

const char *journal_state(struct journal *j)
{
	size_t n = json_object_array_length(j->entries);

	return n ? state_of(json_object_array_get_idx(j->entries, n - 1)) : "";
}

const char *journal_path(const struct journal *j)
{
	return j->path;
}

static int older_first(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int plain_file(const struct dirent *e)
{
	return e->d_name[0] != '.';
}

/* Names in done/ begin with the time, so that the order of names is the order of age. */
static void prune(const char *done)
{
	struct dirent **list;
	int n = scandir(done, &list, plain_file, older_first);

	for (int i = 0; i < n; i++) {
		char path[4800];

		snprintf(path, sizeof(path), "%s/%s", done, list[i]->d_name);
		if (i < n - KEEP_DONE)
			unlink(path);
		free(list[i]);
	}
	if (n >= 0)
		free(list);
}

void journal_retire(struct journal *j)
{
	char done[4200], to[4700], when[40];

	if (!j)
		return;
	snprintf(done, sizeof(done), "%s/done", j->dir);
	snprintf(to, sizeof(to), "%s/%s-%s", done,
		 units_iso8601(units_realtime_us(), when, sizeof(when)), strrchr(j->path, '/') + 1);
	if (make_dirs(done, NULL) || rename(j->path, to))
		unlink(j->path);
	sync_dir(j->dir, NULL);
	prune(done);
	journal_close(j);
}

void journal_close(struct journal *j)
{
	if (!j)
		return;
	if (j->fd >= 0)
		close(j->fd);
	json_object_put(j->entries);
	free(j);
}

struct json_object *journal_read(const char *path, bool *live, struct err *err)
{
	struct json_object *all;
	size_t size, whole;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		err_sys(err, -errno, "read %s", path);
		return NULL;
	}
	*live = flock(fd, LOCK_SH | LOCK_NB) != 0;
	flock(fd, LOCK_UN); /* at once: journal_open may come */
	all = entries_of(path, fd, &size, &whole, err);
	close(fd);
	return all;
}
