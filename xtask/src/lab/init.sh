#!/bin/busybox sh
# PID 1 of the lab: this machine's files read-only with a scratch layer over
# them, real device nodes, and then the command that `cargo xtask lab` was given.
# The kernel's command line carries nothing; the job comes with the initial root.
b=/bin/busybox
$b mkdir -p /proc /sys /dev /lower /scratch /root
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
for module in /modules/*; do $b insmod "$module" || echo "lab: $module cannot be loaded"; done
share='trans=virtio,version=9p2000.L,msize=512000'
$b mount -t 9p -o "$share,cache=loose,ro" files /lower || { echo 'lab: no files'; $b poweroff -f; }
$b mount -t tmpfs -o size=75% tmpfs /scratch
$b mkdir -p /scratch/upper /scratch/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/scratch/upper,workdir=/scratch/work overlay /root
cd /root
$b mkdir -p proc sys dev run tmp lab-out
$b mount -t proc proc proc
$b mount -t sysfs sysfs sys
$b mount -t devtmpfs dev dev
$b mkdir -p dev/shm dev/pts
$b mount -t tmpfs -o mode=1777 tmpfs dev/shm
$b mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts dev/pts
$b ln -sf pts/ptmx dev/ptmx
$b mount -t tmpfs -o mode=755 tmpfs run
$b mount -t cgroup2 cgroup2 sys/fs/cgroup
$b mount -t debugfs debugfs sys/kernel/debug
$b mount -t 9p -o "$share,cache=none" output lab-out 2>/dev/null
$b ip link set lo up
if $b ip link set eth0 up 2>/dev/null; then
    $b ip addr add 10.0.2.15/24 dev eth0
    $b ip route add default via 10.0.2.2
    $b rm -f etc/resolv.conf
    echo 'nameserver 10.0.2.3' > etc/resolv.conf
fi
# /dev/kvm as a distribution has it: for root and the group kvm.
$b grep -q '^kvm:' etc/group || echo 'kvm:x:994:' >> etc/group
$b chroot . /bin/sh -c 'chgrp kvm /dev/kvm; chmod 660 /dev/kvm'
# The root of the mount namespace, as on any Linux: who enters that namespace finds it.
$b mount -o move . /
# The command's standard output, its standard error, and its exit status.
for port in 1 2 3; do $b ln -s /dev/vport*p$port /dev/lab-$port; done
. /job
