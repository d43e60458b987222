# SPDX-License-Identifier: MIT
# One makefile. O= is the build folder; SAN= adds sanitizers; PREFIX, DESTDIR for install.
VERSION := 0.1.0
O       ?= build
PREFIX  ?= /usr/local
BINDIR  ?= $(PREFIX)/bin
LIBDIR  ?= $(PREFIX)/lib/util-vm
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

TOOLS :=
SHIMS :=
include lib/module.mk $(sort $(wildcard cmd/*/module.mk))

PKGS    := $(sort $(lib_PKGS) $(foreach t,$(TOOLS),$($(t)_PKGS)))
ifeq ($(filter clean tarball,$(MAKECMDGOALS)),)
MISSING := $(strip $(foreach p,$(PKGS),$(shell pkg-config --exists $(p) || echo $(p))))
ifneq ($(MISSING),)
$(error not found by pkg-config: $(MISSING). ./bootstrap installs what is missing)
endif
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS))
PKG_LIBS   := $(shell pkg-config --libs $(PKGS))
endif
CPP     := -D_GNU_SOURCE -DUTIL_VM_VERSION='"$(VERSION)"' -Ilib $(PKG_CFLAGS)
COMPILE  = $(CC) -std=gnu11 -pthread $(CPP) $(CFLAGS) $(WARN) $(HARDEN) -MMD -MP

LIB_SRC := $(sort $(foreach r,$(lib_ROOMS),$(wildcard lib/$(r)/*.c)))
LIB_OBJ := $(LIB_SRC:%.c=$(O)/obj/%.o)
LIB     := $(O)/libutil-vm.a
BIN     := $(TOOLS:%=$(O)/bin/%)
UNIT    := $(patsubst tests/unit/%.c,$(O)/unit/%,$(sort $(wildcard tests/unit/test_*.c)))
FUZZ    := $(patsubst tests/fuzz/%.c,$(O)/fuzz/%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))

.PHONY: all check check-fast check-long lint fuzz bench install clean unit fuzzers demo lab
.SECONDARY:
all: $(BIN) $(SHIMS:%=$(O)/lib/%.so)

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

# What is loaded into other programs stands alone, and is never sanitized: they are not.
define shim_rules
$(O)/lib/$(1).so: $$($(1)_SRC) Makefile
	@mkdir -p $$(@D)
	$(SAY) SO $$@
	$(Q)$(CC) -std=gnu11 -pthread -D_GNU_SOURCE $(CFLAGS) $(WARN) -fstack-protector-strong \
		-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fPIC -shared -Wl,-z,relro,-z,now -o $$@ $$($(1)_SRC) -ldl
endef
$(foreach s,$(SHIMS),$(eval $(call shim_rules,$(s))))

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
	for s in $(SHIMS); do install -d $(DESTDIR)$(LIBDIR) && \
		install -m 644 $(O)/lib/$$s.so $(DESTDIR)$(LIBDIR)/ || exit 1; done
	for t in $(TOOLS); do install -m 644 dist/completion/$$t $(DESTDIR)$(COMPDIR)/$$t || exit 1; done
	for u in dist/*.service dist/*.socket; do [ ! -e $$u ] || { install -d $(DESTDIR)$(UNITDIR) && \
		sed 's|@BINDIR@|$(BINDIR)|g' $$u >$(DESTDIR)$(UNITDIR)/$${u##*/} && \
		chmod 644 $(DESTDIR)$(UNITDIR)/$${u##*/}; } || exit 1; done
	for m in man/*.[1-8]; do d=$(DESTDIR)$(MANDIR)/man$${m##*.}; \
		install -d $$d && install -m 644 $$m $$d/ || exit 1; done

clean:
	rm -rf $(O)

-include $(shell find $(O)/obj -name '*.d' 2>/dev/null)
