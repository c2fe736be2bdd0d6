#!/bin/sh
# Prometheus and Alertmanager for the tests of triggers: those of the machine if it has them, else the
# binaries of Debian's packages below target/. Nothing is installed, so no service begins.
set -eu

has() {
	for name in "$@"; do
		command -v "$name" >/dev/null && return 0
		test -x "/usr/bin/$name" && return 0
		test -x "target/monitoring/usr/bin/$name" && return 0
	done
	return 1
}

missing=""
has prometheus || missing="$missing prometheus"
has alertmanager prometheus-alertmanager || missing="$missing prometheus-alertmanager"
test -n "$missing" || exit 0

if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
	echo "Missing for the tests of triggers:$missing. Install them (https://prometheus.io/download) where PATH leads." >&2
	exit 1
fi
mkdir -p target/monitoring
cd target/monitoring
# A download as root is done by a user of apt's own, who may not write here.
fetch() {
	# shellcheck disable=SC2086 # a list of words
	apt-get download -qq -o APT::Sandbox::User=root $missing
}
if ! fetch 2>/dev/null; then
	root=""
	test "$(id -u)" = 0 || root="sudo -n"
	$root apt-get update -qq
	fetch
fi
for package in *.deb; do
	dpkg-deb -x "$package" .
	rm "$package"
done
