# SPDX-License-Identifier: MIT
lib_ROOMS := base net tpm vm pair cump card cardd
lib_PKGS  := json-c libcrypto libssl libzstd inih libxxhash numa libgcrypt libpci tss2-esys tss2-mu tss2-tctildr
# Xen is built in where its libraries are.
XEN_PKGS := xenlight xencontrol xenguest xenevtchn xenforeignmemory xenstore xentoollog
ifeq ($(shell pkg-config --exists $(XEN_PKGS) && echo yes),yes)
lib_PKGS += $(XEN_PKGS)
CPP_XEN  := -DHAVE_XEN
endif
