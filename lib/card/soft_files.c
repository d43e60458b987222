/* SPDX-License-Identifier: MIT */
/*
 * The card's user files (GM/T 0018, SDF_CreateFile and its kin), each VM with its own: small files, encrypted as
 * keys are, named by a digest of their name, so that no name of a guest is ever a path.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "card/soft.h"

#define FILES_MAX 64 /* of a VM */
#define FILE_MAX 65536u
#define NONCE 12
#define TAG 16

struct path {
	char dir[320], file[448], temporary[464];
};

static uint32_t find_path(const struct soft *s, const struct card_call *call, struct path *p)
{
	const struct card_file *f = call->args;
	uint8_t digest[32];
	char hex[65];

	if (!s->has_store)
		return SDR_NOTSUPPORT;
	if (!f->name[0] || !soft_key_name_ok(call->vm) ||
	    !EVP_Digest(f->name, strnlen(f->name, sizeof(f->name)), digest, NULL, EVP_sm3(), NULL))
		return SDR_INARGERR;
	for (unsigned i = 0; i < sizeof(digest); i++)
		sprintf(hex + (size_t)2 * i, "%02x", digest[i]);
	snprintf(p->dir, sizeof(p->dir), "%s/files.%s", s->store.dir, call->vm);
	snprintf(p->file, sizeof(p->file), "%s/%s", p->dir, hex);
	snprintf(p->temporary, sizeof(p->temporary), "%s.new", p->file);
	return SDR_OK;
}

/* Bound to its place: the path is authenticated with it. */
static bool guard(const struct soft *s, const struct path *p, bool encrypt, uint8_t *nonce, uint8_t *data, int n,
		  uint8_t *tag)
{
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	const char *name = p->file + strlen(s->store.dir);
	int len;
	bool ok = c && EVP_CipherInit_ex(c, EVP_aes_256_gcm(), NULL, s->store.key, nonce, encrypt) &&
		  (encrypt || EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, TAG, tag)) &&
		  EVP_CipherUpdate(c, NULL, &len, (const uint8_t *)name, (int)strlen(name)) &&
		  EVP_CipherUpdate(c, data, &len, data, n) && EVP_CipherFinal_ex(c, tag, &len) > 0 &&
		  (!encrypt || EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, TAG, tag));

	EVP_CIPHER_CTX_free(c);
	return ok;
}

/* Whole, in a buffer of its own: nonce, data, tag; *@n bytes of data. */
static uint8_t *load(const struct soft *s, const struct path *p, uint32_t *n, uint32_t *status)
{
	int fd = open(p->file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	uint8_t *buf = NULL;
	struct stat st;
	bool ok = false;

	*status = fd < 0 && errno == ENOENT ? SDR_FILENOEXIST : SDR_UNKNOWERR;
	if (fd >= 0 && !fstat(fd, &st) && st.st_size >= NONCE + TAG && st.st_size <= NONCE + FILE_MAX + TAG)
		buf = malloc((size_t)st.st_size);
	if (buf && read(fd, buf, (size_t)st.st_size) == st.st_size) {
		*n = (uint32_t)st.st_size - NONCE - TAG;
		ok = guard(s, p, false, buf, buf + NONCE, (int)*n, buf + NONCE + *n);
	}
	if (fd >= 0)
		close(fd);
	if (ok) {
		*status = SDR_OK;
		return buf;
	}
	free(buf);
	return NULL;
}

/* All of it or nothing: a new file takes the old one's place. */
static uint32_t store(const struct soft *s, const struct path *p, uint8_t *buf, uint32_t n)
{
	ssize_t size = (ssize_t)(NONCE + n + TAG);
	int fd = -1;
	bool ok = RAND_bytes(buf, NONCE) == 1 && guard(s, p, true, buf, buf + NONCE, (int)n, buf + NONCE + n);

	if (ok)
		fd = open(p->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	ok = fd >= 0 && write(fd, buf, (size_t)size) == size;
	if (fd >= 0)
		close(fd);
	if (ok && !rename(p->temporary, p->file))
		return SDR_OK;
	unlink(p->temporary);
	return SDR_FILEWERR;
}

static unsigned count_files(const char *path)
{
	DIR *dir = opendir(path);
	unsigned n = 0;

	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n < 2 ? 0 : n - 2;
}

static uint32_t create(const struct soft *s, const struct path *p, uint32_t size)
{
	uint8_t *buf;
	uint32_t status;

	if (!size || size > FILE_MAX)
		return SDR_FILESIZEERR;
	if (!access(p->file, F_OK))
		return SDR_FILEEXISTS;
	if ((mkdir(p->dir, 0700) && errno != EEXIST) || count_files(p->dir) >= FILES_MAX)
		return SDR_FILEWERR;
	buf = calloc(1, NONCE + size + TAG);
	status = buf ? store(s, p, buf, size) : SDR_FILEWERR;
	free(buf);
	return status;
}

static uint32_t read_some(const struct soft *s, struct card_call *call, const struct path *p)
{
	const struct card_file *f = call->args;
	uint32_t n = 0, status, want;
	uint8_t *buf = load(s, p, &n, &status);

	if (!buf)
		return status;
	want = f->size < call->out_cap ? f->size : call->out_cap;
	if (f->offset > n) {
		status = SDR_FILEOFSERR;
	} else {
		call->out_len = want < n - f->offset ? want : n - f->offset;
		memcpy(call->out, buf + NONCE + f->offset, call->out_len);
	}
	OPENSSL_cleanse(buf, NONCE + n);
	free(buf);
	return status;
}

static uint32_t write_some(const struct soft *s, const struct card_call *call, const struct path *p)
{
	const struct card_file *f = call->args;
	uint32_t n = 0, status;
	uint8_t *buf = load(s, p, &n, &status);

	if (!buf)
		return status;
	if (f->offset > n || call->in_len > n - f->offset) {
		status = SDR_FILEOFSERR;
	} else {
		memcpy(buf + NONCE + f->offset, call->in, call->in_len);
		status = store(s, p, buf, n); /* it is encrypted where it lies */
	}
	OPENSSL_cleanse(buf, NONCE + n);
	free(buf);
	return status;
}

uint32_t soft_file(struct soft *s, struct card_call *call)
{
	const struct card_file *f = call->args;
	struct path p;
	uint32_t status = find_path(s, call, &p);

	if (status)
		return status;
	switch (call->rq->op) {
	case CARD_OP_FILE_CREATE:
		return create(s, &p, f->size);
	case CARD_OP_FILE_READ:
		return read_some(s, call, &p);
	case CARD_OP_FILE_WRITE:
		return write_some(s, call, &p);
	default:
		if (!unlink(p.file))
			return SDR_OK;
		return errno == ENOENT ? SDR_FILENOEXIST : SDR_FILEWERR;
	}
}
