/* SPDX-License-Identifier: MIT */
/*
 * Durable journals: a file of JSON lines, one a promise. A line that journal_append
 * returned 0 for survives a crash of the machine (fsync of file and folder). The file is
 * locked (flock) for as long as it is open for writing, so that "whose process still
 * lives" has an answer without pids.
 */
#ifndef BASE_JOURNAL_H
#define BASE_JOURNAL_H

#include <stdbool.h>
#include <json-c/json.h>

#include "base/err.h"

struct journal;

/*
 * Open DIR/NAME for appending, made (with DIR, mode 0700) if @create. -EEXIST: there
 * already, -ENOENT, -EBUSY: a live process holds it, -EBADMSG: damaged (left as it is).
 */
int journal_open(const char *dir, const char *name, bool create, struct journal **out,
		 struct err *err);

/* Append @entry (consumed) with "state", "when" (UTC) put in front; durable when it returns 0. */
int journal_append(struct journal *j, const char *state, struct json_object *entry,
		   struct err *err);

/* All entries so far as a JSON array, borrowed; the last, borrowed; NULL if there is none. */
struct json_object *journal_entries(struct journal *j);
/* The newest entry whose "state" is @state, borrowed, or NULL. */
struct json_object *journal_find(struct journal *j, const char *state);
/* The newest "state", or "". */
const char *journal_state(struct journal *j);
const char *journal_path(const struct journal *j);

/* The transaction is over: move the file to DIR/done/ (the newest 100 are kept), and close. */
void journal_retire(struct journal *j);
void journal_close(struct journal *j); /* NULL is fine; the file stays */

/*
 * Read without locking: entries as an array the caller owns, or NULL with @err. A torn
 * last line (the crash came before the promise) is left out; other damage is -EBADMSG. *@live: a
 * process holds it.
 */
struct json_object *journal_read(const char *path, bool *live, struct err *err);

#endif
