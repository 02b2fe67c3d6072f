#!/usr/bin/env bash
# sqlite.sh: builds SQLite's own tests from Debian's source package, unless they
# are there, and prints the directory they are in:
#
#	src/			the source package
#	bld/testfixture		Tcl with SQLite in it, for src/test; never syncs
#	bld/testfixture-sync	the same, and it syncs as SQLite does elsewhere
#	bld/mptester, bld/threadtest3
#
# Kept until this script changes.  The package's version is that of the SQLite that is installed.  The machine's
# own package sources are asked, by a configuration of apt that exists for this
# alone: what apt knows otherwise stays as it is.  Needs tests/lib/install.sh
# build sqlite.
set -euo pipefail

version=$(dpkg-query -W -f '${source:Version}' libsqlite3-0)
dir=${XDG_CACHE_HOME:-$HOME/.cache}/litebucket-sqlite-$version
recipe=$(sha256sum <"$0")
if [ "$(cat "$dir/complete" 2>/dev/null)" = "$recipe" ]; then
	echo "$dir"
	exit 0
fi

# One line per source of packages, whichever way they are written down, of this
# release of Debian; others would have keys of their own.
source_lines() {
	local keyring codename
	for keyring in /usr/share/keyrings/debian-archive-keyring.{gpg,pgp}; do
		[ ! -e "$keyring" ] || break
	done
	codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
	apt-get indextargets --format '$(CREATED_BY) $(TARGET_OF) $(REPO_URI) $(RELEASE) $(COMPONENT)' |
		while read -r by of uri release component; do
			case $by.$of.$component.$release in
			Packages.deb.main."$codename"* | Packages.deb.main.*stable*)
				echo "deb-src [signed-by=$keyring] $uri $release $component"
				;;
			esac
		done | sort -u
}

# fetch DIR: the unpacked package, as DIR/src
fetch() {
	mkdir -p "$1/apt/lists/partial" "$1/apt/cache/archives/partial"
	source_lines >"$1/apt/sources.list"
	cat >"$1/apt/apt.conf" <<-CONF
		Dir::Etc::sourcelist "$1/apt/sources.list";
		Dir::Etc::sourceparts "-";
		Dir::State::lists "$1/apt/lists";
		Dir::Cache "$1/apt/cache";
		APT::Sandbox::User "root";
	CONF
	# A source that does not answer matters only if the package is in no other.
	APT_CONFIG=$1/apt/apt.conf apt-get update -qq || true
	(
		cd "$1"
		APT_CONFIG=$1/apt/apt.conf apt-get source -qq --download-only "sqlite3=$version"
		dpkg-source --no-copy -x sqlite3_*.dsc src
		rm -rf apt sqlite3_*
	)
}

# build DIR: what the tests need, in DIR/bld
build() {
	mkdir "$1/bld"
	cd "$1/bld"
	# Its clients give up after 10 s; on a busy machine some wait longer.
	sed -i -e 's/^#define DEFAULT_TIMEOUT 10000 *$/#define DEFAULT_TIMEOUT 60000/' \
		-e 's/ : 10000;$/ : 60000;/' ../src/mptest/mptest.c
	[ "$(grep -c 60000 ../src/mptest/mptest.c)" = 2 ]
	../src/configure --with-tcl=/usr/lib/tcl8.6
	make -j"$(nproc)" testfixture mptester threadtest3
	# By default it is built to leave syncs out, because they take long.
	mv testfixture testfixture-quick
	sed -i 's/-DSQLITE_NO_SYNC=1//' Makefile
	make -j"$(nproc)" testfixture
	mv testfixture testfixture-sync
	mv testfixture-quick testfixture
}

# Built aside and renamed, so that an interrupted build leaves nothing that
# looks complete.
mkdir -p "$(dirname "$dir")"
staging=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$staging"' EXIT
echo "building SQLite $version and its tests (a few minutes, once)" >&2
fetch "$staging" >&2
build "$staging" >"$staging/build.log" 2>&1 || {
	tail -n 20 "$staging/build.log" >&2
	exit 1
}
echo "$recipe" >"$staging/complete"
rm -rf "$dir"
mv "$staging" "$dir"
echo "$dir"
