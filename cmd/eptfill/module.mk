# SPDX-License-Identifier: MIT
TOOLS += eptfill
eptfill_PKGS := json-c numa
# Loaded into the hypervisor by `eptfill run`; installed under LIBDIR.
SHIMS += eptfill-shim
eptfill-shim_SRC := cmd/eptfill/shim/shim.c
