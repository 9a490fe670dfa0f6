// Virtual CPUs on performance cores, everything else on efficiency cores; on a host with one kind both are all.
#include <cstdio>
#include <thread>
#include <vm_platform/threading.hpp>

using namespace vm_platform;

int main() {
  const auto topology = read_topology();
  if (!topology) return std::fprintf(stderr, "%s\n", topology.error().message().c_str()), 1;
  std::printf("%zu CPUs, kinds by %s\n", topology->online.count(), topology->kinds_from.c_str());
  bool good = true;
  std::jthread([&] {
    good &= set_thread_name("vcpu 0").has_value() && set_thread_affinity_big().has_value();
    std::printf("%s may run on %s\n", thread_name().c_str(), thread_affinity()->to_string().c_str());
  }).join();
  std::jthread([&] {
    good &= set_thread_affinity_little().has_value() && set_thread_priority(ThreadPriority::Low).has_value();
    std::printf("the disk's thread may run on %s\n", thread_affinity()->to_string().c_str());
  }).join();
  return good ? 0 : 1;
}
