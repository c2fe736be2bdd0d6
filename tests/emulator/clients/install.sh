#!/bin/sh
# Microsoft's Python client, in a virtual environment below target/, for the test that drives the emulator
# with it.
set -eu
. "$(dirname "$0")/../../setup.sh"

here=$(dirname "$0")
target=${CARGO_TARGET_DIR:-target}
done=$target/python/installed
if test -e "$done" && ! test "$here/requirements.txt" -nt "$done"; then exit 0; fi

skipped="The test with Microsoft's Python client is skipped"
mkdir -p "$target"
make_environment() {
	command -v python3 >/dev/null && python3 -m venv --clear "$target/python" >/dev/null 2>&1
}
if ! make_environment; then
	may_install || skip "$skipped: python3 and its module venv are missing ($(why_not))"
	install_packages --no-install-recommends python3-venv || skip "$skipped: apt-get could not install python3-venv"
	make_environment || skip "$skipped: python3 cannot make a virtual environment"
fi
echo "==> Installing the Python client" >&2
"$target/python/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt" ||
	skip "$skipped: pip could not install it"
touch "$done"
