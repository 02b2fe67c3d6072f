#!/usr/bin/env bash
# docker/base.sh [SUITE]: for where no registry can be reached, makes a base image
# of Debian (trixie by default) by debootstrap, and prints its name.
#
# The packages come from where this machine, a Debian, has its own from; MIRROR=URI
# names another place.  The image stays in docker's own storage, and is made anew
# after a week, or when this script or the place has changed.  Needs root,
# debootstrap, and a docker engine.
set -euo pipefail

suite=${1:-trixie}
image=litebucket-base:$suite
keep_seconds=$((7 * 24 * 3600))

die() {
	echo "base.sh: $*" >&2
	exit 1
}

# sources RELEASE: where this machine has the main packages of that release from.
sources() {
	apt-get indextargets --format '$(CREATED_BY) $(TARGET_OF) $(RELEASE) $(COMPONENT) $(REPO_URI)' |
		sed -n "s|^Packages deb $1 main \(https\?://.*[^/]\)/*$|\1|p" | sort -u
}

find_sources() {
	local codename
	codename=$(. /etc/os-release && [ "$ID" = debian ] && echo "$VERSION_CODENAME") || true
	mirror=${MIRROR:-} security=''
	if [ -z "$mirror" ] && [ -n "$codename" ]; then
		mirror=$(sources "$codename" | head -n 1)
		security=$(sources "$codename-security" | head -n 1)
	fi
	[ -n "$mirror" ] || die "this machine's apt sources name no Debian packages; MIRROR=URI says where they are"
}

# A proxy on this machine's loopback is not one for containers.
proxies() {
	apt-config dump | grep -E '^Acquire::https?::Proxy "' | grep -v -F -e localhost -e '//127.' || true
}

is_fresh() {
	local made its_recipe
	read -r made its_recipe < <(docker image inspect "$image" 2>/dev/null \
		-f '{{.Created}} {{index .Config.Labels "litebucket.recipe"}}') || return 1
	[ "$its_recipe" = "$recipe" ] &&
		[ $(($(date +%s) - $(date -d "$made" +%s))) -lt $keep_seconds ]
}

make_root() {
	debootstrap --variant=minbase "$suite" "$1" "$mirror" >"$work/log" 2>&1 || {
		tail -n 10 "$work/log" >&2
		die "debootstrap of $suite from $mirror failed, see above"
	}
	{
		printf 'deb %s %s main\ndeb %s %s-updates main\n' "$mirror" "$suite" "$mirror" "$suite"
		[ -z "$security" ] || printf 'deb %s %s-security main\n' "$security" "$suite"
	} >"$1/etc/apt/sources.list"
	proxies >"$1/etc/apt/apt.conf.d/90proxy"
	# An image is not an installation: downloaded packages and lists stay out,
	# no service starts, and documentation is left to the machine's own.
	printf '%s\n' 'DPkg::Post-Invoke {"rm -f /var/cache/apt/archives/*.deb";};' \
		'Acquire::Languages "none";' >"$1/etc/apt/apt.conf.d/90image"
	printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d"
	chmod 755 "$1/usr/sbin/policy-rc.d"
	# fsync is for disks that keep what they have; a failed build is thrown away.
	echo force-unsafe-io >"$1/etc/dpkg/dpkg.cfg.d/90image"
	printf 'path-exclude=/usr/share/%s/*\n' doc man locale info >>"$1/etc/dpkg/dpkg.cfg.d/90image"
	rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/archives/*.deb
}

docker version >/dev/null 2>&1 || die "no docker engine answers (docker version says why)"
find_sources
recipe=$({ cat "$0"; echo "$mirror $security"; proxies; } | sha256sum | cut -c1-16)
if is_fresh; then
	echo "$image"
	exit 0
fi
[ "$(id -u)" = 0 ] || die "debootstrap needs root"
command -v debootstrap >/dev/null || die "debootstrap is missing (apt-get install debootstrap)"
# Not /tmp, which may be a small tmpfs that knows no devices.
work=$(mktemp -d /var/tmp/litebucket-base.XXXXXX)
trap 'rm -rf "$work"' EXIT
old=$(docker image inspect -f '{{.Id}}' "$image" 2>/dev/null) || old=''
make_root "$work/root"
tar -C "$work/root" -c . |
	docker import --change "LABEL litebucket.recipe=$recipe" --change 'CMD ["bash"]' - "$image" >"$work/id"
# It stays as long as something is built on it.
[ -z "$old" ] || docker image rm "$old" >/dev/null 2>&1 || true
echo "$image"
