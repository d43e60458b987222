# SPDX-License-Identifier: MIT
TOOLS += pincore
pincore_PKGS := json-c
