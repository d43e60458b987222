/* SPDX-License-Identifier: MIT */
/*
 * A program of OpenSSL: what its command line cannot show of the provider.
 *	evp gcm       RFC 8998, whole and in odd pieces; a wrong tag; a nonce used twice
 *	evp copy      digests copied while they are under way, short and long
 *	evp fork      the same context in parent and child
 * The configuration (OPENSSL_CONF) loads the provider. Ends with 0, or 1 and a line for each thing wrong.
 */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int wrong;

static void check(int line, const char *what, int ok)
{
	if (ok)
		return;
	printf("line %d: %s\n", line, what);
	wrong = 1;
}
#define YES(what) check(__LINE__, #what, (what))

static const unsigned char key[16] = "\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10";
static const unsigned char nonce[12] = "\x00\x00\x12\x34\x56\x78\x00\x00\x00\x00\xab\xcd";
static const unsigned char aad[20] =
	"\xfe\xed\xfa\xce\xde\xad\xbe\xef\xfe\xed\xfa\xce\xde\xad\xbe\xef\xab\xad\xda\xd2";
static const unsigned char rfc_tag[16] = "\x83\xde\x35\x41\xe4\xc2\xb5\x81\x77\xe0\x65\xa9\xbf\x7b\x62\xec";

static void gcm(void)
{
	EVP_CIPHER *alg = EVP_CIPHER_fetch(NULL, "SM4-GCM", "provider=cardshare");
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	unsigned char text[64], out[64], back[64], tag[16];
	int n, at;

	for (int i = 0; i < 64; i++)
		text[i] = "\xaa\xbb\xcc\xdd\xee\xff\xee\xaa"[i / 8];
	YES(alg != NULL);
	for (int step = 1; step <= 64; step = step * 2 + (step > 1)) {
		YES(EVP_EncryptInit_ex2(c, alg, key, nonce, NULL));
		YES(EVP_EncryptUpdate(c, NULL, &n, aad, 7) && EVP_EncryptUpdate(c, NULL, &n, aad + 7, 13));
		for (at = 0; at < 64; at += n)
			if (!EVP_EncryptUpdate(c, out + at, &n, text + at, 64 - at < step ? 64 - at : step) || !n)
				break;
		YES(at == 64 && EVP_EncryptFinal_ex(c, out, &n));
		YES(EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, 16, tag) && !memcmp(tag, rfc_tag, 16));
		YES(!EVP_EncryptUpdate(c, out, &n, text, 16)); /* the nonce is used up */
		YES(EVP_DecryptInit_ex2(c, alg, key, nonce, NULL));
		YES(EVP_DecryptUpdate(c, NULL, &n, aad, 20));
		for (at = 0; at < 64; at += n)
			if (!EVP_DecryptUpdate(c, back + at, &n, out + at, 64 - at < step ? 64 - at : step) || !n)
				break;
		YES(EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, 16, tag) && EVP_DecryptFinal_ex(c, back, &n));
		YES(!memcmp(back, text, 64));
	}
	tag[5] ^= 4;
	YES(EVP_DecryptInit_ex2(c, alg, key, nonce, NULL));
	YES(EVP_DecryptUpdate(c, NULL, &n, aad, 20) && EVP_DecryptUpdate(c, back, &n, out, 64));
	YES(EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, 16, tag) && !EVP_DecryptFinal_ex(c, back, &n));
	EVP_CIPHER_CTX_free(c);
	EVP_CIPHER_free(alg);
}

static void copy(void)
{
	EVP_MD *ours = EVP_MD_fetch(NULL, "SM3", "provider=cardshare");
	EVP_MD *theirs = EVP_MD_fetch(NULL, "SM3", "provider=default");
	unsigned char a[32], b[32], x[32], y[32], *big = calloc(1, 300000);
	EVP_MD_CTX *c = EVP_MD_CTX_new(), *d = EVP_MD_CTX_new();
	unsigned n;

	YES(ours && theirs && big);
	/* short: the copies go different ways */
	YES(EVP_DigestInit_ex2(c, ours, NULL) && EVP_DigestUpdate(c, "ab", 2) && EVP_MD_CTX_copy_ex(d, c));
	YES(EVP_DigestUpdate(c, "c", 1) && EVP_DigestUpdate(d, "d", 1));
	YES(EVP_DigestFinal_ex(c, a, &n) && EVP_DigestFinal_ex(d, b, &n));
	YES(EVP_Digest("abc", 3, x, &n, theirs, NULL) && EVP_Digest("abd", 3, y, &n, theirs, NULL));
	YES(!memcmp(a, x, 32) && !memcmp(b, y, 32));
	/* long: a copy reads the same digest; one that would go its own way is told */
	YES(EVP_DigestInit_ex2(c, ours, NULL) && EVP_DigestUpdate(c, big, 300000) && EVP_MD_CTX_copy_ex(d, c));
	YES(EVP_DigestFinal_ex(c, a, &n) && EVP_DigestFinal_ex(d, b, &n) && !memcmp(a, b, 32));
	YES(EVP_Digest(big, 300000, x, &n, theirs, NULL) && !memcmp(a, x, 32));
	YES(EVP_DigestInit_ex2(c, ours, NULL) && EVP_DigestUpdate(c, big, 300000) && EVP_MD_CTX_copy_ex(d, c));
	YES(EVP_DigestFinal_ex(c, a, &n) && EVP_DigestUpdate(d, "x", 1) && !EVP_DigestFinal_ex(d, b, &n));
	EVP_MD_CTX_free(c);
	EVP_MD_CTX_free(d);
	EVP_MD_free(ours);
	EVP_MD_free(theirs);
	free(big);
}

static void cbc_works(EVP_CIPHER_CTX *c)
{
	unsigned char iv[16] = {0}, out[32];
	int n;

	YES(EVP_EncryptInit_ex2(c, NULL, NULL, iv, NULL) && EVP_EncryptUpdate(c, out, &n, key, 16) && n == 16);
	YES(!memcmp(out, "\x68\x1e\xdf\x34\xd2\x06\x96\x5e\x86\xb3\xe9\x4f\x53\x6e\x42\x46", 16));
}

/* As servers do it that load their keys and then make their workers. */
static void forked(void)
{
	EVP_CIPHER *alg = EVP_CIPHER_fetch(NULL, "SM4-CBC", "provider=cardshare");
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	unsigned char iv[16] = {0};
	int status = 1;
	pid_t pid;

	YES(EVP_EncryptInit_ex2(c, alg, key, iv, NULL));
	cbc_works(c);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		cbc_works(c);
		EVP_CIPHER_CTX_free(c);
		fflush(stdout);
		_exit(wrong);
	}
	waitpid(pid, &status, 0);
	YES(status == 0);
	cbc_works(c);
	EVP_CIPHER_CTX_free(c);
	EVP_CIPHER_free(alg);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "gcm"))
		gcm();
	else if (!strcmp(what, "copy"))
		copy();
	else if (!strcmp(what, "fork"))
		forked();
	else
		return 2;
	return wrong;
}
