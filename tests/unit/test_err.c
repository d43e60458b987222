/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/err.h"

static void words_and_code(void **state)
{
	struct err err = {0};

	(void)state;
	assert_int_equal(err_set(&err, -EINVAL, "open %s: %d", "x", 7), -EINVAL);
	assert_int_equal(err.code, -EINVAL);
	assert_string_equal(err.text, "open x: 7");
	assert_int_equal(err_sys(&err, -ENOENT, "open %s", "x"), -ENOENT);
	assert_string_equal(err.text, "open x: No such file or directory");
	assert_int_equal(err_prefix(&err, "member %s", "vm"), -ENOENT);
	assert_string_equal(err.text, "member vm: open x: No such file or directory");
}

static void nobody_cares(void **state)
{
	(void)state;
	assert_int_equal(err_set(NULL, -EINVAL, "x"), -EINVAL);
	assert_int_equal(err_sys(NULL, -ENOENT, "x"), -ENOENT);
	assert_int_equal(err_prefix(NULL, "x"), 0);
}

static void too_long_is_cut(void **state)
{
	char many[1000];
	struct err err = {0};

	(void)state;
	memset(many, 'x', sizeof(many));
	many[sizeof(many) - 1] = '\0';
	err_set(&err, -EIO, "%s", many);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
	err_sys(&err, -EIO, "%s", many);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
	err_prefix(&err, "%s", many);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
	assert_int_equal(err.code, -EIO);
}

/* The text itself as an argument, and what a peer had put into it. */
static void own_text_and_a_peers(void **state)
{
	struct err err = {0};

	(void)state;
	err_set(&err, -1, "cut");
	err_set(&err, -2, "move vm: gave up (%s)", err.text);
	assert_string_equal(err.text, "move vm: gave up (cut)");
	err_set(&err, -2, "the other end: %s", "a\033[2J\r\nb\177");
	assert_string_equal(err.text, "the other end: a?[2J??b?");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(words_and_code),
		cmocka_unit_test(nobody_cares),
		cmocka_unit_test(too_long_is_cut),
		cmocka_unit_test(own_text_and_a_peers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
