#!/bin/sh
# No two source files define the same global name, also where no program links
# both: symbols.sh LIBRARY...
set -eu
twice=$(nm --defined-only --extern-only "$@" | awk '
    /:$/ { file = $0 }
    NF == 3 && $3 !~ /^__/ { seen[$3] = seen[$3] " " file; n[$3]++ }
    END { for (name in n) if (n[name] > 1) print name " is in" seen[name] }')
[ -z "$twice" ] || { echo "$twice" >&2; exit 1; }
