#!/bin/sh
# Prometheus, with its promtool, and Alertmanager, for the tests of triggers and metrics.
#
# The tests start their own: where the packages are installed here, their services are masked first, so that
# none runs on this machine.
set -eu
. "$(dirname "$0")/../setup.sh"

has() {
	command -v "$1" >/dev/null || test -x "${BIN:-/usr/bin}/$1"
}

missing=""
has prometheus && has promtool || missing="prometheus"
has alertmanager || has prometheus-alertmanager || missing="$missing prometheus-alertmanager"
missing=${missing# }
test -n "$missing" || exit 0

skipped="Tests of triggers and metrics are skipped where they start"
may_install || skip "$skipped: $missing ($(why_not); https://prometheus.io/download has them for every system)"
$root mkdir -p /etc/systemd/system
for package in $missing; do
	service=/etc/systemd/system/$package.service
	test -e "$service" || test -L "$service" || {
		echo "==> Masking the service $package (to use it: systemctl unmask $package)" >&2
		$root ln -s /dev/null "$service"
	}
done
# shellcheck disable=SC2086 # a list of words
install_packages --no-install-recommends $missing || skip "$skipped: $missing, which apt-get could not install"
