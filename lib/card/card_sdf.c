/* SPDX-License-Identifier: MIT */
/*
 * sdf:LIB: any card that comes with a library of GM/T 0018. The daemon asks it in a worker process. A key's name in
 * the configuration is its number in the card ("ecc.1 = 7 sign" is the card's key 7).
 *
 * Sessions: one for all calls and keys; a stream of a digest or an authenticated cipher has its own, as a session holds
 * one of each at a time. Whether a guest may use a private key is the daemon's to know (right_got): libraries grant
 * it to a session or to the whole process.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "card/drivers.h"
#include "face/sdf.h"

#define AAD_MAX (1u << 20) /* of a stream: the standard takes it in one piece */
#define KEYS_MAX 255 /* numbers of keys, as the daemon's configuration counts them */
#define CIPHER_HEAD offsetof(struct sdf_ecc_cipher, c)
#define SCRATCH (CIPHER_HEAD + 2 * CARD_DATA_MAX) /* libraries write without asking how much room there is */

/* Without these it is no such library; every other one only lacks an operation. */
#define NEEDED(X) X(OpenDevice) X(CloseDevice) X(OpenSession) X(CloseSession) X(GetDeviceInfo)
#define OPTIONAL(X) \
	X(GenerateRandom) X(GetPrivateKeyAccessRight) X(ExportSignPublicKey_ECC) X(ExportEncPublicKey_ECC) \
	X(GenerateKeyPair_ECC) X(GenerateKeyWithIPK_ECC) X(GenerateKeyWithEPK_ECC) X(ImportKeyWithISK_ECC) \
	X(GenerateAgreementDataWithECC) X(GenerateKeyWithECC) X(GenerateAgreementDataAndKeyWithECC) \
	X(ExchangeDigitEnvelopeBaseOnECC) X(GenerateKeyWithKEK) X(ImportKeyWithKEK) X(ImportKey) X(DestroyKey) \
	X(ExternalVerify_ECC) X(InternalSign_ECC) X(InternalVerify_ECC) X(ExternalEncrypt_ECC) \
	X(InternalEncrypt_ECC) X(InternalDecrypt_ECC) X(ExternalSign_ECC) X(ExternalDecrypt_ECC) X(Encrypt) \
	X(Decrypt) X(CalculateMAC) X(AuthEnc) X(AuthDec) X(AuthEncInit) X(AuthEncUpdate) X(AuthEncFinal) \
	X(AuthDecInit) X(AuthDecUpdate) X(AuthDecFinal) X(HashInit) X(HashUpdate) X(HashFinal) X(HMACInit) \
	X(HMACUpdate) X(HMACFinal) X(CreateFile) X(ReadFile) X(WriteFile) X(DeleteFile)

struct calls {
#define POINTER(name) __typeof__(SDF_##name) *name; /* NOLINT(bugprone-macro-parentheses): a declaration */
	NEEDED(POINTER) OPTIONAL(POINTER)
#undef POINTER
};

struct card_object {
	void *session, *handle; /* session: a stream's own; a key's is the common one */
	struct card_object *key; /* of a cipher's stream: one more that holds it */
	unsigned refs;
	enum card_object_type type;
	uint32_t alg;
	bool decrypt, begun;
	uint8_t iv[16];
	struct card_aead aead; /* of an authenticated one, until it is begun; and additional data so far */
	uint8_t *aad;
	uint32_t aad_len;
};

struct sdf {
	struct card card; /* first */
	void *library, *device, *session;
	struct calls c;
	uint8_t right[KEYS_MAX + 1][32]; /* SHA-256 of the password that the card took; zero: none yet */
	_Alignas(64) uint8_t scratch[SCRATCH];
};

static const struct {
	const char *name;
	size_t at;
	bool needed;
} symbols[] = {
#define NEED(name) {"SDF_" #name, offsetof(struct calls, name), true},
#define MAY(name) {"SDF_" #name, offsetof(struct calls, name), false},
	NEEDED(NEED) OPTIONAL(MAY)
#undef NEED
#undef MAY
};

static int load(struct sdf *s, const struct card_conf *conf, struct err *err)
{
	s->library = dlopen(conf->arg, RTLD_NOW | RTLD_LOCAL);
	if (!s->library)
		return err_set(err, -ENOENT, "open card %s: %s", conf->name, dlerror());
	for (size_t i = 0; i < sizeof(symbols) / sizeof(*symbols); i++) {
		void *f = dlsym(s->library, symbols[i].name);

		if (!f && symbols[i].needed)
			return err_set(err, -ENOENT, "open card %s: %s has no %s: it is no library of GM/T 0018",
				       conf->name, conf->arg, symbols[i].name);
		memcpy((char *)&s->c + symbols[i].at, &f, sizeof(f));
	}
	return 0;
}

static int refused(const struct card_conf *conf, const char *call, int status, struct err *err)
{
	char text[32];

	return err_set(err, -EIO, "open card %s: %s: SDF_%s: %s", conf->name, conf->arg, call,
		       sdr_text((uint32_t)status, text, sizeof(text)));
}

static void sdf_close(struct card *card)
{
	struct sdf *s = (struct sdf *)card;

	if (s->session)
		s->c.CloseSession(s->session);
	if (s->device)
		s->c.CloseDevice(s->device);
	if (s->library)
		dlclose(s->library);
	OPENSSL_clear_free(s, sizeof(*s));
}

static int sdf_open(const struct card_conf *conf, struct card **out, struct err *err)
{
	struct sdf *s = OPENSSL_zalloc(sizeof(*s));
	int rc, status;

	if (!s)
		return err_sys(err, -ENOMEM, "open card %s", conf->name);
	rc = conf->arg[0] == '/' ? load(s, conf, err)
				 : err_set(err, -EINVAL, "open card %s: sdf:LIB wants the library's absolute path", conf->name);
	if (!rc) {
		status = s->c.OpenDevice(&s->device);
		if (status)
			rc = refused(conf, "OpenDevice", status, err);
	}
	if (!rc) {
		status = s->c.OpenSession(s->device, &s->session);
		if (status)
			rc = refused(conf, "OpenSession", status, err);
	}
	if (rc)
		sdf_close(&s->card);
	else
		*out = &s->card;
	return rc;
}

static uint64_t bit(unsigned op, bool has)
{
	return has ? UINT64_C(1) << op : 0;
}

static uint64_t ops_of(const struct calls *c)
{
	return bit(CARD_OP_RANDOM, c->GenerateRandom) | bit(CARD_OP_RIGHT_GET, c->GetPrivateKeyAccessRight) |
	       bit(CARD_OP_RIGHT_DROP, c->GetPrivateKeyAccessRight) |
	       bit(CARD_OP_PUBLIC, c->ExportSignPublicKey_ECC && c->ExportEncPublicKey_ECC) |
	       bit(CARD_OP_PAIR, c->GenerateKeyPair_ECC) |
	       bit(CARD_OP_KEY_MAKE, c->GenerateKeyWithKEK || c->GenerateKeyWithIPK_ECC || c->GenerateKeyWithEPK_ECC) |
	       bit(CARD_OP_KEY_TAKE, c->ImportKey || c->ImportKeyWithKEK || c->ImportKeyWithISK_ECC) |
	       bit(CARD_OP_KEY_EXCHANGE, c->ExchangeDigitEnvelopeBaseOnECC) |
	       bit(CARD_OP_AGREE, c->GenerateAgreementDataWithECC && c->GenerateKeyWithECC &&
					  c->GenerateAgreementDataAndKeyWithECC) |
	       bit(CARD_OP_DROP, true) | bit(CARD_OP_SIGN, c->InternalSign_ECC || c->ExternalSign_ECC) |
	       bit(CARD_OP_VERIFY, c->InternalVerify_ECC || c->ExternalVerify_ECC) |
	       bit(CARD_OP_PK_ENCRYPT, c->InternalEncrypt_ECC || c->ExternalEncrypt_ECC) |
	       bit(CARD_OP_PK_DECRYPT, c->InternalDecrypt_ECC || c->ExternalDecrypt_ECC) |
	       bit(CARD_OP_CIPHER, c->Encrypt && c->Decrypt) | bit(CARD_OP_MAC, c->CalculateMAC) |
	       bit(CARD_OP_AEAD, c->AuthEnc && c->AuthDec) |
	       bit(CARD_OP_HASH, c->HashInit && c->HashUpdate && c->HashFinal) |
	       bit(CARD_OP_HMAC, c->HMACInit && c->HMACUpdate && c->HMACFinal) |
	       bit(CARD_OP_FILE_CREATE, c->CreateFile) | bit(CARD_OP_FILE_READ, c->ReadFile) |
	       bit(CARD_OP_FILE_WRITE, c->WriteFile) | bit(CARD_OP_FILE_DELETE, c->DeleteFile);
}

static void sdf_info(struct card *card, struct card_info *info)
{
	struct sdf *s = (struct sdf *)card;
	DEVICEINFO device = {0};

	_Static_assert(sizeof(device) == sizeof(info->sdf), "both are the standard's");
	*info = (struct card_info){.ops = ops_of(&s->c)};
	if (s->c.GetDeviceInfo(s->session, &device))
		return;
	memcpy(&info->sdf, &device, sizeof(device));
	/* Not NUL-terminated where they are full. */
	snprintf(info->engine, sizeof(info->engine), "%.40s %.16s", (const char *)device.IssuerName,
		 (const char *)device.DeviceName);
}

/* --- keys that live in the card --- */

/* The card's number of a request's key; 0: none. */
static unsigned index_of(const struct card_call *call)
{
	char *end;
	unsigned long n = call->key_name ? strtoul(call->key_name, &end, 10) : 0;

	return call->rq->key_kind == CARD_KEY_INDEX && n && !*end && n <= KEYS_MAX ? (unsigned)n : 0;
}

static bool right_known(const struct sdf *s, unsigned index)
{
	static const uint8_t none[32];

	return memcmp(s->right[index], none, sizeof(none)) != 0;
}

/*
 * As above, of a key whose private half is to be used. The library knows whether that wants a right; but once it
 * gave one for this key, it gave it to all that we ask, and the guest must have got it, too.
 */
static unsigned private_of(const struct sdf *s, const struct card_call *call, uint32_t *status)
{
	unsigned index = index_of(call);

	*status = !index ? SDR_KEYNOTEXIST : right_known(s, index) && !call->right_got ? SDR_PARDENY : SDR_OK;
	return *status ? 0 : index;
}

/*
 * The card judges the password in a session that has no right yet; then the common session gets the right. A
 * library that grants it to the whole process would take any password after the first right one: so that
 * one is remembered.
 */
static uint32_t right_get(struct sdf *s, struct card_call *call)
{
	unsigned index = index_of(call);
	uint8_t password[256], digest[32];
	void *fresh = NULL;
	uint32_t status;

	if (!index)
		return SDR_KEYNOTEXIST;
	if (call->in_len > sizeof(password) || !EVP_Digest(call->in, call->in_len, digest, NULL, EVP_sha256(), NULL))
		return SDR_INARGERR;
	if (right_known(s, index))
		return CRYPTO_memcmp(s->right[index], digest, sizeof(digest)) ? SDR_PRKRERR : SDR_OK;
	memcpy(password, call->in, call->in_len);
	status = (uint32_t)s->c.OpenSession(s->device, &fresh);
	if (!status) {
		status = (uint32_t)s->c.GetPrivateKeyAccessRight(fresh, index, password, call->in_len);
		s->c.CloseSession(fresh);
	}
	if (!status)
		status = (uint32_t)s->c.GetPrivateKeyAccessRight(s->session, index, password, call->in_len);
	if (!status)
		memcpy(s->right[index], digest, sizeof(digest));
	OPENSSL_cleanse(password, sizeof(password));
	return status;
}

static uint32_t export_public(struct sdf *s, struct card_call *call)
{
	unsigned index = index_of(call);
	ECCrefPublicKey pub = {0};
	uint32_t status;

	if (!index)
		return SDR_KEYNOTEXIST;
	if (call->rq->alg != SGD_SM2_SIGN && call->rq->alg != SGD_SM2_ENC)
		return SDR_ALGNOTSUPPORT;
	if (call->out_cap < sizeof(pub))
		return SDR_NOBUFFER;
	status = (uint32_t)(call->rq->alg == SGD_SM2_ENC ? s->c.ExportEncPublicKey_ECC(s->session, index, &pub)
							 : s->c.ExportSignPublicKey_ECC(s->session, index, &pub));
	if (status)
		return status;
	memcpy(call->out, &pub, sizeof(pub));
	call->out_len = sizeof(pub);
	return SDR_OK;
}

static uint32_t make_pair(struct sdf *s, struct card_call *call)
{
	const struct card_pair *args = call->args;
	ECCrefPublicKey pub = {0};
	ECCrefPrivateKey key = {0};
	uint32_t status;

	if (!(call->rq->alg & (SGD_SM2 & 0x20000)))
		return SDR_ALGNOTSUPPORT;
	if (call->out_cap < sizeof(pub) + sizeof(key))
		return SDR_NOBUFFER;
	status = (uint32_t)s->c.GenerateKeyPair_ECC(s->session, call->rq->alg, args->bits, &pub, &key);
	if (!status) {
		memcpy(call->out, &pub, sizeof(pub));
		memcpy(call->out + sizeof(pub), &key, sizeof(key));
		call->out_len = sizeof(pub) + sizeof(key);
	}
	OPENSSL_cleanse(&key, sizeof(key));
	return status;
}

/* --- objects --- */

static void object_put(struct sdf *s, struct card_object *o)
{
	if (!o || --o->refs)
		return;
	object_put(s, o->key);
	if (o->type == CARD_OBJ_KEY && o->handle && s->c.DestroyKey)
		s->c.DestroyKey(s->session, o->handle);
	if (o->session)
		s->c.CloseSession(o->session);
	free(o->aad);
	OPENSSL_clear_free(o, sizeof(*o));
}

static void sdf_release(struct card *card, enum card_object_type type, struct card_object *o)
{
	(void)type;
	object_put((struct sdf *)card, o);
}

static struct card_object *object_new(enum card_object_type type)
{
	struct card_object *o = OPENSSL_zalloc(sizeof(*o));

	if (o) {
		o->type = type;
		o->refs = 1;
	}
	return o;
}

static uint32_t keep(struct sdf *s, struct card_call *call, struct card_object *o, uint32_t status)
{
	if (status) {
		object_put(s, o);
		return status;
	}
	call->made = o;
	call->made_type = o->type;
	return SDR_OK;
}

/* What stands in the scratch as an ECCCipher is the answer. */
static uint32_t give_cipher(struct sdf *s, struct card_call *call)
{
	const ECCCipher *c = (const ECCCipher *)s->scratch;

	if (c->L > CARD_DATA_MAX - CIPHER_HEAD)
		return SDR_ENCDATAERR;
	if (call->out_cap < CIPHER_HEAD + c->L)
		return SDR_NOBUFFER;
	call->out_len = (uint32_t)(CIPHER_HEAD + c->L);
	memcpy(call->out, c, call->out_len);
	return SDR_OK;
}

/* The request's data as an ECCCipher, in the scratch; NULL: it is none. */
static ECCCipher *take_cipher(struct sdf *s, const struct card_call *call)
{
	ECCCipher *c = (ECCCipher *)s->scratch;

	if (call->in_len < CIPHER_HEAD)
		return NULL;
	return c->L == call->in_len - CIPHER_HEAD ? c : NULL;
}

static uint32_t key_make(struct sdf *s, struct card_call *call)
{
	const struct card_wrap *w = call->args;
	ECCrefPublicKey pub;
	struct card_object *o;
	unsigned index = index_of(call), n = CARD_DATA_MAX;
	uint32_t status = SDR_NOTSUPPORT;

	if (w->by != CARD_WRAP_KEK && (w->family & SGD_RSA))
		return SDR_ALGNOTSUPPORT;
	if (w->by != CARD_WRAP_EXTERNAL && !index)
		return SDR_KEYNOTEXIST;
	o = object_new(CARD_OBJ_KEY);
	if (!o)
		return SDR_NOBUFFER;
	memcpy(&pub, &w->pub, sizeof(pub));
	if (w->by == CARD_WRAP_KEK && s->c.GenerateKeyWithKEK)
		status = (uint32_t)s->c.GenerateKeyWithKEK(s->session, w->bits, call->rq->alg, index, s->scratch, &n,
							   &o->handle);
	else if (w->by == CARD_WRAP_INTERNAL && s->c.GenerateKeyWithIPK_ECC)
		status = (uint32_t)s->c.GenerateKeyWithIPK_ECC(s->session, index, w->bits, (ECCCipher *)s->scratch,
							       &o->handle);
	else if (w->by == CARD_WRAP_EXTERNAL && s->c.GenerateKeyWithEPK_ECC)
		status = (uint32_t)s->c.GenerateKeyWithEPK_ECC(s->session, w->bits, SGD_SM2_ENC, &pub,
							       (ECCCipher *)s->scratch, &o->handle);
	if (!status && w->by != CARD_WRAP_KEK)
		status = give_cipher(s, call);
	else if (!status && n > call->out_cap)
		status = SDR_NOBUFFER;
	else if (!status)
		memcpy(call->out, s->scratch, call->out_len = n);
	return keep(s, call, o, status);
}

static uint32_t key_take(struct sdf *s, struct card_call *call)
{
	const struct card_wrap *w = call->args;
	struct card_object *o;
	uint32_t status = SDR_OK;
	unsigned index = w->by == CARD_WRAP_PLAIN ? 0 : private_of(s, call, &status);
	ECCCipher *c = NULL;

	if (w->by == CARD_WRAP_INTERNAL && (w->family & SGD_RSA))
		return SDR_ALGNOTSUPPORT;
	if (status)
		return status;
	if (w->by == CARD_WRAP_INTERNAL) {
		c = take_cipher(s, call);
		if (!c)
			return SDR_ENCDATAERR;
	}
	o = object_new(CARD_OBJ_KEY);
	if (!o)
		return SDR_NOBUFFER;
	status = SDR_NOTSUPPORT;
	if (c && s->c.ImportKeyWithISK_ECC)
		status = (uint32_t)s->c.ImportKeyWithISK_ECC(s->session, index, c, &o->handle);
	else if (w->by == CARD_WRAP_KEK && s->c.ImportKeyWithKEK)
		status = (uint32_t)s->c.ImportKeyWithKEK(s->session, call->rq->alg, index, s->scratch, call->in_len,
							 &o->handle);
	else if (w->by == CARD_WRAP_PLAIN && s->c.ImportKey)
		status = (uint32_t)s->c.ImportKey(s->session, s->scratch, call->in_len, &o->handle);
	OPENSSL_cleanse(s->scratch, call->in_len);
	return keep(s, call, o, status);
}

static uint32_t key_exchange(struct sdf *s, struct card_call *call)
{
	const struct card_wrap *w = call->args;
	uint32_t status;
	unsigned index = private_of(s, call, &status);
	ECCrefPublicKey pub;
	ECCCipher *from = malloc(CARD_DATA_MAX);

	if (!status && (w->by != CARD_WRAP_INTERNAL || (w->family & SGD_RSA)))
		status = SDR_ALGNOTSUPPORT;
	if (!status && (!from || !take_cipher(s, call)))
		status = SDR_ENCDATAERR;
	if (!status) {
		memcpy(from, s->scratch, call->in_len);
		memcpy(&pub, &w->pub, sizeof(pub));
		status = (uint32_t)s->c.ExchangeDigitEnvelopeBaseOnECC(s->session, index, SGD_SM2_ENC, &pub, from,
								       (ECCCipher *)s->scratch);
	}
	free(from);
	return status ? status : give_cipher(s, call);
}

static uint32_t agree_finish(struct sdf *s, struct card_call *call, unsigned char *id, ECCrefPublicKey *pub,
			     ECCrefPublicKey *tmp)
{
	const struct card_agree *a = call->args;
	struct card_object *offer = call->object, *o;
	uint32_t status;

	if (!offer || call->rq->key_kind != CARD_KEY_NONE)
		return SDR_STEPERR;
	o = object_new(CARD_OBJ_KEY);
	if (!o)
		return SDR_NOBUFFER;
	status = (uint32_t)s->c.GenerateKeyWithECC(s->session, id + a->own_id_len, a->peer_id_len, pub, tmp,
						   offer->handle, &o->handle);
	return keep(s, call, o, status);
}

/* Identities: one's own ‖ the other's. */
static uint32_t agree(struct sdf *s, struct card_call *call)
{
	const struct card_agree *a = call->args;
	struct card_agree *answer = call->out_args;
	ECCrefPublicKey pub, tmp, own = {0}, own_tmp = {0};
	unsigned char *id = s->scratch;
	struct card_object *o;
	unsigned index;
	uint32_t status;

	if (a->own_id_len > call->in_len || a->peer_id_len > call->in_len - a->own_id_len || a->step > CARD_AGREE_FINISH)
		return SDR_INARGERR;
	memcpy(&pub, &a->pub, sizeof(pub));
	memcpy(&tmp, &a->tmp, sizeof(tmp));
	if (a->step == CARD_AGREE_FINISH)
		return agree_finish(s, call, id, &pub, &tmp);
	index = private_of(s, call, &status);
	if (status || call->object)
		return status ? status : SDR_INARGERR;
	o = object_new(a->step == CARD_AGREE_OFFER ? CARD_OBJ_AGREEMENT : CARD_OBJ_KEY);
	if (!o)
		return SDR_NOBUFFER;
	if (a->step == CARD_AGREE_OFFER) {
		status = (uint32_t)s->c.GenerateAgreementDataWithECC(s->session, index, a->bits, id, a->own_id_len, &own,
								     &own_tmp, &o->handle);
	} else {
		status = (uint32_t)s->c.GenerateAgreementDataAndKeyWithECC(s->session, index, a->bits, id, a->own_id_len,
									   id + a->own_id_len, a->peer_id_len, &pub, &tmp,
									   &own, &own_tmp, &o->handle);
	}
	*answer = (struct card_agree){.step = a->step, .bits = a->bits};
	memcpy(&answer->pub, &own, sizeof(own));
	memcpy(&answer->tmp, &own_tmp, sizeof(own_tmp));
	return keep(s, call, o, status);
}

/* --- asymmetric --- */

static uint32_t sign(struct sdf *s, struct card_call *call)
{
	const struct card_sign *given = call->args;
	struct card_signature *answer = call->out_args;
	ECCrefPrivateKey key;
	ECCSignature sig = {0};
	uint32_t status = SDR_NOTSUPPORT;
	unsigned index;

	if (call->rq->key_kind == CARD_KEY_INDEX) {
		index = private_of(s, call, &status);
		if (!status)
			status = !s->c.InternalSign_ECC ? SDR_NOTSUPPORT
				 : (uint32_t)s->c.InternalSign_ECC(s->session, index, s->scratch, call->in_len, &sig);
	} else if (s->c.ExternalSign_ECC) {
		memcpy(&key, &given->key, sizeof(key));
		status = (uint32_t)s->c.ExternalSign_ECC(s->session, SGD_SM2_SIGN, &key, s->scratch, call->in_len, &sig);
		OPENSSL_cleanse(&key, sizeof(key));
	}
	memcpy(&answer->sig, &sig, sizeof(sig));
	return status;
}

static uint32_t verify(struct sdf *s, struct card_call *call)
{
	const struct card_verify *given = call->args;
	unsigned index = index_of(call);
	ECCrefPublicKey pub;
	ECCSignature sig;

	memcpy(&pub, &given->pub, sizeof(pub));
	memcpy(&sig, &given->sig, sizeof(sig));
	if (call->rq->key_kind != CARD_KEY_INDEX)
		return !s->c.ExternalVerify_ECC ? SDR_NOTSUPPORT
		       : (uint32_t)s->c.ExternalVerify_ECC(s->session, SGD_SM2_SIGN, &pub, s->scratch, call->in_len, &sig);
	if (!index)
		return SDR_KEYNOTEXIST;
	return !s->c.InternalVerify_ECC ? SDR_NOTSUPPORT
	       : (uint32_t)s->c.InternalVerify_ECC(s->session, index, s->scratch, call->in_len, &sig);
}

static uint32_t pk_encrypt(struct sdf *s, struct card_call *call)
{
	const struct card_public *given = call->args;
	unsigned index = index_of(call);
	unsigned char *text = malloc(CARD_DATA_MAX);
	ECCCipher *to = (ECCCipher *)s->scratch;
	ECCrefPublicKey pub;
	uint32_t status = SDR_NOTSUPPORT;

	if (!text)
		return SDR_NOBUFFER;
	memcpy(text, call->in, call->in_len);
	if (call->rq->key_kind != CARD_KEY_INDEX && s->c.ExternalEncrypt_ECC) {
		memcpy(&pub, &given->pub, sizeof(pub));
		status = (uint32_t)s->c.ExternalEncrypt_ECC(s->session, SGD_SM2_ENC, &pub, text, call->in_len, to);
	} else if (call->rq->key_kind == CARD_KEY_INDEX && !index) {
		status = SDR_KEYNOTEXIST;
	} else if (index && s->c.InternalEncrypt_ECC) {
		status = (uint32_t)s->c.InternalEncrypt_ECC(s->session, index, SGD_SM2_ENC, text, call->in_len, to);
	}
	OPENSSL_cleanse(text, call->in_len);
	free(text);
	return status ? status : give_cipher(s, call);
}

static uint32_t pk_decrypt(struct sdf *s, struct card_call *call)
{
	const struct card_sign *given = call->args;
	ECCCipher *from = take_cipher(s, call);
	unsigned char *text = malloc(CARD_DATA_MAX);
	unsigned n = CARD_DATA_MAX, index;
	ECCrefPrivateKey key;
	uint32_t status = from && text ? SDR_NOTSUPPORT : SDR_ENCDATAERR;

	if (status == SDR_NOTSUPPORT && call->rq->key_kind == CARD_KEY_INDEX) {
		index = private_of(s, call, &status);
		if (!status)
			status = !s->c.InternalDecrypt_ECC ? SDR_NOTSUPPORT
				 : (uint32_t)s->c.InternalDecrypt_ECC(s->session, index, SGD_SM2_ENC, from, text, &n);
	} else if (status == SDR_NOTSUPPORT && s->c.ExternalDecrypt_ECC) {
		memcpy(&key, &given->key, sizeof(key));
		status = (uint32_t)s->c.ExternalDecrypt_ECC(s->session, SGD_SM2_ENC, &key, from, text, &n);
		OPENSSL_cleanse(&key, sizeof(key));
	}
	if (!status && n > call->out_cap)
		status = SDR_NOBUFFER;
	if (!status)
		memcpy(call->out, text, call->out_len = n);
	if (text)
		OPENSSL_cleanse(text, CARD_DATA_MAX);
	free(text);
	return status;
}

/* --- symmetric --- */

/* A part of CIPHER or MAC: from the scratch, with the IV that goes on in @iv. */
static uint32_t cipher_some(struct sdf *s, struct card_call *call, struct card_object *key, uint32_t alg, bool decrypt,
			    uint8_t iv[16])
{
	unsigned n = call->out_cap;
	uint32_t status;

	if (call->rq->op == CARD_OP_MAC) {
		uint8_t mac[16];

		n = sizeof(mac);
		status = (uint32_t)s->c.CalculateMAC(s->session, key->handle, alg, iv, s->scratch, call->in_len, mac, &n);
		if (!status)
			memcpy(iv, mac, sizeof(mac));
		return status;
	}
	if (call->out_cap < call->in_len)
		return SDR_NOBUFFER;
	status = (uint32_t)(decrypt ? s->c.Decrypt : s->c.Encrypt)(s->session, key->handle, alg, iv, s->scratch,
								   call->in_len, call->out, &n);
	call->out_len = status ? 0 : call->in_len;
	return status;
}

static uint32_t cipher(struct sdf *s, struct card_call *call)
{
	const struct card_request *rq = call->rq;
	const struct card_cipher *args = call->args;
	struct card_cipher *answer = call->out_args;
	bool begin = rq->phase & CARD_PHASE_BEGIN, end = rq->phase & CARD_PHASE_END;
	struct card_object *o = call->object;
	uint32_t status;

	if (begin && rq->key_kind != CARD_KEY_OBJECT)
		return SDR_KEYTYPEERR; /* the standard ciphers with session keys only */
	memcpy(answer->iv, begin ? args->iv : o->iv, sizeof(answer->iv));
	if (!begin) {
		status = cipher_some(s, call, o->key, o->alg, o->decrypt, answer->iv);
		memcpy(o->iv, answer->iv, sizeof(o->iv));
		return status;
	}
	status = cipher_some(s, call, call->key, rq->alg, rq->flags & CARD_FLAG_DECRYPT, answer->iv);
	if (end || status)
		return status;
	o = object_new(CARD_OBJ_STREAM);
	if (!o)
		return SDR_NOBUFFER;
	o->key = call->key;
	o->key->refs++;
	o->alg = rq->alg;
	o->decrypt = rq->flags & CARD_FLAG_DECRYPT;
	memcpy(o->iv, answer->iv, sizeof(o->iv));
	return keep(s, call, o, SDR_OK);
}

/* A whole one. Additional data stands in front of the text. */
static uint32_t aead_whole(struct sdf *s, struct card_call *call)
{
	const struct card_aead *a = call->args;
	struct card_aead *answer = call->out_args;
	uint8_t nonce[16], tag[16];
	unsigned char *text = s->scratch + a->aad_len;
	unsigned n = call->out_cap, tag_n = sizeof(tag), len = call->in_len - a->aad_len;
	uint32_t status;

	if (call->out_cap < len)
		return SDR_NOBUFFER;
	memcpy(nonce, a->nonce, sizeof(nonce));
	memcpy(tag, a->tag, sizeof(tag));
	if (call->rq->flags & CARD_FLAG_DECRYPT)
		status = (uint32_t)s->c.AuthDec(s->session, call->key->handle, call->rq->alg, nonce, a->nonce_len, s->scratch,
						a->aad_len, tag, a->tag_len, text, len, call->out, &n);
	else
		status = (uint32_t)s->c.AuthEnc(s->session, call->key->handle, call->rq->alg, nonce, a->nonce_len, s->scratch,
						a->aad_len, text, len, call->out, &n, tag, &tag_n);
	if (status) {
		OPENSSL_cleanse(call->out, len);
		return status;
	}
	call->out_len = len;
	memcpy(answer->tag, tag, sizeof(tag));
	answer->tag_len = call->rq->flags & CARD_FLAG_DECRYPT ? a->tag_len : tag_n;
	return SDR_OK;
}

/* A stream's end: what the card still holds, and the tag. */
static uint32_t aead_end(struct sdf *s, struct card_call *call, struct card_object *o, unsigned done)
{
	struct card_aead *answer = call->out_args;
	uint8_t last[64];
	unsigned n = sizeof(last), tag_n = sizeof(answer->tag);
	uint32_t status = (uint32_t)(o->decrypt ? s->c.AuthDecFinal(o->session, last, &n)
						: s->c.AuthEncFinal(o->session, last, &n, answer->tag, &tag_n));

	answer->tag_len = tag_n;
	if (!status && done + n > call->out_cap)
		status = SDR_NOBUFFER;
	if (!status)
		memcpy(call->out + done, last, n);
	call->out_len = status ? 0 : done + n;
	return status;
}

static uint32_t keep_aad(struct card_object *o, const uint8_t *data, uint32_t n)
{
	uint8_t *aad;

	if (!n)
		return SDR_OK;
	aad = n <= AAD_MAX - o->aad_len ? realloc(o->aad, o->aad_len + n) : NULL;
	if (!aad)
		return SDR_NOBUFFER;
	o->aad = aad;
	memcpy(aad + o->aad_len, data, n);
	o->aad_len += n;
	return SDR_OK;
}

/* The standard takes all additional data at the beginning: so that is when the text begins. */
static uint32_t aead_init(struct sdf *s, struct card_object *o)
{
	struct card_aead *a = &o->aead;
	uint32_t status = (uint32_t)s->c.OpenSession(s->device, &o->session);

	if (status)
		return status;
	o->begun = true;
	return (uint32_t)(o->decrypt ? s->c.AuthDecInit(o->session, o->key->handle, o->alg, a->nonce, a->nonce_len, o->aad,
							o->aad_len, a->tag, a->tag_len, (unsigned)a->text_total)
				     : s->c.AuthEncInit(o->session, o->key->handle, o->alg, a->nonce, a->nonce_len, o->aad,
							o->aad_len, (unsigned)a->text_total));
}

static uint32_t aead_more(struct sdf *s, struct card_call *call, struct card_object *o, uint8_t *data, uint32_t len)
{
	bool end = call->rq->phase & CARD_PHASE_END;
	unsigned n = 0;
	uint32_t status = SDR_OK;

	if (call->rq->phase & CARD_PHASE_AAD)
		return o->begun ? SDR_STEPERR : keep_aad(o, data, len);
	if (call->out_cap < len)
		return SDR_NOBUFFER;
	if (!o->begun && (len || end))
		status = aead_init(s, o);
	if (!status && len)
		status = (uint32_t)(o->decrypt ? s->c.AuthDecUpdate : s->c.AuthEncUpdate)(o->session, data, len, call->out, &n);
	if (!status && n > call->out_cap)
		status = SDR_HARDFAIL;
	call->out_len = status ? 0 : n;
	return status || !end ? status : aead_end(s, call, o, n);
}

/* The standard wants the tag of what it decrypts at the beginning; guests that know it only at the end have no luck. */
static uint32_t aead_begin(struct sdf *s, struct card_call *call, struct card_object *o)
{
	static const uint8_t none[16];
	const struct card_aead *a = call->args;

	o->decrypt = call->rq->flags & CARD_FLAG_DECRYPT;
	if (!(o->decrypt ? s->c.AuthDecInit && s->c.AuthDecUpdate && s->c.AuthDecFinal
			 : s->c.AuthEncInit && s->c.AuthEncUpdate && s->c.AuthEncFinal))
		return SDR_NOTSUPPORT;
	if (call->rq->alg != SGD_SM4_GCM && call->rq->alg != SGD_SM4_CCM)
		return (call->rq->alg & SGD_SM4) ? SDR_ALGMODNOTSUPPORT : SDR_ALGNOTSUPPORT;
	if (o->decrypt && !memcmp(a->tag, none, sizeof(none)))
		return SDR_NOTSUPPORT;
	o->aead = *a;
	o->alg = call->rq->alg;
	o->key = call->key;
	o->key->refs++;
	return keep_aad(o, call->in, a->aad_len);
}

static uint32_t aead(struct sdf *s, struct card_call *call)
{
	const struct card_request *rq = call->rq;
	const struct card_aead *a = call->args;
	struct card_object *o;
	uint32_t status;

	if (!(rq->phase & CARD_PHASE_BEGIN))
		return aead_more(s, call, call->object, s->scratch, call->in_len);
	if (rq->key_kind != CARD_KEY_OBJECT)
		return SDR_KEYTYPEERR;
	if (a->nonce_len > sizeof(a->nonce) || a->tag_len > sizeof(a->tag) || a->aad_len > call->in_len)
		return SDR_INARGERR;
	if (rq->phase & CARD_PHASE_END)
		return aead_whole(s, call);
	o = object_new(CARD_OBJ_STREAM);
	if (!o)
		return SDR_NOBUFFER;
	status = aead_begin(s, call, o);
	if (!status)
		status = aead_more(s, call, o, s->scratch + a->aad_len, call->in_len - a->aad_len);
	return keep(s, call, o, status);
}

/* --- digests --- */

static uint32_t hash_begin(struct sdf *s, struct card_call *call, void *session)
{
	const struct card_hash *a = call->args;
	unsigned index = index_of(call);
	ECCrefPublicKey pub;
	uint8_t id[sizeof(a->id)];
	uint32_t status = SDR_OK;

	if (a->id_len > sizeof(a->id))
		return SDR_INARGERR;
	if (!a->id_len)
		return (uint32_t)s->c.HashInit(session, call->rq->alg, NULL, NULL, 0);
	memcpy(&pub, &a->pub, sizeof(pub));
	memcpy(id, a->id, sizeof(id));
	if (call->rq->key_kind == CARD_KEY_INDEX)
		status = !index ? SDR_KEYNOTEXIST : !s->c.ExportSignPublicKey_ECC ? SDR_NOTSUPPORT
			 : (uint32_t)s->c.ExportSignPublicKey_ECC(s->session, index, &pub);
	return status ? status : (uint32_t)s->c.HashInit(session, call->rq->alg, &pub, id, a->id_len);
}

static uint32_t digest_begin(struct sdf *s, struct card_call *call, void *session)
{
	if (call->rq->op == CARD_OP_HASH)
		return hash_begin(s, call, session);
	if (call->rq->key_kind != CARD_KEY_OBJECT)
		return SDR_KEYTYPEERR;
	return (uint32_t)s->c.HMACInit(session, call->key->handle, call->rq->alg);
}

static uint32_t digest_more(struct sdf *s, struct card_call *call, void *session)
{
	bool hash = call->rq->op == CARD_OP_HASH;
	unsigned n = sizeof(s->scratch);
	uint32_t status = SDR_OK;

	if (call->in_len)
		status = (uint32_t)(hash ? s->c.HashUpdate : s->c.HMACUpdate)(session, s->scratch, call->in_len);
	if (status || !(call->rq->phase & CARD_PHASE_END))
		return status;
	status = (uint32_t)(hash ? s->c.HashFinal : s->c.HMACFinal)(session, s->scratch, &n);
	if (!status && n > call->out_cap)
		status = SDR_NOBUFFER;
	if (!status)
		memcpy(call->out, s->scratch, call->out_len = n);
	return status;
}

static uint32_t digest(struct sdf *s, struct card_call *call)
{
	struct card_object *o;
	uint32_t status;

	if (!(call->rq->phase & CARD_PHASE_BEGIN))
		return digest_more(s, call, call->object->session);
	if (call->rq->phase & CARD_PHASE_END) {
		status = digest_begin(s, call, s->session);
		return status ? status : digest_more(s, call, s->session);
	}
	o = object_new(CARD_OBJ_STREAM);
	if (!o)
		return SDR_NOBUFFER;
	status = (uint32_t)s->c.OpenSession(s->device, &o->session);
	if (!status)
		status = digest_begin(s, call, o->session);
	if (!status)
		status = digest_more(s, call, o->session);
	return keep(s, call, o, status);
}

/* --- random numbers and files --- */

static uint32_t random_bytes(struct sdf *s, struct card_call *call)
{
	uint32_t status = (uint32_t)s->c.GenerateRandom(s->session, call->out_cap, call->out);

	call->out_len = status ? 0 : call->out_cap;
	return status;
}

/* Each VM has its own: "VM/NAME" is the card's name of a file. */
static uint32_t file(struct sdf *s, struct card_call *call)
{
	const struct card_file *f = call->args;
	unsigned char name[128 + CARD_NAME_MAX + 2];
	unsigned len, n = f->size;
	uint32_t status;

	len = (unsigned)snprintf((char *)name, sizeof(name), "%s/%.*s", call->vm, (int)sizeof(f->name), f->name);
	if (!f->name[0] || len > 128)
		return SDR_INARGERR;
	switch (call->rq->op) {
	case CARD_OP_FILE_CREATE:
		return (uint32_t)s->c.CreateFile(s->session, name, len, f->size);
	case CARD_OP_FILE_WRITE:
		return (uint32_t)s->c.WriteFile(s->session, name, len, f->offset, call->in_len, s->scratch);
	case CARD_OP_FILE_DELETE:
		return (uint32_t)s->c.DeleteFile(s->session, name, len);
	default:
		if (n > call->out_cap)
			return SDR_NOBUFFER;
		status = (uint32_t)s->c.ReadFile(s->session, name, len, f->offset, &n, s->scratch);
		if (!status && n > call->out_cap)
			status = SDR_NOBUFFER;
		if (!status)
			memcpy(call->out, s->scratch, call->out_len = n);
		return status;
	}
}

static uint32_t run(struct sdf *s, struct card_call *call)
{
	switch (call->rq->op) {
	case CARD_OP_RANDOM:
		return random_bytes(s, call);
	case CARD_OP_RIGHT_GET:
		return right_get(s, call);
	case CARD_OP_RIGHT_DROP:
		return SDR_OK; /* the session's at the daemon; the card's stays for others */
	case CARD_OP_PUBLIC:
		return export_public(s, call);
	case CARD_OP_PAIR:
		return make_pair(s, call);
	case CARD_OP_KEY_MAKE:
		return key_make(s, call);
	case CARD_OP_KEY_TAKE:
		return key_take(s, call);
	case CARD_OP_KEY_EXCHANGE:
		return key_exchange(s, call);
	case CARD_OP_AGREE:
		return agree(s, call);
	case CARD_OP_SIGN:
		return sign(s, call);
	case CARD_OP_VERIFY:
		return verify(s, call);
	case CARD_OP_PK_ENCRYPT:
		return pk_encrypt(s, call);
	case CARD_OP_PK_DECRYPT:
		return pk_decrypt(s, call);
	case CARD_OP_CIPHER:
	case CARD_OP_MAC:
		return cipher(s, call);
	case CARD_OP_AEAD:
		return aead(s, call);
	case CARD_OP_HASH:
	case CARD_OP_HMAC:
		return digest(s, call);
	case CARD_OP_FILE_CREATE:
	case CARD_OP_FILE_READ:
	case CARD_OP_FILE_WRITE:
	case CARD_OP_FILE_DELETE:
		return file(s, call);
	default:
		return SDR_NOTSUPPORT;
	}
}

/* The standard's pointers to what is only read are not const: the library gets a copy of the data, in the scratch. */
static uint32_t sdf_run(struct card *card, struct card_call *call)
{
	struct sdf *s = (struct sdf *)card;
	uint32_t status;

	memcpy(s->scratch, call->in, call->in_len);
	status = run(s, call);
	OPENSSL_cleanse(s->scratch, call->in_len > call->out_len ? call->in_len : call->out_len);
	return status;
}

const struct card_driver card_sdf = {
	.name = "sdf",
	.help = "sdf:LIB: a card with a library of GM/T 0018, in a process of its own",
	.apart = true,
	.open = sdf_open,
	.close = sdf_close,
	.info = sdf_info,
	.run = sdf_run,
	.release = sdf_release,
};
