#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154,SC2030,SC2031,SC2016,SC2034 # set by helpers; the hosts' own
# On two Xen hosts: at each step of the protocol somebody is killed (SIGKILL), the link is cut, or the move is
# cancelled. Then `recover` is run, and exactly one pair runs, nothing waits, and the exit status said so.
# CUMP_STEPS (a regexp) picks steps.
bats_require_minimum_version 1.8.0
load helpers/cump-xen

# bats file_tags=lab,long

setup_file() {
	# Some thirty moves, each of which loses a guest 1 MiB (tests/lab/README.md).
	xen_setup_file --vtpm-mem 128M --test --rate,10,--mode,sequence,/dev/tpm0
}

teardown_file() {
	xen_teardown_file
}

setup() {
	xen_setup
	receive_options=(--silence 3s --rendezvous 60s) send_options=(--silence 3s --rendezvous 60s)
	cases=0 failures=()
}

teardown() {
	stop_receiver
	on "$home" ip link set eth1 up || true
}

steps() { # [REGEXP]
	"$tool" send --debug-steps | awk '{ print $1 }' | grep -E "${CUMP_STEPS:-.}" | grep -E "${1:-.}"
}

say_case() {
	echo "case: $step $victim: status $status; $verdict"
	echo "sender: $stderr"
	echo "receiver: $(cat "$d/receive.err")"
	echo "recover: $recovered"
	for h in a b; do
		echo "$h: $(on $h xl list | awk 'NR > 2 { print $1, $5 }' | xargs)"
		on $h sh -c 'grep -h "Kernel panic" /var/log/xen/console/guest-pair*.log' || true
	done
	echo "journals: $(open_journals)"
}

# What is done at the step, by whoever came to it: its shell's parent. A cut comes up again by itself.
deed() {
	case $victim in
	sender | child) echo ': >/tmp/c/hit; kill -KILL $PPID' ;;
	cancel) echo ': >/tmp/c/hit; kill -TERM $PPID' ;;
	cut) echo ': >/tmp/c/hit; ip link set eth1 down; (sleep 8; ip link set eth1 up) </dev/null >/dev/null 2>&1 &' ;;
	esac
}

# A step that was never reached proves nothing.
hit() {
	on a test -e /tmp/c/hit || on b test -e /tmp/c/hit
}

both_run() { # HOST
	[ "$(runs_on "$1")" = "pair pair-vtpm" ]
}

# Before anybody recovers: the status tells the truth.
judge_status() {
	case $status in
	0) both_run "$away" && [ -z "$(exist_on "$home")" ] ;;
	3 | 4 | 124 | 143) both_run "$home" ;;
	5) [ -n "$(open_journals)" ] ;;
	137) [ "$victim" = sender ] ;;
	*) false ;;
	esac
}

# Only one of the two may hold the pair, and all of it.
judge_places() {
	if both_run "$home"; then
		[ -z "$(exist_on "$away")" ]
	else
		both_run "$away" && [ -z "$(exist_on "$home")" ]
	fi
}

link_is_up() {
	on "$home" sh -c 'ping -c 1 -W 1 "$1" >/dev/null || socat -u OPEN:/dev/null "TCP:$1:2200,connect-timeout=1"' sh "$address" 2>/dev/null
}

settle() {
	recovered=
	[ "$victim" != cut ] || until_true link_is_up
	[ -n "$(open_journals)" ] || [ "$status" = 137 ] || return 0
	recovered=$(on "$home" "$tool" recover --state-dir /tmp/c/sa 2>&1) || true
	[ -n "$(open_journals)" ] || return 0
	recovered+=$'\n'$(on "$away" "$tool" recover --state-dir /tmp/c/sb 2>&1) || true
}

one_case() { # STEP VICTIM
	step=$1 victim=$2
	case $step in
	send:*)
		start_receiver
		move --no-compress --debug-at "$step=$(deed)"
		;;
	*)
		start_receiver --debug-at "$step=$(deed)"
		move --no-compress
		;;
	esac
	verdict=
	hit || verdict="not hit"
	judge_status || verdict+=" status"
	settle
	judge_places || verdict+=" places"
	[ -z "$(open_journals)" ] || verdict+=" journals"
	cases=$((cases + 1))
	stop_receiver
	echo "# $step $victim: status $status ${verdict:-ok}" >&3
	if [ -n "$verdict" ]; then
		failures+=("$step $victim:$verdict")
		say_case >&3
		new_pair
		where_is_it
	elif both_run "$away"; then
		moved
	fi
	on a sh -c 'rm -rf /tmp/c/s[ab]/* /tmp/c/hit'
	on b sh -c 'rm -rf /tmp/c/s[ab]/* /tmp/c/hit'
}

matrix() { # VICTIM [REGEXP of steps]
	for s in $(steps "${2:-}"); do
		one_case "$s" "$1"
	done
	echo "# $cases cases, ${#failures[@]} failed" >&3
	[ "${#failures[@]}" = 0 ] || fail "$(printf '%s\n' "${failures[@]}")"
	assert_alive
}

@test "the sender is killed at every step" {
	matrix sender ^send
}

# As xen_suspend leaves it that waited for the other's answer; no step is there.
@test "a sender that dies while it has paused one of the two" {
	start_receiver
	move --no-compress --debug-at 'send:converged=xl pause pair-vtpm; kill -KILL $PPID'
	assert_equal "$status" 137
	run on "$home" xl list
	assert_line --regexp '^pair-vtpm +.* --p--- '
	run on "$home" "$tool" recover --state-dir /tmp/c/sa
	assert_success
	both_run "$home"
	run on "$home" xl list
	refute_line --regexp '^pair.* --p--- '
	assert_alive
}

# While it waits Xen tells it alone who has suspended; xl waits for that word as well. Who is paused keeps it waiting.
@test "a sender that dies while the guests suspend: others are told again" {
	start_receiver
	move --no-compress --debug-at 'send:converged=xl pause pair-vtpm; (sleep 0.3; kill -KILL $PPID) </dev/null >/dev/null 2>&1 &'
	assert_equal "$status" 137
	run on "$home" "$tool" recover --state-dir /tmp/c/sa
	assert_success
	both_run "$home"
	run on "$home" timeout 50 xl save -c pair-vtpm /dev/null
	assert_success
	both_run "$home"
	assert_alive
}

# By what xenstore tells: the question is written, or has been taken up. Who has taken it up suspends, whatever becomes of
# the sender, and takes its time: it has a hundredth of a CPU. A watch tells once when it is made.
@test "a sender that dies when a guest was asked, or has answered: none suspends afterwards" {
	victim=sender
	for last in pair:2 pair-vtpm:2 pair:3 pair-vtpm:3; do
		start_receiver
		move --no-compress --debug-at "send:converged=id=\$(xl domid ${last%:*})
			(xenstore-watch -n ${last#*:} /local/domain/\$id/control/shutdown; kill -KILL \$PPID) </dev/null >/dev/null 2>&1 &
			xl sched-credit2 -d ${last%:*} -c 1"
		assert_equal "$status" 137
		settle
		stop_receiver
		echo "# ${last%:*}, event ${last#*:}: $recovered" >&3
		both_run "$home"
		on "$home" xl sched-credit2 -d "${last%:*}" -c 0
		assert_alive
		both_run "$home"
		run on "$home" xenstore-ls -f /local/domain
		refute_output --partial util-vm/suspending
		on a sh -c 'rm -rf /tmp/c/s[ab]/*'
		on b sh -c 'rm -rf /tmp/c/s[ab]/*'
	done
}

@test "the receiver's child is killed at every step" {
	matrix child ^receive
}

@test "the link is cut at every step" {
	matrix cut
}

@test "cancelled at every step: by the sender's, or by the receiver's user" {
	matrix cancel
}
