// How long something took, and where the clock comes from.
#include <cstdio>
#include <vector>
#include <vm_platform/timer.hpp>

using namespace vm_platform;

int main() {
  const TimerInfo info = timer_info();
  if (info.source == TimerSource::CpuCounter)
    std::printf("the CPU's counter, %.3f GHz\n", static_cast<double>(info.frequency_hz) / 1e9);
  else
    std::printf("the system's clock: %s\n", info.reason.c_str());
  const auto [bytes, ns] = measure([] { return std::vector<char>(std::size_t{16} << 20).size(); });
  std::printf("16 MiB made and cleared in %llu ns\n", static_cast<unsigned long long>(ns));
  return bytes == std::size_t{16} << 20 && ns > 0 ? 0 : 1;
}
