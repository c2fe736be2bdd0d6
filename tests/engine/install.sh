#!/bin/sh
# What the tests with real containers need: an engine that answers, or podman with runc; and a static
# busybox, of which they make their image.
#
# Says what is missing. Installs it only where an engine is required (BURSTPOOL_REQUIRE_ENGINE=1, as
# in CI) and apt-get can: nobody's machine is changed by running the tests.
set -eu

answers() {
	for socket in "${DOCKER_HOST:-unix:///var/run/docker.sock}" unix:///run/podman/podman.sock; do
		test -S "${socket#unix://}" && return 0
	done
	return 1
}

missing=""
if ! answers; then
	command -v podman >/dev/null || missing="$missing podman"
	# Debian keeps it where only root's PATH leads.
	command -v runc >/dev/null || test -x /usr/sbin/runc || missing="$missing runc"
fi
test -x /bin/busybox || missing="$missing busybox-static"
test -n "$missing" || exit 0

if test "${BURSTPOOL_REQUIRE_ENGINE:-}" != 1 || ! command -v apt-get >/dev/null; then
	echo "Tests with real containers are skipped; they need:$missing"
	exit 0
fi
root=""
test "$(id -u)" = 0 || root="sudo -n"
$root apt-get update -qq
# shellcheck disable=SC2086 # a list of words
$root apt-get install -y -qq $missing >/dev/null
