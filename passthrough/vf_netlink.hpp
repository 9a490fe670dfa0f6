// Virtual functions over rtnetlink (linux/if_link.h: IFLA_VFINFO_LIST and what is below it).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>
#include <vm_platform/sriov.hpp>

namespace vm_platform {

/// What a reply tells of one virtual function.
struct VfLinkInfo {
  std::uint32_t index = 0;
  VfConfig config;
  std::optional<VfPerfStats> stats;
};
struct VfLinkReply {
  std::uint32_t count = 0;  ///< IFLA_NUM_VF.
  std::vector<VfLinkInfo> functions;
};

/// One RTM_NEWLINK message, header included. `Corrupt` where its attributes do not fit into it.
[[nodiscard]] Result<VfLinkReply> parse_vf_link(std::span<const std::byte> message);

/// Asks for the functions of an interface. `with_stats` fails to bring all where there are many: the list's length is
/// 16 bits and wraps, so `functions` may be fewer than `count`.
[[nodiscard]] Result<VfLinkReply> query_vfs(const std::string& interface, bool with_stats);

/// Sets everything in `config`, each setting by a message of its own so that the one that fails is known.
Result<void> set_vf(const std::string& interface, const std::string& driver, std::uint32_t index,
                    const VfConfig& config);

}  // namespace vm_platform
