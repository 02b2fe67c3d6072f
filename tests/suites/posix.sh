#!/usr/bin/env bash
# posix.sh: public tests of file systems, on a mount and on the directory below.
#
#	PJDFSTEST=DIR	a built pjdfstest: the directory with tests/
#	FSX=FILE	fsx, as built from xfstests' ltp/fsx.c
#	LITEBUCKET=FILE	the program (build/release/litebucket)
#
# Debian has neither; what is not given is not run.  What fails on the mount and
# not below it fails the run, unless docs/testing.md gives the reason and it is
# listed in posix-except here ("FILE NUMBER" a line).  Needs root.  The last line
# of each suite is its count.
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
litebucket=${LITEBUCKET:-$here/../../build/release/litebucket}
work=$(mktemp -d "${TMPDIR:-/tmp}/litebucket-posix.XXXXXX")
mount=$work/mount
failed=0

finish() {
	if [ -n "${daemon:-}" ]; then
		kill "$daemon" 2>/dev/null && wait "$daemon"
	fi
	if mountpoint -q "$mount"; then
		umount -l "$mount"
	fi
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

# On the same disk, so that nothing but the mount is different.
mkdir "$work/bare" "$mount" "$work/bucket"
chmod 755 "$work"
mkfifo "$work/ready"
"$litebucket" mount --allow-other --ready-fd 3 "$mount" "file://$work/bucket" \
	3>"$work/ready" >"$work/log" 2>&1 &
daemon=$!
if ! read -r _ <"$work/ready"; then
	cat "$work/log"
	exit 1
fi

# pjdfstest_in DIRECTORY: "FILE NUMBER" of each test that fails there, and how
# many there were in the file "count".
pjdfstest_in() {
	local file count=0 output
	mkdir "$1/pjdfstest" && cd "$1/pjdfstest" || exit 1
	for file in "$PJDFSTEST"/tests/*/*.t; do
		output=$(sh "$file" 2>/dev/null)
		count=$((count + $(grep -c '^\(not \)\?ok ' <<<"$output")))
		sed -n '/# TODO/d; s/^not ok \([0-9]*\).*/\1/p' <<<"$output" |
			sed "s|^|${file#"$PJDFSTEST"/tests/} |"
	done
	echo "$count" >"$work/count"
}

pjdfstest() {
	local bare new
	pjdfstest_in "$work/bare" | sort >"$work/bare.failed"
	bare=$(cat "$work/count")
	pjdfstest_in "$mount" | sort >"$work/mount.failed"
	new=$(comm -13 "$work/bare.failed" "$work/mount.failed" |
		grep -vxFf <(cat "$here/posix-except" 2>/dev/null; echo ' '))
	if [ -n "$new" ]; then
		failed=1
		echo "fail on the mount and not below it:"
		echo "$new"
	fi
	echo "pjdfstest: $(cat "$work/count") tests on the mount, $(wc -l <"$work/mount.failed") fail;" \
		"$bare below it, $(wc -l <"$work/bare.failed") fail; $(grep -c . <<<"$new") only on the mount"
}

# A plain file, and one that is named as a database and is none.
fsx() {
	local seed name operations=20000
	for seed in 1 2 3; do
		for name in plain file.db; do
			if ! "$FSX" -q -N $operations -S $seed "$mount/$name" >"$work/fsx.log" 2>&1; then
				failed=1
				tail -n 30 "$work/fsx.log"
				echo "fsx: $name, seed $seed failed"
			fi
		done
	done
	echo "fsx: 6 runs of $operations operations"
}

[ -z "${PJDFSTEST:-}" ] || pjdfstest
[ -z "${FSX:-}" ] || fsx
cd "$here" || exit 1
kill "$daemon" && wait "$daemon" || {
	failed=1
	tail -n 20 "$work/log"
}
daemon=''
if grep -E 'Sanitizer|runtime error' "$work/log"; then
	failed=1
fi
exit $failed
