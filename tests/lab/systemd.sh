# The units, started by systemd: systemd.sh VMP UNIT_FOLDER INSTALLED_VMP
# qemu: -device pcie-root-port,id=rp1,slot=1,chassis=1 -drive file=@DISK@,if=none,id=ns,format=raw -device nvme-subsys,id=ss
# qemu: -device nvme,serial=lab,subsys=ss,bus=rp1,sriov_max_vfs=4,sriov_vq_flexible=8,sriov_vi_flexible=4,max_ioqpairs=16,msix_qsize=16,id=nv -device nvme-ns,drive=ns,shared=on,bus=nv
# qemu: -device pcie-root-port,id=rp2,slot=2,chassis=2 -device e1000e,bus=rp2
# modules: nvme e1000e vfio-pci
set -u
. /run/lab/common.sh
[ -x /lib/systemd/systemd ] || { echo "systemd.sh: no systemd here"; exit 77; }
vmp=$1 units=$2 installed=$3
nic=$(address_of 0x8086:0x10d3) pf=$(address_of 0x1b36:0x0010)
# An /etc of its own, with what programs need and no unit of this machine.
etc=/run/lab/etc
mkdir -p $etc/systemd/system $etc/vm-platform
cp -a /etc/{passwd,group,nsswitch.conf,ld.so.cache} $etc/
echo 0123456789abcdef0123456789abcdef >$etc/machine-id # no first boot, at which presets decide what is enabled
mount --bind $etc /etc
mkdir -p /var/lib /var/log
for unit in vm-platform-passthrough vm-platform-sriov; do
  sed "s|$installed|$vmp|" "$units/$unit.service" >/etc/systemd/system/$unit.service
done
# As before a reboot: stored, and with its old driver.
"$vmp" passthrough take --persistent "$nic"; check "taken, and at every boot" 0 $?
printf 'physical_functions:\n  - {device: %s, count: 2, autoprobe: false}\n' "$pf" >/run/lab/sriov.yaml
"$vmp" sriov store /run/lab/sriov.yaml; check "SR-IOV file stored" 0 $?
sed -i 's/"boot_id": ".*"/"boot_id": "an-earlier-one"/' /var/lib/vm-platform/passthrough/*.json
echo >"/sys/bus/pci/devices/$nic/driver_override"
echo "$nic" >/sys/bus/pci/drivers/vfio-pci/unbind
echo "$nic" >/sys/bus/pci/drivers_probe
check "as after a reboot" e1000e "$(driver_of "$nic")"
systemctl enable vm-platform-passthrough vm-platform-sriov; check "enabled" 0 $?
# A boot: systemd as the first process of a PID namespace goes for a target that wants what multi-user.target was told
# to want, and ends when that is done.
printf '[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\nWants=%s lab-done.service\n' \
  "$(echo $(ls /etc/systemd/system/multi-user.target.wants))" >/etc/systemd/system/lab.target
cat >/etc/systemd/system/lab-done.service <<'UNIT'
[Unit]
DefaultDependencies=no
After=vm-platform-passthrough.service vm-platform-sriov.service
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
ExecStart=/bin/bash -c 'systemctl show -p Id -p Result -p ActiveState -p ExecMainStatus vm-platform-passthrough vm-platform-sriov >/run/lab/shown'
UNIT
mount -t cgroup2 none /sys/fs/cgroup
container=lab timeout -s KILL 150 unshare --pid --mount --fork --mount-proc --kill-child \
  /lib/systemd/systemd --system --unit=lab.target --log-target=console --show-status=false
cat /run/lab/shown
check "both units are active" 2 "$(grep -c '^ActiveState=active' /run/lab/shown)"
check "both ended well" 2 "$(grep -c '^Result=success' /run/lab/shown)"
check "the device is taken" vfio-pci "$(driver_of "$nic")"
check "the virtual functions are there" 2 "$(<"/sys/bus/pci/devices/$pf/sriov_numvfs")"
