// What the timer needs of a host.
#pragma once

#include <cstdint>

namespace vm_platform::timer_host {

/// The host's own monotonic clock.
std::uint64_t monotonic_ns();

/// Why the CPU's counter must not be used; null where it may.
const char* counter_unusable();

/// Calls `function` in every forked child from now on; a host without fork never does. False where there is no memory
/// for it.
bool after_fork(void (*function)());

}  // namespace vm_platform::timer_host
