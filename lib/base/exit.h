/* SPDX-License-Identifier: MIT */
/* The one exit table of all tools; every man page carries it. */
#ifndef BASE_EXIT_H
#define BASE_EXIT_H

enum exit_status {
	EXIT_DONE = 0,
	EXIT_NO = 1,	       /* the answer is no: a check found what it looks for */
	EXIT_USAGE = 2,	       /* the command line is wrong */
	EXIT_REFUSED = 3,      /* refused before anything was changed */
	EXIT_ROLLED_BACK = 4,  /* failed, and everything is as it was before */
	EXIT_RECOVER = 5,      /* left in a state that needs `recover` */
	EXIT_TIMED_OUT = 124,  /* a deadline passed */
	EXIT_SIGNAL = 128,     /* 128 + n: ended by signal n after undoing */
};

#endif
