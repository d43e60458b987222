/* SPDX-License-Identifier: MIT */
/* Inside of lib/net: what conn.c, tls.c and psk.c know of each other. */
#ifndef NET_SECURITY_H
#define NET_SECURITY_H

#include <stdbool.h>
#include <stddef.h>
#include <openssl/ssl.h>

#include "base/err.h"

#define PSK_KEY_MIN 16
#define PSK_KEY_MAX 256

struct net_psk {
	char identity[129];
	unsigned char key[PSK_KEY_MAX];
	size_t key_len;
};

struct net_security {
	SSL_CTX *ctx; /* NULL: --insecure */
	bool server, by_psk;
	char *dir;	 /* of the certificates, for messages */
	char *peer_name; /* NULL: any that our CA has signed */
	struct net_psk psk;
};

int psk_load(const char *file, struct net_psk *psk, struct err *err);

/* Restrict sec->ctx to the key; SSL_CTX_get_app_data(ctx) must be @sec. */
int psk_install(struct net_security *sec, struct err *err);

#endif
