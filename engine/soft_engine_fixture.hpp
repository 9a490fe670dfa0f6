// A flat 64-bit guest of a few pages on the software engine, for small programs.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "engine/engine.hpp"

namespace vm_platform {

inline constexpr std::uint64_t kCode = 0x100000, kData = 0x200000, kStack = 0x300000, kIdt = 0x8000, kGdt = 0x9000;

/// At most one interrupt, waiting from the start; no MSRs.
struct NoController : CpuInterruptController {
  std::optional<std::uint8_t> waiting;
  bool has_interrupt() noexcept override { return waiting.has_value(); }
  std::optional<std::uint8_t> acknowledge() noexcept override { return std::exchange(waiting, std::nullopt); }
  std::uint8_t task_priority() noexcept override { return 0; }
  void set_task_priority(std::uint8_t) noexcept override {}
  MsrAccess read_msr(std::uint32_t, std::uint64_t&) noexcept override { return MsrAccess::NotMine; }
  MsrAccess write_msr(std::uint32_t, std::uint64_t) noexcept override { return MsrAccess::NotMine; }
};

/// A write to port 0xf4 ends the program.
struct ExitPort : PortDevice {
  std::uint32_t port_read(std::uint16_t, unsigned) override { return 0; }
  void port_write(std::uint16_t, unsigned, std::uint32_t value) override {
    written = value;
    vcpu->kick();
  }
  Vcpu* vcpu = nullptr;
  std::optional<std::uint32_t> written;
};

class SoftEngineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    memory_.emplace(GuestMemory::create(16 * kMiB).value());
    // 4 MiB identity-mapped with 4 KiB pages, the rest with 2 MiB pages.
    put<std::uint64_t>(0x1000, 0x2003), put<std::uint64_t>(0x2000, 0x3003);
    for (std::uint64_t i = 0; i < 8; ++i) put<std::uint64_t>(0x3000 + i * 8, i << 21 | 0x83);
    for (std::uint64_t i = 0; i < 2; ++i) put<std::uint64_t>(0x3000 + i * 8, (0x4000 + i * 0x1000) | 3);
    for (std::uint64_t i = 0; i < 1024; ++i) put<std::uint64_t>(0x4000 + i * 8, i << 12 | 3);
    put<std::uint64_t>(kGdt + 0x10, 0x00af9b000000ffff), put<std::uint64_t>(kGdt + 0x18, 0x00cf93000000ffff);
    ASSERT_TRUE(ports_.attach(0xf4, 1, exit_, "exit"));
    environment_ = {&*memory_, &ports_, &mmio_, {}};
    make_engine({});
    state_.rip = kCode;
    state_.gpr[kRsp] = kStack;
    state_.cr0 = 0x80010033, state_.cr3 = 0x1000, state_.cr4 = 0x40620, state_.efer = 0xd01, state_.xcr0 = 7;
    const Segment data{0, 0xffffffff, 0x18, 0xc093};
    state_.segments = {data, {0, 0xffffffff, 0x10, 0xa09b}, data, data, data, data};
    state_.tr = {0, 0xffff, 0, 0x8b};
    state_.gdtr = {kGdt, 0x1f}, state_.idtr = {kIdt, 0xfff};
    state_.xsave[0] = 0x7f, state_.xsave[1] = 3, state_.xsave[24] = 0x80, state_.xsave[25] = 0x1f,
    state_.xsave[512] = 7;
  }

  void make_engine(const EngineOptions& options) {
    vcpu_.reset(), engine_.reset();
    engine_ = create_soft_engine(environment_, options).value();
    vcpu_ = engine_->create_vcpu(0, controller_).value();
    exit_.vcpu = vcpu_.get();
  }

  /// An engine as on hosts with that much of a CPU, and a state that its CPUs can be in.
  void make_host(HostCpuUse use) {
    make_engine({.host_cpu = use});
    constexpr std::uint64_t kOsxsave = 0x40000;
    state_.cr4 = use == HostCpuUse::Baseline ? state_.cr4 & ~kOsxsave : state_.cr4 | kOsxsave;
    state_.xcr0 = use == HostCpuUse::Baseline ? 1 : 7;
  }

  /// As a device or a loader writes: the engine is told, and forgets code that was there.
  template <typename T>
  void put(std::uint64_t address, T value) {
    EXPECT_TRUE(memory_->write(Gpa(address), std::as_bytes(std::span(&value, 1))));
  }
  template <typename T>
  T get(std::uint64_t address) {
    T value;
    std::memcpy(&value, memory_->host(Gpa(address), sizeof value), sizeof value);
    return value;
  }
  /// The handler of an exception: leaves through the port with its number in AL.
  void handler(unsigned vector) {
    const std::uint64_t at = 0xa000 + vector * 16;
    const std::uint8_t code[] = {0xb0, static_cast<std::uint8_t>(vector), 0xe6, 0xf4};
    std::memcpy(memory_->host(Gpa(at), sizeof code), code, sizeof code);
    put<std::uint64_t>(kIdt + vector * 16, (at & 0xffff) | 0x10ULL << 16 | 0x8e00ULL << 32 | (at & 0xffff0000) << 32);
    put<std::uint64_t>(kIdt + vector * 16 + 8, 0);
  }

  /// Runs the bytes followed by `mov al, 0xff; out 0xf4, al`; returns the state at the end.
  CpuState run(std::initializer_list<int> bytes) {
    std::uint64_t at = kCode;
    for (const int byte : bytes) put<std::uint8_t>(at++, static_cast<std::uint8_t>(byte));
    for (const int byte : {0xe6, 0xf4}) put<std::uint8_t>(at++, static_cast<std::uint8_t>(byte));
    EXPECT_TRUE(vcpu_->set_state(state_));
    const VcpuExit exit = vcpu_->run();
    EXPECT_EQ(exit.kind, VcpuExit::Kind::Kicked) << exit.error;
    return vcpu_->state();
  }

  std::optional<GuestMemory> memory_;
  PortBus ports_;
  MmioBus mmio_;
  ExitPort exit_;
  NoController controller_;
  EngineEnvironment environment_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Vcpu> vcpu_;
  CpuState state_;
};

}  // namespace vm_platform
