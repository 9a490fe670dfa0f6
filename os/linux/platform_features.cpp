// What a Linux host can do, found by asking for it.
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/membarrier.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <vm_platform/dirty_tracking.hpp>
#include <vm_platform/memory.hpp>
#include <vm_platform/platform.hpp>
#include <vm_platform/timer.hpp>

#include "os/linux/kvm_probe.hpp"
#include "os/linux/soft_dirty.hpp"
#include "os/linux/sysfs.hpp"
#include "os/linux/uffd.hpp"
#include "os/timer_host.hpp"

namespace vm_platform {
namespace {

FeatureState find_iommu(const HostRoots& roots) {
  const std::size_t groups = sysfs::names_in(roots.sys + "/kernel/iommu_groups").size();
  if (groups != 0) return {true, true, std::to_string(groups) + " IOMMU groups"};
  // The firmware's tables tell of one that the kernel was not told to use.
  const std::string tables = roots.sys + "/firmware/acpi/tables/";
  std::error_code error;
  for (const char* table : {"DMAR", "IVRS", "IORT"}) {
    if (std::filesystem::exists(tables + table, error))
      return {true, false, std::string("there is an IOMMU (ACPI table ") + table + "), but it is off: no groups"};
  }
  const bool units = !sysfs::names_in(roots.sys + "/class/iommu").empty();
  return {units, false, units ? "there is an IOMMU, but it is off: no groups" : "no IOMMU"};
}

FeatureState find_vfio(const HostRoots& roots) {
  const std::string device = roots.dev + "/vfio/vfio";
  if (::access(device.c_str(), F_OK) != 0) return {false, false, "no " + device + ": VFIO is not loaded"};
  if (::access(device.c_str(), R_OK | W_OK) != 0) return {true, false, device + ": " + std::strerror(errno)};
  return {true, true, "VFIO is loaded"};
}

FeatureState find_userfaultfd(const HostRoots& roots) {
  if (!roots.is_this_host()) {
    const auto allowed = sysfs::number(roots.proc + "/sys/vm/unprivileged_userfaultfd");
    if (!allowed) return {false, false, "the kernel has no userfaultfd"};
    return {true, *allowed != 0, "vm.unprivileged_userfaultfd is " + std::to_string(*allowed)};
  }
  const std::uint64_t features = uffd::features();
  if (features == 0) {
    const int error = errno;
    const Descriptor user_only(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* UFFD_USER_MODE_ONLY */)));
    if (user_only) return {true, false, "userfaultfd is allowed for faults of user code only"};
    return {error != ENOSYS, false, std::string("userfaultfd: ") + std::strerror(error)};
  }
  std::string detail = "userfaultfd with faults for missing pages";
  if ((features & UFFD_FEATURE_PAGEFAULT_FLAG_WP) != 0) detail += ", write protection";
  if ((features & uffd::kFeatureWpHugetlbfsShmem) != 0) detail += " (shared memory too)";
  if ((features & uffd::kFeatureWpAsync) != 0) detail += ", asynchronous write protection";
  return {true, true, detail};
}

FeatureState find_pagemap_scan() {
  auto memory = MappedMemory::create_private(host_page_size());
  if (!memory) return {false, false, memory.error().message()};
  const auto tracker = DirtyTracker::start(*memory, {.method = DirtyMethod::PagemapScan});
  if (tracker) return {true, true, "pagemap-scan works"};
  return {false, false, tracker.error().reason()};
}

/// A tracker of this kind would clear the bits of the whole process, which somebody else may be using.
FeatureState find_soft_dirty() {
  const auto files = SoftDirtyFiles::open();
  if (files) return {true, true, "soft-dirty works"};
  return {false, false, files.error().message()};
}

FeatureState find_memfd() {
  const Descriptor memfd(::memfd_create("probe", MFD_CLOEXEC));
  if (memfd) return {true, true, "memfd_create works"};
  return {errno != ENOSYS, false, std::string("memfd_create: ") + std::strerror(errno)};
}

FeatureState find_executable_memory() {
  const JitSupport& support = jit_support();
  if (support.dual_mapping) return {true, true, "code can be written through a second mapping"};
  if (support.protection_switch) return {true, true, "only by switching protection: " + support.reason};
  return {false, false, support.reason};
}

FeatureState find_io_uring() {
  io_uring_params parameters{};
  const Descriptor ring(static_cast<int>(::syscall(SYS_io_uring_setup, 2, &parameters)));
  if (ring) return {true, true, "io_uring works"};
  return {errno != ENOSYS, false, std::string("io_uring_setup: ") + std::strerror(errno)};
}

FeatureState find_membarrier() {
  const long commands = ::syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0U, 0);
  if (commands < 0) return {errno != ENOSYS, false, std::string("membarrier: ") + std::strerror(errno)};
  const bool sync_core = (commands & MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE) != 0;
  return {true, sync_core, sync_core ? "membarrier with SYNC_CORE" : "membarrier without SYNC_CORE"};
}

FeatureState find_huge_pages(const HostRoots& roots) {
  std::uint64_t total = 0, available = 0;
  const std::string folder = roots.sys + "/kernel/mm/hugepages/";
  const auto pools = sysfs::names_in(folder);
  for (const std::string& pool : pools) {
    total += sysfs::number(folder + pool + "/nr_hugepages").value_or(0);
    available += sysfs::number(folder + pool + "/free_hugepages").value_or(0);
  }
  if (total == 0) return {!pools.empty(), false, "no huge pages are reserved"};
  return {true, available != 0, std::to_string(available) + " of " + std::to_string(total) + " huge pages are free"};
}

FeatureState find_transparent_huge_pages(const HostRoots& roots) {
  const auto modes = sysfs::read(roots.sys + "/kernel/mm/transparent_hugepage/enabled");
  if (!modes) return {false, false, "the kernel has no transparent huge pages"};
  const bool off = modes->find("[never]") != std::string::npos;
  return {true, !off, "transparent huge pages: " + *modes};
}

/// The soft limit in a line of /proc/self/limits ("Max locked memory  65536  65536  bytes"); nothing for unlimited.
std::optional<std::uint64_t> limit(const std::string& limits, const char* name) {
  const auto line = sysfs::line_value(limits, name);
  std::uint64_t value = 0;
  if (!line || std::from_chars(line->data(), line->data() + line->size(), value).ec != std::errc()) return std::nullopt;
  return value;
}

}  // namespace

PlatformFeatures PlatformFeatures::detect(const Options& options) {
  const HostRoots& roots = options.roots;
  PlatformFeatures features;
  features.kvm = probe_kvm(roots.dev + "/kvm", options.probe_kvm);
  features.iommu = find_iommu(roots);
  features.vfio = find_vfio(roots);
  features.userfaultfd = find_userfaultfd(roots);
  features.explicit_huge_pages = find_huge_pages(roots);
  features.transparent_huge_pages = find_transparent_huge_pages(roots);
  features.max_mappings = sysfs::number(roots.proc + "/sys/vm/max_map_count").value_or(0);
  const std::string limits = sysfs::read(roots.proc + "/self/limits").value_or("");
  features.lockable_memory = limit(limits, "Max locked memory");
  features.open_files = limit(limits, "Max open files");
  if (!roots.is_this_host()) {
    const FeatureState untried{false, false, "can be tried on the host itself only"};
    features.pagemap_scan = features.soft_dirty = features.memfd = features.executable_memory = untried;
    features.io_uring = features.membarrier = features.invariant_counter = untried;
    return features;
  }
  features.pagemap_scan = find_pagemap_scan();
  features.soft_dirty = find_soft_dirty();
  features.memfd = find_memfd();
  features.executable_memory = find_executable_memory();
  features.io_uring = find_io_uring();
  features.membarrier = find_membarrier();
  const char* unusable = timer_host::counter_unusable();
  features.invariant_counter = {unusable == nullptr, unusable == nullptr,
                                unusable == nullptr ? "the time is read from the CPU's own counter" : unusable};
  return features;
}

}  // namespace vm_platform
