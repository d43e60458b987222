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

#endif
