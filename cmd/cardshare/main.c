/* SPDX-License-Identifier: MIT */
/* cardshare: one crypto card, shared among many VMs. */
#include "cardshare.h"

#include <gcrypt.h>

static const struct cli_verb verbs[] = {
	{"serve", "[VM=ADDRESS]...", "Share cards with VMs.", serve_opts, serve_run},
	{"stat", "", "What the daemon does, for whom, and how long it takes.", stat_opts, stat_run},
	{"list", "", "Crypto cards of this machine, and kinds of cards.", list_opts, list_run},
	{"keys", "[list | make NAME | import NAME | destroy NAME]", "The keys of a soft card.", keys_opts, keys_run},
	{"speed", "[ADDRESS]", "How fast a card is, shared or by itself.", speed_opts, speed_run},
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
	return cli_main(&tool, argc, argv);
}
