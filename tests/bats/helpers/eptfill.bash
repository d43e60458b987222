# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154 # seen, size: the caller's
# What the tests of eptfill in a lab host look at: the files that eptfill-lab left in $seen.

# PARTs of eptfill-lab, in a host of its own.
lab_parts() { # NAME MEM TIMEOUT PART…
	local name=$1 mem=$2 timeout=$3
	shift 3
	tests/lab/run kvm --mem "$mem" --timeout "$timeout" --out "$seen/$name" -- \
		tests/bats/helpers/eptfill-lab "$seen/$name" "${size}M" "$@" 3>&-
}

# Files of the host's, for a test that fails.
show() {
	tail -n 20 "$seen/$1"* >&2
}

get() { # FILE EXPRESSION
	jq -r "$2" <"$seen/$1"
}

# Pages that a guest wrote.
touched() {
	sed -n 's/^memtouch: \([0-9]*\) pages.*/\1/p' "$seen/$1.touch"
}

violations() { # between two readings: NAME
	echo $(($(get "$1.after" '.pf_taken - .pf_emulate') - $(get "$1.before" '.pf_taken - .pf_emulate')))
}

# All of it is there, and the guest that wrote it all took no violation.
assert_filled() { # NAME
	assert_equal "$(get "$1.before" '.resident_bytes >= .memory_bytes, .mapped_bytes >= .slots_bytes, .coverage_percent == 100' | xargs)" "true true true"
	[ "$(touched "$1")" -gt $((size * 100)) ]
	assert_equal "$(violations "$1")" 0
	assert_equal "$(get "$1.verify" '.violations, .coverage_percent == 100, .status' | xargs)" "0 true 0"
	assert_equal "$(cat "$seen/$1.status")" 0
}

# What a summing guest saw of the stops, and its threads afterwards.
assert_undisturbed() { # FOLDER STOPS
	local sum
	show "$1/sum"
	read -r stops _ <"$seen/$1/sum.count"
	[ "$stops" -ge "$2" ]
	sum=$(cat "$seen/$1/sum")
	assert_regex "$sum" 'memsum: [1-9][0-9]* sums 0 wrong [1-9][0-9]+ ticks 0 lost '
	assert_equal "$(cat "$seen/$1/sum.err")" ""
	run -0 diff "$seen/$1/sum.before" "$seen/$1/sum.after"
}
