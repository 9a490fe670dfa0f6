#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <vm_platform/memory.hpp>
#include <vm_platform/platform.hpp>
#include <vm_platform/timer.hpp>

#include "os/fake_host.hpp"

#ifdef __linux__
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace vm_platform {
namespace {

TEST(PlatformTest, Names) {
#ifdef _WIN32
  EXPECT_EQ(to_string(host_os()), "windows");
#else
  EXPECT_EQ(to_string(host_os()), "linux");
#endif
#ifdef __aarch64__
  EXPECT_EQ(to_string(host_arch()), "aarch64");
#else
  EXPECT_EQ(to_string(host_arch()), "x86_64");
#endif
}

TEST(PlatformInfoTest, ThisHost) {
  const auto info = PlatformInfo::detect();
  ASSERT_TRUE(info.has_value()) << info.error().message();
  EXPECT_FALSE(info->os_name.empty());
  EXPECT_FALSE(info->kernel.empty());
  EXPECT_FALSE(info->cpu_model.empty());
  EXPECT_GT(info->memory_total, 16 * kMiB);
  EXPECT_GE(info->memory_total, info->memory_available);
  EXPECT_GE(info->page_size, 4096u);
  EXPECT_GT(info->topology.online.count(), 0u);
}

TEST(PlatformPathsTest, AreAbsoluteAndOfTheApplication) {
  const auto paths = PlatformPaths::of("vm-platform");
  ASSERT_TRUE(paths.has_value()) << paths.error().message();
  for (const std::string& path : {paths->config, paths->data, paths->cache, paths->state, paths->runtime})
    EXPECT_NE(path.find("vm-platform"), std::string::npos) << path;
  EXPECT_FALSE(paths->temporary.empty());
  EXPECT_FALSE(PlatformPaths::of("").has_value());
  EXPECT_FALSE(PlatformPaths::of("../x").has_value());
}

#ifdef __linux__
TEST(PlatformPathsTest, FollowTheVariables) {
  ::setenv("XDG_CONFIG_HOME", "/somewhere", 1);
  EXPECT_EQ(PlatformPaths::of("x")->config, "/somewhere/x");
  ::setenv("XDG_CONFIG_HOME", "relative", 1);
  EXPECT_NE(PlatformPaths::of("x")->config, "relative/x") << "to be ignored, says the specification";
  ::unsetenv("XDG_CONFIG_HOME");
}
#endif

TEST(PlatformFeaturesTest, DetectionIsQuick) {
  std::uint64_t best = UINT64_MAX;  // the first may find a cold or a busy machine
  for (int attempt = 0; attempt < 3; ++attempt) {
    const auto [info, info_ns] = measure([] { return PlatformInfo::detect(); });
    const auto [features, features_ns] = measure([] { return PlatformFeatures::detect({.probe_kvm = false}); });
    EXPECT_TRUE(info.has_value());
    EXPECT_TRUE(features.executable_memory.usable) << features.executable_memory.detail;
    EXPECT_FALSE(features.kvm.measured);
    best = std::min(best, info_ns + features_ns);
  }
  EXPECT_LT(best, 1'000'000'000u) << "nothing hangs; the promise, 20 ms, is measured by bench/os";
}

TEST(PlatformFeaturesTest, KvmIsMeasuredWhereItCanBe) {
  const auto features = PlatformFeatures::detect();
  if (!features.kvm.usable) GTEST_SKIP() << features.kvm.detail;
  if (host_arch() != HostArch::X86_64) GTEST_SKIP() << features.kvm.detail;
  ASSERT_TRUE(features.kvm.measured) << features.kvm.detail;
  EXPECT_GT(features.kvm.million_instructions_per_second, 0.01);
  EXPECT_EQ(features.kvm.emulated, features.kvm.million_instructions_per_second < 60);
}

#ifdef __linux__
std::atomic<int> alarms;

TEST(PlatformFeaturesTest, KvmIsMeasuredInAProgramWithTimers) {
  if (const auto features = PlatformFeatures::detect({.probe_kvm = false});
      !features.kvm.usable || host_arch() != HostArch::X86_64)
    GTEST_SKIP() << features.kvm.detail;
  struct sigaction on_alarm{}, former{};
  on_alarm.sa_handler = [](int) {
    if (--alarms > 0) return;
    constexpr itimerval kNone{};
    ::setitimer(ITIMER_REAL, &kNone, nullptr);
  };
  ::sigaction(SIGALRM, &on_alarm, &former);
  alarms = 100;
  constexpr itimerval kOften{.it_interval = {0, 300}, .it_value = {0, 300}};
  ::setitimer(ITIMER_REAL, &kOften, nullptr);
  const auto features = PlatformFeatures::detect();
  EXPECT_TRUE(features.kvm.measured) << features.kvm.detail;
  while (alarms > 0) ::usleep(300);
  ::sigaction(SIGALRM, &former, nullptr);
}
#endif

#ifdef __linux__
TEST(PlatformInfoTest, AVendorOfCloudsMakesRealMachinesToo) {
  const FakeHost host;
  host.file("/sys/devices/system/cpu/online", "0");
  for (const char* vendor : {"Amazon EC2", "Google"}) {
    host.file("/sys/class/dmi/id/sys_vendor", vendor);
    host.file("/proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu vme hypervisor");
    EXPECT_EQ(PlatformInfo::detect(host.roots())->hypervisor, vendor);
    if (host_arch() != HostArch::X86_64) continue;  // only there the CPU tells
    host.file("/proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu vme");
    EXPECT_EQ(PlatformInfo::detect(host.roots())->hypervisor, "");
  }
}

TEST(PlatformFeaturesTest, DetectionLeavesSoftDirtyBitsAlone) {
  if (const auto features = PlatformFeatures::detect({.probe_kvm = false}); !features.soft_dirty.usable) {
    const char* must_work = std::getenv("VMP_TEST_DIRTY");
    ASSERT_FALSE(must_work != nullptr && std::string_view(must_work).contains("soft-dirty"));
    GTEST_SKIP() << features.soft_dirty.detail;
  }
  auto memory = MappedMemory::create_private(host_page_size());
  ASSERT_TRUE(memory.has_value());
  *static_cast<volatile std::byte*>(memory->data()) = std::byte{1};
  (void)PlatformFeatures::detect({.probe_kvm = false});
  const int pagemap = ::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  std::uint64_t entry = 0;
  const auto at = reinterpret_cast<std::uintptr_t>(memory->data()) / host_page_size() * sizeof entry;
  EXPECT_EQ(::pread(pagemap, &entry, sizeof entry, static_cast<off_t>(at)), static_cast<ssize_t>(sizeof entry));
  ::close(pagemap);
  EXPECT_NE(entry & (1ULL << 55), 0u);
}
#endif

const HostFinding* find(const std::vector<HostFinding>& findings, std::string_view id) {
  const auto found = std::ranges::find(findings, id, &HostFinding::id);
  return found == findings.end() ? nullptr : &*found;
}

TEST(DiagnoseTest, AGoodHostHasNothingToFix) {
  PlatformInfo info;
  info.os = HostOs::Linux;
  info.topology.allowed = {0, 1};
  PlatformFeatures features;
  features.kvm = {.present = true, .usable = true, .measured = true, .million_instructions_per_second = 4000};
  for (FeatureState* state : {&features.iommu, &features.vfio, &features.userfaultfd, &features.pagemap_scan,
                              &features.io_uring, &features.executable_memory, &features.explicit_huge_pages,
                              &features.transparent_huge_pages, &features.invariant_counter})
    *state = {true, true, "fine"};
  features.max_mappings = 1048576;
  for (const HostFinding& finding : diagnose_host(info, features)) {
    EXPECT_EQ(finding.severity, HostFinding::Severity::Good) << finding.id;
    EXPECT_TRUE(finding.fix.empty()) << finding.id;
  }
}

TEST(DiagnoseTest, EachLackHasItsCostAndItsFix) {
  PlatformInfo info;
  info.os = HostOs::Linux;
  info.memory_total = 8 * kGiB;
  info.cgroup_memory = kGiB;
  info.cgroup_cpus = 0.5;
  info.topology.allowed = {0, 1};
  PlatformFeatures features;
  features.kvm = {
      .present = true, .usable = true, .measured = true, .emulated = true, .million_instructions_per_second = 1.2};
  features.lockable_memory = 64 * kKiB;
  features.max_mappings = 65530;
  features.open_files = 256;
  const auto findings = diagnose_host(info, features);
  for (const char* id : {"kvm", "iommu", "vfio", "userfaultfd", "executable-memory", "huge-pages", "memlock",
                         "max-map-count", "open-files", "cgroup-memory", "cgroup-cpu"}) {
    const HostFinding* finding = find(findings, id);
    ASSERT_NE(finding, nullptr) << id;
    EXPECT_NE(finding->severity, HostFinding::Severity::Good) << id;
    EXPECT_FALSE(finding->cost.empty()) << id;
    EXPECT_FALSE(finding->fix.empty()) << id;
  }
  EXPECT_EQ(find(findings, "clock")->severity, HostFinding::Severity::Slow);
  for (const HostFinding& finding : findings) {
    const bool good = finding.severity == HostFinding::Severity::Good;
    EXPECT_EQ(finding.cost.empty(), good) << finding.id;
    EXPECT_EQ(finding.fix.empty(), good) << finding.id;
  }
  EXPECT_EQ(find(findings, "kvm")->severity, HostFinding::Severity::Slow);
  EXPECT_NE(find(findings, "kvm")->what.find("emulation speed"), std::string::npos);
  features.kvm = {.detail = "/dev/kvm: No such file or directory"};
  EXPECT_EQ(find(diagnose_host(info, features), "kvm")->severity, HostFinding::Severity::Missing);
}

#ifdef __linux__

/// What the doctor says of a host made of files.
class DoctorTest : public testing::Test {
 protected:
  void SetUp() override {
    host_.file("/sys/devices/system/cpu/online", "0-3");
    host_.file("/proc/meminfo", "MemTotal:       16384000 kB\nMemAvailable:   8000000 kB");
    host_.file("/proc/self/limits",
               "Limit                     Soft Limit           Hard Limit           Units\n"
               "Max open files            1048576              1048576              files\n"
               "Max locked memory         unlimited            unlimited            bytes");
    host_.file("/proc/sys/vm/max_map_count", "1048576");
    host_.file("/proc/sys/vm/unprivileged_userfaultfd", "1");
    host_.file("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "512");
    host_.file("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "512");
    host_.file("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never");
    host_.file("/sys/kernel/iommu_groups/0/type", "DMA");
    host_.file("/dev/vfio/vfio", "");
    host_.file("/proc/self/cgroup", "0::/job");
    host_.file("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu memory pids");
  }
  [[nodiscard]] HostFinding says(const std::string& id) const {
    const auto info = PlatformInfo::detect(host_.roots());
    EXPECT_TRUE(info.has_value());
    const auto findings = diagnose_host(*info, PlatformFeatures::detect({.roots = host_.roots()}));
    const HostFinding* finding = find(findings, id);
    return finding != nullptr ? *finding : HostFinding{"none", HostFinding::Severity::Good, "", "", ""};
  }
  void expect(const std::string& id, HostFinding::Severity severity, const char* what, const char* fix) const {
    const HostFinding finding = says(id);
    EXPECT_EQ(finding.severity, severity) << id << ": " << finding.what;
    EXPECT_NE(finding.what.find(what), std::string::npos) << finding.what;
    EXPECT_NE(finding.fix.find(fix), std::string::npos) << finding.fix;
    EXPECT_FALSE(finding.cost.empty()) << id;
  }
  FakeHost host_;
};

using enum HostFinding::Severity;

TEST_F(DoctorTest, KvmAbsent) { expect("kvm", Missing, "No such file", "firmware"); }

TEST_F(DoctorTest, KvmThatIsNone) {
  host_.file("/dev/kvm", "a file");
  expect("kvm", Missing, "is not KVM", "modprobe");
}

TEST_F(DoctorTest, KvmWithoutPermission) {
  host_.file("/dev/kvm", "");
  ASSERT_EQ(::chmod((host_.root() + "/dev/kvm").c_str(), 0), 0);
  // Root may do anything: asked by a child that is nobody.
  const pid_t child = ::fork();
  if (child == 0) {
    if (::getuid() == 0 && ::setresuid(65534, 65534, 65534) != 0) ::_exit(2);
    const HostFinding finding = says("kvm");
    const bool right = finding.severity == Missing && finding.what.find("Permission denied") != std::string::npos &&
                       finding.fix.find("usermod -aG kvm") != std::string::npos && !finding.cost.empty();
    ::_exit(right ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(DiagnoseTest, KvmThatSomebodyElseHolds) {
  PlatformFeatures features;
  features.kvm = {.present = true, .os_error = EBUSY, .detail = "KVM_CREATE_VM: Device or resource busy"};
  const auto findings = diagnose_host({}, features);
  EXPECT_NE(find(findings, "kvm")->fix.find("other hypervisor"), std::string::npos);
}

TEST_F(DoctorTest, Iommu) {
  EXPECT_EQ(says("iommu").severity, Good);
  std::filesystem::remove_all(host_.root() + "/sys/kernel/iommu_groups");
  expect("iommu", Missing, "no IOMMU", "firmware");
  host_.file("/sys/firmware/acpi/tables/DMAR", "");
  expect("iommu", Missing, "but it is off", "intel_iommu=on");
}

TEST_F(DoctorTest, Vfio) {
  EXPECT_EQ(says("vfio").severity, Good);
  std::filesystem::remove(host_.root() + "/dev/vfio/vfio");
  expect("vfio", Missing, "VFIO is not loaded", "modprobe vfio-pci");
}

TEST_F(DoctorTest, LockedMemoryAndOpenFiles) {
  EXPECT_EQ(says("memlock").severity, Good);
  host_.file("/proc/self/limits",
             "Max open files            256                  1048576              files\n"
             "Max locked memory         65536                65536                bytes");
  expect("memlock", Slow, "64 KiB", "ulimit -l unlimited");
  expect("open-files", Note, "256", "ulimit -n");
}

TEST_F(DoctorTest, HugePages) {
  EXPECT_EQ(says("huge-pages").severity, Good);
  host_.file("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "0");
  expect("huge-pages", Note, "0 of 512", "vm.nr_hugepages");
  host_.file("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0");
  expect("huge-pages", Note, "no huge pages are reserved", "vm.nr_hugepages");
  EXPECT_EQ(says("transparent-huge-pages").severity, Good);
  host_.file("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]");
  expect("transparent-huge-pages", Slow, "[never]", "echo madvise");
}

TEST_F(DoctorTest, Userfaultfd) {
  EXPECT_EQ(says("userfaultfd").severity, Good);
  host_.file("/proc/sys/vm/unprivileged_userfaultfd", "0");
  expect("userfaultfd", Slow, "is 0", "sysctl -w vm.unprivileged_userfaultfd=1");
  std::filesystem::remove(host_.root() + "/proc/sys/vm/unprivileged_userfaultfd");
  expect("userfaultfd", Slow, "no userfaultfd", "sysctl");
}

TEST_F(DoctorTest, NumberOfMappings) {
  EXPECT_EQ(says("max-map-count").severity, Good);
  host_.file("/proc/sys/vm/max_map_count", "65530");
  expect("max-map-count", Note, "65530", "sysctl -w vm.max_map_count=");
}

TEST_F(DoctorTest, ControlGroups) {
  for (const char* id : {"cgroup-memory", "cgroup-cpu", "cgroup-processes", "cgroup-cpuset"})
    EXPECT_EQ(says(id).id, "none") << id;
  host_.file("/sys/fs/cgroup/job/memory.max", "1073741824");
  host_.file("/sys/fs/cgroup/job/cpu.max", "150000 100000");
  host_.file("/sys/fs/cgroup/job/pids.max", "100");
  host_.file("/sys/fs/cgroup/job/cpuset.cpus.effective", "0-2");
  expect("cgroup-memory", Note, "1024 MiB", "memory.max");
  expect("cgroup-cpu", Slow, "1.5 CPUs on 3 CPUs", "cpu.max");
  expect("cgroup-processes", Note, "100 threads", "pids.max");
  expect("cgroup-cpuset", Note, "3 of 4 CPUs", "AllowedCPUs=0-3");
}

TEST_F(DoctorTest, ControlGroupsOfVersionOne) {
  host_.file("/proc/self/cgroup", "3:memory:/job\n4:cpu,cpuacct:/job\n5:pids:/job\n6:cpuset:/job");
  host_.file("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "536870912");
  host_.file("/sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "50000");
  host_.file("/sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "100000");
  host_.file("/sys/fs/cgroup/pids/job/pids.max", "64");
  host_.file("/sys/fs/cgroup/cpuset/job/cpuset.effective_cpus", "1");
  expect("cgroup-memory", Note, "512 MiB", "memory.max");
  expect("cgroup-cpu", Slow, "0.5 CPUs on 1 CPUs", "cpu.max");
  expect("cgroup-processes", Note, "64 threads", "pids.max");
  expect("cgroup-cpuset", Note, "1 of 4 CPUs", "AllowedCPUs=0-3");
}

#endif

}  // namespace
}  // namespace vm_platform
