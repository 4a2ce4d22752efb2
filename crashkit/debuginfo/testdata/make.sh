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
# kernel-debuginfo.rpm is a package with a file like the kernel's of ../../testdata/nullderef-6.1.vmcore: with its build
# ID, but inline.c in it. With rpm 4.18.
top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT
gcc $flags -gdwarf-5 -nostdlib -static -no-pie -Wl,--build-id=0x3b43fad5034874490492495d552c0af6a5fab235 -o "$top/vmlinux" inline.c
cat > "$top/demo.spec" <<SPEC
Name: kernel-debuginfo
Version: 6.1.0
Release: 1
Summary: Debug information
License: Apache-2.0
%description
Debug information.
%install
d=%{buildroot}/usr/lib/debug/lib/modules/6.1.0-56-cloud-amd64
mkdir -p \$d
cp $top/vmlinux \$d/
%files
/usr/lib/debug
SPEC
SOURCE_DATE_EPOCH=1700000000 rpmbuild -bb --quiet --define "_topdir $top" --define "_build_id_links none" \
	--define "debug_package %{nil}" --define "__os_install_post %{nil}" --define "_buildhost localhost" \
	--define "_binary_payload w9.xzdio" --define "use_source_date_epoch_as_buildtime 1" --target x86_64 "$top/demo.spec"
cp "$top"/RPMS/x86_64/*.rpm kernel-debuginfo.rpm
