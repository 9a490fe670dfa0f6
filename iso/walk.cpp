#include <algorithm>
#include <bit>

#include "iso/directory.hpp"

namespace vm_platform {
namespace {

/// A set of directory locations: 8 to 16 bytes each, no allocation per element.
class LocationSet {
 public:
  /// False if it was there already.
  bool insert(std::uint64_t location) {
    const std::uint64_t key = location + 1;  // 0 marks a free slot
    if (2 * (count_ + 1) > slots_.size()) grow();
    const std::size_t at = slot(key);
    if (slots_[at] == key) return false;
    slots_[at] = key;
    ++count_;
    return true;
  }
  [[nodiscard]] std::size_t size() const { return count_; }

 private:
  [[nodiscard]] std::size_t slot(std::uint64_t key) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t at = (key * 0x9E3779B97F4A7C15u >> 20) & mask;
    while (slots_[at] != 0 && slots_[at] != key) at = (at + 1) & mask;
    return at;
  }
  void grow() {
    std::vector<std::uint64_t> old(std::max<std::size_t>(64, slots_.size() * 2));
    old.swap(slots_);
    for (const std::uint64_t key : old) {
      if (key != 0) slots_[slot(key)] = key;
    }
  }
  std::vector<std::uint64_t> slots_;
  std::size_t count_ = 0;
};

}  // namespace

struct IsoWalk::State {
  explicit State(const Iso9660& image) : iso(image) {}

  struct Level {
    IsoDirectory directory;
    std::size_t path_length;  ///< Of the directory's own path.
  };

  const Iso9660& iso;
  std::vector<Level> levels;
  LocationSet entered;
  std::string path;
  std::uint64_t directory_bytes = 0;
  std::optional<IsoEntry> pending;  ///< The directory just given, entered by the next call.
  std::optional<VmError> start_error;

  /// Directories further up than this give their buffers back.
  static constexpr std::size_t kBuffered = 8;

  Result<void> enter(const IsoEntry& directory) {
    const IsoExtent extent = directory.extents().front();
    const auto refuse = [&](ErrorCode code, const std::string& why) {
      return fail(code, "list", "'" + path + "'", why + " (directory at " + iso::at_byte(extent.offset) + ")");
    };
    if (levels.size() >= kMaxDepth) return refuse(ErrorCode::Corrupt, "directories nest deeper than 4096 levels");
    if (entered.size() >= kMaxDirectories) return refuse(ErrorCode::OutOfMemory, "more than 4,000,000 directories");
    if (extent.size != 0 && !entered.insert(extent.offset)) {
      return refuse(ErrorCode::Corrupt, "the image lists this directory twice, or inside itself");
    }
    // Directories do not overlap, so together they are no larger than the image; a loop of overlapping ones would be.
    const std::uint64_t size = iso.volume().image_size;
    directory_bytes += std::min(extent.size, size - std::min(size, extent.offset));
    if (directory_bytes > size) return refuse(ErrorCode::Corrupt, "directories overlap");
    auto opened = iso.open_directory(directory);
    if (!opened) return fail(std::move(opened.error()));
    if (levels.size() >= kBuffered) levels[levels.size() - kBuffered].directory.release_buffer();
    levels.push_back({std::move(*opened), path.size()});
    return {};
  }
};

IsoWalk::IsoWalk(const Iso9660& iso, const IsoEntry& top) : state_(std::make_unique<State>(iso)) {
  if (auto done = state_->enter(top); !done) state_->start_error = std::move(done.error());
}
IsoWalk::IsoWalk(IsoWalk&&) noexcept = default;
IsoWalk::~IsoWalk() = default;

Result<bool> IsoWalk::next(IsoEntry& entry) {
  State& state = *state_;
  if (state.start_error) {
    VmError error = std::move(*state.start_error);
    state.start_error.reset();
    return fail(std::move(error));
  }
  if (state.pending) {
    const IsoEntry directory = std::move(*state.pending);
    state.pending.reset();
    if (auto done = state.enter(directory); !done) return fail(std::move(done.error()));
  }
  while (!state.levels.empty()) {
    State::Level& level = state.levels.back();
    state.path.resize(level.path_length);
    auto more = level.directory.next(entry);
    if (!more) return more;
    if (!*more) {
      state.levels.pop_back();
      continue;
    }
    if (!state.path.empty()) state.path += '/';
    state.path += entry.name;
    if (entry.is_directory()) state.pending = entry;
    return true;
  }
  return false;
}

std::string_view IsoWalk::path() const noexcept { return state_->path; }
std::size_t IsoWalk::depth() const noexcept { return state_->levels.empty() ? 0 : state_->levels.size() - 1; }
void IsoWalk::skip() noexcept { state_->pending.reset(); }

}  // namespace vm_platform
