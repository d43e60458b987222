# SPDX-License-Identifier: MIT
TOOLS += cump-migrate
cump-migrate_PKGS := json-c libssl libcrypto libzstd libxxhash inih
