/* SPDX-License-Identifier: MIT */
/* A verb is a file: its options and its run, named here, and a row in main.c. */
#ifndef CARDSHARE_H
#define CARDSHARE_H

#include "base/cli.h"

#define CONFIG_FILE "/etc/util-vm/cardshare.conf"

extern const struct cli_opt serve_opts[], stat_opts[], speed_opts[], keys_opts[], list_opts[];
int serve_run(int argc, char **argv);
int stat_run(int argc, char **argv);
int speed_run(int argc, char **argv);
int keys_run(int argc, char **argv);
int list_run(int argc, char **argv);

/* Pipelines over a card, from standard input to standard output. */
extern const struct cli_opt enc_opts[], hash_opts[], hmac_opts[], mac_opts[], sign_opts[],
	verify_opts[], random_opts[];
int enc_run(int argc, char **argv);
int dec_run(int argc, char **argv);
int hash_run(int argc, char **argv);
int hmac_run(int argc, char **argv);
int mac_run(int argc, char **argv);
int sign_run(int argc, char **argv);
int verify_run(int argc, char **argv);
int random_run(int argc, char **argv);

#endif
