// The guest benchmark's items: what is measured, in four classes. The list was fixed before any tuning.
#pragma once

#include <cstdint>
#include <span>

namespace vm_platform::bench {

struct Item {
  const char* class_name;  ///< integer, memory, floating, system
  const char* name;
  const char* what;
  /// Does `count` units of work and returns something that depends on all of it.
  std::uint64_t (*run)(std::uint64_t count);
};

std::span<const Item> integer_items();
std::span<const Item> memory_items();
std::span<const Item> floating_items();
std::span<const Item> system_items();

/// Keeps the compiler from seeing through a value.
template <typename T>
inline void keep(T& value) {
  asm volatile("" : "+r"(value)::"memory");
}

}  // namespace vm_platform::bench
