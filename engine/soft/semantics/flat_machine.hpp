// A machine for the tests of this folder: 2 MiB of RAM, linear addresses that are physical ones (pages can be made to
// fault), a bus with one echoing port, and a CPU in a mode of choice with a GDT, an IDT and a TSS.
#pragma once

#include <array>
#include <cstring>
#include <initializer_list>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "engine/soft/mmu.hpp"
#include "engine/soft/semantics.hpp"

namespace vm_platform::soft {

/// Selectors of the test GDT.
inline constexpr std::uint16_t kCode64 = 0x08, kData0 = 0x10, kCode32 = 0x18, kUserCode32 = 0x20, kUserData = 0x28,
                               kUserCode64 = 0x30, kTaskState = 0x38, kCode16 = 0x48, kAbsentCode = 0x50,
                               kAbsentData = 0x58, kConforming64 = 0x60, kGate = 0x68, kData16 = 0x78, kReadOnly = 0x80,
                               kSecondTask = 0x88, kLdtEntry = 0x90, kExpandDown = 0xa0;

enum class Mode : std::uint8_t { Real, Protected32, Compatibility32, Long64 };

class RecordingController : public CpuInterruptController {
 public:
  bool has_interrupt() noexcept override { return false; }
  std::optional<std::uint8_t> acknowledge() noexcept override { return std::nullopt; }
  std::uint8_t task_priority() noexcept override { return priority; }
  void set_task_priority(std::uint8_t value) noexcept override { priority = value; }
  MsrAccess read_msr(std::uint32_t index, std::uint64_t& value) noexcept override {
    const auto found = msrs.find(index);
    if (found == msrs.end()) return MsrAccess::Fault;
    value = found->second;
    return MsrAccess::Done;
  }
  MsrAccess write_msr(std::uint32_t index, std::uint64_t value) noexcept override {
    if (index == 0x802) return MsrAccess::Fault;  // the x2APIC id is read-only
    msrs[index] = value;
    return MsrAccess::Done;
  }

  std::uint8_t priority = 0;
  std::map<std::uint32_t, std::uint64_t> msrs{{0x1b, 0xfee00900}, {0x6e0, 0}};
};

/// Remembers what was written; reads count up.
class EchoDevice : public PortDevice {
 public:
  std::uint32_t port_read(std::uint16_t, unsigned) override { return next++; }
  void port_write(std::uint16_t port, unsigned size, std::uint32_t value) override {
    writes.push_back({port, size, size == 4 ? value : value & ((1U << (8 * size)) - 1)});
  }
  struct Write {
    std::uint16_t port;
    unsigned size;
    std::uint32_t value;
    bool operator==(const Write&) const = default;
  };
  std::vector<Write> writes;
  std::uint32_t next = 0x11;
};

/// What an instruction did.
struct Outcome {
  std::optional<GuestFault> fault;
  [[nodiscard]] bool ok() const { return !fault; }
  [[nodiscard]] bool is(Vector vector, std::optional<std::uint32_t> code = {}) const {
    return fault && fault->vector == vector && fault->error_code == code;
  }
};

class FlatMachine {
 public:
  static constexpr std::uint64_t kGdt = 0x1000, kIdt = 0x2000, kTss = 0x4000, kTss2 = 0x5000, kLdt = 0x6000,
                                 kCodeAt = 0x10000, kStackTop = 0x20000, kStack0 = 0x30000, kIst1 = 0x38000,
                                 kData = 0x40000, kSize = 2 * kMiB;

  explicit FlatMachine(Mode mode, unsigned cpl = 0, unsigned cpus = 1);
  ~FlatMachine();
  FlatMachine(const FlatMachine&) = delete;
  FlatMachine& operator=(const FlatMachine&) = delete;

  /// Runs one instruction at rip.
  Outcome run(std::initializer_list<std::uint8_t> bytes);
  /// The same, and checks (gtest) that a fault left the CPU and memory below 1 MiB as they were.
  Outcome run_checked(std::initializer_list<std::uint8_t> bytes);

  template <typename T>
  T get(std::uint64_t address) const {
    T value;
    std::memcpy(&value, ram() + address, sizeof value);
    return value;
  }
  template <typename T>
  void put(std::uint64_t address, T value) {
    std::memcpy(ram() + address, &value, sizeof value);
  }
  std::byte* ram() const { return memory.host(Gpa(0), kSize); }

  void set_gate(unsigned vector, std::uint16_t selector, std::uint64_t offset, unsigned type = 14, unsigned dpl = 0,
                unsigned ist = 0, bool present = true);
  void set_descriptor(std::uint16_t selector, std::uint64_t raw, std::uint64_t upper = 0);
  void load_code(std::uint16_t selector);  ///< CS and CPL, without checks.

  GuestMemory memory;
  PortBus ports;
  MmioBus mmio;
  EchoDevice device;
  RecordingController controller;
  EngineEnvironment environment;
  EngineOptions options;
  std::optional<Cpu> owned;
  Cpu& cpu;
  std::set<std::uint64_t> absent, read_only, slow,
      code;  ///< Page numbers. Slow ones have no host pointer, code none to write.
  std::vector<std::uint64_t> flushed_pages;
  unsigned full_flushes = 0, address_spaces = 0;

 private:
  Cpu& make_cpu();
};

}  // namespace vm_platform::soft
