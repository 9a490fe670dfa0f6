#include "iso/extract_target.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fstream>

#include "iso/copy.hpp"
#include "iso/reader.hpp"

namespace vm_platform::iso {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  [[nodiscard]] int get() const { return value_; }

 private:
  int value_;
};

class Counted {
 public:
  explicit Counted(std::atomic<std::uint64_t>& count) : count_(count) {
    count_.fetch_add(1, std::memory_order_relaxed);
  }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  ~Counted() { count_.fetch_sub(1, std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t>& count_;
};

/// Mode bits that open() will not give, without changing the process' umask to ask for it; all of them where unknown.
mode_t masked_bits() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("Umask:")) return static_cast<mode_t>(std::strtoul(line.c_str() + 6, nullptr, 8));
  }
  return 07777;
}

std::unexpected<VmError> os_failure(const char* operation, const std::string& name) {
  return fail(VmError::from_os(errno, operation, name));
}

struct Common {
  IsoExtractOptions options;
  TargetState& state;
  mode_t masked;
};

constexpr mode_t kSetId = 06000;

/// Large enough that a crash in between is likely to be seen: such files get their name once they are whole.
constexpr std::uint64_t kNamedLast = 1 * kMiB;

class PosixDirectory final : public TargetDirectory {
 public:
  /// Gets `restore`'s owner, mode and time in the end, where there is one.
  PosixDirectory(int descriptor, std::shared_ptr<const Common> common, std::shared_ptr<TargetDirectory> parent,
                 const IsoEntry* restore)
      : counted_(common->state.open), directory_(descriptor), common_(std::move(common)), parent_(std::move(parent)) {
    if (restore != nullptr) {
      restore_ = true;
      modified_ = restore->modified;
      accessed_ = restore->accessed;
      mode_ = mode_of(*restore);
      uid_ = restore->uid;
      gid_ = restore->gid;
    }
  }
  PosixDirectory(const PosixDirectory&) = delete;
  PosixDirectory& operator=(const PosixDirectory&) = delete;
  ~PosixDirectory() override {
    if (!restore_) return;
    // What can't be restored (no privileges, a file system without modes) leaves a directory that is usable all the
    // same.
    const bool owned = !common_->options.owners || owner_given(::fchown(directory_.get(), uid_, gid_));
    (void)::fchmod(directory_.get(), owned ? mode_ : mode_ & ~kSetId);
    set_times(directory_.get(), accessed_, modified_);
  }

  Result<std::shared_ptr<TargetDirectory>> enter(std::shared_ptr<TargetDirectory> self,
                                                 const IsoEntry& entry) override {
    const char* name = entry.name.c_str();
    const bool made = ::mkdirat(directory_.get(), name, 0700) == 0;
    if (!made && errno != EEXIST) return os_failure("make directory", entry.name);
    const int descriptor = ::openat(directory_.get(), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (descriptor < 0) {
      if (errno == ELOOP || errno == ENOTDIR) {
        return fail(VmError(ErrorCode::Busy, "enter", entry.name, "something that is no directory has its name")
                        .with_hint("extract into an empty directory"));
      }
      return os_failure("enter", entry.name);
    }
    // One that was there already belongs to somebody else's tree, unless we were told to take it over.
    const bool ours = made || common_->options.existing != IsoExisting::Refuse;
    if (ours && !made) make_writable(descriptor);
    return std::make_shared<PosixDirectory>(descriptor, common_, std::move(self), ours ? &entry : nullptr);
  }

  Result<Outcome> add(const SimpleIso9660& iso, const IsoEntry& entry) override {
    if (entry.is_file()) {
      if (auto ok = check_readable(entry); !ok) return fail(std::move(ok.error()));
      return entry.size > kNamedLast ? add_large(iso, entry) : add_small(iso, entry);
    }
    if (entry.is_symlink()) {
      return add_named(entry,
                       [&] { return ::symlinkat(entry.symlink_target.c_str(), directory_.get(), entry.name.c_str()); });
    }
    if (!common_->options.special_files || entry.type == IsoEntryType::Socket) return Outcome::Skipped;
    const mode_t kind = entry.type == IsoEntryType::Fifo          ? S_IFIFO
                        : entry.type == IsoEntryType::BlockDevice ? S_IFBLK
                                                                  : S_IFCHR;
    const dev_t device = static_cast<dev_t>(((entry.device_major & 0xFFFu) << 8) | (entry.device_minor & 0xFFu) |
                                            ((entry.device_minor & ~0xFFu) << 12));
    return add_named(entry, [&] {
      return ::mknodat(directory_.get(), entry.name.c_str(), kind | (mode_of(entry) & ~kSetId), device);
    });
  }

 private:
  /// Whether changing an owner, which returned `result`, went well.
  [[nodiscard]] bool owner_given(int result) const {
    if (result != 0) common_->state.without_owner.fetch_add(1, std::memory_order_relaxed);
    return result == 0;
  }

  /// An extraction before this one may have given it the image's mode, which is often one that not even its owner may
  /// write into; this one gives it again.
  static void make_writable(int directory) {
    struct stat status{};
    if (::fstat(directory, &status) == 0 && status.st_uid == ::geteuid() && (status.st_mode & 0300) != 0300)
      (void)::fchmod(directory, (status.st_mode & 07777) | 0700);
  }

  [[nodiscard]] mode_t mode_of(const IsoEntry& entry) const {
    if (!entry.has_posix) {
      const mode_t mask = common_->masked == 07777 ? 022 : common_->masked;
      return (entry.is_directory() ? 0777 : 0666) & ~mask;
    }
    return static_cast<mode_t>(entry.mode) & (common_->options.owners ? 07777 : 01777);
  }

  static void set_times(int descriptor, const IsoTime& accessed, const IsoTime& modified) {
    if (modified.present) (void)::futimens(descriptor, both(accessed, modified).data());
  }
  static std::array<timespec, 2> both(const IsoTime& accessed, const IsoTime& modified) {
    const IsoTime& access = accessed.present ? accessed : modified;
    return {timespec{static_cast<time_t>(access.seconds), static_cast<long>(access.nanoseconds)},
            timespec{static_cast<time_t>(modified.seconds), static_cast<long>(modified.nanoseconds)}};
  }

  [[nodiscard]] const std::atomic<bool>* stop() const {
    const IsoExtractProgress* const progress = common_->options.progress;
    return progress != nullptr ? &progress->stop : nullptr;
  }

  /// What stands in the way of `entry`: true if it may stay as it is, false if it has been removed.
  Result<bool> existing(const IsoEntry& entry) const {
    const IsoExisting policy = common_->options.existing;
    if (policy == IsoExisting::Refuse) {
      return fail(VmError(ErrorCode::Busy, "write", entry.name, "is there already")
                      .with_hint("extract into an empty directory, or use --resume or --overwrite"));
    }
    struct stat status{};
    if (::fstatat(directory_.get(), entry.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0)
      return os_failure("examine", entry.name);
    if (policy == IsoExisting::Resume && entry.is_file() && S_ISREG(status.st_mode) &&
        static_cast<std::uint64_t>(status.st_size) == entry.size && entry.modified.present &&
        status.st_mtim.tv_sec == entry.modified.seconds) {
      return true;
    }
    if (::unlinkat(directory_.get(), entry.name.c_str(), 0) != 0) return os_failure("replace", entry.name);
    return false;
  }

  template <typename Make>
  Result<Outcome> add_named(const IsoEntry& entry, Make make) {
    if (make() != 0) {
      if (errno != EEXIST) return os_failure("make", entry.name);
      auto kept = existing(entry);
      if (!kept) return fail(std::move(kept.error()));
      if (make() != 0) return os_failure("make", entry.name);
    }
    const char* name = entry.name.c_str();
    if (common_->options.owners)
      (void)owner_given(::fchownat(directory_.get(), name, entry.uid, entry.gid, AT_SYMLINK_NOFOLLOW));
    if (entry.modified.present) {
      (void)::utimensat(directory_.get(), name, both(entry.accessed, entry.modified).data(), AT_SYMLINK_NOFOLLOW);
    }
    return Outcome::Written;
  }

  /// Owner, mode and times through the open file.
  void finish_file(int file, const IsoEntry& entry) const {
    mode_t mode = mode_of(entry);
    // Set-id bits are for the image's owner; for any other they give away what is not the image's to give.
    if (common_->options.owners && !owner_given(::fchown(file, entry.uid, entry.gid))) mode &= ~kSetId;
    if (entry.has_posix && ((mode & common_->masked) != 0 || (mode & 07000) != 0)) (void)::fchmod(file, mode);
    set_times(file, entry.accessed, entry.modified);
  }

  Result<Outcome> add_small(const SimpleIso9660& iso, const IsoEntry& entry) {
    constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    const char* name = entry.name.c_str();
    int opened = ::openat(directory_.get(), name, kFlags, mode_of(entry) & 0777);
    if (opened < 0) {
      if (errno != EEXIST) return os_failure("write", entry.name);
      auto kept = existing(entry);
      if (!kept) return fail(std::move(kept.error()));
      if (*kept) return Outcome::Kept;
      opened = ::openat(directory_.get(), name, kFlags, mode_of(entry) & 0777);
      if (opened < 0) return os_failure("write", entry.name);
    }
    const Descriptor file(opened);
    if (auto done = write_small(iso, entry, file.get()); !done) {
      ::unlinkat(directory_.get(), name, 0);
      return fail(std::move(done.error()));
    }
    finish_file(file.get(), entry);
    return Outcome::Written;
  }

  /// Straight from the mapped image: write() reports EFAULT where the image was made shorter, it does not raise SIGBUS.
  static Result<void> write_small(const SimpleIso9660& iso, const IsoEntry& entry, int file) {
    if (entry.size == 0) return {};
    if (stored_plainly(entry) && entry.extents().size() == 1) {
      if (auto bytes = iso.view(entry)) return write_all(file, *bytes);
    }
    auto written = iso.copy_to_descriptor(entry, file);
    if (!written) return fail(std::move(written.error()));
    return {};
  }

  Result<Outcome> add_large(const SimpleIso9660& iso, const IsoEntry& entry) {
    struct stat status{};
    if (::fstatat(directory_.get(), entry.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) {
      auto kept = existing(entry);
      if (!kept) return fail(std::move(kept.error()));
      if (*kept) return Outcome::Kept;
    }
    // The name is the record's: what a killed run left is replaced by the next.
    const std::string partial = ".vmp-partial-" + std::to_string(entry.record_offset);
    ::unlinkat(directory_.get(), partial.c_str(), 0);
    const Descriptor file(::openat(directory_.get(), partial.c_str(),
                                   O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode_of(entry) & 0777));
    if (file.get() < 0) return os_failure("write", entry.name);
    const auto give_up = [&](VmError error) {
      ::unlinkat(directory_.get(), partial.c_str(), 0);
      return fail(std::move(error));
    };
    if (auto written = iso.copy_to_descriptor(entry, file.get(), stop()); !written)
      return give_up(std::move(written.error()));
    finish_file(file.get(), entry);
    if (rename_new(partial, entry.name) != 0) return give_up(VmError::from_os(errno, "write", entry.name));
    return Outcome::Written;
  }

  /// Without replacing what someone else put there meanwhile, where the file system can.
  [[nodiscard]] int rename_new(const std::string& from, const std::string& to) const {
#ifdef __linux__
    if (::renameat2(directory_.get(), from.c_str(), directory_.get(), to.c_str(), RENAME_NOREPLACE) == 0) return 0;
    if (errno != EINVAL && errno != ENOSYS) return -1;
#endif
    return ::renameat(directory_.get(), from.c_str(), directory_.get(), to.c_str());
  }

  Counted counted_;  ///< Until the descriptor is closed.
  Descriptor directory_;
  std::shared_ptr<const Common> common_;
  std::shared_ptr<TargetDirectory> parent_;  ///< Restored after this one.
  bool restore_ = false;
  mode_t mode_ = 0;
  uid_t uid_ = 0;
  gid_t gid_ = 0;
  IsoTime modified_, accessed_;
};

}  // namespace

bool is_file_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

Result<std::shared_ptr<TargetDirectory>> open_target(const std::string& path, const IsoExtractOptions& options,
                                                     TargetState& state) {
  if (::mkdir(path.c_str(), 0777) != 0 && errno != EEXIST) return os_failure("make directory", path);
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return os_failure("open directory", path);
  // Above what a writer opens at a time there are the image, the standard streams, and what else the process has.
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
    state.most_open = limit.rlim_cur - std::min<rlim_t>(limit.rlim_cur / 4, 128);
  auto common = std::make_shared<const Common>(Common{options, state, masked_bits()});
  return std::make_shared<PosixDirectory>(descriptor, std::move(common), nullptr, nullptr);
}

}  // namespace vm_platform::iso
