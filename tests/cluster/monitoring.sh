#!/bin/sh
# Prometheus, for the tests of triggers.
#
# Says what is missing. Installs it only where CI asks for everything (BURSTPOOL_REQUIRE_ENGINE=1) and
# apt-get can: nobody's machine is changed by running the tests. Its service is masked first: the tests
# start a Prometheus of their own.
set -eu

command -v prometheus >/dev/null || test -x /usr/bin/prometheus && exit 0

if test "${BURSTPOOL_REQUIRE_ENGINE:-}" != 1 || ! command -v apt-get >/dev/null; then
	echo "prometheus is missing: tests of triggers start it; install it (Debian: apt-get install prometheus; else https://prometheus.io/download)." >&2
	exit 1
fi
root=""
test "$(id -u)" = 0 || root="sudo -n"
$root mkdir -p /etc/systemd/system
$root ln -sf /dev/null /etc/systemd/system/prometheus.service
$root apt-get update -qq
$root apt-get install -y -qq --no-install-recommends prometheus >/dev/null
