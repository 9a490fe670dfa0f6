// Which CPUs there are, of what kind, and which this process may use.
#include <cstdio>
#include <vm_platform/topology.hpp>

int main() {
  const auto topology = vm_platform::read_topology();
  if (!topology) {
    std::fprintf(stderr, "%s\n", topology.error().message().c_str());
    return 1;
  }
  std::printf("CPUs %s are online, %s may be used\n", topology->online.to_string().c_str(),
              topology->allowed.to_string().c_str());
  if (topology->hybrid()) {
    std::printf("performance cores %s, efficiency cores %s (by %s)\n", topology->performance.to_string().c_str(),
                topology->efficiency.to_string().c_str(), topology->kinds_from.c_str());
  }
  for (const vm_platform::Cache& cache : topology->caches) {
    std::printf("L%u %s: %llu KiB for CPUs %s\n", cache.level, cache.type.c_str(),
                static_cast<unsigned long long>(cache.size / vm_platform::kKiB), cache.cpus.to_string().c_str());
  }
  return 0;
}
