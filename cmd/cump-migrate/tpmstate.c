/* SPDX-License-Identifier: MIT */
#include "tpmstate.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <openssl/evp.h>

#include "pair/message.h"

static int list(const char *dir, glob_t *g)
{
	char pattern[4200];

	snprintf(pattern, sizeof(pattern), "%s/tpm-00.*", dir);
	glob(pattern, 0, NULL, g);
	snprintf(pattern, sizeof(pattern), "%s/tpm2-00.*", dir);
	return glob(pattern, GLOB_APPEND, NULL, g) && !g->gl_pathc ? -ENOENT : 0;
}

uint64_t tpmstate_bytes(const char *dir)
{
	uint64_t sum = 0;
	glob_t g = {0};

	list(dir, &g);
	for (size_t i = 0; i < g.gl_pathc; i++) {
		struct stat st;

		if (!lstat(g.gl_pathv[i], &st))
			sum += (uint64_t)st.st_size;
	}
	globfree(&g);
	return sum;
}

static int digest(int fd, char hex[65])
{
	unsigned char buf[16384], md[32];
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	off_t at = 0;
	ssize_t n = 0;
	int ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);

	while (ok && (n = pread(fd, buf, sizeof(buf), at)) > 0) {
		ok = EVP_DigestUpdate(ctx, buf, (size_t)n);
		at += n;
	}
	ok = ok && !n && EVP_DigestFinal_ex(ctx, md, NULL);
	EVP_MD_CTX_free(ctx);
	for (size_t i = 0; ok && i < sizeof(md); i++)
		snprintf(hex + 2 * i, 3, "%02x", md[i]);
	return ok ? 0 : -EIO;
}

int tpmstate_digest(const char *dir, char hex[65])
{
	static const char *const names[] = {"tpm2-00.permall", "tpm-00.permall"};

	for (size_t i = 0; i < 2; i++) {
		char path[4200];
		int fd, rc;

		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			continue;
		rc = digest(fd, hex);
		close(fd);
		return rc;
	}
	return -ENODATA;
}

static int overwrite(int fd, off_t size)
{
	static const char zeros[16384];
	off_t at = 0;

	while (at < size) {
		size_t n = size - at < (off_t)sizeof(zeros) ? (size_t)(size - at) : sizeof(zeros);
		ssize_t done = pwrite(fd, zeros, n, at);

		if (done <= 0)
			return -EIO;
		at += done;
	}
	return fsync(fd) ? -errno : 0;
}

static int destroy_one(const char *path, struct json_object *files, struct err *err)
{
	struct json_object *o;
	struct stat st;
	char hex[65] = "";
	/* Never through a link: the folder may be writable by the TPM's own user. */
	int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC), rc = 0;

	if (fd < 0 || fstat(fd, &st))
		rc = err_sys(err, -errno, "destroy %s", path);
	else if (!S_ISREG(st.st_mode))
		rc = err_set(err, -EINVAL, "destroy %s: not a plain file", path);
	if (!rc)
		rc = digest(fd, hex);
	if (!rc)
		rc = overwrite(fd, st.st_size);
	if (!rc && unlink(path))
		rc = -errno;
	if (rc && !(err && err->code))
		err_sys(err, rc, "destroy %s", path);
	if (fd >= 0)
		close(fd);
	if (rc)
		return rc;
	o = json_object_new_object();
	message_add(o, "file", path);
	message_add_number(o, "bytes", (uint64_t)st.st_size);
	message_add(o, "sha256", hex);
	json_object_array_add(files, o);
	return 0;
}

int tpmstate_destroy(const char *dir, struct json_object *files, struct err *err)
{
	glob_t g = {0};
	int first = 0;

	if (list(dir, &g)) {
		globfree(&g);
		return 0;
	}
	for (size_t i = 0; i < g.gl_pathc; i++) {
		int rc = destroy_one(g.gl_pathv[i], files, first ? NULL : err);

		first = first ? first : rc;
	}
	globfree(&g);
	return first;
}
