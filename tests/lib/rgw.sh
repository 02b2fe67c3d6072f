#!/bin/sh
# A real S3 store for tests: one monitor, one storage daemon that keeps all in
# memory, and Ceph's S3 gateway, of Debian's ceph-mon, ceph-osd and radosgw
# (Debian 12: Ceph 16, Debian 13: Ceph 18).  No manager, no keyrings; nothing
# outside DIR is touched, and it listens on 127.0.0.1 only.
#
#   rgw.sh DIR PORT     start (PORT is the gateway's, PORT + 1 the monitor's),
#                       print the endpoint when it answers, and exit; the
#                       daemons stay.  Key testak, secret testsecretkey1.
#   rgw.sh --stop DIR   stop them and remove DIR
set -eu

die() {
    echo "rgw.sh: $*" >&2
    exit 1
}

# The process of NAME, if it is still the one we started.
pid_of() {
    pid=$(cat "$dir/run/$1.pid" 2>/dev/null) || return 1
    grep -q -a -F "$dir/ceph.conf" "/proc/$pid/cmdline" 2>/dev/null || return 1
    echo "$pid"
}

# The data is thrown away, so nothing is lost by not asking politely.  The
# gateway and the storage daemon go first: without their monitor they would
# wait for it.
stop() {
    for name in rgw osd mon; do
        pid=$(pid_of $name) || continue
        kill -9 "$pid" 2>/dev/null || true
        while pid_of $name >/dev/null; do sleep 0.05; done
    done
}

if [ "${1:-}" = --stop ]; then
    dir=$(realpath -m "${2:?usage: rgw.sh --stop DIR}")
    [ -e "$dir/ceph.conf" ] || die "$dir holds no gateway of ours"
    stop
    rm -rf "$dir"
    exit 0
fi

[ $# = 2 ] || die "usage: rgw.sh DIR PORT | rgw.sh --stop DIR"
dir=$(realpath -m "$1")
port=$2
mon_port=$((port + 1))
for tool in ceph ceph-mon ceph-osd radosgw radosgw-admin monmaptool curl; do
    command -v $tool >/dev/null || die "$tool is missing (apt-get install ceph-mon ceph-osd radosgw curl)"
done
if [ -e "$dir" ]; then
    [ -e "$dir/ceph.conf" ] || [ -z "$(ls -A "$dir")" ] || die "$dir is not empty"
    stop
    rm -rf "$dir"
fi
mkdir -p "$dir/mon" "$dir/osd" "$dir/rgw" "$dir/run" "$dir/log"

# Debian 13's default is a path that lacks its leading slash.
for class_dir in /usr/lib/*/rados-classes /usr/lib/rados-classes; do
    [ ! -d "$class_dir" ] || break
done

# paxos: without it, each step of the start waits for a second.
# osd class update on start: there is no manager to take the class from.
# The thresholds keep a nearly full disk of the host from mattering.
fsid=$(cat /proc/sys/kernel/random/uuid)
cat >"$dir/ceph.conf" <<CONF
[global]
fsid = $fsid
mon host = [v1:127.0.0.1:$mon_port]
ms bind msgr2 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
run dir = $dir/run
admin socket = $dir/run/\$name.asok
crash dir = $dir/log
log file = $dir/log/\$name.log
mon cluster log file = $dir/log/cluster.log
mon data = $dir/mon
mon allow pool size one = true
mon warn on pool no redundancy = false
mon data avail crit = 1
mon data avail warn = 2
mon osd full ratio = .99
mon osd backfillfull ratio = .985
mon osd nearfull ratio = .98
paxos propose interval = 0.05
paxos min wait = 0.01
osd data = $dir/osd
osd objectstore = memstore
memstore device bytes = 2147483648
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd class update on start = false
osd class dir = $class_dir
osd class load list = *
osd class default list = *
osd memory target = 1073741824
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:$port
rgw data = $dir/rgw
rgw dns name = localhost
rgw thread pool size = 32
rgw enable gc threads = false
rgw enable lc threads = false
rgw enable quota threads = false
rgw enable usage log = false
CONF

# In the background, in a session of its own, so that neither the end of this
# script nor a Ctrl-C in it takes the daemon with it.
start() {
    name=$1
    shift
    setsid "$@" -c "$dir/ceph.conf" -f >>"$dir/log/$name.out" 2>&1 </dev/null &
    echo $! >"$dir/run/$name.pid"
}

fail() {
    tail -n 5 "$dir/log/$1.out" >&2 || true
    stop
    die "$2; the logs are in $dir/log"
}

# wait_for NAME SECONDS COMMAND...: until it succeeds, NAME dies, or time is up.
wait_for() {
    name=$1
    tries=$(($2 * 10))
    shift 2
    while ! "$@" >/dev/null 2>&1; do
        pid_of "$name" >/dev/null || return 1
        tries=$((tries - 1))
        [ $tries -gt 0 ] || return 1
        sleep 0.1
    done
}

ceph() {
    timeout 20 /usr/bin/env ceph -c "$dir/ceph.conf" "$@"
}
osd_up() { ceph osd stat | grep -q '1 up'; }
answers() { curl -s -m 2 -o "$dir/run/answer" "http://127.0.0.1:$port/"; }

monmaptool --create --fsid "$fsid" --addv a "[v1:127.0.0.1:$mon_port]" "$dir/monmap" >"$dir/log/mon.out"
ceph-mon -c "$dir/ceph.conf" -i a --mkfs --monmap "$dir/monmap" >>"$dir/log/mon.out" 2>&1
start mon ceph-mon -i a
wait_for mon 30 ceph mon stat || fail mon "the monitor does not answer (is port $mon_port taken?)"

uuid=$(cat /proc/sys/kernel/random/uuid)
# A monitor that answers one command may still refuse the next (EPERM, seen once).
wait_for mon 30 ceph osd new "$uuid" || fail mon "the monitor takes no storage daemon"
ceph-osd -c "$dir/ceph.conf" -i 0 --mkfs --osd-uuid "$uuid" >"$dir/log/osd.out" 2>&1
ceph osd crush add osd.0 1.0 root=default host=here >/dev/null 2>&1

# Ceph 16's storage daemon was seen to exit without a word right after its
# first start.  The second start goes well.
up=
for try in 1 2 3 4 5; do
    start osd ceph-osd -i 0
    if wait_for osd 30 osd_up; then
        up=yes
        break
    fi
done
[ "$up" ] || fail osd "the storage daemon did not come up in $try tries"

start rgw radosgw -n client.rgw
wait_for rgw 60 answers || fail rgw "the gateway does not answer (is port $port taken?)"
radosgw-admin -c "$dir/ceph.conf" -n client.rgw user create --uid=test --display-name=test \
    --access-key=testak --secret-key=testsecretkey1 >"$dir/log/user.out" 2>&1 || fail user "cannot make a user"
echo "http://127.0.0.1:$port"
