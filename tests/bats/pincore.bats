#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154 # stderr is set by run
# pincore on QEMUs of this machine: stopped guests, whose threads are real.

bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

top=$BATS_TEST_DIRNAME/../..
PATH=${O:-$top/build}/bin:$PATH
shopt -s inherit_errexit

setup_file() {
	[ "$(nproc)" -ge 2 ] || skip "two CPUs are needed"
}

setup() {
	[ "$(nproc)" -ge 2 ] || skip "two CPUs are needed"
	d=$BATS_TEST_TMPDIR
	export XDG_RUNTIME_DIR=$d
	state=(--state-dir "$d/records")
	name=pin-$$-$BATS_TEST_NUMBER
	all=$(taskset -cp $$ | sed 's/.*: //')
	first=${all%%[,-]*}
	second=${all#"$first"?} second=${second%%[,-]*}
	case $all in "$first"-*) second=$((first + 1)) ;; esac # "0-3", not "0,3"
}

teardown() {
	local f
	for f in "$d"/*.pid; do
		[ ! -s "$f" ] || kill "$(cat "$f")" 2>/dev/null || true
	done
	[ -z "${watcher:-}" ] || kill "$watcher" 2>/dev/null || true
}

# start_vm [QEMU-WORD...]: a guest that stands still, its pid in $vm
start_vm() {
	qemu-system-x86_64 -M pc -accel tcg,thread=multi -smp 2,maxcpus=4 -m 32 -nodefaults -display none -S \
		-name "$name,debug-threads=on" -object iothread,id=io0 -qmp "unix:$d/qmp,server=on,wait=off" \
		-pidfile "$d/vm.pid" "$@" -daemonize 3>&-
	vm=$(cat "$d/vm.pid")
}

qmp() { # JSON...: to a monitor of the test's own
	printf '%s\n' '{"execute":"qmp_capabilities"}' "$@" | timeout 10 socat -t5 - "UNIX-CONNECT:$d/mon" >"$d/answers"
	! grep '"error"' "$d/answers"
}

masks() { # of every thread: "NAME CPUS", sorted
	local t
	for t in /proc/"$vm"/task/*; do
		echo "$(cat "$t/comm") $(sed -n 's/Cpus_allowed_list:\t//p' "$t/status")"
	done | sort
}

mask_of() { # NAME
	masks | sed -n "s|^$1 ||p" | sort -u
}

no_workers() { # they leave ten seconds after their last work
	[ -z "$(mask_of worker)" ]
}

plug_cpu() {
	qmp '{"execute":"device_add","arguments":{"driver":"qemu64-x86_64-cpu","id":"c2","socket-id":0,"core-id":2,"thread-id":0}}'
}

await() { # COMMAND...: until it is true, twenty seconds at most
	local n=0
	until "$@"; do
		n=$((n + 1))
		[ $n -lt 1000 ] || fail "not within twenty seconds: $*"
		read -rt 0.02 _ <><(:) || true
	done
}

no_thread_lives() { # PID
	! cat /proc/"$1"/task/*/status 2>/dev/null | grep -q '^State:[[:space:]]*[^ZX]'
}

gone() { # PID
	await no_thread_lives "$1"
}

counts() { # PID: it has its counters open
	ls -l "/proc/$1/fd" | grep -q perf_event
}

start_watch() { # OPTION...
	pincore watch "${state[@]}" --json "$@" "$name" >"$d/events" 2>"$d/watch.err" 3>&- &
	watcher=$!
	await grep -q pinned/1 "$d/events"
}

# --- pin, show, undo ---

@test "pin: each role on its CPUs, one a thread, in order; undo gives every thread its own mask back" {
	start_vm
	taskset -cp "$second" "$vm" >/dev/null # main differs from the others
	before=$(masks)
	run -0 --separate-stderr pincore pin "${state[@]}" --vcpus "$second,$first" --emulator "$first" "$name"
	assert_output ''
	assert_equal "$stderr" ''
	assert_equal "$(mask_of 'CPU 0/TCG')" "$second"
	assert_equal "$(mask_of 'CPU 1/TCG')" "$first"
	for t in 'IO io0' 'IO mon_iothread' call_rcu qemu-system-x86; do
		assert_equal "$(mask_of "$t")" "$first"
	done
	run -0 --separate-stderr pincore undo "${state[@]}" "$name"
	assert_output ''
	assert_equal "$(masks)" "$before"
	assert_equal "$(ls "$d/records")" ''
}

@test "pin: --single is one CPU for all; --all spreads each role; --float leaves the list" {
	start_vm
	run -0 pincore pin "${state[@]}" --single "$second" "$name"
	assert_equal "$(masks | sed 's/.* //' | sort -u)" "$second"
	run -0 pincore pin "${state[@]}" --all "$first,$second" "pid:$vm"
	assert_equal "$(mask_of 'CPU 0/TCG')" "$first"
	assert_equal "$(mask_of 'CPU 1/TCG')" "$second"
	run -0 pincore pin "${state[@]}" --all "$first,$second" --float "qmp:$d/qmp"
	run -0 pincore show "${state[@]}" --json "$name"
	run -0 jq -r 'select(.schema == "util-vm/pincore/thread/1") | .cpus' <<<"$output"
	assert_equal "$(sort -u <<<"$output" | wc -l)" 1
}

@test "pin twice, undo once: what was before the first time" {
	start_vm
	before=$(masks)
	pincore pin "${state[@]}" --single "$first" "$name"
	pincore pin "${state[@]}" --single "$second" "$name"
	pincore undo "${state[@]}" --all
	assert_equal "$(masks)" "$before"
}

@test "pin: roles that are not named are left alone, and that is told" {
	start_vm
	before=$(mask_of call_rcu)
	run -0 --separate-stderr pincore pin "${state[@]}" --vcpus "$first,$second" "$name"
	assert_regex "$stderr" 'left alone \(--emulator\)'
	assert_equal "$(mask_of call_rcu)" "$before"
	assert_equal "$(mask_of 'CPU 1/TCG')" "$second"
}

@test "dry run: tells, changes nothing, records nothing" {
	start_vm
	before=$(masks)
	run -0 --separate-stderr pincore pin "${state[@]}" -n --single "$first" "$name"
	assert_equal "${#lines[@]}" 6
	run -0 --separate-stderr pincore auto "${state[@]}" -n "$name"
	run -0 --separate-stderr pincore undo "${state[@]}" -n --all
	assert_equal "$(masks)" "$before"
	assert [ ! -e "$d/records" ]
}

@test "names off: the monitor tells the vCPUs; without either it is refused, and --single still works" {
	start_vm -name "$name,debug-threads=off"
	run -0 pincore show "${state[@]}" --json "$name"
	run -0 jq -r 'select(.role == "vcpu") | .index' <<<"$output"
	assert_output "$(printf '0\n1')"
	mkfifo "$d/hold"
	exec 4<>"$d/hold" # it never ends, so neither does the connection
	socat "UNIX-CONNECT:$d/qmp" - <"$d/hold" >"$d/held" 3>&- 4>&- &
	holder=$!
	await grep -q QMP "$d/held"
	before=$(masks)
	run -3 --separate-stderr pincore pin "${state[@]}" --vcpus "$first" --emulator "$second" "pid:$vm"
	assert_regex "$stderr" 'debug-threads=on'
	run -3 --separate-stderr pincore auto "${state[@]}" "pid:$vm"
	assert_equal "$(masks)" "$before"
	run -0 pincore pin "${state[@]}" --single "$first" "pid:$vm"
	kill "$holder"
	exec 4>&-
}

@test "auto: pins every thread, tells why, and says the same again" {
	start_vm
	run -0 --separate-stderr pincore auto "${state[@]}" --json "$name"
	run -0 jq -es '.[0] | .schema == "util-vm/pincore/plan/1" and (.why_memory | contains("node")) and (.plan.vcpus | length > 0)' \
		<<<"$output"
	for m in $(masks | sed 's/.* //'); do
		assert_regex "$m" '^[0-9]+$'
	done
	run -0 pincore verify "${state[@]}" --for 200ms "$name"
}

@test "show: the VMs that are pinned; one that has ended is told as such" {
	start_vm
	pincore pin "${state[@]}" --single "$first" "$name"
	run -0 pincore show "${state[@]}"
	assert_output --regexp "^$name +pid $vm .* 6 threads\$"
	kill -9 "$vm"
	gone "$vm"
	run -0 pincore show "${state[@]}"
	assert_output --partial 'ended'
}

# --- after the VM has gone ---

@test "undo after the VM has gone: the record is cleared, by the name that it had" {
	start_vm
	pincore pin "${state[@]}" --single "$first" "$name"
	kill -9 "$vm"
	gone "$vm"
	run -0 --separate-stderr pincore undo "${state[@]}" --json "$name"
	run -0 jq -e '.threads == 0 and .failed == 0' <<<"$output"
	assert_equal "$(ls "$d/records")" ''
}

@test "undo: a process that has the number of one that has gone is left alone" {
	start_vm
	pincore pin "${state[@]}" --single "$first" "$name"
	file=$(echo "$d"/records/*.vm)
	# The same record, but of a process that was born at another time.
	sed 's/"starttime":[0-9]*/"starttime":1/g' "$file" >"$d/records/$vm-1.vm"
	rm "$file"
	run -0 --separate-stderr pincore undo "${state[@]}" --all --json
	run -0 jq -e '.alive == false and .threads == 0' <<<"$output"
	assert_equal "$(mask_of call_rcu)" "$first"
}

@test "undo: a damaged record changes nothing, and is told" {
	mkdir -p "$d/records"
	echo '{"state":"pinning","pid":1}' >"$d/records/1-1.vm"
	run -3 --separate-stderr pincore undo "${state[@]}" --all
	assert_regex "$stderr" 'is missing or wrong'
	assert [ -e "$d/records/1-1.vm" ]
	: >"$d/records/1-1.vm" # a crash before anything was promised
	run -0 pincore undo "${state[@]}" --all
	assert_equal "$(ls "$d/records")" ''
}

@test "a pin that was killed half way can be undone" {
	command -v strace >/dev/null || skip "no strace"
	start_vm
	before=$(masks)
	ASAN_OPTIONS=detect_leaks=0 run strace -o "$d/trace" -e inject=sched_setaffinity:signal=KILL:when=3 \
		pincore pin "${state[@]}" --single "$second" "$name"
	assert [ "$(masks)" != "$before" ]
	run -0 pincore show "${state[@]}" "$name"
	assert_output --partial 'not to its end'
	run -0 pincore undo "${state[@]}" "$name"
	assert_equal "$(masks)" "$before"
}

@test "a thread that cannot be pinned: all is put back, 4; the first one: 3" {
	command -v strace >/dev/null || skip "no strace"
	start_vm
	before=$(masks)
	ASAN_OPTIONS=detect_leaks=0 run -4 strace -o "$d/trace" -e inject=sched_setaffinity:error=EPERM:when=4 \
		pincore pin "${state[@]}" --single "$second" "$name"
	assert_equal "$(masks)" "$before"
	assert_equal "$(ls "$d/records")" ''
	ASAN_OPTIONS=detect_leaks=0 run -3 strace -o "$d/trace" -e inject=sched_setaffinity:error=EPERM:when=1 \
		pincore pin "${state[@]}" --single "$second" "$name"
	assert_equal "$(masks)" "$before"
	# One that ends while it is being pinned is no error.
	ASAN_OPTIONS=detect_leaks=0 run -0 strace -o "$d/trace" -e inject=sched_setaffinity:error=ESRCH:when=4 \
		pincore pin "${state[@]}" --single "$second" "$name"
}

# --- verify ---

@test "verify: pinned threads stay; an affinity that was changed is told: 1" {
	start_vm
	pincore pin "${state[@]}" --single "$first" "$name"
	run -0 --separate-stderr pincore verify "${state[@]}" --for 300ms --json "$name"
	run -0 jq -es '.[-1] | .migrations == 0 and .astray == 0 and .recorded and .threads == 6' <<<"$output"
	taskset -cp "$second" "$vm" >/dev/null
	run -1 --separate-stderr pincore verify "${state[@]}" --for 100ms "$name"
	assert_output --partial 'not where it was pinned'
}

@test "verify: a thread that is driven about is seen, with perf and without: 1" {
	start_vm
	(
		while :; do
			cpu=$first first=$second second=$cpu
			taskset -cp "$cpu" "$vm"
			# It moves when it wakes up.
			printf '{"execute":"qmp_capabilities"}\n' | timeout 1 socat -t0.1 - "UNIX-CONNECT:$d/qmp"
		done
	) >/dev/null 2>&1 3>&- &
	driver=$!
	run -1 --separate-stderr pincore verify "${state[@]}" --for 2s --json "$name"
	run -0 jq -es '.[-1].migrations > 1 and ([.[] | select(.role == "main")][0].migrations > 1)' <<<"$output"
	if command -v strace >/dev/null; then
		ASAN_OPTIONS=detect_leaks=0 run -1 --separate-stderr strace -o "$d/trace" -e inject=perf_event_open:error=EACCES \
			pincore verify "${state[@]}" --for 2s --json "$name"
		run -0 jq -es '.[-1] | .source == "sched" and .migrations > 1' <<<"$output"
	fi
	kill "$driver"
}

@test "verify: Ctrl-C gives the summary" {
	start_vm
	env --default-signal=INT pincore verify "${state[@]}" --for 1h "$name" >"$d/out" 3>&- &
	pid=$!
	await counts $pid
	kill -INT $pid
	wait $pid || true
	run -0 tail -n 1 "$d/out"
	assert_output --regexp '^pin-.*: [0-9]+ migrations of [0-9]+ of 6 threads'
}

# --- watch ---

@test "watch: a vCPU that is plugged in is pinned, masks that others change are set back" {
	start_vm -qmp "unix:$d/mon,server=on,wait=off"
	start_watch --vcpus "$first,$second" --emulator "$second" --every 100ms
	plug_cpu
	await grep -q '"event":"born"' "$d/events"
	assert_equal "$(mask_of 'CPU 2/TCG')" "$first"
	taskset -acp "$first" "$vm" >/dev/null
	await grep -q '"event":"reset"' "$d/events"
	assert_equal "$(mask_of 'CPU 1/TCG')" "$second"
	run -0 pincore verify "${state[@]}" --for 200ms "$name"
	kill -INT "$watcher"
	wait "$watcher"
	assert_equal "$(mask_of 'CPU 1/TCG')" "$second"
	run -0 pincore undo "${state[@]}" "$name"
}

@test "watch: workers are pinned as they are born" {
	truncate -s 1M "$d/disk"
	start_vm -qmp "unix:$d/mon,server=on,wait=off" -drive "file=$d/disk,if=none,id=d0,format=raw,aio=threads"
	pincore pin "${state[@]}" --vcpus "$first" --emulator "$second" "$name" # workers of before inherit nothing of ours
	await no_workers
	pincore watch "${state[@]}" --json "$name" >"$d/events" 2>"$d/watch.err" 3>&- &
	watcher=$!
	# A watch that resumes prints nothing until something happens.
	taskset -cp "$first" "$vm" >/dev/null
	await grep -q '"event":"reset"' "$d/events"
	qmp '{"execute":"human-monitor-command","arguments":{"command-line":"qemu-io d0 \"read 0 64k\""}}'
	await grep -q '"event":"born"' "$d/events"
	assert_equal "$(mask_of worker)" "$second"
}

@test "watch --undo: all is as before, 128+n; without a signal it ends when the VM does: 0" {
	start_vm
	before=$(masks)
	start_watch --undo --single "$first"
	kill -TERM "$watcher"
	ended=0
	wait "$watcher" || ended=$?
	assert_equal $ended 143
	assert_equal "$(masks)" "$before"
	start_watch --single "$second"
	kill -9 "$vm"
	wait "$watcher"
	watcher=
	assert_equal "$(ls "$d/records")" ''
}

@test "watch: an undo by somebody else ends it" {
	start_vm
	before=$(masks)
	start_watch --single "$first" --every 100ms
	run -0 pincore undo "${state[@]}" "$name"
	wait "$watcher"
	watcher=
	assert_equal "$(masks)" "$before"
	run -0 cat "$d/watch.err"
	assert_output --partial 'undone'
}

@test "watch: tells the service manager that it is ready" {
	start_vm
	socat -u "UNIX-RECV:$d/notify" "OPEN:$d/notified,creat,append" 3>&- &
	manager=$!
	await test -S "$d/notify"
	NOTIFY_SOCKET=$d/notify pincore watch "${state[@]}" --single "$first" "$name" 2>/dev/null 3>&- &
	watcher=$!
	await grep -qs READY=1 "$d/notified"
	kill "$watcher"
	await grep -qs STOPPING=1 "$d/notified"
	kill "$manager"
}

# --- run ---

@test "run: the command has the CPUs before its first instruction, and its own exit status" {
	run -7 pincore run "$second" -- sh -c 'taskset -cp $$; exit 7'
	assert_output --regexp ": $second\$"
	start=$name
	pincore run "$second" -- qemu-system-x86_64 -M pc -nodefaults -display none -S -smp 2 -m 32 -name "$start" \
		-pidfile "$d/vm.pid" -daemonize 3>&-
	vm=$(cat "$d/vm.pid")
	assert_equal "$(masks | sed 's/.* //' | sort -u)" "$second"
}

@test "run by role: pinned from the start and kept so; signals and status are handed on" {
	pincore run "${state[@]}" --json --vcpus "$first,$second" --emulator "$second" -- qemu-system-x86_64 -M pc \
		-accel tcg,thread=multi -smp 2 -m 32 -nodefaults -display none -S -name "$name,debug-threads=on" \
		-pidfile "$d/vm.pid" >"$d/events" 2>/dev/null 3>&- &
	watcher=$!
	await grep -q pinned/1 "$d/events"
	vm=$(cat "$d/vm.pid")
	assert_equal "$(mask_of 'CPU 0/TCG')" "$first"
	assert_equal "$(mask_of 'CPU 1/TCG')" "$second"
	assert_equal "$(mask_of 'qemu-system-x86')" "$second"
	kill -TERM "$watcher"
	wait "$watcher" # QEMU ends with 0 on SIGTERM
	watcher=
	assert [ ! -e "/proc/$vm" ]
	assert_equal "$(ls "$d/records")" ''
	run -3 --separate-stderr pincore run "${state[@]}" --single "$first" -- sh -c 'exit 3'
	assert_regex "$stderr" 'before it was a VM'
}

# --- bad input ---

@test "usage errors: 2" {
	for bad in 'pin' 'pin x' 'pin x --vcpus' 'pin x --vcpus a' 'pin x --vcpus 1-' 'pin x --vcpus 5000' 'pin x --single 0,1' \
		'pin x --all 0' 'pin x --all 0,1 --single 0' 'pin x --all 0,1 --vcpus 0' 'pin x y --single 0' 'auto' 'verify' \
		'verify x --for 0' 'verify x --for y' 'watch' 'watch x --every 0' 'undo' 'undo x --all' 'run' 'run 0' 'run x -- true' \
		'run --single 0' 'run 0 --float -- true' \
		'nonsense' 'pin x --nonsense'; do
		# shellcheck disable=SC2086 # words
		run -2 --separate-stderr pincore $bad
		assert_output ''
		assert_regex "$stderr" '^pincore: .*--help'
	done
}

@test "no such VM, no such CPU, not a VM, a hypervisor that is not built in: 3" {
	start_vm
	before=$(masks)
	for bad in "pin nobody-$$ --single $first" "pin pid:$$ --single $first" "pin $name --single 1000" "auto qmp:/nowhere" \
		"show xen:1" "verify libvirt:x" "undo nobody-$$" "watch nobody-$$" 'run 1000 -- true' "run $first -- /nowhere/x"; do
		# shellcheck disable=SC2086 # words
		run -3 --separate-stderr pincore $bad "${state[@]}"
		assert_output ''
		assert_equal "${#stderr_lines[@]}" 1
	done
	assert_equal "$(masks)" "$before"
	assert [ ! -e "$d/records" ]
}

@test "a state folder that cannot be written: 3, and nothing is changed" {
	start_vm
	before=$(masks)
	: >"$d/file"
	run -3 --separate-stderr pincore pin --state-dir "$d/file/x" --single "$first" "$name"
	assert_equal "$(masks)" "$before"
}

@test "--irqs without the right to move any: 3, and nothing is changed" {
	[ "$(id -u)" = 0 ] || skip "root is needed, to be somebody else"
	start_vm
	before=$(masks)
	chmod 755 "$BATS_RUN_TMPDIR" "$d"
	install -m 755 "$(command -v pincore)" "$d/pincore"
	run -3 --separate-stderr setpriv --reuid 65534 --regid 65534 --clear-groups "$d/pincore" pin --state-dir "$d/theirs" \
		--single "$first" --irqs "pid:$vm"
	assert_equal "${#stderr_lines[@]}" 1
	assert_equal "$(masks)" "$before"
}

@test "--isolate where cgroup v2 has no cpusets, or roles are missing" {
	start_vm
	run -2 --separate-stderr pincore pin "${state[@]}" --vcpus "$first,$second" --isolate "$name"
	grep -qsw cpuset /sys/fs/cgroup/cgroup.controllers && skip "it has them here; pincore-kvm.bats shows the rest"
	before=$(masks)
	run -3 --separate-stderr pincore pin "${state[@]}" --single "$second" --isolate "$name"
	assert_regex "$stderr" 'isolate: .*cgroup v2'
	assert_equal "$(masks)" "$before"
	assert_equal "$(ls "$d/records")" ''
}
