# A GPU of three functions (display, audio, USB) with the boot console on it, from plan to take, VGA arbitration, ROM and
# back; and parts of devices (mediated): gpu.sh VMP KILL_LAB GPU_LAB
# append: vga=0x318
# qemu: -device pcie-root-port,id=rp1,slot=1,chassis=1
# qemu: -device VGA,bus=rp1,addr=0.0,multifunction=on -device ich9-intel-hda,bus=rp1,addr=0.1 -device qemu-xhci,bus=rp1,addr=0.2
# modules: snd-hda-intel mtty mdpy
set -u
vmp=$1 kill_lab=$2 gpu_lab=$3 state=/run/lab/state
check() { if [ "$2" = "$3" ]; then echo "ok: $1"; else echo "FAILED: $1: expected '$2', got '$3'"; exit 1; fi; }
driver_of() { basename "$(readlink "/sys/bus/pci/devices/$1/driver")" 2>/dev/null; }
gpu=0000:01:00.0
[ -e "/lib/modules/$(uname -r)" ] || modprobe vfio-pci
framebuffer=$(ls /sys/bus/platform/drivers/{vesa,efi,simple}-framebuffer 2>/dev/null | grep -m1 -E 'framebuffer\.[0-9]')
console=$(grep -l 'frame buffer' /sys/class/vtconsole/*/name | head -1 | xargs -r dirname)
echo "boot framebuffer: ${framebuffer:-none}, console: ${console:-none} ($(cat "${console:-/nonexistent}/bind" 2>/dev/null))"
"$vmp" gpu list
"$vmp" passthrough plan --state $state $gpu; check "the boot display is in use" 3 $?
[ -n "$framebuffer" ] && { "$vmp" passthrough plan --state $state $gpu | grep -q "boot framebuffer"; check "its framebuffer is named" 0 $?; }
"$vmp" passthrough take --state $state $gpu 2>/run/lab/error; check "refused" 3 $?; cat /run/lab/error
former=$(driver_of $gpu) audio=$(driver_of 0000:01:00.1) usb=$(driver_of 0000:01:00.2)

# Killed before each step, recovered. Once vfio-pci has had the GPU the kernel takes the boot framebuffer down for good.
drivers_back() {
  [ "$(driver_of $gpu)" = "$former" ] && [ "$(driver_of 0000:01:00.1)" = "$audio" ] && [ "$(driver_of 0000:01:00.2)" = "$usb" ] &&
    [ -z "$(cat /sys/bus/pci/devices/0000:01:00.?/driver_override | grep -v null)" ] && [ -z "$(ls $state/*.json 2>/dev/null)" ]
}
screen_back() {
  { [ -z "$framebuffer" ] || [ -e "/sys/bus/platform/devices/$framebuffer/driver" ]; } && { [ -z "$console" ] || [ "$(cat "$console/bind")" = 1 ]; }
}
bound=
for n in $(seq 0 20); do
  step=$("$kill_lab" force-take "$n" $state $gpu); status=$?; echo "$step"
  [ $status = 0 ] && { "$vmp" passthrough release --state $state $gpu >/dev/null; break; }
  check "killed at step $n" 137 $status
  "$vmp" passthrough recover --state $state >/dev/null; drivers_back; check "recovered from step $n: drivers as they were" 0 $?
  [ -n "$bound" ] || { screen_back; check "recovered from step $n: screen as it was" 0 $?; }
  [[ $step == *"bind $gpu to vfio-pci"* ]] && bound=1
done
check "taken to the end" 0 $status

"$vmp" gpu rom $gpu --save /run/lab/gpu.rom; check "its ROM is right" 0 $?
"$vmp" passthrough take --state $state --force --rom /run/lab/gpu.rom --hide-hypervisor $gpu; check "taken by force" 0 $?
for f in 0 1 2; do check "function $f" vfio-pci "$(driver_of 0000:01:00.$f)"; done
"$vmp" passthrough status --state $state
check "the ROM is kept for the guest" 1 "$("$vmp" passthrough status --state $state --json | grep -c '"rom_file": "/run/lab/gpu.rom"')"
"$gpu_lab" $gpu /run/lab/gpu.rom; check "opened, its ROM read, VGA arbitrated" 0 $?
"$vmp" passthrough release --state $state $gpu; check "released" 0 $?
check "audio has its driver" "$audio" "$(driver_of 0000:01:00.1)"
check "USB has its driver" "$usb" "$(driver_of 0000:01:00.2)"
drivers_back; check "all is as it was" 0 $?

# Parts of devices
[ -e /sys/class/mdev_bus/mtty ] || { echo "no mtty here (tests/lab/build-modules builds it)"; exit 0; }
"$vmp" gpu vgpu list
uuid=$("$vmp" gpu vgpu create mtty mtty-1); check "made" 0 $?
check "listed" 1 "$("$vmp" gpu vgpu list | grep -c "^$uuid  mtty")"
"$gpu_lab" "$uuid"; check "opened" 0 $?
"$vmp" gpu vgpu create mtty mtty-1 --uuid "$uuid" 2>/run/lab/error; check "twice is refused" 1 $?; cat /run/lab/error
"$vmp" gpu vgpu remove "$uuid"; check "removed" 0 $?
check "gone" "" "$(ls /sys/bus/mdev/devices)"
