#!/usr/bin/env bash
# judges.sh: builds the public programs that judge what we write, `ltx` and
# `litestream`, unless they are there, and prints the directory they are in.
#
# Exit status 3, and a line on stderr that says why: no suitable Go here.
set -euo pipefail

ltx=github.com/superfly/ltx/cmd/ltx@v0.5.3
litestream=github.com/benbjohnson/litestream/cmd/litestream@v0.5.18
dir=${XDG_CACHE_HOME:-$HOME/.cache}/litebucket-judges/ltx-v0.5.3-litestream-v0.5.18

if [ -x "$dir/ltx" ] && [ -x "$dir/litestream" ]; then
	echo "$dir"
	exit 0
fi

PATH=$PATH:/usr/local/go/bin
if ! command -v go >/dev/null; then
	echo "no Go here (1.24 or newer is needed)" >&2
	exit 3
fi
version=$(go env GOVERSION)
if [ "$(printf '%s\n' go1.24 "$version" | sort -V | head -n 1)" != go1.24 ]; then
	echo "Go here is $version (1.24 or newer is needed)" >&2
	exit 3
fi

# Built aside and renamed, so that an interrupted build leaves nothing that
# looks complete.
mkdir -p "$dir"
staging=$(mktemp -d "$dir/build.XXXXXX")
trap 'rm -rf "$staging"' EXIT
echo "building the judges (a few minutes, once): ltx, litestream" >&2
CGO_ENABLED=0 GOBIN=$staging go install "$ltx" >&2
CGO_ENABLED=0 GOBIN=$staging go install "$litestream" >&2
mv "$staging/ltx" "$staging/litestream" "$dir/"
echo "$dir"
