#!/bin/sh
# An old kubectl, for the tests of commands in containers: Debian's, which speaks SPDY only.
#
# Unpacked below target/, so that nobody's machine is changed. Where it cannot be had, this says so; in CI
# (BURSTPOOL_REQUIRE_ENGINE=1) that is an error.
set -eu

target=${CARGO_TARGET_DIR:-target}
program=$target/kubectl/usr/bin/kubectl
test -x "$program" && exit 0

missing() {
	echo "An old kubectl is missing ($1): commands in containers are tried with newer ones only." >&2
	test "${BURSTPOOL_REQUIRE_ENGINE:-}" != 1
	exit
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
	if test "${BURSTPOOL_REQUIRE_ENGINE:-}" = 1; then
		root=""
		test "$(id -u)" = 0 || root="sudo -n"
		$root apt-get update -qq
	fi
	fetch || missing "apt-get download kubernetes-client fails"
fi
dpkg-deb -x "$place"/kubernetes-client_*.deb "$place/files"
mkdir -p "$target"
rm -rf "$target/kubectl"
mv "$place/files" "$target/kubectl"
test -x "$program" || missing "Debian's package has none"
