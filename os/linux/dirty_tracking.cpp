// The kernel's ways of noticing writes.
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <system_error>
#include <thread>

#include "os/dirty_backend.hpp"
#include "os/fault_lock.hpp"
#include "os/linux/soft_dirty.hpp"
#include "os/linux/uffd.hpp"

namespace vm_platform {

unsigned long current_process() noexcept { return static_cast<unsigned long>(::getpid()); }

namespace {

// linux/fs.h, Linux 6.7 (Documentation/admin-guide/mm/pagemap.rst).
struct PageRegion {
  std::uint64_t start, end, categories;
};
struct PmScanArg {
  std::uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
  std::uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
static_assert(sizeof(PmScanArg) == 96);
constexpr unsigned long kPagemapScan = _IOWR('f', 16, PmScanArg);
constexpr std::uint64_t kWpMatching = 1, kCheckWpAsync = 2, kPageIsWritten = 2;

/// With asynchronous write protection the kernel itself gives the right to write back at a fault, and PAGEMAP_SCAN
/// finds the pages where it did and protects them again, all in one walk of the page tables.
class PagemapScan : public DirtyTracker::Backend {
 public:
  static Result<std::unique_ptr<Backend>> start(MappedMemory& memory) {
    auto made = std::make_unique<PagemapScan>(memory);
    auto watcher = uffd::open(uffd::kFeatureWpAsync | uffd::kFeatureWpUnpopulated | uffd::kFeatureWpHugetlbfsShmem);
    if (!watcher) return fail(watcher.error());
    made->pagemap_ = Descriptor(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
    if (!made->pagemap_) return fail(VmError::from_os(errno, "open", "/proc/self/pagemap"));
    if (auto done = uffd::watch(*watcher, memory.bytes()); !done) return fail(done.error());
    made->uffd_ = std::move(*watcher);
    if (auto done = uffd::protect(made->uffd_, memory.data(), memory.size(), true); !done) return fail(done.error());
    made->size = memory.size();
    made->page_size = memory.page_size();
    DirtyPages scratch{.words = std::vector<std::uint64_t>((memory.size() / memory.page_size() + 63) / 64)};
    if (auto done = made->collect(scratch); !done) return fail(done.error());
    return made;
  }
  explicit PagemapScan(MappedMemory& memory) : memory_(memory), regions_(4096) {}
  ~PagemapScan() override {
    if (uffd_ && is_ours()) uffd::unwatch(uffd_, memory_.bytes());
  }

  [[nodiscard]] DirtyMethod method() const noexcept override { return DirtyMethod::PagemapScan; }

  Result<void> collect(DirtyPages& pages) override {
    const auto begin = reinterpret_cast<std::uintptr_t>(memory_.data());
    PmScanArg scan{.size = sizeof scan,
                   .flags = kWpMatching | kCheckWpAsync,
                   .start = begin,
                   .end = begin + memory_.size(),
                   .walk_end = 0,
                   .vec = reinterpret_cast<std::uintptr_t>(regions_.data()),
                   .vec_len = regions_.size(),
                   .max_pages = 0,
                   .category_inverted = 0,
                   .category_mask = kPageIsWritten,
                   .category_anyof_mask = 0,
                   .return_mask = kPageIsWritten};
    while (scan.start < scan.end) {
      const int found = ::ioctl(pagemap_.get(), kPagemapScan, &scan);
      if (found < 0) {
        if (errno == EINTR) continue;
        if (errno == ENOTTY || errno == EINVAL)
          return fail(ErrorCode::Unsupported, "PAGEMAP_SCAN", "/proc/self/pagemap", "the kernel is older than 6.7");
        return fail(VmError::from_os(errno, "PAGEMAP_SCAN", "/proc/self/pagemap"));
      }
      for (std::size_t i = 0; i < static_cast<std::size_t>(found); ++i) {
        const PageRegion& region = regions_[i];
        mark(pages, (region.start - begin) / page_size, (region.end - region.start) / page_size);
      }
      scan.start = scan.walk_end;
    }
    return {};
  }

 private:
  MappedMemory& memory_;
  Descriptor uffd_;  // only once it watches
  Descriptor pagemap_;
  std::vector<PageRegion> regions_;
};

}  // namespace

Result<SoftDirtyFiles> SoftDirtyFiles::open() {
  SoftDirtyFiles files{.pagemap = Descriptor(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)),
                       .clear_refs = Descriptor(::open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC))};
  if (!files.pagemap || !files.clear_refs) return fail(VmError::from_os(errno, "open", "/proc/self/clear_refs"));
  auto fresh = MappedMemory::create_private(host_page_size());
  if (!fresh) return fail(fresh.error());
  *static_cast<volatile std::byte*>(fresh->data()) = std::byte{1};
  std::uint64_t entry = 0;
  const auto at = reinterpret_cast<std::uintptr_t>(fresh->data()) / host_page_size() * sizeof entry;
  if (::pread(files.pagemap.get(), &entry, sizeof entry, static_cast<off_t>(at)) != sizeof entry)
    return fail(VmError::from_os(errno, "read", "/proc/self/pagemap"));
  if ((entry & kSoftDirty) != 0) return files;
  return fail(ErrorCode::Unsupported, "clear soft-dirty bits", "this process", "no CONFIG_MEM_SOFT_DIRTY");
}

namespace {

/// Clearing the bits is for the whole process at once, so only one tracker of this kind can exist; and what is written
/// between reading and clearing is lost, so writers have to stand still.
class SoftDirty : public DirtyTracker::Backend {
 public:
  static Result<std::unique_ptr<Backend>> start(MappedMemory& memory) {
    if (in_use().exchange(true))
      return fail(ErrorCode::Busy, "clear soft-dirty bits", "this process", "another tracker uses them");
    auto made = std::make_unique<SoftDirty>(memory);
    made->size = memory.size();
    made->page_size = memory.page_size();
    auto files = SoftDirtyFiles::open();
    if (!files) return fail(files.error());
    made->files_ = std::move(*files);
    if (auto done = made->clear(); !done) return fail(done.error());
    return made;
  }
  explicit SoftDirty(MappedMemory& memory) : memory_(memory) {}
  ~SoftDirty() override { in_use() = false; }

  [[nodiscard]] DirtyMethod method() const noexcept override { return DirtyMethod::SoftDirty; }

  Result<void> collect(DirtyPages& pages) override {
    if (auto done = read_bits(pages); !done) return done;
    return clear();
  }

 private:
  static std::atomic<bool>& in_use() {
    static std::atomic<bool> used = false;
    return used;
  }
  Result<void> read_bits(DirtyPages& pages) {
    std::array<std::uint64_t, 8192> entries{};
    const std::uint64_t first = reinterpret_cast<std::uintptr_t>(memory_.data()) / host_page_size();
    const std::uint64_t total = size / page_size, per = page_size / host_page_size();
    for (std::uint64_t page = 0; page < total * per;) {
      const std::uint64_t count = std::min<std::uint64_t>(entries.size(), total * per - page);
      const ssize_t got =
          ::pread(files_.pagemap.get(), entries.data(), count * 8, static_cast<off_t>((first + page) * 8));
      if (got <= 0) return fail(VmError::from_os(errno, "read", "/proc/self/pagemap"));
      for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(got) / 8; ++i, ++page)
        if ((entries[i] & kSoftDirty) != 0) mark(pages, page / per, 1);
    }
    return {};
  }
  Result<void> clear() const {
    if (::pwrite(files_.clear_refs.get(), "4", 1, 0) == 1) return {};
    return fail(VmError::from_os(errno, "write", "/proc/self/clear_refs"));
  }

  MappedMemory& memory_;
  SoftDirtyFiles files_;
};

/// Write-protection faults come as messages to a thread, which notes the page and lets the writer go on.
class Userfaultfd : public DirtyTracker::Backend {
 public:
  static Result<std::unique_ptr<Backend>> start(MappedMemory& memory) {
    auto made = std::make_unique<Userfaultfd>(memory);
    const std::uint64_t offered = uffd::features();
    if ((offered & UFFD_FEATURE_PAGEFAULT_FLAG_WP) == 0) {
      if (const auto allowed = uffd::open(0); !allowed) return fail(allowed.error());
      return fail(ErrorCode::Unsupported, "userfaultfd", "", "no write protection (Linux 5.7, on arm64 6.10)");
    }
    if (memory.shared() && (offered & uffd::kFeatureWpHugetlbfsShmem) == 0)
      return fail(ErrorCode::Unsupported, "userfaultfd", "", "no write protection of shared memory (Linux 5.19)");
    const bool unpopulated = (offered & uffd::kFeatureWpUnpopulated) != 0;
    auto watcher = uffd::open(
        offered & (UFFD_FEATURE_PAGEFAULT_FLAG_WP | uffd::kFeatureWpHugetlbfsShmem | uffd::kFeatureWpUnpopulated));
    if (!watcher) return fail(watcher.error());
    made->stop_ = Descriptor(::eventfd(0, EFD_CLOEXEC));
    if (!made->stop_) return fail(VmError::from_os(errno, "eventfd", ""));
    // Before Linux 6.4 a private page that does not exist yet cannot be protected: it has to exist.
    if (!unpopulated && !memory.shared()) {
      volatile std::byte* data = memory.data();
      for (std::uint64_t at = 0; at < memory.size(); at += host_page_size()) (void)data[at];
    }
    if (auto done = uffd::watch(*watcher, memory.bytes()); !done) return fail(done.error());
    made->uffd_ = std::move(*watcher);
    made->size = memory.size();
    made->page_size = memory.page_size();
    if (auto done = made->start_thread(); !done) return fail(done.error());
    if (auto done = uffd::protect(made->uffd_, memory.data(), memory.size(), true); !done) return fail(done.error());
    return made;
  }
  explicit Userfaultfd(MappedMemory& memory) : memory_(memory), bits_((memory.size() / memory.page_size() + 63) / 64) {}
  ~Userfaultfd() override {
    if (!is_ours()) {
      (void)thread_.release();  // it runs in the parent; here there is nothing to join
      return;
    }
    if (thread_) {
      (void)uffd::protect(uffd_, memory_.data(), memory_.size(), false);
      const std::uint64_t one = 1;
      if (::write(stop_.get(), &one, sizeof one) == sizeof one) thread_->join();
    }
    if (uffd_) uffd::unwatch(uffd_, memory_.bytes());
  }

  [[nodiscard]] DirtyMethod method() const noexcept override { return DirtyMethod::Userfaultfd; }

  Result<void> collect(DirtyPages& pages) override {
    // The lock is given up between stretches, so that a writer waits for one of them and not for all.
    for (std::size_t first = 0; first < bits_.size(); first += kStretch) {
      const std::size_t end = std::min(first + kStretch, bits_.size());
      const FaultLock::Guard guard(lock_);
      unsigned dirty = 0;
      for (std::size_t i = first; i < end; ++i) {
        pages.words[i] = bits_[i].exchange(0, std::memory_order_relaxed);
        dirty += static_cast<unsigned>(std::popcount(pages.words[i]));
      }
      // All others are protected still. Many single ones cost more than walking over everything between them.
      const auto protect = [this](std::uint64_t page, std::uint64_t count) {
        return uffd::protect(uffd_, memory_.data() + page * page_size, count * page_size, true);
      };
      auto done = dirty > kManyDirty
                      ? protect(first * 64, std::min<std::uint64_t>(end * 64, size / page_size) - first * 64)
                      : for_each_run(std::span(pages.words).subspan(first, end - first), first * 64, protect);
      if (done) continue;
      // Some are not protected, so nobody would hear of their next write: they stay dirty.
      for (std::size_t i = first; i < end; ++i) bits_[i].fetch_or(pages.words[i], std::memory_order_relaxed);
      return done;
    }
    return {};
  }

 private:
  static constexpr unsigned kManyDirty = 64;  // of the 1024 pages of a stretch

  /// The thread takes no signals: a handler that writes into the memory would wait for the very thread it runs on.
  Result<void> start_thread() {
    const HoldSignals held;  // a new thread begins with what is held here
    try {
      thread_ = std::make_unique<std::thread>([this] { serve(); });
    } catch (const std::system_error& error) {
      return fail(VmError::from_os(error.code().value(), "start a thread", "userfaultfd"));
    }
    return {};
  }

  void serve() {
    std::array<pollfd, 2> wait = {
        {{.fd = uffd_.get(), .events = POLLIN, .revents = 0}, {.fd = stop_.get(), .events = POLLIN, .revents = 0}}};
    std::array<uffd_msg, 64> messages{};
    for (;;) {
      if (::poll(wait.data(), wait.size(), -1) < 0 && errno != EINTR) return;
      if ((wait[1].revents & POLLIN) != 0) return;
      const ssize_t got = ::read(uffd_.get(), messages.data(), sizeof messages);
      for (std::size_t i = 0; got > 0 && i < static_cast<std::size_t>(got) / sizeof(uffd_msg); ++i) {
        if (messages[i].event != UFFD_EVENT_PAGEFAULT) continue;
        const auto address = static_cast<std::uintptr_t>(messages[i].arg.pagefault.address);
        const std::uint64_t page = (address - reinterpret_cast<std::uintptr_t>(memory_.data())) / page_size;
        const FaultLock::Guard guard(lock_);
        bits_[page / 64].fetch_or(1ULL << (page % 64), std::memory_order_relaxed);
        (void)uffd::protect(uffd_, memory_.data() + page * page_size, page_size, false);
      }
    }
  }

  MappedMemory& memory_;
  Descriptor uffd_;  // only once it watches
  Descriptor stop_;
  std::vector<std::atomic<std::uint64_t>> bits_;
  FaultLock lock_;
  std::unique_ptr<std::thread> thread_;
};

}  // namespace

Result<void> check_read_write(const MappedMemory& memory) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> maps(std::fopen("/proc/self/maps", "re"), std::fclose);
  if (!maps) return {};  // a jail: its word is taken for it
  auto at = reinterpret_cast<std::uintptr_t>(memory.data());
  const std::uintptr_t end = at + memory.size();
  std::array<char, 4096 + 128> line{};  // the longest path, and what stands ahead of it
  while (at < end && std::fgets(line.data(), line.size(), maps.get()) != nullptr) {
    std::uintptr_t from = 0, to = 0;
    std::array<char, 5> access{};
    if (std::sscanf(line.data(), "%" SCNxPTR "-%" SCNxPTR " %4s", &from, &to, access.data()) != 3) continue;
    if (from <= at && at < to && std::string_view(access.data()).starts_with("rw-")) at = to;
  }
  if (at >= end) return {};
  return fail(ErrorCode::Unsupported, "track changes", "memory", "not all of it can be read and written");
}

std::span<const DirtyMethod> host_dirty_methods() noexcept {
  static constexpr std::array kMethods = {DirtyMethod::PagemapScan, DirtyMethod::Userfaultfd, DirtyMethod::ProtectFault,
                                          DirtyMethod::SoftDirty};
  return kMethods;
}

Result<std::unique_ptr<DirtyTracker::Backend>> start_dirty_backend(DirtyMethod method, MappedMemory& memory) {
  switch (method) {
    case DirtyMethod::PagemapScan: return PagemapScan::start(memory);
    case DirtyMethod::SoftDirty: return SoftDirty::start(memory);
    case DirtyMethod::Userfaultfd: return Userfaultfd::start(memory);
    default: return fail(ErrorCode::Unsupported, "track changes", std::string(to_string(method)), "not on Linux");
  }
}

}  // namespace vm_platform
