# Virtual functions: of an NVMe controller up to VFIO and back, and network settings over rtnetlink: sriov.sh VMP VFIO_LAB_TEST
# qemu: -device pcie-root-port,id=nvport,slot=1,chassis=1,x-speed=5 -drive file=@DISK@,if=none,id=ns,format=raw -device nvme-subsys,id=ss
# qemu: -device nvme,serial=lab,subsys=ss,bus=nvport,sriov_max_vfs=4,sriov_vq_flexible=8,sriov_vi_flexible=4,max_ioqpairs=16,msix_qsize=16,id=nv -device nvme-ns,drive=ns,shared=on,bus=nv
# modules: nvme vfio-pci netdevsim
set -u
. /run/lab/common.sh
vmp=$1 vfio_test=$2
pf=$(address_of 0x1b36:0x0010)
vf=${pf%.0}.1

"$vmp" sriov list
"$vmp" sriov set $pf --count 9 2>/run/lab/error; check "more than there can be" 2 $?; cat /run/lab/error
"$vmp" sriov set $pf --count 2 --autoprobe false --dry-run; check "dry run changes nothing" 0 "$(cat /sys/bus/pci/devices/$pf/sriov_numvfs)"
"$vmp" sriov set $pf --count 2 --autoprobe false; check "two made" 2 "$(cat /sys/bus/pci/devices/$pf/sriov_numvfs)"
"$vmp" sriov set $pf --count 4; check "resized through 0" 4 "$(cat /sys/bus/pci/devices/$pf/sriov_numvfs)"
"$vmp" sriov list $pf
"$vmp" passthrough plan --state $state $pf >/run/lab/plan; check "a function with VFs is in use" 3 $?; grep 'virtual functions' /run/lab/plan
"$vmp" passthrough take --state $state $vf; check "VF taken" vfio-pci "$(driver_of $vf)"
"$vmp" sriov delete $pf 2>/run/lab/error; check "not deleted while one is taken" 3 $?; cat /run/lab/error
autoprobe=/sys/bus/pci/devices/$pf/sriov_drivers_autoprobe
"$vmp" sriov set $pf --count 2 --autoprobe true 2>/run/lab/error; check "nor resized" 3 $?
check "a refusal leaves driver probing alone" "0 4" "$(<$autoprobe) $(<${autoprobe%/*}/sriov_numvfs)"
VF=$vf "$vfio_test" --gtest_filter='Vf.Opens*' --gtest_brief=1; check "VF opened" 0 $?
"$vmp" passthrough release --state $state $vf; check "VF given back" "" "$(driver_of $vf)"
# An NVMe function has no MAC address: all is put back.
"$vmp" sriov set $pf --count 1 --autoprobe true --vf 0 --mac 52:54:00:00:00:01 2>/run/lab/error; check "rolled back" 4 $?
check "driver probing too" "0 4" "$(<$autoprobe) $(<${autoprobe%/*}/sriov_numvfs)"
"$vmp" sriov set $pf --count 4 --autoprobe true >/run/lab/changes; check "driver probing on" 1 "$(<$autoprobe)"
check "and said" 1 "$(grep -c 'driver probing of new virtual functions off -> on' /run/lab/changes)"
"$vmp" sriov set $pf --autoprobe false; check "and off" 0 "$(<$autoprobe)"
"$vmp" sriov delete $pf; check "deleted" 0 "$(cat /sys/bus/pci/devices/$pf/sriov_numvfs)"

# A physical function in VFIO itself
former=$(driver_of $pf)
echo Y >/sys/module/vfio_pci/parameters/enable_sriov
bind_vfio $pf
VFIO_PF=$pf "$vfio_test" --gtest_filter='Vf.OfA*' --gtest_brief=1; check "VFs of a PF in VFIO" 0 $?
echo 0 >/sys/bus/pci/devices/$pf/sriov_numvfs
echo >/sys/bus/pci/devices/$pf/driver_override
echo $pf >/sys/bus/pci/devices/$pf/driver/unbind; echo $pf >/sys/bus/pci/drivers_probe
check "PF given back" "$former" "$(driver_of $pf)"

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
# What the driver cannot do is named, and all is as it was.
"$vmp" sriov set "$net" --vf 1 --node-guid 00:11:22:33:44:55:66:77 2>/run/lab/error; check "GUID of an Ethernet function" 4 $?
cat /run/lab/error; grep -q 'driver netdevsim cannot' /run/lab/error; check "driver named" 0 $?
sed 's/count: 3/count: 5/; s/rss_query: true/port_guid: 00:11:22:33:44:55:66:77/' /run/lab/sriov.yaml >/run/lab/bad.yaml
"$vmp" sriov list --json "$net" >/run/lab/before
"$vmp" sriov apply /run/lab/bad.yaml >/run/lab/changes 2>/run/lab/error; check "file that fails half-way" 4 $?
cat /run/lab/changes /run/lab/error
"$vmp" sriov list --json "$net" >/run/lab/after
check "rolled back, number and settings" "" "$(diff /run/lab/before /run/lab/after)"

# More functions than a message of the kernel holds with their statistics
start=$SECONDS
"$vmp" sriov set "$net" --count 256; check "256 made" 0 $?
"$vmp" sriov set "$net" --vf 255 --mac 52:54:00:00:00:ff; check "the last of 256" 0 $?
"$vmp" sriov list --json "$net" >/run/lab/list
check "all 256 listed" 256 "$(grep -c '"index"' /run/lab/list)"
check "the last one among them" 1 "$(grep -c '52:54:00:00:00:ff' /run/lab/list)"
echo "256 functions took $((SECONDS - start)) s"
"$vmp" sriov delete "$net"; check "deleted" 0 $?

# Rates of an eswitch in switchdev mode
echo "2 1" >/sys/bus/netdevsim/new_device
net=$(ls /sys/bus/netdevsim/devices/netdevsim2/net)
cat >/run/lab/rates.yaml <<YAML
physical_functions:
  - device: $net
    count: 3
    switchdev: true
    rate_groups: [{name: guests, min_rate: 10, max_rate: 500}]
    vfs:
      - {index: 0, min_rate: 1, max_rate: 100}
      - {index: 2, max_rate: 200, rate_group: guests}
YAML
"$vmp" sriov apply --dry-run /run/lab/rates.yaml; check "dry run" 0 $?
"$vmp" sriov apply /run/lab/rates.yaml >/run/lab/changes; check "rates applied" 0 $?
check "converged" "Nothing to do: all is as asked for." "$("$vmp" sriov apply --dry-run /run/lab/rates.yaml)"
"$vmp" sriov list "$net"
devlink port function rate show >/run/lab/rates && cat /run/lab/rates
check "seen by others too" 1 "$(grep -c 'parent guests' /run/lab/rates)"
"$vmp" sriov set "$net" --vf 2 --rate-group ''; check "left its group" 0 "$(devlink port function rate show | grep -c 'parent guests')"
"$vmp" sriov set "$net" --group guests --max-rate 300; check "group changed" 0 $?

# What another mode loses is put back, also what the file does not name.
"$vmp" sriov set "$net" --vf 1 --max-rate 50 --rate-group guests; check "a member" 0 $?
"$vmp" sriov set "$net" --group spare --max-rate 40; check "another group" 0 $?
shown() { devlink dev eswitch show netdevsim/netdevsim2; devlink port function rate show | sort; "$vmp" sriov list --json "$net"; }
cat >/run/lab/bad.yaml <<YAML
physical_functions:
  - device: $net
    count: 2
    switchdev: false
    vfs: [{index: 0, vlan: 5}, {index: 1, port_guid: 00:11:22:33:44:55:66:77}]
YAML
shown >/run/lab/before
"$vmp" sriov apply /run/lab/bad.yaml 2>/run/lab/error; check "another mode, failing half-way" 4 $?; cat /run/lab/error
shown >/run/lab/after; check "mode, groups, members and rates are back" "" "$(diff /run/lab/before /run/lab/after)"
sed -i 's/switchdev: false/rate_groups: [{name: guests, max_rate: 60}, {name: new}]/; s/vlan: 5/rate_group: new/' /run/lab/bad.yaml
"$vmp" sriov apply /run/lab/bad.yaml 2>/run/lab/error; check "groups, failing half-way" 4 $?
shown >/run/lab/after; check "groups are back, the new one is gone" "" "$(diff /run/lab/before /run/lab/after)"
"$vmp" sriov set "$net" --switchdev false; check "back to legacy" 0 $?
shown >/run/lab/before
sed -i 's/rate_groups:/switchdev: true\n    rate_groups:/' /run/lab/bad.yaml
"$vmp" sriov apply /run/lab/bad.yaml 2>/run/lab/error; check "switchdev mode, failing half-way" 4 $?
shown >/run/lab/after; check "legacy mode is back" "" "$(diff /run/lab/before /run/lab/after)"
"$vmp" sriov set "$net" --vf 0 --rate-group guests 2>/run/lab/error; check "no groups in legacy mode" 4 $?; cat /run/lab/error
