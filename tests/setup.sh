# What the scripts that set the tests up have in common; sourced, not run.
#
# Packages are installed with apt-get wherever that is possible without a password, and each script says so
# first. APT=no forbids it. What cannot be installed is only named: the tests that need it are skipped,
# and `make test` counts them at its end. Where BURSTPOOL_REQUIRE_ENGINE=1 requires everything, as in CI,
# it is an error.

# How a command is run as root; empty for root itself.
root=""
test "$(id -u)" = 0 || root="sudo -n"

is_required() {
	test "${BURSTPOOL_REQUIRE_ENGINE:-}" = 1
}

# Says what is missing and what follows; ends the script, with an error where everything is required.
skip() {
	echo "==> $1" >&2
	if is_required; then exit 1; fi
	exit 0
}

may_install() {
	test "${APT:-yes}" != no && command -v apt-get >/dev/null || return 1
	# shellcheck disable=SC2086 # no word for root
	test -z "$root" || $root true 2>/dev/null
}

# Why may_install says no.
why_not() {
	if test "${APT:-yes}" = no; then
		echo "APT=no forbids it"
	elif command -v apt-get >/dev/null; then
		echo "that needs root, or sudo without a password"
	else
		echo "there is no apt-get here"
	fi
}

# Installs packages (options of apt-get first); false if that fails. Other uses of apt-get are waited for.
install_packages() {
	echo "==> Installing $* with apt-get (make APT=no does not)" >&2
	# shellcheck disable=SC2086 # words
	DEBIAN_FRONTEND=noninteractive $root apt-get -o DPkg::Lock::Timeout=600 update -qq >&2 || true
	# shellcheck disable=SC2086 # words
	DEBIAN_FRONTEND=noninteractive $root apt-get -o DPkg::Lock::Timeout=600 install -y -qq "$@" >/dev/null
}
