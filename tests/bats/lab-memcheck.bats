#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# memcheck must see every way in which a page can be lost; so it is shown each of them, in
# real memory of a real memwriter that was stopped at an arbitrary instruction.
bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

# bats file_tags=lab,fast

PAGES=1024
NONCE=00c0ffee12345678

setup_file() {
	cd "$BATS_TEST_DIRNAME/../.."
	tests/lab/build 3>&-
	export LAB_BIN=$PWD/${O:-build}/lab/bin
	cd "$BATS_FILE_TMPDIR"
	"$LAB_BIN/memwriter" $((PAGES * 4))K $NONCE >writer.log 2>&1 3>&- &
	writer=$!
	until grep -q nonce writer.log; do sleep 0.01; done
	sleep 0.2
	kill -STOP $writer
	dump $writer old
	kill -CONT $writer
	sleep 0.2
	kill -STOP $writer
	dump $writer good
	# More stops, for whatever place in a page they hit.
	for i in $(seq 10); do
		kill -CONT $writer
		sleep 0.03
		kill -STOP $writer
		dump $writer "more.$i"
	done
	kill -KILL $writer
	wait $writer 2>/dev/null || true
}

# The mappings of PID that are large enough to be the writer's memory.
dump() { # PID FILE
	: >"$2"
	while read -r range perm _ _ _ name; do
		local from=$((0x${range%-*})) to=$((0x${range#*-}))
		if [ "$perm" = rw-p ] && [ -z "$name" ] && [ $((to - from)) -ge $((PAGES * 4096)) ]; then
			dd if="/proc/$1/mem" of="$2" bs=4096 skip=$((from / 4096)) \
				count=$(((to - from) / 4096)) conv=notrunc oflag=append status=none
		fi
	done <"/proc/$1/maps"
}

setup() {
	cd "$BATS_FILE_TMPDIR"
	cp good bad
	# Where page 0 is, and the edge.
	base=$(($(LC_ALL=C grep -aobm1 1egapmem good | head -n 1 | cut -d: -f1) / 4096))
	edge=$("$LAB_BIN/memcheck" --json good | sed 's/.*"edge":\([0-9]*\).*/\1/')
}

check() {
	run "$LAB_BIN/memcheck" --nonce $NONCE --pages $PAGES "$@"
}

put() { # FROM PAGE TO-PAGE [COUNT-OF-BYTES OFFSET]
	dd if="$1" of=bad bs=1 skip=$((($2 + base) * 4096 + ${5:-0})) seek=$((($3 + base) * 4096 + ${5:-0})) \
		count="${4:-4096}" conv=notrunc status=none
}

# A page that is neither the edge nor next to it.
far() {
	echo $(((edge + PAGES / 2) % PAGES))
}

@test "a stopped writer's memory is good, wherever it was stopped" {
	check good
	assert_success
	assert_output --partial "good: $PAGES of $PAGES pages, nonce $NONCE"
	local torn=0
	for i in $(seq 10); do
		check "more.$i"
		assert_success
		[[ $output != *half\ written* ]] || torn=$((torn + 1))
	done
	echo "# half written at $torn of 10 stops"
	[ "$torn" -gt 0 ]
}

@test "one flipped bit in any part of a page" {
	for at in 0 8 16 24 32 40 2048 4095; do
		cp good bad
		local place=$((($(far) + base) * 4096 + at))
		local byte
		byte=$(od -An -tu1 -j $place -N 1 good)
		# shellcheck disable=SC2059
		printf "\\x$(printf %x $((byte ^ 1)))" | dd of=bad bs=1 seek=$place conv=notrunc status=none
		check bad
		assert_failure 1
	done
}

@test "a page that never arrived" {
	dd if=/dev/zero of=bad bs=4096 count=1 seek=$(($(far) + base)) conv=notrunc status=none
	check bad
	assert_failure 1
	assert_output --partial "page $(far): is missing"
}

@test "a page whose last change was not sent" {
	put old "$(far)" "$(far)"
	check bad
	assert_failure 1
	assert_output --partial "page $(far): is of another pass"
}

@test "the older half of a page anywhere but at the edge" {
	put old "$(far)" "$(far)" 2048 2048
	check bad
	assert_failure 1
	assert_output --partial "page $(far): differs from its pass at byte 2048"
}

@test "a page in another one's place" {
	put good "$(far)" $((($(far) + 1) % PAGES))
	check bad
	assert_failure 1
	assert_output --partial "is there twice"
}

@test "the memory of another boot, or of another size" {
	run "$LAB_BIN/memcheck" --nonce 1 good
	assert_failure 1
	assert_output --partial "no page of the writer's"
	run "$LAB_BIN/memcheck" --pages 4 good
	assert_failure 1
}

@test "what is no dump is refused, not judged" {
	run "$LAB_BIN/memcheck" /nonexistent
	assert_failure 3
	: >empty
	run "$LAB_BIN/memcheck" empty
	assert_failure 3
	run "$LAB_BIN/memcheck"
	assert_failure 2
	{ printf '\177ELF\2\1\1'; head -c 9000 /dev/zero; } >elf
	run "$LAB_BIN/memcheck" elf
	assert_failure
}
