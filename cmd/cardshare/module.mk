# SPDX-License-Identifier: MIT
TOOLS += cardshare
cardshare_PKGS := json-c libcrypto inih libgcrypt libpci
