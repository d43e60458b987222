/* SPDX-License-Identifier: MIT */
/*
 * p11_speed MODULE PIN sha256|aes-ecb BYTES SECONDS: operations a second of a PKCS#11 module's first token with one
 * session, one at a time, as C_Digest and C_Encrypt allow. What bench/cardshare's row p11-kit is against.
 */
#include <dlfcn.h>
#include <p11-kit/pkcs11.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static CK_FUNCTION_LIST *p11;

static void must(CK_RV rv, const char *what)
{
	if (rv == CKR_OK)
		return;
	fprintf(stderr, "p11_speed: %s: 0x%lx\n", what, rv);
	exit(4);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void load(const char *path)
{
	void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	CK_C_GetFunctionList get = NULL;

	if (module)
		*(void **)&get = dlsym(module, "C_GetFunctionList");
	if (!get) {
		fprintf(stderr, "p11_speed: %s: %s\n", path, dlerror());
		exit(3);
	}
	must(get(&p11), "C_GetFunctionList");
	must(p11->C_Initialize(NULL), "C_Initialize");
}

static CK_SESSION_HANDLE log_in(const char *pin)
{
	CK_SLOT_ID slots[16];
	CK_ULONG n = 16;
	CK_SESSION_HANDLE session;

	must(p11->C_GetSlotList(CK_TRUE, slots, &n), "C_GetSlotList");
	if (!n) {
		fputs("p11_speed: there is no token\n", stderr);
		exit(3);
	}
	must(p11->C_OpenSession(slots[0], CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session), "C_OpenSession");
	must(p11->C_Login(session, CKU_USER, (CK_UTF8CHAR *)pin, strlen(pin)), "C_Login");
	return session;
}

static CK_OBJECT_HANDLE make_key(CK_SESSION_HANDLE session)
{
	CK_MECHANISM make = {CKM_AES_KEY_GEN, NULL, 0};
	CK_ULONG bytes = 16;
	CK_BBOOL yes = CK_TRUE;
	CK_ATTRIBUTE want[] = {{CKA_VALUE_LEN, &bytes, sizeof(bytes)}, {CKA_ENCRYPT, &yes, sizeof(yes)}};
	CK_OBJECT_HANDLE key;

	must(p11->C_GenerateKey(session, &make, want, 2, &key), "C_GenerateKey");
	return key;
}

int main(int argc, char **argv)
{
	CK_MECHANISM sha = {CKM_SHA256, NULL, 0}, aes = {CKM_AES_ECB, NULL, 0};
	CK_SESSION_HANDLE session;
	CK_OBJECT_HANDLE key;
	CK_ULONG size, out_n;
	CK_BYTE *data, *out;
	unsigned long done = 0;
	double begun, until;

	if (argc != 6)
		return 2;
	load(argv[1]);
	session = log_in(argv[2]);
	key = make_key(session);
	size = strtoul(argv[4], NULL, 10);
	data = calloc(1, size);
	out = calloc(1, size + 64);
	begun = now();
	until = begun + atof(argv[5]);
	for (; now() < until; done++) {
		out_n = size + 64;
		if (!strcmp(argv[3], "sha256")) {
			must(p11->C_DigestInit(session, &sha), "C_DigestInit");
			must(p11->C_Digest(session, data, size, out, &out_n), "C_Digest");
		} else {
			must(p11->C_EncryptInit(session, &aes, key), "C_EncryptInit");
			must(p11->C_Encrypt(session, data, size, out, &out_n), "C_Encrypt");
		}
	}
	printf("%.0f\n", (double)done / (now() - begun));
	p11->C_Finalize(NULL);
	return 0;
}
