/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "net/conn.h"
#include "net/security.h"

/* One read(2) brings in several records instead of two calls for each. */
#define READ_BUFFER 65536

/* Our names first, then those of libvirt and QEMU (docs/system/tls). */
static const char *const ca_names[] = {"ca.pem", "ca-cert.pem", "cacert.pem", NULL};
static const char *const crl_names[] = {"crl.pem", "ca-crl.pem", "cacrl.pem", NULL};
static const char *const cert_names[2][4] = {
	{"cert.pem", "client-cert.pem", "clientcert.pem", NULL},
	{"cert.pem", "server-cert.pem", "servercert.pem", NULL},
};
static const char *const key_names[2][4] = {
	{"key.pem", "client-key.pem", "clientkey.pem", NULL},
	{"key.pem", "server-key.pem", "serverkey.pem", NULL},
};

static bool has_aes(void)
{
#if defined(__x86_64__) || defined(__i386__)
	return __builtin_cpu_supports("aes");
#elif defined(__aarch64__)
	return getauxval(AT_HWCAP) & (1 << 3); /* HWCAP_AES */
#else
	return false;
#endif
}

static int pick(const char *dir, const char *const *names, char *path, size_t size,
		struct err *err)
{
	for (const char *const *name = names; *name; name++) {
		if (snprintf(path, size, "%s/%s", dir, *name) >= (int)size)
			return err_set(err, -ENAMETOOLONG, "%s: the path is too long", dir);
		if (!access(path, R_OK))
			return 0;
		if (errno != ENOENT)
			return err_sys(err, -errno, "%s", path);
	}
	return err_set(err, -ENOENT, "%s: there is no %s in it (nor %s)", dir, names[0], names[1]);
}

/* What OpenSSL said first is what was wrong; what follows says where. */
static int ssl_err(struct err *err, const char *what)
{
	const char *reason = ERR_reason_error_string(ERR_peek_error());

	err_set(err, -EINVAL, "%s: %s", what, reason ? reason : "not readable as PEM");
	ERR_clear_error();
	return -EINVAL;
}

/* Without this one, OpenSSL would ask for a passphrase on the terminal. */
static int no_passphrase(char *buf, int size, int writing, void *ctx)
{
	(void)buf;
	(void)size;
	(void)writing;
	(void)ctx;
	return -1;
}

static int load_crl(SSL_CTX *ctx, const char *dir, struct err *err)
{
	X509_STORE *store = SSL_CTX_get_cert_store(ctx);
	X509_LOOKUP *lookup;
	char path[4096];
	int rc = pick(dir, crl_names, path, sizeof(path), err);

	if (rc == -ENOENT)
		return 0;
	if (rc)
		return rc;
	lookup = X509_STORE_add_lookup(store, X509_LOOKUP_file());
	if (!lookup || X509_load_crl_file(lookup, path, X509_FILETYPE_PEM) <= 0)
		return ssl_err(err, path);
	X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
	return 0;
}

static int load_key(SSL_CTX *ctx, const char *path, const char *cert, struct err *err)
{
	struct stat st;

	if (!stat(path, &st) && st.st_mode & 07)
		return err_set(err, -EACCES, "%s: anyone may read it (mode %03o); chmod 600 %s", path,
			       (unsigned)(st.st_mode & 0777), path);
	SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
	if (!SSL_CTX_use_PrivateKey_file(ctx, path, SSL_FILETYPE_PEM)) {
		int reason = ERR_GET_REASON(ERR_peek_last_error());

		if (reason == X509_R_KEY_VALUES_MISMATCH) {
			ERR_clear_error();
			return err_set(err, -EINVAL, "%s: not the key of %s", path, cert);
		}
		return ssl_err(err, path);
	}
	return 0;
}

static int load_dir(SSL_CTX *ctx, const char *dir, bool server, struct err *err)
{
	char ca[4096], cert[4096], key[4096];
	int rc;

	rc = pick(dir, ca_names, ca, sizeof(ca), err);
	if (!rc)
		rc = pick(dir, cert_names[server], cert, sizeof(cert), err);
	if (!rc)
		rc = pick(dir, key_names[server], key, sizeof(key), err);
	if (rc)
		return rc;
	if (!SSL_CTX_load_verify_file(ctx, ca))
		return ssl_err(err, ca);
	if (!SSL_CTX_use_certificate_chain_file(ctx, cert))
		return ssl_err(err, cert);
	rc = load_key(ctx, key, cert, err);
	return rc ? rc : load_crl(ctx, dir, err);
}

static int load_certificates(struct net_security *sec, struct err *err)
{
	/* AES without hardware support is slow and leaks through the cache. */
	const char *suites =
		has_aes() ? "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256"
			  : "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256";

	SSL_CTX_set_verify(sec->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	if (!SSL_CTX_set_ciphersuites(sec->ctx, suites))
		return ssl_err(err, suites);
	return load_dir(sec->ctx, sec->dir, sec->server, err);
}

static int new_context(struct net_security *sec, struct err *err)
{
	SSL_CTX *ctx = SSL_CTX_new(sec->server ? TLS_server_method() : TLS_client_method());

	if (!ctx)
		return ssl_err(err, "OpenSSL");
	sec->ctx = ctx;
	SSL_CTX_set_app_data(ctx, sec);
	if (!SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) ||
	    !SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION))
		return ssl_err(err, "TLS 1.3");
	/* A resumed session would outlive a certificate's revocation. */
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(ctx, 0);
	/* The server's order counts, save for a client without AES hardware. */
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE |
					 SSL_OP_PRIORITIZE_CHACHA);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				      SSL_MODE_AUTO_RETRY);
	SSL_CTX_set_read_ahead(ctx, 1);
	SSL_CTX_set_default_read_buffer_len(ctx, READ_BUFFER);
	return 0;
}

static int fill(struct net_security *sec, const struct net_security_conf *conf, struct err *err)
{
	int rc;

	sec->server = conf->server;
	sec->by_psk = conf->psk_file != NULL;
	if (conf->insecure)
		return 0;
	if (conf->tls_dir && !(sec->dir = strdup(conf->tls_dir)))
		return err_sys(err, -ENOMEM, "TLS");
	if (conf->peer_name && !(sec->peer_name = strdup(conf->peer_name)))
		return err_sys(err, -ENOMEM, "TLS");
	rc = new_context(sec, err);
	if (rc)
		return rc;
	if (conf->tls_dir)
		return load_certificates(sec, err);
	rc = psk_load(conf->psk_file, &sec->psk, err);
	return rc ? rc : psk_install(sec, err);
}

int net_security_new(const struct net_security_conf *conf, struct net_security **out,
		     struct err *err)
{
	struct net_security *sec;
	int rc;

	if (!!conf->tls_dir + !!conf->psk_file + conf->insecure != 1)
		return err_set(err, -EINVAL,
			       "security: exactly one of certificates, a pre-shared key, or none");
	sec = calloc(1, sizeof(*sec));
	if (!sec)
		return err_sys(err, -ENOMEM, "security");
	rc = fill(sec, conf, err);
	if (rc)
		net_security_free(sec);
	else
		*out = sec;
	return rc;
}

void net_security_free(struct net_security *sec)
{
	if (!sec)
		return;
	SSL_CTX_free(sec->ctx);
	OPENSSL_cleanse(&sec->psk, sizeof(sec->psk));
	free(sec->dir);
	free(sec->peer_name);
	free(sec);
}
