/* SPDX-License-Identifier: MIT */
/*
 * A card's library with a fault: the functions are those of the library that this one is linked with, but data that
 * begins with "crash", "hang" or "wrong" makes SDF_Encrypt do so.
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sdf.h"

int SDF_Encrypt(void *hSessionHandle, void *hKeyHandle, unsigned int uiAlgID, unsigned char *pucIV,
		unsigned char *pucData, unsigned int uiDataLength, unsigned char *pucEncData,
		unsigned int *puiEncDataLength)
{
	__typeof__(SDF_Encrypt) *encrypt;

	if (uiDataLength >= 5 && !memcmp(pucData, "crash", 5))
		abort();
	while (uiDataLength >= 4 && !memcmp(pucData, "hang", 4))
		pause();
	if (uiDataLength >= 5 && !memcmp(pucData, "wrong", 5))
		return 0x7fff0001; /* a vendor's own code */
	*(void **)&encrypt = dlsym(RTLD_NEXT, "SDF_Encrypt");
	return encrypt(hSessionHandle, hKeyHandle, uiAlgID, pucIV, pucData, uiDataLength, pucEncData, puiEncDataLength);
}
