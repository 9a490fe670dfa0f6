// A CPU's whole architectural state, the same under every engine, so that a guest can move between engines.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace vm_platform {

enum Gpr : std::uint8_t {
  kRax,
  kRcx,
  kRdx,
  kRbx,
  kRsp,
  kRbp,
  kRsi,
  kRdi,
  kR8,
  kR9,
  kR10,
  kR11,
  kR12,
  kR13,
  kR14,
  kR15
};
enum SegmentRegister : std::uint8_t { kEs, kCs, kSs, kDs, kFs, kGs };  // as instructions encode them

/// A segment register with its hidden part (Intel SDM vol. 3, 3.4.3).
struct Segment {
  // `attributes`: bits 40-47 and 52-55 of the descriptor, as VMX and most tools print them.
  static constexpr std::uint16_t kTypeMask = 0x000f, kCodeOrData = 0x0010, kDplMask = 0x0060, kPresent = 0x0080,
                                 kAvailable = 0x1000, kLong = 0x2000, kBig = 0x4000, kGranular = 0x8000;
  /// Not a descriptor bit: the register holds a null selector and may not be used.
  static constexpr std::uint16_t kUnusable = 0x0100;

  std::uint64_t base = 0;
  std::uint32_t limit = 0;  ///< In bytes, whatever the granularity; the last valid offset.
  std::uint16_t selector = 0;
  std::uint16_t attributes = 0;

  [[nodiscard]] unsigned dpl() const { return (attributes & kDplMask) >> 5; }
  [[nodiscard]] unsigned type() const { return attributes & kTypeMask; }
  bool operator==(const Segment&) const = default;
};

struct DescriptorTable {
  std::uint64_t base = 0;
  std::uint16_t limit = 0;
  bool operator==(const DescriptorTable&) const = default;
};

struct MsrValue {
  std::uint32_t index = 0;
  std::uint64_t value = 0;
  bool operator==(const MsrValue&) const = default;
};

/// Where the CPU is in its start-up life (KVM: KVM_GET_MP_STATE).
enum class RunState : std::uint8_t { Running, Halted, WaitForInit, WaitForStartup };

/// As KVM's REGS, SREGS2, XCRS, XSAVE, DEBUGREGS, MSRS, VCPU_EVENTS and MP_STATE together.
struct CpuState {
  std::array<std::uint64_t, 16> gpr{};  ///< Indexed by Gpr.
  std::uint64_t rip = 0, rflags = 2;
  std::array<Segment, 6> segments{};  ///< Indexed by SegmentRegister.
  Segment ldtr, tr;
  DescriptorTable gdtr, idtr;
  std::uint64_t cr0 = 0, cr2 = 0, cr3 = 0, cr4 = 0, cr8 = 0, efer = 0, xcr0 = 1;
  std::array<std::uint64_t, 4> debug_address{};
  std::uint64_t dr6 = 0xffff0ff0, dr7 = 0x400;
  /// XSAVE area in the standard format (Intel SDM vol. 1, 13.4): legacy region, header, AVX state at 576.
  alignas(64) std::array<std::uint8_t, 1024> xsave{};
  std::vector<MsrValue> msrs;  ///< Those an engine has beyond what is named above. The TSC is to be read: set_state
                               ///< ignores it (see TSC_ADJUST).

  // What is on its way (KVM: KVM_GET_VCPU_EVENTS).
  RunState run_state = RunState::Running;
  bool nmi_pending = false, nmi_masked = false;
  bool interrupt_shadow = false;  ///< The instruction after STI or MOV SS.
};

}  // namespace vm_platform
