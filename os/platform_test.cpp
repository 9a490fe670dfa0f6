#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <vm_platform/platform.hpp>
#include <vm_platform/timer.hpp>

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
  const auto [info, info_ns] = measure([] { return PlatformInfo::detect(); });
  const auto [features, features_ns] = measure([] { return PlatformFeatures::detect({.probe_kvm = false}); });
  EXPECT_TRUE(info.has_value());
  EXPECT_TRUE(features.executable_memory.usable) << features.executable_memory.detail;
  EXPECT_FALSE(features.kvm.measured);
  EXPECT_LT(info_ns + features_ns, 500'000'000u) << "the promise, 20 ms, is measured by bench/os";
}

TEST(PlatformFeaturesTest, KvmIsMeasuredWhereItCanBe) {
  const auto features = PlatformFeatures::detect();
  if (!features.kvm.usable) GTEST_SKIP() << features.kvm.detail;
  if (host_arch() != HostArch::X86_64) GTEST_SKIP() << features.kvm.detail;
  ASSERT_TRUE(features.kvm.measured) << features.kvm.detail;
  EXPECT_GT(features.kvm.million_instructions_per_second, 0.01);
  EXPECT_EQ(features.kvm.emulated, features.kvm.million_instructions_per_second < 60);
}

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
  EXPECT_EQ(find(findings, "kvm")->severity, HostFinding::Severity::Slow);
  EXPECT_NE(find(findings, "kvm")->what.find("emulation speed"), std::string::npos);
  features.kvm = {.detail = "/dev/kvm: No such file or directory"};
  EXPECT_EQ(find(diagnose_host(info, features), "kvm")->severity, HostFinding::Severity::Missing);
}

}  // namespace
}  // namespace vm_platform
