/* SPDX-License-Identifier: MIT */
/*
 * Keys in files NAME.key: magic, nonce, and the key encrypted by AES-256-GCM under the store's key,
 * bound to the name. The store's key is in a file of its own, which may be elsewhere (--store-key,
 * a credential of systemd).
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

#include "base/units.h"
#include "card/soft.h"

#define MAGIC "CSKEY01\n"
#define SUFFIX ".key"
#define NONCE 12
#define TAG 16
#define LOOK_NS 1000000000u	/* a file is looked at again after so long */
#define PASSWORD_ROUNDS 2000	/* about a millisecond: the store's key is what protects it */
#define WRONG_MAX 5
#define WRONG_NS 10000000000u

/* What is encrypted; sizes as they are, little-endian. */
struct body {
	uint32_t type, has_password;
	uint8_t secret[2][SM2_BYTES];
	struct sm2_public pub[2];
	uint8_t salt[16], password[32];
	uint64_t created;
	uint8_t reserved[32];
};

struct file {
	char magic[8];
	uint8_t nonce[NONCE];
	uint8_t body[sizeof(struct body)];
	uint8_t tag[TAG];
};

_Static_assert(sizeof(struct body) == 8 + 64 + 128 + 48 + 8 + 32, "file format");
_Static_assert(sizeof(struct file) == 8 + 12 + 288 + 16, "file format");

bool soft_key_name_ok(const char *name)
{
	static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
	size_t n = strlen(name);

	return n && n < CARD_NAME_MAX && strspn(name, good) == n && name[0] != '.' && name[0] != '-';
}

void soft_key_wipe(struct soft_key *k)
{
	for (unsigned i = 0; i < 2; i++)
		EVP_PKEY_free(k->pkey[i]);
	sm4_free(k->sm4);
	OPENSSL_cleanse(k, sizeof(*k));
}

static int read_store_key(struct soft_store *s, const char *path, bool make, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), rc = 0;
	struct stat st;

	if (fd < 0 && errno == ENOENT && make) {
		fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd >= 0 && (RAND_priv_bytes(s->key, sizeof(s->key)) != 1 ||
				write(fd, s->key, sizeof(s->key)) != (ssize_t)sizeof(s->key) || fsync(fd))) {
			rc = err_sys(err, -EIO, "write %s", path);
			unlink(path);
		}
		if (fd >= 0)
			goto out;
	}
	if (fd < 0)
		return err_sys(err, -errno, "open %s", path);
	if (fstat(fd, &st) || (st.st_mode & 077))
		rc = err_set(err, -EACCES, "open %s: others may read it, and it opens all keys (chmod 600)", path);
	else if (read(fd, s->key, sizeof(s->key)) != (ssize_t)sizeof(s->key))
		rc = err_set(err, -EBADMSG, "read %s: it is not a store's key (%zu bytes)", path, sizeof(s->key));
out:
	close(fd);
	return rc;
}

int soft_store_open(struct soft_store *s, const char *dir, const char *key_file, bool make, struct err *err)
{
	char path[512];
	struct stat st;

	*s = (struct soft_store){0};
	if (strlen(dir) >= sizeof(s->dir))
		return err_set(err, -ENAMETOOLONG, "open store %.64s…: the path is too long", dir);
	strcpy(s->dir, dir); /* NOLINT: measured above */
	if (make && mkdir(dir, 0700) && errno != EEXIST)
		return err_sys(err, -errno, "make store %s", dir);
	if (stat(dir, &st))
		return err_sys(err, -errno, "open store %s", dir);
	if (!S_ISDIR(st.st_mode) || (st.st_mode & 022))
		return err_set(err, -EACCES, "open store %s: not a folder that only its owner may write", dir);
	snprintf(path, sizeof(path), "%s/.key", dir);
	return read_store_key(s, key_file ? key_file : path, make, err);
}

void soft_store_close(struct soft_store *s)
{
	while (s->keys) {
		struct soft_key *k = s->keys;

		s->keys = k->next;
		soft_key_wipe(k);
		free(k);
	}
	OPENSSL_cleanse(s->key, sizeof(s->key));
}

/* AES-256-GCM over the body, the name with it. */
static bool seal(const struct soft_store *s, const char *name, struct file *f, const struct body *in,
		 struct body *out)
{
	bool encrypt = in != NULL;
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	int n;
	bool ok = c && EVP_CipherInit_ex(c, EVP_aes_256_gcm(), NULL, s->key, f->nonce, encrypt) &&
		  (encrypt || EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, TAG, f->tag)) &&
		  EVP_CipherUpdate(c, NULL, &n, (const uint8_t *)name, (int)strlen(name)) &&
		  EVP_CipherUpdate(c, encrypt ? f->body : (uint8_t *)out, &n,
				   encrypt ? (const uint8_t *)in : f->body, (int)sizeof(*in)) &&
		  EVP_CipherFinal_ex(c, f->tag, &n) > 0 &&
		  (!encrypt || EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, TAG, f->tag));

	EVP_CIPHER_CTX_free(c);
	return ok;
}

static const char *file_path(const struct soft_store *s, const char *name, char *path, size_t size)
{
	snprintf(path, size, "%s/%s" SUFFIX, s->dir, name);
	return path;
}

static bool load(struct soft_store *s, const char *name, struct soft_key *k, const struct stat *st)
{
	char path[512];
	struct file f;
	struct body b;
	int fd = open(file_path(s, name, path, sizeof(path)), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	bool ok = fd >= 0 && read(fd, &f, sizeof(f)) == (ssize_t)sizeof(f) &&
		  !memcmp(f.magic, MAGIC, sizeof(f.magic)) && seal(s, name, &f, NULL, &b);

	if (fd >= 0)
		close(fd);
	if (ok) {
		*k = (struct soft_key){.type = (enum soft_key_type)b.type, .has_password = b.has_password,
				       .created = b.created, .looked_ns = units_now_ns(),
				       .file_mtime_ns = st->st_mtim.tv_sec * 1000000000LL + st->st_mtim.tv_nsec,
				       .file_inode = st->st_ino};
		snprintf(k->name, sizeof(k->name), "%s", name);
		memcpy(k->secret, b.secret, sizeof(k->secret));
		memcpy(k->pub, b.pub, sizeof(k->pub));
		memcpy(k->salt, b.salt, sizeof(k->salt));
		memcpy(k->password, b.password, sizeof(k->password));
	}
	OPENSSL_cleanse(&b, sizeof(b));
	return ok;
}

struct soft_key *soft_store_find(struct soft_store *s, const char *name)
{
	struct soft_key **at = &s->keys, *k;
	uint64_t now = units_now_ns();
	char path[512];
	struct stat st;

	while (*at && strcmp((*at)->name, name) != 0)
		at = &(*at)->next;
	k = *at;
	if (k && now - k->looked_ns < LOOK_NS)
		return k;
	if (!soft_key_name_ok(name) || stat(file_path(s, name, path, sizeof(path)), &st))
		st = (struct stat){0};
	else if (k && (uint64_t)st.st_ino == k->file_inode &&
		 st.st_mtim.tv_sec * 1000000000LL + st.st_mtim.tv_nsec == k->file_mtime_ns) {
		k->looked_ns = now;
		return k;
	}
	if (k) { /* destroyed, or another now */
		*at = k->next;
		soft_key_wipe(k);
		free(k);
	}
	k = st.st_ino ? calloc(1, sizeof(*k)) : NULL;
	if (!k || !load(s, name, k, &st)) {
		free(k);
		return NULL;
	}
	k->next = s->keys;
	s->keys = k;
	return k;
}

static int sync_dir(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

	if (fd < 0 || fsync(fd))
		rc = -errno;
	if (fd >= 0)
		close(fd);
	return rc;
}

int soft_store_put(struct soft_store *s, const struct soft_key *k, struct err *err)
{
	struct body b = {.type = k->type, .has_password = k->has_password, .created = k->created};
	struct file f = {.magic = MAGIC};
	char path[512];
	int fd, rc = 0;

	if (!soft_key_name_ok(k->name))
		return err_set(err, -EINVAL, "make key %.40s: not a name (letters, digits, . _ -; at most %d)",
			       k->name, CARD_NAME_MAX - 1);
	memcpy(b.secret, k->secret, sizeof(b.secret));
	memcpy(b.pub, k->pub, sizeof(b.pub));
	memcpy(b.salt, k->salt, sizeof(b.salt));
	memcpy(b.password, k->password, sizeof(b.password));
	if (RAND_bytes(f.nonce, NONCE) != 1 || !seal(s, k->name, &f, &b, NULL))
		rc = err_set(err, -EIO, "make key %s: encryption fails", k->name);
	OPENSSL_cleanse(&b, sizeof(b));
	if (rc)
		return rc;
	fd = open(file_path(s, k->name, path, sizeof(path)), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return errno == EEXIST ? err_set(err, -EEXIST, "make key %s: there is one of this name", k->name)
				       : err_sys(err, -errno, "make key %s", k->name);
	if (write(fd, &f, sizeof(f)) != (ssize_t)sizeof(f) || fsync(fd))
		rc = err_sys(err, -errno, "write %s", path);
	close(fd);
	if (!rc && sync_dir(s->dir))
		rc = err_sys(err, -EIO, "write %s", s->dir);
	if (rc)
		unlink(path);
	return rc;
}

int soft_store_destroy(struct soft_store *s, const char *name, struct err *err)
{
	char path[512];
	struct file zero = {0};
	int fd;

	if (!soft_key_name_ok(name))
		return err_set(err, -ENOENT, "destroy key %.40s: there is no such key", name);
	fd = open(file_path(s, name, path, sizeof(path)), O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno == ENOENT ? err_set(err, -ENOENT, "destroy key %s: there is no such key", name)
				       : err_sys(err, -errno, "destroy key %s", name);
	/* Where the file system writes in place, it is gone for good; where not, the store's key guards it. */
	if (write(fd, &zero, sizeof(zero)) < 0 || fsync(fd))
		(void)err_sys(err, -errno, "overwrite %s", path);
	close(fd);
	if (unlink(path) || sync_dir(s->dir))
		return err_sys(err, -errno, "destroy key %s", name);
	return 0;
}

void soft_store_names_free(char **names)
{
	for (char **n = names; n && *n; n++)
		free(*n);
	free(names);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

char **soft_store_names(struct soft_store *s, struct err *err)
{
	DIR *dir = opendir(s->dir);
	char **names = calloc(1, sizeof(char *));
	size_t count = 0;
	struct dirent *e;

	while (dir && names && (e = readdir(dir))) {
		char *dot = strrchr(e->d_name, '.'), **more;

		if (!dot || strcmp(dot, SUFFIX) != 0)
			continue;
		*dot = '\0';
		if (!soft_key_name_ok(e->d_name))
			continue;
		more = realloc(names, (count + 2) * sizeof(char *));
		if (!more)
			break;
		names = more;
		names[count] = strdup(e->d_name);
		if (!names[count])
			break;
		names[++count] = NULL;
	}
	if (!dir || !names) {
		err_sys(err, -errno, "open store %s", s->dir);
		soft_store_names_free(names);
		names = NULL;
	} else {
		qsort(names, count, sizeof(char *), by_name);
	}
	if (dir)
		closedir(dir);
	return names;
}

static bool stretch(const struct soft_key *k, const void *text, size_t n, uint8_t out[32])
{
	return PKCS5_PBKDF2_HMAC(text, (int)n, k->salt, sizeof(k->salt), PASSWORD_ROUNDS, EVP_sha256(), 32,
				 out);
}

int soft_key_set_password(struct soft_key *k, const void *text, size_t n)
{
	if (RAND_bytes(k->salt, sizeof(k->salt)) != 1 || !stretch(k, text, n, k->password))
		return -EIO;
	k->has_password = true;
	return 0;
}

uint32_t soft_key_check_password(struct soft_key *k, const void *text, size_t n)
{
	uint64_t now = units_now_ns();
	uint8_t out[32];
	bool right;

	if (!k->has_password)
		return SDR_OK;
	if (k->wrong >= WRONG_MAX && now - k->wrong_ns < WRONG_NS)
		return SDR_PRKRERR;
	right = stretch(k, text, n, out) && !CRYPTO_memcmp(out, k->password, sizeof(out));
	OPENSSL_cleanse(out, sizeof(out));
	k->wrong = right ? 0 : k->wrong + 1;
	k->wrong_ns = now;
	return right ? SDR_OK : SDR_PRKRERR;
}
