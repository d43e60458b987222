/* SPDX-License-Identifier: MIT */
/* cardshare: one crypto card, shared among many VMs. */
#include "cardshare.h"

#include <gcrypt.h>
#include <string.h>

#include "card/worker.h"

static const struct cli_verb verbs[] = {
	{"serve", "[VM=ADDRESS]...", "Share cards with VMs.", serve_opts, serve_run},
	{"stat", "", "What the daemon does, for whom, and how long it takes.", stat_opts, stat_run},
	{"list", "", "Crypto cards of this machine, and kinds of cards.", list_opts, list_run},
	{"keys", "[list | make NAME | import NAME | destroy NAME]", "The keys of a soft card.", keys_opts, keys_run},
	{"speed", "[ADDRESS]", "How fast a card is, shared or by itself.", speed_opts, speed_run},
	{"enc", "<TEXT >CIPHERTEXT", "Encrypt standard input by the card.", enc_opts, enc_run},
	{"dec", "<CIPHERTEXT >TEXT", "Decrypt standard input by the card.", enc_opts, dec_run},
	{"hash", "<DATA", "SM3 of standard input by the card.", hash_opts, hash_run},
	{"hmac", "<DATA", "HMAC-SM3 of standard input by the card.", hmac_opts, hmac_run},
	{"mac", "<DATA", "CBC-MAC (GM/T 0018) of standard input by the card.", mac_opts, mac_run},
	{"sign", "<DATA >SIGNATURE", "SM2 signature of standard input by the card.", sign_opts, sign_run},
	{"verify", "<DATA", "Whether an SM2 signature is standard input's; 1 if not.", verify_opts, verify_run},
	{"random", "BYTES", "Random bytes of the card.", random_opts, random_run},
	{0},
};

static const struct cli_tool tool = {
	.name = "cardshare",
	.summary = "Share one crypto card among many VMs.",
	.features = "OpenSSL, libgcrypt " GCRYPT_VERSION ", libpci, json-c, inih",
	.verbs = verbs,
};

int main(int argc, char **argv)
{
	/* Nobody types it: `serve` starts itself so, for a card in a process of its own. */
	if (argc > 1 && !strcmp(argv[1], "card-worker"))
		return card_worker_main(argc - 2, argv + 2);
	return cli_main(&tool, argc, argv);
}
