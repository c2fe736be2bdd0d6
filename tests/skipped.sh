#!/bin/sh
# The last words of `make test`: which tests were skipped, by the file in which they say so.
set -eu
if ! test -s "$1"; then
	printf '\n==> All tests have run\n'
	exit 0
fi
printf '\n==> The tests that ran have passed; %s were skipped, wholly or in part:\n' "$(sort -u "$1" | wc -l)"
sort -u "$1"
