// The threads that run a guest's CPUs: together they run, stand still, or end.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "engine/engine.hpp"

namespace vm_platform::runtime {

/// One host thread per vCPU. `hold` may be called anywhere, also on a vCPU's own thread; `park` and `end` wait, and so
/// belong to the owner's thread. The owner serialises `run`, `park`, `end` and `set_state`.
class CpuThreads {
 public:
  /// Called on the vCPU's thread when `run` came back for another reason than a kick. All CPUs are held by then.
  using ExitHandler = std::function<void(unsigned cpu, const VcpuExit&, const CpuState&)>;

  /// Throws `std::system_error` when the host has no thread for a CPU; none is left running then.
  CpuThreads(std::vector<std::unique_ptr<Vcpu>> vcpus, ExitHandler on_exit);
  ~CpuThreads();

  /// Lets the CPUs run, unless they are held.
  void run();
  /// Stops the CPUs and waits until none runs guest code.
  void park();
  /// The CPUs stop soon, and stay so whatever `run` says, until `release`.
  void hold() noexcept;
  void release() noexcept;
  /// The threads end; returns when they have. Nothing runs afterwards.
  void end();
  /// While parked: what this CPU begins with when it runs again.
  void set_state(unsigned cpu, CpuState state);

  [[nodiscard]] unsigned count() const noexcept { return static_cast<unsigned>(cpus_.size()); }
  [[nodiscard]] Vcpu& vcpu(unsigned cpu) noexcept { return *cpus_[cpu].vcpu; }
  [[nodiscard]] const Vcpu& vcpu(unsigned cpu) const noexcept { return *cpus_[cpu].vcpu; }

 private:
  struct Cpu {
    std::unique_ptr<Vcpu> vcpu;
    std::optional<CpuState> next_state = {};
    std::thread thread = {};
  };
  void body(unsigned index);
  void kick_all() noexcept;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool wanted_ = false, held_ = false, ending_ = false;
  unsigned parked_ = 0;
  std::vector<Cpu> cpus_;
  ExitHandler on_exit_;
};

}  // namespace vm_platform::runtime
