/* SPDX-License-Identifier: MIT */
/*
 * An application of GM/T 0018 that computes without a pause, whatever happens to the card meanwhile, and checks every
 * result: a session key wrapped by KEK 1, the card's key pair 1. What may be repeated must never fail; SM4-GCM
 * may, when the link is lost under it: then nobody knows whether it was done, and it goes on with the next nonce.
 *	steady [FILE [PAUSE_US]]     until SIGTERM, with so long between two rounds; then, to FILE or standard output, one line:
 *	gcm N done N unknown N cbc N sm3 N sign N failed N wrong N gap N us
 * The first line, "ready", comes when all of it was done once. Ends with 0, or 1 if something failed or was wrong.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "sdf.h"

static volatile sig_atomic_t stop;
static void *device, *session, *key;
static struct {
	unsigned long gcm, done, unknown, cbc, sm3, sign, failed, wrong, gap_us;
	int first;
} n;

static void on_term(int sig)
{
	(void)sig;
	stop = 1;
}

static unsigned long now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (unsigned long)t.tv_sec * 1000000 + (unsigned long)t.tv_nsec / 1000;
}

static int ok(int rc)
{
	if (rc == SDR_OK)
		return 1;
	if (!n.failed++)
		n.first = rc;
	return 0;
}

static void same(const void *a, const void *b, size_t size)
{
	if (memcmp(a, b, size))
		n.wrong++;
}

/* Both ways, each of which is a request that is never sent twice. */
static void gcm(void)
{
	static unsigned long counter;
	unsigned char nonce[12] = {0}, text[100], out[100], back[100], tag[16];
	unsigned int len = 0, tag_len = 0;
	int rc;

	counter++;
	memcpy(nonce, &counter, sizeof(counter));
	memset(text, (int)counter, sizeof(text));
	n.gcm++;
	rc = SDF_AuthEnc(session, key, SGD_SM4_GCM, nonce, 12, nonce, 12, text, sizeof(text), out, &len, tag, &tag_len);
	if (rc == SDR_COMMFAIL) {
		n.unknown++;
		return;
	}
	if (!ok(rc))
		return;
	n.done++;
	n.gcm++;
	rc = SDF_AuthDec(session, key, SGD_SM4_GCM, nonce, 12, nonce, 12, tag, tag_len, out, len, back, &len);
	if (rc == SDR_COMMFAIL) {
		n.unknown++;
		return;
	}
	if (!ok(rc))
		return;
	n.done++;
	same(text, back, sizeof(text));
}

static void cbc(void)
{
	unsigned char iv[16] = {1}, text[4096], out[4096];
	unsigned int len = 0;

	n.cbc++;
	memset(text, (int)n.cbc, sizeof(text));
	if (!ok(SDF_Encrypt(session, key, SGD_SM4_CBC, iv, text, sizeof(text), out, &len)))
		return;
	memset(iv, 0, sizeof(iv));
	iv[0] = 1;
	if (ok(SDF_Decrypt(session, key, SGD_SM4_CBC, iv, out, len, out, &len)))
		same(text, out, sizeof(text));
}

static void sm3(void)
{
	static const unsigned char expected[] = "\x66\xc7\xf0\xf4\x62\xee\xed\xd9\xd1\xf2\xd4\x6b\xdc\x10\xe4\xe2"
						"\x41\x67\xc4\x87\x5c\xf2\xf7\xa2\x29\x7d\xa0\x2b\x8f\x4b\xa8\xe0";
	unsigned char out[32] = {0};
	unsigned int len = 0;

	n.sm3++;
	if (ok(SDF_HashInit(session, SGD_SM3, NULL, NULL, 0)) && ok(SDF_HashUpdate(session, (unsigned char *)"abc", 3)) &&
	    ok(SDF_HashFinal(session, out, &len)))
		same(out, expected, 32);
}

static void sign(void)
{
	unsigned char digest[32];
	ECCSignature sig;

	n.sign++;
	memset(digest, (int)n.sign, sizeof(digest));
	if (ok(SDF_InternalSign_ECC(session, 1, digest, sizeof(digest), &sig)))
		ok(SDF_InternalVerify_ECC(session, 1, digest, sizeof(digest), &sig));
}

static void begin(void)
{
	unsigned char wrapped[64];
	unsigned int len = 0;

	if (!ok(SDF_OpenDevice(&device)) || !ok(SDF_OpenSession(device, &session)) ||
	    !ok(SDF_GenerateKeyWithKEK(session, 128, SGD_SM4_ECB, 1, wrapped, &len, &key))) {
		printf("begin: %#x\n", (unsigned)n.first);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	struct sigaction sa = {.sa_handler = on_term};
	FILE *f;

	sigaction(SIGTERM, &sa, NULL);
	begin();
	while (!stop) {
		unsigned long begun = now_us(), took;

		gcm();
		cbc();
		sm3();
		sign();
		took = now_us() - begun;
		if (took > n.gap_us)
			n.gap_us = took;
		if (n.sm3 == 1) {
			puts("ready");
			fflush(stdout);
		}
		if (argc > 2)
			usleep((useconds_t)atoi(argv[2]));
	}
	f = argc > 1 ? fopen(argv[1], "w") : stdout;
	if (!f)
		return 1;
	if (n.failed)
		fprintf(f, "first failure: %#x\n", (unsigned)n.first);
	fprintf(f, "gcm %lu done %lu unknown %lu cbc %lu sm3 %lu sign %lu failed %lu wrong %lu gap %lu us\n", n.gcm, n.done,
		n.unknown, n.cbc, n.sm3, n.sign, n.failed, n.wrong, n.gap_us);
	return fclose(f) || n.failed || n.wrong;
}
