#!/bin/bash
# Signs a message as kernel.org does, with a key made for it.
set -eu
cd "$(dirname "$0")"
GNUPGHOME=$(mktemp -d)
export GNUPGHOME
trap 'gpgconf --kill all; rm -rf "$GNUPGHOME"' EXIT
sign() { gpg --batch --quiet --yes --passphrase '' "$@"; }
printf 'one line\n- a dash\nFrom the end  \n' > message
sign --quick-gen-key 'Test key <test@example.org>' rsa2048 sign 0
sign --armor --export > key.asc
sign --armor --detach-sign -o message.sign message
sign --detach-sign -o message.sig message
sign --clearsign -o message.asc message
