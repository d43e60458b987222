# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2034,SC2154
# Pairs that move: what the suites of cump-migrate share. A test has a folder $d of its own, with
#	$home	the folder of the pair's sockets: $d/a first, $d/r*/ID after it has moved
#	$d/sa $d/sb	the journals of the source and of the destination
#	$run_dir	the receiver's run folder ($d/r); a folder a pair in it
# A bare pair is two real QEMUs with a firmware and nothing to boot (a QEMU and a swtpm): it runs,
# moves in a tenth of a second, and starts as fast. A lab pair boots Linux and is under load.

bats_load_library bats-support
bats_load_library bats-assert

cd "${CUMP_ROOT:-$BATS_TEST_DIRNAME/../..}" || exit 1
helpers=$PWD/tests/bats/helpers
PATH=$(cd "${O:-build}" && pwd)/bin:$PATH
ask=$PWD/${O:-build}/lab/bin/ask
memcheck=$PWD/${O:-build}/lab/bin/memcheck
export ASK_TIMEOUT=20

cump_setup() {
	d=$(mktemp -d /tmp/cm.XXXXXX) # short: the name of a unix socket has 107 bytes
	home=$d/a
	run_dir=$d/r
	mkdir -m 700 "$d/sa" "$d/sb"
	secure=(--insecure)
	receive_options=() send_options=()
	receiver='' relay='' mover=''
}

cump_teardown() {
	local pid
	[ -n "$d" ] || return 0
	for pid in $(processes_of "$d"); do
		kill -9 "$pid" 2>/dev/null || true
	done
	! mountpoint -q "$d/small" || umount "$d/small"
	rm -rf "$d"
}

# Wait for a condition, a hundredth of a second between two looks; the limit only ends what hangs.
until_true() { # COMMAND...
	local tries=0
	until "$@"; do
		tries=$((tries + 1))
		[ "$tries" -lt 6000 ] || fail "not within a minute: $*"
		read -rt 0.01 _ <><(:) || true
	done
}

lives() { # PID
	local stat
	stat=$(2>/dev/null <"/proc/$1/stat" cat) && [[ ${stat##*)} != \ [ZX]* ]]
}

gone() { # PID
	! lives "$1"
}

# Processes with a word of their command line below a folder; one look, for it is looked often.
processes_of() { # DIR
	local f
	# shellcheck disable=SC2062 # those are files
	# By a pattern from a file: grep's own command line must not bear it.
	grep -slaF --file=- /proc/[0-9]*/cmdline <<<"$1/" | while read -r f; do
		f=${f#/proc/}
		f=${f%/cmdline}
		case $f in
		"$$" | "$BASHPID") ;;
		*) ! lives "$f" || echo "$f" ;;
		esac
	done
}

new_uuid() {
	cat /proc/sys/kernel/random/uuid
}

# ---- bare pairs ----

# Command lines, a word a line; $1 is the real folder, or "${dir}" for the receiver.
bare_machine() { # DIR vm|vtpm UUID
	printf '%s\n' qemu-system-x86_64 -name "guest=bare-$2" -uuid "$3" -M q35 -m "${mem:-16785408B}" \
		-accel tcg,tb-size=8 -nodefaults -no-user-config -display none \
		-qmp "unix:$1/$2.qmp,server=on,wait=off" -qmp "unix:$1/$2.mon,server=on,wait=off" \
		-pidfile "$1/$2.pid"
}

bare_vm() { # DIR
	bare_machine "$1" vm "$vm_uuid"
	if [ "$kind" = swtpm ]; then
		printf '%s\n' -chardev "socket,id=chrtpm,path=$1/swtpm.ctrl" \
			-tpmdev emulator,id=tpm0,chardev=chrtpm -device tpm-tis,tpmdev=tpm0
	else
		printf '%s\n' -fw_cfg "name=opt/org.util-vm/vtpm-uuid,string=$vtpm_uuid"
	fi
}

bare_vtpm() { # DIR
	if [ "$kind" = swtpm ]; then
		printf '%s\n' swtpm socket --tpm2 --tpmstate "dir=$1/tpm" \
			--ctrl "type=unixio,path=$1/swtpm.ctrl" --pid "file=$1/swtpm.pid"
	else
		bare_machine "$1" vtpm "$vtpm_uuid"
	fi
}

launch_words() { # LOG [WORD...], more words on stdin
	local log=$1 words
	shift
	mapfile -t words
	setsid "${words[@]}" "$@" </dev/null >>"$log" 2>&1 3>&- &
}

# bare_pair KIND DIR [OPTION-OF-QEMU...]
bare_pair() {
	kind=$1
	local dir=$2 name
	shift 2
	mkdir -p "$dir"
	vm_uuid=$(new_uuid) vtpm_uuid=$(new_uuid)
	for name in kind vm_uuid vtpm_uuid; do
		echo "$name='${!name}'"
	done >"$dir/pair.env"
	if [ "$kind" = swtpm ]; then
		mkdir "$dir/tpm"
		bare_vtpm "$dir" | launch_words "$dir/swtpm.log"
		until_true test -S "$dir/swtpm.ctrl"
		until_true test -s "$dir/swtpm.pid"
	else
		bare_vtpm "$dir" | launch_words "$dir/vtpm.log" "$@"
	fi
	bare_vm "$dir" | launch_words "$dir/vm.log" "$@"
	until_true answers "$dir" vm
	[ "$kind" = swtpm ] || until_true answers "$dir" vtpm
}

answers() { # DIR vm|vtpm
	[ -S "$1/$2.mon" ] && "$ask" qmp "$1/$2.mon" '{"execute":"query-status"}' >/dev/null 2>&1
}

# The receiver's pair file; sections may be edited by the tests with sed.
bare_file() {
	# shellcheck disable=SC2016 # the receiver puts its own folder there
	{
		printf '[pair]\nvm-uuid = %s\n[vtpm]\ncommand =' "$vm_uuid"
		bare_vtpm '${dir}' | sed 's/^/    /'
		if [ "$kind" = swtpm ]; then
			printf 'ctrl = ${dir}/swtpm.ctrl\nstate = ${dir}/tpm\n'
		else
			printf '    -S\n    -incoming\n    defer\nqmp = ${dir}/vtpm.qmp\n'
		fi
		printf '[vm]\ncommand ='
		bare_vm '${dir}' | sed 's/^/    /'
		printf '    -S\n    -incoming\n    defer\nqmp = ${dir}/vm.qmp\n'
	} | sed 's/^command =    /command = /'
}

# ---- lab pairs ----

lab_pair() { # KIND DIR [OPTION...]
	tests/lab/pair start --kind "$1" --dir "$2" "${@:3}" 3>&-
	# shellcheck disable=SC1091
	. "$2/pair.env"
}

ctl() {
	tests/lab/pair ctl --dir "$home" "$@"
}

# The guests' memory, as it stands now, is whole. Stop or hold the guest first.
memory_whole() { # DIR
	tests/lab/pair dump --dir "$1" vm "$d/dump" && "$memcheck" --nonce "$nonce" "$d/dump" &&
		rm "$d/dump"
}

# ---- the two ends ----

# start_receiver [OPTION...]: waits until it listens; sets $receiver, $address
start_receiver() {
	: >"$d/receive.err"
	cump-migrate receive "${secure[@]}" --pairs "$d/pairs" --run-dir "$run_dir" --state-dir "$d/sb" \
		"${receive_options[@]}" "$@" "${listen:-unix:$d/link}" \
		>>"$d/receive.out" 2>"$d/receive.err" 3>&- &
	receiver=$!
	echo "$receiver" >"$d/receive.pid"
	until_true listening_or_over
	address=$(sed -n 's/^cump-migrate: listening at //p' "$d/receive.err")
}

listening_or_over() {
	grep -q '^cump-migrate: listening at ' "$d/receive.err" || gone "$receiver"
}

children() { # PID
	cat "/proc/$1/task/$1/children" 2>/dev/null
}

no_children() { # PID
	[ -z "$(children "$1")" ]
}

# Its connections are served to their end; the receiver itself serves on.
receiver_idle() {
	until_true no_children "$receiver"
}

# stop_receiver: sets $status
stop_receiver() {
	[ -n "$receiver" ] || return 0
	kill "$receiver" 2>/dev/null || true
	status=0
	wait "$receiver" || status=$?
	receiver=
}

write_pair_file() { # [FILE]
	mkdir -p "$d/pairs"
	if [ -n "${nonce:-}" ]; then
		tests/lab/pair receiver-file --dir "$home"
	else
		bare_file
	fi >"${1:-$d/pairs/a.pair}"
	chmod 600 "${1:-$d/pairs/a.pair}"
}

pair_arguments() { # DIR
	pair=(--vm "qmp:$1/vm.qmp" --vtpm "qmp:$1/vtpm.qmp")
	[ "$kind" != swtpm ] || pair=(--vm "qmp:$1/vm.qmp" --vtpm "swtpm:$1/swtpm.ctrl")
}

# move [OPTION...]: sets $status, $output, $stderr
move() {
	pair_arguments "$home"
	run --separate-stderr cump-migrate send "${secure[@]}" "${pair[@]}" --state-dir "$d/sa" \
		"${send_options[@]}" "$@" "${dest:-$address}"
}

# The same in the background; $mover is its pid, also in $d/send.pid before it does anything.
begin_move() { # [OPTION...]
	pair_arguments "$home"
	# shellcheck disable=SC2016 # the inner shell's own
	env --default-signal=INT,TERM sh -c 'echo $$ >"$0" && exec "$@"' "$d/send.pid" \
		cump-migrate send "${secure[@]}" "${pair[@]}" --state-dir "$d/sa" \
		"${send_options[@]}" "$@" "${dest:-$address}" >"$d/send.out" 2>"$d/send.err" 3>&- &
	mover=$!
}

end_move() { # sets $status, $output, $stderr
	status=0
	wait "$mover" || status=$?
	output=$(cat "$d/send.out") stderr=$(cat "$d/send.err")
}

# The folder that the newest pair has at the destination.
arrived() {
	local dirs=("$run_dir"/*/)
	[ -d "${dirs[0]}" ] || return 1
	printf '%s\n' "${dirs[@]%/}" | tail -n 1
}

# The pair lives at the destination now.
follow() {
	local to
	to=$(arrived)
	cp "$home/pair.env" "$to/"
	home=$to
}

# ---- who runs where ----

running() { # DIR vm|vtpm
	if [ "$kind" = swtpm ] && [ "$2" = vtpm ]; then
		[ -s "$1/swtpm.pid" ] && lives "$(cat "$1/swtpm.pid")"
	else
		[ -S "$1/$2.mon" ] && [[ $("$ask" qmp "$1/$2.mon" '{"execute":"query-status"}' 2>/dev/null) == \
			*'"running": true'* ]]
	fi
}

# "vm vtpm", "vm", "vtpm" or "" by those whose guests run
who_runs() { # DIR
	local who=()
	for m in vm vtpm; do
		! running "$1" "$m" || who+=("$m")
	done
	echo "${who[*]}"
}

# A copy that is paused is one too, and is not to be left.
exists() { # DIR vm|vtpm
	local file=$1/$2.pid
	[ "$kind-$2" != swtpm-vtpm ] || file=$1/swtpm.pid
	[ -s "$file" ] && lives "$(cat "$file")"
}

tpm_files() { # DIR
	[ ! -d "$1" ] || find "$1" -name '*.permall' -o -name '*.volatilestate' -o -name '*.savestate'
}

assert_no_process() { # DIR
	local pid
	for pid in $(processes_of "$1"); do
		fail "left behind: $(tr '\0' ' ' <"/proc/$pid/cmdline")"
	done
}

assert_journals_settled() {
	run find "$d/sa" "$d/sb" -maxdepth 1 -type f ! -name .reserve
	assert_output ''
}

assert_at_source() {
	assert_equal "$(who_runs "$home")" "vm vtpm"
	assert_nothing_at_destination
}

# Nothing of a pair that did not come: no process, no folder, so no socket and no state.
assert_nothing_at_destination() {
	assert_no_process "$run_dir"
	[ ! -d "$run_dir" ] || assert_equal "$(ls -A "$run_dir")" ""
}

assert_at_destination() {
	local to
	to=$(arrived) || fail "nothing has arrived"
	assert_equal "$(who_runs "$to")" "vm vtpm"
	assert_nothing_at_source
}

assert_nothing_at_source() {
	assert_no_process "$home"
	assert_equal "$(tpm_files "$home")" ""
}

# One line of words, from us.
assert_one_line() { # REGEXP
	assert_regex "$stderr" "^cump-migrate: $1"
	assert_equal "$(wc -l <<<"$stderr")" 1
}

# ---- breaking it ----

# A relay between the two ends: $link is where the sender goes, $relay its pid.
start_relay() { # [OPTION...]
	"$helpers/link-relay" "$@" "$d/relay" "${address#unix:}" 3>&- &
	relay=$!
	echo "$relay" >"$d/relay.pid"
	until_true test -S "$d/relay"
	dest=unix:$d/relay
}

stop_relay() {
	kill "$relay"
	wait "$relay" || true
	relay='' dest=
}
