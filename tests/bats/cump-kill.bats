#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154,SC2030,SC2031 # stderr, kind and others are set by helpers; each test a process
# At each step of the protocol somebody is killed (SIGKILL), or the link is cut, or stalls. Then what
# was killed is started again, `recover` is run, and:
#	exactly one pair runs, both members on the same side;
#	the other side holds nothing: no process, no socket, no TPM state, no open journal;
#	the exit status said so.
# A member that is killed while its state exists nowhere else is lost, with or without us. What is
# promised then: nothing of the pair stays at the destination, the survivor runs on at the source
# (if it was the source's member), and nothing waits for a `recover` for ever.

bats_require_minimum_version 1.8.0
load helpers/cump

setup_file() {
	tests/lab/build 3>&- # for its program "ask"; all of it for the long ones
}

setup() {
	cump_setup
	receive_options=(--silence 2s --rendezvous 5s)
	send_options=(--silence 2s --rendezvous 5s)
	cases=0 failures=()
}

teardown() {
	cump_teardown
}

steps() {
	cump-migrate send --debug-steps | awk '{ print $1 }' | grep -E "${CUMP_STEPS:-.}"
}

step_number() { # STEP
	steps | grep -nxF "$1" | cut -d: -f1
}

# ---- one case ----

# What runs at the step, in a process of whoever came to it. It returns when the deed is done.
write_deed() { # VICTIM
	{
		# shellcheck disable=SC2016 # the script's own
		cat <<-'END'
			end() { # PID: at once, and wait until the kernel has done it
				kill -9 "$1" 2>/dev/null || exit 0
				echo "$1" >"$d/killed"
				while grep -q '^State:.[^ZX]' "/proc/$1/status" 2>/dev/null; do sleep 0.005; done
			}
			end_file() { # FILE
				for f in $1; do [ ! -s "$f" ] || end "$(cat "$f")"; done
			}
			link() { # SIGNAL STATE
				kill -s "$1" "$(cat "$d/relay.pid")"
				echo link >"$d/killed"
				until [ "$(cat "$d/relay.state" 2>/dev/null)" = "$2" ]; do sleep 0.005; done
			}
		END
		case $1 in
		sender) echo "end_file '$d/send.pid'" ;;
		# shellcheck disable=SC2016
		child) echo 'for p in $(cat "/proc/'"$receiver/task/$receiver"'/children"); do end "$p"; done' ;;
		# shellcheck disable=SC2016
		listener) echo 'cat "/proc/'"$receiver/task/$receiver"'/children" >"$d/children"' "; end_file '$d/receive.pid'" ;;
		source-vm) echo "end_file '$home/vm.pid'" ;;
		source-vtpm) echo "end_file '$home/$vtpm_pid'" ;;
		destination-vm) echo "end_file '$d/r/*/vm.pid'" ;;
		destination-vtpm) echo "end_file '$d/r/*/$vtpm_pid'" ;;
		cut) echo "link USR1 cut" ;;
		stall) echo "link USR2 stalled" ;;
		esac
	} | sed "1i d='$d'" >"$d/deed"
}

mover_over() {
	gone "$mover"
}

# A receiver that was killed comes back: a service manager sees to that.
over_or_revive() {
	children_seen+=" $(children "$receiver")"
	! gone "$receiver" || [ -z "$revive" ] || start_receiver
	gone "$mover"
}

# A child outlives a receiver that was killed.
no_receivers() {
	local pid
	for pid in $children_seen $(cat "$d/children" 2>/dev/null); do
		gone "$pid" || return 1
	done
	no_children "$receiver"
}

open_journals() {
	find "$d/sa" "$d/sb" -maxdepth 1 -name '*.s[io]*' ! -name '*.status' -printf '%f '
}

say_case() {
	echo "case: $kind $step $victim: status $status killed '$(cat "$d/killed" 2>/dev/null)'"
	echo "sender: $stderr"
	echo "receiver: $(cat "$d/receive.err")"
	echo "recover: ${recovered:-}"
	echo "source: $(who_runs "$home"), destination: $(arrived >/dev/null && who_runs "$(arrived)")"
	echo "journals: $(open_journals)"
	tail -n 1 "$d"/sa/*.source "$d"/sb/*.sink 2>/dev/null | cut -c1-300
}

settle() {
	recovered=
	[ -n "$(open_journals)" ] || [ "$status" = 137 ] || return 0
	recovered=$(cump-migrate recover --state-dir "$d/sa" 2>&1) || true
	until_true no_receivers
	[ -n "$(open_journals)" ] || return 0
	recovered+=$'\n'$(cump-migrate recover --state-dir "$d/sb" 2>&1) || true
}

# one_case STEP VICTIM: the pair is at $home before, and wherever $home is afterwards
one_case() {
	step=$1 victim=$2
	local send_debug=() receive_debug=()
	rm -rf "$d/r" "$d/killed" "$d/children" "$d/relay" "$d/relay.state"
	vtpm_pid=vtpm.pid
	[ "$kind" != swtpm ] || vtpm_pid=swtpm.pid
	case $step in
	send:*) send_debug=(--debug-at "$step=sh $d/deed") ;;
	*) receive_debug=(--debug-at "$step=sh $d/deed") ;;
	esac
	start_receiver "${receive_debug[@]}"
	dest='' revive='' children_seen=
	case $victim in
	cut | stall) start_relay ;;
	listener) revive=yes ;;
	esac
	write_deed "$victim"
	begin_move "${send_debug[@]}"
	until_true over_or_revive
	end_move
	[ -z "$relay" ] || kill -HUP "$relay"
	! gone "$receiver" || start_receiver
	until_true no_receivers
	verdict=
	judge_status || verdict="status $status"
	settle
	judge_places || verdict+=" places"
	judge_rest || verdict+=" rest"
	cases=$((cases + 1))
	if [ -n "$verdict" ]; then
		failures+=("$kind $step $victim:$verdict")
		say_case
	fi
	stop_receiver
	[ -z "$relay" ] || stop_relay
	next_pair
}

# ---- what is allowed ----

source_runs() {
	[ "$(who_runs "$home")" = "vm vtpm" ]
}

source_is_gone() {
	! exists "$home" vm && ! exists "$home" vtpm && [ -z "$(tpm_files "$home")" ]
}

destination_runs() {
	arrived >/dev/null && [ "$(who_runs "$(arrived)")" = "vm vtpm" ]
}

destination_is_empty() {
	[ -z "$(processes_of "$d/r")" ] && { [ ! -d "$d/r" ] || [ -z "$(ls -A "$d/r")" ]; }
}

hit() {
	[ -e "$d/killed" ]
}

# Before anybody recovers: the status tells the truth.
judge_status() {
	case $status in
	0) destination_runs_or_died && source_is_gone ;;
	3 | 4 | 124) source_runs || { hit && [[ $victim = source-* ]]; } ;;
	5) [ -n "$(open_journals)" ] ;;
	137) [ "$victim" = sender ] && hit ;;
	*) false ;;
	esac
}

destination_runs_or_died() {
	destination_runs || { hit && [[ $victim = destination-* ]]; }
}

# Only one of the two places may hold the pair, and all of it.
judge_places() {
	case $victim in
	source-*)
		if destination_runs; then
			source_is_gone
		else
			local survivor=vtpm
			[ "$victim" = source-vm ] || survivor=vm
			destination_is_empty && if hit; then running "$home" $survivor; else source_runs; fi
		fi
		;;
	destination-*)
		# After it was started there, its death is a VM's death, like any other.
		if source_is_gone; then
			[ "$status" = 0 ] || [ -n "$recovered" ]
		else
			source_runs && destination_is_empty
		fi
		;;
	*)
		if source_is_gone; then destination_runs; else source_runs && destination_is_empty; fi
		;;
	esac
}

judge_rest() {
	[ -z "$(open_journals)" ] && [ -z "$(find "$d/sa" "$d/sb" -maxdepth 1 -name '*.status*')" ]
}

# ---- the pair of the next case ----

# Reuse what survived; what did not is started anew.
next_pair() {
	[ -z "$verdict" ] && ! hit_member && source_runs || new_pair
}

hit_member() {
	[[ $victim = source-* || $victim = destination-* ]] && hit
}

new_pair() {
	local pid
	for pid in $(processes_of "$d/a") $(processes_of "$d/r"); do
		kill -9 "$pid" 2>/dev/null || true
		until_true gone "$pid"
	done
	rm -rf "$d/a" "$d/pairs" "$d"/s[ab]/*.s[io]*
	bare_pair "$kind" "$home"
	write_pair_file
}

whole_matrix() { # KIND VICTIM...
	kind=$1
	shift
	new_pair
	for v in "$@"; do
		for s in $(steps); do
			begun=$EPOCHREALTIME
			one_case "$s" "$v"
			echo "$s $v: $(((${EPOCHREALTIME/./} - ${begun/./}) / 1000)) ms" >>"${CUMP_TIMES:-/dev/null}"
		done
	done
	printf "# %d cases, %d failed\n" "$cases" "${#failures[@]}" >&3
	[ "${#failures[@]}" = 0 ] || fail "$(printf '%s\n' "${failures[@]}")"
}

# A handful of cases, STEP:VICTIM a word.
these() { # KIND CASE...
	kind=$1
	shift
	new_pair
	for c in "$@"; do
		one_case "${c%/*}" "${c#*/}"
	done
	[ "${#failures[@]}" = 0 ] || fail "$(printf '%s\n' "${failures[@]}")"
}

# ---- the most telling cases ----

# bats test_tags=lab
@test "before the decision: whoever dies, the pair runs on at the source" {
	for k in vm swtpm; do
		these $k send:started/child receive:launched/child send:stopped/sender send:prepared/sender \
			receive:restored/destination-vm send:streamed/destination-vtpm
	done
}

# bats test_tags=lab
@test "after the decision: whoever dies, the pair runs on one side" {
	for k in vm swtpm; do
		these $k send:go/sender send:go/listener receive:go/child receive:vtpm/destination-vtpm \
			receive:started/child send:done/sender
	done
}

# bats test_tags=lab
@test "a member of the source dies: nothing hangs, nothing stays in doubt" {
	for k in vm swtpm; do
		these $k send:started/source-vm send:prepared/source-vtpm
	done
}

# bats test_tags=lab
@test "the link is cut, or stalls: before the decision, and after it" {
	for k in vm swtpm; do
		these $k send:stopped/cut send:go/stall
	done
}

# ---- the whole matrix ----

# bats test_tags=lab,long
@test "vm: the sender is killed at every step" {
	whole_matrix vm sender
}

# bats test_tags=lab,long
@test "vm: the receiver's child is killed at every step" {
	whole_matrix vm child
}

# bats test_tags=lab,long
@test "vm: the receiver is killed at every step" {
	whole_matrix vm listener
}

# bats test_tags=lab,long
@test "vm: the source's VM is killed at every step" {
	whole_matrix vm source-vm
}

# bats test_tags=lab,long
@test "vm: the source's vTPM is killed at every step" {
	whole_matrix vm source-vtpm
}

# bats test_tags=lab,long
@test "vm: the destination's VM is killed at every step" {
	whole_matrix vm destination-vm
}

# bats test_tags=lab,long
@test "vm: the destination's vTPM is killed at every step" {
	whole_matrix vm destination-vtpm
}

# bats test_tags=lab,long
@test "vm: the link is cut at every step" {
	whole_matrix vm cut
}

# bats test_tags=lab,long
@test "vm: the link stalls at every step" {
	whole_matrix vm stall
}

# bats test_tags=lab,long
@test "swtpm: the sender is killed at every step" {
	whole_matrix swtpm sender
}

# bats test_tags=lab,long
@test "swtpm: the receiver's child is killed at every step" {
	whole_matrix swtpm child
}

# bats test_tags=lab,long
@test "swtpm: the receiver is killed at every step" {
	whole_matrix swtpm listener
}

# bats test_tags=lab,long
@test "swtpm: the source's VM is killed at every step" {
	whole_matrix swtpm source-vm
}

# bats test_tags=lab,long
@test "swtpm: the source's vTPM is killed at every step" {
	whole_matrix swtpm source-vtpm
}

# bats test_tags=lab,long
@test "swtpm: the destination's VM is killed at every step" {
	whole_matrix swtpm destination-vm
}

# bats test_tags=lab,long
@test "swtpm: the destination's vTPM is killed at every step" {
	whole_matrix swtpm destination-vtpm
}

# bats test_tags=lab,long
@test "swtpm: the link is cut at every step" {
	whole_matrix swtpm cut
}

# bats test_tags=lab,long
@test "swtpm: the link stalls at every step" {
	whole_matrix swtpm stall
}
