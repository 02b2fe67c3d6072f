#!/bin/sh
# The arrows of docs/architecture.md: each folder may include only these.
# layers.sh [ROOT]: exits 1 and names every #include against them.
set -eu
root=${1:-$(dirname "$0")/..}
cd "$root"
layers="base ltx bucket capture uploader restorer fuse cli"
allowed() {
    case $1 in
    base) echo base ;;
    ltx) echo ltx base ;;
    bucket) echo bucket ltx base ;;
    capture) echo capture ltx base ;;
    uploader) echo uploader bucket ltx base ;;
    restorer) echo restorer bucket ltx base ;;
    fuse) echo fuse capture base ;;
    cli) echo "$layers" ;;
    esac
}
bad=0
for layer in $layers; do
    ok=" $(allowed "$layer") "
    for file in "$layer"/*.[ch]; do
        [ -e "$file" ] || continue
        # A quoted include is one of ours and names its folder.
        for target in $(sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"\([^"]*\)".*/\1/p' "$file"); do
            case $ok in
            *" ${target%%/*} "*) ;;
            *) echo "$file: includes \"$target\", which $layer may not use" >&2; bad=1 ;;
            esac
        done
    done
done
exit $bad
