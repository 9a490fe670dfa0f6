# Taking and giving back, with refusals, and with the tool killed before every step: take.sh VMP KILL_LAB
# qemu: -device pcie-root-port,id=nvport,slot=1,chassis=1,x-speed=5 -drive file=@DISK@,if=none,id=ns,format=raw -device nvme-subsys,id=ss
# qemu: -device nvme,serial=lab,subsys=ss,bus=nvport,sriov_max_vfs=4,sriov_vq_flexible=8,sriov_vi_flexible=4,max_ioqpairs=16,msix_qsize=16,id=nv -device nvme-ns,drive=ns,shared=on,bus=nv
# qemu: -device pcie-root-port,id=nicport,slot=2,chassis=2,x-speed=5 -device e1000e,bus=nicport
# qemu: -device pcie-root-port,id=oldport,slot=3,chassis=3,x-speed=5 -device pcie-pci-bridge,id=old,bus=oldport -device pci-testdev,bus=old,addr=1 -device e1000,bus=old,addr=2
# modules: nvme e1000e e1000 ext4
set -u
. /run/lab/common.sh
vmp=$1 kill_lab=$2
# The tool loads vfio-pci itself where it can find modules.
[ -e "/lib/modules/$(uname -r)" ] || modprobe vfio-pci
for i in $(seq 50); do [ -e /dev/nvme0n1 ] && break; sleep 0.1; done
nic=$(address_of 0x8086:0x10d3) nvme=$(address_of 0x1b36:0x0010) bridged=$(address_of 0x8086:0x100e)
interface=$(ls "/sys/bus/pci/devices/$nic/net")

"$vmp" passthrough plan --state $state "$nic"; check "plan of a free NIC" 0 $?
"$vmp" passthrough take --state $state --dry-run "$nic" >/dev/null; check "dry run" e1000e "$(driver_of "$nic")"

# In use: each reason named, nothing changed
ip link set "$interface" up; ip addr add 192.0.2.1/24 dev "$interface"; ip route add default via 192.0.2.254 dev "$interface"
"$vmp" passthrough take --state $state "$nic" 2>/run/lab/error; check "NIC in use is refused" 3 $?
cat /run/lab/error
grep -q 'has the default route' /run/lab/error && grep -q '192.0.2.1' /run/lab/error; check "both reasons named" 0 $?
check "driver stays" e1000e "$(driver_of "$nic")"
ip addr flush dev "$interface"; ip link set "$interface" down
mkfs.ext4 -q /dev/nvme0n1
mkdir -p /run/lab/disk; mount /dev/nvme0n1 /run/lab/disk
"$vmp" passthrough take --state $state "$nvme" 2>/run/lab/error; check "disk in use is refused" 3 $?
cat /run/lab/error; grep -q "mounted on /run/lab/disk" /run/lab/error; check "mount named" 0 $?
umount /run/lab/disk
# In a mount namespace of somebody else, first of a process, then of none
refused() { # WHAT TEXT
  "$vmp" passthrough take --state $state "$nvme" 2>/run/lab/error; check "$1 is refused" 3 $?
  cat /run/lab/error; grep -q "$2" /run/lab/error; check "$1 is named" 0 $?
}
unshare -m --propagation private sh -c 'mount /dev/nvme0n1 /run/lab/disk && touch /run/lab/mounted && exec sleep 1000' & sleeper=$!
until [ -e /run/lab/mounted ]; do sleep 0.1; done
refused "disk mounted in a container" "mounted on /run/lab/disk in the mount namespace of sleep (pid $sleeper)"
kill $sleeper; wait $sleeper 2>/dev/null
mkdir -p /run/lab/spaces && mount --bind /run/lab/spaces /run/lab/spaces && mount --make-private /run/lab/spaces
touch /run/lab/spaces/mnt
unshare --mount=/run/lab/spaces/mnt --propagation private mount /dev/nvme0n1 /run/lab/disk
refused "disk that nobody shows mounted" "/dev/nvme0n1 is claimed in the kernel"
umount /run/lab/spaces/mnt; umount /run/lab/spaces
# A network interface in another network namespace
ip netns add elsewhere; ip link set "$interface" netns elsewhere
"$vmp" passthrough take --state $state "$nic" 2>/run/lab/error; check "NIC elsewhere is refused" 3 $?
cat /run/lab/error; grep -q "in another network namespace" /run/lab/error; check "and why" 0 $?
ip netns del elsewhere
for i in $(seq 50); do [ -e "/sys/bus/pci/devices/$nic/net/$interface" ] && break; sleep 0.1; done
exec 5<>/dev/nvme0; "$vmp" passthrough take --state $state "$nvme" 2>/run/lab/error; check "held node is refused" 3 $?
cat /run/lab/error; exec 5>&-

# Take and release
"$vmp" passthrough take --state $state "$nic"; check "take" 0 $?
check "bound" vfio-pci "$(driver_of "$nic")"
"$vmp" passthrough status --state $state
"$vmp" passthrough take --state $state "$nic" >/dev/null; check "taking twice changes nothing" 0 $?
exec 6<>"/dev/vfio/$(basename "$(readlink "/sys/bus/pci/devices/$nic/iommu_group")")"
"$vmp" passthrough release --state $state "$nic" 2>/run/lab/error; check "release while held is refused" 3 $?
cat /run/lab/error; exec 6>&-
# A guest that does not let go
"$kill_lab" hold 0 - "$nic" >/run/lab/held & holder=$!
until grep -q held /run/lab/held; do sleep 0.1; done
start=$SECONDS
"$vmp" passthrough release --force --unbind-timeout 2 --state $state "$nic" 2>/run/lab/error; check "held by force: time is up" 1 $?
[ $((SECONDS - start)) -lt 30 ]; check "in time" 0 $?
cat /run/lab/error; grep -q "kill_lab (pid $holder)" /run/lab/error; check "the holder is named" 0 $?
"$vmp" passthrough status --state $state; check "status while it lasts" 0 $?
"$vmp" passthrough recover --state $state 2>/run/lab/error; check "recover while it lasts" 1 $?
cat /run/lab/error; grep -q "still letting go" /run/lab/error; check "and why" 0 $?
kill -9 $holder; wait $holder 2>/dev/null
for i in $(seq 100); do [ -z "$(driver_of "$nic")" ] && break; sleep 0.1; done
"$vmp" passthrough recover --state $state; check "recover" 0 $?
check "given back after all" e1000e "$(driver_of "$nic")"
"$vmp" passthrough take --state $state "$nic" >/dev/null; check "taken again" 0 $?
"$vmp" passthrough release --state $state "$nic"; check "release" 0 $?
check "former driver" e1000e "$(driver_of "$nic")"
check "override cleared" "(null)" "$(cat "/sys/bus/pci/devices/$nic/driver_override")"
"$vmp" passthrough release --state $state "$nic" 2>/dev/null; check "nothing left to release" 3 $?
"$vmp" passthrough take --state $state 00:1f.7 2>/dev/null; check "no such device" 2 $?

# Two devices in one group move together
"$vmp" passthrough take --state $state "$bridged"; check "take one of a group" 0 $?
check "it is bound" vfio-pci "$(driver_of "$bridged")"
"$vmp" iommu groups "$bridged"
"$vmp" passthrough release --state $state "$bridged" >/dev/null; check "group released" e1000 "$(driver_of "$bridged")"

# Killed before every step of taking, of recovering, and of releasing
for device in "$nvme"; do
  former=$(driver_of "$device")
  for verb in take release; do
    for n in $(seq 0 9); do
      [ $verb = release ] && { "$vmp" passthrough take --state $state "$device" >/dev/null 2>&1; check "take before release" 0 $?; }
      "$kill_lab" $verb "$n" $state "$device"; status=$?
      [ $status = 137 ] && { "$kill_lab" recover 0 $state "$device"; "$vmp" passthrough recover --state $state >/dev/null; }
      [ $status = 0 ] && [ $verb = take ] && "$vmp" passthrough release --state $state "$device" >/dev/null
      [ "$(driver_of "$device")" = "$former" ] && [ "$(cat "/sys/bus/pci/devices/$device/driver_override")" = "(null)" ] &&
        [ -z "$(ls $state/*.json 2>/dev/null)" ]
      check "$verb $device killed at step $n (status $status): as it was" 0 $?
      [ $status = 0 ] && break
    done
    check "$verb ran to its end" 0 $status
  done
done
