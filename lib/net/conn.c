/* SPDX-License-Identifier: MIT */
#include "net/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "base/units.h"
#include "net/security.h"

struct net_conn {
	int fd;
	SSL *ssl; /* NULL: plain */
	const struct net_security *sec;
	short read_wants, write_wants;
	bool starved; /* the last read found no whole record */
	int broken;   /* -errno of what ended it; nothing goes through any more */
	char peer[160]; /* subject of the certificate that was refused */
	char why[320];
};

/* What OpenSSL reports at our end, and what it means to the user. */
static const struct {
	int reason, code;
	const char *words;
} reasons[] = {
	{SSL_R_WRONG_VERSION_NUMBER, -EPROTO, "the peer does not speak TLS (does it run with --insecure?)"},
	{SSL_R_HTTP_REQUEST, -EPROTO, "the peer speaks HTTP, not TLS"},
	{SSL_R_UNSUPPORTED_PROTOCOL, -EPROTO, "the peer does not speak TLS 1.3"},
	{SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, -EACCES, "the peer shows no certificate"},
	{SSL_R_BINDER_DOES_NOT_VERIFY, -EACCES,
	 "the peer has another pre-shared key of the same identity"},
	{SSL_R_NO_SHARED_CIPHER, -EACCES,
	 "the peer has no key that is known here (another identity, or certificates?)"},
	{SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM, -EACCES,
	 "the peer has no key that is known here (another identity, or certificates?)"},
	{SSL_R_UNEXPECTED_EOF_WHILE_READING, -ECONNRESET, "the peer ended the connection"},
	{0, 0, NULL},
};

/* Alerts of RFC 8446, 6.2, that the other end sends when it refuses us. */
static const struct {
	int alert, code;
	const char *hint;
} alerts[] = {
	{SSL_AD_HANDSHAKE_FAILURE, -EACCES, " (does it know this key, and this kind of key?)"},
	{SSL_AD_BAD_CERTIFICATE, -EACCES, " (does our certificate carry the name it expects?)"},
	{SSL_AD_UNSUPPORTED_CERTIFICATE, -EACCES, ""},
	{SSL_AD_CERTIFICATE_REVOKED, -EACCES, ""},
	{SSL_AD_CERTIFICATE_EXPIRED, -EACCES, ""},
	{SSL_AD_CERTIFICATE_UNKNOWN, -EACCES, ""},
	{SSL_AD_ILLEGAL_PARAMETER, -EACCES, " (has it the same pre-shared key?)"},
	{SSL_AD_UNKNOWN_CA, -EACCES, " (is our certificate signed by its ca.pem?)"},
	{SSL_AD_ACCESS_DENIED, -EACCES, ""},
	{SSL_AD_DECRYPT_ERROR, -EACCES, " (has it the same pre-shared key?)"},
	{SSL_AD_UNKNOWN_PSK_IDENTITY, -EACCES, ""},
	{TLS13_AD_CERTIFICATE_REQUIRED, -EACCES, " (it wants a certificate)"},
	{SSL_AD_PROTOCOL_VERSION, -EPROTO, " (it does not speak TLS 1.3)"},
	{0, 0, NULL},
};

static void subject(const X509 *cert, char *buf, size_t size)
{
	BIO *bio = BIO_new(BIO_s_mem());
	int n = 0;

	/* RFC 2253 escapes control characters: the text is the peer's. */
	if (bio && X509_NAME_print_ex(bio, X509_get_subject_name(cert), 0, XN_FLAG_RFC2253) >= 0)
		n = BIO_read(bio, buf, (int)size - 1);
	buf[n > 0 ? n : 0] = '\0';
	BIO_free(bio);
}

static int on_verify(int ok, X509_STORE_CTX *store)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct net_conn *conn = SSL_get_app_data(ssl);
	const X509 *cert = X509_STORE_CTX_get0_cert(store);

	if (!ok && cert)
		subject(cert, conn->peer, sizeof(conn->peer));
	return ok;
}

/* The way out of a verification's failure, " (…)", or "". */
static const char *verify_hint(const struct net_conn *conn, long result, char *buf, size_t size)
{
	*buf = '\0';
	if (conn->sec->by_psk)
		return " (it should know the pre-shared key instead)";
	switch (result) {
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
	case X509_V_ERR_CERT_SIGNATURE_FAILURE:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
		snprintf(buf, size, " (is it signed by %.100s/ca.pem?)", conn->sec->dir);
		break;
	case X509_V_ERR_HOSTNAME_MISMATCH:
	case X509_V_ERR_IP_ADDRESS_MISMATCH:
		snprintf(buf, size, " (expected %.100s)", conn->sec->peer_name);
		break;
	case X509_V_ERR_CERT_NOT_YET_VALID:
	case X509_V_ERR_CERT_HAS_EXPIRED:
		return " (or is the clock wrong?)";
	case X509_V_ERR_INVALID_PURPOSE:
		return " (its extended key usage must allow clientAuth and serverAuth)";
	}
	return buf;
}

static int refused_certificate(struct net_conn *conn)
{
	long result = SSL_get_verify_result(conn->ssl);
	char hint[140];

	snprintf(conn->why, sizeof(conn->why), "certificate of %.80s refused: %.80s%.130s",
		 *conn->peer ? conn->peer : "the peer", X509_verify_cert_error_string(result),
		 verify_hint(conn, result, hint, sizeof(hint)));
	return -EACCES;
}

static int explain_alert(struct net_conn *conn, int alert)
{
	for (size_t i = 0; alerts[i].code; i++)
		if (alerts[i].alert == alert) {
			snprintf(conn->why, sizeof(conn->why), "refused by the peer: %s%s",
				 SSL_alert_desc_string_long(alert), alerts[i].hint);
			return alerts[i].code;
		}
	snprintf(conn->why, sizeof(conn->why), "the peer reports: %s",
		 SSL_alert_desc_string_long(alert));
	return -EPROTO;
}

/* The first entry of OpenSSL's queue into words and an errno. */
static int explain(struct net_conn *conn)
{
	unsigned long e = ERR_peek_error();
	int reason = ERR_GET_REASON(e);
	const char *text;

	if (ERR_GET_LIB(e) == ERR_LIB_SSL) {
		if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED)
			return refused_certificate(conn);
		if (reason > SSL_AD_REASON_OFFSET)
			return explain_alert(conn, reason - SSL_AD_REASON_OFFSET);
		for (size_t i = 0; reasons[i].words; i++)
			if (reasons[i].reason == reason) {
				snprintf(conn->why, sizeof(conn->why), "%s", reasons[i].words);
				return reasons[i].code;
			}
	}
	text = ERR_reason_error_string(e);
	snprintf(conn->why, sizeof(conn->why), "TLS: %s", text ? text : "protocol error");
	return -EPROTO;
}

static int broke(struct net_conn *conn, int code)
{
	conn->broken = code;
	return code;
}

/* The outcome of an SSL_… call that did not succeed: -EAGAIN with *@wants set, or the end. */
static int outcome(struct net_conn *conn, int rc, short *wants)
{
	int saved = errno;

	switch (SSL_get_error(conn->ssl, rc)) {
	case SSL_ERROR_WANT_READ:
		*wants = POLLIN;
		return -EAGAIN;
	case SSL_ERROR_WANT_WRITE:
		*wants = POLLOUT;
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	case SSL_ERROR_SYSCALL:
		saved = saved ? -saved : -ECONNRESET;
		snprintf(conn->why, sizeof(conn->why), "%s", strerror(-saved));
		return broke(conn, saved);
	}
	return broke(conn, explain(conn));
}

static int handshake(struct net_conn *conn, int timeout_ms, struct err *err)
{
	uint64_t deadline = units_now_us() + (uint64_t)timeout_ms * 1000;
	struct pollfd p = {.fd = conn->fd};

	for (;;) {
		uint64_t now;
		int rc;

		ERR_clear_error();
		rc = SSL_do_handshake(conn->ssl);
		if (rc == 1)
			return 0;
		rc = outcome(conn, rc, &p.events);
		if (!rc)
			rc = -ECONNRESET;
		if (rc != -EAGAIN)
			return err_set(err, rc, "%s%s", rc == -EACCES ? "" : "TLS handshake: ",
				       *conn->why ? conn->why : "the peer ended the connection");
		now = units_now_us();
		if (now >= deadline)
			return err_set(err, -ETIMEDOUT, "TLS handshake: not done within %d ms",
				       timeout_ms);
		if (poll(&p, 1, (int)((deadline - now + 999) / 1000)) < 0 && errno != EINTR)
			return err_sys(err, -errno, "poll");
	}
}

static int expect_peer(struct net_conn *conn)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(conn->ssl);
	const char *name = conn->sec->peer_name;

	if (!name || conn->sec->by_psk || X509_VERIFY_PARAM_set1_ip_asc(param, name))
		return 0;
	X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return X509_VERIFY_PARAM_set1_host(param, name, 0) ? 0 : -EINVAL;
}

static int start_tls(struct net_conn *conn, int timeout_ms, struct err *err)
{
	int rc;

	ERR_clear_error();
	conn->ssl = SSL_new(conn->sec->ctx);
	if (!conn->ssl || !SSL_set_app_data(conn->ssl, conn) || !SSL_set_fd(conn->ssl, conn->fd) ||
	    expect_peer(conn))
		return err_set(err, -ENOMEM, "TLS: cannot set up a connection");
	SSL_set_verify(conn->ssl, SSL_get_verify_mode(conn->ssl), on_verify);
	if (conn->sec->server)
		SSL_set_accept_state(conn->ssl);
	else
		SSL_set_connect_state(conn->ssl);
	rc = handshake(conn, timeout_ms, err);
	if (rc)
		return rc;
	/* OpenSSL counts an external key as a resumption: anything else is not by our key. */
	if (conn->sec->by_psk && !SSL_session_reused(conn->ssl))
		return err_set(err, -EACCES, "the peer did not use the pre-shared key");
	return 0;
}

static void release(struct net_conn *conn)
{
	SSL_free(conn->ssl);
	close(conn->fd);
	free(conn);
	ERR_clear_error();
}

int net_conn_open(struct net_security *sec, int fd, int timeout_ms, struct net_conn **out,
		  struct err *err)
{
	struct net_conn *conn = calloc(1, sizeof(*conn));
	int rc = 0;

	if (!conn) {
		close(fd);
		return err_sys(err, -ENOMEM, "connection");
	}
	*conn = (struct net_conn){
		.fd = fd, .sec = sec, .read_wants = POLLIN, .write_wants = POLLOUT};
	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK))
		rc = err_sys(err, -errno, "connection");
	if (!rc && sec->ctx)
		rc = start_tls(conn, timeout_ms, err);
	if (rc)
		release(conn);
	else
		*out = conn;
	return rc;
}

/* Remember what a plain socket said, so that net_conn_why can tell. */
static ssize_t plain_result(struct net_conn *conn, ssize_t n)
{
	int code = n < 0 ? -errno : 0;

	if (!code)
		return n;
	if (code == -EAGAIN || code == -EINTR)
		return -EAGAIN;
	snprintf(conn->why, sizeof(conn->why), "%s", strerror(-code));
	return code;
}

ssize_t net_conn_read(struct net_conn *conn, void *buf, size_t n)
{
	size_t got;
	int rc;

	if (!conn->ssl)
		return plain_result(conn, recv(conn->fd, buf, n, 0));
	if (conn->broken)
		return conn->broken;
	if (!n)
		return 0;
	ERR_clear_error();
	errno = 0;
	rc = SSL_read_ex(conn->ssl, buf, n, &got);
	conn->starved = rc != 1;
	conn->read_wants = POLLIN;
	return rc == 1 ? (ssize_t)got : outcome(conn, rc, &conn->read_wants);
}

/* A peer that refused us has said why before it closed: take its alert, if it is there. */
static int reason_of_cut(struct net_conn *conn, int code)
{
	char old[sizeof(conn->why)], byte;
	short wants;
	size_t got;
	int rc;

	memcpy(old, conn->why, sizeof(old));
	ERR_clear_error();
	errno = 0;
	rc = SSL_peek_ex(conn->ssl, &byte, 1, &got);
	if (rc != 1 && outcome(conn, rc, &wants) == -EACCES)
		return -EACCES;
	memcpy(conn->why, old, sizeof(old));
	return broke(conn, code);
}

ssize_t net_conn_write(struct net_conn *conn, const void *buf, size_t n)
{
	size_t put;
	int rc;

	if (!conn->ssl)
		return plain_result(conn, send(conn->fd, buf, n, MSG_NOSIGNAL));
	if (conn->broken)
		return conn->broken;
	if (!n)
		return 0;
	ERR_clear_error();
	errno = 0;
	conn->write_wants = POLLOUT;
	rc = SSL_write_ex(conn->ssl, buf, n, &put);
	if (rc == 1)
		return (ssize_t)put;
	rc = outcome(conn, rc, &conn->write_wants);
	if (rc == -EPIPE || rc == -ECONNRESET)
		return reason_of_cut(conn, rc);
	return rc ? rc : -EPIPE;
}

const char *net_conn_why(const struct net_conn *conn)
{
	return *conn->why ? conn->why : "no error";
}

short net_conn_events(const struct net_conn *conn, bool want_read, bool want_write)
{
	return (short)((want_read ? conn->read_wants : 0) | (want_write ? conn->write_wants : 0));
}

/* Half a record counts only until a read has found that it is half. */
bool net_conn_has_buffered(const struct net_conn *conn)
{
	return conn->ssl && !conn->starved && SSL_has_pending(conn->ssl);
}

int net_conn_fd(const struct net_conn *conn)
{
	return conn->fd;
}

const char *net_conn_describe(const struct net_conn *conn, char *buf, size_t size)
{
	char name[160] = "";
	X509 *cert;

	if (!conn->ssl) {
		snprintf(buf, size, "plain");
		return buf;
	}
	cert = SSL_get0_peer_certificate(conn->ssl);
	if (cert)
		subject(cert, name, sizeof(name));
	snprintf(buf, size, "%s %s, %s %s", SSL_get_version(conn->ssl),
		 SSL_get_cipher_name(conn->ssl), conn->sec->by_psk ? "PSK" : "peer",
		 conn->sec->by_psk ? conn->sec->psk.identity : name);
	return buf;
}

void net_conn_close(struct net_conn *conn)
{
	if (!conn)
		return;
	ERR_clear_error();
	if (conn->ssl && !conn->broken)
		SSL_shutdown(conn->ssl);
	release(conn);
}
