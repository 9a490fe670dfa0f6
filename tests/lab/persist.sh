# What is taken at every boot: persist.sh VMP
# qemu: -device pcie-root-port,id=rp1,slot=1,chassis=1 -drive file=@DISK@,if=none,id=ns,format=raw -device nvme-subsys,id=ss
# qemu: -device nvme,serial=lab,subsys=ss,bus=rp1,sriov_max_vfs=4,sriov_vq_flexible=8,sriov_vi_flexible=4,max_ioqpairs=16,msix_qsize=16,id=nv -device nvme-ns,drive=ns,shared=on,bus=nv
# qemu: -device pcie-root-port,id=rp2,slot=2,chassis=2 -device e1000e,bus=rp2
# modules: nvme e1000e
set -u
vmp=$1 config=/run/lab/config state=/run/lab/state
check() { if [ "$2" = "$3" ]; then echo "ok: $1"; else echo "FAILED: $1: expected '$2', got '$3'"; exit 1; fi; }
driver_of() { basename "$(readlink "/sys/bus/pci/devices/$1/driver")" 2>/dev/null; }
nic=0000:02:00.0 pf=0000:01:00.0
[ -e "/lib/modules/$(uname -r)" ] || modprobe vfio-pci
options=(--state $state --config $config)
# As after a reboot: the journal is of another boot, and no driver has its override.
reboot() {
  sed -i 's/"boot_id": ".*"/"boot_id": "an-earlier-one"/' $state/*.json
  echo >"/sys/bus/pci/devices/$nic/driver_override"
  echo $nic >/sys/bus/pci/drivers/vfio-pci/unbind
  [ "${1:-}" = early ] || echo $nic >/sys/bus/pci/drivers_probe
}
"$vmp" passthrough take "${options[@]}" --persistent $nic; check "taken, and at every boot" 0 $?
cat $config/passthrough.json
reboot; check "as after a reboot" e1000e "$(driver_of $nic)"
"$vmp" passthrough status "${options[@]}"
"$vmp" passthrough restore "${options[@]}" --dry-run; check "dry run" e1000e "$(driver_of $nic)"
"$vmp" passthrough restore "${options[@]}"; check "taken at boot" vfio-pci "$(driver_of $nic)"
"$vmp" passthrough restore "${options[@]}"; check "twice is once" 0 $?
reboot early; check "before any driver has it" "" "$(driver_of $nic)"
"$vmp" passthrough restore "${options[@]}"; check "taken early at boot" vfio-pci "$(driver_of $nic)"
"$vmp" passthrough release "${options[@]}" $nic; check "goes back to the driver it had when it was stored" e1000e "$(driver_of $nic)"
check "and is taken at boot no more" "" "$(ls $config)"
"$vmp" passthrough restore "${options[@]}"; check "nothing to do" e1000e "$(driver_of $nic)"

interface=$(ls "/sys/bus/pci/devices/$nic/net")
"$vmp" passthrough take "${options[@]}" --persistent $nic >/dev/null; reboot
interface=$(ls "/sys/bus/pci/devices/$nic/net"); ip addr add 192.0.2.1/24 dev "$interface"
"$vmp" passthrough restore "${options[@]}"; check "never by force: refused" 3 $?
check "the host keeps it" e1000e "$(driver_of $nic)"
ip addr flush dev "$interface"

printf 'physical_functions:\n  - {device: %s, count: 2, autoprobe: false}\n' $pf >/run/lab/sriov.yaml
"$vmp" sriov store --config $config /run/lab/sriov.yaml; check "SR-IOV file stored" 0 $?
"$vmp" sriov restore --config $config --dry-run; check "dry run" 0 "$(cat /sys/bus/pci/devices/$pf/sriov_numvfs)"
# At boot the unit may come before the driver.
echo $pf >/sys/bus/pci/drivers/nvme/unbind; check "no driver has it" "" "$(driver_of $pf)"
"$vmp" sriov restore --config $config 2>/run/lab/error; check "no driver yet" 2 $?; cat /run/lab/error
{ sleep 3; echo $pf >/sys/bus/pci/drivers_probe; } &
"$vmp" sriov restore --config $config --wait 60; check "virtual functions made at boot" 2 "$(cat /sys/bus/pci/devices/$pf/sriov_numvfs)"
"$vmp" sriov restore --config $config; check "twice is once" 0 $?
"$vmp" sriov forget --config $config; check "forgotten" 0 "$(ls $config | grep -c sriov)"
