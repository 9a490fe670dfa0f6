# VFIO against every kind of subject: vfio.sh VFIO_LAB_TEST
# qemu: -device pcie-root-port,id=nvport,slot=1,chassis=1,x-speed=5 -drive file=@DISK@,if=none,id=ns,format=raw -device nvme-subsys,id=ss
# qemu: -device nvme,serial=lab,subsys=ss,bus=nvport,sriov_max_vfs=4,sriov_vq_flexible=8,sriov_vi_flexible=4,max_ioqpairs=16,msix_qsize=16,id=nv -device nvme-ns,drive=ns,shared=on,bus=nv
# qemu: -device pcie-root-port,id=nicport,slot=2,chassis=2,x-speed=5 -device e1000e,bus=nicport
# qemu: -device pcie-root-port,id=oldport,slot=3,chassis=3,x-speed=5 -device pcie-pci-bridge,id=old,bus=oldport -device pci-testdev,bus=old,addr=1 -device e1000,bus=old,addr=2
# qemu: -device pcie-root-port,id=gpuport,slot=4,chassis=4,x-speed=5 -device VGA,bus=gpuport,addr=0.0,multifunction=on -device ich9-intel-hda,bus=gpuport,addr=0.1 -device qemu-xhci,bus=gpuport,addr=0.2
# qemu: -device pcie-root-port,id=atiport,slot=5,chassis=5,x-speed=5 -device ati-vga,bus=atiport
# qemu: -device pcie-root-port,id=bochsport,slot=6,chassis=6,x-speed=5 -device bochs-display,bus=bochsport
# qemu: -device pcie-root-port,id=unplugport,slot=7,chassis=7,x-speed=5 -device e1000e,bus=unplugport,id=unplug,subsys=7
# qemu: -device pcie-root-port,id=swport,slot=8,chassis=8,x-speed=5 -device x3130-upstream,id=up,bus=swport -device xio3130-downstream,id=down1,bus=up,chassis=9,slot=9 -device xio3130-downstream,id=down2,bus=up,chassis=10,slot=10
# qemu: -device e1000e,bus=down1,subsys=9 -device e1000e,bus=down2,subsys=10
# qemu: -device pcie-root-port,id=aerport,slot=11,chassis=11,x-speed=5 -device virtio-rng-pci,bus=aerport,id=aer,aer=on
# qemu: -device edu -device virtio-rng-pci
# modules: vfio-pci nvme e1000e e1000 mtty mbochs mdpy
# QEMU's ports do not report their link active after a reset, which the kernel insists on above 5 GT/s: hence x-speed.
set -u
. /run/lab/common.sh
test=$1
export EDU=$(address_of 0x1234:0x11e8) NVME=$(address_of 0x1b36:0x0010) RNG=$(address_of 0x1af4:0x1005)
export AER=$(address_of 0x1af4:0x1044) # behind a port it has the modern ID
export E1000E=$(address_of 0x8086:0x10d3) UNPLUG=$(address_of 0x8086:0x10d3 7)
export SWITCH_A=$(address_of 0x8086:0x10d3 9) SWITCH_B=$(address_of 0x8086:0x10d3 10)
export OLD_TEST=$(address_of 0x1b36:0x0005) OLD_NIC=$(address_of 0x8086:0x100e)
export GPU=$(address_of 0x1234:0x1111) GPU_AUDIO=$(address_of 0x8086:0x293e) GPU_USB=$(address_of 0x1b36:0x000d)
export ATI=$(address_of 0x1002:0x5046) BOCHS=$(addresses_of 0x1234:0x1111 | tail -1)
bind_vfio "$EDU" "$E1000E" "$NVME" "$RNG" "$AER" "$UNPLUG" "$SWITCH_A" "$SWITCH_B" "$OLD_TEST" "$OLD_NIC" \
  "$GPU" "$GPU_AUDIO" "$GPU_USB" "$ATI" "$BOCHS"
mdev() { # MODULE TYPE: makes one, prints its UUID
  local uuid; uuid=$(</proc/sys/kernel/random/uuid)
  [ -e "/sys/class/mdev_bus/$1" ] && echo "$uuid" >"/sys/class/mdev_bus/$1/mdev_supported_types/$1-$2/create" && echo "$uuid"
}
MTTY=$(mdev mtty 1) && export MTTY
MBOCHS=$(mdev mbochs small) && export MBOCHS
MDPY=$(mdev mdpy vga) && export MDPY
"$test" --gtest_filter="-Vf.*:${LAB_SKIP:-}" || exit 1
# The accesses outside the map were stopped by the IOMMU, not lost on the way.
faults=$(dmesg | grep -c 'DMAR: \[DMA Write')
echo "DMA faults: $faults"
for uuid in ${MTTY:-} ${MBOCHS:-} ${MDPY:-}; do echo 1 >"/sys/bus/mdev/devices/$uuid/remove"; done
[ "$faults" -ge 1 ]
