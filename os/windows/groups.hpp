// Windows numbers CPUs within groups of at most 64; we number them through.
#pragma once

#include <windows.h>

namespace vm_platform {

/// The number of the first CPU of a group; of the group after the last, how many CPUs there are.
inline unsigned first_cpu_of_group(WORD group) {
  unsigned first = 0;
  for (WORD i = 0; i < group; ++i) first += ::GetActiveProcessorCount(i);
  return first;
}

}  // namespace vm_platform
