// The secret that a physical function's driver and those who open its virtual functions share: a UUID.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vm_platform/core.hpp>

namespace vm_platform {

/// "6ba7b810-9dad-11d1-80b4-00c04fd430c8" as bytes in the order written. Anything else is `InvalidArgument`.
[[nodiscard]] Result<std::array<std::uint8_t, 16>> parse_vf_token(std::string_view uuid);

}  // namespace vm_platform
