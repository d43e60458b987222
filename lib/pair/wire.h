/* SPDX-License-Identifier: MIT */
/*
 * The data plane of a paired migration: one thread that moves bytes between the members'
 * migration sockets and the connection to the other host, both ways, and carries the
 * coordinator's messages. The coordinator only opens and closes gates and reads counters.
 */
#ifndef PAIR_WIRE_H
#define PAIR_WIRE_H

#include <stdbool.h>
#include <stdint.h>
#include <json-c/json.h>

#include "base/err.h"
#include "net/addr.h"
#include "net/conn.h"
#include "pair/frame.h"

struct wire;

struct wire_conf {
	bool compress;
	int zstd_level;
	int silence_ms; /* nothing heard for so long: the link is dead */
};

struct wire_stats {
	uint64_t raw_bytes;  /* of the member's own stream, taken in (source) or handed over (destination) */
	uint64_t wire_bytes; /* of frames with it, sent or received */
};

/* Takes over @conn. */
int wire_start(struct net_conn *conn, const struct wire_conf *conf, struct wire **out,
	       struct err *err);

/* Connect to @dest, shake hands (each within @timeout_ms) and start. */
int wire_connect(const struct net_addr *dest, struct net_security *security, int timeout_ms,
		 const struct wire_conf *conf, struct wire **out, struct err *err);

/* Give member @owner's socket to the wire (taken over), with @credit as of wire_gate. */
int wire_attach(struct wire *w, unsigned owner, int fd, uint64_t credit);

/*
 * How many more bytes of the member's stream may be read. 0 parks it: its hypervisor stalls
 * and its guest runs on. UINT64_MAX: no limit.
 */
void wire_gate(struct wire *w, unsigned owner, uint64_t credit);

/*
 * Cut member @owner's stream: its hypervisor sees the end at once, whatever waits for the
 * connection. One that was about to end its own stream answers nobody before that.
 */
void wire_cut(struct wire *w, unsigned owner);

/* Of two members with something to send, the one with the larger share left goes first (0…1). */
void wire_share(struct wire *w, unsigned owner, double left);

/* Queue a message (consumed). -EPIPE: the wire is down. */
int wire_send(struct wire *w, struct json_object *message, struct err *err);

/*
 * The next message of the peer, owned by the caller. -ETIMEDOUT; or why the wire is down:
 * -ECONNRESET, -ETIMEDOUT (as -ETIME: the peer was silent), -EPROTO … with words in @err.
 */
int wire_recv(struct wire *w, int timeout_ms, struct json_object **message, struct err *err);

/* 0 while the wire is up; else what brought it down. */
int wire_status(struct wire *w, struct err *err);

/* The member's stream is over and every byte of it was handed to the other side (the
 * peer's socket for incoming data, the connection for outgoing). */
bool wire_drained(struct wire *w, unsigned owner);
/* The peer said END of this member's stream and all of it was written to its socket. */
bool wire_delivered(struct wire *w, unsigned owner);

void wire_stats(struct wire *w, unsigned owner, struct wire_stats *stats);

/* A descriptor that is readable when wire_recv has something, and when a member is drained; for poll(2). wire_recv takes it back. */
int wire_fd(struct wire *w);

/* Wait at most @timeout_ms for what was queued to leave, then end thread and connection. */
void wire_close(struct wire *w, int timeout_ms);

#endif
