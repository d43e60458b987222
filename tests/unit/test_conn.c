/* SPDX-License-Identifier: MIT */
/* Connections over socket pairs: whom TLS lets in, what a refusal says, and how ends are told. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "net/conn.h"

#define OPEN_MS 10000
#define KEY32 "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define KEY16 "000102030405060708090a0b0c0d0e0f"

static char top[] = "/tmp/test_conn.XXXXXX";

static const char *in_top(const char *name)
{
	static char paths[4][256];
	static int next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", top, name);
	return path;
}

/* A certificate of the test's own authority. */
struct identity {
	EVP_PKEY *key;
	X509 *cert;
};

static void add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *ext;

	X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
	ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	assert_non_null(ext);
	assert_true(X509_add_ext(cert, ext, -1));
	X509_EXTENSION_free(ext);
}

static struct identity make_identity(const char *cn, const struct identity *by, const char *san,
				     long valid_s)
{
	struct identity id = {EVP_EC_gen("P-256"), X509_new()};
	static long serial = 1;
	X509_NAME *name;

	assert_non_null(id.key);
	assert_non_null(id.cert);
	X509_set_version(id.cert, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(id.cert), serial++);
	X509_gmtime_adj(X509_getm_notBefore(id.cert), -7200);
	X509_gmtime_adj(X509_getm_notAfter(id.cert), valid_s);
	name = X509_get_subject_name(id.cert);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)cn, -1, -1, 0);
	X509_set_issuer_name(id.cert, by ? X509_get_subject_name(by->cert) : name);
	X509_set_pubkey(id.cert, id.key);
	add_extension(id.cert, by ? by->cert : id.cert, NID_basic_constraints,
		      by ? "critical,CA:FALSE" : "critical,CA:TRUE");
	if (san)
		add_extension(id.cert, by->cert, NID_subject_alt_name, san);
	assert_true(X509_sign(id.cert, by ? by->key : id.key, EVP_sha256()));
	return id;
}

static void free_identity(struct identity *id)
{
	EVP_PKEY_free(id->key);
	X509_free(id->cert);
}

static void write_cert(const char *path, X509 *cert)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(PEM_write_X509(f, cert));
	fclose(f);
}

static void write_key(const char *path, EVP_PKEY *key)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fchmod(fileno(f), 0600), 0);
	assert_true(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL));
	fclose(f);
}

static void write_dir(const char *name, const char *prefix, const struct identity *ca,
		      const struct identity *id)
{
	char path[400];

	mkdir(in_top(name), 0700);
	snprintf(path, sizeof(path), "%s/%s/%s", top, name, *prefix ? "ca-cert.pem" : "ca.pem");
	write_cert(path, ca->cert);
	snprintf(path, sizeof(path), "%s/%s/%scert.pem", top, name, prefix);
	write_cert(path, id->cert);
	snprintf(path, sizeof(path), "%s/%s/%skey.pem", top, name, prefix);
	write_key(path, id->key);
}

static void write_text(const char *name, const char *text, mode_t mode)
{
	FILE *f = fopen(in_top(name), "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	assert_int_equal(chmod(in_top(name), mode), 0);
}

static void write_revocations(const char *path, const struct identity *ca, const struct identity *id)
{
	X509_CRL *crl = X509_CRL_new();
	X509_REVOKED *gone = X509_REVOKED_new();
	ASN1_TIME *now = X509_gmtime_adj(NULL, -60), *next = X509_gmtime_adj(NULL, 3600);
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	X509_CRL_set_version(crl, 1);
	X509_CRL_set_issuer_name(crl, X509_get_subject_name(ca->cert));
	X509_CRL_set1_lastUpdate(crl, now);
	X509_CRL_set1_nextUpdate(crl, next);
	X509_REVOKED_set_serialNumber(gone, X509_get_serialNumber(id->cert));
	X509_REVOKED_set_revocationDate(gone, now);
	X509_CRL_add0_revoked(crl, gone);
	assert_true(X509_CRL_sign(crl, ca->key, EVP_sha256()));
	assert_true(PEM_write_X509_CRL(f, crl));
	fclose(f);
	ASN1_TIME_free(now);
	ASN1_TIME_free(next);
	X509_CRL_free(crl);
}

static int make_files(void **state)
{
	struct identity ca, other, a, b, stranger, old;

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	assert_non_null(mkdtemp(top));
	ca = make_identity("test authority", NULL, NULL, 3600);
	other = make_identity("other authority", NULL, NULL, 3600);
	a = make_identity("alpha", &ca, "DNS:alpha.example,IP:127.0.0.1", 3600);
	b = make_identity("beta", &ca, NULL, 3600);
	stranger = make_identity("stranger", &other, NULL, 3600);
	old = make_identity("old", &ca, NULL, -60);
	write_dir("a", "", &ca, &a);
	write_dir("b", "", &ca, &b);
	write_dir("stranger", "", &ca, &stranger);
	write_dir("old", "", &ca, &old);
	write_dir("qemu", "server-", &ca, &a);
	write_dir("qemu", "client-", &ca, &b);
	write_dir("mixed", "", &ca, &a);
	write_key(in_top("mixed/key.pem"), b.key);
	write_dir("revoking", "", &ca, &a);
	write_revocations(in_top("revoking/crl.pem"), &ca, &b);
	mkdir(in_top("empty"), 0700);
	write_text("psk", "migrate:" KEY32 "\n", 0600);
	write_text("psk16", "migrate:" KEY16 "\n", 0600);
	write_text("psk-other", "migrate:ff" KEY32 "\n", 0600);
	write_text("psk-name", "somebody:" KEY32, 0600);
	write_text("psk-open", "migrate:" KEY32 "\n", 0644);
	write_text("psk-bad", "migrate:xyz\n", 0600);
	write_text("psk-two", "migrate:" KEY32 "\nmore:" KEY32 "\n", 0600);
	free_identity(&ca);
	free_identity(&other);
	free_identity(&a);
	free_identity(&b);
	free_identity(&stranger);
	free_identity(&old);
	return 0;
}

static int remove_files(void **state)
{
	char cmd[64];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -rf %s", top);
	return system(cmd);
}

/* One end of a connection, opened in a thread of its own. */
struct end {
	struct net_security_conf conf;
	struct net_security *sec;
	struct net_conn *conn;
	struct err err;
	int fd, rc, timeout_ms;
	pthread_t thread;
};

static void *open_end(void *arg)
{
	struct end *end = arg;

	end->rc = net_conn_open(end->sec, end->fd, end->timeout_ms, &end->conn, &end->err);
	return NULL;
}

static void load(struct end *end)
{
	struct err err = {0};

	if (net_security_new(&end->conf, &end->sec, &err))
		fail_msg("%s", err.text);
	end->timeout_ms = OPEN_MS;
}

static void join_ends(struct end *server, struct end *client)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	server->conf.server = true;
	load(server);
	load(client);
	server->fd = pair[0];
	client->fd = pair[1];
	assert_int_equal(pthread_create(&server->thread, NULL, open_end, server), 0);
	open_end(client);
	pthread_join(server->thread, NULL);
}

static void part_ends(struct end *server, struct end *client)
{
	net_conn_close(server->conn);
	net_conn_close(client->conn);
	net_security_free(server->sec);
	net_security_free(client->sec);
}

static ssize_t read_some(struct net_conn *conn, void *buf, size_t n)
{
	struct pollfd p = {.fd = net_conn_fd(conn)};

	for (;;) {
		ssize_t got = net_conn_read(conn, buf, n);

		if (got != -EAGAIN)
			return got;
		assert_false(net_conn_has_buffered(conn));
		p.events = net_conn_events(conn, true, false);
		assert_int_equal(poll(&p, 1, OPEN_MS), 1);
	}
}

static void pass_bytes(struct net_conn *from, struct net_conn *to)
{
	static unsigned char out[3 << 20], in[sizeof(out)];
	size_t put = 0, got = 0;

	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = (unsigned char)(i * 2654435761u >> 24);
	memset(in, 0, sizeof(in));
	while (got < sizeof(out)) {
		ssize_t n = put < sizeof(out) ? net_conn_write(from, out + put, sizeof(out) - put) : 0;

		assert_true(n >= 0 || n == -EAGAIN);
		put += n > 0 ? (size_t)n : 0;
		n = net_conn_read(to, in + got, sizeof(in) - got);
		assert_true(n > 0 || n == -EAGAIN);
		got += n > 0 ? (size_t)n : 0;
	}
	assert_memory_equal(in, out, sizeof(out));
}

static void assert_works(struct end *server, struct end *client, const char *server_sees)
{
	char text[300];

	join_ends(server, client);
	if (server->rc || client->rc)
		fail_msg("server: %s; client: %s", server->err.text, client->err.text);
	pass_bytes(server->conn, client->conn);
	pass_bytes(client->conn, server->conn);
	net_conn_describe(server->conn, text, sizeof(text));
	if (!strstr(text, server_sees))
		fail_msg("'%s' lacks '%s'", text, server_sees);
	net_conn_close(client->conn);
	client->conn = NULL;
	assert_int_equal(read_some(server->conn, text, sizeof(text)), 0);
	part_ends(server, client);
}

static void assert_words(const char *text, const char *words)
{
	if (!strstr(text, words))
		fail_msg("'%s' lacks '%s'", text, words);
}

static void certificates_of_one_authority(void **state)
{
	struct end s = {.conf.tls_dir = in_top("a")}, c = {.conf.tls_dir = in_top("b")};

	(void)state;
	assert_works(&s, &c, "TLSv1.3 TLS_");
}

static void names_of_qemu_and_libvirt(void **state)
{
	struct end s = {.conf.tls_dir = in_top("qemu")}, c = {.conf.tls_dir = in_top("qemu")};

	(void)state;
	assert_works(&s, &c, "peer CN=beta");
}

static void expected_name(void **state)
{
	struct end s = {.conf.tls_dir = in_top("a")}, c = {.conf.tls_dir = in_top("b")};
	struct end s2 = s, c2 = c;

	(void)state;
	c.conf.peer_name = "alpha.example";
	assert_works(&s, &c, "TLSv1.3");
	c2.conf.peer_name = "127.0.0.1";
	assert_works(&s2, &c2, "TLSv1.3");
}

static void another_name_is_refused(void **state)
{
	struct end s = {.conf.tls_dir = in_top("a")};
	struct end c = {.conf = {.tls_dir = in_top("b"), .peer_name = "gamma.example"}};

	(void)state;
	join_ends(&s, &c);
	assert_int_equal(c.rc, -EACCES);
	assert_words(c.err.text, "certificate of CN=alpha refused");
	assert_words(c.err.text, "(expected gamma.example)");
	assert_int_equal(s.rc, -EACCES);
	assert_words(s.err.text, "refused by the peer");
	part_ends(&s, &c);
}

static void server_of_another_authority(void **state)
{
	struct end s = {.conf.tls_dir = in_top("stranger")}, c = {.conf.tls_dir = in_top("b")};
	char hint[300];

	(void)state;
	join_ends(&s, &c);
	assert_int_equal(c.rc, -EACCES);
	assert_words(c.err.text, "certificate of CN=stranger refused");
	snprintf(hint, sizeof(hint), "(is it signed by %s/b/ca.pem?)", top);
	assert_words(c.err.text, hint);
	assert_int_equal(s.rc, -EACCES);
	assert_words(s.err.text, "is our certificate signed by its ca.pem?");
	part_ends(&s, &c);
}

/* In TLS 1.3 the client is done before the server looks at its certificate. */
static void client_of_another_authority(void **state)
{
	struct end s = {.conf.tls_dir = in_top("a")}, c = {.conf.tls_dir = in_top("stranger")};
	char buf[16];

	(void)state;
	join_ends(&s, &c);
	assert_int_equal(s.rc, -EACCES);
	assert_words(s.err.text, "certificate of CN=stranger refused");
	assert_int_equal(c.rc, 0);
	assert_int_equal(read_some(c.conn, buf, sizeof(buf)), -EACCES);
	assert_words(net_conn_why(c.conn), "refused by the peer: unknown CA");
	assert_int_equal(net_conn_write(c.conn, "x", 1), -EACCES);
	part_ends(&s, &c);
}

/* The same, but the client writes first and meets a closed socket. */
static void refused_client_that_writes(void **state)
{
	struct end s = {.conf.tls_dir = in_top("a")}, c = {.conf.tls_dir = in_top("stranger")};

	(void)state;
	join_ends(&s, &c);
	assert_int_equal(c.rc, 0);
	assert_int_equal(net_conn_write(c.conn, "x", 1), -EACCES);
	assert_words(net_conn_why(c.conn), "refused by the peer: unknown CA");
	part_ends(&s, &c);
}

static void expired_certificate(void **state)
{
	struct end s = {.conf.tls_dir = in_top("old")}, c = {.conf.tls_dir = in_top("b")};

	(void)state;
	join_ends(&s, &c);
	assert_int_equal(c.rc, -EACCES);
	assert_words(c.err.text, "certificate of CN=old refused: certificate has expired");
	part_ends(&s, &c);
}

static void revoked_certificate(void **state)
{
	struct end s = {.conf.tls_dir = in_top("revoking")}, c = {.conf.tls_dir = in_top("b")};

	(void)state;
	join_ends(&s, &c);
	assert_int_equal(s.rc, -EACCES);
	assert_words(s.err.text, "certificate of CN=beta refused: certificate revoked");
	part_ends(&s, &c);
}

static void shared_key(void **state)
{
	struct end s = {.conf.psk_file = in_top("psk")}, c = {.conf.psk_file = in_top("psk")};

	(void)state;
	assert_works(&s, &c, "TLSv1.3 TLS_AES_256_GCM_SHA384, PSK migrate");
}

static void short_shared_key(void **state)
{
	struct end s = {.conf.psk_file = in_top("psk16")}, c = {.conf.psk_file = in_top("psk16")};

	(void)state;
	assert_works(&s, &c, "TLSv1.3 TLS_AES_128_GCM_SHA256, PSK migrate");
}

static void wrong_shared_key(void **state)
{
	struct end s = {.conf.psk_file = in_top("psk")}, c = {.conf.psk_file = in_top("psk-other")};

	(void)state;
	join_ends(&s, &c);
	assert_int_equal(s.rc, -EACCES);
	assert_words(s.err.text, "another pre-shared key");
	assert_int_equal(c.rc, -EACCES);
	assert_words(c.err.text, "has it the same pre-shared key?");
	part_ends(&s, &c);
}

static void keys_of_other_strength(void **state)
{
	struct end s = {.conf.psk_file = in_top("psk")}, c = {.conf.psk_file = in_top("psk16")};

	(void)state;
	join_ends(&s, &c);
	assert_int_equal(s.rc, -EACCES);
	assert_int_equal(c.rc, -EACCES);
	part_ends(&s, &c);
}

static void unknown_identity(void **state)
{
	struct end s = {.conf.psk_file = in_top("psk")}, c = {.conf.psk_file = in_top("psk-name")};

	(void)state;
	join_ends(&s, &c);
	assert_int_equal(s.rc, -EACCES);
	assert_words(s.err.text, "no key that is known here");
	assert_int_equal(c.rc, -EACCES);
	assert_words(c.err.text, "does it know this key");
	part_ends(&s, &c);
}

static void key_against_certificates(void **state)
{
	struct end s = {.conf.psk_file = in_top("psk")}, c = {.conf.tls_dir = in_top("b")};
	struct end s2 = {.conf.tls_dir = in_top("a")}, c2 = {.conf.psk_file = in_top("psk")};

	(void)state;
	join_ends(&s, &c);
	assert_int_equal(s.rc, -EACCES);
	assert_int_equal(c.rc, -EACCES);
	part_ends(&s, &c);
	join_ends(&s2, &c2);
	assert_int_equal(s2.rc, -EACCES);
	assert_int_equal(c2.rc, -EACCES);
	assert_words(c2.err.text, "it should know the pre-shared key instead");
	part_ends(&s2, &c2);
}

static void plain(void **state)
{
	struct end s = {.conf.insecure = true}, c = {.conf.insecure = true};

	(void)state;
	assert_works(&s, &c, "plain");
}

static void plain_peer_of_tls(void **state)
{
	struct end s = {.conf.tls_dir = in_top("a"), .conf.server = true};
	const char *hello = "UTILVM-CUMP 1 plain and not TLS at all\n";
	int pair[2];

	(void)state;
	load(&s);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(write(pair[1], hello, strlen(hello)), (ssize_t)strlen(hello));
	s.fd = pair[0];
	open_end(&s);
	assert_int_equal(s.rc, -EPROTO);
	assert_words(s.err.text, "the peer does not speak TLS");
	close(pair[1]);
	net_security_free(s.sec);
}

static void *speak_tls12(void *arg)
{
	int fd = *(int *)arg;
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	SSL *ssl;

	SSL_CTX_set_max_proto_version(ctx, TLS1_2_VERSION);
	ssl = SSL_new(ctx);
	SSL_set_fd(ssl, fd);
	SSL_connect(ssl);
	SSL_free(ssl);
	SSL_CTX_free(ctx);
	close(fd);
	return NULL;
}

static void older_tls_is_refused(void **state)
{
	struct end s = {.conf.tls_dir = in_top("a"), .conf.server = true};
	pthread_t thread;
	int pair[2];

	(void)state;
	load(&s);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(pthread_create(&thread, NULL, speak_tls12, &pair[1]), 0);
	s.fd = pair[0];
	open_end(&s);
	pthread_join(thread, NULL);
	assert_int_equal(s.rc, -EPROTO);
	assert_words(s.err.text, "TLS 1.3");
	net_security_free(s.sec);
}

static void silent_peer_meets_the_deadline(void **state)
{
	struct end s = {.conf.tls_dir = in_top("a"), .conf.server = true};
	int pair[2];

	(void)state;
	load(&s);
	s.timeout_ms = 100;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	s.fd = pair[0];
	open_end(&s);
	assert_int_equal(s.rc, -ETIMEDOUT);
	close(pair[1]);
	net_security_free(s.sec);
}

static void peer_that_hangs_up(void **state)
{
	struct end s = {.conf.tls_dir = in_top("a"), .conf.server = true};
	int pair[2];

	(void)state;
	load(&s);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	close(pair[1]);
	s.fd = pair[0];
	open_end(&s);
	assert_int_equal(s.rc, -ECONNRESET);
	net_security_free(s.sec);
}

/* A cut must not look like an end: close the descriptor under the connection's feet. */
static void cut_without_close_notify(void **state)
{
	struct end s = {.conf.tls_dir = in_top("a")}, c = {.conf.tls_dir = in_top("b")};
	char buf[16];

	(void)state;
	join_ends(&s, &c);
	assert_int_equal(c.rc, 0);
	assert_int_equal(net_conn_write(c.conn, "last", 4), 4);
	shutdown(net_conn_fd(c.conn), SHUT_RDWR);
	assert_int_equal(read_some(s.conn, buf, sizeof(buf)), 4);
	assert_int_equal(read_some(s.conn, buf, sizeof(buf)), -ECONNRESET);
	assert_int_equal(net_conn_read(s.conn, buf, sizeof(buf)), -ECONNRESET);
	part_ends(&s, &c);
}

static void altered_bytes_are_noticed(void **state)
{
	struct end s = {.conf.tls_dir = in_top("a")}, c = {.conf.tls_dir = in_top("b")};
	static const unsigned char record[] = {23, 3, 3, 0, 24, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10,
					       11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24};
	char buf[16];

	(void)state;
	join_ends(&s, &c);
	assert_int_equal(c.rc, 0);
	assert_int_equal(write(net_conn_fd(c.conn), record, sizeof(record)), sizeof(record));
	assert_int_equal(read_some(s.conn, buf, sizeof(buf)), -EPROTO);
	assert_int_equal(read_some(c.conn, buf, sizeof(buf)), -EPROTO);
	part_ends(&s, &c);
}

/* Half a record in OpenSSL's buffer must let the caller sleep in poll(2), not spin. */
static void half_a_record_does_not_spin(void **state)
{
	struct end s = {.conf.tls_dir = in_top("a")}, c = {.conf.tls_dir = in_top("b")};
	static const unsigned char half[] = {23, 3, 3, 0, 200, 1, 2, 3};
	char buf[16];

	(void)state;
	join_ends(&s, &c);
	assert_int_equal(c.rc, 0);
	assert_int_equal(net_conn_write(c.conn, "abcd", 4), 4);
	assert_int_equal(write(net_conn_fd(c.conn), half, sizeof(half)), sizeof(half));
	assert_int_equal(read_some(s.conn, buf, 2), 2);
	assert_true(net_conn_has_buffered(s.conn));
	assert_int_equal(read_some(s.conn, buf, 16), 2);
	assert_int_equal(net_conn_read(s.conn, buf, 16), -EAGAIN);
	assert_false(net_conn_has_buffered(s.conn));
	assert_int_equal(net_conn_events(s.conn, true, false), POLLIN);
	part_ends(&s, &c);
}

static void assert_not_loaded(struct net_security_conf conf, int code, const char *words)
{
	struct net_security *sec = NULL;
	struct err err = {0};

	assert_int_equal(net_security_new(&conf, &sec, &err), code);
	assert_null(sec);
	assert_words(err.text, words);
}

static void what_does_not_load(void **state)
{
	(void)state;
	assert_not_loaded((struct net_security_conf){0}, -EINVAL, "exactly one");
	assert_not_loaded((struct net_security_conf){.tls_dir = "x", .insecure = true}, -EINVAL,
			  "exactly one");
	assert_not_loaded((struct net_security_conf){.tls_dir = in_top("empty")}, -ENOENT,
			  "there is no ca.pem");
	assert_not_loaded((struct net_security_conf){.tls_dir = in_top("mixed")}, -EINVAL,
			  "not the key of");
	assert_not_loaded((struct net_security_conf){.psk_file = in_top("psk-open")}, -EACCES,
			  "chmod 600");
	assert_not_loaded((struct net_security_conf){.psk_file = in_top("psk-bad")}, -EINVAL,
			  "IDENTITY:HEXKEY");
	assert_not_loaded((struct net_security_conf){.psk_file = in_top("psk-two")}, -EINVAL,
			  "IDENTITY:HEXKEY");
	assert_not_loaded((struct net_security_conf){.psk_file = in_top("none")}, -ENOENT,
			  "No such file");
	assert_int_equal(chmod(in_top("old/key.pem"), 0644), 0);
	assert_not_loaded((struct net_security_conf){.tls_dir = in_top("old")}, -EACCES,
			  "anyone may read it");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(certificates_of_one_authority),
		cmocka_unit_test(names_of_qemu_and_libvirt),
		cmocka_unit_test(expected_name),
		cmocka_unit_test(another_name_is_refused),
		cmocka_unit_test(server_of_another_authority),
		cmocka_unit_test(client_of_another_authority),
		cmocka_unit_test(refused_client_that_writes),
		cmocka_unit_test(expired_certificate),
		cmocka_unit_test(revoked_certificate),
		cmocka_unit_test(shared_key),
		cmocka_unit_test(short_shared_key),
		cmocka_unit_test(wrong_shared_key),
		cmocka_unit_test(keys_of_other_strength),
		cmocka_unit_test(unknown_identity),
		cmocka_unit_test(key_against_certificates),
		cmocka_unit_test(plain),
		cmocka_unit_test(plain_peer_of_tls),
		cmocka_unit_test(older_tls_is_refused),
		cmocka_unit_test(silent_peer_meets_the_deadline),
		cmocka_unit_test(peer_that_hangs_up),
		cmocka_unit_test(cut_without_close_notify),
		cmocka_unit_test(altered_bytes_are_noticed),
		cmocka_unit_test(half_a_record_does_not_spin),
		cmocka_unit_test(what_does_not_load),
	};

	return cmocka_run_group_tests(tests, make_files, remove_files);
}
