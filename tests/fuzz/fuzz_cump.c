/* SPDX-License-Identifier: MIT */
/* Any history of writes, looks, rounds and ends: no page of either member is ever lost. */
#include <stdint.h>
#include <stddef.h>

#include "../unit/cump_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	model_run(data, size);
	return 0;
}
