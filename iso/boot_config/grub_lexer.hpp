// GRUB's shell language as tokens; words keep their quotes until they are expanded.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace vm_platform::iso {

struct GrubToken {
  enum class Kind : std::uint8_t { Word, End, Open, Close };  ///< End: newline or `;`. Open, Close: braces of a block.
  Kind kind;
  std::string text;
};
using GrubTokens = std::vector<GrubToken>;

/// The tokens of `script`, at most about `limit`.
[[nodiscard]] GrubTokens lex_grub(std::string_view script, std::size_t limit);

/// More words than this a command does not get.
inline constexpr std::size_t kMaxGrubWords = 10'000;

/// Appends the words that `raw` becomes, each of about `limit` bytes at most: quotes removed, variables replaced,
/// unquoted values split at blanks.
void expand_grub(std::string_view raw, const std::function<std::string_view(std::string_view)>& value_of,
                 std::size_t limit, std::vector<std::string>& words);

}  // namespace vm_platform::iso
