// Extracts the files of a disc image, never outside the target directory.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>
#include <vm_platform/iso.hpp>

namespace vm_platform {

/// What to do with a file that is there already.
enum class IsoExisting : std::uint8_t {
  Refuse,     ///< It is an error, and stays as it is.
  Resume,     ///< Kept if size and time are the image's (then it was finished), otherwise written anew.
  Overwrite,  ///< Written anew.
};

/// Counts that other threads may watch; `stop` ends the extraction within 16 MiB, and removes the files that were being
/// written.
struct IsoExtractProgress {
  std::atomic<std::uint64_t> files = 0, bytes = 0;
  std::atomic<bool> stop = false;
};

struct IsoExtractOptions {
  std::string from = "/";  ///< Directory (or file) of the image whose content is extracted.
  /// As `iso_glob_match`; `/` or `./` before and `/` after them are left out. A directory that matches is taken whole.
  /// None: everything.
  std::vector<std::string> patterns;
  unsigned threads = 0;  ///< 0: one for each CPU, at most 8. Never more than 64.
  IsoExisting existing = IsoExisting::Refuse;
  bool owners = false;         ///< Also owner, group and set-id bits; needs privileges. Not on Windows.
  bool special_files = false;  ///< Also device nodes and named pipes; needs privileges.
  IsoExtractProgress* progress = nullptr;
};

struct IsoExtractReport {
  std::uint64_t directories = 0, files = 0, symlinks = 0, bytes = 0;
  std::uint64_t kept = 0;     ///< Files that `Resume` found finished.
  std::uint64_t skipped = 0;  ///< Device nodes and the like that were not asked for.
  /// Files and directories whose owner was asked for and could not be given. They have no set-id bits: these would let
  /// everybody act as who extracts.
  std::uint64_t without_owner = 0;
  bool stopped = false;  ///< By `IsoExtractProgress::stop`.
  std::uint64_t failures = 0;
  std::vector<VmError> errors;         ///< The first hundred failures.
  std::vector<std::string> unmatched;  ///< Patterns, as given, that nothing in the image matches; none where `stopped`.
};

/// Writes what `options` choose below `target`, which is made if it is not there. Each path is opened one component at
/// a time without following symbolic links, so that neither a name nor a link of the image (nor someone who changes the
/// target meanwhile) leads elsewhere. Times and modes are restored, with `IsoExisting::Refuse` only of what was not
/// there before. A file is there whole or not at all: one that fails or is stopped is removed. Where the process is
/// killed, one of at most 1 MiB can stay cut short; larger ones get their name last. Names that are no file names
/// (`..`, with `/`) are failures of those entries; so are directories more than 512 deep. Fails itself only where
/// nothing could be begun.
[[nodiscard]] Result<IsoExtractReport> iso_extract(const SimpleIso9660& iso, const std::string& target,
                                                   const IsoExtractOptions& options = {});

}  // namespace vm_platform
