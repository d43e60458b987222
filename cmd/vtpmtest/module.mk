# SPDX-License-Identifier: MIT
TOOLS += vtpmtest
vtpmtest_PKGS := tss2-tctildr libcrypto
