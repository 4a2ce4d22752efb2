#!/bin/sh
# Makes the files beside it: with gcc 12 and binutils 2.40 of Debian 12.
set -eu
cd "$(dirname "$0")"
flags="-O2 -fno-pic -fno-pie -fno-asynchronous-unwind-tables -fdebug-prefix-map=$PWD=/src"
for v in 4 5; do
	gcc $flags -gdwarf-$v -nostdlib -static -no-pie -Wl,--build-id=0x0102030405060708090a0b0c0d0e0f1011121314 -o inline-dwarf$v inline.c
	start=$(nm inline-dwarf$v | sort | awk '$2 ~ /[tT]/ {print $1; exit}')
	size=$(size -A inline-dwarf$v | awk '$1 == ".text" {print $2}')
	for i in $(seq 0 $((size - 1))); do printf '0x%x\n' $((0x$start + i)); done |
		addr2line -a -f -i -e inline-dwarf$v > inline-dwarf$v.addr2line
done
for z in zlib zstd; do
	objcopy --compress-debug-sections=$z inline-dwarf5 inline-$z
done
# virtio_blk.ko is usr/lib/debug/lib/modules/6.1.0-56-cloud-amd64/kernel/drivers/block/virtio_blk.ko of Debian's
# linux-image-6.1.0-56-cloud-amd64-dbg 6.1.192-2.
size=$(size -A virtio_blk.ko | awk '$1 == ".text" {print $2}')
seq 0 13 $((size - 1)) | while read -r i; do printf '0x%x\n' "$i"; done |
	addr2line -a -f -i -j .text -e virtio_blk.ko > virtio_blk.addr2line
# vmlinux.frames is what readelf --debug-dump=frames-interp says of __do_sys_finit_module, do_init_module,
# do_one_initcall and exc_page_fault in ../../testdata/nullderef-6.1.vmlinux.
