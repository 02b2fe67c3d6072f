#!/usr/bin/env bash
# install.sh PURPOSE...: installs the Debian packages that are missing.
#
#	build	what the program is compiled with and needs to run
#	check	the other compiler, unit tests, and what the scripts use
#	s3	a single-node Ceph with its S3 gateway, from Debian's own packages
#	sqlite	what SQLite's own tests are built with
#	model	what the model of the protocol (docs/model) is checked with
#	docker	a docker engine
#	compose	what is made and started with one
#
# Debian 12 and 13.  Needs root only if something is missing.
set -euo pipefail

build=(
	cmake ninja-build gcc libc6-dev pkg-config
	libfuse3-dev libsqlite3-dev libcurl4-openssl-dev libssl-dev liblz4-dev
	libexpat1-dev libjansson-dev libxxhash-dev
	fuse3 sqlite3 ca-certificates
)
check=(
	clang libclang-rt-dev libcmocka-dev libs3-dev
	git python3 python3-pytest python3-pytest-xdist curl procps util-linux mount groff-base rsync libfaketime
)
s3=(radosgw ceph-mon ceph-osd ceph-common)
sqlite=(dpkg-dev make gcc libc6-dev tcl8.6 tcl8.6-dev libreadline-dev zlib1g-dev)
model=(spin gcc libc6-dev)
docker=(docker.io)
# From Debian 13 on its client is a package of its own.
[ "$(. /etc/os-release && echo "${VERSION_ID:-0}")" = 12 ] || docker+=(docker-cli)
compose=(debootstrap)
docker compose version >/dev/null 2>&1 || compose+=(docker-compose)

wanted=()
for purpose in "$@"; do
	case $purpose in
	build) wanted+=("${build[@]}") ;;
	check) wanted+=("${check[@]}") ;;
	s3) wanted+=("${s3[@]}") ;;
	sqlite) wanted+=("${sqlite[@]}") ;;
	model) wanted+=("${model[@]}") ;;
	docker) wanted+=("${docker[@]}") ;;
	compose) wanted+=("${compose[@]}") ;;
	*) echo "install.sh: unknown purpose '$purpose'" >&2; exit 2 ;;
	esac
done

missing=()
for package in "${wanted[@]}"; do
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
		missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "install.sh: not root, and these packages are missing: ${missing[*]}" >&2
	exit 1
fi

export DEBIAN_FRONTEND=noninteractive
echo "installing: ${missing[*]}"
apt-get update -qq
# apt and dpkg write a line per package; only what went wrong is of interest.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$log" 2>&1; then
	tail -n 30 "$log" >&2
	exit 1
fi
