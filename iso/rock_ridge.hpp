// System use areas: SUSP (IEEE P1281) and what Rock Ridge (IEEE P1282) and zisofs record in them.
#pragma once

#include <memory>
#include <vm_platform/iso.hpp>

#include "iso/source.hpp"

namespace vm_platform::iso {

/// Told of inconsistencies that a reader passes over. Null for ordinary reading.
class Checker {
 public:
  virtual ~Checker() = default;
  virtual void complain(std::uint64_t offset, std::string what) = 0;
};

/// What holds for all system use areas of a volume.
struct Susp {
  bool present = false;     ///< An SP field was found in the root's first record.
  bool rock_ridge = false;  ///< And the fields are Rock Ridge's.
  std::uint8_t skip = 0;    ///< LEN_SKP: bytes before the fields in every area but the root's first.
  std::string extension;    ///< Identifier of the ER field.
  std::uint32_t block_size = 2048;
};

/// Reads continuation areas; keeps the block it read last, since neighbours share it.
class ContinuationReader {
 public:
  explicit ContinuationReader(const Source& source) : source_(source) {}
  /// The bytes are valid until the next call.
  Result<Bytes> read(std::uint64_t offset, std::uint32_t size);
  void release() noexcept { buffer_.reset(); }

 private:
  static constexpr std::uint32_t kWindow = 8192;
  const Source& source_;
  std::unique_ptr<std::byte[]> buffer_;
  std::uint64_t start_ = 0;
  std::uint32_t filled_ = 0;
};

/// What one system use area says beyond the entry's own fields.
struct RockRidgeLinks {
  bool has_name = false;      ///< NM gave the entry's name.
  bool is_relocated = false;  ///< RE: listed elsewhere by a child link; to be hidden here.
  bool has_child = false;     ///< CL: the directory is at block `child`.
  std::uint32_t child = 0;
  bool says_directory = false;  ///< PX calls a record that is none a directory; right only beside a child link.
  bool has_parent = false;      ///< PL
  std::uint32_t parent = 0;
};

/// Largest number of continuation areas that one record may chain, and bytes of name and symlink target it may give.
inline constexpr unsigned kMaxContinuations = 64;
inline constexpr std::uint32_t kMaxContinuationSize = 32768;
inline constexpr std::size_t kMaxNameBytes = 4096, kMaxTargetBytes = 65536;

/// Reads the system use area `area` (at byte `offset` of the image) into `entry` and `links`. Damage past which nothing
/// more can be read is an error; `entry` then holds what came before it.
Result<void> read_system_use(const Susp& susp, Bytes area, std::uint64_t offset, ContinuationReader& continuations,
                             IsoEntry& entry, RockRidgeLinks& links, Checker* checker);

/// Looks for SP and ER in the root directory's first record (SUSP 5.3, 5.5).
[[nodiscard]] Susp detect_susp(Bytes area, std::uint32_t block_size, const Source& source);

}  // namespace vm_platform::iso
