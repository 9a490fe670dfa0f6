#include "passthrough/vf_token.hpp"

#include <string>

#include "passthrough/text.hpp"

namespace vm_platform {

Result<std::array<std::uint8_t, 16>> parse_vf_token(std::string_view uuid) {
  std::array<std::uint8_t, 16> token{};
  std::size_t at = 0;
  bool good = uuid.size() == 36;
  for (std::size_t i = 0; good && i < token.size(); ++i) {
    if (at == 8 || at == 13 || at == 18 || at == 23) good = uuid[at++] == '-';
    const auto byte = text::number<std::uint8_t>(uuid.substr(at, 2), 16);
    good = good && byte.has_value();
    token[i] = byte.value_or(0);
    at += 2;
  }
  if (!good) {
    return fail(VmError(ErrorCode::InvalidArgument, "read VF token", "'" + std::string(uuid) + "'", "not a UUID")
                    .with_hint("`cat /proc/sys/kernel/random/uuid` makes one"));
  }
  return token;
}

}  // namespace vm_platform
