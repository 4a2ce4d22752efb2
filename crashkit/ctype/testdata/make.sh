#!/bin/sh
# Makes the files beside it, with gcc 12, binutils 2.40 and pahole 1.24 of Debian 12.
set -eu
cd "$(dirname "$0")"
flags="-O1 -fno-pic -fno-pie -fno-asynchronous-unwind-tables -ffile-prefix-map=$PWD=/src -nostdlib -static -no-pie -Wl,--build-id=none"
gcc $flags -gdwarf-5 -o types-dwarf5 types.c other.c
gcc $flags -gdwarf-4 -o types-dwarf4 types.c other.c
gcc $flags -gdwarf-4 -gstrict-dwarf -gdwarf-2 -o types-dwarf2 types.c other.c
pahole --btf_encode_detached=types.btf types-dwarf5
