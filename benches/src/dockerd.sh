# Docker as Debian unstable has it, unpacked in the directory that the first argument
# names and not installed.
set -eu
packages=$1
export PATH="$packages/usr/bin:$packages/usr/sbin:$PATH"
export LD_LIBRARY_PATH="$packages/usr/lib/x86_64-linux-gnu:$packages/lib/x86_64-linux-gnu"

# start_dockerd ARGUMENT...: returns when it answers on /run/docker.sock. Its files are
# in /mnt, which is memory.
start_dockerd() {
    dockerd --data-root /mnt/root --host unix:///run/docker.sock \
        --insecure-registry 10.0.2.2/32 "$@" > /mnt/dockerd.log 2>&1 &
    tries=0
    until docker --host unix:///run/docker.sock version > /mnt/version.log 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 120 ] || { cat /mnt/dockerd.log >&2; exit 1; }
        sleep 0.5
    done
}
