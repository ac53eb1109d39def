# Podman or Docker in the lab, doing what dctl is measured with. Prints a line
# for each measurement: its name and milliseconds.
#
# peers.sh PACKAGES podman|docker TASK ARGUMENT... (dockerd.sh comes before it)
peer=$2 task=$3
shift 3
# Memory: a faster disk than dctl's machine has.
mount -t tmpfs -o size=80% tmpfs /mnt

case $peer in
podman)
    mkdir -p /etc/containers
    echo '{"default": [{"type": "insecureAcceptAnything"}]}' > /etc/containers/policy.json
    engine() {
        podman --root /mnt/root --runroot /run/podman --tmpdir /run/podman/tmp \
            --storage-driver overlay --cgroup-manager cgroupfs --events-backend none \
            --runtime /usr/bin/crun --conmon "$packages/usr/bin/conmon" "$@"
    }
    pull() { engine pull --quiet --tls-verify=false "$1"; }
    logged='--log-driver k8s-file'
    # Docker kills at once by itself.
    removed='--force --time 0'
    ;;
docker)
    start_dockerd --bridge none --iptables=false --ip6tables=false
    engine() { docker --host unix:///run/docker.sock "$@"; }
    pull() { engine pull --quiet "$1"; }
    logged=''
    removed=--force
    ;;
esac

milliseconds() { echo $(($(date +%s%N) / 1000000)); }

measure() {
    name=$1
    shift
    start=$(milliseconds)
    "$@" > /mnt/output
    echo "$name $(($(milliseconds) - start))"
}

run_detached() { engine run --detach --network none "$image" sleep 1000; }

in_a_row() {
    for _ in $(seq "$1"); do run_detached; done
}

at_once() {
    jobs=''
    for _ in $(seq "$1"); do
        run_detached &
        jobs="$jobs $!"
    done
    for job in $jobs; do wait "$job"; done
}

# shellcheck disable=SC2046,SC2086
remove_all() { engine rm $removed $(engine ps --all --quiet) > /mnt/output; }

image=$1
case $task in
pull)
    for _ in $(seq "$2"); do
        measure pull pull "$image"
        engine rmi --force "$image" > /mnt/output
    done
    ;;
many)
    pull "$image" > /mnt/output
    engine run --rm --network none "$image" true
    for _ in $(seq "$3"); do
        measure in-a-row in_a_row "$2"
        remove_all
        measure at-once at_once "$2"
        remove_all
    done
    ;;
logs)
    pull "$image" > /mnt/output
    # shellcheck disable=SC2086
    measure write engine run $logged --network none --name log "$image" sh -c "$2"
    for _ in $(seq "$3"); do measure logs engine logs log; done
    ;;
api)
    pull "$image" > /mnt/output
    "$2" /run/docker.sock "$image" "$3" "$4"
    engine run --rm --network none "$image" true
    for _ in $(seq "$4"); do
        measure run engine run --rm --network none "$image" true
    done
    ;;
esac
