// An engine for tests of what stands around engines: its guest code is a C++ function.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>

#include "runtime/runtime_impl.hpp"

namespace vm_platform::runtime::test {

/// One step of the guest on CPU `cpu`. What it returns ends `run`; nothing: go on.
using GuestStep = std::function<std::optional<VcpuExit>(unsigned cpu, PortBus& ports)>;

class FakeVcpu final : public Vcpu {
 public:
  FakeVcpu(unsigned index, PortBus& ports, const GuestStep& step) : index_(index), ports_(ports), step_(step) {}

  VcpuExit run() override {
    while (true) {
      {
        std::unique_lock lock(mutex_);
        if (std::exchange(kicked_, false)) return {};
      }
      ++exits_;
      if (auto exit = step_(index_, ports_)) return *exit;
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, std::chrono::microseconds(100), [this] { return kicked_; });
    }
  }
  void kick() noexcept override {
    const std::lock_guard lock(mutex_);
    kicked_ = true;
    changed_.notify_all();
  }
  void forget_signals() noexcept override { nmis_ = 0; }
  CpuState state() const override { return state_; }
  Result<void> set_state(const CpuState& state) override {
    state_ = state;
    return {};
  }
  VcpuStats stats() const noexcept override { return {.exits = exits_}; }
  void interrupt_pending() noexcept override {}
  void raise_nmi() noexcept override { ++nmis_; }
  void raise_init() noexcept override {}
  void raise_startup(std::uint8_t) noexcept override {}

 private:
  const unsigned index_;
  PortBus& ports_;
  const GuestStep& step_;
  CpuState state_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool kicked_ = false;
  std::atomic<std::uint64_t> exits_ = 0, nmis_ = 0;
};

class FakeEngine final : public Engine {
 public:
  FakeEngine(PortBus& ports, GuestStep step) : ports_(ports), step_(std::move(step)) {}
  std::string name() const override { return "fake"; }
  Result<std::unique_ptr<Vcpu>> create_vcpu(unsigned index, CpuInterruptController&) override {
    return std::make_unique<FakeVcpu>(index, ports_, step_);
  }
  EngineStats stats() const noexcept override { return {}; }

 private:
  PortBus& ports_;
  const GuestStep step_;
};

inline EngineFactory fake_engine(GuestStep step) {
  return [step = std::move(step)](const EngineEnvironment& environment,
                                  const EngineOptions&) -> Result<std::unique_ptr<Engine>> {
    return std::make_unique<FakeEngine>(*environment.ports, step);
  };
}

}  // namespace vm_platform::runtime::test
