# A GPU of three functions (display, audio, USB) from plan to take, VGA arbitration, ROM and back; the boot display with its
# framebuffer and console; parts of devices (mediated): gpu.sh VMP KILL_LAB GPU_LAB
# append: vga=0x318
# qemu: -device VGA,id=boot,addr=5.0
# qemu: -device pcie-root-port,id=rp1,slot=1,chassis=1
# qemu: -device VGA,bus=rp1,addr=0.0,multifunction=on -device ich9-intel-hda,bus=rp1,addr=0.1 -device qemu-xhci,bus=rp1,addr=0.2
# modules: snd-hda-intel mtty mdpy
set -u
vmp=$1 kill_lab=$2 gpu_lab=$3 state=/run/lab/state
check() { if [ "$2" = "$3" ]; then echo "ok: $1"; else echo "FAILED: $1: expected '$2', got '$3'"; exit 1; fi; }
driver_of() { basename "$(readlink "/sys/bus/pci/devices/$1/driver")" 2>/dev/null; }
decodes() { exec 9<>/dev/vga_arbiter; printf 'target PCI:%s' "$1" >&9; dd bs=1024 count=1 <&9 2>/dev/null | sed 's/.*decodes=\([^,]*\),.*/\1/'; exec 9>&-; }
gpu=0000:01:00.0 boot=0000:00:05.0
[ -e "/lib/modules/$(uname -r)" ] || modprobe vfio-pci
framebuffer=$(ls /sys/bus/platform/drivers/{vesa,efi,simple}-framebuffer 2>/dev/null | grep -m1 -E 'framebuffer\.[0-9]')
console=$(grep -l 'frame buffer' /sys/class/vtconsole/*/name | head -1 | xargs -r dirname)
echo "boot framebuffer: ${framebuffer:-none}, console: ${console:-none} ($(cat "${console:-/nonexistent}/bind" 2>/dev/null))"
# All that taking changes, as one line
picture() {
  for device in $gpu 0000:01:00.1 0000:01:00.2 $boot; do echo "$device:$(driver_of $device):$(cat /sys/bus/pci/devices/$device/driver_override)"; done
  echo "decodes $(decodes $gpu) $(decodes $boot), journal: $(ls $state/*.json 2>/dev/null)"
  [ -z "$framebuffer" ] || echo "framebuffer: $(readlink "/sys/bus/platform/devices/$framebuffer/driver"), console $(cat "$console/bind" 2>/dev/null)"
}
before=$(picture); echo "$before"
# Killed before each step of taking DEVICE, and recovered: all is as it was, up to the step after which it cannot be
kill_at_each_step() { # DEVICE
  local n status step
  for n in $(seq 0 20); do
    step=$("$kill_lab" force-take "$n" $state "$1"); status=$?; echo "$step"
    [ $status = 0 ] && return
    check "killed at step $n" 137 $status
    "$vmp" passthrough recover --state $state >/dev/null
    check "recovered from step $n: all as it was" "$before" "$(picture)"
    # Once vfio-pci has had the boot display the kernel takes its framebuffer down for good.
    [[ $1 = "$boot" && $step == *"bind $boot to vfio-pci"* ]] && return
  done
}

"$vmp" gpu list
kill_at_each_step $gpu
check "taken to the end" vfio-pci "$(driver_of $gpu)"
"$vmp" passthrough release --state $state $gpu >/dev/null; check "released" "$before" "$(picture)"

"$vmp" gpu rom $gpu --save /run/lab/gpu.rom; check "its ROM is right" 0 $?
"$vmp" passthrough take --state $state --rom /run/lab/gpu.rom --hide-hypervisor $gpu; check "taken" 0 $?
for f in 0 1 2; do check "function $f" vfio-pci "$(driver_of 0000:01:00.$f)"; done
"$vmp" passthrough status --state $state
check "the ROM is kept for the guest" 1 "$("$vmp" passthrough status --state $state --json | grep -A11 "\"$gpu\"" | grep -c '"rom_file": "/run/lab/gpu.rom"')"
"$gpu_lab" $gpu /run/lab/gpu.rom; check "opened, its ROM read, VGA arbitrated" 0 $?
"$vmp" passthrough release --state $state $gpu; check "released" "$before" "$(picture)"

# The boot display
"$vmp" passthrough plan --state $state $boot; check "the boot display is in use" 3 $?
"$vmp" passthrough take --state $state $boot 2>/run/lab/error; check "refused" 3 $?; cat /run/lab/error
if [ -n "$framebuffer" ]; then
  grep -q 'boot framebuffer fb0' /run/lab/error; check "its framebuffer is named" 0 $?
  kill_at_each_step $boot
fi
"$vmp" passthrough take --state $state --force $boot; check "taken by force" vfio-pci "$(driver_of $boot)"
"$vmp" passthrough release --state $state $boot; check "released" "" "$(driver_of $boot)"

# Parts of devices
[ -e /sys/class/mdev_bus/mtty ] || { echo "no mtty here (tests/lab/build-modules builds it)"; exit 0; }
"$vmp" gpu vgpu list
uuid=$("$vmp" gpu vgpu create mtty mtty-1); check "made" 0 $?
check "listed" 1 "$("$vmp" gpu vgpu list | grep -c "^$uuid  mtty")"
"$gpu_lab" "$uuid"; check "opened" 0 $?
"$vmp" gpu vgpu create mtty mtty-1 --uuid "$uuid" 2>/run/lab/error; check "twice is refused" 3 $?; cat /run/lab/error
"$vmp" gpu vgpu remove "$uuid"; check "removed" 0 $?
check "gone" "" "$(ls /sys/bus/mdev/devices)"
