# VFIO against edu, e1000e and nvme: vfio.sh TEST_PROGRAM
# qemu: -device pcie-root-port,id=rp1,slot=1,chassis=1 -drive file=@DISK@,if=none,id=ns,format=raw -device nvme,serial=lab,drive=ns,bus=rp1
# qemu: -device pcie-root-port,id=rp2,slot=2,chassis=2 -device e1000e,bus=rp2
# qemu: -device edu
# modules: vfio-pci nvme e1000e
set -u
address_of() { for d in /sys/bus/pci/devices/*; do [ "$(cat "$d/vendor"):$(cat "$d/device")" = "$1" ] && { basename "$d"; return; }; done; }
export EDU=$(address_of 0x1234:0x11e8) E1000E=$(address_of 0x8086:0x10d3) NVME=$(address_of 0x1b36:0x0010)
for a in "$EDU" "$E1000E" "$NVME"; do
  echo vfio-pci >"/sys/bus/pci/devices/$a/driver_override"
  [ -e "/sys/bus/pci/devices/$a/driver" ] && echo "$a" >"/sys/bus/pci/devices/$a/driver/unbind"
  echo "$a" >/sys/bus/pci/drivers_probe
done
"$1" --gtest_brief=0 || exit 1
# The accesses outside the map were stopped by the IOMMU, not lost on the way.
faults=$(dmesg | grep -c 'DMAR: \[DMA Write')
echo "DMA faults: $faults"
[ "$faults" -ge 1 ]
