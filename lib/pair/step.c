/* SPDX-License-Identifier: MIT */
#include "pair/step.h"

const char *pair_step_name(enum pair_step step)
{
	static const char *const names[] = {
#define X(id, name, what) name,
		PAIR_SOURCE_STEPS(X) PAIR_SINK_STEPS(X)
#undef X
	};
	return names[step];
}

const char *pair_step_what(enum pair_step step)
{
	static const char *const texts[] = {
#define X(id, name, what) what,
		PAIR_SOURCE_STEPS(X) PAIR_SINK_STEPS(X)
#undef X
	};
	return texts[step];
}
