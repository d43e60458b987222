/* SPDX-License-Identifier: MIT */
/* Pair files: how the receiving side starts a pair; see cump-pair(5). */
#ifndef CUMP_PAIRFILE_H
#define CUMP_PAIRFILE_H

#include "pair/pair.h"

/*
 * Read a pair file's text (for messages, @name) and make a place of it: ${dir}, ${uuid} and
 * ${name} replaced, commands split into words. @dir is the pair's run folder; it need not
 * exist yet. -EINVAL names file, line or section and key.
 */
int pairfile_parse(const char *name, const char *text, const char *dir,
		   const struct pair_identity ident[PAIR_MEMBERS], struct pair_place *place,
		   struct err *err);

/* The text of a file, which only its owner (we or root) may write: it says what is run. */
char *pairfile_read(const char *path, struct err *err);

/* Print the commands of a place, one a line, for a user to see. */
void pairfile_show(const struct pair_place *place);

void pairfile_free(struct pair_place *place);

#endif
