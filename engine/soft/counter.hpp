// A number that one thread counts and any thread may read.
#pragma once

#include <atomic>
#include <cstdint>

namespace vm_platform::soft {

/// Counted by one thread at a time; reading from elsewhere gives a value of a moment ago. Costs no more than a plain
/// number.
class Counter {
 public:
  Counter& operator++() { return *this += 1; }
  Counter& operator+=(std::uint64_t more) {
    value_.store(value_.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
    return *this;
  }
  [[nodiscard]] std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_ = 0;
};

}  // namespace vm_platform::soft
