#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# bats file_tags=lab,long
# Guests that compute on a card are migrated by QEMU to another host, with another daemon and another store of the same keys: over
# vhost-vsock as they are; over ivshmem-doorbell by unplugging, moving and plugging in. helpers/card-moves says how.

bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

setup_file() {
	cd "$BATS_TEST_DIRNAME/../.." || return
	local got=$BATS_FILE_TMPDIR/got store=$BATS_FILE_TMPDIR/store
	mkdir -p "$got"
	tests/lab/card build
	"${O:-build}/bin/cardshare" keys --store "$store" make one >/dev/null
	"${O:-build}/bin/cardshare" keys --store "$store" --type sm4 make kek >/dev/null
	tests/lab/run kvm-pair --cpus 1 --mem 1500M --timeout 900 --boot-timeout 400 --out "$got" -- tests/bats/helpers/card-moves "$got" "$store" >"$got/log" 2>&1 3>&- || {
		tail -n 50 "$got/log" >&3
		return 1
	}
}

setup() {
	got=$BATS_FILE_TMPDIR/got
}

# The guest's own count, against what both daemons did for it.
goes_on() { # NAME
	local rest calls answered unknown others both
	run -0 cat "$got/end.$1"
	assert_line 'status 0'
	assert_line --regexp '^gcm [0-9]+ done [0-9]+ unknown [0-1] .* failed 0 wrong 0 gap '
	rest=$(grep '^gcm ' "$got/end.$1")
	echo "# $1: $rest" >&3
	read -r _ calls _ answered _ unknown _ others _ <<<"$rest"
	assert_equal "$calls" $((answered + unknown))
	# Both hosts' cards worked for it.
	for host in a b; do
		run -0 jq -e ".vms[] | select(.name == \"$1\") | .ops.aead > 20 and .ops.sign > 20 and .denied == 0" "$got/$host"
	done
	# What may not be sent twice was not: each that was answered was done, and no more were done than were asked for.
	both=$(jq -s "[.[].vms[] | select(.name == \"$1\") | .ops.aead] | add" "$got/a" "$got/b")
	echo "# $1: asked $calls answered $answered done by both cards $both" >&3
	[ "$both" -ge "$answered" ]
	[ "$both" -le "$calls" ]
}

@test "lab: over vhost-vsock: the computation goes on at the other host's card, nothing lost, nothing done twice" {
	goes_on v
	run -0 cat "$got/end.v"
	assert_line --partial 'link vsock:2:7073'
}

@test "lab: over ivshmem-doorbell: unplugged, moved, plugged in: goes on, nothing lost, nothing done twice" {
	goes_on r
	run -0 cat "$got/end.r"
	assert_line --regexp 'link ivshmem:.*\(MSI-X by /dev/uio[0-9]+\)'
}

@test "lab: the audit logs of both hosts have the uses of the key, and of each one's own guest only" {
	for host in a b; do
		run -0 jq -es '[.[] | select(.class == "ecc" and .index == 1) | .done] | add > 40' "$got/audit.$host"
		run -0 jq -es 'all(.denied == null)' "$got/audit.$host"
	done
}
