#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# bats file_tags=lab
# A guest's side of cardshare on aarch64: built for it, run by qemu-aarch64, against the daemon of this machine.

bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

O=$(realpath "${O:-$BATS_TEST_DIRNAME/../../build}")
PATH=$O/bin:$PATH
# Theirs would be of another architecture; and the words of cmocka's own output are looked at.
unset LD_PRELOAD CMOCKA_MESSAGE_OUTPUT

setup_file() {
	export dir=$BATS_FILE_TMPDIR
	cd "$BATS_TEST_DIRNAME/../.." || return
	tests/lab/build-arm 3>&-
	cardshare keys --store "$dir/store" make one >/dev/null
	cardshare keys --store "$dir/store" --type sm4 make kek >/dev/null
	cat >"$dir/conf" <<-END
		[daemon]
		control = $dir/control
		[card main]
		driver = soft
		store = $dir/store
		[vm arm]
		unix = $dir/unix
		ivshmem = $dir/shm
		allow = all
		ecc.1 = one all
		kek.1 = kek all
	END
	chmod 600 "$dir/conf"
	cardshare serve -v --config "$dir/conf" >"$dir/log" 2>&1 3>&- &
	echo $! >"$dir/daemon.pid"
	until [ -S "$dir/control" ]; do kill -0 "$(cat "$dir/daemon.pid")"; done
}

teardown_file() {
	kill "$(cat "$BATS_FILE_TMPDIR/daemon.pid")"
}

setup() {
	dir=$BATS_FILE_TMPDIR
}

@test "lab: aarch64: that is what was built" {
	run -0 od -An -tu2 -j18 -N2 "$O/arm64/libcardshare.so" # e_machine
	assert_output --partial 183 # EM_AARCH64
}

@test "lab: aarch64: rings, messages, handshakes: the unit tests" {
	run -0 "$O/arm64/run" "$O/arm64/test_card_protocol"
	assert_output --partial '[  PASSED  ]'
}

@test "lab: aarch64: an application of SDF over a socket and over shared memory: the published results, and all else" {
	for way in unix:$dir/unix shm:$dir/shm; do
		for what in vectors keys errors lacks long; do
			CARDSHARE=$way run -0 timeout 100 "$O/arm64/run" "$O/arm64/app" $what
			assert_output ""
		done
		CARDSHARE=$way run -0 timeout 100 "$O/arm64/run" "$O/arm64/app" threads 8
		assert_output ""
	done
}
