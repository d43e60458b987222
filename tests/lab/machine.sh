# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154 # dir, lab: the caller's
# What starts and ends guests, sourced by pair and vm. The caller has misused(), fail(), stop_all() and, in
# $dir, the directory that its guests' sockets, logs and pid files are in.

absolute() {
	case $1 in
	*[!A-Za-z0-9_./+@-]*) misused "$1: not with such characters" ;;
	/*) set -- "$1" ;;
	*) set -- "$(pwd)/$1" ;;
	esac
	[ "${#1}" -le 90 ] || misused "$1: too long for the sockets in it"
	echo "$1"
}

# Half a second of the boot is self-tests, waiting for RCU and patching out locks; on q35, a look at
# 8192 places where a PCI bus might be (lastbus), each an exit to QEMU, takes seconds on nested KVM.
# ramfs: a tmpfs is half of the memory at most, which is too little of 96M for a newer kernel.
boot_words() {
	echo console=ttyS0 loglevel=2 panic=-1 mitigations=off cryptomgr.notests \
		rcupdate.rcu_expedited=1 noreplace-smp no_timer_check pci=lastbus=0 \
		audit=0 ipv6.disable=1 rootfstype=ramfs
}

# Within a lab host KVM is known to work.
choose_accel() {
	if [ "${UTIL_VM_LAB:-}" = kvm ]; then
		echo kvm
	elif [ -x "$here/probe-kvm" ] && "$here/probe-kvm" -q; then
		echo kvm
	else
		echo tcg
	fi
}

# And there is nothing to build with, nor need there be: run has seen to it.
build_lab() {
	[ "${UTIL_VM_LAB:-}" ] || "$here/build"
}

# Run words from stdin in the background, owning no descriptor of ours. Logs to FILE.
launch() { # FILE
	IFS='
'
	set -f
	# shellcheck disable=SC2046 # a word a line
	set -- "$1" $(cat)
	set +f
	unset IFS
	log=$1
	shift
	setsid "$@" </dev/null >>"$log" 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
}

# End what the pid file names, if it is still the process that we started there.
end() { # PIDFILE
	[ -s "$1" ] || return 0
	pid=$(cat "$1")
	if tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF "$dir/"; then
		kill "$pid" 2>/dev/null || true
		tries=0
		while kill -0 "$pid" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null; do
			tries=$((tries + 1))
			[ "$tries" -ne 100 ] || kill -KILL "$pid" 2>/dev/null || true
			[ "$tries" -lt 200 ] || fail "process $pid does not end"
			sleep 0.05
		done
	fi
	rm -f "$1"
}

# In seconds since the epoch.
deadline_in() { # SECONDS
	echo $(($(date +%s) + $1))
}

# Until the guest is READY; if it will not be, $word is why: what it said, or "slow".
await_ready() { # CONSOLE DEADLINE
	until word=$(grep -Eom1 '^READY|^lab: FAILED|Kernel panic' "$1" 2>/dev/null); do
		[ "$(date +%s)" -lt "$2" ] || word=slow
		[ -z "$word" ] || break
		sleep 0.05
	done
	[ "$word" = READY ]
}

not_ready() { # CONSOLE
	tail -n 5 "$1" "$dir/qemu.log" >&2 || true
	stop_all
	[ "$word" != slow ] || fail "$1: not READY in time"
	fail "$1: the guest failed: $word"
}

wait_ready() { # CONSOLE DEADLINE
	await_ready "$@" || not_ready "$1"
}

# An initramfs for a guest of this host: what heals stale breakpoints goes in front of it.
guest_initramfs() { # INITRAMFS
	cat "$lab/../lab-host/$(uname -r | sed 's/^\([0-9]*\.[0-9]*\).*/\1/')/guest.cpio" "$1"
}
