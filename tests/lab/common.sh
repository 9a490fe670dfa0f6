# What the lab's scripts share.
state=/run/lab/state

# Says ok, or what was expected; a script ends at the first that fails.
check() { if [ "$2" = "$3" ]; then echo "ok: $1"; else echo "FAILED: $1: expected '$2', got '$3'"; exit 1; fi; }

# Addresses of the functions with these ids (0x8086:0x10d3) and, if given, this subsystem device, one a line. Without
# programs: starting one is slow here.
addresses_of() {
  local d
  for d in /sys/bus/pci/devices/*; do
    [ "$(<"$d/vendor"):$(<"$d/device")" = "$1" ] || continue
    [ $# -lt 2 ] || [ $(($(<"$d/subsystem_device"))) = "$2" ] || continue
    echo "${d##*/}"
  done
}
address_of() { local found; found=$(addresses_of "$@"); echo "${found%%$'\n'*}"; }
driver_of() { local l; l=$(readlink "/sys/bus/pci/devices/$1/driver") && echo "${l##*/}"; }
group_of() { local l; l=$(readlink "/sys/bus/pci/devices/$1/iommu_group") && echo "${l##*/}"; }

# Binds functions to vfio-pci without the tool.
bind_vfio() {
  local a
  for a in "$@"; do
    echo vfio-pci >"/sys/bus/pci/devices/$a/driver_override"
    [ -e "/sys/bus/pci/devices/$a/driver" ] && echo "$a" >"/sys/bus/pci/devices/$a/driver/unbind"
    echo "$a" >/sys/bus/pci/drivers_probe
  done
}
