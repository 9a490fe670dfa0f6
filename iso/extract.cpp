#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>

#include "iso/extract_target.hpp"

namespace vm_platform {
namespace {

using iso::TargetDirectory;
using Directory = std::shared_ptr<TargetDirectory>;

/// Files of one directory: so many that taking a batch costs little, so few that all threads have some.
struct Batch {
  Directory directory;
  std::string path;
  std::vector<IsoEntry> entries;
};
constexpr std::size_t kBatch = 64, kQueue = 32;
constexpr std::size_t kMaxErrors = 100;
constexpr unsigned kMaxThreads = 64;

/// Threads that write batches; the walk fills a short queue.
class Writers {
 public:
  Writers(const SimpleIso9660& image, const IsoExtractOptions& options, unsigned threads)
      : iso_(image), options_(options) {
    try {
      for (unsigned i = 1; i < std::min(threads, kMaxThreads); ++i) threads_.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
      return;  // the host gives no more of them: fewer do the same
    }
  }
  Writers(const Writers&) = delete;
  Writers& operator=(const Writers&) = delete;
  ~Writers() { finish(); }

  void submit(Batch batch) {
    if (batch.entries.empty()) return;
    if (threads_.empty()) return write(batch);
    std::unique_lock lock(mutex_);
    if (queue_.size() >= kQueue) {  // the others are behind: help
      lock.unlock();
      return write(batch);
    }
    queue_.push_back(std::move(batch));
    lock.unlock();
    ready_.notify_one();
  }

  /// Returns once all that was submitted is written, so that its directories are closed.
  void drain() {
    std::unique_lock lock(mutex_);
    while (!queue_.empty()) write_first(lock);
    idle_.wait(lock, [this] { return busy_ == 0; });
  }

  void finish() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    ready_.notify_all();
    work();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  void failed(VmError error) {
    const std::lock_guard lock(report_mutex_);
    ++report.failures;
    if (report.errors.size() < kMaxErrors) report.errors.push_back(std::move(error));
  }
  [[nodiscard]] bool stopped() const {
    return options_.progress != nullptr && options_.progress->stop.load(std::memory_order_relaxed);
  }

  IsoExtractReport report;

 private:
  void work() {
    for (;;) {
      std::unique_lock lock(mutex_);
      ready_.wait(lock, [this] { return closed_ || !queue_.empty(); });
      if (queue_.empty()) return;
      write_first(lock);
    }
  }

  /// Unlocks while it writes.
  void write_first(std::unique_lock<std::mutex>& lock) {
    {
      const Batch batch = std::move(queue_.front());
      queue_.pop_front();
      ++busy_;
      lock.unlock();
      write(batch);
    }
    lock.lock();
    if (--busy_ == 0) idle_.notify_all();
  }

  void write(const Batch& batch) {
    IsoExtractReport sum;
    for (const IsoEntry& entry : batch.entries) {
      if (stopped()) break;
      auto outcome = batch.directory->add(iso_, entry);
      if (!outcome) {
        const VmError& error = outcome.error();
        if (error.code() == ErrorCode::Interrupted && stopped()) break;  // not a failure: the report says `stopped`
        failed(VmError(error.code(), "extract", "'" + batch.path + entry.name + "'", error.reason())
                   .with_hint(error.hint()));
        continue;
      }
      if (*outcome == TargetDirectory::Outcome::Skipped) {
        ++sum.skipped;
      } else if (*outcome == TargetDirectory::Outcome::Kept) {
        ++sum.kept;
      } else if (entry.is_symlink()) {
        ++sum.symlinks;
      } else {
        ++sum.files;
        sum.bytes += entry.size;
      }
      if (options_.progress != nullptr) {
        options_.progress->files.fetch_add(1, std::memory_order_relaxed);
        if (entry.is_file()) options_.progress->bytes.fetch_add(entry.size, std::memory_order_relaxed);
      }
    }
    const std::lock_guard lock(report_mutex_);
    report.files += sum.files;
    report.symlinks += sum.symlinks;
    report.bytes += sum.bytes;
    report.kept += sum.kept;
    report.skipped += sum.skipped;
  }

  const SimpleIso9660& iso_;
  const IsoExtractOptions& options_;
  std::mutex mutex_, report_mutex_;
  std::condition_variable ready_, idle_;
  std::deque<Batch> queue_;
  unsigned busy_ = 0;  ///< Threads that write a batch of the queue.
  bool closed_ = false;
  std::vector<std::thread> threads_;
};

/// Directories from the target to where the walk is; made only once something in them is wanted.
class Way {
 public:
  Way(Directory top, Writers& writers, const iso::TargetState& state) : writers_(writers), state_(state) {
    levels_.push_back({std::move(top), {}, {}, true});
  }

  /// The walk is now at `depth` (0: directly in the target).
  void leave_to(std::size_t depth) {
    while (levels_.size() > depth + 1) {
      flush(levels_.back());
      levels_.pop_back();
    }
  }
  void enter(const IsoEntry& entry) {
    flush(levels_.back());
    levels_.push_back({nullptr, entry, {}, false});
  }
  [[nodiscard]] std::size_t depth() const { return levels_.size() - 1; }

  /// Makes what is missing of the way here; false (once said) if that can't be done.
  bool make() {
    for (std::size_t i = 1; i < levels_.size(); ++i) {
      Level& level = levels_[i];
      if (level.tried) {
        if (level.directory == nullptr) return false;
        continue;
      }
      level.tried = true;
      // What waits to be written holds the directories on its own way open.
      if (state_.open >= state_.most_open) writers_.drain();
      auto made = levels_[i - 1].directory->enter(levels_[i - 1].directory, level.entry);
      if (!made) {
        writers_.failed(VmError(made.error().code(), "extract", "'" + path(i) + "'", made.error().reason())
                            .with_hint(made.error().hint()));
        return false;
      }
      level.directory = std::move(*made);
      ++writers_.report.directories;
    }
    return true;
  }

  void add(const IsoEntry& entry) {
    Level& level = levels_.back();
    level.waiting.push_back(entry);
    if (level.waiting.size() >= kBatch || entry.size > 4 * kMiB) flush(level);
  }

 private:
  struct Level {
    Directory directory;
    IsoEntry entry;
    std::vector<IsoEntry> waiting;
    bool tried;
  };
  [[nodiscard]] std::string path(std::size_t index) const {
    std::string text;
    for (std::size_t i = 1; i <= index; ++i) text += levels_[i].entry.name + (i < index ? "/" : "");
    return text;
  }
  void flush(Level& level) {
    if (level.waiting.empty()) return;
    std::string prefix = path(static_cast<std::size_t>(&level - levels_.data()));
    if (!prefix.empty()) prefix += '/';
    writers_.submit({level.directory, std::move(prefix), std::move(level.waiting)});
    level.waiting.clear();
  }
  Writers& writers_;
  const iso::TargetState& state_;
  std::vector<Level> levels_;
};

/// What is to be extracted, and which of it was there.
class Patterns {
 public:
  explicit Patterns(const std::vector<std::string>& given) {
    for (const std::string& pattern : given) {
      std::string_view bare = pattern;
      while (bare.starts_with('/') || bare.starts_with("./")) bare.remove_prefix(bare.find('/') + 1);
      while (bare.ends_with('/')) bare.remove_suffix(1);
      all_.push_back({pattern, bare.empty() || bare == "." ? "**" : bare});
    }
  }

  /// Whether `path`, `inside` a directory that is taken whole or not, is wanted. Patterns that matched nothing so far
  /// are tried in any case.
  bool want(std::string_view path, bool inside) {
    bool any = inside || all_.empty();
    for (Pattern& pattern : all_) {
      if (any && pattern.matched) continue;
      if (!iso_glob_match(pattern.bare, path)) continue;
      any = pattern.matched = true;
    }
    return any;
  }
  [[nodiscard]] std::vector<std::string> unmatched() const {
    std::vector<std::string> names;
    for (const Pattern& pattern : all_) {
      if (!pattern.matched) names.push_back(pattern.given);
    }
    return names;
  }

 private:
  struct Pattern {
    const std::string& given;
    std::string_view bare;  ///< As paths are: without `/` at either end.
    bool matched = false;
  };
  std::vector<Pattern> all_;
};

}  // namespace

Result<IsoExtractReport> iso_extract(const SimpleIso9660& image, const std::string& target,
                                     const IsoExtractOptions& options) {
  auto top = image.find(options.from);
  if (!top) return fail(std::move(top.error()));
  iso::TargetState state;
  auto opened = iso::open_target(target, options, state);
  if (!opened) return fail(std::move(opened.error()));
  const unsigned cpus = std::max(1u, std::thread::hardware_concurrency());
  Writers writers(image, options, options.threads != 0 ? options.threads : std::min(cpus, 8u));
  {
    Way way(std::move(*opened), writers, state);
    if (!top->is_directory()) {
      way.add(*top);
      way.leave_to(0);
      way.enter({});
    } else {
      IsoWalk walk(image, *top);
      IsoEntry entry;
      Patterns patterns(options.patterns);
      std::size_t whole_below = SIZE_MAX;  // depth of a directory that matched: everything deeper is wanted
      while (!writers.stopped()) {
        auto more = walk.next(entry);
        if (!more) {
          writers.failed(std::move(more.error()));
          continue;
        }
        if (!*more) break;
        const std::size_t depth = walk.depth();
        way.leave_to(depth);
        if (depth <= whole_below) whole_below = SIZE_MAX;
        const bool wanted = patterns.want(walk.path(), whole_below != SIZE_MAX);
        if (!entry.is_directory() && !wanted) continue;
        if (!iso::is_file_name(entry.name)) {
          walk.skip();
          writers.failed(VmError(ErrorCode::Corrupt, "extract", "'" + std::string(walk.path()) + "'",
                                 "'" + entry.name + "' is not a name for a file here"));
          continue;
        }
        if (entry.is_directory()) {
          if (depth + 1 >= iso::kMaxExtractDepth) {
            walk.skip();
            writers.failed(VmError(ErrorCode::Unsupported, "extract", "'" + entry.name + "'",
                                   "directories nest deeper than 512 levels"));
            continue;
          }
          if (wanted && !options.patterns.empty() && whole_below == SIZE_MAX) whole_below = depth;
          way.enter(entry);
          if (wanted && !way.make()) {
            way.leave_to(depth);
            walk.skip();
          }
        } else if (way.make()) {
          way.add(entry);
        }
      }
      if (!writers.stopped()) writers.report.unmatched = patterns.unmatched();
      way.leave_to(0);
      way.enter({});
    }
  }
  writers.finish();
  writers.report.stopped = writers.stopped();
  writers.report.without_owner = state.without_owner;
  return std::move(writers.report);
}

}  // namespace vm_platform
