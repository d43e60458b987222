/* SPDX-License-Identifier: MIT */
/*
 * What a guest asks of a shared card and what it is answered: the same two headers in the
 * rings of shared memory (card/ring.h) and in a framed stream over a socket. Every operation
 * of GM/T 0018 is one of the few here; the table in cardshare-protocol(7) tells which. Format: cardshare-protocol(7).
 *
 * All numbers are little-endian. Every reserved byte is zero, and a request with another is
 * refused: a later version may give it a meaning.
 */
#ifndef CARD_PROTOCOL_H
#define CARD_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "card/gmt0018.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the formats of cardshare are little-endian, and so must the machine be"
#endif

#define CARD_VERSION 1u
#define CARD_REQUEST_MAGIC 0x31715243u /* "CRq1" */
#define CARD_ANSWER_MAGIC 0x31614143u  /* "CAa1" */

#define CARD_ARGS_MAX 448   /* fixed-size parameters of an operation */
#define CARD_DATA_MAX 16384 /* bulk data, as the paper's cards take it: 0 … 16 KiB */
#define CARD_NAME_MAX 32    /* of a VM and of a card, with its NUL */

enum card_op {
	CARD_OP_HELLO = 1,	/* versions, limits; first on every link */
	CARD_OP_ECHO,		/* data → data; touches no card (the paper's experiment 1) */
	CARD_OP_INFO,		/* → struct sdf_device_info as data */
	CARD_OP_SESSION_OPEN,	/* → object: the session */
	CARD_OP_SESSION_CLOSE,	/* with all that it made */
	CARD_OP_RANDOM,		/* → out_max bytes */
	CARD_OP_RIGHT_GET,	/* to private key @key (index); data: password */
	CARD_OP_RIGHT_DROP,
	CARD_OP_PUBLIC,		/* public half of @key (index), @alg: …_SIGN or …_ENC → data */
	CARD_OP_PAIR,		/* a new key pair that leaves the card: args card_pair → public ‖ private */
	CARD_OP_KEY_MAKE,	/* a session key, wrapped for somebody: args card_wrap → object, data */
	CARD_OP_KEY_TAKE,	/* unwrap data, or take it as it is: args card_wrap → object */
	CARD_OP_KEY_EXCHANGE,	/* a digital envelope for @key → one for the key given: args card_wrap */
	CARD_OP_AGREE,		/* SM2 key agreement: args card_agree, data: both identities */
	CARD_OP_DROP,		/* destroy @object: key, agreement or stream */
	CARD_OP_SIGN,		/* data: digest; args card_sign if the key is given → args signature */
	CARD_OP_VERIFY,		/* data: digest; args card_verify → status */
	CARD_OP_PK_ENCRYPT,	/* SM2; args card_public if the key is given → struct sdf_ecc_cipher */
	CARD_OP_PK_DECRYPT,	/* SM2; data: struct sdf_ecc_cipher → plain */
	CARD_OP_RSA_PUBLIC,	/* raw RSA; the key if given is in front of the data */
	CARD_OP_RSA_PRIVATE,
	CARD_OP_CIPHER,		/* args card_cipher; data → data, args card_cipher (the next IV) */
	CARD_OP_MAC,		/* args card_cipher; data → args card_cipher: iv is the MAC */
	CARD_OP_AEAD,		/* args card_aead; data: aad ‖ text → text, args card_aead (tag) */
	CARD_OP_HASH,		/* args card_hash; data → digest as data */
	CARD_OP_HMAC,		/* data → code as data */
	CARD_OP_FILE_CREATE,	/* args card_file */
	CARD_OP_FILE_READ,	/* args card_file → data */
	CARD_OP_FILE_WRITE,	/* args card_file, data */
	CARD_OP_FILE_DELETE,	/* args card_file */
	CARD_OP_KEYS,		/* → struct card_key_entry of each key that this VM may use, as data */
	CARD_OP_COUNT,
};

/* Where the key of a request is. */
enum card_key_kind {
	CARD_KEY_NONE,
	CARD_KEY_INDEX,	/* @key: index of a key that lives in the card, as this VM counts them */
	CARD_KEY_OBJECT, /* @key: a session key's handle */
	CARD_KEY_GIVEN,	/* in args or data */
};

#define CARD_PHASE_BEGIN 1u /* args are those of a beginning; answers object: the stream, unless END */
#define CARD_PHASE_END 2u   /* the last; with BEGIN: the whole in one request, the usual case */
#define CARD_PHASE_AAD 4u   /* AEAD: data is additional data only */
#define CARD_FLAG_DECRYPT 1u
#define CARD_FLAG_REPLAY 2u /* sent again after a link was lost; allowed for idempotent ones only */

/*
 * A request. @seq counts the requests of a link from 1, and in a ring is what publishes the
 * slot: it is written last. Handles (@session, @object, a @key of kind OBJECT) are the
 * daemon's: 0 is none, and a stale one never names anything else (card_handle).
 */
struct card_request {
	uint64_t seq;
	uint32_t magic;
	uint16_t op;
	uint8_t phase;	  /* CARD_PHASE_* of CIPHER, MAC, AEAD, HASH, HMAC; else 0 */
	uint8_t flags;	  /* CARD_FLAG_* */
	uint32_t session; /* 0 for HELLO, ECHO, INFO, SESSION_OPEN */
	uint32_t key;
	uint32_t object;  /* stream (phase without BEGIN), agreement, what to DROP */
	uint32_t alg;	  /* SGD_* */
	uint32_t args_len, data_len;
	uint32_t out_max; /* room for the answer's data, ≤ CARD_DATA_MAX */
	uint32_t patience_us; /* nobody waits any more after so long in the queue; 0: for ever */
	uint32_t epoch;	  /* of the link, as HELLO's answer told; HELLO: 0 */
	uint8_t key_kind;
	uint8_t reserved[7];
};

struct card_answer {
	uint64_t seq; /* of the request */
	uint32_t magic;
	uint16_t op;  /* of the request */
	uint16_t reserved;
	uint32_t status; /* enum sdr */
	uint32_t object; /* a new handle, or 0 */
	uint32_t args_len, data_len;
	uint32_t epoch;
	uint32_t card_ns; /* time that the card took, what the VM is charged */
	uint32_t queued_ns; /* time between being seen and being begun */
	uint32_t reserved2[5];
};

_Static_assert(sizeof(struct card_request) == 64, "one cache line");
_Static_assert(sizeof(struct card_answer) == 64, "one cache line");
_Static_assert(offsetof(struct card_request, seq) == 0 && offsetof(struct card_answer, seq) == 0,
	       "a slot begins with what publishes it");

/*
 * A handle: the place in the link's table, and how often that place was used, from 1, so that no
 * handle is 0. A place whose generations are used up is not used again; the epoch tells the handles of one
 * link from those of the next.
 */
#define CARD_HANDLE_PLACES_MAX 65536u
#define CARD_HANDLE_GENERATIONS 65535u
static inline uint32_t card_handle(uint32_t place, uint32_t generation)
{
	return (generation << 16) | (place & 0xffffu);
}

/* Args. Fixed sizes, explicit padding; a request's args_len is exactly the struct's size. */
struct card_hello {
	uint32_t version_min, version_max; /* that the guest speaks */
	char app[CARD_NAME_MAX];	   /* for the host's `stat`; NUL-padded */
	uint32_t reserved[6];
};

struct card_hello_answer {
	uint32_t version; /* spoken from now on */
	uint32_t epoch;	  /* of this link; goes into every request */
	uint64_t daemon;  /* random number of this run of the daemon */
	char vm[CARD_NAME_MAX], card[CARD_NAME_MAX];
	uint64_t ops;	  /* bit enum card_op: what this VM's card does */
	uint32_t data_max, depth; /* requests in flight on this link */
	uint32_t sessions_max, objects_max; /* of this VM, all links together */
	uint32_t cards;
	uint32_t reserved[7];
};

/* CIPHER and MAC. Answer: the IV that goes on where this ended. */
struct card_cipher {
	uint8_t iv[16];
	uint32_t data_unit; /* XTS: bytes of a unit, 0 = all of data */
	uint32_t reserved;
};

struct card_aead {
	uint8_t nonce[16];
	uint32_t nonce_len, tag_len; /* tag_len: wanted, or of @tag */
	uint32_t aad_len;  /* BEGIN: of the data, so many bytes in front are additional data */
	uint32_t reserved;
	uint64_t aad_total, text_total; /* CCM must know before; a one-shot leaves them 0 */
	uint8_t tag[16];   /* decrypting, with END; in an answer: encrypting, with END */
};

/* SM3 with the signer's Z in front (GB/T 32918.2) if id_len > 0; @pub is given, or bits = 0 and
 * @key names it. */
struct card_hash {
	struct sdf_ecc_public pub;
	uint32_t id_len;
	uint8_t id[256];
};

struct card_pair {
	uint32_t bits, exponent; /* RSA: 0 = 65537 */
};

enum card_wrap_by {
	CARD_WRAP_PLAIN,    /* KEY_TAKE only: data is the key (the 2023 edition's debug calls) */
	CARD_WRAP_INTERNAL, /* by the encryption key pair @key (IPK; ISK to take) */
	CARD_WRAP_EXTERNAL, /* by the public key given: @pub, or RSA in data (EPK) */
	CARD_WRAP_KEK,	    /* by key-encryption key @key, request.alg telling the cipher */
};

struct card_wrap {
	uint32_t by;   /* enum card_wrap_by */
	uint32_t bits; /* KEY_MAKE: of the new key */
	uint32_t family; /* SGD_RSA or SGD_SM2, of the asymmetric key */
	struct sdf_ecc_public pub;
};

/* Keys that live in a card are counted by class, as cards do. */
enum card_key_class { CARD_CLASS_ECC, CARD_CLASS_RSA, CARD_CLASS_KEK, CARD_CLASSES };

struct card_key_entry {
	uint8_t class, reserved[3];
	uint32_t index, rights; /* enum card_right */
	char name[CARD_NAME_MAX];
};

enum card_agree_step {
	CARD_AGREE_OFFER,  /* → object, args card_agree: pub and tmp of the one who asks */
	CARD_AGREE_ACCEPT, /* → object: key, args card_agree: pub and tmp of the one who answers */
	CARD_AGREE_FINISH, /* of @object → object: key */
};

/* Data of AGREE: own identity ‖ the other's. */
struct card_agree {
	uint32_t step, bits;
	uint32_t own_id_len, peer_id_len;
	struct sdf_ecc_public pub, tmp; /* the other's; in an answer one's own */
};

struct card_public {
	struct sdf_ecc_public pub;
};

struct card_sign {
	struct sdf_ecc_private key;
};

struct card_signature {
	struct sdf_ecc_signature sig;
};

struct card_verify {
	struct sdf_ecc_signature sig;
	struct sdf_ecc_public pub; /* if the key is given, else zero */
};

struct card_file {
	char name[128]; /* NUL-padded; may fill all 128 bytes */
	uint32_t offset, size;
};

_Static_assert(sizeof(struct card_hello) == 64, "wire");
_Static_assert(sizeof(struct card_hello_answer) == 136, "wire");
_Static_assert(sizeof(struct card_cipher) == 24, "wire");
_Static_assert(sizeof(struct card_aead) == 64, "wire");
_Static_assert(sizeof(struct card_hash) == 392, "wire");
_Static_assert(sizeof(struct card_wrap) == 144, "wire");
_Static_assert(sizeof(struct card_agree) == 280, "wire");
_Static_assert(sizeof(struct card_verify) == 260, "wire");
_Static_assert(sizeof(struct card_file) == 136, "wire");
_Static_assert(sizeof(struct card_key_entry) == 44, "wire");

/* What is known of an operation before anybody looks at its args. */
struct card_op_info {
	const char *name;     /* "sign", for words and counters; NULL: no such operation */
	uint16_t args_len;    /* of a request (BEGIN, where there are phases); exact */
	uint16_t given_args_len; /* if the key is given; 0: no other than args_len */
	uint16_t answer_args; /* of an answer with SDR_OK, exactly; of any other 0 */
	bool session;	      /* needs one */
	bool phased;	      /* BEGIN … END */
	bool idempotent;      /* twice is as good as once */
	bool streams;	      /* reads each byte of its data once: a card may work on shared memory */
	uint8_t keys;	      /* bit enum card_key_kind: what key_kind may be */
};

/* Which of a VM's counts a key's index is of. */
enum card_key_class card_key_class(const struct card_request *rq, const void *args);

const struct card_op_info *card_op_info(unsigned op); /* NULL: no such operation */

/*
 * Whether a request is well-formed by itself: magic, op, lengths, phase, reserved bytes, key
 * kind; nothing about rights or handles. Only for a private copy of @rq. SDR_OK or why not.
 */
uint32_t card_request_check(const struct card_request *rq);

/* Whether it may be sent again on a new link: idempotent, and no part of a stream. */
bool card_request_replays(const struct card_request *rq);

/* As above, for an answer to @rq: 0 or -EPROTO. */
int card_answer_check(const struct card_answer *an, const struct card_request *rq);

/*
 * A framed stream: header, then args_len and data_len bytes, nothing between. Returns the bytes
 * of the whole message, 0 if fewer than a header's are there, -EPROTO if it never can be one
 * (the link is then cut: what follows cannot be told apart).
 */
int card_request_size(const void *buf, size_t have);
int card_answer_size(const void *buf, size_t have);
#define CARD_MESSAGE_MAX (64 + CARD_ARGS_MAX + CARD_DATA_MAX)

#endif
