# SPDX-License-Identifier: MIT
# One makefile. O= is the build folder; SAN= adds sanitizers; PREFIX, DESTDIR for install.
VERSION := 0.1.0
O       ?= build
PREFIX  ?= /usr/local
BINDIR  ?= $(PREFIX)/bin
LIBDIR  ?= $(PREFIX)/lib
INCDIR  ?= $(PREFIX)/include
MANDIR  ?= $(PREFIX)/share/man
COMPDIR ?= $(PREFIX)/share/bash-completion/completions
UNITDIR ?= $(PREFIX)/lib/systemd/system
CC      ?= cc
CFLAGS  ?= -O2 -g
WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 \
           -Wpointer-arith -Wwrite-strings -Wundef -Wvla -Wno-unknown-warning-option -Wno-format-truncation -Werror
HARDEN  := -fstack-protector-strong -fPIE
ifeq ($(SAN),)
HARDEN  += -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
else
HARDEN  += -fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer
endif
LINK    := -pie -Wl,-z,relro,-z,now -Wl,--as-needed

# V=1 shows the commands.
Q   := $(if $(V),,@)
SAY := @$(if $(V),:,printf '%-3s %s\n')

TOOLS  :=
SHARED :=
include lib/module.mk $(sort $(wildcard lib/*/module.mk cmd/*/module.mk))

PKGS    := $(sort $(lib_PKGS) $(foreach t,$(TOOLS) $(SHARED),$($(t)_PKGS)))
ifeq ($(filter clean tarball,$(MAKECMDGOALS)),)
MISSING := $(strip $(foreach p,$(PKGS),$(shell pkg-config --exists $(p) || echo $(p))))
ifneq ($(MISSING),)
$(error not found by pkg-config: $(MISSING). ./bootstrap installs what is missing)
endif
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS))
PKG_LIBS   := $(shell pkg-config --libs $(PKGS))
endif
CPP     := -D_GNU_SOURCE -DUTIL_VM_VERSION='"$(VERSION)"' -Ilib $(CPP_XEN) $(PKG_CFLAGS)
COMPILE  = $(CC) -std=gnu11 -pthread $(CPP) $(CFLAGS) $(WARN) $(HARDEN) -MMD -MP

LIB_SRC := $(sort $(foreach r,$(lib_ROOMS),$(wildcard lib/$(r)/*.c)))
LIB_OBJ := $(LIB_SRC:%.c=$(O)/obj/%.o)
LIB     := $(O)/libutil-vm.a
BIN     := $(TOOLS:%=$(O)/bin/%)
UNIT    := $(patsubst tests/unit/%.c,$(O)/unit/%,$(sort $(wildcard tests/unit/test_*.c)))
FUZZ    := $(patsubst tests/fuzz/%.c,$(O)/fuzz/%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))

.PHONY: all check check-fast check-long lint fuzz bench install clean unit fuzzers demo lab
.SECONDARY:
all: $(BIN) $(SHARED:%=$(O)/lib/%.so)

$(O)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(SAY) CC $<
	$(Q)$(COMPILE) -c -o $@ $<

$(LIB): $(LIB_OBJ)
	@mkdir -p $(@D)
	$(SAY) AR $@
	$(Q)rm -f $@ && ar rcs $@ $^

define tool_rules
$(1)_OBJ := $$(patsubst %.c,$(O)/obj/%.o,$$(sort $$(wildcard cmd/$(1)/*.c)))
$(O)/bin/$(1): $$($(1)_OBJ) $(LIB)
	@mkdir -p $$(@D)
	$(SAY) LD $$@
	$(Q)$(CC) -pthread $(CFLAGS) $(HARDEN) $(LINK) -o $$@ $$^ $(PKG_LIBS) -lm
endef
$(foreach t,$(TOOLS),$(eval $(call tool_rules,$(t))))

# Shared objects: NAME_SRC whole, and of NAME_LIB what they need ($(PIC_LIB), or nothing); NAME_MAP
# says what is seen from outside, NAME_SO is the number in the name that programs are linked to,
# NAME_LIBS what else is linked, NAME_DIR the place to install to. Never sanitized: the programs
# that load them are not.
PIC      := $(filter-out -fPIE -fsanitize=% -fno-sanitize% -fno-omit%,$(HARDEN)) -fPIC -fno-semantic-interposition
PIC_LIB  := $(O)/libutil-vm-pic.a
PIC_OBJ  := $(patsubst %.c,$(O)/pic/%.o,$(sort $(foreach r,$(pic_ROOMS),$(wildcard lib/$(r)/*.c))))
$(O)/pic/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(SAY) CC "$< (pic)"
	$(Q)$(subst $(HARDEN),$(PIC),$(COMPILE)) -c -o $@ $<
$(PIC_LIB): $(PIC_OBJ)
	@mkdir -p $(@D)
	$(SAY) AR $@
	$(Q)rm -f $@ && ar rcs $@ $^

define shared_rules
$(O)/lib/$(1).so: $$(patsubst %.c,$(O)/pic/%.o,$$($(1)_SRC)) $$($(1)_LIB) $$($(1)_MAP)
	@mkdir -p $$(@D)
	$(SAY) SO $$@
	$(Q)$(CC) -shared -pthread $(CFLAGS) $(PIC) -Wl,-z,relro,-z,now,-z,defs -Wl,--as-needed \
		$$(if $$($(1)_SO),-Wl$$(comma)-soname=$(1).so.$$($(1)_SO)) \
		$$(if $$($(1)_MAP),-Wl$$(comma)--version-script=$$($(1)_MAP)) \
		-o $$@ $$(filter %.o %.a,$$^) $$($(1)_LIBS)
	$$(if $$($(1)_SO),$(Q)ln -sf $$(@F) $$@.$$($(1)_SO))
endef
comma := ,
$(foreach s,$(SHARED),$(eval $(call shared_rules,$(s))))

# Unit tests and fuzz targets may reach a command's own algorithms, every object but main. An
# archive, so that each takes only what it names: the rest may need what main.c defines.
CMD_OBJ := $(foreach t,$(TOOLS),$(filter-out %/main.o,$($(t)_OBJ)))
CMD_LIB := $(O)/libcmd.a
$(CMD_LIB): $(CMD_OBJ)
	@mkdir -p $(@D)
	$(SAY) AR $@
	$(Q)rm -f $@ && ar rcs $@ $^

$(O)/unit/%: $(O)/obj/tests/unit/%.o $(CMD_LIB) $(LIB)
	@mkdir -p $(@D)
	$(SAY) LD $@
	$(Q)$(CC) -pthread $(CFLAGS) $(HARDEN) $(LINK) -o $@ $< -Wl,--start-group $(CMD_LIB) $(LIB) -Wl,--end-group $(PKG_LIBS) -lcmocka -lm
unit: $(UNIT)

$(O)/fuzz/%: $(O)/obj/tests/fuzz/%.o $(CMD_LIB) $(LIB)
	@mkdir -p $(@D)
	$(SAY) LD $@
	$(Q)$(CC) -pthread $(CFLAGS) $(HARDEN) -fsanitize=fuzzer -pie -o $@ $< -Wl,--start-group $(CMD_LIB) $(LIB) -Wl,--end-group $(PKG_LIBS) -lm
fuzzers: $(FUZZ)

# The sanitized twins: gcc for the unit tests, clang (libFuzzer) for the fuzz targets.
.PHONY: asan-unit asan-fuzz
asan-unit:
	$(MAKE) O=$(O)/asan SAN=address,undefined CFLAGS='-O1 -g' unit
asan-fuzz:
	$(MAKE) O=$(O)/fuzzing CC=clang SAN=address,undefined CFLAGS='-O1 -g -fsanitize=fuzzer-no-link' fuzzers

check: all asan-unit asan-fuzz
	tests/run all
check-fast: all asan-unit asan-fuzz
	tests/run fast
check-long: all
	tests/run long
lint:
	tests/lint/run
# What the preprocessor gets, for clang-tidy.
.PHONY: flags
flags:
	@:$(info $(CPP))
fuzz: asan-fuzz
	tests/fuzz/run
bench: all
	bench/run
# DEMO=--swtpm: the other kind of vTPM.
demo: all
	tests/lab/demo $(DEMO)
lab: all
	tests/lab/build

install: all
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(COMPDIR)
	install -m 755 $(BIN) $(DESTDIR)$(BINDIR)/
	$(foreach s,$(SHARED),install -d $(DESTDIR)$($(s)_DIR) && \
		install -m 644 $(O)/lib/$(s).so $(DESTDIR)$($(s)_DIR)/$(notdir $(s)).so$(if $($(s)_SO),.$($(s)_SO)) && \
		$(if $($(s)_SO),ln -sf $(s).so.$($(s)_SO) $(DESTDIR)$($(s)_DIR)/$(s).so &&)) true
	for h in $(HEADERS); do install -d $(DESTDIR)$(INCDIR)/cardshare/$${h%/*} && \
		install -m 644 lib/$$h $(DESTDIR)$(INCDIR)/cardshare/$$h || exit 1; done
	for p in dist/*.pc.in; do [ ! -e $$p ] || { install -d $(DESTDIR)$(LIBDIR)/pkgconfig && t=$${p##*/} && \
		sed 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|; s|@INCDIR@|$(INCDIR)|; s|@VERSION@|$(VERSION)|' \
			$$p >$(DESTDIR)$(LIBDIR)/pkgconfig/$${t%.in} && \
		chmod 644 $(DESTDIR)$(LIBDIR)/pkgconfig/$${t%.in}; } || exit 1; done
	for t in $(TOOLS); do install -m 644 dist/completion/$$t $(DESTDIR)$(COMPDIR)/$$t || exit 1; done
	for u in dist/*.service dist/*.socket; do [ ! -e $$u ] || { install -d $(DESTDIR)$(UNITDIR) && \
		sed 's|@BINDIR@|$(BINDIR)|g' $$u >$(DESTDIR)$(UNITDIR)/$${u##*/} && \
		chmod 644 $(DESTDIR)$(UNITDIR)/$${u##*/}; } || exit 1; done
	for m in man/*.[1-8]; do d=$(DESTDIR)$(MANDIR)/man$${m##*.}; \
		install -d $$d && install -m 644 $$m $$d/ || exit 1; done

clean:
	rm -rf $(O)

-include $(shell find $(O)/obj $(O)/pic -name '*.d' 2>/dev/null)
