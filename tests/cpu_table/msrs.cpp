#include "tests/cpu_table/msrs.hpp"

#include <new>
#include <stdexcept>
#include <vm_platform/memory.hpp>

#include "engine/soft/semantics/msr.hpp"
#include "engine/soft/soft_cpu.hpp"
#include "engine/soft/translator.hpp"

namespace vm_platform::cpu_table {
namespace {

using namespace soft;

class NoController final : public CpuInterruptController {
 public:
  bool has_interrupt() noexcept override { return false; }
  std::optional<std::uint8_t> acknowledge() noexcept override { return {}; }
  std::uint8_t task_priority() noexcept override { return 0; }
  void set_task_priority(std::uint8_t) noexcept override {}
  MsrAccess read_msr(std::uint32_t, std::uint64_t&) noexcept override { return MsrAccess::NotMine; }
  MsrAccess write_msr(std::uint32_t, std::uint64_t) noexcept override { return MsrAccess::NotMine; }
};

template <typename T>
T take(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message());
  return std::move(*result);
}

struct Name {
  std::uint32_t first, last;
  const char* name;
};
constexpr Name kNames[] = {
    {0x10, 0x10, "TSC"},
    {0x17, 0x17, "platform ID: 0"},
    {0x3b, 0x3b, "TSC_ADJUST"},
    {0x8b, 0x8b, "microcode patch level"},
    {0xfe, 0xfe, "MTRR capabilities"},
    {0x174, 0x174, "SYSENTER_CS"},
    {0x175, 0x175, "SYSENTER_ESP"},
    {0x176, 0x176, "SYSENTER_EIP"},
    {0x179, 0x17a, "machine check capabilities and status: 0"},
    {0x1a0, 0x1a0, "MISC_ENABLE: storage"},
    {0x1d9, 0x1d9, "DEBUGCTL: storage"},
    {0x200, 0x20f, "variable MTRRs: storage"},
    {0x250, 0x26f, "fixed MTRRs: storage"},
    {0x277, 0x277, "PAT: checked, storage"},
    {0x2ff, 0x2ff, "MTRR default type: storage"},
    {0x4b564d00, 0x4b564d00, "KVM wall clock"},
    {0x4b564d01, 0x4b564d01, "KVM system time (kvmclock)"},
    {0xc0000080, 0xc0000080, "EFER: SCE, LME, LMA, NXE, AIBRSE"},
    {0xc0000081, 0xc0000081, "STAR"},
    {0xc0000082, 0xc0000082, "LSTAR"},
    {0xc0000083, 0xc0000083, "CSTAR"},
    {0xc0000084, 0xc0000084, "SFMASK"},
    {0xc0000100, 0xc0000100, "FS base"},
    {0xc0000101, 0xc0000101, "GS base"},
    {0xc0000102, 0xc0000102, "kernel GS base"},
    {0xc0000103, 0xc0000103, "TSC_AUX"},
    {0xc0010010, 0xc001102e, "AMD configuration registers (SYSCFG, HWCR, LS_CFG …): storage"},
};

std::string name_of(std::uint32_t index) {
  for (const Name& name : kNames)
    if (index >= name.first && index <= name.last) return name.name;
  return {};
}

}  // namespace

std::vector<Msr> known_msrs() {
  auto memory = take(GuestMemory::create(kMiB));
  PortBus ports;
  MmioBus mmio;
  const EngineEnvironment environment{&memory, &ports, &mmio, {}};
  const EngineOptions options;
  NoController controller;
  const auto cache = take(CodeCache::create(kMiB, options.code_bytes, options.code_memory));
  World world;
  auto mapping = take(MappedMemory::create_private(kCpuMappingBytes));
  auto* cpu = ::new (mapping.data()) SoftCpu(environment, options, controller, *cache, world, 0);

  std::vector<Msr> found;
  constexpr std::uint32_t kBlocks[] = {0, 0x40000000, 0x4b564d00, 0xc0000000, 0xc0010000};
  for (const std::uint32_t block : kBlocks) {
    for (std::uint32_t index = block; index < block + 0x2000; ++index) {
      try {
        (void)read_msr(*cpu, index);
      } catch (const GuestFault&) {
        continue;
      }
      const std::string name = name_of(index);
      if (!found.empty() && found.back().name == name && !name.empty()) {
        found.back().last = index;
        ++found.back().count;
      } else {
        found.push_back({index, index, 1, name});
      }
    }
  }
  cpu->~SoftCpu();
  return found;
}

}  // namespace vm_platform::cpu_table
