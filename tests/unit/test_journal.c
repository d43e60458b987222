/* SPDX-License-Identifier: MIT */
/* Journals: what was promised is there after a crash, what was not is not. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/journal.h"

static char top[] = "/tmp/test_journal.XXXXXX";
static char dir[64], file[80];

static int make_dir(void **state)
{
	static int n;

	(void)state;
	snprintf(dir, sizeof(dir), "%s/%d/state", top, n++);
	snprintf(file, sizeof(file), "%s/a.source", dir);
	return 0;
}

static int make_top(void **state)
{
	(void)state;
	return !mkdtemp(top);
}

static int remove_top(void **state)
{
	char cmd[64];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -rf %s", top);
	return system(cmd);
}

static struct journal *open_journal(bool create)
{
	struct journal *j = NULL;
	struct err err = {0};

	if (journal_open(dir, "a.source", create, &j, &err))
		fail_msg("%s", err.text);
	return j;
}

static struct json_object *number(int n)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "n", json_object_new_int(n));
	return o;
}

static void append(struct journal *j, const char *state, int n)
{
	struct err err = {0};

	if (journal_append(j, state, number(n), &err))
		fail_msg("%s", err.text);
}

static int n_of(struct json_object *entry)
{
	struct json_object *n;

	assert_true(json_object_object_get_ex(entry, "n", &n));
	return json_object_get_int(n);
}

static void add_text(const char *path, const void *text, size_t n)
{
	int fd = open(path, O_WRONLY | O_APPEND);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, n), (ssize_t)n);
	close(fd);
}

static size_t entries_in_file(void)
{
	struct json_object *all;
	struct err err = {0};
	bool live;
	size_t n;

	all = journal_read(file, &live, &err);
	if (!all)
		fail_msg("%s", err.text);
	n = json_object_array_length(all);
	json_object_put(all);
	return n;
}

static void entries_come_back(void **state)
{
	struct journal *j = open_journal(true);
	struct json_object *o;
	struct stat st;

	(void)state;
	assert_string_equal(journal_state(j), "");
	assert_null(journal_find(j, "begin"));
	append(j, "begin", 1);
	append(j, "begin", 2);
	append(j, "go", 3);
	assert_int_equal(journal_append(j, "done", NULL, NULL), 0);
	for (int again = 0; again < 2; again++) {
		assert_string_equal(journal_path(j), file);
		assert_string_equal(journal_state(j), "done");
		assert_int_equal(json_object_array_length(journal_entries(j)), 4);
		assert_int_equal(n_of(journal_find(j, "begin")), 2);
		assert_true(json_object_object_get_ex(journal_find(j, "go"), "when", &o));
		assert_int_equal(strlen(json_object_get_string(o)), 24);
		assert_null(journal_find(j, "aborted"));
		journal_close(j);
		j = again ? NULL : open_journal(false);
	}
	journal_close(NULL);
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(stat(file, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static void there_already_or_not_there(void **state)
{
	struct journal *j = NULL;
	struct err err = {0};
	bool live;

	(void)state;
	assert_int_equal(journal_open(dir, "a.source", false, &j, &err), -ENOENT);
	assert_non_null(strstr(err.text, file));
	assert_null(journal_read(file, &live, &err));
	assert_int_equal(err.code, -ENOENT);
	journal_close(open_journal(true));
	assert_int_equal(journal_open(dir, "a.source", true, &j, &err), -EEXIST);
	assert_null(j);
}

/* A crash left part of a line, at every length of it, or a block of zeros. */
static void a_torn_line_was_never_promised(void **state)
{
	static const char line[] = "{ \"state\": \"go\", \"when\": \"2026\", \"n\": 3 }";
	static const char zeros[4096];

	(void)state;
	journal_close(open_journal(true));
	for (size_t n = 1; n <= sizeof(line) - 1; n++) {
		struct journal *j = open_journal(false);

		append(j, "begin", (int)n);
		journal_close(j);
		add_text(file, line, n);
		assert_int_equal(entries_in_file(), 2 * n - 1);
		j = open_journal(false);
		assert_string_equal(journal_state(j), "begin");
		append(j, "aborted", (int)n); /* not glued to it */
		journal_close(j);
		assert_int_equal(entries_in_file(), 2 * n);
	}
	add_text(file, zeros, sizeof(zeros));
	assert_int_equal(entries_in_file(), 2 * (sizeof(line) - 1));
	struct journal *j = open_journal(false);

	append(j, "done", 0);
	journal_close(j);
	assert_int_equal(entries_in_file(), 2 * (sizeof(line) - 1) + 1);
}

/* Damage before the last line is no torn line: what stands behind it may be a "go". */
static void damage_is_not_mended_away(void **state)
{
	static const char rest[] = "half a li\n{ \"state\": \"go\", \"n\": 3 }\n";
	struct journal *j = open_journal(true);
	struct stat before, after;
	struct err err = {0};
	bool live;

	(void)state;
	append(j, "begin", 1);
	journal_close(j);
	add_text(file, rest, strlen(rest));
	assert_int_equal(stat(file, &before), 0);
	assert_int_equal(journal_open(dir, "a.source", false, &j, &err), -EBADMSG);
	assert_non_null(strstr(err.text, file));
	assert_null(journal_read(file, &live, &err));
	assert_int_equal(err.code, -EBADMSG);
	assert_int_equal(stat(file, &after), 0);
	assert_int_equal(before.st_size, after.st_size);
}

static void what_is_no_journal(void **state)
{
	struct journal *j = open_journal(true);
	struct err err = {0};

	(void)state;
	journal_close(j);
	assert_int_equal(truncate(file, 64 << 20), 0);
	assert_true(journal_open(dir, "a.source", false, &j, &err) < 0);
	assert_non_null(strstr(err.text, "too large"));
}

static void a_live_process_holds_it(void **state)
{
	struct journal *j = open_journal(true), *second = NULL;
	struct err err = {0};
	int pipes[2], status;
	struct json_object *all;
	bool live = false;
	pid_t pid;
	char c;

	(void)state;
	append(j, "begin", 1);
	journal_close(j);
	assert_int_equal(pipe(pipes), 0);
	pid = fork();
	if (!pid) {
		open_journal(false);
		if (write(pipes[1], "x", 1) != 1)
			_exit(1);
		pause();
	}
	assert_int_equal(read(pipes[0], &c, 1), 1);
	assert_int_equal(journal_open(dir, "a.source", false, &second, &err), -EBUSY);
	assert_non_null(strstr(err.text, "a live process holds it"));
	all = journal_read(file, &live, &err);
	assert_non_null(all);
	assert_true(live);
	json_object_put(all);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	all = journal_read(file, &live, &err);
	assert_false(live);
	json_object_put(all);
	journal_close(open_journal(false));
	close(pipes[0]);
	close(pipes[1]);
}

static void *look_all_the_time(void *arg)
{
	volatile bool *stop = arg;
	bool live;

	while (!*stop)
		json_object_put(journal_read(file, &live, NULL));
	return NULL;
}

/* Who only looks is not taken for one who holds it. */
static void a_look_holds_nobody_up(void **state)
{
	volatile bool stop = false;
	pthread_t t;

	(void)state;
	journal_close(open_journal(true));
	assert_int_equal(pthread_create(&t, NULL, look_all_the_time, (void *)&stop), 0);
	for (unsigned i = 0; i < 300; i++) {
		struct journal *j = NULL;
		struct err err = {0};
		int rc = journal_open(dir, "a.source", false, &j, &err);

		if (rc) {
			stop = true;
			pthread_join(t, NULL);
			fail_msg("try %u: %s", i, err.text);
		}
		append(j, "begin", 1);
		journal_close(j);
	}
	stop = true;
	pthread_join(t, NULL);
}

/* What could not be written whole is not there, and the next promise is. */
static void fill_up(struct journal *j, unsigned *fitted)
{
	struct err err = {0};
	char text[701];
	size_t already = json_object_array_length(journal_entries(j));
	int rc;

	memset(text, 't', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	for (*fitted = 0;; ++*fitted) {
		struct json_object *o = json_object_new_object();

		json_object_object_add(o, "text", json_object_new_string(text));
		rc = journal_append(j, "more", o, &err);
		if (rc)
			break;
		assert_true(*fitted < 4000);
	}
	assert_true(rc == -ENOSPC || rc == -EFBIG);
	assert_non_null(strstr(err.text, journal_path(j)));
	assert_int_equal(json_object_array_length(journal_entries(j)), already + *fitted);
}

static void a_limit_of_the_file(void **state)
{
	struct journal *j = open_journal(true);
	struct rlimit old, small;
	struct stat st;
	unsigned fitted;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = old;
	small.rlim_cur = 10000;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	fill_up(j, &fitted);
	assert_int_equal(stat(file, &st), 0);
	assert_true(st.st_size < 10000 && st.st_size > 8000);
	assert_int_equal(entries_in_file(), fitted);
	setrlimit(RLIMIT_FSIZE, &old);
	append(j, "aborted", 1);
	journal_close(j);
	assert_int_equal(entries_in_file(), fitted + 1);
}

static void a_full_disk(void **state)
{
	struct journal *j;
	unsigned fitted, again;
	char ballast[96];
	int fd;

	(void)state;
	snprintf(ballast, sizeof(ballast), "%s/full", top);
	mkdir(ballast, 0700);
	if (mount("none", ballast, "tmpfs", 0, "size=64k")) {
		print_message("no tmpfs here (%s)\n", strerror(errno));
		skip();
	}
	snprintf(dir, sizeof(dir), "%s/full/state", top);
	snprintf(file, sizeof(file), "%s/a.source", dir);
	snprintf(ballast, sizeof(ballast), "%s/full/ballast", top);
	fd = open(ballast, O_CREAT | O_WRONLY, 0600);
	assert_int_equal(write(fd, "x", 1), 1);
	close(fd);
	j = open_journal(true);
	fill_up(j, &fitted);
	assert_int_equal(entries_in_file(), fitted);
	unlink(ballast);
	append(j, "aborted", 1);
	assert_int_equal(entries_in_file(), fitted + 1);
	fill_up(j, &again);
	journal_close(j);
	j = open_journal(false);
	assert_int_equal(json_object_array_length(journal_entries(j)), fitted + 1 + again);
	journal_close(j);
}

static int unmount(void **state)
{
	char path[64];

	(void)state;
	snprintf(path, sizeof(path), "%s/full", top);
	umount2(path, MNT_DETACH);
	return 0;
}

static unsigned count(const char *path)
{
	struct dirent *e;
	unsigned n = 0;
	DIR *d = opendir(path);

	assert_non_null(d);
	while ((e = readdir(d)))
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

static void the_newest_hundred_are_kept(void **state)
{
	char done[80], path[700];
	struct journal *j = NULL;
	struct dirent **list;
	int n;

	(void)state;
	snprintf(done, sizeof(done), "%s/done", dir);
	for (int i = 0; i < 103; i++) {
		char name[32];

		/* Names in falling order: age is told by the time, not by the name. */
		snprintf(name, sizeof(name), "%03d.source", 200 - i);
		assert_int_equal(journal_open(dir, name, true, &j, NULL), 0);
		append(j, "done", i);
		journal_retire(j);
		usleep(1100);
	}
	journal_retire(NULL);
	assert_int_equal(count(dir), 1); /* done/ alone */
	assert_int_equal(count(done), 100);
	n = scandir(done, &list, NULL, alphasort);
	for (int i = 0, k = 3; i < n; i++) {
		struct json_object *all;
		bool live;

		if (list[i]->d_name[0] != '.') {
			snprintf(path, sizeof(path), "%s/%s", done, list[i]->d_name);
			all = journal_read(path, &live, NULL);
			assert_false(live);
			assert_int_equal(n_of(json_object_array_get_idx(all, 0)), k++);
			json_object_put(all);
		}
		free(list[i]);
	}
	free(list);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup(f, make_dir)
	const struct CMUnitTest tests[] = {
		TEST(entries_come_back),
		TEST(there_already_or_not_there),
		TEST(a_torn_line_was_never_promised),
		TEST(damage_is_not_mended_away),
		TEST(what_is_no_journal),
		TEST(a_live_process_holds_it),
		TEST(a_look_holds_nobody_up),
		TEST(a_limit_of_the_file),
		cmocka_unit_test_setup_teardown(a_full_disk, make_dir, unmount),
		TEST(the_newest_hundred_are_kept),
	};

	return cmocka_run_group_tests(tests, make_top, remove_top);
}
