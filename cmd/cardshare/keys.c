/* SPDX-License-Identifier: MIT */
/* cardshare keys: the keys of a soft card's store, on the host. */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/core_names.h>

#include "base/exit.h"
#include "base/log.h"
#include "base/units.h"
#include "card/soft.h"
#include "cardshare.h"

#define STORE "/var/lib/util-vm/cardshare"
#define SECRET_MAX 4096

static struct keys_opts {
	const char *store, *store_key, *type, *password, *from;
	bool json, dry_run;
} o = {.store = STORE, .type = "sm2"};

const struct cli_opt keys_opts[] = {
	{0, "store", CLI_STRING, &o.store, "DIR", "the store (" STORE ")"},
	{0, "store-key", CLI_STRING, &o.store_key, "FILE", "the key of the store (DIR/.key)"},
	{'t', "type", CLI_STRING, &o.type, "TYPE", "make, import: sm2 or sm4 (sm2)"},
	{'f', "from", CLI_STRING, &o.from, "FILE", "import: PEM of an SM2 key, 16 bytes of SM4, - for stdin"},
	{'p', "password-file", CLI_STRING, &o.password, "FILE", "make, import: guests must know this to use it"},
	{'n', "dry-run", CLI_FLAG, &o.dry_run, NULL, "say what would be done"},
	{0, "json", CLI_FLAG, &o.json, NULL, "one JSON object a line"},
	CLI_END,
};

static const char *type_name(enum soft_key_type type)
{
	return type == SOFT_KEY_SM4 ? "sm4" : "sm2";
}

static void hex(const uint8_t *p, size_t n, char *to)
{
	for (size_t i = 0; i < n; i++)
		sprintf(to + 2 * i, "%02x", p[i]);
}

static void print_public(const char *what, const struct sm2_public *pub)
{
	char text[4 * SM2_BYTES + 1];

	hex(pub->x, SM2_BYTES, text);
	hex(pub->y, SM2_BYTES, text + (size_t)2 * SM2_BYTES);
	printf("  %s 04%s\n", what, text);
}

static void print_key(const struct soft_key *k)
{
	char when[32], text[4 * SM2_BYTES + 3] = "04";
	struct json_object *j;

	units_iso8601(k->created * 1000000, when, sizeof(when));
	if (!o.json) {
		printf("%-31s %s %s%s\n", k->name, type_name(k->type), when, k->has_password ? " password" : "");
		if (k->type == SOFT_KEY_SM2 && cli_common.verbosity > 0) {
			print_public("sign", &k->pub[0]);
			print_public("encrypt", &k->pub[1]);
		}
		return;
	}
	j = json_object_new_object();
	json_object_object_add(j, "schema", json_object_new_string("util-vm/cardshare/key/1"));
	json_object_object_add(j, "name", json_object_new_string(k->name));
	json_object_object_add(j, "type", json_object_new_string(type_name(k->type)));
	json_object_object_add(j, "created", json_object_new_string(when));
	json_object_object_add(j, "password", json_object_new_boolean(k->has_password));
	for (unsigned i = 0; k->type == SOFT_KEY_SM2 && i < 2; i++) {
		hex((const uint8_t *)&k->pub[i], sizeof(k->pub[i]), text + 2);
		json_object_object_add(j, i ? "encrypt_public" : "sign_public", json_object_new_string(text));
	}
	puts(json_object_to_json_string_ext(j, JSON_C_TO_STRING_PLAIN));
	json_object_put(j);
}

static int list(struct soft_store *s, struct err *err)
{
	char **names = soft_store_names(s, err);
	int rc = names ? 0 : err->code;

	for (char **n = names; n && *n; n++) {
		struct soft_key *k = soft_store_find(s, *n);

		if (k) {
			print_key(k);
			continue;
		}
		rc = err_set(err, -EBADMSG, "read key %s: it is damaged, or of another store's key", *n);
		log_error("%s", err->text);
	}
	soft_store_names_free(names);
	return rc;
}

/* A secret from a file that only its owner can read, or stdin; the bytes, or -errno. */
static ssize_t read_secret(const char *path, uint8_t *buf, size_t size, struct err *err)
{
	int fd = strcmp(path, "-") ? open(path, O_RDONLY | O_CLOEXEC) : dup(STDIN_FILENO);
	ssize_t n = 0, have = 0;

	if (fd < 0)
		return err_sys(err, -errno, "open %s", path);
	while (have < (ssize_t)size && (n = read(fd, buf + have, size - (size_t)have)) > 0)
		have += n;
	close(fd);
	if (n < 0)
		return err_sys(err, -errno, "read %s", path);
	return have == (ssize_t)size ? err_set(err, -EFBIG, "read %s: that is no secret of at most %zu bytes", path,
					       size - 1) : have;
}

static int set_password(struct soft_key *k, struct err *err)
{
	uint8_t text[256];
	ssize_t n;
	int rc = 0;

	if (!o.password)
		return 0;
	n = read_secret(o.password, text, sizeof(text), err);
	if (n < 0)
		return (int)n;
	if (n && text[n - 1] == '\n')
		n--;
	if (n < 8)
		rc = err_set(err, -EINVAL, "read %s: a password has 8 characters or more", o.password);
	else if (soft_key_set_password(k, text, (size_t)n))
		rc = err_set(err, -EIO, "make key %s: no random numbers", k->name);
	OPENSSL_cleanse(text, sizeof(text));
	return rc;
}

static int private_of_pem(const uint8_t *pem, size_t n, uint8_t k[SM2_BYTES])
{
	BIO *bio = BIO_new_mem_buf(pem, (int)n);
	EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL) : NULL;
	BIGNUM *d = NULL;
	char group[16] = "";
	size_t len;
	bool ok = key && EVP_PKEY_get_utf8_string_param(key, OSSL_PKEY_PARAM_GROUP_NAME, group, sizeof(group), &len) &&
		  !strcmp(group, "SM2") && EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_PRIV_KEY, &d) &&
		  BN_bn2binpad(d, k, SM2_BYTES) == SM2_BYTES;

	BN_clear_free(d);
	EVP_PKEY_free(key);
	BIO_free(bio);
	ERR_clear_error();
	return ok ? 0 : -EINVAL;
}

static int fill_imported(struct soft_key *k, struct err *err)
{
	uint8_t text[SECRET_MAX];
	ssize_t n = read_secret(o.from, text, sizeof(text), err);
	int rc = n < 0 ? (int)n : 0;

	if (!rc && k->type == SOFT_KEY_SM4 && n == (ssize_t)SM4_BLOCK)
		memcpy(k->secret[0], text, SM4_BLOCK);
	else if (!rc && k->type == SOFT_KEY_SM4)
		rc = err_set(err, -EINVAL, "read %s: an SM4 key has 16 bytes", o.from);
	else if (!rc && private_of_pem(text, (size_t)n, k->secret[0]))
		rc = err_set(err, -EINVAL, "read %s: it is no SM2 private key in PEM without a passphrase", o.from);
	OPENSSL_cleanse(text, sizeof(text));
	if (rc || k->type == SOFT_KEY_SM4)
		return rc;
	/* One pair for both purposes, as it came. */
	memcpy(k->secret[1], k->secret[0], SM2_BYTES);
	if (sm2_derive(k->secret[0], &k->pub[0]))
		return err_set(err, -EINVAL, "read %s: the key is not on SM2's curve", o.from);
	k->pub[1] = k->pub[0];
	return 0;
}

static int fill_made(struct soft_key *k, struct err *err)
{
	bool ok = k->type == SOFT_KEY_SM4 ? RAND_priv_bytes(k->secret[0], SM4_BLOCK) == 1
					  : !sm2_generate(k->secret[0], &k->pub[0]) &&
						    !sm2_generate(k->secret[1], &k->pub[1]);

	return ok ? 0 : err_set(err, -EIO, "make key %s: no random numbers", k->name);
}

static int make(struct soft_store *s, const char *name, struct err *err)
{
	struct soft_key k = {.created = units_realtime_us() / 1000000};
	int rc;

	if (!soft_key_name_ok(name))
		return err_set(err, -EINVAL, "make key %.40s: not a name (letters, digits, . _ -; at most %d)", name,
			       CARD_NAME_MAX - 1);
	snprintf(k.name, sizeof(k.name), "%s", name);
	k.type = !strcmp(o.type, "sm4") ? SOFT_KEY_SM4 : SOFT_KEY_SM2;
	rc = o.from ? fill_imported(&k, err) : fill_made(&k, err);
	if (!rc)
		rc = set_password(&k, err);
	if (!rc && o.dry_run)
		log_note("would make key %s (%s) in %s", name, o.type, o.store);
	else if (!rc)
		rc = soft_store_put(s, &k, err);
	if (!rc && !o.dry_run && k.type == SOFT_KEY_SM2)
		print_key(&k);
	soft_key_wipe(&k);
	return rc;
}

static int destroy(struct soft_store *s, const char *name, struct err *err)
{
	if (!o.dry_run)
		return soft_store_destroy(s, name, err);
	if (!soft_store_find(s, name))
		return err_set(err, -ENOENT, "destroy key %.40s: there is no such key", name);
	log_note("would destroy key %s in %s", name, o.store);
	return 0;
}

int keys_run(int argc, char **argv)
{
	const char *verb = argc ? argv[0] : "list";
	bool making = !strcmp(verb, "make") || !strcmp(verb, "import"), destroying = !strcmp(verb, "destroy");
	struct soft_store s;
	struct err err = {0};
	int rc;

	if (strcmp(verb, "list") != 0 && !making && !destroying)
		return cli_usage_error("%s: not list, make, import or destroy", verb);
	if ((making || destroying) ? argc != 2 : argc > 1)
		return cli_usage_error("%s: %s", verb, making || destroying ? "one NAME" : "no arguments are taken");
	if (strcmp(o.type, "sm2") != 0 && strcmp(o.type, "sm4") != 0)
		return cli_usage_error("--type %s: sm2 or sm4", o.type);
	if (!strcmp(verb, "import") != (o.from != NULL))
		return cli_usage_error(o.from ? "--from goes with import" : "import: --from FILE is missing");
	rc = soft_store_open(&s, o.store, o.store_key, making && !o.dry_run, &err);
	if (!rc) {
		rc = making ? make(&s, argv[1], &err) : destroying ? destroy(&s, argv[1], &err) : list(&s, &err);
		soft_store_close(&s);
	}
	if (rc)
		log_error("%s", err.text);
	return rc ? EXIT_REFUSED : EXIT_DONE;
}
