#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154 # stderr is set by run
# A card as programs of a guest see it: GM/T 0018, OpenSSL's provider, pipelines, the C library.

bats_require_minimum_version 1.8.0
bats_load_library bats-support
bats_load_library bats-assert

root=$(realpath "$BATS_TEST_DIRNAME/../..")
O=$(realpath "${O:-$root/build}")
PATH=$O/bin:$PATH
HEX=0123456789abcdeffedcba9876543210
IV=000102030405060708090a0b0c0d0e0f
# The provider, and for all that it has not, OpenSSL's own.
ours=(-provider-path "$O/lib/ossl-modules" -provider cardshare -provider default)

# serve: the daemon with $dir/conf, ready when it says so
serve() {
	rm -f "$dir/notify"
	socat -u UNIX-RECVFROM:"$dir/notify" - >"$dir/ready" 2>/dev/null 3>&- &
	local ready=$!
	until [ -S "$dir/notify" ]; do kill -0 $ready; done
	NOTIFY_SOCKET=$dir/notify cardshare serve -c "$dir/conf" >>"$dir/log" 2>&1 3>&- 7>&- &
	echo $! >"$dir/pid"
	wait $ready
	grep -q READY "$dir/ready"
}

setup_file() {
	export dir=$BATS_FILE_TMPDIR
	local store=(--store "$dir/store")
	cardshare keys "${store[@]}" make one >/dev/null
	cardshare keys "${store[@]}" --type sm4 make kek >/dev/null
	echo open-sesame >"$dir/password"
	chmod 600 "$dir/password"
	cardshare keys "${store[@]}" --password-file "$dir/password" make guarded >/dev/null
	cat >"$dir/conf" <<-END
		[daemon]
		control = $dir/control
		[card soft]
		driver = soft
		store = $dir/store
		[vm guest]
		card = soft
		unix = $dir/guest
		ivshmem = $dir/shm
		allow = all
		ecc.1 = one all
		ecc.2 = guarded all
		kek.1 = kek all
		[vm micro]
		hybrid = $dir/hybrid
		allow = all
		[vm poor]
		card = soft
		unix = $dir/poor
		allow = hash
	END
	chmod 600 "$dir/conf"
	serve
	printf '%s\n' "$HEX" >"$dir/key"
	chmod 600 "$dir/key"
	head -c 2500001 /dev/urandom >"$dir/data"
	for p in app evp steady; do
		cc -std=gnu11 -Wall -Wextra -Werror -O1 -pthread -I"$root/lib/face" -o "$dir/$p" "$root/tests/sdf/$p.c" \
			-L"$O/lib" -lsdf-cardshare -Wl,--as-needed,-rpath,"$O/lib" -lcrypto -ldl
	done
	cat >"$dir/openssl.cnf" <<-END
		openssl_conf = init
		[init]
		providers = providers
		random = random
		[providers]
		default = theirs
		cardshare = ours
		[theirs]
		activate = 1
		[ours]
		module = $O/lib/ossl-modules/cardshare.so
		activate = 1
		[random]
		random = CARDSHARE
	END
}

teardown_file() {
	kill "$(cat "$BATS_FILE_TMPDIR/pid")"
}

setup() {
	dir=$BATS_FILE_TMPDIR
	export CARDSHARE=unix:$dir/guest
	cd "$BATS_TEST_TMPDIR"
}

requests() { # of all VMs so far
	cardshare stat --control "$dir/control" --json | jq '[.vms[].requests] | add'
}

# --- GM/T 0018 ---

@test "SDF: the standards' own results, over a socket" {
	run -0 "$dir/app" vectors
	assert_output ""
}

@test "SDF: the standards' own results, over shared memory" {
	CARDSHARE=shm:$dir/shm run -0 "$dir/app" vectors
	assert_output ""
}

@test "SDF: keys of the card: signatures, envelopes, key agreement, KEK" {
	run -0 "$dir/app" keys
	assert_output ""
}

@test "SDF: wrong handles, orders and sizes are answered with the standard's codes" {
	run -0 "$dir/app" errors
	assert_output ""
}

@test "SDF: more than a request holds, whole and in pieces" {
	run -0 "$dir/app" long
	assert_output ""
}

@test "SDF: 32 threads, each in its own session, then all in one" {
	run -0 "$dir/app" threads 32
	assert_output ""
}

@test "SDF: a child of fork has nothing of its parent's, and breaks nothing" {
	run -0 "$dir/app" forks
	assert_output ""
}

@test "SDF: every function by name, and no other name" {
	run -0 "$dir/app" dlopen "$O/lib/libsdf-cardshare.so"
	assert_output ""
	run -1 bash -c "nm -D --defined-only '$O/lib/libsdf-cardshare.so' | grep -v ' T SDF_'"
	assert_output ""
	# And the header has each of them, and nothing that is not there.
	nm -D --defined-only "$O/lib/libsdf-cardshare.so" | sed 's/.* //' | sort >there
	grep -o '^int SDF_[A-Za-z_]*' "$root/lib/face/sdf.h" | sed 's/^int //' | sort >declared
	diff there declared
	assert_equal "$(wc -l <there)" "$(grep -c . declared)"
	assert_equal "$(uniq -d there)" ""
}

@test "SDF: what the card has not: each function answers with the standard's code for that, and breaks nothing" {
	run -0 "$dir/app" lacks
	assert_output ""
}

@test "SDF: nobody there, or an address that is none: SDR_OPENDEVICE" {
	CARDSHARE=unix:$BATS_TEST_TMPDIR/none run -1 "$dir/app" vectors
	assert_line --partial "SDF_OpenDevice(&device): 0x1000005"
	CARDSHARE=nonsense run -1 "$dir/app" vectors
	assert_line --partial "SDF_OpenDevice(&device): 0x1000005"
}

@test "SDF: the daemon is killed and started again under an application, which sees no error" {
	mkfifo in
	"$dir/app" until-eof <in >out 2>&1 3>&- &
	app=$!
	exec 7>in
	timeout 10 tail -n +1 -F out 2>/dev/null 3>&- | grep -qm1 ready
	for _ in 1 2; do
		kill -9 "$(cat "$dir/pid")"
		serve
		before=$(requests)
		until [ "$(requests)" -gt $((before + 50)) ]; do :; done
	done
	exec 7>&-
	wait $app
	run -0 tail -n 1 out
	assert_output --regexp '^done [0-9]+ failed 0$'
}

@test "the headers are C and C++, and what pkg-config says is enough to build with them" {
	make -s -C "$root" O="$O" DESTDIR="$PWD/root" PREFIX=/usr install >/dev/null
	export PKG_CONFIG_PATH=$PWD/root/usr/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$PWD/root
	cat >one.c <<-'END'
		#include <card/client.h>
		#include <stdio.h>
		int main(void)
		{
			struct card_client *c;
			struct err err = {0};
			uint32_t session = 0;
			unsigned char out[8];
			struct card_io io = {.rq = {.op = CARD_OP_RANDOM}, .out = out, .out_cap = 8};
			if (card_client_open(0, 0, &c, &err) || card_session_open(c, &session)) {
				puts(err.text);
				return 1;
			}
			io.rq.session = session;
			card_call(c, &io);
			printf("%u %u\n", io.status, io.out_len);
			card_client_close(c);
			return 0;
		}
	END
	# shellcheck disable=SC2046 # words
	cc -Wall -Werror -o one one.c $(pkg-config --cflags --libs cardshare)
	LD_LIBRARY_PATH=$PWD/root/usr/lib run -0 ./one
	assert_output "0 8"
	printf '#include <sdf.h>\nint main() { void *d; return SDF_OpenDevice(&d) != SDR_OK || SDF_CloseDevice(d); }\n' >two.cc
	cp two.cc two.c
	# shellcheck disable=SC2046
	cc -Wall -Werror -o two two.c $(pkg-config --cflags --libs sdf-cardshare)
	LD_LIBRARY_PATH=$PWD/root/usr/lib run -0 ./two
	# shellcheck disable=SC2046
	! command -v c++ || c++ -Wall -Werror -fsyntax-only two.cc $(pkg-config --cflags sdf-cardshare)
	run -0 nm -D --defined-only root/usr/lib/libcardshare.so
	refute_output --regexp ' [A-Z] (err_|units_|way_|handles_)'
}

@test "shared memory: who sleeps is rung for, whichever queue it has" {
	for queue in 0 1 3; do
		run -0 cardshare speed -o echo -d 500ms --sleep --json "shm:$dir/shm,queue=$queue"
		run -0 jq -r '"\(.way) \(.requests > 50)"' <<<"$output"
		assert_output "shm:$dir/shm,queue=$queue true"
	done
}

# --- hybrid vsock: Firecracker, Cloud Hypervisor ---

@test "hybrid: CONNECT is answered OK, in whatever pieces it comes; what the VMM connects itself needs none" {
	vmm=$root/tests/bats/helpers/hybrid-vmm
	run -0 "$vmm" ask "$dir/hybrid_7073" 'CONNECT 7073\n'
	assert_output "'OK 7073\\n' micro"
	run -0 "$vmm" ask "$dir/hybrid_7073" C ONNE 'CT 70' 73 '\n'
	assert_output "'OK 7073\\n' micro"
	run -0 "$vmm" ask "$dir/hybrid_7073"
	assert_output "'' micro"
	for words in 'CONNECT 7074\n' 'CONNECT\n' 'CONNECT 7073 \n' 'CONNECT x\n' 'CONNECT -1\n' 'connect 7073\n' \
		'CONNECT 70730000000000000000000000000000000'; do
		run -0 "$vmm" ask "$dir/hybrid_7073" "$words"
		assert_output cut
	done
}

@test "hybrid: through a VMM's socket, as its host side; a port that nobody serves is refused" {
	"$root/tests/bats/helpers/hybrid-vmm" serve "$PWD/vmm" "$dir/hybrid" 3>&- &
	vmm=$!
	until [ -S vmm ]; do kill -0 $vmm; done
	run -0 cardshare hash -a "hybrid:$PWD/vmm:7073" </dev/null
	assert_output 1ab21d8355cfa17f8e61194831e81a8f22bec8c728fefb747ed035eb5082aa2b
	CARDSHARE=hybrid:$PWD/vmm:7073 run -0 "$dir/app" vectors
	assert_output ""
	run -3 --separate-stderr cardshare hash -a "hybrid:$PWD/vmm:7074" </dev/null
	assert_regex "$stderr" 'nobody listens at this port'
	kill $vmm
}

# --- OpenSSL ---

@test "provider: SM3 of any length is OpenSSL's" {
	before=$(requests)
	for n in 0 1 64 16384 65535 65536 65537 300001 2500001; do
		head -c $n "$dir/data" >in
		assert_equal "$(openssl dgst "${ours[@]}" -propquery provider=cardshare -sm3 <in)" "$(openssl dgst -sm3 <in)"
	done
	[ "$(requests)" -gt $((before + 150)) ] # dgst without a query takes OpenSSL's own
}

@test "provider: SM4 in all modes and lengths is OpenSSL's, both ways" {
	for mode in ecb cbc ctr cfb ofb; do
		args=(-sm4-$mode -K $HEX)
		[ $mode = ecb ] || args+=(-iv $IV)
		for n in 0 1 15 16 17 8192 8193 70001; do
			head -c $n "$dir/data" >in
			openssl enc "${args[@]}" <in >theirs
			openssl enc "${ours[@]}" "${args[@]}" <in >mine
			cmp theirs mine
			openssl enc -d "${ours[@]}" "${args[@]}" <theirs | cmp - in
		done
	done
	printf 'sixteen bytes, +' | openssl enc "${ours[@]}" -sm4-cbc -K $HEX -iv $IV >in
	run -1 --separate-stderr openssl enc -d "${ours[@]}" -sm4-cbc -K ${HEX/0/1} -iv $IV -in in
	assert_regex "$stderr" 'bad decrypt'
}

@test "provider: SM4-GCM is that of RFC 8998, whole and in odd pieces" {
	OPENSSL_CONF=$dir/openssl.cnf run -0 "$dir/evp" gcm
	assert_output ""
}

@test "provider: digests are copied, contexts live on in a child" {
	OPENSSL_CONF=$dir/openssl.cnf run -0 "$dir/evp" copy
	assert_output ""
	OPENSSL_CONF=$dir/openssl.cnf run -0 "$dir/evp" fork
	assert_output ""
}

@test "provider: SM2 with keys of files, signed here and verified there" {
	prefer=("${ours[@]}" -propquery '?provider=cardshare')
	openssl genpkey "${prefer[@]}" -algorithm SM2 -out s.pem
	openssl pkey -in s.pem -pubout -out p.pem
	for id in '' -pkeyopt\ distid:1234567812345678; do
		# shellcheck disable=SC2206 # words
		with=(-rawin -digest sm3 -in "$dir/key" $id)
		openssl pkeyutl "${prefer[@]}" -sign -inkey s.pem "${with[@]}" -out sig
		openssl pkeyutl -verify -pubin -inkey p.pem "${with[@]}" -sigfile sig
		openssl pkeyutl -sign -inkey s.pem "${with[@]}" -out sig
		openssl pkeyutl "${prefer[@]}" -verify -pubin -inkey p.pem "${with[@]}" -sigfile sig
		run -1 openssl pkeyutl "${prefer[@]}" -verify -pubin -inkey p.pem "${with[@]}" -in s.pem -sigfile sig
	done
	openssl pkeyutl "${prefer[@]}" -encrypt -pubin -inkey p.pem -in "$dir/key" -out c
	openssl pkeyutl -decrypt -inkey s.pem -in c | cmp - "$dir/key"
	openssl pkeyutl -encrypt -pubin -inkey p.pem -in "$dir/key" -out c
	openssl pkeyutl "${prefer[@]}" -decrypt -inkey s.pem -in c | cmp - "$dir/key"
}

@test "provider: a key that never leaves the card signs a certificate chain, and decrypts" {
	prefer=("${ours[@]}" -propquery '?provider=cardshare')
	openssl req "${prefer[@]}" -x509 -key cardshare:sign=1 -sm3 -subj /CN=ca -days 2 -out ca.pem
	openssl req -new -newkey sm2 -nodes -keyout leaf.key -sm3 -subj /CN=leaf -out leaf.csr
	openssl x509 "${prefer[@]}" -req -in leaf.csr -CA ca.pem -CAkey cardshare:sign=1 -sm3 -days 2 -out leaf.pem
	openssl verify -CAfile ca.pem leaf.pem
	openssl verify "${prefer[@]}" -CAfile ca.pem leaf.pem
	run -0 openssl x509 -in leaf.pem -noout -text
	assert_line --partial 'Signature Algorithm: SM2-with-SM3'
	openssl pkey "${ours[@]}" -in cardshare:enc=1 -pubout -out enc.pem
	openssl pkeyutl -encrypt -pubin -inkey enc.pem -in "$dir/key" -out c
	openssl pkeyutl "${ours[@]}" -decrypt -inkey cardshare:enc=1 -in c | cmp - "$dir/key"
	run -1 --separate-stderr openssl pkey "${ours[@]}" -in cardshare:sign=1
	assert_regex "$stderr" 'a private key of the card stays there'
	run -1 --separate-stderr openssl pkey "${ours[@]}" -in cardshare:sign=9
	assert_regex "$stderr" 'SDR_KEYNOTEXIST'
}

@test "provider: random numbers, when openssl.cnf says so" {
	before=$(requests)
	OPENSSL_CONF=$dir/openssl.cnf run -0 openssl rand -hex 32
	assert_output --regexp '^[0-9a-f]{64}$'
	[ "$(requests)" -gt "$before" ]
}

@test "provider: without a daemon it loads, and says why nothing works" {
	CARDSHARE=unix:$PWD/none run -1 --separate-stderr openssl dgst "${ours[@]}" -propquery provider=cardshare -sm3 "$dir/key"
	assert_regex "$stderr" 'cardshare: .*none: No such file'
	CARDSHARE=unix:$PWD/none run -0 openssl list "${ours[@]}" -providers
}

# --- pipelines ---

@test "enc, dec: with an IV the bytes are OpenSSL's; without, a random one is in front" {
	for mode in cbc ctr cfb ofb ecb; do
		iv=(--iv $IV) theirs=(-iv $IV)
		[ $mode != ecb ] || iv=() theirs=()
		for n in 0 15 16 1048575 1048576 1048577 2500001; do
			head -c $n "$dir/data" >in
			cardshare enc -q -k "$dir/key" --alg sm4-$mode "${iv[@]}" <in >out
			openssl enc -sm4-$mode -K $HEX "${theirs[@]}" <in | cmp - out
			cardshare dec -q -k "$dir/key" --alg sm4-$mode "${iv[@]}" <out | cmp - in
		done
	done
	cardshare enc -k 1 --alg sm4-cbc <"$dir/key" >one
	cardshare enc -k 1 --alg sm4-cbc <"$dir/key" >two
	assert_equal "$(stat -c %s one)" 64
	run ! cmp -s one two
	cardshare dec -k 1 --alg sm4-cbc <one | cmp - "$dir/key"
}

@test "enc, dec: authenticated by default, and nothing leaves that is not" {
	for n in 0 1 16 17 1048577; do
		head -c $n "$dir/data" >in
		cardshare enc -q -k "$dir/key" <in >out
		assert_equal "$(stat -c %s out)" $((n + 28))
		cardshare dec -q -k "$dir/key" <out | cmp - in
	done
	printf x | dd of=out bs=1 seek=1000 conv=notrunc status=none
	run -1 --separate-stderr bash -c "cardshare dec -q -k '$dir/key' <out | wc -c; exit \${PIPESTATUS[0]}"
	assert_output 0
	assert_equal "$stderr" "cardshare: dec: the data is not what was encrypted, or the key is another"
	cardshare enc -k "$dir/key" --aad for-you <"$dir/key" >out
	cardshare dec -k "$dir/key" --aad for-you <out | cmp - "$dir/key"
	run -1 cardshare dec -k "$dir/key" --aad for-me <out
	run -1 cardshare dec -k 1 <out
	run -3 cardshare dec -k "$dir/key" </dev/null
}

@test "hash, hmac, mac: what OpenSSL says of the same bytes" {
	for n in 0 3 16384 16385 100000; do
		head -c $n "$dir/data" >in
		assert_equal "$(cardshare hash <in)" "$(openssl dgst -sm3 -r <in | cut -d' ' -f1)"
		assert_equal "$(cardshare hmac -k "$dir/key" <in)" \
			"$(openssl dgst -sm3 -mac HMAC -macopt hexkey:$HEX -r <in | cut -d' ' -f1)"
	done
	head -c 1600000 "$dir/data" >in
	openssl enc -sm4-cbc -nopad -K $HEX -iv 00000000000000000000000000000000 <in | tail -c 16 >last
	cardshare mac -q -k "$dir/key" --binary <in | cmp - last
	run -3 --separate-stderr cardshare mac -k "$dir/key" <"$dir/key"
	assert_regex "$stderr" 'not a number of whole blocks'
}

@test "sign, verify: by the card's key and by files; 1 if it is wrong" {
	openssl genpkey -algorithm SM2 -out s.pem
	openssl pkey -in s.pem -pubout -out p.pem
	for pair in 1:1 s.pem:p.pem s.pem:s.pem; do
		cardshare sign -k ${pair%:*} <"$dir/data" >sig
		cardshare verify -k ${pair#*:} -s sig <"$dir/data"
		run -1 --separate-stderr cardshare verify -k ${pair#*:} -s sig <"$dir/key"
		assert_equal "$stderr" "cardshare: verify: the signature is wrong"
		run -1 cardshare verify -k ${pair#*:} -s sig --id other <"$dir/data"
		run -1 cardshare verify -k ${pair#*:} -s "$dir/key" <"$dir/data"
	done
	openssl pkeyutl -verify -pubin -inkey p.pem -rawin -digest sm3 -in "$dir/data" -sigfile sig \
		-pkeyopt distid:1234567812345678
	cardshare hash --id 1234567812345678 -k p.pem --binary <"$dir/data" >digest
	cardshare sign -k s.pem --digest --raw <digest >sig
	assert_equal "$(stat -c %s sig)" 64
	cardshare verify -k p.pem -s sig --raw <"$dir/data"
	run -3 --separate-stderr cardshare sign -k p.pem <"$dir/key"
	assert_regex "$stderr" 'it is a public one'
}

@test "sign: a guarded key wants its password" {
	run -3 --separate-stderr cardshare sign -k 2 <"$dir/key"
	assert_regex "$stderr" 'the key wants its password'
	run -3 --separate-stderr cardshare sign -k 2 --password-file "$dir/key" <"$dir/key"
	assert_regex "$stderr" 'the password is wrong'
	cardshare sign -k 2 --password-file "$dir/password" <"$dir/key" >sig
	cardshare verify -k 2 -s sig <"$dir/key"
}

@test "random: so many bytes" {
	assert_equal "$(cardshare random 100001 | wc -c)" 100001
	run -0 cardshare random --hex 8
	assert_output --regexp '^[0-9a-f]{16}$'
}

@test "verbs: what is wrong is said, with the way out and the exit status" {
	run -2 --separate-stderr cardshare enc
	assert_regex "$stderr" 'key is missing'
	run -2 cardshare enc -k 1 --alg des
	run -2 cardshare enc -k 1 --iv 00
	run -2 cardshare random many
	run -2 cardshare verify -k 1
	run -2 cardshare hash --id x
	run -3 --separate-stderr cardshare enc -k none </dev/null
	assert_regex "$stderr" "key none: No such file or directory \(a number is a key of the card\)"
	run -3 --separate-stderr cardshare enc -k 9 --alg sm4-ecb <"$dir/key"
	assert_regex "$stderr" 'no such key'
	run -3 --separate-stderr cardshare enc -k 1 --alg sm1-cbc <"$dir/key"
	assert_regex "$stderr" 'no such algorithm'
	run -3 --separate-stderr cardshare random -a unix:none 1
	assert_regex "$stderr" '^cardshare: random: '
	run -2 cardshare random -a nonsense 1
	run -3 --separate-stderr cardshare enc -k "$dir/key" -a "unix:$dir/poor" <"$dir/key"
	assert_regex "$stderr" 'the host does not let this machine do this'
	if [ -w /dev/full ]; then
		run -4 --separate-stderr bash -c 'cardshare random 10 >/dev/full'
		assert_regex "$stderr" 'No space left on device'
	fi
}
