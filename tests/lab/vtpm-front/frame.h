/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* What vtpm_front, in the VM's kernel, and vtpm-back, in the vTPM guest, say to each other: one frame a datagram. */
#ifndef LAB_VTPM_FRAME_H
#define LAB_VTPM_FRAME_H

#include <linux/types.h>

#define TPM_MAX	    4096 /* TPM_BUFSIZE of the kernel */
#define TPM_HEAD    10	 /* tag, length, command or response code; big-endian */
#define FRAME_MAGIC 0x76747231U /* "vtr1" */

enum { FRAME_COMMAND, FRAME_RESPONSE, FRAME_NO_SESSION };

struct frame {
	__be32 magic;
	__be32 type;
	__be64 session;
	__be64 seq;
	__u8 tpm[TPM_MAX];
} __attribute__((packed));

#define FRAME_HEAD (sizeof(struct frame) - TPM_MAX)

#endif
