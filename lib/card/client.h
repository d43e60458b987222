/* SPDX-License-Identifier: MIT */
/*
 * The guest's end: a link to a shared card, over whatever way there is. Thread-safe: any number
 * of threads may call on one client. The link is made again when it is lost (a restart of the
 * daemon, a move to another host): sessions are opened anew, session keys that can be are
 * imported again, and calls that are idempotent are sent again; others fail with SDR_COMMFAIL.
 * Sessions and objects are therefore named by the client's own numbers, which outlive a link.
 *
 *	struct card_client *c;
 *	card_client_open(NULL, NULL, &c, &err);
 *	struct card_io io = {.rq = {.op = CARD_OP_RANDOM, .session = s}, .out = buf, .out_cap = 32};
 *	if (card_call(c, &io)) … -errno, io.status
 */
#ifndef CARD_CLIENT_H
#define CARD_CLIENT_H

#include "base/err.h"
#include "card/protocol.h"

struct card_client;

struct card_client_opts {
	const char *app;	/* for the host's `stat`; NULL: the program's name */
	uint64_t timeout_us;	/* of a call, lost links included; 0: $CARDSHARE_TIMEOUT, or 30 s */
	uint64_t spin_us;	/* poll so long before sleeping; 0: 50 us, or less where there is one CPU */
	bool no_spin;
	bool no_reconnect;	/* a lost link stays lost: -ENOTCONN */
};

/*
 * @address, NULL: $CARDSHARE, else the first of ivshmem:, vsock:2:7073, unix:/run/util-vm/cardshare/card.sock
 * that is there.
 *	ivshmem:[DEVICE][,queue=N]  a PCI address (0000:00:04.0), a UIO node (/dev/uio0); none: the first device that is
 *		a cardshare region. Interrupts if a UIO driver or vfio-pci has it, else polling
 *	vsock:CID:PORT, unix:PATH   a socket
 *	shm:PATH[,queue=N]          the daemon's ivshmem socket, as a VM of its own: a container, or a test
 *	hybrid:PATH:PORT            a Firecracker-like socket on the host (tests)
 * -EINVAL: not an address; -ENOENT, -ECONNREFUSED, -EACCES …: nobody there; -EPROTO.
 */
int card_client_open(const char *address, const struct card_client_opts *opts,
		     struct card_client **out, struct err *err);
void card_client_close(struct card_client *c); /* NULL is fine; calls under way fail */

/* What HELLO told; of the present link. */
void card_client_hello(struct card_client *c, struct card_hello_answer *hello);
/* The address in use, for words: "ivshmem:0000:00:04.0,queue=1"; borrowed. */
const char *card_client_address(const struct card_client *c);
/* And how it is reached at this moment: "ivshmem:0000:00:04.0,queue=1 (MSI-X by /dev/uio1)". */
void card_client_way(struct card_client *c, char *buf, size_t size);

/*
 * A request under way. The caller owns it and all that it points to, until it was waited for. Of
 * @rq the caller sets op, phase, flags, session, key, key_kind, object, alg, args_len,
 * data_len, out_max; out_max 0 means out_cap (cut to CARD_DATA_MAX).
 */
struct card_io {
	struct card_request rq;
	const void *args; /* rq.args_len bytes */
	const void *data; /* rq.data_len bytes, ≤ CARD_DATA_MAX; card_call_long takes any length */
	const void *data2; /* so many of data_len come from here, after those of @data; */
	uint32_t data2_len; /*   0: none. The text of an AEAD after its additional data */
	void *out_args;	  /* room for out_args_cap bytes, may be NULL */
	void *out;	  /* room for out_cap bytes */
	uint32_t out_args_cap, out_cap;
	/* the answer */
	uint32_t status; /* enum sdr */
	uint32_t object; /* a new session, key, stream; the client's number */
	uint32_t out_args_len, out_len;
	uint32_t card_ns, queued_ns;
	void *user;	 /* the caller's */
	/* the client's */
	int rc;
	uint8_t state, tries;
	uint64_t seq;
	struct card_io *next;
};

/*
 * Give a request away. 0, then card_wait(); -EAGAIN: as many are under way as the link takes, or it is
 * being made again (card_wait_room); -EINVAL: it can't be sent so; -ENOTCONN. Requests of one stream
 * run in the order in which they were given; others in any: one that needs another's result waits.
 */
int card_submit(struct card_client *c, struct card_io *io);

/* Until card_submit may take one more. 0, -ETIMEDOUT, -ENOTCONN. */
int card_wait_room(struct card_client *c);

/* card_submit puts it where the daemon sees it; a batch rings once, for all: submit with
 * card_cork on, then off. */
void card_cork(struct card_client *c, bool on);

/*
 * Until @io is answered. 0 with io->status (whatever it is); -ETIMEDOUT (the request is abandoned, its
 * buffers are free again); -ENOTCONN: the link was lost and this one may not be replayed.
 */
int card_wait(struct card_client *c, struct card_io *io);
bool card_done(struct card_client *c, struct card_io *io); /* without waiting */

/* submit, wait. Waits for room, too. Returns io->status: SDR_COMMFAIL where -errno would be; io->rc tells which. */
uint32_t card_call(struct card_client *c, struct card_io *io);

/*
 * As card_call for data of any length: RANDOM, ECHO, CIPHER (not XTS), MAC, AEAD, HASH, HMAC, split into streams or
 * chained calls and pipelined where the mode allows it (ECB, CTR, CBC and CFB decrypting). @len bytes at io->data,
 * as many of room at io->out (@out_cap), of which *@out_len get used. CIPHER and MAC: out_args, if there is room
 * for it, gets the IV that goes on, or the MAC. AEAD: io->data is the additional data, args.aad_len
 * long, and io->data2 the text of @len bytes.
 */
uint32_t card_call_long(struct card_client *c, struct card_io *io, size_t len, size_t out_cap,
			size_t *out_len);

/* Sessions. SDR_OK, or why not. All that was made in a session goes with it. */
uint32_t card_session_open(struct card_client *c, uint32_t *session);
uint32_t card_session_close(struct card_client *c, uint32_t session);

struct card_client_stat {
	uint64_t requests, bytes, reconnects, replays, doorbells, wakeups;
};
void card_client_stat(struct card_client *c, struct card_client_stat *st);

#endif
