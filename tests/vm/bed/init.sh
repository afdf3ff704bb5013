#!/bin/busybox sh
# shellcheck shell=dash
# The first process of a guest: loads what the root file system needs, puts modules and the programs under test into it,
# and hands over to systemd. With sag.probe on the command line it only says that it runs.
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
if grep -q sag.probe /proc/cmdline; then
    echo "sag-probe: alive" >/dev/console
    poweroff -f
fi
for module in virtio_pci virtio_blk virtio_net virtio_console virtio_rng crc32c_intel crc32c_generic ext4; do
    modprobe "$module" 2>/dev/null
done
tries=0
until [ -b /dev/vda ] || [ $tries -gt 100 ]; do
    tries=$((tries + 1))
    usleep 100000
done
mount -t ext4 /dev/vda /root || {
    echo "sag-bed: no root file system" >/dev/console
    poweroff -f
}
mkdir -p /root/lib/modules
cp -a /lib/modules/* /root/lib/modules/
tar -x -f /dev/vdb -C /root
chroot /root systemd-sysusers
umount /proc /sys
mount --move /dev /root/dev
exec switch_root /root /sbin/init
