// Carries what a guest prints to a file, pipe or terminal, on a thread of its own.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>
#include <vm_platform/core.hpp>

namespace vm_platform::vmp {

/// Keeps up to 1 MiB for a slow reader; then `push` blocks, and with it the guest that prints. Nothing is dropped,
/// unless writing fails or it is destroyed before `drain` said true. Never makes the descriptor non-blocking: others
/// may share it; a terminal is opened once more instead. Destruction waits for no reader.
class OutputPump {
 public:
  /// `on_failure` is called once, on the pump's thread, when writing fails (EPIPE, ENOSPC).
  OutputPump(int descriptor, std::string name, std::function<void()> on_failure);
  ~OutputPump();

  void push(std::span<const std::byte> bytes);
  /// Whether `push` would return at once. Stays true until somebody pushes.
  [[nodiscard]] bool has_room() const;
  /// Waits until everything is written, at most `patience` without any progress; `push` drops everything from now on.
  /// True when nothing is left. May be called again.
  bool drain(std::chrono::milliseconds patience);
  /// Lets a blocked `push` go on; what does not fit is kept nevertheless. For the way out, when the guest has to stop.
  void release();
  [[nodiscard]] Result<void> status() const;

 private:
  void body();
  void wake() const;
  [[nodiscard]] bool takes_more() const noexcept;  // under mutex_

  const int descriptor_;
  const int terminal_;  ///< The same terminal, opened again, non-blocking; -1: it is none, or that cannot be.
  const std::size_t piece_;
  const std::string name_;
  const std::function<void()> on_failure_;
  int wake_ = -1;  // eventfd
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::byte> queue_;
  bool closing_ = false, released_ = false, abandoned_ = false, idle_ = true;
  int error_ = 0;
  std::uint64_t written_ = 0;
  std::thread thread_;
};

}  // namespace vm_platform::vmp
