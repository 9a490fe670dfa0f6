// What a Linux host can do, found by asking for it.
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/membarrier.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <vm_platform/dirty_tracking.hpp>
#include <vm_platform/memory.hpp>
#include <vm_platform/platform.hpp>
#include <vm_platform/timer.hpp>

#include "os/linux/kvm_probe.hpp"
#include "os/linux/sysfs.hpp"
#include "os/linux/uffd.hpp"
#include "os/timer_host.hpp"

namespace vm_platform {
namespace {

std::size_t entries_in(const std::string& folder) {
  std::error_code error;
  std::size_t count = 0;
  for (auto it = std::filesystem::directory_iterator(folder, error);
       !error && it != std::filesystem::directory_iterator(); it.increment(error))
    ++count;
  return count;
}

FeatureState find_iommu(const HostRoots& roots) {
  const std::size_t groups = entries_in(roots.sys + "/kernel/iommu_groups");
  if (groups != 0) return {true, true, std::to_string(groups) + " IOMMU groups"};
  const bool units = entries_in(roots.sys + "/class/iommu") != 0;
  return {units, false, units ? "there is an IOMMU, but it is off: no groups" : "no IOMMU"};
}

FeatureState find_vfio(const HostRoots& roots) {
  if (!roots.is_this_host()) return {false, false, "not asked on another host"};
  if (::access("/dev/vfio/vfio", F_OK) != 0) return {false, false, "no /dev/vfio/vfio: VFIO is not loaded"};
  if (::access("/dev/vfio/vfio", R_OK | W_OK) != 0)
    return {true, false, std::string("/dev/vfio/vfio: ") + std::strerror(errno)};
  return {true, true, "VFIO is loaded"};
}

FeatureState find_userfaultfd() {
  const std::uint64_t features = uffd::features();
  if (features == 0) {
    const Descriptor user_only(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* UFFD_USER_MODE_ONLY */)));
    if (user_only) return {true, false, "userfaultfd is allowed for faults of user code only"};
    return {errno != ENOSYS, false, std::string("userfaultfd: ") + std::strerror(errno)};
  }
  std::string detail = "userfaultfd with faults for missing pages";
  if ((features & UFFD_FEATURE_PAGEFAULT_FLAG_WP) != 0) detail += ", write protection";
  if ((features & uffd::kFeatureWpHugetlbfsShmem) != 0) detail += " (shared memory too)";
  if ((features & uffd::kFeatureWpAsync) != 0) detail += ", asynchronous write protection";
  return {true, true, detail};
}

FeatureState try_tracking(DirtyMethod method) {
  auto memory = MappedMemory::create_private(host_page_size());
  if (!memory) return {false, false, memory.error().message()};
  const auto tracker = DirtyTracker::start(*memory, {.method = method});
  if (tracker) return {true, true, std::string(to_string(method)) + " works"};
  return {false, false, tracker.error().reason()};
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
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(roots.sys + "/kernel/mm/hugepages", error)) {
    total += sysfs::number(entry.path().string() + "/nr_hugepages").value_or(0);
    available += sysfs::number(entry.path().string() + "/free_hugepages").value_or(0);
  }
  if (total == 0) return {!error, false, "no huge pages are reserved"};
  return {true, available != 0, std::to_string(available) + " of " + std::to_string(total) + " huge pages are free"};
}

FeatureState find_transparent_huge_pages(const HostRoots& roots) {
  const auto modes = sysfs::read(roots.sys + "/kernel/mm/transparent_hugepage/enabled");
  if (!modes) return {false, false, "the kernel has no transparent huge pages"};
  const bool off = modes->find("[never]") != std::string::npos;
  return {true, !off, "transparent huge pages: " + *modes};
}

std::optional<std::uint64_t> limit(__rlimit_resource_t which) {
  rlimit value{};
  if (::getrlimit(which, &value) != 0 || value.rlim_cur == RLIM_INFINITY) return std::nullopt;
  return value.rlim_cur;
}

}  // namespace

PlatformFeatures PlatformFeatures::detect(const Options& options) {
  PlatformFeatures features;
  features.kvm = probe_kvm("/dev/kvm", options.probe_kvm);
  features.iommu = find_iommu(options.roots);
  features.vfio = find_vfio(options.roots);
  features.userfaultfd = find_userfaultfd();
  features.pagemap_scan = try_tracking(DirtyMethod::PagemapScan);
  features.soft_dirty = try_tracking(DirtyMethod::SoftDirty);
  features.memfd = find_memfd();
  features.executable_memory = find_executable_memory();
  features.io_uring = find_io_uring();
  features.membarrier = find_membarrier();
  features.explicit_huge_pages = find_huge_pages(options.roots);
  features.transparent_huge_pages = find_transparent_huge_pages(options.roots);
  const char* unusable = timer_host::counter_unusable();
  features.invariant_counter = {unusable == nullptr, unusable == nullptr,
                                unusable == nullptr ? "the time is read from the CPU's own counter" : unusable};
  features.max_mappings = sysfs::number(options.roots.proc + "/sys/vm/max_map_count").value_or(0);
  features.lockable_memory = limit(RLIMIT_MEMLOCK);
  features.open_files = limit(RLIMIT_NOFILE);
  return features;
}

}  // namespace vm_platform
