/* SPDX-License-Identifier: MIT */
/*
 * GM/T 0018 (SDF), the interface of Chinese crypto cards: status codes, algorithm ids, and
 * its structs in the layout of the 2012 edition (512-bit fields), which the 2023 edition keeps.
 */
#ifndef CARD_GMT0018_H
#define CARD_GMT0018_H

#include <stdint.h>

#define SDR_CODES(X) /* 0x01000000 + position, from 1 */ \
	X(UNKNOWERR) X(NOTSUPPORT) X(COMMFAIL) X(HARDFAIL) X(OPENDEVICE) X(OPENSESSION) \
	X(PARDENY) X(KEYNOTEXIST) X(ALGNOTSUPPORT) X(ALGMODNOTSUPPORT) X(PKOPERR) X(SKOPERR) \
	X(SIGNERR) X(VERIFYERR) X(SYMOPERR) X(STEPERR) X(FILESIZEERR) X(FILENOEXIST) \
	X(FILEOFSERR) X(KEYTYPEERR) X(KEYERR) X(ENCDATAERR) X(RANDERR) X(PRKRERR) X(MACERR) \
	X(FILEEXISTS) X(FILEWERR) X(NOBUFFER) X(INARGERR) X(OUTARGERR) X(USERIDERR)

enum sdr {
	SDR_OK = 0,
	SDR_BASE = 0x01000000,
#define SDR_ENUM(name) SDR_##name,
	SDR_CODES(SDR_ENUM)
#undef SDR_ENUM
};

_Static_assert(SDR_KEYNOTEXIST == 0x01000008 && SDR_OUTARGERR == 0x0100001e, "GM/T 0018 annex");

/* "SDR_KEYNOTEXIST", "SDR_OK", or "SDR 0x…" into @buf; returns a text. */
const char *sdr_text(uint32_t status, char *buf, unsigned size);

/* Algorithms (GM/T 0006): a family, or'd with a mode. */
#define SGD_ECB 0x01u
#define SGD_CBC 0x02u
#define SGD_CFB 0x04u
#define SGD_OFB 0x08u
#define SGD_MAC 0x10u
#define SGD_CTR 0x20u
#define SGD_SM1 0x0100u
#define SGD_SSF33 0x0200u
#define SGD_SM4 0x0400u
#define SGD_ZUC 0x0800u
#define SGD_SM4_GCM 0x02000400u
#define SGD_SM4_CCM 0x04000400u
#define SGD_SM4_XTS 0x02000402u
#define SGD_RSA 0x00010000u
#define SGD_RSA_SIGN 0x00010100u
#define SGD_RSA_ENC 0x00010200u
#define SGD_SM2 0x00020100u
#define SGD_SM2_SIGN 0x00020200u
#define SGD_SM2_KEX 0x00020400u
#define SGD_SM2_ENC 0x00020800u
#define SGD_SM3 0x01u
#define SGD_SHA1 0x02u
#define SGD_SHA256 0x04u

#define ECC_MAX_BITS 512
#define ECC_FIELD (ECC_MAX_BITS / 8)
#define RSA_FIELD 256	/* RSAref_MAX_LEN of 2048 bits */
#define EXRSA_FIELD 512 /* ExRSAref_MAX_LEN of 4096 bits */

struct sdf_device_info {
	uint8_t issuer[40], name[16], serial[16];
	uint32_t version, standard;
	uint32_t asym_abilities[2]; /* algorithms; greatest bits */
	uint32_t sym_abilities, hash_abilities, buffer_size;
};

/* Numbers are big-endian and stand right in their fields, zeros in front. */
struct sdf_ecc_public {
	uint32_t bits;
	uint8_t x[ECC_FIELD], y[ECC_FIELD];
};

struct sdf_ecc_private {
	uint32_t bits;
	uint8_t k[ECC_FIELD];
};

struct sdf_ecc_signature {
	uint8_t r[ECC_FIELD], s[ECC_FIELD];
};

struct sdf_ecc_cipher {
	uint8_t x[ECC_FIELD], y[ECC_FIELD], m[32];
	uint32_t length;
	uint8_t c[]; /* @length bytes */
};

struct sdf_rsa_public {
	uint32_t bits;
	uint8_t m[RSA_FIELD], e[RSA_FIELD];
};

struct sdf_rsa_private {
	uint32_t bits;
	uint8_t m[RSA_FIELD], e[RSA_FIELD], d[RSA_FIELD];
	uint8_t prime[2][RSA_FIELD / 2], pexp[2][RSA_FIELD / 2], coef[RSA_FIELD / 2];
};

/* From 2049 to 4096 bits (the "Ex" structs of vendors, in the standard since 2023). */
struct sdf_exrsa_public {
	uint32_t bits;
	uint8_t m[EXRSA_FIELD], e[EXRSA_FIELD];
};

struct sdf_exrsa_private {
	uint32_t bits;
	uint8_t m[EXRSA_FIELD], e[EXRSA_FIELD], d[EXRSA_FIELD];
	uint8_t prime[2][EXRSA_FIELD / 2], pexp[2][EXRSA_FIELD / 2], coef[EXRSA_FIELD / 2];
};

_Static_assert(sizeof(struct sdf_device_info) == 100, "DEVICEINFO");
_Static_assert(sizeof(struct sdf_ecc_public) == 132, "ECCrefPublicKey");
_Static_assert(sizeof(struct sdf_ecc_private) == 68, "ECCrefPrivateKey");
_Static_assert(sizeof(struct sdf_ecc_signature) == 128, "ECCSignature");
_Static_assert(sizeof(struct sdf_ecc_cipher) == 164, "ECCCipher");
_Static_assert(sizeof(struct sdf_rsa_public) == 516, "RSArefPublicKey");
_Static_assert(sizeof(struct sdf_rsa_private) == 1412, "RSArefPrivateKey");

#endif
