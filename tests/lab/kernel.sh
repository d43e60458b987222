# SPDX-License-Identifier: MIT
# shellcheck shell=sh
# Debian's kernels for the lab, sourced by what builds with them: fetched into the cache, unpacked,
# never installed. The caller has refuse().
cache=${XDG_CACHE_HOME:-$HOME/.cache}/util-vm

# The series of Debian's own kernel here, or nothing.
debian_series() {
	case $(sed -n 's/^VERSION_ID="\{0,1\}\([0-9]*\).*/\1/p' /etc/os-release) in
	12) echo 6.1 ;;
	13) echo 6.12 ;;
	esac
}

# The newest package file of the cache, or nothing.
cached_deb() { # NAME-GLOB
	find "$cache" -maxdepth 1 -name "$1_*.deb" 2>/dev/null | sort -V | tail -n 1
}

newest_package() { # NAME-REGEXP
	apt-cache search --names-only "^$1\$" | cut -d ' ' -f 1 | sort -V | tail -n 1
}

# Every name at once, or none of them.
fetch_debs() { # NAME…
	mkdir -p "$cache"
	partial=$(mktemp -d "$cache/partial.XXXXXX")
	trap 'rm -rf "$partial"' EXIT
	# As root, apt would go on as _apt, which cannot write here, and warn about it.
	(cd "$partial" && apt-get download -q -o APT::Sandbox::User=root "$@" >&2) ||
		refuse "cannot download $*"
	mv "$partial"/*.deb "$cache/"
	rm -rf "$partial"
	trap - EXIT
}

# The newest kernel of a series and flavour that is here already, else the newest that there is.
kernel_deb() { # SERIES FLAVOUR
	deb=$(find "$cache" -maxdepth 1 -name "linux-image-$1.*-$2_*.deb" 2>/dev/null |
		grep -E "/linux-image-[0-9.+-]*(deb[0-9]+-)?$2_" | sort -V | tail -n 1)
	if [ -z "$deb" ]; then
		pattern="linux-image-$1\\.[0-9.+-]*(deb[0-9]+-)?$2"
		name=$(newest_package "$pattern")
		if [ -z "$name" ]; then
			apt-get update -q >&2 || true
			name=$(newest_package "$pattern")
		fi
		[ -n "$name" ] || refuse "apt knows no linux-image-$1.*-$2"
		fetch_debs "$name"
		deb=$(cached_deb "$name")
	fi
	echo "$deb"
}

# A kernel's release, from where it is unpacked; Debian 13's modules live below /usr.
unpack_kernel() { # DEB DIR
	mkdir -p "$2"
	dpkg -x "$1" "$2"
	[ -d "$2/lib" ] || ln -s usr/lib "$2/lib"
	basename "$(ls -d "$2"/lib/modules/*)"
}

# The ELF within a bzImage: what boots by PVH need not unpack itself (Linux, Documentation/arch/x86/boot.rst:
# setup_sects, payload_offset, payload_length, whose last 4 bytes are the size unpacked).
unpack_vmlinux() { # VMLINUZ
	at=$((($(field "$1" 497 1) + 1) * 512 + $(field "$1" 584 4)))
	size=$(($(field "$1" 588 4) - 4))
	case $(od -An -j $at -N 4 -tx1 "$1" | tr -d ' ') in
	fd377a58) unpack='xz -dc' ;;
	28b52ffd) unpack='zstd -dcq' ;;
	02214c18) unpack='lz4 -dcq' ;;
	1f8b08*) unpack='gzip -dc' ;;
	*) refuse "$1: packed in a way that is not known here" ;;
	esac
	tail -c +$((at + 1)) "$1" | head -c $size | $unpack
}

field() { # FILE OFFSET SIZE
	od -An -j "$2" -N "$3" -t "u$3" "$1" | tr -d ' '
}

# Copy modules and what they need, unpacked, and list them in the order in which insmod can take them.
load_order() { # UNPACKED-KERNEL RELEASE OUT-DIR LIST MODULE…
	deb_root=$1 deb_release=$2 out=$3 list=$4
	shift 4
	for module; do
		sed -n "s|^\(.*/$module\.ko[.xz]*\): *\(.*\)|\2 \1|p" "$deb_root/lib/modules/$deb_release/modules.dep" |
			awk '{ for (i = NF - 1; i; i--) print $i; print $NF }'
	done | awk '!seen[$0]++' | while read -r path; do
		name=$(basename "${path%.xz}")
		case $path in
		*.xz) xz -dc "$deb_root/lib/modules/$deb_release/$path" >"$out/$name" ;;
		*) cp "$deb_root/lib/modules/$deb_release/$path" "$out/$name" ;;
		esac
		echo "$name"
	done >"$out/$list"
	[ -s "$out/$list" ] || refuse "$deb_release has no $*"
}

# A package of that version, from the cache or fetched to it. As apt names a file: a colon of the version is %3a.
fetch_version() { # PACKAGE VERSION
	name=$1_$2
	[ -n "$(find "$cache" -maxdepth 1 -name "${name}_*.deb")" ] || (fetch_debs "$1=$2") ||
		refuse "$1 $2 is not to be had any more: remove the kernel of that version from $cache, and the newest is taken"
	find "$cache" -maxdepth 1 -name "${name}_*.deb"
}

# Of which version a kernel's build tools are had: its own, else the next, as its headers depend on them. Debian signs a
# kernel after it has built its tools, so that at times its archive has newer ones only.
kbuild_version() { # PACKAGE LEAST
	{
		find "$cache" -maxdepth 1 -name "$1_*.deb" | sed 's/.*_\(.*\)_.*/\1/'
		apt-cache madison "$1" | cut -d '|' -f 2 | tr -d ' '
	} | sort -uV | while read -r candidate; do
		dpkg --compare-versions "$candidate" lt "$2" || echo "$candidate"
	done | head -n 1
}

# What modules for that kernel are built against, in $headers; the compiler that it was built with is there.
unpack_headers() { # RELEASE VERSION DIR
	flavourless=${1%-amd64} flavourless=${flavourless%-cloud}
	case $1 in
	6.1.0-*) kbuild=linux-kbuild-6.1 ;;
	*) kbuild=linux-kbuild-$flavourless ;;
	esac
	for package in "linux-headers-$1 $2" "linux-headers-$flavourless-common $2" "$kbuild $(kbuild_version "$kbuild" "$2")"; do
		# shellcheck disable=SC2311 # it refuses by itself
		package=$(fetch_version "${package% *}" "${package#* }") || exit
		dpkg-deb -x "$package" "$3"
	done
	headers=$3/usr/src/linux-headers-$1
	sed -i "s|^include /usr/src|include $3/usr/src|" "$headers/Makefile"
	compiler=$(sed -n 's/.*[^a-z]\(gcc-[0-9]*\).*/\1/p' "$headers/.kernelvariables" | head -n 1)
	command -v "$compiler" >/dev/null || refuse "$compiler is missing, which this kernel was built with"
	# With it, modules would get BTF, by pahole; they load without.
	rm -f "$headers/vmlinux"
}

# For an initramfs; the same for the same files.
archive() { # FOLDER
	(cd "$1" && find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --quiet)
}

compile() { # OUTPUT SOURCE [OPTION…]
	out=$1 src=$2
	shift 2
	${CC:-cc} -std=gnu11 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Wshadow -Wstrict-prototypes \
		-Wmissing-prototypes -Wformat=2 -Wpointer-arith -Wwrite-strings -Wundef -Wvla -Werror \
		"$@" -o "$out" "$src"
}
