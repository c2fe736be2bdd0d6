#!/bin/sh
# An old kubectl, for the tests of commands in containers: Debian's, which speaks SPDY only. It is unpacked
# below target/: nothing is installed.
set -eu
. "$(dirname "$0")/../setup.sh"

target=${CARGO_TARGET_DIR:-target}
program=$target/kubectl/usr/bin/kubectl
test -x "$program" && exit 0

missing() {
	skip "Commands in containers are tried with new kubectls only: an old one is missing ($1)"
}

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || missing "this is no Debian"
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
# The user that apt-get reads as has no right to a place of ours.
chmod 755 "$place"
fetch() {
	(cd "$place" && apt-get download -qq kubernetes-client) >/dev/null 2>&1
}
if ! fetch; then
	may_install || missing "apt-get download kubernetes-client fails, and its lists are not updated: $(why_not)"
	echo "==> Updating the lists of apt-get (make APT=no does not)" >&2
	# shellcheck disable=SC2086 # no word for root
	$root apt-get -o DPkg::Lock::Timeout=600 update -qq >&2 || true
	fetch || missing "apt-get download kubernetes-client fails"
fi
dpkg-deb -x "$place"/kubernetes-client_*.deb "$place/files"
mkdir -p "$target"
rm -rf "$target/kubectl"
mv "$place/files" "$target/kubectl"
test -x "$program" || missing "Debian's package has none"
