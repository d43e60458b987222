# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154 # dir: the suite's
# For the suites of cardshare: the tool on PATH, and a daemon whose control socket is $dir/control.

PATH=${O:-$BATS_TEST_DIRNAME/../../build}/bin:$PATH

stat_of() { # JQ-PROGRAM
	cardshare stat --control "$dir/control" --json | jq -r "$1"
}

# The loop's turn is not ours: ask until the answer is right, for twenty seconds.
becomes() { # JQ-PROGRAM VALUE
	local _
	for _ in $(seq 1000); do
		[ "$(stat_of "$1")" != "$2" ] || return 0
		sleep 0.02
	done
	echo "$1 is $(stat_of "$1"), not $2" >&2
	return 1
}
