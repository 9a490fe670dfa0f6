# The OS layer where more is to be had than on most machines: soft-dirty bits, huge pages, two NUMA nodes, an isolated CPU,
# one that goes offline, a cpuset, KVM, VFIO, an IOMMU: os.sh OS_TEST OS_LIMITS_TEST VMP
# qemu: -smp 4 -object memory-backend-ram,id=m0,size=1G -object memory-backend-ram,id=m1,size=1G
# qemu: -numa node,nodeid=0,cpus=0-1,memdev=m0 -numa node,nodeid=1,cpus=2-3,memdev=m1
# append: isolcpus=3
# modules: kvm-amd vfio-pci
# QEMU 7.2's emulated SVM with threads side by side: where KVM starts and ends on a busy host, the CPUs, sooner or later,
# do nothing but take timer interrupts.
# tcg: thread=single
set -u
os_test=$1 limits_test=$2 vmp=$3 failed=0
check() { # WHAT COMMAND...
  local what=$1; shift
  if "$@"; then echo "ok: $what"; else echo "FAILED: $what"; failed=1; fi
}
says() { # TEXT COMMAND...: the command's output has the text
  local text=$1 output; shift
  output=$("$@" 2>&1)
  grep -qE -- "$text" <<<"$output" || { echo "$output"; echo "-- lacks: $text"; return 1; }
}

echo 16 >/proc/sys/vm/nr_hugepages
export VMP_TEST_DIRTY=soft-dirty,userfaultfd VMP_TEST_HUGE_PAGES=1
check "os_test" "$os_test" --gtest_brief=1
# With huge pages in the pool, all of them taken, a few mappings allowed.
echo 20000 >/proc/sys/vm/max_map_count
check "os_limits_test" "$limits_test"

export XDG_RUNTIME_DIR=/run
check "an isolated CPU is not used by default" says 'allowed: 0-2$' "$vmp" host --no-kvm-probe
check "NUMA nodes" says '"node": 1' "$vmp" host --no-kvm-probe --json
# How fast it is depends on what runs beside the lab.
check "kvm is measured" says "^(good|slow) +kvm .*million instructions per second" "$vmp" doctor
for id in iommu vfio userfaultfd huge-pages; do
  check "$id is found to be good" says "^good +$id" "$vmp" doctor
done

echo 0 >/sys/devices/system/cpu/cpu1/online
check "CPU 1 is offline" says '3 online \(0,2-3\), allowed: 0,2$' "$vmp" host --no-kvm-probe
check "threads with a CPU offline" "$os_test" --gtest_brief=1 --gtest_filter='ThreadingTest.*:TopologyTest.ThisHost'
echo 1 >/sys/devices/system/cpu/cpu1/online

mount -t cgroup2 cgroup /sys/fs/cgroup && echo +cpuset >/sys/fs/cgroup/cgroup.subtree_control
mkdir -p /sys/fs/cgroup/lab && echo 1-2 >/sys/fs/cgroup/lab/cpuset.cpus
in_cpuset() { (echo $BASHPID >/sys/fs/cgroup/lab/cgroup.procs && exec "$@"); }
check "a cpuset bounds what is allowed" says 'allowed: 1-2$' in_cpuset "$vmp" host --no-kvm-probe
check "threads in a cpuset" in_cpuset "$os_test" --gtest_brief=1 --gtest_filter='ThreadingTest.*:TopologyTest.ThisHost'
exit $failed
