/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tpm/tpm.h"

#define CORPUS "tests/fuzz/corpus/fuzz_tpm/"

static struct tpm_request request(enum tpm_family family, enum tpm_op op, const char *alg)
{
	return (struct tpm_request){
		.family = family,
		.op = op,
		.alg = tpm_alg_find(alg),
		.pcr = 16,
		.property = TPM20_PT_FAMILY,
	};
}

static void assert_built(const struct tpm_request *rq, const uint8_t *want, size_t n)
{
	uint8_t buf[TPM_BUF_MAX];

	assert_int_equal(tpm_build(rq, buf), n);
	assert_memory_equal(buf, want, n);
}

static void builds_hash(void **state)
{
	static const uint8_t want[] = {0x80, 1, 0, 0, 0, 21, 0, 0, 1,	 0x7d, 0,
				       3,    1, 2, 3, 0, 4,  0x40, 0, 0, 7};
	static const uint8_t data[] = {1, 2, 3};
	struct tpm_request rq = request(TPM_FAMILY_20, TPM_OP_HASH, "sha1");

	(void)state;
	rq.data = data;
	rq.size = sizeof(data);
	assert_built(&rq, want, sizeof(want));
}

static void builds_update_with_password(void **state)
{
	static const uint8_t want[] = {
		0x80, 2, 0, 0, 0, 30, 0, 0, 1, 0x5c, 0x80, 0, 0, 1, /* handle */
		0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0,	     /* password */
		0, 1, 0xaa,
	};
	static const uint8_t data[] = {0xaa};
	struct tpm_request rq = request(TPM_FAMILY_20, TPM_OP_SEQ_UPDATE, "sha1");

	(void)state;
	rq.handle = 0x80000001;
	rq.data = data;
	rq.size = sizeof(data);
	assert_built(&rq, want, sizeof(want));
}

static void builds_pcr_read(void **state)
{
	static const uint8_t want[] = {0x80, 1, 0, 0, 0, 20, 0, 0, 1, 0x7e,
				       0,    0, 0, 1, 0, 0xb, 3, 0, 0, 1};
	struct tpm_request rq = request(TPM_FAMILY_20, TPM_OP_PCR_READ, "sha256");

	(void)state;
	assert_built(&rq, want, sizeof(want));
	rq.pcr = 24;
	assert_int_equal(tpm_build(&rq, (uint8_t[TPM_BUF_MAX]){0}), -EINVAL);
}

static void builds_12(void **state)
{
	static const uint8_t start[] = {0, 0xc1, 0, 0, 0, 10, 0, 0, 0, 0xa0};
	static const uint8_t complete[] = {0, 0xc1, 0, 0, 0, 16, 0, 0,
					   0, 0xa2, 0, 0, 0, 2,	 9, 8};
	static const uint8_t data[] = {9, 8};
	struct tpm_request rq = request(TPM_FAMILY_12, TPM_OP_SEQ_START, "sha1");

	(void)state;
	assert_built(&rq, start, sizeof(start));
	rq.op = TPM_OP_SEQ_COMPLETE;
	rq.data = data;
	rq.size = sizeof(data);
	assert_built(&rq, complete, sizeof(complete));
	rq.op = TPM_OP_HASH;
	assert_int_equal(tpm_build(&rq, (uint8_t[TPM_BUF_MAX]){0}), -EINVAL);
}

static void builds_nothing_too_big(void **state)
{
	static uint8_t data[TPM_BUF_MAX + 1];

	(void)state;
	for (int family = TPM_FAMILY_12; family <= TPM_FAMILY_20; family++)
		for (int op = 0; op < TPM_OP_COUNT; op++) {
			struct tpm_request rq = request(family, op, "sha1");
			uint8_t buf[TPM_BUF_MAX];
			int n;

			rq.data = data;
			rq.size = sizeof(data);
			assert_int_equal(tpm_build(&rq, buf), -EINVAL);
			rq.size = TPM_BUF_MAX - 20;
			n = tpm_build(&rq, buf);
			assert_true(n == -EINVAL || (n >= 10 && n <= TPM_BUF_MAX));
		}
}

static size_t load(const char *name, uint8_t *buf)
{
	char path[512];
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), CORPUS "%s", name);
	f = fopen(path, "r");
	if (!f)
		fail_msg("%s: run from the project's top folder", path);
	n = fread(buf, 1, TPM_BUF_MAX, f);
	fclose(f);
	return n;
}

static const struct real {
	const char *name;
	enum tpm_family family;
	enum tpm_op op;
	const char *alg;
	int rc;
	size_t digest;
} reals[] = {
	{"tpm20-17d-40-0", TPM_FAMILY_20, TPM_OP_HASH, "sha1", 0, 20},
	{"tpm20-17d-84-0", TPM_FAMILY_20, TPM_OP_HASH, "sha512", 0, 64},
	{"tpm20-186-14-0", TPM_FAMILY_20, TPM_OP_SEQ_START, "sha1", 0, 0},
	{"tpm20-15c-19-0", TPM_FAMILY_20, TPM_OP_SEQ_UPDATE, "sha1", 0, 0},
	{"tpm20-13e-61-0", TPM_FAMILY_20, TPM_OP_SEQ_COMPLETE, "sha256", 0, 32},
	{"tpm20-182-19-0", TPM_FAMILY_20, TPM_OP_PCR_EXTEND, "sha1", 0, 0},
	{"tpm20-17e-78-0", TPM_FAMILY_20, TPM_OP_PCR_READ, "sha384", 0, 48},
	{"tpm20-144-10-100", TPM_FAMILY_20, TPM_OP_STARTUP, "sha1", -EREMOTEIO, 0},
	{"tpm12-0a0-14-0", TPM_FAMILY_12, TPM_OP_SEQ_START, "sha1", 0, 0},
	{"tpm12-0a2-30-0", TPM_FAMILY_12, TPM_OP_SEQ_COMPLETE, "sha1", 0, 20},
	{"tpm12-014-30-0", TPM_FAMILY_12, TPM_OP_PCR_EXTEND, "sha1", 0, 20},
	{"tpm12-065-18-0", TPM_FAMILY_12, TPM_OP_PROPERTY, "sha1", 0, 0},
	{"tpm12-17a-10-a", TPM_FAMILY_20, TPM_OP_PROPERTY, "sha1", -EREMOTEIO, 0},
};

static void parses_real_answers(void **state)
{
	uint8_t buf[TPM_BUF_MAX];
	struct tpm_answer a;

	(void)state;
	for (size_t i = 0; i < sizeof(reals) / sizeof(reals[0]); i++) {
		const struct real *r = &reals[i];
		struct tpm_request rq = request(r->family, r->op, r->alg);
		size_t n = load(r->name, buf);

		assert_int_equal(tpm_parse(&rq, buf, n, &a), r->rc);
		assert_int_equal(a.digest_size, r->digest);
		assert_int_equal(tpm_response_size(buf, n), n);
	}
}

/* Cut at any byte, longer by one, or of another algorithm: never taken for an answer. */
static void refuses_what_is_not_whole(void **state)
{
	uint8_t buf[TPM_BUF_MAX];
	struct tpm_answer a;

	(void)state;
	for (size_t i = 0; i < sizeof(reals) / sizeof(reals[0]); i++) {
		const struct real *r = &reals[i];
		struct tpm_request rq = request(r->family, r->op, r->alg);
		size_t n = load(r->name, buf);

		for (size_t cut = 0; cut < n; cut++) {
			assert_int_equal(tpm_parse(&rq, buf, cut, &a), -EPROTO);
			if (cut >= 10) {
				buf[5] = (uint8_t)cut;
				assert_true(tpm_parse(&rq, buf, cut, &a) != 0);
				buf[5] = (uint8_t)n;
			}
		}
		buf[5]++;
		assert_int_equal(tpm_parse(&rq, buf, n + 1, &a), -EPROTO);
		buf[5]--;
		if (!r->digest || r->family == TPM_FAMILY_12)
			continue;
		rq.alg = tpm_alg_find(r->digest == 20 ? "sha256" : "sha1");
		assert_int_equal(tpm_parse(&rq, buf, n, &a), -EPROTO);
	}
}

static void return_codes(void **state)
{
	char text[64];

	(void)state;
	assert_true(tpm_rc_is_transient(TPM_FAMILY_20, 0x922));
	assert_true(tpm_rc_is_transient(TPM_FAMILY_12, 0x800));
	assert_false(tpm_rc_is_transient(TPM_FAMILY_20, 0x101));
	assert_true(tpm_rc_is_no_sequence(TPM_FAMILY_12, 0x1a));
	assert_true(tpm_rc_is_no_sequence(TPM_FAMILY_20, 0x18b));
	assert_true(tpm_rc_is_no_sequence(TPM_FAMILY_20, 0x910));
	assert_false(tpm_rc_is_no_sequence(TPM_FAMILY_20, 0x1d5));
	assert_string_equal(tpm_rc_text(TPM_FAMILY_20, 0x922, text, sizeof(text)),
			    "0x922 TPM_RC_RETRY");
	assert_string_equal(tpm_rc_text(TPM_FAMILY_20, 0xfff, text, sizeof(text)), "0xfff");
}

static void targets(void **state)
{
	struct err err = {0};

	(void)state;
	assert_int_equal(tpm_target_check("/dev/tpm0", NULL), 0);
	assert_int_equal(tpm_target_check("unix:/tmp/x", NULL), 0);
	assert_int_equal(tpm_target_check("tcp:localhost:2321", NULL), 0);
	assert_int_equal(tpm_target_check("tcti:mssim", NULL), 0);
	assert_int_equal(tpm_target_check("tcti:", &err), -EINVAL);
	assert_int_equal(tpm_target_check("tcp:nowhere", &err), -EINVAL);
	assert_int_equal(tpm_target_check("tpm0", &err), -EINVAL);
	assert_int_equal(tpm_target_check("", &err), -EINVAL);
	assert_true(tpm_target_is_exclusive("/dev/tpm0"));
	assert_false(tpm_target_is_exclusive("/dev/tpmrm0"));
	assert_false(tpm_target_is_exclusive("unix:/tmp/x"));
}

/* A far end in this process: what it writes is what the transport must cope with. */
struct far_end {
	char path[64], target[80];
	int listener, fd;
	struct tpm *tpm;
};

static int far_end_open(void **state)
{
	struct far_end *f = calloc(1, sizeof(*f));
	struct sockaddr_un sa = {.sun_family = AF_UNIX};

	snprintf(f->path, sizeof(f->path), "/tmp/test_tpm.%d", (int)getpid());
	snprintf(f->target, sizeof(f->target), "unix:%s", f->path);
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", f->path);
	unlink(f->path);
	f->listener = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(f->listener, (struct sockaddr *)&sa, sizeof(sa)) || listen(f->listener, 1) ||
	    tpm_open(f->target, 1000, &f->tpm, NULL))
		return -1;
	f->fd = accept(f->listener, NULL, NULL);
	*state = f;
	return 0;
}

static int far_end_close(void **state)
{
	struct far_end *f = *state;

	tpm_close(f->tpm);
	close(f->fd);
	close(f->listener);
	unlink(f->path);
	free(f);
	return 0;
}

static const uint8_t answer[10] = {0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0};

static void say(const struct far_end *f, const void *data, size_t n)
{
	assert_int_equal(write(f->fd, data, n), n);
}

static void socket_joins_pieces(void **state)
{
	struct far_end *f = *state;
	uint8_t buf[TPM_BUF_MAX];

	assert_int_equal(tpm_receive(f->tpm, buf, 1), -EAGAIN);
	for (size_t i = 0; i < sizeof(answer) - 1; i++) {
		say(f, answer + i, 1);
		assert_int_equal(tpm_receive(f->tpm, buf, 100), -EAGAIN);
	}
	say(f, answer + 9, 1);
	assert_int_equal(tpm_receive(f->tpm, buf, 100), 10);
	assert_memory_equal(buf, answer, 10);
	assert_false(tpm_out_of_step(f->tpm, true));
}

static void socket_sees_an_answer_too_many(void **state)
{
	struct far_end *f = *state;
	uint8_t buf[TPM_BUF_MAX];

	assert_false(tpm_out_of_step(f->tpm, true));
	say(f, answer, 10);
	assert_true(tpm_out_of_step(f->tpm, true));
	say(f, answer, 10);
	assert_int_equal(tpm_receive(f->tpm, buf, 100), 10);
	assert_true(tpm_out_of_step(f->tpm, true));
	assert_false(tpm_abandon(f->tpm));
}

static void socket_refuses_a_lying_length(void **state)
{
	static const uint8_t huge[10] = {0x80, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0};
	struct far_end *f = *state;
	uint8_t buf[TPM_BUF_MAX];

	say(f, huge, 10);
	assert_int_equal(tpm_receive(f->tpm, buf, 100), -EPROTO);
}

static void socket_tells_of_the_end(void **state)
{
	struct far_end *f = *state;
	uint8_t buf[TPM_BUF_MAX];

	shutdown(f->fd, SHUT_RDWR);
	assert_int_equal(tpm_receive(f->tpm, buf, 100), -ECONNRESET);
	assert_int_equal(tpm_send(f->tpm, answer, 10), -EPIPE);
	assert_false(tpm_survives(f->tpm, -EPIPE));
}

static void opens_nothing_that_is_no_tpm(void **state)
{
	struct err err = {0};
	struct tpm *tpm;

	(void)state;
	assert_int_equal(tpm_open("/dev/no-such-tpm", 100, &tpm, &err), -ENOENT);
	assert_int_equal(tpm_open("/tmp", 100, &tpm, &err), -EISDIR);
	assert_int_equal(tpm_open("unix:/tmp/no-such-socket", 100, &tpm, &err), -ENOENT);
	assert_null(tpm);
	assert_non_null(strstr(err.text, "no-such-socket"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(builds_hash),
		cmocka_unit_test(builds_update_with_password),
		cmocka_unit_test(builds_pcr_read),
		cmocka_unit_test(builds_12),
		cmocka_unit_test(builds_nothing_too_big),
		cmocka_unit_test(parses_real_answers),
		cmocka_unit_test(refuses_what_is_not_whole),
		cmocka_unit_test(return_codes),
		cmocka_unit_test(targets),
		cmocka_unit_test_setup_teardown(socket_joins_pieces, far_end_open, far_end_close),
		cmocka_unit_test_setup_teardown(socket_sees_an_answer_too_many, far_end_open,
						far_end_close),
		cmocka_unit_test_setup_teardown(socket_refuses_a_lying_length, far_end_open,
						far_end_close),
		cmocka_unit_test_setup_teardown(socket_tells_of_the_end, far_end_open,
						far_end_close),
		cmocka_unit_test(opens_nothing_that_is_no_tpm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
