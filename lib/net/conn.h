/* SPDX-License-Identifier: MIT */
/*
 * A byte stream between two hosts: TLS 1.3 by OpenSSL over a non-blocking socket, or the
 * bare socket where the user said --insecure. One thread a connection.
 */
#ifndef NET_CONN_H
#define NET_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

/* Exactly one of tls_dir, psk_file, insecure. Strings are copied by net_security_new. */
struct net_security_conf {
	const char *tls_dir;  /* holds ca.pem, cert.pem, key.pem */
	const char *psk_file; /* one line "IDENTITY:HEXKEY", ≥ 32 hex digits, mode 0600 or stricter */
	const char *peer_name; /* the peer's certificate must carry this DNS name or address; NULL: any of our CA */
	bool insecure;
	bool server;
};

struct net_security; /* may serve many connections, and outlives them */
struct net_conn;

/* Load keys. -EACCES for a psk file that others can read, -EINVAL, -ENOENT … with @err. */
int net_security_new(const struct net_security_conf *conf, struct net_security **out,
		     struct err *err);
void net_security_free(struct net_security *sec);

/*
 * Take over @fd (closed in any case) and shake hands within @timeout_ms: TLS 1.3 only, both
 * ends authenticated. -EPROTO: not TLS; -EACCES: certificate or key refused; -ETIMEDOUT.
 */
int net_conn_open(struct net_security *sec, int fd, int timeout_ms, struct net_conn **out,
		  struct err *err);

/* As read(2)/write(2) without blocking: > 0 bytes, 0 end of stream (read), -EAGAIN, -errno.
 * An end without TLS's close_notify is -ECONNRESET, so that a cut is never taken for an end.
 * After a write's -EAGAIN write the same bytes again (more may follow them, fewer may not).
 * SIGPIPE must be ignored. */
ssize_t net_conn_read(struct net_conn *conn, void *buf, size_t n);
ssize_t net_conn_write(struct net_conn *conn, const void *buf, size_t n);

/*
 * Why the last read or write failed, or what alert the peer sent, in words; owned by @conn.
 * In TLS 1.3 a client learns only at its first read that its certificate was refused: -EACCES.
 */
const char *net_conn_why(const struct net_conn *conn);

/* The poll(2) events to wait for before reading (and, if @want_write, writing) again. */
short net_conn_events(const struct net_conn *conn, bool want_read, bool want_write);
bool net_conn_has_buffered(const struct net_conn *conn); /* decrypted bytes wait: do not poll */
int net_conn_fd(const struct net_conn *conn);

/* "TLSv1.3 TLS_AES_256_GCM_SHA384, peer CN=…", "TLSv1.3 …, PSK identity …", "plain", for the log. */
const char *net_conn_describe(const struct net_conn *conn, char *buf, size_t size);
void net_conn_close(struct net_conn *conn); /* sends close_notify if it can; NULL is fine */

#endif
