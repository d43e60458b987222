/* SPDX-License-Identifier: MIT */
/* Pair files: words, lines that go on, and errors that name file, section and key. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../cmd/cump-migrate/pairfile.h"
#include "../../cmd/cump-migrate/drivers.h"
#include "pair/message.h"

#define UUID "0c4ab9bf-3ffc-4bd0-9a3b-0d2d3d1a97f1"
#define VTPM_UUID "5f0a7f0e-8f0b-4e57-8a3f-3f6b7f0a6c11"
#define DIR "/run/x/0123"

static const struct pair_identity ident[PAIR_MEMBERS] = {{.uuid = UUID, .name = "web 1"},
							{.uuid = VTPM_UUID, .name = "web 1 vtpm"}};

static const char usual[] = "[pair]\n"
			    "vm-uuid = " UUID "\n"
			    "[vtpm]\n"
			    "command = swtpm socket --tpm2 --ctrl type=unixio,path=${dir}/c\n"
			    "ctrl = ${dir}/c\n"
			    "state = ${dir}/tpm\n"
			    "[vm]\n"
			    "command = qemu -name ${name} -uuid ${uuid} -S\n"
			    "qmp = ${dir}/q\n";

static void parse(const char *text, struct pair_place *place)
{
	struct err err = {0};

	if (pairfile_parse("f.pair", text, DIR, ident, place, &err))
		fail_msg("%s", err.text);
}

/* The command's words, joined by '|'. */
static const char *words_of(const struct pair_place *place, unsigned i)
{
	static char text[20000];
	struct json_object *words;

	text[0] = '\0';
	assert_true(json_object_object_get_ex(place->place[i], "command", &words));
	for (size_t k = 0; k < json_object_array_length(words); k++) {
		if (k)
			strcat(text, "|");
		strcat(text, json_object_get_string(json_object_array_get_idx(words, k)));
	}
	return text;
}

static void assert_words(const char *command, const char *words)
{
	struct pair_place place;
	char text[4000];

	snprintf(text, sizeof(text), "[vm]\ncommand = %s\nqmp = /q\n[vtpm]\ncommand = x\nctrl = /c\n",
		 command);
	parse(text, &place);
	assert_string_equal(words_of(&place, PAIR_VM), words);
	pairfile_free(&place);
}

static void assert_error(const char *text, const char *words)
{
	struct pair_place place;
	struct err err = {0};
	int rc = pairfile_parse("f.pair", text, DIR, ident, &place, &err);

	if (rc != -EINVAL || err.code != -EINVAL)
		fail_msg("%d, not refused: %s", rc, text);
	if (strncmp(err.text, "read f.pair: ", 13) != 0 || !strstr(err.text, words))
		fail_msg("'%s' lacks '%s'", err.text, words);
	assert_null(place.place[0]);
	assert_null(place.place[1]);
}

static void a_whole_file(void **state)
{
	struct pair_place p;

	(void)state;
	parse(usual, &p);
	assert_string_equal(p.dir, DIR);
	assert_string_equal(p.uuid[PAIR_VM], UUID);
	assert_string_equal(p.uuid[PAIR_VTPM], "");
	assert_string_equal(p.driver[PAIR_VM]->kind, "qemu");
	assert_string_equal(p.driver[PAIR_VTPM]->kind, "swtpm");
	assert_string_equal(message_text(p.place[PAIR_VM], "qmp"), DIR "/q");
	assert_string_equal(message_text(p.place[PAIR_VM], "role"), "vm");
	assert_string_equal(message_text(p.place[PAIR_VM], "dir"), DIR);
	assert_string_equal(message_text(p.place[PAIR_VTPM], "ctrl"), DIR "/c");
	assert_string_equal(message_text(p.place[PAIR_VTPM], "state"), DIR "/tpm");
	assert_string_equal(words_of(&p, PAIR_VTPM),
			    "swtpm|socket|--tpm2|--ctrl|type=unixio,path=" DIR "/c");
	pairfile_free(&p);
	pairfile_free(&p); /* once more does no harm */
	parse("[pair]\nvm-uuid=0C4AB9BF-3FFC-4BD0-9A3B-0D2D3D1A97F1\nvtpm-uuid=" UUID
	      "\n[vm]\ncommand=a\nqmp=/q\n[vtpm]\ncommand=b\nqmp=/p\n", &p);
	assert_string_equal(p.uuid[PAIR_VM], UUID);
	assert_string_equal(p.uuid[PAIR_VTPM], UUID);
	assert_string_equal(p.driver[PAIR_VTPM]->kind, "qemu");
	pairfile_free(&p);
}

static void quoting(void **state)
{
	(void)state;
	assert_words("a b  c\td", "a|b|c|d");
	assert_words("'a b' \"c d\"", "a b|c d");
	assert_words("a'b c'd\"e f\"", "ab cde f");
	assert_words("'' x \"\"", "|x|");
	assert_words("'\"' \"'\"", "\"|'");
	assert_words("a\\ b \\'c \\\\", "a b|'c|\\");
	assert_words("'a\\ b' \"a\\\"b\"", "a\\ b|a\"b");
	assert_words("x\\", "x\\");
	assert_words("$HOME `id` $(id) * ~ a=b", "$HOME|`id`|$(id)|*|~|a=b");
	assert_words("a$ $ {dir}", "a$|$|{dir}");
	assert_error("[vm]\ncommand = a 'b\nqmp=/q\n[vtpm]\ncommand = x\nctrl=/c\n",
		     "[vm] command: a quote is open");
	assert_error("[vm]\ncommand = a\nqmp=/q\n[vtpm]\ncommand = \"x\nctrl=/c\n",
		     "[vtpm] command: a quote is open");
}

static void lines_that_go_on(void **state)
{
	char text[8000] = "";

	(void)state;
	assert_words("a b\n    c d\n\te", "a|b|c|d|e");
	assert_words("a 'b\n    c' d", "a|b c|d");
	for (unsigned i = 0; i < 60; i++)
		strcat(text, i ? "\n  -device xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" : "qemu");
	struct pair_place p;
	char file[9000];

	snprintf(file, sizeof(file), "[vm]\ncommand = %s\nqmp = /q\n[vtpm]\ncommand=x\nctrl=/c\n", text);
	parse(file, &p);
	assert_int_equal(strlen(words_of(&p, PAIR_VM)), 4 + 59 * (1 + 7 + 1 + 53));
	pairfile_free(&p);
}

static void long_lines(void **state)
{
	char text[1000], line[300];

	(void)state;
	memset(line, 'x', sizeof(line));
	line[190 - 10] = '\0';
	snprintf(text, sizeof(text), "[vm]\ncommand = %s\nqmp = /q\n[vtpm]\ncommand=x\nctrl=/c\n", line);
	struct pair_place p;

	parse(text, &p); /* 190 are taken whole */
	assert_int_equal(strlen(words_of(&p, PAIR_VM)), 180);
	pairfile_free(&p);
	line[180] = 'x';
	line[181] = '\0';
	snprintf(text, sizeof(text), "[vm]\ncommand = %s\nqmp = /q\n[vtpm]\ncommand=x\nctrl=/c\n", line);
	assert_error(text, "line 2 has more than 190 characters");
}

static void what_is_unknown_or_missing(void **state)
{
	(void)state;
	assert_error("[vm]\nqpm = /x\n", "[vm] qpm: no such key (command, qmp, ctrl, state, domain)");
	assert_error("[pair]\nname = x\n", "[pair] name: no such key (vm-uuid, vtpm-uuid)");
	assert_error("[guest]\nname = x\n", "[guest]: no such section (pair, vm, vtpm)");
	assert_error("name = x\n", "no such section");
	assert_error("[pair]\nvm-uuid = 17\n", "[pair] vm-uuid: not a uuid");
	assert_error("[pair]\nvm-uuid = 0c4ab9bf-3ffc-4bd0-9a3b-0d2d3d1a97fg\n", "[pair] vm-uuid: not a uuid");
	assert_error("[vm]\nqmp = q\n", "[vm] qmp: not an absolute path");
	assert_error("[vtpm]\nctrl = /123456789012345678901234567890123456789012345678901234567890"
		     "12345678901234567890123456789012345678901234567\n",
		     "[vtpm] ctrl: not an absolute path of at most 107 characters");
	assert_error("[vm]\ncommand = ${home}/qemu\n", "[vm] command: unknown ${…}");
	assert_error("[vm]\ncommand = ${dir\n", "[vm] command: unknown ${…}");
	assert_error("[vm]\ncommand = ${}\n", "[vm] command: unknown ${…}");
	assert_error("[vm]\nwhat is this\n", "line 2 is not 'key = value' or '[section]'");
	assert_error("[vm\n", "line 1 is not");
	assert_error("", "command: it is missing");
	assert_error("[vm]\nqmp = /q\n", "[vm] command: it is missing");
	assert_error("[vm]\ncommand = a\n", "[vm]: qmp is missing");
	assert_error("[vm]\ncommand = a\nqmp = /q\n[vtpm]\ncommand = b\n",
		     "[vtpm]: qmp or ctrl is missing");
	assert_error("[vm]\ncommand = a\nctrl = /q\n[vtpm]\ncommand = b\nctrl=/c\n", "[vm]: qmp is missing");
}

/* The first error is told, though the reader goes on. */
static void the_first_error(void **state)
{
	(void)state;
	assert_error("[vm]\nfirst = /x\nsecond = /x\nnonsense\n", "[vm] first: no such key");
}

/* Where Xen is built in, a domain is let in by a word, and takes no other. */
static void domains(void **state)
{
	struct pair_place p;
	struct err err = {0};

	(void)state;
	if (!driver_find("xen")) {
		assert_error("[vm]\ndomain = handed\n[vtpm]\ndomain = handed\n", "does not know Xen");
		return;
	}
	assert_int_equal(pairfile_parse("f.pair", "[vm]\ndomain = handed\n[vtpm]\ndomain = handed\n", DIR,
					ident, &p, &err), 0);
	assert_string_equal(p.driver[PAIR_VTPM]->kind, "xen");
	assert_string_equal(message_text(p.place[PAIR_VM], "uuid"), UUID);
	assert_string_equal(message_text(p.place[PAIR_VTPM], "uuid"), VTPM_UUID);
	pairfile_free(&p);
	assert_error("[vm]\ndomain = any\n[vtpm]\ndomain = handed\n", "'handed' is all");
	assert_error("[vm]\ndomain = handed\ncommand = rm\n[vtpm]\ndomain = handed\n", "has no command");
}

/* A name that the source chose is one word, whatever is in it. */
static void names_stay_one_word(void **state)
{
	const struct pair_identity blank[PAIR_MEMBERS] = {{.uuid = UUID, .name = "a b -monitor x"}};
	const struct pair_identity odd[PAIR_MEMBERS] = {{.uuid = UUID, .name = "a,debug-threads=on"}};
	struct pair_place p;
	struct err err = {0};

	(void)state;
	if (pairfile_parse("f.pair", usual, DIR, blank, &p, &err))
		fail_msg("%s", err.text);
	assert_string_equal(words_of(&p, PAIR_VM), "qemu|-name|a b -monitor x|-uuid|" UUID "|-S");
	pairfile_free(&p);
	/* Nor a sub-option of its own. */
	assert_int_equal(pairfile_parse("f.pair", usual, DIR, odd, &p, &err), -EINVAL);
	assert_non_null(strstr(err.text, "name"));
}

static void files(void **state)
{
	char path[] = "/tmp/test_pairfile.XXXXXX";
	int fd = mkstemp(path);
	struct err err = {0};
	char *text;

	(void)state;
	assert_int_equal(write(fd, usual, strlen(usual)), (ssize_t)strlen(usual));
	text = pairfile_read(path, &err);
	assert_non_null(text);
	assert_string_equal(text, usual);
	free(text);
	assert_int_equal(fchmod(fd, 0620), 0);
	assert_null(pairfile_read(path, &err));
	assert_int_equal(err.code, -EACCES);
	assert_non_null(strstr(err.text, "others may write it"));
	assert_int_equal(fchmod(fd, 0600), 0);
	assert_int_equal(write(fd, "\0more", 5), 5); /* nothing hides behind an end of text */
	assert_null(pairfile_read(path, &err));
	assert_int_equal(err.code, -EINVAL);
	assert_int_equal(ftruncate(fd, 65537), 0);
	assert_null(pairfile_read(path, &err));
	assert_int_equal(err.code, -EINVAL);
	assert_null(pairfile_read("/tmp", &err));
	unlink(path);
	close(fd);
	assert_null(pairfile_read(path, &err));
	assert_int_equal(err.code, -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_whole_file),
		cmocka_unit_test(quoting),
		cmocka_unit_test(lines_that_go_on),
		cmocka_unit_test(long_lines),
		cmocka_unit_test(what_is_unknown_or_missing),
		cmocka_unit_test(the_first_error),
		cmocka_unit_test(domains),
		cmocka_unit_test(names_stay_one_word),
		cmocka_unit_test(files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
