#!/bin/sh
# The arrows of docs/architecture.md: each folder may include only these.
# layers.sh [ROOT]: exits 1 and names every #include against them.
set -eu
root=${1:-$(dirname "$0")/..}
cd "$root"
layers="base ltx sqlite bucket capture uploader restorer fuse cli"
allowed() {
    case $1 in
    base) echo base ;;
    ltx) echo ltx base ;;
    sqlite) echo sqlite ltx base ;;
    bucket) echo bucket ltx base ;;
    capture) echo capture sqlite ltx base ;;
    uploader) echo uploader bucket ltx base ;;
    restorer) echo restorer bucket sqlite ltx base ;;
    fuse) echo fuse capture base ;;
    cli) echo "$layers" ;;
    esac
}

# What a file includes in quotes, or of our folders in brackets.
ours() {
    include='^[[:space:]]*#[[:space:]]*include[[:space:]]*'
    sed -n -E -e "s/$include\"([^\"]*)\".*/\\1/p" \
        -e "s/$include<(($(echo $layers | tr ' ' '|'))\/[^>]*)>.*/\\1/p" "$1"
}

bad=0
for layer in $layers; do
    ok=" $(allowed "$layer") "
    for file in "$layer"/*.[ch]; do
        [ -e "$file" ] || continue
        for target in $(ours "$file"); do
            case $ok in
            *" ${target%%/*} "*) ;;
            *) echo "$file: includes \"$target\", which $layer may not use" >&2; bad=1 ;;
            esac
        done
    done
done
exit $bad
