/* SPDX-License-Identifier: MIT */
/* The link to a card and data through it, for all verbs that use one. */
#include "guest.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/exit.h"
#include "base/log.h"
#include "base/units.h"

const char *guest_address;

static const struct guest_cipher ciphers[] = {
	{"sm4-gcm", SGD_SM4_GCM, 12, false, true},
	{"sm4-cbc", SGD_SM4 | SGD_CBC, 16, true, false},
	{"sm4-ctr", SGD_SM4 | SGD_CTR, 16, false, false},
	{"sm4-cfb", SGD_SM4 | SGD_CFB, 16, false, false},
	{"sm4-ofb", SGD_SM4 | SGD_OFB, 16, false, false},
	{"sm4-ecb", SGD_SM4 | SGD_ECB, 0, true, false},
	{"sm1-cbc", SGD_SM1 | SGD_CBC, 16, true, false},
	{"sm1-ctr", SGD_SM1 | SGD_CTR, 16, false, false},
	{"sm1-ecb", SGD_SM1 | SGD_ECB, 0, true, false},
};

const struct guest_cipher *guest_cipher(const char *verb, const char *name)
{
	char names[256] = "";

	for (size_t i = 0; i < sizeof(ciphers) / sizeof(*ciphers); i++) {
		if (!strcmp(ciphers[i].name, name))
			return &ciphers[i];
		snprintf(names + strlen(names), sizeof(names) - strlen(names), " %s", ciphers[i].name);
	}
	log_error("%s: --alg %s: not one of%s", verb, name, names);
	return NULL;
}

int guest_open(struct guest *g, const char *verb)
{
	struct err err = {0};
	char way[256];
	uint32_t status;
	int rc;

	*g = (struct guest){0};
	rc = card_client_open(guest_address, NULL, &g->c, &err);
	if (rc) {
		log_error("%s: %s", verb, err.text);
		return rc == -EINVAL ? EXIT_USAGE : rc == -ETIMEDOUT ? EXIT_TIMED_OUT : EXIT_REFUSED;
	}
	card_client_way(g->c, way, sizeof(way));
	log_verbose("%s: link %s", verb, way);
	status = card_session_open(g->c, &g->session);
	if (status == SDR_OK)
		return 0;
	guest_close(g);
	return guest_answer(verb, status);
}

void guest_close(struct guest *g)
{
	if (g->c && g->session)
		card_session_close(g->c, g->session);
	card_client_close(g->c);
	*g = (struct guest){0};
}

/* What users meet, with the way out; the rest by its name in the standard. */
static const struct answer {
	uint32_t status;
	int exit;
	const char *text;
} answers[] = {
	{SDR_ALGNOTSUPPORT, EXIT_REFUSED, "the card has no such algorithm"},
	{SDR_ALGMODNOTSUPPORT, EXIT_REFUSED, "the card has no such mode of this algorithm"},
	{SDR_NOTSUPPORT, EXIT_REFUSED, "the card cannot do this"},
	{SDR_KEYNOTEXIST, EXIT_REFUSED, "the card has no such key for this machine"},
	{SDR_PARDENY, EXIT_REFUSED, "the host does not let this machine do this, or the key wants its password"},
	{SDR_PRKRERR, EXIT_REFUSED, "the password is wrong, or the key wants one (--password-file)"},
	{SDR_KEYTYPEERR, EXIT_REFUSED, "the key is of another kind"},
	{SDR_KEYERR, EXIT_REFUSED, "the key is none"},
	{SDR_VERIFYERR, EXIT_NO, "the signature is wrong"},
	{SDR_MACERR, EXIT_NO, "the data is not what was encrypted, or the key is another"},
	{SDR_NOBUFFER, EXIT_REFUSED, "this machine has as many sessions or keys open as it may"},
	{SDR_COMMFAIL, EXIT_ROLLED_BACK, "the link to the card was lost"},
	{SDR_HARDFAIL, EXIT_ROLLED_BACK, "the card failed"},
};

int guest_answer(const char *verb, uint32_t status)
{
	char text[32];

	if (status == SDR_OK)
		return 0;
	for (size_t i = 0; i < sizeof(answers) / sizeof(*answers); i++)
		if (answers[i].status == status) {
			log_error("%s: %s", verb, answers[i].text);
			return answers[i].exit;
		}
	log_error("%s: the card answered %s", verb, sdr_text(status, text, sizeof(text)));
	return EXIT_ROLLED_BACK;
}

static int settled(const char *verb, const struct card_io *io, uint32_t status)
{
	if (status == SDR_COMMFAIL && io->rc == -ETIMEDOUT) {
		log_error("%s: no answer from the card", verb);
		return EXIT_TIMED_OUT;
	}
	return guest_answer(verb, status);
}

int guest_call(struct guest *g, const char *verb, struct card_io *io)
{
	io->rq.session = g->session;
	return settled(verb, io, card_call(g->c, io));
}

int guest_call_long(struct guest *g, const char *verb, struct card_io *io, size_t len, size_t want)
{
	size_t got = 0;
	uint32_t status;

	io->rq.session = g->session;
	status = card_call_long(g->c, io, len, want, &got);
	return settled(verb, io, status == SDR_OK && got != want ? SDR_COMMFAIL : status);
}

/* --- standard input and output --- */

void guest_stream_begin(struct guest_stream *s, const char *verb)
{
	struct stat st;

	*s = (struct guest_stream){.verb = verb, .begun_us = units_now_us()};
	if (!fstat(STDIN_FILENO, &st) && S_ISREG(st.st_mode))
		s->total = (uint64_t)st.st_size;
	progress_begin(&s->progress);
}

void guest_stream_end(struct guest_stream *s)
{
	progress_end(&s->progress);
}

static void show(struct guest_stream *s)
{
	uint64_t us = units_now_us() - s->begun_us;
	char bar[32], done[32], rate[32];

	if (!progress_due(&s->progress))
		return;
	units_format_size(s->done, done, sizeof(done));
	units_format_size(us ? (uint64_t)((double)s->done * 1e6 / (double)us) : 0, rate, sizeof(rate));
	if (s->total)
		progress_line(&s->progress, "%s %s %s %s/s", s->verb,
			      progress_bar(s->done, s->total, 20, bar), done, rate);
	else
		progress_line(&s->progress, "%s %s %s/s", s->verb, done, rate);
}

ssize_t guest_read(struct guest_stream *s, void *buf, size_t size)
{
	size_t have = 0;

	while (have < size) {
		ssize_t n = read(STDIN_FILENO, (char *)buf + have, size - have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			log_error("%s: read standard input: %s", s->verb, strerror(errno));
			return -1;
		}
		if (!n)
			break;
		have += (size_t)n;
	}
	s->done += have;
	show(s);
	return (ssize_t)have;
}

int guest_write(const char *verb, int fd, const void *buf, size_t n)
{
	const char *p = buf;

	while (n) {
		ssize_t w = write(fd, p, n);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0 && errno == EPIPE)
			return EXIT_SIGNAL + 13;
		if (w < 0) {
			log_error("%s: write: %s", verb, strerror(errno));
			return EXIT_ROLLED_BACK;
		}
		p += w;
		n -= (size_t)w;
	}
	return 0;
}

/* --- hex --- */

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 32;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int guest_hex(const char *text, uint8_t *out, size_t size)
{
	size_t n = strlen(text);

	if (n % 2 || n / 2 > size)
		return -1;
	for (size_t i = 0; i < n; i += 2) {
		int hi = digit(text[i]), lo = digit(text[i + 1]);

		if (hi < 0 || lo < 0)
			return -1;
		out[i / 2] = (uint8_t)(hi << 4 | lo);
	}
	return (int)(n / 2);
}

void guest_print_hex(const uint8_t *p, size_t n)
{
	while (n--)
		printf("%02x", *p++);
}
