// Choosing the method, and the method that every host has: protection and faults.
#include <algorithm>
#include <bit>
#include <utility>
#include <vm_platform/signals.hpp>

#include "os/dirty_backend.hpp"
#include "os/fault_lock.hpp"

namespace vm_platform {

std::string_view to_string(DirtyMethod method) noexcept {
  switch (method) {
    case DirtyMethod::PagemapScan: return "pagemap-scan";
    case DirtyMethod::SoftDirty: return "soft-dirty";
    case DirtyMethod::Userfaultfd: return "userfaultfd";
    case DirtyMethod::WriteWatch: return "write-watch";
    case DirtyMethod::ProtectFault: return "protect-fault";
  }
  return "";
}

namespace {

class ProtectFault : public DirtyTracker::Backend {
 public:
  explicit ProtectFault(MappedMemory& memory)
      : memory_(memory), bits_((memory.size() / memory.page_size() + 63) / 64) {}

  ~ProtectFault() override {
    // Writable first: from then on nobody faults, and the handler may go.
    (void)memory_.protect(0, 0, MemoryProtection::ReadWrite);
  }

  Result<void> begin() {
    auto handler = register_sigsegv_handler(memory_.bytes(), on_fault, this);
    if (!handler) return fail(handler.error());
    handler_ = std::move(*handler);
    return memory_.protect(0, 0, MemoryProtection::Read);
  }

  [[nodiscard]] DirtyMethod method() const noexcept override { return DirtyMethod::ProtectFault; }

  Result<void> collect(DirtyPages& pages) override {
    // The lock is given up between stretches, so that a writer waits for one of them and not for all.
    for (std::size_t first = 0; first < bits_.size(); first += kStretch) {
      const FaultLock::Guard guard(lock_);
      if (!all_ && collect_stretch(pages, first)) continue;
      // The kernel has no mapping left to tell pages apart with. Protected as a whole they need only one.
      mark(pages, 0, size / page_size);
      for (auto& word : bits_) word.store(0, std::memory_order_relaxed);
      auto done = memory_.protect(0, 0, MemoryProtection::Read);
      all_ = !done;  // some may be open
      return done;
    }
    return {};
  }

 private:
  Result<void> collect_stretch(DirtyPages& pages, std::size_t first) {
    const std::size_t end = std::min(first + kStretch, bits_.size());
    for (std::size_t i = first; i < end; ++i) pages.words[i] = bits_[i].exchange(0, std::memory_order_relaxed);
    return for_each_run(std::span(pages.words).subspan(first, end - first), first * 64,
                        [this](std::uint64_t page, std::uint64_t count) {
                          return memory_.protect(page * page_size, count * page_size, MemoryProtection::Read);
                        });
  }

  /// Without the checks and messages of MappedMemory: this runs in a signal handler.
  static FaultAction on_fault(Fault& fault, void* user) noexcept {
    if (fault.access() == FaultAccess::Execute) return FaultAction::Pass;
    auto& self = *static_cast<ProtectFault*>(user);
    const auto page = (fault.address() - reinterpret_cast<std::uintptr_t>(self.memory_.data())) / self.page_size;
    std::byte* at = self.memory_.data() + page * self.page_size;
    // In a forked child nobody collects, and a thread of the parent may have had the lock.
    if (!self.is_ours()) return fault_host::unprotect(at, self.page_size) ? FaultAction::Resume : FaultAction::Pass;
    const FaultLock::Guard guard(self.lock_);
    // Every isolated writable page costs two more mappings; at the limit the whole range is opened and counts as dirty.
    if (!fault_host::unprotect(at, self.page_size)) {
      if (!fault_host::unprotect(self.memory_.data(), self.size)) return FaultAction::Pass;
      self.all_ = true;
    }
    self.bits_[page / 64].fetch_or(1ULL << (page % 64), std::memory_order_relaxed);
    return FaultAction::Resume;
  }

  MappedMemory& memory_;
  std::vector<std::atomic<std::uint64_t>> bits_;
  bool all_ = false;  // all pages count as dirty, whatever their bits
  FaultLock lock_;    // between handlers and the collector
  SignalHandler handler_;
};

}  // namespace

Result<std::unique_ptr<DirtyTracker::Backend>> start_protect_fault(MappedMemory& memory) {
  // Nobody keeps what else a page may be, and none may become accessible by being tracked.
  if (auto done = check_read_write(memory); !done) return fail(done.error());
  auto backend = std::make_unique<ProtectFault>(memory);
  backend->size = memory.size();
  backend->page_size = memory.page_size();
  if (auto done = backend->begin(); !done) return fail(done.error());
  return backend;
}

DirtyTracker::DirtyTracker() noexcept = default;
DirtyTracker::DirtyTracker(DirtyTracker&&) noexcept = default;
DirtyTracker& DirtyTracker::operator=(DirtyTracker&& other) noexcept {
  std::swap(backend_, other.backend_);
  std::swap(reason_, other.reason_);
  return *this;
}
DirtyTracker::~DirtyTracker() = default;
DirtyMethod DirtyTracker::method() const noexcept { return backend_->method(); }
const std::string& DirtyTracker::reason() const noexcept { return reason_; }

Result<DirtyTracker> DirtyTracker::start(MappedMemory& memory, const DirtyTrackingOptions& options) {
  if (memory.size() == 0 || memory.size() % memory.page_size() != 0)
    return fail(ErrorCode::InvalidArgument, "track changes", "memory", "nothing is mapped, or not in whole pages");
  DirtyTracker tracker;
  for (const DirtyMethod method : host_dirty_methods()) {
    if (options.method && method != *options.method) continue;
    auto backend =
        method == DirtyMethod::ProtectFault ? start_protect_fault(memory) : start_dirty_backend(method, memory);
    if (backend) {
      tracker.backend_ = std::move(*backend);
      return tracker;
    }
    tracker.reason_ +=
        (tracker.reason_.empty() ? "" : "; ") + std::string(to_string(method)) + ": " + backend.error().message();
  }
  if (tracker.reason_.empty()) tracker.reason_ = "this host does not know the method";
  return fail(ErrorCode::Unsupported, "track changes", std::to_string(memory.size()) + " bytes", tracker.reason_);
}

Result<void> DirtyTracker::collect(DirtyPages& pages) {
  if (!backend_) return fail(ErrorCode::Status, "collect changes", "memory", "not tracked");
  if (!backend_->is_ours()) {
    return fail(VmError(ErrorCode::Status, "collect changes", "memory", "a forked child cannot track for its parent")
                    .with_hint("start a tracker of its own in the child"));
  }
  pages.page_size = backend_->page_size;
  pages.words.assign((backend_->size / backend_->page_size + 63) / 64, 0);
  auto done = backend_->collect(pages);
  const bool forgot = std::exchange(backend_->forgot, !done);
  if (!done) return done;
  if (forgot) mark(pages, 0, backend_->size / backend_->page_size);
  pages.count = 0;
  for (const std::uint64_t word : pages.words) pages.count += static_cast<std::uint64_t>(std::popcount(word));
  return {};
}

}  // namespace vm_platform
