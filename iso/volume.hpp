// From the first bytes of an image to its trees: sector format, sessions, volume descriptors, partitions.
#pragma once

#include <optional>
#include <vector>
#include <vm_platform/iso.hpp>

#include "iso/directory.hpp"

namespace vm_platform::iso {

/// The source seen as 2048-byte sectors, whatever it stores. An error names what the file is instead of an image.
struct Layout {
  std::unique_ptr<Source> source;
  IsoSectorFormat format = IsoSectorFormat::Cooked2048;
};
[[nodiscard]] Result<Layout> detect_layout(std::unique_ptr<Source> source);

/// Whether UDF's volume recognition sequence (ECMA-167 2/8) follows the sector `first`.
[[nodiscard]] bool has_udf(const Source& source, std::uint64_t first);

/// Descriptors of one session.
struct Volume {
  IsoVolumeInfo info;
  std::vector<Tree> trees;                    ///< Plain first; Rock Ridge directly after it.
  std::optional<std::uint64_t> boot_catalog;  ///< Byte offset.
};
/// `session_start` is a sector; descriptors begin 16 sectors behind it (ECMA-119 6.2.1).
[[nodiscard]] Result<Volume> read_volume(const Source& source, std::uint64_t session_start);

/// The sessions of an image, oldest first. Looks only where one session's end says that another may begin.
[[nodiscard]] std::vector<IsoSession> find_sessions(const Source& source);

/// MBR, GPT and Apple partition maps of a hybrid image.
[[nodiscard]] std::vector<IsoPartition> find_partitions(const Source& source);

}  // namespace vm_platform::iso
