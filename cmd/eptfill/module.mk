# SPDX-License-Identifier: MIT
TOOLS += eptfill
eptfill_PKGS := json-c numa
# Loaded into the hypervisor by `eptfill run`.
SHARED += eptfill-shim
eptfill-shim_SRC  := cmd/eptfill/shim/shim.c
eptfill-shim_LIBS := -ldl
eptfill-shim_DIR   = $(LIBDIR)/util-vm
