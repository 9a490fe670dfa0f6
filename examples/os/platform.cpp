// What the host is, and what stands in the way of virtual machines on it.
#include <cstdio>
#include <vm_platform/platform.hpp>

using namespace vm_platform;

int main() {
  const auto info = PlatformInfo::detect();
  if (!info) return std::fprintf(stderr, "%s\n", info.error().message().c_str()), 1;
  std::printf("%s on %s\n", info->os_name.c_str(), info->cpu_model.c_str());
  for (const HostFinding& finding : diagnose_host(*info, PlatformFeatures::detect()))
    if (finding.severity != HostFinding::Severity::Good)
      std::printf("%s: %s\n  %s\n", finding.id.c_str(), finding.what.c_str(), finding.fix.c_str());
  const auto paths = PlatformPaths::of("example");
  if (paths) std::printf("settings would be in %s\n", paths->config.c_str());
  return 0;
}
