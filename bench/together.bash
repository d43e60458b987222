# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154 # bin, dir, seconds: the bench's
# What many VMs get at once: for the benches of cardshare.

count() { # JQ-PROGRAM over the daemon's stat
	"$bin" stat --control "$dir/control" --json | jq -r "$1"
}

# A client at each, until ebb.
flood() { # OPERATION ADDRESS...
	local address op=$1
	shift
	flooding=()
	for address; do
		"$bin" speed -o "$op" -n 16 --sleep -d 60s "$address" >/dev/null 2>&1 &
		flooding+=($!)
	done
}

ebb() {
	kill "${flooding[@]}"
	wait "${flooding[@]}" 2>/dev/null || true
}

# Requests a second of all at once, by the daemon's count and while all are under way: nobody's start or end counts.
together() { # OPERATION ADDRESS...
	local begun ended
	flood "$@"
	until [ "$(count '[.vms[].links | length] | add')" = $(($# - 1)) ]; do sleep 0.05; done
	begun=$(count '"\(.uptime_us) \(.requests)"')
	sleep "$seconds"
	ended=$(count '"\(.uptime_us) \(.requests)"')
	ebb
	until [ "$(count '[.vms[] | .links, .regions] | add | length')" = 0 ]; do sleep 0.02; done
	awk -v b="$begun" -v e="$ended" 'BEGIN { split(b, x); split(e, y); print (y[2] - x[2]) * 1e6 / (y[1] - x[1]) }'
}
