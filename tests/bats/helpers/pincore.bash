# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What the tests of pincore in a lab host share: a helper is run there once, and leaves in $got what they look at.

in_lab() { # HELPER SECONDS OPTION… (of lab/run)
	local helper=$1 seconds=$2
	shift 2
	export got=$BATS_FILE_TMPDIR/got
	mkdir -p "$got"
	tests/lab/run kvm "$@" --timeout "$seconds" --boot-timeout 240 --out "$got" -- "tests/bats/helpers/$helper" "$got" >"$got/log" 2>&1 3>&- || {
		tail -n 50 "$got/log" >&3
		return 1
	}
}

summary() { # FILE EXPRESSION: of the last line
	run -0 jq -es ".[-1] | $2" "$got/$1"
}
