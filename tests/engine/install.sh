#!/bin/sh
# What the tests with real containers need: an engine that answers, or podman with runc; and a static
# busybox, of which they make their image.
set -eu
. "$(dirname "$0")/../setup.sh"

answers() {
	for socket in "${DOCKER_HOST:-unix:///var/run/docker.sock}" unix:///run/podman/podman.sock; do
		test -S "${socket#unix://}" && return 0
	done
	return 1
}

has() {
	# Debian keeps runc where only root's PATH leads.
	command -v "$1" >/dev/null || test -x "${SBIN:-/usr/sbin}/$1"
}

missing=""
if ! answers; then
	has podman || missing="$missing podman"
	has runc || missing="$missing runc"
fi
test -x "${BUSYBOX:-/bin/busybox}" || missing="$missing busybox-static"
test -n "$missing" || exit 0

may_install || skip "Tests with real containers are skipped, for they need:$missing ($(why_not))"
# shellcheck disable=SC2086 # a list of words
install_packages $missing || skip "Tests with real containers are skipped, for apt-get could not install:$missing"
