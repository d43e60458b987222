/* SPDX-License-Identifier: MIT */
/* External pre-shared keys of TLS 1.3 (RFC 8446, 2.2 and 4.2.11), always with (EC)DHE. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <openssl/crypto.h>

#include "net/security.h"

/*
 * A key is bound to one hash. SHA-256 is RFC 8446's default and enough for a key of 128
 * bits; a key of 256 bits or more asks for the suite that keeps them.
 */
#define LONG_KEY 32

static const unsigned char long_suite[] = {0x13, 0x02}, short_suite[] = {0x13, 0x01};

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 32;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int parse_key(const char *hex, struct net_psk *psk)
{
	size_t n = strlen(hex);

	if (n % 2 || n < 2 * PSK_KEY_MIN || n > 2 * PSK_KEY_MAX)
		return -EINVAL;
	for (size_t i = 0; i < n; i += 2) {
		int high = hex_digit(hex[i]), low = hex_digit(hex[i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		psk->key[i / 2] = (unsigned char)(high << 4 | low);
	}
	psk->key_len = n / 2;
	return 0;
}

/* "IDENTITY:HEXKEY", as QEMU's and GnuTLS's key files have it. */
static int parse_line(char *text, struct net_psk *psk)
{
	size_t end = strcspn(text, "\r\n"), rest = strspn(text + end, "\r\n \t");
	char *colon;

	if (text[end + rest])
		return -EINVAL;
	text[end] = '\0';
	colon = strrchr(text, ':');
	if (!colon || colon == text || (size_t)(colon - text) >= sizeof(psk->identity))
		return -EINVAL;
	for (char *p = text; p < colon; p++)
		if (*p <= ' ' || *p == 0x7f)
			return -EINVAL;
	*colon = '\0';
	memcpy(psk->identity, text, (size_t)(colon - text) + 1);
	return parse_key(colon + 1, psk);
}

static int open_private(const char *file, struct err *err)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;

	if (fd < 0)
		return err_sys(err, -errno, "pre-shared key %s", file);
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		close(fd);
		return err_set(err, -EINVAL, "pre-shared key %s: not a regular file", file);
	}
	if (st.st_mode & 077) {
		close(fd);
		return err_set(err, -EACCES,
			       "pre-shared key %s: others may read it (mode %03o); chmod 600 %s", file,
			       (unsigned)(st.st_mode & 0777), file);
	}
	return fd;
}

int psk_load(const char *file, struct net_psk *psk, struct err *err)
{
	char text[sizeof(psk->identity) + 2 * PSK_KEY_MAX + 8];
	int fd = open_private(file, err), rc;
	ssize_t n;

	if (fd < 0)
		return fd;
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0) {
		rc = err_sys(err, -errno, "pre-shared key %s", file);
		close(fd);
		return rc;
	}
	close(fd);
	text[n] = '\0';
	rc = strlen(text) == (size_t)n ? parse_line(text, psk) : -EINVAL;
	OPENSSL_cleanse(text, sizeof(text));
	if (rc)
		return err_set(err, rc,
			       "pre-shared key %s: not one line IDENTITY:HEXKEY with %d to %d hex digits",
			       file, 2 * PSK_KEY_MIN, 2 * PSK_KEY_MAX);
	return 0;
}

static SSL_SESSION *make_session(SSL *ssl, const struct net_psk *psk)
{
	const unsigned char *suite = psk->key_len >= LONG_KEY ? long_suite : short_suite;
	const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, suite);
	SSL_SESSION *session = cipher ? SSL_SESSION_new() : NULL;

	if (session && SSL_SESSION_set1_master_key(session, psk->key, psk->key_len) &&
	    SSL_SESSION_set_cipher(session, cipher) &&
	    SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION))
		return session;
	SSL_SESSION_free(session);
	return NULL;
}

static const struct net_psk *psk_of(SSL *ssl)
{
	const struct net_security *sec = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));

	return &sec->psk;
}

/* An identity that is not ours: no session, and without certificates the handshake ends. */
static int on_find(SSL *ssl, const unsigned char *identity, size_t n, SSL_SESSION **session)
{
	const struct net_psk *psk = psk_of(ssl);

	*session = NULL;
	if (n != strlen(psk->identity) || memcmp(identity, psk->identity, n))
		return 1;
	*session = make_session(ssl, psk);
	return *session != NULL;
}

static int on_use(SSL *ssl, const EVP_MD *md, const unsigned char **identity, size_t *n,
		  SSL_SESSION **session)
{
	const struct net_psk *psk = psk_of(ssl);

	(void)md; /* the suites of the context all have the key's hash */
	*session = make_session(ssl, psk);
	*identity = (const unsigned char *)psk->identity;
	*n = strlen(psk->identity);
	return *session != NULL;
}

int psk_install(struct net_security *sec, struct err *err)
{
	const char *suites = sec->psk.key_len >= LONG_KEY
				     ? "TLS_AES_256_GCM_SHA384"
				     : "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256";

	if (!SSL_CTX_set_ciphersuites(sec->ctx, suites))
		return err_set(err, -ENOTSUP, "TLS: OpenSSL does not offer %s", suites);
	if (sec->server)
		SSL_CTX_set_psk_find_session_callback(sec->ctx, on_find);
	else
		SSL_CTX_set_psk_use_session_callback(sec->ctx, on_use);
	/* A server that answers with a certificate instead does not know the key. */
	SSL_CTX_set_verify(sec->ctx, sec->server ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
	return 0;
}
