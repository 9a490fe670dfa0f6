// Hardware task switches (Intel SDM vol. 3, chapter 7).
#pragma once

#include <cstdint>
#include <optional>

#include "engine/soft/semantics.hpp"

namespace vm_platform::soft {

enum class TaskSwitch : std::uint8_t { Jump, Call, Interrupt, Return };

/// Switches to the task whose TSS descriptor is `selector`. `return_rip` is what the old task resumes at.
void switch_task(Cpu& cpu, std::uint16_t selector, TaskSwitch reason, std::uint64_t return_rip, std::uint32_t ext,
                 std::optional<std::uint32_t> error_code);

}  // namespace vm_platform::soft
