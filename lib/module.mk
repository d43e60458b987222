# SPDX-License-Identifier: MIT
lib_ROOMS := base net tpm vm pair cump card cardd
lib_PKGS  := json-c libcrypto libssl libzstd inih libxxhash numa libgcrypt libpci tss2-esys tss2-mu tss2-tctildr
