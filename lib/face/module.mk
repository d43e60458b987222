# SPDX-License-Identifier: MIT
lib_ROOMS += face
# What of the library a guest's shared objects may need, compiled for them.
pic_ROOMS := base net card face

# The faces of a shared card in a guest; what they export is in their maps, all else stays inside.
SHARED += libcardshare libsdf-cardshare ossl-modules/cardshare
libcardshare_SRC := lib/card/client.c lib/card/long.c
libcardshare_LIB  = $(PIC_LIB)
libcardshare_LIBS := -lcrypto -lm
libcardshare_MAP := lib/face/libcardshare.map
libcardshare_SO  := 0
libcardshare_DIR  = $(LIBDIR)
libsdf-cardshare_SRC := $(sort $(wildcard lib/face/sdf*.c))
libsdf-cardshare_LIB  = $(PIC_LIB)
libsdf-cardshare_LIBS := -lcrypto -lm
libsdf-cardshare_MAP := lib/face/libsdf-cardshare.map
libsdf-cardshare_SO  := 0
libsdf-cardshare_DIR  = $(LIBDIR)
ossl-modules/cardshare_SRC := $(sort $(wildcard lib/face/ossl*.c))
ossl-modules/cardshare_LIB  = $(PIC_LIB)
ossl-modules/cardshare_MAP := lib/face/provider.map
ossl-modules/cardshare_LIBS := -lcrypto -lm
ossl-modules/cardshare_DIR  = $(LIBDIR)/ossl-modules

# Public: relative to lib/, and so they are installed.
HEADERS += card/client.h card/protocol.h card/gmt0018.h base/err.h face/sdf.h
