/* SPDX-License-Identifier: MIT */
/* cump-migrate: move a VM and its vTPM as one. */
#include "cump.h"

struct cump_opts cump_opts = {
	.budget_us = 300000,
	.rendezvous_us = 10000000,
	.silence_us = 10000000,
	.max_rounds = 30,
};

#define O cump_opts
#define OPT_PAIR                                                                               \
	{0, "vm", CLI_STRING, &O.vm, "TARGET", "the VM: qmp:PATH, pid:N or a name"},           \
	{0, "vtpm", CLI_STRING, &O.vtpm, "TARGET",                                             \
	 "its vTPM: swtpm:SOCKET, pid:N, or a VM as above"}
#define OPT_KEYS                                                                               \
	{0, "tls", CLI_STRING, &O.tls, "DIR", "certificates: ca.pem, cert.pem, key.pem"},      \
	{0, "psk", CLI_STRING, &O.psk, "FILE", "pre-shared key: IDENTITY:HEXKEY"},             \
	{0, "peer-name", CLI_STRING, &O.peer_name, "NAME",                                     \
	 "the other end's certificate must bear this name"},                                   \
	{0, "insecure", CLI_FLAG, &O.insecure, NULL, "nothing encrypted, nobody authenticated"}
#define OPT_STATE {0, "state-dir", CLI_STRING, &O.state_dir, "DIR", "where the journals are"}
#define OPT_JSON {0, "json", CLI_FLAG, &O.json, NULL, "one JSON object a line"}
#define OPT_TIMES                                                                              \
	{0, "rendezvous", CLI_DURATION, &O.rendezvous_us, "TIME",                              \
	 "longest from stop to promise (10s)"},                                                \
	{0, "silence", CLI_DURATION, &O.silence_us, "TIME",                                    \
	 "a link that says nothing for so long is dead (10s)"}
#define OPT_DEBUG                                                                              \
	{0, "debug-steps", CLI_FLAG, &O.debug_steps, NULL, "list the steps of the protocol"},  \
	{0, "debug-at", CLI_STRING, &O.debug_at, "STEP=COMMAND", "run COMMAND at STEP"}

static const struct cli_opt check_opts[] = {
	OPT_PAIR, OPT_KEYS,
	{0, "offline", CLI_FLAG, &O.offline, NULL, "Xen: as 'send --offline' would move it"},
	OPT_JSON, CLI_END,
};

static const struct cli_opt send_opts[] = {
	OPT_PAIR,
	OPT_KEYS,
	{'b', "budget", CLI_DURATION, &O.budget_us, "TIME", "joint downtime aimed at (300ms)"},
	{0, "max-rounds", CLI_U64, &O.max_rounds, "N", "then stop beyond the budget (30)"},
	{'t', "timeout", CLI_DURATION, &O.timeout_us, "TIME", "give up the pre-copy after TIME"},
	OPT_TIMES,
	{0, "pair-file", CLI_STRING, &O.pair_file, "FILE", "hand the destination this pair file"},
	{0, "level", CLI_U32, &O.level, "N", "zstd level, 1 to 19; 0: fastest (0)"},
	{0, "policy", CLI_STRING, &O.policy, "NAME", "Xen: cump or independent (independent)"},
	{0, "verify", CLI_FLAG, &O.verify, NULL, "Xen: compare all memory before it starts there"},
	{0, "offline", CLI_FLAG, &O.offline, NULL, "Xen: suspend both first, then copy (PV needs it)"},
	{0, "no-compress", CLI_FLAG, &O.no_compress, NULL, "send as it is"},
	{'n', "dry-run", CLI_FLAG, &O.dry_run, NULL, "ask the destination, move nothing"},
	OPT_STATE,
	OPT_JSON,
	OPT_DEBUG,
	CLI_END,
};

static const struct cli_opt receive_opts[] = {
	OPT_KEYS,
	{0, "pairs", CLI_STRING, &O.pairs, "PATH", "pair file, or folder of *.pair files"},
	{0, "accept-handed", CLI_FLAG, &O.accept_handed, NULL,
	 "run what the source hands over where no pair file fits"},
	{0, "once", CLI_FLAG, &O.once, NULL, "serve one pair, exit with its outcome"},
	{0, "run-dir", CLI_STRING, &O.run_dir, "DIR", "where the pairs' sockets and state go"},
	OPT_TIMES,
	OPT_STATE,
	OPT_JSON,
	OPT_DEBUG,
	{0, "debug-streams", CLI_STRING, &O.debug_streams, "DIR", "Xen: keep a copy of both streams in DIR"},
	CLI_END,
};

static const struct cli_opt status_opts[] = {
	{'a', "all", CLI_FLAG, &O.all, NULL, "finished ones, too"}, OPT_STATE, OPT_JSON, CLI_END};
static const struct cli_opt cancel_opts[] = {
	{'t', "timeout", CLI_DURATION, &O.timeout_us, "TIME", "wait so long for its end (60s)"},
	{0, "no-wait", CLI_FLAG, &O.no_wait, NULL, "only tell it"},
	OPT_STATE,
	OPT_JSON,
	CLI_END,
};
static const struct cli_opt recover_opts[] = {
	OPT_KEYS,
	{'n', "dry-run", CLI_FLAG, &O.dry_run, NULL, "say what would be done"},
	OPT_STATE,
	OPT_JSON,
	CLI_END,
};

static const struct cli_verb verbs[] = {
	{"check", "--vm TARGET --vtpm TARGET [DEST]", "are they a pair, and could DEST take it?",
	 check_opts, cump_check},
	{"send", "--vm TARGET --vtpm TARGET DEST", "move the pair to DEST", send_opts, cump_send},
	{"receive", "ADDRESS", "take in pairs at ADDRESS", receive_opts, cump_receive},
	{"status", "[ID]", "what is under way, and in doubt", status_opts, cump_status},
	{"cancel", "ID", "roll a running move back", cancel_opts, cump_cancel},
	{"recover", "[ID [go|abort]]", "settle what a crash or a cut left open", recover_opts,
	 cump_recover},
	{0},
};

int main(int argc, char **argv)
{
	static const struct cli_tool tool = {
		.name = "cump-migrate",
		.summary = "Move a VM and its vTPM as one: both, or neither.",
#ifdef HAVE_XEN
		.features = "QEMU (QMP), Xen (libxl), swtpm, TLS 1.3, zstd",
#else
		.features = "QEMU (QMP), swtpm, TLS 1.3, zstd",
#endif
		.verbs = verbs,
	};

	return cli_main(&tool, argc, argv);
}
