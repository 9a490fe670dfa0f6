# Virtual functions: of an NVMe controller up to VFIO and back, and network settings over rtnetlink: sriov.sh VMP
# qemu: -device pcie-root-port,id=rp1,slot=1,chassis=1 -drive file=@DISK@,if=none,id=ns,format=raw -device nvme-subsys,id=ss
# qemu: -device nvme,serial=lab,subsys=ss,bus=rp1,sriov_max_vfs=4,sriov_vq_flexible=8,sriov_vi_flexible=4,max_ioqpairs=16,msix_qsize=16,id=nv -device nvme-ns,drive=ns,shared=on,bus=nv
# modules: nvme vfio-pci netdevsim
set -u
vmp=$1 state=/run/lab/state
check() { if [ "$2" = "$3" ]; then echo "ok: $1"; else echo "FAILED: $1: expected '$2', got '$3'"; exit 1; fi; }
driver_of() { basename "$(readlink "/sys/bus/pci/devices/$1/driver")" 2>/dev/null; }
pf=0000:01:00.0 vf=0000:01:00.1

"$vmp" sriov list
"$vmp" sriov set $pf --count 9 2>/run/lab/error; check "more than there can be" 2 $?; cat /run/lab/error
"$vmp" sriov set $pf --count 2 --autoprobe false --dry-run; check "dry run changes nothing" 0 "$(cat /sys/bus/pci/devices/$pf/sriov_numvfs)"
"$vmp" sriov set $pf --count 2 --autoprobe false; check "two made" 2 "$(cat /sys/bus/pci/devices/$pf/sriov_numvfs)"
"$vmp" sriov set $pf --count 4; check "resized through 0" 4 "$(cat /sys/bus/pci/devices/$pf/sriov_numvfs)"
"$vmp" sriov list $pf
"$vmp" passthrough plan --state $state $pf >/run/lab/plan; check "a function with VFs is in use" 3 $?; grep 'virtual functions' /run/lab/plan
"$vmp" passthrough take --state $state $vf; check "VF taken" vfio-pci "$(driver_of $vf)"
"$vmp" sriov delete $pf 2>/run/lab/error; check "not deleted while one is taken" 3 $?; cat /run/lab/error
"$vmp" passthrough release --state $state $vf; check "VF given back" "" "$(driver_of $vf)"
"$vmp" sriov delete $pf; check "deleted" 0 "$(cat /sys/bus/pci/devices/$pf/sriov_numvfs)"

[ -e /sys/bus/netdevsim/new_device ] || { echo "no netdevsim here (tests/lab/build-modules builds it)"; exit 0; }
echo "1 1" >/sys/bus/netdevsim/new_device
echo 300 >/sys/kernel/debug/netdevsim/netdevsim1/max_vfs
net=$(ls /sys/bus/netdevsim/devices/netdevsim1/net)
cat >/run/lab/sriov.yaml <<YAML
physical_functions:
  - device: $net
    count: 3
    vfs:
      - {index: 0, mac: 52:54:00:00:00:01, vlan: 100, qos: 3}
      - {index: 1, vlan: 7, protocol: 802.1ad, min_rate: 10, max_rate: 1000, trust: true}
      - {index: 2, spoof_check: true, link: disable, rss_query: true}
YAML
"$vmp" sriov apply --dry-run /run/lab/sriov.yaml; check "dry run" 0 $?
"$vmp" sriov apply /run/lab/sriov.yaml; check "applied" 0 $?
check "converged" "Nothing to do: all is as asked for." "$("$vmp" sriov apply --dry-run /run/lab/sriov.yaml)"
"$vmp" sriov list "$net"
check "seen by others too" 1 "$(ip link show "$net" 2>/dev/null | grep -c '52:54:00:00:00:01')"
"$vmp" sriov set "$net" --vf 1 --mac 52:54:00:00:00:02; check "set one" 0 $?
"$vmp" sriov set "$net" --vf 1 --mac 01:00:00:00:00:02 2>/dev/null; check "multicast refused" 2 $?
"$vmp" sriov set "$net" --count 256; check "256 made" 0 $?
"$vmp" sriov set "$net" --vf 255 --mac 52:54:00:00:00:ff; check "the last of 256" 0 $?
"$vmp" sriov list --json "$net" >/run/lab/list
check "all 256 listed" 256 "$(grep -c '"index"' /run/lab/list)"
check "the last one among them" 1 "$(grep -c '52:54:00:00:00:ff' /run/lab/list)"
"$vmp" sriov delete "$net"; check "deleted" 0 $?
