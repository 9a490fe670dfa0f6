// What a sequence of instructions starts from and what it leaves behind, the same for the native and the engine side.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

namespace vm_platform::random_instructions {

/// User-mode state. `xsave` is an XSAVE area in the standard format (Intel SDM vol. 1, 13.4) with x87, SSE and AVX.
struct MachineState {
  std::array<std::uint64_t, 16> gpr{};
  std::uint64_t rip = 0, rflags = 2;
  alignas(64) std::array<std::uint8_t, 832> xsave{};
};

/// How it ended: always through an exception, INT3 (vector 3) at the end if nothing else came before.
struct Outcome {
  MachineState state;
  std::uint64_t vector = 0, error_code = 0, fault_address = 0;
};

// Linear addresses, the same natively and in the guest. Below 2 GiB, so that absolute 32-bit addresses reach them.
inline constexpr std::uint64_t kCodeBase = 0x10000000, kCodePages = 4;
inline constexpr std::uint64_t kDataBase = 0x10100000;
inline constexpr std::uint64_t kGsBase = 0x12340;
enum class PageKind : std::uint8_t { Hole, ReadWrite, ReadOnly };
/// The pages from kDataBase on: every kind of neighbour a page-crossing access can meet. The last is the constant
/// table.
inline constexpr std::array<PageKind, 9> kDataPages = {PageKind::ReadWrite, PageKind::ReadWrite, PageKind::ReadWrite,
                                                       PageKind::Hole,      PageKind::ReadOnly,  PageKind::ReadWrite,
                                                       PageKind::Hole,      PageKind::Hole,      PageKind::ReadOnly};
inline constexpr std::uint64_t kDataSize = kDataPages.size() * 4096;
/// In the constant table page: gather indices from its start, MXCSR values from +800h, x87 control words from +c00h.
inline constexpr std::uint64_t kTable = kDataBase + 8 * 4096, kMxcsrTable = kTable + 0x800, kFcwTable = kTable + 0xc00;

/// xoshiro-like generator with a seed for each sequence, so that any one can be made again alone.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {  // splitmix64
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  std::uint64_t below(std::uint64_t limit) { return next() % limit; }
  bool percent(unsigned chance) { return below(100) < chance; }
  std::uint8_t byte() { return static_cast<std::uint8_t>(next()); }

 private:
  std::uint64_t state_;
};

}  // namespace vm_platform::random_instructions
