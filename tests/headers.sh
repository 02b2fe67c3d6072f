#!/bin/sh
# Every header compiles alone: headers.sh COMPILER
set -eu
cd "$(dirname "$0")/.."
fuse_flags=$(pkg-config --cflags fuse3)
bad=0
for header in base/*.h ltx/*.h bucket/*.h capture/*.h uploader/*.h restorer/*.h fuse/*.h cli/*.h; do
    [ -e "$header" ] || continue
    # shellcheck disable=SC2086 # flags are words
    echo "#include \"$header\"" |
        "${1:-cc}" -std=gnu17 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -I. $fuse_flags -Wall -Wextra -Werror -Wno-unused-parameter \
            -fsyntax-only -x c - || { echo "$header does not compile alone" >&2; bad=1; }
done
exit $bad
