// What a Windows host is and can do.
#include <cpuid.h>
#include <windows.h>
// after windows.h
#include <shlobj.h>

#include <array>
#include <cstring>
#include <vm_platform/memory.hpp>
#include <vm_platform/platform.hpp>

#include "os/timer_host.hpp"
#include "os/windows/handle.hpp"

namespace vm_platform {
namespace {

template <typename Function>
Function* ntdll_function(const char* name) {
  const FARPROC found = ::GetProcAddress(::GetModuleHandleW(L"ntdll.dll"), name);
  return reinterpret_cast<Function*>(reinterpret_cast<void*>(found));
}

std::string known_folder(const KNOWNFOLDERID& id) {
  PWSTR path = nullptr;
  std::string text;
  if (::SHGetKnownFolderPath(id, KF_FLAG_DONT_VERIFY, nullptr, &path) >= 0) text = narrow(path);
  ::CoTaskMemFree(path);
  return text;
}

void read_cpu(PlatformInfo& info) {
  std::array<unsigned, 4> r{};
  __cpuid(0, r[0], r[1], r[2], r[3]);
  std::array<char, 13> vendor{};
  std::memcpy(vendor.data(), &r[1], 4);
  std::memcpy(vendor.data() + 4, &r[3], 4);
  std::memcpy(vendor.data() + 8, &r[2], 4);
  info.cpu_vendor = vendor.data();
  std::array<char, 49> brand{};
  for (unsigned leaf = 0; leaf < 3; ++leaf) {
    __cpuid(0x80000002 + leaf, r[0], r[1], r[2], r[3]);
    std::memcpy(brand.data() + leaf * 16, r.data(), 16);
  }
  info.cpu_model = brand.data();
  __cpuid(1, r[0], r[1], r[2], r[3]);
  if ((r[2] >> 31) != 0) {
    __cpuid(0x40000000, r[0], r[1], r[2], r[3]);
    std::array<char, 13> signature{};
    std::memcpy(signature.data(), &r[1], 12);
    info.hypervisor = signature[0] != 0 ? signature.data() : "unknown";
  }
}

}  // namespace

Result<PlatformInfo> PlatformInfo::detect(const HostRoots& roots) {
  PlatformInfo info;
  info.os = host_os();
  info.arch = host_arch();
  RTL_OSVERSIONINFOW version{};
  version.dwOSVersionInfoSize = sizeof version;
  if (auto* get = ntdll_function<LONG(RTL_OSVERSIONINFOW*)>("RtlGetVersion"); get != nullptr) get(&version);
  info.os_name = "Windows " + std::to_string(version.dwMajorVersion) + "." + std::to_string(version.dwMinorVersion);
  info.kernel = std::to_string(version.dwMajorVersion) + "." + std::to_string(version.dwMinorVersion) + "." +
                std::to_string(version.dwBuildNumber);
  read_cpu(info);
  auto topology = read_topology(roots);
  if (!topology) return fail(topology.error());
  info.topology = std::move(*topology);
  MEMORYSTATUSEX memory{};
  memory.dwLength = sizeof memory;
  if (::GlobalMemoryStatusEx(&memory) != 0) {
    info.memory_total = memory.ullTotalPhys;
    info.memory_available = memory.ullAvailPhys;
  }
  info.page_size = host_page_size();
  if (const std::uint64_t large = ::GetLargePageMinimum(); large != 0) info.huge_pages.push_back({.page_size = large});
  if (ntdll_function<void()>("wine_get_version") != nullptr) info.container = "wine";
  return info;
}

Result<PlatformPaths> PlatformPaths::of(std::string_view application) {
  if (application.empty() || application.find_first_of("/\\:") != std::string_view::npos)
    return fail(ErrorCode::InvalidArgument, "find folders", std::string(application), "not a name");
  const std::string roaming = known_folder(FOLDERID_RoamingAppData), local = known_folder(FOLDERID_LocalAppData);
  if (roaming.empty() || local.empty())
    return fail(ErrorCode::NotFound, "find folders", std::string(application), "the user has no profile");
  std::array<wchar_t, MAX_PATH + 1> temporary{};
  ::GetTempPathW(static_cast<DWORD>(temporary.size()), temporary.data());
  const std::string name = "\\" + std::string(application);
  return PlatformPaths{.config = roaming + name,
                       .data = local + name,
                       .cache = local + name + "\\cache",
                       .state = local + name + "\\state",
                       .runtime = local + name + "\\run",
                       .temporary = narrow(temporary.data())};
}

PlatformFeatures PlatformFeatures::detect(const Options& /*options*/) {
  PlatformFeatures features;
  const FeatureState absent{false, false, "not on Windows"};
  features.kvm.detail = "not on Windows";
  features.iommu = features.vfio = features.userfaultfd = features.pagemap_scan = features.soft_dirty = absent;
  features.memfd = features.io_uring = features.transparent_huge_pages = absent;
  const JitSupport& jit = jit_support();
  features.executable_memory = {jit.dual_mapping || jit.protection_switch, jit.dual_mapping || jit.protection_switch,
                                jit.dual_mapping ? "code can be written through a second mapping" : jit.reason};
  features.membarrier = {true, true, "FlushProcessWriteBuffers"};
  const auto large = MappedMemory::create({.size = 1, .huge_pages = HugePages::Explicit, .huge_pages_required = true});
  features.explicit_huge_pages = {::GetLargePageMinimum() != 0, large.has_value(),
                                  large ? "large pages can be had" : large.error().message()};
  const char* unusable = timer_host::counter_unusable();
  features.invariant_counter = {unusable == nullptr, unusable == nullptr,
                                unusable == nullptr ? "the time is read from the CPU's own counter" : unusable};
  return features;
}

}  // namespace vm_platform
