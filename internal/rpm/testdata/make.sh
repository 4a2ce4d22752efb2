#!/bin/bash
# Makes the packages here, one for each payload, and what rpm says of them. The signed one needs gpg.
# Debian: apt-get install rpm cpio
set -eu
cd "$(dirname "$0")"
export SOURCE_DATE_EPOCH=1700000000 LC_ALL=C TZ=UTC
top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT
cat > "$top/demo.spec" <<'SPEC'
Name: demo-kernel
Epoch: 2
Version: 6.1.0
Release: 1.lab
Summary: A package to test readers with
License: Apache-2.0
Packager: Nobody <nobody@example.org>
URL: https://example.org/demo
%description
Files as a kernel's package has them,
in two lines of description.
%install
d=%{buildroot}/lib/modules/6.1.0/kernel
mkdir -p $d/fs %{buildroot}/boot %{buildroot}/usr/bin
echo vmlinuz > %{buildroot}/boot/vmlinuz-6.1.0
printf 'module %0500d\n' 7 > $d/fs/demo.ko
ln $d/fs/demo.ko $d/fs/same.ko
ln $d/fs/demo.ko $d/again.ko
: > $d/empty1
ln $d/empty1 $d/empty2
ln -s ../../../../boot/vmlinuz-6.1.0 $d/link
ln -s /boot/vmlinuz-6.1.0 $d/absolute
echo '#!/bin/sh' > %{buildroot}/usr/bin/demo
touch -d 2020-02-03 %{buildroot}/usr/bin/demo
%files
/boot/vmlinuz-6.1.0
%dir /lib/modules/6.1.0
/lib/modules/6.1.0/kernel
%attr(4755,root,root) /usr/bin/demo
SPEC
build() { # payload name more…
	rpmbuild -bb --quiet --target x86_64 --define "_topdir $top" --define "_binary_payload $1" \
		--define "_buildhost demo.example.org" --define "use_source_date_epoch_as_buildtime 1" \
		--define "clamp_mtime_to_source_date_epoch 1" --define "__brp_compress true" "${@:3}" "$top/demo.spec"
	mv "$top"/RPMS/*/*.rpm "$2.rpm"
	describe "$2"
}
describe() {
	rpm -qip "$1.rpm" > "$1.info"
	rpm -qlp "$1.rpm" > "$1.files"
}
build w9.gzdio gzip
build w9.bzdio bzip2
build w6.xzdio xz
build w6.lzdio lzma
build w3.zstdio zstd
build w.ufdio none
export GNUPGHOME=$top/gnupg
mkdir -m 700 "$GNUPGHOME"
gpg --batch --quiet --passphrase '' --quick-gen-key 'Test key <test@example.org>' rsa2048 sign 0
gpg --armor --export > key.asc
cp gzip.rpm signed.rpm
rpmsign --define "_gpg_name test@example.org" --define "__gpg /usr/bin/gpg" --addsign signed.rpm > /dev/null
describe signed
# No files, as the package called kernel of Fedora: an archive with only its end.
sed -i '/^%install/,$d; s/^Name:.*/Name: nothing/' "$top/demo.spec"
printf '%%files\n' >> "$top/demo.spec"
build w9.gzdio nothing
