#!/bin/sh
# Prometheus and Alertmanager, for the tests of triggers.
#
# Says what is missing. Installs it only where CI asks for everything (BURSTPOOL_REQUIRE_ENGINE=1) and
# apt-get can: nobody's machine is changed by running the tests. Their services are masked first: the
# tests start their own.
set -eu

has() {
	command -v "$1" >/dev/null || test -x "/usr/bin/$1"
}

missing=""
has prometheus || missing="prometheus"
has alertmanager || has prometheus-alertmanager || missing="$missing prometheus-alertmanager"
test -n "$missing" || exit 0

if test "${BURSTPOOL_REQUIRE_ENGINE:-}" != 1 || ! command -v apt-get >/dev/null; then
	for package in $missing; do
		echo "$package is missing: tests of triggers start it; install it (Debian: apt-get install $package; else https://prometheus.io/download)." >&2
	done
	# Tests that need only Alertmanager are skipped without it.
	test "$missing" = " prometheus-alertmanager" && test "${BURSTPOOL_REQUIRE_ENGINE:-}" != 1
	exit
fi
root=""
test "$(id -u)" = 0 || root="sudo -n"
$root mkdir -p /etc/systemd/system
for package in $missing; do
	$root ln -sf /dev/null "/etc/systemd/system/$package.service"
done
$root apt-get update -qq
# shellcheck disable=SC2086 # a list of words
$root apt-get install -y -qq --no-install-recommends $missing >/dev/null
